"""What is measured of a step, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import monitor
from jaxml.monitor import probes


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e18, 1e20, 1e35])
def test_norms_of_any_size(scale):
    values = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    tree = {"big": jnp.asarray(values * np.float32(scale)), "one": jnp.ones(3)}
    big, one = jax.jit(probes.leaf_norms)(tree)
    wanted = np.linalg.norm((values * np.float32(scale)).astype(np.float64))
    np.testing.assert_allclose(big, [wanted], rtol=1e-5)
    np.testing.assert_allclose(one, [np.sqrt(3)], rtol=1e-6)


def test_what_is_not_finite_is_infinite():
    norms = probes.leaf_norms({"a": jnp.array([1.0, jnp.nan]), "b": jnp.ones(2), "c": jnp.zeros(2)})
    assert [float(norm[0]) for norm in norms] == [np.inf, pytest.approx(np.sqrt(2)), 0.0]


def test_layers_are_in_the_order_of_the_calls_and_numbers_are_numbers():
    params = {f"Dense_{i}": {"kernel": jnp.ones(2), "bias": jnp.ones(1)} for i in (10, 2, 0)}
    assert monitor.layout(params).names == ("Dense_0", "Dense_2", "Dense_10")
    assert monitor.layout(params, [("Dense_10",)]).names == ("Dense_10", "Dense_0", "Dense_2")


def test_stacked_layers_are_told_apart():
    params = {
        "blocks": {"kernel": jnp.arange(1.0, 4)[:, None] * jnp.ones((3, 4))},
        "out": {"w": jnp.ones(9)},
    }
    where = monitor.layout(params, stacked={("blocks",): 3})
    assert where.names == ("blocks[0]", "blocks[1]", "blocks[2]", "out")
    np.testing.assert_allclose(monitor.layer_norms(params, where), [2, 4, 6, 3], rtol=1e-6)


def test_statistics_against_numpy():
    rng = np.random.default_rng(1)
    tree = {
        "a": {"kernel": rng.normal(size=(5, 3)), "bias": rng.normal(size=3)},
        "b": {"kernel": rng.normal(size=(3, 2))},
    }
    tree["a"]["kernel"][0] = 0
    tree["b"]["kernel"][1, 1] = np.nan
    gradients = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tree)
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), tree)
    updates = jax.tree.map(lambda leaf: jnp.full(leaf.shape, -0.5), tree)
    found = jax.jit(monitor.layer_statistics, static_argnums=3)(
        gradients, params, updates, monitor.layout(params)
    )
    a = np.concatenate(
        [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(gradients["a"])]
    )
    np.testing.assert_allclose(
        found[0],
        [np.linalg.norm(a), np.sqrt(18), np.sqrt(18) / 2, np.abs(a).max(), 0, 3],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        found[1], [np.inf, np.sqrt(6), np.sqrt(6) / 2, np.inf, 1, 0], rtol=1e-5
    )
    assert found.dtype == jnp.float32


def test_no_parameters_at_all():
    assert monitor.layout({}).names == ()
