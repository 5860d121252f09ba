"""Lists runs, prints their findings, and compares their losses.

    python -m jaxml.train                                a table of all runs in runs/
    python -m jaxml.train runs/digits                    a table of the runs in one directory
    python -m jaxml.train RUN RUN … --plot compare.png   their losses in one picture
    python -m jaxml.train RUN --findings                 what went wrong, why, and what to change

A RUN is the directory of a run, or one with runs below it. The exit code is 0, or 2 if there is no run, or
none with a loss to draw.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxml import monitor, reports
from jaxml.reports import rundir

COLUMNS = ("run", "started", "status", "steps", "last loss", "best validation", "first finding")
_MOST_NAMED = 4  # If runs differ in more settings than this, labels do not name them.


def find(paths: Sequence[str]) -> list[rundir.Run]:
    """Returns the runs in some directories and below, each once."""
    runs: dict[Path, rundir.Run] = {}
    for path in paths:
        found = {run.path: run for run in rundir.find(path)}
        if not found:
            raise reports.RunDirectoryError(f"{path}: no run in it")
        runs = found | runs
    return list(runs.values())


def row(run: rundir.Run) -> list[Any]:
    """Returns the cells of a run in the order of `COLUMNS`; None for what is unknown."""
    best = None
    if np.isfinite(run.validations).any():
        at = int(np.argmin(np.where(np.isfinite(run.validations), run.validations, np.inf)))
        best = f"{run.validations[at]:.4g} at step {run.validation_steps[at]:,}"
    first = None if run.findings is None else "none"
    if run.findings:
        first = f"{run.findings[0]['symptom'].replace('_', ' ')}, step {run.findings[0]['step']:,}"
    return [
        _relative(run.path),
        f"{run.started:%Y-%m-%d %H:%M}",
        run.status,
        run.num_steps,
        run.losses[-1] if run.losses.size else None,
        best,
        first,
    ]


def labels(runs: Sequence[rundir.Run]) -> list[str]:
    """Returns a label for each run: its name, and up to four settings in which the runs differ."""
    shared = os.path.commonpath([run.path.parent for run in runs]) if len(runs) > 1 else Path.cwd()
    names = [os.path.relpath(run.path, shared) for run in runs]
    settings = [_flat(run.config) for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each if key != "run_dir")
    differing = [key for key in keys if len({_text(each.get(key)) for each in settings}) > 1]
    if not 1 <= len(differing) <= _MOST_NAMED:
        return names
    return [
        f"{name}: " + ", ".join(f"{key} {_text(each.get(key))}" for key in differing)
        for name, each in zip(names, settings, strict=True)
    ]


def plot(runs: Sequence[rundir.Run], path: str) -> list[rundir.Run]:
    """Draws the losses into a PNG; returns the runs that it left out because no loss is finite."""
    drawn = [run for run in runs if np.isfinite([*run.losses, *run.validations]).any()]
    if not drawn:
        raise ValueError("none of the runs has a finite loss to draw")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"--plot must be in an existing directory, got {path}")
    reports.plots.loss_curves(
        {
            label: (run.steps, run.losses, run.validation_steps, run.validations)
            for label, run in zip(labels(drawn), drawn, strict=True)
        },
        title=f"{len(drawn)} run{'s' * (len(drawn) > 1)}",
        path=path,
    )
    return [run for run in runs if run not in drawn]


def findings(run: rundir.Run) -> str:
    """Returns the findings of a run, a line each, and the first changes to make."""
    found = [monitor.Finding(**fields) for fields in run.findings or ()]
    nothing = " nothing was looked for" if run.findings is None else " no findings"
    lines = [f"{_relative(run.path)} ({run.status}):{nothing if not found else ''}"]
    lines += [f"  {finding}" for finding in found]
    if found and found[0].symptom in monitor.SYMPTOMS:  # Another version may have other symptoms.
        changes = monitor.remedy(found).changes()
        if changes:
            named = ", ".join(f"{name} {_text(value)}" for name, value in changes.items())
            lines.append(f"  change first: {named}")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 24 else f"{text[:23]}…"


def _relative(path: Path) -> str:
    """The path from the working directory if it is below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxml.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", default=["runs"], metavar="RUN",
                        help="directory of a run, or of runs; by default runs/")  # fmt: skip
    parser.add_argument("--plot", metavar="PNG", help="draw the losses of the runs")
    parser.add_argument("--findings", action="store_true", help="print the findings of the runs")
    options = parser.parse_args(arguments)
    try:
        runs = find(options.runs)
        if options.plot is not None:
            for run in plot(runs, options.plot):
                print(f"left out, no finite loss: {_relative(run.path)}", file=sys.stderr)
            print(f"picture: {options.plot}")
        if options.findings:
            print("\n".join(map(findings, runs)), flush=True)
        elif options.plot is None:
            title = f"{len(runs):,} run{'s' * (len(runs) > 1)}"
            reports.table(title, COLUMNS, [*map(row, runs)])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for run in runs:
        for problem in run.problems:
            print(f"damaged: {_relative(run.path)}: {problem}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
