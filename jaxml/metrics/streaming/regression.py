"""Mergeable forms of the figures of `jaxml.metrics.regression`."""

from typing import Any

import jax.numpy as jnp

from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.accumulator import (
    Rows,
    accumulated,
    made_once,
    mean,
    ratio,
    read,
    total,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array


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
