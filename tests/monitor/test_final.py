"""Final diagnostics against what is known of a model, of data and of optimizers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import models, monitor

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(300, 3)).astype(np.float32)
Y = X @ np.float32([1, 2, 0])
MODEL = models.from_linen(nn.Dense(1, use_bias=False))
FIRST = {"kernel": np.ones((3, 1), np.float32)}
LAST = {"kernel": np.float32([[1.0], [1.5], [0.5]])}


def squared(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


def compute(params, model_state, x, y, key, training):
    outputs, state = MODEL.apply({"params": params, **model_state}, x)
    return squared(outputs, y), outputs, state


def measure(optimizer, data=(X, Y), steps=3, curved=False, dtype=np.float32):
    first, last = (jax.tree.map(lambda leaf: leaf.astype(dtype), each) for each in (FIRST, LAST))
    guarded = monitor.guard(optimizer)
    state = guarded.init(last)
    gradient = {"kernel": jnp.full((3, 1), 0.01, dtype)}
    for _ in range(steps):
        _, state = guarded.update(gradient, state, last)
    diagnostics = monitor.FinalDiagnostics(compute, squared, lambda _: optimizer)
    return diagnostics.measure(
        data, first=(first, {}), last=(last, {}), opt_state=state, seed=0, curved=curved
    )


def test_losses_and_curvature():
    data = np.append(X, [[np.nan] * 3], axis=0), np.append(Y, np.float32(0))
    after = measure(optax.sgd(0.1), data, curved=True)
    # Wanted: kernel (1, 2, 0); the way from (1, 1, 1) goes half way there.
    loss = [np.mean(np.square(X @ [0, -f, f])) for f in (1.0, 0.5)]
    assert (after.first_loss, after.loss) == pytest.approx(loss, rel=1e-5)
    assert after.further[3.0] == pytest.approx(loss[1], rel=1e-4)
    answers = X @ LAST["kernel"][:, 0]
    constant = np.mean(np.square(np.median(answers) - Y))
    assert after.constant_loss == pytest.approx(constant, rel=1e-5)
    others = np.mean([np.square(answers[:, None] - Y[None])])
    assert after.mismatched_loss == pytest.approx(others, rel=0.1)
    largest = np.linalg.eigvalsh(2 * X.T @ X / len(X)).max()
    assert after.sharpness == pytest.approx((largest, largest), rel=0.2)
    assert not after.output_constant and after.equal_units == ()
    assert np.isnan(after.clips_at) and np.isnan(after.epsilon_share)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_in_half_precision(dtype):
    after, wanted = (measure(optax.sgd(0.1), curved=True, dtype=of) for of in (dtype, np.float32))
    assert after.sharpness == pytest.approx(wanted.sharpness, rel=0.05)
    assert after.loss == pytest.approx(wanted.loss, rel=0.05)
    first = jax.tree.map(lambda leaf: leaf.astype(dtype), FIRST)
    diagnostics = monitor.FinalDiagnostics(compute, squared, lambda _: optax.sgd(0.1))
    assert diagnostics.held_out((X, Y), (first, {}), seed=0)["held_out"] > 4


@pytest.mark.parametrize(
    ("optimizer", "divides"),
    [
        (optax.adam(0.1), False),
        (optax.adam(0.1, eps=0.0), True),
        (optax.rmsprop(0.1, eps=0.0), True),
        (optax.adamax(0.1, eps=0.0), True),
        (optax.contrib.normalize(), True),
        (optax.sgd(0.1), False),
    ],
)
def test_a_division_of_zero_by_zero(optimizer, divides):
    assert measure(optimizer).divides_by_zero == divides


def test_an_epsilon_of_0_in_half_precision():
    assert measure(optax.adam(0.1), dtype=jnp.float16).divides_by_zero
    assert not measure(optax.adam(0.1, eps=1e-4), dtype=jnp.float16).divides_by_zero


@pytest.mark.parametrize(
    ("optimizer", "clips_at", "epsilon"),
    [
        (optax.chain(optax.clip_by_global_norm(0.25), optax.sgd(0.1)), 0.25, None),
        (optax.chain(optax.clip_by_global_norm(1e-3), optax.adam(0.1)), 2.0**-10, None),
        (optax.adam(0.1), None, 0.0),
        (optax.adam(0.1, eps=1e3), None, 0.5),
        (optax.adam(0.1, mu_dtype=jnp.bfloat16), None, 0.0),
    ],
)
def test_what_is_read_off_an_optimizer(optimizer, clips_at, epsilon):
    after = measure(optimizer)
    if clips_at is None:
        assert np.isnan(after.clips_at)
    else:
        assert clips_at / 2 <= after.clips_at <= 2 * clips_at
    if epsilon is not None:
        assert after.epsilon_share == pytest.approx(epsilon, abs=0.01)


def test_what_is_called_nu_is_not_always_a_second_moment():
    """SM3 keeps its squares, a list for each parameter, as `mu`."""
    assert np.isnan(measure(optax.sm3(0.1)).epsilon_share)


def test_nothing_can_be_measured_without_finite_rows():
    after = measure(optax.sgd(0.1), (np.full_like(X, np.nan), Y))
    assert np.isnan([after.loss, after.first_loss, after.clips_at]).all()


def test_labels_that_depend_on_inputs_and_labels_that_do_not():
    diagnostics = monitor.FinalDiagnostics(compute, squared, lambda _: optax.sgd(0.1))
    noise = RANDOM.permutation(Y)
    found = [diagnostics.held_out((X, y), (FIRST, {}), seed=0)["held_out"] for y in (Y, noise)]
    assert found[0] > 4 > abs(found[1])
