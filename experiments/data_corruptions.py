"""Which damage to a table is found, and how often is an undamaged table reported?

    python -m experiments.data_corruptions                       two or three minutes
    python -m experiments.data_corruptions --num-rows 2000       the same damage in tables of 2,000 rows
    python -m experiments.data_corruptions --later               tables from the months after the reference

Half of the flights of 2013 are the reference: a schema is inferred from them, and their statistics are
kept. Tables are drawn from the other half, damaged in one of the ways below (or not at all), and checked
against both. A damaged table counts as caught, a clean one as accused, if anything is
found.

With `--later` the reference is January to August, with its months as spans, and the tables come from the
months after: the season's changes must be tolerated, which takes some of the power to see damage.

Expect, with five seeds of 31 kinds of damage (`experiments/results/data-corruptions*.json`):

| tables | damaged, caught | clean, accused |
|---|---|---|
| 20,000 rows (`--num-clean 400`) | 155 of 155 | 1 of 400 |
| 2,000 rows (`--num-clean 200`) | 153 of 155 | 1 of 200 |
| 20,000 rows, later months (`--num-clean 200`) | 120 of 155 | 0 of 200 |

In later months, damage that looks like a season is not caught: labels flipped, late flights missing, a
month in another's place, rows cut off, five hours added to a clock that summer time moves against others.
"""

import dataclasses
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command
from jaxml import reports
from jaxml.data import flights
from jaxml.validation import readers, schema, statistics
from jaxml.validation.anomalies import Anomaly

Table = dict[str, np.ndarray]

TEXTS = ("carrier", "tailnum", "origin", "dest")
LABEL = "late"


@dataclasses.dataclass(frozen=True)
class Config:
    """Damages tables of real flights in many ways, and counts how many are found."""

    num_rows: int = 20_000
    """Rows of each table that is checked."""
    num_clean: int = 100
    """Undamaged tables."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each damage is done once for each seed; a seed also has its own halves."""
    significance: float = 0.01
    """Probability of a false alarm on a table, all tests together."""
    later: bool = False
    """Check tables from the months after the reference, not from among it."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def read_table() -> Table:
    """Returns the flights with the label: more than 15 minutes late (unknown if cancelled).

    Left out are the year, which is 2013, and the delay on arrival, of which the label is made.
    """
    names = (
        "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time",
        "arr_delay", "carrier", "flight", "tailnum", "origin", "dest", "air_time", "distance", "hour",
        "minute", "time_hour",
    )  # fmt: skip
    table: Table = {}
    for name, values in flights.read_flights(names).items():
        gaps = values == ""
        if name in TEXTS:
            table[name] = values
        elif name == "time_hour":
            table[name] = np.array([text.rstrip("Z") for text in values.tolist()], "M8[s]")
        else:
            numbers = np.where(gaps, "nan", values).astype(np.float64)
            table[name] = numbers if gaps.any() else numbers.astype(np.int64)
    delay = table.pop("arr_delay")
    table[LABEL] = np.where(np.isnan(delay), np.nan, delay > 15)
    return table


@dataclasses.dataclass(frozen=True)
class Bed:
    """A reference, its schema and statistics, and the rows that tables are drawn from."""

    table: Table
    reference: np.ndarray
    rest: np.ndarray
    schema: schema.Schema
    statistics: statistics.Statistics
    significance: float
    folder: Path

    def draw(self, num_rows: int, rng: np.random.Generator) -> Table:
        """Returns rows of the rest, in their order."""
        rows = np.sort(rng.choice(self.rest, min(num_rows, len(self.rest)), replace=False))
        return take(self.table, rows)

    def check(self, given: "Table | Path") -> list[Anomaly]:
        """Returns what schema and statistics find in a table or in a file."""
        if isinstance(given, Path):
            try:
                given = readers.read_csv(given, self.schema, missing=("", "NA"))
            except readers.BadFile as error:
                kind = "DATASET_LOW_NUM_EXAMPLES"
                return [Anomaly(kind, error.column, f"the file is refused: {error}")]
        return [
            *schema.validate(given, self.schema),
            *statistics.find_changes(given, self.statistics, significance=self.significance),
        ]


def take(table: Table, rows: np.ndarray) -> Table:
    return {name: values[rows] for name, values in table.items()}


def reviewed(known: Table) -> schema.Schema:
    """Returns the schema inferred, with what a person corrects in it.

    A flight's number is a name, without a range, airports are added to the net, and one value in two
    thousand may lie outside of its range: of the year's flights one has a distance of 17 miles.
    """
    drafted = schema.infer_schema(known, min_domain_mass=0.9995)
    free = {"min": None, "max": None, "domain": None, "min_domain_mass": 1.0}
    return drafted.replace("flight", **free).replace("dest", **free)


def make_bed(table: Table, seed: int, config: Config, folder: Path) -> Bed:
    """Returns the bed of a seed, whose reference is a random half, or the months to August."""
    size = len(table["month"])
    if config.later:
        reference = np.flatnonzero(table["month"] <= 8)
        known = take(table, reference)
        wanted = reviewed(known).replace("month", max=12)  # A reviewer knows that a year has more.
        kept = statistics.generate_statistics(known, spans=known["month"])
    else:
        order = np.random.default_rng([seed, 1]).permutation(size)
        reference = np.sort(order[: size // 2])
        known = take(table, reference)
        wanted, kept = reviewed(known), statistics.generate_statistics(known)
    rest = np.setdiff1d(np.arange(size), reference)
    if config.num_rows > len(rest):
        raise ValueError(f"num_rows must be at most {len(rest)}, got {config.num_rows}")
    return Bed(table, reference, rest, wanted, kept, config.significance, folder)


# --------------------------------------------------------------------------------------------- damage

Damage = Callable[[Table, np.random.Generator, Bed], Table | Path]


def some(table: Table, share: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a random share of the rows."""
    size = len(table["month"])
    return rng.choice(size, max(1, round(share * size)), replace=False)


def changed(table: Table, name: str, change: Any, rows: Any = slice(None)) -> Table:
    """Returns the table with some rows of a column replaced by a value, or by a function of them."""
    column = table[name].astype(object) if table[name].dtype.kind == "U" else table[name].copy()
    column[rows] = change(column[rows]) if callable(change) else change
    return {**table, name: column.astype(np.str_) if column.dtype == object else column}


def column(name: str, change: Any, share: float | None = None) -> Damage:
    """Returns the damage of `changed`, in a random share of the rows or in all of them."""

    def damage(table: Table, rng: np.random.Generator, bed: Bed) -> Table:
        rows = slice(None) if share is None else some(table, share, rng)
        return changed(table, name, change, rows)

    return damage


def shuffled(name: str) -> Damage:
    return lambda table, rng, bed: changed(table, name, rng.permutation)


def swapped_times(table: Table, rng: np.random.Generator, bed: Bed) -> Table:
    rows = some(table, 0.2, rng)
    swapped = changed(table, "sched_dep_time", table["sched_arr_time"][rows], rows)
    return changed(swapped, "sched_arr_time", table["sched_dep_time"][rows], rows)


def duplicated_rows(table: Table, rng: np.random.Generator, bed: Bed) -> Table:
    rows = np.arange(len(table["month"]))
    return take(table, np.sort(np.concatenate([rows, some(table, 0.02, rng)])))


def shared_rows(table: Table, rng: np.random.Generator, bed: Bed) -> Table:
    size = len(table["month"])
    own = rng.choice(size, size - size // 20, replace=False)
    foreign = take(bed.table, rng.choice(bed.reference, size // 20, replace=False))
    return {name: np.concatenate([values[own], foreign[name]]) for name, values in table.items()}


def label_leak(table: Table, rng: np.random.Generator, bed: Bed) -> Table:
    """Deals the minutes out again among a third of the rows, the late flights first."""
    rows = np.sort(some(table, 0.33, rng))
    minutes = np.empty_like(table["minute"][rows])
    order = np.argsort(-np.nan_to_num(table[LABEL][rows]), kind="stable")
    minutes[order] = np.sort(table["minute"][rows])[::-1]
    return changed(table, "minute", minutes, rows)


def time_leak(table: Table, rng: np.random.Generator, bed: Bed) -> Table:
    rows = some(table, 0.15, rng)
    rows = rows[~np.isnan(table["dep_time"][rows])]
    return changed(table, "sched_dep_time", table["dep_time"][rows].astype(np.int64), rows)


def stale_data(table: Table, rng: np.random.Generator, bed: Bed) -> Table:
    """Delivers a month again in the place of the next, with the month overwritten."""
    month = rng.choice(np.unique(table["month"])[1:])
    again = take(table, np.flatnonzero(table["month"] == month - 1))
    again["month"] = np.full_like(again["month"], month)
    others = take(table, np.flatnonzero(table["month"] != month))
    return {name: np.concatenate([values, again[name]]) for name, values in others.items()}


def sampling_bias(table: Table, rng: np.random.Generator, bed: Bed) -> Table:
    """Drops half of the flights that leave more than half an hour late."""
    late = np.nan_to_num(table["dep_delay"]) > 30
    return take(table, np.flatnonzero(~late | (rng.random(len(late)) < 0.5)))


def cut_file(table: Table, rng: np.random.Generator, bed: Bed) -> Path:
    """Writes a CSV file that ends at a random byte of its second half."""
    columns = [
        ["NA" if text in ("", "nan") else text for text in values.astype(str).tolist()]
        for values in table.values()
    ]
    lines = [",".join(table), *(",".join(row) for row in zip(*columns, strict=True))]
    data = ("\n".join(lines) + "\n").encode()
    path = bed.folder / "table.csv"
    path.write_bytes(data[: int(rng.integers(len(data) // 2, len(data) - 1))])
    return path


def lowered(texts: np.ndarray) -> list[str]:
    return [text.lower() for text in texts]


def spaced(texts: np.ndarray) -> list[str]:
    return [text and f"{text} " for text in texts]


FIVE_HOURS = np.timedelta64(5, "h")

CORRUPTIONS: dict[str, tuple[str, Damage]] = {
    "unit change": ("distance in kilometres", column("distance", lambda v: np.round(v * 1.609344))),
    "scale by 1000": ("air_time × 1000", column("air_time", lambda v: v * 1000)),
    "unit change in part": (
        "air_time × 6 in 5 % of rows", column("air_time", lambda v: v * 6, 0.05)
    ),
    "sign flip": ("dep_delay negated in 10 %", column("dep_delay", np.negative, 0.1)),
    "swapped columns": (
        "origin and dest", lambda t, r, bed: {**t, "origin": t["dest"], "dest": t["origin"]}
    ),
    "swapped values": ("scheduled departure and arrival in 20 %", swapped_times),
    "shuffled column": ("dep_delay", shuffled("dep_delay")),
    "shuffled identifier": ("tailnum", shuffled("tailnum")),
    "join off by one row": ("distance", column("distance", lambda v: np.roll(v, 1))),
    "NaN flood": ("dep_delay in 20 %", column("dep_delay", np.nan, 0.2)),
    "missing in one slice": (
        "tailnum of carrier US", lambda t, r, bed: changed(t, "tailnum", "", t["carrier"] == "US")
    ),
    "gaps filled with 0": ("dep_delay", column("dep_delay", np.nan_to_num)),
    "plausible sentinel": ("air_time 99 in 2 %", column("air_time", 99.0, 0.02)),
    "new category": ("carrier ZZ in 1 %", column("carrier", "ZZ", 0.01)),
    "lower-case categories": ("dest in 2 %", column("dest", lowered, 0.02)),
    "trailing space": ("tailnum in 2 %", column("tailnum", spaced, 0.02)),
    "duplicated rows": ("2 % twice", duplicated_rows),
    "rows of the reference": ("5 % of rows", shared_rows),
    "label leak": ("minute follows the label in 33 %", label_leak),
    "time leak": ("scheduled time overwritten by the actual in 15 %", time_leak),
    "wrong labels": ("5 % flipped", column(LABEL, lambda v: 1 - v, 0.05)),
    "constant column": ("day", column("day", 15)),
    "type change": (
        "flight as text", lambda t, r, bed: {**t, "flight": t["flight"].astype(np.str_)}
    ),
    "precision lost": (
        "dep_delay to 5 minutes", column("dep_delay", lambda v: 5 * np.round(v / 5))
    ),
    "dropped column": (
        "distance", lambda t, r, bed: {n: v for n, v in t.items() if n != "distance"}
    ),
    "extra column": ("arr_delay", lambda t, r, bed: {**t, "arr_delay": t[LABEL] * 30}),
    "stale data": ("a month delivered again as the next", stale_data),
    "time zone": ("time_hour + 5 h in 20 %", column("time_hour", lambda v: v + FIVE_HOURS, 0.2)),
    "sampling bias": ("half of the late departures missing", sampling_bias),
    "rows cut off": (
        "the last fifth", lambda t, r, bed: take(t, np.arange(len(t["month"]) * 4 // 5))
    ),
    "file cut off": ("CSV ends at a random byte", cut_file),
}  # fmt: skip


# --------------------------------------------------------------------------------------------- the table


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    table = read_table()
    found: dict[str, list[set[str]]] = {name: [] for name in (*CORRUPTIONS, "clean")}
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for place, seed in enumerate(config.seeds):
            bed = make_bed(table, seed, config, Path(folder))
            for i in range(place, config.num_clean, len(config.seeds)):
                given = bed.draw(config.num_rows, np.random.default_rng([seed, 2, i]))
                started = time.perf_counter()
                found["clean"].append({each.kind for each in bed.check(given)})
                seconds.append(time.perf_counter() - started)
            kinds_of = reports.progress(CORRUPTIONS.items(), f"seed {seed}, damage")
            for i, (name, (_, damage)) in enumerate(kinds_of):
                rng = np.random.default_rng([seed, 3, i])
                damaged = damage(bed.draw(config.num_rows, rng), rng, bed)
                found[name].append({each.kind for each in bed.check(damaged)})
    counts = {name: sum(map(bool, each)) for name, each in found.items()}
    kinds = {
        name: dict(Counter(kind for each in runs for kind in each).most_common())
        for name, runs in found.items()
    }
    runs, accused, num_clean = len(config.seeds), counts.pop("clean"), len(found["clean"])
    caught, total = sum(counts.values()), runs * len(counts)
    rows: list[dict[str, Any]] = [
        {
            "corruption": name,
            "damage": CORRUPTIONS[name][0],
            "caught": count,
            "runs": runs,
            "kinds": kinds[name],
        }
        for name, count in counts.items()
    ]
    reports.table(
        f"damage to {config.num_rows:,} flights, {runs} tables each",
        ["", "damage", "caught", "as"],
        [
            [
                row["corruption"],
                row["damage"],
                f"{row['caught']}/{runs}",
                ", ".join([*row["kinds"]][:2]),
            ]
            for row in rows
        ],
    )
    print(
        f"caught {caught} of {total} ({caught / total:.1%}); accused {accused} of {num_clean} clean "
        f"tables {', '.join(kinds['clean'])}"
    )
    rows.append(
        {
            "corruption": "clean",
            "accused": accused,
            "runs": num_clean,
            "kinds": kinds["clean"],
            "all caught": caught,
            "all damaged": total,
            "num_rows": config.num_rows,
            "later": config.later,
            "significance": config.significance,
            "seconds a table": float(np.median(seconds)) if seconds else None,
        }
    )
    return rows


def main(arguments: Sequence[str]) -> int:
    return command.run("data_corruptions", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
