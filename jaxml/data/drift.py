"""How far apart two distributions are, of categories and of numbers.

A distribution is given as any of

- a mapping of category to count;
- two arrays of counts, aligned by category;
- an array of text or of booleans: the categories are counted;
- a `Histogram`, or the pair `(counts, edges)` that `numpy.histogram` returns.

As in a histogram, a category that is NaN or infinite matches nothing, not even its like.

Counts need not be whole, and each side is normalised by itself. Names, normalisation and thresholds are
those of TensorFlow Data Validation (`anomalies/metrics.cc`).
"""

import contextlib
import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.data.anomalies import Anomaly, anomaly
from jaxml.data.columns import BadColumn, Column, num_rows, read_column, read_columns

Floats = NDArray[np.float64]


class Histogram(NamedTuple):
    """Counts of numbers in neighbouring buckets.

    Attributes:
        counts: [B], ≥ 0.
        edges: [B + 1], not falling. A bucket without width is a point mass; one with an infinite edge
            holds infinite values.
        num_nan: how many values were NaN.
    """

    counts: NDArray[Any]
    edges: NDArray[Any]
    num_nan: float = 0.0


Distribution: TypeAlias = (
    Mapping[Any, float] | Histogram | tuple[NDArray[Any], NDArray[Any]] | ArrayLike
)


def histogram(
    values: ArrayLike,
    bins: int | ArrayLike = 10,
    method: Literal["standard", "quantiles"] = "standard",
) -> Histogram:
    """Counts numbers in buckets.

    A value on an edge belongs to the bucket on its right, save on the last; a point mass (two equal
    edges) takes the values that equal it.

    Args:
        values: [N] numbers; NaN is counted apart, and infinities get buckets of their own at the ends.
        bins: how many buckets, ≥ 1, or edges [B + 1]. The outermost buckets are widened as far as needed
            to hold every finite value (a point mass gets a neighbour).
        method: `"standard"` for buckets of equal width, `"quantiles"` for equal counts, where a value
            more frequent than a bucket becomes a point mass.

    Returns:
        The `Histogram`. Without finite values it has no finite bucket.

    Raises:
        ValueError: for fewer than one bucket, falling or non-finite edges.

    Example:
        >>> histogram([0.0, 1.0, 1.0, 4.0, np.nan], bins=2)
        Histogram(counts=array([3., 1.]), edges=array([0., 2., 4.]), num_nan=1.0)
    """
    given = np.asarray(values, np.float64).ravel()
    nan = np.isnan(given)
    low, high = (given == -np.inf).sum(), (given == np.inf).sum()
    finite = np.sort(given[np.isfinite(given)])
    if np.ndim(bins):
        edges = np.array(bins, np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all():
            raise ValueError(f"bins must be a number or at least two finite edges, got {bins!r}")
        if (edges[1:] < edges[:-1]).any():
            raise ValueError(f"bins must not fall, got {bins!r}")
        if len(finite) and finite[0] < edges[0]:  # A point mass stays one: it gets a neighbour.
            edges = np.concatenate([finite[:1], edges[int(edges[0] != edges[1]) :]])
        if len(finite) and finite[-1] > edges[-1]:
            inner = edges[: len(edges) - int(edges[-1] != edges[-2])]
            edges = np.concatenate([inner, finite[-1:]])
    else:
        if int(bins) < 1:  # type: ignore[arg-type]
            raise ValueError(f"bins must be at least 1, got {bins!r}")
        if not len(finite):
            edges = np.zeros(0)
        elif finite[0] == finite[-1]:
            edges = finite[[0, -1]]
        elif method == "standard":
            # Halved, so that the width of the widest range of floats is itself a float.
            half = np.linspace(finite[0] / 2, finite[-1] / 2, int(bins) + 1)  # type: ignore[arg-type]
            edges = np.clip(2 * half, finite[0], finite[-1])
        elif method == "quantiles":
            at = np.linspace(0, len(finite) - 1, int(bins) + 1)  # type: ignore[arg-type]
            edges = finite[np.round(at).astype(np.int64)]
        else:
            raise ValueError(f"method must be 'standard' or 'quantiles', got {method!r}")
    counts = _bucket_counts(finite, edges)
    if low:
        first = edges[:1] if len(edges) else np.array([-np.inf])
        edges = np.concatenate([[-np.inf], edges if len(edges) else first])
        counts = np.concatenate([[low], counts])
    if high:
        edges = np.concatenate([edges if len(edges) else [np.inf], [np.inf]])
        counts = np.concatenate([counts, [high]])
    return Histogram(counts.astype(np.float64), edges, float(nan.sum()))


def _bucket_counts(ordered: Floats, edges: Floats) -> Floats:
    """How many of the sorted values lie in each bucket; equal edges are a point."""
    if len(edges) < 2:
        return np.zeros(0)
    below = np.searchsorted(ordered, edges, "left")
    upto = np.searchsorted(ordered, edges, "right")
    # A run of equal edges is one point, held by the first of its empty buckets.
    same = edges[1:] == edges[:-1]
    starts = same & ~np.concatenate([[False], same[:-1]])
    after_point = np.concatenate([[False], same])  # edge i closes a point
    counts = below[1:] - np.where(after_point[:-1], upto[:-1], below[:-1])
    counts = np.where(same, np.where(starts, upto[:-1] - below[:-1], 0), counts)
    if not same[-1]:
        counts[-1] += upto[-1] - below[-1]
    return counts.astype(np.float64)


def category_counts(values: ArrayLike) -> dict[Any, float]:
    """How often each category occurs; missing values are left out.

    Args:
        values: [N] text, integers or booleans.

    Returns:
        Counts by category, in the order in which they first appear.

    Example:
        >>> category_counts(["a", "b", "a", None])
        {'a': 2.0, 'b': 1.0}
    """
    (column,) = read_columns({"values": values}).values()
    codes, distinct = column.codes()
    counts = np.bincount(codes[codes >= 0], minlength=len(distinct))
    return dict(zip(distinct, counts.astype(float).tolist(), strict=True))


# ---------------------------------------------------------------------------------------- alignment


def _as_histogram(side: Any, name: str) -> Histogram | None:
    if (
        isinstance(side, tuple | list)
        and len(side) in (2, 3)
        and isinstance(side[0], list | tuple | np.ndarray)
        and np.ndim(side[0]) == 1
    ):
        counts, edges = np.asarray(side[0], np.float64), np.asarray(side[1], np.float64)
        if len(edges) not in (len(counts) + 1, 0) or (len(edges) == 0 and len(counts)):
            raise ValueError(
                f"{name} must have one edge more than counts, got {len(counts)} and {len(edges)}"
            )
        # Neighbouring infinities have no difference, and are no fall either.
        if np.isnan(edges).any() or (edges[1:] < edges[:-1]).any():
            raise ValueError(f"{name} must have edges that do not fall, got {edges}")
        return Histogram(counts, edges, float(side[2]) if len(side) == 3 else 0.0)
    return None


def _checked(counts: Floats, name: str) -> Floats:
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"{name} must hold finite counts of at least 0, got {counts}")
    return counts


def _aligned(a: Distribution, b: Distribution) -> tuple[Floats, Floats, list[Any]]:
    """Counts of both sides in the same cells, and what the cells are."""
    histograms = _as_histogram(a, "a"), _as_histogram(b, "b")
    if histograms[0] is not None and histograms[1] is not None:
        return _aligned_histograms(histograms[0], histograms[1])
    if histograms[0] is not None or histograms[1] is not None:
        raise ValueError("a and b must both be histograms, or neither")
    sides = [_counted(a, "a"), _counted(b, "b")]
    if all(isinstance(side, Mapping) for side in sides):
        common = [{k: n for k, n in side.items() if not _matches_nothing(k)} for side in sides]
        keys = list(dict.fromkeys([*common[0], *common[1]]))
        counts = [np.array([_count(side.get(key, 0)) for key in keys]) for side in common]
        for i, side in enumerate(sides):
            alone = [key for key in side if _matches_nothing(key)]
            keys += alone
            mass = np.array([_count(side[key]) for key in alone])
            counts[i] = np.concatenate([counts[i], mass])
            counts[1 - i] = np.concatenate([counts[1 - i], np.zeros(len(alone))])
    elif any(isinstance(side, Mapping) for side in sides):
        raise ValueError("a and b must both be counts by category, or both arrays of counts")
    else:
        if sides[0].shape != sides[1].shape or sides[0].ndim != 1:
            raise ValueError(
                f"a and b must be vectors of counts of the same categories, got shapes "
                f"{sides[0].shape} and {sides[1].shape}"
            )
        counts, keys = sides, list(range(len(sides[0])))
    return _checked(counts[0], "a"), _checked(counts[1], "b"), keys


def _matches_nothing(key: Any) -> bool:
    """Whether a category is a number that is not finite: NaN is not even itself."""
    return isinstance(key, float | np.floating) and not math.isfinite(key)


def _count(value: Any) -> float:
    return float(value) if isinstance(value, numbers.Real) else math.nan


def _counted(side: Any, name: str) -> Any:
    if isinstance(side, Mapping):
        return side
    array = np.asarray(side)
    if array.dtype.kind in "bUSOT":
        return category_counts(side)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold counts or categories, got {array.dtype}")
    return array.astype(np.float64)


def _split(h: Histogram) -> tuple[Floats, Floats, dict[float, float], float]:
    """Edges and counts of the buckets with a finite width; point masses; infinite mass."""
    low, high = h.edges[:-1], h.edges[1:]
    finite = np.isfinite(low) & np.isfinite(high)
    infinite = float(h.counts[~finite].sum())
    wide = finite & (low != high)
    points: dict[float, float] = {}
    for at, count in zip(low[finite & ~wide], h.counts[finite & ~wide], strict=True):
        points[float(at)] = points.get(float(at), 0.0) + float(count)
    edges = np.concatenate([low[wide], high[wide][-1:]])
    return edges, h.counts[wide], points, infinite


def _aligned_histograms(a: Histogram, b: Histogram) -> tuple[Floats, Floats, list[Any]]:
    for name, side in (("a", a), ("b", b)):
        _checked(np.append(side.counts, side.num_nan), name)
    parts = [_split(a), _split(b)]
    union = np.unique(np.concatenate([parts[0][0], parts[1][0]]))
    cells: list[Any] = list(zip(union[:-1].tolist(), union[1:].tolist(), strict=True))
    points = sorted({*parts[0][2], *parts[1][2]})
    cells += points
    counts = []
    for edges, inside, at, _ in parts:
        spread = np.zeros(max(len(union) - 1, 0))
        if len(inside):
            # Uniform within a bucket: the cumulative count is linear between its edges.
            cumulative = np.concatenate([[0], np.cumsum(inside)])
            spread = np.diff(np.interp(union / 2, edges / 2, cumulative))
        counts.append(np.concatenate([spread, [at.get(point, 0.0) for point in points]]))
    # What is infinite or NaN on one side matches nothing, not even its like on the other.
    for masses, label in (
        ((parts[0][3], parts[1][3]), "infinite"),
        ((a.num_nan, b.num_nan), "NaN"),
    ):
        counts[0] = np.concatenate([counts[0], [masses[0], 0.0]])
        counts[1] = np.concatenate([counts[1], [0.0, masses[1]]])
        cells += [label, label]
    return counts[0], counts[1], cells


def _shares(a: Distribution, b: Distribution) -> tuple[Floats, Floats, list[Any]]:
    counts_a, counts_b, cells = _aligned(a, b)
    for name, counts in (("a", counts_a), ("b", counts_b)):
        if not counts.sum() > 0:
            raise ValueError(f"{name} must not be empty, its counts sum to {counts.sum()}")
    return counts_a / counts_a.sum(), counts_b / counts_b.sum(), cells


# ---------------------------------------------------------------------------------------- distances


def l_infinity(a: Distribution, b: Distribution) -> float:
    """The largest difference of a category's share.

        L∞ = max_k |a_k / Σa − b_k / Σb|

    Args:
        a: counts by category, or a histogram (see the top of this file).
        b: the same of the other side.

    Returns:
        In [0, 1]; 0 if both have no category at all, as in TensorFlow Data Validation.

    Raises:
        ValueError: for counts that are negative or not finite, that sum to 0, or shapes that do not fit.

    Example:
        >>> round(l_infinity({"Cash": 6, "Card": 4}, {"Cash": 50, "Card": 45, "Prcard": 5}), 3)
        0.1

    Source: Breck et al., "Data Validation for Machine Learning" (MLSys 2019), section 4.
    """
    return largest_difference(a, b)[0]


def largest_difference(a: Distribution, b: Distribution) -> tuple[float, Any]:
    """`l_infinity`, and the category (or bucket) whose share differs most; None if there is none.

    Args:
        a: as in `l_infinity`.
        b: as in `l_infinity`.

    Returns:
        The distance and the category.

    Example:
        >>> largest_difference({"x": 1, "y": 1}, {"x": 1, "z": 1})
        (0.5, 'y')
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping) and not a and not b:
        return 0.0, None
    p, q, cells = _shares(a, b)
    worst = int(np.argmax(np.abs(p - q)))
    return float(abs(p[worst] - q[worst])), cells[worst]


def normalized_absolute_difference(a: Distribution, b: Distribution) -> float:
    """The largest difference of a category's count, beside all counts together.

        NAD = max_k |a_k − b_k| / (Σa + Σb)

    It sees a table that grew or shrank, which distances of shares do not.

    Args:
        a: as in `l_infinity`.
        b: as in `l_infinity`.

    Returns:
        In [0, 1].

    Raises:
        ValueError: as in `l_infinity`, and if both sides sum to 0.

    Example:
        >>> normalized_absolute_difference({"x": 3, "y": 1}, {"x": 1, "y": 3})
        0.25
    """
    counts_a, counts_b, _ = _aligned(a, b)
    total = counts_a.sum() + counts_b.sum()
    if not total > 0:
        raise ValueError("a and b must not both be empty, their counts sum to 0")
    return float(np.abs(counts_a - counts_b).max() / total)


def jensen_shannon(a: Distribution, b: Distribution) -> float:
    """Jensen–Shannon divergence in bits.

        JSD = (KL(p ‖ m) + KL(q ‖ m)) / 2,  m = (p + q) / 2,  KL(p ‖ m) = Σ_k p_k log₂(p_k / m_k)

    No square root is taken: SciPy's `jensenshannon(p, q, base=2)` is the root of this. Histograms are
    brought to the union of their edges, uniform within a bucket; point masses meet only at the same
    point; NaN and infinite mass match nothing, not even each other.

    Args:
        a: as in `l_infinity`.
        b: as in `l_infinity`.

    Returns:
        In [0, 1]; 1 where nothing is shared.

    Raises:
        ValueError: as in `l_infinity`; an empty side is an error.

    Example:
        >>> jensen_shannon({"x": 1}, {"y": 1})
        1.0
        >>> round(jensen_shannon(([2, 2], [1, 2, 3]), ([2, 2], [2, 4, 6])), 6)
        0.655639

    Source: Lin, "Divergence Measures Based on the Shannon Entropy" (1991).
    """
    p, q, _ = _shares(a, b)
    middle = (p + q) / 2

    def divergence(side: Floats) -> float:
        there = side > 0
        return float((side[there] * np.log2(side[there] / middle[there])).sum())

    return min(max((divergence(p) + divergence(q)) / 2, 0.0), 1.0)


def population_stability_index(a: Distribution, b: Distribution, *, epsilon: float = 1e-4) -> float:
    """Population stability index, the symmetric Kullback–Leibler divergence in nats.

        PSI = Σ_k (p_k − q_k) ln(p_k / q_k)

    By convention below 0.1 is stable and above 0.25 a shift.

    Args:
        a: as in `l_infinity`.
        b: as in `l_infinity`.
        epsilon: > 0; a share below it counts as this much, since an empty category
            would make the index infinite.

    Returns:
        ≥ 0.

    Raises:
        ValueError: as in `jensen_shannon`, or for an `epsilon` that is not positive.

    Example:
        >>> round(population_stability_index([50, 50], [60, 40]), 4)
        0.0405

    Source: Siddiqi, "Credit Risk Scorecards" (2006); Yurdakul (2018) for its distribution.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    p, q, _ = _shares(a, b)
    used = (p > 0) | (q > 0)
    p, q = np.maximum(p[used], epsilon), np.maximum(q[used], epsilon)
    return float(((p - q) * np.log(p / q)).sum())


def kolmogorov_smirnov(a: Any, b: Any) -> float:
    """The largest difference of the two cumulative distributions.

        D = sup_x |F_a(x) − F_b(x)|

    Args:
        a: an array of numbers is the *sample* itself, NaN left out; a mapping holds counts by
            category, in the order of the sorted keys; text is counted so; a histogram is linear within
            a bucket.
        b: the same of the other side.

    Returns:
        In [0, 1]. For samples this is the statistic of `scipy.stats.ks_2samp`. NaN and infinite mass of
        histograms and of counts are kept apart as in `jensen_shannon`, and count as a difference.

    Raises:
        ValueError: if a side is empty, or of another form than the other.

    Example:
        >>> kolmogorov_smirnov([1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0])
        0.5
    """
    histograms = _as_histogram(a, "a"), _as_histogram(b, "b")
    if histograms[0] is not None and histograms[1] is not None:
        return _histogram_ks(histograms[0], histograms[1])
    if histograms == (None, None) and not any(isinstance(side, Mapping) for side in (a, b)):
        arrays = [np.asarray(side) for side in (a, b)]
        if all(array.dtype.kind in "biuf" for array in arrays):
            first, second = (
                np.sort(array.ravel()[~np.isnan(array.ravel().astype(np.float64))])
                for array in arrays
            )
            if not len(first) or not len(second):
                raise ValueError(f"a and b must not be empty, got {len(first)} and {len(second)}")
            points = np.concatenate([first, second])
            steps = [np.searchsorted(s, points, "right") / len(s) for s in (first, second)]
            return float(np.abs(steps[0] - steps[1]).max())
    p, q, keys = _shares(a, b)
    apart = [i for i, key in enumerate(keys) if _matches_nothing(key)]
    try:
        order = sorted(set(range(len(keys))) - set(apart), key=lambda i: keys[i])
    except TypeError as error:
        raise ValueError(f"a and b must have categories that can be ordered: {error}") from error
    between = np.abs(np.cumsum(p[order]) - np.cumsum(q[order])).max(initial=0.0)
    return max(float(between), float(np.abs(p[apart] - q[apart]).sum()) / 2)


def _histogram_ks(a: Histogram, b: Histogram) -> float:
    p, q, cells = _shares(a, b)
    places = [cell if isinstance(cell, tuple) else (cell, cell) for cell in cells]
    finite = [i for i, cell in enumerate(cells) if not isinstance(cell, str)]
    # Wide buckets do not overlap, but a point may lie inside one: there both functions jump.
    at = sorted({edge for i in finite for edge in places[i]})
    found = 0.0
    for side in ("left", "right"):
        sums = []
        for shares in (p, q):
            total = np.zeros(len(at))
            for i in finite:
                low, high = places[i]
                if low < high:
                    # Halved: the width of the widest range of floats is itself a float.
                    inside = np.clip(at, low, high) / 2 - low / 2
                    total += shares[i] * inside / max(high / 2 - low / 2, 5e-324)
                else:
                    total += shares[i] * (
                        np.array(at) > low if side == "left" else np.array(at) >= low
                    )
            sums.append(total)
        if at:
            found = max(found, float(np.abs(sums[0] - sums[1]).max()))
    apart = [i for i, cell in enumerate(cells) if isinstance(cell, str)]
    return max(found, float(np.abs(p[apart] - q[apart]).sum()) / 2)


# ---------------------------------------------------------------------------------------- thresholds


SOURCES = ("STANDARD", "QUANTILES")


def is_number(value: Any) -> bool:
    """Whether a value can be compared with: a number, and not NaN."""
    return isinstance(value, int | float | np.integer | np.floating) and value == value


@dataclasses.dataclass(frozen=True)
class Comparator:
    """How far a column may move from another table's before it is an anomaly; None is not looked at.

    Attributes:
        infinity_norm: threshold of `l_infinity`.
        jensen_shannon_divergence: threshold of `jensen_shannon`.
        normalized_abs_difference: threshold of `normalized_absolute_difference`.
        population_stability_index: threshold of `population_stability_index`.
        kolmogorov_smirnov: threshold of `kolmogorov_smirnov`.
        source: `"STANDARD"` or `"QUANTILES"`: the buckets in which numbers are counted, ten of them.
    """

    infinity_norm: float | None = None
    jensen_shannon_divergence: float | None = None
    normalized_abs_difference: float | None = None
    population_stability_index: float | None = None
    kolmogorov_smirnov: float | None = None
    source: str = "STANDARD"

    def contradictions(self) -> list[str]:
        """What of it can never be compared with, in words."""
        found = []
        for measure in _MEASURES:
            value = getattr(self, measure[0])
            if value is not None and not (is_number(value) and value >= 0):
                found.append(f"{measure[0]} must be a number of at least 0, got {value!r}")
        if self.source not in SOURCES:
            found.append(f"source must be in {SOURCES}, got {self.source!r}")
        return found


_MEASURES = (
    ("infinity_norm", "COMPARATOR_L_INFTY_HIGH", "L-infinity distance", l_infinity),
    (
        "jensen_shannon_divergence",
        "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
        "Jensen–Shannon divergence",
        jensen_shannon,
    ),
    (
        "normalized_abs_difference",
        "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH",
        "normalised absolute difference",
        normalized_absolute_difference,
    ),
    (
        "population_stability_index",
        "COMPARATOR_POPULATION_STABILITY_INDEX_HIGH",
        "population stability index",
        population_stability_index,
    ),
    (
        "kolmogorov_smirnov",
        "COMPARATOR_KOLMOGOROV_SMIRNOV_HIGH",
        "Kolmogorov–Smirnov distance",
        kolmogorov_smirnov,
    ),
)


def compare(
    columns: Mapping[str, ArrayLike],
    control: Mapping[str, ArrayLike],
    comparators: Mapping[str, Comparator],
) -> list[Anomaly]:
    """Holds a table's columns against those of a control table.

    Args:
        columns: the table in question.
        control: the one before it (drift), or the serving side (skew).
        comparators: the thresholds, by column; a column without any is not compared.

    Returns:
        COMPARATOR_… anomalies, one for each threshold that is passed. Numbers are compared by
        histograms of ten buckets, text, booleans and times of day alike by category.

    Raises:
        ValueError: if a table's columns have several lengths.

    Example:
        >>> wanted = {"pay": Comparator(infinity_norm=0.01)}
        >>> [a.kind for a in compare({"pay": ["Cash", "Card"]}, {"pay": ["Cash"]}, wanted)]
        ['COMPARATOR_L_INFTY_HIGH']
    """
    current = read_columns({n: columns[n] for n in comparators if n in columns})
    before: dict[str, Column] = {}
    for name in comparators:
        with contextlib.suppress(BadColumn):  # What is no column there is nothing to compare with.
            before |= {name: read_column(name, control[name])} if name in control else {}
    num_rows(before)
    found = []
    for name, comparator in comparators.items():
        wanted = [m for m in _MEASURES if is_number(getattr(comparator, m[0]))]
        if name not in current or not wanted:
            continue  # A column that should be there is missed by the schema.
        if name not in before or not before[name].num_present:
            found.append(
                anomaly("COMPARATOR_CONTROL_DATA_MISSING", name, "the control table has no values")
            )
            continue
        if not current[name].num_present:
            continue
        pair = _comparable(current[name], before[name], comparator.source)
        for field, kind, title, measure in wanted:
            threshold = getattr(comparator, field)
            distance = measure(*pair)
            if distance > threshold:
                gap, worst = largest_difference(*pair)
                told = f"{title} {distance:.4g} is above {threshold:.4g}"
                found.append(
                    anomaly(
                        kind,
                        name,
                        f"{told}; shares differ most, by {gap:.3g}, at {worst!r}",
                        examples=[worst],
                        rows=_rows_at(current[name], worst, isinstance(pair[0], Histogram)),
                        share=gap,
                    )
                )
    return found


def _comparable(a: Column, b: Column, source: str) -> tuple[Any, Any]:
    if {a.type, b.type} <= {"INT", "FLOAT"} and not a.is_bool and not b.is_bool:
        method: Literal["standard", "quantiles"] = (
            "quantiles" if source == "QUANTILES" else "standard"
        )
        values = [side.known().astype(np.float64) for side in (a, b)]
        # The same buckets for both, so that nothing has to be spread within one.
        basis = values[1] if method == "quantiles" else np.concatenate(values)
        edges = histogram(basis[np.isfinite(basis)], 10, method).edges
        bins: Any = edges if len(edges) else 1
        return tuple(  # type: ignore[return-value]
            histogram(inside, bins)._replace(num_nan=side.num_nan)
            for inside, side in zip(values, (a, b), strict=True)
        )
    return tuple(_by_category(side, a.type == b.type) for side in (a, b))  # type: ignore[return-value]


def _rows_at(column: Column, worst: Any, in_buckets: bool) -> NDArray[np.int64]:
    """The rows of the category or bucket that differs most; none if it is the control's alone."""
    values = column.values
    if not in_buckets:
        codes, distinct = column.codes()
        if isinstance(worst, tuple):
            distinct = [(column.type, str(value)) for value in distinct]
        return np.flatnonzero(codes == distinct.index(worst) if worst in distinct else [])
    if worst == "NaN":
        inside = np.zeros(len(values), bool) if column.nan is None else column.nan
    elif worst == "infinite":
        inside = column.present & np.isinf(values.astype(np.float64))
    elif isinstance(worst, tuple):
        inside = column.present & (values >= worst[0]) & (values <= worst[1])
    else:
        inside = column.present & (values == worst)
    return np.flatnonzero(inside)


def _by_category(column: Column, same: bool) -> dict[Any, float]:
    codes, distinct = column.codes()
    counts = np.bincount(codes[codes >= 0], minlength=len(distinct)).astype(float).tolist()
    # 1 and "1" are different values, and so are things of types that do not go together.
    keys = distinct if same else [(column.type, str(value)) for value in distinct]
    return dict(zip(keys, counts, strict=True))
