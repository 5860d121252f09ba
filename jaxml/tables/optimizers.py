"""Optimizers that touch only the rows of a table that have a gradient, in place.

Each is a *rule* for a few float32 rows, and `update` applies it to the rows of a `RowGradient`:
coalesce, gather, compute, scatter. If the caller of a compiled step donates table and state,
nothing of the table's size is allocated or copied, and the time does not depend on the number of
rows. Rows without a gradient, and their slots, keep every bit.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxml.tables.gradient import (
    EMPTY_ID,
    RowGradient,
    as_int32,
    check_gradient,
    distinct_rows,
)
from jaxml.tables.storage import check_table, from_storage, to_storage
from jaxml.types import Array, Key

Slots: TypeAlias = dict[str, Array]
"""What an optimizer remembers: a row or a number for each row of the table, or a scalar for all."""

Scalar: TypeAlias = float | Array

Step: TypeAlias = Callable[[Slots, Array], tuple[Array, Slots]]

# Rows per pass. What a pass holds stays in the cache, and below the size from which malloc maps
# fresh pages at every step: at K = 40,000 that alone doubled the time.
_BLOCK = 4096


class RowOptimizer(NamedTuple):
    """Three pure functions.

    Attributes:
        init: `init(table) -> state`, the slots of a table `[num_rows, D]` or `[num_rows]`; float32
            statistics, whatever the dtype of the table.
        update: `update(gradient, state, table, *, key=None) -> (table, state)`. Rows are read and
            written as `gather_rows` and `to_storage` say: with a key, a bfloat16 table is rounded
            stochastically. An update whose ids all name no row (`jnp.where(ok, ids, -1)`) changes
            no bit of table or state. `ValueError` where gradient, state and table do not fit.
            In place where the caller donates state and table.
        rule: `rule(rows, slots, gradients) -> (rows, slots)` for float32 rows `[K, D]` or `[K]`:
            what `update` does to each row. A slot that is a scalar is passed and returned whole:
            who applies the rule block by block gives every block the old one, and keeps the new.

    Example:
        >>> optimizer = adagrad(0.1)
        >>> table = jnp.zeros((5, 2))
        >>> gradient = RowGradient(jnp.array([3, 3, -1]), jnp.ones((3, 2)))
        >>> table, state = optimizer.update(gradient, optimizer.init(table), table)
        >>> table[3]
        Array([-0.09877297, -0.09877297], dtype=float32)
    """

    init: Callable[[Array], Slots]
    update: Callable[..., tuple[Array, Slots]]
    rule: Callable[[Array, Slots, Array], tuple[Array, Slots]]


def sgd(learning_rate: Scalar) -> RowOptimizer:
    """Stochastic gradient descent: `x ← x − lr · g`. It remembers nothing.

    Args:
        learning_rate: a number, or a scalar that is traced (a schedule, an axis of a sweep).

    Returns:
        The optimizer; its state is empty.

    Example:
        >>> rows, _ = sgd(0.5).rule(jnp.ones((1, 2)), {}, jnp.ones((1, 2)))
        >>> rows
        Array([[0.5, 0.5]], dtype=float32)
    """

    def init(table: Array) -> Slots:
        check_table(table)
        return {}

    def step(slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        return learning_rate * gradients, slots

    return _row_optimizer(init, step)


def adagrad(
    learning_rate: Scalar, *, initial_accumulator: Scalar = 0.1, eps: Scalar = 1e-7
) -> RowOptimizer:
    """Adagrad: each entry of the table has its own accumulated square.

    `a ← a + g²`, `x ← x − lr · g / √(a + ε)`.

    With a gradient for every row at every step this is `optax.adagrad`, defaults included.

    Args:
        learning_rate: may be traced.
        initial_accumulator: at least 0. A first step is `lr · g / √(initial + g²)`: while g² is
            well below the initial 0.1, as it is for a row that is one of many in a mean over a
            batch, this is gradient descent at 3.2 lr. Lower it if rare rows learn too little.
        eps: at least 0; above 0 if the initial accumulator is 0.

    Returns:
        The optimizer; its state is `accumulator`, float32 `[num_rows, 1, D]`, or `[num_rows, 1]`.

    Example:
        >>> adagrad(0.1).init(jnp.zeros((2, 1)))["accumulator"].ravel()
        Array([0.1, 0.1], dtype=float32)

    Source: Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization, 2011.
    """

    def init(table: Array) -> Slots:
        check_table(table)
        return {"accumulator": jnp.full(table.shape, initial_accumulator, jnp.float32)}

    def step(slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        accumulator = slots["accumulator"] + gradients**2
        # Zero where nothing was accumulated, as in optax: with eps = 0 it would be 0 · ∞ = NaN.
        scale = jnp.where(accumulator > 0, jax.lax.rsqrt(accumulator + eps), 0.0)
        return learning_rate * scale * gradients, {"accumulator": accumulator}

    return _row_optimizer(init, step)


def rowwise_adagrad(
    learning_rate: Scalar, *, initial_accumulator: Scalar = 0.0, eps: Scalar = 1e-8
) -> RowOptimizer:
    """Adagrad with one accumulator a row: a 1/D of the memory.

    `a ← a + mean_d(g_d²)`, `x ← x − lr · g / (√a + ε)`.

    Args:
        learning_rate: may be traced.
        initial_accumulator: at least 0. With 0, the default (FBGEMM's, TorchRec's), the first
            step of a row moves its entries by lr in the root mean square, however rare the row and
            however the loss is scaled, and no later step moves it further. Any other value is
            compared with the mean square of a row's gradient, which is tiny for a row that is one
            of thousands in a mean over a batch: with Adagrad's usual 0.1 rare rows hardly learn.
        eps: above 0. Gradients whose root mean square is below it count as noise and are not
            scaled up to full steps; raise it where a row's first gradient means little.

    Returns:
        The optimizer; its state is `accumulator`, float32 `[num_rows]`.

    Example:
        >>> rows, slots = rowwise_adagrad(0.1).rule(
        ...     jnp.zeros((1, 2)), {"accumulator": jnp.zeros(1)}, jnp.array([[3.0, 4.0]]))
        >>> print(rows.round(2), slots["accumulator"])
        [[-0.08 -0.11]] [12.5]

    Source: FBGEMM's exact row-wise Adagrad; Gupta et al., Training with Multi-Layer Embeddings for
    Model Reduction, 2020.
    """

    def init(table: Array) -> Slots:
        check_table(table)
        return {"accumulator": jnp.full(table.shape[:1], initial_accumulator, jnp.float32)}

    def step(slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        squares = gradients**2
        mean = squares if squares.ndim == 1 else jnp.mean(squares, axis=1)
        accumulator = slots["accumulator"] + mean
        scale = learning_rate / (jnp.sqrt(accumulator) + eps)
        return _per_row(scale, gradients) * gradients, {"accumulator": accumulator}

    return _row_optimizer(init, step)


def adam(
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    catch_up: bool = False,
) -> RowOptimizer:
    """Adam that counts, or weighs, the steps of each row on its own.

    Without `catch_up` a row lives in its own time: `n` is the number of its updates.

        n ← n + 1,  m ← b₁m + (1 − b₁)g,  v ← b₂v + (1 − b₂)g²
        x ← x − lr · m̂ / (√v̂ + ε),  m̂ = m / (1 − b₁ⁿ),  v̂ = v / (1 − b₂ⁿ)

    A bias correction by the global step instead would make the first step of a row that is met
    late up to `lr · (1 − b₁)/√(1 − b₂)` = 3.2 lr.

    With `catch_up` a row lives in the table's time: the moments also decay for the `s` updates of
    the table since the row's last one, as if its gradient had been zero there, and the weights that
    they are divided by decay along, so that both estimates remain means of gradients seen.

        m ← b₁ˢ⁺¹m + (1 − b₁)g,  w₁ ← b₁ˢ⁺¹w₁ + (1 − b₁),  m̂ = m / w₁;  v and w₂ with b₂ and g²

    Parameters do not move for the skipped steps. Momentum from long ago is forgotten, where the
    first form would replay it. With a gradient for every row at every step both are `optax.adam`.

    Args:
        learning_rate: may be traced, as may the others.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root; above 0.
        catch_up: whether moments decay during the steps that skip a row.

    Returns:
        The optimizer; its state is `m` and `v`, float32 `[num_rows, 1, D]`, and `count`, int32
        `[num_rows]`; with `catch_up` instead of this `w1` and `w2`, float32 `[num_rows]`, `last`,
        int32 `[num_rows]`, the step of a row's last update, and `step`, int32, the number of
        updates that touched any row (a refused update is none).

    Example:
        >>> optimizer, table = adam(0.1), jnp.zeros((9, 1))
        >>> gradient = RowGradient(jnp.array([7, 7]), jnp.array([[1.5], [0.5]]))
        >>> table, state = optimizer.update(gradient, optimizer.init(table), table)
        >>> print(table[7].round(1), state["count"])
        [-0.1] [0 0 0 0 0 0 0 1 0]

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1.
    """

    def init(table: Array) -> Slots:
        check_table(table)
        slots = {name: jnp.zeros(table.shape, jnp.float32) for name in ("m", "v")}
        if not catch_up:
            return {**slots, "count": jnp.zeros(table.shape[0], jnp.int32)}
        weights = {name: jnp.zeros(table.shape[0], jnp.float32) for name in ("w1", "w2")}
        last = jnp.zeros(table.shape[0], jnp.int32)
        return {**slots, **weights, "last": last, "step": jnp.zeros((), jnp.int32)}

    def direction(m: Array, v: Array, w1: Array, w2: Array) -> Array:
        m_hat, v_hat = m / _per_row(w1, m), v / _per_row(w2, v)
        return m_hat / (jnp.sqrt(v_hat) + eps)

    def step(slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        count = slots["count"] + 1
        m = b1 * slots["m"] + (1 - b1) * gradients
        v = b2 * slots["v"] + (1 - b2) * gradients**2
        slots = {"m": m, "v": v, "count": count}
        return learning_rate * direction(m, v, 1 - b1**count, 1 - b2**count), slots

    def step_with_catch_up(slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        now = slots["step"] + 1
        elapsed = now - slots["last"]
        decay1, decay2 = b1**elapsed, b2**elapsed
        m = _per_row(decay1, gradients) * slots["m"] + (1 - b1) * gradients
        v = _per_row(decay2, gradients) * slots["v"] + (1 - b2) * gradients**2
        # 1 − b of the float32 b, as in 1 − bⁿ: for 0.999 it differs from 0.001 by 1e-5 of it.
        w1 = decay1 * slots["w1"] + (1 - jnp.float32(b1))
        w2 = decay2 * slots["w2"] + (1 - jnp.float32(b2))
        # This is `now`, but only what is computed from the old slot is written in place: otherwise
        # XLA may write before it reads, and copies the slot of the whole table for that.
        last = jnp.maximum(slots["last"], now)
        slots = {"m": m, "v": v, "w1": w1, "w2": w2, "last": last, "step": now}
        return learning_rate * direction(m, v, w1, w2), slots

    return _row_optimizer(init, step_with_catch_up if catch_up else step)


def _row_optimizer(init: Callable[[Array], Slots], step: Step) -> RowOptimizer:
    """The optimizer of `step(slots, gradients) -> (what to take from the rows, slots)`."""

    def init_apart(table: Array) -> Slots:
        # Compiled, so that a slot is made once, in the shape that it keeps.
        return jax.jit(lambda: {name: _apart(slot, table) for name, slot in init(table).items()})()

    def rule(rows: Array, slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        taken, slots = _with_slots_apart(step)(slots, gradients)
        return rows - taken, slots

    return RowOptimizer(init_apart, _update(step), rule)


def _apart(slot: Array, table: Array) -> Array:
    """A slot that is no twin of its table: `[num_rows, 1, D]` instead of `[num_rows, D]`.

    JAX pairs donated buffers with results of equal shape and dtype in the order they come, and `update`
    takes (state, table) but returns (table, state). Twins would be paired crosswise, and then XLA
    copies both, at every step.
    """
    return slot[:, None] if slot.shape == table.shape else slot


def _with_slots_apart(step: Step) -> Step:
    """The step for rows of slots as they are kept; those of the gradients' shape do as well."""

    def apart_step(slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        def joined(slot: Array) -> Array:
            is_apart = slot.size == gradients.size and slot.ndim == gradients.ndim + 1
            return slot.reshape(gradients.shape) if is_apart else slot

        taken, new = step({name: joined(slot) for name, slot in slots.items()}, gradients)
        return taken, {name: new[name].reshape(slots[name].shape) for name in slots}

    return apart_step


def _update(step: Step) -> Callable[..., tuple[Array, Slots]]:
    """Take a step with the rows of a gradient, in place under donation."""

    def update(
        gradient: RowGradient, state: Slots, table: Array, *, key: Key | None = None
    ) -> tuple[Array, Slots]:
        _check_fit(gradient, state, table)
        num_rows, num_ids = table.shape[0], gradient.ids.size
        num_blocks = max(1, -(-num_ids // _BLOCK))
        block = -(-num_ids // num_blocks)
        ids, values, used = _targets(gradient, num_rows, num_blocks * block)

        apart_step = _with_slots_apart(step)
        scalars = {name: slot for name, slot in state.items() if slot.ndim == 0}
        slots = {name: slot for name, slot in state.items() if slot.ndim > 0}

        def apply(index: Array | int, carry: tuple[Array, Slots, Slots]):
            table, slots, _ = carry
            block_ids, block_values = (
                jax.lax.dynamic_slice_in_dim(array, index * block, block) for array in (ids, values)
            )
            old = {name: _gather(slot, block_ids) for name, slot in slots.items()} | scalars
            taken, new = apart_step(old, block_values)
            # Entries of a coalesced gradient may have been emptied since: no order to promise.
            ordered = not gradient.coalesced
            if table.dtype == jnp.float32:
                # Read and written at once, and no gather fused with the roots: Adagrad takes 0.6 of
                # the time at 10⁶ rows of 128.
                table = _scatter(table, block_ids, -taken, ordered, add=True)
            else:
                rows = from_storage(_gather(table, block_ids)).astype(jnp.float32) - taken
                block_key = None if key is None else jax.random.fold_in(key, index)
                rows = to_storage(rows, table.dtype, key=block_key)
                table = _scatter(table, block_ids, rows, ordered)
            slots = {name: _scatter(slots[name], block_ids, new[name], ordered) for name in slots}
            return table, slots, {name: new[name] for name in scalars}

        if num_blocks == 1:
            table, slots, advanced = apply(0, (table, slots, scalars))
        else:
            # Slots past the used ones need no pass: a bag of n-grams repeats most of its ids.
            passes = -(-_over_members(used) // block)
            carry = (table, slots, scalars)
            table, slots, advanced = jax.lax.fori_loop(0, passes, apply, carry)
        advanced = {name: jnp.where(used > 0, advanced[name], scalars[name]) for name in scalars}
        return table, slots | advanced

    return update


def _targets(gradient: RowGradient, num_rows: int, num_slots: int) -> tuple[Array, Array, Array]:
    """Distinct ids `[num_slots]`, their gradients, and the number of slots up to the last used one.

    The ids of empty slots are past the end of the table and all different, since XLA is promised
    that no id occurs twice.
    """
    if gradient.coalesced:
        ids, values = as_int32(gradient.ids), gradient.values.astype(jnp.float32)
        spare = num_slots - ids.size
        ids = jnp.pad(ids, (0, spare), constant_values=EMPTY_ID)
        values = jnp.pad(values, [(0, spare)] + [(0, 0)] * (values.ndim - 1))
    else:
        ids, values = distinct_rows(gradient, num_rows=num_rows, num_slots=num_slots)
    valid = (ids >= 0) & (ids < num_rows)
    slot = jax.lax.iota(jnp.int32, num_slots)
    used = jnp.max(jnp.where(valid, slot + 1, 0), initial=0)
    return jnp.where(valid, ids, num_rows + slot), values, used


@jax.custom_batching.custom_vmap
def _over_members(count: Array) -> Array:
    """A count that members of an ensemble share: under `vmap` the largest.

    A loop whose length differs between members would have to select, in every pass, between the
    old and the new table of each, and copy them all.
    """
    return count


@_over_members.def_vmap
def _largest(axis_size: int, in_batched: list[bool], count: Array) -> tuple[Array, bool]:
    return _over_members(jnp.max(count)), False


def _gather(array: Array, ids: Array) -> Array:
    # What an id past the end reads is of no account: `_scatter` drops it.
    return array.at[ids].get(mode="clip")


def _scatter(
    array: Array, ids: Array, rows: Array, indices_are_sorted: bool, *, add: bool = False
) -> Array:
    at = array.at[ids]
    write = at.add if add else at.set
    rows = rows.astype(array.dtype)
    return write(rows, mode="drop", unique_indices=True, indices_are_sorted=indices_are_sorted)


def _per_row(numbers: Array, like: Array) -> Array:
    """Numbers `[K]` against rows `[K, D]`, or against numbers `[K]`."""
    return numbers.reshape(numbers.shape + (1,) * (like.ndim - numbers.ndim))


def _check_fit(gradient: RowGradient, state: Slots, table: Array) -> None:
    check_gradient(gradient)
    check_table(table)
    if gradient.values.shape[1:] != table.shape[1:]:
        raise ValueError(
            f"values must have rows of shape {table.shape[1:]} as the table has, "
            f"got values {gradient.values.shape} for a table {table.shape}"
        )
    for name, slot in state.items():
        apart = (table.shape[0], 1, *table.shape[1:])
        if slot.ndim > 0 and slot.shape not in (apart, table.shape[:1]):
            raise ValueError(
                f"state[{name!r}] must have shape {apart} or {table.shape[:1]} to belong to "
                f"this table, got {slot.shape}"
            )
    if table.shape[0] > EMPTY_ID - 2 * gradient.ids.size:
        raise ValueError(
            f"table must have fewer than 2**31 − 1 − 2K rows so that int32 can tell ids from empty "
            f"slots, got {table.shape[0]} rows and K = {gradient.ids.size}"
        )
