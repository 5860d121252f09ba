"""Can what the monitor advises be done, and does it help? Sick configurations, treated in-process.

    python -m experiments.gradient_clinic                        all patients, some minutes
    python -m experiments.gradient_clinic --patients dead deep   some of them

A patient is a configuration that fails. It is trained and watched; `monitor.remedy` of what is found is
applied to the configuration, as data; it is trained anew, up to three times, until nothing is found. What
counts is the outcome: the share of what a constant guess loses that the model saves, on its training data,
before and after.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from numpy.typing import NDArray

from jaxml import bench, models, monitor, reports, train
from jaxml.data import scikit
from jaxml.types import Array


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training, as values that a remedy can change."""

    data: str = "digits"
    widths: tuple[int, ...] = (64, 64)
    activation: str = "relu"
    initializer: str | tuple[str, float] = "lecun_normal"
    normalization: str = "none"
    output_activation: str = "none"
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    clip: float | None = None
    epsilon: float = 1e-8
    loss_factor: float = 1.0
    batch_size: int = 64
    num_steps: int = 500
    scale_inputs: bool = False
    drop_bad: bool = False
    shuffle: bool = True


PATIENTS: dict[str, Recipe] = {
    "deep": Recipe(widths=(32,) * 10, activation="sigmoid", optimizer="adam", learning_rate=1e-3),
    "deep_sgd": Recipe(widths=(64,) * 6, activation="sigmoid"),
    "tiny": Recipe(widths=(64,) * 4, initializer=("normal", 1e-2), learning_rate=0.05),
    "huge": Recipe(widths=(64,) * 6, initializer=("normal", 0.7), learning_rate=0.01),
    "equal": Recipe(initializer=("constant", 0.01)),
    "saturated": Recipe(
        widths=(64,) * 5, activation="tanh", initializer=("normal", 3.0), learning_rate=0.01
    ),
    "dead": Recipe(
        data="circles", widths=(5,) * 15, initializer="he_uniform", optimizer="adam",
        learning_rate=1e-3, batch_size=128, num_steps=1650,
    ),
    "too_fast": Recipe(learning_rate=30.0, activation="tanh"),
    "too_fast_adam": Recipe(optimizer="adam", learning_rate=0.5),
    "too_slow": Recipe(learning_rate=1e-4),
    "too_slow_adam": Recipe(optimizer="adam", learning_rate=1e-6),
    "unscaled": Recipe(data="wine", widths=(32, 32), learning_rate=0.05, batch_size=32),
    "clipped": Recipe(clip=1e-3),
    "floored": Recipe(optimizer="adam", learning_rate=1e-3, epsilon=1e-2, loss_factor=1e-4),
    "not_finite": Recipe(data="digits_with_nan", optimizer="adam", learning_rate=1e-3),
    "sorted": Recipe(data="digits_sorted", learning_rate=0.3, batch_size=16, shuffle=False,
                     num_steps=1000),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Sick configurations, what is found, what is changed, and whether it helped."""

    patients: tuple[str, ...] = ()
    """Which; none named are all."""
    seeds: tuple[int, ...] = (0,)
    """Each is treated so often."""
    rounds: int = 3
    """Treatments at most."""
    run_dir: Path | None = None
    """Directory for rows and pictures; None for runs/gradient_clinic/<time>."""


def apply(remedy: monitor.Remedy, recipe: Recipe) -> Recipe:
    """The recipe with what the remedy says changed."""
    change: dict[str, Any] = {}
    if remedy.learning_rate is not None:
        change["learning_rate"] = remedy.learning_rate
    elif remedy.learning_rate_factor is not None:
        change["learning_rate"] = recipe.learning_rate * remedy.learning_rate_factor
    if remedy.clip is not None:
        change["clip"] = remedy.clip
    for name in ("initializer", "activation", "normalization", "output_activation"):
        if (value := getattr(remedy, name)) is not None:
            change[name] = value
    if remedy.epsilon_factor is not None:
        change["epsilon"] = recipe.epsilon * remedy.epsilon_factor
    if remedy.scale_inputs:
        change["scale_inputs"] = True
    if remedy.data == "drop_non_finite":
        change["drop_bad"] = True
    if remedy.data == "shuffle":
        change["shuffle"] = True
    return dataclasses.replace(recipe, **change)


def _data(recipe: Recipe) -> tuple[NDArray[Any], NDArray[Any]]:
    x: Any
    if recipe.data == "circles":
        x, y = scikit.circles(700, 0.1, 1)
    elif recipe.data == "wine":
        x, y = scikit.wine()
    else:
        x, y = scikit.digits()
        x = x / 16
        if recipe.data == "digits_sorted":
            order = np.argsort(y, kind="stable")
            x, y = x[order], y[order]
        elif recipe.data == "digits_with_nan":
            x[::40, 7] = np.nan
        elif recipe.data != "digits":
            raise ValueError(f"unknown data {recipe.data!r}")
    return (scikit.scaled(x) if recipe.scale_inputs else x), y


def _initializer(recipe: Recipe) -> Callable[..., Array]:
    initializers = jax.nn.initializers
    if isinstance(recipe.initializer, str):
        return getattr(initializers, recipe.initializer)()
    name, value = recipe.initializer
    return getattr(initializers, name)(value)


def fit(recipe: Recipe, seed: int) -> train.Fit:
    """Trains a recipe."""
    x, y = _data(recipe)
    model = models.MLP(
        recipe.widths,
        int(y.max()) + 1,
        recipe.activation,
        _initializer(recipe),
        recipe.normalization,
        output_activation=recipe.output_activation,
    )
    if recipe.optimizer == "sgd":
        optimizer = optax.sgd(recipe.learning_rate)
    else:
        optimizer = optax.adam(recipe.learning_rate, eps=recipe.epsilon)
    if recipe.clip is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(recipe.clip), optimizer)

    def loss(outputs: Array, labels: Array) -> Array:
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return jnp.float32(recipe.loss_factor) * each

    return train.fit(
        model,
        loss,
        optimizer,
        (x, y),
        num_steps=recipe.num_steps,
        batch_size=recipe.batch_size,
        key=jax.random.key(seed),
        on_bad_data="drop" if recipe.drop_bad else "report",
        shuffle=recipe.shuffle,
    )


def saved(fitted: train.Fit) -> float:
    """Share of what a constant guess loses that the model saves; 0 where the loss is not finite."""
    assert fitted.history is not None and fitted.history.after is not None
    after = fitted.history.after
    share = 1 - after.loss / after.mismatched_loss
    return float(share) if np.isfinite(share) else 0.0


def treat(name: str, seed: int, rounds: int) -> dict[str, Any]:
    """Trains a patient, and treats it until nothing is found."""
    recipe = PATIENTS[name]
    fitted = fit(recipe, seed)
    first, found = saved(fitted), fitted.findings
    told: list[dict[str, Any]] = []
    visit = 0
    while fitted.findings and visit < rounds:
        remedy = monitor.remedy(fitted.findings)
        told.append({"found": str(fitted.findings[0]), "changed": remedy.changes()})
        recipe = apply(remedy, recipe)
        fitted = fit(recipe, seed)
        visit += 1
    last = saved(fitted)
    return {
        "patient": name,
        "seed": seed,
        "symptoms": [finding.symptom for finding in found],
        "treatments": told,
        "left": [finding.symptom for finding in fitted.findings],
        "before": first,
        "after": last,
        # By much, or to where there is little left to save.
        "helped": last > first + 0.2 or (bool(found) and last > 0.9 and not fitted.findings),
    }


def main(arguments: Sequence[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.gradient_clinic")
    unknown = [name for name in config.patients if name not in PATIENTS]
    if unknown:
        known = ", ".join(PATIENTS)
        print(f"error: unknown patient {unknown[0]!r}: choose among {known}", file=sys.stderr)
        return 2
    run_dir = reports.rundir.create("gradient_clinic", config, path=config.run_dir)
    place = bench.environment()
    rows: list[dict[str, Any]] = []
    for name in config.patients or tuple(PATIENTS):
        for seed in config.seeds:
            row = treat(name, seed, config.rounds)
            rows.append({**row, "environment": place})
            print(f"{name}, seed {seed}: {row['before']:.2f} → {row['after']:.2f}")
            for visit in row["treatments"]:
                print(f"    {visit['found']}\n    changed: {visit['changed']}")
            bench.write_rows(run_dir / "treatments.json", rows)
    helped = sum(row["helped"] for row in rows)
    reports.table(
        f"{helped} of {len(rows)} helped",
        ["patient", "seed", "saved before", "after", "found first", "left"],
        [
            [
                row["patient"],
                row["seed"],
                row["before"],
                row["after"],
                row["symptoms"][0] if row["symptoms"] else "nothing",
                ", ".join(row["left"]) or "–",
            ]
            for row in rows
        ],
    )
    print(f"run directory: {run_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
