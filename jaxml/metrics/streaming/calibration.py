"""Mergeable forms of the figures of `jaxml.metrics.calibration`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks
from jaxml.metrics import calibration as exact
from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.accumulator import (
    Rows,
    accumulated,
    derived,
    histogram,
    made_once,
    mean,
    not_a_probability,
    not_an_id,
    not_binary,
    read,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array


def _read(
    labels: Any, scores: Any, weights: Any, mask: Any, *, from_logits: bool, columns: bool = True
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
    return mean(functools.partial(_read, from_logits=from_logits, columns=columns), values)


@made_once
def log_loss(*, from_logits: bool = False) -> Metric:
    """`metrics.log_loss`, with probabilities clipped by float32's ε: none costs more than 15.94 nats."""

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
    """`metrics.brier`."""

    def values(rows: Rows) -> Array:
        p = _probabilities(rows.scores, from_logits)
        if p.ndim == 1:
            return jnp.square(p - rows.labels)
        hit = jnp.arange(p.shape[-1])[None, :] == rows.labels[:, None]
        return jnp.square(p - hit).sum(-1)

    return _mean(values, from_logits)


@made_once
def prediction_bias(*, from_logits: bool = False) -> Metric:
    """`metrics.prediction_bias`."""

    def values(rows: Rows) -> Array:
        return _probabilities(rows.scores, from_logits) - rows.labels.astype(jnp.float32)

    return _mean(values, from_logits, columns=False)


@made_once
def reliability_diagram(num_bins: int = 10, *, from_logits: bool = False) -> Metric:
    """`metrics.reliability_diagram`, in bins of equal width."""
    size = checks.integer("num_bins", num_bins, at_least=1)
    edges = np.linspace(0, 1, size + 1).astype(np.float32)

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = _read(labels, scores, weights, mask, from_logits=from_logits)
        p, truth = _probabilities(rows.scores, from_logits), rows.labels
        if p.ndim == 2:
            truth, p = p.argmax(-1) == truth, p.max(-1)
        at = jnp.searchsorted(jnp.asarray(edges[1:-1]), p)
        each = (p, truth.astype(jnp.float32), None)
        return tuple(histogram(rows, at, size, values) for values in each), rows.refused

    def finish(*each: Sums) -> Any:
        return exact.diagram(jnp, jnp.asarray(edges), *(part.value() for part in each))

    return accumulated(((size,),) * 3, totals, finish)


@made_once
def calibration_error(num_bins: int = 15, *, from_logits: bool = False) -> Metric:
    """`metrics.calibration_error`, in bins of equal width."""
    diagram = reliability_diagram(num_bins, from_logits=from_logits)
    return derived(diagram, lambda diagram: exact.gap(jnp, diagram))
