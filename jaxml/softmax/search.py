"""Exact search: the best classes of a query, without the scores of all classes at once."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxml import checks, meshes
from jaxml.softmax.logits import aligned, checked_table, products
from jaxml.softmax.sweeps import sweep
from jaxml.types import Array


@meshes.laid_out_as("inputs")
def top_k(
    inputs, weights, biases=None, *, k: int, block_size: int | None = None
) -> tuple[Array, Array]:
    """Returns the k highest-scoring classes of each input, in memory that does not grow with C.

        score_c = inputs · weights_c + biases_c

    `block_size` classes are scored at once (by default about 2²⁵ scores, and never more than a quarter of
    the classes, or k), and each block is merged into the k best so far.

    Returns:
        `(scores, ids)`, float32 and int32 [*batch, k], best first; of equal scores the lower id comes
        first, and classes with a bias of −inf last. A score of NaN counts as the highest, so that a broken
        row shows.

    >>> scores, ids = top_k(jnp.ones((1, 1)), jnp.array([[3.0], [1.0], [4.0], [3.0]]), k=3)
    >>> print(scores, ids)
    [[4. 3. 3.]] [[2 0 3]]
    """
    return _search(*_checked(inputs, weights, biases, k, block_size))


@meshes.laid_out_as("inputs")
def top_k_probabilities(
    inputs, weights, biases=None, *, k: int, block_size: int | None = None
) -> tuple[Array, Array]:
    """Returns the k most probable classes of each input, with their probabilities among all classes.

        p_c = exp(score_c − log Σ_j exp(score_j))

    It reads the classes once, and is otherwise as `top_k`.

    Returns:
        `(probabilities, ids)`, float32 and int32 [*batch, k], best first; NaN if a score is NaN or +inf, or
        every one −inf.

    >>> probabilities, ids = top_k_probabilities(jnp.ones((1, 1)), jnp.log(jnp.array([[1.0], [3.0]])), k=1)
    >>> print(probabilities.round(2), ids)
    [[0.75]] [[1]]
    """
    (scores, ids), total = _probabilities(*_checked(inputs, weights, biases, k, block_size))
    return jnp.exp(scores - total[..., None]), ids


def _checked(inputs, weights, biases, k, block_size) -> tuple[Any, ...]:
    inputs, weights, biases = checked_table(inputs, weights, biases)
    num_classes = weights.shape[0]
    k = checks.integer("k", k, 1, num_classes)
    if block_size is None:
        block_size = _default_block_size(math.prod(inputs.shape[:-1]), num_classes, k)
    return inputs, weights, biases, k, checks.integer("block_size", block_size, 1)


# Compiled once, also for calls outside of `jit`.
@functools.partial(jax.jit, static_argnums=(3, 4))
def _search(inputs: Array, weights: Array, biases: Array | None, k: int, block_size: int):
    merge = functools.partial(with_block, k=k)
    return _over_blocks(merge, inputs, weights, biases, k, block_size)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _probabilities(inputs: Array, weights: Array, biases: Array | None, k: int, block_size: int):
    """Returns scores and ids of the k best, and log Σ exp of all scores."""

    def merge(carry, scores, start):
        total = jax.nn.logsumexp(scores, axis=-1)
        if carry is None:
            return with_block(None, scores, start, k), total
        return with_block(carry[0], scores, start, k), jnp.logaddexp(carry[1], total)

    return _over_blocks(merge, inputs, weights, biases, k, block_size)


def _over_blocks(
    merge: Callable[[Any, Array, Any], Any],
    inputs: Array,
    weights: Array,
    biases: Array | None,
    k: int,
    block_size: int,
) -> Any:
    """Returns the last `carry = merge(carry, scores, start)` over blocks of classes, from a carry of None.

    The first block holds k classes: no filler then ever competes with a score of −inf.
    """
    num_classes = weights.shape[0]

    def block(carry, start, size):
        rows = lax.dynamic_slice_in_dim(weights, start, size)
        scores = products(inputs, rows)
        if biases is not None:
            block_biases = lax.dynamic_slice_in_dim(biases, start, size).astype(jnp.float32)
            scores += aligned(block_biases, scores.ndim)
        return merge(carry, scores, start)

    first = min(num_classes, -(-k // block_size) * block_size)
    carry = block(None, 0, first)
    return sweep(
        lambda carry, start, size: block(carry, start + first, size),
        carry,
        num_classes - first,
        block_size,
    )


def with_block(
    best: tuple[Array, Array] | None, scores: Array, start, k: int
) -> tuple[Array, Array]:
    """Returns the k best of `best` and of the scores [*batch, size] of a block of classes from `start` on.

    `best` are scores and ids [*batch, k]; None for the first block, which must hold k classes.
    """
    scores, ids = _contenders(scores, k)
    ids += start
    if best is not None:
        # The best so far have the lower ids, so they stand in front.
        scores = jnp.concatenate([best[0], scores], axis=-1)
        ids = jnp.concatenate([best[1], ids], axis=-1)
    scores, positions = lax.top_k(scores, k)
    return scores, jnp.take_along_axis(ids, positions, axis=-1)


def _default_block_size(num_queries: int, num_classes: int, k: int) -> int:
    # Large blocks make few selections, and a selection has a price of its own whatever its length.
    size = min(2**25 // max(num_queries, 1), 2**16)
    size = min(max(size, 2**12), max(num_classes // 4, 1))
    # A power of two can be cut into runs with nothing left over.
    return max(1 << (size.bit_length() - 1), k)


def _contenders(scores: Array, k: int) -> tuple[Array, Array]:
    """Returns fewer scores than [*batch, size], the k best among them, and their ids, ascending.

    Selecting costs much more per score than comparing. So find the maximum of each run of `width`
    neighbours first, and keep the k runs with the highest maxima: each of them holds a score that is
    higher than any outside, or as high with a lower id.
    """
    size = scores.shape[-1]
    ids = aligned(jnp.arange(size, dtype=jnp.int32), scores.ndim)
    # A power of two near √(size/k), which balances the two selections.
    width = 1 << ((size // k).bit_length() // 2)
    count = size // width
    if count <= k:
        return _totally_ordered(scores), jnp.broadcast_to(ids, scores.shape)

    runs = scores[..., : count * width].reshape(*scores.shape[:-1], count, width)
    _, best = lax.top_k(_totally_ordered(runs.max(-1)), k)
    best = jnp.sort(best, axis=-1)[..., None]
    flat = (*scores.shape[:-1], k * width)
    kept_scores = jnp.take_along_axis(runs, best, axis=-2).reshape(flat)
    kept_ids = (best * width + aligned(jnp.arange(width, dtype=jnp.int32), runs.ndim)).reshape(flat)
    # The end of the block that fills no run.
    rest = scores[..., count * width :]
    rest_ids = jnp.broadcast_to(ids[..., count * width :], rest.shape)
    return (
        _totally_ordered(jnp.concatenate([kept_scores, rest], axis=-1)),
        jnp.concatenate([kept_ids, rest_ids], axis=-1),
    )


def _totally_ordered(scores: Array) -> Array:
    """Makes −0 and 0 equal, and every NaN the highest: a sort distinguishes their signs."""
    return jnp.where(scores == 0, 0.0, jnp.where(jnp.isnan(scores), jnp.nan, scores))
