"""A metric on parts of the data."""

import zlib
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks
from jaxml.keys import as_key
from jaxml.metrics.metric import Metric
from jaxml.metrics.resampling import Interval, evaluate, interval, read
from jaxml.types import Key
from jaxml.validation.columns import Column, is_table, plain, read_column, table_columns

__all__ = ["Slice", "by_slice"]


# A slice with fewer examples of a class is small.
_FEW = 10


class Slice(NamedTuple):
    """A metric on one part of the data.

    Attributes:
        value: the metric; NaN where undefined.
        num_examples: number of examples.
        small: whether there are too few examples, or too few of a class, for a reliable figure.
        interval: the bootstrap interval, if a key was given.
    """

    value: float
    num_examples: int
    small: bool
    interval: Interval | None


def by_slice(
    metric: Metric | Callable[..., Any],
    slices: Any,
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    min_count: int = 100,
    key: Key | None = None,
    num_samples: int = 1000,
) -> dict[Any, Slice]:
    """Returns a metric for each value of a column, with bootstrap intervals if a key is given.

    Args:
        metric: a mergeable metric, or a one-call form such as `metrics.roc_auc`, with one number as value.
        slices: [n], the value each row belongs to: a column of texts, numbers, dates, or of anything
            hashable. Missing values (see `jaxml.validation.columns`) are the slice None. Or a table of such
            columns: a mapping, a data frame, a pyarrow Table.
        labels: [n].
        scores: [n] or [n, C].
        min_count: a slice of fewer examples is small; with labels 0 and 1, also one of fewer than 10 of
            either class.
        key: of the bootstrap. Each slice draws by its own name, so that its interval does not depend on the
            other slices.
        num_samples: number of resamples.

    Returns:
        `{value: Slice}` in the order of the values, or `{(column, value): Slice}` for a table. Times are
        `datetime`'s, or NumPy's where that cannot hold them (a nanosecond).

    >>> from jaxml.metrics import accuracy
    >>> found = by_slice(accuracy, ["a", "b", "a"], [1, 0, 0], [0.9, 0.2, 0.8], min_count=2)
    >>> {name: (part.value, part.num_examples, part.small) for name, part in found.items()}
    {'a': (0.5, 2, True), 'b': (1.0, 1, True)}
    """
    min_count = checks.integer("min_count", min_count, at_least=0)
    rows, kept = read(labels, scores, weights, mask)
    n = len(labels)  # type: ignore[arg-type]  # `read` has looked at its shape.
    binary = bool(((rows.labels == 0) | (rows.labels == 1)).all())
    several = is_table(slices)
    columns = table_columns(slices) if several else {"": slices}
    if not isinstance(metric, Metric):
        # So that a refused row is named by its number here, not in its slice.
        metric(labels, scores, weights=weights, mask=mask)
    found: dict[Any, Slice] = {}
    for column, values in columns.items():
        for value, members in _members(column, values, n, kept):
            part, count = rows.take(members), len(members)
            fewest = min((part.labels == 1).sum(), (part.labels == 0).sum()) if binary else count
            small = count < min_count or (binary and fewest < _FEW)
            if key is None:
                drawn, figure = None, evaluate(metric, part)
            else:
                name = zlib.crc32(f"{column}\0{value!r}".encode()) & 0x7FFFFFFF
                own_key = jax.random.fold_in(as_key(key), name)
                drawn = interval(metric, part, own_key, num_samples)
                figure = drawn.value
            slice_name: Hashable = (column, value) if several else value
            found[slice_name] = Slice(figure, count, bool(small), drawn)
    return found


def _members(
    column: str, values: Any, n: int, kept: NDArray[np.int64]
) -> list[tuple[Any, NDArray[np.int64]]]:
    """Each value with the positions of its rows among those kept."""
    read = read_column(column, values)
    if read.values.shape != (n,):
        where = f"slices[{column!r}]" if column else "slices"
        raise ValueError(f"{where} must have {n} rows, as labels; got shape {read.values.shape}")
    names, number = _numbered(read)
    number = np.where(read.missing, len(names), number)[kept]
    order = np.argsort(number, kind="stable")
    ends = np.cumsum(np.bincount(number, minlength=len(names) + 1))
    parts = zip([*names, None], np.split(order, ends[:-1]), strict=True)
    return [(name, rows) for name, rows in parts if len(rows)]


def _numbered(column: Column) -> tuple[list[Any], NDArray[np.int64]]:
    """Returns the distinct values in their order, and the number of each row's."""
    if column.type == "MIXED":  # Values of one's own, as they are.
        known = column.known().tolist()
        names = sorted(dict.fromkeys(known), key=str)
        place = {name: i for i, name in enumerate(names)}
        number = np.zeros(len(column.values), np.int64)
        number[column.present] = [place[value] for value in known]
        return names, number
    number, distinct = column.codes()
    if column.is_text:
        rank = np.argsort(np.argsort(np.array(distinct, object), kind="stable"), kind="stable")
        return sorted(distinct), rank[number] if distinct else number
    values = np.array(distinct, column.values.dtype)
    if column.type == "TIME":  # Days are times, too.
        values = values.astype(np.promote_types(values.dtype, "M8[us]"))
    return plain(values), number
