"""Modules, precisions and outputs that Flax allows: trained, validated, watched and diagnosed.

What fails in the diagnosis is a warning, and so an error here.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4)).astype(np.float32)
Y = np.sin(X.sum(1)).astype(np.float32)


class Net(nn.Module):
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(8, param_dtype=self.dtype, dtype=self.dtype)(x))
        return nn.Dense(1, param_dtype=self.dtype, dtype=self.dtype)(x)


class Noisy(nn.Module):
    """Draws in evaluation too."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x + 0.1 * jax.random.normal(self.make_rng("noise"), x.shape))


class Sowing(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4)(x)
        self.sow("hidden", "first", x)
        return nn.Dense(1)(nn.tanh(x))


class Scaled(nn.Module):
    """Outputs with one scale for all examples, and what is no number to be averaged."""

    @nn.compact
    def __call__(self, x):
        mean = nn.Dense(1)(x)
        scale = self.param("log_scale", nn.initializers.zeros, ())
        return {"mean": mean, "log_scale": scale, "signs": mean > 0, "shape": jnp.zeros(3)}


class Bare(nn.Module):
    """No layer that can be listened to."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(), (4, 1))
        return x @ kernel, jnp.zeros(())


def squared(outputs, targets):
    return jnp.square(outputs[:, 0].astype(jnp.float32) - targets)


def likelihood(outputs, targets):
    log_scale = outputs["log_scale"]
    return squared(outputs["mean"], targets) * jnp.exp(-2 * log_scale) + log_scale


def fit(model=None, loss=squared, optimizer=None, **changes):
    settings = {"num_steps": 40, "batch_size": 16, "key": 0, "validation_data": (X[:9], Y[:9])}
    return train.fit(
        model or Net(), loss, optimizer or optax.adam(0.02), (X, Y), **settings | changes
    )


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (Noisy(), squared),
        (Sowing(), squared),
        (Scaled(), likelihood),
        (Bare(), lambda outputs, targets: squared(outputs[0], targets)),
        (
            nn.Dense(1, kernel_init=nn.with_partitioning(nn.initializers.normal(), ("a", "b"))),
            squared,
        ),
        (nn.Dense(1, param_dtype=jnp.complex64), lambda o, y: squared(jnp.abs(o), y)),
    ],
)
def test_modules_that_flax_allows(model, loss):
    fitted = fit(model, loss)
    assert fitted.history.accepted.all() and np.isfinite(fitted.history.after.loss)
    assert np.isfinite(fitted.validation_curve).all()
    whole, parts = fitted.predict(X), fitted.predict(X, batch_size=20)
    if not isinstance(model, Noisy):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, parts)
    assert np.isfinite(fitted.evaluate(X, Y)["loss"])


@pytest.mark.parametrize(("dtype", "rate"), [(jnp.bfloat16, 10.0), (jnp.float16, 1e-4)])
def test_parameters_in_half_precision(dtype, rate):
    fitted = fit(Net(dtype), optimizer=optax.sgd(rate), validation_data=None)
    assert np.isfinite(fitted.history.after.first_loss)
    leaves = jax.tree.leaves(fitted.params)
    assert all(leaf.dtype == dtype and np.isfinite(leaf).all() for leaf in leaves)


def test_batch_statistics_stay_finite():
    """A row of 1e25 has an infinite variance, and finite outputs."""

    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            x = nn.BatchNorm(use_running_average=not training, use_fast_variance=False)(x)
            return nn.Dense(1)(x)

    x = X.copy()
    x[5, 1] = 1e25
    fitted = train.fit(
        Normalized(), squared, optax.sgd(0.1), (x, Y), num_steps=30, batch_size=16, key=0
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.model_state))
    assert 5 <= (~fitted.history.accepted).sum() <= 15


def test_a_state_that_begins_at_infinity():
    class Lowest(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            lowest = self.variable("stats", "lowest", lambda: jnp.full(2, jnp.inf))
            if training:
                lowest.value = jnp.minimum(lowest.value, jnp.array([x.min(), jnp.inf]))
            return nn.Dense(1)(x)

    fitted = fit(Lowest())
    assert fitted.history.accepted.all()
    np.testing.assert_array_equal(fitted.model_state["stats"]["lowest"], [X.min(), np.inf])
