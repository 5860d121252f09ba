"""Quality of the trained output layers, after the same number of steps and after the same time."""

import dataclasses
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.softmax_benchmark import layers
from experiments.softmax_benchmark.problems import Problem
from jaxml import files, models, reports, tables, train
from jaxml.data import batches
from jaxml.types import Array, PyTree

RECALL_AT = 10

# Examples evaluated at a time: a block of logits is as large as in training.
_JUDGED_AT_ONCE = 512

# Steps in a compiled call: the clock is read in between.
_STEPS_PER_CALL = 10


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a training.

    Attributes:
        class_learning_rate: of the output layer, constant.
        dim: length of the vectors.
        batch_size: examples in a step.
        num_sampled: candidates of a step.
        temperature: of the softmax.
        learning_rate: of the features, constant, so that a training could end anywhere.
        num_steps: least number of steps.
        seconds: least time, without evaluation and compiling.
        refresh_every: steps between two refreshes of a sampler that follows the model.
        num_judged: held-out examples to evaluate on.
        seed: of initialisation, order and candidates.
    """

    class_learning_rate: float
    dim: int = 128
    batch_size: int = 512
    num_sampled: int = 2_048
    temperature: float = 0.05
    learning_rate: float = 0.05
    num_steps: int = 2_000
    seconds: float = 60.0
    refresh_every: int = 200
    num_judged: int = 4_096
    seed: int = 0


def measure(
    problem: Problem,
    variants: Sequence[str],
    settings: Settings,
    path: Path,
    *,
    max_seconds: float = math.inf,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Trains each variant in turn and returns their rows; those that `path` already has are not repeated.

    A row has `problem`, `variant`, the settings, `points` (see `training`), `failure` (None, or why there
    are no more points) and `environment`. `path` is rewritten after each variant.
    """
    rows = json.loads(path.read_text()) if path.exists() else []
    chosen = []
    for variant in variants:
        key = dict(problem=problem.name, variant=variant, **dataclasses.asdict(settings))
        row = next((row for row in rows if key.items() <= row.items()), None)
        if row is None:
            row = {**key, "points": [], "failure": None, "environment": reports.environment()}
            try:
                for point, _ in training(problem, variant, settings, max_seconds=max_seconds):
                    row["points"].append(point)
                    say(_line(variant, point))
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                row["failure"] = (str(error) or "out of memory").splitlines()[0]
            rows.append(row)
            files.write_record(path, rows)
        chosen.append(row)
    return chosen


def _line(variant: str, point: dict[str, Any]) -> str:
    return (
        f"{variant} {point['step']:,}: {point['seconds']:.1f} s, loss {point['loss']:.3f}, "
        f"P@1 {point['precision_at_1']:.3f}, R@10 {point['recall_at_10']:.3f}"
    )


def training(
    problem: Problem, variant: str, settings: Settings, *, max_seconds: float = math.inf
) -> Iterator[tuple[dict[str, Any], dict[str, Array]]]:
    """Trains an output layer over an encoder of bags, and evaluates it on the way.

    An example is the sum of its features' vectors, scaled to length one; a class's logit is its inner
    product with the class's vector over the temperature. Every class starts at the mean of its training
    examples. Classes are trained by gradient descent, whose step is linear in the gradient, so an unbiased
    sampled gradient has the mean effect of the exact one (under Adagrad a class that is sampled now and
    then moves less). Features, clusters and projections are trained by row-wise Adagrad: at the learning
    rate of a rare class they would diverge.

    Yields:
        For each point of the curve a row and the tables (donated to the next step). The row has `step`,
        `seconds` of training so far, `loss` (the layer's exact loss on held-out examples, in nats),
        `precision_at_1` and `recall_at_10`; the first is untrained.
    """
    batch_size, num_steps, seconds = settings.batch_size, settings.num_steps, settings.seconds
    layer = layers.layer(
        variant,
        problem.counts,
        batch_size=batch_size,
        num_sampled=settings.num_sampled,
        temperature=settings.temperature,
    )
    task = _task(layer)
    key = jax.random.key(settings.seed)
    feature_key, class_key, run_key = jax.random.split(key, 3)
    features = tables.init_table(feature_key, problem.num_features, settings.dim)
    held = {"features": features, **layer.init(class_key, _means(problem, features))}
    schedules: dict[str, Any] = {
        name: lambda step: tables.sgd(settings.class_learning_rate) for name in held
    }
    for name in ("features", *layer.shared):
        schedules[name] = lambda step: tables.rowwise_adagrad(settings.learning_rate)
    state = train.create_state(
        run_key,
        tables=held,
        row_optimizers=schedules,
        sampler_state=layer.sampler_state(held),
    )
    del held
    program = train.repeat(train.make_step(task, row_optimizers=schedules))

    def next_batches(position: int, count: int) -> PyTree:
        chosen = np.stack(
            [
                batches.batch_indices(len(problem.train), batch_size, at, settings.seed)
                for at in range(position, position + count)
            ]
        )
        examples = problem.train[chosen]
        return {"bags": problem.bags[examples], "labels": problem.labels[examples]}

    judged = problem.test[: settings.num_judged]
    judge = _judge(layer, problem.bags[judged], problem.labels[judged], problem.num_classes)
    # A call of no steps compiles.
    state, _ = program(state, next_batches(0, _STEPS_PER_CALL), jnp.int32(0))
    step, spent = 0, 0.0
    yield {"step": 0, "seconds": 0.0, **judge(state.tables)}, state.tables
    stops = _stops(num_steps)
    stop = next(stops)
    # A point at each stop, and one after `seconds`, to compare at equal time.
    while (step < num_steps or spent < seconds) and spent < max_seconds:
        deadline = min(seconds if spent < seconds else math.inf, max_seconds)
        while step < stop and spent < deadline:
            started = time.perf_counter()
            until = stop
            if layer.refresh:
                until = min(stop, (step // settings.refresh_every + 1) * settings.refresh_every)
                if step % settings.refresh_every == 0:
                    fresh = layer.sampler_state(state.tables)
                    state = dataclasses.replace(state, sampler_state=fresh)
            over = started + deadline - spent
            state = train.run(
                program,
                state,
                next_batches,
                num_steps=until,
                steps_per_call=_STEPS_PER_CALL,
                should_stop=functools.partial(_is_past, over),
            )
            step = int(jax.block_until_ready(state).step)
            spent += time.perf_counter() - started
        yield {"step": step, "seconds": spent, **judge(state.tables)}, state.tables
        if step == stop:
            stop = next(stops)


def _is_past(deadline: float) -> bool:
    return time.perf_counter() >= deadline


def _stops(num_steps: int) -> Iterator[int]:
    """Yields the steps of a curve's points: 1, 2 and 5 times powers of ten, and `num_steps`."""
    before = 0
    for exponent in itertools.count(1):
        for stop in (10**exponent, 2 * 10**exponent, 5 * 10**exponent):
            if before < num_steps < stop:
                yield num_steps
            yield stop
            before = stop


def _task(layer: layers.Layer) -> train.Task:
    def lookup(batch: PyTree, sampler_state: PyTree, key: Array):
        return {"features": train.Bags(batch["bags"])}, ()

    def draw(params, model_state, rows, batch, context, sampler_state, key):
        return layer.draw(sampler_state, models.unit_norm(rows["features"]), batch["labels"], key)

    def loss(params, model_state, rows, batch, context, key):
        rows = dict(rows)
        inputs = models.unit_norm(rows.pop("features"))
        losses = layer.loss(rows, inputs, batch["labels"], context)
        return losses.mean(), (model_state, {})

    def observe(sampler_state: PyTree, batch: PyTree, accepted: Array) -> PyTree:
        return layer.observe(sampler_state, batch["labels"], accepted)

    return train.Task(loss, lookup, observe, draw)


def _means(problem: Problem, features: Array) -> Array:
    """Returns the mean input of each class over its training examples, scaled to length one; [C, D]."""

    @jax.jit
    def add(sums: Array, bags: Array, labels: Array) -> Array:
        inputs = models.unit_norm(tables.gather_bags(features, bags))
        return sums.at[labels].add(inputs)

    sums = jnp.zeros((problem.num_classes, features.shape[1]))
    for chunk in np.array_split(problem.train, max(1, -(-len(problem.train) // 8192))):
        sums = add(sums, problem.bags[chunk], problem.labels[chunk])
    return models.unit_norm(sums)


def _judge(
    layer: layers.Layer, bags: np.ndarray, labels: np.ndarray, num_classes: int
) -> Callable[[dict[str, Array]], dict[str, float]]:
    k = min(RECALL_AT, num_classes)

    @jax.jit
    def of_some(held: dict[str, Array], bags: Array, labels: Array):
        held = dict(held)
        inputs = models.unit_norm(tables.gather_bags(held.pop("features"), bags))
        losses, ids = layer.judge(held, inputs, labels, k)
        right = ids == labels[:, None]
        return losses, right[:, 0], right.any(1)

    def judge(held: dict[str, Array]) -> dict[str, float]:
        parts = [
            of_some(held, bags[at : at + _JUDGED_AT_ONCE], labels[at : at + _JUDGED_AT_ONCE])
            for at in range(0, len(labels), _JUDGED_AT_ONCE)
        ]
        losses, first, found = (np.concatenate(part) for part in zip(*parts, strict=True))
        return {
            "loss": float(losses.astype(np.float64).mean()),
            "precision_at_1": float(first.mean()),
            "recall_at_10": float(found.mean()),
        }

    return judge
