"""What does a monitor cost a step?

    python -m experiments.monitor_overhead                 one-million-parameter MLP, Adam, batch 512
    python -m experiments.monitor_overhead --rounds 40

The same training, in one process and in turn: bare, guarded with all norms at every tenth or every step,
and with the layers listened to at every tenth step besides. Each round times a compiled run of some steps
of every variant; its ratio is to the bare one of the same round.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from jaxml import bench, models, monitor, reports, train
from jaxml.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Config:
    """What a monitor costs a step, side by side."""

    widths: tuple[int, ...] = (800, 400)
    """Hidden layers."""
    num_features: int = 784
    """Inputs."""
    batch: int = 512
    """Examples in a step."""
    steps: int = 20
    """Steps in a sample."""
    rounds: int = 25
    """Samples of each variant, taken in turn."""
    json: Path | None = None
    """Where to write the rows."""


def _programs(config: Config) -> dict[str, tuple[train.State, Any]]:
    """State and compiled program of each variant."""
    model = models.MLP(config.widths, 10)
    functional = models.from_linen(model)
    x = np.zeros((config.batch, config.num_features), np.float32)
    variables = functional.init(jax.random.key(0), jnp.asarray(x))
    params = variables["params"]
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels

    def loss(params, model_state, rows, batch, context, key):
        outputs, _ = functional.apply({"params": params}, batch["x"], training=True)
        each = cross_entropy(outputs, batch["y"])
        return each.mean(), (model_state, {"worst": each.max() / each.mean()})

    def always(value: Array, gradients: PyTree) -> Array:
        return jnp.ones((), bool)

    recorder = monitor.Recorder(model, cross_entropy, variables, x)

    found = {}
    for name, optimizer, watch in (
        ("bare", optax.adam(1e-3), None),
        ("guard", monitor.guard(optax.adam(1e-3)), None),
        ("guard and recorder", recorder.guard(optax.adam(1e-3)), recorder),
    ):
        step = train.make_step(
            train.Task(loss),
            optimizer=optimizer,
            accept=always,
        )
        state = train.create_state(
            jax.random.key(1),
            params=jax.tree.map(jnp.copy, params),
            model_state={},
            optimizer=optimizer,
        )
        found[name] = state, train.repeat(train.recorded(step, watch) if watch else step)
    return found


def main(arguments: Sequence[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.monitor_overhead")
    noise = np.random.default_rng(0)
    shape = (config.steps, config.batch)
    batches = {
        "x": jnp.asarray(noise.normal(size=(*shape, config.num_features)).astype(np.float32)),
        "y": jnp.asarray(noise.integers(0, 10, shape)),
    }
    programs = _programs(config)
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(config.rounds + 1):
        for name, (state, program) in programs.items():
            started = time.perf_counter()
            state, _ = program(state, batches, jnp.int32(config.steps))
            jax.block_until_ready(state)
            if turn:  # The first compiles.
                samples[name].append(1e3 * (time.perf_counter() - started) / config.steps)
            programs[name] = state, program
    rows = [
        {
            "variant": name,
            "samples_ms": each,
            "ratio": statistics.median(a / b for a, b in zip(each, samples["bare"], strict=True)),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(programs[name][0].params)),
            "environment": reports.environment(),
        }
        for name, each in samples.items()
    ]
    reports.table(
        f"a step of {rows[0]['parameters']:,} parameters, batch {config.batch}",
        ["", "ms", "× bare"],
        [[row["variant"], statistics.median(row["samples_ms"]), row["ratio"]] for row in rows],
    )
    if config.json is not None:
        bench.write_rows(config.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
