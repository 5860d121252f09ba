"""Streaming measures of the order of items in lists; ties as in the one-call forms."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxml.metrics import checks
from jaxml.metrics import ranking as exact
from jaxml.metrics.metric import Metric
from jaxml.metrics.ranking import Ranked
from jaxml.metrics.streaming.gathered import gathered, made_once, ratio, read, total
from jaxml.metrics.sums import Sums
from jaxml.types import Array


def _mean(k: int | None, value: Callable[[Ranked, Any], Array]) -> Metric:
    limit = None if k is None else checks.integer("k", k, 1)

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        labels, scores = (jnp.asarray(v).astype(jnp.float32) for v in (labels, scores))
        # A mask of the items' shape takes out items; one of the lists' shape whole lists.
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
        told = lists.present.any(-1) & ~jnp.isnan(each)
        each = jnp.where(told, each, 0.0).astype(jnp.float32)
        return (total(rows, told), total(rows, each)), rows.refused

    return gathered(((), ()), totals, lambda count, of: ratio(of.value(), count.value()))


@made_once
def precision_at_k(k: int) -> Metric:
    """Share of relevant items among the k that score highest, as `metrics.precision_at_k`.

    Args:
        k: at least 1.

    Returns:
        Metric of labels [..., D] and scores [..., D]; a mask [..., D] takes out items (padding), one of
        [...] whole lists. Its value is a float32 scalar.

    Raises:
        ValueError: for k below 1.

    >>> import jax.numpy as jnp
    >>> metric = precision_at_k(2)
    >>> labels, scores = jnp.array([[1, 0, 1]]), jnp.array([[0.9, 0.5, 0.2]])
    >>> print(metric.compute(metric.update(metric.empty(), labels, scores)))
    0.5
    """
    return _mean(k, exact.precision_of)


@made_once
def recall_at_k(k: int) -> Metric:
    """Share of the relevant items that are among the k that score highest, as `metrics.recall_at_k`.

    Args:
        k: at least 1.

    Returns:
        Metric of labels and scores [..., D], masked as in `precision_at_k`; its value is a float32 scalar.

    Raises:
        ValueError: for k below 1.

    >>> import jax.numpy as jnp
    >>> metric = recall_at_k(1)
    >>> labels, scores = jnp.array([[1, 0, 1]]), jnp.array([[0.9, 0.5, 0.2]])
    >>> print(metric.compute(metric.update(metric.empty(), labels, scores)))
    0.5
    """
    return _mean(k, exact.recall_of)


@made_once
def hit_rate(k: int) -> Metric:
    """Share of lists with a relevant item among the k that score highest, as `metrics.hit_rate`.

    Args:
        k: at least 1.

    Returns:
        Metric of labels and scores [..., D], masked as in `precision_at_k`; its value is a float32 scalar.

    Raises:
        ValueError: for k below 1.

    >>> import jax.numpy as jnp
    >>> metric = hit_rate(1)
    >>> labels, scores = jnp.array([[1, 0], [0, 1]]), jnp.array([[0.9, 0.5], [0.9, 0.5]])
    >>> print(metric.compute(metric.update(metric.empty(), labels, scores)))
    0.5
    """
    return _mean(k, exact.hit_of)


@made_once
def mean_reciprocal_rank(k: int | None = None) -> Metric:
    """1 / rank of the first relevant item, averaged over lists, as `metrics.mean_reciprocal_rank`.

    Args:
        k: at least 1; None: no limit.

    Returns:
        Metric of labels and scores [..., D], masked as in `precision_at_k`; its value is a float32 scalar.

    Raises:
        ValueError: for k below 1.

    >>> import jax.numpy as jnp
    >>> metric = mean_reciprocal_rank()
    >>> labels, scores = jnp.array([[0, 1, 0]]), jnp.array([[0.9, 0.5, 0.2]])
    >>> print(metric.compute(metric.update(metric.empty(), labels, scores)))
    0.5
    """
    return _mean(k, exact.reciprocal_of)


@made_once
def ndcg(k: int | None = None, *, gain: str = "linear") -> Metric:
    """Normalised discounted cumulative gain, averaged over lists, as `metrics.ndcg`.

    Args:
        k: at least 1; None: all.
        gain: "linear" or "exponential".

    Returns:
        Metric of labels and scores [..., D], masked as in `precision_at_k`; its value is a float32 scalar.

    Raises:
        ValueError: for k below 1, or an unknown gain.

    >>> import jax.numpy as jnp
    >>> metric = ndcg()
    >>> labels, scores = jnp.array([[0, 1]]), jnp.array([[0.9, 0.5]])
    >>> print(f"{metric.compute(metric.update(metric.empty(), labels, scores)):.4f}")  # 1 / log2(3)
    0.6309
    """
    checks.choice("gain", gain, exact.GAINS)
    return _mean(k, functools.partial(exact.ndcg_of, gain=gain))
