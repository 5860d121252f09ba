"""Quality of predicted probabilities: proper scores, bias and reliability.

Labels are 0 or 1 with scores of the same shape, the probabilities of class 1; or class ids with scores
[..., C], the probabilities of all classes. With `from_logits` the scores are logits.
"""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from scipy import special

from jaxml import checks
from jaxml.metrics.rows import Rows, binary, of_rows, weighted_quantiles

__all__ = [
    "ReliabilityDiagram",
    "brier",
    "calibration_error",
    "log_loss",
    "prediction_bias",
    "reliability_diagram",
]

BINNINGS = ("equal_width", "equal_mass")


class ReliabilityDiagram(NamedTuple):
    """Predicted and observed frequencies by bin.

    Attributes:
        edges: [K + 1], rising; a bin includes its upper edge, the first also its lower one.
        mean_score: [K], mean predicted probability; NaN in an empty bin.
        fraction_positive: [K], share of positives; NaN in an empty bin.
        weight: [K], number of examples, or the sum of their weights.
    """

    edges: Any
    mean_score: Any
    fraction_positive: Any
    weight: Any


def _check(rows: Rows, from_logits: bool) -> Rows:
    labels, scores = rows.labels, rows.scores
    if scores.ndim == 1:
        rows = binary(rows)
    else:
        rows = rows._replace(labels=rows.class_ids("labels", labels, scores.shape[1]))
    if not from_logits:
        fault = (scores < 0) | (scores > 1)
        wanted = "probabilities in [0, 1] (or logits, with from_logits=True)"
        rows.refuse("scores", scores, fault, wanted)
        if scores.ndim == 2:
            fault = np.abs(scores.sum(1) - 1) > np.sqrt(_epsilon(rows))
            rows.refuse("scores", scores, fault, "probabilities that sum to 1")
    elif scores.ndim == 2 and scores.shape[1]:
        fault = ~np.isfinite(scores.max(1))
        rows.refuse("scores", scores, fault, "logits of which the largest is finite")
    return rows


def _epsilon(rows: Rows) -> float:
    """Spacing of the scores' own dtype at 1."""
    return float(ml_dtypes.finfo(rows.dtype if rows.dtype.kind in "fV" else np.float64).eps)


def _probabilities(rows: Rows, from_logits: bool) -> NDArray[np.float64]:
    if not from_logits:
        return rows.scores
    return special.expit(rows.scores) if rows.scores.ndim == 1 else special.softmax(rows.scores, 1)


@of_rows(columns=True)
def log_loss(rows: Rows, *, from_logits: bool = False) -> float:
    """Mean negative log-likelihood in nats.

        −[y ln p + (1 − y) ln(1 − p)],   or   −ln p_y   for several classes

    Probabilities are clipped to [ε, 1 − ε] with the ε of their dtype, as in scikit-learn: a float64 costs
    at most 36.04 nats, a float32 15.94. Logits are not clipped.

    >>> round(log_loss([1, 0], [0.5, 0.25]), 4), log_loss([1], [-1000.0], from_logits=True)
    (0.4904, 1000.0)
    """
    rows = _check(rows, from_logits)
    truth, scores = rows.labels, rows.scores
    if scores.ndim == 1 and from_logits:
        return rows.mean(np.logaddexp(0.0, np.where(truth, -scores, scores)))
    if not from_logits:
        scores = np.clip(scores, _epsilon(rows), 1 - _epsilon(rows))
    if scores.ndim == 1:
        return rows.mean(np.where(truth, -np.log(scores), -np.log1p(-scores)))
    logs = special.log_softmax(scores, axis=1) if from_logits else np.log(scores)
    return rows.mean(-np.take_along_axis(logs, truth[:, None], 1)[:, 0])


@of_rows(columns=True)
def brier(rows: Rows, *, from_logits: bool = False) -> float:
    """Mean squared distance between probability and outcome.

        (p − y)²,   or   Σ_c (p_c − [c = y])²   for several classes

    References:
        Brier 1950, Verification of forecasts expressed in terms of probability.

    >>> brier([1, 0], [0.5, 0.25]), brier([2], [[0.25, 0.25, 0.5]])
    (0.15625, 0.375)
    """
    rows = _check(rows, from_logits)
    p = _probabilities(rows, from_logits)
    if p.ndim == 1:
        return rows.mean(np.square(p - rows.labels))
    return rows.mean(np.square(p - (np.arange(p.shape[1]) == rows.labels[:, None])).sum(1))


@of_rows()
def prediction_bias(rows: Rows, *, from_logits: bool = False) -> float:
    """Mean prediction minus mean label, of labels 0 and 1. Above 0 the model predicts too many positives.

    >>> prediction_bias([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5])
    0.25
    """
    rows = _check(rows, from_logits)
    return rows.mean(_probabilities(rows, from_logits) - rows.labels)


def _diagram(rows: Rows, num_bins: int, binning: str, from_logits: bool) -> ReliabilityDiagram:
    num_bins = checks.integer("num_bins", num_bins, at_least=1)
    checks.choice("binning", binning, BINNINGS)
    rows = _check(rows, from_logits)
    p, truth, w = _probabilities(rows, from_logits), rows.labels, rows.weights
    if p.ndim == 2:
        truth = p.argmax(1) == truth if len(p) else np.zeros(0)
        p = p.max(1, initial=0.0)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    if binning == "equal_mass" and (counted := p if w is None else p[w > 0]).size:
        some = None if w is None else w[w > 0]
        if some is None or (some == some[0]).all():  # Equal weights are none.
            edges = np.quantile(counted, edges)
        else:
            edges = weighted_quantiles(counted, some, edges)[0]
    at = np.searchsorted(edges[1:-1], p)
    w = np.ones(len(p)) if w is None else w
    sums = [np.bincount(at, weights=v * w, minlength=num_bins) for v in (p, truth, np.ones(len(p)))]
    return diagram(np, edges, *sums)


@of_rows(columns=True)
def reliability_diagram(
    rows: Rows,
    *,
    num_bins: int = 10,
    binning: str = "equal_width",
    from_logits: bool = False,
) -> ReliabilityDiagram:
    """Predicted and observed frequencies in bins of the prediction.

    For several classes, the prediction is the highest probability, and an outcome is positive where that
    class is right.

    Args:
        binning: "equal_width", or "equal_mass" with edges at quantiles; ties may leave bins empty.

    Returns:
        The bins of scikit-learn's `calibration_curve`, empty ones included.

    >>> diagram = reliability_diagram([0, 1, 1], [0.1, 0.3, 0.9], num_bins=2)
    >>> diagram.mean_score.tolist(), diagram.fraction_positive.tolist(), diagram.weight.tolist()
    ([0.2, 0.9], [0.5, 1.0], [2.0, 1.0])
    """
    return _diagram(rows, num_bins, binning, from_logits)


def diagram(xp: Any, edges: Any, score: Any, positive: Any, weight: Any) -> ReliabilityDiagram:
    """Turns the sums of each bin into means; `xp` is NumPy or jax.numpy."""
    under = xp.where(weight > 0, weight, 1.0)
    mean, share = (xp.where(weight > 0, part / under, np.nan) for part in (score, positive))
    return ReliabilityDiagram(edges, mean, share, weight)


def gap(xp: Any, of: ReliabilityDiagram) -> Any:
    """Calibration error of a diagram; `xp` is NumPy or jax.numpy."""
    total = of.weight.sum()
    distance = xp.where(of.weight > 0, xp.abs(of.mean_score - of.fraction_positive), 0.0)
    error = (of.weight * distance).sum() / xp.where(total > 0, total, 1.0)
    return xp.where(total > 0, error, np.nan)


@of_rows(columns=True)
def calibration_error(rows: Rows, *, num_bins: int = 15, from_logits: bool = False) -> float:
    """Expected calibration error, in bins of equal width.

        ECE = Σ_b (n_b / n) |mean score_b − fraction positive_b|

    It depends on the bins and is biased upwards, since noise alone gives each bin a distance. Compare
    models on the same examples and bins only.

    References:
        Guo et al. 2017, On calibration of modern neural networks, section 2.

    >>> round(calibration_error([0, 1, 1], [0.1, 0.3, 0.9], num_bins=2), 4)
    0.2333
    """
    return float(gap(np, _diagram(rows, num_bins, "equal_width", from_logits)))
