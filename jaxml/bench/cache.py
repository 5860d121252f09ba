"""JAX's cache of compiled programs on disk."""

import os
from pathlib import Path

import jax


def compilation_cache(directory: str | os.PathLike | None = None) -> Path:
    """Switches on JAX's cache of compiled programs; returns its directory.

    Another process that compiles the same program takes it from there. Entry points and notebooks call it;
    the library does not.

    Args:
        directory: created if missing; None for `$JAX_COMPILATION_CACHE_DIR`, or else `~/.cache/jaxml`.
    """
    chosen = directory or os.environ.get("JAX_COMPILATION_CACHE_DIR") or "~/.cache/jaxml"
    path = Path(chosen).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    # By default programs that took less than a second are not kept: a `fit` has dozens of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path
