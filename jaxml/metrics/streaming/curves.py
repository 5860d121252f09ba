"""Streaming counts at thousands of thresholds that are evenly spaced in logit; ROC and PR curves from them.

Thresholds that are evenly spaced in probability have none where a rare class lives: at a base rate of 0.001
nearly all scores lie below the first. Here they are powers of two and 512 steps between one and the next,
of p below ½ and of 1 − p above: 0.1 to 0.2 % apart, relatively, wherever the scores are, which is 0.001
to 0.002 in logit. Logits are cut every 1/512 up to ±32, and 512 times an octave beyond, up to ±2¹⁴.

The counts are exact, and so is each of their thresholds. What is lost is the order within a bin, and by how
much is known: the AUC is off by at most half the share of pairs that fell into one bin
(`roc_auc_with_bound`).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml.metrics import curves as exact
from jaxml.metrics import sums
from jaxml.metrics.curves import ThresholdCounts
from jaxml.metrics.metric import Metric
from jaxml.metrics.streaming.gathered import (
    derived,
    gathered,
    histogram,
    made_once,
    not_a_probability,
    not_binary,
    read,
)
from jaxml.metrics.sums import Sums
from jaxml.types import Array

# Steps between one power of two and the next: the upper 9 bits of a float's mantissa.
_BITS = 9
_STEPS = 1 << _BITS
# Octaves of p below ½, from 2⁻⁶⁰ (a logit of −42) on, and of 1 − p, whose least in float32 is 2⁻²⁴.
_SMALLEST, _NEAREST, _HALF = -60, -24, -1
_LOW = (_HALF - _SMALLEST) * _STEPS + 1  # and one bin for what is smaller
_HIGH = (_HALF - _NEAREST) * _STEPS + 2  # and one for p = 1, one for p = ½
# Logits: evenly cut within ±2⁵, then by octaves up to ±2¹⁴.
_EVEN, _LARGEST = 5, 14
_FAR = (_LARGEST - _EVEN) * _STEPS + 1  # and one bin for what is larger
_NEAR = 2 * (_STEPS << _EVEN)


def _step(values: Array, octave: int) -> Array:
    """Steps from 2^octave to a float32 of at least 0, below 0 for smaller ones: a look at its bits."""
    return (jax.lax.bitcast_convert_type(values, jnp.int32) >> (23 - _BITS)) - (
        (octave + 127) * _STEPS
    )


def _ends(low: int, high: int) -> NDArray[np.float64]:
    """Where the steps from 2^low to 2^high begin, 2^high included."""
    octaves = np.ldexp(1.0, np.arange(low, high))[:, None]
    return np.append((octaves * (1 + np.arange(_STEPS) / _STEPS)).ravel(), 2.0**high)


def bins(scores: Array, from_logits: bool) -> Array:
    """The bin of each score, rising with it.

    Args:
        scores: [n] float32, probabilities in [0, 1] or any logits; not NaN.
        from_logits: which.

    Returns:
        [n] int32 in [0, len(lower_ends(from_logits))).
    """
    if from_logits:
        limit = 2.0**_EVEN
        far = jnp.clip(_step(jnp.abs(scores), _EVEN), 0, _FAR - 1)
        near = jnp.floor(jnp.clip(scores, -limit, limit) * _STEPS).astype(jnp.int32)
        beyond = jnp.where(scores > 0, _FAR + _NEAR + far, _FAR - 1 - far)
        return jnp.where(jnp.abs(scores) >= limit, beyond, _FAR + _NEAR // 2 + near)
    low = jnp.clip(_step(scores, _SMALLEST) + 1, 0, _LOW - 1)
    # 1 − p is exact in float32 from ½ on.
    high = jnp.clip(_step(1 - scores, _NEAREST) + 1, 0, _HIGH - 1)
    return jnp.where(scores < 0.5, low, _LOW + _HIGH - 1 - high)


@functools.cache
def lower_ends(from_logits: bool) -> NDArray[np.float32]:
    """[B], rising: a score is in bin b or above if and only if it is at least the b-th of these."""
    if from_logits:
        ends = _ends(_EVEN, _LARGEST).astype(np.float32)
        near = (np.arange(_NEAR) - _NEAR // 2) / _STEPS
        # Of sizes [a, b) the negative numbers are (−b, −a]: they begin with the float above −b.
        above = np.nextafter(-ends[::-1], np.float32(0))
        return np.concatenate([[-np.inf], above, near[1:], ends]).astype(np.float32)
    low = np.append(0.0, _ends(_SMALLEST, _HALF)[:-1])
    # 1 − p in [a, b) begins with the float above 1 − b. All floats from ½ to 1 are multiples of 2⁻²⁴.
    unit = 2.0**_NEAREST
    largest = (np.ceil(_ends(_NEAREST, _HALF) / unit) - 1) * unit
    high = 1 - np.append(largest, 0.5)
    return np.concatenate([low, high[::-1]]).astype(np.float32)


def _counts(both: Sums, from_logits: bool) -> ThresholdCounts:
    # Counted from the highest score down; pairs, so that 2²⁴ and one more are not the same.
    falling = Sums(*(part[:, ::-1] for part in both))
    reached = sums.running(falling)
    total = Sums(*(part[:, -1:] for part in reached))
    left = sums.minus(total, reached)
    start = jnp.zeros((2, 1), jnp.float32)
    fp, tp = jnp.concatenate([start, reached.value()], 1)
    tn, fn = jnp.concatenate([total.value(), left.value()], 1)
    thresholds = jnp.asarray(np.append(np.float32(np.inf), lower_ends(from_logits)[::-1]))
    return ThresholdCounts(thresholds, tp, fp, fn, tn)


@made_once
def threshold_counts(*, from_logits: bool = False) -> Metric:
    """Confusion counts of `scores >= threshold` at thousands of thresholds evenly spaced in logit.

    Args:
        from_logits: whether the scores are logits (any real numbers) rather than probabilities.

    Returns:
        Metric of labels [...] in {0, 1} and scores [...]; its value is `ThresholdCounts`, float32 [T]
        each, T = 41,988 of probabilities and 41,987 of logits. Counts and thresholds are exact: the same
        as counting `scores >= threshold`. State: two pairs of float32 a bin, 672 kB.

    >>> import jax.numpy as jnp
    >>> metric = threshold_counts()
    >>> state = metric.update(metric.empty(), jnp.array([0, 1, 1]), jnp.array([0.2, 0.7, 0.2]))
    >>> counts = metric.compute(state)
    >>> int(counts.true_positives[counts.thresholds >= 0.5][-1])
    1
    """
    size = len(lower_ends(from_logits))

    def totals(labels: Any, scores: Any, weights: Any, mask: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = read(
            labels,
            scores,
            weights,
            mask,
            lambda y, s: not_binary(y) | not_a_probability(s.astype(jnp.float32), from_logits),
        )
        at = bins(rows.scores.astype(jnp.float32), from_logits)
        both = histogram(rows, at + size * (rows.labels == 1), 2 * size)
        return (Sums(*(part.reshape(2, size) for part in both)),), rows.refused

    return gathered(((2, size),), totals, lambda both: _counts(both, from_logits))


@made_once
def roc_auc(*, from_logits: bool = False) -> Metric:
    """Area under the ROC curve, from counts at thresholds evenly spaced in logit.

    Args:
        from_logits: whether the scores are logits (any real numbers) rather than probabilities.

    Returns:
        Metric of labels [...] in {0, 1} and scores [...]; its value is a float32 scalar. Scores that
        share a bin count as a tie, so the error is at most half the share of pairs of a positive and a
        negative that share one; `roc_auc_with_bound` gives that, too.

    >>> import jax.numpy as jnp
    >>> metric = roc_auc()
    >>> scores = jnp.array([1e-6, 4e-6, 3.5e-6, 8e-6])
    >>> print(metric.compute(metric.update(metric.empty(), jnp.array([0, 0, 1, 1]), scores)))
    0.75
    """
    return derived(
        threshold_counts(from_logits=from_logits), lambda counts: exact.area(jnp, counts)
    )


class BoundedAuc(NamedTuple):
    """An area under the ROC curve, and how far it can be off.

    Attributes:
        value: scores that share a bin counted as ties.
        bound: the exact area is within this of the value (but for float32 rounding, 1e-6).
    """

    value: Array
    bound: Array


@made_once
def roc_auc_with_bound(*, from_logits: bool = False) -> Metric:
    """Area under the ROC curve with the most that it can be off by, known from the counts themselves.

        |AUC − value| ≤ ½ Σ_b (positives_b / P) (negatives_b / N)

    A large bound says that the scores are crowded into few bins (all within a percent of one another, say):
    then gather the scores and take `metrics.roc_auc`. Ties that are real are in the bound, too.

    Args:
        from_logits: whether the scores are logits (any real numbers) rather than probabilities.

    Returns:
        Metric of labels [...] in {0, 1} and scores [...]; its value is `BoundedAuc`.

    >>> import jax.numpy as jnp
    >>> metric = roc_auc_with_bound()
    >>> scores = jnp.array([0.3, 0.30001])  # one bin
    >>> print(*metric.compute(metric.update(metric.empty(), jnp.array([0, 1]), scores)))
    0.5 0.5
    """

    def finish(counts: ThresholdCounts) -> BoundedAuc:
        tp, fp = counts.true_positives, counts.false_positives
        shares = [jnp.diff(part) / jnp.where(part[-1] > 0, part[-1], 1.0) for part in (tp, fp)]
        bound = jnp.where((tp[-1] > 0) & (fp[-1] > 0), (shares[0] * shares[1]).sum() / 2, jnp.nan)
        return BoundedAuc(exact.area(jnp, counts), bound)

    return derived(threshold_counts(from_logits=from_logits), finish)


@made_once
def average_precision(*, from_logits: bool = False) -> Metric:
    """Average precision, from counts at thresholds evenly spaced in logit.

    Args:
        from_logits: whether the scores are logits (any real numbers) rather than probabilities.

    Returns:
        Metric of labels [...] in {0, 1} and scores [...]; its value is a float32 scalar. Scores that
        share a bin count as a tie.

    >>> import jax.numpy as jnp
    >>> metric = average_precision()
    >>> scores = jnp.array([0.1, 0.4, 0.35, 0.8])
    >>> state = metric.update(metric.empty(), jnp.array([0, 0, 1, 1]), scores)
    >>> print(metric.compute(state).round(4))
    0.8333
    """
    return derived(
        threshold_counts(from_logits=from_logits), lambda counts: exact.stepped(jnp, counts)
    )


@made_once
def roc_curve(*, from_logits: bool = False) -> Metric:
    """ROC curve at thresholds evenly spaced in logit.

    Args:
        from_logits: whether the scores are logits (any real numbers) rather than probabilities.

    Returns:
        Metric of labels [...] in {0, 1} and scores [...]; its value is `RocCurve`, float32 [T] each. Every
        point lies on the exact curve.

    >>> import jax.numpy as jnp
    >>> metric = roc_curve()
    >>> curve = metric.compute(metric.update(metric.empty(), jnp.array([0, 1]), jnp.array([0.2, 0.7])))
    >>> float(curve.tpr[curve.thresholds >= 0.5][-1]), float(curve.fpr[-1])
    (1.0, 1.0)
    """
    return derived(threshold_counts(from_logits=from_logits), lambda counts: exact.roc(jnp, counts))


@made_once
def precision_recall_curve(*, from_logits: bool = False) -> Metric:
    """Precision–recall curve at thresholds evenly spaced in logit.

    Args:
        from_logits: whether the scores are logits (any real numbers) rather than probabilities.

    Returns:
        Metric of labels [...] in {0, 1} and scores [...]; its value is `PrecisionRecallCurve`, float32,
        of T + 1 points and T thresholds; precision above the highest score is NaN. Every point lies on
        the exact curve.

    >>> import jax.numpy as jnp
    >>> metric = precision_recall_curve()
    >>> curve = metric.compute(metric.update(metric.empty(), jnp.array([0, 1]), jnp.array([0.2, 0.7])))
    >>> float(curve.precision[0]), float(curve.recall[0])
    (0.5, 1.0)
    """
    return derived(
        threshold_counts(from_logits=from_logits),
        lambda counts: exact.precision_recall(jnp, counts),
    )
