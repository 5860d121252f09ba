"""Row-sparse gradients: which rows of a table, and the gradient of each."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxml.types import Array

EMPTY_ID = 2**31 - 1
"""The id of an unused slot: above that of any row, so that unused slots sort to the end."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowGradient:
    """The gradient of a table that is zero outside a few rows.

    `gradient[r] = Σ_k [ids[k] = r] · values[k]`: an id may occur several times, and one that names
    no row (negative, or past the end) belongs to an empty entry.

    Attributes:
        ids: `[K]` integers, the rows; or `[K, L]`, for bags: each of the L rows that entry `k`
            names receives `values[k]`, as when their sum was what entered the model. Nothing
            of size K · L · D is written or read then; bags of 40 n-grams take a third of the time.
        values: `[K, D]`, or `[K]` for a table of scalars; floating point.
        coalesced: set by `coalesce`, so that an optimizer need not do it again: no row occurs
            twice. Emptying entries keeps this promise: `ids=jnp.where(accepted, ids, -1)`.

    Example:
        >>> gradient = RowGradient(jnp.array([4, 1, 4]), jnp.ones((3, 2)))
        >>> gradient.values.shape
        (3, 2)
    """

    ids: Array
    values: Array
    coalesced: bool = dataclasses.field(default=False, metadata={"static": True})


def coalesce(gradient: RowGradient) -> RowGradient:
    """Sum what the same row receives, and sort by row.

    `values'[j] = Σ_k [ids[k] = ids'[j]] · values[k]`, with `ids'` ascending and distinct.

    A non-linear update must see this sum: Adagrad of two half gradients is not Adagrad of one
    whole gradient. There are as many slots as ids, so that shapes are static; those left over hold
    the id `EMPTY_ID` = 2³¹ − 1 and the value 0.

    Args:
        gradient: ids `[K]` (or `[K, L]`), values `[K, D]` or `[K]`. Negative ids belong to empty
            entries: their values, even NaN, go nowhere.

    Returns:
        A gradient with int32 ids `[K]` (or `[K · L]`), float32 values `[K, D]` or `[K]`, and
        `coalesced` set.

    Raises:
        ValueError: ids that are not integers or not `[K]` or `[K, L]`; values that are not floating
            point or do not have K rows.

    Sums are taken in float32, on a CPU always in the same order, on a GPU in any.

    Example:
        >>> coalesce(RowGradient(jnp.array([4, -1, 1, 4]), jnp.array([1.0, 2.0, 3.0, 4.0]))).ids
        Array([         1,          4, 2147483647, 2147483647], dtype=int32)
    """
    check_gradient(gradient)
    ids, values = distinct_rows(gradient, num_rows=EMPTY_ID, num_slots=gradient.ids.size)
    return RowGradient(ids, values, coalesced=True)


def distinct_rows(gradient: RowGradient, *, num_rows: int, num_slots: int) -> tuple[Array, Array]:
    """Sum duplicates into `num_slots >= ids.size` slots; ids outside `[0, num_rows)` are left out.

    One operand is sorted, and each entry then finds its slot by bisection: on a CPU, sorting pairs
    of id and position takes more than twice as long as both. The values are added where they belong
    without being sorted first, which spares a copy of them.
    """
    ids, values = as_int32(gradient.ids), gradient.values.astype(jnp.float32)
    valid = (ids >= 0) & (ids < num_rows)
    ids = jnp.where(valid, ids, EMPTY_ID)
    ordered = jnp.sort(ids, axis=None, stable=False)
    is_new = jnp.concatenate([jnp.zeros(1, bool), ordered[1:] != ordered[:-1]])[: ids.size]
    distinct = (
        jnp.full(num_slots, EMPTY_ID, jnp.int32)
        .at[jnp.cumsum(is_new, dtype=jnp.int32)]
        .set(ordered, indices_are_sorted=True)
    )
    # An empty entry goes out of range, not to the slot of EMPTY_ID, which must stay zero.
    slots = jnp.where(valid, jnp.searchsorted(distinct, ids).astype(jnp.int32), num_slots)
    sums = jnp.zeros((num_slots, *values.shape[1:]), jnp.float32)
    if slots.ndim == 1:
        return distinct, sums.at[slots].add(values, mode="drop")
    columns = slots.T

    def add_column(i: Array, sums: Array) -> Array:
        return sums.at[columns[i]].add(values, mode="drop")

    return distinct, jax.lax.fori_loop(0, len(columns), add_column, sums)


def as_int32(ids: Array) -> Array:
    """Ids as int32, where those that int32 cannot hold become invalid instead of wrapping."""
    if jnp.iinfo(ids.dtype).max > EMPTY_ID:
        ids = jnp.clip(ids, max(-1, jnp.iinfo(ids.dtype).min), EMPTY_ID)
    return ids.astype(jnp.int32)


def check_ids(ids: Array) -> None:
    """Raise unless ids are integers."""
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"ids must be integers, got dtype {ids.dtype}")


def check_gradient(gradient: RowGradient) -> None:
    """Raise unless ids are integers `[K]` or `[K, L]`, values K floating-point rows or scalars."""
    ids, values = gradient.ids, gradient.values
    check_ids(ids)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"values must be floating point, got dtype {values.dtype}")
    if ids.ndim not in (1, 2):
        raise ValueError(f"ids must have shape [K] or [K, L], got {ids.shape}")
    if gradient.coalesced and ids.ndim != 1:
        raise ValueError(f"ids of a coalesced gradient must have shape [K], got {ids.shape}")
    if values.ndim not in (1, 2) or values.shape[0] != ids.shape[0]:
        raise ValueError(
            f"values must have shape [K, D] or [K] with K = {ids.shape[0]} as ids {ids.shape}, "
            f"got {values.shape}"
        )
