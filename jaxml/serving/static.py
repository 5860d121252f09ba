"""Static inference: the answers to a whole table, computed before they are asked for.

    predict(bundle, "flights.parquet", "answers", key="id")

    part-00000.parquet …  for each row of a chunk its number `row`, the key, the outputs, and `anomaly`
    static.json           of which bundle, which table and which chunks the answers are
    lookup.sqlite         the answers by key

A part is there as a whole or not at all, so that a run which was killed goes on with the first part that is
missing, and ends with the same bytes.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import checks, files, reports
from jaxml.serving import lookup
from jaxml.serving.bundle import Bundle
from jaxml.validation import readers, streams, writers
from jaxml.validation.columns import Column, read_column

__all__ = ["Report", "predict"]

RECORD = "static.json"
LOOKUP = "lookup.sqlite"
ROW, ANOMALY = "row", "anomaly"
CHUNK_ROWS = 1 << 15
_LARGEST_KEY = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Report:
    """What `predict` did; as a text, one line.

    Attributes:
        directory: of the answers.
        rows: of the table.
        anomalies: the number of rows with an anomaly by the schema, which have no answer.
        chunks: the number of chunks.
        chunks_before: those of them that earlier runs had finished.
    """

    directory: Path
    rows: int
    anomalies: int
    chunks: int
    chunks_before: int

    def __str__(self) -> str:
        text = f"{self.rows - self.anomalies:,} of {self.rows:,} rows answered"
        if self.anomalies:
            text += f", {self.anomalies:,} with an anomaly (column {ANOMALY!r})"
        if self.chunks_before:
            text += f"; {self.chunks_before} of {self.chunks} chunks were there"
        return f"{text}: {self.directory}"


def predict(
    bundle: Bundle,
    table: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    key: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    version: int | None = None,
) -> Report:
    """Answers a table chunk by chunk, or goes on where a run before was interrupted.

    Rows with an anomaly (an error by `bundle.check`) have nulls for outputs, and kind, column and value in
    the column `anomaly`. They are not among the look-ups.

    Args:
        bundle: answers.
        table: a Parquet file, or a CSV file (by its suffix), as `streams.stream` reads it.
        directory: for the answers; a new one, or that of an interrupted run with the same arguments.
        key: a column of texts or integers, no two alike: `lookup.sqlite` has the answers by it.
        chunk_rows: rows of a part.
        version: of the bundle, for the record.

    Raises:
        ValueError: a table that cannot be read, or lacks a column; a key that is missing or there twice; a
            directory of other answers. The message is one line.
        OSError: a file cannot be read or written.
    """
    out = Path(directory)
    columns = list(dict.fromkeys([*bundle.columns, *([] if key is None else [key])]))
    record = _record(bundle, table, columns, key, checks.integer("chunk_rows", chunk_rows, 1))
    _begin(out, {**record, "version": version})
    parts = [out / f"part-{number:05}.parquet" for number in range(record["chunks"])]
    start = there = next((i for i, part in enumerate(parts) if not part.exists()), len(parts))
    with contextlib.ExitStack() as stack:
        store = None
        if key is not None and not (out / LOOKUP).exists():
            writer = lookup.Writer(out / LOOKUP, bundle.manifest.outputs)
            store = stack.enter_context(contextlib.closing(writer))
            start = min(there, store.chunks)
        stream = streams.stream(
            table, bundle.schema, num_rows=chunk_rows, columns=columns, skip=start
        )
        chunks = stack.enter_context(contextlib.closing(stream))
        for number in reports.progress(range(start, len(parts)), "chunk"):
            chunk = _answer(bundle, next(chunks), number * chunk_rows)
            keys = {} if key is None else {key: _keys(table, chunk, key)}
            answers = {ROW: chunk.rows, **keys, **chunk.outputs, ANOMALY: _gaps(chunk.faults)}
            writers.write_parquet(parts[number], answers)
            if store is not None and key is not None and number >= store.chunks:
                good = np.flatnonzero(chunk.good)
                outputs = {name: each.data[good] for name, each in chunk.outputs.items()}
                try:
                    store.add(keys[key][good].tolist(), chunk.rows[good].tolist(), outputs)
                except lookup.DuplicateKey as error:
                    raise readers.BadFile(table, str(error), column=key) from error
        if store is not None:
            store.finish()
    return Report(out, record["rows"], sum(map(_num_faults, parts)), len(parts), start)


def _record(
    bundle: Bundle,
    table: str | os.PathLike[str],
    columns: list[str],
    key: str | None,
    chunk_rows: int,
) -> dict[str, Any]:
    """Returns what answers are of, and checks that they can be written."""
    shape = streams.shape(table)
    for name in columns:
        if name not in shape.columns:
            raise readers.BadFile(table, "the file does not have this column", column=name)
    outputs = [each.name for each in bundle.manifest.outputs]
    for name in (ROW, ANOMALY):
        if name in (*outputs, key):
            raise ValueError(f"key and outputs must not be named {name!r}, got {key!r}, {outputs}")
    if key in outputs:
        raise ValueError(f"key must not be named as an output is, got {key!r}")
    with open(table, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "model": bundle.manifest.name,
        "bundle": bundle.manifest.digest,
        "outputs": described_outputs(bundle),
        "table": Path(table).name,
        "sha256": digest,
        "rows": shape.num_rows,
        "chunk_rows": chunk_rows,
        "chunks": -(-shape.num_rows // chunk_rows),
        "key": key,
    }


def described_outputs(bundle: Bundle) -> list[list[Any]]:
    """Returns name, datatype and shape of each output, as JSON has them."""
    return [[name, datatype, list(shape)] for name, datatype, shape in bundle.manifest.outputs]


def _begin(out: Path, record: dict[str, Any]) -> None:
    """Writes the record into a new directory, or raises ValueError for answers of another one."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / RECORD).exists():
        if any(not each.name.startswith(".") for each in out.iterdir()):
            raise ValueError(f"{out}: holds other files; give a new directory")
        files.write_json(out / RECORD, record)
    before = read_record(out)
    others = {"bundle": "bundle", "sha256": "table", "chunk_rows": "chunk size", "key": "key"}
    for name, what in others.items():
        if before[name] != record[name]:
            values = " and ".join(f"{each[name]!r:.60}" for each in (before, record))
            raise ValueError(
                f"{out}: was begun with another {what} ({values}); give a new directory"
            )
    for stray in out.glob(".*.tmp"):  # Of runs that were killed.
        stray.unlink(missing_ok=True)


def read_record(directory: Path) -> dict[str, Any]:
    """Returns what `static.json` says of the answers. Raises ValueError if there are none."""
    path = directory / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        return {name: record[name] for name in ("bundle", "outputs", "sha256", "chunk_rows", "key")}
    except FileNotFoundError:
        raise ValueError(f"{directory}: holds no answers: there is no {RECORD}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is damaged: {error!r:.120}") from error


@dataclasses.dataclass(frozen=True, eq=False)
class _Chunk:
    """Rows of a table, answered: their numbers, columns, faults ("" if none) and masked outputs."""

    rows: NDArray[np.int64]
    columns: dict[str, Column]
    faults: NDArray[Any]
    outputs: dict[str, np.ma.MaskedArray]

    @property
    def good(self) -> NDArray[np.bool_]:
        return self.faults == ""


def _answer(bundle: Bundle, columns: dict[str, Column], first: int) -> _Chunk:
    inputs = {name: columns[name] for name in bundle.columns}
    number = len(inputs[bundle.columns[0]].values)
    faults = _faults(bundle, inputs, number)
    good = faults == ""
    if not good.all():
        inputs = {name: each.take(good) for name, each in inputs.items()}
    found = bundle.predict(inputs)
    outputs = {}
    for name, values in found.items():
        nothing = "" if values.dtype == object else 0
        whole = np.full((number, *values.shape[1:]), nothing, values.dtype)
        whole[good] = values
        hidden = np.zeros(whole.shape, bool)
        hidden[~good] = True
        outputs[name] = np.ma.MaskedArray(whole, hidden)
    return _Chunk(np.arange(first, first + number), columns, faults, outputs)


def _faults(bundle: Bundle, inputs: dict[str, Column], number: int) -> NDArray[Any]:
    """Returns a text for each row with an anomaly, "" for the others."""
    texts = np.full(number, "", object)
    for each in bundle.check(inputs):
        if each.severity == "error" and each.column is not None:
            rows = each.rows if len(each.rows) else np.arange(number)
            values = inputs[each.column].examples(rows)
            for row, value in zip(rows.tolist(), values, strict=True):
                before = f"{texts[row]}; " if texts[row] else ""
                texts[row] = f"{before}{each.kind} in {each.column!r}: {value!r:.80}"
    return texts


def _gaps(texts: NDArray[Any]) -> np.ma.MaskedArray:
    return np.ma.MaskedArray(texts, texts == "")


def _keys(table: str | os.PathLike[str], chunk: _Chunk, key: str) -> NDArray[Any]:
    """Returns the keys of a chunk: texts (objects) or integers."""
    column = chunk.columns[key]
    if column.missing.any():
        row = int(chunk.rows[np.argmax(column.missing)])
        raise readers.BadFile(table, "the key is missing", row=row, column=key)
    if column.type not in ("BYTES", "INT") or column.is_bool:
        kind = "booleans" if column.is_bool else column.type
        raise readers.BadFile(table, f"keys must be texts or integers, got {kind}", column=key)
    if column.type == "INT" and (column.values > _LARGEST_KEY).any():
        row = int(chunk.rows[np.argmax(column.values > _LARGEST_KEY)])
        raise readers.BadFile(table, f"keys may be up to {_LARGEST_KEY}", row=row, column=key)
    return column.values


def _num_faults(part: Path) -> int:
    (texts,) = readers.read_parquet(part, columns=[ANOMALY]).values()
    return int(read_column(ANOMALY, texts).num_present)
