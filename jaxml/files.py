"""Atomic file writes."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there replaces `path` when the block ends.

    Readers see the old file or the new one, never a part. If the block raises, the old file stays.

    Args:
        path: the file to create or replace; its directory is made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with replacing(Path(directory, "a.txt")) as temporary:
    ...         _ = temporary.write_text("whole")
    ...     [(file.name, file.read_text()) for file in Path(directory).iterdir()]
    [('a.txt', 'whole')]
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty directory beside `path`, which becomes `path` when the block ends.

    Nobody sees a part of it. If the block raises, nothing is left.

    Raises:
        ValueError: if there is something at `path`, other than an empty directory.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"path must be a new directory, got {os.fspath(path)!r} that exists")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replaces a file by a text, as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Replaces a file by a value as indented JSON, as a whole. NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_record(path: str | os.PathLike, record: Any) -> None:
    """Replaces a file by the JSON record of an experiment, as a whole.

    Args:
        path: the file to create or replace.
        record: a list of rows, or values by name; each row of a list is one line. NaN and infinity raise
            ValueError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_record(f"{folder}/rows.json", [{"median_ms": 3.1}])
    ...     Path(folder, "rows.json").read_text()
    '[\\n{"median_ms": 3.1}\\n]\\n'
    """

    def text(value: Any) -> str:
        if isinstance(value, list):
            return "[\n" + ",\n".join(_line(each) for each in value) + "\n]"
        return _line(value, indent=1)

    if isinstance(record, Mapping):
        fields = (f"{json.dumps(name)}: {text(value)}" for name, value in record.items())
        content = "{\n" + ",\n".join(fields) + "\n}\n"
    else:
        content = text(list(record)) + "\n"
    write_text(path, content)


def _line(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
