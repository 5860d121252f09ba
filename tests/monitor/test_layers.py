"""Layers of a tree, and the norms of their tensors against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import monitor
from jaxml.monitor import layers


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e18])
def test_squares_and_norms_of_layers(scale):
    random = np.random.default_rng(0)
    tree = {
        "blocks": {"kernel": scale * random.normal(size=(3, 4, 2))},
        "out": {
            "bias": scale * random.normal(size=5),
            "kernel": scale * random.normal(size=(2, 5)),
        },
    }
    layout = monitor.layout(tree, stacked={("blocks",): 3})
    assert layout.names == ("blocks[0]", "blocks[1]", "blocks[2]", "out")
    number = [len(rows) for rows in layout.rows]
    leaves = [[jnp.asarray(leaf, jnp.float32)] for leaf in jax.tree.leaves(tree)]
    found = np.sqrt(np.asarray(layers.squares(leaves, number), np.float64))[None]
    own = [np.linalg.norm(each) for each in tree["blocks"]["kernel"]]
    out = np.linalg.norm(np.concatenate([leaf.ravel() for leaf in tree["out"].values()]))
    np.testing.assert_allclose(layers.join(found, layout), [[*own, out]], rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_what_is_not_finite_is_seen_in_and_beside_a_tensor(bad, dtype):
    fine, broken = jnp.ones(3, dtype), jnp.ones(3, dtype).at[1].set(bad)
    found = layers.squares([[fine, None], [broken, fine], [fine, fine, broken]], [1, 1, 1])
    assert np.isfinite(found).tolist() == [True, False, False]


def test_layers_are_in_the_order_of_the_calls_and_numbers_are_numbers():
    params = {f"Dense_{i}": {"kernel": jnp.ones(2), "bias": jnp.ones(1)} for i in (10, 2, 0)}
    assert monitor.layout(params).names == ("Dense_0", "Dense_2", "Dense_10")
    assert monitor.layout(params, [("Dense_10",)]).names == ("Dense_10", "Dense_0", "Dense_2")
    assert monitor.layout({}).names == ()
