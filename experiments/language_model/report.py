"""The table and the picture of the curves."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.language_model import training
from jaxml import reports


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows beside the first one, the exact softmax.

    Each gets `milliseconds` of a step; `to_exact`, its perplexity over the exact one's, less 1, at the same
    number of steps; `seconds_to_exact`, when it reached the exact one's last perplexity, None if it did
    not; and `speedup`, how many times sooner that was.
    """
    last = rows[0]["points"][-1]
    found = []
    for row in rows:
        points = row["points"]
        equal = next((point for point in points if point["step"] == last["step"]), None)
        reached = training.seconds_to(points, last["loss"])
        found.append(
            {
                **row,
                "milliseconds": 1e3 * points[-1]["seconds"] / points[-1]["step"],
                "to_exact": equal and math.exp(equal["loss"] - last["loss"]) - 1,
                "seconds_to_exact": reached,
                "speedup": reached and last["seconds"] / reached,
            }
        )
    return found


def show(rows: Sequence[dict[str, Any]], ngram: dict[str, float] | None) -> None:
    """Prints the layers, compared, and the n-gram model."""
    lines: list[list[Any]] = []
    for row in rows:
        last, apart = row["points"][-1], row["to_exact"]
        lines.append(
            [
                row["name"],
                row["milliseconds"],
                last["step"],
                last["seconds"],
                row["perplexity"],
                None if apart is None else f"{apart:+.1%}",
                row["seconds_to_exact"],
                row["speedup"],
            ]
        )
    if ngram is not None:
        lines.append(["5-gram", None, None, ngram["seconds"], ngram["perplexity"], *[None] * 3])
    reports.table(
        "test perplexity, and the time to the last perplexity of the exact softmax",
        ["layer", "ms a step", "steps", "seconds", "perplexity", "at equal steps", "s to exact",
         "times sooner"],
        lines,
    )  # fmt: skip


def picture(path: Path, rows: Sequence[dict[str, Any]], ngram: dict[str, float] | None) -> None:
    """Draws perplexity on held-out entries against seconds of training."""
    series = {}
    for row in rows:
        points = [point for point in row["points"] if point["seconds"] > 0]
        series[row["name"]] = (
            [point["seconds"] for point in points],
            [math.exp(point["loss"]) for point in points],
        )
    if ngram is not None:
        longest = max(xs[-1] for xs, _ in series.values())
        series["5-gram, Kneser-Ney (test part)"] = (
            [ngram["seconds"], longest],
            [ngram["perplexity"]] * 2,
        )
    reports.plots.curves(
        series,
        xlabel="seconds of training",
        ylabel="perplexity of held-out entries",
        title="Perplexity against time, by output layer",
        path=path,
    )
