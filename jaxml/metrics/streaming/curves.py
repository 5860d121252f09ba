"""Mergeable forms of the figures of `jaxml.metrics.curves`.

They are made of the exact counts at thresholds that are evenly spaced in logit: the ends of 42,000 bins,
some of them cut finer (see `bins`). Only the order of the scores within a bin is lost: the area under the
ROC curve is off by at most half the share of pairs of a positive and a negative in one bin, which
`roc_auc_with_bound` returns as well. Scores are read as float32.

Labels are 0 or 1. Scores are probabilities, or any real numbers with `from_logits`. A state takes 1.2 MB.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxml.metrics import curves as exact
from jaxml.metrics import sums
from jaxml.metrics.curves import ThresholdCounts
from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.accumulator import (
    accumulated,
    derived,
    histogram,
    made_once,
    not_a_probability,
    not_binary,
    of_sums,
    ratio,
    read,
)
from jaxml.metrics.streaming.bins import (
    FOLD,
    PARTS,
    bins,
    cut,
    folded,
    lower_ends,
    parts,
    unfolded,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array


@made_once
def threshold_counts(*, from_logits: bool = False) -> Metric:
    """`metrics.threshold_counts` at 74,500 thresholds, of which some may be equal."""
    size = len(lower_ends(from_logits))

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = read(
            labels,
            jnp.asarray(scores).astype(jnp.float32),
            weights,
            mask,
            lambda y, s: not_binary(y) | not_a_probability(s, from_logits),
        )

        def by_label(at: Array, n: int) -> Sums:
            counts = histogram(rows, at + n * (rows.labels == 1), 2 * n)
            return Sums(*(part.reshape(2, n) for part in counts))

        at = bins(rows.scores, from_logits)
        part = folded(at, parts(rows.scores, from_logits))
        return (by_label(at, size), by_label(part, FOLD * PARTS)), rows.refused

    def counts(whole: Sums, fine: Sums) -> ThresholdCounts:
        ends, both = unfolded(whole, fine, from_logits)
        reached, (fp, tp) = _falling(both)
        total = Sums(*(part[:, -1:] for part in reached))
        left = sums.minus(total, reached)
        tn, fn = jnp.concatenate([total.value(), left.value()], 1)
        thresholds = jnp.concatenate([jnp.full(1, jnp.inf), ends[::-1]])
        return ThresholdCounts(thresholds, tp, fp, fn, tn)

    return accumulated(((2, size), (2, FOLD * PARTS)), totals, counts)


def _falling(both: Sums) -> tuple[Sums, Array]:
    """Counts [2, n] added up from the highest score down, and as float32 from 0 on, [2, n + 1]."""
    reached = sums.running(Sums(*(part[:, ::-1] for part in both)))
    return reached, jnp.concatenate([jnp.zeros((2, 1), jnp.float32), reached.value()], 1)


class _Curves(NamedTuple):
    """Numbers of positives and negatives from the highest score down.

    Areas are sums over steps. They are taken over the bins, with those of the parts in place of those of a
    bin that is cut: a third of the time of a pass over all thresholds in their order.

    Attributes:
        coarse: [2, B + 1], by bins.
        fine: [2, FOLD, PARTS + 1], by parts within each bin that is cut; flat in what cannot be cut.
    """

    coarse: Array
    fine: Array

    def total(self, of: Callable[[Array, Array], Array]) -> Array:
        """The sum `of(tp, fp)` over all steps."""
        (fp, tp), (fine_fp, fine_tp) = self
        chords = (part[..., ::PARTS] for part in (fine_tp, fine_fp))
        return of(tp, fp) + (of(fine_tp, fine_fp) - of(*chords)).sum()


def _curves(whole: Sums, fine: Sums) -> _Curves:
    _, coarse = _falling(whole)
    wide, alone = cut(whole)
    above = coarse[:, whole.high.shape[1] - 1 - wide]
    # Within one bin float32 is enough: it rounds the counts of that bin only.
    inside = jnp.where(alone[:, None], fine.value().reshape(2, FOLD, PARTS), 0.0)
    inside = jax.lax.cumsum(inside, axis=2, reverse=True)[..., ::-1]
    inside = jnp.concatenate([jnp.zeros_like(inside[..., :1]), inside], -1)
    return _Curves(coarse, above[..., None] + inside)


class BoundedAuc(NamedTuple):
    """An area under the ROC curve and the largest possible error of it.

    Attributes:
        value: with scores in the same bin as ties.
        bound: the exact area is within this of the value (but for float32 rounding, 1e-6).
    """

    value: Array
    bound: Array


def _area(whole: Sums, fine: Sums) -> BoundedAuc:
    curves = _curves(whole, fine)
    negatives, positives = curves.coarse[:, -1]
    both = (positives > 0) & (negatives > 0)
    p, n = (jnp.where(count > 0, count, 1.0) for count in (positives, negatives))

    # Shares rather than products of counts, which overflow float32's 24 bits; and shares of differences,
    # which are exact, rather than differences of shares, whose roundings would add up.
    def trapezoids(tp: Array, fp: Array) -> Array:
        return (jnp.diff(fp) / n * ((tp[..., 1:] + tp[..., :-1]) / p)).sum(-1) / 2

    def triangles(tp: Array, fp: Array) -> Array:
        return (jnp.diff(tp) / p * (jnp.diff(fp) / n)).sum(-1) / 2

    value, bound = (jnp.where(both, curves.total(of), jnp.nan) for of in (trapezoids, triangles))
    return BoundedAuc(value, bound)


def _average_precision(whole: Sums, fine: Sums) -> Array:
    curves = _curves(whole, fine)

    def steps(tp: Array, fp: Array) -> Array:
        return (jnp.diff(tp) * ratio(tp, tp + fp, 0.0)[..., 1:]).sum(-1)

    return ratio(curves.total(steps), curves.coarse[1, -1])


@made_once
def roc_auc(*, from_logits: bool = False) -> Metric:
    """`metrics.roc_auc`, with scores in the same bin as ties."""
    return of_sums(threshold_counts(from_logits=from_logits), lambda *counts: _area(*counts).value)


@made_once
def roc_auc_with_bound(*, from_logits: bool = False) -> Metric:
    """`roc_auc` and the largest possible error of it, a `BoundedAuc`.

        |AUC − value| ≤ ½ Σ_b (positives_b / P) (negatives_b / N)

    A large bound means that the scores share few bins (all within 1e-5 of one another, say): collect the
    scores and use `metrics.roc_auc`. Ties of equal scores count in the bound, too.

    >>> metric = roc_auc_with_bound()
    >>> scores = jnp.array([0.3, 0.3001, 0.30010001])  # the last two share a bin
    >>> print(*metric.compute(metric.update(metric.empty(), jnp.array([0, 0, 1]), scores)))
    0.75 0.25
    """
    return of_sums(threshold_counts(from_logits=from_logits), _area)


@made_once
def average_precision(*, from_logits: bool = False) -> Metric:
    """`metrics.average_precision`, with scores in the same bin as ties."""
    return of_sums(threshold_counts(from_logits=from_logits), _average_precision)


@made_once
def roc_curve(*, from_logits: bool = False) -> Metric:
    """`metrics.roc_curve`; every point lies on the exact curve."""
    return derived(threshold_counts(from_logits=from_logits), lambda counts: exact.roc(jnp, counts))


@made_once
def precision_recall_curve(*, from_logits: bool = False) -> Metric:
    """`metrics.precision_recall_curve`; every point lies on the exact curve.

    Precision at thresholds above the highest score is NaN.
    """
    return derived(
        threshold_counts(from_logits=from_logits),
        lambda counts: exact.precision_recall(jnp, counts),
    )
