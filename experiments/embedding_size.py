"""Which size of an embedding has the lowest validation loss?

    python -m experiments.embedding_size                      two minutes on two cores
    python -m experiments.embedding_size --dims 1 8 64 --seeds 0

Where does this aircraft fly to? The model is a softmax over the 105 destinations from New York in 2013,
given tail number, airport, hour and day of the week, each with an embedding; that of the tail number has
the size d. Too small a d cannot distinguish aircraft; too large a d memorises the flights of each. Sizes
are compared by the lowest validation loss of a training. The advice is the smallest d whose mean over the
seeds is within one standard error of the best (Hastie et al., The Elements of Statistical Learning, section
7.10). Tail numbers rare in training share the row `"unknown"`.

The output is `embedding_size.png` and a sentence that also gives two rules of thumb: the fourth root of the
number of rows (TensorFlow's guide to feature columns, 2017), and 1.6 times its power 0.56 (fastai). Expect
d = 8. The record is `experiments/results/embedding-size.json`.
"""

import dataclasses
import datetime
import os
import sys
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from experiments import command
from jaxml import bench, models, reports, train
from jaxml.data import flights


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains models with embeddings of several sizes, and compares their validation losses."""

    dims: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Sizes of the tail number's embedding."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of parameters and order, for every size; the split is the same."""
    num_train: int = 50_000
    """Flights to train on."""
    num_validation: int = 20_000
    """Flights to validate on."""
    rare: int = 5
    """Tail numbers of fewer training flights are unknown."""
    width: int = 64
    """Units of the hidden layer."""
    learning_rate: float = 3e-3
    """Learning rate of Adam."""
    num_steps: int = 1200
    """Steps of each training."""
    batch_size: int = 512
    """Examples in a step."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


class Flights(NamedTuple):
    """Ids of columns and of destinations.

    Attributes:
        x: int32 [N, 4]: tail number (−1 where unknown), airport, hour, day of the week.
        y: int32 [N] destinations.
        sizes: of the columns' vocabularies.
        num_classes: destinations.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    sizes: tuple[int, ...]
    num_classes: int


def load(config: Config) -> Flights:
    """Returns the flights, shuffled, those to train on first."""
    columns = flights.read_flights(("month", "day", "hour", "tailnum", "origin", "dest"))
    wanted = config.num_train + config.num_validation
    if min(config.num_train, config.num_validation) < 1 or wanted > len(columns["dest"]):
        raise ValueError(
            f"num_train and num_validation must be at least 1 and together at most "
            f"{len(columns['dest'])}, got {config.num_train} and {config.num_validation}"
        )
    chosen = np.random.Generator(np.random.PCG64(0)).permutation(len(columns["dest"]))[:wanted]
    part = {name: column[chosen] for name, column in columns.items()}
    days = np.array(
        [
            datetime.date(2013, int(month), int(day)).weekday()
            for month, day in zip(part["month"], part["day"], strict=True)
        ]
    )
    # The vocabulary of tail numbers comes from the training flights alone.
    tails, counts = np.unique(part["tailnum"][: config.num_train], return_counts=True)
    tails = tails[(counts >= config.rare) & (tails != "")]
    if not len(tails):
        raise ValueError(
            f"rare must leave a tail number of {config.num_train} flights, got {config.rare}"
        )
    at = np.minimum(np.searchsorted(tails, part["tailnum"]), len(tails) - 1)
    tail = np.where(tails[at] == part["tailnum"], at, -1)
    airports, origin = np.unique(part["origin"], return_inverse=True)
    destinations, y = np.unique(part["dest"], return_inverse=True)
    x = np.stack([tail, origin, part["hour"].astype(int), days], axis=1)
    sizes = (len(tails), len(airports), 24, 7)
    return Flights(x.astype(np.int32), y.astype(np.int32), sizes, len(destinations))


def measure(config: Config, data: Flights, dim: int, seed: int) -> dict[str, Any]:
    """Trains one size from one seed."""
    cut = config.num_train
    model = models.TabularMLP(
        data.sizes, (dim, 2, 4, 2), (config.width,), data.num_classes, out_of_range="unknown"
    )
    fitted = train.fit(
        model,
        optax.softmax_cross_entropy_with_integer_labels,
        optax.adam(config.learning_rate),
        (data.x[:cut], data.y[:cut]),
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        key=jax.random.key(seed),
        validation_data=(data.x[cut:], data.y[cut:]),
        monitor=False,
    )
    return {
        "dim": dim,
        "seed": seed,
        "best": fitted.lowest_validation_loss,
        "best_step": fitted.best_step,
        "last": fitted.validation_loss,
        "training": float(fitted.loss_curve[-max(1, config.num_steps // 20) :].mean()),
    }


def means(rows: Sequence[dict[str, Any]], name: str) -> dict[int, float]:
    """Returns the mean over the seeds for each size, ascending."""
    dims = sorted({row["dim"] for row in rows})
    return {dim: float(np.mean([row[name] for row in rows if row["dim"] == dim])) for dim in dims}


def advice(rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Returns the size with the lowest mean of `best`, and the smallest within one standard error of it."""
    mean = means(rows, "best")
    best = min(mean, key=lambda dim: mean[dim])
    losses = [row["best"] for row in rows if row["dim"] == best]
    error = float(np.std(losses, ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else 0.0
    return best, min(dim for dim in mean if mean[dim] <= mean[best] + error)


def sentence(rows: Sequence[dict[str, Any]], vocabulary_size: int) -> str:
    """Returns the result in words."""
    best, enough = advice(rows)
    lowest, last = means(rows, "best"), means(rows, "last")
    ends = "; ".join(
        f"d = {dim}: {lowest[dim]:.3f}, at the end {last[dim]:.3f}"
        for dim in dict.fromkeys((min(lowest), enough, max(lowest)))
    )
    return (
        f"For {vocabulary_size:,} tail numbers use d = {enough}, the smallest size within one standard "
        f"error of the lowest validation loss, at d = {best} ({ends}); the fourth root gives "
        f"{round(vocabulary_size**0.25)}, 1.6 · V^0.56 gives {round(1.6 * vocabulary_size**0.56)}."
    )


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    bench.compilation_cache()
    data = load(config)
    kinds = [(dim, seed) for dim in config.dims for seed in config.seeds]
    # Compiling and the step of a small model take one core each.
    with futures.ThreadPoolExecutor(min(len(kinds), os.cpu_count() or 1)) as pool:
        found = pool.map(lambda kind: measure(config, data, *kind), kinds)
        rows = [{**row, "rows": data.sizes[0]} for row in found]
    labels = {
        "best": "validation, lowest",
        "last": "validation, at the end",
        "training": "training, at the end",
    }
    mean = {name: means(rows, name) for name in (*labels, "best_step")}
    samples = {
        name: [[r[name] for r in rows if r["dim"] == d] for d in mean[name]] for name in labels
    }
    lines = {label: (list(mean[name]), samples[name]) for name, label in labels.items()}
    reports.plots.curves(
        lines,
        xlabel="size of the embedding of a tail number",
        ylabel="cross entropy of destinations (nats)",
        title=f"{data.sizes[0]:,} tail numbers, {config.num_train:,} flights, "
        f"mean and range of {len(config.seeds)} seed{'s' * (len(config.seeds) != 1)}",
        path=run_dir / "embedding_size.png",
    )
    spread = {d: np.std([row["best"] for row in rows if row["dim"] == d]) for d in mean["best"]}
    columns = mean["best"], spread, mean["best_step"], mean["last"], mean["training"]
    reports.table(
        "mean over seeds",
        ["d", "lowest validation loss", "±", "at step", "at the end", "training"],
        [[d, *(column[d] for column in columns)] for d in mean["best"]],
    )
    print(sentence(rows, data.sizes[0]))
    return rows


def main(arguments: Sequence[str]) -> int:
    return command.run("embedding_size", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
