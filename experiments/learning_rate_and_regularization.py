"""Which weight penalty is best at which learning rate?

    python -m experiments.learning_rate_and_regularization            a map of 7 × 6, about a minute
    python -m experiments.learning_rate_and_regularization --num-train 300 --seeds 3

An MLP is trained on a few of scikit-learn's digits, so that it can overfit. One sweep trains every
combination of learning rate, weight penalty and seed; the map shows the findings of the monitor in each
cell. A high learning rate needs a penalty more than a low one that has not reached the point where it
overfits, and with too strong a penalty no learning rate works.

The run also draws training and validation curves for three penalties at the best learning rate. The
record is `experiments/results/learning-rate-and-regularization.json`.
"""

import dataclasses
import sys
from collections import Counter
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
    """Maps the validation loss over learning rate and weight penalty."""

    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates of stochastic gradient descent."""
    penalties: tuple[float, ...] = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1)
    """Half of it times the squared weights is added to the loss."""
    seeds: int = 2
    """Trainings in each cell; it shows their mean."""
    num_train: int = 400
    """Digits to train on; the others are for validation."""
    num_steps: int = 600
    """Steps of each training."""
    batch_size: int = 32
    """Examples in a step."""
    widths: tuple[int, ...] = (64, 64)
    """Units of each hidden layer."""
    seed: int = 0
    """Seed of the choice of digits."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def sweep(config: Config) -> train.Sweep:
    """All cells and seeds."""
    x, y = scikit.digits()
    order = np.random.default_rng(config.seed).permutation(len(x))
    fitting, judging = np.split(order, [config.num_train])
    x = x / np.float32(16)
    return train.sweep(
        models.MLP(config.widths, 10),
        losses.softmax_cross_entropy,
        lambda h: optax.sgd(h["learning_rate"]),
        (x[fitting], y[fitting]),
        space={"penalty": config.penalties, "learning_rate": config.learning_rates},
        seeds=config.seeds,
        penalty=lambda h, params: losses.l2(params, h["penalty"] / 2, losses.kernels_only),
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        key=jax.random.key(config.seed),
        validation_data=(x[judging], y[judging]),
    )


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    bench.compilation_cache()
    swept = sweep(config)
    shape = len(config.penalties), len(config.learning_rates), config.seeds
    validation = np.array([trial.validation_loss for trial in swept.trials]).reshape(shape)
    training = np.array([trial.loss for trial in swept.trials]).reshape(shape).mean(-1)
    means = validation.mean(-1)
    finite = np.where(np.isfinite(means), means, np.inf)
    best = np.unravel_index(finite.argmin(), finite.shape)
    penalty, rate = config.penalties[best[0]], config.learning_rates[best[1]]
    unpenalised = finite[int(np.argmin(config.penalties))]
    alone = int(unpenalised.argmin())
    # The slowest rate that still comes near: which penalty does it want?
    columns = finite.min(0)
    slowest = int(np.flatnonzero(columns < 2 * columns.min())[0])
    wanted = config.penalties[int(finite[:, slowest].argmin())]
    sentence = (
        f"Lowest validation loss {means[best]:.3f} at learning rate {rate:g} with penalty {penalty:g}; "
        f"without one {unpenalised[alone]:.3f} at {config.learning_rates[alone]:g}. "
        f"At rate {config.learning_rates[slowest]:g} the best penalty is {wanted:g}."
    )
    symptoms = [[finding.symptom for finding in findings] for findings in swept.findings]
    of_cells = np.array([" ".join(names) for names in symptoms]).reshape(shape)
    notes = [
        [
            ", ".join(name for name, _ in Counter(" ".join(seeds).split()).most_common(2))
            for seeds in row
        ]
        for row in of_cells
    ]
    reports.plots.response_map(
        ("weight penalty", config.penalties),
        ("learning rate", config.learning_rates),
        means,
        notes=notes,
        label="validation loss after the last step",
        title=sentence,
        path=run_dir / "map.png",
    )
    picked = {}
    for i in sorted({0, int(best[0]), shape[0] - 1}):
        fit = swept.trials[(i * shape[1] + int(best[1])) * config.seeds].fit
        picked[f"penalty {config.penalties[i]:g}"] = (
            np.arange(len(fit.loss_curve)),
            fit.loss_curve,
            fit.validation_steps,
            fit.validation_curve,
        )
    reports.plots.loss_curves(
        picked,
        title=f"Training and validation at learning rate {rate:g}",
        path=run_dir / "generalization.png",
    )
    cells = [
        {
            "penalty": config.penalties[i],
            "learning_rate": config.learning_rates[j],
            "loss": float(training[i, j]) if np.isfinite(training[i, j]) else None,
            "validation_loss": float(means[i, j]) if np.isfinite(means[i, j]) else None,
            "findings": notes[i][j],
        }
        for i, j in np.ndindex(*means.shape)
    ]
    print(sentence)
    return {"sentence": sentence, "seconds": swept.seconds, "cells": cells}


def main(arguments: Sequence[str]) -> int:
    return command.run("learning_rate_and_regularization", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
