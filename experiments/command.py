"""What the command of every experiment does alike: options, a run directory, the record, errors."""

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from jaxml import files, reports
from jaxml.data import packages

RESULTS = "results.json"


class Failed(Exception):
    """Ends an experiment whose record is written and says that something failed."""


def run(
    name: str, kind: type, experiment: Callable[[Any, Path], Any], arguments: Sequence[str]
) -> int:
    """Runs an experiment in a run directory of its own, and returns the exit code.

    The directory holds `run.json` (options, environment, status) and the record, `results.json`.

    Args:
        name: the experiment's module, as in `python -m experiments.name`.
        kind: the dataclass of its options, one of which is `run_dir`; `resume`, if there is one, is a run
            directory to go on with.
        experiment: `experiment(options, run_dir)`, which returns the record, as `write` takes it.
        arguments: of the command line.

    Returns:
        0; 1 if the experiment raises `Failed`; 2 for bad input; 130 if it is interrupted.
    """
    try:
        options: Any = tyro.cli(kind, args=arguments, prog=f"python -m experiments.{name}")
        _check(options)
        resume = getattr(options, "resume", None)
        with reports.rundir.running(
            name, options, path=resume or options.run_dir, resume=resume is not None
        ) as run_dir:
            record = experiment(options, run_dir)
            if isinstance(record, Mapping):
                line = f"python -m experiments.{name} {' '.join(arguments)} "
                line = re.sub(r"--run[-_]dir[ =]\S+ ", "", line).rstrip()
                record = {"command": line, **record}
            write(run_dir, record)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    except (packages.DataMissing, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"run directory: {run_dir}")
    return 0


def _check(options: Any) -> None:
    """Raises ValueError if a number is below 1; a seed, and one that is 0 by default, may be 0."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        least = 0 if field.name.startswith("seed") or field.default == 0 else 1
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, int) and not isinstance(each, bool) and each < least:
                raise ValueError(f"{field.name} must be at least {least}, got {each}")


def write(run_dir: Path, record: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Writes `results.json`: a record of values by name, or of rows; each has the environment."""
    place = {"environment": reports.environment()}
    whole = (
        {**place, **record} if isinstance(record, Mapping) else [{**row, **place} for row in record]
    )
    files.write_record(run_dir / RESULTS, whole)
