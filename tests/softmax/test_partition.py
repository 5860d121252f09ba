"""Blocks of similar classes as candidates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax.partition import Neighbourhoods, neighbourhood_candidates, neighbourhoods

cut = jax.jit(neighbourhoods, static_argnames="block_size")


@pytest.mark.parametrize("num_classes, block_size", [(1, 8), (5, 1), (100, 8)])
def test_a_partition_holds_every_class_once(key, num_classes, block_size):
    vectors = jax.random.normal(key, (num_classes, 4))
    parts = cut(vectors, key, block_size=block_size)
    members = np.asarray(parts.members)
    assert members.shape[1] <= block_size
    assert sorted(members[members < num_classes]) == list(range(num_classes))
    for block, row in enumerate(members):
        assert all(parts.block[c] == block for c in row if c < num_classes)


@pytest.mark.slow
def test_similar_classes_share_a_block(key):
    """32 tight clusters of 16: two members of a cluster meet far more often than by chance (3 %)."""
    centres = jax.random.normal(key, (32, 16))
    cluster = jnp.repeat(jnp.arange(32), 16)
    vectors = centres[cluster] + 0.05 * jax.random.normal(key, (512, 16))
    parts = cut(vectors, jax.random.key(1), block_size=16)
    together = np.mean(
        [np.asarray(parts.block[cluster == c] == parts.block[c * 16]).mean() for c in range(32)]
    )
    assert together > 0.7


def test_empty_slots_are_spread_over_the_blocks(key):
    parts = cut(jax.random.normal(key, (100, 4)), key, block_size=8)
    empty = np.asarray(parts.members == 100).sum(axis=1)
    assert empty.sum() == parts.members.size - 100
    assert empty.max() < parts.members.shape[1]


def test_the_partition_estimate_is_unbiased(key):
    """Mean over many draws of Σ exp(s)/count over the other classes against the exact sum."""
    num_classes, block_size, blocks_drawn, label = 100, 8, 4, 17
    vectors = jax.random.normal(key, (num_classes, 4))
    parts = cut(vectors, key, block_size=block_size)
    scores = vectors @ jnp.array([1.0, -0.5, 0.3, 0.8])
    num_blocks = parts.members.shape[0]
    share = jax.nn.softmax(jnp.linspace(-1.0, 1.0, num_blocks))

    def estimate(key):
        others = jax.random.choice(key, num_blocks, (blocks_drawn - 1,), p=share)
        blocks = jnp.concatenate([parts.block[jnp.array([label])], others])
        drawn = neighbourhood_candidates(parts, blocks, share, jnp.array([label]))
        ids, count = drawn.ids[0], drawn.expected_count[0]
        usable = (count > 0) & (ids != label)
        terms = jnp.exp(scores.at[ids].get(mode="fill", fill_value=0.0)) / jnp.maximum(count, 1e-9)
        return jnp.where(usable, terms, 0.0).sum()

    estimates = jax.jit(jax.vmap(estimate))(jax.random.split(key, 20_000))
    exact = jnp.exp(scores).sum() - jnp.exp(scores[label])
    error = estimates.std() / np.sqrt(20_000)
    assert abs(float(estimates.mean() - exact)) < 4 * float(error)


def test_labels_that_pad_a_batch_are_read_without_harm():
    parts = Neighbourhoods(jnp.array([[0, 1], [2, 3]]), jnp.array([0, 0, 1, 1]))
    drawn = neighbourhood_candidates(
        parts, jnp.array([0]), jnp.array([0.5, 0.5]), jnp.array([-1, 9])
    )
    assert bool(jnp.isfinite(drawn.expected_count).all())


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match=r"block_size must be .* at least 1, got 0"):
        neighbourhoods(jnp.ones((4, 2)), key, block_size=0)
    with pytest.raises(ValueError, match=r"vectors must be \[num_classes, dim\], got \(4,\)"):
        neighbourhoods(jnp.ones(4), key, block_size=2)
