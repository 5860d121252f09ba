"""How much longer do compiling and running a step take with the monitor?

    python -m experiments.monitor_overhead                       two minutes

Programs: an MLP of nine layers of width 8 with Adam; lines of StableHLO and of compiled HLO, and CPU
seconds to trace, lower and compile, of the optimizer alone and of a whole step, bare and guarded. Steps: an
MLP of 0.95 million parameters, bare, guarded, and with the recorder besides, timed in turn in one process;
each sample's ratio is to the bare one of the same round. Expected of a guarded step: 2.2 × the lines of
HLO, 2.3 × the CPU seconds, 1.11 × the time where a bare step takes 12 ms, 1.04 × where it takes 47 ms; of
the optimizer alone 2.9 × the lines and 4.2 × the CPU seconds.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command
from jaxml import models, monitor, reports, train
from jaxml.types import Array, PyTree

_CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
_CLASSES = 10
_COMPARED = ("stablehlo_lines", "hlo_lines", "cpu_s")


@dataclasses.dataclass(frozen=True)
class Config:
    """Compares compile time and step time with the monitor and without it."""

    depth: int = 8
    """Hidden layers, of width 8, of the programs that are compiled."""
    repeats: int = 3
    """How often each is compiled; the fewest CPU seconds count."""
    widths: tuple[int, ...] = (800, 400)
    """Units of the hidden layers of the network whose steps are timed."""
    num_features: int = 784
    """Number of its inputs."""
    batches: tuple[int, ...] = (512, 2048)
    """Examples in a step."""
    steps: int = 20
    """Steps in a sample."""
    rounds: int = 25
    """Samples of each variant, taken in turn."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def _setting(widths: tuple[int, ...], num_features: int, batch: int, variant: str) -> Any:
    """Step, state and loss gradient of a variant: "bare", "guard", or "guard and recorder"."""
    model = models.MLP(widths, _CLASSES)
    functional = models.from_linen(model)
    x = np.zeros((batch, num_features), np.float32)
    variables = functional.init(jax.random.key(0), x[:1])

    def loss(params, model_state, rows, batch, context, key):
        outputs, _ = functional.apply({"params": params}, batch["x"], training=True)
        each = _CROSS_ENTROPY(outputs, batch["y"])
        return each.mean(), (model_state, {})

    def accept(loss: Array, gradients: PyTree) -> Array:
        return jnp.ones((), bool)

    recorder = monitor.Recorder(model, _CROSS_ENTROPY, variables, x)
    optimizer = optax.with_extra_args_support(optax.adam(1e-3))
    if variant != "bare":
        optimizer = monitor.guard(optimizer, recorder.layout)
    step = train.make_step(train.Task(loss), optimizer=optimizer, accept=accept)
    if variant == "guard and recorder":
        step = train.recorded(step, recorder)
    params = variables["params"]
    state = train.create_state(
        jax.random.key(1), params=params, model_state={}, optimizer=optimizer
    )
    return optimizer, step, state


def _compiled(function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> Any:
    """Lines of the program, and the least CPU seconds of its phases."""
    best: dict[str, float] = {}
    for _ in range(repeats):
        jax.clear_caches()
        times = [time.process_time()]
        traced = jax.jit(function).trace(*arguments)
        times.append(time.process_time())
        lowered = traced.lower()
        times.append(time.process_time())
        compiled = lowered.compile()
        times.append(time.process_time())
        phases = zip(("trace_s", "lower_s", "compile_s"), np.diff(times).tolist(), strict=True)
        found = {**dict(phases), "cpu_s": times[-1] - times[0]}
        if not best or found["cpu_s"] < best["cpu_s"]:
            best = found
    lines = lambda program: len(program.as_text().splitlines())  # noqa: E731
    return {"stablehlo_lines": lines(lowered), "hlo_lines": lines(compiled), **best}


def compiled_rows(config: Config) -> list[dict[str, Any]]:
    """Lines and CPU seconds of programs, and their ratios to the bare ones."""
    rows: list[dict[str, Any]] = []
    for program in ("optimizer", "step"):
        for variant in ("bare", "guard", "guard and recorder"):
            if program == "optimizer" and variant == "guard and recorder":
                continue
            optimizer, step, state = _setting((8,) * config.depth, 8, 32, variant)
            batch = {"x": np.zeros((32, 8), np.float32), "y": np.zeros(32, np.int32)}
            if program == "step":
                found = _compiled(step, (state, batch), config.repeats)
            else:

                def update(gradients, opt_state, params, loss, optimizer=optimizer):
                    updates, opt_state = optimizer.update(gradients, opt_state, params, value=loss)
                    return optax.apply_updates(params, updates), opt_state

                arguments = (state.params, state.opt_state, state.params, np.float32(1))
                found = _compiled(update, arguments, config.repeats)
            bare = next((row for row in rows if row["program"] == program), found)
            ratios = {f"{name}_ratio": found[name] / bare[name] for name in _COMPARED}
            rows.append(
                {"kind": "program", "program": program, "variant": variant, **found, **ratios}
            )
    return rows


def timed_rows(config: Config, batch: int) -> list[dict[str, Any]]:
    """Milliseconds of steps, and their ratios to the bare ones of the same round."""
    noise = np.random.default_rng(0)
    shape = (config.steps, batch)
    batches = {
        "x": jnp.asarray(noise.normal(size=(*shape, config.num_features)).astype(np.float32)),
        "y": jnp.asarray(noise.integers(0, _CLASSES, shape)),
    }
    programs = {}
    for variant in ("bare", "guard", "guard and recorder"):
        _, step, state = _setting(config.widths, config.num_features, batch, variant)
        programs[variant] = jax.tree.map(jnp.copy, state), train.repeat(step)
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for turn in reports.progress(range(config.rounds + 1), "round"):
        for name, (state, program) in programs.items():
            started = time.perf_counter()
            state, _ = program(state, batches, jnp.int32(config.steps))
            jax.block_until_ready(state)
            if turn:  # The first compiles.
                samples[name].append(1e3 * (time.perf_counter() - started) / config.steps)
            programs[name] = state, program
    parameters = sum(leaf.size for leaf in jax.tree.leaves(programs["bare"][0].params))
    return [
        {
            "kind": "step",
            "variant": name,
            "batch": batch,
            "parameters": parameters,
            "samples_ms": each,
            "median_ms": statistics.median(each),
            "ratio": statistics.median(a / b for a, b in zip(each, samples["bare"], strict=True)),
        }
        for name, each in samples.items()
    ]


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    jax.config.update("jax_enable_compilation_cache", False)
    compiled = compiled_rows(config)
    timed = [row for batch in config.batches for row in timed_rows(config, batch)]
    reports.table(
        f"{config.depth + 1} layers of width 8, Adam",
        ["program", "", "StableHLO", "×", "HLO", "×", "CPU s", "×"],
        [
            [row["program"], row["variant"]]
            + [row[f"{name}{of}"] for name in _COMPARED for of in ("", "_ratio")]
            for row in compiled
        ],
    )
    reports.table(
        f"a step of {timed[0]['parameters']:,} parameters",
        ["batch", "", "ms", "× bare"],
        [[row["batch"], row["variant"], row["median_ms"], row["ratio"]] for row in timed],
    )
    return [*compiled, *timed]


def main(arguments: Sequence[str]) -> int:
    return command.run("monitor_overhead", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
