"""Diagnoses the loss curves in a file: `python -m jaxml.monitor losses.csv`.

The file is a table, with or without a header, whose columns are separated by commas, semicolons or tabs, or
lines of JSON objects, such as a run's `metrics.jsonl`. The training loss is the column named loss,
train_loss or training_loss, or else the last column of numbers; the validation loss, if there is one, is
the column named val_loss, validation_loss, test_loss or eval_loss. An empty training loss counts as NaN,
which pandas writes so, unless the row holds a validation loss. The exit code is 0 if nothing is found, 1
if something is, and 2 if the file cannot be read.
"""

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor.diagnosis import diagnose_loss_curve

_TRAINING = ("loss", "train_loss", "training_loss", "train loss", "training loss")
_VALIDATION = ("val_loss", "validation_loss", "test_loss", "eval_loss", "val loss")


def read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Returns the training losses of a file, and its validation losses or None.

    Raises:
        ValueError: if there is no column of numbers.
        OSError: if the file cannot be read.
    """
    text = path.read_text(encoding="utf-8-sig").strip()
    rows = _objects(text) if text.startswith("{") else _table(text)
    names = list(dict.fromkeys(name for row in rows for name in row))
    numeric = [n for n in names if any(math.isfinite(_number(row.get(n, ""))) for row in rows)]
    validation = next((name for name in _VALIDATION if name in numeric), None)
    others = [name for name in numeric if name != validation]
    training = next((name for name in _TRAINING if name in others), None)
    if training is None:
        if not others:
            raise ValueError(f"{path} must have a column of numbers, got {names}")
        training = others[-1]
    held_out = [row.get(validation or "", "") for row in rows]
    losses = [
        _number(row.get(training, ""))
        for row, other in zip(rows, held_out, strict=True)
        if row.get(training) or (training in row and not other)
    ]
    validations = np.array([_number(field) for field in held_out if field])
    return np.array(losses), validations if len(validations) else None


def _objects(text: str) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [{n.lower(): "" if v is None else str(v) for n, v in line.items()} for line in lines]


def _table(text: str) -> list[dict[str, str]]:
    first = text.split("\n", 1)[0]
    separator = max("\t;,", key=first.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if row]
    if separator == ";":
        # Where semicolons separate, a comma is the decimal point.
        rows = [[field.replace(",", ".") for field in row] for row in rows]
    names = [str(i) for i in range(max(map(len, rows), default=0))]
    if rows and all(math.isnan(_number(field)) for field in rows[0]):
        names = [field.strip().lower() for field in rows.pop(0)]
    return [dict(zip(names, (field.strip() for field in row), strict=False)) for row in rows]


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        return math.nan


def main(arguments: Sequence[str]) -> int:
    """Prints each finding on a line."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = diagnose_loss_curve(*read(Path(arguments[0])))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, found)) or "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
