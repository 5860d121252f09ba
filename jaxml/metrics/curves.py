"""Decisions at every threshold: ROC and precision–recall curves and their areas; exact, by sorting.

Examples of one score are decided together, so a tie is a slanted stretch of the ROC curve and one step of
the precision–recall curve, as in scikit-learn.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxml.metrics import checks

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
    """Confusion counts at falling thresholds; the first, +inf, decides for no example.

    Attributes:
        thresholds: [T], falling.
        true_positives: [T], rising from 0 to all of the positive class.
        false_positives: [T], rising from 0 to all of the negative class.
        false_negatives: [T].
        true_negatives: [T].
    """

    thresholds: Any
    true_positives: Any
    false_positives: Any
    false_negatives: Any
    true_negatives: Any


class RocCurve(NamedTuple):
    """A ROC curve, from (0, 0) to (1, 1).

    Attributes:
        fpr: [T], false positive rate at each threshold, rising; NaN without a negative.
        tpr: [T], true positive rate (recall), rising; NaN without a positive.
        thresholds: [T], falling from +inf.
    """

    fpr: Any
    tpr: Any
    thresholds: Any


class PrecisionRecallCurve(NamedTuple):
    """A precision–recall curve, ending at precision 1 and recall 0, which has no threshold.

    Attributes:
        precision: [T + 1].
        recall: [T + 1], falling; NaN without a positive (but for the last).
        thresholds: [T], rising.
    """

    precision: Any
    recall: Any
    thresholds: Any


def threshold_counts(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> ThresholdCounts:
    """Confusion counts of `scores >= threshold` with every distinct score as the threshold.

    Args:
        labels: [...], 0 or 1 of any dtype.
        scores: [...], any real, ±inf included; probabilities or logits.
        weights: [...] or None, finite and at least 0. A row of weight 0 makes no threshold.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        Float64 arrays of one entry for each distinct score, and one before them for +inf.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> counts = threshold_counts([0, 1, 1], [0.2, 0.7, 0.2])
    >>> counts.thresholds.tolist(), counts.true_positives.tolist(), counts.false_positives.tolist()
    ([inf, 0.7, 0.2], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0])
    """
    rows = checks.read(labels, scores, weights, mask)
    true, values, w = checks.binary(rows), rows.scores, rows.weights
    if w is not None:
        some = w > 0
        true, values, w = true[some], values[some], w[some]
    order = np.argsort(-values, kind="stable")
    true, values = true[order], values[order]
    last = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    if not len(values):
        last = np.zeros(0, np.int64)
    positive = np.cumsum(true if w is None else np.where(true, w[order], 0.0))[last]
    if w is None:
        negative = last + 1 - positive
    else:
        negative = np.cumsum(np.where(true, 0.0, w[order]))[last]
    tp, fp = (np.append(0.0, part.astype(np.float64)) for part in (positive, negative))
    return ThresholdCounts(np.append(np.inf, values[last]), tp, fp, tp[-1] - tp, fp[-1] - fp)


def trapezoids(tp: Any, fp: Any, positives: Any, negatives: Any) -> Any:
    """Area under ROC curves of counts [..., T], by trapezoids."""
    # Shares, as products of counts overflow float32's 24 bits long before their rates do; but of the
    # differences, which are exact: tens of thousands of roundings where nothing changes would add up.
    width = (fp[..., 1:] - fp[..., :-1]) / negatives
    return (width * ((tp[..., 1:] + tp[..., :-1]) / positives)).sum(-1) / 2


def steps(xp: Any, tp: Any, fp: Any) -> Any:
    """Sum of precisions over the positives of curves [..., T]; `xp` is NumPy or jax.numpy."""
    said = tp + fp
    precision = tp / xp.where(said > 0, said, 1.0)
    return ((tp[..., 1:] - tp[..., :-1]) * precision[..., 1:]).sum(-1)


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
    said = tp + fp
    precision = xp.where(said > 0, tp / xp.where(said > 0, said, 1.0), np.nan)
    recall = xp.where(positives > 0, tp / xp.where(positives > 0, positives, 1.0), np.nan)
    end = xp.ones(1, precision.dtype)
    return PrecisionRecallCurve(
        xp.concatenate([precision, end]),
        xp.concatenate([recall, end * 0]),
        counts.thresholds[1:][::-1],
    )


def roc_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Area under the ROC curve: how often a positive outscores a negative, a tie counting half.

        AUC = P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)

    It depends on the order of scores alone; 0.5 is chance. `streaming.roc_auc` is the mergeable form.

    Args:
        labels: [...], 0 or 1 of any dtype.
        scores: [...], any real; probabilities or logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float in [0, 1]; NaN if a class has no weight. Exact, in float64.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    Source: Hanley and McNeil, Radiology 143, 1982.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), roc_auc([1, 1], [0.2, 0.3])
    (0.75, nan)
    """
    counts = threshold_counts(labels, scores, weights=weights, mask=mask)
    tp, fp = counts.true_positives, counts.false_positives
    if not (tp[-1] > 0 and fp[-1] > 0):
        return float("nan")
    return float(trapezoids(tp, fp, tp[-1], fp[-1]))


def average_precision(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Precision averaged over the positives, each at its own score: the area under the stepped PR curve.

        AP = Σ_t (R_t − R_(t−1)) P_t

    Chance is the share of positives. Trapezoids between the points would be too good: precision does not
    change linearly with recall (Davis and Goadrich, ICML 2006).

    Args:
        labels: [...], 0 or 1 of any dtype.
        scores: [...], any real; probabilities or logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float in [0, 1]; NaN if no positive has weight. Exact, in float64.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    counts = threshold_counts(labels, scores, weights=weights, mask=mask)
    tp, fp = counts.true_positives, counts.false_positives
    return checks.ratio(steps(np, tp, fp), tp[-1])


def roc_curve(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    drop_intermediate: bool = True,
) -> RocCurve:
    """False and true positive rates at every distinct score.

    Args:
        labels: [...], 0 or 1 of any dtype.
        scores: [...], any real; probabilities or logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.
        drop_intermediate: leaves out points on a straight line between their neighbours; the curve and its
            area stay.

    Returns:
        `RocCurve(fpr, tpr, thresholds)` in float64; rates of a class without weight are NaN.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> fpr, tpr, thresholds = roc_curve([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.8])
    >>> fpr.tolist(), tpr.tolist(), thresholds.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0], [inf, 0.8, 0.5, 0.4, 0.1])
    """
    counts = threshold_counts(labels, scores, weights=weights, mask=mask)
    if drop_intermediate and len(counts.thresholds) > 3:
        # Like scikit-learn, before the point of +inf is put in front: the highest score always stays.
        bend = np.diff(counts.false_positives[1:], 2) != 0
        bend |= np.diff(counts.true_positives[1:], 2) != 0
        keep = np.concatenate([[True, True], bend, [True]])
        counts = ThresholdCounts(*(part[keep] for part in counts))
    return roc(np, counts)


def precision_recall_curve(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> PrecisionRecallCurve:
    """Precision and recall at every distinct score, rising, and the end point (1, 0).

    Args:
        labels: [...], 0 or 1 of any dtype.
        scores: [...], any real; probabilities or logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        `PrecisionRecallCurve(precision, recall, thresholds)` in float64; recall without a positive is NaN.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> precision, recall, thresholds = precision_recall_curve([0, 1], [0.3, 0.6])
    >>> precision.tolist(), recall.tolist(), thresholds.tolist()
    ([0.5, 1.0, 1.0], [1.0, 1.0, 0.0], [0.3, 0.6])
    """
    counts = threshold_counts(labels, scores, weights=weights, mask=mask)
    return precision_recall(np, counts)
