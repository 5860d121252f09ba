"""Penalties against NumPy, masks, and proximal steps with exact zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import losses

PARAMS = {
    "hidden": {"kernel": np.array([[3.0, -4.0], [0.0, 0.0], [1.0, 0.0]]), "bias": np.ones(2)},
    "output": {"kernel": np.array([[2.0], [-1.0]]), "bias": np.array([5.0])},
}


def test_values_are_numpys():
    kernels = losses.kernels_only
    assert losses.l1(PARAMS, 0.5, kernels) == 0.5 * (3 + 4 + 1 + 2 + 1)
    assert losses.l2(PARAMS, 0.5, kernels) == 0.5 * (9 + 16 + 1 + 4 + 1)
    assert losses.l1(PARAMS) == 11 + 2 + 5
    assert losses.l1({}) == 0
    assert losses.l1(PARAMS, 1.0, lambda path, leaf: path.startswith("output/")) == 8


@pytest.mark.parametrize(
    ("penalty", "wanted"),
    [(losses.l1, [[2.0, -2.0], [0, 0]]), (losses.l2, [[12.0, -16.0], [0, 0]])],
)
def test_gradients_are_finite_and_right(penalty, wanted):
    run = jax.jit(jax.value_and_grad(penalty, (0, 1)))
    params = {"w": jnp.array([[3.0, -4.0], [0.0, 0.0]])}
    value, (gradient, by_strength) = run(params, 2.0)
    assert value.dtype == jnp.float32 and value.shape == ()
    np.testing.assert_allclose(gradient["w"], wanted, rtol=1e-6)
    np.testing.assert_allclose(by_strength, value / 2, rtol=1e-6)
    half = {"w": params["w"].astype(jnp.bfloat16)}
    assert run(half, 2.0)[0] == value and run(half, 2.0)[1][0]["w"].dtype == jnp.bfloat16


def test_only_floats_are_penalised():
    params = {"w": np.ones(2), "steps": np.array(7), "key": jax.random.key(0)}
    assert losses.l1(params) == 2
    with pytest.raises(ValueError, match="matches none"):
        losses.l1(params, mask=lambda path, leaf: path != "w")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.l1(PARAMS, -1.0), r"strength must be .* of at least 0"),
        (lambda: losses.l2(PARAMS, np.nan), "strength must be a finite"),
        (lambda: losses.l1(PARAMS, [1.0, 2.0]), "strength must be a scalar"),
        (lambda: losses.l1(PARAMS, 1.0, lambda path, _: "kernle" in path), "none of .*hidden/ker"),
        (lambda: losses.proximal_l1(-0.1, 1.0), "learning_rate must be a finite"),
        (lambda: losses.proximal_l1(0.1, 1.0, lambda *_: False).init(PARAMS), "matches none"),
    ],
)
def test_invalid_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def shrunk(transformation, x):
    """What parameters become that another update brings to x."""
    params = {"w": jnp.asarray(x) - 1}
    state = transformation.init(params)
    updates, _ = transformation.update({"w": jnp.ones_like(params["w"])}, state, params)
    return np.asarray(optax.apply_updates(params, updates)["w"])


def test_proximal_steps_are_thresholds():
    x = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 3.0])
    wanted = np.sign(x) * np.maximum(np.abs(x) - 1, 0)
    np.testing.assert_array_equal(shrunk(losses.proximal_l1(0.5, 2.0), x), wanted)
    assert np.isnan(shrunk(losses.proximal_l1(0.5, 2.0), [np.nan]))


def test_schedules_and_exact_zeros_in_half_precision():
    schedule = optax.linear_schedule(1.0, 0.0, 2)
    shrink = losses.proximal_l1(schedule, lambda step: 0.5, lambda path, _: path == "w")
    params = {"w": jnp.array([0.3, 1.7], jnp.bfloat16), "b": jnp.ones(1)}
    state = shrink.init(params)
    found = []
    for _ in range(3):
        nothing = jax.tree.map(jnp.zeros_like, params)
        updates, state = jax.jit(shrink.update)(nothing, state, params)
        params = optax.apply_updates(params, updates)
        found.append(params["w"].astype(jnp.float32).tolist())
    assert [row[0] for row in found] == [0, 0, 0]
    np.testing.assert_allclose([row[1] for row in found], [1.2, 0.95, 0.95], atol=0.02)
    assert params["b"] == 1
    with pytest.raises(ValueError, match="params must be given"):
        shrink.update(nothing, state)
