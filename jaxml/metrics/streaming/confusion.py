"""Mergeable forms of the figures of `jaxml.metrics.confusion`. A threshold may be traced."""

from typing import Any

import jax.numpy as jnp

from jaxml import checks
from jaxml.metrics.confusion import ConfusionCounts
from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.accumulator import (
    Rows,
    accumulated,
    derived,
    histogram,
    made_once,
    mean,
    not_an_id,
    not_binary,
    ratio,
    read,
    total,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array


def _is_class(scores: Array) -> bool:
    return jnp.issubdtype(scores.dtype, jnp.integer)


def _read(labels: Any, scores: Any, weights: Any, mask: Any) -> Rows:
    """Rows of labels 0 and 1 with scores [n], or of class ids with predicted ids [n] or scores [n, C]."""

    def fault(y: Array, s: Array) -> Array:
        if s.ndim == 2:
            return not_an_id(y, s.shape[-1]) | jnp.isnan(s).any(-1)
        return not_an_id(y, 2**31 - 1) if _is_class(s) else not_binary(y) | jnp.isnan(s)

    scores = jnp.asarray(scores)
    scores = scores.astype(jnp.int32) if scores.dtype == jnp.bool_ else scores
    return read(labels, scores, weights, mask, fault, columns=True)


@made_once
def confusion_counts(threshold: float = 0.5) -> Metric:
    """`metrics.confusion_counts`."""

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = read(labels, scores, weights, mask, lambda y, s: not_binary(y) | jnp.isnan(s))
        true, positive = rows.labels == 1, rows.scores >= threshold
        cells = (true & positive, ~true & positive, true & ~positive, ~true & ~positive)
        return (total(rows, jnp.stack(cells)),), rows.refused

    return accumulated(((4,),), totals, lambda cells: ConfusionCounts(*cells.value()))


@made_once
def accuracy(threshold: float = 0.5) -> Metric:
    """`metrics.accuracy`."""

    def values(rows: Rows) -> Array:
        if rows.scores.ndim == 2:
            return _in_top(rows, 1)
        if _is_class(rows.scores):
            return rows.labels == rows.scores
        return (rows.labels == 1) == (rows.scores >= threshold)

    return mean(_read, values)


def _in_top(rows: Rows, k: int) -> Array:
    """[n]: the probability that the label is among the k highest, ties broken at random."""
    of_label = jnp.take_along_axis(rows.scores, rows.labels.astype(jnp.int32)[:, None], -1)
    above = (rows.scores > of_label).sum(-1)
    equal = (rows.scores == of_label).sum(-1)
    return jnp.clip((k - above) / jnp.maximum(equal, 1), 0.0, 1.0).astype(jnp.float32)


def _read_classes(labels: Any, scores: Any, weights: Any, mask: Any) -> Rows:
    if jnp.ndim(scores) != jnp.ndim(labels) + 1:
        raise ValueError(
            f"scores must have an axis of classes more than labels, {jnp.shape(labels)}; "
            f"got {jnp.shape(scores)}"
        )
    return _read(labels, scores, weights, mask)


@made_once
def top_k_accuracy(k: int) -> Metric:
    """`metrics.top_k_accuracy`."""
    k = checks.integer("k", k, at_least=1)
    return mean(_read_classes, lambda rows: _in_top(rows, k))


@made_once
def confusion_matrix(num_classes: int) -> Metric:
    """`metrics.confusion_matrix`."""
    size = checks.integer("num_classes", num_classes, at_least=1)

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        if jnp.ndim(scores) == jnp.ndim(labels) + 1:
            if jnp.shape(scores)[-1] != size:
                raise ValueError(
                    f"scores must have num_classes, {size}, columns; got {jnp.shape(scores)}"
                )
            rows = _read_classes(labels, scores, weights, mask)
            predicted = rows.scores.argmax(-1)
        else:
            rows = read(
                labels, scores, weights, mask, lambda y, s: not_an_id(y, size) | not_an_id(s, size)
            )
            predicted = rows.scores
        at = rows.labels.astype(jnp.int32) * size + predicted.astype(jnp.int32)
        return (histogram(rows, at, size * size),), rows.refused

    return accumulated(((size * size,),), totals, lambda cells: cells.value().reshape(size, size))


@made_once
def precision(threshold: float = 0.5) -> Metric:
    """`metrics.precision` of labels 0 and 1."""
    return derived(
        confusion_counts(threshold),
        lambda n: ratio(n.true_positives, n.true_positives + n.false_positives),
    )


@made_once
def recall(threshold: float = 0.5) -> Metric:
    """`metrics.recall` of labels 0 and 1."""
    return derived(
        confusion_counts(threshold),
        lambda n: ratio(n.true_positives, n.true_positives + n.false_negatives),
    )


@made_once
def f_beta(beta: float = 1.0, threshold: float = 0.5) -> Metric:
    """`metrics.f_beta` of labels 0 and 1."""
    square = checks.number("beta", beta, above=0) ** 2

    def finish(n: ConfusionCounts) -> Array:
        hits = (1 + square) * n.true_positives
        return ratio(hits, hits + square * n.false_negatives + n.false_positives)

    return derived(confusion_counts(threshold), finish)


@made_once
def false_positive_rate(threshold: float = 0.5) -> Metric:
    """`metrics.false_positive_rate`."""
    return derived(
        confusion_counts(threshold),
        lambda n: ratio(n.false_positives, n.false_positives + n.true_negatives),
    )
