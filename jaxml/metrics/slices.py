"""A metric on parts of the data."""

import zlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks
from jaxml.keys import as_key
from jaxml.metrics.metric import Metric
from jaxml.metrics.resampling import Interval, evaluate, interval, read
from jaxml.types import Key

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
    slices: ArrayLike | Mapping[str, ArrayLike],
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
        slices: [n], the value each row belongs to: texts, numbers, dates, anything hashable. Missing values
            (NaN, None, `pandas.NA`, NaT) are the slice None. Or several such columns by name.
        labels: [n].
        scores: [n] or [n, C].
        min_count: a slice of fewer examples is small; with labels 0 and 1, also one of fewer than 10 of
            either class.
        key: of the bootstrap. Each slice draws by its own name, so that its interval does not depend on the
            other slices.
        num_samples: number of resamples.

    Returns:
        `{value: Slice}` in the order of the values, or `{(column, value): Slice}` for several columns.

    >>> from jaxml.metrics import accuracy
    >>> found = by_slice(accuracy, ["a", "b", "a"], [1, 0, 0], [0.9, 0.2, 0.8], min_count=2)
    >>> {name: (part.value, part.num_examples, part.small) for name, part in found.items()}
    {'a': (0.5, 2, True), 'b': (1.0, 1, True)}
    """
    min_count = checks.integer("min_count", min_count, at_least=0)
    rows, kept = read(labels, scores, weights, mask)
    n = len(np.asarray(labels))
    binary = bool(((rows.labels == 0) | (rows.labels == 1)).all())
    columns = slices if isinstance(slices, Mapping) else {"": slices}
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
            slice_name: Hashable = (column, value) if isinstance(slices, Mapping) else value
            found[slice_name] = Slice(figure, count, bool(small), drawn)
    return found


def _members(
    column: str, values: ArrayLike, n: int, kept: NDArray[np.int64]
) -> list[tuple[Any, NDArray[np.int64]]]:
    """Each value with the positions of its rows among those kept."""
    given = np.asarray(values)
    if given.shape != (n,):
        where = f"slices[{column!r}]" if column else "slices"
        raise ValueError(f"{where} must have {n} rows, as labels; got shape {given.shape}")
    given = given[kept]
    if given.dtype.kind == "M":
        given = given.astype("datetime64[us]").astype(object)  # nanoseconds would become integers
    if given.dtype.kind == "O":
        each = [None if _is_missing(v) else v for v in given]
        names = sorted(dict.fromkeys(each), key=lambda v: (v is None, str(v)))
        number = {name: i for i, name in enumerate(names)}
        at = np.array([number[v] for v in each], np.int64)
    else:
        unique, at = np.unique(given, return_inverse=True)
        names = [None if v != v else v for v in unique.tolist()]
    order = np.argsort(at, kind="stable")
    ends = np.cumsum(np.bincount(at, minlength=len(names)))
    return list(zip(names, np.split(order, ends[:-1]), strict=True)) if names else []


def _is_missing(value: Any) -> bool:
    same = value == value  # not of NaN and NaT; `pandas.NA` gives neither True nor False
    return value is None or not (isinstance(same, bool | np.bool_) and bool(same))
