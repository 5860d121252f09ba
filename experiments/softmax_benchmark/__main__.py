"""The command line: `python -m experiments.softmax_benchmark --help`."""

import dataclasses
import math
import statistics
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments import command
from experiments.softmax_benchmark import bias, cost, layers, peers, pictures, problems, quality
from jaxml import files, reports, softmax
from jaxml.softmax import planner

VARIANTS = tuple(dict.fromkeys((*cost.VARIANTS, *layers.VARIANTS)))
if TYPE_CHECKING:
    VariantName = str
    ProblemName = str
else:
    VariantName = Literal[VARIANTS]
    ProblemName = Literal[problems.NAMES]

# Names that the planner gives to variants of the cost.
_PLANNED: dict[str, planner.Variant] = {
    "full": "exact",
    "update": "blockwise",
    "sampled": "sampled",
    "adaptive": "adaptive",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures cost, quality and bias of output layers for many classes."""

    parts: tuple[Literal["cost", "quality", "bias"], ...] = ("cost",)
    """Parts to measure."""
    num_classes: tuple[int, ...] = (2**20,)
    """Cost: sizes of the table."""
    dim: int = 128
    """Length of its rows."""
    batch: int = 512
    """Examples in a step."""
    num_sampled: int = 2_048
    """Candidates of the sampled layers."""
    variants: tuple[VariantName, ...] = ()
    """Layers to measure; all if none is given. Ratios are to the first."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Cost: type of inputs and table."""
    peers: bool = False
    """Cost: also measure other libraries, if they are installed."""
    rounds: int = 5
    """Cost: samples of each program."""
    num_steps: int = 2_000
    """Quality: steps of every layer; also used by the recommendation."""
    seconds: float = 60.0
    """Quality: least time to train every layer."""
    max_seconds: float = 3_600.0
    """Quality: most time to train a layer."""
    problems: tuple[ProblemName, ...] = problems.NAMES
    """Quality: data sets. Bias: the first of them."""
    small: int | None = None
    """Quality and bias: use only so many places, flights or entries, for a quick look."""
    num_keys: int = 32
    """Bias: draws of each sampler."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""
    resume: Path | None = None
    """Continue this run: its quality rows of the same settings are not measured again."""


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the number of failures."""
    parts = {"cost": _cost, "quality": _quality, "bias": _bias}
    measured = [run(config, run_dir) for name, run in parts.items() if name in config.parts]
    failures = sum(bool(row.get("failure")) for rows in measured for row in rows)
    if failures:
        raise command.Failed(f"{failures} layers were not measured")
    return {"parts": config.parts}


def main(arguments: Sequence[str]) -> int:
    return command.run("softmax_benchmark", Config, experiment, arguments)


def _chosen(config: Config, known: Sequence[str]) -> list[str]:
    """Returns the chosen variants of a part, in the given order."""
    return [name for name in config.variants or known if name in known]


# ---------------------------------------------------------------------------------------------- cost


def _cost(config: Config, run_dir: Path) -> list[dict[str, Any]]:
    variants = _chosen(config, cost.VARIANTS)
    rows: list[dict[str, Any]] = []
    place = reports.environment()
    for num_classes in config.num_classes:
        size = cost.Size(
            num_classes,
            config.dim,
            config.batch,
            config.num_sampled,
            config.dtype,
        )
        with_peers = peers.NAMES if config.peers else ()
        measured = cost.measure(size, variants, rounds=config.rounds, with_peers=with_peers)
        for row in measured:
            if row["mode"] == "step" and (planned := _PLANNED.get(row["variant"])):
                predicted = planner.predict(
                    planned, num_classes, config.dim, config.batch, num_sampled=config.num_sampled
                )
                row["predicted_bytes"], row["predicted_operations"] = predicted
            rows.append({**row, "environment": place})
        files.write_record(run_dir / "cost.json", rows)
        _show_cost(measured, size)
        _recommend(config, num_classes)
    pictures.cost(rows, run_dir)
    return rows


def _show_cost(rows: list[dict[str, Any]], size: cost.Size) -> None:
    lines, memory = [], ("temporary_bytes", "program_bytes")
    for row in rows:
        if row["failure"]:
            print(f"{row['variant']}, {row['mode']}: {row['failure']}", file=sys.stderr)
        first = next(other for other in rows if other["mode"] == row["mode"])
        pairs = list(zip(row["samples_ms"], first["samples_ms"], strict=False))
        samples = row["samples_ms"]
        low, high = (
            statistics.quantiles(samples, n=4)[::2] if len(samples) > 1 else (math.nan, math.nan)
        )
        lines.append(
            [
                row["variant"],
                row["mode"],
                statistics.median(samples) if samples else None,
                high - low if samples else None,
                # The median of ratios within a round: a slow round is slow for both.
                statistics.median(mine / its for mine, its in pairs) if pairs else None,
                *(row[key] / 1e6 if key in row else None for key in memory),
            ]
        )
    reports.table(
        f"{size.num_classes:,} classes, dim {size.dim}, batch {size.batch_size}, {size.dtype}",
        ["layer", "", "ms", "spread", "× first", "temp MB", "all MB"],
        lines,
    )


def _recommend(config: Config, num_classes: int) -> None:
    memory = cost.available_bytes() or 16 * 10**9
    try:
        best = softmax.recommend(
            num_classes, config.dim, config.batch, memory_bytes=memory, num_steps=config.num_steps
        )
    except ValueError as error:
        print(f"no layer fits: {error}")
        return
    text = (
        f"{num_classes:,} classes, {config.num_steps:,} steps, {memory / 1e9:.3g} GB: train {best.variant} "
        f"({best.predicted_bytes / 1e6:,.0f} MB, {best.predicted_operations / 1e9:,.1f} GFLOP a step): "
        f"{best.reason}"
    )
    print(textwrap.fill(text, 80))


# ------------------------------------------------------------------------------------------- quality


def _quality(config: Config, run_dir: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in config.problems:
        problem = problems.load(name, small=config.small)
        variants = _chosen(config, layers.VARIANTS)
        mine = quality.measure(
            problem,
            variants,
            _settings(config, problem),
            run_dir / "quality.json",
            max_seconds=config.max_seconds,
        )
        rows += mine
        _show_quality(mine, config, problem)
    pictures.quality(rows, run_dir)
    return rows


def _settings(config: Config, problem: problems.Problem) -> quality.Settings:
    return quality.Settings(
        # A class moves as far for an example of its own, however many there are in the batch.
        class_learning_rate=problem.class_learning_rate * config.batch / 512,
        dim=config.dim,
        batch_size=config.batch,
        num_sampled=config.num_sampled,
        num_steps=config.num_steps,
        seconds=config.seconds,
    )


def _show_quality(rows: list[dict[str, Any]], config: Config, problem: problems.Problem) -> None:
    def first(row: dict[str, Any], key: str, least: float) -> dict[str, Any] | None:
        """The first point of a curve at so many steps, or so much time."""
        return next((point for point in row["points"] if point[key] >= least), None)

    referee = next((row for row in rows if row["variant"] == "exact"), None)
    exact = first(referee, "step", config.num_steps) if referee else None
    by_step: list[list[Any]] = []
    by_time: list[list[Any]] = []
    for row in rows:
        name = row["variant"]
        if (point := first(row, "step", config.num_steps)) is not None:
            milliseconds, loss = 1e3 * point["seconds"] / point["step"], point["loss"]
            apart = exact and f"{loss / exact['loss'] - 1:+.1%}"
            scores = point["precision_at_1"], point["recall_at_10"]
            by_step.append([name, milliseconds, loss, apart, *scores])
        if (point := first(row, "seconds", config.seconds)) is not None:
            by_time.append([name, point["step"], point["loss"], point["precision_at_1"]])
        if row["failure"]:
            print(f"{name}: {row['failure']}", file=sys.stderr)
    title = f"{problem.name}: {problem.num_classes:,} classes, after"
    reports.table(
        f"{title} {config.num_steps:,} steps",
        ["layer", "ms a step", "loss", "to exact", "P@1", "R@10"],
        by_step,
    )
    reports.table(
        f"{title} {config.seconds:g} s of training", ["layer", "steps", "loss", "P@1"], by_time
    )


# ---------------------------------------------------------------------------------------------- bias


def _bias(config: Config, run_dir: Path) -> list[dict[str, Any]]:
    problem = problems.load(config.problems[0], small=config.small)
    samplers = _chosen(config, tuple(softmax.SAMPLERS))
    if not samplers:
        raise ValueError(f"variants must name a sampler, got {config.variants}")
    settings = dataclasses.replace(_settings(config, problem), seconds=0.0)
    *_, (_, held) = quality.training(problem, "uniform", settings)
    numbers = [n for n in (64, 256, 1024) if n <= min(config.num_sampled, problem.num_classes)]
    rows = bias.measure(
        problem,
        held,
        samplers,
        num_sampled=numbers or [min(config.num_sampled, problem.num_classes)],
        num_examples=min(128, config.batch),
        num_keys=config.num_keys,
        temperature=settings.temperature,
        seed=settings.seed,
    )
    place = reports.environment()
    rows = [{**row, "trained_steps": config.num_steps, "environment": place} for row in rows]
    files.write_record(run_dir / "bias.json", rows)
    measures = ("gradient_bias", "gradient_variance", "loss_gap")
    reports.table(
        f"Sampled gradients of {problem.name} after {config.num_steps:,} steps, beside the exact one",
        ["sampler", "samples", "bias", "variance", "loss gap"],
        [[row["sampler"], row["num_sampled"], *(row[name] for name in measures)] for row in rows],
    )
    pictures.bias(rows, run_dir)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
