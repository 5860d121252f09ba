"""Tables, figures and pictures from the rows of the record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.serving_load.traffic import BATCHED, PLAIN
from jaxml import reports

Rows = Sequence[dict[str, Any]]
_FIGURES = ("per_second", "p50_ms", "p99_ms")


def median(rows: Rows, field: str, **wanted: Any) -> float:
    """Returns the median of a field over the rows that have the wanted values."""
    return float(np.median([row[field] for row in _where(rows, **wanted)]))


def throughput(rows: Rows, model: str, endpoint: str, clients: int) -> float:
    """Returns requests a second in the closed loop."""
    wanted = {"model": model, "endpoint": endpoint, "clients": clients, "loop": "closed"}
    return median(rows, "per_second", **wanted)


def tables(rows: Rows, model: str) -> None:
    """Prints throughput and latency by number of clients, and by load."""
    for loop, field, title in (
        ("closed", "clients", "each client sends its next request when it has an answer"),
        ("open", "load", "requests come at random moments"),
    ):
        lines = [
            [key["endpoint"], f"{key[field]:,.4g}"]
            + [f"{median(rows, name, model=model, loop=loop, **key):,.4g}" for name in _FIGURES]
            for key in _kinds(rows, field, model=model, loop=loop)
        ]
        heading = ["endpoint", field, "answers/s", "p50 ms", "p99 ms"]
        reports.table(f"{model}: {title}", heading, lines)


def picture(rows: Rows, model: str, path: Path) -> None:
    """Draws latency against load."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for key in _kinds(rows, "load", model=model, loop="open"):
        for name in ("p50", "p99"):
            x, y = lines.setdefault(f"{key['endpoint']}, {name}", ([], []))
            x.append(key["load"])
            y.append(median(rows, f"{name}_ms", model=model, loop="open", **key))
    reports.plots.curves(
        lines,
        xlabel="requests a second",
        ylabel="latency (ms)",
        title=f"Latency of the {model} model against its load",
        path=path,
    )


def summary(rows: Rows) -> dict[str, Any]:
    """Returns the figures that the experiment is for."""
    found: dict[str, Any] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        closed = _where(rows, model=model, endpoint=PLAIN, loop="closed")
        numbers = sorted({row["clients"] for row in closed})
        plain = {each: throughput(rows, model, PLAIN, each) for each in numbers}
        ours = throughput(rows, model, BATCHED, numbers[-1])
        half = {"model": model, "endpoint": BATCHED, "share": 0.5}
        found |= {
            f"{model}: capacity, requests/s": ours,
            f"{model}: capacity / that of one by one": ours / plain[numbers[-1]],
            f"{model}: capacity / best of one by one": ours / max(plain.values()),
            f"{model}: capacity / throughput of one client": ours
            / throughput(rows, model, BATCHED, 1),
            f"{model}: p99 / p50 at half of capacity": median(rows, "p99_ms", **half)
            / median(rows, "p50_ms", **half),
            f"{model}: largest difference of an answer": max(
                row["difference"] for row in _where(rows, model=model)
            ),
        }
    for row in _where(rows, loop="long"):
        tenths = row["resident_bytes"]
        found["long run: answers"] = row["answers"]
        found["long run: memory, last tenth / second tenth"] = tenths[-1] / tenths[1]
    found["answers compared"] = sum(row["answers"] for row in rows)
    found["wrong answers"] = sum(row["wrong"] for row in rows)
    found["requests refused"] = sum(row["refused"] for row in rows)
    return found


def _where(rows: Rows, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row.get(key) == each for key, each in wanted.items())]


def _kinds(rows: Rows, field: str, **wanted: Any) -> list[dict[str, Any]]:
    """Returns the endpoints with the values of a field, each pair once, ascending."""
    pairs = {(row["endpoint"], row[field]) for row in _where(rows, **wanted)}
    return [{"endpoint": endpoint, field: value} for endpoint, value in sorted(pairs)]
