"""Confusion counts and the rates made of them. A score of at least the threshold predicts class 1.

With TP, FP, FN and TN the true positives, false positives, false negatives and true negatives.

`precision`, `recall` and `f_beta` have two arguments in common:

    average: "binary" for labels 0 and 1 and a threshold. With class ids as labels, and class ids or scores
        [..., C] as predictions, each class is taken against all others: "micro" sums the counts, "macro"
        is the mean over the classes that occur in labels or predictions, "weighted" weighs them by their
        share of the labels, and None returns all of them as an array [C].
    num_classes: C; None takes it from the data.

0 / 0 is NaN for "binary" and None, and counts as 0 within an average, as in scikit-learn.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.metrics.rows import Rows, binary, of_rows, ratio, scikit_learn

__all__ = [
    "ConfusionCounts",
    "accuracy",
    "confusion_counts",
    "confusion_matrix",
    "f_beta",
    "false_positive_rate",
    "precision",
    "recall",
    "top_k_accuracy",
]

AVERAGES = ("binary", "micro", "macro", "weighted", None)


class ConfusionCounts(NamedTuple):
    """Numbers of examples, or sums of their weights, at one threshold or at each of several."""

    true_positives: Any
    false_positives: Any
    false_negatives: Any
    true_negatives: Any


def _counts(rows: Rows, threshold: float) -> ConfusionCounts:
    true, positive = rows.labels, rows.scores >= threshold
    cells = (true & positive, ~true & positive, true & ~positive, ~true & ~positive)
    return ConfusionCounts(*(rows.sum(cell) for cell in cells))


@of_rows(binary)
def confusion_counts(rows: Rows, *, threshold: float = 0.5) -> ConfusionCounts:
    """TP, FP, FN and TN of `scores >= threshold`. The threshold of logits is 0.

    >>> confusion_counts([0, 1, 1, 0], [0.2, 0.9, 0.5, 0.7])
    ConfusionCounts(true_positives=2.0, false_positives=1.0, false_negatives=0.0, true_negatives=1.0)
    """
    return _counts(rows, threshold)


@of_rows(columns=True)
def accuracy(rows: Rows, *, threshold: float = 0.5) -> float:
    """Share of correct predictions.

    Args:
        scores: floats of the labels' shape, compared with the threshold; integers or booleans, which are
            predicted classes; or [..., C], a score for each class, of which the highest is predicted. If
            several tie for the highest, each counts its share.

    >>> accuracy([0, 1, 1, 0], [0.2, 0.9, 0.5, 0.7]), accuracy([2, 0], [[0, 1, 7], [1, 3, 2]])
    (0.75, 0.5)
    """
    if rows.scores.ndim > rows.labels.ndim:
        return _top_k(rows, 1)
    if rows.dtype.kind in "biu":
        return rows.mean(rows.class_ids("labels", rows.labels, None) == rows.scores)
    return rows.mean(binary(rows).labels == (rows.scores >= threshold))


@of_rows(columns=True)
def top_k_accuracy(rows: Rows, k: int) -> float:
    """Share of examples whose class is among the k with the highest scores [..., C].

    Ties count by the expected value over random orders: a class that ties with m − 1 others for the last s
    places counts s / m. A model that gives every class the same score gets k / C, not 1.

    >>> top_k_accuracy([2, 0], [[0, 1, 7], [1, 3, 2]], 2), top_k_accuracy([2], [[5, 5, 5]], 1)
    (0.5, 0.3333333333333333)
    """
    k = checks.integer("k", k, at_least=1)
    if rows.scores.ndim != 2:
        raise ValueError("scores must have an axis of classes, got the shape of labels")
    return _top_k(rows, k)


def _top_k(rows: Rows, k: int) -> float:
    ids = rows.class_ids("labels", rows.labels, rows.scores.shape[1])
    of_label = np.take_along_axis(rows.scores, ids[:, None], 1)
    above, equal = (rows.scores > of_label).sum(1), (rows.scores == of_label).sum(1)
    return rows.mean(np.clip((k - above) / np.maximum(equal, 1), 0.0, 1.0))


def _predicted(rows: Rows, num_classes: int | None) -> tuple[Rows, int]:
    """Rows of class ids, and the number of classes."""
    scores = rows.scores
    if num_classes is not None:
        num_classes = checks.integer("num_classes", num_classes, at_least=0)
    if scores.ndim == 2:
        if num_classes not in (None, scores.shape[1]):
            raise ValueError(
                f"num_classes must be that of the scores, {scores.shape[1]}, got {num_classes}"
            )
        num_classes = scores.shape[1]
        scores = scores.argmax(1).astype(float) if len(scores) else np.zeros(0)
    true = rows.class_ids("labels", rows.labels, num_classes)
    predicted = rows.class_ids("predictions", scores, num_classes)
    if num_classes is None:
        num_classes = int(max(true.max(initial=-1), predicted.max(initial=-1))) + 1
    return rows._replace(labels=true, scores=predicted), num_classes


@of_rows(scores="predictions", columns=True)
def confusion_matrix(rows: Rows, *, num_classes: int | None = None) -> NDArray[np.float64]:
    """Counts [C, C] by class (row) and prediction (column).

    Args:
        predictions: class ids [...], or scores [..., C], of which the first of the highest is predicted.
        num_classes: C; None takes it from the scores, or the largest id that occurs.

    >>> confusion_matrix([0, 1, 2, 2], [0, 2, 2, 2]).astype(int).tolist()
    [[1, 0, 0], [0, 0, 1], [0, 0, 2]]
    """
    rows, c = _predicted(rows, num_classes)
    cells = np.bincount(rows.labels * c + rows.scores, weights=rows.weights, minlength=c * c)
    return cells.astype(np.float64).reshape(c, c)


def _rate(
    name: str,
    rows: Rows,
    threshold: float,
    average: str | None,
    num_classes: int | None,
    **options: Any,
) -> Any:
    checks.choice("average", average, AVERAGES)
    undefined = float("nan") if average in ("binary", None) else 0.0
    if average == "binary":
        if rows.scores.ndim > rows.labels.ndim:
            raise ValueError("scores must have the shape of labels for average='binary'")
        rows = binary(rows)
        rows = rows._replace(scores=rows.scores >= threshold)
    else:
        rows, num_classes = _predicted(rows, num_classes)
        if average is None:
            options["labels"] = range(num_classes)
            if not len(rows.counted().labels):
                return np.full(num_classes, undefined)
    value = scikit_learn(name, rows, average=average, zero_division=undefined, **options)
    return value if average is None else float(value)


@of_rows(columns=True)
def precision(
    rows: Rows,
    *,
    threshold: float = 0.5,
    average: str | None = "binary",
    num_classes: int | None = None,
) -> Any:
    """Share of the positive predictions that are correct: TP / (TP + FP).

    >>> precision([0, 1, 1, 0], [0.2, 0.9, 0.5, 0.7]), precision([0, 1], [0.0, 0.1])
    (0.6666666666666666, nan)
    >>> precision([0, 1, 2, 2], [0, 2, 2, 2], average="macro")  # (1 + 0 + 2/3) / 3
    0.5555555555555555
    """
    return _rate("precision_score", rows, threshold, average, num_classes)


@of_rows(columns=True)
def recall(
    rows: Rows,
    *,
    threshold: float = 0.5,
    average: str | None = "binary",
    num_classes: int | None = None,
) -> Any:
    """Share of the positive examples that are found, the true positive rate: TP / (TP + FN).

    >>> recall([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.7])
    0.5
    """
    return _rate("recall_score", rows, threshold, average, num_classes)


@of_rows(columns=True)
def f_beta(
    rows: Rows,
    *,
    beta: float = 1.0,
    threshold: float = 0.5,
    average: str | None = "binary",
    num_classes: int | None = None,
) -> Any:
    """Harmonic mean of precision and recall in which recall counts β² times.

        F_β = (1 + β²) TP / ((1 + β²) TP + β² FN + FP)

    References:
        van Rijsbergen 1979, Information Retrieval, chapter 7.

    >>> f_beta([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.7], beta=1)
    0.5
    """
    beta = checks.number("beta", beta, above=0)
    return _rate("fbeta_score", rows, threshold, average, num_classes, beta=beta)


@of_rows(binary)
def false_positive_rate(rows: Rows, *, threshold: float = 0.5) -> float:
    """Share of the negative examples that are predicted positive: FP / (FP + TN). Specificity is 1 − this.

    >>> false_positive_rate([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.7])
    0.5
    """
    _, fp, _, tn = _counts(rows, threshold)
    return ratio(fp, fp + tn)
