"""Streaming counts of right and wrong decisions; exact, like the one-call forms."""

from typing import Any

import jax.numpy as jnp

from jaxml.metrics import checks
from jaxml.metrics import confusion as exact
from jaxml.metrics.confusion import ConfusionCounts
from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.gathered import (
    Rows,
    derived,
    gathered,
    histogram,
    made_once,
    not_an_id,
    not_binary,
    ratio,
    read,
    total,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array


@made_once
def confusion_counts(threshold: float = 0.5) -> Metric:
    """TP, FP, FN and TN of `scores >= threshold`, as `metrics.confusion_counts`.

    Args:
        threshold: in the unit of the scores; may be traced.

    Returns:
        Metric of labels [...] in {0, 1} and scores [...]; its value is `ConfusionCounts` of float32
        scalars.

    >>> import jax.numpy as jnp
    >>> metric = confusion_counts()
    >>> state = metric.update(metric.empty(), jnp.array([0, 1, 1]), jnp.array([0.2, 0.9, 0.5]))
    >>> [int(count) for count in metric.compute(state)]
    [2, 0, 0, 1]
    """

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = read(labels, scores, weights, mask, lambda y, s: not_binary(y) | jnp.isnan(s))
        true, said = rows.labels == 1, rows.scores >= threshold
        cells = jnp.stack([true & said, ~true & said, true & ~said, ~true & ~said])
        return (total(rows, cells),), rows.refused

    return gathered(((4,),), totals, lambda cells: ConfusionCounts(*cells.value()))


@made_once
def accuracy(threshold: float = 0.5) -> Metric:
    """Share of examples decided rightly, as `metrics.accuracy`.

    Args:
        threshold: for scores of two classes. Integer scores are decisions (class ids) themselves; scores
            [..., C] decide by the highest.

    Returns:
        Metric of labels [...] and scores [...] or [..., C]; its value is a float32 scalar.

    >>> import jax.numpy as jnp
    >>> metric = accuracy()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([2, 0]), jnp.array([2, 1]))))
    0.5
    """

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        labels, scores = jnp.asarray(labels), jnp.asarray(scores)
        if scores.ndim == labels.ndim + 1:
            rows = read_classes(labels, scores, weights, mask)
            return (total(rows), total(rows, in_top(rows, 1))), rows.refused
        ids = jnp.issubdtype(scores.dtype, jnp.integer) or scores.dtype == jnp.bool_

        def fault(y: Array, s: Array) -> Array:
            return not_an_id(y, 2**31 - 1) if ids else not_binary(y) | jnp.isnan(s)

        rows = read(labels, scores, weights, mask, fault)
        hit = (
            rows.labels == rows.scores if ids else (rows.labels == 1) == (rows.scores >= threshold)
        )
        return (total(rows), total(rows, hit)), rows.refused

    return gathered(((), ()), totals, lambda count, hits: ratio(hits.value(), count.value()))


def read_classes(labels: Any, scores: Any, weights: Any, mask: Any) -> Rows:
    """Rows of class ids and scores [n, C]."""
    if jnp.ndim(scores) != jnp.ndim(labels) + 1:
        raise ValueError(
            f"scores must have an axis of classes more than labels, {jnp.shape(labels)}; "
            f"got {jnp.shape(scores)}"
        )
    return read(
        labels,
        scores,
        weights,
        mask,
        lambda y, s: not_an_id(y, s.shape[-1]) | jnp.isnan(s).any(-1),
        columns=True,
    )


def in_top(rows: Rows, k: int) -> Array:
    """[n]: the probability that the label is among the k highest, ties broken at random."""
    own = jnp.take_along_axis(rows.scores, rows.labels.astype(jnp.int32)[:, None], -1)
    above = (rows.scores > own).sum(-1)
    equal = (rows.scores == own).sum(-1)
    return jnp.clip((k - above) / jnp.maximum(equal, 1), 0.0, 1.0).astype(jnp.float32)


@made_once
def top_k_accuracy(k: int) -> Metric:
    """Share of examples whose class is among the k that score highest, as `metrics.top_k_accuracy`.

    Args:
        k: at least 1.

    Returns:
        Metric of labels [...] and scores [..., C]; its value is a float32 scalar.

    Raises:
        ValueError: for k below 1.

    >>> import jax.numpy as jnp
    >>> metric = top_k_accuracy(1)
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([1]), jnp.array([[5.0, 5.0]]))))
    0.5
    """
    k = checks.integer("k", k, 1)

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = read_classes(labels, scores, weights, mask)
        return (total(rows), total(rows, in_top(rows, k))), rows.refused

    return gathered(((), ()), totals, lambda count, hits: ratio(hits.value(), count.value()))


@made_once
def confusion_matrix(num_classes: int) -> Metric:
    """Counts of examples by class (row) and decision (column), as `metrics.confusion_matrix`.

    Args:
        num_classes: C.

    Returns:
        Metric of labels [...] and decisions [...] or scores [..., C]; its value is float32 [C, C].

    Raises:
        ValueError: for no class.

    >>> import jax.numpy as jnp
    >>> metric = confusion_matrix(2)
    >>> state = metric.update(metric.empty(), jnp.array([0, 1, 1]), jnp.array([0, 0, 1]))
    >>> metric.compute(state).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    size = checks.integer("num_classes", num_classes, 1)

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        if jnp.ndim(scores) == jnp.ndim(labels) + 1:
            if jnp.shape(scores)[-1] != size:
                raise ValueError(
                    f"scores must have num_classes, {size}, columns; got {jnp.shape(scores)}"
                )
            rows = read_classes(labels, scores, weights, mask)
            said = rows.scores.argmax(-1)
        else:
            rows = read(
                labels,
                scores,
                weights,
                mask,
                lambda y, s: not_an_id(y, size) | not_an_id(s, size) | (s != s),
            )
            said = rows.scores
        at = rows.labels.astype(jnp.int32) * size + said.astype(jnp.int32)
        return (histogram(rows, at, size * size),), rows.refused

    return gathered(((size * size,),), totals, lambda cells: cells.value().reshape(size, size))


def _rate(
    of: str,
    threshold: float,
    beta: float,
    average: str | None,
    num_classes: int | None,
    zero_division: float | None,
) -> Metric:
    checks.choice("average", average, exact.AVERAGES)
    if average == "binary":
        undefined = float("nan") if zero_division is None else float(zero_division)
        return derived(
            confusion_counts(threshold),
            lambda counts: ratio(*exact.parts(of, counts, beta), undefined),
        )
    if num_classes is None:
        raise ValueError(f"num_classes must be given for average={average!r}, got None")
    return derived(
        confusion_matrix(num_classes),
        lambda matrix: exact.averaged(jnp, of, matrix, beta, average, zero_division),
    )


@made_once
def precision(
    threshold: float = 0.5,
    *,
    average: str | None = "binary",
    num_classes: int | None = None,
    zero_division: float | None = None,
) -> Metric:
    """Share of the decisions for the positive class that are right, as `metrics.precision`.

    Args:
        threshold: a score of at least this decides for the positive class.
        average: "binary", "micro", "macro", "weighted" or None.
        num_classes: C, for an average.
        zero_division: what 0 / 0 is; None: NaN, and 0 within an average.

    Returns:
        Metric; its value is a float32 scalar, or [C] for average=None.

    Raises:
        ValueError: for an unknown average, or one without num_classes.

    >>> import jax.numpy as jnp
    >>> metric = precision()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([0, 1]), jnp.array([0.5, 0.5]))))
    0.5
    """
    return _rate("precision", threshold, 1.0, average, num_classes, zero_division)


@made_once
def recall(
    threshold: float = 0.5,
    *,
    average: str | None = "binary",
    num_classes: int | None = None,
    zero_division: float | None = None,
) -> Metric:
    """Share of the positive class that is found, as `metrics.recall`.

    Args:
        threshold: a score of at least this decides for the positive class.
        average: "binary", "micro", "macro", "weighted" or None.
        num_classes: C, for an average.
        zero_division: what 0 / 0 is; None: NaN, and 0 within an average.

    Returns:
        Metric; its value is a float32 scalar, or [C] for average=None.

    Raises:
        ValueError: for an unknown average, or one without num_classes.

    >>> import jax.numpy as jnp
    >>> metric = recall()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([1, 1]), jnp.array([0.1, 0.5]))))
    0.5
    """
    return _rate("recall", threshold, 1.0, average, num_classes, zero_division)


@made_once
def false_positive_rate(threshold: float = 0.5, *, zero_division: float | None = None) -> Metric:
    """Share of the negative class that raises a false alarm, as `metrics.false_positive_rate`.

    Args:
        threshold: a score of at least this decides for the positive class.
        zero_division: what 0 / 0 is; None: NaN.

    Returns:
        Metric; its value is a float32 scalar.

    >>> import jax.numpy as jnp
    >>> metric = false_positive_rate()
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([0, 0]), jnp.array([0.1, 0.5]))))
    0.5
    """
    return _rate("false_positive_rate", threshold, 1.0, "binary", None, zero_division)


@made_once
def f_beta(
    beta: float = 1.0,
    threshold: float = 0.5,
    *,
    average: str | None = "binary",
    num_classes: int | None = None,
    zero_division: float | None = None,
) -> Metric:
    """Harmonic mean of precision and recall in which recall counts β² times, as `metrics.f_beta`.

    Args:
        beta: above 0.
        threshold: a score of at least this decides for the positive class.
        average: "binary", "micro", "macro", "weighted" or None.
        num_classes: C, for an average.
        zero_division: what 0 / 0 is; None: NaN, and 0 within an average.

    Returns:
        Metric; its value is a float32 scalar, or [C] for average=None.

    Raises:
        ValueError: for a β that is not positive, an unknown average, or one without num_classes.

    >>> import jax.numpy as jnp
    >>> metric = f_beta()
    >>> state = metric.update(metric.empty(), jnp.array([1, 1, 0]), jnp.array([0.1, 0.5, 0.5]))
    >>> print(metric.compute(state))
    0.5
    """
    beta = checks.number("beta", beta, 0.0, exclusive=True)
    return _rate("f_beta", threshold, beta, average, num_classes, zero_division)
