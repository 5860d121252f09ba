"""What a measurement needs beside its figures: where it was taken, and a file that others can read."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Where this runs: device, processor count and versions.

    Returns:
        A JSON object with `device` (JAX's name of the first device), `cores` (usable ones), `python` and
        the versions of jax, jaxlib, flax, optax and numpy. Initialises JAX's backend.

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
        "device": jax.devices()[0].device_kind,
        "cores": cores,
        "python": platform.python_version(),
        **versions,
    }


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
