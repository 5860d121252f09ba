"""Pictures of measured rows; draws those of a record without measuring.

python -m experiments.softmax_benchmark.pictures experiments/results/softmax-*.json --out DIRECTORY
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxml import softmax
from jaxml.reports import plots
from jaxml.reports.plots import canvas

Rows = Sequence[dict[str, Any]]

LAYERS = {
    "full": "full softmax",
    "blockwise": "full softmax in blocks",
    "update": "in blocks, updating the table",
    "one_vs_all": "one-vs-all",
    "adaptive": "adaptive softmax",
    "two_level": "two-level softmax",
    "per_example": "sampled, own candidates",
    "sampled": "sampled, shared candidates",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Draws the pictures of a record."""

    records: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """JSON files of rows, as the benchmark writes them."""
    out: Path = Path("experiments/results")
    """Directory of the pictures."""


def main(config: Config) -> None:
    """Draws what the rows hold, and prints the paths."""
    for record in config.records:
        rows = json.loads(record.read_text())
        draw = cost if "mode" in rows[0] else quality if "points" in rows[0] else bias
        for path in draw(rows, config.out, "softmax-"):
            print(path)


def cost(rows: Rows, directory: Path, prefix: str = "") -> list[Path]:
    """Draws the time of a step against the number of classes; returns the paths."""
    timed = [row for row in rows if row["mode"] == "step" and row["samples_ms"]]
    if not timed:
        return []
    series: dict[str, tuple[list[int], list[list[float]]]] = {}
    for name in dict.fromkeys([*LAYERS, *(row["variant"] for row in timed)]):
        mine = [row for row in timed if row["variant"] == name]
        sizes, samples = ([row[k] for row in mine] for k in ("num_classes", "samples_ms"))
        if mine:
            series[LAYERS.get(name, name)] = sizes, samples
    size, place = timed[0], timed[0]["environment"]
    path = directory / f"{prefix}cost-step.png"
    plots.scaling(
        series,
        xlabel="classes",
        ylabel="milliseconds",
        title=f"Cost of a step of gradient descent: batch {size['batch_size']}, dim {size['dim']}, "
        f"{size['dtype']}, {place['cores']} cores ({place['device']})",
        path=path,
    )
    return [path]


def quality(rows: Rows, directory: Path, prefix: str = "") -> list[Path]:
    """Draws the exact loss against time, a picture a problem; returns the paths.

    The left panel has the layers that do not share candidates, the right one those that do. Samplers that
    draw with replacement are left out: they lie on those that draw without.
    """
    paths = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        lines = {row["variant"]: row["points"][1:] for row in rows if row["problem"] == problem}
        lines = {k: points for k, points in lines.items() if points and "independent" not in k}
        if not lines:
            continue
        figure, ((*grid,),) = canvas.figure(
            f"Exact loss against training time: {problem}", columns=2
        )
        shared = [
            name
            for name, make in softmax.SAMPLERS.items()
            if name in lines and not make([1, 1], 1, 1).follows_model
        ]
        others = [name for name in lines if name not in shared]
        # A layer that stays far above the rest leaves the picture at the top.
        top = 1.3 * min(max(point["loss"] for point in points) for points in lines.values())
        panels = (("other layers", others), ("samplers with shared candidates", shared))
        for axes, (heading, names) in zip(grid, panels, strict=True):
            drawn = [name for name in lines if name == "exact" or name in names]
            for i, name in enumerate(drawn):
                x, y = ([point[k] for point in lines[name]] for k in ("seconds", "loss"))
                label = name if min(y) <= top else f"{name} (above: {y[-1]:.1f} at the end)"
                axes.plot(x, y, label=label, **canvas.style(i, len(drawn), 6))
            axes.set_title(heading, fontsize=14, loc="left")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:,g}")
            if any(lines[name][-1]["loss"] > top for name in drawn):
                axes.set_ylim(top=top)
            axes.set_xlabel("seconds of training")
            if drawn:
                where = dict(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
                axes.legend(fontsize=11, frameon=False, **where)
        grid[0].set_ylabel("exact loss on held-out examples (nats)")
        paths.append(directory / f"{prefix}quality-{problem}.png")
        canvas.finish(figure, paths[-1])
    return paths


def bias(rows: Rows, directory: Path, prefix: str = "") -> list[Path]:
    """Draws the bias of the gradient against the number of candidates; returns the paths."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        xs, ys = series.setdefault(row["sampler"], ([], []))
        xs.append(row["num_sampled"])
        ys.append(row["gradient_bias"])
    path = directory / f"{prefix}gradient-bias.png"
    plots.curves(
        series,
        xlabel="candidates of an example",
        ylabel="bias of the gradient, relative to the exact one",
        title=f"Bias of the sampled gradient: {rows[0]['problem']}",
        path=path,
    )
    return [path]


if __name__ == "__main__":
    main(tyro.cli(Config))
