"""Distances between two distributions, of categories or of numbers.

A distribution is any of

- a mapping of category to count;
- an array of counts, aligned with the other side's;
- an array of texts or booleans, which are counted;
- a `Histogram`, or the pair `(counts, edges)` that `numpy.histogram` returns.

Each side is normalised by itself. A category or bucket that is NaN or infinite matches nothing, not even
its like. Names, normalisation and thresholds are those of TensorFlow Data Validation.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from jaxml import checks
from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import Column, Table, read_column, table_columns

Floats = NDArray[np.float64]
Distribution = Any


class Histogram(NamedTuple):
    """Counts of numbers in neighbouring buckets.

    Attributes:
        counts: [B], ≥ 0.
        edges: [B + 1], not falling. A bucket without width is a point mass; one with an infinite edge
            holds infinite values.
        num_nan: number of NaN values.
    """

    counts: Any
    edges: Any
    num_nan: float = 0.0


def l_infinity(a: Distribution, b: Distribution) -> float:
    """Returns the largest difference of a category's share, max_k |p_k − q_k|.

    Args:
        a: counts by category, or a histogram (see the top of this file).
        b: the same of the other side.

    Returns:
        In [0, 1]; 0 if both are empty mappings, as in TensorFlow Data Validation.

    Raises:
        ValueError: for counts that are negative or not finite, for an empty side, or for sides of different
            forms or shapes.

    >>> round(l_infinity({"Cash": 6, "Card": 4}, {"Cash": 50, "Card": 45, "Prcard": 5}), 3)
    0.1

    References:
        Breck et al. "Data Validation for Machine Learning" (MLSys 2019), section 4.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping) and not a and not b:
        return 0.0
    return largest_difference(a, b)[0]


def largest_difference(a: Distribution, b: Distribution) -> tuple[float, Any]:
    """Returns `l_infinity`, and the category (or bucket) whose share differs most.

    >>> largest_difference({"x": 1, "y": 1}, {"x": 1, "z": 1})
    (0.5, 'y')
    """
    p, q, cells = _shares(a, b)
    worst = int(np.argmax(np.abs(p - q)))
    return float(abs(p[worst] - q[worst])), cells[worst]


def jensen_shannon(a: Distribution, b: Distribution) -> float:
    """Returns the Jensen–Shannon divergence in bits.

        JSD = (KL(p ‖ m) + KL(q ‖ m)) / 2,  m = (p + q) / 2

    No square root is taken: SciPy's `jensenshannon(p, q, base=2)` is the root of this. Histograms are
    brought to the union of their edges, uniform within a bucket; point masses meet only at the same point.

    The arguments and errors are those of `l_infinity`.

    Returns:
        In [0, 1]; 1 where nothing is shared.

    >>> jensen_shannon({"x": 1}, {"y": 1})
    1.0
    >>> round(jensen_shannon(([2, 2], [1, 2, 3]), ([2, 2], [2, 4, 6])), 6)
    0.655639

    References:
        Lin. "Divergence Measures Based on the Shannon Entropy" (1991).
    """
    p, q, _ = _shares(a, b)
    middle = (p + q) / 2
    nats = rel_entr(p, middle).sum() + rel_entr(q, middle).sum()
    return float(np.clip(nats / (2 * math.log(2)), 0.0, 1.0))


def _shares(a: Distribution, b: Distribution) -> tuple[Floats, Floats, list[Any]]:
    """Returns shares of both sides in the same cells, and the cells."""
    sides = [_counted(a, "a"), _counted(b, "b")]
    forms = {"counts" if isinstance(side, np.ndarray) else type(side).__name__ for side in sides}
    if len(forms) > 1:
        raise ValueError(f"a and b must have one form, got {' and '.join(sorted(forms))}")
    if forms == {"counts"}:
        shapes = [side.shape for side in sides]
        if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            raise ValueError(
                f"a and b must be vectors of counts of one length, got shapes {shapes[0]} and {shapes[1]}"
            )
        counts, cells = sides, list(range(len(sides[0])))
    else:
        if forms == {"Histogram"}:
            edges = np.unique(np.concatenate([_wide(side)[0] for side in sides]))
            sides = [_rebucketed(side, edges) for side in sides]
        counts, cells = _aligned(*sides)
    for name, each in zip("ab", counts, strict=True):
        if not np.isfinite(each).all() or (each < 0).any():
            raise ValueError(f"{name} must hold finite counts of at least 0, got {each}")
        if not each.sum() > 0:
            raise ValueError(f"{name} must not be empty, its counts sum to {each.sum()}")
    return counts[0] / counts[0].sum(), counts[1] / counts[1].sum(), cells


def _aligned(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> tuple[list[Floats], list[Any]]:
    """Returns the counts of both sides in the same cells, and the cells.

    What is not finite matches nothing: it has a cell of its own on each side.
    """
    both = [key for key in dict.fromkeys([*a, *b]) if _is_finite(key)]
    alone = [[key for key in side if not _is_finite(key)] for side in (a, b)]
    counts = []
    for i, side in enumerate((a, b)):
        own = [[side[key] if i == j else 0 for key in alone[j]] for j in (0, 1)]
        counts.append(np.array([side.get(key, 0) for key in both] + own[0] + own[1], np.float64))
    return counts, both + alone[0] + alone[1]


def _is_finite(key: Any) -> bool:
    return not isinstance(key, float | np.floating) or math.isfinite(key)


def _counted(side: Any, name: str) -> Any:
    """Returns a dict of counts, a `Histogram`, or an array of counts."""
    if isinstance(side, Mapping):
        return dict(side)
    if isinstance(side, tuple | list) and len(side) in (2, 3) and np.ndim(side[0]) == 1:
        parts: Any = [np.asarray(each, np.float64) for each in side]
        found = Histogram(*parts)
        if len(found.edges) != len(found.counts) + 1 and (len(found.edges) or len(found.counts)):
            sizes = f"{len(found.counts)} and {len(found.edges)}"
            raise ValueError(f"{name} must have one edge more than counts, got {sizes}")
        # Neighbouring infinities have no difference, so no `np.diff`.
        if np.isnan(found.edges).any() or (found.edges[1:] < found.edges[:-1]).any():
            raise ValueError(f"{name} must have edges that do not fall, got {found.edges}")
        return found
    array = np.asarray(side)
    if array.dtype.kind in "iuf":
        return array.astype(np.float64)
    return category_counts(read_column(name, side))


def category_counts(column: Column) -> dict[Any, int]:
    """Returns how often each value of a column occurs; missing values are left out.

    >>> category_counts(read_column("pay", ["a", "b", "a", None]))
    {'a': 2, 'b': 1}
    """
    codes, distinct = column.codes()
    counts = np.bincount(codes[codes >= 0], minlength=len(distinct)).tolist()
    return dict(zip(distinct, counts, strict=True))


def _wide(h: Histogram) -> tuple[Floats, Floats]:
    """Returns edges and counts of the buckets with a finite width."""
    low, high = h.edges[:-1], h.edges[1:]
    wide = np.isfinite(low) & np.isfinite(high) & (low != high)
    return np.append(low[wide], high[wide][-1:]), h.counts[wide]


def _rebucketed(h: Histogram, edges: Floats) -> Counter[Any]:
    """Returns counts by bucket between the edges, point mass, infinity and NaN."""
    cells: Counter[Any] = Counter({math.nan: float(h.num_nan)})
    own, counts = _wide(h)
    if len(counts):
        # Uniform within a bucket: the cumulative count is linear between its edges. Halves, since the
        # widest range of floats is not a float.
        spread = np.diff(np.interp(edges / 2, own / 2, np.append(0, np.cumsum(counts))))
        cells.update(dict(zip(itertools.pairwise(edges.tolist()), spread, strict=True)))
    for low, high, count in zip(h.edges[:-1].tolist(), h.edges[1:].tolist(), h.counts, strict=True):
        if not (math.isfinite(low) and math.isfinite(high)):
            cells[math.inf] += count
        elif low == high:
            cells[low] += count
    return cells


@dataclasses.dataclass(frozen=True)
class Comparator:
    """How far a column may be from another table's before it is an anomaly; None for any distance.

    Attributes:
        infinity_norm: threshold of `l_infinity`.
        jensen_shannon_divergence: threshold of `jensen_shannon`.
    """

    infinity_norm: float | None = None
    jensen_shannon_divergence: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None:
                checks.number(name, value, 0)


def compare(columns: Table, control: Table, comparators: Mapping[str, Comparator]) -> list[Anomaly]:
    """Returns an anomaly for each threshold that the distance of a column from the control's passes.

    Numbers are compared in ten buckets of equal width, texts, booleans and times by value.

    Args:
        control: the previous table (drift), or the serving data (skew).
        comparators: thresholds by column.

    >>> wanted = {"pay": Comparator(infinity_norm=0.01)}
    >>> [a.kind for a in compare({"pay": ["Cash", "Card"]}, {"pay": ["Cash"]}, wanted)]
    ['COMPARATOR_L_INFTY_HIGH']
    """
    columns, control = table_columns(columns), table_columns(control, "control")
    found = []
    for name, comparator in comparators.items():
        if name not in columns:
            continue  # The schema misses it.
        column, other = read_column(name, columns[name]), read_column(name, control.get(name, []))
        if other.values.ndim != 1 or not other.num_present:
            message = "the control table has no values"
            found.append(Anomaly("COMPARATOR_CONTROL_DATA_MISSING", name, message))
            continue
        if not column.num_present:
            continue
        column, other = _cells(column, other)
        counts = category_counts(column), category_counts(other)
        gap, worst = largest_difference(*counts)
        codes, distinct = column.codes()
        rows = np.flatnonzero(codes == distinct.index(worst)) if worst in distinct else ()
        for kind, title, threshold, distance in (
            ("L_INFTY", "L-infinity distance", comparator.infinity_norm, gap),
            (
                "JENSEN_SHANNON_DIVERGENCE",
                "Jensen–Shannon divergence",
                comparator.jensen_shannon_divergence,
                jensen_shannon(*counts),
            ),
        ):
            if threshold is not None and distance > threshold:
                message = (
                    f"{title} {distance:.4g} is above {threshold:.4g}; shares differ most, by {gap:.3g}, "
                    f"at {worst!r}"
                )
                kind = f"COMPARATOR_{kind}_HIGH"
                found.append(Anomaly(kind, name, message, examples=[worst], rows=rows, share=gap))
    return found


def _cells(a: Column, b: Column) -> tuple[Column, Column]:
    """Returns both columns with numbers replaced by the text of their bucket."""
    if any(side.type not in ("INT", "FLOAT") or side.is_bool for side in (a, b)):
        if a.type == b.type:
            return a, b
        # 1 and "1" are different values.
        cells: list[Any] = [
            [f"{type(v).__name__} {v!r}" for v in side.values.tolist()] for side in (a, b)
        ]
    else:
        numbers = [side.numbers() for side in (a, b)]
        both = np.concatenate(numbers)
        finite = both[np.isfinite(both)] / 2  # Halves: the widest range of floats is not a float.
        edges = 2 * np.linspace(finite.min(), finite.max(), 11) if len(finite) else np.zeros(11)
        buckets = [f"{low:.6g} … {high:.6g}" for low, high in itertools.pairwise(edges)]
        names = np.array(["−inf", *buckets, "inf"], object)
        cells = []
        for side in numbers:
            place = np.clip(np.searchsorted(edges, side, "right"), 1, 10)
            cells.append(names[np.where(np.isinf(side), np.where(side > 0, 11, 0), place)])
    first, second = (
        Column(side.name, "BYTES", np.array(each, object), side.missing)
        for side, each in zip((a, b), cells, strict=True)
    )
    return first, second
