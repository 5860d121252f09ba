"""Lists runs, compares their curves and tells what was found: `python -m jaxml.train runs`.

    python -m jaxml.train                                   a table of all runs below runs/
    python -m jaxml.train runs/digits                       of those in one directory
    python -m jaxml.train RUN RUN … --plot compare.png      their curves in one picture
    python -m jaxml.train RUN --findings                    what went wrong, why, and what to change

A RUN is a run's directory, or one that has runs below it. A damaged run is listed as such, with the reason.
The exit code is 0, or 2 where there is no run, or nothing to draw.
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

COLUMNS = ("run", "started", "status", "steps", "last loss", "best validation", "first finding",
           "commit", "device")  # fmt: skip
_MOST_NAMED = (
    4  # settings that a label names; runs that differ in more are told apart by their names
)


def find(paths: Sequence[str]) -> list[rundir.Run]:
    """The runs in and below some directories, each once, the newest last in each.

    Args:
        paths: directories.

    Raises:
        reports.RunDirectoryError: if one is missing or has no run in it.
    """
    runs: dict[Path, rundir.Run] = {}
    for path in paths:
        found = rundir.find(path)
        if not found:
            raise reports.RunDirectoryError(f"{path}: no run in it")
        for run in found:
            runs.setdefault(run.path, run)
    return list(runs.values())


def row(run: rundir.Run) -> list[Any]:
    """The cells of a run, one for each of `COLUMNS`; None where nothing is known."""
    best = None
    if np.isfinite(run.validations).any():
        at = int(np.nanargmin(np.where(np.isfinite(run.validations), run.validations, np.nan)))
        best = f"{run.validations[at]:.4g} at step {run.validation_steps[at]:,}"
    first = run.findings[0] if run.findings else None
    commit = run.environment.get("commit")
    return [
        _short_path(run.path),
        f"{run.started:%Y-%m-%d %H:%M}",
        run.status,
        run.num_steps,
        f"{run.losses[-1]:.4g}" if run.losses.size else None,
        best,
        f"{first['symptom'].replace('_', ' ')}, step {first['step']:,}" if first else None,
        # A "+" behind it says that files differ from the commit.
        f"{commit[:8]}{'+' if commit.endswith('+') else ''}" if isinstance(commit, str) else None,
        run.environment.get("device"),
    ]


def labels(runs: Sequence[rundir.Run]) -> list[str]:
    """A label for each run: its name, and what it does not share with all the others.

    Named are the settings that differ between the configurations; where none does, what differs between
    the environments, such as the commit. Of runs that differ in more than four the names must do.

    Args:
        runs: at least one; of different directories.

    Returns:
        Labels, no two the same.
    """
    paths = [_short_path(run.path) for run in runs]
    # Runs of one experiment need not say its name.
    shared = os.path.commonpath([os.path.dirname(path) for path in paths]) if len(runs) > 1 else ""
    names = [os.path.relpath(path, shared) if shared else path for path in paths]
    if len(set(names)) < len(names):
        names = paths
    settings = [
        {
            name: value
            for name, value in _flat(run.config).items()
            # Where a run was to be written is no setting: it differs always.
            if not (isinstance(value, str) and os.path.abspath(value) == str(run.path))
        }
        for run in runs
    ]
    differing = _differing(settings)
    if not differing:
        settings = [_flat(run.environment) for run in runs]
        differing = _differing(settings)
    if not differing or len(differing) > _MOST_NAMED:
        return names
    return [
        f"{name}: " + ", ".join(f"{key} {_told(each.get(key))}" for key in differing)
        for name, each in zip(names, settings, strict=True)
    ]


def plot(runs: Sequence[rundir.Run], path: str) -> list[rundir.Run]:
    """Draws the curves of some runs into one picture.

    Args:
        runs: those that have no finite loss are left out.
        path: the PNG to write.

    Returns:
        The runs that were left out.

    Raises:
        ValueError: if none or too many are left.
        OSError: if the picture cannot be written.
    """
    drawn = [run for run in runs if np.isfinite([*run.losses, *run.validations]).any()]
    if not drawn:
        raise ValueError("none of these runs has written a finite loss: there is nothing to draw")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"--plot must lie in a directory that exists, got {path}")
    curves = {
        label: (run.steps, run.losses, run.validation_steps, run.validations)
        for label, run in zip(labels(drawn), drawn, strict=True)
    }
    title = f"{len(drawn)} runs" if len(drawn) > 1 else "One run"
    reports.plots.compared_curves(
        curves,
        title=title,
        path=path,
    )
    return [run for run in runs if run not in drawn]


def told(run: rundir.Run) -> str:
    """What was found in a run, in sentences, and what to change first."""
    if not run.findings:
        return f"{_short_path(run.path)} ({run.status}): nothing found"
    findings = [monitor.Finding(**fields) for fields in run.findings]
    lines = [f"{_short_path(run.path)} ({run.status}):", *(f"  {finding}" for finding in findings)]
    # One that another version has found may have no name here.
    if findings[0].symptom in monitor.SYMPTOMS:
        changes = monitor.remedy(findings).changes()
        if changes:
            named = ", ".join(f"{name} {_told(value)}" for name, value in changes.items())
            lines.append(f"  to change first: {named}")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({_told(each.get(name)) for each in settings}) > 1]


def _told(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 24 else f"{text[:23]}…"


def _short_path(path: Path) -> str:
    """As it would be typed: from the working directory if it is below it."""
    below = os.path.relpath(path)
    return str(path) if below.startswith(os.pardir) else below


def main(arguments: Sequence[str]) -> int:
    """Prints a table of runs, or findings, or draws a picture; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxml.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", default=["runs"], metavar="RUN",
                        help="a directory of a run, or of runs; runs/ if none is named")  # fmt: skip
    parser.add_argument("--plot", metavar="PNG", help="compare the curves of the runs in a picture")
    parser.add_argument("--findings", action="store_true", help="tell what was found in the runs")
    options = parser.parse_args(arguments)
    try:
        runs = find(options.runs)
        if options.plot is not None:
            for run in plot(runs, options.plot):
                print(
                    f"left out, as it has no finite loss: {_short_path(run.path)}", file=sys.stderr
                )
            print(f"picture: {options.plot}")
        if options.findings:
            print("\n".join(map(told, runs)), flush=True)
        elif options.plot is None:
            reports.table(
                f"{len(runs):,} {'run' if len(runs) == 1 else 'runs'}", COLUMNS, [*map(row, runs)]
            )
    except BrokenPipeError:
        # Piped into `head`, which has seen enough; Python would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for run in runs:
        for problem in run.problems:
            print(f"damaged: {_short_path(run.path)}: {problem}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
