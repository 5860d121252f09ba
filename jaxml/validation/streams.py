"""CSV and Parquet files in chunks of rows, for tables that do not fit into memory.

    for columns in stream("flights.parquet", schema, num_rows=10_000):
        ...                                                # `Column`s of up to 10,000 values by name

Values, missing values and refusals are those of `jaxml.validation.readers`. Types come from the schema: a
chunk cannot tell what the others hold.
"""

import io
import os
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxml import checks
from jaxml.validation import readers
from jaxml.validation.columns import Column, read_column
from jaxml.validation.readers import BadFile, CsvText
from jaxml.validation.schema import Schema

__all__ = ["Shape", "is_csv", "shape", "stream"]

_LONGEST = 1 << 24  # characters of a row


class Shape(NamedTuple):
    """The names of a file's columns, and its number of rows."""

    columns: tuple[str, ...]
    num_rows: int


def shape(path: str | os.PathLike[str]) -> Shape:
    """Returns the names of the columns and the number of rows of a file; a CSV file is read for that.

    Raises:
        BadFile: a ValueError: not a table.
        OSError: if the file cannot be read.
    """
    if not is_csv(path):
        file = _open_parquet(path)
        return Shape(tuple(file.schema_arrow.names), file.metadata.num_rows)
    parts = _csv_parts(path, 1 << 16)
    header = next(parts)
    return Shape(tuple(CsvText(path, header.text).header()), sum(part.num_rows for part in parts))


def stream(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    num_rows: int,
    columns: Sequence[str] | None = None,
    skip: int = 0,
) -> Generator[dict[str, Column]]:
    """Yields the columns of a file chunk by chunk, in memory that does not grow with the file.

    Args:
        path: a CSV file if its name has the suffix `.csv` (and perhaps `.gz`, `.bz2` or `.zst`), otherwise
            a Parquet file.
        schema: types of the columns. In a CSV file those that it does not know are texts.
        num_rows: number of rows of a chunk; the last has what is left.
        columns: names of the columns to read; None for those of the schema.
        skip: number of chunks to leave out at the beginning.

    Yields:
        Columns [num_rows] by name, with the values that `readers.read_csv` and `readers.read_parquet`
        return.

    Raises:
        BadFile: a ValueError that names the file and, where it can, row and column, as the readers do.
        OSError: if the file cannot be read.

    >>> import tempfile
    >>> from jaxml.validation.schema import Feature
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("city,size\\nRome,7\\nOslo,\\nPerth,2\\n")
    ...     file.flush()
    ...     sizes = Schema({"size": Feature("INT")})
    ...     [chunk["size"].values.tolist() for chunk in stream(file.name, sizes, num_rows=2)]
    [[7.0, nan], [2]]
    """
    num_rows = checks.integer("num_rows", num_rows, 1)
    wanted = list(schema.features if columns is None else columns)
    read = _csv if is_csv(path) else _parquet
    yield from read(path, schema, wanted, num_rows, skip)


def is_csv(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file is CSV by its name, perhaps compressed; others are Parquet."""
    name = os.fspath(path).lower()
    return name.endswith((".csv", ".csv.gz", ".csv.bz2", ".csv.zst"))


def _check_columns(
    path: str | os.PathLike[str], columns: Sequence[str], names: Sequence[str]
) -> None:
    for name in columns:
        if name not in names:
            raise BadFile(path, "the file does not have this column", column=name)


def _parquet(
    path: str | os.PathLike[str], schema: Schema, columns: list[str], num_rows: int, skip: int
) -> Iterator[dict[str, Column]]:
    file = _open_parquet(path)
    _check_columns(path, columns, file.schema_arrow.names)
    groups = range(file.metadata.num_row_groups)
    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in groups])
    at = skip * num_rows
    first = int(np.searchsorted(ends, at, "right"))
    unwanted = at - int(ends[first - 1]) if first else at
    types = {name: feature.type for name, feature in schema.features.items()}
    with readers.arrow_errors(path):
        batches = file.iter_batches(num_rows, row_groups=list(groups[first:]), columns=columns)
        for table in _tables(batches, unwanted, num_rows):
            yield {
                name: readers.parquet_column(path, name, table.column(name), types.get(name), at)
                for name in columns
            }
            at += table.num_rows


def _open_parquet(path: str | os.PathLike[str]) -> Any:
    readers.check_file(path)
    source = readers.pyarrow().OSFile(os.fspath(path))
    with readers.arrow_errors(path):
        return readers.open_parquet(path, source)


def _tables(batches: Iterator[Any], unwanted: int, num_rows: int) -> Iterator[Any]:
    """Yields tables of `num_rows` rows; batches are smaller where a row group ends."""
    table = readers.pyarrow().Table
    waiting: list[Any] = []
    for batch in batches:
        cut = min(unwanted, len(batch))
        unwanted -= cut
        waiting.append(batch.slice(cut))
        while sum(map(len, waiting)) >= num_rows:
            whole = table.from_batches(waiting)
            yield whole.slice(0, num_rows)
            waiting = whole.slice(num_rows).to_batches()
    if sum(map(len, waiting)):
        yield table.from_batches(waiting)


def _csv(
    path: str | os.PathLike[str], schema: Schema, columns: list[str], num_rows: int, skip: int
) -> Iterator[dict[str, Column]]:
    types = readers.types_of(schema)
    parts = _csv_parts(path, num_rows)
    first = next(parts)
    text = CsvText(path, first.text)
    header = text.header()
    _check_characters(text, header)
    _check_columns(path, columns, header)
    rows, lines = 0, 0
    for number, part in enumerate(parts):
        text = CsvText(path, first.text + part.text, ",", rows, lines)
        rows, lines = rows + part.num_rows, lines + part.num_lines
        if number == 0 and len(header) == 1:
            text.check_delimiter(header[0], sure=False)
        if number >= skip:
            _check_characters(text, header)
            fields = {field.name: field for field in text.split(header, columns)}
            if header[-1] in fields and not part.text.endswith(("\n", "\r")):
                readers.check_last(fields[header[-1]])
            yield {
                name: read_column(
                    name, readers.convert(fields[name], {""}, types.get(name) or "BYTES")
                )
                for name in columns
            }


class _Part(NamedTuple):
    text: str
    num_rows: int
    num_lines: int


def _csv_parts(path: str | os.PathLike[str], num_rows: int) -> Iterator[_Part]:
    """Yields the header, then `num_rows` rows at a time; bytes that are not UTF-8 are escaped."""
    pending: list[str] = []
    rows, size = 0, 0

    def lines(file: Any) -> Iterator[str]:
        nonlocal size
        for line in file:
            size += len(line)
            if size > _LONGEST:
                reason = f"more than {_LONGEST:,} characters: is a quote opened and never closed?"
                raise BadFile(path, reason, row=rows - 1)
            pending.append(line)
            yield line

    with readers.open_text(path) as source:
        file = io.TextIOWrapper(source, "utf-8-sig", "surrogateescape", newline="")
        part_rows = 0
        for _ in readers.split(lines(file), ","):
            rows, part_rows, size = rows + 1, part_rows + 1, 0
            if rows == 1 or part_rows == num_rows:
                yield _Part("".join(pending), part_rows, len(pending))
                pending.clear()
                part_rows = 0
    if not rows:
        raise BadFile(path, "the file is empty: not even a header")
    if part_rows:
        yield _Part("".join(pending), part_rows, len(pending))


def _check_characters(text: CsvText, header: Sequence[str]) -> None:
    """Raises BadFile for NUL, and for bytes that are not UTF-8."""
    at, reason = text.text.find("\0"), "there are NUL characters: not text, or another encoding"
    try:
        text.text.encode()
    except UnicodeEncodeError as error:
        at, reason = error.start, f"byte 0x{ord(text.text[error.start]) & 0xFF:02x} is not UTF-8"
    if at >= 0:
        records = [record for _, record in readers.split(text.text[:at] + "?", ",")]
        column = header[min(len(records[-1]), len(header)) - 1]
        if len(records) == 1:
            raise BadFile(text.path, reason, line=1)
        raise text.refuse(reason, len(records) - 2, column)
