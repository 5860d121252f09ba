"""Runs that go on where they were killed: when to save, what to keep, and what to take up again.

A directory holds the checkpoints of `jaxml.train.checkpoint` and beside them, in pieces that are written
once and never again, what the steps reported:

    .lock                                  held by the process that writes here
    step_000001200/                        the newest checkpoints, and the best
    reports/000000000-000001200.npz        what steps 0 to 1,199 reported, with a CRC-32

A checkpoint counts only if the reports of all its steps are there. A run that is killed between two saves
takes up the last one and does the steps since again: the same code on the same batches with the same keys,
so its parameters and its whole history are what they would have been, bit for bit.
"""

import contextlib
import fcntl
import io
import json
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.train import checkpoint
from jaxml.train.checkpoint import CheckpointError
from jaxml.types import PyTree

__all__ = ["Checkpoints"]

_REPORTS = re.compile(r"(\d{9})-(\d{9})\.npz")


class Checkpoints:
    """Saves a training as it goes on, in a directory that is this process's alone.

    The state is copied to host memory when a save is due; a thread writes it while training goes on. A save
    that is due while the one before is still being written waits for it. What goes wrong on the way is
    raised at the next save, or when the block ends.

    Args:
        directory: made if missing.
        every: steps between two saves.
        keep: how many of the newest checkpoints to keep, at least 1. Two survive the loss of the newest.
        keep_best: keep the one of the lowest validation loss besides.
        identity: a JSON object that says what is trained on what (configuration, data); a directory of
            another identity is refused instead of continued.

    Raises:
        ValueError: if an argument is out of range.
        CheckpointError: on entering, if another process writes to the directory, it is of another
            identity, or it cannot be written.

    Example:
        >>> import tempfile
        >>> state = {"w": jnp.zeros(2), "step": jnp.int32(0)}
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with Checkpoints(directory, every=10) as kept:
        ...         kept.resume(state, {"loss": jnp.zeros(1)}) is None
        ...         kept.save(10, {"w": jnp.ones(2), "step": jnp.int32(10)}, {"loss": np.ones(10, "f")})
        ...     with Checkpoints(directory, every=10) as kept:
        ...         taken_up, reports = kept.resume(state, {"loss": jnp.zeros(1)})
        True
        >>> taken_up["w"].tolist(), len(reports), reports[0]["loss"].shape
        ([1.0, 1.0], 1, (10,))
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        every: int = 1000,
        keep: int = 2,
        keep_best: bool = False,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in (("every", every), ("keep", keep)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.directory = Path(os.path.abspath(directory))
        self._every, self._keep, self._keep_best = every, keep, keep_best
        self._identity = json.loads(json.dumps(dict(identity or {})))
        self._lock: int | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._parts: dict[str, _Part] = {}

    def __enter__(self) -> "Checkpoints":
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.directory)
        except OSError as error:
            raise CheckpointError(
                f"{self.directory}: cannot be written: {error.strerror or error}"
            ) from error
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self.wait()
            elif self._pending is not None:
                # What ended the run is what is to be read, not what followed from it.
                self._pending.exception()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
            if self._lock is not None:
                os.close(self._lock)
            self._writer = self._lock = None

    def resume(
        self, like: PyTree, report: PyTree, part: str = ""
    ) -> tuple[PyTree, list[Any]] | None:
        """Where to go on: the newest state that is whole, and what all steps before it reported.

        What is damaged is passed over with a warning that says what and why; the checkpoint before it is
        taken. What lies beyond the one that is taken is removed when the next is saved.

        Args:
            like: a state of the same structure, shapes and dtypes; its values are not read.
            report: likewise what steps report, arrays or shapes `[steps, …]` for any number of steps.
            part: of a training that is saved in several parts (a sweep's chunks) the name of this one.

        Returns:
            The state and the reports, one for each save; None if there is no checkpoint.

        Raises:
            CheckpointError: if checkpoints are there and none can be used, or they are another training's.
        """
        return self._part(part).resume(like, report)

    def save(self, step: int, state: PyTree, reports: PyTree, part: str = "") -> None:
        """To be called after each call of a program; saves where `every` steps have gone by.

        Args:
            step: steps taken.
            state: all that it takes to go on. It is copied before this returns.
            reports: of the steps since the last call, NumPy arrays `[steps, …]`; a validation loss is
                looked for under `metrics["validation"]`.
            part: as in `resume`.
        """
        held = self._part(part)
        held.reports.append(jax.tree.map(np.asarray, reports))
        if step - held.saved >= self._every:
            self._save(held, step, state)

    def finish(self, step: int, state: PyTree, part: str = "") -> None:
        """Saves the end of a training, if it has not been saved."""
        held = self._part(part)
        if step > held.saved:
            self._save(held, step, state)

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _part(self, name: str) -> "_Part":
        if self._lock is None or self._writer is None:
            raise ValueError("checkpoints must be entered: `with Checkpoints(...) as kept`")
        if name not in self._parts:
            self._parts[name] = _Part(
                self.directory / name, self._keep, self._keep_best, self._identity
            )
        return self._parts[name]

    def _save(self, part: "_Part", step: int, state: PyTree) -> None:
        self.wait()
        copied = jax.tree.map(_copy, state)
        reports, part.reports = part.reports, []
        first, part.saved = part.saved, step
        assert self._writer is not None
        self._pending = self._writer.submit(part.write, first, step, copied, reports)


class _Part:
    """The files of one training."""

    def __init__(self, home: Path, keep: int, keep_best: bool, identity: dict[str, Any]) -> None:
        self._home, self._keep, self._keep_best = home, keep, keep_best
        self._identity = identity
        self.reports: list[Any] = []
        self.saved = 0
        self._best: tuple[float, int] | None = None

    def resume(self, like: PyTree, report: PyTree) -> tuple[PyTree, list[Any]] | None:
        steps = checkpoint.steps(self._home)
        for step in reversed(steps):
            try:
                metadata = checkpoint.metadata(self._home, step)
                self._check_identity(metadata.get("identity", {}))
                reports = self._read_reports(step, report)
                state = checkpoint.restore(self._home, like, step=step)
            except _AnotherTraining:
                raise
            except CheckpointError as error:
                reason = str(error).split(" (step ")[0]
                warnings.warn(f"{reason}: the checkpoint before it is tried", stacklevel=4)
                continue
            self.saved = step
            best = metadata.get("best")
            self._best = None if best is None else (float(best[0]), int(best[1]))
            return state, reports
        if steps:
            raise CheckpointError(f"{self._home}: none of {len(steps)} checkpoints can be used")
        return None

    def _check_identity(self, found: dict[str, Any]) -> None:
        for name in sorted(found.keys() | self._identity.keys()):
            if found.get(name) != self._identity.get(name):
                raise _AnotherTraining(
                    f"{self._home}: holds another training: its {name} is {found.get(name)!r}, "
                    f"this one's {self._identity.get(name)!r}"
                )

    def write(self, first: int, step: int, state: PyTree, reports: list[Any]) -> None:
        """Reports, then the checkpoint: one that is there has its reports."""
        joined = jax.tree.map(lambda *each: np.concatenate(each), *reports)
        losses = (getattr(joined, "metrics", None) or {}).get("validation")
        if losses is not None and np.isfinite(losses[-1:]).all() and losses[-1:].ndim == 1:
            if self._best is None or losses[-1] < self._best[0]:
                self._best = (float(losses[-1]), step)
        try:
            self._write_reports(first, step, joined)
        except OSError as error:
            raise CheckpointError(
                f"{self._home}: cannot be written: {error.strerror or error}; the last checkpoint "
                f"is that of step {first}"
            ) from error
        metadata: dict[str, Any] = {"identity": self._identity}
        if self._best is not None:
            metadata["best"] = list(self._best)
        protected = {self._best[1]} if self._best is not None and self._keep_best else set()
        checkpoint.save(
            self._home, step, state, keep=self._keep, metadata=metadata, protect=protected
        )

    def _write_reports(self, first: int, step: int, reports: PyTree) -> None:
        folder = self._home / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        for begun, ended, path in _pieces(folder):
            # Of a run that went back.
            if ended > first or begun >= step:
                path.unlink()
        path = folder / f"{first:09d}-{step:09d}.npz"
        temporary = folder / f".tmp-{path.name}-{os.getpid()}"
        try:
            with temporary.open("wb") as file:
                np.savez(file, **dict(_named(reports)))
            checksum = zlib.crc32(temporary.read_bytes())
            with temporary.open("ab") as file:
                # A zip archive is found from its end, and may be followed by a comment's worth of bytes.
                file.write(_MARK + checksum.to_bytes(4, "big"))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _read_reports(self, step: int, report: PyTree) -> list[Any]:
        found, at = [], 0
        folder = self._home / "reports"
        for begun, ended, path in _pieces(folder):
            if ended > step:
                break
            if begun != at:
                break
            found.append(_read(path, ended - begun, report))
            at = ended
        if at != step:
            raise CheckpointError(
                f"{folder}: the reports of steps {at} to {step} are missing, which step {step} needs"
            )
        return found


_MARK = b"crc32"


class _AnotherTraining(CheckpointError):
    """Nothing is damaged: it is not ours."""


def _named(reports: PyTree) -> Iterator[tuple[str, Any]]:
    """Leaves by the place they have in their tree."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(reports):
        yield "report" + jax.tree_util.keystr(path), leaf


def _pieces(folder: Path) -> list[tuple[int, int, Path]]:
    """First step, last step and path of each file of reports, in their order."""
    if not folder.is_dir():
        return []
    matches = [(_REPORTS.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    return [(int(match[1]), int(match[2]), path) for match, path in matches if match]


def _read(path: Path, steps: int, report: PyTree) -> PyTree:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    archive, end = content[: -len(_MARK) - 4], content[-len(_MARK) - 4 :]
    if end != _MARK + zlib.crc32(archive).to_bytes(4, "big"):
        raise CheckpointError(f"{path}: damaged: has changed since it was written, or was cut off")
    with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
        leaves = []
        for name, wanted in _named(report):
            if name not in arrays:
                raise _AnotherTraining(f"{path}: has no {name}: of another training")
            leaf = arrays[name]
            if leaf.dtype != wanted.dtype or leaf.shape != (steps, *wanted.shape[1:]):
                raise _AnotherTraining(
                    f"{path}: {name} is {leaf.dtype}{list(leaf.shape)}, wanted "
                    f"{wanted.dtype}{[steps, *wanted.shape[1:]]}: of another training"
                )
            leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(report), leaves)


def _copy(leaf: Any) -> Any:
    """In host memory, where the next call of a program does not reach."""
    if isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.array(leaf)
    return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf


def _locked(directory: Path) -> int:
    """A lock on the directory, which ends with the process however that ends."""
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise CheckpointError(
            f"{directory}: another process ({holder}) writes here; one at a time can"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor
