"""Penalties against NumPy, masks, and proximal steps with exact zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso

from jaxml import losses
from jaxml.data import scikit

PARAMS = {
    "hidden": {"kernel": np.array([[3.0, -4.0], [0.0, 0.0], [1.0, 0.0]]), "bias": np.ones(2)},
    "output": {"kernel": np.array([[2.0], [-1.0]]), "bias": np.array([5.0])},
}
PENALTIES = {
    "l1": losses.l1,
    "l2": losses.l2,
    "elastic_net": lambda params, strength, mask=None: losses.elastic_net(
        params, strength, 0.5 * strength, mask
    ),
    "group": lambda params, strength, mask=None: losses.group(params, strength, mask=mask),
}
each = pytest.mark.parametrize("name", PENALTIES)


def test_values_are_numpys():
    kernels = losses.kernels_only
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    found = jax.jit(
        lambda: [
            losses.l1(PARAMS, 0.5, kernels),
            losses.l2(PARAMS, 0.5, kernels),
            losses.elastic_net(PARAMS, 0.5, 2.0, kernels),
            losses.group(PARAMS, 0.5, mask=kernels),
            losses.group(PARAMS, 1.0, 0, kernels),
            losses.group(PARAMS, 1.0, (0, 1), kernels),
            losses.group({"w": image}, 1.0, (0, -2)),
            losses.l1(PARAMS),
            losses.l1({}),
        ]
    )()
    wanted = [
        0.5 * (3 + 4 + 1 + 2 + 1),
        0.5 * (9 + 16 + 1 + 4 + 1),
        0.5 * 11 + 2 * 31,
        0.5 * (5 + 0 + 1 + 2 + 1),
        np.sqrt(10) + 4 + np.sqrt(5),
        np.sqrt(26) + np.sqrt(5),
        np.sqrt((image**2).sum((0, 2))).sum(),
        11 + 2 + 5,
        0,
    ]
    np.testing.assert_allclose(found, wanted, rtol=2e-6)


@each
def test_gradients_are_finite_and_right(name):
    run = jax.jit(jax.value_and_grad(PENALTIES[name], (0, 1)))
    params = {"w": jnp.array([[3.0, -4.0], [0.0, 0.0]])}
    value, (gradient, by_strength) = run(params, 2.0)
    assert value.dtype == jnp.float32 and value.shape == ()
    wanted = {
        "l1": [[2.0, -2.0], [0, 0]],
        "l2": [[12.0, -16.0], [0, 0]],
        "elastic_net": [[8.0, -10.0], [0, 0]],
        "group": [[1.2, -1.6], [0, 0]],
    }[name]
    np.testing.assert_allclose(gradient["w"], wanted, rtol=1e-6)
    np.testing.assert_allclose(by_strength, value / 2, rtol=1e-6)
    half = {"w": params["w"].astype(jnp.bfloat16)}
    assert run(half, 2.0)[0] == value and run(half, 2.0)[1][0]["w"].dtype == jnp.bfloat16


@each
def test_a_population_of_strengths_is_one_program(name):
    strengths = jnp.array([0.0, 1.0, 2.0])
    each_alone = jax.vmap(lambda s: PENALTIES[name](PARAMS, s, losses.matrices_only))(strengths)
    np.testing.assert_allclose(each_alone, each_alone[1] * strengths, rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        (None, 18),
        (losses.kernels_only, 11),
        (losses.matrices_only, 11),
        ({"hidden": True, "output": False}, 10),
        ({"hidden": {"kernel": True, "bias": False}, "output": np.bool_(False)}, 8),
        (lambda path, leaf: path == "output/bias", 5),
        (lambda path, leaf: path.startswith("output/"), 8),
        (True, 18),
    ],
)
def test_masks(mask, wanted):
    assert losses.l1(PARAMS, 1.0, mask) == wanted
    chosen = losses.parameter_mask(mask)(PARAMS)
    assert jax.tree.structure(chosen) == jax.tree.structure(PARAMS)
    assert all(type(leaf) is bool for leaf in jax.tree.leaves(chosen))


NOTHING = {"hidden": False, "output": False}


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (lambda path, leaf: "kernle" in path, "matches none of .*hidden/kernel"),
        (NOTHING, "matches none"),
        (False, "matches none"),
        ({"hidden": True}, "mask must have the structure"),
        ({"hidden": True, "outputs": True}, "mask must have the structure"),
        ({"hidden": {"kernel": {"deeper": True}, "bias": True}, "output": True}, "structure"),
        ({"hidden": 1, "output": 0}, "mask must hold True or False"),
        ({"hidden": np.ones(2, bool), "output": True}, "one True or False for a parameter"),
        (lambda path, leaf: jnp.any(leaf > 1) + 1, "mask must hold"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        losses.l1(PARAMS, 1.0, mask)


def test_only_floats_are_penalised():
    params = {"w": np.ones(2), "steps": np.array(7), "key": jax.random.key(0)}
    assert losses.l1(params) == 2
    with pytest.raises(ValueError, match="matches none"):
        losses.l1(params, mask={"w": False, "steps": True, "key": False})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.l1(PARAMS, -1.0), r"strength must be .* of at least 0"),
        (lambda: losses.l2(PARAMS, np.nan), "strength must be a finite"),
        (lambda: losses.elastic_net(PARAMS, 1.0, -1.0), "l2_strength must be a finite"),
        (lambda: losses.group(PARAMS, 1.0, 1), "axis must be among the 1 axes of 'hidden/bias'"),
        (lambda: losses.group(PARAMS, 1.0, (0, 0)), "each once"),
        (lambda: losses.l1(PARAMS, [1.0, 2.0]), "strength must be a scalar"),
        (lambda: losses.proximal_l1(-0.1, 1.0), "learning_rate must be a finite"),
        (lambda: losses.proximal_group(0.1, -1.0), "strength must be a finite"),
        (lambda: losses.proximal_l1(0.1, 1.0, NOTHING).init(PARAMS), "matches none"),
    ],
)
def test_invalid_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_group_norms_neither_overflow_nor_underflow():
    run = jax.jit(jax.value_and_grad(losses.group))
    for size in (1e-30, 1e30):
        value, gradient = run({"w": size * jnp.array([[3.0, 4.0]])})
        np.testing.assert_allclose(value, 5 * size, rtol=1e-6)
        np.testing.assert_allclose(gradient["w"], [[0.6, 0.8]], rtol=1e-6)


def shrunk(transformation, x):
    params = {"w": jnp.asarray(x)}
    state = transformation.init(params)
    updates, _ = transformation.update({"w": jnp.zeros_like(params["w"])}, state, params)
    return np.asarray(optax.apply_updates(params, updates)["w"])


def test_proximal_steps_are_thresholds():
    x = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 3.0])
    wanted = np.sign(x) * np.maximum(np.abs(x) - 1, 0)
    np.testing.assert_array_equal(shrunk(losses.proximal_l1(0.5, 2.0), x), wanted)
    assert np.isnan(shrunk(losses.proximal_l1(0.5, 2.0), [np.nan]))
    blocks = np.random.default_rng(0).normal(size=(3, 4, 2))
    norms = np.sqrt((blocks**2).sum((0, 2), keepdims=True))
    threshold = float(np.median(norms))
    wanted = blocks * np.maximum(1 - threshold / norms, 0)
    got = shrunk(losses.proximal_group(1.0, threshold, (0, -1)), blocks)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
    assert sorted((got == 0).all((0, 2)).tolist()) == [False, False, True, True]
    assert (shrunk(losses.proximal_group(1.0, 0.0), np.zeros((3, 2))) == 0).all()


X = scikit.scaled(scikit.diabetes()[0])
Y = scikit.diabetes()[1] - scikit.diabetes()[1].mean()


def descend(optimizer, num_steps=800):
    """Full-batch proximal gradient descent on the mean of the squared loss."""
    params = {"kernel": jnp.zeros((10, 1)), "bias": jnp.zeros(1)}

    def step(carry, _):
        params, state = carry

        def loss(params):
            outputs = jnp.matmul(X, params["kernel"], precision="highest")
            return losses.mean(losses.squared((outputs + params["bias"].reshape(1, 1))[:, 0], Y))

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), ()

    return jax.lax.scan(step, (params, optimizer.init(params)), length=num_steps)[0][0]


def test_the_lasso_is_scikit_learns():
    alphas = np.array([2.0, 10.0, 30.0])

    @jax.jit
    @jax.vmap
    def solve(strength):
        rate = 0.1
        shrink = losses.proximal_l1(rate, strength, losses.kernels_only)
        return descend(optax.chain(optax.sgd(rate), shrink))["kernel"][:, 0]

    ours = np.asarray(solve(2 * alphas))
    for alpha, found in zip(alphas, ours, strict=True):
        wanted = (
            Lasso(alpha=alpha, tol=1e-10, max_iter=100_000)
            .fit(X.astype(float), Y.astype(float))
            .coef_
        )
        np.testing.assert_array_equal(found == 0, wanted == 0)
        assert 0 < (found == 0).sum() < 10
        np.testing.assert_allclose(found, wanted, atol=1e-2)


def test_schedules_and_exact_zeros_in_half_precision():
    schedule = optax.linear_schedule(1.0, 0.0, 2)
    shrink = losses.proximal_l1(schedule, lambda step: 0.5, {"w": True, "b": False})
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


def test_whole_groups_become_zero():
    @jax.jit
    def solve(strength):
        rate = 0.1
        shrink = losses.proximal_group(rate, strength, 0, {"kernel": True, "bias": False})
        return descend(optax.chain(optax.sgd(rate), shrink), 200)["kernel"]

    # The gradient at 0 is -2 Xᵀy / n: at a strength of its norm, and only there, nothing is left.
    edge = np.linalg.norm(2 * X.T @ Y / len(Y))
    assert (np.asarray(solve(1.001 * edge)) == 0).all()
    assert (np.asarray(solve(0.95 * edge)) != 0).all()
