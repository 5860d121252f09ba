"""The command line: `python -m experiments.monitor_bed --help`."""

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

from experiments.monitor_bed import curves, report
from experiments.monitor_bed.programs import PROGRAMS, Program, Run
from jaxml import models, monitor, reports, train


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains programs of known outcome, and counts what the monitor says of them."""

    programs: tuple[str, ...] = ()
    """Which; none named are all."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each program is run so often."""
    curves: int = 0
    """No programs, but so many random loss curves of each kind."""
    early: bool = False
    """Train sick runs anew for a tenth, a quarter and a half of their steps: when is it found?"""
    verbose: bool = False
    """Print every finding."""
    keep: Path | None = None
    """Write the histories there, to be diagnosed again."""
    again: bool = False
    """Diagnose what was kept, train nothing."""
    json: Path | None = None
    """Where to write what was counted."""


def outcome(run: Run, fitted: train.Fit) -> tuple[float, float]:
    """The score of a trained model on its data, and its mean loss there."""
    model = models.from_linen(run.model)
    x, y = run.data
    variables = {"params": fitted.params, **fitted.model_state}
    keep = np.isfinite(np.asarray(x, np.float64).reshape(len(x), -1)).all(1)
    outputs = np.asarray(model.apply(variables, jnp.asarray(x[keep]))[0])
    loss = float(jnp.mean(run.loss(jnp.asarray(outputs), jnp.asarray(y[keep]))))
    return run.score(outputs, y[keep]), loss


def _settings(run: Run, seed: int, num_steps: int) -> dict[str, Any]:
    return dict(
        num_steps=num_steps,
        batch_size=run.batch_size,
        key=jax.random.key(seed),
        validation_data=run.validation_data,
        shuffle=run.shuffle,
    )


def measure(program: Program, seed: int) -> dict[str, Any]:
    """One seed of one program: without the monitor, then with it."""
    run = program.make(seed)
    given = (run.model, run.loss, run.optimizer, run.data)
    settings = _settings(run, seed, run.num_steps)
    plain = train.fit(*given, monitor=False, **settings)
    started = time.perf_counter()
    watched = train.fit(*given, **settings)
    seconds = time.perf_counter() - started
    score, loss = outcome(run, plain)
    score_watched, loss_watched = outcome(run, watched)
    return {
        "program": program.name,
        "seed": seed,
        "steps": run.num_steps,
        "score": score,
        "loss": loss,
        "score_watched": score_watched,
        "loss_watched": loss_watched,
        "history": watched.history,
        "findings": watched.findings,
        "seconds": seconds,
    }


def found_early(program: Program, seed: int) -> int | None:
    """The fewest steps, of a tenth, a quarter and a half of all, after which the fault is found."""
    run = program.make(seed)
    for share in (0.1, 0.25, 0.5):
        steps = max(1, round(share * run.num_steps))
        fitted = train.fit(
            run.model, run.loss, run.optimizer, run.data, **_settings(run, seed, steps)
        )
        if {finding.symptom for finding in fitted.findings} & set(program.symptoms):
            return steps
    return None


def main(arguments: list[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.monitor_bed")
    unknown = [name for name in config.programs if name not in PROGRAMS]
    if unknown:
        print(f"error: unknown program {unknown[0]!r}", file=sys.stderr)
        return 2
    # Numbers that are not finite are what this is about.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    warnings.filterwarnings("ignore", category=monitor.FindingsWarning)
    if config.curves:
        return _curves(config)
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


def _row(config: Config, program: Program, seed: int) -> dict[str, Any]:
    kept = None if config.keep is None else config.keep / f"{program.name}-{seed}.pkl"
    if config.again and kept is not None and kept.exists():
        row = pickle.loads(kept.read_bytes())
        row["findings"] = monitor.diagnose(row["history"])
    else:
        row = measure(program, seed)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(pickle.dumps(row))
    row |= report.judge(program, row["score"], row["findings"])
    if config.early and row["label"] == "sick" and row["hit"]:
        row["early"] = found_early(program, seed)
    return row


def _run(config: Config) -> int:
    rows = []
    for name in config.programs or tuple(PROGRAMS):
        for seed in config.seeds:
            row = _row(config, PROGRAMS[name], seed)
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
    _write(config, {"summary": report.summary(rows), "runs": report.without_histories(rows)})
    return 0


def _curves(config: Config) -> int:
    rows = curves.measure(config.curves)
    reports.table(
        "loss curves alone",
        ["kind", "curves", "recognised", "nothing wrong said", "said"],
        [
            [
                row["family"],
                row["curves"],
                row["recognised"],
                row["nothing_wrong_said"],
                ", ".join(f"{name} {times}" for name, times in row["said"].items()) or None,
            ]
            for row in rows
        ],
    )
    _write(config, {"curves": rows})
    return 0


def _write(config: Config, content: dict[str, Any]) -> None:
    if config.json is not None:
        known = {"environment": reports.environment(), **content}
        config.json.write_text(json.dumps(_plain(known), indent=1) + "\n")


def _plain(value: Any) -> Any:
    """As JSON has it: it knows no NaN and no infinity."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
