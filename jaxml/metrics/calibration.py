"""Whether a probability means what it says: proper scores, prediction bias, reliability; exact."""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from jaxml.metrics import checks
from jaxml.metrics.checks import Rows

__all__ = [
    "ReliabilityDiagram",
    "brier",
    "calibration_error",
    "log_loss",
    "prediction_bias",
    "reliability_diagram",
]

BINNINGS = ("equal_width", "equal_mass")
NORMS = ("l1", "l2", "max")


class ReliabilityDiagram(NamedTuple):
    """Predicted and observed frequency, bin by bin.

    Attributes:
        edges: [K + 1], rising; a bin holds what is above its lower edge and at most its upper one, and the
            first what lies on its lower edge, too.
        mean_score: [K], mean predicted probability; NaN in an empty bin.
        fraction_positive: [K], share of positives; NaN in an empty bin.
        weight: [K], examples in the bin, or their weights.
    """

    edges: Any
    mean_score: Any
    fraction_positive: Any
    weight: Any


def _read(
    labels: ArrayLike,
    scores: ArrayLike,
    weights: ArrayLike | None,
    mask: ArrayLike | None,
    from_logits: bool,
) -> Rows:
    """Rows with checked labels and probabilities (or logits): [n], or [n, C] with ids."""
    rows = checks.read(labels, scores, weights, mask, columns=True)
    if rows.scores.ndim == 1:
        checks.binary(rows)
    else:
        checks.class_ids("labels", rows.labels, rows.numbers, rows.scores.shape[1])
    if from_logits:
        if rows.scores.ndim == 2 and rows.scores.shape[1]:
            # The softmax is that of differences to the largest.
            fault = ~np.isfinite(rows.scores.max(1))
            wanted = "logits of which the largest is finite"
            checks.refuse("scores", rows.scores, fault, rows.numbers, wanted)
        return rows
    checks.probabilities(rows)
    if rows.scores.ndim == 2:
        total = rows.scores.sum(1)
        loose = np.sqrt(_epsilon(scores))
        fault = np.abs(total - 1) > loose
        checks.refuse("scores", rows.scores, fault, rows.numbers, "probabilities that sum to 1")
    return rows


def _epsilon(scores: ArrayLike) -> float:
    given = np.asarray(scores).dtype
    floating = given.kind == "f" or given.kind == "V"
    return float(ml_dtypes.finfo(given if floating else np.float64).eps)


def _probabilities(rows: Rows, from_logits: bool) -> NDArray[np.float64]:
    if not from_logits:
        return rows.scores
    return special.expit(rows.scores) if rows.scores.ndim == 1 else special.softmax(rows.scores, 1)


def log_loss(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    from_logits: bool = False,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Mean negative log-likelihood, in nats.

        −[y ln p + (1 − y) ln(1 − p)],   or   −ln p_y   of several classes

    Args:
        labels: [...], 0 or 1, or class ids.
        scores: [...], probabilities of class 1, or [..., C], of each class; logits with `from_logits`.
            Probabilities are clipped to [ε, 1 − ε], ε the spacing of their own dtype at 1, as in
            scikit-learn: 36.04 nats is the most that a float64 can lose, 15.94 a float32. Logits are not
            clipped.
        from_logits: whether the scores are logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float of at least 0; NaN if nothing has weight.

    Raises:
        ValueError: for shapes that do not fit; a label, probability or weight out of place, with its row;
            probabilities of classes that do not sum to 1 (within √ε).

    >>> round(log_loss([1, 0], [0.5, 0.25]), 4), log_loss([1], [-1000.0], from_logits=True)
    (0.4904, 1000.0)
    """
    rows = _read(labels, scores, weights, mask, from_logits)
    truth, given = rows.labels, rows.scores
    if given.ndim == 1:
        if from_logits:
            # Of the wrong sign's logit: ±inf on the right side costs nothing.
            return rows.mean(np.logaddexp(0.0, np.where(truth == 1, -given, given)))
        p = np.clip(given, _epsilon(scores), 1 - _epsilon(scores))
        return rows.mean(np.where(truth == 1, -np.log(p), -np.log1p(-p)))
    if from_logits:
        logs = special.log_softmax(given, axis=1)
    else:
        logs = np.log(np.clip(given, _epsilon(scores), 1 - _epsilon(scores)))
    return rows.mean(-np.take_along_axis(logs, truth.astype(int)[:, None], 1)[:, 0])


def brier(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    from_logits: bool = False,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Mean squared distance between probability and outcome.

        (p − y)²,   or   Σ_c (p_c − [c = y])²   of several classes

    Args:
        labels: [...], 0 or 1, or class ids.
        scores: [...], probabilities of class 1, or [..., C], of each class; logits with `from_logits`.
        from_logits: whether the scores are logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float in [0, 1], in [0, 2] of several classes; NaN if nothing has weight.

    Raises:
        ValueError: as `log_loss`.

    Source: Brier, Monthly Weather Review 78, 1950.

    >>> brier([1, 0], [0.5, 0.25]), brier([2], [[0.25, 0.25, 0.5]])
    (0.15625, 0.375)
    """
    rows = _read(labels, scores, weights, mask, from_logits)
    p = _probabilities(rows, from_logits)
    if p.ndim == 1:
        return rows.mean(np.square(p - rows.labels))
    hit = np.arange(p.shape[1]) == rows.labels[:, None]
    return rows.mean(np.square(p - hit).sum(1))


def prediction_bias(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    from_logits: bool = False,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Mean prediction minus mean label: 0 if the model expects as many positives as there are.

    Args:
        labels: [...], 0 or 1.
        scores: [...], probabilities, or logits with `from_logits`.
        from_logits: whether the scores are logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float in [−1, 1]; above 0 the model promises too much. NaN if nothing has weight.

    Raises:
        ValueError: for shapes that do not fit; a label, probability or weight out of place, with its row.

    >>> prediction_bias([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5])
    0.25
    """
    if np.ndim(scores) != np.ndim(labels):
        raise ValueError(f"scores must be of one class, got shape {np.shape(scores)}")
    rows = _read(labels, scores, weights, mask, from_logits)
    return rows.mean(_probabilities(rows, from_logits) - rows.labels)


def reliability_diagram(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    num_bins: int = 10,
    binning: str = "equal_width",
    from_logits: bool = False,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> ReliabilityDiagram:
    """Predicted against observed frequency in bins of the prediction.

    Args:
        labels: [...], 0 or 1, or class ids.
        scores: [...], probabilities of class 1; or [..., C], and then the highest is judged, as the
            probability of being right. Logits with `from_logits`.
        num_bins: K, at least 1.
        binning: "equal_width", or "equal_mass": edges at quantiles, of which ties may leave some bins
            empty.
        from_logits: whether the scores are logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        ReliabilityDiagram, float64; the bins are scikit-learn's (`calibration_curve`), empty ones kept.

    Raises:
        ValueError: as `log_loss`, or for options out of range.

    >>> diagram = reliability_diagram([0, 1, 1], [0.1, 0.3, 0.9], num_bins=2)
    >>> diagram.mean_score.tolist(), diagram.fraction_positive.tolist(), diagram.weight.tolist()
    ([0.2, 0.9], [0.5, 1.0], [2.0, 1.0])
    """
    num_bins = checks.integer("num_bins", num_bins, 1)
    checks.choice("binning", binning, BINNINGS)
    rows = _read(labels, scores, weights, mask, from_logits)
    p, truth, w = _probabilities(rows, from_logits), rows.labels, rows.weights
    if p.ndim == 2:
        truth = (p.argmax(1) == truth).astype(float) if len(p) else np.zeros(0)
        p = p.max(1, initial=0.0)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    if binning == "equal_mass" and len(p) and (w is None or w.sum() > 0):
        edges = (
            np.quantile(p, edges)
            if w is None
            else np.quantile(p, edges, method="inverted_cdf", weights=w)
        )
    at = np.searchsorted(edges[1:-1], p)
    weight, score, positive = (
        np.bincount(at, weights=v, minlength=num_bins)
        for v in (
            np.ones(len(p)) if w is None else w,
            *(x if w is None else x * w for x in (p, truth)),
        )
    )
    return diagram(np, edges, score, positive, weight)


def diagram(xp: Any, edges: Any, score: Any, positive: Any, weight: Any) -> ReliabilityDiagram:
    """Sums of each bin as means; `xp` is NumPy or jax.numpy."""
    under = xp.where(weight > 0, weight, 1.0)
    mean, share = (xp.where(weight > 0, part / under, np.nan) for part in (score, positive))
    return ReliabilityDiagram(edges, mean, share, weight)


def gap(xp: Any, seen: ReliabilityDiagram, norm: str) -> Any:
    """Calibration error of a diagram; `xp` is NumPy or jax.numpy."""
    some, total = seen.weight > 0, seen.weight.sum()
    distance = xp.where(some, xp.abs(seen.mean_score - seen.fraction_positive), 0.0)
    share = seen.weight / xp.where(total > 0, total, 1.0)
    if norm == "l1":
        error = (share * distance).sum()
    elif norm == "l2":
        error = xp.sqrt((share * distance * distance).sum())
    else:
        error = distance.max()
    return xp.where(total > 0, error, np.nan)


def calibration_error(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    num_bins: int = 15,
    binning: str = "equal_width",
    norm: str = "l1",
    from_logits: bool = False,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Distance between predicted and observed frequency over the bins of a reliability diagram.

        ECE = Σ_b (n_b / n) |mean score_b − fraction positive_b|

    It depends on the bins and is biased upwards: noise alone gives each bin a distance. Compare models on
    the same examples and bins only.

    Args:
        labels: [...], 0 or 1, or class ids.
        scores: [...], probabilities of class 1; or [..., C], and then the highest is judged, as the
            probability of being right. Logits with `from_logits`.
        num_bins: at least 1.
        binning: "equal_width" or "equal_mass" (quantiles).
        norm: "l1", the expected calibration error (ECE); "l2", root mean square; "max", the largest
            distance of any bin (MCE).
        from_logits: whether the scores are logits.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float in [0, 1]; NaN if nothing has weight.

    Raises:
        ValueError: as `log_loss`, or for options out of range.

    Source: Guo, Pleiss, Sun and Weinberger, ICML 2017, section 2; equal mass: Nixon et al., 2019.

    >>> round(calibration_error([0, 1, 1], [0.1, 0.3, 0.9], num_bins=2), 4)
    0.2333
    """
    checks.choice("norm", norm, NORMS)
    seen = reliability_diagram(
        labels,
        scores,
        num_bins=num_bins,
        binning=binning,
        from_logits=from_logits,
        weights=weights,
        mask=mask,
    )
    return float(gap(np, seen, norm))
