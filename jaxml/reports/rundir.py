"""The directory of a run, and the configuration it was started with."""

import dataclasses
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxml.reports.atomic import replacing

CONFIG = "config.json"


class RunDirectoryError(OSError):
    """A run directory cannot be made, written or read, and why, in one line."""


def create(
    name: str,
    config: Any,
    *,
    root: str | os.PathLike = "runs",
    path: str | os.PathLike | None = None,
) -> Path:
    """Makes the directory of a new run and writes its `config.json`.

    Args:
        name: the experiment's name, one path component.
        config: a mapping or a dataclass of what JSON can hold; paths are written as text.
        root: where runs are kept: the new one is `root/name/<date>-<time>`, with a number behind
            it if that is taken.
        path: the directory to use instead; it must be empty or missing.

    Returns:
        The directory, an absolute path. If anything fails, none is left behind.

    Raises:
        ValueError: if the configuration is no JSON object or the name no path component.
        RunDirectoryError: if the directory exists with something in it, or cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     run = create("geonames", {"dim": 128}, root=root)
    ...     run.parent.name, read_config(run)
    ('geonames', {'dim': 128})
    """
    text = _to_json(config)
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"name must be one path component; got {name!r}")
    try:
        if path is None:
            run = _new_directory(Path(os.path.abspath(root), name))
        else:
            run = Path(os.path.abspath(path))
            run.mkdir(parents=True, exist_ok=True)
            if any(run.iterdir()):
                raise RunDirectoryError(f"{run}: is not empty: a new run needs a new directory")
        try:
            with replacing(run / CONFIG) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError:
            run.rmdir()
            raise
    except RunDirectoryError:
        raise
    except OSError as error:
        where = error.filename or path or root
        raise RunDirectoryError(f"{where}: cannot be written: {error.strerror}") from error
    return run


def read_config(run: str | os.PathLike) -> dict[str, Any]:
    """The configuration of a run, as JSON gives it: tuples have become lists.

    Args:
        run: a directory made by `create`.

    Raises:
        RunDirectoryError: if there is no such directory or its `config.json` is damaged.

    >>> read_config("no/such/run")
    Traceback (most recent call last):
    jaxml.reports.rundir.RunDirectoryError: no/such/run: is no run: it has no config.json
    """
    try:
        config = json.loads(Path(run, CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunDirectoryError(f"{run}: is no run: it has no {CONFIG}") from error
    except OSError as error:
        raise RunDirectoryError(f"{run}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunDirectoryError(f"{run}: {CONFIG} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise RunDirectoryError(f"{run}: {CONFIG} is damaged: it holds no JSON object")
    return config


def _new_directory(parent: Path) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    parent.mkdir(parents=True, exist_ok=True)
    suffix = 1
    while True:
        run = parent / (stamp if suffix == 1 else f"{stamp}-{suffix}")
        try:
            # Not `exist_ok`: of two runs started in one second each gets its own.
            run.mkdir()
            return run
        except FileExistsError:
            suffix += 1


def _to_json(config: Any) -> str:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    if not isinstance(config, Mapping):
        raise ValueError(f"config must be a mapping or a dataclass; got {type(config).__name__}")

    def text(value: Any) -> str:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise TypeError(f"{value!r} is no JSON")

    try:
        return json.dumps(dict(config), indent=2, allow_nan=False, default=text) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"config must be a JSON object: {error}") from error
