"""Which faults of a served model are caught, by which check, and how often is a sound one accused?

    python -m experiments.serving_faults                 two minutes on two cores
    python -m experiments.serving_faults --num-clean 5

A small network is trained on flights that left New York City in 2013 (will it arrive more than 15 minutes
late?) and published as a bundle. Then each fault is done once: to what clients send, to the serving code,
to the files of the bundle, to the machine, to a new version. All checks that apply look at the result:

| check | looks at |
|---|---|
| protocol, schema | each request: HTTP 400 and 422 |
| rows, computed again | features and answers that were logged, against those of the same raw columns |
| rows of the table | what was logged, against the same rows from where training has them |
| distribution | the columns served, against those of training |
| bundle | the hashes and the format |
| gate, trial, leaks | a new version: held-out rows, a real server, columns that give away the label |
| log, static | rows that could not be logged; the answers to a whole table |

A clean run serves, checks and publishes a sound model, trained with another seed, with rows of its own.

At last the flights of each month are compared with a sample of January to August, as `check` does.

Expect all faults to be caught, and no clean run to be accused; temperature and pressure differ from January
to August in November and December, and no column does in random halves of January to August.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command
from experiments.serving_faults import bed as beds
from experiments.serving_faults.faults import FAULTS
from jaxml import bench, reports

NUM_HALVES = 20  # random


@dataclasses.dataclass(frozen=True)
class Config:
    """Does faults to a served model, and counts how many are caught."""

    num_training: int = 60_000
    """Flights that the model is trained on; a fifth as many others judge new versions."""
    num_rows: int = 500
    """Flights that are served in each run."""
    num_clean: int = 20
    """Runs without a fault."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def clean(bed: beds.Bed, i: int) -> beds.Found:
    """Returns what all checks say of a sound model and sound requests."""
    rng = np.random.default_rng([1, i])
    path = bed.folder / f"clean-{i}"
    beds.save(path, beds.take(bed.table, bed.training), seed=10 + i)
    rows = bed.draw(rng)
    held_out = rng.choice(bed.held_out, len(bed.held_out) * 4 // 5, replace=False)
    return {
        **beds.served(bed, rows),
        **beds.answered(bed, rows),
        **beds.loaded(path),
        **beds.judged(bed, path, held_out),
    }


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures and prints; returns the record."""
    bench.compilation_cache()
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    accused = []
    with tempfile.TemporaryDirectory() as folder:
        bed = beds.make_bed(config.num_training, config.num_rows, Path(folder))
        for i, (name, (what, fault)) in enumerate(reports.progress(FAULTS.items(), "fault")):
            found = fault(bed, np.random.default_rng([0, i]))
            rows.append({"fault": name, "what": what, "found": found})
        for i in reports.progress(range(config.num_clean), "clean run"):
            accused.append(clean(bed, i))
        months = beds.months(bed.table, NUM_HALVES)
    reports.table(
        f"faults of a served model, {config.num_rows} requests each",
        ["fault", "caught by", "evidence"],
        [
            [
                row["fault"],
                ", ".join(row["found"]) or "MISSED",
                next(iter(row["found"].values()), ""),
            ]
            for row in rows
        ],
    )
    caught, wrongly = sum(bool(row["found"]) for row in rows), sum(map(bool, accused))
    for found in filter(None, accused):
        print(f"accused: {found}")
    reports.table(
        "real rows against January to August",
        ["rows of", "rows", "columns that differ"],
        [[row["rows of"], row["rows"], "; ".join(row["differ"])] for row in months],
    )
    print(f"caught {caught} of {len(rows)} faults; accused {wrongly} of {len(accused)} clean runs")
    return {
        "faults": rows,
        "caught": caught,
        "clean": {"runs": len(accused), "accused": wrongly, "found": [f for f in accused if f]},
        "months": months,
        "num_rows": config.num_rows,
        "seconds": time.perf_counter() - started,
    }


def main(arguments: Sequence[str]) -> int:
    return command.run("serving_faults", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
