"""How good models of the flights are: figures, differences, thresholds, slices, gaps in the data."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from experiments.flights import table
from jaxml import metrics
from jaxml.validation import missing

__all__ = [
    "classification",
    "differences",
    "gaps",
    "probability",
    "regression",
    "slices",
    "thresholds",
]


def classification(labels: NDArray, logits: NDArray) -> dict[str, float]:
    """The figures of a classifier."""
    return {
        "AUC": metrics.roc_auc(labels, logits),
        "AP": metrics.average_precision(labels, logits),
        "log loss": metrics.log_loss(labels, logits, from_logits=True),
        "Brier": metrics.brier(labels, logits, from_logits=True),
        "calibration error": metrics.calibration_error(labels, logits, from_logits=True),
        "mean prediction": float(probability(logits).mean()),
        "base rate": float(labels.mean()),
    }


def differences(
    labels: NDArray, first: NDArray, second: NDArray, day: NDArray[np.int64], num_samples: int
) -> dict[str, dict[str, Any]]:
    """The first model's figures less the second's, with 95 % intervals by the bootstrap of whole days.

    Flights of a day share its weather and its queues: drawn one by one they would make the interval look
    far narrower than what another two months could bring.
    """
    rng = np.random.default_rng(0)
    days, place = np.unique(day, return_inverse=True)
    copies = rng.poisson(1.0, (num_samples, len(days)))[:, place].astype(np.float64)
    found = {}
    for name, metric in (
        ("AUC", metrics.roc_auc),
        ("log loss", functools.partial(metrics.log_loss, from_logits=True)),
    ):
        value, *drawn = (
            float(metric(labels, first, weights=each) - metric(labels, second, weights=each))
            for each in (np.ones(len(labels)), *copies)
        )
        found[name] = {"value": value, "interval": np.quantile(drawn, [0.025, 0.975]).tolist()}
    return found


def regression(labels: NDArray, minutes: NDArray) -> dict[str, float]:
    """The figures of a regression."""
    return {
        "mean absolute error": metrics.mean_absolute_error(labels, minutes),
        "median absolute error": metrics.median_absolute_error(labels, minutes),
        "root mean squared error": metrics.root_mean_squared_error(labels, minutes),
    }


def probability(logits: NDArray) -> NDArray[np.float64]:
    """Of being late."""
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def thresholds(labels: NDArray, scores: NDArray, parts: table.Split) -> dict[str, Any]:
    """Chosen on the validation months, and what they come to on the test months."""
    counts = metrics.threshold_counts(labels[parts.validation], scores[parts.validation])
    choices = {
        "a miss costs as much as 3 false alarms": metrics.threshold_for_cost(
            counts, false_positive=1.0, false_negative=3.0
        ),
        "precision of 60 %": metrics.threshold_for_precision(counts, 0.6),
    }
    found = {}
    for name, choice in choices.items():
        said, truth = scores[parts.test] >= choice.threshold, labels[parts.test]
        cost = (said & (truth == 0)).mean() + 3 * (~said & (truth == 1)).mean()
        found[name] = {
            "threshold": choice.threshold,
            "reached in validation": choice.reached,
            "precision in validation": choice.precision,
            "recall in validation": choice.recall,
            "precision in test": metrics.precision(truth, said.astype(float), threshold=0.5),
            "recall in test": metrics.recall(truth, said.astype(float), threshold=0.5),
            "cost in test": float(cost),
        }
    return found


def slices(
    flights: table.Flights, labels: NDArray, logits: NDArray, rows: NDArray, num_samples: int
) -> list[dict[str, Any]]:
    """AUC and log loss by carrier and airport, with bootstrap intervals."""
    by = {"carrier": flights.carrier[rows], "origin": flights.origin[rows]}
    scores = probability(logits[rows]).astype(np.float32)
    measured = {
        name: metrics.by_slice(
            metric, by, labels[rows], scores, key=jax.random.key(1), num_samples=num_samples
        )
        for name, metric in (
            ("AUC", metrics.streaming.roc_auc()),
            ("log loss", metrics.streaming.log_loss()),
        )
    }
    found = []
    for (column, value), auc in measured["AUC"].items():
        loss = measured["log loss"][column, value]
        here = by[column] == value
        found.append(
            {
                "slice": f"{column} {value}",
                "flights": auc.num_examples,
                "small": auc.small,
                "late": float(labels[rows][here].mean()),
                "predicted": float(scores[here].mean()),
                "AUC": auc.value,
                "AUC interval": [auc.interval.low, auc.interval.high] if auc.interval else None,
                "log loss": loss.value,
                "log loss interval": [loss.interval.low, loss.interval.high]
                if loss.interval
                else None,
            }
        )
    return found


def gaps(
    columns: Mapping[str, NDArray], loss: NDArray, parts: table.Split
) -> tuple[list[dict[str, Any]], list[str]]:
    """How often each column is missing, and how wrong the model is there; and where that is by carrier."""
    found: list[dict[str, Any]] = []
    for name, values in columns.items():
        if values.dtype.kind != "f":
            continue
        absent = np.isnan(values)
        here = absent[parts.test]
        if not absent[parts.training].any() and not here.any():
            continue
        found.append(
            {
                "column": name,
                "missing in training": float(absent[parts.training].mean()),
                "missing in test": float(here.mean()),
                "log loss where missing": float(loss[here].mean()) if here.any() else None,
                "log loss elsewhere": float(loss[~here].mean()) if not here.all() else None,
            }
        )
    found.sort(key=lambda row: -row["missing in test"])
    # Columns that are missing together are told of once.
    together: dict[bytes, str] = {}
    for row in found:
        if row["missing in test"] > 0.01:
            pattern = np.packbits(np.isnan(columns[row["column"]][parts.test])).tobytes()
            together.setdefault(pattern, row["column"])
    some = list(together.values())
    told = {name: columns[name][parts.test] for name in (*some, "carrier", "origin")}
    under = missing.underrepresented_slices(told, ["carrier", "origin"], loss) if some else []
    return found, [str(each) for each in under[:8]]
