"""Exact softmax a block of classes at a time: no [B, C] array exists.

The losses, their options and their numerics are those of `exact`. A sweep over the blocks keeps, for each
example, the largest logit and the sum of exponentials so far, both float32, and rescales the sum when the
largest grows (Milakov & Gimelshein, 2018). The gradient

    ∂loss/∂z_c = (1 + 2 ζ L) exp(z_c − L) − t_c

comes from a second sweep, which computes each block's logits again: four matrix products in place of three,
and the memory of one block in place of [B, C].

Source: Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxml import bfloat16, checks, meshes
from jaxml.softmax import sweeps
from jaxml.softmax.exact import (
    Data,
    Problem,
    Reduction,
    capped,
    losses_of,
    problem_of,
)
from jaxml.softmax.logits import LARGEST, infinite, products
from jaxml.softmax.search import with_block
from jaxml.types import Array, PyTree

# Logits of a block, [block, B]: few enough to stay in a core's cache while they are used.
_BLOCK_LOGITS = 2**20


@meshes.laid_out_as("inputs")
def blockwise_softmax_loss(
    inputs,
    labels,
    weights,
    biases=None,
    *,
    temperature=1.0,
    softcap=None,
    label_smoothing=0.0,
    z_loss=0.0,
    where=None,
    reduction: Reduction = "none",
    block_size: int | None = None,
    top_k: int | None = None,
) -> Any:
    """Returns `full_softmax_loss` in the memory of one block of classes.

    With more classes than `block_size` (by default about 2²⁰ logits a block) no array of B · C elements
    exists in the compiled program, forward or backward. A gradient takes two sweeps.

    >>> inputs, labels, weights = jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3))
    >>> blockwise_softmax_loss(inputs, labels, weights, block_size=2)  # log 4
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    checks.choice("reduction", reduction, ("none", "mean", "sum"))
    problem = problem_of(
        inputs, labels, weights, biases, temperature, softcap, label_smoothing, z_loss, where
    )
    k = 0 if top_k is None else checks.integer("top_k", top_k, 1, problem.weights.shape[0])
    options = _Options(_block_size(problem, block_size), k)
    scale = 1.0 / problem.temperature
    losses, _, best = _loss(
        options,
        *meshes.alike(problem.inputs, problem.weights, problem.biases, scale, problem.data),
    )
    result = problem.reduced(losses, reduction)
    if top_k is None:
        return result
    return result, tuple(x.reshape(*problem.batch, k) for x in best)


@meshes.laid_out_as(("inputs", "inputs", "table", "state"))
def blockwise_softmax_update(
    inputs,
    labels,
    table,
    state: PyTree,
    rule: Callable[[Array, PyTree, Array], tuple[Array, PyTree]],
    *,
    biases=None,
    temperature=1.0,
    softcap=None,
    label_smoothing=0.0,
    z_loss=0.0,
    where=None,
    block_size: int | None = None,
) -> tuple[Array, Array, Array, PyTree]:
    """Returns the table after one step of exact softmax training, without a [C, D] gradient.

    The first sweep computes the losses, the second a block's gradient of the *mean* loss (over the examples
    with a label), and passes it to `rule` with the block's rows. Under donation table and state are updated
    in place. If the mean loss is not finite, no bit of table and state changes, and `d_inputs` is 0.

    Args:
        inputs: [*batch, D]; this and the other arguments of the loss are described in `exact`.
        labels: integers.
        table: [C, D], any float, or uint16: the bits of a bfloat16 table.
        state: the slots of a row optimizer, a pytree of arrays with C rows.
        rule: `rule(rows, slots, gradients) -> (rows, slots)` for float32 rows [K, D], for example
            `tables.sgd(0.1).rule`. It is called for every class: momentum moves rows without a gradient,
            as in a dense optimizer.
        biases: [C] or None, constants.

    Returns:
        `(losses, d_inputs, table, state)`: float32 [*batch]; [*batch, D] in the inputs' dtype, the gradient
        of the mean loss at the old table; table and state after the step.

    >>> rule = lambda rows, slots, gradients: (rows - 0.1 * gradients, slots)
    >>> inputs, labels, table = jnp.ones((2, 3)), jnp.array([0, 0]), jnp.zeros((4, 3))
    >>> losses, d_inputs, table, state = blockwise_softmax_update(inputs, labels, table, {}, rule)
    >>> print(losses, table[:, 0])
    [1.3862944 1.3862944] [ 0.075 -0.025 -0.025 -0.025]
    """
    problem = problem_of(
        inputs, labels, table, biases, temperature, softcap, label_smoothing, z_loss, where
    )
    x, table, biases, data = problem.inputs, problem.weights, problem.biases, problem.data
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.shape(leaf)[:1] != table.shape[:1]:
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} must have {table.shape[0]} rows as the table has, "
                f"got shape {jnp.shape(leaf)}"
            )
    scale = 1.0 / problem.temperature
    options = _Options(_block_size(problem, block_size), 0)
    losses, log_partition, _ = _forward(options, x, table, biases, scale, data)
    losses = jnp.where(problem.refused, jnp.nan, losses)
    accepted = jnp.isfinite(losses.sum())
    share = jnp.where(data.counted, 1.0 / jnp.maximum(data.counted.sum(), 1), 0.0)
    columns = sweeps.columns(x)

    def step_block(carry, start: Array, size: int):
        d_columns, table, slots = carry
        block = _block(columns, table, biases, scale, data, start, size)
        d_scores = _d_scores(block, data, scale, share, log_partition, start)

        def step(_, kept):
            d_columns, rows, slots = kept
            narrow = rows.astype(block.rows.dtype)
            new_rows, new = rule(rows, slots, sweeps.d_rows(x, d_scores))
            new = jax.tree.map(lambda value, old: value.astype(old.dtype), new, slots)
            return d_columns + sweeps.d_columns(narrow, d_scores), new_rows, new

        old = jax.tree.map(lambda slot: lax.dynamic_slice_in_dim(slot, start, size), slots)
        kept = (d_columns, block.rows.astype(jnp.float32), old)
        # A loop of one turn, or of none: its start is read before anything is written, so that XLA need not
        # copy the whole table and its slots in every block.
        d_columns, rows, new = meshes.fori_loop(0, accepted.astype(jnp.int32), step, kept)
        table = sweeps.write(table, bfloat16.to_dtype(rows, table.dtype), start)
        slots = jax.tree.map(lambda whole, part: sweeps.write(whole, part, start), slots, new)
        return d_columns, table, slots

    carry = (jnp.zeros(columns.shape, jnp.float32), table, state)
    d_columns, table, state = sweeps.sweep(step_block, carry, table.shape[0], options.block_size)
    d_inputs = jnp.where(data.counted[:, None], d_columns.T, 0.0).astype(x.dtype)
    return (
        losses.reshape(problem.batch),
        d_inputs.reshape(*problem.batch, x.shape[1]),
        table,
        state,
    )


# --- the first sweep ----------------------------------------------------------------------------


class _Options(NamedTuple):
    block_size: int
    top_k: int


class _Block(NamedTuple):
    rows: Array  # [K, D]
    logits: Array  # float32 [K, N], −inf where a class is removed
    slope: Array | None  # ∂z/∂u, with a soft cap
    kept: Array | None  # bool [K, 1]


class _Carry(NamedTuple):
    peak: Array  # [N], the largest logit so far, finite
    total: Array  # [N], Σ exp(z − peak)
    below: Array | None  # [N], Σ (peak − z) over the kept classes
    number: Any  # [], how many these are so far; None as `below`
    best: tuple[Array, Array] | None  # scores and ids [N, k]


def _block_size(problem: Problem, block_size: int | None) -> int:
    num_classes = problem.weights.shape[0]
    if block_size is None:
        block_size = max(_BLOCK_LOGITS // max(len(problem.inputs), 1), 256)
    return min(checks.integer("block_size", block_size, 1), num_classes)


def _block(columns, table, biases, scale, data: Data, start: Array, size: int) -> _Block:
    """The logits of the classes from `start` on."""
    rows = bfloat16.from_bits(lax.dynamic_slice_in_dim(table, start, size))
    logits, slope, kept = sweeps.scores(rows, columns), None, None
    if biases is not None:
        logits += lax.dynamic_slice_in_dim(biases, start, size)[:, None]
    logits = capped(logits * scale, data.softcap)
    if data.softcap is not None:
        slope = 1.0 - (logits / data.softcap) ** 2
    if data.kept is not None:
        kept = lax.dynamic_slice_in_dim(data.kept, start, size)[:, None]
        logits = jnp.where(kept, logits, -jnp.inf)
    return _Block(rows, logits, slope, kept)


def _true_logits(x, table, biases, scale, data: Data) -> Array:
    """The logits of the true classes, [N, T]; anything where there is none."""
    ids = jnp.maximum(data.ids, 0)
    logits = products(x, bfloat16.from_bits(jnp.take(table, ids, axis=0, mode="clip")))
    if biases is not None:
        logits += biases[ids]
    logits = capped(logits * scale, data.softcap)
    return logits if data.kept is None else jnp.where(data.kept[ids], logits, -jnp.inf)


def _forward(options: _Options, x, table, biases, scale, data: Data):
    """Losses [N], log-partitions [N], and the best classes."""
    columns, num_classes = sweeps.columns(x), table.shape[0]

    def fold(carry: _Carry, start: Array, size: int) -> _Carry:
        block = _block(columns, table, biases, scale, data, start, size)
        z = block.logits
        peak = jnp.maximum(carry.peak, z.max(0))
        exponentials = jnp.exp(z - peak[None])
        below = number = None
        if carry.below is not None:
            distance = infinite(peak[None] - z)
            if block.kept is not None:
                distance = jnp.where(block.kept, distance, 0.0)
            raised = infinite(peak - carry.peak) * carry.number
            below = carry.below + jnp.where(carry.number > 0, raised, 0.0) + distance.sum(0)
            number = carry.number + (size if block.kept is None else block.kept.sum())
        best = with_block(carry.best, z.T, start, options.top_k) if options.top_k else None
        total = carry.total * jnp.exp(carry.peak - peak) + exponentials.sum(0)
        return _Carry(peak, total, below, number, best)

    zeros = jnp.zeros(x.shape[0], jnp.float32)
    smooth = data.smoothing is not None
    carry = _Carry(
        peak=jnp.full_like(zeros, -LARGEST),
        total=zeros,
        below=zeros if smooth else None,
        number=jnp.zeros((), jnp.float32) if smooth else None,
        best=None,
    )
    # The first block must hold k classes: no filler then competes with a score of −inf.
    first = min(num_classes, -(-options.top_k // options.block_size) * options.block_size)
    if first:
        carry = fold(carry, jnp.int32(0), first)
    carry = sweeps.sweep(
        lambda carry, start, size: fold(carry, start + first, size),
        carry,
        num_classes - first,
        options.block_size,
    )
    log_total = jnp.log(carry.total)
    below = carry.below / data.number if smooth else None
    true_logits = _true_logits(x, table, biases, scale, data)
    losses = losses_of(data, log_total, carry.peak, true_logits, below)
    log_partition = jnp.where(data.counted, carry.peak + log_total, 0.0)
    return losses, log_partition, carry.best


# --- the second sweep ---------------------------------------------------------------------------


def _d_scores(block: _Block, data: Data, scale, d_losses, log_partition, start) -> Array:
    """∂/∂s of Σ d_losses · loss for a block, float32 [K, N]."""
    factor = d_losses * (1.0 + 2.0 * data.z_loss * log_partition)
    finite = jnp.where(jnp.isfinite(log_partition), log_partition, 0.0)
    d_logits = factor[None] * jnp.exp(block.logits - finite[None])
    share = d_losses[:, None] * data.target

    def subtract(d_logits: Array, own: Array, t: Array) -> Array:
        mass = lax.dynamic_index_in_dim(share, t, 1, keepdims=False)
        return d_logits - jnp.where(own, mass[None], 0.0)

    d_logits = sweeps.over_true(subtract, data.ids, d_logits, start)
    if data.smoothing is not None:
        d_logits -= (data.smoothing / data.number * d_losses)[None]
    if block.slope is not None:
        d_logits *= block.slope
    if block.kept is not None:
        d_logits = jnp.where(block.kept, d_logits, 0.0)
    return d_logits * scale


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(options: _Options, x, table, biases, scale, data: Data):
    return _forward(options, x, table, biases, scale, data)


def _loss_forward(options, x, table, biases, scale, data):
    results = _forward(options, x, table, biases, scale, data)
    return results, (x, table, biases, scale, data, results[1])


def _loss_backward(options: _Options, kept, cotangents):
    x, table, biases, scale, data, log_partition = kept
    d_losses = jnp.where(data.counted, cotangents[0], 0.0)
    columns = sweeps.columns(x)

    finite = jnp.where(jnp.isfinite(log_partition), log_partition, 0.0)

    def add_block(carry, start: Array, size: int):
        d_columns, d_table, d_biases, d_scale = carry
        block = _block(columns, table, biases, scale, data, start, size)
        d_scores = _d_scores(block, data, scale, d_losses, log_partition, start)
        d_table = sweeps.write(d_table, sweeps.d_rows(x, d_scores), start)
        if d_biases is not None:
            d_biases = sweeps.write(d_biases, d_scores.sum(1), start)
        if data.softcap is None:
            away = jnp.where(d_scores == 0, 0.0, block.logits - finite[None])
            d_scale += (d_scores * away).sum() / scale
        return d_columns + sweeps.d_columns(block.rows, d_scores), d_table, d_biases, d_scale

    carry = (
        jnp.zeros(columns.shape, jnp.float32),
        jnp.zeros_like(table),
        None if biases is None else jnp.zeros_like(biases),
        jnp.zeros((), jnp.float32),
    )
    d_columns, d_table, d_biases, d_scale = sweeps.sweep(
        add_block, carry, table.shape[0], options.block_size
    )
    d_x = d_columns.T
    # u is (s + b) · scale. Over the classes ∂u sums up to that of the z-loss alone: what all logits have in
    # common is taken out before its rounding counts.
    d_scale += (2.0 * data.z_loss * d_losses * finite**2).sum()
    if data.softcap is not None:
        # Σ s ∂s is Σ x ∂x. Capped logits have little in common.
        d_scale = (x.astype(jnp.float32) * d_x).sum()
        if biases is not None:
            d_scale += (biases * d_biases).sum()
    return d_x.astype(x.dtype), d_table, d_biases, d_scale / scale, None


_loss.defvjp(_loss_forward, _loss_backward)
