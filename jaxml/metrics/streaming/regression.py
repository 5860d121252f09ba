"""Mergeable forms of the figures of `jaxml.metrics.regression`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks
from jaxml.metrics import sums
from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.accumulator import (
    Rows,
    accumulated,
    histogram,
    made_once,
    mean,
    ratio,
    read,
    total,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array

# Sizes of errors: 128 steps an octave, from 2⁻⁴⁰ to 2⁴⁰.
_STEPS, _SMALLEST, _LARGEST = 128, -40, 40


def _read(labels: Any, predictions: Any, weights: Any, mask: Any) -> Rows:
    labels, predictions = (jnp.asarray(v).astype(jnp.float32) for v in (labels, predictions))
    return read(
        labels, predictions, weights, mask, lambda y, p: ~(jnp.isfinite(y) & jnp.isfinite(p))
    )


def _error(rows: Rows) -> Array:
    return rows.labels - rows.scores


@made_once
def mean_squared_error() -> Metric:
    """`metrics.mean_squared_error`."""
    return mean(_read, lambda rows: jnp.square(_error(rows)))


@made_once
def root_mean_squared_error() -> Metric:
    """`metrics.root_mean_squared_error`. Errors beyond 2³² are squared in a unit of their own."""
    unit = 2.0**64  # whose square is out of float32's range

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask)
        error = _error(rows)
        large = jnp.abs(error) > 2.0**32
        squares = (jnp.where(large, 0.0, error), jnp.where(large, error / unit, 0.0))
        return (total(rows), *(total(rows, jnp.square(part)) for part in squares)), rows.refused

    def finish(count: Sums, small: Sums, large: Sums) -> Array:
        n, of_small, of_large = count.value(), small.value(), large.value()
        in_units = jnp.sqrt(ratio(of_large + of_small / unit / unit, n)) * unit
        return jnp.where(of_large > 0, in_units, jnp.sqrt(ratio(of_small, n)))

    return accumulated(((), (), ()), totals, finish)


@made_once
def mean_absolute_error() -> Metric:
    """`metrics.mean_absolute_error`."""
    return mean(_read, lambda rows: jnp.abs(_error(rows)))


@made_once
def huber(delta: float = 1.0) -> Metric:
    """`metrics.huber`."""
    delta = checks.number("delta", delta, above=0)

    def values(rows: Rows) -> Array:
        size = jnp.abs(_error(rows))
        near = jnp.minimum(size, delta)
        return near * (size - near / 2)

    return mean(_read, values)


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

        def about_the_mean(square: Sums, of: Sums) -> Sums:
            # n Var = Σ y² − (Σ y)² / n loses all 24 bits of a float32 when the mean is 4,000 deviations; of
            # 48 bits as many are left as the labels themselves have.
            return sums.minus(square, sums.over(sums.times(of, of), count))

        spread = about_the_mean(y_square, y)
        left = about_the_mean(error_square, error) if centred else error_square
        # What is below the rounding of the sums is no variance.
        varied = some & (spread.value() > y_square.value() * 2.0**-44)
        return jnp.where(varied, 1 - ratio(left.value(), spread.value()), jnp.nan)

    return accumulated(((5,),), totals, finish)


@made_once
def r2() -> Metric:
    """`metrics.r2`. A mean of 10⁴ standard deviations costs 1e-6 of the value."""
    return _explained(centred=False)


@made_once
def explained_variance() -> Metric:
    """`metrics.explained_variance`, as precise as `r2`."""
    return _explained(centred=True)


@made_once
def median_absolute_error() -> Metric:
    """`metrics.median_absolute_error` to within 0.4 %, from counts of the errors' sizes.

    There are 128 bins an octave between 2⁻⁴⁰ and 2⁴⁰ of the labels' unit, and an error counts as the middle
    of its bin. An error below 2⁻⁴⁰ counts as 0.
    """
    size = (_LARGEST - _SMALLEST) * _STEPS + 2
    first = (_SMALLEST + 127) * _STEPS - 1
    octaves = np.ldexp(1.0, np.arange(_SMALLEST, _LARGEST))[:, None]
    middles = (octaves * (1 + (np.arange(_STEPS) + 0.5) / _STEPS)).ravel()
    middles = np.concatenate([[0.0], middles, [2.0**_LARGEST]]).astype(np.float32)

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask)
        step = jax.lax.bitcast_convert_type(jnp.abs(_error(rows)), jnp.int32) >> 16
        return (histogram(rows, jnp.clip(step - first, 0, size - 1), size),), rows.refused

    def finish(counts: Sums) -> Array:
        reached = sums.running(counts)
        whole = Sums(reached.high[-1], reached.low[-1])
        half = Sums(whole.high / 2, whole.low / 2)
        beyond = sums.minus(reached, Sums(*(jnp.broadcast_to(p, (size,)) for p in half))).value()
        lower, upper = jnp.argmax(beyond >= 0), jnp.argmax(beyond > 0)
        middle = jnp.asarray(middles)
        return jnp.where(whole.value() > 0, (middle[lower] + middle[upper]) / 2, jnp.nan)

    return accumulated(((size,),), totals, finish)
