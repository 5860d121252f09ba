"""Which batch size reaches the lowest loss in the same number of epochs, each at its best learning rate?

    python -m experiments.batch_size                   batches from one example to all of them, a minute
    python -m experiments.batch_size --epochs 40

An MLP is trained on scikit-learn's digits. A small batch takes more steps in an epoch, and each of them is
noisier: it makes more progress per example and less per step.

Expect the lowest validation loss with a batch of 8, and a full batch that is far behind. The picture shows
the validation loss over epochs. The record is `experiments/results/batch-size.json`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from experiments import command
from jaxml import bench, losses, models, reports, train
from jaxml.data import scikit


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains for the same number of epochs with several batch sizes."""

    batch_sizes: tuple[int, ...] = (1, 8, 32, 128)
    """Examples in a step; the full batch is always added."""
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates to try; the one with the lowest validation loss is shown for each size."""
    epochs: int = 15
    """Passes over the data."""
    num_train: int = 1200
    """Digits to train on; the others are for validation."""
    widths: tuple[int, ...] = (32,)
    """Units of each hidden layer."""
    seed: int = 0
    """Seed of split, parameters and order."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def sweeps(config: Config) -> dict[str, train.Sweep]:
    """A sweep over learning rates for each batch size, of as many steps as make the epochs."""
    x, y = scikit.digits()
    order = np.random.default_rng(config.seed).permutation(len(x))
    fitting, judging = np.split(order, [config.num_train])
    x = x / np.float32(16)
    found = {}
    for size in (*config.batch_sizes, None):
        steps = max(1, config.epochs * config.num_train // (size or config.num_train))
        found["full batch" if size is None else f"batch of {size}"] = train.sweep(
            models.MLP(config.widths, 10),
            losses.softmax_cross_entropy,
            lambda h: optax.sgd(h["learning_rate"]),
            (x[fitting], y[fitting]),
            space={"learning_rate": config.learning_rates},
            num_steps=steps,
            batch_size=size,
            key=jax.random.key(config.seed),
            validation_data=(x[judging], y[judging]),
            monitor=False,
        )
    return found


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    bench.compilation_cache()
    found = sweeps(config)
    best = {name: swept.best("validation_loss") for name, swept in found.items()}
    rows: list[dict[str, Any]] = [
        {
            "batch": name,
            "steps": trial.steps,
            "learning_rate": trial.hyperparameters["learning_rate"],
            "loss": trial.loss,
            "validation_loss": trial.validation_loss,
            "seconds": found[name].seconds["run"] / len(found[name]),
        }
        for name, trial in best.items()
    ]
    reports.table(
        f"{config.epochs} epochs of {config.num_train} digits, each at its best learning rate",
        ["", "steps", "learning rate", "training loss", "validation loss", "s"],
        [list(row.values()) for row in rows],
    )
    lowest, whole = min(rows, key=lambda row: row["validation_loss"]), rows[-1]
    sentence = (
        f"After {config.epochs} epochs a {lowest['batch']} has the lowest validation loss, "
        f"{lowest['validation_loss']:.3f} in {lowest['steps']:,} steps at learning rate "
        f"{lowest['learning_rate']:g}; the full batch, with {whole['steps']} steps at "
        f"{whole['learning_rate']:g}, is at {whole['validation_loss']:.3f}."
    )
    reports.plots.curves(
        {
            f"{name}, rate {trial.hyperparameters['learning_rate']:g}": (
                trial.fit.validation_steps / trial.steps * config.epochs,
                trial.fit.validation_curve,
            )
            for name, trial in best.items()
        },
        xlabel="epochs",
        ylabel="validation loss",
        title=sentence,
        log_x=False,
        path=run_dir / "batch_size.png",
    )
    print(sentence)
    return {"sentence": sentence, "rows": rows}


def main(arguments: Sequence[str]) -> int:
    return command.run("batch_size", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
