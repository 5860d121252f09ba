"""How long does `fit` take before it trains, and where does the time go?

    python -m experiments.compile_time                           twenty seconds

The README's example, an MLP of eight hidden layers of width 8, 300 steps of Adam, with the monitor and
without: in a fresh process with an empty cache on disk, a second `fit` there, and a second process that
finds the programs on disk. `fit` and the whole process are measured in CPU seconds; tracing, lowering and
compiling in wall seconds, by JAX's own events, which also count the programs.

Expect 10 CPU seconds for the first `fit` with the monitor, 2.5 with the cache on disk, and 0.1 for a second
`fit` in the same process.
"""

import collections
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro

from experiments import command
from jaxml import bench, models, monitor, reports, train

# JAX's events, by the phase that they end.
_PHASES = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Compile time of `fit`, with and without the monitor."""

    depth: int = 8
    """Hidden layers."""
    width: int = 8
    """Units of each hidden layer."""
    num_steps: int = 300
    """Steps of each training."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""
    measure: bool | None = None
    """Measure in this process, with the monitor or without, and print: what the started processes do."""
    cache: Path | None = None
    """For `measure`: the cache on disk."""


def measure(config: Config, watched: bool) -> list[dict[str, Any]]:
    """Two trainings in this process: seconds and programs of each."""
    seconds: dict[str, float] = collections.defaultdict(float)
    counts: collections.Counter[str] = collections.Counter()

    def note(event: str, duration_secs: float, **_: Any) -> None:
        if event in _PHASES:
            seconds[_PHASES[event]] += duration_secs
            counts[_PHASES[event]] += 1

    jax.monitoring.register_event_duration_secs_listener(note)
    warnings.filterwarnings("ignore", category=monitor.FindingsWarning)
    imported = time.process_time()
    x = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int32)
    model = models.MLP((config.width,) * config.depth, 2, activation="sigmoid")
    loss, optimizer = optax.softmax_cross_entropy_with_integer_labels, optax.adam(1e-3)
    rows = []
    for which in ("first", "second"):
        seconds.clear()
        counts.clear()
        cpu, wall = time.process_time(), time.perf_counter()
        fitted = train.fit(
            model, loss, optimizer, (x, y), num_steps=config.num_steps, batch_size=64,
            key=jax.random.key(0), monitor=watched,
        )  # fmt: skip
        rows.append(
            {
                "monitor": watched,
                "fit": which,
                "cpu_s": time.process_time() - cpu,
                "wall_s": time.perf_counter() - wall,
                "trace_s": seconds["trace"],
                "lower_s": seconds["lower"],
                "compile_s": seconds["compile"],
                "programs": counts["compile"],
                "import_cpu_s": imported,
                "process_cpu_s": time.process_time(),
                "findings": [finding.symptom for finding in fitted.findings],
            }
        )
    return rows


def _in_a_process(config: Config, watched: bool, cache: str) -> list[dict[str, Any]]:
    arguments = [sys.executable, "-m", "experiments.compile_time", "--measure", str(watched)]
    arguments += ["--depth", str(config.depth), "--width", str(config.width)]
    arguments += ["--num-steps", str(config.num_steps), "--cache", cache]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    found = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    rows = []
    for watched in (False, True):
        with tempfile.TemporaryDirectory() as cache:
            processes = reports.progress(("first", "second"), "process")
            for process in processes:
                found = _in_a_process(config, watched, cache)
                rows += [{"process": process, **row} for row in found]
    reports.table(
        f"fit of an MLP of {config.depth} layers of {config.width}, {config.num_steps} steps",
        ["monitor", "process", "fit", "fit CPU s", "trace s", "lower s", "compile s", "programs",
         "process CPU s"],
        [
            [
                "yes" if row["monitor"] else "no", row["process"], row["fit"],
                *(round(row[name], 2) for name in ("cpu_s", "trace_s", "lower_s", "compile_s")),
                row["programs"], round(row["process_cpu_s"], 2),
            ]
            for row in rows
        ],
    )  # fmt: skip
    return rows


def main(arguments: Sequence[str]) -> int:
    if "--measure" not in arguments:
        return command.run("compile_time", Config, experiment, arguments)
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.compile_time")
    if config.cache is not None:
        bench.compilation_cache(config.cache)
    print(json.dumps(measure(config, bool(config.measure))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
