"""Mergeable forms of the figures of `jaxml.metrics.regression`."""

from typing import Any

import jax.numpy as jnp

from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.accumulator import (
    Rows,
    accumulated,
    derived,
    made_once,
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


# Errors beyond 2⁴⁸ are counted in this unit, so that no sum of them overflows, nor of their squares.
_FAR, _UNIT = 2.0**48, 2.0**96


@made_once
def _mean(power: int) -> Metric:
    """The mean of |error|^power, as a pair: in the largest unit that occurs, and that unit."""

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask)
        error = jnp.abs(rows.labels - rows.scores)
        far = error > _FAR
        parts = (jnp.where(far, 0.0, error), jnp.where(far, error / _UNIT, 0.0))
        return (total(rows), *(total(rows, part**power) for part in parts)), rows.refused

    def finish(count: Sums, near: Sums, far: Sums) -> tuple[Array, Array]:
        n, of_near, of_far = count.value(), near.value(), far.value()
        in_units = of_near
        for _ in range(power):
            in_units = in_units / _UNIT
        is_far = of_far > 0
        mean = ratio(jnp.where(is_far, of_far + in_units, of_near), n)
        return mean, jnp.where(is_far, _UNIT, 1.0)

    return accumulated(((), (), ()), totals, finish)


@made_once
def mean_squared_error() -> Metric:
    """`metrics.mean_squared_error`."""
    return derived(_mean(2), lambda found: found[0] * found[1] * found[1])


@made_once
def root_mean_squared_error() -> Metric:
    """`metrics.root_mean_squared_error`."""
    return derived(_mean(2), lambda found: jnp.sqrt(found[0]) * found[1])


@made_once
def mean_absolute_error() -> Metric:
    """`metrics.mean_absolute_error`."""
    return derived(_mean(1), lambda found: found[0] * found[1])
