"""Findings against measured outcomes, and the tables of them."""

import collections
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.monitor_bed.programs import PROGRAMS, Program
from jaxml import monitor, reports

# Faults that are read off a loss curve; all others are of gradients, units, data and initial values.
_OF_CURVES = {
    "loss_divergence", "loss_jump", "loss_oscillation", "loss_stuck", "repetitive_data", "overfitting",
    "learning_rate_too_low", "no_learnable_signal", "unbounded_loss",
}  # fmt: skip


def label(program: Program, score: float) -> str:
    """Returns `faulty`, `healthy`, or `unclear` between the two."""
    if score >= program.good:
        return "healthy"
    # A program that is meant to be healthy and is not has no fault of a known name.
    return "faulty" if score <= program.bad and program.symptoms else "unclear"


def judge(program: Program, score: float, findings: Sequence[monitor.Finding]) -> dict[str, Any]:
    """Compares findings with a measured outcome.

    Returns:
        The `label`; `recognised`, whether the fault was found; `false_alarms`, symptoms that are not there;
        `findings`, all symptoms; `step`, where the fault began according to its finding.
    """
    found = {finding.symptom for finding in findings}
    state = label(program, score)
    expected = {*program.symptoms, *program.also} if state == "faulty" else set()
    at = [finding.step for finding in findings if finding.symptom in program.symptoms]
    return {
        "label": state,
        "recognised": bool(at),
        "false_alarms": sorted(found - expected) if state != "unclear" else [],
        "findings": sorted(found),
        "step": min(at, default=None),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Prints the tables, and returns their content."""
    counts = {"shares": _shares(rows), "symptoms": _symptoms(rows)}
    return {"summary": counts, "monitored": _monitored(rows)}


def _shares(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    faulty = [row for row in rows if row["label"] == "faulty"]
    healthy = [row for row in rows if row["label"] == "healthy"]
    of_curves = [row for row in faulty if _fault(row) in _OF_CURVES]
    of_gradients = [row for row in faulty if _fault(row) not in _OF_CURVES]
    reported = sum(len(row["findings"]) for row in faulty + healthy)
    wrong = sum(len(row["false_alarms"]) for row in faulty + healthy)
    shares = {
        "gradient faults recognised": _count(of_gradients, "recognised"),
        "loss-curve faults recognised": _count(of_curves, "recognised"),
        "findings that are right": (reported - wrong, reported),
        "healthy runs with a false alarm": _count(healthy, "false_alarms"),
        "not judged, between good and bad": (len(rows) - len(faulty) - len(healthy), len(rows)),
    }
    reports.table(
        "the monitor against measured outcomes",
        ["", "runs", "of", "share"],
        [[name, count, of, _share(count, of)] for name, (count, of) in shares.items()],
    )
    return shares


def _fault(row: dict[str, Any]) -> str:
    return PROGRAMS[row["program"]].symptoms[0]


def _count(rows: Sequence[dict[str, Any]], field: str) -> tuple[int, int]:
    return sum(bool(row[field]) for row in rows), len(rows)


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _symptoms(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = collections.defaultdict(
        lambda: {"faults": 0, "recognised": 0, "reported": 0, "right": 0}
    )
    for row in rows:
        if row["label"] == "faulty":
            table[_fault(row)]["faults"] += 1
            table[_fault(row)]["recognised"] += row["recognised"]
        if row["label"] != "unclear":
            for symptom in row["findings"]:
                table[symptom]["reported"] += 1
                table[symptom]["right"] += symptom not in row["false_alarms"]
    reports.table(
        "symptom by symptom",
        ["symptom", "faults", "recognised", "recall", "reported", "right", "precision"],
        [
            [name, n["faults"], n["recognised"], _share(n["recognised"], n["faults"]),
             n["reported"], n["right"], _share(n["right"], n["reported"])]
            for name, n in sorted(table.items())
        ],
    )  # fmt: skip
    return dict(table)


def _monitored(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over seeds of faulty runs, without the monitor and with it."""
    by_program: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in rows:
        if row["label"] == "faulty":
            by_program[row["program"]].append(row)
    columns = ("score", "score_monitored", "loss", "loss_monitored")
    table = []
    for name, some in by_program.items():
        steps = [row["step"] for row in some if row["step"] is not None]
        table.append(
            {"program": name, "seeds": len(some)}
            | {column: statistics.median(row[column] for row in some) for column in columns}
            | {"first_seen": float(statistics.median(steps)) if steps else None}
        )
    reports.table(
        "faulty runs, medians over seeds: without the monitor and with it",
        ["program", "seeds", "score", "with", "loss", "with", "first seen at step"],
        [
            [f"{value:.3g}" if isinstance(value, float) else value for value in row.values()]
            for row in table
        ],
    )
    return table


def curves(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table of loss curves."""
    reports.table(
        "loss curves alone",
        ["family", "curves", "recognised", "no false alarm", "reported"],
        [
            [row["family"], row["curves"], row["recognised"], row["no_false_alarm"],
             ", ".join(f"{name} {times}" for name, times in row["reported"].items()) or None]
            for row in rows
        ],
    )  # fmt: skip
