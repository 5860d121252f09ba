"""How much faster is a sweep under `vmap` than one training after the other?

    python -m experiments.sweep_scaling                    64 MLPs on the digits, about two minutes

The same sweep of 64 learning rates, an MLP of 64-64 with Adam, batches of 64, 500 steps, in turn:

    population   `train.sweep`: trials side by side under `vmap`, on a CPU some on each core
    loop         the same compiled training of one trial, called for one trial after the other
    scan         a jitted `lax.scan` written by hand for this one training, likewise

Expect that the other two take 1.8 to 2 times as long on two cores. Compile time is measured
apart. A round times each once; its ratio is to the population of the same round.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command
from jaxml import losses, models, reports, train
from jaxml.data import scikit
from jaxml.train import inputs


@dataclasses.dataclass(frozen=True)
class Config:
    """Times a sweep under `vmap`, and the same trainings one after the other."""

    trials: int = 64
    """Learning rates, from 1e-4 to 1e-1."""
    widths: tuple[int, ...] = (64, 64)
    """Units of each hidden layer."""
    batch: int = 64
    """Examples in a step."""
    steps: int = 500
    """Steps of a trial."""
    rounds: int = 5
    """Samples of each system, taken in turn."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


class Trained(NamedTuple):
    """Losses [trials, steps], seconds of training and of compiling, and trials side by side."""

    losses: np.ndarray
    seconds: float
    compile_seconds: float
    width: int


def _adam(hyperparameters: Any) -> optax.GradientTransformation:
    return optax.adam(hyperparameters["learning_rate"])


def _sweeps(config: Config, data: Any, rates: Sequence[Sequence[float]]) -> Trained:
    """Trains one sweep after the other."""
    swept = [
        train.sweep(
            models.MLP(config.widths, 10),
            losses.softmax_cross_entropy,
            _adam,
            data,
            space={"learning_rate": some},
            num_steps=config.steps,
            batch_size=config.batch,
            key=jax.random.key(0),
            monitor=False,
        )
        for some in rates
    ]
    return Trained(
        np.concatenate([each.loss_curves for each in swept]),
        sum(each.seconds["run"] for each in swept),
        sum(each.seconds["compile"] for each in swept),
        max(each.width for each in swept),
    )


def _scan(config: Config, data: Any, rates: Sequence[float]) -> Callable[[], Trained]:
    """One training after the other, by a program written for this training alone."""
    x, y = map(jnp.asarray, data)
    functional = models.from_linen(models.MLP(config.widths, 10))
    # As `train.sweep` has them.
    key = jax.random.fold_in(jax.random.key(0), 0)
    init_key, _, order_key = jax.random.split(key, 3)
    params = jax.jit(functional.init)(init_key, x[:2])["params"]
    seed = int(jax.random.bits(order_key, dtype=jnp.uint32))
    chosen = inputs.examples(len(y), config.batch, True, seed, 0, config.steps)

    def trained(rate, params, x, y, chosen):
        optimizer = optax.adam(rate)

        def step(carry, rows):
            params, state = carry

            def mean(params):
                outputs, _ = functional.apply({"params": params}, x[rows], training=True)
                return jnp.mean(losses.softmax_cross_entropy(outputs, y[rows]))

            loss, gradients = jax.value_and_grad(mean)(params)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, optimizer.init(params)), chosen)[1]

    started = time.perf_counter()
    compiled = jax.jit(trained).lower(np.float32(0), params, x, y, chosen).compile()
    compile_seconds = time.perf_counter() - started

    def run() -> Trained:
        started = time.perf_counter()
        found = [np.asarray(compiled(np.float32(rate), params, x, y, chosen)) for rate in rates]
        return Trained(np.stack(found), time.perf_counter() - started, compile_seconds, 1)

    return run


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    x, y = scikit.digits()
    data = scikit.scaled(x), y
    rates = np.geomspace(1e-4, 1e-1, config.trials).tolist()
    systems: dict[str, Callable[[], Trained]] = {
        "population": lambda: _sweeps(config, data, [rates]),
        "loop": lambda: _sweeps(config, data, [[rate] for rate in rates]),
        "scan": _scan(config, data, rates),
    }
    first = {name: run() for name, run in systems.items()}
    for name, found in first.items():
        # Only equal trainings are timed. Rounding grows where a rate is high.
        slow = slice(config.trials // 2)
        np.testing.assert_allclose(
            found.losses[slow, :50], first["scan"].losses[slow, :50], rtol=1e-2, err_msg=name
        )
    samples: dict[str, list[float]] = {name: [] for name in systems}
    for _ in reports.progress(range(config.rounds), "round"):
        for name, run in systems.items():
            samples[name].append(run().seconds)
    width = first["population"].width
    rows = [
        {
            "system": name,
            "samples_s": each,
            "median_s": statistics.median(each),
            "compile_s": first[name].compile_seconds,
            "times_population": statistics.median(
                a / b for a, b in zip(each, samples["population"], strict=True)
            ),
            "trials": config.trials,
            "steps": config.steps,
            "batch": config.batch,
            "widths": config.widths,
            "width": width,
        }
        for name, each in samples.items()
    ]
    reports.table(
        f"{config.trials} trainings of {config.steps} steps, {width} at once",
        ["", "s", "× population", "compiling s"],
        [
            [row["system"], row["median_s"], row["times_population"], row["compile_s"]]
            for row in rows
        ],
    )
    own = statistics.median(a / b for a, b in zip(samples["loop"], samples["scan"], strict=True))
    print(f"One trial takes {own:.2f} times as long as the scan written by hand.")
    return rows


def main(arguments: Sequence[str]) -> int:
    return command.run("sweep_scaling", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
