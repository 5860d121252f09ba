"""The command line: `python -m experiments.monitor_bed --help`."""

import collections
import contextlib
import dataclasses
import json
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental.compilation_cache import compilation_cache

from experiments.monitor_bed.programs import PROGRAMS, Program, Run
from jaxml import bench, models, monitor, reports, train


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains programs of known outcome, and counts what the monitor says of them."""

    programs: tuple[str, ...] = ()
    """Which; none named are all."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each program is run so often."""
    verbose: bool = False
    """Print every finding."""
    keep: Path | None = None
    """Write the histories there, to be diagnosed again."""
    again: bool = False
    """Diagnose what was kept, train nothing."""
    json: Path | None = None
    """Where to write the rows."""


def outcome(run: Run, fitted: train.Fit) -> float:
    """The score of a trained model on its data."""
    model = models.from_linen(run.model)
    x, y = run.data
    variables = {"params": fitted.params, **fitted.model_state}
    keep = np.isfinite(np.asarray(x, np.float64).reshape(len(x), -1)).all(1)
    outputs = np.asarray(model.apply(variables, jnp.asarray(x[keep]))[0])
    return run.score(outputs, y[keep])


def measure(program: Program, seed: int) -> dict[str, Any]:
    """One seed of one program: without the monitor, then with it."""
    run = program.make(seed)
    settings: dict[str, Any] = dict(
        num_steps=run.num_steps,
        batch_size=run.batch_size,
        key=jax.random.key(seed),
        validation_data=run.validation_data,
        shuffle=run.shuffle,
    )
    given = (run.model, run.loss, run.optimizer, run.data)
    plain = train.fit(*given, monitor=False, **settings)
    started = time.perf_counter()
    watched = train.fit(*given, **settings)
    seconds = time.perf_counter() - started
    return {
        "program": program.name,
        "seed": seed,
        "score": outcome(run, plain),
        "score_watched": outcome(run, watched),
        "history": watched.history,
        "findings": watched.findings,
        "seconds": seconds,
    }


def label(program: Program, score: float) -> str:
    """`sick`, `healthy`, or `unclear` between the two."""
    if score >= program.good:
        return "healthy"
    return "sick" if score <= program.bad else "unclear"


def judge(program: Program, row: dict[str, Any]) -> dict[str, Any]:
    """What was found against what there is."""
    found = {finding.symptom for finding in row["findings"]}
    state = label(program, row["score"])
    if state == "sick" and not program.symptoms:
        state = "unclear"
    wrong = found - program.symptoms - program.also if state == "sick" else found
    return {
        "label": state,
        "hit": bool(found & program.symptoms),
        "wrong": sorted(wrong) if state != "unclear" else [],
        "found": sorted(found),
    }


def main(arguments: list[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.monitor_bed")
    unknown = [name for name in config.programs if name not in PROGRAMS]
    if unknown:
        print(f"error: unknown program {unknown[0]!r}", file=sys.stderr)
        return 2
    with _cached():
        return _run(config)


@contextlib.contextmanager
def _cached() -> Iterator[None]:
    """Other seeds of a program are the same program: compiled once."""
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", None)
            compilation_cache.reset_cache()


def _run(config: Config) -> int:
    # Numbers that are not finite are what this is about.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    rows = []
    for name in config.programs or tuple(PROGRAMS):
        program = PROGRAMS[name]
        for seed in config.seeds:
            kept = None if config.keep is None else config.keep / f"{name}-{seed}.pkl"
            if config.again and kept is not None and kept.exists():
                row = pickle.loads(kept.read_bytes())
                row["findings"] = monitor.diagnose(row["history"])
            else:
                row = measure(program, seed)
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(pickle.dumps(row))
            row |= judge(program, row)
            rows.append(row)
            mark = "" if row["label"] == "unclear" else "ok"
            if row["label"] == "sick" and not row["hit"]:
                mark = "MISSED"
            if row["wrong"]:
                mark += " WRONG " + ",".join(row["wrong"])
            print(
                f"{name} {seed}: {row['score']:.2f} → {row['score_watched']:.2f} {row['label']} "
                f"{row['found']} {mark}",
                flush=True,
            )
            if config.verbose:
                for finding in row["findings"]:
                    print("   ", finding)
                print("   ", row["history"].after)
    _summary(rows)
    if config.json is not None:
        place = bench.environment()
        config.json.write_text(
            json.dumps(
                [
                    {k: v for k, v in row.items() if k not in ("history", "findings")} | place
                    for row in rows
                ],
                indent=1,
            )
        )
    return 0


def _summary(rows: list[dict[str, Any]]) -> None:
    sick = [row for row in rows if row["label"] == "sick"]
    healthy = [row for row in rows if row["label"] == "healthy"]
    table: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for row in sick:
        table["sick, recognised"][0] += row["hit"]
        table["sick, recognised"][1] += 1
        table["findings that are right"][0] += len(row["found"]) - len(row["wrong"])
        table["findings that are right"][1] += len(row["found"])
    for row in healthy:
        table["healthy, false alarm"][0] += bool(row["wrong"])
        table["healthy, false alarm"][1] += 1
    reports.table(
        "the monitor against measured outcomes",
        ["", "runs", "of", "share"],
        [[name, a, b, a / b] for name, (a, b) in table.items()],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
