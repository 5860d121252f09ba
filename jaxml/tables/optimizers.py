"""Optimizers that touch only the rows of a table that have a gradient, in place.

Each is a *rule* for a few float32 rows; `update` applies it to the rows of a `RowGradient`: coalesce,
gather, compute, scatter. If the caller of a compiled step donates table and state, nothing of the table's
size is allocated or copied, and the time does not depend on the number of rows. Rows without a gradient,
and their slots, keep every bit. Slots are float32 for any dtype of the table, `[num_rows, 1, D]` or a
number for each row. Every hyperparameter may be traced.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxml import meshes
from jaxml.ids import as_int32
from jaxml.tables.gradient import EMPTY_ID, RowGradient, check_gradient, distinct_rows
from jaxml.tables.storage import check_table, from_storage, to_storage
from jaxml.types import Array, Key

Slots: TypeAlias = dict[str, Array]
"""The state of an optimizer: a row or a number for each row of the table."""

Scalar: TypeAlias = float | Array

RowStep: TypeAlias = Callable[[Slots, Array], tuple[Array, Slots]]
"""`step(slots, gradients) -> (decrease of the rows, slots)`."""

# Rows per pass: they stay in the cache, and below the size from which malloc maps fresh pages at every
# step, which at K = 40,000 doubled the time.
_BLOCK = 4096


class RowOptimizer(NamedTuple):
    """Three pure functions.

    Attributes:
        init: `init(table) -> state`, the slots of a table `[num_rows, D]` or `[num_rows]`.
        update: `update(gradient, state, table, *, key=None) -> (table, state)`. With a key, a bfloat16
            table is rounded stochastically (see `to_storage`). An update whose ids are all out of range
            (`jnp.where(ok, ids, -1)`) changes no bit of table or state. `ValueError` if gradient, state
            and table do not fit. In place if the caller donates state and table.
        rule: `rule(rows, slots, gradients) -> (rows, slots)` for float32 rows `[K, D]` or `[K]`, as
            `update` applies it to each row.

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
    """Returns stochastic gradient descent, `x ← x − lr · g`, without state.

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
    """Returns Adagrad, with an accumulated square for each entry of the table.

    `a ← a + g²`, `x ← x − lr · g / √(a + ε)`; for a gradient of every row at every step equal to
    `optax.adagrad`, defaults included.

    While g² is well below an initial accumulator of 0.1, as for a row that is one of many in a mean over a
    batch, this is gradient descent at 3.2 lr: lower it if rare rows learn too little. The slot is
    `accumulator`. `eps` must be above 0 if the initial accumulator is 0.

    Example:
        >>> adagrad(0.1).init(jnp.zeros((2, 1)))["accumulator"].ravel()
        Array([0.1, 0.1], dtype=float32)

    References: Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic
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
    """Returns Adagrad with one accumulator a row: 1/D of the memory.

    `a ← a + mean_d(g_d²)`, `x ← x − lr · g / (√a + ε)`.

    With an initial accumulator of 0 (as in FBGEMM and TorchRec) the first step of a row moves its entries
    by lr in the root mean square, for any scale of the loss, and no later step moves it further. With
    Adagrad's usual 0.1 rare rows hardly learn: the mean square of a row that is one of thousands in a
    mean over a batch is tiny. Gradients with a root mean square below `eps` are not scaled up to full
    steps. The slot is `accumulator`, `[num_rows]`.

    Example:
        >>> rows, slots = rowwise_adagrad(0.1).rule(
        ...     jnp.zeros((1, 2)), {"accumulator": jnp.zeros(1)}, jnp.array([[3.0, 4.0]]))
        >>> print(rows.round(2), slots["accumulator"])
        [[-0.08 -0.11]] [12.5]

    References: FBGEMM's exact row-wise Adagrad; Gupta et al., Training with Multi-Layer Embeddings for
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
    learning_rate: Scalar, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8
) -> RowOptimizer:
    """Returns Adam with a step count for each row: `n` is the number of the row's updates.

        n ← n + 1,  m ← b₁m + (1 − b₁)g,  v ← b₂v + (1 − b₂)g²
        x ← x − lr · m̂ / (√v̂ + ε),  m̂ = m / (1 − b₁ⁿ),  v̂ = v / (1 − b₂ⁿ)

    A bias correction by the global step would make the first step of a rare row up to
    `lr · (1 − b₁)/√(1 − b₂)` = 3.2 lr. For a gradient of every row at every step equal to `optax.adam`.

    The slots are `m`, `v` and `count`, int32 `[num_rows]`.

    Example:
        >>> optimizer, table = adam(0.1), jnp.zeros((9, 1))
        >>> gradient = RowGradient(jnp.array([7, 7]), jnp.array([[1.5], [0.5]]))
        >>> table, state = optimizer.update(gradient, optimizer.init(table), table)
        >>> print(table[7].round(1), state["count"])
        [-0.1] [0 0 0 0 0 0 0 1 0]

    References: Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1.
    """

    def init(table: Array) -> Slots:
        check_table(table)
        slots = {name: jnp.zeros(table.shape, jnp.float32) for name in ("m", "v")}
        return {**slots, "count": jnp.zeros(table.shape[0], jnp.int32)}

    def step(slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        count = slots["count"] + 1
        number = count.astype(jnp.float32)
        m = b1 * slots["m"] + (1 - b1) * gradients
        v = b2 * slots["v"] + (1 - b2) * gradients**2
        m_hat, v_hat = m / _per_row(1 - b1**number, m), v / _per_row(1 - b2**number, v)
        return learning_rate * m_hat / (jnp.sqrt(v_hat) + eps), {"m": m, "v": v, "count": count}

    return _row_optimizer(init, step)


def _row_optimizer(init: Callable[[Array], Slots], step: RowStep) -> RowOptimizer:
    """Returns the optimizer of a step."""

    def init_apart(table: Array) -> Slots:
        # Compiled, so that a slot is made once, in its final shape.
        return jax.jit(lambda: {name: _apart(slot, table) for name, slot in init(table).items()})()

    def rule(rows: Array, slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        taken, slots = _with_slots_apart(step)(slots, gradients)
        return rows - taken, slots

    return RowOptimizer(init_apart, _update(step), rule)


def _apart(slot: Array, table: Array) -> Array:
    """Returns a slot in another shape than its table: `[num_rows, 1, D]` instead of `[num_rows, D]`.

    JAX pairs donated buffers with results of equal shape and dtype in the order they come, and `update`
    takes (state, table) but returns (table, state). With equal shapes they would be paired crosswise, and
    XLA would copy both at every step.
    """
    return slot[:, None] if slot.shape == table.shape else slot


def _with_slots_apart(step: RowStep) -> RowStep:
    """Returns the step for slots `[K, 1, D]`; also accepts `[K, D]`."""

    def apart_step(slots: Slots, gradients: Array) -> tuple[Array, Slots]:
        def joined(slot: Array) -> Array:
            is_apart = slot.size == gradients.size and slot.ndim == gradients.ndim + 1
            return slot.reshape(gradients.shape) if is_apart else slot

        taken, new = step({name: joined(slot) for name, slot in slots.items()}, gradients)
        return taken, {name: new[name].reshape(slots[name].shape) for name in slots}

    return apart_step


def _update(step: RowStep) -> Callable[..., tuple[Array, Slots]]:
    """Returns `update` of a `RowOptimizer`."""

    @meshes.laid_out_as(("table", "state"))
    def update(
        gradient: RowGradient, state: Slots, table: Array, *, key: Key | None = None
    ) -> tuple[Array, Slots]:
        _check_fit(gradient, state, table)
        num_rows, num_ids = table.shape[0], gradient.ids.size
        num_blocks = max(1, -(-num_ids // _BLOCK))
        block = -(-num_ids // num_blocks)
        ids, values, used = _targets(gradient, num_rows, num_blocks * block)

        apart_step = _with_slots_apart(step)
        # Entries of a coalesced gradient may have been emptied since: then they are not sorted.
        ordered = not gradient.coalesced

        def apply(index: Array | int, carry: tuple[Array, Slots]) -> tuple[Array, Slots]:
            table, slots = carry
            block_ids, block_values = (
                jax.lax.dynamic_slice_in_dim(array, index * block, block) for array in (ids, values)
            )
            old = {name: _gather(slot, block_ids) for name, slot in slots.items()}
            taken, new = apart_step(old, block_values)
            if table.dtype == jnp.float32:
                # Read and written at once, without a gather fused with the roots: Adagrad takes 0.6 of
                # the time at 10⁶ rows of 128.
                table = _scatter(table, block_ids, -taken, ordered, add=True)
            else:
                rows = from_storage(_gather(table, block_ids)).astype(jnp.float32) - taken
                block_key = None if key is None else jax.random.fold_in(key, index)
                rows = to_storage(rows, table.dtype, key=block_key)
                table = _scatter(table, block_ids, rows, ordered)
            return table, {
                name: _scatter(slots[name], block_ids, new[name], ordered) for name in slots
            }

        if num_blocks == 1:
            return apply(0, (table, state))
        # Slots past the used ones need no pass: a bag of n-grams repeats most of its ids.
        passes = -(-_over_members(used) // block)
        return meshes.fori_loop(0, passes, apply, (table, state))

    return update


def _targets(gradient: RowGradient, num_rows: int, num_slots: int) -> tuple[Array, Array, Array]:
    """Returns distinct ids `[num_slots]`, their gradients, and the number of slots up to the last used one.

    The ids of empty slots are past the end of the table and all different: XLA is promised unique ids.
    """
    if gradient.coalesced:
        ids = as_int32("ids", gradient.ids, EMPTY_ID)
        values = gradient.values.astype(jnp.float32)
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
    """Returns the count; under `vmap` the largest of the members.

    A loop whose length differs between members would have to select between the old and the new table of
    each in every pass, and copy them all.
    """
    return count


@_over_members.def_vmap
def _largest(axis_size: int, in_batched: list[bool], count: Array) -> tuple[Array, bool]:
    return _over_members(jnp.max(count)), False


def _gather(array: Array, ids: Array) -> Array:
    # `_scatter` drops the row that an id past the end reads.
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
        if slot.shape not in (apart, table.shape[:1]):
            raise ValueError(
                f"state[{name!r}] must have shape {apart} or {table.shape[:1]} to belong to "
                f"this table, got {slot.shape}"
            )
    if table.shape[0] > EMPTY_ID - 2 * gradient.ids.size:
        raise ValueError(
            f"table must have fewer than 2**31 − 1 − 2K rows so that int32 can tell ids from empty "
            f"slots, got {table.shape[0]} rows and K = {gradient.ids.size}"
        )
