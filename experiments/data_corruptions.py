"""Which damage to a table is noticed, and how often is an undamaged one accused?

    python -m experiments.data_corruptions                       two or three minutes
    python -m experiments.data_corruptions --num-rows 2000       the same damage in tables of 2,000 rows
    python -m experiments.data_corruptions --later               tables from the months after the reference

Half of the flights of 2013 are the reference: a schema is inferred from them, and their statistics are
kept. Tables are drawn from the other half, damaged in one of the ways below (or not at all), and held
against both; the judge is `judge`, which knows neither the damage nor that there is any. A damage counts as
caught if anything is said, a clean table as accused likewise.

With `--later` the reference is January to August, with its months as spans, and the tables come from the
months after: what is new with the season must be borne, which takes some of the power to see damage.

To expect, with five seeds of 31 kinds of damage (`experiments/results/data-corruptions*.json`):

| tables | damaged, caught | clean, accused |
|---|---|---|
| 20,000 rows (`--num-clean 400`) | 155 of 155 | 1 of 400 |
| 2,000 rows (`--num-clean 200`) | 154 of 155 | 0 of 200 |
| 20,000 rows, later months (`--num-clean 200`) | 120 of 155 | 0 of 200 |

Not seen in later months is damage that looks like a season: labels flipped, late flights missing, a month
in another's place, rows cut off; nor five hours added to a clock that summer time moves against the others.
"""

import dataclasses
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from jaxml import bench, reports
from jaxml.data import flights
from jaxml.validation import readers, schema, statistics
from jaxml.validation.anomalies import Anomaly, anomaly

Table = dict[str, np.ndarray]
Damage = Callable[["Bed", Table, np.random.Generator], "Table | Path"]

TEXTS = ("carrier", "tailnum", "origin", "dest")
LABEL = "late"


@dataclasses.dataclass(frozen=True)
class Config:
    """Damage tables of real flights in many ways, and count what is noticed."""

    num_rows: int = 20_000
    """Rows of each table that is judged."""
    num_clean: int = 100
    """Undamaged tables."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each damage is done once to a table of each seed; a seed also has its own halves."""
    significance: float = 0.01
    """Probability of a false alarm on a table, all tests together."""
    later: bool = False
    """Judge tables from the months after the reference, not from among it."""
    corruptions: tuple[str, ...] = ()
    """Names of those to try; all if none is given."""
    json: Path | None = None
    """Where to write the rows."""


def read_table() -> Table:
    """The flights with the label: does it arrive more than 15 minutes late? (unknown if cancelled).

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
            if gaps.any():
                table[name] = values.astype(object)
                table[name][gaps] = None
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
    """A reference, what is kept of it, and the rows that tables are drawn from."""

    table: Table
    reference: np.ndarray
    rest: np.ndarray
    wanted: schema.Schema
    kept: statistics.Statistics
    significance: float
    folder: Path

    def draw(self, num_rows: int, rng: np.random.Generator) -> Table:
        """Rows of the rest, in their order."""
        rows = np.sort(rng.choice(self.rest, min(num_rows, len(self.rest)), replace=False))
        return take(self.table, rows)

    def judge(self, given: "Table | Path") -> list[Anomaly]:
        """What schema and statistics of the reference say of a table or of a file."""
        if isinstance(given, Path):
            try:
                given = readers.read_csv(given, self.wanted, missing=("", "NA"))
            except readers.BadFile as error:
                kind = "DATASET_LOW_NUM_EXAMPLES"
                return [anomaly(kind, error.column, f"the file is refused: {error}")]
        return [
            *schema.validate(given, self.wanted),
            *statistics.find_changes(given, self.kept, significance=self.significance),
        ]


def take(table: Mapping[str, np.ndarray], rows: np.ndarray) -> Table:
    """Some rows of a table."""
    return {name: values[rows] for name, values in table.items()}


def reviewed(known: Table) -> schema.Schema:
    """The schema inferred, and what a person sees in it.

    A flight's number is a name, without a range, airports are added to the net, and one value in two
    thousand may lie outside of its range: of the year's flights one has a distance of 17 miles.
    """
    drawn = schema.infer_schema(known, min_domain_mass=0.9995)
    free = {"min": None, "max": None, "domain": None, "min_domain_mass": 1.0}
    return drawn.replace("flight", **free).replace("dest", **free)


def make_bed(table: Table, seed: int, config: Config, folder: Path) -> Bed:
    """The reference of a seed: a random half, or the months to August."""
    size = len(table["month"])
    if config.later:
        months = table["month"]
        reference, rest = np.flatnonzero(months <= 8), np.flatnonzero(months > 8)
        known = take(table, reference)
        kept = statistics.generate_statistics(known, spans=known["month"])
        # What a person who reviews the schema knows: a year has more months.
        wanted = reviewed(known).replace("month", max=12)
    else:
        order = np.random.default_rng([seed, 1]).permutation(size)
        reference, rest = np.sort(order[: size // 2]), np.sort(order[size // 2 :])
        known = take(table, reference)
        kept, wanted = statistics.generate_statistics(known), reviewed(known)
    return Bed(table, reference, rest, wanted, kept, config.significance, folder)


# --------------------------------------------------------------------------------------------- damage


def some(table: Table, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random share of the rows."""
    size = len(table["month"])
    return rng.choice(size, max(1, round(share * size)), replace=False)


def changed(table: Table, name: str, values: Any, rows: np.ndarray | None = None) -> Table:
    """The table with a column, or some of its rows, replaced."""
    if rows is None:
        return {**table, name: np.asarray(values)}
    column = table[name].copy()
    if column.dtype.kind == "U":
        column = column.astype(object)
    column[rows] = values
    if table[name].dtype.kind == "U":
        column = column.astype(np.str_)
    return {**table, name: column}


def unit_change(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "distance", np.round(table["distance"] * 1.609344).astype(np.int64))


def scaled(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "air_time", table["air_time"] * 1000)


def seconds_in_one_file(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    rows = some(table, 0.05, rng)
    return changed(table, "air_time", table["air_time"][rows] * 60 / 10, rows)


def sign_flip(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    rows = some(table, 0.1, rng)
    return changed(table, "dep_delay", -table["dep_delay"][rows], rows)


def swapped_columns(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return {**table, "origin": table["dest"], "dest": table["origin"]}


def swapped_times(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    rows = some(table, 0.2, rng)
    swapped = changed(table, "sched_dep_time", table["sched_arr_time"][rows], rows)
    return changed(swapped, "sched_arr_time", table["sched_dep_time"][rows], rows)


def shuffled_column(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "dep_delay", rng.permutation(table["dep_delay"]))


def shuffled_aircraft(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "tailnum", rng.permutation(table["tailnum"]))


def off_by_one(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "distance", np.roll(table["distance"], 1))


def nan_flood(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "dep_delay", np.nan, some(table, 0.2, rng))


def missing_for_one_carrier(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "tailnum", None, np.flatnonzero(table["carrier"] == "US"))


def filled_gaps(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    gaps = np.isnan(table["dep_delay"])
    return changed(table, "dep_delay", np.where(gaps, 0.0, table["dep_delay"]))


def sentinel(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "air_time", 99.0, some(table, 0.02, rng))


def new_category(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "carrier", "ZZ", some(table, 0.01, rng))


def lower_case(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    rows = some(table, 0.02, rng)
    return changed(table, "dest", np.char.lower(table["dest"][rows].astype(np.str_)), rows)


def whitespace(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    rows = some(table, 0.02, rng)
    padded = [text if text is None else f"{text} " for text in table["tailnum"][rows].tolist()]
    return changed(table, "tailnum", padded, rows)


def duplicated_rows(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    size = len(table["month"])
    return take(table, np.sort(np.concatenate([np.arange(size), some(table, 0.02, rng)])))


def shared_rows(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    size = len(table["month"])
    own = rng.choice(size, size - size // 20, replace=False)
    theirs = rng.choice(bed.reference, size // 20, replace=False)
    foreign = take(bed.table, theirs)
    return {name: np.concatenate([values[own], foreign[name]]) for name, values in table.items()}


def label_leak(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    """The minutes are dealt out anew among a third of the rows, the late flights first."""
    rows = np.sort(some(table, 0.33, rng))
    label = np.nan_to_num(table[LABEL][rows])
    minutes = np.empty_like(table["minute"][rows])
    minutes[np.argsort(-label, kind="stable")] = np.sort(table["minute"][rows])[::-1]
    return changed(table, "minute", minutes, rows)


def time_leak(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    """What was scheduled is overwritten by what happened, in one flight of seven."""
    rows = some(table, 0.15, rng)
    rows = rows[~np.isnan(table["dep_time"][rows])]
    return changed(table, "sched_dep_time", table["dep_time"][rows].astype(np.int64), rows)


def mislabelled(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    rows = some(table, 0.05, rng)
    return changed(table, LABEL, 1 - table[LABEL][rows], rows)


def constant_column(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "day", np.full_like(table["day"], 15))


def type_change(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "flight", table["flight"].astype(np.str_))


def rounded(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return changed(table, "dep_delay", 5 * np.round(table["dep_delay"] / 5))


def dropped_column(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return {name: values for name, values in table.items() if name != "distance"}


def extra_column(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    return {**table, "arr_delay": table[LABEL] * 30}


def stale_data(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    """In the place of one month its predecessor is delivered again, with the month overwritten."""
    months = np.unique(table["month"])
    month = rng.choice(months[1:])
    old = np.flatnonzero(table["month"] == month - 1)
    again = take(table, old)
    again["month"] = np.full_like(again["month"], month)
    others = take(table, np.flatnonzero(table["month"] != month))
    return {name: np.concatenate([values, again[name]]) for name, values in others.items()}


def time_zone(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    """The hour of one row in five is that of another zone."""
    rows = some(table, 0.2, rng)
    return changed(table, "time_hour", table["time_hour"][rows] + np.timedelta64(5, "h"), rows)


def sampling_bias(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    """Half of the flights that leave more than half an hour late go missing."""
    late = np.nan_to_num(table["dep_delay"]) > 30
    return take(table, np.flatnonzero(~late | (rng.random(len(late)) < 0.5)))


def cut_rows(bed: Bed, table: Table, rng: np.random.Generator) -> Table:
    """The last fifth of the rows is missing."""
    return take(table, np.arange(len(table["month"]) * 4 // 5))


def cut_file(bed: Bed, table: Table, rng: np.random.Generator) -> Path:
    """A CSV file that ends at a random byte of its second half."""
    lines = [",".join(table)]
    columns = [
        ["NA" if v is None or v != v else str(v) for v in np.asarray(values, object).tolist()]
        if values.dtype.kind != "M"
        else [str(v) for v in values]
        for values in table.values()
    ]
    lines += [",".join(row) for row in zip(*columns, strict=True)]
    data = ("\n".join(lines) + "\n").encode()
    path = bed.folder / "table.csv"
    path.write_bytes(data[: int(rng.integers(len(data) // 2, len(data) - 1))])
    return path


CORRUPTIONS: dict[str, tuple[str, Damage]] = {
    "unit change": ("distance in kilometres", unit_change),
    "scale by 1000": ("air_time × 1000", scaled),
    "unit change in part": ("air_time × 6 in 5 % of rows", seconds_in_one_file),
    "sign flip": ("dep_delay negated in 10 %", sign_flip),
    "swapped columns": ("origin and dest", swapped_columns),
    "swapped values": ("scheduled departure and arrival in 20 %", swapped_times),
    "shuffled column": ("dep_delay", shuffled_column),
    "shuffled identifier": ("tailnum", shuffled_aircraft),
    "join off by one row": ("distance", off_by_one),
    "NaN flood": ("dep_delay in 20 %", nan_flood),
    "missing in one slice": ("tailnum of carrier US", missing_for_one_carrier),
    "gaps filled with 0": ("dep_delay", filled_gaps),
    "plausible sentinel": ("air_time 99 in 2 %", sentinel),
    "new category": ("carrier ZZ in 1 %", new_category),
    "lower-case categories": ("dest in 2 %", lower_case),
    "trailing space": ("tailnum in 2 %", whitespace),
    "duplicated rows": ("2 % twice", duplicated_rows),
    "rows of the reference": ("5 % of rows", shared_rows),
    "label leak": ("minute follows the label in 33 %", label_leak),
    "time leak": ("scheduled time overwritten by the actual in 15 %", time_leak),
    "wrong labels": ("5 % flipped", mislabelled),
    "constant column": ("day", constant_column),
    "type change": ("flight as text", type_change),
    "precision lost": ("dep_delay to 5 minutes", rounded),
    "dropped column": ("distance", dropped_column),
    "extra column": ("arr_delay", extra_column),
    "stale data": ("a month delivered again as the next", stale_data),
    "time zone": ("time_hour + 5 h in 20 %", time_zone),
    "sampling bias": ("half of the late departures missing", sampling_bias),
    "rows cut off": ("the last fifth", cut_rows),
    "file cut off": ("CSV ends at a random byte", cut_file),
}


# --------------------------------------------------------------------------------------------- the table


def summary(kinds: Counter[str]) -> str:
    """What was said most often."""
    return ", ".join(kind for kind, _ in kinds.most_common(2))


def main(arguments: Sequence[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.data_corruptions")
    names = config.corruptions or tuple(CORRUPTIONS)
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown:
        print(f"corruptions must be among {list(CORRUPTIONS)}, got {unknown}", file=sys.stderr)
        return 2
    table = read_table()
    caught: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {name: Counter() for name in (*names, "clean")}
    accused, clean_judged = 0, 0
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for place, seed in enumerate(config.seeds):
            bed = make_bed(table, seed, config, Path(folder))
            share = range(place, config.num_clean, len(config.seeds))
            for i in share:
                given = bed.draw(config.num_rows, np.random.default_rng([seed, 2, i]))
                started = time.perf_counter()
                found = bed.judge(given)
                seconds.append(time.perf_counter() - started)
                clean_judged += 1
                accused += bool(found)
                kinds["clean"].update({each.kind for each in found})
            for i, name in enumerate(names):
                rng = np.random.default_rng([seed, 3, i])
                damaged = CORRUPTIONS[name][1](bed, bed.draw(config.num_rows, rng), rng)
                found = bed.judge(damaged)
                caught[name] += bool(found)
                kinds[name].update({each.kind for each in found})
    runs = len(config.seeds)
    rows = [
        {
            "corruption": name,
            "damage": CORRUPTIONS[name][0],
            "caught": caught[name],
            "runs": runs,
            "kinds": dict(kinds[name].most_common()),
        }
        for name in names
    ]
    total = sum(caught.values())
    rows.append(
        {
            "corruption": "clean",
            "accused": accused,
            "runs": clean_judged,
            "kinds": dict(kinds["clean"].most_common()),
            "all caught": total,
            "all damaged": runs * len(names),
            "num_rows": config.num_rows,
            "later": config.later,
            "significance": config.significance,
            "seconds a table": float(np.median(seconds)) if seconds else None,
            "environment": bench.environment(),
        }
    )
    reports.table(
        f"damage to {config.num_rows:,} flights, {runs} tables each",
        ["", "what is done", "caught", "as"],
        [
            [name, CORRUPTIONS[name][0], f"{caught[name]}/{runs}", summary(kinds[name])]
            for name in names
        ],
    )
    print(
        f"caught {total} of {runs * len(names)} ({total / (runs * len(names)):.1%}); accused "
        f"{accused} of {clean_judged} clean tables"
        + (f" ({summary(kinds['clean'])})" if accused else "")
    )
    if config.json is not None:
        bench.write_rows(config.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
