"""Which activations train at which depth from which initialisation, and what revives the others?

    python -m experiments.activations                               the map, two minutes on two cores
    python -m experiments.activations --depths 2 20 --activations sigmoid relu

Networks of equal width on scikit-learn's digits, SGD with momentum, one learning rate for all. Those of one
depth are members of a population: one compiled program trains and watches all of them side by side (`vmap`
over parameters, learning rate and the number of the activation), where `train.fit` would compile a watched
program for each, 10 to 25 seconds each. Every member's record is diagnosed by itself, without what `fit`
measures besides when a training is over (curvature, for one). Of those that fail, `monitor.remedy` of what
was found is done, as data, and they are trained again by the same program. Layer normalisation is without
learned scale here, so that it, too, is a number of a member.

It ends in `activations.png`, a map of held-out accuracy with what was found and what came of the remedy
written on it, and in a sentence. Of its 84 networks 38 train; something is found in 36 of the 46 others,
and what is advised, once or twice, revives 35 of these. All but sigmoid train at a depth of 2 unless
weights are small; at a depth of 12 it takes an initialisation that fits: glorot or he for tanh and elu, he
for the ReLUs and gelu, glorot for selu. The record is `experiments/results/activations.json`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from jaxml import bench, models, monitor, reports, train
from jaxml.data import batches, scikit
from jaxml.models.initializers import InitializerSpec
from jaxml.types import Array, PyTree

# What a member may choose from, by number: the grid's, and what a remedy may name.
_CHOICES = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "selu", "silu", "softplus")

_INITIALIZERS: dict[str, InitializerSpec] = {
    "small": ("normal", 0.01),
    "glorot": "glorot_normal",
    "he": "he_normal",
    "large": ("variance_scaling_normal", 16.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Depth × activation × initialisation: what trains, what dies, what vanishes, and what revives it."""

    depths: tuple[int, ...] = (2, 6, 12)
    """Hidden layers; the columns of the map."""
    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "selu")
    """Of sigmoid, tanh, relu, leaky_relu, elu, gelu, selu, silu and softplus."""
    initializers: tuple[str, ...] = tuple(_INITIALIZERS)
    """Of small (deviation 0.01), glorot, he and large (variance 16 / fan_in)."""
    width: int = 32
    """Of every hidden layer."""
    learning_rate: float = 0.03
    """Of SGD with momentum 0.9."""
    num_steps: int = 400
    """Steps of each training."""
    batch_size: int = 64
    """Examples in a step."""
    rounds: int = 2
    """Treatments at most."""
    trains: float = 0.9
    """Held-out accuracy from which on a network counts as trained."""
    seed: int = 0
    """Of parameters, order and split."""
    run_dir: Path | None = None
    """Directory for rows and picture; None for runs/activations/<time>."""
    json: Path | None = None
    """Where to write the rows besides."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A member, as values that a remedy can change."""

    depth: int
    activation: str
    initializer: InitializerSpec
    learning_rate: float
    clip: float = float("inf")
    normalized: bool = False

    def after(self, remedy: monitor.Remedy) -> "Recipe":
        """The recipe with what the remedy says changed."""
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


class Member(nn.Module):
    """An MLP whose activation is a number among its variables, and so another one for each member."""

    depth: int
    width: int

    @nn.compact
    def __call__(self, x: Array, training: bool = False) -> Array:
        chosen = self.variable("choice", "activation", lambda: jnp.int32(0)).value
        normalized = self.variable("choice", "normalized", lambda: jnp.zeros((), bool)).value
        layer_norm = nn.LayerNorm(use_bias=False, use_scale=False, name="norm")

        def activation(x: Array) -> Array:
            x = jnp.where(normalized, layer_norm(x), x)
            return jax.lax.switch(chosen, [models.ACTIVATIONS[name] for name in _CHOICES], x)

        return models.MLP((self.width,) * self.depth, 10, activation, name="mlp")(x, training)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a member: accuracy on held-out digits, and what was found."""

    accuracy: float
    findings: list[monitor.Finding]


class Population:
    """Networks of one depth, trained side by side by one program."""

    def __init__(self, config: Config, depth: int, data: tuple[Any, ...]):
        x, y, self._x_test, self._y_test = data
        self._config, self._data = config, (x, y)
        module = Member(depth, config.width)
        model = models.from_linen(module)
        few = jnp.asarray(x[: config.batch_size])
        self._shapes = jax.eval_shape(model.init, jax.random.key(0), few)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels

        def loss(params, model_state, rows, batch, context, key):
            outputs, state = model.apply(
                {"params": params, **model_state}, batch["x"], key=key, training=True
            )
            each = cross_entropy(outputs, batch["y"])
            mean = each.mean()
            worst = each.max() / jnp.where(mean > 0, mean, 1.0)
            return mean, (state, {"loss": mean, "worst": worst})

        recorder = monitor.Recorder(module, cross_entropy, self._shapes, x[: len(few)])

        def member(variables: PyTree, rate: Array, clip: Array, key: Array, batches: PyTree):
            params, model_state = models.split_variables(variables)
            optimizer = recorder.guard(_optimizer(rate, clip))
            step = train.make_step(
                train.Task(loss),
                optimizer=optimizer,
                accept=lambda loss, gradients: jnp.ones((), bool),  # The guard judges.
            )
            state = train.create_state(
                key, params=params, model_state=model_state, optimizer=optimizer
            )
            state, seen = jax.lax.scan(train.recorded(step, recorder), state, batches)
            outputs, _ = model.apply(
                {"params": state.params, **state.model_state}, jnp.asarray(self._x_test)
            )
            return jnp.mean(jnp.argmax(outputs, -1) == jnp.asarray(self._y_test)), seen

        self._program = jax.jit(jax.vmap(member, in_axes=(0, 0, 0, 0, None)))
        self._history = recorder.history
        self._inspected = monitor.inspect(x, y)

    def _variables(self, recipe: Recipe, key: Array) -> PyTree:
        init = models.initializer(recipe.initializer)
        number = iter(range(1_000_000))

        def fill(path: Any, leaf: Any) -> Array:
            name = path[-1].key
            if name == "kernel":
                return init(jax.random.fold_in(key, next(number)), leaf.shape, leaf.dtype)
            return jnp.zeros(leaf.shape, leaf.dtype)

        variables = jax.tree_util.tree_map_with_path(fill, self._shapes)
        choice = {
            "activation": jnp.int32(_CHOICES.index(recipe.activation)),
            "normalized": jnp.array(recipe.normalized),
        }
        return {**variables, "choice": choice}

    def train(self, recipes: Sequence[Recipe], members: int) -> list[Outcome]:
        """Trains recipes of this depth; the program is that of so many members."""
        config, (x, y) = self._config, self._data
        outcomes: list[Outcome] = []
        order = np.stack(
            [
                batches.batch_indices(len(x), config.batch_size, position, config.seed)
                for position in range(config.num_steps)
            ]
        )
        given = {"x": jnp.asarray(x[order]), "y": jnp.asarray(y[order])}
        key = jax.random.key(config.seed)
        for start in range(0, len(recipes), members):
            some = list(recipes[start : start + members])
            # The last call is filled up, so that it is the same program.
            filled = some + some[-1:] * (members - len(some))
            variables = [self._variables(recipe, key) for recipe in filled]
            accuracy, seen = self._program(
                jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables),
                jnp.array([recipe.learning_rate for recipe in filled], jnp.float32),
                jnp.array([recipe.clip for recipe in filled], jnp.float32),
                jax.random.split(key, len(filled)),
                given,
            )
            seen = jax.tree.map(np.asarray, seen)
            for i in range(len(some)):
                own = jax.tree.map(lambda leaf, i=i: leaf[i], seen)
                history = self._history(own.metrics, self._inspected, len(x) / config.batch_size)
                outcomes.append(Outcome(float(accuracy[i]), monitor.diagnose(history)))
        return outcomes


def _optimizer(rate: Any, clip: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(clip), optax.sgd(rate, momentum=0.9))


def study(config: Config) -> list[dict[str, Any]]:
    """Trains the grid, treats what fails, and trains that again: a row for each of the grid."""
    x: Any
    x, y = scikit.digits()
    turn = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(x))
    x, y = x[turn] / 16, y[turn]
    held_out = len(x) // 4
    data = x[held_out:], y[held_out:], x[:held_out], y[:held_out]
    # A compiler uses one core: the programs of two depths are made at the same time.
    with futures.ThreadPoolExecutor(len(config.depths)) as pool:
        found = pool.map(lambda depth: _of_depth(config, depth, data), config.depths)
        return [row for rows in found for row in rows]


def _of_depth(config: Config, depth: int, data: tuple[Any, ...]) -> list[dict[str, Any]]:
    population = Population(config, depth, data)
    kinds = [(a, init) for a in config.activations for init in config.initializers]
    recipes = [
        Recipe(depth, activation, _INITIALIZERS[init], config.learning_rate)
        for activation, init in kinds
    ]
    first = population.train(recipes, len(kinds))
    last = list(first)
    tried: list[list[monitor.Remedy]] = [[] for _ in recipes]
    for _ in range(config.rounds):
        changed: dict[int, Recipe] = {}
        for i, outcome in enumerate(last):
            if outcome.accuracy >= config.trains or not outcome.findings:
                continue
            remedy = monitor.remedy(outcome.findings, tried=tried[i])
            if (recipe := recipes[i].after(remedy)) != recipes[i]:
                changed[i] = recipe
                tried[i].append(remedy)
        again = population.train(list(changed.values()), len(kinds))
        for i, outcome in zip(changed, again, strict=True):
            recipes[i], last[i] = changed[i], outcome
    return [
        {
            "depth": depth,
            "activation": activation,
            "initializer": init,
            "accuracy": before.accuracy,
            "findings": [finding.symptom for finding in before.findings],
            "first": str(before.findings[0]) if before.findings else None,
            "remedies": [remedy.changes() for remedy in changes],
            "accuracy_after": after.accuracy if changes else None,
            "findings_after": [finding.symptom for finding in after.findings] if changes else None,
        }
        for (activation, init), before, after, changes in zip(
            kinds, first, last, tried, strict=True
        )
    ]


def sentence(rows: Sequence[dict[str, Any]], trains: float) -> str:
    """What came of it, in words."""
    failed = [row for row in rows if row["accuracy"] < trains]
    told = [row for row in failed if row["findings"]]
    revived = [row for row in told if (row["accuracy_after"] or 0) >= trains]
    symptoms: dict[str, int] = {}
    for row in told:
        symptoms[row["findings"][0]] = symptoms.get(row["findings"][0], 0) + 1
    counted = ", ".join(
        f"{name.replace('_', ' ')} {number}"
        for name, number in sorted(symptoms.items(), key=lambda item: -item[1])
    )
    return (
        f"{len(rows) - len(failed)} of {len(rows)} networks train; of the {len(failed)} that do not, "
        f"something is found in {len(told)}" + (f" ({counted})" if counted else "") + ", and what "
        f"the monitor advises revives {len(revived)} of these."
    )


def picture(path: Path, rows: Sequence[dict[str, Any]], config: Config) -> None:
    """The map: activation and initialisation down, depth across."""
    at = {(row["activation"], row["initializer"], row["depth"]): row for row in rows}
    kinds = [(a, i) for a in config.activations for i in config.initializers]

    def note(row: dict[str, Any]) -> str:
        said = f"{row['accuracy']:.2f}"
        if row["findings"]:
            said += f" {row['findings'][0].replace('_', ' ')}"
        if row["accuracy_after"] is not None:
            said += f" ⇒ {row['accuracy_after']:.2f}"
        return said

    cells = [[at[*kind, depth] for depth in config.depths] for kind in kinds]
    reports.plots.heatmap(
        [[row["accuracy"] for row in line] for line in cells],
        rows=[f"{activation}, {init}" for activation, init in kinds],
        columns=[str(depth) for depth in config.depths],
        notes=[[note(row) for row in line] for line in cells],
        limits=(0.1, 1.0),
        xlabel="hidden layers",
        label="held-out accuracy",
        title=f"Accuracy after {config.num_steps} steps, what was found first ⇒ after the remedy",
        path=path,
    )


def main(arguments: Sequence[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.activations")
    for name, given, known in (
        ("activation", config.activations, _CHOICES),
        ("initializer", config.initializers, tuple(_INITIALIZERS)),
    ):
        unknown = [each for each in given if each not in known]
        if unknown:
            wanted = ", ".join(known)
            print(f"error: unknown {name} {unknown[0]!r}: choose among {wanted}", file=sys.stderr)
            return 2
    run_dir = reports.rundir.create("activations", config, path=config.run_dir)
    place = reports.environment()
    rows = [{**row, "environment": place} for row in study(config)]
    bench.write_rows(run_dir / "activations.json", rows)
    if config.json is not None:
        bench.write_rows(config.json, rows)
    picture(run_dir / "activations.png", rows, config)
    reports.rundir.record(run_dir, summary={"rows": len(rows)})
    told = [row for row in rows if row["accuracy"] < config.trains]
    reports.table(
        "networks that do not train",
        ["hidden layers", "activation", "initialisation", "accuracy", "found first", "changed",
         "after"],
        [
            [
                row["depth"],
                row["activation"],
                row["initializer"],
                row["accuracy"],
                row["findings"][0] if row["findings"] else "nothing",
                "; ".join(
                    ", ".join(f"{name} {value}" for name, value in changes.items())
                    for changes in row["remedies"]
                )
                or None,
                row["accuracy_after"],
            ]
            for row in told
        ],
    )  # fmt: skip
    print(sentence(rows, config.trains))
    print(f"run directory: {run_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
