"""Row-sparse gradients: some rows of a table, and the gradient of each."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxml import meshes
from jaxml.ids import as_int32
from jaxml.types import Array

EMPTY_ID = 2**31 - 1
"""The id of an unused slot, above that of any row: unused slots sort to the end."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowGradient:
    """The gradient of a table that is zero outside a few rows.

    `gradient[r] = Σ_k [ids[k] = r] · values[k]`. An id may occur several times; an id out of range
    (negative, or past the end) marks an empty entry.

    Attributes:
        ids: `[K]` integers, the rows; or `[K, L]` for bags: each of the L rows of entry `k` receives
            `values[k]`, since their sum entered the model. Nothing of size K · L · D is written or read:
            bags of 40 n-grams take a third of the time.
        values: `[K, D]`, or `[K]` for a table of scalars; floating point.
        coalesced: set by `coalesce`: no row occurs twice. Emptying entries
            (`ids=jnp.where(accepted, ids, -1)`) keeps this true.

    Example:
        >>> gradient = RowGradient(jnp.array([4, 1, 4]), jnp.ones((3, 2)))
        >>> gradient.values.shape
        (3, 2)
    """

    ids: Array
    values: Array
    coalesced: bool = dataclasses.field(default=False, metadata={"static": True})


@meshes.laid_out_as(None)
def coalesce(gradient: RowGradient) -> RowGradient:
    """Returns the gradient with duplicate rows summed, sorted by row.

    `values'[j] = Σ_k [ids[k] = ids'[j]] · values[k]`, with `ids'` ascending and distinct.

    A non-linear update needs this sum: Adagrad of two half gradients is not Adagrad of one whole
    gradient. There are as many slots as ids, so shapes are static: int32 ids `[K]` (or `[K · L]`). Slots
    left over have the id `EMPTY_ID` = 2³¹ − 1 and the value 0. Values of empty entries, even NaN, are not
    used. Sums are taken in float32, on a CPU always in the same order, on a GPU in any.

    Example:
        >>> coalesce(RowGradient(jnp.array([4, -1, 1, 4]), jnp.array([1.0, 2.0, 3.0, 4.0]))).ids
        Array([         1,          4, 2147483647, 2147483647], dtype=int32)
    """
    check_gradient(gradient)
    ids, values = distinct_rows(gradient, num_rows=EMPTY_ID, num_slots=gradient.ids.size)
    return RowGradient(ids, values, coalesced=True)


def distinct_rows(gradient: RowGradient, *, num_rows: int, num_slots: int) -> tuple[Array, Array]:
    """Returns distinct ids and their sums in `num_slots >= ids.size` slots, without ids outside [0,
    num_rows).

    Only the ids are sorted, and each entry finds its slot by bisection: on a CPU, sorting pairs of id and
    position takes more than twice as long as both. The values are added without a sorted copy.
    """
    ids = as_int32("ids", gradient.ids, EMPTY_ID)
    values = gradient.values.astype(jnp.float32)
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

    def add_column(sums: Array, column: Array) -> tuple[Array, None]:
        return sums.at[column].add(values, mode="drop"), None

    return distinct, meshes.scan(add_column, sums, slots.T)[0]


def check_gradient(gradient: RowGradient) -> None:
    """Raises ValueError unless ids are integers `[K]` or `[K, L]` and values K floats, or K rows."""
    ids, values = gradient.ids, gradient.values
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"ids must be integers, got dtype {ids.dtype}")
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
