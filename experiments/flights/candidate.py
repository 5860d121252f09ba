"""What a clock leaves to be published: its network, the schema of its columns, and what is asked of it."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.flights import judging, models, table
from jaxml import metrics, serving
from jaxml.validation import schema

__all__ = ["gate", "leave", "reviewed"]

_SCHEDULE = (
    "carrier", "origin", "dest", "weekday", "hour", "time of day", "minute", "distance",
    "scheduled duration", "days to a holiday",
)  # fmt: skip
_MARGIN = 0.5  # of the range of the training months, at both ends
_PRESENT = 0.9
_TOLERANCE = 1e-6


def reviewed(columns: Mapping[str, NDArray]) -> schema.Schema:
    """Returns the schema of a clock's columns, drafted from those of the training months.

    The schedule stays as drafted. Delays, traffic and weather of other months reach further, so their
    ranges are half as wide again at either end, but not across zero; and a station may fall silent, so
    measurements may be missing, of which the features have a mean.
    """
    drafted = schema.infer_schema(columns)
    changed = {}
    for name, feature in drafted.features.items():
        if name not in _SCHEDULE:
            changed[name] = dataclasses.replace(feature, **_wider(feature))
    return dataclasses.replace(drafted, features={**drafted.features, **changed})


def _wider(feature: Any) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if feature.type == "FLOAT":
        changes["min_fraction"] = min(feature.min_fraction, _PRESENT)
    low, high = feature.min, feature.max
    if low is not None and high is not None:
        margin = type(low)(_MARGIN * (high - low))
        changes["min"] = low - margin if low < 0 else max(low - margin, 0)
        changes["max"] = high + margin if high > 0 else min(high + margin, 0)
    return changes


def gate(clock: str) -> serving.Gate:
    """Returns what is asked of the model of a clock.

    30 minutes before, the network must be better than logistic regression on the same features. The evening
    before it is not, beyond noise (its AUC is 0.002 higher, with an interval from -0.006 to 0.009), so that
    it is compared with a rule: the share of late flights of the same carrier and hour in the last month.
    """
    least_auc, most_loss, baseline = {
        "early": (0.72, 0.51, "late of the carrier and hour, 30 days"),
        "late": (0.78, 0.46, "logistic regression"),
    }[clock]
    return serving.Gate(
        task="binary",
        label="late",
        output="probability",
        group="day",
        baseline=baseline,
        thresholds=(
            serving.Threshold("roc_auc", bound=least_auc, change=0.002),
            serving.Threshold("log_loss", bound=most_loss, change=0.002),
            serving.Threshold("calibration_error", bound=0.05),
            serving.Threshold("roc_auc", change=0.01, by="origin", values=table.ORIGINS),
            serving.Threshold("refused_rows", bound=0.01),
            serving.Threshold("latency_ms", bound=100.0),
            serving.Threshold("size_bytes", bound=10e6),
        ),
    )


def leave(
    run: Path,
    clock: str,
    columns: Mapping[str, NDArray],
    flights: table.Flights,
    parts: table.Split,
    *,
    inputs: models.Inputs,
    settings: models.Settings,
    trained: Mapping[str, models.Trained],
    figures: Mapping[str, Any],
    late: NDArray,
) -> None:
    """Writes the candidate of a clock: in `run` that of the late one, in `run/early` that of the other.

    Args:
        run: directory of the run.
        clock: "early" or "late".
        columns: of all flights.
        flights: all flights.
        parts: rows.
        inputs: features of all flights.
        settings: of the network.
        trained: the models.
        figures: of the network on the test months.
        late: labels of all flights.

    Raises:
        RuntimeError: the bundle does not answer the test months as the network did.
    """
    place = run if clock == "late" else run / clock

    def take(rows: NDArray[np.int64]) -> dict[str, NDArray]:
        return {name: values[rows] for name, values in columns.items()}

    test = parts.test
    held_out = {
        **take(test),
        "late": late[test].astype(np.int64),
        "day": flights.day[test],
        "logistic regression": judging.probability(trained["logistic"].outputs[test]),
    }
    network = trained["network"]
    training = take(parts.training)
    serving.leave(
        place,
        held_out=held_out,
        gate=gate(clock),
        model=models.probability(inputs.pipeline, settings),
        params=network.variables,
        pipeline=inputs.pipeline,
        schema=reviewed(training),
        training=training,
        name=f"flights-{clock}",
        metrics={name: each for name, each in figures.items() if isinstance(each, float)},
        findings=[*itertools.chain.from_iterable(network.findings)],
    )
    bundle = serving.load(place / "candidate" / "bundle")
    answers = bundle.predict(take(test))["probability"]
    auc = metrics.roc_auc(late[test], answers)
    if not abs(auc - figures["AUC"]) <= _TOLERANCE:
        raise RuntimeError(f"{place}: the bundle has AUC {auc}, the network {figures['AUC']}")
