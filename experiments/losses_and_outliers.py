"""Which loss fits a line in spite of outliers?

    python -m experiments.losses_and_outliers             20,000 flights, 20 s
    python -m experiments.losses_and_outliers --num-flights 100000 --huber-delta 3

The line predicts the arrival delay of flights that left New York City in 2013 from the departure delay. The
arrival delay is computed naively, as the clock at arrival minus the scheduled clock. If midnight is between
the two it is wrong by a day, which happens to 2.2 % of the flights, most of them late. The table also holds
the right delay, which no fit sees; it measures the errors on other flights.

Huber's loss and the absolute loss keep most of the slope. A small tilt remains, because the outliers also
have long departure delays: these losses bound the influence of a residual, but not of an input.

The lines are fitted by `train.fit`, full batch, with Adam and a learning rate that falls to 0, as the
absolute loss needs. The record is `experiments/results/losses-and-outliers.json`.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from experiments import command
from jaxml import bench, losses, models, reports, train
from jaxml.data import flights


@dataclasses.dataclass(frozen=True)
class Config:
    """Fits a line to data with outliers by the squared, the absolute and Huber's loss."""

    num_flights: int = 20_000
    """Flights to fit the line to; its errors are measured on as many others."""
    num_steps: int = 800
    """Full-batch steps."""
    learning_rate: float = 0.1
    """Learning rate of Adam at the start; it falls to 0 along a cosine."""
    huber_delta: float = 1.345
    """Where Huber's loss turns from squared to absolute, in robust standard deviations of the delays."""
    seed: int = 0
    """Seed of the choice of flights."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def minutes(clock: NDArray[np.str_]) -> NDArray[np.int64]:
    """Clock readings such as 517 (5:17) as minutes after midnight."""
    hours, rest = np.divmod(clock.astype(np.int64), 100)
    return 60 * hours + rest


def read() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each flight that landed, in minutes: delay at departure, delay by the clocks, delay as it was."""
    columns = ("dep_delay", "arr_time", "sched_arr_time", "arr_delay")
    table = flights.read_flights(columns)
    landed = np.all([table[name] != "" for name in columns], axis=0)
    departure, arrival, scheduled, truth = (table[name][landed] for name in columns)
    return (
        departure.astype(np.float64),
        (minutes(arrival) - minutes(scheduled)).astype(np.float64),
        truth.astype(np.float64),
    )


def fit_line(x: NDArray, y: NDArray, loss, config: Config) -> tuple[float, float]:
    """Slope and intercept of the line y ≈ slope · x + intercept with the least mean loss.

    Both are first put on a robust scale, median 0 and median absolute deviation 1/1.4826 (a standard
    deviation of 1, were they normal), so that one learning rate and one delta fit all losses.
    """
    (x_middle, x_scale), (y_middle, y_scale) = (
        (np.median(v), 1.4826 * np.median(np.abs(v - np.median(v)))) for v in (x, y)
    )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    fitted = train.fit(
        models.MLP((), 1),
        loss,
        optax.adam(schedule),
        (((x - x_middle) / x_scale)[:, None], ((y - y_middle) / y_scale)[:, None]),
        num_steps=config.num_steps,
        batch_size=len(x),
        shuffle=False,
        key=jax.random.key(config.seed),
        monitor=False,
    )
    layer = fitted.params["output"]
    slope = float(layer["kernel"][0, 0]) * y_scale / x_scale
    return slope, float(layer["bias"][0]) * y_scale + y_middle - slope * x_middle


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    bench.compilation_cache()
    departure, by_clock, truth = read()
    if not 2 <= config.num_flights <= len(truth) // 2:
        raise ValueError(f"num_flights must be in [2, {len(truth) // 2}], got {config.num_flights}")
    order = np.random.default_rng(config.seed).permutation(len(truth))
    fitting, judging = np.split(order[: 2 * config.num_flights], 2)
    x, y, wrong = departure[fitting], by_clock[fitting], (by_clock != truth)[fitting]

    each = {
        "squared": losses.squared,
        "absolute": losses.absolute,
        "Huber": functools.partial(losses.huber, delta=config.huber_delta),
    }
    lines = {name: fit_line(x, y, loss, config) for name, loss in each.items()}
    slope, intercept = np.polyfit(x, truth[fitting], 1)
    lines["squared, right delays"] = float(slope), float(intercept)
    errors = {
        name: float(np.abs(a * departure[judging] + b - truth[judging]).mean())
        for name, (a, b) in lines.items()
    }

    reports.table(
        f"{len(x):,} flights, {wrong.mean():.1%} wrong by a day; held out, against the right delays",
        ["loss", "slope", "intercept (min)", "mean absolute error (min)"],
        [[name, *lines[name], errors[name]] for name in lines],
    )
    conclusion = (
        f"{wrong.mean():.1%} of outliers turn the slope of the squared loss from "
        f"{slope:.2f} to {lines['squared'][0]:.2f} and its error from "
        f"{errors['squared, right delays']:.1f} to {errors['squared']:.1f} minutes; Huber's loss keeps "
        f"slope {lines['Huber'][0]:.2f} and {errors['Huber']:.1f} minutes, the absolute loss "
        f"{lines['absolute'][0]:.2f} and {errors['absolute']:.1f}."
    )
    reports.plots.fitted_lines(
        {"flights": (x[~wrong], y[~wrong]), "wrong by a day": (x[wrong], y[wrong])},
        lines,
        xlabel="delay at departure (minutes)",
        ylabel="delay at arrival, by the clocks (minutes)",
        title=conclusion,
        path=run_dir / "lines.png",
    )
    print(conclusion)
    return {
        "num_flights": len(x),
        "share_wrong": float(wrong.mean()),
        "lines": {name: {"slope": a, "intercept": b} for name, (a, b) in lines.items()},
        "mean_absolute_error": errors,
    }


def main(arguments: Sequence[str]) -> int:
    return command.run("losses_and_outliers", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
