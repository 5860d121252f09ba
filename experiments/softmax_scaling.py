"""Does the time of a training step depend on the number of classes?

    python -m experiments.softmax_scaling                       the README's figures (about ten minutes)
    python -m experiments.softmax_scaling --peers               beside TensorFlow, where it is installed
    python -m experiments.softmax_scaling --num-classes 10000 1000000 --optimizer sgd adam --rounds 5

One step: draw 2,048 candidates log-uniformly, gather the rows of 512 labels and of the candidates, loss
and gradient of the sampled softmax, row-sparse update in place. Every size runs in its own process; the
sizes take turns, so a slow phase of the machine affects all alike. Peak memory includes initialisation.
Expect flat lines: at 10⁷ classes a step takes at most 1.2 times as long as at 10⁴.

GLIBC_TUNABLES asks glibc for huge pages, unless it is set already: with 4 KB pages a table of 12.8 GB takes
three times as long to fill, and a step at 10⁸ classes 1.1 to 1.3 times as long.
"""

import dataclasses
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from experiments import command
from jaxml import bench, reports

OptimizerName = Literal["sgd", "adagrad", "rowwise_adagrad", "adam"]
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adagrad", "rowwise_adagrad", "adam")
STEPS_PER_SAMPLE = 20


@dataclasses.dataclass(frozen=True)
class Config:
    """Times one training step of the sampled softmax over tables of several sizes."""

    num_classes: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    """Sizes of the table."""
    dim: int = 128
    """Length of its rows."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of its rows; arithmetic is float32."""
    optimizer: tuple[OptimizerName, ...] = OPTIMIZERS
    """Row optimizers, one after the other."""
    batch_size: int = 512
    """Examples in a step."""
    num_sampled: int = 2_048
    """Candidates in a step."""
    rounds: int = 15
    """Samples of each size; each is the mean of 20 steps."""
    memory_gb: float = 22.0
    """Memory that all sizes of an optimizer may take together; larger sizes are left out."""
    peers: bool = False
    """Compare with TensorFlow's sampled softmax, if it is installed."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def state_bytes(optimizer: str, num_classes: int, dim: int, dtype: str) -> int:
    """Returns the bytes of a table and of its optimizer's slots."""
    slots = {"sgd": 0, "rowwise_adagrad": 4, "adagrad": 4 * dim, "adam": 8 * dim + 4}
    return num_classes * (dim * (4 if dtype == "float32" else 2) + slots[optimizer])


def jaxml_case(
    optimizer: str, num_classes: int, dim: int, dtype: str, batch_size: int, num_sampled: int
) -> Callable[[], float]:
    """Returns a timer of the compiled step; runs in a worker."""
    import jax
    import jax.numpy as jnp

    from jaxml import softmax, tables, train

    key = jax.random.key(0)
    row_optimizer = getattr(tables, optimizer)(0.01)
    sampler = softmax.log_uniform(num_classes)

    def lookup(batch, sampler_state, key):
        drawn = sampler.sample(sampler_state, key, batch["labels"], num_sampled)
        return {"classes": {"true": batch["labels"], "candidates": drawn.ids}}, drawn

    def loss(params, model_state, rows, batch, drawn, key):
        losses = softmax.sampled_softmax_loss_from_rows(
            batch["inputs"],
            rows["classes"]["true"],
            rows["classes"]["candidates"],
            batch["labels"],
            drawn,
        )
        return losses.mean(), (model_state, {})

    schedules = {"classes": lambda step: row_optimizer}
    step = jax.jit(
        train.make_step(train.Task(loss=loss, lookup=lookup), row_optimizers=schedules),
        donate_argnums=0,
    )
    state = train.create_state(
        key,
        tables={"classes": tables.init_table(key, num_classes, dim, dtype=dtype)},
        row_optimizers=schedules,
        sampler_state=sampler.init(),
    )
    # New labels each step, distributed as in a natural vocabulary.
    draw = jax.jit(
        lambda key: {
            "inputs": jax.random.normal(key, (batch_size, dim)),
            "labels": sampler.sample(
                sampler.init(), key, jnp.zeros(1, jnp.int32), batch_size, unique=False
            ).ids,
        }
    )
    batches = [draw(jax.random.fold_in(key, i)) for i in range(STEPS_PER_SAMPLE)]
    holder = [state]
    del state

    def sample() -> float:
        state = holder.pop()
        started = time.perf_counter()
        for batch in batches:
            state, report = step(state, batch)
        report.loss.block_until_ready()
        jax.block_until_ready(state.tables)
        seconds = (time.perf_counter() - started) / STEPS_PER_SAMPLE
        if not bool(report.accepted):
            raise FloatingPointError("the step was refused: its loss or gradient is not finite")
        holder.append(state)
        return seconds

    sample()  # Compiles.
    return sample


def tensorflow_case(
    optimizer: str, num_classes: int, dim: int, batch_size: int, num_sampled: int
) -> Callable[[], float]:
    """Returns a timer of the same step in TensorFlow: `tf.nn.sampled_softmax_loss`, sparse gradients.

    `sgd` scatters `-learning_rate * gradient` into the variable, as fast as TensorFlow can; `adagrad` is
    Keras' optimizer.
    """
    import numpy as np
    import tensorflow as tf

    source = np.random.default_rng(0)
    weights = tf.Variable(tf.random.normal([num_classes, dim], stddev=dim**-0.5))
    biases = tf.zeros([num_classes])
    keras = tf.keras.optimizers.Adagrad(0.01) if optimizer == "adagrad" else None

    @tf.function
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sampled_softmax_loss(
                    weights, biases, labels, inputs, num_sampled, num_classes
                )
            )
        gradient = tape.gradient(loss, weights)
        if keras is None:
            weights.scatter_sub(tf.IndexedSlices(0.01 * gradient.values, gradient.indices))
        else:
            keras.apply_gradients([(gradient, weights)])
        return loss

    uniform = source.random((STEPS_PER_SAMPLE, batch_size, 1))
    labels = np.minimum(
        np.exp(uniform * np.log(num_classes + 1)).astype(np.int64) - 1, num_classes - 1
    )
    inputs = source.normal(size=(STEPS_PER_SAMPLE, batch_size, dim)).astype(np.float32)
    batches = [(tf.constant(x), tf.constant(y)) for x, y in zip(inputs, labels, strict=True)]
    # One call of Keras' Adagrad rewrites the table: a few are enough for a sample.
    timed = batches if keras is None else batches[:3]

    def sample() -> float:
        started = time.perf_counter()
        for x, y in timed:
            loss = step(x, y)
        loss.numpy()
        return (time.perf_counter() - started) / len(timed)

    sample()  # Traces.
    return sample


def cases_of(config: Config, optimizer: str) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Returns the sizes of one optimizer that fit in memory together, smallest first."""
    cases: dict[str, tuple[Any, dict[str, Any]]] = {}
    held = 0.0
    shared = dict(dim=config.dim, batch_size=config.batch_size, num_sampled=config.num_sampled)
    for num_classes in sorted(config.num_classes):
        if num_classes < config.num_sampled:
            raise ValueError(
                f"num_classes must be at least num_sampled {config.num_sampled}, got {num_classes}"
            )
        held += state_bytes(optimizer, num_classes, config.dim, config.dtype) / 1e9 + 0.5
        if held > config.memory_gb:
            print(
                f"{optimizer}: {num_classes:,} classes do not fit in {config.memory_gb} GB: left out"
            )
            continue
        arguments = dict(optimizer=optimizer, num_classes=num_classes, dtype=config.dtype, **shared)
        cases[f"jaxml {num_classes}"] = (jaxml_case, arguments)
    if config.peers and config.dtype == "float32" and optimizer in ("sgd", "adagrad"):
        if importlib.util.find_spec("tensorflow") is None:
            print("TensorFlow is not installed: it is left out")
        else:
            for num_classes in (n for n in config.num_classes if n <= 1_000_000):
                arguments = dict(optimizer=optimizer, num_classes=num_classes, **shared)
                cases[f"tensorflow {num_classes}"] = (tensorflow_case, arguments)
    return cases


def measure(config: Config) -> list[dict[str, Any]]:
    """Returns a row for each optimizer, size and library."""
    rows = []
    for optimizer in reports.progress(config.optimizer, "optimizer"):
        cases = cases_of(config, optimizer)
        results = bench.measure_alternately(cases, rounds=config.rounds)
        for name, measured in results.items():
            library, num_classes = name.split()[0], int(name.split()[1])
            row = dict(
                library=library,
                optimizer=optimizer,
                dtype=config.dtype,
                dim=config.dim,
                num_classes=num_classes,
                batch_size=config.batch_size,
                num_sampled=config.num_sampled,
                state_bytes=state_bytes(optimizer, num_classes, config.dim, config.dtype),
                peak_bytes=measured.peak_bytes,
                median_ms=None,
                samples_ms=[1e3 * seconds for seconds in measured.samples],
                error=measured.error,
                glibc_tunables=os.environ.get("GLIBC_TUNABLES"),
            )
            if measured.samples:
                row["median_ms"] = 1e3 * statistics.median(measured.samples)
            if measured.error:
                print(f"{name} with {optimizer}: {measured.error}", file=sys.stderr)
            rows.append(row)
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the rows, each relative to the smallest size of its library and optimizer."""
    table = []
    for row in rows:
        alike = [
            other
            for other in rows
            if (other["library"], other["optimizer"]) == (row["library"], row["optimizer"])
            and other["samples_ms"]
        ]
        ratio = None
        if row["samples_ms"] and alike:
            # The median of ratios within a round: a slow round is slow for both.
            base = min(alike, key=lambda other: other["num_classes"])
            pairs = zip(row["samples_ms"], base["samples_ms"], strict=False)
            ratio = statistics.median(mine / its for mine, its in pairs)
        table.append(
            [
                row["library"],
                row["optimizer"],
                row["num_classes"],
                row["median_ms"],
                ratio,
                row["peak_bytes"] and row["peak_bytes"] / 1e9,
                row["state_bytes"] / 1e9,
            ]
        )
    heading = f"One step: batch {rows[0]['batch_size']}, {rows[0]['num_sampled']:,} candidates, "
    heading += f"dim {rows[0]['dim']}, {rows[0]['dtype']}"
    columns = ["library", "optimizer", "classes", "ms", "× smallest", "peak GB", "table + state GB"]
    reports.table(heading, columns, table)


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # For the workers.
    rows = measure(config)
    if not rows:
        raise ValueError("num_classes must fit in memory_gb at least once")
    command.write(run_dir, rows)
    show(rows)
    series: dict[str, tuple[list[int], list[list[float]]]] = {}
    for row in (row for row in rows if row["samples_ms"]):
        sizes, samples = series.setdefault(f"{row['library']} {row['optimizer']}", ([], []))
        sizes.append(row["num_classes"])
        samples.append(row["samples_ms"])
    if series:
        place = reports.environment()
        reports.plots.scaling(
            series,
            xlabel="classes",
            ylabel="ms a step",
            title=f"One sampled-softmax step, dim {config.dim}, {config.dtype}, "
            f"{place['cores']} cores of {place['device']}",
            path=run_dir / "scaling.png",
        )
    if any(row["error"] is not None for row in rows):
        raise command.Failed("not every size was measured")
    return rows


def main(arguments: Sequence[str]) -> int:
    return command.run("softmax_scaling", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
