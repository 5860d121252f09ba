"""What do answers cost that are computed before they are asked for, and how many queries do they serve?

    python -m experiments.static_inference                      one minute
    python -m experiments.static_inference --bundle STORE       with a model of one's own

- **A whole table**: rows a second of `python -m jaxml.serving predict`, which reads a Parquet file chunk by
  chunk, checks the rows and writes the answers, against the model's answers to the same columns in memory.
  Without `--bundle` the model is a small network of the flights that was not trained.
- **Look-ups**: microseconds of CPU time for the answer to a key, and what the model takes for a row.
- **Coverage**: the names of all populated places, ordered by population, are asked for with a frequency of
  1 / rank^s. The most populous 0.1 %, 1 %, 5 % and 20 % of the names are in a store; which share of the
  queries does it answer?

Expect three quarters of the speed of the model in memory, look-ups of 4 to 10 µs, and, at s = 1, that 1 %
of the names answers 68 % of the queries.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command
from jaxml import features, models, reports, serving
from jaxml.data import flights, geonames
from jaxml.serving import lookup, static
from jaxml.serving.manifest import Tensor
from jaxml.serving.store import bundle_of
from jaxml.validation import writers
from jaxml.validation.schema import infer_schema

CACHED = (0.001, 0.01, 0.05, 0.2)  # shares of the names
EXPONENTS = (0.8, 1.0, 1.2)
KEY = "row id"


@dataclasses.dataclass(frozen=True)
class Config:
    """Speed of static inference, and which share of queries it can serve."""

    bundle: Path | None = None
    """A store or a bundle, whose training rows are answered again and again; None for a small model."""
    num_rows: int = 100_000
    """Rows of the table."""
    num_keys: int = 200_000
    """Keys of the files in which is looked up."""
    num_queries: int = 200_000
    """Queries for places, for each exponent."""
    repeats: int = 5
    """How often each is measured, in turn."""
    seed: int = 0
    """Seed of the keys that are asked for and of the queries."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def small_bundle(path: Path, columns: Mapping[str, Any]) -> serving.Bundle:
    """Writes and returns a bundle of a network of the flights, with random parameters."""
    pipeline = features.FeaturePipeline(
        {
            **{name: features.vocabulary() for name in ("carrier", "origin", "dest")},
            "distance": [features.log_scaling(), features.z_score()],
            "hour": features.bucketize([7, 10, 13, 16, 19]),
            "dep_delay": [features.imputation("mean"), features.z_score()],
            "dep_delay is missing": ("dep_delay", features.missing_indicator()),
        }
    ).fit(columns)
    module = models.TabularMLP(pipeline.id_sizes, 8, (256, 128), 1)
    dense, ids = pipeline.stack(pipeline({name: each[:2] for name, each in columns.items()}))
    serving.save(
        path,
        model=lambda params, x: {"probability": jax.nn.sigmoid(module.apply(params, x)[..., 0])},
        params=module.init(jax.random.key(0), {"dense": dense, "ids": ids}),
        pipeline=pipeline,
        schema=infer_schema(columns),
        training=columns,
        name="flights",
    )
    return serving.load(path)


def flight_columns() -> dict[str, Any]:
    """Returns columns of all flights of 2013."""
    texts = flights.read_flights(["carrier", "origin", "dest", "distance", "hour", "dep_delay"])
    whole = {name: texts[name].astype(np.int64) for name in ("distance", "hour")}
    late = np.where(texts["dep_delay"] == "", "nan", texts["dep_delay"]).astype(np.float64)
    return {**texts, **whole, "dep_delay": late}


def timed(
    work: Callable[..., Any], *arguments: Any, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Returns the seconds that a call takes."""
    started = clock()
    work(*arguments)
    return clock() - started


def measure_table(config: Config, scratch: Path) -> tuple[dict[str, Any], serving.Bundle]:
    """Returns rows a second of the model in memory and of `predict`; leaves answers with look-ups."""
    if config.bundle is None:
        columns = flight_columns()
        bundle = small_bundle(scratch / "bundle", columns)
    else:
        bundle = serving.load(bundle_of(config.bundle)[0])
        columns = bundle.training()
    number = len(next(iter(columns.values())))
    columns = {n: each[np.arange(config.num_rows) % number] for n, each in columns.items()}
    columns[KEY] = np.arange(config.num_rows)
    table = scratch / "table.parquet"
    writers.write_parquet(table, columns)
    bundle.warm()
    ways: dict[str, Callable[[Path], Any]] = {
        "memory": lambda out: bundle.predict(columns),
        "predict": lambda out: static.predict(bundle, table, out),
        "predict with a key": lambda out: static.predict(bundle, table, out, key=KEY),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in reports.progress(range(config.repeats + 1), "turn"):
        for name, work in ways.items():
            seconds = timed(work, scratch / f"{name} {turn}")
            if turn:  # The first compiles and imports.
                rates[name].append(config.num_rows / seconds)
    ratios = [a / b for a, b in zip(rates["predict"], rates["memory"], strict=True)]
    record = {
        "model": bundle.manifest.name,
        "columns": len(bundle.columns),
        "rows": config.num_rows,
        "rows_per_second": {name: statistics.median(each) for name, each in rates.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }
    return record, bundle


def one_by_one(file: lookup.Lookup, keys: list[str]) -> None:
    for key in keys:
        file.get(key)


def by_500(file: lookup.Lookup, keys: list[str]) -> None:
    for at in range(0, len(keys), 500):
        file.many(keys[at : at + 500])


def measure_look_ups(config: Config, scratch: Path) -> list[dict[str, Any]]:
    """Returns microseconds of CPU time a look-up, for two kinds of answers; each warm, decoded."""
    rng = np.random.default_rng(config.seed)
    number = config.num_keys
    keys = [f"a key of {i}" for i in rng.permutation(number)]
    names = np.array([f"Saint-Étienne-du-Rouvray {i}, FR" for i in range(5000)], object)
    one = {"probability": rng.random(number, np.float32)}
    five = {
        "place": names[rng.integers(0, len(names), (number, 5))],
        "probability": rng.random((number, 5), np.float32),
    }
    asked = [keys[i] for i in rng.integers(0, number, 10_000)]
    records = []
    for answer, outputs in (("a probability", one), ("5 places, 5 probabilities", five)):
        path = scratch / f"{answer}.sqlite"
        kinds = [Tensor(name, "", (-1, *each.shape[1:])) for name, each in outputs.items()]
        writer = lookup.Writer(path, kinds)
        seconds = timed(writer.add, keys, range(number), outputs, clock=time.process_time)
        writer.finish()
        file = lookup.Lookup(path)
        took = {}
        for name, work in (("us_one", one_by_one), ("us_of_500", by_500)):
            work(file, asked)
            took[name] = 1e6 * statistics.median(
                timed(work, file, asked, clock=time.process_time) / len(asked)
                for _ in range(config.repeats)
            )
        size = path.stat().st_size / number
        records.append(
            {"answer": answer, "keys": number, **took, "build_s": seconds, "bytes_per_key": size}
        )
    return records


def measure_cached(config: Config, scratch: Path, bundle: serving.Bundle) -> dict[str, float]:
    """Returns microseconds of `Cached` and of the model, for a row and for each of 500 rows."""
    cached = serving.Cached(bundle, scratch / f"predict with a key {config.repeats}")
    training = bundle.training()
    found = {}
    for rows in (1, 500):
        columns = {name: each[:rows] for name, each in training.items()}
        for name, work, given in (
            ("cached", cached.predict, {KEY: np.arange(rows)}),
            ("model", bundle.predict, columns),
        ):
            work(given)
            seconds = [timed(work, given) for _ in range(20 * config.repeats)]
            found[f"us_{name}_{rows}"] = 1e6 * statistics.median(seconds) / rows
    return found


def names_by_population(cities: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns the place that each name means, the most populous places first."""
    places: dict[str, str] = {}
    order = sorted(cities.values(), key=lambda each: (-each["population"], each["geonameid"]))
    for record in order:
        for name in (record["name"], *sorted(filter(None, record["alternatenames"]))):
            places.setdefault(name, f"{record['name']}, {record['countrycode']}")
    return places


def measure_coverage(config: Config, scratch: Path) -> Iterator[dict[str, Any]]:
    """Yields the share of queries that a store of the most frequent names answers."""
    places = names_by_population(geonames.read_cities())
    names, ranks = list(places), np.arange(1, len(places) + 1)
    answers = np.array(list(places.values()), object)
    stores = {}
    for share in CACHED:
        size = max(1, round(share * len(names)))
        path = scratch / f"names {share}.sqlite"
        writer = lookup.Writer(path, [Tensor("place", "BYTES", (-1,))])
        writer.add(names[:size], range(size), {"place": answers[:size]})
        writer.finish()
        stores[share] = size, lookup.Lookup(path)
    rng = np.random.default_rng(config.seed)
    for exponent in EXPONENTS:
        mass = np.cumsum(ranks**-exponent)
        mass /= mass[-1]
        queries = [names[i] for i in np.searchsorted(mass, rng.random(config.num_queries))]
        for share, (size, store) in stores.items():
            found = store.many(list(dict.fromkeys(queries)))
            yield {
                "exponent": exponent,
                "cached_share": share,
                "cached_names": size,
                "names": len(names),
                "answered": sum(query in found for query in queries) / len(queries),
                "expected": float(mass[size - 1]),
            }


def show(record: Mapping[str, Any], path: Path) -> None:
    """Prints the record and draws the coverage."""
    whole = record["table"]
    reports.table(
        f"{whole['rows']:,} rows of {whole['columns']} columns, {whole['model']}",
        ["", "rows/s"],
        [[name, f"{rate:,.0f}"] for name, rate in whole["rows_per_second"].items()],
    )
    reports.table(
        "Look-ups, warm",
        ["answer", "µs, one", "µs each, of 500", "building s", "bytes a key"],
        [
            [row["answer"], *(round(row[n], 1) for n in ("us_one", "us_of_500", "build_s")),
             round(row["bytes_per_key"])]
            for row in record["look_ups"]
        ],
    )  # fmt: skip
    rows = record["coverage"]
    reports.table(
        f"Queries answered from a store, of {rows[0]['names']:,} names",
        ["names in the store", *(f"s = {each}" for each in EXPONENTS)],
        [
            [f"{100 * share:g} %", *(f"{100 * r['answered']:.0f} %" for r in rows
                                     if r["cached_share"] == share)]
            for share in CACHED
        ],
    )  # fmt: skip
    reports.plots.curves(
        {
            f"s = {each}": (
                [100 * row["cached_share"] for row in rows if row["exponent"] == each],
                [100 * row["answered"] for row in rows if row["exponent"] == each],
            )
            for each in EXPONENTS
        },
        xlabel="names in the store, % (of the most populous places)",
        ylabel="queries answered from it, %",
        title="Queries of frequency 1 / rank^s answered before they are asked",
        path=path,
    )


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    with tempfile.TemporaryDirectory() as scratch:
        table, bundle = measure_table(config, Path(scratch))
        record = {
            "table": table,
            "cached": measure_cached(config, Path(scratch), bundle),
            "look_ups": measure_look_ups(config, Path(scratch)),
            "coverage": list(measure_coverage(config, Path(scratch))),
        }
    show(record, run_dir / "results.png")
    return record


def main(arguments: Sequence[str]) -> int:
    return command.run("static_inference", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
