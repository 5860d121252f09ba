"""What is slow to make once and quick to read again: arrays kept in the user's cache directory."""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)


def cache_directory(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where jaxml keeps what it can make again.

    Args:
        cache_dir: taken as it is; None is `$XDG_CACHE_HOME/jaxml`, or else `~/.cache/jaxml`.

    Returns:
        The directory, which need not exist. For a user without a home, a place where nothing can be
        written.
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


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Writes beside `path` and renames, so that no reader meets half a file.

    Args:
        path: the file to appear; its directory is made.
        write: writes the content to the binary file it is given.

    Raises:
        OSError: if the directory or the file cannot be written; nothing is then left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def cached_array(
    name: str,
    make: Callable[[], NDArray[Any]],
    cache_dir: str | os.PathLike[str] | None = None,
) -> NDArray[Any]:
    """An array from the cache, mapped into memory; made and kept if it is not there.

    A file that cannot be read is made anew; where none can be written, one warning is logged and the
    array is made again next time.

    Args:
        name: of the file, without suffix; it must change whenever `make` would.
        make: makes the array.
        cache_dir: as in `cache_directory`.

    Returns:
        The array, read-only if it came from the cache.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = cached_array("squares", lambda: np.arange(4) ** 2, folder)
        ...     again = cached_array("squares", lambda: np.zeros(0), folder).tolist()
        >>> again
        [0, 1, 4, 9]
    """
    path = cache_directory(cache_dir) / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:  # Whatever is wrong with it, it can be made anew.
        _LOG.warning("%s cannot be read and is made anew: %s", path, error)
    array = make()
    try:
        write_atomically(path, lambda file: np.save(file, array))
    except OSError as error:
        _LOG.warning("no cache is kept, the next start will be as slow: %s", error)
    return array
