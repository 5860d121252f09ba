"""How long can recurrent cells remember, and why?

    python -m experiments.long_memory                  all cells, tasks and lengths
    python -m experiments.long_memory --cells lstm --lengths 100 --studies length

Three tasks (Hochreiter and Schmidhuber 1997; Jing et al. 2019): recall the first of many symbols; add the
two marked numbers among many; recall, in order, four symbols placed among blanks.
Each cell and length is one `train.sweep` over learning rates and seeds, watched by the monitor. Every
example is seen once.

Expect that the simple network fails at 200 steps, that the LSTM adds there, and that one layer of minGRU
cannot recall symbols in their order.

It writes `long-memory.png`, accuracy against length, `long-memory-gradients.png`, the monitor's picture of
|∂E/∂h_t| over time, and the rows of `experiments/results/long-memory.json`.
"""

import dataclasses
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command
from jaxml import bench, losses, models, monitor, reports, train
from jaxml.types import Array

Cell = Literal["simple", "lstm", "gru", "mingru", "minlstm", "lru"]
Study = Literal["length", "depth", "start"]
CELLS: tuple[Cell, ...] = ("simple", "lstm", "gru", "mingru", "minlstm", "lru")

_SYMBOLS, _REMEMBERED, _TESTED = 8, 4, 512
# Steps between a question and what it asks for in the second and third study.
_COPIED_OVER, _STARTED_OVER = 40, 50
# Beyond so many steps only these are trained: on two cores the others take too long.
_SLOW_UP_TO, _FAST = 200, ("mingru", "minlstm")
_UNCLIPPED = 1e9


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains recurrent cells on tasks that need a memory."""

    studies: tuple[Study, ...] = ("length", "depth", "start")
    """length: accuracy against length. depth: selective copying against layers. start: initialisations."""
    cells: tuple[Cell, ...] = CELLS
    """Cells of the first study."""
    lengths: tuple[int, ...] = (10, 50, 200, 1000)
    """Steps of the sequences; beyond 200 only minGRU and minLSTM are trained."""
    features: int = 32
    """Width of the states."""
    num_steps: int = 800
    """Training steps."""
    batch_size: int = 32
    """Examples in a step."""
    learning_rates: tuple[float, ...] = (0.01, 0.03)
    """Rates of Adam; the one that is better on other examples counts."""
    seeds: int = 2
    """Trainings for each rate."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


class Memory(nn.Module):
    """Recurrent layers whose last outputs answer; symbols are one-hot."""

    recurrent: models.Recurrent
    answers: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: Array, training: bool = False) -> Array:
        if x.ndim == 2:
            x = jax.nn.one_hot(x, _SYMBOLS + 2)
        states, _ = self.recurrent(x, training=training)
        return nn.Dense(self.num_outputs, name="output")(states[:, -self.answers :])


def first_symbol(number: int, length: int, seed: int) -> tuple[Any, Any]:
    """Returns sequences of random symbols, and the first one of each as its label [N, 1]."""
    x = np.random.default_rng(seed).integers(0, _SYMBOLS, (number, length), np.int32)
    return x, x[:, :1]


def adding(number: int, length: int, seed: int) -> tuple[Any, Any]:
    """Returns numbers in [0, 1] with a mark in each half, and the sum of those marked, [N, 1]."""
    rng = np.random.default_rng(seed)
    x = np.zeros((number, length, 2), np.float32)
    x[..., 0] = rng.random((number, length))
    half, rows = length // 2, np.arange(number)
    x[rows, rng.integers(0, half, number), 1] = 1
    x[rows, rng.integers(half, length, number), 1] = 1
    return x, x.prod(-1).sum(1)[:, None]


def selective_copying(number: int, length: int, seed: int) -> tuple[Any, Any]:
    """Returns blanks with symbols among them and a question for each at the end, and the symbols."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, _SYMBOLS, (number, _REMEMBERED), np.int32)
    where = np.sort(rng.random((number, length)).argsort(1)[:, :_REMEMBERED], axis=1)
    x = np.full((number, length + _REMEMBERED), _SYMBOLS, np.int32)
    x[np.arange(number)[:, None], where] = y
    x[:, length:] = _SYMBOLS + 1
    return x, y


TASKS = {"first symbol": first_symbol, "adding": adding, "selective copying": selective_copying}


def symbols_loss(outputs: Array, labels: Array) -> Array:
    """Returns the mean cross-entropy of the answers of each example."""
    return jnp.mean(losses.softmax_cross_entropy(outputs, labels), axis=-1)


def sum_loss(outputs: Array, labels: Array) -> Array:
    """Returns the squared error of each example."""
    return jnp.square(outputs[..., 0] - labels)[:, 0]


def _adam(hyperparameters: Any) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(hyperparameters["clip"]),
        optax.adam(hyperparameters["learning_rate"]),
    )


def accuracy(fitted: train.Fit, x: Any, y: Any) -> float:
    """Returns the share of right symbols, or of sums that are right to 0.1."""
    outputs = fitted.predict(x)
    right = outputs.argmax(-1) == y if y.dtype == np.int32 else np.abs(outputs[..., 0] - y) < 0.1
    return float(right.mean())


def measure(
    config: Config, task: str, length: int, recurrent: models.Recurrent, clips: Sequence[float]
) -> list[dict[str, Any]]:
    """Trains one network for each learning rate, clip and seed, and returns a row for each clip."""
    started = time.perf_counter()
    make, adds = TASKS[task], task == "adding"
    answers = _REMEMBERED if task == "selective copying" else 1
    swept = train.sweep(
        Memory(recurrent, answers, 1 if adds else _SYMBOLS),
        sum_loss if adds else symbols_loss,
        _adam,
        make(config.num_steps * config.batch_size, length, 0),
        space={"learning_rate": config.learning_rates, "clip": clips},
        seeds=config.seeds,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        key=jax.random.key(0),
        monitor=train.Monitor(every=max(1, (config.num_steps - 1) // 4), final_diagnostics=False),
    )
    chosen_on, tested_on = make(_TESTED, length, 1), make(_TESTED, length, 2)
    seconds = time.perf_counter() - started
    rows = []
    for clip in clips:
        trials = [t for t in swept.trials if np.isclose(t.hyperparameters["clip"], clip)]
        chosen = np.reshape([accuracy(t.fit, *chosen_on) for t in trials], (-1, config.seeds))
        best = int(chosen.mean(1).argmax())
        those = trials[best * config.seeds : (best + 1) * config.seeds]
        reached, first = [accuracy(t.fit, *tested_on) for t in those], those[0]
        history = first.fit.history
        assert history is not None
        rows.append(
            {
                "task": task,
                "length": length,
                "cell": recurrent.cell,
                "layers": recurrent.num_layers,
                "start": _start(recurrent),
                "clip": None if clip == _UNCLIPPED else clip,
                "learning_rate": first.hyperparameters["learning_rate"],
                "accuracy": reached,
                "gradients": [np.round(history.over_time[i, 0], 3).tolist() for i in (0, -1)],
                "findings": [finding.symptom for finding in first.fit.findings],
                "seconds": seconds,
            }
        )
        shown = " ".join(f"{value:.3f}" for value in reached)
        kind = f"{recurrent.num_layers} × {recurrent.cell} {_start(recurrent)}, clip {clip:g}"
        print(f"{task} {length}: {kind}: {shown} ({seconds:.0f} s)", flush=True)
    return rows


def _start(recurrent: models.Recurrent) -> str:
    """Returns how the network starts, in words; empty for cells without a recurrent kernel."""
    if recurrent.cell not in ("simple", "lstm", "gru"):
        return ""
    init = recurrent.recurrent_init
    name = "identity" if init is identity else "orthogonal" if init == "orthogonal" else "Gaussian"
    return name + (f", forget bias {recurrent.forget_bias:g}" if recurrent.cell == "lstm" else "")


def identity(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """A recurrent kernel that starts by keeping everything (Le et al. 2015)."""
    return jnp.eye(shape[0], shape[1], dtype=dtype)


def networks(config: Config) -> Iterator[tuple[Study, str, int, models.Recurrent, Sequence[float]]]:
    """Yields what is trained: study, task, length, network, clips."""
    for task in ("first symbol", "adding"):
        for length in config.lengths:
            for cell in config.cells:
                if length <= _SLOW_UP_TO or cell in _FAST:
                    yield "length", task, length, models.Recurrent(cell, config.features), (1.0,)
    stacks = [(name, layers) for name in _FAST for layers in (1, 2, 3)]
    for name, layers in [*stacks, ("lstm", 1)]:
        network = models.Recurrent(name, config.features, layers)
        yield "depth", "selective copying", _COPIED_OVER, network, (1.0,)
    gaussian = ("normal", config.features**-0.5)
    starts: list[dict[str, Any]] = [
        {"cell": "simple", "recurrent_init": "orthogonal"},
        {"cell": "simple", "recurrent_init": gaussian},
        {"cell": "simple", "recurrent_init": identity},
        {"cell": "lstm", "recurrent_init": "orthogonal"},
        {"cell": "lstm", "recurrent_init": gaussian},
        {"cell": "lstm", "recurrent_init": "orthogonal", "forget_bias": 0.0},
        # log T: as if a forget gate kept a state for about as long (Tallec and Ollivier 2018).
        {"cell": "lstm", "recurrent_init": "orthogonal", "forget_bias": 4.0},
    ]
    for start in starts:
        network = models.Recurrent(features=config.features, **start)
        yield "start", "first symbol", _STARTED_OVER, network, (1.0, _UNCLIPPED)


def study(config: Config) -> list[dict[str, Any]]:
    """Trains all networks of the studies: a row for each network and clip."""
    wanted = [each for each in networks(config) if each[0] in config.studies]
    if not wanted:
        raise ValueError(f"over {min(config.lengths)} steps only {', '.join(_FAST)} are trained")
    rows = []
    for name, task, length, recurrent, clips in reports.progress(wanted, "network"):
        measured = measure(config, task, length, recurrent, clips)
        rows += [{"study": name, **row} for row in measured]
    return rows


def pictures(run_dir: Path, rows: Sequence[dict[str, Any]], config: Config) -> None:
    """Accuracy by cell and length, and the gradient over time by cell, before and after the training."""
    rows = [row for row in rows if row["study"] == "length"]
    if not rows:
        return
    at = {(row["task"], row["cell"], row["length"]): row for row in rows}
    kinds = [(task, cell) for task in ("first symbol", "adding") for cell in config.cells]
    table = [[at.get((*kind, length)) for length in config.lengths] for kind in kinds]
    reports.plots.heatmap(
        [[np.mean(row["accuracy"]) if row else np.nan for row in line] for line in table],
        rows=[f"{task}: {cell}" for task, cell in kinds],
        columns=[str(length) for length in config.lengths],
        notes=[
            [" ".join(f"{value:.2f}" for value in row["accuracy"]) if row else "" for row in line]
            for line in table
        ],
        limits=(0.0, 1.0),
        xlabel="steps of the sequence",
        label="accuracy, mean over seeds",
        title=f"Share of right answers after {config.num_steps:,} steps, of each seed",
        path=run_dir / "long-memory.png",
    )
    longest = max((row["length"] for row in rows if row["length"] <= _SLOW_UP_TO), default=None)
    if longest is None:
        return
    shown = [row for row in rows if row["length"] == longest and row["task"] == "adding"]
    flows = [np.array(flow) / np.log(10) for row in shown for flow in row["gradients"]]
    points = len(flows[0])
    reports.plots.heatmap(
        [flow - flow[-1] for flow in flows],
        rows=[f"{row['cell']}, {when}" for row in shown for when in ("at the start", "trained")],
        columns=[
            str(round(i * (longest - 1) / (points - 1)) + 1)
            if i % 8 == 0 or i == points - 1
            else ""
            for i in range(points)
        ],
        notes=[[""] * points] * len(flows),
        limits=(-8.0, 0.0),
        xlabel="step t",
        label="log10 of |∂E/∂h_t| / |∂E/∂h_T|",
        title=f"Adding over {longest} steps: what is left of the gradient on its way back from the end",
        path=run_dir / "long-memory-gradients.png",
    )


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    if min(config.lengths) < 4:
        raise ValueError(f"lengths must be at least 4, got {min(config.lengths)}")
    warnings.filterwarnings("ignore", category=monitor.FindingsWarning)
    bench.compilation_cache()
    rows = study(config)
    pictures(run_dir, rows, config)
    reports.table(
        "accuracy, mean over seeds",
        ["task", "steps", "cell", "layers", "start", "clip", "rate", "accuracy", "first finding"],
        [
            [
                row["task"], row["length"], row["cell"], row["layers"], row["start"], row["clip"],
                row["learning_rate"], float(np.mean(row["accuracy"])),
                next(iter(row["findings"]), None),
            ]
            for row in rows
        ],
    )  # fmt: skip
    return rows


def main(arguments: Sequence[str]) -> int:
    return command.run("long_memory", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
