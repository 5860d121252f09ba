"""Configurations that fail, each for a reason of its own, as values that a remedy can change."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import models, monitor, train
from jaxml.data import scikit
from jaxml.types import Array

Arrays = tuple[NDArray[Any], NDArray[Any]]

# Rows of the mislabelled digits whose labels are known to be right: for training, and for testing.
_TRUSTED, _TESTED = 200, 200


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training, as values that a remedy can change.

    Attributes:
        data: a name that `problem` knows.
        widths, activation, initializer, normalization, output_activation: of a `models.MLP`.
        cell: `"none"` for that, or the recurrent cell of a network that reads sequences: `"simple"`,
            `"gru"`, `"lstm"`; `widths` is then its width.
        recurrent_scale: of the orthogonal recurrent matrix of a simple cell.
        optimizer, learning_rate, epsilon, clip, weight_decay: of the optimizer; `jump` multiplies the rate
            after the middle of the run.
        preserve: as `train.Monitor` takes it.
    """

    data: str = "digits"
    widths: tuple[int, ...] = (64, 64)
    activation: str = "relu"
    initializer: str | tuple[str, float] = "lecun_normal"
    normalization: str = "none"
    output_activation: str = "none"
    cell: str = "none"
    recurrent_scale: float = 1.0
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    jump: float = 1.0
    clip: float | None = None
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    loss_factor: float = 1.0
    batch_size: int = 64
    num_steps: int = 500
    scale_inputs: bool = False
    drop_non_finite: bool = False
    drop_outliers: bool = False
    trusted_only: bool = False
    shuffle: bool = True
    preserve: float = 0.0


_RECURRENT = Recipe(
    data="first_of_40",
    widths=(32,),
    activation="tanh",
    cell="simple",
    optimizer="adam",
    learning_rate=1e-3,
    num_steps=600,
)

CASES: dict[str, Recipe] = {
    "deep": Recipe(widths=(32,) * 10, activation="sigmoid", optimizer="adam", learning_rate=1e-3),
    "deep_sgd": Recipe(widths=(64,) * 6, activation="sigmoid"),
    "deep_tanh": Recipe(widths=(32,) * 20, activation="tanh", initializer=("variance_scaling_normal", 0.4),
                        learning_rate=0.05),
    "tiny": Recipe(widths=(64,) * 4, initializer=("normal", 1e-2), learning_rate=0.05),
    "huge": Recipe(widths=(64,) * 6, initializer=("normal", 0.7), learning_rate=0.01),
    "equal": Recipe(initializer=("constant", 0.01)),
    "saturated": Recipe(widths=(64,) * 5, activation="tanh", initializer=("normal", 3.0),
                        learning_rate=0.01),
    "dead": Recipe(data="circles", widths=(5,) * 15, initializer="he_uniform", optimizer="adam",
                   learning_rate=1e-3, batch_size=128, num_steps=1650),
    "dead_by_rate": Recipe(learning_rate=5.0),
    "dead_output": Recipe(output_activation="relu", widths=(50,) * 4, learning_rate=0.7),
    "too_fast": Recipe(learning_rate=30.0, activation="tanh"),
    "too_fast_adam": Recipe(optimizer="adam", learning_rate=0.5),
    "too_slow": Recipe(learning_rate=1e-4),
    "too_slow_adam": Recipe(optimizer="adam", learning_rate=1e-6),
    "jump": Recipe(learning_rate=0.05, jump=400.0),
    "unscaled": Recipe(data="wine", widths=(32, 32), learning_rate=0.05, batch_size=32),
    "clipped": Recipe(clip=1e-3),
    "floored": Recipe(optimizer="adam", learning_rate=1e-3, epsilon=1e-2, loss_factor=1e-4),
    "forgetful": dataclasses.replace(_RECURRENT, recurrent_scale=0.5),
    "exploding_memory": dataclasses.replace(_RECURRENT, activation="relu",
                                            recurrent_scale=1.6),
    "not_finite": Recipe(data="digits_with_nan", optimizer="adam", learning_rate=1e-3),
    "sorted": Recipe(data="digits_sorted", learning_rate=0.3, batch_size=16, shuffle=False,
                     num_steps=1000),
    "mislabelled": Recipe(data="digits_mislabelled", optimizer="adam", learning_rate=1e-3,
                          num_steps=400),
    "outliers": Recipe(data="stream_with_outliers", widths=(32,), optimizer="adam",
                       learning_rate=3e-3, batch_size=32, num_steps=400, shuffle=False),
    "memorised": Recipe(data="few_digits", widths=(256, 256), optimizer="adam", learning_rate=3e-3,
                        batch_size=32, num_steps=800),
}  # fmt: skip
"""By name."""


class Problem(NamedTuple):
    """Data and loss of a recipe.

    Attributes:
        given: `(x, y)` to train on.
        clean: `(x, y)` that the outcome is measured on.
        validation: `(x, y)` to follow, or None.
        loss: of each example.
        num_outputs: of the model.
    """

    given: Arrays
    clean: Arrays
    validation: Arrays | None
    loss: Callable[[Any, Array], Array]
    num_outputs: int


def cross_entropy(outputs: Array, labels: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def squared(outputs: Array, targets: Array) -> Array:
    return jnp.square(outputs[:, 0] - targets)


def problem(recipe: Recipe, seed: int) -> Problem:
    """Data and loss of a recipe.

    Raises:
        ValueError: for data of an unknown name.
    """
    noise = np.random.Generator(np.random.PCG64(seed))
    if recipe.data == "stream_with_outliers":
        x = noise.normal(size=(12_800, 8)).astype(np.float32)
        y = (x @ noise.normal(size=8)).astype(np.float32)
        wrong = y.copy()
        wrong[11_840:] *= 100
        return Problem(_without_outliers(recipe, x, wrong), (x, y), None, squared, 1)
    x, y, clean, validation = _labelled(recipe, noise)
    if recipe.scale_inputs:
        x = scikit.scaled(x)
        clean = x, y
    given = _without_outliers(recipe, x, y)
    return Problem(given, clean, validation, cross_entropy, int(clean[1].max()) + 1)


def _without_outliers(recipe: Recipe, x: NDArray[Any], y: NDArray[Any]) -> Arrays:
    if not recipe.drop_outliers:
        return x, y
    # The largest hide the others.
    for _ in range(5):
        seen = monitor.inspect(x, y)
        keep = np.setdiff1d(np.arange(len(x)), np.union1d(seen.outlier_rows, seen.outlier_targets))
        x, y = x[keep], y[keep]
    return x, y


def _labelled(
    recipe: Recipe, noise: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any], Arrays, Arrays | None]:
    x: Any
    if recipe.data == "circles":
        x, y = scikit.circles(700, 0.1, 1)
    elif recipe.data == "wine":
        x, y = scikit.wine()
    elif recipe.data == "first_of_40":
        x = noise.normal(size=(1000, 40, 4)).astype(np.float32)
        y = (x[:, 0, 0] > 0).astype(np.int32)
    else:
        x, y = scikit.digits()
        x = x / 16
    clean = x, y
    if recipe.data in ("circles", "wine", "first_of_40", "digits"):
        return x, y, clean, None
    if recipe.data == "digits_sorted":
        order = np.argsort(y, kind="stable")
        return x[order], y[order], clean, None
    if recipe.data == "digits_with_nan":
        x = x.copy()
        x[::40, 7] = np.nan
        return x, y, clean, None
    order = noise.permutation(len(x))
    x, y = x[order], y[order]
    if recipe.data == "digits_mislabelled":
        clean = x[:_TESTED], y[:_TESTED]
        x, y = x[_TESTED:], y[_TESTED:].copy()
        if recipe.trusted_only:
            return x[:_TRUSTED], y[:_TRUSTED], clean, None
        y[_TRUSTED:] = noise.permutation(y[_TRUSTED:])
        return x, y, clean, None
    if recipe.data == "few_digits":
        few, rest = (x[:150], y[:150].copy()), (x[150:900], y[150:900])
        few[1][:30] = noise.integers(0, 10, 30)
        return *few, rest, rest
    raise ValueError(f"unknown data {recipe.data!r}")


class _Recurrent(nn.Module):
    """The last output of a recurrent layer, classified."""

    cell: nn.RNNCellBase
    num_outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.num_outputs, name="output")(nn.RNN(self.cell)(x)[:, -1])


def _model(recipe: Recipe, num_outputs: int) -> nn.Module:
    if recipe.cell == "none":
        return models.MLP(
            recipe.widths,
            num_outputs,
            recipe.activation,
            recipe.initializer,
            recipe.normalization,
            output_activation=recipe.output_activation,
        )
    (width,) = recipe.widths
    if recipe.cell == "simple":
        activation = jax.nn.relu if recipe.activation == "relu" else jnp.tanh
        matrix = jax.nn.initializers.orthogonal(recipe.recurrent_scale)
        cell: nn.RNNCellBase = nn.SimpleCell(
            width, activation_fn=activation, recurrent_kernel_init=matrix
        )
    else:
        cell = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[recipe.cell](width)
    return _Recurrent(cell, num_outputs)


def fit(recipe: Recipe, seed: int) -> tuple[train.Fit, float]:
    """Trains a recipe with the monitor.

    Returns:
        The fit, and its score: the share of the best constant answer's loss that it saves on clean data, at
        least −1.
    """
    given = problem(recipe, seed)
    rate: Any = recipe.learning_rate
    if recipe.jump != 1:
        rate = optax.piecewise_constant_schedule(rate, {recipe.num_steps // 2: recipe.jump})
    if recipe.optimizer == "sgd":
        optimizer = optax.sgd(rate)
    else:
        optimizer = optax.adamw(rate, eps=recipe.epsilon, weight_decay=recipe.weight_decay)
    if recipe.clip is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(recipe.clip), optimizer)

    def loss(outputs: Array, labels: Array) -> Array:
        return jnp.float32(recipe.loss_factor) * given.loss(outputs, labels)

    fitted = train.fit(
        _model(recipe, given.num_outputs),
        loss,
        optimizer,
        given.given,
        num_steps=recipe.num_steps,
        batch_size=recipe.batch_size,
        key=jax.random.key(seed),
        validation_data=given.validation,
        shuffle=recipe.shuffle,
        monitor=train.Monitor(
            on_bad_data="drop" if recipe.drop_non_finite else "report", preserve=recipe.preserve
        ),
    )
    x, y = given.clean
    if given.loss is squared:
        constant: Any = np.full((1, 1), np.mean(y), np.float32)
    else:
        shares = np.bincount(y, minlength=given.num_outputs) / len(y)
        constant = np.log(np.maximum(shares, 1e-12))[None].astype(np.float32)
    answer = jnp.broadcast_to(jnp.asarray(constant), (len(y), given.num_outputs))
    outputs, labels = jnp.asarray(fitted.predict(x)), jnp.asarray(y)
    saved = 1 - jnp.mean(given.loss(outputs, labels)) / jnp.mean(given.loss(answer, labels))
    return fitted, max(float(saved), -1.0) if np.isfinite(saved) else -1.0


def apply_remedy(remedy: monitor.Remedy, recipe: Recipe) -> Recipe:
    """Returns the recipe with the changes of a remedy, except `check_labels`, which `trust` makes."""
    same_name = (
        "initializer",
        "activation",
        "normalization",
        "output_activation",
        "clip",
        "preserve",
    )
    change = {name: value for name, value in remedy.changes().items() if name in same_name}
    # A rate that was measured is one of a schedule's many; a factor holds for all of them.
    if remedy.learning_rate is not None and recipe.jump == 1:
        change["learning_rate"] = remedy.learning_rate
    elif remedy.learning_rate_factor is not None:
        change["learning_rate"] = recipe.learning_rate * remedy.learning_rate_factor
    if recipe.cell != "none":
        change |= {"cell": remedy.cell} if remedy.cell else {}
        change |= {"recurrent_scale": 1.0} if remedy.initializer else {}
    if remedy.loss == "check_sign":
        change["loss_factor"] = -recipe.loss_factor
    if remedy.epsilon_factor is not None:
        change["epsilon"] = recipe.epsilon * remedy.epsilon_factor
    if remedy.epsilon is not None:
        change["epsilon"] = remedy.epsilon
    if remedy.scale_inputs:
        change["scale_inputs"] = True
    if remedy.regularization == "increase":
        change["weight_decay"] = max(10 * recipe.weight_decay, 1.0)
    if remedy.regularization == "decrease":
        change["weight_decay"] = 0.1 * recipe.weight_decay
    if remedy.data in ("drop_non_finite", "drop_outliers", "shuffle"):
        change[remedy.data] = True
    return dataclasses.replace(recipe, **change)


def trust(recipe: Recipe, seed: int) -> Recipe:
    """Returns the recipe on trusted examples only, if it learns something from these, else as it is.

    If it does, the other examples are at fault, else the recipe is.
    """
    few = dataclasses.replace(recipe, trusted_only=True)
    return few if fit(few, seed)[1] > 0.3 else recipe
