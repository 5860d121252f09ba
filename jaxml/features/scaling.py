"""Scale numeric columns to order 1 and limit outliers.

All scalings pass NaN through (impute first, or use buckets) and leave it out of the fit, and infinities
too. A column without a finite number is an error, and so is a number beyond float32 (3.4e38). Quantiles are
`numpy.quantile`'s.

References:
    Google's Machine Learning Crash Course, "Numerical data: Normalization".
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks
from jaxml.features.counts import Counts
from jaxml.features.transform import Output, Transform
from jaxml.validation.columns import Column

__all__ = [
    "clipping",
    "interpolated_buckets",
    "linear_scaling",
    "log_scaling",
    "z_score",
]

_LARGEST = float(np.finfo(np.float32).max)


def moments(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Returns mean and population standard deviation of distinct values with their counts.

    Distances to one of the values are summed, so a constant column has deviation 0 exactly, and noise
    around 1e9 keeps its digits.

    >>> moments(np.array([1.0, 4.0]), np.array([2, 1]))
    (2.0, 1.4142135623730951)
    """
    total = counts.sum()
    anchor = values[len(values) // 2]
    offsets = values - anchor
    largest = np.abs(offsets).max()
    if largest == 0:
        return float(anchor), 0.0
    exponent = int(np.frexp(largest)[1])  # squares of 1e-200 would underflow
    offsets = np.ldexp(offsets, -exponent)
    mean = (counts @ offsets) / total
    deviation = math.sqrt(counts @ (offsets - mean) ** 2 / total)
    return float(anchor + np.ldexp(mean, exponent)), float(np.ldexp(deviation, exponent))


def quantile(
    values: NDArray[np.float64], counts: NDArray[np.int64], q: ArrayLike
) -> NDArray[np.float64]:
    """Returns the quantiles (`numpy.quantile`'s) of distinct, ascending values with their counts.

    >>> quantile(np.array([1.0, 4.0]), np.array([2, 1]), [0.5, 0.75]).tolist()
    [1.0, 2.5]
    """
    ends = np.cumsum(counts)
    position = np.asarray(q, np.float64) * (ends[-1] - 1)
    # 0.7 · 500 is 350 and not a rounding error above, where the next value begins.
    position = np.where(np.abs(position - np.rint(position)) < 1e-9, np.rint(position), position)
    below = np.floor(position)
    first = values[np.searchsorted(ends, below, side="right")]
    second = values[np.searchsorted(ends, np.minimum(below + 1, ends[-1] - 1), side="right")]
    share = position - below
    with np.errstate(over="ignore", invalid="ignore"):
        gap = second - first
        # From the nearer end, so that equal ends give exactly themselves.
        between = np.where(share < 0.5, first + gap * share, second - gap * (1 - share))
    return np.where(np.isfinite(gap), between, first * (1 - share) + second * share)


def _finite(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, often = counts.numbers()
    largest = max(abs(values[0]), abs(values[-1]))
    if largest > _LARGEST:
        raise ValueError(f"values must be at most {_LARGEST:.3g} (float32), got {largest:.3g}")
    return values, often


class Standard(NamedTuple):
    """State of `z_score`; the scale is 0 for a constant column."""

    center: float
    scale: float


@dataclasses.dataclass(frozen=True, repr=False)
class z_score(Transform):
    """Distance from the mean in standard deviations: for columns that are nearly normal.

        y = (x − mean) / deviation        deviation the population's, √(Σ (x − mean)² / N)

    A constant column gives 0 for every value.

    Example:
        >>> transform = z_score()
        >>> transform.apply(transform.fit([1.0, 3.0]), [1.0, 2.0, float("nan")])
        array([-1.,  0., nan], dtype=float32)
    """

    gives = "number"
    State = Standard

    def fitted(self, counts: Counts) -> Standard:
        return Standard(*moments(*_finite(counts)))

    def run(self, state: Standard, column: Column) -> NDArray[np.float64]:
        x = column.numbers()
        if state.scale == 0:
            return np.where(np.isnan(x), x, 0.0)
        return (x - state.center) / state.scale


class Range(NamedTuple):
    """State of `linear_scaling`: the least and the greatest value seen."""

    minimum: float
    maximum: float


@dataclasses.dataclass(frozen=True, repr=False)
class linear_scaling(Transform):
    """The range of the fitted values, mapped to [low, high]: for columns that are nearly uniform.

        y = low + (high − low) (x − min) / (max − min)

    The ends are met exactly. Values outside the fitted range go beyond [low, high]; clip first to prevent
    it. A constant column gives (low + high) / 2.

    Args:
        low: output for the least value.
        high: output for the greatest value, above `low`.

    Example:
        >>> transform = linear_scaling(-1, 1)
        >>> transform.apply(transform.fit([10, 20, 30]), [10, 15, 40])
        array([-1. , -0.5,  2. ], dtype=float32)
    """

    low: float = 0.0
    high: float = 1.0

    gives = "number"
    State = Range

    def __post_init__(self) -> None:
        low = checks.number("low", self.low)
        self._set(low=low, high=checks.number("high", self.high, above=low))

    def fitted(self, counts: Counts) -> Range:
        values, _ = _finite(counts)
        return Range(float(values[0]), float(values[-1]))

    def run(self, state: Range, column: Column) -> NDArray[np.float64]:
        x = column.numbers()
        span = state.maximum - state.minimum
        if span == 0:
            return np.where(np.isnan(x), x, (self.low + self.high) / 2)
        y = np.asarray(self.low + (self.high - self.low) * ((x - state.minimum) / span))
        y[x == state.maximum] = self.high
        return y

    def output(self, state: Range) -> Output:
        return Output(low=self.low, high=self.high)


class Log(NamedTuple):
    """State of `log_scaling`: the shift, and the least x + shift seen."""

    shift: float
    least: float


@dataclasses.dataclass(frozen=True, repr=False)
class log_scaling(Transform):
    """The natural logarithm: for columns that span orders of magnitude, such as power laws.

        y = ln(x + shift)

    A later value with x + shift ≤ 0 gets the logarithm of the least value seen: never −inf or a new NaN.

    Args:
        shift: ≥ 0. None: 0 if all values seen are positive, 1 if the least is 0 (counts, amounts); fitting
            fails if some are negative.

    Example:
        >>> transform = log_scaling()
        >>> transform.apply(transform.fit([0, 1, 9]), [0, -5, 99])  # the least is 0: ln(1 + x)
        array([0.       , 0.       , 4.6051702], dtype=float32)
    """

    shift: float | None = None

    gives = "number"
    State = Log

    def __post_init__(self) -> None:
        if self.shift is not None:
            self._set(shift=checks.number("shift", self.shift, at_least=0))

    def fitted(self, counts: Counts) -> Log:
        values, often = _finite(counts)
        shift = self.shift
        bad = values < 0 if shift is None else values + shift <= 0
        if bad.any():
            raise ValueError(
                f"values must be {'at least 0' if shift is None else f'above {-shift:g}'} for a logarithm, "
                f"got {often[bad].sum()} of {often.sum()} that are not, such as {values[0]:g}: shift them, "
                "or use quantile_buckets"
            )
        if shift is None:
            shift = 0.0 if values[0] > 0 else 1.0
        return Log(shift, float(values[0] + shift))

    def run(self, state: Log, column: Column) -> NDArray[np.float64]:
        x = column.numbers()
        x = np.where(x + state.shift <= 0, state.least - state.shift, x)
        return np.log1p(x) if state.shift == 1 else np.log(x + state.shift)


class Bounds(NamedTuple):
    """State of `clipping`: the bounds, None for no bound."""

    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True, repr=False)
class clipping(Transform):
    """Values beyond two bounds are set to the bounds: for columns with outliers.

        y = min(max(x, low), high)

    Infinities are clipped, NaN stays.

    Args:
        low: lower bound, None for no bound.
        high: upper bound, None for no bound; at least `low`.
        quantiles: instead of bounds, two shares 0 ≤ a < b ≤ 1; the bounds are these quantiles of the finite
            values. (0.01, 0.99) clips one value in a hundred at either end.

    Example:
        >>> transform = clipping(quantiles=(0.0, 0.75))
        >>> transform.apply(transform.fit([0, 1, 2, 3, 1000]), [-5, 2, 1000])
        array([0., 2., 3.], dtype=float32)
    """

    low: float | None = None
    high: float | None = None
    _: dataclasses.KW_ONLY
    quantiles: tuple[float, float] | None = None

    gives = "same"
    State = Bounds

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            if bound is not None:
                self._set(
                    **{name: None if bound in (-np.inf, np.inf) else checks.number(name, bound)}
                )
        low, high = self.low, self.high
        if self.quantiles is not None:
            try:
                shares = np.asarray(self.quantiles, np.float64)
            except (TypeError, ValueError):
                shares = np.zeros(0)
            if low is not None or high is not None:
                raise ValueError(
                    f"quantiles must be given without low and high, got {self.quantiles}, {low}, {high}"
                )
            if shares.shape != (2,) or not 0 <= shares[0] < shares[1] <= 1:
                raise ValueError(
                    f"quantiles must be two numbers 0 ≤ low < high ≤ 1, got {self.quantiles!r}"
                )
            self._set(quantiles=tuple(shares.tolist()))
        elif low is None and high is None:
            raise ValueError("low, high or quantiles must be given, got none of them")
        elif low is not None and high is not None and low > high:
            raise ValueError(f"low must be at most high, got {low} and {high}")

    @property
    def reads(self) -> bool:
        return self.quantiles is not None

    def fitted(self, counts: Counts) -> Bounds:
        if self.quantiles is None:
            return Bounds(self.low, self.high)
        return Bounds(*quantile(*_finite(counts), self.quantiles).tolist())

    def run(self, state: Bounds, column: Column) -> NDArray[np.float64]:
        return column.numbers().clip(state.low, state.high)  # type: ignore[arg-type]

    def output(self, state: Bounds) -> Output:
        low, high = state
        return Output(low=-np.inf if low is None else low, high=np.inf if high is None else high)


class Edges(NamedTuple):
    """State of `interpolated_buckets`: the quantiles 0, 1/n, …, 1, some of them equal perhaps."""

    edges: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, repr=False)
class interpolated_buckets(Transform):
    """The share of values that are smaller, linear between quantiles: any column made uniform.

        y = levelᵢ + (levelᵢ₊₁ − levelᵢ) (x − edgeᵢ) / (edgeᵢ₊₁ − edgeᵢ)

    Edges are the quantiles 0, 1/n, …, 1. A value at several edges has their mean level, as in
    scikit-learn's `QuantileTransformer`; the least value has level 0, the greatest 1, and values outside
    the fitted range have 0 or 1. A constant column gives 0.5.

    Args:
        num_buckets: n ≥ 1.

    Example:
        >>> transform = interpolated_buckets(2)
        >>> transform.apply(transform.fit([0, 1, 2, 6, 1000]), [1, 2, 501, 5000])
        array([0.25, 0.5 , 0.75, 1.  ], dtype=float32)
    """

    num_buckets: int = 100

    gives = "number"
    State = Edges

    def __post_init__(self) -> None:
        self._set(num_buckets=checks.integer("num_buckets", self.num_buckets, at_least=1))

    def fitted(self, counts: Counts) -> Edges:
        return Edges(quantile(*_finite(counts), np.linspace(0, 1, self.num_buckets + 1)))

    def run(self, state: Edges, column: Column) -> NDArray[np.float64]:
        x, edges = column.numbers(), state.edges
        if edges[0] == edges[-1]:
            return np.where(np.isnan(x), x, 0.5)
        levels, reversed_levels = _levels(len(edges))
        # At equal edges one takes the last level, the other the first.
        upper, lower = np.interp(x, edges, levels), np.interp(-x, -edges[::-1], reversed_levels)
        y = np.asarray((upper - lower) / 2)
        y[x <= edges[0]] = 0.0
        y[x >= edges[-1]] = 1.0
        return y

    def output(self, state: Edges) -> Output:
        return Output(low=0.0, high=1.0)


@functools.cache
def _levels(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the levels of edges, and those of the edges with the other sign."""
    levels = np.linspace(0, 1, number)
    return levels, -levels[::-1]
