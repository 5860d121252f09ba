"""The command line: `python -m experiments.gradient_clinic --help`."""

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments import command
from experiments.gradient_clinic.cases import CASES, apply_remedy, fit, trust
from jaxml import bench, monitor, reports

# Share of a constant answer's loss that a run saves which needs no help, and the share of what is lost that
# a remedy must regain.
_WELL, _REGAINED = 0.75, 1 / 3

if TYPE_CHECKING:
    CaseName = str
else:
    CaseName = Literal[tuple(CASES)]


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains failing configurations, applies the remedies of their findings, and trains again."""

    cases: tuple[CaseName, ...] = ()
    """Names of cases; none for all."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each case."""
    rounds: int = 3
    """Largest number of remedies for a case."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def evaluate(name: str, seed: int, rounds: int) -> dict[str, Any]:
    """Trains a case, applies remedies until nothing is found, and keeps the best outcome."""
    recipe = CASES[name]
    fitted, first = fit(recipe, seed)
    best, left, findings = first, fitted.findings, fitted.findings
    tried: list[monitor.Remedy] = []
    remedies: list[dict[str, Any]] = []
    while findings and len(tried) < rounds:
        remedy = monitor.remedy(findings, tried=tried)
        remedies.append({"found": str(findings[0]), "changes": remedy.changes()})
        labels = remedy.data == "check_labels"
        changed = trust(recipe, seed) if labels else apply_remedy(remedy, recipe)
        if changed == recipe:
            break
        tried.append(remedy)
        again, score = fit(changed, seed)
        remedies[-1] |= {"score": score, "kept": score >= best}
        # A remedy that reveals another fault may lower the score before the next one raises it.
        recipe, findings = changed, again.findings
        if score >= best:
            best, left = score, findings
    return {
        "case": name,
        "seed": seed,
        "symptoms": [finding.symptom for finding in fitted.findings],
        "remedies": remedies,
        "left": [finding.symptom for finding in left],
        "before": first,
        "after": best,
        "failing": first < _WELL,
        "helped": 1 - best < (1 - _REGAINED) * (1 - max(first, 0.0)),
    }


def experiment(config: Config, run_dir: Path) -> Any:
    """Measures, prints and draws; returns the record."""
    warnings.filterwarnings("ignore", category=monitor.FindingsWarning)
    bench.compilation_cache()
    rows = []
    for name in config.cases or tuple(CASES):
        for seed in config.seeds:
            row = evaluate(name, seed, config.rounds)
            rows.append(row)
            print(f"{name}, seed {seed}: {row['before']:.2f} → {row['after']:.2f}", flush=True)
            for remedy in row["remedies"]:
                worse = "" if remedy.get("kept", True) else ", no improvement"
                print(f"    {remedy['found']}\n    changed: {remedy['changes']}{worse}", flush=True)
    failing = [row for row in rows if row["failing"]]
    summary = {
        "cases": len(rows), "failing": len(failing), "helped": sum(row["helped"] for row in failing)
    }  # fmt: skip
    reports.table(
        f"{summary['helped']} of {len(failing)} failing cases helped",
        ["case", "seed", "score before", "after", "found first", "left"],
        [
            [row["case"], row["seed"], row["before"], row["after"],
             next(iter(row["symptoms"]), "nothing"), ", ".join(row["left"]) or None]
            for row in rows
        ],
    )  # fmt: skip
    return {**summary, "rows": rows}


def main(arguments: Sequence[str]) -> int:
    return command.run("gradient_clinic", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
