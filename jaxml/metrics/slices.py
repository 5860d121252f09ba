"""A metric on parts of the data: where does the model fail that looks good on the whole?"""

import zlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.metrics import checks
from jaxml.metrics.metric import Metric
from jaxml.metrics.resampling import METHODS, Interval, data, evaluate, interval
from jaxml.types import Key

__all__ = ["Slice", "by_slice"]


class Slice(NamedTuple):
    """A metric on one part of the data.

    Attributes:
        value: the metric; NaN where undefined.
        num_examples: how many.
        small: whether there are too few examples (or of one of two classes) to say much.
        interval: of the bootstrap, if a key was given.
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
    min_class_count: int = 10,
    key: Key | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    method: str = "percentile",
) -> dict[Any, Slice]:
    """A metric for each value of a column, with counts, and with bootstrap intervals if a key is given.

    Args:
        metric: `streaming.…()`, or a one-call form such as `metrics.roc_auc`, that gives one number.
        slices: [n], what each row belongs to: texts, integers, booleans, anything hashable; NaN and None
            are a slice of their own, None. Or such columns by name.
        labels: [n, ...].
        scores: [n, ...].
        weights: [n] or None.
        mask: [n] or None, boolean; what is False does not count, whatever it holds.
        min_count: a slice of fewer examples is small.
        min_class_count: with labels 0 and 1, so is one with fewer of either class.
        key: for intervals (`bootstrap`); each slice draws by its own name, so its interval does not
            depend on the other slices.
        num_samples: resamples.
        confidence: of the intervals, in (0, 1).
        method: "percentile" or "bca".

    Returns:
        `{value: Slice}` in the order of the values, or `{(column, value): Slice}` for several columns.

    Raises:
        ValueError: for shapes that do not fit or options out of range, or what the metric refuses.

    >>> from jaxml.metrics import accuracy
    >>> found = by_slice(accuracy, ["a", "b", "a"], [1, 0, 0], [0.9, 0.2, 0.8], min_count=2)
    >>> {name: (part.value, part.num_examples, part.small) for name, part in found.items()}
    {'a': (0.5, 2, True), 'b': (1.0, 1, True)}
    """
    min_count = checks.integer("min_count", min_count, 0)
    min_class_count = checks.integer("min_class_count", min_class_count, 0)
    num_samples = checks.integer("num_samples", num_samples, 2)
    checks.choice("method", method, METHODS)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")
    rows, kept = data(labels, scores, weights, mask)
    n = len(np.asarray(labels))
    binary = rows.labels.ndim == 1 and bool(((rows.labels == 0) | (rows.labels == 1)).all())
    columns = slices if isinstance(slices, Mapping) else {"": slices}
    if not isinstance(metric, Metric):
        # What it refuses it names by the caller's row, not by the slice's.
        metric(labels, scores, weights=weights, mask=mask)
    found: dict[Any, Slice] = {}
    for column, values in columns.items():
        for value, members in _members(column, values, n, kept):
            part = rows.take(members)
            count = len(members)
            fewest = min((part.labels == 1).sum(), (part.labels == 0).sum()) if binary else count
            drawn = None
            if key is not None:
                name = zlib.crc32(f"{column}\0{value!r}".encode()) & 0x7FFFFFFF
                own = jax.random.fold_in(key, name)
                drawn = interval(metric, part, own, num_samples, confidence, method, None)
            figure = evaluate(metric, part) if drawn is None else drawn.value
            small = count < min_count or (binary and fewest < min_class_count)
            name_of: Hashable = (column, value) if isinstance(slices, Mapping) else value
            found[name_of] = Slice(figure, count, bool(small), drawn)
    return found


def _members(
    column: str, values: ArrayLike, n: int, kept: NDArray[np.int64]
) -> list[tuple[Any, NDArray[np.int64]]]:
    """Each value with its rows' places among those kept."""
    given = np.asarray(values)
    if given.shape != (n,):
        where = f"slices[{column!r}]" if column else "slices"
        raise ValueError(f"{where} must have {n} rows, as labels; got shape {given.shape}")
    given = given[kept]
    if given.dtype.kind == "O":
        # NaN is not itself: it is None here.
        each = [None if v is None or v != v else v for v in given]
        names = sorted(dict.fromkeys(each), key=lambda v: (v is None, str(v)))
        number = {name: i for i, name in enumerate(names)}
        at = np.array([number[v] for v in each], np.int64)
    else:
        unique, at = np.unique(given, return_inverse=True)
        names = [None if v != v else v for v in unique.tolist()]
    order = np.argsort(at, kind="stable")
    ends = np.cumsum(np.bincount(at, minlength=len(names)))
    return list(zip(names, np.split(order, ends[:-1]), strict=True)) if names else []
