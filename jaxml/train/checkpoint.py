"""Checkpoints: a whole training state on disk, committed at once, verified when it is read.

A directory holds one folder a step:

    step_000001200/
        manifest.json    names, shapes and dtypes of the leaves, size and CRC-32 of every file,
                         the caller's metadata
        arrays/          the leaves, written by Orbax: one dictionary from name to array

Orbax writes and reads arrays, sharded ones included. What it leaves to others is done here:

- *Atomic.* A folder is written under a temporary name and renamed when it is complete. A process
  killed at any moment leaves the earlier checkpoints and at most a temporary folder, which is never
  read and which the next save removes.
- *Verified.* TensorStore checks its indices but not the array data: a flipped bit there is read as
  another number. Every file is therefore checked against the manifest before Orbax sees it.
- *Typed.* Leaves are stored by name and put back into the target's structure, so that dataclasses,
  NamedTuples, empty containers and typed PRNG keys come back as what they were.

One process writes to a directory at a time.
"""

import contextlib
import json
import logging
import math
import operator
import os
import re
import shutil
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxml.types import PyTree

__all__ = ["CheckpointError", "latest", "metadata", "restore", "save", "steps"]

_FORMAT = "jaxml.checkpoint"
_VERSION = 1
_MANIFEST = "manifest.json"
_ARRAYS = "arrays"
_TEMPORARY = ".tmp-"
_NO_NUMBERS = ("O", "S", "U", "M", "m")  # NumPy's kinds: objects, text, times


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, found, read or fitted to a target, and why, in one line."""


def save(
    directory: str | os.PathLike,
    step: int,
    state: PyTree,
    *,
    keep: int = 2,
    metadata: Mapping[str, Any] | None = None,
    protect: Collection[int] = (),
) -> Path:
    """Writes a state as the newest checkpoint of a directory, and removes old ones.

    The checkpoint is complete and on disk when this returns; no thread is left behind. Arrays in
    host memory are written from where they lie, without a copy.

    A save makes history: checkpoints of the same or of later steps, which a run that went back
    has left behind, are removed just before the new one appears.

    Args:
        directory: made if missing; relative paths start at the working directory.
        step: the step's number, at least 0.
        state: any pytree of JAX arrays, typed PRNG keys, NumPy arrays and Python numbers. Arrays
            without elements are kept too.
        keep: how many checkpoints to leave, this one included; at least 1.
        metadata: a JSON object to store beside the arrays, such as the run's configuration.
        protect: steps whose checkpoints stay, however old: the best one, say.

    Returns:
        The checkpoint's folder, an absolute path.

    Raises:
        ValueError: if `step`, `keep` or `metadata` is not as above, or if a leaf is no array or
            was donated.
        CheckpointError: if the directory cannot be written, or a dtype cannot be stored. Earlier
            checkpoints are then intact.

    >>> import tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> save(directory.name, 7, {"w": np.arange(3)}, metadata={"decay": 0.1}).name
    'step_000000007'
    >>> restore(directory.name, {"w": np.zeros(3, int)})
    {'w': array([0, 1, 2])}
    >>> directory.cleanup()
    """
    step = _natural("step", step, 0)
    keep = _natural("keep", keep, 1)
    described = _json_object("metadata", metadata or {})
    leaves = _named_leaves("state", state)
    for name, leaf in leaves.items():
        if isinstance(leaf, jax.Array) and leaf.is_deleted():
            raise ValueError(f"state must hold live arrays; {name} was donated or deleted")
    home = _absolute(directory)
    if jax.process_count() > 1:
        raise CheckpointError(f"{home}: checkpoints are written by one process, not by several")
    path = home / _folder(step)
    try:
        home.mkdir(parents=True, exist_ok=True)
        for leftover in home.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        work = home / f"{_TEMPORARY}{path.name}-{os.getpid()}"
        work.mkdir()
        try:
            try:
                _write_arrays(work / _ARRAYS, leaves)
            except Exception as error:
                raise CheckpointError(f"{path}: cannot be written: {_one_line(error)}") from error
            _write_manifest(work, step, leaves, described)
            for stale in _steps(home):
                if stale >= step:
                    _remove(home, stale)
            work.rename(path)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        _sync(home)
        for old in _steps(home)[:-keep]:
            if old not in protect:
                _remove(home, old)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def latest(directory: str | os.PathLike) -> int | None:
    """The newest step of which a directory holds a checkpoint; None if there is none.

    A damaged checkpoint counts: it is for `restore` to refuse it, not to be skipped in silence.

    Args:
        directory: where `save` has written; it need not exist.

    Raises:
        CheckpointError: if the directory cannot be listed.

    >>> latest("no/such/directory") is None
    True
    """
    steps = _steps(_absolute(directory))
    return steps[-1] if steps else None


def steps(directory: str | os.PathLike) -> list[int]:
    """The steps of which a directory holds a checkpoint, ascending, damaged ones included.

    Args:
        directory: where `save` has written; it need not exist.

    Raises:
        CheckpointError: if the directory cannot be listed.

    >>> steps("no/such/directory")
    []
    """
    return _steps(_absolute(directory))


def metadata(directory: str | os.PathLike, step: int | None = None) -> dict[str, Any]:
    """The metadata saved with a checkpoint, read without its arrays.

    Args:
        directory: where `save` has written.
        step: which checkpoint; None for the newest.

    Returns:
        The JSON object given to `save`; `{}` if there was none.

    Raises:
        CheckpointError: if there is no such checkpoint or its manifest is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     _ = save(directory, 0, {"w": np.zeros(2)}, metadata={"dim": 64})
    ...     metadata(directory)
    {'dim': 64}
    """
    return _read_manifest(_find(directory, step))["metadata"]


def restore(directory: str | os.PathLike, target: PyTree, *, step: int | None = None) -> PyTree:
    """Reads a state back, bit for bit.

    Args:
        directory: where `save` has written.
        target: the state wanted, concrete or abstract (`jax.eval_shape`): it gives structure,
            shapes, dtypes and, where its leaves have one, shardings. Its values are not read.
        step: which checkpoint; None for the newest.

    Returns:
        A tree of the target's types. Leaves are JAX arrays, on the target's sharding or on the
        default device, and NumPy arrays where the target has NumPy arrays. Python numbers come
        back as JAX arrays, weakly typed arrays as strongly typed ones. Memory peaks at twice the
        state's size while the files are read.

    Raises:
        CheckpointError: if there is no such checkpoint, if it was written by something else, if a
            file is missing, cut or changed, or if names, shapes or dtypes are not the target's.

    >>> import tempfile
    >>> state = {"w": jnp.float32([0.0, -0.0]), "key": jax.random.key(3)}
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     _ = save(directory, 5, state)
    ...     restored = restore(directory, jax.eval_shape(lambda: state))
    >>> print(restored["w"], restored["key"] == state["key"])
    [ 0. -0.] True
    """
    path = _find(directory, step)
    manifest = _read_manifest(path)
    leaves = _named_leaves("target", target)
    _check_fit(path, manifest["leaves"], leaves)
    _verify(path, manifest["files"])
    try:
        arrays = _read_arrays(path / _ARRAYS, leaves)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read: {_one_line(error)}") from error
    restored = [
        _rebuild(leaf, arrays[name] if _stored_size(leaf) else None, manifest["leaves"][name])
        for name, leaf in leaves.items()
    ]
    for (name, wanted), leaf in zip(leaves.items(), restored, strict=True):
        # Orbax reads in threads of its own, where `with jax.enable_x64()` does not reach.
        if leaf.dtype != wanted.dtype:
            raise CheckpointError(
                f"{path}: {name} is {wanted.dtype} and came back as {leaf.dtype}: "
                "set jax_enable_x64 for the whole process"
            )
    return jax.tree.unflatten(jax.tree.structure(target), restored)


# Leaves


def _named_leaves(argument: str, tree: PyTree) -> dict[str, Any]:
    """Leaves by their path, as in `state.params['w']`, in the tree's order; each with a dtype."""
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        # The same word for `state` and `target`: the names are compared.
        name = "state" + jax.tree_util.keystr(path)
        if isinstance(leaf, bool | int | float | complex):
            leaf = jnp.asarray(leaf)
        if isinstance(leaf, np.generic):
            leaf = np.asarray(leaf)
        is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        if not is_array or getattr(leaf.dtype, "kind", "key") in _NO_NUMBERS:
            raise ValueError(
                f"{argument} must hold arrays and numbers; {name} is {type(leaf).__name__}"
            )
        if name in named:
            raise ValueError(f"{argument} must name its leaves apart; two are called {name}")
        named[name] = leaf
    return named


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored_size(leaf: Any) -> int:
    """Number of elements; Orbax refuses arrays of none, which the manifest describes in full."""
    return math.prod(leaf.shape)


def _describe(leaf: Any) -> dict[str, Any]:
    """What the manifest says of a leaf; of a typed key also what makes its words a key again."""
    described = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if _is_key(leaf) and isinstance(leaf, jax.Array):
        described["key_impl"] = str(jax.random.key_impl(leaf))
    return described


def _check_fit(path: Path, stored: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    for name in target:
        if name not in stored:
            raise CheckpointError(f"{path}: has no {name}, which the target wants")
    for name in stored:
        if name not in target:
            raise CheckpointError(f"{path}: holds {name}, which the target lacks")
    for name, leaf in target.items():
        there, wanted = stored[name], _describe(leaf)
        if (there["shape"], there["dtype"]) != (wanted["shape"], wanted["dtype"]):
            raise CheckpointError(
                f"{path}: {name} is {there['dtype']}{there['shape']}, "
                f"the target wants {wanted['dtype']}{wanted['shape']}"
            )


def _rebuild(target: Any, stored: Any, described: Mapping[str, Any]) -> Any:
    """A leaf like the target's from what was stored: an array, a key's words, or nothing at all."""
    sharding = getattr(target, "sharding", None)
    if stored is None:
        shape, dtype = target.shape, target.dtype
        if isinstance(target, np.ndarray):
            return np.zeros(shape, dtype)
        if not _is_key(target):
            return jax.device_put(jnp.zeros(shape, dtype), sharding)
        words = jax.eval_shape(jax.random.key_data, target)
        stored = jnp.zeros(words.shape, words.dtype)
    if _is_key(target):
        key = jax.random.wrap_key_data(stored, impl=described["key_impl"])
        return jax.device_put(key, sharding)
    return stored


# Arrays: all that touches Orbax


@contextlib.contextmanager
def _orbax() -> Iterator[None]:
    """Orbax as it is used here: no compression, no copy, no log, no thread that stays."""
    context = ocp.Context()
    # Trained weights do not compress: zstd made a save four times slower to gain a tenth.
    context.array.saving.use_compression = False
    # `restore` says where arrays go; the devices they came from need not exist any more.
    context.array.saving.enable_write_sharding_file = False
    # The copy protects arrays that change during an asynchronous save; these are waited for.
    context.memory.deepcopy_host_arrays = False
    # What Orbax logs on the way to an error, pages of it, is in the error.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    threads = set(threading.enumerate())
    try:
        with context:
            yield
    finally:
        # After an error Orbax leaves threads at work in a folder that is about to be removed. The
        # limit is for a thread that someone else happens to have started meanwhile.
        for thread in set(threading.enumerate()) - threads:
            thread.join(timeout=10)
        logger.setLevel(level)


def _write_arrays(path: Path, leaves: Mapping[str, Any]) -> None:
    arrays = {
        name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for name, leaf in leaves.items()
        if _stored_size(leaf)
    }
    if arrays:
        with _orbax():
            ocp.save(path, arrays)


def _read_arrays(path: Path, leaves: Mapping[str, Any]) -> dict[str, Any]:
    # Without a sharding Orbax would look for the devices the arrays were saved from.
    default = jnp.zeros(()).sharding

    def abstract(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            # Orbax knows by an array's type what to return; this one takes no memory.
            return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
        if _is_key(leaf):
            words = jax.eval_shape(jax.random.key_data, leaf)
            return jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=default)
        sharding = getattr(leaf, "sharding", None) or default
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    wanted = {name: abstract(leaf) for name, leaf in leaves.items() if _stored_size(leaf)}
    if not wanted:
        return {}
    with _orbax():
        return ocp.load(path, wanted)


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


# The manifest


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _content_crc32(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _write_manifest(
    path: Path, step: int, leaves: Mapping[str, Any], described: Mapping[str, Any]
) -> None:
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "step": step,
        "metadata": described,
        "leaves": {name: _describe(leaf) for name, leaf in leaves.items()},
        "files": {
            file.relative_to(path).as_posix(): {
                "bytes": file.stat().st_size,
                "crc32": _crc32(file),
            }
            for file in sorted(path.rglob("*"))
            if file.is_file()
        },
    }
    content["crc32"] = _content_crc32(content)
    with (path / _MANIFEST).open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(path)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / _MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: has no {_MANIFEST}: damaged, or not written by jaxml"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise _damaged(path, f"{_MANIFEST} is no JSON") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not written by jaxml")
    if content.get("version") != _VERSION:
        raise CheckpointError(
            f"{path}: of format version {content.get('version')}, this reads {_VERSION}"
        )
    checksum = content.pop("crc32", None)
    if checksum != _content_crc32(content):
        raise _damaged(path, f"{_MANIFEST} has changed since it was written")
    return content


def _verify(path: Path, files: Mapping[str, Any]) -> None:
    for name, wanted in files.items():
        file = path / name
        try:
            size = file.stat().st_size
            if size != wanted["bytes"]:
                raise _damaged(path, f"{name} has {size} bytes, {wanted['bytes']} were written")
            if _crc32(file) != wanted["crc32"]:
                raise _damaged(path, f"{name} has changed since it was written")
        except FileNotFoundError as error:
            raise _damaged(path, f"{name} is missing") from error
        except OSError as error:
            raise _damaged(path, f"{name} cannot be read: {error.strerror or error}") from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    others = [step for step in _steps(path.parent) if _folder(step) != path.name]
    hint = f" (step {others[-1]} is there too)" if others else ""
    return CheckpointError(f"{path}: damaged: {reason}{hint}")


# Folders


def _natural(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}")
    return number


def _json_object(name: str, value: Any) -> dict[str, Any]:
    """The value as JSON gives it back, so that what is saved is what is read."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping; got {type(value).__name__}")
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a JSON object: {error}") from error


def _absolute(directory: str | os.PathLike) -> Path:
    return Path(os.path.abspath(directory))


def _folder(step: int) -> str:
    return f"step_{step:09d}"


def _steps(home: Path) -> list[int]:
    """Steps of the committed checkpoints, ascending."""
    try:
        names = [entry.name for entry in os.scandir(home) if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{home}: cannot be listed: {error.strerror or error}") from error
    matches = [re.fullmatch(r"step_(\d+)", name) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    return sorted(step for step in numbers if _folder(step) in names)


def _find(directory: str | os.PathLike, step: int | None) -> Path:
    home = _absolute(directory)
    steps = _steps(home)
    if not steps:
        raise CheckpointError(f"{home}: no checkpoint here")
    step = steps[-1] if step is None else _natural("step", step, 0)
    if step not in steps:
        raise CheckpointError(f"{home}: no checkpoint of step {step}; there are {steps}")
    return home / _folder(step)


def _remove(home: Path, step: int) -> None:
    # Renamed first: a removal that is cut short leaves no half checkpoint under a valid name.
    discarded = home / f"{_TEMPORARY}removed-{_folder(step)}-{os.getpid()}"
    (home / _folder(step)).rename(discarded)
    shutil.rmtree(discarded, ignore_errors=True)


def _sync(directory: Path) -> None:
    """Has a directory's entries written to disk: a rename survives a power cut only then."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
