"""The command line: `python -m experiments.monitor_bed --help`."""

import dataclasses
import pickle
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.monitor_bed import curves, report
from experiments.monitor_bed.programs import PROGRAMS, Program, Run
from jaxml import bench, models, monitor, train

if TYPE_CHECKING:
    ProgramName = str
else:
    ProgramName = Literal[tuple(PROGRAMS)]


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains programs of known outcome, and counts recognised faults and false alarms."""

    programs: tuple[ProgramName, ...] = ()
    """Names of programs; none for all."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of each program."""
    curves: int = 0
    """Diagnose so many random loss curves of each family instead."""
    verbose: bool = False
    """Print every finding."""
    histories: Path | None = None
    """Directory of histories: a run that is there is diagnosed again, another is trained and kept there."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def outcome(run: Run, fitted: train.Fit) -> tuple[float, float]:
    """Returns the score of a trained model on its data, and its mean loss there."""
    x, y = run.data
    keep = np.isfinite(np.asarray(x, np.float64).reshape(len(x), -1)).all(1)
    variables = {"params": fitted.params, **fitted.model_state}
    outputs, _ = models.from_linen(run.model).apply(variables, jnp.asarray(x[keep]))
    loss = float(jnp.mean(run.loss(outputs, jnp.asarray(y[keep]))))
    return run.score(np.asarray(outputs), y[keep]), loss


def measure(program: Program, seed: int) -> dict[str, Any]:
    """Trains one seed of a program without the monitor, and with it."""
    run = program.make(seed)

    def fit(watched: bool) -> train.Fit:
        return train.fit(
            run.model,
            run.loss,
            run.optimizer,
            run.data,
            num_steps=run.num_steps,
            batch_size=run.batch_size,
            key=jax.random.key(seed),
            validation_data=run.validation_data,
            shuffle=run.shuffle,
            monitor=watched,
        )

    score, loss = outcome(run, fit(False))
    started = time.perf_counter()
    monitored = fit(True)
    seconds = time.perf_counter() - started
    score_monitored, loss_monitored = outcome(run, monitored)
    return {
        "program": program.name,
        "seed": seed,
        "steps": run.num_steps,
        "score": score,
        "score_monitored": score_monitored,
        "loss": loss,
        "loss_monitored": loss_monitored,
        "seconds": round(seconds, 2),
        "history": monitored.history,
    }


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    # Overflows and findings are what this measures.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    warnings.filterwarnings("ignore", category=monitor.FindingsWarning)
    if config.curves:
        rows = curves.measure(config.curves)
        report.curves(rows)
        return _plain({"curves": rows})
    bench.compilation_cache()
    rows = [
        _row(config, PROGRAMS[name], seed)
        for name in config.programs or tuple(PROGRAMS)
        for seed in config.seeds
    ]
    return _plain({**report.summary(rows), "runs": rows})


def main(arguments: Sequence[str]) -> int:
    return command.run("monitor_bed", Config, experiment, arguments)


def _row(config: Config, program: Program, seed: int) -> dict[str, Any]:
    kept = config.histories and config.histories / f"{program.name}-{seed}.pkl"
    if kept and kept.exists():
        row = pickle.loads(kept.read_bytes())
    else:
        row = measure(program, seed)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(pickle.dumps(row))
    findings = monitor.diagnose(row.pop("history"))
    row |= report.judge(program, row["score"], findings)
    missed = " MISSED" if row["label"] == "faulty" and not row["recognised"] else ""
    wrong = "".join(f" FALSE {name}" for name in row["false_alarms"])
    scores = f"{row['score']:.2f} → {row['score_monitored']:.2f}"
    print(
        f"{program.name} {seed}: {scores} {row['label']} {row['findings']}{missed}{wrong}",
        flush=True,
    )
    if config.verbose:
        print(*(f"    {finding}" for finding in findings), sep="\n")
    return row


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it: NaN and infinity as text."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else str(value)
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
