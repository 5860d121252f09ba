"""`recommend`: the scaling that fits a column of numbers, by its shape, or by cross-validation with labels.

The table of Google's Machine Learning Crash Course ("Numerical data: Normalization" and "Binning"): linear
scaling for uniform columns, z-score for normal ones, a logarithm for power laws, clipping for outliers,
bins for clusters. The shape is measured with order statistics, which a few outliers do not move.
"""

import html
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.features.binning import quantile_buckets
from jaxml.features.categories import one_hot, vocabulary
from jaxml.features.pipeline import FeaturePipeline
from jaxml.features.scaling import clipping, linear_scaling, log_scaling, z_score
from jaxml.features.transform import Transform
from jaxml.validation.columns import Column, read_column

__all__ = ["Recommendation", "recommend"]

Shape = Literal["constant", "categorical", "clusters", "power_law", "outliers", "uniform", "normal"]

_CHAINS: dict[Shape, tuple[Transform, ...]] = {
    "constant": (),
    "normal": (z_score(),),
    "uniform": (linear_scaling(),),
    "power_law": (log_scaling(), z_score()),
    "outliers": (clipping(quantiles=(0.01, 0.99)), z_score()),
    "clusters": (quantile_buckets(10), one_hot()),
    "categorical": (vocabulary(max_size=50), one_hot()),
}
_FEW = 50  # below so many values a normal column and a uniform one are often confused
_SIGMA = 1.349  # distance of a normal distribution's quartiles in standard deviations
_MAX_ROWS = 10_000  # rows of the cross-validation
_LARGEST = 20.0  # what `check` takes for too large
_CLOSE = 0.05  # the middle half of the rows spans at least so many standard deviations
_KEPT = 0.8  # share of the differences between rows that a recommended chain keeps at least


class Recommendation(NamedTuple):
    """A recommended chain of transforms.

    Attributes:
        kind: "constant", "categorical", "clusters", "power_law", "outliers", "uniform" or "normal".
        transforms: the chain for a `FeaturePipeline`; empty for a constant column, which is to be left out.
        reason: the reason in words.
        evidence: measurements by name; with labels, also the cross-validated error of each kind's chain, as
            a share of the labels' variance ("constant" leaves the column out).

    In a notebook it is shown as a line of text.
    """

    kind: Shape
    transforms: tuple[Transform, ...]
    reason: str
    evidence: Mapping[str, float]

    def panels(self, name: str, values: ArrayLike) -> list[tuple[str, NDArray, NDArray]]:
        """Returns histograms of the column before and after, for `reports.plots.histograms`.

        >>> advice = recommend(np.arange(100))
        >>> [heading for heading, edges, counts in advice.panels("distance", np.arange(100))]
        ['distance: uniform', 'linear_scaling(low=0.0, high=1.0)']
        """
        x = _finite(read_column("values", values).numbers())
        counts, edges = np.histogram(x, 40)
        panels = [(f"{name}: {self.kind.replace('_', ' ')}", edges, counts)]
        if self.transforms:
            y = _applied(self.transforms, x)
            bins: Any = np.arange(y.max() + 2) - 0.5 if y.dtype == np.int32 else 40
            counts, edges = np.histogram(y, bins)
            panels.append((", ".join(map(repr, self.transforms)), edges, counts))
        return panels

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')}: {self.reason} → {self._chain()}"

    def __repr__(self) -> str:
        return f"<Recommendation {self.kind}: {self._chain()}>"

    def _repr_html_(self) -> str:
        kind, reason = self.kind.replace("_", " "), html.escape(self.reason)
        return f"<p><b>{kind}</b>: {reason} → <code>{html.escape(self._chain())}</code></p>"

    def _chain(self) -> str:
        return ", ".join(map(repr, self.transforms)) or "leave it out"


def recommend(values: ArrayLike, labels: ArrayLike | None = None) -> Recommendation:
    """Returns the scaling that fits a column.

    The shape is the first that holds, with m the median and s = (q₇₅ − q₂₅) / 1.349:

    1. constant: one value. 2. categorical: two values.
    3. clusters: a kernel density has a valley below 0.6 of both summits beside it, by more than 3.8
       standard errors, with at least one value in twelve on either side.
    4. power law: no value is negative, the skew of the quantiles (q₉₅ + q₀₅ − 2m) / (q₉₅ − q₀₅) is above
       0.3 + 1/√n, and the logarithm reduces it by 0.15 of itself. If the least value is the median, these
       are the quantiles of the values above it.
    5. outliers: values further than (5 + 10/√n) s from m. They are clipped there if clipping one value in
       a hundred at either end leaves some of them.
    6. uniform: excess kurtosis below −0.82 (uniform −1.2, normal 0).
    7. normal: everything else.

    Integers such as ages, years and counts are numbers: nothing in them shows that they are codes of
    categories. The chain is then applied to all values, and one whose result is constant, nearly so (one or
    two buckets, or all but a few rows alike) or too large for `check` is replaced: by a z-score, linear
    scaling, or bins.

    With labels, the chains of all shapes are compared by 5-fold cross-validation of a ridge regression. A
    z-score (`linear_scaling` for a uniform column) is recommended unless another chain is better than it,
    and than leaving the column out, by more than a standard error; then the best of these.

    Args:
        values: N ≥ 1 numbers; missing values and infinities are left out.
        labels: [N] numbers or classes (text, or integers of at most 20 values), or None. Rows without a
            finite label are left out of the comparison; it needs 20 rows and two different labels.

    Raises:
        ValueError: text, no finite number, or labels of another length.

    Example:
        >>> found = recommend(np.random.default_rng(0).lognormal(3, 1, 1000))
        >>> found
        <Recommendation power_law: log_scaling(), z_score()>
    """
    column = read_column("values", values).numbers().ravel()
    x = _finite(column)
    kind, evidence, reason = _shape(np.sort(x))
    if x.size < _FEW and kind != "constant":
        reason += f"; measured on {x.size} values only"
    missing = 1 - x.size / column.size
    evidence = {**evidence, "missing": missing}
    if missing:
        reason += (
            f"; {missing:.1%} are missing or infinite: impute them, beside a missing_indicator"
        )
    if kind == "constant":
        return Recommendation(kind, (), reason, evidence)
    chains = dict(_CHAINS)
    if "high" in evidence and not _fits(x, chains["outliers"]):
        chains["outliers"] = (clipping(low=evidence["low"], high=evidence["high"]), z_score())
    kinds: tuple[Shape, ...] = (kind, "normal", "uniform", "clusters", "categorical")
    found = next((each for each in kinds if _fits(x, chains[each])), kind)
    if found != kind:
        reason += f"; {_names(kind)} would make it constant, nearly so, or too large"
    if labels is not None:
        errors = _errors_by_chain(column, read_column("labels", labels), chains)
        evidence |= {each: float(error.mean()) for each, error in errors.items()}
        plain = found in ("uniform", "categorical") or not _fits(x, chains["normal"])
        best = _supported(errors, found if plain else "normal")
        if found not in errors:
            best = found
            reason += "; not compared with labels: fewer than 20 rows, or all alike"
        elif best != found:
            reason += (
                f"; cross-validation supports {_names(best)} (error {evidence[best]:.4f} of the labels' "
                f"variance) and not {_names(found)} ({evidence[found]:.4f})"
            )
        elif evidence[best] >= evidence["constant"]:
            reason += "; alone it does not predict the labels"
        found = best
    return Recommendation(found, chains[found], reason, evidence)


def _finite(column: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = column[np.isfinite(column)]
    if not finite.size:
        raise ValueError(f"values must hold a finite number, got none in {column.size} rows")
    return finite


def _applied(chain: tuple[Transform, ...], x: NDArray) -> NDArray:
    """Returns the numbers or ids that a chain makes of values; ids where it ends in vectors."""
    chain = chain[: -1 if chain[-1].gives == "vector" else None]
    return FeaturePipeline({"x": chain}).fit({"x": x})({"x": x})["x"]


def _kept(x: NDArray[np.float64], chain: tuple[Transform, ...]) -> float:
    """Returns the chance that two rows differ after a chain, as a share of that before it.

    The most frequent value counts at most as often as all others together, or a pile of zeros would hide
    what becomes of the others. Returns 0 for a chain that cannot be fitted, gives numbers that are not
    finite, or makes the column constant.
    """
    try:
        y = _applied(chain, x)
    except ValueError:  # no logarithm, say
        return 0.0
    if not np.isfinite(y).all():
        return 0.0
    _, before, often = np.unique(x, return_inverse=True, return_counts=True)
    mode = int(np.argmax(often))
    weights = np.where(before == mode, min(1.0, len(x) / often[mode] - 1), 1.0)

    def apart(groups: NDArray[np.int64]) -> float:
        return float(1 - ((np.bincount(groups, weights) / weights.sum()) ** 2).sum())

    return apart(np.unique(y, return_inverse=True)[1]) / apart(before)


def _fits(x: NDArray[np.float64], chain: tuple[Transform, ...]) -> bool:
    """Returns whether a chain keeps what tells rows apart, in numbers neither too large nor too close."""
    if _kept(x, chain) < _KEPT:
        return False
    y = _applied(chain, x)
    if y.dtype == np.int32:
        return True
    (q25, q75), (low, high) = np.quantile(x, [0.25, 0.75]), np.quantile(y, [0.25, 0.75])
    close = q75 > q25 and high - low < _CLOSE * y.std(dtype=np.float64)
    return not close and bool(np.abs(y).max() <= _LARGEST)


def _errors_by_chain(
    column: NDArray[np.float64], labels: Column, chains: Mapping[Shape, tuple[Transform, ...]]
) -> dict[Shape, NDArray]:
    """Returns each row's cross-validated error under each kind's chain; empty if none can be had."""
    if labels.values.shape != column.shape:
        raise ValueError(f"labels must have shape {column.shape}, got shape {labels.values.shape}")
    known = np.isfinite(column) & labels.present
    if not labels.is_text:
        known &= np.isfinite(labels.numbers())
    rows = np.random.default_rng(0).permutation(np.flatnonzero(known))[:_MAX_ROWS]
    if len(rows) < 20:
        return {}
    x, targets = column[rows], _targets(labels.exact()[rows])
    if not targets.any() or not np.ptp(x):
        return {}
    return {
        kind: _errors(x, targets, chain)
        for kind, chain in chains.items()
        if not chain or _kept(x, chain) > 0
    }


def _targets(labels: NDArray) -> NDArray[np.float64]:
    """Returns labels as standardized columns, of one number or of the 20 most frequent classes."""
    distinct, place, often = np.unique(labels, return_inverse=True, return_counts=True)
    if labels.dtype == object or (labels.dtype.kind in "iu" and len(distinct) <= 20):
        y = (place[:, None] == np.argsort(-often, kind="stable")[:20]).astype(np.float64)
    else:
        y = labels.astype(np.float64)[:, None]
    y = y - y.mean(0)
    return y / max(float(np.sqrt((y**2).mean(0).sum())), 1e-300)


def _errors(x: NDArray, targets: NDArray, chain: tuple[Transform, ...]) -> NDArray[np.float64]:
    """Returns each row's squared error in 5-fold cross-validation, as a share of the labels' variance."""
    fold = np.arange(len(x)) % 5
    errors = np.zeros(len(x))
    for held_out in range(5):
        here = fold == held_out
        a = np.ones((len(x), 1))
        if chain:
            fitted = FeaturePipeline({"x": chain}).fit({"x": x[~here]})
            dense = fitted.stack(fitted({"x": x}))[0].astype(np.float64)
            if chain[-1].gives == "number":  # in one unit: the penalty is not to judge the unit
                dense = (dense - dense[~here].mean()) / max(dense[~here].std(), 1e-300)
            a = np.column_stack([dense, a])
        penalty = np.eye(a.shape[1])
        penalty[-1, -1] = 0  # the mean is free
        gram = a[~here].T @ a[~here] + penalty
        weights = np.linalg.solve(gram, a[~here].T @ targets[~here])
        errors[here] = ((targets[here] - a[here] @ weights) ** 2).sum(1)
    return errors


def _supported(errors: Mapping[Shape, NDArray[np.float64]], plain: Shape) -> Shape:
    """Returns the best of the kinds whose chains are surely better than the plain one and than none."""
    if plain not in errors:
        return plain
    better: dict[Shape, float] = {}
    for each in set(errors) - {"constant", "normal", "uniform", plain}:
        gains = [errors[other] - errors[each] for other in (plain, "constant")]
        if all(gain.mean() > 1e-6 + gain.std() / np.sqrt(len(gain)) for gain in gains):
            better[each] = gains[0].mean()
    return max(sorted(better), key=better.__getitem__, default=plain)


def _names(kind: Shape) -> str:
    return ", ".join(type(each).__name__ for each in _CHAINS[kind])


def _shape(x: NDArray[np.float64]) -> tuple[Shape, dict[str, float], str]:
    """Returns kind, evidence and reason for sorted finite values."""
    n = len(x)
    distinct = 1 + int(np.count_nonzero(np.diff(x)))
    if distinct == 1:
        return "constant", {"distinct": 1}, f"all {n:,} values are {x[0]:g}"
    if distinct == 2 and n > 2:
        return "categorical", {"distinct": 2}, f"two distinct values in {n:,} rows"
    q05, q25, median, q75, q95 = np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95])
    scale = (q75 - q25) / _SIGMA or (q95 - q05) / 3.29 or float(x.std())
    fence = 5 + 10 / np.sqrt(n)
    far = np.abs(x - median) > fence * scale
    share = float(far.mean())
    # Enough far values are a cluster of their own.
    core = x[~far] if share < 1 / 12 else x[int(0.02 * n) : n - int(0.02 * n)]
    summits = max((_summits(core, n, factor) for factor in (0.9, 0.45)), key=len)
    if len(summits) > 1:
        places = ", ".join(f"{each:.4g}" for each in summits[:6])
        evidence = {"clusters": float(len(summits))}
        return "clusters", evidence, f"{len(summits)} clusters, near {places}"
    # A pile of the least value, as of counts, hides the shape of the values above it.
    tail = x[x > median] if median == x[0] else x
    ends = np.quantile(tail, [0.05, 0.5, 0.95])
    skew = _skew(*ends)
    evidence = {"skew": skew, "far": share}
    if x[0] >= 0 and skew > 0.3 + 1 / np.sqrt(len(tail)):
        log_skew = _skew(*np.log(ends + (0.0 if x[0] > 0 else 1.0)))
        if abs(log_skew) < 0.85 * skew:  # Pareto's law with exponent 1 to 4 keeps 0.62 to 0.82
            reason = (
                f"a long tail to the right (skew of the quantiles {skew:.2f}, of their logarithms "
                f"{log_skew:.2f})"
            )
            return "power_law", {**evidence, "skew_of_log": log_skew}, reason
    if share > 0:
        furthest = float(np.abs(x - median).max() / scale)
        reason = (
            f"{far.sum():,} of {n:,} values are more than {fence:.1f} robust standard deviations from the "
            f"median, the furthest {furthest:.0f}"
        )
        evidence["furthest"] = furthest
        if q75 > q25:
            digits = 1 - int(np.floor(np.log10(scale)))
            evidence["low"] = round(float(median - fence * scale), digits)
            evidence["high"] = round(float(median + fence * scale), digits)
        return "outliers", evidence, reason
    kurtosis = float((((x - x.mean()) / x.std()) ** 4).mean() - 3)
    evidence["kurtosis"] = kurtosis
    if kurtosis < -0.82:  # of 100 values one column in 150 is mistaken, either way
        return "uniform", evidence, f"flat between its ends (excess kurtosis {kurtosis:.2f})"
    return "normal", evidence, f"one summit without far outliers (excess kurtosis {kurtosis:.2f})"


def _skew(low: float, middle: float, high: float) -> float:
    return float((high + low - 2 * middle) / (high - low)) if high > low else 0.0


def _summits(x: NDArray[np.float64], n: int, factor: float) -> list[float]:
    """Returns the places of significant summits of the density of sorted values without outliers."""
    if len(x) < 20 or not 0 < x[-1] - x[0] < np.inf:
        return []
    q25, q75 = np.quantile(x, [0.25, 0.75])
    spread = min(float(x.std()), (q75 - q25) / _SIGMA or float(x.std()))
    gaps = np.diff(np.unique(x))
    # Silverman's rule (0.9) is for one normal summit, half of it finds narrower ones; the width is at least
    # the grain of the values.
    width = max(factor * spread * len(x) ** -0.2, 2 * float(np.median(gaps)), (x[-1] - x[0]) / 400)
    grid = np.arange(x[0], x[-1] + width / 4, width / 4)
    below = np.searchsorted(x, grid)
    kernel = np.exp(-0.5 * (np.arange(-16, 17) / 4) ** 2)
    density = np.convolve(np.diff(below, append=len(x)), kernel, "same")

    def near(at: int) -> int:
        """Values within one width."""
        low, high = np.searchsorted(x, [grid[at] - width, grid[at] + width])
        return int(high - low)

    peaks = [
        i
        for i in range(len(grid))
        if density[i] == density[max(0, i - 4) : i + 5].max() and density[i] > 0
    ]
    # From the highest down: a summit counts if a valley separates it from all that count already.
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
