"""A sampled log of what was served: raw columns, features and outputs of each row, in Parquet files.

| column | holds |
|---|---|
| `request` | id of the request |
| `row` | number of the row in it |
| `time` | UTC |
| `column/NAME` | raw column |
| `feature/NAME` | a column of `dense` or `ids`, by the names of the pipeline |
| `output/NAME` | output; `output/NAME/0`, `output/NAME/1`, … for one of several values a row |

A request is logged with all of its rows or not at all.
"""

import dataclasses
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import checks, hashing
from jaxml.features import FeaturePipeline
from jaxml.serving.program import Features
from jaxml.validation import readers, writers
from jaxml.validation.columns import Table, table_columns

__all__ = ["Log", "Served", "named_features", "named_outputs", "read"]

_ROWS = 4096  # of a file, about
_SECONDS = 5.0  # until rows are in a file
_BUFFERED = 16 * _ROWS  # rows that wait for a slow disk; more are lost
_DISK = 256 << 20  # bytes in a directory
_PARTS = ("column", "feature", "output")


class Log:
    """Writes what was served, in a thread of its own; no fault of the disk reaches the server.

    Files are written as a whole, and the oldest are removed beyond 256 MiB. Rows that cannot be written
    are counted, and the first of them reported by `logging`.

    Args:
        directory: of the files; it is made.
        pipeline: the bundle's, which names the features.
        sample: share of the requests, in [0, 1]. A hash of its id decides whether one is logged.

    Attributes:
        written: number of rows in files.
        lost: number of rows that could not be written.
    """

    def __init__(
        self, directory: str | os.PathLike[str], pipeline: FeaturePipeline, *, sample: float = 1.0
    ) -> None:
        self.directory = Path(directory)
        self.sample = checks.number("sample", sample, 0, 1)
        self.written = self.lost = 0
        self._names = {"dense": pipeline.dense_names, "ids": pipeline.id_names}
        self._batches: list[dict[str, NDArray[Any]]] = []
        self._buffered = 0
        self._failing = self._closed = False
        self._numbers = itertools.count()
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="served log", daemon=True)
        self._thread.start()

    def append(
        self,
        requests: Sequence[str],
        rows: Sequence[int],
        columns: Table,
        features: Features,
        outputs: Mapping[str, NDArray[Any]],
    ) -> None:
        """Adds rows that were served; they may be of several requests.

        Args:
            requests: [B] id of each row's request.
            rows: [B] number of each row in its request.
            columns: raw columns, [B] each.
            features: `dense` [B, D] and `ids` [B, K], as the model was given them.
            outputs: as `predict` returns them, [B, …] each.
        """
        ids = np.asarray(requests, object)
        batch = {
            "request": ids,
            "row": np.asarray(rows, np.int64),
            "time": np.full(len(ids), np.datetime64(time.time_ns() // 1000, "us")),
            "dense": features["dense"],
            "ids": features["ids"],
            **{f"column/{name}": _array(each) for name, each in table_columns(columns).items()},
            **{f"output/{name}": each for name, each in named_outputs(outputs)},
        }
        if self.sample < 1:
            hashes = hashing.hash_texts(ids.tolist())
            chosen = hashing.buckets(hashes, 1 << 30) < self.sample * (1 << 30)
            batch = {name: each[chosen] for name, each in batch.items()}
        number = len(batch["row"])
        with self._lock:
            if self._buffered + number > _BUFFERED:
                self._lose(number, "the disk is too slow")
            elif number:
                self._batches.append(batch)
                self._buffered += number
            if self._buffered >= _ROWS:
                self._wake.set()

    def flush(self) -> None:
        """Writes the rows that are not yet in a file."""
        with self._writing:
            with self._lock:
                batches, self._batches, self._buffered = self._batches, [], 0
            if not batches:
                return
            number = sum(len(each["row"]) for each in batches)
            # Names in order of time; several processes may write here.
            name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._numbers)}.parquet"
            try:
                table = _joined(batches)
                for part, names in self._names.items():
                    matrix = table.pop(part)
                    table |= {f"feature/{own}": matrix[:, i] for i, own in enumerate(names)}
                writers.write_parquet(self.directory / name, table)
                self._remove_oldest()
            except Exception as error:  # Of any kind: answering goes on.
                self._lose(number, f"{type(error).__name__}: {error}")
            else:
                self.written += number
                self._failing = False

    def close(self) -> None:
        """Writes the rest and ends the thread."""
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(_SECONDS)
            self._wake.clear()
            self.flush()
        self.flush()

    def _lose(self, number: int, reason: str) -> None:
        self.lost += number
        if not self._failing:
            self._failing = True
            message = "what was served is not logged in %s: %.200s"
            logging.getLogger(__name__).warning(message, self.directory, reason)

    def _remove_oldest(self) -> None:
        sizes = [(path, path.stat().st_size) for path in _files(self.directory)]
        total = sum(size for _, size in sizes)
        for path, size in sizes[:-1]:
            if total <= _DISK:
                break
            path.unlink(missing_ok=True)
            total -= size


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Served:
    """What was served, in the order of the files.

    Attributes:
        requests: [N] ids of the requests.
        rows: [N] number of the row in its request.
        times: [N] datetime64, UTC.
        columns: raw columns by name, [N] each.
        features: float or integer, by name, [N] each.
        outputs: by name, [N] each.
        damaged: files that cannot be read, and why.
    """

    requests: NDArray[Any]
    rows: NDArray[np.int64]
    times: NDArray[np.datetime64]
    columns: dict[str, NDArray[Any]]
    features: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    damaged: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Served: {len(self):,} rows, {len(self.damaged)} damaged files>"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def keys(self) -> NDArray[Any]:
        """[N] a name for each row: its request's id, or `id/row` in a request of several rows."""
        _, which = np.unique(self.requests.astype(str), return_inverse=True)
        last = np.zeros(which.max(initial=-1) + 1, np.int64)
        np.maximum.at(last, which, self.rows)
        both = zip(self.requests, self.rows.tolist(), (last[which] > 0).tolist(), strict=True)
        return np.array([f"{i}/{row}" if many else str(i) for i, row, many in both], object)


def read(directory: str | os.PathLike[str]) -> Served:
    """Returns all rows of a log; files that are damaged are left out and named.

    Raises:
        ValueError: no log there, or none of whose files can be read.
    """
    batches: list[dict[str, NDArray[Any]]] = []
    damaged = []
    for path in _files(Path(directory)):
        try:
            batch = readers.read_parquet(path)
        except FileNotFoundError:
            continue  # The server has removed it just now.
        except (OSError, ValueError) as error:
            damaged.append(str(error))
            continue
        if batches and set(batch) != set(batches[0]):
            damaged.append(f"{path}: has other columns than the files before")
        elif not {"request", "row", "time"} <= set(batch):
            damaged.append(f"{path}: has no columns 'request', 'row' and 'time'")
        else:
            batches.append(batch)
    if not batches:
        reason = f"no file can be read: {damaged[0]}" if damaged else "nothing has been served"
        raise ValueError(f"{os.fspath(directory)}: holds no log: {reason}")
    joined = _joined(batches)
    parts: dict[str, dict[str, NDArray[Any]]] = {part: {} for part in _PARTS}
    for name, values in joined.items():
        part, _, own = name.partition("/")
        if part in parts:
            parts[part][own] = values
    return Served(
        joined["request"],
        joined["row"],
        joined["time"],
        parts["column"],
        parts["feature"],
        parts["output"],
        tuple(damaged),
    )


def named_features(
    pipeline: FeaturePipeline, features: Features
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields the name and the values [B] of each column of `dense` and `ids`."""
    for names, matrix in (
        (pipeline.dense_names, features["dense"]),
        (pipeline.id_names, features["ids"]),
    ):
        yield from zip(names, np.asarray(matrix).T, strict=True)


def named_outputs(outputs: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields the name and the values [B] of each column of the outputs."""
    for name, given in outputs.items():
        values = np.asarray(given)
        if values.ndim == 1:
            yield name, values
        else:
            flat = values.reshape(len(values), -1).T
            yield from ((f"{name}/{i}", each) for i, each in enumerate(flat))


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("[!.]*.parquet"))


def _array(values: Any) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else np.array(values, object)


def _joined(batches: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    joined = {}
    for name in batches[0]:
        parts = [each[name] for each in batches]
        kinds = {part.dtype.kind for part in parts}
        if len(kinds) > 1 and not kinds <= set("iuf"):
            parts = [part.astype(object) for part in parts]  # NumPy would make texts of numbers.
        masked = any(isinstance(part, np.ma.MaskedArray) for part in parts)
        joined[name] = (np.ma.concatenate if masked else np.concatenate)(parts)
    return joined
