"""Will a flight arrive more than 15 minutes late, told before it leaves? And how late?

    python -m experiments.flights                  all of it; the report is in runs/flights/
    python -m experiments.flights --smoke          two weeks in each part, two minutes: whether it runs
    python -m experiments.flights --again DIR      the report of a finished run once more

336,776 flights left New York City in 2013. Train January to August, validate September and October, test
November and December. Cancelled and diverted flights have no delay at arrival and are left out of both
questions. Two clocks: 18:00 of the day before, where the weather of the scheduled hour as it was stands in
for a forecast, and 30 minutes before the scheduled departure, where only what had happened counts:
`clocks.py` says what that is, and tests/test_flights_clocks.py that no later event changes a feature.

In order: the table is validated against a schema drafted from the training months, features are made on
each clock and fitted on the training months, models are trained under the monitor, thresholds are chosen on
the validation months, and everything is judged on the test months beside scikit-learn on the same features.

Result, two networks averaged, AUC and log loss on the test months: the evening before 0.742 and 0.487
(gradient boosting on the same features 0.737 and 0.494, logistic regression 0.740 and 0.487), 30 minutes
before 0.800 and 0.439 (boosting 0.794 and 0.4415). Training takes 1.8 and 1.6 times as long as boosting's.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from experiments.flights import clocks, judging, models, report, table
from jaxml import bench, losses, metrics, reports
from jaxml.validation import leaks, schema

LATE = 15.0


@dataclasses.dataclass(frozen=True)
class Config:
    """From the raw table of flights to a judged model, on two clocks."""

    smoke: bool = False
    """Two weeks in each part of the year and the smallest models."""
    again: Path | None = None
    """Write the report of a finished run again, without training."""
    run_dir: Path | None = None
    """Where everything goes; by default a new directory under runs/flights."""
    seed: int = 0
    """Of the first network."""
    clocks: tuple[Literal["early", "late"], ...] = ("early", "late")
    """The evening before, 30 minutes before, or both."""
    members: int = 2
    """Networks that are averaged."""
    iterations: int = 200
    """Trees of gradient boosting."""
    resamples: int = 200
    """Of the bootstrap, for each interval."""


def checked(
    flights: table.Flights, weather: table.Weather, parts: table.Split, run: Path
) -> tuple[table.Weather, dict[str, Any]]:
    """The tables held against schemas; what the weather cannot have been is taken out.

    The draft of a schema is what the training months hold. Reviewed, it forbids winds of more than 150
    miles an hour, which the draft had learned from a typing error.
    """
    columns = flights.columns()

    def part(rows: NDArray) -> dict[str, NDArray]:
        return {name: values[rows] for name, values in columns.items() if name != "evening"}

    drafted = schema.infer_schema(part(parts.training)).without("arr_delay", "SERVING")
    # Times of the year, its days and its months go on: that later ones are new is what a later part is.
    later = ("scheduled", "departed", "arrived", "day", "month")
    drafted = dataclasses.replace(
        drafted,
        features={
            name: dataclasses.replace(each, min=None, max=None) if name in later else each
            for name, each in drafted.features.items()
        },
    )
    drafted.save(run / "schema-flights.toml")
    found = {
        name: [str(each) for each in schema.validate(part(rows), drafted)]
        for name, rows in (("validation", parts.validation), ("test", parts.test))
    }
    serving = {name: v for name, v in part(parts.test).items() if name != "arr_delay"}
    absent = schema.validate(serving, drafted, environment="SERVING")
    assert not any(each.column == "arr_delay" for each in absent)
    scheduled = flights.scheduled
    for name, rows in (("validation", parts.validation), ("test", parts.test)):
        early = leaks.time_overlap(scheduled[parts.training], scheduled[rows], "scheduled")
        found[name] += [str(each) for each in early]

    hours = np.argwhere(~np.isnan(weather.values[..., 0]))
    values = weather.values[hours[:, 0], hours[:, 1]]
    observed = {name: values[:, i] for i, name in enumerate(table.MEASURES)}
    until = int(scheduled[parts.training].max()) // 60
    trained = hours[:, 1] <= until
    drafted = schema.infer_schema({name: v[trained] for name, v in observed.items()})
    reviewed = dataclasses.replace(
        drafted,
        features={
            name: dataclasses.replace(each, min=0.0, max=150.0)
            if name.startswith("wind_s")
            else each
            for name, each in drafted.features.items()
        },
    )
    reviewed.save(run / "schema-weather.toml")
    anomalies = schema.validate(observed, reviewed)
    found["weather"] = [str(each) for each in anomalies]
    cleaned = weather.values.copy()
    for each in anomalies:
        if each.column == "wind_speed":
            i, rows = table.MEASURES.index("wind_speed"), hours[each.rows]
            cleaned[rows[:, 0], rows[:, 1], i] = np.nan
    return table.Weather(cleaned), found


def random_splits(
    given: models.Inputs,
    labels: NDArray,
    flights: table.Flights,
    parts: table.Split,
    settings: models.Settings,
) -> dict[str, float]:
    """How good the network looks where test flights are drawn at random, one by one or by whole days."""
    known = np.concatenate([parts.training, parts.validation, parts.test])
    rng = np.random.default_rng(0)
    number, held = len(parts.training), len(parts.validation)
    shuffled = rng.permutation(known)
    days = rng.permutation(np.unique(flights.day[known]))
    rank = np.argsort(np.argsort(days))  # of a day, its place in the drawn order
    place = rank[np.searchsorted(np.sort(days), flights.day[known])]
    by_day = known[np.argsort(place, kind="stable")]
    found = {}
    for name, order in (("flights drawn at random", shuffled), ("days drawn at random", by_day)):
        training, validation, test = np.split(order, [number, number + held])
        one = dataclasses.replace(settings, members=1)
        trained = models.network(given, labels, training, validation, one)
        found[name] = metrics.roc_auc(labels[test], trained.outputs[test])
    return found


def classifiers(
    name: str,
    given: models.Inputs,
    columns: Mapping[str, NDArray],
    labels: NDArray,
    parts: table.Split,
    settings: tuple[models.Settings, models.Settings],
    config: Config,
) -> dict[str, models.Trained]:
    """The network, logistic regression and scikit-learn's rivals, trained one after the other."""
    network, linear = settings
    data = given, labels, parts.training, parts.validation
    compared = columns, labels, parts.training
    trainings = {
        "network": lambda: models.network(*data, network),
        "logistic": lambda: models.logistic(*data, linear),
        "scikit-learn, logistic": lambda: models.scikit_learn(
            "logistic", given, *compared, iterations=config.iterations
        ),
        "scikit-learn, boosting": lambda: models.scikit_learn(
            "boosting", given, *compared, iterations=config.iterations
        ),
    }
    trained: dict[str, models.Trained] = {}
    for kind, training in trainings.items():
        trained[kind] = training()
        figures = judging.classification(labels[parts.test], trained[kind].outputs[parts.test])
        print(
            f"{name}, {kind}: AUC {figures['AUC']:.4f}, log loss {figures['log loss']:.4f}, "
            f"{trained[kind].seconds:.0f} s",
            flush=True,
        )
    return trained


def delays(
    given: models.Inputs,
    columns: Mapping[str, NDArray],
    minutes: NDArray,
    parts: table.Split,
    settings: models.Settings,
    config: Config,
) -> dict[str, NDArray[np.float64]]:
    """Minutes of delay, as four ways of learning them foretell them, for all flights."""
    typical = float(np.median(minutes[parts.training]))
    spread = 1.4826 * float(np.median(np.abs(minutes[parts.training] - typical)))
    found = {"median of training": np.full(len(minutes), typical)}
    alone = dataclasses.replace(settings, members=1)
    for kind, loss_function in (
        ("network, Huber loss", models.huber),
        ("network, squared loss", losses.squared),
    ):
        found[kind] = models.network(
            given, minutes, parts.training, parts.validation, alone,
            loss=loss_function, scale=(typical, spread),
        ).outputs  # fmt: skip
    found["scikit-learn, boosting, absolute loss"] = models.scikit_learn(
        "boosted delay", given, columns, minutes, parts.training, iterations=config.iterations
    ).outputs
    return found


def on_clock(
    name: str,
    columns: Mapping[str, NDArray],
    flights: table.Flights,
    parts: table.Split,
    config: Config,
) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Both questions on one clock."""
    labels = (flights.arr_delay > LATE).astype(np.float64)
    minutes = np.nan_to_num(flights.arr_delay)
    settings = dataclasses.replace(models.NETWORKS[name], seed=config.seed, members=config.members)
    linear = dataclasses.replace(models.LOGISTIC, seed=config.seed)
    if config.smoke:
        small: dict[str, Any] = {"batch_size": 512, "epochs": 2.0, "monitor": False}
        settings = dataclasses.replace(settings, widths=(16,), **small)
        linear = dataclasses.replace(linear, **small)
    began = time.perf_counter()
    given, gate = models.inputs(columns, parts.training)
    print(f"{name}: {given.number} inputs, {time.perf_counter() - began:.0f} s", flush=True)

    trained = classifiers(name, given, columns, labels, parts, (settings, linear), config)
    classification = {
        kind: {
            **judging.classification(labels[parts.test], each.outputs[parts.test]),
            "validation": judging.classification(
                labels[parts.validation], each.outputs[parts.validation]
            ),
            "seconds": each.seconds,
            "seconds of compiling": each.compile_seconds,
        }
        for kind, each in trained.items()
    }
    network = trained["network"]
    logits = network.outputs
    loss = np.logaddexp(0.0, np.where(labels == 1, -logits, logits))[parts.test]
    missing_rates, under = judging.gaps(columns, loss, parts)

    regression = {
        kind: judging.regression(minutes[parts.test], each[parts.test])
        for kind, each in delays(given, columns, minutes, parts, settings, config).items()
    }

    rival = trained["scikit-learn, boosting"].outputs
    result = {
        "columns": len(columns),
        "inputs": given.number,
        "gate on features": gate,
        "settings": dataclasses.asdict(settings),
        "classification": classification,
        "network less boosting": judging.differences(
            labels[parts.test],
            logits[parts.test],
            rival[parts.test],
            flights.day[parts.test],
            config.resamples,
        ),
        "regression": regression,
        "thresholds": judging.thresholds(labels, judging.probability(logits), parts),
        "slices": judging.slices(flights, labels, logits, parts.test, config.resamples),
        "missing": missing_rates,
        "under-represented": under,
        "findings": [[str(f) for f in each] for each in network.findings]
        if settings.monitor
        else None,
    }
    if name == "early":
        result["random split"] = {
            **random_splits(given, labels, flights, parts, settings),
            "split by time": metrics.roc_auc(labels[parts.test], network.members[0][parts.test]),
        }
    assert network.curves is not None
    (steps, curve), (at, held_out) = network.curves
    arrays = {
        "labels": labels[parts.test],
        "logits": logits[parts.test],
        "boosting": rival[parts.test],
        "steps": steps,
        "loss": curve,
        "validation_steps": at,
        "validation_loss": held_out,
    }
    return result, {f"{name} {key}": values for key, values in arrays.items()}


def shortened(flights: table.Flights) -> NDArray[np.int64]:
    """The flights of two weeks in each part of the year."""
    return np.flatnonzero(
        np.any([(flights.day >= d) & (flights.day < d + 14) for d in (200, 260, 320)], axis=0)
    )


def main(arguments: Sequence[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.flights")
    if config.again is not None:
        report.write(config.again)
        print(f"report: {config.again / 'report.html'}")
        return 0
    if config.iterations < 2 or config.members < 1 or config.resamples < 2:
        print("--iterations and --resamples must be at least 2, --members at least 1")
        return 2
    run = config.run_dir
    if run is None:
        run = Path("runs/flights") / time.strftime("%Y%m%d-%H%M%S")
    run.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    flights, weather = table.read()
    everything = len(flights)
    if config.smoke:
        flights = flights.take(shortened(flights))
        config = dataclasses.replace(config, iterations=5, resamples=20)
    parts = table.split(flights)
    weather, anomalies = checked(flights, weather, parts, run)
    results: dict[str, Any] = {
        "command": " ".join(["python -m experiments.flights", *arguments]),
        "environment": bench.environment(),
        "flights": everything,
        "left out, cancelled or diverted": int((~np.isfinite(flights.arr_delay)).sum()),
        "rows": {
            f.name: len(getattr(parts, f.name)) for f in dataclasses.fields(parts)
        },
        "anomalies": anomalies,
        "clocks": {},
    }  # fmt: skip
    arrays: dict[str, NDArray] = {}
    makers = {"early": clocks.early, "late": clocks.late}
    for name in config.clocks:
        columns = makers[name](flights, weather)
        print(f"{name}: {len(columns)} columns, {time.perf_counter() - began:.0f} s", flush=True)
        results["clocks"][name], more = on_clock(name, columns, flights, parts, config)
        arrays |= more
    results["seconds"] = time.perf_counter() - began
    (run / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    kept: dict[str, Any] = arrays
    np.savez_compressed(run / "predictions.npz", **kept)
    report.write(run)
    for name, result in results["clocks"].items():
        reports.table(
            f"{report.TITLES[name]}: more than 15 minutes late? November and December",
            ["model", "AUC", "AP", "log loss", "seconds"],
            [
                [kind, *(f"{each[m]:.4f}" for m in ("AUC", "AP", "log loss")), each["seconds"]]
                for kind, each in result["classification"].items()
            ],
        )
    print(f"report: {run / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
