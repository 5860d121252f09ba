"""Streaming losses of probabilities, and their reliability."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.metrics import calibration as exact
from jaxml.metrics import checks, sums
from jaxml.metrics.calibration import ReliabilityDiagram
from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.bins import bins, lower_ends
from jaxml.metrics.streaming.gathered import (
    Rows,
    derived,
    gathered,
    histogram,
    made_once,
    not_a_probability,
    not_an_id,
    not_binary,
    ratio,
    read,
    total,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array


def _read(
    labels: Any, scores: Any, weights: Any, mask: Any, from_logits: bool, columns: bool = True
) -> Rows:
    scores = jnp.asarray(scores).astype(jnp.float32)

    def fault(y: Array, s: Array) -> Array:
        wrong = not_binary(y) if s.ndim == 1 else not_an_id(y, s.shape[-1])
        return wrong | not_a_probability(s, from_logits)

    return read(labels, scores, weights, mask, fault, columns=columns)


def _probabilities(scores: Array, from_logits: bool) -> Array:
    if not from_logits:
        return scores
    return jax.nn.sigmoid(scores) if scores.ndim == 1 else jax.nn.softmax(scores, -1)


def _mean(values: Callable[[Rows], Array], from_logits: bool, columns: bool = True) -> Metric:
    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask, from_logits, columns)
        return (total(rows), total(rows, values(rows))), rows.refused

    return gathered(((), ()), totals, lambda count, of: ratio(of.value(), count.value()))


@made_once
def log_loss(*, from_logits: bool = False) -> Metric:
    """Mean negative log-likelihood in nats, as `metrics.log_loss`.

    Args:
        from_logits: whether the scores are logits; probabilities are clipped to [ε, 1 − ε] with float32's
            ε, 1.2e-7, so that none costs more than 15.94.

    Returns:
        Metric of labels [...] and probabilities [...] or [..., C]; its value is a float32 scalar.

    >>> import jax.numpy as jnp
    >>> metric = log_loss()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([1]), jnp.array([0.5]))))
    0.6931472
    """

    def values(rows: Rows) -> Array:
        y, s = rows.labels, rows.scores
        if s.ndim == 1 and from_logits:
            return jax.nn.softplus(jnp.where(y == 1, -s, s))
        epsilon = float(np.finfo(np.float32).eps)
        if s.ndim == 1:
            p = jnp.clip(s, epsilon, 1 - epsilon)
            return -jnp.where(y == 1, jnp.log(p), jnp.log1p(-p))
        if from_logits:
            logs = jax.nn.log_softmax(s, -1)
        else:
            logs = jnp.log(jnp.clip(s, epsilon, 1 - epsilon))
        return -jnp.take_along_axis(logs, y.astype(jnp.int32)[:, None], -1)[:, 0]

    return _mean(values, from_logits)


@made_once
def brier(*, from_logits: bool = False) -> Metric:
    """Mean squared distance between probability and outcome, as `metrics.brier`.

    Args:
        from_logits: whether the scores are logits.

    Returns:
        Metric of labels [...] and probabilities [...] or [..., C]; its value is a float32 scalar.

    >>> import jax.numpy as jnp
    >>> metric = brier()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([1]), jnp.array([0.5]))))
    0.25
    """

    def values(rows: Rows) -> Array:
        p = _probabilities(rows.scores, from_logits)
        if p.ndim == 1:
            return jnp.square(p - rows.labels)
        hit = jnp.arange(p.shape[-1])[None, :] == rows.labels[:, None]
        return jnp.square(p - hit).sum(-1)

    return _mean(values, from_logits)


@made_once
def prediction_bias(*, from_logits: bool = False) -> Metric:
    """Mean prediction minus mean label, as `metrics.prediction_bias`.

    Args:
        from_logits: whether the scores are logits.

    Returns:
        Metric of labels [...] in {0, 1} and probabilities [...]; its value is a float32 scalar.

    >>> import jax.numpy as jnp
    >>> metric = prediction_bias()
    >>> state = metric.update(metric.empty(), jnp.array([1, 0]), jnp.array([0.75, 0.75]))
    >>> print(metric.compute(state))
    0.25
    """

    def values(rows: Rows) -> Array:
        return _probabilities(rows.scores, from_logits) - rows.labels.astype(jnp.float32)

    return _mean(values, from_logits, columns=False)


def _merged(size: int, weight: Sums, score: Sums, positive: Sums) -> ReliabilityDiagram:
    """Neighbouring fine bins merged into `size` of about the same weight."""
    reached = sums.running(weight).value()
    share = reached / jnp.where(reached[-1] > 0, reached[-1], 1.0)
    # A fine bin belongs where its middle lies, so that a heavy one (a tie) does not drag its neighbours
    # along.
    middle = share - weight.value() / jnp.where(reached[-1] > 0, reached[-1], 1.0) / 2
    at = jnp.clip(jnp.floor(middle * size).astype(jnp.int32), 0, size - 1)
    mean_of, positive_of, weight_of = (
        jnp.zeros(size, jnp.float32).at[at].add(part.value()) for part in (score, positive, weight)
    )
    ends = jnp.append(jnp.asarray(lower_ends(False)), 1.0)
    inner = ends[jnp.searchsorted(at, jnp.arange(1, size))]
    edges = jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)]).astype(jnp.float32)
    return exact.diagram(jnp, edges, mean_of, positive_of, weight_of)


@made_once
def reliability_diagram(
    num_bins: int = 10, *, binning: str = "equal_width", from_logits: bool = False
) -> Metric:
    """Predicted against observed frequency in bins of the prediction, as `metrics.reliability_diagram`.

    Args:
        num_bins: K, at least 1.
        binning: "equal_width", exact; or "equal_mass", whose edges are those nearest to the quantiles of
            42,000 (thresholds evenly spaced in logit).
        from_logits: whether the scores are logits.

    Returns:
        Metric of labels [...] and probabilities [...] or [..., C]; its value is `ReliabilityDiagram`,
        float32.

    Raises:
        ValueError: for no bin, or another binning.

    >>> import jax.numpy as jnp
    >>> metric = reliability_diagram(2)
    >>> state = metric.update(metric.empty(), jnp.array([0, 1, 1]), jnp.array([0.25, 0.25, 0.75]))
    >>> metric.compute(state).fraction_positive.tolist()
    [0.5, 1.0]
    """
    size = checks.integer("num_bins", num_bins, 1)
    checks.choice("binning", binning, exact.BINNINGS)
    edges = np.linspace(0, 1, size + 1).astype(np.float32)
    fine = binning == "equal_mass"
    width = len(lower_ends(False)) if fine else size

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask, from_logits)
        p = _probabilities(rows.scores, from_logits)
        truth = rows.labels
        if p.ndim == 2:
            truth, p = p.argmax(-1) == truth, p.max(-1)
        at = bins(p, False) if fine else jnp.searchsorted(jnp.asarray(edges[1:-1]), p)
        truth = truth.astype(jnp.float32)
        parts = (histogram(rows, at, width, values) for values in (None, p, truth))
        return tuple(parts), rows.refused

    def of_sums(weight: Sums, score: Sums, positive: Sums) -> Any:
        if not fine:
            means = (part.value() for part in (score, positive, weight))
            return exact.diagram(jnp, jnp.asarray(edges), *means)
        return _merged(size, weight, score, positive)

    return gathered(((width,),) * 3, totals, of_sums)


@made_once
def calibration_error(
    num_bins: int = 15,
    *,
    binning: str = "equal_width",
    norm: str = "l1",
    from_logits: bool = False,
) -> Metric:
    """Distance between predicted and observed frequency, as `metrics.calibration_error`.

    Args:
        num_bins: at least 1.
        binning: "equal_width", exact; or "equal_mass", as in `reliability_diagram`.
        norm: "l1" (ECE), "l2" or "max" (MCE).
        from_logits: whether the scores are logits.

    Returns:
        Metric of labels [...] and probabilities [...] or [..., C]; its value is a float32 scalar.

    Raises:
        ValueError: for no bin, another binning or norm.

    >>> import jax.numpy as jnp
    >>> metric = calibration_error(1)
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([0, 1]), jnp.array([0.5, 1.0]))))
    0.25
    """
    checks.choice("norm", norm, exact.NORMS)
    diagram = reliability_diagram(num_bins, binning=binning, from_logits=from_logits)
    return derived(diagram, lambda seen: exact.gap(jnp, seen, norm))
