"""Mergeable forms of the figures of `jaxml.metrics.ranking`."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxml import checks
from jaxml.metrics import ranking as exact
from jaxml.metrics.metric import Metric
from jaxml.metrics.ranking import Ranked
from jaxml.metrics.streaming.accumulator import accumulated, made_once, ratio, read, total
from jaxml.metrics.sums import Sums
from jaxml.types import Array


def _mean(k: int | None, value: Callable[[Ranked, Any], Array]) -> Metric:
    limit = None if k is None else checks.integer("k", k, at_least=1)

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        labels, scores = (jnp.asarray(v).astype(jnp.float32) for v in (labels, scores))
        where = jnp.ones(labels.shape, bool)
        if mask is not None and jnp.shape(mask) == labels.shape:
            items = jnp.asarray(mask)
            where = items != 0
            mask = where.any(-1)
            # A number that is no mask makes a label that is refused.
            labels = jnp.where(where & (items != 1), -1.0, labels)
        if scores.shape == labels.shape:
            labels, scores = jnp.where(where, labels, 0.0), jnp.where(where, scores, 0.0)

        def fault(y: Array, s: Array) -> Array:
            return (~((y >= 0) & jnp.isfinite(y)) | jnp.isnan(s)).any(-1)

        rows = read(labels, scores, weights, mask, fault, lists=True)
        depth = labels.shape[-1]
        if not depth:
            return (total(rows, ~rows.keep),) * 2, rows.refused
        lists = exact.ranked(jnp, rows.labels, rows.scores, where.reshape(rows.labels.shape))
        each = value(lists, depth if limit is None else limit)
        defined = lists.present.any(-1) & ~jnp.isnan(each)
        each = jnp.where(defined, each, 0.0).astype(jnp.float32)
        return (total(rows, defined), total(rows, each)), rows.refused

    return accumulated(((), ()), totals, lambda count, of: ratio(of.value(), count.value()))


@made_once
def precision_at_k(k: int) -> Metric:
    """`metrics.precision_at_k`."""
    return _mean(k, exact.precision_of)


@made_once
def recall_at_k(k: int) -> Metric:
    """`metrics.recall_at_k`."""
    return _mean(k, exact.recall_of)


@made_once
def hit_rate(k: int) -> Metric:
    """`metrics.hit_rate`."""
    return _mean(k, exact.hit_of)


@made_once
def mean_reciprocal_rank(k: int | None = None) -> Metric:
    """`metrics.mean_reciprocal_rank`."""
    return _mean(k, exact.reciprocal_of)


@made_once
def ndcg(k: int | None = None, *, gain: str = "linear") -> Metric:
    """`metrics.ndcg`."""
    checks.choice("gain", gain, exact.GAINS)
    return _mean(k, functools.partial(exact.ndcg_of, gain=gain))
