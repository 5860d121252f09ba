"""The loop over blocks of classes (or examples), and its matrix products.

Scores of a block are [K, N], classes first: then the three products of a loss and its gradient need no
transpose of a large operand, which on a CPU would take twice the time.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxml import meshes
from jaxml.softmax.logits import at_most_float32, products
from jaxml.types import Array


def sweep(body: Callable[..., Any], carry: Any, count: int, block_size: int) -> Any:
    """Returns the last `carry = body(carry, start, size)` over [0, count); the last block may be smaller.

    `start` is an int32 scalar, and `size` an int, of which there are two values at most.

    >>> int(sweep(lambda total, start, size: total + size, jnp.int32(0), 10, 4))
    10
    """
    whole, rest = divmod(count, block_size)
    if whole:
        carry = meshes.fori_loop(
            0, whole, lambda i, carry: body(carry, i * block_size, block_size), carry
        )
    return body(carry, jnp.int32(count - rest), rest) if rest else carry


def columns(x: Array) -> Array:
    """Inputs [N, D] as [D, N] in memory. The barrier keeps XLA from transposing the rows instead."""
    return lax.optimization_barrier(x.T)


def scores(rows: Array, inputs: Array) -> Array:
    """Float32 [K, N] of a block's rows [K, D] and inputs that are `columns` [D, N]."""
    return products(rows, inputs, rows_are_columns=True)


def d_columns(rows: Array, d_scores: Array) -> Array:
    """The gradient of the inputs, as [D, N]; only the small operand is transposed."""
    rows = at_most_float32(rows)
    d_scores = d_scores.astype(rows.dtype)
    return jnp.dot(lax.optimization_barrier(rows.T), d_scores, preferred_element_type=jnp.float32)


def d_rows(x: Array, d_scores: Array) -> Array:
    """The gradient of the block's rows, float32 [K, D]; x is [N, D]."""
    x = at_most_float32(x)
    return jnp.dot(d_scores.astype(x.dtype), x, preferred_element_type=jnp.float32)


def over_true(
    step: Callable[[Array, Array, Array], Array], ids: Array, carry: Array, start: Array
) -> Array:
    """Returns the last `carry = step(carry, own, t)`, where `own` [K, N] marks the true classes number t.

    One true class at a time, compared and not scattered: unrolled while there are few, it fuses, and
    nothing of K · N · T elements is made.

    `carry` is [K, N], `ids` int32 [N, T], −1 for no class, and `start` the block's first class.
    """
    classes = start + lax.broadcasted_iota(jnp.int32, (carry.shape[0], 1), 0)

    def body(t: Array, carry: Array) -> Array:
        own = lax.dynamic_index_in_dim(ids, t, 1, keepdims=False)[None] == classes
        return step(carry, own, t)

    count = ids.shape[1]
    return meshes.fori_loop(0, count, body, carry, unroll=max(1, min(count, 8)))


def write(whole: Array, block: Array, start: Array) -> Array:
    """The array with a block of rows from `start` on; in place where it is a loop's carry."""
    return lax.dynamic_update_slice_in_dim(whole, block.astype(whole.dtype), start, 0)
