"""Streaming counts at thousands of thresholds that are evenly spaced in logit; ROC and PR curves from them.

The counts are exact, and so is each of their thresholds (`bins` says where they lie). What is lost is the
order within a bin, and by how much is known: the AUC is off by at most half the share of pairs that fell
into one bin (`roc_auc_with_bound`). Scores are read as float32: what differs beyond its 24 bits is a tie.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxml.metrics import curves as exact
from jaxml.metrics import sums
from jaxml.metrics.curves import ThresholdCounts
from jaxml.metrics.metric import Metric
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
from jaxml.metrics.streaming.gathered import (
    derived,
    gathered,
    histogram,
    made_once,
    not_a_probability,
    not_binary,
    of_sums,
    read,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array


def _falling(both: Sums) -> tuple[Sums, Array]:
    """Counts [2, n] added up from the highest score down, and as float32 from 0 on, [2, n + 1]."""
    # Pairs, so that 2²⁴ and one more are not the same.
    reached = sums.running(Sums(*(part[:, ::-1] for part in both)))
    return reached, jnp.concatenate([jnp.zeros((2, 1), jnp.float32), reached.value()], 1)


def _counts(whole: Sums, fine: Sums, from_logits: bool) -> ThresholdCounts:
    ends, both = unfolded(whole, fine, from_logits)
    reached, (fp, tp) = _falling(both)
    total = Sums(*(part[:, -1:] for part in reached))
    left = sums.minus(total, reached)
    tn, fn = jnp.concatenate([total.value(), left.value()], 1)
    thresholds = jnp.concatenate([jnp.full(1, jnp.inf), ends[::-1]])
    return ThresholdCounts(thresholds, tp, fp, fn, tn)


class _Curves(NamedTuple):
    """Positives and negatives from the highest score down.

    Attributes:
        coarse: [2, B + 1], by bins.
        fine: [2, FOLD, PARTS + 1], within each bin that is cut, by its parts; flat in what cannot be cut.
    """

    coarse: Array
    fine: Array

    def total(self, of: Callable[[Array, Array], Array]) -> Array:
        """A sum over the steps, `of(tp, fp)`, with the parts' steps for those of bins that are cut."""
        (fp, tp), (fine_fp, fine_tp) = self
        chords = (part[..., ::PARTS] for part in (fine_tp, fine_fp))
        return of(tp, fp) + (of(fine_tp, fine_fp) - of(*chords)).sum()


def _curves(whole: Sums, fine: Sums) -> _Curves:
    """What areas need; the counts at all thresholds in their order would take three times as long."""
    _, coarse = _falling(whole)
    wide, alone = cut(whole)
    above = coarse[:, whole.high.shape[1] - 1 - wide]
    # Within one bin float32 will do: its rounding is of the counts that are there.
    inside = jnp.where(alone[:, None], fine.value().reshape(2, FOLD, PARTS), 0.0)
    inside = jax.lax.cumsum(inside, axis=2, reverse=True)[..., ::-1]
    inside = jnp.concatenate([jnp.zeros_like(inside[..., :1]), inside], -1)
    return _Curves(coarse, above[..., None] + inside)


def _positives_and_negatives(curves: _Curves) -> tuple[Array, Array, Array]:
    """How many there are, at least 1 to divide by, and whether there are both."""
    negatives, positives = curves.coarse[:, -1]
    some = [jnp.where(count > 0, count, 1.0) for count in (positives, negatives)]
    return some[0], some[1], (positives > 0) & (negatives > 0)


def _area(whole: Sums, fine: Sums) -> Array:
    curves = _curves(whole, fine)
    positives, negatives, both = _positives_and_negatives(curves)
    area = curves.total(lambda tp, fp: exact.trapezoids(tp, fp, positives, negatives))
    return jnp.where(both, area, jnp.nan)


def _bounded(whole: Sums, fine: Sums) -> "BoundedAuc":
    curves = _curves(whole, fine)
    positives, negatives, both = _positives_and_negatives(curves)

    def together(tp: Array, fp: Array) -> Array:
        return (jnp.diff(tp) / positives * (jnp.diff(fp) / negatives)).sum(-1)

    bound = jnp.where(both, curves.total(together) / 2, jnp.nan)
    return BoundedAuc(_area(whole, fine), bound)


def _average_precision(whole: Sums, fine: Sums) -> Array:
    curves = _curves(whole, fine)
    _, positives = curves.coarse[:, -1]
    steps = curves.total(lambda tp, fp: exact.steps(jnp, tp, fp))
    return jnp.where(positives > 0, steps / jnp.where(positives > 0, positives, 1.0), jnp.nan)


@made_once
def threshold_counts(*, from_logits: bool = False) -> Metric:
    """Confusion counts of `scores >= threshold` at thousands of thresholds evenly spaced in logit.

    Args:
        from_logits: whether the scores are logits (any real numbers) rather than probabilities.

    Returns:
        Metric of labels [...] in {0, 1} and scores [...]; its value is `ThresholdCounts`, float32 [T]
        each, T = 74,500 of probabilities and 74,499 of logits. Counts and thresholds are exact: the same
        as counting `scores >= threshold`. Which thresholds there are depends on the scores: of each 256th
        bin one is cut into parts if no other holds a score; else equal thresholds stand for the parts.
        State: two pairs of float32 a bin or part, 1.2 MB.

    >>> import jax.numpy as jnp
    >>> metric = threshold_counts()
    >>> state = metric.update(metric.empty(), jnp.array([0, 1, 1]), jnp.array([0.2, 0.7, 0.2]))
    >>> counts = metric.compute(state)
    >>> int(counts.true_positives[counts.thresholds >= 0.5][-1])
    1
    """
    size = len(lower_ends(from_logits))

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = read(
            labels,
            scores,
            weights,
            mask,
            lambda y, s: not_binary(y) | not_a_probability(s.astype(jnp.float32), from_logits),
        )
        scores = rows.scores.astype(jnp.float32)
        at = bins(scores, from_logits)
        both = tuple(
            Sums(
                *(
                    part.reshape(2, n)
                    for part in histogram(rows, of + n * (rows.labels == 1), 2 * n)
                )
            )
            for of, n in ((at, size), (folded(at, parts(scores, from_logits)), FOLD * PARTS))
        )
        return both, rows.refused

    return gathered(
        ((2, size), (2, FOLD * PARTS)),
        totals,
        lambda whole, fine: _counts(whole, fine, from_logits),
    )


@made_once
def roc_auc(*, from_logits: bool = False) -> Metric:
    """Area under the ROC curve, from counts at thresholds evenly spaced in logit.

    Returns:
        Metric as `threshold_counts`'s (`from_logits`, too); its value is a float32 scalar. Scores that
        share a bin count as a tie, so the error is at most half the share of pairs of a positive and a
        negative that share one; `roc_auc_with_bound` gives that, too.

    >>> import jax.numpy as jnp
    >>> metric = roc_auc()
    >>> scores = jnp.array([1e-6, 4e-6, 3.5e-6, 8e-6])
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([0, 0, 1, 1]), scores)))
    0.75
    """
    return of_sums(threshold_counts(from_logits=from_logits), _area)


class BoundedAuc(NamedTuple):
    """An area under the ROC curve, and how far it can be off.

    Attributes:
        value: scores that share a bin counted as ties.
        bound: the exact area is within this of the value (but for float32 rounding, 1e-6).
    """

    value: Array
    bound: Array


@made_once
def roc_auc_with_bound(*, from_logits: bool = False) -> Metric:
    """Area under the ROC curve with the most that it can be off by, known from the counts themselves.

        |AUC − value| ≤ ½ Σ_b (positives_b / P) (negatives_b / N)

    A large bound says that the scores share few bins, all within 1e-5 of one another, say: then gather the
    scores and take `metrics.roc_auc`. Ties that are real are in the bound, too.

    Returns:
        Metric as `threshold_counts`'s (`from_logits`, too); its value is `BoundedAuc`.

    >>> import jax.numpy as jnp
    >>> metric = roc_auc_with_bound()
    >>> scores = jnp.array([0.3, 0.3001, 0.30010001])  # the last two share a bin
    >>> print(*metric.compute(metric.update(metric.empty(), jnp.array([0, 0, 1]), scores)))
    0.75 0.25
    """
    return of_sums(threshold_counts(from_logits=from_logits), _bounded)


@made_once
def average_precision(*, from_logits: bool = False) -> Metric:
    """Average precision, from counts at thresholds evenly spaced in logit.

    Returns:
        Metric as `threshold_counts`'s (`from_logits`, too); its value is a float32 scalar. Scores that
        share a bin count as a tie.

    >>> import jax.numpy as jnp
    >>> metric = average_precision()
    >>> scores = jnp.array([0.1, 0.4, 0.35, 0.8])
    >>> state = metric.update(metric.empty(), jnp.array([0, 0, 1, 1]), scores)
    >>> print(metric.compute(state).round(4))
    0.8333
    """
    return of_sums(threshold_counts(from_logits=from_logits), _average_precision)


@made_once
def roc_curve(*, from_logits: bool = False) -> Metric:
    """ROC curve at thresholds evenly spaced in logit.

    Returns:
        Metric as `threshold_counts`'s (`from_logits`, too); its value is `RocCurve`, float32 [T] each.
        Every point lies on the exact curve.

    >>> import jax.numpy as jnp
    >>> metric = roc_curve()
    >>> curve = metric.compute(metric.update(metric.empty(), jnp.array([0, 1]), jnp.array([0.2, 0.7])))
    >>> float(curve.tpr[curve.thresholds >= 0.5][-1]), float(curve.fpr[-1])
    (1.0, 1.0)
    """
    return derived(threshold_counts(from_logits=from_logits), lambda counts: exact.roc(jnp, counts))


@made_once
def precision_recall_curve(*, from_logits: bool = False) -> Metric:
    """Precision–recall curve at thresholds evenly spaced in logit.

    Returns:
        Metric as `threshold_counts`'s (`from_logits`, too); its value is `PrecisionRecallCurve`, float32,
        of T + 1 points and T thresholds; precision above the highest score is NaN. Every point lies on
        the exact curve.

    >>> import jax.numpy as jnp
    >>> metric = precision_recall_curve()
    >>> curve = metric.compute(metric.update(metric.empty(), jnp.array([0, 1]), jnp.array([0.2, 0.7])))
    >>> float(curve.precision[0]), float(curve.recall[0])
    (0.5, 1.0)
    """
    return derived(
        threshold_counts(from_logits=from_logits),
        lambda counts: exact.precision_recall(jnp, counts),
    )
