"""Counts of right and wrong decisions, and the rates made of them; exact, on the host.

Of n examples, each with a label and a decision: true positives TP, false positives FP, false negatives
FN, true negatives TN. A score decides for the positive class if it is **at least** the threshold.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.metrics import checks
from jaxml.metrics.checks import Rows, ratio

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
    """Decisions at one threshold, or at each of several.

    Attributes:
        true_positives: examples of the positive class (or their weights) decided for it.
        false_positives: of the negative class, decided for the positive.
        false_negatives: of the positive class, decided for the negative.
        true_negatives: of the negative class, decided for it.
    """

    true_positives: Any
    false_positives: Any
    false_negatives: Any
    true_negatives: Any


def confusion_counts(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float = 0.5,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> ConfusionCounts:
    """TP, FP, FN and TN of `scores >= threshold`.

    Args:
        labels: [...], 0 or 1 of any dtype.
        scores: [...], any real; decisions 0 and 1 will do.
        threshold: in the unit of the scores; 0 for logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        Four floats; zeros for no example.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> confusion_counts([0, 1, 1, 0], [0.2, 0.9, 0.5, 0.7])
    ConfusionCounts(true_positives=2.0, false_positives=1.0, false_negatives=0.0, true_negatives=1.0)
    """
    rows = checks.read(labels, scores, weights, mask)
    true, said = checks.binary(rows), rows.scores >= threshold
    return ConfusionCounts(
        *(rows.sum(one) for one in (true & said, ~true & said, true & ~said, ~true & ~said))
    )


def accuracy(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float = 0.5,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Share of examples decided rightly.

    Three forms, told apart by the scores: scores of a float dtype and the labels' shape are decided by the
    threshold; integers and booleans are decisions (class ids) themselves; with one more axis than the
    labels they hold a score a class, and the highest decides. Of several highest that tie, each is right
    in its share of the cases.

    Args:
        labels: [...], 0 or 1, or class ids.
        scores: [...] or [..., C].
        threshold: for scores of two classes.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float in [0, 1]; NaN if nothing has weight.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> accuracy([0, 1, 1, 0], [0.2, 0.9, 0.5, 0.7]), accuracy([2, 0], [[0, 1, 7], [1, 3, 2]])
    (0.75, 0.5)
    """
    given = np.asarray(scores)
    if given.ndim > np.ndim(labels):
        return top_k_accuracy(labels, scores, 1, weights=weights, mask=mask)
    rows = checks.read(labels, scores, weights, mask)
    if given.dtype.kind in "biu":
        true = checks.class_ids("labels", rows.labels, rows.numbers, None)
        return rows.mean(true == rows.scores)
    return rows.mean(checks.binary(rows) == (rows.scores >= threshold))


def top_k_accuracy(
    labels: ArrayLike,
    scores: ArrayLike,
    k: int,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Share of examples whose class is among the k that score highest.

    Ties are broken at random, and the expected value is given: a class that ties with m − 1 others for the
    last s places counts s / m. So a model that gives every class one score gets k / C, not 1.

    Args:
        labels: [...], class ids.
        scores: [..., C].
        k: at least 1; from C on the result is 1.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float in [0, 1]; NaN if nothing has weight.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> top_k_accuracy([2, 0], [[0, 1, 7], [1, 3, 2]], 2), top_k_accuracy([2], [[5, 5, 5]], 1)
    (0.5, 0.3333333333333333)
    """
    k = checks.integer("k", k, 1)
    rows = checks.read(labels, scores, weights, mask, columns=True)
    if rows.scores.ndim != 2:
        raise ValueError(f"scores must have an axis of classes, got shape {np.shape(scores)}")
    ids = checks.class_ids("labels", rows.labels, rows.numbers, rows.scores.shape[1])
    own = np.take_along_axis(rows.scores, ids[:, None], 1)
    above, equal = (rows.scores > own).sum(1), (rows.scores == own).sum(1)
    return rows.mean(np.clip((k - above) / np.maximum(equal, 1), 0.0, 1.0))


def confusion_matrix(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    num_classes: int | None = None,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Counts of examples by class (row) and decision (column).

    Args:
        labels: [...], class ids.
        predictions: [...], class ids, or scores [..., C], of which the highest decides (the first of
            equals).
        num_classes: C; None takes it from the scores' axis, or the largest id that occurs.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        float64 [C, C].

    Raises:
        ValueError: for shapes that do not fit; an id, score or weight out of place, with its row.

    >>> confusion_matrix([0, 1, 2, 2], [0, 2, 2, 2]).astype(int).tolist()
    [[1, 0, 0], [0, 0, 1], [0, 0, 2]]
    """
    names = ("labels", "predictions")
    rows = checks.read(labels, predictions, weights, mask, names=names, columns=True)
    return _matrix(rows, num_classes)


def _matrix(rows: Rows, num_classes: int | None) -> NDArray[np.float64]:
    said = rows.scores
    if said.ndim == 2:
        if num_classes not in (None, said.shape[1]):
            raise ValueError(
                f"num_classes must be that of the scores, {said.shape[1]}, got {num_classes}"
            )
        num_classes = said.shape[1]
        said = said.argmax(1).astype(float) if len(said) else np.zeros(0)
    true = checks.class_ids("labels", rows.labels, rows.numbers, num_classes)
    decided = checks.class_ids("predictions", said, rows.numbers, num_classes)
    if num_classes is None:
        num_classes = int(max(true.max(initial=-1), decided.max(initial=-1))) + 1
    flat = np.bincount(
        true * num_classes + decided, weights=rows.weights, minlength=num_classes * num_classes
    )
    return flat.astype(np.float64).reshape(num_classes, num_classes)


def _rate(
    of: str,
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    beta: float,
    average: str | None,
    num_classes: int | None,
    weights: ArrayLike | None,
    mask: ArrayLike | None,
    zero_division: float | None,
) -> Any:
    checks.choice("average", average, AVERAGES)
    if average == "binary":
        counts = confusion_counts(labels, scores, threshold=threshold, weights=weights, mask=mask)
        undefined = float("nan") if zero_division is None else float(zero_division)
        return ratio(*parts(of, counts, beta), undefined)
    matrix = confusion_matrix(labels, scores, num_classes=num_classes, weights=weights, mask=mask)
    return averaged(np, of, matrix, beta, average, zero_division)


def parts(of: str, counts: ConfusionCounts, beta: float = 1.0) -> tuple[Any, Any]:
    """Numerator and denominator of a rate."""
    tp, fp, fn, tn = counts
    if of == "precision":
        return tp, tp + fp
    if of == "recall":
        return tp, tp + fn
    if of == "false_positive_rate":
        return fp, fp + tn
    if of == "accuracy":
        return tp + tn, tp + fp + fn + tn
    square = beta * beta
    return (1 + square) * tp, (1 + square) * tp + square * fn + fp


def averaged(
    xp: Any, of: str, matrix: Any, beta: float, average: str | None, zero_division: float | None
) -> Any:
    """A rate of each class against all others, averaged; `xp` is NumPy or jax.numpy."""
    hits, support, said = xp.diagonal(matrix), matrix.sum(1), matrix.sum(0)
    counts = ConfusionCounts(
        hits, said - hits, support - hits, matrix.sum() - support - said + hits
    )
    if average == "micro":
        counts = ConfusionCounts(*(part.sum() for part in counts))
    over, under = parts(of, counts, beta)
    undefined = 0.0 if zero_division is None and average is not None else zero_division
    rates = xp.where(
        under > 0, over / xp.where(under > 0, under, 1), np.nan if undefined is None else undefined
    )
    if average is None:
        return rates
    if average == "micro":
        return float(rates) if xp is np else rates
    # A class that is neither in the labels nor in the decisions says nothing.
    shares = support if average == "weighted" else (support + said > 0) * (support * 0 + 1.0)
    total = shares.sum()
    kept = shares > 0
    mean = (xp.where(kept, rates, 0) * shares).sum() / xp.where(total > 0, total, 1)
    mean = xp.where(total > 0, mean, np.nan)
    return float(mean) if xp is np else mean


def precision(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float = 0.5,
    average: str | None = "binary",
    num_classes: int | None = None,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    zero_division: float | None = None,
) -> Any:
    """Share of the decisions for the positive class that are right: TP / (TP + FP).

    Args:
        labels: [...], 0 or 1; class ids if averaged.
        scores: [...], any real; if averaged class ids, or [..., C], of which the highest decides.
        threshold: a score of at least this decides for the positive class.
        average: "binary"; or over classes, each against the others: "micro" (of the summed counts), "macro"
            (plain mean over the classes that occur in labels or decisions), "weighted" (by the class's
            share of the labels), None (an array [C]).
        num_classes: C for an average; None takes it from the data.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.
        zero_division: what 0 / 0 is (here: nothing was decided positive). None means NaN for "binary" and
            average=None, and 0 within an average, as in scikit-learn.

    Returns:
        A float in [0, 1], or float64 [C].

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> precision([0, 1, 1, 0], [0.2, 0.9, 0.5, 0.7]), precision([0, 1], [0.0, 0.1])
    (0.6666666666666666, nan)
    >>> precision([0, 1, 2, 2], [0, 2, 2, 2], average="macro")  # (1 + 0 + 2/3) / 3
    0.5555555555555555
    """
    return _rate(
        "precision",
        labels,
        scores,
        threshold,
        1.0,
        average,
        num_classes,
        weights,
        mask,
        zero_division,
    )


def recall(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float = 0.5,
    average: str | None = "binary",
    num_classes: int | None = None,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    zero_division: float | None = None,
) -> Any:
    """Share of the positive class that is found, the true positive rate: TP / (TP + FN).

    Args:
        labels: [...], 0 or 1; class ids if averaged.
        scores: [...], any real; if averaged class ids, or [..., C], of which the highest decides.
        threshold: a score of at least this decides for the positive class.
        average: "binary", "micro", "macro", "weighted" or None, as in `precision`.
        num_classes: C for an average; None takes it from the data.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.
        zero_division: what 0 / 0 is (here: no example of the class), as in `precision`.

    Returns:
        A float in [0, 1], or float64 [C].

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> recall([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.7])
    0.5
    """
    return _rate(
        "recall", labels, scores, threshold, 1.0, average, num_classes, weights, mask, zero_division
    )


def false_positive_rate(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float = 0.5,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    zero_division: float | None = None,
) -> float:
    """Share of the negative class that raises a false alarm: FP / (FP + TN).

    Args:
        labels: [...], 0 or 1.
        scores: [...], any real.
        threshold: a score of at least this decides for the positive class.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.
        zero_division: what 0 / 0 is (here: no example is negative); None means NaN.

    Returns:
        A float in [0, 1]. Specificity is 1 minus this.

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    >>> false_positive_rate([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.7])
    0.5
    """
    return _rate(
        "false_positive_rate",
        labels,
        scores,
        threshold,
        1.0,
        "binary",
        None,
        weights,
        mask,
        zero_division,
    )


def f_beta(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    beta: float = 1.0,
    threshold: float = 0.5,
    average: str | None = "binary",
    num_classes: int | None = None,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    zero_division: float | None = None,
) -> Any:
    """Harmonic mean of precision and recall in which recall counts β² times.

        F_β = (1 + β²) TP / ((1 + β²) TP + β² FN + FP)

    Args:
        labels: [...], 0 or 1; class ids if averaged.
        scores: [...], any real; if averaged class ids, or [..., C], of which the highest decides.
        beta: above 0; 1 gives F1.
        threshold: a score of at least this decides for the positive class.
        average: "binary", "micro", "macro", "weighted" or None, as in `precision`.
        num_classes: C for an average; None takes it from the data.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.
        zero_division: what 0 / 0 is (here: the class is neither there nor decided for), as in `precision`.

    Returns:
        A float in [0, 1], or float64 [C].

    Raises:
        ValueError: for shapes that do not fit; a label, score or weight out of place, with its row.

    Source: van Rijsbergen, Information Retrieval, 1979, chapter 7.

    >>> f_beta([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.7], beta=1)
    0.5
    """
    beta = checks.number("beta", beta, 0.0, exclusive=True)
    return _rate(
        "f_beta",
        labels,
        scores,
        threshold,
        beta,
        average,
        num_classes,
        weights,
        mask,
        zero_division,
    )
