"""Answers by key, in one SQLite file.

SQLite needs no package, and answers in time. In microseconds of CPU time, warm, with decoding, of 200,000
keys that are texts, beside LMDB with the same JSON; both written in chunks of 32,768:

| answer | file | one key | each of 500 keys | building | bytes a key |
|---|---|---|---|---|---|
| a float | SQLite | 3.6 µs | 2.6 µs | 0.6 s | 36 |
| | LMDB | 3.6 µs | 3.7 µs | 0.8 s | 187 |
| 5 texts and 5 floats | SQLite | 10.1 µs | 9.0 µs | 4.3 s | 368 |
| | LMDB | 6.6 µs | 6.6 µs | 2.3 s | 1,075 |
"""

import contextlib
import json
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jaxml.serving.manifest import Tensor

__all__ = ["DuplicateKey", "Lookup", "Writer"]

_MANY = 500  # keys of a query
_JSON = "JSON"


class DuplicateKey(ValueError):
    """A key that two rows have. The message is one line."""


class Writer:
    """Builds a file of answers chunk by chunk; a chunk is there as a whole or not at all.

    The file has the name `path` from `finish` on, and another one before. After a crash a new `Writer` goes
    on with it.

    Args:
        path: of the finished file.
        outputs: of the model; one that has several values a row is kept as JSON.

    Attributes:
        chunks: the number of chunks in it.
    """

    def __init__(self, path: str | os.PathLike[str], outputs: Sequence[Tensor]) -> None:
        self.path = Path(path)
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        with self._named():
            self._file = sqlite3.connect(self._partial)
        weakref.finalize(self, self._file.close)
        self._insert = f"INSERT INTO answers VALUES ({', '.join('?' * (2 + len(outputs)))})"
        kinds = (f"{_quoted(each.name)} {_JSON if each.shape[1:] else ''}" for each in outputs)
        columns = ", ".join(["key PRIMARY KEY NOT NULL", '"row"', *kinds])
        with self._named(), self._file:
            create = "CREATE TABLE IF NOT EXISTS"
            self._file.execute(f"{create} answers ({columns}) WITHOUT ROWID")
            self._file.execute(f"{create} chunks (number INTEGER PRIMARY KEY, computed)")
            ((self.chunks,),) = self._file.execute("SELECT count(*) FROM chunks")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Raises what SQLite says of the disk or the file as an OSError that names it."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise OSError(f"{self._partial}: cannot be written: {error}") from error

    def add(
        self, keys: Sequence[str | int], rows: Sequence[int], outputs: Mapping[str, NDArray[Any]]
    ) -> None:
        """Adds the next chunk.

        Args:
            keys: [B] texts or integers.
            rows: [B] numbers of the rows in the table, ascending.
            outputs: [B, …] by name.

        Raises:
            DuplicateKey: a key is there twice; the chunk is not added.
            OSError: the disk is full, or another process writes the same file.
        """
        answers = [_encoded(values) for values in outputs.values()]
        try:
            with self._named(), self._file:  # All of it or nothing.
                chunk = (self.chunks, time.time())
                self._file.execute("INSERT INTO chunks VALUES (?, ?)", chunk)
                self._file.executemany(self._insert, zip(keys, rows, *answers, strict=True))
        except sqlite3.IntegrityError as error:
            if "chunks.number" in str(error):
                raise OSError(f"{self._partial}: another process writes it") from None
            raise self._duplicate(keys, rows) from None
        self.chunks += 1

    def _duplicate(self, keys: Sequence[str | int], rows: Sequence[int]) -> DuplicateKey:
        select = 'SELECT "row" FROM answers WHERE key = ?'
        seen: dict[str | int, int] = {}
        for key, row in zip(keys, rows, strict=True):
            before = seen.get(key, next((r for (r,) in self._file.execute(select, (key,))), None))
            if before is not None:
                return DuplicateKey(f"{key!r:.80} is the key of rows {before} and {row}")
            seen[key] = row
        raise AssertionError("no key is there twice")

    def close(self) -> None:
        """Closes the file; a chunk that was added stays."""
        self._file.close()

    def finish(self) -> None:
        """Closes the file and gives it its name."""
        self.close()
        os.replace(self._partial, self.path)


class Lookup:
    """Reads a finished file of answers, in one thread at a time.

    Args:
        path: of the file.

    Attributes:
        key_type: `str` or `int`; None if there is no key.
        computed: when each chunk was, in seconds since 1970.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{self.path}: there are no look-ups: predict with a key, to its end")
        # Nobody writes any more, so nothing needs to be locked; pages are read where they lie.
        address = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
        self._file = sqlite3.connect(address, uri=True, check_same_thread=False)
        weakref.finalize(self, self._file.close)
        self._file.execute("PRAGMA mmap_size = 1099511627776")
        table = self._all("PRAGMA table_info(answers)")
        self._outputs = [(name, kind == _JSON) for _, name, kind, *_ in table][2:]
        columns = ", ".join(['"row"', *(_quoted(name) for name, _ in self._outputs)])
        self._one = f"SELECT {columns} FROM answers WHERE key = ?"
        self._some = f"SELECT key, {columns} FROM answers WHERE key IN "
        self.computed = [time for _, time in self._all("SELECT * FROM chunks ORDER BY number")]
        first = self._all("SELECT key FROM answers LIMIT 1")
        self.key_type = type(first[0][0]) if first else None

    def get(self, key: str | int) -> dict[str, Any] | None:
        """Returns the number of a key's row as `row`, and its outputs by name; None if it is unknown."""
        found = self._all(self._one, (key,))
        return self._answer(found[0]) if found else None

    def many(self, keys: Sequence[str | int]) -> dict[str | int, dict[str, Any]]:
        """Returns the same for each of many keys that is known."""
        found = {}
        for at in range(0, len(keys), _MANY):
            some = keys[at : at + _MANY]
            for key, *row in self._all(f"{self._some} ({', '.join('?' * len(some))})", some):
                found[key] = self._answer(row)
        return found

    def _answer(self, row: Sequence[Any]) -> dict[str, Any]:
        number, *values = row
        answer = {"row": number}
        for (name, is_list), value in zip(self._outputs, values, strict=True):
            answer[name] = json.loads(value) if is_list else value
        return answer

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._file.execute(query, values).fetchall()
        except OverflowError:
            raise ValueError("keys must be integers of 64 bits") from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path}: is damaged: {error}") from error


def _encoded(values: NDArray[Any]) -> list[Any]:
    listed = values.tolist()
    if values.ndim == 1:
        return listed
    return [json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in listed]


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
