"""Hard candidates in blocks: classes with similar vectors are drawn together.

Uniform candidates are easy: among 4,096 of 234,908 classes hardly one could be mistaken for the true class,
so the gradient teaches little. Here the classes are cut into blocks of similar ones, a batch holds a few
examples from each of a few blocks, and the candidates are all classes of these blocks. Every example meets
its own neighbourhood whole and, at no extra cost, the other blocks as a random sample of the rest. The
expected count of each class is known, so the partition estimate is unbiased.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxml import checks, meshes
from jaxml.ids import as_int32
from jaxml.keys import as_key
from jaxml.softmax.samplers import Candidates
from jaxml.types import Array, Key

# Members of a node that its principal direction is estimated from.
_PROBE = 256


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Neighbourhoods:
    """A partition of the classes into blocks of similar ones.

    Attributes:
        members: int32 [num_blocks, block_size], the classes of each block; `num_classes` where a slot
            is empty (blocks are of one size, the classes need not divide).
        block: int32 [num_classes], the block of each class.
    """

    members: Array
    block: Array


@meshes.laid_out_as(None)
@functools.partial(jax.jit, static_argnames="block_size")
def neighbourhoods(vectors: Array, key: Key, *, block_size: int) -> Neighbourhoods:
    """Returns blocks of classes with similar vectors, from a balanced tree of principal directions.

    All classes start in one node; each level cuts every node at the median of the projections on the
    leading principal direction of (a probe of) its members, until nodes hold at most `block_size`.

    `vectors` [num_classes, dim] are those that the scores use. The number of blocks is a power of two, and
    each has at most `block_size` slots. Another key cuts differently: over several partitions a class meets
    the neighbours that one cut took from it. Time is O(num_classes · dim · log num_blocks), memory a few
    copies of `vectors`.

    Example:
        >>> vectors = jnp.array([[0.0], [9.0], [1.0], [8.0]])
        >>> parts = neighbourhoods(vectors, jax.random.key(0), block_size=2)
        >>> sorted(sorted(row) for row in parts.members.tolist())
        [[0, 2], [1, 3]]
    """
    block_size = checks.integer("block_size", block_size, 1)
    if vectors.ndim != 2 or not vectors.shape[0]:
        raise ValueError(f"vectors must be [num_classes, dim], got {vectors.shape}")
    num_classes = vectors.shape[0]
    depth = max(0, math.ceil(math.log2(num_classes / block_size)))
    num_blocks = 2**depth
    slots = -(-num_classes // num_blocks) * num_blocks

    # An empty slot copies the vector of a random class, so that empty slots spread evenly over blocks.
    order_key, decoy_key, key = jax.random.split(as_key(key), 3)
    stands_for = jnp.concatenate(
        [
            jax.random.permutation(order_key, num_classes),
            jax.random.randint(decoy_key, (slots - num_classes,), 0, num_classes, jnp.int32),
        ]
    )
    order = jax.random.permutation(key, slots)
    for level in range(depth):
        order = _cut(
            vectors, stands_for, order.reshape(2**level, -1), jax.random.fold_in(key, level)
        )
    order = order.reshape(num_blocks, -1)
    members = jnp.where(order < num_classes, stands_for[order], num_classes).astype(jnp.int32)
    block = (
        jnp.zeros(num_classes, jnp.int32)
        .at[members]
        .set(jnp.arange(num_blocks, dtype=jnp.int32)[:, None], mode="drop")
    )
    return Neighbourhoods(members, block)


def _cut(vectors: Array, stands_for: Array, order: Array, key: Key) -> Array:
    """Sorts each node `[nodes, size]` by its members' projection on its principal direction."""
    nodes, size = order.shape
    columns = jax.random.randint(key, (nodes, min(size, _PROBE)), 0, size, jnp.int32)
    probe = vectors[stands_for[jnp.take_along_axis(order, columns, axis=1)]].astype(jnp.float32)
    probe -= probe.mean(axis=1, keepdims=True)
    direction = probe[:, 0]
    for _ in range(3):
        direction = jnp.einsum("npd,np->nd", probe, jnp.einsum("npd,nd->np", probe, direction))
        direction /= jnp.linalg.norm(direction, axis=-1, keepdims=True) + 1e-30
    nodes_vectors = vectors[stands_for[order]].astype(jnp.float32)
    projections = jnp.einsum("nsd,nd->ns", nodes_vectors, direction)
    return jnp.take_along_axis(order, jnp.argsort(projections, axis=1), axis=1)


@meshes.laid_out_as("labels")
def neighbourhood_candidates(
    parts: Neighbourhoods, blocks: Array, share: Array, labels: Array
) -> Candidates:
    """Returns all classes of the blocks of a batch, with their expected counts.

    With K blocks, one of them the example's own and the others drawn with probability `share`, the expected
    count of class c is

        count(i, c) = [block(c) = block(label i)] + (K − 1) · share(block(c))

    for example i. Given these counts, `correction="negatives"` estimates the partition over the other
    classes without bias: the own neighbourhood exactly, the rest from a sample.

    Args:
        parts: as `neighbourhoods` returns them.
        blocks: int32 [K], the blocks of the batch; one that occurs twice gives its classes twice.
        share: float32 [num_blocks], how often each block is drawn; sums to one.
        labels: int32 [B], one class each, of a block among `blocks`. One out of range, of a padding
            example, is read as class 0 or the last: mask it in the loss.

    Returns:
        Candidates with ids and expected_count [B, S], S = K · block_size. The ids of all examples are the
        same: their rows may be gathered once, by `parts.members[blocks]`.

    Example:
        >>> parts = Neighbourhoods(jnp.array([[0, 1], [2, 3]]), jnp.array([0, 0, 1, 1]))
        >>> drawn = neighbourhood_candidates(
        ...     parts, jnp.array([0, 1]), jnp.array([0.5, 0.5]), jnp.array([1, 2]))
        >>> drawn.expected_count.tolist()
        [[1.5, 1.5, 0.5, 0.5], [0.5, 0.5, 1.5, 1.5]]
    """
    num_classes = parts.block.shape[0]
    ids = parts.members[blocks].reshape(-1)
    elsewhere = (blocks.shape[0] - 1) * jnp.asarray(share, jnp.float32)
    own = parts.block[jnp.clip(as_int32("labels", labels), 0, num_classes - 1)]
    block_of_slot = jnp.repeat(blocks, parts.members.shape[1])
    is_own = own[:, None] == block_of_slot[None, :]
    count = jnp.where(is_own, 1.0, 0.0) + elsewhere[block_of_slot][None, :]
    count = jnp.where((ids < num_classes)[None, :], count, 0.0)
    return Candidates(
        ids=jnp.broadcast_to(ids, count.shape),
        expected_count=count,
        true_expected_count=1.0 + elsewhere[own],
    )
