"""Streaming errors of predictions, in sums of 48 bits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.metrics import checks, sums
from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.gathered import (
    Rows,
    gathered,
    histogram,
    made_once,
    ratio,
    read,
    total,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array

# Sizes of errors: 128 steps an octave, from 2⁻⁴⁰ to 2⁴⁰.
_STEPS, _SMALLEST, _LARGEST = 128, -40, 40


def _read(labels: Any, predictions: Any, weights: Any, mask: Any) -> Rows:
    """Rows of finite float32."""
    labels, predictions = (jnp.asarray(v).astype(jnp.float32) for v in (labels, predictions))
    return read(
        labels, predictions, weights, mask, lambda y, p: ~(jnp.isfinite(y) & jnp.isfinite(p))
    )


def _mean(values: Callable[[Array], Array], finish: Callable[[Array], Array]) -> Metric:
    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask)
        return (total(rows), total(rows, values(rows.labels - rows.scores))), rows.refused

    return gathered(((), ()), totals, lambda count, of: finish(ratio(of.value(), count.value())))


@made_once
def mean_squared_error() -> Metric:
    """Mean of (label − prediction)², as `metrics.mean_squared_error`.

    Returns:
        Metric of labels [...] and predictions [...]; its value is a float32 scalar.

    >>> import jax.numpy as jnp
    >>> metric = mean_squared_error()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([1.0]), jnp.array([3.0]))))
    4.0
    """
    return _mean(jnp.square, lambda mean: mean)


@made_once
def root_mean_squared_error() -> Metric:
    """Square root of the mean squared error, as `metrics.root_mean_squared_error`.

    Returns:
        Metric of labels [...] and predictions [...]; its value is a float32 scalar.

    >>> import jax.numpy as jnp
    >>> metric = root_mean_squared_error()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([1.0]), jnp.array([3.0]))))
    2.0
    """
    return _mean(jnp.square, jnp.sqrt)


@made_once
def mean_absolute_error() -> Metric:
    """Mean of |label − prediction|, as `metrics.mean_absolute_error`.

    Returns:
        Metric of labels [...] and predictions [...]; its value is a float32 scalar.

    >>> import jax.numpy as jnp
    >>> metric = mean_absolute_error()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([1.0]), jnp.array([3.0]))))
    2.0
    """
    return _mean(jnp.abs, lambda mean: mean)


@made_once
def huber(delta: float = 1.0) -> Metric:
    """Mean Huber loss, as `metrics.huber`.

    Args:
        delta: δ > 0, in the labels' unit.

    Returns:
        Metric of labels [...] and predictions [...]; its value is a float32 scalar.

    Raises:
        ValueError: for a δ that is not positive.

    >>> import jax.numpy as jnp
    >>> metric = huber()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([0.0]), jnp.array([3.0]))))
    2.5
    """
    delta = checks.number("delta", delta, 0.0, exclusive=True)

    def values(error: Array) -> Array:
        size = jnp.abs(error)
        near = jnp.minimum(size, delta)
        return near * (size - near / 2)

    return _mean(values, lambda mean: mean)


def _explained(centred: bool) -> Metric:
    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask)
        zero = jnp.zeros_like(rows.scores)
        error = sums.minus(Sums(rows.labels, zero), Sums(rows.scores, zero))
        terms = (
            Sums(jnp.ones_like(zero), zero),
            Sums(rows.labels, zero),
            sums.product(rows.labels, rows.labels),
            error,
            sums.times(error, error),
        )
        stacked = Sums(*(jnp.stack(parts) for parts in zip(*terms, strict=True)))
        return (total(rows, stacked),), rows.refused

    def finish(moments: Sums) -> Array:
        count, y, y_square, error, error_square = (
            Sums(moments.high[i], moments.low[i]) for i in range(5)
        )
        some = count.value() > 0
        count = Sums(jnp.where(some, count.high, 1.0), count.low)
        # n Var = Σ y² − (Σ y)² / n loses all 24 bits of a float32 when the mean is 4,000 deviations; of 48
        # bits as many are left as the labels themselves had.
        spread = sums.minus(y_square, sums.over(sums.times(y, y), count))
        left = error_square
        if centred:
            left = sums.minus(error_square, sums.over(sums.times(error, error), count))
        # What is below the rounding of the sums is no variance.
        varied = some & (spread.value() > y_square.value() * 2.0**-44)
        return jnp.where(varied, 1 - ratio(left.value(), spread.value()), jnp.nan)

    return gathered(((5,),), totals, finish)


@made_once
def r2() -> Metric:
    """Coefficient of determination, as `metrics.r2`.

    Returns:
        Metric of labels [...] and predictions [...]; its value is a float32 scalar, NaN for labels that
        are all alike. Sums of squares have 48 bits: a mean of 10⁴ standard deviations costs 1e-6 of the
        value.

    >>> import jax.numpy as jnp
    >>> metric = r2()
    >>> state = metric.update(metric.empty(), jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 2.0]))
    >>> print(metric.compute(state))
    0.5
    """
    return _explained(centred=False)


@made_once
def explained_variance() -> Metric:
    """Share of the labels' variance that is not in the errors, as `metrics.explained_variance`.

    Returns:
        Metric of labels [...] and predictions [...]; its value is a float32 scalar, NaN for labels that
        are all alike.

    >>> import jax.numpy as jnp
    >>> metric = explained_variance()
    >>> state = metric.update(metric.empty(), jnp.array([1.0, 2.0, 3.0]), jnp.array([5.0, 6.0, 7.0]))
    >>> print(metric.compute(state))
    1.0
    """
    return _explained(centred=True)


@made_once
def median_absolute_error() -> Metric:
    """Median of |label − prediction|, to within 0.4 %.

    A median cannot be merged from medians; counts of the errors' sizes can. There are 128 bins an octave
    between 2⁻⁴⁰ and 2⁴⁰ of the labels' unit; the middle of a bin is at most 1/256 off, relatively. The two
    bins in the middle are averaged, as the two errors in the middle are in `metrics.median_absolute_error`.

    Returns:
        Metric of labels [...] and predictions [...]; its value is a float32 scalar: 0 below 2⁻⁴⁰.

    >>> import jax.numpy as jnp
    >>> metric = median_absolute_error()
    >>> errors = jnp.array([1.0, 2.0, -4.0, 1000.0])
    >>> state = metric.update(metric.empty(), jnp.zeros(4), errors)
    >>> print(metric.compute(state))  # exactly 3
    3.0117188
    """
    size = (_LARGEST - _SMALLEST) * _STEPS + 2
    first = (_SMALLEST + 127) * _STEPS - 1
    octaves = np.ldexp(1.0, np.arange(_SMALLEST, _LARGEST))[:, None]
    middles = (octaves * (1 + (np.arange(_STEPS) + 0.5) / _STEPS)).ravel()
    middles = np.concatenate([[0.0], middles, [2.0**_LARGEST]]).astype(np.float32)

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask)
        step = jax.lax.bitcast_convert_type(jnp.abs(rows.labels - rows.scores), jnp.int32) >> 16
        return (histogram(rows, jnp.clip(step - first, 0, size - 1), size),), rows.refused

    def finish(counts: Sums) -> Array:
        reached = sums.running(counts)
        whole = Sums(reached.high[-1], reached.low[-1])
        half = Sums(whole.high / 2, whole.low / 2)
        beyond = sums.minus(reached, Sums(*(jnp.broadcast_to(p, (size,)) for p in half))).value()
        lower, upper = jnp.argmax(beyond >= 0), jnp.argmax(beyond > 0)
        middle = jnp.asarray(middles)
        return jnp.where(whole.value() > 0, (middle[lower] + middle[upper]) / 2, jnp.nan)

    return gathered(((size,),), totals, finish)
