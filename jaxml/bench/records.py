"""What a measurement needs beside its figures: where it was taken, and a file that others can read."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Where this runs: device, processor count, versions and commit.

    Returns:
        A JSON object with `device` (JAX's name of the default device), `cores` (usable ones), `python`,
        the versions of jax, jaxlib, flax, optax and numpy, and `commit`, that of the checkout this file
        lies in, with "+" behind it if tracked files differ; None where there is none. Initialises JAX's
        backend.

    Example:
        >>> environment()["python"].count(".")
        2
    """
    import jax  # Only here: the process that drives the workers needs no device.

    versions = {
        name: importlib.metadata.version(name)
        for name in ("jax", "jaxlib", "flax", "optax", "numpy")
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": next(iter(jax.numpy.zeros(()).devices())).device_kind,
        "cores": cores,
        "python": platform.python_version(),
        **versions,
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of the checkout that this file lies in, see `environment`."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "-s", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_rows(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a list of JSON objects, one a line, at once: no reader meets half a file.

    Args:
        path: the file to appear; its directory is made.
        rows: JSON objects.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if a row holds what is no JSON, NaN included.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_rows(f"{folder}/rows.json", [{"median_ms": 3.1}])
        ...     Path(folder, "rows.json").read_text()
        '[\\n{"median_ms": 3.1}\\n]\\n'
    """
    path = Path(path)
    text = "[\n" + ",\n".join(json.dumps(dict(row), allow_nan=False) for row in rows) + "\n]\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)
