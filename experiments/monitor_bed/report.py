"""What was found against what there is, and the tables of it."""

import collections
import statistics
from collections.abc import Sequence
from typing import Any

from experiments.monitor_bed.programs import PROGRAMS, Program
from jaxml import monitor, reports

# Faults that are read off a loss curve; all others are of gradients, units, data and initial values.
_OF_CURVES = {
    "loss_divergence", "loss_jump", "loss_oscillation", "loss_stuck", "repetitive_data", "overfitting",
    "learning_rate_too_low", "no_learnable_signal",
}  # fmt: skip


def label(program: Program, score: float) -> str:
    """`sick`, `healthy`, or `unclear` between the two."""
    if score >= program.good:
        return "healthy"
    if score <= program.bad:
        # A program that is meant to be healthy and is not has no fault of a known name.
        return "sick" if program.symptoms else "unclear"
    return "unclear"


def judge(program: Program, score: float, findings: Sequence[monitor.Finding]) -> dict[str, Any]:
    """What was found against what there is.

    Returns:
        The `label`; `hit`, whether the fault was named; `wrong`, symptoms that are not there; `found`, all
        symptoms; `step`, at which the fault began, as it was found.
    """
    found = {finding.symptom for finding in findings}
    state = label(program, score)
    wrong = found - {*program.symptoms, *program.also} if state == "sick" else found
    at = [finding.step for finding in findings if finding.symptom in program.symptoms]
    return {
        "label": state,
        "hit": bool(at),
        "wrong": sorted(wrong) if state != "unclear" else [],
        "found": sorted(found),
        "step": min(at, default=None),
    }


def without_histories(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as they are recorded."""
    return [{k: v for k, v in row.items() if k not in ("history", "findings")} for row in rows]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Prints the tables, and gives what is in them."""
    return {
        "shares": _shares(rows),
        "symptoms": _symptoms(rows),
        "acting": _acting(rows),
        **({"early": _early(rows)} if any("early" in row for row in rows) else {}),
    }


def _shares(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    sick = [row for row in rows if row["label"] == "sick"]
    healthy = [row for row in rows if row["label"] == "healthy"]
    fault = {name: program.symptoms[0] for name, program in PROGRAMS.items() if program.symptoms}
    of_curves = [row for row in sick if fault[row["program"]] in _OF_CURVES]
    of_gradients = [row for row in sick if fault[row["program"]] not in _OF_CURVES]
    said = sum(len(row["found"]) for row in sick + healthy)
    found = {
        "gradient faults recognised": (sum(row["hit"] for row in of_gradients), len(of_gradients)),
        "loss-curve faults recognised": (sum(row["hit"] for row in of_curves), len(of_curves)),
        "findings that are right": (said - sum(len(r["wrong"]) for r in sick + healthy), said),
        "healthy runs with a false alarm": (sum(bool(r["wrong"]) for r in healthy), len(healthy)),
        "not judged, between good and bad": (len(rows) - len(sick) - len(healthy), len(rows)),
    }
    reports.table(
        "the monitor against measured outcomes",
        ["", "runs", "of", "share"],
        [[name, a, b, a / b if b else float("nan")] for name, (a, b) in found.items()],
    )
    return found


def _symptoms(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = collections.defaultdict(
        lambda: {"faults": 0, "recognised": 0, "said": 0, "right": 0}
    )
    for row in rows:
        if row["label"] == "sick":
            fault = table[PROGRAMS[row["program"]].symptoms[0]]
            fault["faults"] += 1
            fault["recognised"] += row["hit"]
        if row["label"] != "unclear":
            for symptom in row["found"]:
                table[symptom]["said"] += 1
                table[symptom]["right"] += symptom not in row["wrong"]
    share = lambda a, b: a / b if b else None  # noqa: E731
    reports.table(
        "symptom by symptom",
        ["symptom", "faults", "recognised", "recall", "said", "right", "precision"],
        [
            [name, n["faults"], n["recognised"], share(n["recognised"], n["faults"]),
             n["said"], n["right"], share(n["right"], n["said"])]
            for name, n in sorted(table.items())
        ],
    )  # fmt: skip
    return dict(table)


def _acting(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    by_program: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in rows:
        if row["label"] == "sick":
            by_program[row["program"]].append(row)
    found = [
        {
            "program": name,
            "seeds": len(of),
            **{
                key: statistics.median(row[key] for row in of)
                for key in ("score", "score_watched", "loss", "loss_watched")
            },
            "first_seen": float(statistics.median(seen))
            if (seen := [row["step"] for row in of if row["step"] is not None])
            else None,
        }
        for name, of in by_program.items()
    ]
    reports.table(
        "sick runs, medians over seeds: without the monitor and with it acting",
        ["program", "seeds", "score", "with", "loss", "with", "first seen at step"],
        [
            [row["program"], row["seeds"], row["score"], row["score_watched"], row["loss"],
             row["loss_watched"], row["first_seen"]]
            for row in found
        ],
    )  # fmt: skip
    return found


def _early(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = collections.Counter()
    for row in rows:
        if "early" in row:
            share = "at the end" if row["early"] is None else f"{row['early'] / row['steps']:.0%}"
            found[share] += 1
    reports.table(
        "the fewest steps after which the fault was found",
        ["of all steps", "runs"],
        [[share, number] for share, number in sorted(found.items())],
    )
    return dict(found)
