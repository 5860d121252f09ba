"""Choosing a threshold, by the cost of mistakes, a wanted precision or recall, or F_β.

Each function takes the counts at many thresholds, exact (`threshold_counts`) or streamed
(`streaming.threshold_counts`), and returns a `ThresholdChoice`. Choose on validation data: on the data it
was chosen on, a threshold looks better than it is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.metrics.confusion import ConfusionCounts
from jaxml.metrics.curves import ThresholdCounts
from jaxml.metrics.rows import ratio

__all__ = [
    "ThresholdChoice",
    "threshold_for_cost",
    "threshold_for_f_beta",
    "threshold_for_precision",
    "threshold_for_recall",
]


class ThresholdChoice(NamedTuple):
    """A threshold and what it achieves.

    Attributes:
        threshold: predict class 1 where the score is at least this; +inf predicts no positives.
        reached: whether the wanted value is reached; if not, this threshold comes closest.
        objective: the optimised figure: mean cost, F_β, or the rate that was left free.
        precision: TP / (TP + FP); NaN without a positive prediction.
        recall: TP / (TP + FN).
        false_positive_rate: FP / (FP + TN).
        counts: the confusion counts.
    """

    threshold: float
    reached: bool
    objective: float
    precision: float
    recall: float
    false_positive_rate: float
    counts: ConfusionCounts

    def __str__(self) -> str:
        prefix = "" if self.reached else "cannot be reached; closest: "
        return (
            f"{prefix}threshold {self.threshold:.6g}: precision {self.precision:.4f}, "
            f"recall {self.recall:.4f}, false positive rate {self.false_positive_rate:.4f}"
        )


def _float64(counts: ThresholdCounts) -> ThresholdCounts:
    given = ThresholdCounts(*(np.asarray(part, np.float64) for part in counts))
    if not all(np.isfinite(part).all() for part in given[1:]):
        raise ValueError(
            "counts must be finite, got NaN: a counted label or score was not in range"
        )
    if given.true_positives[-1] + given.false_positives[-1] <= 0:
        raise ValueError("counts must hold an example, got none")
    return given


def _rates(counts: ThresholdCounts) -> tuple[NDArray, NDArray]:
    """Precision and recall at each threshold; NaN where undefined."""
    tp, positive = counts.true_positives, counts.true_positives + counts.false_positives
    with np.errstate(invalid="ignore"):
        return tp / positive, tp / tp[-1]


def _choice(counts: ThresholdCounts, at: int, reached: bool, objective: float) -> ThresholdChoice:
    tp, fp, fn, tn = (float(part[at]) for part in counts[1:])
    return ThresholdChoice(
        float(counts.thresholds[at]),
        bool(reached),
        float(objective),
        ratio(tp, tp + fp),
        ratio(tp, tp + fn),
        ratio(fp, fp + tn),
        ConfusionCounts(tp, fp, fn, tn),
    )


def _best(first: NDArray, second: NDArray, among: NDArray[np.bool_]) -> int:
    """Index of the largest `first`; ties go to the largest `second`, then to the highest threshold."""
    at = np.flatnonzero(among)
    return int(at[np.lexsort((-at, second[at], first[at]))[-1]])


def threshold_for_cost(
    counts: ThresholdCounts, *, false_positive: float, false_negative: float
) -> ThresholdChoice:
    """The threshold of the lowest mean cost; of equal ones the highest.

        cost = (c_FP FP + c_FN FN) / n

    With calibrated probabilities it is near c_FP / (c_FP + c_FN). Predicting no positives, and predicting
    all, are among the thresholds.

    Args:
        false_positive: c_FP, at least 0, in any unit.
        false_negative: c_FN, at least 0, in the same unit.

    References:
        Elkan 2001, The foundations of cost-sensitive learning.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> choice = threshold_for_cost(counts, false_positive=1, false_negative=5)
    >>> choice.threshold, choice.objective
    (0.3, 0.2)
    """
    c_fp = checks.number("false_positive", false_positive, at_least=0)
    c_fn = checks.number("false_negative", false_negative, at_least=0)
    given = _float64(counts)
    total = given.true_positives[-1] + given.false_positives[-1]
    cost = (c_fp * given.false_positives + c_fn * given.false_negatives) / total
    at = int(np.argmin(cost))
    return _choice(given, at, True, cost[at])


def threshold_for_precision(counts: ThresholdCounts, minimum: float) -> ThresholdChoice:
    """The threshold of the highest recall (the objective) with at least a precision.

    If no threshold has that precision, the one of the highest precision is returned.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> print(threshold_for_precision(counts, 0.6))
    threshold 0.3: precision 0.6667, recall 1.0000, false positive rate 0.3333
    """
    minimum = checks.number("minimum", minimum, at_least=0, at_most=1)
    given = _float64(counts)
    precision, recall = _rates(given)
    defined = ~np.isnan(precision)
    precision, free = np.nan_to_num(precision), np.nan_to_num(recall)
    fit = defined & (precision >= minimum)
    reached = bool(fit.any())
    at = _best(free, precision, fit) if reached else _best(precision, free, defined)
    return _choice(given, at, reached, recall[at])


def threshold_for_recall(counts: ThresholdCounts, minimum: float) -> ThresholdChoice:
    """The threshold of the highest precision (the objective) with at least a recall.

    Every recall is reached by predicting all positive, unless there is no positive.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> print(threshold_for_recall(counts, 0.9))
    threshold 0.3: precision 0.6667, recall 1.0000, false positive rate 0.3333
    """
    minimum = checks.number("minimum", minimum, at_least=0, at_most=1)
    given = _float64(counts)
    precision, recall = _rates(given)
    if np.isnan(recall).any():
        return _choice(given, 0, False, float("nan"))
    # Without a positive prediction precision is undefined, and ranks last.
    at = _best(np.where(np.isnan(precision), -1.0, precision), recall, recall >= minimum)
    return _choice(given, at, True, precision[at])


def threshold_for_f_beta(counts: ThresholdCounts, beta: float = 1.0) -> ThresholdChoice:
    """The threshold of the highest F_β (the objective), in which recall counts β² times.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> choice = threshold_for_f_beta(counts)
    >>> choice.threshold, choice.objective
    (0.3, 0.8)
    """
    square = checks.number("beta", beta, above=0) ** 2
    given = _float64(counts)
    tp, fp, fn = given.true_positives, given.false_positives, given.false_negatives
    if tp[-1] == 0:
        return _choice(given, 0, False, float("nan"))
    score = (1 + square) * tp / ((1 + square) * tp + square * fn + fp)
    at = int(np.argmax(score))
    return _choice(given, at, True, score[at])
