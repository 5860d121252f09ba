"""The record of a run: one JSON object a line, which can be read during the run and after a crash."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxml.files import replacing
from jaxml.reports.writer import numbers, step_number

NOT_FINITE = {"NaN", "Infinity", "-Infinity"}


class JsonlWriter:
    """Appends lines such as `{"step": 120, "loss": 3.25}` to a file.

    Each line is written at once: a killed process loses at most the one it was writing. NaN and infinities,
    for which JSON has no number, are the strings "NaN", "Infinity" and "-Infinity".

    Args:
        path: the file; created if missing, appended to otherwise. A last line that was cut off is dropped.
        resume_from_step: the step of the checkpoint that a run continues from. Lines of later steps,
            which the run will write again, are dropped first.

    Raises:
        ValueError: if the file holds anything but such lines; it is not touched then.
        OSError: if it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "metrics.jsonl")
    ...     writer = JsonlWriter(path)
    ...     writer.scalars(1, {"loss": math.inf})
    ...     writer.close()
    ...     print(path.read_text(), end="")
    {"step": 1, "loss": "Infinity"}
    """

    def __init__(self, path: str | os.PathLike, *, resume_from_step: int | None = None):
        path = Path(path)
        last = None if resume_from_step is None else step_number(resume_from_step)
        if path.exists():
            content = path.read_bytes()
            kept = b"".join(
                line + b"\n"
                for line, record in _lines(path, content)
                if last is None or record["step"] <= last
            )
            if kept != content:
                with replacing(path) as temporary:
                    temporary.write_bytes(kept)
        # Line buffering: a record is in the file when `scalars` returns.
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line. Raises ValueError if a value is no real scalar, or the writer is closed."""
        self._file.write(line(step, values))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def line(step: int, values: Mapping[str, Any]) -> str:
    """Returns the line of a step, with its end."""
    if "step" in values:
        raise ValueError("values must not be named 'step', which is a field of its own")
    record: dict[str, Any] = {"step": step_number(step)}
    record |= {name: encode(value) for name, value in numbers(values).items()}
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: str | os.PathLike) -> list[dict[str, int | float]]:
    """Returns the records of a file in their order; "step" is an integer, NaN and infinities are floats.

    A last line that was cut off is ignored.

    Raises:
        ValueError: if a line is no such record; names file and line.
        OSError: if the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "metrics.jsonl")
    ...     _ = path.write_text('{"step": 1, "loss": "NaN"}\\n{"step": 2, "lo')
    ...     read(path)
    [{'step': 1, 'loss': nan}]
    """
    path = Path(path)
    return [record for _, record in _lines(path, path.read_bytes())]


def encode(value: int | float) -> int | float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decode(value: Any) -> int | float:
    if isinstance(value, str) and value in NOT_FINITE:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return value


def _lines(path: Path, content: bytes) -> list[tuple[bytes, dict[str, int | float]]]:
    """Every whole line, as it stands and as a record."""
    *whole, _cut_off = content.split(b"\n")
    lines = []
    for number, text in enumerate(whole, start=1):
        try:
            record = {name: _decode(value) for name, value in json.loads(text).items()}
            step = record.get("step")
            if not isinstance(step, int) or not 0 <= step < 2**63:
                raise ValueError('no integer "step"')
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path}, line {number} is no record of a run: {error}") from error
        lines.append((text, record))
    return lines
