"""The device, the versions and the commit that a figure was obtained with."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Returns the environment of this process as a JSON object; initialises JAX's backend.

    Its names are `device` (JAX's default), `cores` (usable), `python`, the versions of jax, jaxlib, flax,
    optax and numpy, and `commit`.

    >>> environment()["python"].count(".")
    2
    """
    import jax  # A process that only reads runs needs no device.

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
    """Returns the commit of this file's checkout, with "+" if tracked files differ; None without one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "-s", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
