"""The penalty that keeps a gradient's norm on its way back through time."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import monitor, train, trees

KEY = jax.random.key(0)


class Last(nn.Module):
    cell: nn.RNNCellBase

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.RNN(self.cell)(x)[:, -1])


def cross_entropy(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def linear_cell(scale):
    return nn.SimpleCell(
        4,
        activation_fn=lambda x: x,
        recurrent_kernel_init=nn.initializers.orthogonal(scale),
    )


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_is_the_square_of_what_an_orthogonal_step_takes_away(scale):
    x, y = jax.random.normal(KEY, (3, 7, 2)), jnp.array([0, 1, 0])
    model = Last(linear_cell(scale))
    penalty = monitor.preserving_penalty(model, cross_entropy)
    value = penalty(model.init(KEY, x), x, y)
    np.testing.assert_allclose(value, (scale - 1) ** 2, atol=1e-5)


def test_its_gradient_is_a_difference_quotient():
    x, y = jax.random.normal(KEY, (3, 5, 2)), jnp.array([0, 1, 0])
    model = Last(nn.SimpleCell(4, recurrent_kernel_init=nn.initializers.orthogonal(0.7)))
    penalty = jax.jit(monitor.preserving_penalty(model, cross_entropy))
    variables = model.init(KEY, x)
    gradient = jax.grad(penalty)(variables, x, y)
    norm = trees.global_norm(gradient)
    direction = jax.tree.map(lambda g: g / norm, gradient)
    ahead, behind = (
        penalty(jax.tree.map(lambda v, d, s=s: v + s * d, variables, direction), x, y)
        for s in (1e-2, -1e-2)
    )
    np.testing.assert_allclose((ahead - behind) / 2e-2, norm, rtol=0.02)


def test_a_model_without_cells_has_none():
    model = nn.Dense(2)
    x, y = jnp.ones((3, 2)), jnp.array([0, 1, 0])
    penalty = monitor.preserving_penalty(model, cross_entropy)
    assert penalty(model.init(KEY, x), x, y) == 0


def test_it_brings_back_what_a_contracting_recurrence_loses():
    """Remember the first of thirty symbols, with a state that is halved at every step."""
    noise = np.random.default_rng(0)
    x = noise.normal(size=(2000, 30, 4)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.int32)
    model = Last(nn.SimpleCell(16, recurrent_kernel_init=nn.initializers.orthogonal(0.5)))

    def trained(preserve):
        settings = {"num_steps": 500, "batch_size": 64, "key": KEY}
        settings["monitor"] = train.Monitor(preserve=preserve)
        return train.fit(model, cross_entropy, optax.adam(3e-3), (x, y), **settings)

    without, with_it = trained(0.0), trained(1.0)
    assert without.findings[0].symptom == "vanishing_through_time"
    assert np.median(with_it.history.gain[-10:]) > np.median(without.history.gain[-10:]) + 0.3
    # Of what a guess loses, ln 2, it saves some times as much.
    learned = [np.log(2) - fitted.loss_curve[-30:].mean() for fitted in (with_it, without)]
    assert learned[0] > 3 * max(learned[1], 0.01)
