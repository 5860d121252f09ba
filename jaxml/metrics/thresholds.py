"""Which threshold? For what mistakes cost, or for a precision, recall or false positive rate wished for.

Each function takes counts at many thresholds, exact (`threshold_counts`) or streamed
(`streaming.threshold_counts`), and says what is achieved at the one it takes. Choose on validation data:
on the data that chose it, a threshold looks better than it is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml.metrics import checks
from jaxml.metrics.checks import ratio
from jaxml.metrics.confusion import ConfusionCounts
from jaxml.metrics.curves import ThresholdCounts

__all__ = [
    "ThresholdChoice",
    "threshold_for_cost",
    "threshold_for_f_beta",
    "threshold_for_false_positive_rate",
    "threshold_for_precision",
    "threshold_for_recall",
]


class ThresholdChoice(NamedTuple):
    """A threshold and what it achieves.

    Attributes:
        threshold: decide for the positive class where the score is at least this; +inf is never.
        reached: whether what was wished for is reached; if not, this is the threshold that comes closest.
        objective: what was optimised: the mean cost, F_β, or the rate that was left free.
        precision: TP / (TP + FP); NaN if nothing is decided positive.
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
        said = "" if self.reached else "cannot be reached; closest: "
        return (
            f"{said}threshold {self.threshold:.6g}: precision {self.precision:.4f}, "
            f"recall {self.recall:.4f}, false positive rate {self.false_positive_rate:.4f}"
        )


def _float64(counts: ThresholdCounts) -> ThresholdCounts:
    given = ThresholdCounts(*(np.asarray(part, np.float64) for part in counts))
    shapes = {part.shape for part in given}
    if len(shapes) != 1 or given.thresholds.ndim != 1 or not len(given.thresholds):
        raise ValueError(
            f"counts must be arrays [T] with T at least 1, got shapes {sorted(shapes)}"
        )
    if not all(np.isfinite(part).all() for part in given[1:]):
        raise ValueError(
            "counts must be finite: a label or score that was counted was not in range"
        )
    if given.true_positives[-1] + given.false_positives[-1] <= 0:
        raise ValueError("counts must hold an example, got none")
    return given


def _rates(counts: ThresholdCounts) -> tuple[NDArray, NDArray, NDArray]:
    """Precision, recall and false positive rate at each threshold; NaN where undefined."""
    tp, fp = counts.true_positives, counts.false_positives
    said = tp + fp
    precision = np.where(said > 0, tp / np.where(said > 0, said, 1), np.nan)
    recall, fpr = (
        part / part[-1] if part[-1] > 0 else np.full(len(part), np.nan) for part in (tp, fp)
    )
    return precision, recall, fpr


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
    """Where the first is largest, of equals the second, of equals the highest threshold."""
    at = np.flatnonzero(among)
    # lexsort puts the largest last; places enter with a minus so that the first of equals does.
    return int(at[np.lexsort((-at, second[at], first[at]))[-1]])


def threshold_for_cost(
    counts: ThresholdCounts, *, false_positive: float, false_negative: float
) -> ThresholdChoice:
    """The threshold at which mistakes cost least.

        cost = (c_FP FP + c_FN FN) / n

    With calibrated probabilities it is near c_FP / (c_FP + c_FN). "Never" and "always" are among the
    thresholds.

    Args:
        counts: at falling thresholds.
        false_positive: cost of a false alarm, at least 0, in any unit.
        false_negative: cost of a miss, at least 0, in the same unit.

    Returns:
        ThresholdChoice, its objective the mean cost an example; always reached. Of thresholds that cost the
        same the highest.

    Raises:
        ValueError: for a negative cost, or counts of nothing.

    Source: Elkan, The Foundations of Cost-Sensitive Learning, IJCAI 2001.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> choice = threshold_for_cost(counts, false_positive=1, false_negative=5)
    >>> choice.threshold, choice.objective
    (0.3, 0.2)
    """
    alarm = checks.number("false_positive", false_positive, 0.0)
    miss = checks.number("false_negative", false_negative, 0.0)
    given = _float64(counts)
    total = given.true_positives[-1] + given.false_positives[-1]
    cost = (alarm * given.false_positives + miss * given.false_negatives) / total
    at = int(np.argmin(cost))
    return _choice(given, at, True, cost[at])


def threshold_for_precision(counts: ThresholdCounts, minimum: float) -> ThresholdChoice:
    """The threshold with the highest recall among those of at least a precision.

    Precision does not rise steadily with the threshold, so all are looked at.

    Args:
        counts: at falling thresholds.
        minimum: the precision wished for, in [0, 1].

    Returns:
        ThresholdChoice, its objective the recall. If no threshold has the precision, `reached` is False and
        the one with the highest precision is given.

    Raises:
        ValueError: for a precision out of range, or counts of nothing.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> print(threshold_for_precision(counts, 0.6))
    threshold 0.3: precision 0.6667, recall 1.0000, false positive rate 0.3333
    """
    minimum = _share("minimum", minimum)
    given = _float64(counts)
    precision, recall, _ = _rates(given)
    defined = ~np.isnan(precision)
    fit = defined & (precision >= minimum)
    reached = bool(fit.any())
    free = np.nan_to_num(recall)
    at = _best(free, np.nan_to_num(precision), fit) if reached else _best(
        np.nan_to_num(precision), free, defined
    )  # fmt: skip
    return _choice(given, at, reached, recall[at])


def threshold_for_recall(counts: ThresholdCounts, minimum: float) -> ThresholdChoice:
    """The threshold with the highest precision among those of at least a recall.

    Args:
        counts: at falling thresholds.
        minimum: the recall wished for, in [0, 1].

    Returns:
        ThresholdChoice, its objective the precision. Every recall can be reached by deciding for all,
        unless there is no positive: then `reached` is False.

    Raises:
        ValueError: for a recall out of range, or counts of nothing.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> print(threshold_for_recall(counts, 0.9))
    threshold 0.3: precision 0.6667, recall 1.0000, false positive rate 0.3333
    """
    minimum = _share("minimum", minimum)
    given = _float64(counts)
    precision, recall, _ = _rates(given)
    if np.isnan(recall).any():
        return _choice(given, 0, False, float("nan"))
    # "Never" has no precision to be proud of, and recall 0: it is taken last of all.
    objective = np.where(np.isnan(precision), -1.0, precision)
    at = _best(objective, recall, recall >= minimum)
    return _choice(given, at, True, precision[at])


def threshold_for_false_positive_rate(counts: ThresholdCounts, maximum: float) -> ThresholdChoice:
    """The threshold with the highest recall among those of at most a false positive rate.

    Args:
        counts: at falling thresholds.
        maximum: the false positive rate that can be borne, in [0, 1].

    Returns:
        ThresholdChoice, its objective the recall. Every rate can be reached by deciding for none, unless
        there is no negative: then `reached` is False.

    Raises:
        ValueError: for a rate out of range, or counts of nothing.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> threshold_for_false_positive_rate(counts, 0.1).threshold
    0.9
    """
    maximum = _share("maximum", maximum)
    given = _float64(counts)
    _, recall, fpr = _rates(given)
    if np.isnan(fpr).any():
        return _choice(given, 0, False, float("nan"))
    at = _best(np.nan_to_num(recall), -fpr, fpr <= maximum)
    return _choice(given, at, True, recall[at])


def threshold_for_f_beta(counts: ThresholdCounts, beta: float = 1.0) -> ThresholdChoice:
    """The threshold with the highest F_β.

    Args:
        counts: at falling thresholds.
        beta: above 0; recall counts β² times.

    Returns:
        ThresholdChoice, its objective F_β; `reached` is False if there is no positive.

    Raises:
        ValueError: for a β that is not positive, or counts of nothing.

    >>> from jaxml.metrics import threshold_counts
    >>> counts = threshold_counts([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    >>> choice = threshold_for_f_beta(counts)
    >>> choice.threshold, choice.objective
    (0.3, 0.8)
    """
    square = checks.number("beta", beta, 0.0, exclusive=True) ** 2
    given = _float64(counts)
    tp, fp, fn = given.true_positives, given.false_positives, given.false_negatives
    if tp[-1] == 0:
        return _choice(given, 0, False, float("nan"))
    score = (1 + square) * tp / ((1 + square) * tp + square * fn + fp)
    at = int(np.argmax(score))
    return _choice(given, at, True, score[at])


def _share(name: str, value: float) -> float:
    given = float(value)
    if not 0 <= given <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
    return given
