"""Diagnoses the loss curves in a file: `python -m jaxml.monitor losses.csv`.

The file is a table, with or without a header, whose columns are separated by commas, semicolons, tabs or
spaces; or lines of JSON objects, such as a run's `metrics.jsonl`; or a JSON list of objects or object of
lists. The training loss is the column named loss, train_loss, train/loss or Training Loss, or else the last
column of numbers; the validation loss, if there is one, is the column named val_loss, Validation Loss,
test_loss or eval/loss. An empty training loss counts as NaN, which pandas writes so, unless the row holds a
validation loss. The exit code is 0 if nothing is found, 1 if something is, 2 if the file cannot be read.
"""

import csv
import itertools
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor.diagnosis import diagnose_loss_curve

_TRAINING = ("loss", "train loss", "training loss", "loss train", "loss training")
_HELD_OUT = ("val", "valid", "validation", "test", "eval")
_VALIDATION = [*(f"{each} loss" for each in _HELD_OUT), *(f"loss {each}" for each in _HELD_OUT)]


def read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Returns the training losses of a file, and its validation losses or None.

    Raises:
        ValueError: if there is no column of numbers.
        OSError: if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").strip("\r\n")
        rows = _objects(text) if text.lstrip().startswith(("{", "[")) else _table(text)
    except ValueError as error:
        raise ValueError(f"{path} is not a table, nor JSON, in UTF-8: {error}") from error
    names = list(dict.fromkeys(name for row in rows for name in row))
    numeric = [n for n in names if any(math.isfinite(_number(row.get(n, ""))) for row in rows)]
    words = {re.sub(r"[\W_]+", " ", name).strip(): name for name in reversed(names)}
    validation = next((words[n] for n in _VALIDATION if words.get(n) in numeric), None)
    others = [name for name in numeric if name != validation]
    training = next((words[n] for n in _TRAINING if n in words), others[-1] if others else None)
    if training not in others:
        raise ValueError(f"{path} must have a column of numbers, got {names}")
    losses, validations = [], []
    for row in rows:
        own, held_out = row.get(training), row.get(validation) if validation else None
        if own or (own == "" and not held_out):
            losses.append(_number(own))
        if held_out:
            validations.append(_number(held_out))
    return np.array(losses), np.array(validations) if validations else None


def _objects(text: str) -> list[dict[str, str]]:
    """Rows of JSON: an object a line, a list of objects, or an object of lists."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(content, dict) and all(isinstance(each, list) for each in content.values()):
        columns = itertools.zip_longest(*content.values(), fillvalue="")
        content = [dict(zip(content, row, strict=True)) for row in columns]
    rows = content if isinstance(content, list) else [content]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a list must hold objects")
    return [{n.lower(): "" if v is None else str(v) for n, v in row.items()} for row in rows]


def _table(text: str) -> list[dict[str, str]]:
    first = text.split("\n", 1)[0]
    separator = next((each for each in "\t;, " if each in first), ",")
    lines = text.splitlines()
    spaced = [line.split() for line in lines]
    rows = spaced if separator == " " else [*csv.reader(lines, delimiter=separator)]
    rows = [row for row in rows if row]
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
