"""Which networks train, by depth, activation and initialisation, and which remedies help the others?

    python -m experiments.activations                               the map, some minutes on two cores
    python -m experiments.activations --depths 2 20 --activations sigmoid relu

Networks of equal width on scikit-learn's digits, SGD with momentum, one learning rate for all. Each is
trained by `train.sweep` with the monitor, without the final diagnostics. The remedy of the findings in a
failed one is applied, and it is trained again, up to `rounds` times. Programs that differ by their
initialisation, learning rate or clip alone are compiled once, and kept on disk.

Expect that half of the 84 networks reach an accuracy of 0.5, that the monitor finds something in nearly all
others, and that the remedies bring nearly all of these there.

It writes `activations.png`, a map of held-out accuracy with the first finding and the accuracy after the
remedy, and the rows of `experiments/results/activations.json`.
"""

import collections
import dataclasses
import sys
import warnings
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax

from experiments import command
from jaxml import bench, losses, models, monitor, reports, train
from jaxml.data import scikit
from jaxml.models.initializers import InitializerSpec

Activation = Literal[
    "sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "selu", "silu", "softplus"
]
Initializer = Literal["small", "glorot", "he", "large"]

_INITIALIZERS: dict[str, InitializerSpec] = {
    "small": ("normal", 0.01),
    "glorot": "glorot_normal",
    "he": "he_normal",
    "large": ("variance_scaling_normal", 16.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains networks by depth, activation and initialisation, and applies remedies to those that fail."""

    depths: tuple[int, ...] = (2, 6, 12)
    """Hidden layers; the columns of the map."""
    activations: tuple[Activation, ...] = (
        "sigmoid",
        "tanh",
        "relu",
        "leaky_relu",
        "elu",
        "gelu",
        "selu",
    )
    """Activations of the hidden layers."""
    initializers: tuple[Initializer, ...] = ("small", "glorot", "he", "large")
    """small has deviation 0.01, large variance 16 / fan_in."""
    width: int = 32
    """Units of every hidden layer."""
    learning_rate: float = 0.03
    """Learning rate of SGD with momentum 0.9."""
    num_steps: int = 400
    """Steps of each training."""
    batch_size: int = 64
    """Examples in a step."""
    rounds: int = 2
    """Largest number of remedies for a network."""
    trains: float = 0.9
    """Held-out accuracy from which on a network counts as trained."""
    seed: int = 0
    """Seed of parameters, order and split."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A network and its training, as values that a remedy can change."""

    depth: int
    activation: str
    initializer: InitializerSpec
    learning_rate: float
    clip: float = 1e30
    normalized: bool = False

    def after(self, remedy: monitor.Remedy) -> "Recipe":
        """Returns the recipe with the changes of the remedy."""
        change: dict[str, Any] = {
            name: value
            for name in ("activation", "initializer", "clip")
            if (value := getattr(remedy, name)) is not None
        }
        if remedy.normalization is not None:
            change["normalized"] = True
        if remedy.learning_rate is not None:
            change["learning_rate"] = remedy.learning_rate
        elif remedy.learning_rate_factor is not None:
            change["learning_rate"] = self.learning_rate * remedy.learning_rate_factor
        return dataclasses.replace(self, **change)


def _trained(
    config: Config, recipe: Recipe, data: tuple[Any, ...]
) -> tuple[float, list[monitor.Finding]]:
    """Returns the accuracy on held-out digits after a training, and the findings.

    Rates and clips are hyperparameters, so that others compile nothing.
    """
    x, y, x_test, y_test = data
    model = models.MLP(
        (config.width,) * recipe.depth,
        10,
        recipe.activation,
        kernel_init=recipe.initializer,
        normalization="layer" if recipe.normalized else "none",
    )
    swept = train.sweep(
        model,
        losses.softmax_cross_entropy,
        _optimizer,
        (x, y),
        space={"learning_rate": recipe.learning_rate, "clip": recipe.clip},
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        key=jax.random.key(config.seed),
        monitor=train.Monitor(final_diagnostics=False),
    )
    fitted = swept.trials[0].fit
    accuracy = np.mean(fitted.predict(x_test).argmax(-1) == y_test)
    return float(accuracy), fitted.findings


def _optimizer(hyperparameters: Any) -> optax.GradientTransformation:
    sgd = optax.sgd(hyperparameters["learning_rate"], momentum=0.9)
    return optax.chain(optax.clip_by_global_norm(hyperparameters["clip"]), sgd)


def study(config: Config) -> list[dict[str, Any]]:
    """Trains the grid, applies remedies where a network fails, and trains again: a row for each network."""
    x: Any
    x, y = scikit.digits()
    turn = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(x))
    x, y = x[turn] / 16, y[turn]
    held_out = len(x) // 4
    data = x[held_out:], y[held_out:], x[:held_out], y[:held_out]
    kinds = [
        (depth, activation, initializer)
        for depth in config.depths
        for activation in config.activations
        for initializer in config.initializers
    ]
    # A compiler uses one core: two networks are compiled at the same time.
    with futures.ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda kind: _row(config, kind, data), kinds)
        return [next(found) for _ in reports.progress(kinds, "network")]


def _row(config: Config, kind: tuple[int, str, str], data: tuple[Any, ...]) -> dict[str, Any]:
    depth, activation, initializer = kind
    recipe = Recipe(depth, activation, _INITIALIZERS[initializer], config.learning_rate)
    accuracy, found = before = _trained(config, recipe, data)
    tried: list[monitor.Remedy] = []
    while accuracy < config.trains and found and len(tried) < config.rounds:
        remedy = monitor.remedy(found, tried=tried)
        changed = recipe.after(remedy)
        if changed == recipe:
            break
        recipe, (accuracy, found) = changed, _trained(config, changed, data)
        tried.append(remedy)
    return {
        "depth": depth,
        "activation": activation,
        "initializer": initializer,
        "accuracy": before[0],
        "findings": [finding.symptom for finding in before[1]],
        "first": str(before[1][0]) if before[1] else None,
        "remedies": [remedy.changes() for remedy in tried],
        "accuracy_after": accuracy if tried else None,
        "findings_after": [finding.symptom for finding in found] if tried else None,
    }


def sentence(rows: Sequence[dict[str, Any]], trains: float) -> str:
    """Returns the result in words."""
    failed = [row for row in rows if row["accuracy"] < trains]
    found = [row for row in failed if row["findings"]]
    revived = [row for row in found if (row["accuracy_after"] or 0) >= trains]
    symptoms = collections.Counter(row["findings"][0].replace("_", " ") for row in found)
    counted = ", ".join(f"{name} {number}" for name, number in symptoms.most_common())
    return (
        f"{len(rows) - len(failed)} of {len(rows)} networks train; of the {len(failed)} that do not, "
        f"something is found in {len(found)}" + (f" ({counted})" if counted else "") + ", and what "
        f"the monitor advises revives {len(revived)} of these."
    )


def picture(path: Path, rows: Sequence[dict[str, Any]], config: Config) -> None:
    """The map: activation and initialisation down, depth across."""
    at = {(row["activation"], row["initializer"], row["depth"]): row for row in rows}
    kinds = [(a, i) for a in config.activations for i in config.initializers]

    def note(row: dict[str, Any]) -> str:
        text = f"{row['accuracy']:.2f}"
        if row["findings"]:
            text += f" {row['findings'][0].replace('_', ' ')}"
        if row["accuracy_after"] is not None:
            text += f" ⇒ {row['accuracy_after']:.2f}"
        return text

    cells = [[at[*kind, depth] for depth in config.depths] for kind in kinds]
    reports.plots.heatmap(
        [[row["accuracy"] for row in line] for line in cells],
        rows=[f"{activation}, {init}" for activation, init in kinds],
        columns=[str(depth) for depth in config.depths],
        notes=[[note(row) for row in line] for line in cells],
        limits=(0.1, 1.0),
        xlabel="hidden layers",
        label="held-out accuracy",
        title=f"Accuracy after {config.num_steps} steps, first finding ⇒ accuracy after the remedy",
        path=path,
    )


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    warnings.filterwarnings("ignore", category=monitor.FindingsWarning)
    bench.compilation_cache()
    rows = study(config)
    picture(run_dir / "activations.png", rows, config)
    failed = [row for row in rows if row["accuracy"] < config.trains]
    reports.table(
        "networks that do not train",
        ["hidden layers", "activation", "initialisation", "accuracy", "found first", "changed",
         "after"],
        [
            [
                row["depth"], row["activation"], row["initializer"], row["accuracy"],
                next(iter(row["findings"]), "nothing"),
                "; ".join(
                    ", ".join(f"{name} {value}" for name, value in changes.items())
                    for changes in row["remedies"]
                )
                or None,
                row["accuracy_after"],
            ]
            for row in failed
        ],
    )  # fmt: skip
    print(sentence(rows, config.trains))
    return rows


def main(arguments: Sequence[str]) -> int:
    return command.run("activations", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
