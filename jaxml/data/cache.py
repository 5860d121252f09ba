"""A cache in the user's directory, for data that are slow to make and quick to read."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from jaxml import files

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


def cache_directory(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Returns `cache_dir`, or by default `$XDG_CACHE_HOME/jaxml`, or else `~/.cache/jaxml`.

    The directory need not exist. For a user without a home it is a place where nothing can be written.
    """
    if cache_dir is not None:
        return Path(cache_dir)
    home = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(home):  # The XDG specification has relative paths ignored.
        return Path(home) / "jaxml"
    try:
        return Path.home() / ".cache" / "jaxml"
    except RuntimeError:
        return Path(os.devnull) / "jaxml"


def cached(
    name: str,
    make: Callable[[], T],
    load: Callable[[Path], T],
    save: Callable[[BinaryIO, T], None],
    cache_dir: str | os.PathLike[str] | None = None,
) -> T:
    """Returns a value from the cache, or makes and keeps it.

    A file that cannot be read is made again. Where none can be written, one warning is logged and the
    value is made again next time.

    Args:
        name: name of the file; it must change whenever `make` would.
        make: makes the value.
        load: reads the value from a path.
        save: writes the value to a binary file.
        cache_dir: as in `cache_directory`.
    """
    path = cache_directory(cache_dir) / name
    try:
        return load(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:  # Whatever is wrong with it, it can be made again.
        _LOG.warning("%s cannot be read and is made again: %s", path, error)
    value = make()
    try:
        with files.replacing(path) as temporary, open(temporary, "wb") as file:
            save(file, value)
    except OSError as error:
        _LOG.warning("no cache is kept, the next start will be as slow: %s", error)
    return value


def cached_array(
    name: str,
    make: Callable[[], NDArray[Any]],
    cache_dir: str | os.PathLike[str] | None = None,
) -> NDArray[Any]:
    """Returns an array from the cache, mapped into memory and read-only, or makes and keeps it.

    The arguments are those of `cached`; the name gets the suffix `.npy`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = cached_array("squares", lambda: np.arange(4) ** 2, folder)
    ...     again = cached_array("squares", lambda: np.zeros(0), folder).tolist()
    >>> again
    [0, 1, 4, 9]
    """

    def load(path: Path) -> NDArray[Any]:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    return cached(f"{name}.npy", make, load, np.save, cache_dir)
