"""The command line: `python -m experiments.gradient_clinic --help`."""

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from experiments.gradient_clinic.patients import PATIENTS, apply, fit, trust
from jaxml import bench, monitor, reports


@dataclasses.dataclass(frozen=True)
class Config:
    """Sick configurations, what is found, what is changed, and whether it helped."""

    patients: tuple[str, ...] = ()
    """Which; none named are all."""
    seeds: tuple[int, ...] = (0,)
    """Each is treated so often."""
    rounds: int = 3
    """Treatments at most."""
    run_dir: Path | None = None
    """Directory for rows; None for runs/gradient_clinic/<time>."""
    json: Path | None = None
    """Where to write the rows besides."""


def treat(name: str, seed: int, rounds: int) -> dict[str, Any]:
    """Trains a patient, and treats it until nothing is found, or nothing more is known to change.

    A treatment is judged by its outcome: one that did harm is undone, and ends the visit.
    """
    recipe = PATIENTS[name]
    fitted, first = fit(recipe, seed)
    found, last, findings = fitted.findings, first, fitted.findings
    tried: list[monitor.Remedy] = []
    told: list[dict[str, Any]] = []
    while findings and len(tried) < rounds:
        remedy = monitor.remedy(findings, tried=tried)
        told.append({"found": str(findings[0]), "changed": remedy.changes()})
        changed = apply(remedy, recipe)
        if remedy.data == "check_labels":
            changed = trust(recipe, seed)
        if changed == recipe:
            break
        tried.append(remedy)
        fitted, outcome = fit(changed, seed)
        told[-1] |= {"saved": outcome, "undone": outcome < last}
        if outcome < last:
            break
        recipe, last, findings = changed, outcome, fitted.findings
    return {
        "patient": name,
        "seed": seed,
        "symptoms": [finding.symptom for finding in found],
        "treatments": told,
        "left": [finding.symptom for finding in findings],
        "before": first,
        "after": last,
        # Who saves most of it needs no help.
        "sick": first < 0.75,
        # At least a third of what was still lost.
        "helped": 1 - last < 2 / 3 * (1 - max(first, 0.0)),
    }


def main(arguments: Sequence[str]) -> int:
    config = tyro.cli(Config, args=arguments, prog="python -m experiments.gradient_clinic")
    unknown = [name for name in config.patients if name not in PATIENTS]
    if unknown:
        known = ", ".join(PATIENTS)
        print(f"error: unknown patient {unknown[0]!r}: choose among {known}", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", category=monitor.FindingsWarning)
    place = reports.environment()
    run_dir = reports.rundir.create("gradient_clinic", config, path=config.run_dir)
    rows: list[dict[str, Any]] = []
    for name in config.patients or tuple(PATIENTS):
        for seed in config.seeds:
            row = treat(name, seed, config.rounds)
            rows.append({**row, "environment": place})
            print(f"{name}, seed {seed}: {row['before']:.2f} → {row['after']:.2f}", flush=True)
            for visit in row["treatments"]:
                undone = ", undone" if visit.get("undone") else ""
                print(f"    {visit['found']}\n    changed: {visit['changed']}{undone}", flush=True)
            bench.write_rows(run_dir / "treatments.json", rows)
    if config.json is not None:
        bench.write_rows(config.json, rows)
    sick = [row for row in rows if row["sick"]]
    helped = sum(row["helped"] for row in sick)
    reports.rundir.record(run_dir, summary={"sick": len(sick), "helped": helped})
    reports.table(
        f"{helped} of {len(sick)} sick ones helped; {len(rows) - len(sick)} were not sick",
        ["patient", "seed", "saved before", "after", "found first", "left"],
        [
            [
                row["patient"],
                row["seed"],
                row["before"],
                row["after"],
                row["symptoms"][0] if row["symptoms"] else "nothing",
                ", ".join(row["left"]) or None,
            ]
            for row in rows
        ],
    )
    print(f"run directory: {run_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
