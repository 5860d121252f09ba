"""Numbers to numbers that a model can use: about as large as 1, and without a tail that shouts.

What all of these do alike: NaN passes through (impute first, or give it a bucket of its own) and is
left out of the fit; so is an infinity, which stays one unless it is clipped. A column without a single
finite number is an error. Fitting is float64 throughout; applying is float32 arithmetic on numbers
that are split in two where one float32 would not resolve them (`transform.Pair`), so that the noise
of a column at 1e9 survives. Numbers must fit float32: those beyond 3.4e38 are refused in fitting.

Source: Google's Machine Learning Crash Course, "Numerical data: Normalization".
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml.features.columns import Counts, numbers
from jaxml.features.options import integer, number, quantile_range
from jaxml.features.transform import (
    Output,
    Pair,
    Transform,
    halves,
    is_fine,
    minus,
    numeric,
    sealed,
)

__all__ = [
    "clipping",
    "interpolated_buckets",
    "linear_scaling",
    "log_scaling",
    "robust_scaling",
    "z_score",
]

_LARGEST = float(np.finfo(np.float32).max)


def moments(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and population standard deviation of distinct values that occur so often.

    In float64, from distances to one of the values: a constant column has deviation 0 exactly, and
    1e9 in front of the noise takes no digit from it.

    >>> moments(np.array([1.0, 4.0]), np.array([2, 1]))
    (2.0, 1.4142135623730951)
    """
    total = counts.sum()
    anchor = values[len(values) // 2]
    offsets = values - anchor
    largest = np.abs(offsets).max()
    if largest == 0:
        return float(anchor), 0.0
    # Squares of 1e-200 would be 0; a power of two costs no digit.
    exponent = int(np.frexp(largest)[1])
    offsets = np.ldexp(offsets, -exponent)
    mean = (counts @ offsets) / total
    deviation = math.sqrt(counts @ (offsets - mean) ** 2 / total)
    return float(anchor + np.ldexp(mean, exponent)), float(np.ldexp(deviation, exponent))


def quantile(values: NDArray[np.float64], counts: NDArray[np.int64], q: Any) -> NDArray[np.float64]:
    """Quantiles of distinct, rising values that occur so often: those of `numpy.quantile`.

    >>> quantile(np.array([1.0, 4.0]), np.array([2, 1]), [0.5, 0.75]).tolist()
    [1.0, 2.5]
    """
    ends = np.cumsum(counts)
    position = np.asarray(q, np.float64) * (ends[-1] - 1)
    # 0.7 · 500 is 350 and not a hair beyond, where the next value begins.
    position = np.where(np.abs(position - np.rint(position)) < 1e-9, np.rint(position), position)
    below = np.floor(position)
    first = values[np.searchsorted(ends, below, side="right")]
    second = values[np.searchsorted(ends, np.minimum(below + 1, ends[-1] - 1), side="right")]
    share = position - below
    with np.errstate(over="ignore", invalid="ignore"):
        gap = second - first
        # From the nearer end, so that equal ends give themselves.
        between = np.where(share < 0.5, first + gap * share, second - gap * (1 - share))
    return np.where(np.isfinite(gap), between, first * (1 - share) + second * share)


def _finite(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, often = counts.numbers()
    largest = max(abs(values[0]), abs(values[-1]))
    if largest > _LARGEST:
        raise ValueError(f"values reach {largest:.3g}, wanted at most {_LARGEST:.3g} (float32)")
    return values, often


def _slope(rise: float, scale: float) -> np.float32:
    """rise / scale; 0 if the scale is."""
    if scale > 0 and not (rise / _LARGEST <= scale <= _LARGEST):
        raise ValueError(
            f"values spread over {scale:.3g}, wanted {rise / _LARGEST:.1g} to 3e38: multiply them first"
        )
    return np.float32(rise / scale if scale > 0 else 0)


class ZScore(NamedTuple):
    """Of `z_score` and `robust_scaling`.

    Attributes:
        center: float32, mean or median.
        center_low: float32, what float32 leaves of it.
        scale: float32, the standard deviation or the distance of two quantiles.
        reciprocal: float32, 1 / scale; 0 for a constant column.
        fine: bool, whether values are to come in two halves.
    """

    center: Any
    center_low: Any
    scale: Any
    reciprocal: Any
    fine: Any


def _standardize(xp: Any, state: ZScore, pair: Pair) -> Any:
    distance = minus(pair, state.center, state.center_low)
    # Of a constant column nothing is known about how far is far: 0, but a NaN stays seen.
    unknown = xp.where(xp.isnan(distance), distance, np.float32(0))
    return xp.where(state.reciprocal == 0, unknown, sealed(xp, distance * state.reciprocal))


def _z_state(center: float, scale: float) -> ZScore:
    high, low = halves(center)
    return ZScore(
        high, low, np.float32(scale), _slope(1.0, scale), is_fine(center, scale) & (scale > 0)
    )


def z_score() -> Transform:
    """Distance from the mean in standard deviations: for columns that are near to normal.

        y = (x − mean) / deviation        deviation the population's, √(Σ (x − mean)² / N)

    Returns:
        A `Transform` of numbers to float32. A constant column gives 0, whatever comes later.

    Numerics: relative error about 2e-7 of the distance; values at 1e9 with a deviation of 1 keep
    theirs if they come as float64 or int64.

    Example:
        >>> transform = z_score()
        >>> transform.apply(transform.fit([1.0, 3.0]), [1.0, 2.0, float("nan")])
        Array([-1.,  0., nan], dtype=float32)
    """

    def finish(counts: Counts) -> ZScore:
        return _z_state(*moments(*_finite(counts)))

    return numeric("z_score", {}, finish, _standardize, lambda state: Output())


def robust_scaling(low_quantile: float = 0.25, high_quantile: float = 0.75) -> Transform:
    """Distance from the median in widths of the middle half: outliers do not move the scale.

        y = (x − median) / (q_high − q_low)

    Where both quantiles are equal though the column is not constant (most rows are 0, say), the
    standard deviation takes the width's place.

    Args:
        low_quantile: in [0, high_quantile).
        high_quantile: in (low_quantile, 1].

    Returns:
        A `Transform` of numbers to float32; a constant column gives 0. Quantiles are `numpy.quantile`'s,
        exact up to 2²⁰ distinct values (`Counts` states the error beyond).

    Raises:
        ValueError: quantiles out of range.

    Example:
        >>> transform = robust_scaling()
        >>> transform.apply(transform.fit([0, 1, 2, 3, 1000]), [2, 3])
        Array([0. , 0.5], dtype=float32)
    """
    low_quantile, high_quantile = quantile_range("quantiles", (low_quantile, high_quantile))
    options = {"low_quantile": low_quantile, "high_quantile": high_quantile}

    def finish(counts: Counts) -> ZScore:
        values, often = _finite(counts)
        low, median, high = quantile(values, often, [low_quantile, 0.5, high_quantile]).tolist()
        scale = high - low if high > low else moments(values, often)[1]
        reach = max(values[-1] - median, median - values[0])
        if scale > 0 and reach / scale > _LARGEST:
            raise ValueError(
                f"values spread over {reach:.3g}, {reach / scale:.3g} times their middle half, more than "
                "float32 holds: clip them first"
            )
        return _z_state(median, scale)

    return numeric("robust_scaling", options, finish, _standardize, lambda state: Output())


class Linear(NamedTuple):
    """Of `linear_scaling`.

    Attributes:
        minimum: float32, the least value seen.
        minimum_low: float32, what float32 leaves of it.
        span: float32, the greatest distance from it.
        reciprocal: float32, (high − low) / span; 0 for a constant column.
        fine: bool, whether values are to come in two halves.
    """

    minimum: Any
    minimum_low: Any
    span: Any
    reciprocal: Any
    fine: Any


def linear_scaling(low: float = 0.0, high: float = 1.0) -> Transform:
    """The range that was seen, stretched to [low, high]: for columns that are near to uniform.

        y = low + (high − low) (x − min) / (max − min)

    Args:
        low: where the least value goes; finite.
        high: where the greatest value goes; finite, above `low`.

    Returns:
        A `Transform` of numbers to float32. What lies within the range that was seen lands within
        [low, high], its ends exactly; what lies outside goes on beyond them, unless it is clipped
        first. A constant column gives the middle, (low + high) / 2.

    Raises:
        ValueError: low is not below high.

    Example:
        >>> transform = linear_scaling(-1, 1)
        >>> transform.apply(transform.fit([10, 20, 30]), [10, 15, 40])
        Array([-1. , -0.5,  2. ], dtype=float32)
    """
    low, high = number("low", low), number("high", high)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low is {low} and high is {high}, wanted finite numbers, low < high")
    bottom, top = np.float32(low), np.float32(high)

    def finish(counts: Counts) -> Linear:
        values, _ = _finite(counts)
        minimum, span = float(values[0]), float(values[-1] - values[0])
        head, rest = halves(minimum)
        slope = _slope(high - low, span)
        fine = is_fine(max(abs(minimum), abs(minimum + span)), span) & (span > 0)
        if not fine:  # Values come rounded, and so must the minimum: it is at distance 0.
            rest = np.zeros_like(rest)
        # The span as it comes out of float32 arithmetic, so that the greatest value meets it.
        end = minus(split_halves(float(values[-1]), fine), head, rest)
        return Linear(head, rest, np.float32(end), slope, fine)

    def core(xp: Any, state: Linear, pair: Pair) -> Any:
        distance = minus(pair, state.minimum, state.minimum_low)
        inside = (distance >= 0) & (distance <= state.span)
        y = bottom + sealed(xp, distance * state.reciprocal)
        y = xp.where(inside, xp.clip(y, bottom, top), y)
        y = xp.where(distance == state.span, top, y)
        middle = np.float32((low + high) / 2)
        constant = xp.where(xp.isnan(distance), distance, middle)
        return xp.where(state.reciprocal == 0, constant, y)

    def output(state: Linear) -> Output:
        return Output(low=low, high=high)

    return numeric("linear_scaling", {"low": low, "high": high}, finish, core, output)


def split_halves(value: float, fine: Any) -> Pair:
    """One number as it will come."""
    high, low = halves(value)
    return Pair(high, low if fine else None)


class Log(NamedTuple):
    """Of `log_scaling`.

    Attributes:
        shift: float32, what is added first.
        least: float32, the least x + shift that was seen.
        fine: bool, always False: a logarithm needs a number's relative precision.
    """

    shift: Any
    least: Any
    fine: Any


def log_scaling(shift: float | None = None) -> Transform:
    """The natural logarithm: for columns that span orders of magnitude, such as power laws.

        y = ln(x + shift)

    Args:
        shift: ≥ 0, added before the logarithm. None: 0 if all values seen are positive, 1 if the
            least is 0 (counts, amounts), and an error if some are negative.

    Returns:
        A `Transform` of numbers to float32. A later value with x + shift ≤ 0 gets the logarithm of the
        least that was seen: never −inf, never a NaN that was no NaN before.

    Raises:
        ValueError: a negative shift; in fitting, a value with x + shift ≤ 0 (or, without a shift, a
            negative one).

    Example:
        >>> transform = log_scaling()
        >>> transform.apply(transform.fit([0, 1, 9]), [0, -5, 99])  # the least is 0: ln(1 + x)
        Array([0.       , 0.       , 4.6051702], dtype=float32)
    """
    given = None if shift is None else number("shift", shift)
    if given is not None and not 0 <= given < math.inf:
        raise ValueError(f"shift is {shift}, wanted None or a number of at least 0")

    def finish(counts: Counts) -> Log:
        values, often = _finite(counts)
        added = (0.0 if values[0] > 0 else 1.0) if given is None else given
        bad = values < 0 if given is None else values + added <= 0
        if bad.any():
            raise ValueError(
                f"values has {often[bad].sum()} of {often.sum()} that have no logarithm, such as "
                f"{values[0]:g}, wanted x {'≥ 0' if given is None else f'> -{added:g}'}: "
                "shift them, or use robust_scaling or quantile_buckets"
            )
        least = max(np.float32(values[0]) + np.float32(added), np.finfo(np.float32).tiny)
        return Log(np.float32(added), np.float32(least), np.bool_(False))

    def core(xp: Any, state: Log, pair: Pair) -> Any:
        x = pair.value
        moved = x + state.shift
        # log1p keeps what small x would lose in 1 + x.
        one = state.shift == 1
        plain = xp.log(xp.where(moved > 0, moved, state.least))
        near = xp.log1p(xp.where(moved > 0, x, state.least - state.shift))
        y = xp.where(one, near, plain)
        return xp.where(xp.isnan(x), x, sealed(xp, y))

    return numeric("log_scaling", {"shift": given}, finish, core, lambda state: Output())


class Bounds(NamedTuple):
    """Of `clipping`.

    Attributes:
        low: float32 [2], the lower bound and what float32 leaves of it.
        high: float32 [2], the upper bound likewise.
        fine: bool, whether values are to come in two halves.
    """

    low: Any
    high: Any
    fine: Any


def clipping(
    low: float | None = None,
    high: float | None = None,
    *,
    quantiles: tuple[float, float] | None = None,
) -> Transform:
    """Values beyond two bounds are set to the bounds: for columns with outliers.

        y = min(max(x, low), high)

    Args:
        low: the least value that is let through, None for no bound.
        high: the greatest value that is let through, None for no bound; at least `low`.
        quantiles: two shares 0 ≤ a < b ≤ 1 instead; the bounds are the quantiles of the finite values
            seen. (0.01, 0.99) clips one value in a hundred at either end.

    Returns:
        A `Transform` of numbers to float32; an infinity is clipped, NaN stays.

    Raises:
        ValueError: no bound at all, bounds in the wrong order, or both values and quantiles.

    Example:
        >>> transform = clipping(quantiles=(0.0, 0.75))
        >>> transform.apply(transform.fit([0, 1, 2, 3, 1000]), [-5, 2, 1000])
        Array([0., 2., 3.], dtype=float32)
    """
    if quantiles is not None:
        if low is not None or high is not None:
            raise ValueError(f"quantiles is {quantiles} beside low or high, wanted one of both")
        quantiles = quantile_range("quantiles", quantiles)
    elif low is None and high is None:
        raise ValueError("low, high and quantiles are None, wanted at least one bound")
    bottom = -math.inf if low is None else number("low", low)
    top = math.inf if high is None else number("high", high)
    if not bottom <= top:
        raise ValueError(f"low is {low} and high is {high}, wanted low ≤ high")

    def finish(counts: Counts) -> Bounds:
        first, last = bottom, top
        if quantiles is not None:
            first, last = quantile(*_finite(counts), quantiles).tolist()
        return Bounds(np.stack(halves(first)), np.stack(halves(last)), np.bool_(False))

    def core(xp: Any, state: Bounds, pair: Any) -> Any:
        if not isinstance(pair, Pair):  # a column on the host, whose digits are all kept
            x = numbers(pair)
            least, most = (float(b[0]) + float(b[1]) for b in (state.low, state.high))
            return np.where(np.isnan(x), x, np.clip(x, least, most))
        high = pair.high
        if pair.low is None:
            return Pair(xp.minimum(xp.maximum(high, state.low[0]), state.high[0]), None)
        rest = pair.low
        below = (high < state.low[0]) | ((high == state.low[0]) & (rest < state.low[1]))
        above = (high > state.high[0]) | ((high == state.high[0]) & (rest > state.high[1]))
        return Pair(
            xp.where(below, state.low[0], xp.where(above, state.high[0], high)),
            xp.where(below, state.low[1], xp.where(above, state.high[1], rest)),
        )

    def output(state: Bounds) -> Output:
        return Output(low=float(state.low[0]), high=float(state.high[0]))

    # An infinite bound is none, and JSON has no infinity.
    options = {
        "low": bottom if math.isfinite(bottom) else None,
        "high": top if math.isfinite(top) else None,
        "quantiles": quantiles,
    }
    return numeric("clipping", options, finish, core, output, gives="same", stage="either")


class Interpolated(NamedTuple):
    """Of `interpolated_buckets`.

    Attributes:
        center: float32, the middle edge.
        center_low: float32, what float32 leaves of it.
        edges: float32 [K ≥ 2], distances of the edges from it, rising; [1] for a constant column.
        levels: float32 [K, 3], the share of the values below an edge, on it, and beyond it; from 0 to 1.
        slopes: float32 [K], of the levels between an edge and the next, 0 after the last.
        fine: bool, whether values are to come in two halves.
    """

    center: Any
    center_low: Any
    edges: Any
    levels: Any
    slopes: Any
    fine: Any


def interpolated_buckets(num_buckets: int = 100) -> Transform:
    """The share of values that are smaller, linear between quantiles: any column made uniform.

        y = levelᵢ + (levelᵢ₊₁ − levelᵢ) (x − edgeᵢ) / (edgeᵢ₊₁ − edgeᵢ)

    Edges are the quantiles 0, 1/n, …, 1. A value that takes several of them has their mean level, and
    what comes after it starts from their last, as in scikit-learn's `QuantileTransformer`; the least
    value has level 0, the greatest 1.

    Args:
        num_buckets: n ≥ 1.

    Returns:
        A `Transform` of numbers to float32 in [0, 1]; what lies beyond the values seen has 0 or 1, a
        constant column 0.5, NaN stays.

    Raises:
        ValueError: no bucket.

    Example:
        >>> transform = interpolated_buckets(2)
        >>> transform.apply(transform.fit([0, 1, 2, 6, 1000]), [1, 2, 501, 5000])
        Array([0.25, 0.5 , 0.75, 1.  ], dtype=float32)
    """
    num_buckets = integer("num_buckets", num_buckets, 1)

    def finish(counts: Counts) -> Interpolated:
        values, often = _finite(counts)
        shares = np.linspace(0, 1, num_buckets + 1)
        all_edges = quantile(values, often, shares)
        edges, first, repeats = np.unique(all_edges, return_index=True, return_counts=True)
        below, beyond = shares[first], shares[first + repeats - 1]
        center = float(edges[len(edges) // 2])
        high, low = halves(center)
        widths = np.diff(edges)
        scale = float(np.median(widths)) * num_buckets / 2 if len(widths) else 0.0
        scale = min(float(edges[-1] - edges[0]), scale)
        fine = is_fine(max(abs(edges[0]), abs(edges[-1])), scale) & np.bool_(scale > 0)
        if fine:
            near = (edges - center).astype(np.float32)
        else:  # Values come rounded, and so must the edges: the least value is at the first.
            low, near = np.zeros_like(low), edges.astype(np.float32) - high
        keep = np.append(True, near[1:] > near[:-1])  # edges that float32 takes for one
        near, below, beyond = near[keep], below[keep], beyond[keep]
        levels = np.stack([below, (below + beyond) / 2, beyond], axis=-1)
        levels[0, 1], levels[-1, 1] = (0.0, 1.0) if len(near) > 1 else (0.5, 0.5)
        rises = below[1:] - beyond[:-1]
        with np.errstate(over="ignore"):
            slopes = np.append(rises / np.diff(near.astype(np.float64)), 0).astype(np.float32)
        slopes = np.minimum(slopes, np.float32(_LARGEST))
        return Interpolated(high, low, near, levels.astype(np.float32), slopes, fine)

    def core(xp: Any, state: Interpolated, pair: Pair) -> Any:
        distance = minus(pair, state.center, state.center_low)
        unknown = xp.isnan(distance)
        if state.edges.shape[0] == 1:
            return xp.where(unknown, distance, np.float32(0.5))
        edges, levels, slopes = map(xp.asarray, (state.edges, state.levels, state.slopes))
        inside = xp.clip(distance, edges[0], edges[-1])
        inside = xp.where(unknown, edges[0], inside)
        at = xp.searchsorted(edges, inside, side="right") - 1
        following = xp.minimum(at + 1, edges.shape[0] - 1)
        y = levels[at, 2] + sealed(xp, (inside - edges[at]) * slopes[at])
        y = xp.minimum(y, levels[following, 0])
        y = xp.where(inside == edges[at], levels[at, 1], y)
        return xp.where(unknown, distance, y)

    return numeric(
        "interpolated_buckets",
        {"num_buckets": num_buckets},
        finish,
        core,
        lambda state: Output(low=0.0, high=1.0),
    )
