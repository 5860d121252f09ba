"""Figures of the models on the test months: quality, differences, thresholds."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.flights import table
from jaxml import metrics

__all__ = ["classification", "intervals", "probability", "regression", "thresholds"]


def probability(logits: NDArray) -> NDArray[np.float64]:
    """Returns the probability of a late arrival."""
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def classification(labels: NDArray, logits: NDArray) -> dict[str, float]:
    """Returns the figures of a classifier."""
    return {
        "AUC": metrics.roc_auc(labels, logits),
        "AP": metrics.average_precision(labels, logits),
        "log loss": metrics.log_loss(labels, logits, from_logits=True),
        "Brier": metrics.brier(labels, logits, from_logits=True),
        "calibration error": metrics.calibration_error(labels, logits, from_logits=True),
        "mean prediction": float(probability(logits).mean()),
        "base rate": float(labels.mean()),
    }


def regression(labels: NDArray, minutes: NDArray) -> dict[str, float]:
    """Returns the figures of a regression."""
    return {
        "mean absolute error": metrics.mean_absolute_error(labels, minutes),
        "median absolute error": metrics.median_absolute_error(labels, minutes),
        "root mean squared error": metrics.root_mean_squared_error(labels, minutes),
    }


def intervals(
    labels: NDArray, outputs: Mapping[str, NDArray], day: NDArray[np.int64], num_samples: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, Any]]]:
    """Returns 95 % intervals by the bootstrap of whole days.

    Flights of a day share its weather and its queues: intervals from flights drawn one by one would be far
    narrower than the variation between months.

    Args:
        labels: [N].
        outputs: logits [N] of each model; the second is compared with the last.
        day: [N].
        num_samples: resamples.

    Returns:
        The intervals of AUC and log loss of each model, and value and interval of the first model's figures
        minus the last one's.
    """
    rng = np.random.default_rng(0)
    days, place = np.unique(day, return_inverse=True)
    copies = rng.poisson(1.0, (num_samples, len(days)))[:, place].astype(np.float64)
    log_loss = functools.partial(metrics.log_loss, from_logits=True)
    drawn = {
        name: {
            kind: np.array(
                [metric(labels, each, weights=w) for w in (np.ones(len(labels)), *copies)]
            )
            for kind, each in outputs.items()
        }
        for name, metric in (("AUC", metrics.roc_auc), ("log loss", log_loss))
    }

    def interval(samples: NDArray) -> list[float]:
        return np.quantile(samples[1:], [0.025, 0.975]).tolist()

    first, *_, last = outputs
    own = {
        kind: {name: interval(values[kind]) for name, values in drawn.items()} for kind in outputs
    }
    less = {name: values[first] - values[last] for name, values in drawn.items()}
    return own, {
        name: {"value": float(values[0]), "interval": interval(values)}
        for name, values in less.items()
    }


def thresholds(labels: NDArray, scores: NDArray, parts: table.Split) -> dict[str, Any]:
    """Returns thresholds chosen on the validation months, with their figures on the test months."""
    counts = metrics.threshold_counts(labels[parts.validation], scores[parts.validation])
    choices = {
        "a miss costs as much as 3 false alarms": metrics.threshold_for_cost(
            counts, false_positive=1.0, false_negative=3.0
        ),
        "precision of 60 %": metrics.threshold_for_precision(counts, 0.6),
    }
    truth, found = labels[parts.test], {}
    for name, choice in choices.items():
        predicted = scores[parts.test] >= choice.threshold
        cost = (predicted & (truth == 0)).mean() + 3 * (~predicted & (truth == 1)).mean()
        figures = {
            "threshold": choice.threshold,
            "reached in validation": choice.reached,
            "precision in validation": choice.precision,
            "recall in validation": choice.recall,
            "precision in test": metrics.precision(truth, predicted.astype(float), threshold=0.5),
            "recall in test": metrics.recall(truth, predicted.astype(float), threshold=0.5),
            "cost in test": float(cost),
        }
        # Of few flights none may be predicted late: an infinite threshold, and no precision.
        found[name] = {k: v if np.isfinite(v) else None for k, v in figures.items()}
    return found
