"""What does an output layer cost: time of a step, temporary memory, time to compile?

    python -m experiments.softmax_benchmark                                     2²⁰ classes, five minutes
    python -m experiments.softmax_benchmark --num-classes 65536 --variants full blockwise update

For every variant: the value and the gradients of the mean loss with respect to inputs and table, or, where
the table is updated in the same program ("update", "sampled"), that whole step of gradient descent. Each is
first held against the exact softmax, computed in float64 on a small problem; one that fails is not timed.
Then all take turns in one process. Expect "blockwise" and "update" to need a few MB beside table and
gradient, where "full" needs all logits twice.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxml import bench, reports, softmax, tables

Variant = Literal["full", "blockwise", "mean", "update", "sampled", "one_vs_all"]
VARIANTS: tuple[Variant, ...] = ("full", "blockwise", "mean", "update", "sampled", "one_vs_all")


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure the cost of output layers over many classes."""

    num_classes: tuple[int, ...] = (2**20,)
    """Sizes of the table."""
    dim: int = 128
    """Length of its rows."""
    batch_size: int = 512
    """Examples in a step."""
    num_sampled: int = 2_048
    """Candidates of the sampled softmax."""
    block_size: int | None = None
    """Classes at a time in the blockwise forms; None for their own choice."""
    variants: tuple[Variant, ...] = VARIANTS
    """Which to measure; ratios are to the first."""
    rounds: int = 5
    """Samples of each variant, taken in turn."""
    json: Path | None = None
    """Where to write the rows; None for runs/softmax_benchmark/cost.json."""


# A program `(table, inputs, labels, key) -> results`, and whether it takes the table over.
Program = tuple[Callable[..., Any], bool]


def program(variant: Variant, config: Config) -> Program:
    """What is timed. The first result is the mean loss, the second the gradient of the inputs."""
    size: Any = {} if config.block_size is None else {"block_size": config.block_size}

    def with_gradients(loss: Callable[..., jax.Array]) -> Program:
        def run(table, inputs, labels, key):
            value, (d_inputs, d_table) = jax.value_and_grad(
                lambda x, w: loss(x, labels, w), (0, 1)
            )(inputs, table)
            return value, d_inputs, d_table

        return run, False

    def update(table, inputs, labels, key):
        losses, d_inputs, table, _ = softmax.blockwise_softmax_update(
            inputs, labels, table, {}, tables.sgd(0.01).rule, **size
        )
        return losses.mean(), d_inputs, table

    def sampled(table, inputs, labels, key):
        count = min(config.num_sampled, table.shape[0])
        drawn = softmax.log_uniform(table.shape[0]).sample((), key, labels, count)
        ids = jnp.concatenate([labels, drawn.ids])

        def loss(inputs, rows):
            true_rows, sampled_rows = jax.lax.split(rows, (labels.size, count))
            return softmax.sampled_softmax_loss_from_rows(
                inputs, true_rows, sampled_rows, labels, drawn
            ).mean()

        rows = tables.gather_rows(table, ids)
        value, (d_inputs, d_rows) = jax.value_and_grad(loss, (0, 1))(inputs, rows)
        table, _ = tables.sgd(0.01).update(tables.RowGradient(ids, d_rows), {}, table)
        return value, d_inputs, table

    return {
        "full": lambda: with_gradients(lambda x, y, w: softmax.full_softmax_loss(x, y, w).mean()),
        "blockwise": lambda: with_gradients(
            lambda x, y, w: softmax.blockwise_softmax_loss(x, y, w, **size).mean()
        ),
        "mean": lambda: with_gradients(
            lambda x, y, w: softmax.blockwise_softmax_mean_loss(x, y, w, tile_size=0, **size)
        ),
        "one_vs_all": lambda: with_gradients(
            lambda x, y, w: softmax.one_vs_all_loss(x, y, w, **size).mean()
        ),
        "update": lambda: (update, True),
        "sampled": lambda: (sampled, True),
    }[variant]()


def problem(num_classes: int, dim: int, batch_size: int) -> tuple[np.ndarray, ...]:
    """Table, inputs and labels."""
    source = np.random.default_rng(0)
    table = source.standard_normal((num_classes, dim), np.float32) * np.float32(dim**-0.5)
    inputs = source.standard_normal((batch_size, dim), np.float32)
    return table, inputs, source.integers(0, num_classes, batch_size).astype(np.int32)


def error_of(variant: Variant, config: Config) -> float:
    """Largest relative error of loss and input gradient on a small problem, against float64.

    The sampled softmax draws every class there, and then it must be the exact one.
    """
    table, inputs, labels = problem(300, 16, 32)
    wide = inputs.astype(np.float64) @ table.astype(np.float64).T
    own = np.arange(32), labels
    if variant == "one_vs_all":
        loss = (np.logaddexp(0, wide).sum(1) - wide[own]).mean()
        slope = 1 / (1 + np.exp(-wide))
    else:
        log_partition = np.log(np.exp(wide).sum(1))
        loss = (log_partition - wide[own]).mean()
        slope = np.exp(wide - log_partition[:, None])
    slope[own] -= 1
    d_inputs = slope @ table.astype(np.float64) / 32
    run, _ = program(variant, dataclasses.replace(config, num_sampled=300, block_size=64))
    value, gradient, _ = jax.jit(run)(table, inputs, labels, jax.random.key(0))
    off = np.abs(gradient - d_inputs).max() / np.abs(d_inputs).max()
    return max(float(abs(value - loss) / abs(loss)), float(off))


def measure(config: Config) -> list[dict[str, Any]]:
    """One row for each number of classes and variant."""
    rows = []
    for num_classes in config.num_classes:
        table, inputs, labels = problem(num_classes, config.dim, config.batch_size)
        programs, held = {}, {}
        for variant in config.variants:
            row: dict[str, Any] = dict(
                variant=variant,
                num_classes=num_classes,
                dim=config.dim,
                batch_size=config.batch_size,
                error=error_of(variant, config),
                samples_ms=[],
                failure=None,
            )
            rows.append(row)
            if row["error"] > 1e-5:
                row["failure"] = "not timed: it differs from the exact softmax"
                continue
            run, takes_table = program(variant, config)
            started = time.perf_counter()
            arguments = (table, inputs, labels, jax.random.key(0))
            lowered = jax.jit(run, donate_argnums=(0,) if takes_table else ()).lower(*arguments)
            row["lowering_ms"] = 1e3 * (time.perf_counter() - started)
            started = time.perf_counter()
            compiled = lowered.compile()
            row["compile_ms"] = 1e3 * (time.perf_counter() - started)
            memory = compiled.memory_analysis()
            row["temporary_bytes"] = None if memory is None else memory.temp_size_in_bytes
            programs[variant] = (compiled, takes_table, row)
            if takes_table:
                held[variant] = jnp.array(table)
        shared = jnp.array(table)
        del table
        x, y = jnp.asarray(inputs), jnp.asarray(labels)
        # One round more than asked for: the first touches the memory.
        for number in range(config.rounds + 1):
            key = jax.random.key(number)
            for variant, (compiled, takes_table, row) in programs.items():
                if row["failure"]:
                    continue
                started = time.perf_counter()
                try:
                    results = jax.block_until_ready(
                        compiled(held.pop(variant) if takes_table else shared, x, y, key)
                    )
                except jax.errors.JaxRuntimeError as error:
                    row["failure"] = str(error).splitlines()[0]
                    continue
                if number:
                    row["samples_ms"].append(1e3 * (time.perf_counter() - started))
                if takes_table:
                    held[variant] = results[2]
                del results
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the rows; the ratio is to the first variant of the same size, round by round."""
    lines = []
    for row in rows:
        first = next(other for other in rows if other["num_classes"] == row["num_classes"])
        pairs = list(zip(row["samples_ms"], first["samples_ms"], strict=False))
        if row["failure"]:
            print(f"{row['variant']}: {row['failure']}", file=sys.stderr)
        lines.append(
            [
                row["variant"],
                row["num_classes"],
                statistics.median(row["samples_ms"]) if row["samples_ms"] else None,
                statistics.median(mine / its for mine, its in pairs) if pairs else None,
                row.get("temporary_bytes") and row["temporary_bytes"] / 1e6,
                row.get("compile_ms"),
                row["error"],
            ]
        )
    columns = ["variant", "classes", "ms", "× first", "temporary MB", "compile ms", "error"]
    reports.table(f"Batch {rows[0]['batch_size']}, dim {rows[0]['dim']}, float32", columns, lines)


def main(arguments: Sequence[str]) -> int:
    """Measures, prints and writes; returns the exit code."""
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.softmax_benchmark")
    path = config.json or Path("runs/softmax_benchmark/cost.json")
    try:
        if not config.variants or not config.num_classes or config.rounds < 1:
            raise ValueError("variants, num_classes and rounds must name at least one each")
        rows = measure(config)
        place = bench.environment()
        bench.write_rows(path, [{**row, "environment": place} for row in rows])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(rows)
    print(f"rows: {path}")
    return 0 if all(row["failure"] is None for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
