"""How much faster is a sweep under `vmap` than one training after the other?

    python -m experiments.sweep_scaling                    64 MLPs on the digits, about two minutes
    python -m experiments.sweep_scaling --peers            scikit-learn and PyTorch, too, where installed

The same sweep of 64 learning rates, an MLP of 64-64 with Adam, batches of 64, 500 steps, in turn:

    population   `train.sweep`: trials side by side under `vmap`, on a CPU some on each core
    loop         the same compiled training of one trial, called for one trial after the other
    scan         a jitted `lax.scan` written by hand for this one training, likewise
    scikit-learn `MLPClassifier`, for some trials, scaled up
    PyTorch      a loop over steps and trials, for some trials, scaled up

Compile time is measured apart. A round times each once; its ratio is to the population of the same round.
"""

import dataclasses
import functools
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from jaxml import bench, models, reports, train
from jaxml.data import scikit
from jaxml.train import inputs
from jaxml.train.progress import Progress
from jaxml.train.trainer import Settings, Trainer


@dataclasses.dataclass(frozen=True)
class Config:
    """A population under `vmap` against one training after the other."""

    trials: int = 64
    """Learning rates, from 1e-4 to 1e-1."""
    widths: tuple[int, ...] = (64, 64)
    """Hidden layers."""
    batch: int = 64
    """Examples in a step."""
    steps: int = 500
    """Steps of a trial."""
    rounds: int = 5
    """Samples of each system, taken in turn."""
    watched: bool = False
    """With a monitor, both the population and the loop."""
    peers: bool = False
    """Time scikit-learn and PyTorch, too, where they are installed."""
    peer_trials: int = 4
    """Trials that peers are timed on."""
    json: Path | None = None
    """Where to write the rows."""


def _cross_entropy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def _trainers(config: Config, data: inputs.Arrays) -> dict[str, list[Trainer]]:
    """All trials side by side, and one after the other."""
    rates = np.geomspace(1e-4, 1e-1, config.trials)
    key = jax.random.key(0)
    trials = [Settings({"learning_rate": float(rate)}, 0, config.batch, key) for rate in rates]

    def trainer(trials: Sequence[Settings]) -> Trainer:
        return Trainer(
            models.MLP(config.widths, 10),
            _cross_entropy,
            _adam,
            data,
            trials,
            num_steps=config.steps,
            monitor=train.Monitor(final_diagnostics=False) if config.watched else False,
        )

    return {"population": [trainer(trials)], "loop": [trainer([trial]) for trial in trials]}


def _adam(hyperparameters: Any) -> optax.GradientTransformation:
    return optax.adam(hyperparameters["learning_rate"])


def _trained(trainers: Sequence[Trainer]) -> np.ndarray:
    """Losses [trials, steps]."""
    losses = []
    for trainer in trainers:
        found = trainer.train(trainer.num_steps, Progress(1))
        losses += [found[i].report.metrics["loss"] for i in range(len(found))]
    return np.stack(losses)


def _scan(config: Config, data: inputs.Arrays) -> Callable[[], np.ndarray]:
    """One training after the other, by a program written for this training alone."""
    x, y = map(jnp.asarray, data)
    functional = models.from_linen(models.MLP(config.widths, 10))
    # As `Program.start` has them.
    init_key, _, order_key = jax.random.split(jax.random.key(0), 3)
    params = jax.jit(functional.init)(init_key, x[:2])["params"]
    seed = int(jax.random.bits(order_key, dtype=jnp.uint32))
    chosen = inputs.examples(len(y), config.batch, True, seed)(0, config.steps)

    @jax.jit
    def trained(rate, params, x, y, chosen):
        optimizer = optax.adam(rate)

        def step(carry, rows):
            params, state = carry

            def mean(params):
                outputs, _ = functional.apply({"params": params}, x[rows], training=True)
                return jnp.mean(_cross_entropy(outputs, y[rows]))

            loss, gradients = jax.value_and_grad(mean)(params)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, optimizer.init(params)), chosen)

    def run() -> np.ndarray:
        losses = []
        for rate in np.geomspace(1e-4, 1e-1, config.trials):
            losses.append(np.asarray(trained(np.float32(rate), params, x, y, chosen)[1]))
        return np.stack(losses)

    return run


def _scikit_learn(config: Config, data: inputs.Arrays) -> Callable[[], float]:
    """Seconds that all trials would take."""
    from sklearn.neural_network import MLPClassifier

    x, y = data
    batches_an_epoch = -(-len(x) // config.batch)
    epochs = max(1, round(config.steps / batches_an_epoch))

    def run() -> float:
        started = time.perf_counter()
        for rate in np.geomspace(1e-4, 1e-1, config.peer_trials):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # That it has not converged.
                MLPClassifier(
                    config.widths,
                    batch_size=config.batch,
                    learning_rate_init=rate,
                    alpha=0.0,
                    max_iter=epochs,
                    n_iter_no_change=epochs + 1,
                    random_state=0,
                ).fit(x, y)
        took = time.perf_counter() - started
        steps = epochs * batches_an_epoch * config.peer_trials
        return took * config.steps * config.trials / steps

    return run


def _pytorch(config: Config, data: inputs.Arrays) -> Callable[[], float]:
    """Seconds that all trials would take."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Its best with operations this small: with more threads it waits for them to meet, and by far longer
    # where other processes want the cores, too.
    torch.set_num_threads(1)
    x = torch.tensor(data[0], device=device)
    y = torch.tensor(data[1], dtype=torch.long, device=device)
    order = inputs.examples(len(y), config.batch, True, 0)
    chosen = torch.tensor(np.asarray(order(0, config.steps)), dtype=torch.long, device=device)

    def run() -> float:
        started = time.perf_counter()
        for rate in np.geomspace(1e-4, 1e-1, config.peer_trials):
            layers: list[Any] = []
            wide = x.shape[1]
            for width in config.widths:
                layers += [torch.nn.Linear(wide, width), torch.nn.ReLU()]
                wide = width
            model = torch.nn.Sequential(*layers, torch.nn.Linear(wide, 10)).to(device)
            optimizer = torch.optim.Adam(model.parameters(), lr=float(rate))
            for rows in chosen:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) * config.trials / config.peer_trials

    return run


def _systems(
    config: Config, data: inputs.Arrays
) -> tuple[dict[str, Callable[[], float]], dict[str, float], int]:
    """Seconds of a sweep by each system, compile seconds, and trials side by side."""
    trainers = _trainers(config, data)
    written = _scan(config, data)

    def timed(run: Callable[[], Any]) -> Callable[[], float]:
        def seconds() -> float:
            started = time.perf_counter()
            run()
            return time.perf_counter() - started

        return seconds

    compiling, losses = {}, {}
    for name, several in trainers.items():
        losses[name] = _trained(several)
        compiling[name] = sum(trainer.seconds["compile"] for trainer in several)
    started = time.perf_counter()
    losses["scan"] = written()
    first = time.perf_counter() - started
    compiling["scan"] = first - timed(written)()
    for name, values in losses.items():
        # Only equal trainings are timed. Rounding grows where a rate is high.
        np.testing.assert_allclose(
            values[: len(values) // 2, :50],
            losses["scan"][: len(values) // 2, :50],
            rtol=1e-2,
            err_msg=name,
        )
    systems = {name: timed(functools.partial(_trained, each)) for name, each in trainers.items()}
    systems["scan"] = timed(written)
    if config.peers:
        for name, package, build in (
            ("scikit-learn", "sklearn", _scikit_learn),
            ("PyTorch", "torch", _pytorch),
        ):
            if importlib.util.find_spec(package) is None:
                print(f"{name} is not installed", file=sys.stderr)
            else:
                systems[name] = build(config, data)
                systems[name]()
    return systems, compiling, trainers["population"][0].width


def main(arguments: Sequence[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.sweep_scaling")
    x, y = scikit.digits()
    systems, compiling, width = _systems(config, (scikit.scaled(x), y))
    samples: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(config.rounds):
        for name, run in systems.items():
            samples[name].append(run())
    rows = [
        {
            "system": name,
            "samples_s": each,
            "median_s": statistics.median(each),
            "compile_s": compiling.get(name),
            "times_population": statistics.median(
                a / b for a, b in zip(each, samples["population"], strict=True)
            ),
            "trials": config.trials,
            "steps": config.steps,
            "batch": config.batch,
            "widths": config.widths,
            "width": width,
            "watched": config.watched,
            "environment": reports.environment(),
        }
        for name, each in samples.items()
    ]
    reports.table(
        f"{config.trials} trainings of {config.steps} steps, {width} at once",
        ["", "s", "× population", "compiling s"],
        [
            [row["system"], row["median_s"], row["times_population"], row["compile_s"] or ""]
            for row in rows
        ],
    )
    own = statistics.median(a / b for a, b in zip(samples["loop"], samples["scan"], strict=True))
    print(f"One trial takes {own:.2f} times as long as the scan written by hand.")
    if config.json is not None:
        bench.write_rows(config.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
