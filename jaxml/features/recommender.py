"""Which scaling fits a column of numbers, and why: the crash course's chapter, automated.

The table of Google's Machine Learning Crash Course, "Numerical data: Normalization": linear scaling
for what is uniform, z-score for what is normal, a logarithm for power laws, clipping for outliers; and
of its next chapter, bins for clusters. What the eye does with a histogram is done with order statistics,
which a few wild values do not move.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.features.binning import quantile_buckets
from jaxml.features.categories import one_hot, vocabulary
from jaxml.features.columns import numbers
from jaxml.features.pipeline import FeaturePipeline, apply_on_host
from jaxml.features.scaling import clipping, linear_scaling, log_scaling, z_score
from jaxml.features.transform import Transform

__all__ = ["Histogram", "Recommendation", "recommend"]

Shape = Literal["constant", "categorical", "clusters", "power_law", "outliers", "uniform", "normal"]

_FEW = 50  # values, below which a normal column and a uniform one are often taken for each other

_SIGMA = 1.349  # distance of the quartiles of a normal distribution, in standard deviations


class Histogram(NamedTuple):
    """Counts between edges.

    Attributes:
        edges: float64 [n + 1].
        counts: int64 [n].
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]


class Recommendation(NamedTuple):
    """What to do with a column.

    Attributes:
        kind: what the column looks like: "constant", "categorical", "clusters", "power_law",
            "outliers", "uniform" or "normal".
        transforms: the chain to put into a `FeaturePipeline`; empty for a constant column, which is to
            be left out.
        reason: why, in words.
        evidence: what was measured, by name.
        before: histogram of the finite values.
        after: histogram of what the chain makes of them (of ids, for one-hot vectors).
    """

    kind: Shape
    transforms: tuple[Transform, ...]
    reason: str
    evidence: Mapping[str, float]
    before: Histogram
    after: Histogram

    def panels(self, name: str) -> list[tuple[str, NDArray[np.float64], NDArray[np.int64]]]:
        """The two histograms with their headings, as `reports.plots.histograms` draws them.

        >>> [heading for heading, _, _ in recommend(np.arange(100)).panels("distance")]
        ['distance: uniform', 'linear_scaling(low=0.0, high=1.0)']
        """
        chain = ", ".join(map(repr, self.transforms)) or "left out"
        return [(f"{name}: {self.kind.replace('_', ' ')}", *self.before), (chain, *self.after)]

    def __str__(self) -> str:
        chain = ", ".join(map(repr, self.transforms)) or "leave it out"
        return f"{self.kind.replace('_', ' ')}: {self.reason} → {chain}"


def recommend(values: ArrayLike, *, num_bins: int = 40) -> Recommendation:
    """Looks at a column and says which scaling fits it.

    In this order, the first that holds, with m the median and s = (q₇₅ − q₂₅) / 1.349:

    1. constant: one value.
    2. categorical: two values, or integers of which there are few (at most 50, each is met four times
       on average, and not more than a quarter of them just once): their order may mean nothing.
    3. clusters: a kernel density has a valley below 0.6 of both summits beside it, by more than 3.8
       standard errors, and at least one value in twelve lies on either side; or, of at most 100, a
       sixth of them and at least five lie on either side of a gap that a uniform column would have
       once in 10,000 times.
    4. power law: no value is negative, the skew of the quantiles, (q₉₅ + q₀₅ − 2m) / (q₉₅ − q₀₅), is
       above 0.3 + 1/√n, and the logarithm takes 0.15 of it off. Where the least value is the median,
       too, these are the quantiles of the values above it.
    5. outliers: values further than (5 + 10/√n) s from m, and the greatest part near.
    6. uniform: excess kurtosis below −0.82 (a uniform column's is −1.2, a normal one's 0).
    7. normal: what is left, one summit with short tails.

    Args:
        values: N ≥ 1 numbers, NaN for what is missing, which is left out, as infinities are.
        num_bins: of the histograms, ≥ 1.

    Returns:
        A `Recommendation`. Missing values get imputation and an indicator in the words, not in the chain.

    Raises:
        ValueError: text, or no finite number.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = recommend(rng.lognormal(3, 1, 1000))
        >>> found.kind, found.transforms
        ('power_law', (log_scaling(), z_score()))
    """
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, wanted at least 1")
    column = np.ravel(numbers(values))
    x = np.sort(column[np.isfinite(column)])
    if not x.size:
        raise ValueError(f"values has no finite number among {column.size}, wanted at least one")
    missing = 1 - x.size / column.size
    kind, evidence, reason = _shape(x)
    if x.size < _FEW and kind != "constant":
        reason += f"; that is told from {x.size} values, and could be chance"
    evidence = {**evidence, "missing": missing}
    if missing:
        reason += (
            f"; {missing:.1%} are missing or infinite: impute them, beside a missing_indicator"
        )
    transforms = _CHAINS[kind]
    before = _histogram(x, num_bins)
    return Recommendation(
        kind, transforms, reason, evidence, before, _after(x, transforms, num_bins)
    )


_CHAINS: dict[Shape, tuple[Transform, ...]] = {
    "constant": (),
    "categorical": (vocabulary(max_size=50), one_hot()),
    "clusters": (quantile_buckets(10), one_hot()),
    "power_law": (log_scaling(), z_score()),
    "outliers": (clipping(quantiles=(0.01, 0.99)), z_score()),
    "uniform": (linear_scaling(),),
    "normal": (z_score(),),
}


def _shape(x: NDArray[np.float64]) -> tuple[Shape, dict[str, float], str]:
    """Kind, evidence and reason of sorted finite values."""
    n = len(x)
    distinct = 1 + int(np.count_nonzero(np.diff(x)))
    if distinct == 1:
        return "constant", {"distinct": 1}, f"all {n:,} values are {x[0]:g}"
    whole = bool((x == np.floor(x)).all())
    ends = np.append(np.flatnonzero(np.diff(x)), n - 1)
    once = np.count_nonzero(np.diff(ends, prepend=-1) == 1) / distinct  # a long tail has many
    if (distinct == 2 and n > 2) or (whole and distinct <= min(50, n / 4) and once <= 0.25):
        words = f"{distinct} distinct {'integers' if whole else 'values'} in {n:,} rows"
        return "categorical", {"distinct": distinct}, f"{words}, whose order may mean nothing"

    q05, q25, median, q75, q95 = np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95])
    scale = (q75 - q25) / _SIGMA or (q95 - q05) / 3.29 or float(x.std())
    fence = 5 + 10 / np.sqrt(n)
    far = np.abs(x - median) > fence * scale
    share = float(far.mean())
    # What is far is a cluster of its own if there is enough of it.
    core = x[~far] if share < 1 / 12 else x[int(0.02 * n) : n - int(0.02 * n)]
    summits = max((_summits(core, n, factor) for factor in (0.9, 0.45)), key=len)
    if len(summits) < 2:
        summits = _beside_gaps(x)
    if len(summits) > 1:
        told = ", ".join(f"{each:.4g}" for each in summits[:6])
        return (
            "clusters",
            {"clusters": len(summits)},
            f"{len(summits)} summits, near {told}: no one line through all of them",
        )
    # A pile of the least value, as of counts, hides the shape of what is above it.
    tail = x[x > median] if median == x[0] else x
    ends = np.quantile(tail, [0.05, 0.5, 0.95])
    skew = _skew(*ends)
    evidence = {"skew": skew, "far": share}
    if x[0] >= 0 and skew > 0.3 + 1 / np.sqrt(len(tail)):
        log_skew = _skew(*np.log(ends + (0.0 if x[0] > 0 else 1.0)))
        # Pareto's law with an exponent of 1 to 4 keeps 0.62 to 0.82 of it.
        if abs(log_skew) < 0.85 * skew:
            return (
                "power_law",
                {**evidence, "skew_of_log": log_skew, "ratio": float(x[-1] / max(median, 1e-300))},
                f"a long tail to the right (skew of the quantiles {skew:.2f}), which a logarithm takes "
                f"to {log_skew:.2f}",
            )
    if share > 0:
        furthest = float(np.abs(x - median).max() / scale)
        return (
            "outliers",
            {**evidence, "furthest": furthest},
            f"{far.sum():,} of {n:,} values lie more than {fence:.1f} robust standard deviations off "
            f"the median, the furthest {furthest:.0f}",
        )
    centered = (x - x.mean()) / x.std()
    kurtosis = float((centered**4).mean() - 3)
    evidence["kurtosis"] = kurtosis
    if kurtosis < -0.82:  # of 100 values one in 150 is mistaken, either way
        return "uniform", evidence, f"flat between its ends (excess kurtosis {kurtosis:.2f})"
    tails = "short tails" if kurtosis < 1 else "no value far enough off to be clipped"
    return "normal", evidence, f"one summit and {tails} (excess kurtosis {kurtosis:.2f})"


def _skew(low: float, middle: float, high: float) -> float:
    return float((high + low - 2 * middle) / (high - low)) if high > low else 0.0


def _summits(x: NDArray[np.float64], n: int, factor: float) -> list[float]:
    """Where the density has summits that are surely several; sorted values without outliers."""
    if len(x) < 20 or x[0] == x[-1]:
        return []
    q25, q75 = np.quantile(x, [0.25, 0.75])
    spread = min(float(x.std()), (q75 - q25) / _SIGMA or float(x.std()))
    gaps = np.diff(np.unique(x))
    # Silverman's rule (0.9), which is for one normal summit, or half of it, which sees narrower ones;
    # not below the grain of the values.
    width = max(factor * spread * len(x) ** -0.2, 2 * float(np.median(gaps)), (x[-1] - x[0]) / 400)
    grid = np.arange(x[0], x[-1] + width / 4, width / 4)
    below = np.searchsorted(x, grid)
    density = np.convolve(
        np.diff(below, append=len(x)), np.exp(-0.5 * (np.arange(-16, 17) / 4) ** 2), "same"
    )

    def near(at: int) -> int:
        """Values within one width."""
        low, high = np.searchsorted(x, [grid[at] - width, grid[at] + width])
        return int(high - low)

    peaks = [
        i
        for i in range(len(grid))
        if density[i] == density[max(0, i - 4) : i + 5].max() and density[i] > 0
    ]
    # From the highest on: a summit counts if a valley parts it from all that count already.
    kept: list[int] = []
    for peak in sorted(peaks, key=lambda i: -density[i]):
        apart = True
        for other in kept:
            low, high = min(peak, other), max(peak, other)
            valley = low + int(np.argmin(density[low : high + 1]))
            top, bottom = min(near(peak), near(other)), near(valley)
            side = below[valley] if peak < valley else len(x) - below[valley]
            deep = bottom < 0.6 * top and top - bottom > 3.8 * np.sqrt(top + bottom)
            apart &= bool(deep and min(side, len(x) - side) >= n / 12)
        if apart:
            kept.append(peak)
    return [float(grid[i]) for i in sorted(kept)]


def _beside_gaps(x: NDArray[np.float64]) -> list[float]:
    """The medians of what lies between gaps that are no chance; sorted values."""
    n = len(x)
    least = max(5, -(-n // 6))
    if n < 2 * least or n > 100:  # of many values the density knows
        return []
    # Of n uniform values the greatest gap is above a share g of their range with a chance below
    # n (1 − g)ⁿ⁻¹.
    wide = (x[-1] - x[0]) * (1 - (1e-4 / n) ** (1 / (n - 1)))
    gaps = np.diff(x)
    wide = max(wide, 3 * float(np.median(gaps[gaps > 0])))  # steps of a grid are no gaps
    at = [i for i in range(least - 1, n - least) if gaps[i] > wide]
    parts = np.split(x, np.array(at, int) + 1)
    if len(parts) < 2 or min(map(len, parts)) < 5:
        return []
    return [float(np.median(part)) for part in parts]


def _histogram(x: NDArray[np.float64], num_bins: int) -> Histogram:
    low, high = float(x.min()), float(x.max())
    if not high - low > 1e-12 * max(abs(low), abs(high)):  # too near for bins between them
        room = 0.5 * max(1.0, abs(low) * 1e-6)
        low, high = low - room, high + room
    edges: NDArray[np.float64] = np.linspace(low, high, num_bins + 1).astype(np.float64)
    counts = np.histogram(x, edges)[0]
    return Histogram(edges, counts.astype(np.int64))


def _after(x: NDArray[np.float64], transforms: tuple[Transform, ...], num_bins: int) -> Histogram:
    if not transforms:
        return Histogram(np.array([-0.5, 0.5]), np.array([0]))
    chain: Any = transforms[:-1] if transforms[-1].name == "one_hot" else transforms
    made: Any = x
    for transform, state in zip(
        chain, FeaturePipeline({"x": chain}).fit({"x": x}).state["x"], strict=True
    ):
        made = apply_on_host(transform, state, made)
    made = np.asarray(made)
    if made.dtype.kind == "i":
        counts = np.bincount(made)
        edges = np.arange(len(counts) + 1, dtype=np.float64) - 0.5
        return Histogram(edges, counts.astype(np.int64))
    return _histogram(made.astype(np.float64), num_bins)
