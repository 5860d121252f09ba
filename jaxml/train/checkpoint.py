"""Checkpoints: a training's state on disk, written in the background by Orbax, verified when it is read.

    1200/                              a checkpoint of step 1,200, written by Orbax
    1200/manifest.json                 ours, written last: without it a checkpoint is not complete
    reports/000000000-000001200.npz    the reports of steps 0 to 1,199, written once

Orbax writes, commits by a rename, prunes and restores. This module adds:

- *A manifest of checksums.* Orbax loads a flipped bit of an array as another number. The manifest holds the
  CRC-32 of every file, reports included; all are checked before Orbax reads the first.
- *The identity of a training*, so that another training is refused instead of continued.
- *The reports* of all steps before, so that a resumed run ends with its whole history.
- *Types.* Leaves are stored by name and put into the target's structure: dataclasses, NamedTuples, typed
  PRNG keys and arrays without elements come back as they were.

A run that was killed continues from its last checkpoint with the same program, batches and keys: parameters
and history get the same bits. One process writes to a directory at a time.
"""

import contextlib
import json
import logging
import os
import reprlib
import shutil
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks, text
from jaxml.files import replacing, write_json
from jaxml.types import PyTree

__all__ = ["CheckpointError", "Checkpoints", "load", "save", "steps"]

_MANIFEST = "manifest.json"
_FORMAT = "jaxml checkpoint 4"
_LOCK = threading.Lock()
# Orbax refuses a state without arrays, and arrays without elements.
_NO_ARRAYS = {"(none)": np.zeros(1)}


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, found or read, or is another training's. The message is one line."""


class _AnotherTraining(CheckpointError):
    """The checkpoint is sound and belongs to another training."""


class Checkpoints:
    """Saves a training while it runs, and restores it.

    Args:
        directory: created by the first save.
        every: the number of steps between two saves.
        keep: how many of the newest checkpoints to keep. Two survive the loss of one.
        keep_best: also save and keep the checkpoint of the lowest metric.

    Raises:
        ValueError: if `every` or `keep` is less than 1.
        CheckpointError: when a save fails, at the next call or at the end of the block.

    Example:
        >>> import tempfile
        >>> state = {"w": jnp.zeros(2), "step": jnp.int32(0)}
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with Checkpoints(directory, every=10) as kept:
        ...         kept.restore({"seed": 0}, state, {"loss": jnp.zeros(1)}) is None
        ...         kept.save(10, {"w": jnp.ones(2), "step": jnp.int32(10)}, {"loss": np.ones(10, "f")})
        ...     with Checkpoints(directory, every=10) as kept:
        ...         restored, reports = kept.restore({"seed": 0}, state, {"loss": jnp.zeros(1)})
        True
        >>> restored["w"].tolist(), reports["loss"].shape
        ([1.0, 1.0], (10,))
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        every: int = 1000,
        keep: int = 2,
        keep_best: bool = False,
    ) -> None:
        self.directory = Path(os.path.abspath(directory))
        self.every = checks.integer("every", every, at_least=1)
        self.keep = checks.integer("keep", keep, at_least=1)
        self.keep_best = keep_best
        # What the manifest of the next checkpoint holds besides its leaves and files.
        self._manifest: dict[str, Any] = {"identity": {}, "best": None, "reports": {}, "report": {}}
        self._begun: int | None = None  # the step that was restored, 0 if there was none
        self._saved = 0
        self._reports: list[PyTree] = []
        self._checkpointer: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._parts: dict[str, Checkpoints] = {}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            for part in self._parts.values():
                part.__exit__(kind)
            self._wait()
        except CheckpointError:
            if kind is None:  # Otherwise the error that ended the block is the one to show.
                raise
        finally:
            self._thread.shutdown()
            if self._checkpointer is not None:
                with contextlib.suppress(Exception):  # It raises again what a save has raised.
                    self._checkpointer.close()

    def part(self, name: str) -> "Checkpoints":
        """Returns the checkpoints of one part of a training, in a directory below, closed with these."""
        if name not in self._parts:
            self._parts[name] = Checkpoints(
                self.directory / name, every=self.every, keep=self.keep, keep_best=self.keep_best
            )
        return self._parts[name]

    def restore(
        self, identity: Mapping[str, Any], target: PyTree, reports: PyTree = ()
    ) -> tuple[PyTree, PyTree] | None:
        """Returns the newest sound state and the reports of all steps before it; None if there is none.

        A damaged checkpoint is passed over with a warning. The next save removes it.

        Args:
            identity: a JSON object; a checkpoint of another identity is refused.
            target: a state of the wanted structure, shapes and dtypes, concrete or abstract. Leaves are
                placed on its shardings, or on the default device; NumPy arrays stay NumPy arrays.
            reports: a tree like those given to `save`, with leaves `[steps, …]` of any number of steps.

        Raises:
            CheckpointError: if the checkpoints are another training's, or none of them is sound.
        """
        # In the form in which it is compared; NumPy's numbers are numbers.
        ours = json.loads(json.dumps(dict(identity), default=lambda value: value.item()))
        self._manifest["identity"] = ours
        self._begun = 0
        damaged: list[str] = []
        for step in reversed(steps(self.directory)):
            path = self.directory / str(step)
            try:
                manifest = _read_manifest(path)
                _compare(path, manifest["identity"], ours)
                restored = _read_state(path, manifest, target)
                wanted = _described(dict(_named("report", reports)), 1)
                if manifest["reports"]:
                    _compare(path, {name: manifest["report"].get(name) for name in wanted}, wanted)
                joined = self._read_reports(manifest["reports"], reports)
            except _AnotherTraining as error:
                if manifest["jax"] == jax.__version__:
                    raise
                versions = f"written by jax {manifest['jax']}, and this is {jax.__version__}"
                raise CheckpointError(f"{error} ({versions})") from None
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            for message in damaged:
                warnings.warn(f"{message}; the checkpoint before it is restored", stacklevel=2)
            self._saved = self._begun = step
            self._manifest = {name: manifest[name] for name in self._manifest}
            return restored, joined
        if damaged:
            raise CheckpointError(f"none of {len(damaged)} checkpoints is sound; {damaged[0]}")
        return None

    def save(
        self, step: int, state: PyTree, reports: PyTree = (), *, metric: float | None = None
    ) -> None:
        """Takes what the steps since the last call reported, and writes a checkpoint if one is due.

        One is due when `every` steps have passed since the last, or with `keep_best` when the metric is the
        lowest so far. The state is copied before this returns; a thread writes it.

        Args:
            step: the number of steps taken, at least 1.
            state: a pytree of arrays, typed PRNG keys and Python numbers: all that it takes to go on.
            reports: leaves `[steps, …]`, of the steps since the last call.
            metric: of exactly this state, such as its validation loss; lower is better.
        """
        self._reports.append(jax.tree.map(np.asarray, reports))
        due = step - self._saved >= self.every
        if self.keep_best and metric is not None and np.isfinite(metric):
            best = self._manifest["best"]
            if best is None or metric < best[0]:
                self._manifest["best"] = [float(metric), step]
                due = True
        if due:
            self._write(step, state)

    def finish(self, step: int, state: PyTree) -> None:
        """Writes the end of a training, unless it is written."""
        if step > self._saved:
            self._write(step, state)

    def _write(self, step: int, state: PyTree) -> None:
        leaves = _leaves(state)
        # Copies, which the next step does not overwrite.
        arrays = {
            name: np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
            for name, leaf in leaves.items()
        }
        self._wait()
        manifest = self._manifest | {
            "jax": jax.__version__,
            "leaves": _described(leaves),
            "keys": {
                name: str(jax.random.key_impl(leaf))
                for name, leaf in leaves.items()
                if _is_key(leaf)
            },
        }
        reports, self._reports = self._reports, []
        name = f"reports/{self._saved:09d}-{step:09d}.npz"
        self._pending = self._thread.submit(self._commit, step, arrays, name, reports, manifest)
        self._saved = step

    def _commit(
        self,
        step: int,
        arrays: dict[str, np.ndarray],
        name: str,
        reports: list[PyTree],
        manifest: dict[str, Any],
    ) -> None:
        """Writes the reports, then the arrays, then the manifest, in the thread."""
        path = self.directory / str(step)
        try:
            if jax.tree.leaves(reports):
                joined = jax.tree.map(lambda *each: np.concatenate(each), *reports)
                file = self.directory / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with replacing(file) as temporary, temporary.open("wb") as content:
                    np.savez(content, **dict(_named("report", joined)))
                manifest["reports"][name] = _crc32(file)
                manifest["report"] |= _described(dict(_named("report", joined)), 1)
            stored = {name: array for name, array in arrays.items() if array.size} or _NO_ARRAYS
            with _orbax() as ocp:
                if self._checkpointer is None:
                    self._checkpointer = self._open(ocp)
                self._checkpointer.save(step, stored, force=True)
                _write_manifest(path, manifest)
                # Only now: until it has its manifest, the one before it is the newest.
                best = manifest["best"] and manifest["best"][1]
                for old in self._checkpointer.checkpoints[: -self.keep]:
                    if old.step != best:
                        self._checkpointer.delete(old.step)
        except Exception as error:
            raise CheckpointError(f"{path}: cannot be written: {text.one_line(error)}") from error

    def _wait(self) -> None:
        """Returns when all that was saved is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _open(self, ocp: Any) -> Any:
        """Returns Orbax's checkpointer, after removing later and damaged checkpoints, on which it fails."""
        for step in _numbered(self.directory):
            if self._begun is None:
                raise ValueError(f"it holds step {step}; restore before the first save")
            path = self.directory / str(step)
            try:
                sound = step <= self._begun and _read_manifest(path)
            except CheckpointError:
                sound = False
            if not sound:
                shutil.rmtree(path)
        context = ocp.Context()
        # Trained weights do not compress: zstd made a save four times slower to gain a tenth.
        context.array.saving.use_compression = False
        # The arrays are copies already.
        context.memory.deepcopy_host_arrays = False
        return ocp.training.Checkpointer(
            self.directory, context=context, cleanup_tmp_directories=True
        )

    def _read_reports(self, names: Mapping[str, int], target: PyTree) -> PyTree:
        read = []
        for name in names:
            with np.load(self.directory / name, allow_pickle=False) as arrays:
                read.append(dict(arrays))
        leaves = [
            np.concatenate([np.zeros((0, *leaf.shape[1:]), leaf.dtype), *(a[name] for a in read)])
            for name, leaf in _named("report", target)
        ]
        return jax.tree.unflatten(jax.tree.structure(target), leaves)


def save(directory: str | os.PathLike, state: PyTree) -> None:
    """Writes one checkpoint into a directory that has none, and returns when it is on disk.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save(directory, {"w": np.arange(3)})
    ...     load(directory, {"w": np.zeros(3, int)})
    {'w': array([0, 1, 2])}
    """
    with Checkpoints(directory) as kept:
        kept.finish(1, state)


def load(directory: str | os.PathLike, target: PyTree) -> PyTree:
    """Returns the newest state in a directory, bit for bit as it was saved.

    Args:
        directory: a directory of checkpoints.
        target: as in `Checkpoints.restore`.

    Raises:
        CheckpointError: if there is no checkpoint, it is damaged, or it does not fit the target.
    """
    there = steps(directory)
    if not there:
        raise CheckpointError(f"{directory}: no checkpoint")
    path = Path(os.path.abspath(directory), str(there[-1]))
    return _read_state(path, _read_manifest(path), target)


def steps(directory: str | os.PathLike) -> list[int]:
    """Returns the steps of which a directory holds a complete checkpoint, ascending; one may be damaged.

    >>> steps("no/such/directory")
    []
    """
    home = Path(os.path.abspath(directory))
    return [step for step in _numbered(home) if (home / str(step) / _MANIFEST).exists()]


def _numbered(directory: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(directory) if name.isdecimal())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be listed: {error.strerror}") from error


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax for one thread at a time, without its log: its errors are ours to report."""
    from orbax.checkpoint import v1 as ocp  # Slow to import.

    logger = logging.getLogger("absl")
    with _LOCK:  # Two threads that save at once deadlock, even in different directories.
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield ocp
        finally:
            logger.setLevel(level)


# The manifest


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    manifest["files"] = {file.relative_to(path.parent).as_posix(): _crc32(file) for file in files}
    content = json.dumps(manifest, allow_nan=False).encode()
    write_json(path / _MANIFEST, {"format": _FORMAT, "crc32": zlib.crc32(content)} | manifest)


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest, after a check of every file of it."""
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        if manifest.pop("format", None) != _FORMAT:
            raise CheckpointError(f"{path}: {_MANIFEST} is damaged, or of another version")
        checksum = manifest.pop("crc32", None)
        if zlib.crc32(json.dumps(manifest, allow_nan=False).encode()) != checksum:
            raise CheckpointError(f"{path}: damaged: {_MANIFEST} has changed since it was written")
        for name, written in (manifest["files"] | manifest["reports"]).items():
            if _crc32(path.parent / name) != written:
                raise CheckpointError(f"{path}: damaged: {name} has changed since it was written")
    except OSError as error:
        raise CheckpointError(
            f"{path}: damaged: {error.filename} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: {_MANIFEST} is no JSON object") from error
    return manifest


def _crc32(file: Path) -> int:
    checksum = 0
    with file.open("rb", buffering=0) as content:
        while chunk := content.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


# Leaves


def _named(name: str, tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves with their paths, as in `state.params['w']`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(name + jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves by name; each has a shape and a dtype."""
    leaves = {}
    for name, leaf in _named("state", tree):
        if isinstance(leaf, bool | int | float | complex):
            leaf = jnp.asarray(leaf)
        leaf = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
        if not hasattr(leaf, "shape") or getattr(leaf.dtype, "kind", "") in tuple("OSUMm"):
            kind = type(leaf).__name__
            raise ValueError(f"state must hold arrays and numbers, got {kind} as {name}")
        leaves[name] = leaf
    return leaves


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _described(leaves: Mapping[str, Any], skip: int = 0) -> dict[str, str]:
    """Returns dtypes and shapes, these without so many leading axes."""
    return {name: f"{leaf.dtype}{list(leaf.shape[skip:])}" for name, leaf in leaves.items()}


def _compare(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raises an error that names the first entry in which a checkpoint and a training differ."""
    for name in here | there:
        theirs, ours = (reprlib.repr(each.get(name, "missing")) for each in (there, here))
        if there.get(name) != here.get(name):
            raise _AnotherTraining(
                f"{path}: holds another training: its {name} is {theirs}, this one's is {ours}"
            )


def _read_state(path: Path, manifest: Mapping[str, Any], target: PyTree) -> PyTree:
    wanted = _leaves(target)
    _compare(path, manifest["leaves"], _described(wanted))
    arrays = {}
    for name, leaf in wanted.items():
        shape = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
        arrays[name] = np.broadcast_to(np.zeros((), shape.dtype), shape.shape)  # Takes no memory.
    try:
        with _orbax() as ocp:
            arrays |= ocp.load(path, {n: a for n, a in arrays.items() if a.size} or _NO_ARRAYS)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read: {text.one_line(error)}") from error
    leaves = []
    for name, leaf in wanted.items():
        array = arrays[name]
        if not isinstance(leaf, np.ndarray):
            sharding = getattr(leaf, "sharding", None)
            found = jax.device_put(array, None if _is_key(leaf) else sharding, may_alias=False)
            if found.dtype != array.dtype:
                raise CheckpointError(
                    f"{path}: {name} is {array.dtype} and would become {found.dtype}: "
                    "set jax_enable_x64"
                )
            if _is_key(leaf):
                key = jax.random.wrap_key_data(found, impl=manifest["keys"][name])
                found = jax.device_put(key, sharding)
            array = found
        leaves.append(array)
    return jax.tree.unflatten(jax.tree.structure(target), leaves)
