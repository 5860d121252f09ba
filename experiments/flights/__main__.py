"""Will a flight arrive more than 15 minutes late, predicted before departure? And how late?

    python -m experiments.flights                  nine minutes on two cores
    python -m experiments.flights --smoke          two weeks of each part of the year, to see that it runs

336,776 flights left New York City in 2013. Models are trained on January to August, validated on September
and October, and tested on November and December. Cancelled and diverted flights have no arrival delay and
are left out. There are two clocks: 18:00 of the day before, with the weather as it was in place of a
forecast, and 30 minutes before the scheduled departure, with nothing that happened later (`clocks.py`;
tests rewrite later events and compare every feature).

The path of a row: the raw table is checked against a schema drafted from the training months; a clock
computes its columns; a `FeaturePipeline` fitted on the training months turns them into float32 numbers and
int32 ids; networks and logistic regression are trained under the monitor; thresholds are chosen on the
validation months; all models, scikit-learn's on the same features included, are compared on the test
months.

A run writes the schemas and pictures beside its record, and leaves two candidates that
`python -m jaxml.serving publish` takes: RUN, the network of the late clock, and RUN/early.

Expected result, AUC and log loss on the test months with the average of two networks: the evening before at
least 0.738 and about 0.487 (gradient boosting 0.737 and 0.494), 30 minutes before at least 0.795 and about
0.439 (boosting 0.794 and 0.4415). The differences to boosting have intervals in results.json.
"""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments import command
from experiments.flights import candidate, clocks, judging, models, report, table
from jaxml import bench, losses, metrics, reports
from jaxml.validation import leaks, schema

LATE = 15.0
CLOCKS = {"early": clocks.early, "late": clocks.late}


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains and compares models of delays, with the information of two times before departure."""

    smoke: bool = False
    """Use two weeks of each part of the year and the smallest models."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""
    seed: int = 0
    """Seed of the first network."""

    @property
    def iterations(self) -> int:
        """The number of trees of gradient boosting."""
        return 5 if self.smoke else 200


def checked(
    flights: table.Flights, weather: NDArray, parts: table.Split, run: Path
) -> tuple[NDArray, dict[str, Any]]:
    """Returns the weather without impossible values, and the anomalies that schemas find in the tables.

    The schemas are drafted from the training months and reviewed: times and months may go on, and wind is
    at most 150 miles an hour (the draft had learned its maximum from a typing error).
    """
    columns = {name: v for name, v in flights.columns().items() if name != "evening"}

    def part(rows: NDArray) -> dict[str, NDArray]:
        return {name: values[rows] for name, values in columns.items()}

    def reviewed(drafted: schema.Schema, names: Sequence[str], **bounds: Any) -> schema.Schema:
        changed = {name: dataclasses.replace(drafted.features[name], **bounds) for name in names}
        return dataclasses.replace(drafted, features={**drafted.features, **changed})

    drafted = schema.infer_schema(part(parts.training)).without("arr_delay", "SERVING")
    times = ("scheduled", "departed", "arrived", "day", "month")
    drafted = reviewed(drafted, times, min=None, max=None)
    drafted.save(run / "schema-flights.toml")
    scheduled, found = flights.scheduled, {}
    for name, rows in (("validation", parts.validation), ("test", parts.test)):
        early = leaks.time_overlap(scheduled[parts.training], scheduled[rows], "scheduled")
        found[name] = [str(each) for each in (*schema.validate(part(rows), drafted), *early)]

    hours = np.argwhere(~np.isnan(weather[..., 0]))
    values = weather[hours[:, 0], hours[:, 1]]
    observed = {name: values[:, i] for i, name in enumerate(table.MEASURES)}
    trained = hours[:, 1] <= int(scheduled[parts.training].max()) // 60
    drafted = schema.infer_schema({name: v[trained] for name, v in observed.items()})
    drafted = reviewed(drafted, ["wind_speed"], min=0.0, max=150.0)
    drafted.save(run / "schema-weather.toml")
    anomalies = schema.validate(observed, drafted)
    found["weather"] = [str(each) for each in anomalies]
    cleaned = weather.copy()
    for each in anomalies:
        if each.column == "wind_speed":
            rows = hours[each.rows]
            cleaned[rows[:, 0], rows[:, 1], table.MEASURES.index("wind_speed")] = np.nan
    return cleaned, found


def delays(
    inputs: models.Inputs,
    columns: Mapping[str, NDArray],
    minutes: NDArray,
    parts: table.Split,
    settings: models.Settings,
    iterations: int,
) -> dict[str, Any]:
    """Returns the errors of four predictions of the delay in minutes, on the test months."""
    typical = float(np.median(minutes[parts.training]))
    spread = 1.4826 * float(np.median(np.abs(minutes[parts.training] - typical)))
    predicted = {"median of training": np.full(len(minutes), typical)}
    for kind, loss in (("Huber", models.huber), ("squared", losses.squared)):
        predicted[f"network, {kind} loss"] = models.network(
            inputs, minutes, parts, settings, loss=loss, scale=(typical, spread)
        ).outputs
    predicted["scikit-learn, boosting, absolute loss"] = models.boosting(
        columns, minutes, parts.training, iterations=iterations, regression=True
    ).outputs
    return {
        kind: judging.regression(minutes[parts.test], each[parts.test])
        for kind, each in predicted.items()
    }


def random_splits(
    inputs: models.Inputs,
    labels: NDArray,
    day: NDArray,
    parts: table.Split,
    settings: models.Settings,
) -> dict[str, float]:
    """Returns the AUC of one network if test flights are drawn at random, one by one or by whole days."""
    known = np.concatenate([parts.training, parts.validation, parts.test])
    rng = np.random.default_rng(0)
    ends = np.cumsum([len(parts.training), len(parts.validation)])
    shuffled = rng.permutation(known)
    days = rng.permutation(np.unique(day[known]))
    place = np.argsort(np.argsort(days))[np.searchsorted(np.sort(days), day[known])]
    by_day = known[np.argsort(place, kind="stable")]
    found = {}
    for name, order in (("flights drawn at random", shuffled), ("days drawn at random", by_day)):
        split = table.Split(*np.split(order, ends))
        outputs = models.network(inputs, labels, split, settings).outputs
        found[name] = metrics.roc_auc(labels[split.test], outputs[split.test])
    return found


def on_clock(
    clock: str,
    columns: Mapping[str, NDArray],
    flights: table.Flights,
    parts: table.Split,
    config: Config,
    run: Path,
) -> dict[str, Any]:
    """Returns the results of one clock, draws its thresholds, and leaves a candidate."""
    labels = (flights.arr_delay > LATE).astype(np.float64)
    settings = dataclasses.replace(models.NETWORKS[clock], seed=config.seed)
    linear = dataclasses.replace(models.LOGISTIC, seed=config.seed)
    if config.smoke:
        small: dict[str, Any] = {"batch_size": 512, "epochs": 2.0, "monitor": False}
        settings = dataclasses.replace(settings, widths=(16,), **small)
        linear = dataclasses.replace(linear, **small)
    alone = dataclasses.replace(settings, members=1)
    inputs = models.inputs(columns, parts.training)
    training, validation, test = parts.training, parts.validation, parts.test
    trainings = {
        "network": lambda: models.network(inputs, labels, parts, settings),
        "logistic": lambda: models.logistic(inputs, labels, parts, linear),
        "scikit-learn, logistic": lambda: models.scikit_learn_logistic(
            inputs, labels, training, iterations=config.iterations
        ),
        "scikit-learn, boosting": lambda: models.boosting(
            columns, labels, training, iterations=config.iterations
        ),
    }
    trained: dict[str, models.Trained] = {}
    classification: dict[str, dict[str, Any]] = {}
    for kind, train in trainings.items():
        trained[kind] = train()
        outputs = trained[kind].outputs
        classification[kind] = {
            **judging.classification(labels[test], outputs[test]),
            "validation": judging.classification(labels[validation], outputs[validation]),
            "seconds": trained[kind].seconds,
        }
        figures = classification[kind]
        print(
            f"{clock}, {kind}: AUC {figures['AUC']:.4f}, log loss {figures['log loss']:.4f}, "
            f"{figures['seconds']:.0f} s",
            flush=True,
        )
    own, less = judging.intervals(
        labels[test],
        {kind: each.outputs[test] for kind, each in trained.items()},
        flights.day[test],
        20 if config.smoke else 200,
    )
    for kind, ends in own.items():
        classification[kind] |= {f"{name} interval": each for name, each in ends.items()}
    network = trained["network"]
    chosen = judging.thresholds(labels, judging.probability(network.outputs), parts)
    report.thresholds(
        run / f"{clock}-thresholds.png", clock, chosen, labels[test], network.outputs[test]
    )
    candidate.leave(
        run,
        clock,
        columns,
        flights,
        parts,
        inputs=inputs,
        settings=settings,
        trained=trained,
        figures=classification["network"],
        late=labels,
    )
    minutes = np.nan_to_num(flights.arr_delay)
    result = {
        "columns": len(columns),
        "inputs": inputs.number,
        "gate on features": inputs.findings,
        "settings": dataclasses.asdict(settings),
        "classification": classification,
        "network less boosting": less,
        "regression": delays(inputs, columns, minutes, parts, alone, config.iterations),
        "thresholds": chosen,
        "findings": [[str(found) for found in each] for each in network.findings],
    }
    if clock == "early":
        result["random split"] = {
            **random_splits(inputs, labels, flights.day, parts, alone),
            "split by time": metrics.roc_auc(labels[test], network.members[0][test]),
        }
    return result


def shortened(flights: table.Flights) -> NDArray[np.int64]:
    """Returns the rows of two weeks in each part of the year."""
    return np.flatnonzero(
        np.any([(flights.day >= d) & (flights.day < d + 14) for d in (200, 260, 320)], axis=0)
    )


def experiment(config: Config, run: Path) -> dict[str, Any]:
    """Trains, judges and draws; returns the record."""
    bench.compilation_cache()
    began = time.perf_counter()
    flights, weather = table.read()
    everything = len(flights)
    if config.smoke:
        flights = flights.take(shortened(flights))
    parts = table.split(flights)
    weather, anomalies = checked(flights, weather, parts, run)
    results: dict[str, Any] = {
        "flights": everything,
        "left out, cancelled or diverted": int((~np.isfinite(flights.arr_delay)).sum()),
        "rows": {name: len(rows) for name, rows in vars(parts).items()},
        "anomalies": anomalies,
        "clocks": {},
    }
    for clock, columns_of in CLOCKS.items():
        columns = columns_of(flights, weather)
        print(f"{clock}: {len(columns)} columns, {time.perf_counter() - began:.0f} s", flush=True)
        result = on_clock(clock, columns, flights, parts, config, run)
        results["clocks"][clock] = result
        reports.table(
            f"{report.TITLES[clock]}: more than 15 minutes late? November and December",
            ["model", "AUC", "AP", "log loss", "seconds"],
            [
                [kind, *(f"{each[m]:.4f}" for m in ("AUC", "AP", "log loss")), each["seconds"]]
                for kind, each in result["classification"].items()
            ],
        )
    results["seconds"] = time.perf_counter() - began
    report.models(run / "models.png", results["clocks"])
    return results


def main(arguments: Sequence[str]) -> int:
    return command.run("flights", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
