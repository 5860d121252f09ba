"""ROC and precision–recall curves and their areas, of labels 0 and 1 and any real scores, ±inf included.

Examples with equal scores are decided together: a tie is a slanted stretch of the ROC curve and one step of
the precision–recall curve, as in scikit-learn.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxml.metrics.rows import Rows, binary, of_rows, scikit_learn

__all__ = [
    "PrecisionRecallCurve",
    "RocCurve",
    "ThresholdCounts",
    "average_precision",
    "precision_recall_curve",
    "roc_auc",
    "roc_curve",
    "threshold_counts",
]


class ThresholdCounts(NamedTuple):
    """Confusion counts at falling thresholds [T]; the first, +inf, predicts no positives."""

    thresholds: Any
    true_positives: Any
    false_positives: Any
    false_negatives: Any
    true_negatives: Any


class RocCurve(NamedTuple):
    """False and true positive rates [T] at falling thresholds, from (0, 0) to (1, 1)."""

    fpr: Any
    tpr: Any
    thresholds: Any


class PrecisionRecallCurve(NamedTuple):
    """Precision and recall [T + 1] at rising thresholds [T], and the end point (1, 0)."""

    precision: Any
    recall: Any
    thresholds: Any


def _counts(rows: Rows) -> ThresholdCounts:
    rows = rows.counted()
    order = np.argsort(-rows.scores, kind="stable")
    true, scores = rows.labels[order], rows.scores[order]
    w = np.ones(len(scores)) if rows.weights is None else rows.weights[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], np.ones(len(scores[:1]), bool)))
    tp, fp = (
        np.append(0.0, np.cumsum(np.where(of, w, 0.0))[last]) for of in (true, ~true.astype(bool))
    )
    thresholds = np.append(np.inf, scores[last])
    return ThresholdCounts(thresholds, tp, fp, tp[-1] - tp, fp[-1] - fp)


@of_rows(binary)
def threshold_counts(rows: Rows) -> ThresholdCounts:
    """Confusion counts of `scores >= threshold`, with +inf and each distinct score as a threshold.

    A row of weight 0 makes no threshold.

    >>> counts = threshold_counts([0, 1, 1], [0.2, 0.7, 0.2])
    >>> counts.thresholds.tolist(), counts.true_positives.tolist(), counts.false_positives.tolist()
    ([inf, 0.7, 0.2], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0])
    """
    return _counts(rows)


def _finite(rows: Rows) -> Rows:
    """Infinite scores as the largest finite numbers, which scikit-learn accepts."""
    return rows._replace(scores=np.nan_to_num(rows.scores))


@of_rows(binary)
def roc_auc(rows: Rows) -> float:
    """Area under the ROC curve: how often a positive outscores a negative, where a tie counts half.

        AUC = P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)

    Only the order of the scores matters; 0.5 is chance. NaN if either class is missing.

    References:
        Hanley and McNeil 1982, The meaning and use of the area under a ROC curve.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), roc_auc([1, 1], [0.2, 0.3])
    (0.75, nan)
    """
    return float(scikit_learn("roc_auc_score", _finite(rows)))


@of_rows(binary)
def average_precision(rows: Rows) -> float:
    """Area under the stepped precision–recall curve: precision averaged over the positives.

        AP = Σ_t (R_t − R_(t−1)) P_t

    Chance is the share of positives. NaN without a positive. Trapezoids would overestimate the area, since
    precision is not linear in recall (Davis and Goadrich 2006).

    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    if not rows.counted().labels.any():
        return float("nan")
    return float(scikit_learn("average_precision_score", _finite(rows)))


@of_rows(binary)
def roc_curve(rows: Rows, *, drop_intermediate: bool = True) -> RocCurve:
    """ROC curve with a point for each distinct score. Rates of a class without examples are NaN.

    Args:
        drop_intermediate: leave out the points on a straight line between their neighbours.

    >>> fpr, tpr, thresholds = roc_curve([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.8])
    >>> fpr.tolist(), tpr.tolist(), thresholds.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0], [inf, 0.8, 0.5, 0.4, 0.1])
    """
    counts = _counts(rows)
    if drop_intermediate and len(counts.thresholds) > 3:
        # Like scikit-learn, without the point of +inf: the highest score always stays.
        bend = np.diff(counts.false_positives[1:], 2) != 0
        bend |= np.diff(counts.true_positives[1:], 2) != 0
        keep = np.concatenate([[True, True], bend, [True]])
        counts = ThresholdCounts(*(part[keep] for part in counts))
    return roc(np, counts)


@of_rows(binary)
def precision_recall_curve(rows: Rows) -> PrecisionRecallCurve:
    """Precision–recall curve with a point for each distinct score. Recall without a positive is NaN.

    >>> precision, recall, thresholds = precision_recall_curve([0, 1], [0.3, 0.6])
    >>> precision.tolist(), recall.tolist(), thresholds.tolist()
    ([0.5, 1.0, 1.0], [1.0, 1.0, 0.0], [0.3, 0.6])
    """
    return precision_recall(np, _counts(rows))


def roc(xp: Any, counts: ThresholdCounts) -> RocCurve:
    """ROC curve of counts; `xp` is NumPy or jax.numpy."""
    fpr, tpr = (
        xp.where(part[-1] > 0, part / xp.where(part[-1] > 0, part[-1], 1.0), np.nan)
        for part in (counts.false_positives, counts.true_positives)
    )
    return RocCurve(fpr, tpr, counts.thresholds)


def precision_recall(xp: Any, counts: ThresholdCounts) -> PrecisionRecallCurve:
    """Precision–recall curve of counts; `xp` is NumPy or jax.numpy."""
    tp, fp = counts.true_positives[1:][::-1], counts.false_positives[1:][::-1]
    positives = counts.true_positives[-1]
    predicted = tp + fp
    precision = xp.where(predicted > 0, tp / xp.where(predicted > 0, predicted, 1.0), np.nan)
    recall = xp.where(positives > 0, tp / xp.where(positives > 0, positives, 1.0), np.nan)
    end = xp.ones(1, precision.dtype)
    return PrecisionRecallCurve(
        xp.concatenate([precision, end]),
        xp.concatenate([recall, end * 0]),
        counts.thresholds[1:][::-1],
    )
