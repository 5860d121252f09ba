"""Metrics of answers to held-out rows, computed for many resamples at once.

Values are those of `jaxml.metrics`; sorting and logarithms are done once for all resamples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Metric = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""`metric(weights [R, n]) -> [R]`: of rows that count as often as their weight says."""

_CELLS = 1 << 19  # weights at once: they fit into the cache


class Difference(NamedTuple):
    """A metric of two models, and samples [R] of the difference from resamples of whole groups."""

    value: float
    against: float
    samples: NDArray[np.float64]
    groups: int

    def interval(self, level: float) -> tuple[float, float]:
        """Returns the interval of the difference, which misses it with probability `level`."""
        middle, count = self.value - self.against, max(self.groups, 2)
        spread = np.std(self.samples, ddof=1) * np.sqrt(count / (count - 1))
        width = float(special.stdtrit(count - 1, 1 - level / 2) * spread)
        return middle - width, middle + width


def value(name: str, labels: NDArray[Any], answers: NDArray[Any]) -> float:
    """Returns a metric, or raises a ValueError if it is not defined."""
    return _whole(metric_of(name, labels, answers), len(labels))


def compare(
    name: str,
    labels: NDArray[Any],
    own: NDArray[Any],
    other: NDArray[Any],
    group: NDArray[np.int64],
    copies: NDArray[np.uint8],
) -> Difference:
    """Returns a metric of two models and its difference in each resample.

    Args:
        name: of the metric.
        labels: [n].
        own: answers of the one, [n] or [n, k].
        other: answers of the other.
        group: [n], each row's group.
        copies: [R, G], how often each group is in each resample.

    Raises:
        ValueError: the metric is not defined for one of them.
    """
    first, second = (metric_of(name, labels, each) for each in (own, other))
    size, samples = max(1, _CELLS // len(group)), []
    for at in range(0, len(copies), size):
        weights = copies[at : at + size][:, group].astype(np.float64)
        samples.append(first(weights) - second(weights))
    one, two = (_whole(each, len(labels)) for each in (first, second))
    return Difference(one, two, np.concatenate(samples), len(np.unique(group)))


def _whole(metric: Metric, number: int) -> float:
    return float(metric(np.ones((1, number)))[0])


def metric_of(name: str, labels: NDArray[Any], answers: NDArray[Any]) -> Metric:
    """Returns the metric of some rows, or raises a ValueError if it is not defined."""
    if np.isnan(answers).any():
        raise ValueError(f"{np.isnan(answers).sum()} answers are not numbers")
    if name.startswith(("precision@", "recall@")):
        k = int(name.partition("@")[2])
        if k > answers.shape[1]:
            raise ValueError(f"there are {answers.shape[1]} answers a row")
        return _mean((answers[:, :k] == labels[:, None]).any(1))
    if name == "roc_auc":
        return _roc_auc(labels, answers)
    outside = int(((answers < 0) | (answers > 1)).sum())
    if outside:
        raise ValueError(f"{outside} answers are no probabilities")
    if name == "brier":
        return _mean(np.square(answers - labels))
    if name == "log_loss":
        epsilon = np.finfo(answers.dtype).eps  # as `metrics.log_loss`
        clipped = np.clip(answers.astype(np.float64), epsilon, 1 - epsilon)
        return _mean(-np.where(labels == 1, np.log(clipped), np.log1p(-clipped)))
    return _calibration_error(labels, answers)


def _mean(values: NDArray[Any]) -> Metric:
    given = values.astype(np.float64)
    return lambda weights: weights @ given / weights.sum(1)


def _roc_auc(labels: NDArray[Any], scores: NDArray[Any]) -> Metric:
    """As `metrics.roc_auc`, sorted once for all resamples."""
    order = np.argsort(scores)
    truth, ranked = labels[order], scores[order]
    ties = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))

    def metric(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        both = weights[:, order]
        positive = np.add.reduceat(both * truth, ties, axis=1)
        negative = np.add.reduceat(both, ties, axis=1) - positive
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(1) * negative.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):  # one class only: NaN
            return (positive * below).sum(1) / pairs

    return metric


def _calibration_error(labels: NDArray[Any], answers: NDArray[Any]) -> Metric:
    """As `metrics.calibration_error`, in its 15 bins."""
    number = np.searchsorted(np.linspace(0.0, 1.0, 16)[1:-1], answers)
    order = np.argsort(number, kind="stable")
    gaps, starts = (answers - labels)[order], np.unique(number[order], return_index=True)[1]

    def metric(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.add.reduceat(weights[:, order] * gaps, starts, axis=1)
        return np.abs(sums).sum(1) / weights.sum(1)

    return metric
