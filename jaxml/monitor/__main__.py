"""Reads loss curves from a file: `python -m jaxml.monitor losses.csv`.

The file has a heading, or not, and columns separated by commas or tabs. The training loss is the column
called loss, train_loss or training_loss, or else the last one of numbers; the validation loss the one
called val_loss, validation_loss, test_loss or eval_loss, where there is one. The exit code is 0 where
nothing is found, 1 where something is, 2 where the file cannot be read.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor import curves

_TRAINING = ("loss", "train_loss", "training_loss", "train loss", "training loss")
_VALIDATION = ("val_loss", "validation_loss", "test_loss", "eval_loss", "val loss")


def read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """The curves of a file.

    Args:
        path: a file of comma- or tab-separated values.

    Returns:
        Training losses, and validation losses or None. An empty validation field is a step without one.

    Raises:
        ValueError: if there is no column of numbers.
        OSError: if the file cannot be read.
    """
    text = path.read_text()
    separator = "\t" if "\t" in text.split("\n", 1)[0] else ","
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if row]
    if not rows:
        raise ValueError(f"{path} is empty")
    names: list[str] = []
    if not any(_is_number(field) for field in rows[0]):
        names = [field.strip().lower() for field in rows[0]]
        rows = rows[1:]
    width = max((len(row) for row in rows), default=0)
    columns = [[row[i] if i < len(row) else "" for row in rows] for i in range(width)]
    numbers = [i for i, column in enumerate(columns) if any(map(_is_number, column))]
    named = {name: i for i, name in enumerate(names) if i in numbers}
    validation = next((named[name] for name in _VALIDATION if name in named), None)
    training = next((named[name] for name in _TRAINING if name in named), None)
    if training is None:
        training = next((i for i in reversed(numbers) if i != validation), None)
    if training is None:
        raise ValueError(f"{path} has no column of numbers")
    held_out = None
    if validation is not None:
        held_out = np.array([float(f) for f in columns[validation] if _is_number(f)])
    return np.array([float(f) for f in columns[training] if _is_number(f)]), held_out


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    """Prints what is found, a line each."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = curves.diagnose_loss_curve(*read(Path(arguments[0])))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, found)) or "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
