"""CSV and Parquet files as columns. What cannot be read is refused with file, row and column.

pyarrow splits the files (`pip install 'jaxml[validation]'`); types are decided here. Rows are counted from
0, the header not included.
"""

import contextlib
import csv
import dataclasses
import datetime
import importlib
import io
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.validation.columns import Column, first_not_utf8, read_column
from jaxml.validation.schema import Schema

# A number as files write it: no leading zeros (those are codes), no thousands, no underscores.
_INT = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?|nan",
    re.IGNORECASE,
)
_BOOL = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}


class BadFile(ValueError):
    """A file that is not a table, or not the one wanted.

    Attributes:
        path: path of the file.
        row: number of the row from 0, or None.
        column: name of the column, or None.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reason: str,
        *,
        row: int | None = None,
        line: int | None = None,
        column: str | None = None,
    ) -> None:
        self.path, self.row, self.column = os.fspath(path), row, column
        place = "" if line is None else f"line {line}"
        if row is not None:
            place = f"row {row} ({place})" if place else f"row {row}"
        where = [self.path, place, "" if column is None else f"column {column!r}"]
        super().__init__(f"{', '.join(filter(None, where))}: {reason}")


def read_csv(
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    *,
    types: Mapping[str, str] | None = None,
    missing: str | Sequence[str] = ("",),
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> dict[str, NDArray[Any]]:
    """Returns the columns of a CSV file (RFC 4180: quotes, doubled quotes, line breaks within quotes).

    Without a schema a column is INT if every value spells an integer, FLOAT if a number, boolean if "true"
    or "false", otherwise text; numbers with leading zeros are codes, that is text. A column is refused if
    half of its values or more spell numbers and others do not: give its type to read it. Empty lines are
    skipped, except in a file of one column. A file that is cut short is refused where that shows; where it
    does not, the schema's `min_examples_count` helps.

    Args:
        path: path of the file; one that ends in `.gz`, `.bz2` or `.zst` is decompressed.
        schema: types of the columns, and their order; columns that it does not know come last.
        types: `"INT"`, `"FLOAT"`, `"BOOL"`, `"BYTES"` or `"TIME"` by column; they precede the schema's.
        missing: text or texts that stand for no value, such as `("", "NA")`.
        delimiter: one character. None is a comma, and refuses a file whose one column has another
            delimiter in its name, or numbers with spaces in its first row; so does any but the comma, if
            the first row has as many of them.
        encoding: encoding of the text; a byte order mark is skipped.

    Returns:
        Arrays [N] by column: int64 (float64 with NaN where values are missing, objects with None beyond
        2⁵³), float64, bool (objects with None), text (objects with None), datetime64[us]. A first column
        without a name, as pandas and R write it, is named "index"; if there is such a column already, or
        several have no name, "level_0", "level_1", … as pandas has it.

    Raises:
        BadFile: a ValueError that names the file and, where it can, row and column: an empty file, names
            missing or twice in the header, a row with more or fewer fields than the header, a value of
            another type than its column or too large for it, bytes that are not in the encoding, a quote
            that is not closed, a last line that seems cut off.
        OSError: if the file cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write('city,size\\n"Washington, DC",7\\nRome,\\n')
    ...     file.flush()
    ...     table = read_csv(file.name)
    >>> table["city"].tolist(), table["size"].tolist()
    (['Washington, DC', 'Rome'], [7.0, nan])
    """
    if delimiter is not None and len(delimiter) != 1:
        raise ValueError(f"delimiter must be one character, got {delimiter!r}")
    file = CsvText(path, _text(path, encoding, delimiter or ","), delimiter or ",")
    header = file.header()
    if len(header) == 1 and delimiter != ",":
        file.check_delimiter(header[0], sure=delimiter is not None)
    wanted = types_of(schema) if schema is not None else {}
    for name, type_ in (types or {}).items():
        checks.choice("types", name, header)
        wanted[name] = checks.choice("types", type_, ("INT", "FLOAT", "BOOL", "BYTES", "TIME"))
    gone = {missing} if isinstance(missing, str) else set(missing)
    fields = file.split(header, header)
    if len(fields[-1].codes) and not file.text.endswith(("\n", "\r")):
        check_last(fields[-1])
    columns = {field.name: convert(field, gone, wanted.get(field.name)) for field in fields}
    return _ordered(columns, schema)


@dataclasses.dataclass(frozen=True)
class CsvText:
    """The header and some rows of a CSV file, and how many rows and lines of the file precede them."""

    path: str | os.PathLike[str]
    text: str
    delimiter: str = ","
    rows_before: int = 0
    lines_before: int = 0

    def header(self) -> list[str]:
        _, header = next(self._records(), (0, []))
        if not header:
            raise BadFile(self.path, "the file is empty: not even a header")
        header = named(header)
        for i, name in enumerate(header):
            if not name.strip():
                raise BadFile(self.path, f"column {i} of the header has no name", line=1)
            if name in header[:i]:
                raise BadFile(self.path, "the header has this name twice", line=1, column=name)
        return header

    def check_delimiter(self, name: str, sure: bool) -> None:
        """Refuses a file of one column if its name has another delimiter, and the first row if `sure`.

        Words may have spaces between them; a row of numbers does not.
        """
        row = next(
            (record[0] for _, record in itertools.islice(self._records(), 1, 2) if record), ""
        )
        for other in ",;\t| ".replace(self.delimiter, ""):
            names, fields = (
                [each for _, r in split(text, other) for each in r] for text in (name, row)
            )
            alike, numbers = len(names) == len(fields), all(map(_FLOAT.fullmatch, fields))
            if len(names) > 1 and (alike and numbers if other == " " else alike or not sure):
                more = "" if sure else " (or ',')"
                reason = f"the one column is {_short(name)}; pass delimiter={other!r}{more}"
                raise BadFile(self.path, reason, line=1)

    def split(self, header: list[str], columns: Sequence[str]) -> list["Field"]:
        arrow, arrow_csv = pyarrow(), importlib.import_module("pyarrow.csv")
        data = self.text.lstrip("\r\n").encode()
        names = [f"f{i}" for i in range(len(header))]
        odd = []

        def skip(row: Any) -> str:
            odd.append(row)
            return "skip"

        try:
            table = arrow_csv.read_csv(
                arrow.BufferReader(data),
                arrow_csv.ReadOptions(
                    use_threads=False,  # With threads, rows have no number.
                    block_size=min(len(data) + 1, 2**31 - 1),
                    autogenerate_column_names=True,
                ),
                arrow_csv.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=len(header) > 1,
                    invalid_row_handler=skip,
                ),
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, arrow.string()), strings_can_be_null=False
                ),
            )
        except arrow.ArrowInvalid as error:
            raise BadFile(self.path, str(error)) from error
        if odd or data.count(b'"') % 2:
            self._check_quotes()
        if odd:
            raise self._unsplit(header, odd[0].number - 2, odd[0].actual_columns)
        return [
            Field(self, name, encoded.dictionary.to_pylist(), encoded.indices.to_numpy())
            for name, column in zip(header, table.columns, strict=True)
            if name in columns
            for encoded in [column.slice(1).combine_chunks().dictionary_encode()]
        ]

    def _unsplit(self, header: list[str], row: int, size: int) -> BadFile:
        hint = ": is there a delimiter in a text without quotes?"
        if size < len(header):
            last = row + 2 >= sum(1 for _ in self._records())
            hint = ": is the file cut short?" if last else ""
        reason = f"{size} fields, should be {len(header)} as in the header{hint}"
        return self.refuse(reason, row, header[min(size, len(header) - 1)])

    def _check_quotes(self) -> None:
        rows = -2
        try:
            for _ in split(self.text, self.delimiter, strict=True):
                rows += 1
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                reason = "a quote is opened and never closed: is the file cut short?"
                line = sum(1 for _ in io.StringIO(self.text, newline=""))
                raise self._bad(reason, rows + 1, line) from None

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        return split(self.text, self.delimiter)

    def refuse(self, reason: str, row: int, column: str) -> BadFile:
        line, _ = next(itertools.islice(self._records(), row + 1, None), (None, []))
        return self._bad(reason, row, line, column)

    def _bad(self, reason: str, row: int, line: int | None, column: str | None = None) -> BadFile:
        row, line = row + self.rows_before, None if line is None else line + self.lines_before
        return BadFile(self.path, reason, row=row, line=line, column=column)


def named(header: list[str]) -> list[str]:
    """Returns the header with names for the columns at its beginning that have none."""
    unnamed = next((i for i, name in enumerate(header) if name.strip()), 0)
    own = ["index"] if unnamed == 1 and "index" not in header else None
    return [*(own or [f"level_{i}" for i in range(unnamed)]), *header[unnamed:]]


def split(
    text: str | Iterable[str], delimiter: str, *, strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yields the line on which each record of a text (or of its lines) ends, and the record's fields.

    Empty lines are left out, but for those within a file of one column.
    """
    limit = csv.field_size_limit(2**31 - 1)  # 131,072 characters otherwise.
    try:
        lines = io.StringIO(text, newline="") if isinstance(text, str) else text
        reader = csv.reader(lines, delimiter=delimiter, strict=strict)
        width = 0
        for record in reader:
            width = width or len(record)
            if record or width == 1:
                yield reader.line_num, record
    finally:
        csv.field_size_limit(limit)


def types_of(schema: Schema) -> dict[str, str | None]:
    """Returns the types of a schema's columns, as texts are parsed."""
    return {name: "BOOL" if each.is_bool else each.type for name, each in schema.features.items()}


@dataclasses.dataclass(frozen=True)
class Field:
    """The distinct texts of a column, and the place of each row's among them."""

    file: CsvText
    name: str
    distinct: list[str]
    codes: NDArray[np.integer]

    def refuse(self, text: str, reason: str) -> BadFile:
        row = int(np.argmax(self.codes == self.distinct.index(text)))
        return self.file.refuse(f"{_short(text)} is {reason}", row, self.name)


def pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "CSV and Parquet files are read by pyarrow: pip install 'jaxml[validation]'"
        ) from error


def check_file(path: str | os.PathLike[str]) -> None:
    """Raises OSError for a directory."""
    if os.path.isdir(path):
        raise IsADirectoryError(f"{os.fspath(path)} is a directory, a file is wanted")


@contextlib.contextmanager
def open_text(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Yields the bytes of a file, decompressed, as a file object."""
    check_file(path)
    try:
        with pyarrow().input_stream(os.fspath(path), compression="detect") as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadFile(path, f"the compressed file is cut short or damaged ({error})") from error


def _text(path: str | os.PathLike[str], encoding: str, delimiter: str) -> str:
    with open_text(path) as file:
        data = file.read()
    if encoding.lower() in ("utf-8", "utf8") and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadFile(path, "the file is UTF-16 by its first bytes; pass encoding='utf-16'")
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        start = error.start + len(data) - len(error.object)  # Some codecs drop the mark first.
        before = data[:start].decode("latin-1") + "?"
        rows = [record for _, record in split(before, delimiter)]
        reason = f"byte 0x{data[start]:02x} is not {encoding}; pass the encoding of the file"
        row, line = len(rows) - 2 if len(rows) > 1 else None, before.count("\n") + 1
        column = named(rows[0])[min(len(rows[-1]), len(rows[0])) - 1] if len(rows) > 1 else None
        raise BadFile(path, reason, row=row, line=line, column=column) from error
    except LookupError as error:
        raise ValueError(f"encoding must be one that Python knows, got {encoding!r}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadFile(path, "there are NUL characters: not text, or another encoding", line=line)
    return text


def _ordered(columns: dict[str, NDArray[Any]], schema: Schema | None) -> dict[str, NDArray[Any]]:
    known = [name for name in (schema.features if schema is not None else ()) if name in columns]
    return {name: columns[name] for name in dict.fromkeys([*known, *columns])}


def check_last(field: Field) -> None:
    """Refuses a last line without a line break whose last field seems to be cut.

    That is a text found nowhere else in its column, which is shorter than any of twenty or more, has
    fewer decimals than any of ten or more, or is the beginning of one of a few texts that come up again
    and again.
    """
    *before, code = field.codes.tolist()
    last, known = field.distinct[code], {field.distinct[other] for other in set(before)}
    if not known or last in known:
        return
    shorter = len(before) >= 20 and len(last) < min(map(len, known))
    rounder = len(before) >= 10 and _decimals(last) < min(map(_decimals, known))
    repeated = 2 * len(known) <= len(before) and not _FLOAT.fullmatch(last)
    if shorter or rounder or (repeated and any(other.startswith(last) for other in known)):
        reason = (
            f"the last line has no line break and ends in {_short(last)}: is the file cut short?"
        )
        raise field.file.refuse(reason, len(before), field.name)


def _decimals(text: str) -> int:
    """Returns the number of digits after the point of a number, 0 for other texts."""
    return len(text.partition(".")[2]) if _FLOAT.fullmatch(text) else 0


def convert(field: Field, gone: set[str], wanted: str | None) -> NDArray[Any]:
    """Returns the values; each distinct text is looked at once."""
    wanted = wanted or _guess(field, gone)
    parsed = []
    for text in field.distinct:
        try:
            parsed.append(None if text in gone else _parse(text, wanted))
        except ValueError as error:
            raise field.refuse(text, str(error)) from None
    return _array(parsed, wanted)[field.codes]


def _parse(value: str, wanted: str) -> Any:
    """Returns the value that a text spells, None for "nan" among integers; or raises ValueError."""
    text = value.strip()
    if wanted == "BYTES":
        return value
    if wanted == "INT":
        if re.fullmatch(r"[+-]?[0-9]{1,4000}", text):
            return int(text)
        if text.lower() == "nan":
            return None
        raise ValueError("not an integer, as the column should hold")
    if wanted == "FLOAT":
        if not _FLOAT.fullmatch(text) and not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", text):
            raise ValueError("not a number, as the column should hold")
        if math.isinf(float(text)) and "inf" not in text.lower():
            raise ValueError("too large for a floating-point number")
        return float(text)
    if wanted == "BOOL":
        if text not in _BOOL and text not in ("0", "1"):
            raise ValueError("neither true nor false, as the column should hold")
        return _BOOL.get(text, text == "1")
    if wanted == "TIME":
        try:
            time = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("not a time in ISO 8601, as the column should hold") from None
        # Subtracted by NumPy: the last hours of the year 9999 in the west are the year 10000 in UTC.
        offset = time.utcoffset() or datetime.timedelta(0)
        return np.datetime64(time.replace(tzinfo=None), "us") - np.timedelta64(offset, "us")
    raise ValueError(f"a text, and {wanted} cannot be read from text")


def _guess(field: Field, gone: set[str]) -> str:
    sizes = np.bincount(field.codes, minlength=len(field.distinct)).tolist()
    counts = {text: n for text, n in zip(field.distinct, sizes, strict=True) if text not in gone}
    if not counts:
        return "FLOAT" if field.distinct else "BYTES"
    if all(text in _BOOL for text in counts):
        return "BOOL"
    numbers = {text for text in counts if _FLOAT.fullmatch(text.strip())}
    if len(numbers) == len(counts):
        spelt = [text.strip() for text in numbers if text.strip().lower() != "nan"]
        return "INT" if spelt and all(map(_INT.fullmatch, spelt)) else "FLOAT"
    share = sum(counts[text] for text in numbers), sum(counts.values())
    if 2 * share[0] < share[1] or any(re.fullmatch(r"0[0-9]+", text) for text in counts):
        return "BYTES"
    reason = (
        f"not a number, and {share[0]} of the column's {share[1]} values are; pass types="
        f"{{{field.name!r}: 'BYTES'}} to read it as text, or missing= if it stands for no value"
    )
    raise field.refuse(next(text for text in counts if text not in numbers), reason)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def _array(values: list[Any], type_: str | None) -> NDArray[Any]:
    """Returns values, None where missing, in the closest dtype that has NaN, NaT or None for those."""
    known = [value for value in values if value is not None]
    gaps = len(known) < len(values)
    fits = 2**53 if gaps else 2**63 - 1  # Floats, which NaN needs, cannot count beyond 2⁵³.
    if type_ == "TIME":
        return np.array([np.datetime64("NaT", "us") if v is None else v for v in values], "M8[us]")
    if type_ == "FLOAT" or (type_ == "INT" and gaps and all(abs(v) <= fits for v in known)):
        return np.array([math.nan if v is None else v for v in values], np.float64)
    if type_ == "INT" and not gaps and all(-fits - 1 <= v <= fits for v in known):
        return np.array(values, np.int64)
    if type_ == "BOOL" and not gaps:
        return np.array(values, np.bool_)
    if type_ == "BYTES" and not gaps:
        longest = max(map(len, known), default=1)
        # Every row takes as much as the longest, and NumPy cuts zeros off its end.
        if longest <= 256 and not any(value.endswith("\0") for value in known):
            return np.array(values, f"U{max(longest, 1)}")
    return np.fromiter(values, object, len(values))


def read_parquet(
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """Returns the columns of a Parquet file.

    Args:
        path: path of the file.
        schema: order of the columns, and types that are insisted on.
        columns: names of the columns to read; None for all.

    Returns:
        Arrays [N] by column, as in `read_csv`, times in their own unit. Dictionaries become text.

    Raises:
        BadFile: a ValueError that names the file and, where it can, row and column: not a Parquet file or
            one cut short, columns of lists or records, names that are there twice, a type that is not
            the schema's.
        OSError: if the file cannot be read.

    >>> read_parquet(__file__)
    Traceback (most recent call last):
    ...
    jaxml.validation.readers.BadFile: ...
    """
    arrow = pyarrow()
    data = Path(path).read_bytes()
    with arrow_errors(path):
        file = open_parquet(path, arrow.BufferReader(data))
        for name in columns or ():
            checks.choice("columns", name, file.schema_arrow.names)
        table = file.read(columns=None if columns is None else list(columns))
    types = {} if schema is None else {n: f.type for n, f in schema.features.items()}
    found = {}
    for name in table.column_names:
        column = parquet_column(path, name, table.column(name), types.get(name))
        found[name] = column.values
        if column.is_text or column.type is None or (column.type == "INT" and column.missing.any()):
            pairs = zip(column.values.tolist(), column.missing.tolist(), strict=True)
            values = [None if missing else value for value, missing in pairs]
            found[name] = _array(values, "BOOL" if column.is_bool else column.type)
    return _ordered(found, schema)


def open_parquet(path: str | os.PathLike[str], source: Any) -> Any:
    """Returns a pyarrow.parquet.ParquetFile; raises BadFile for a name that is there twice."""
    parquet = importlib.import_module("pyarrow.parquet")
    # Nanoseconds, the default for INT96, end in 2262. A buffer, so that no column is read as a whole.
    file = parquet.ParquetFile(source, coerce_int96_timestamp_unit="us", buffer_size=1 << 16)
    names = file.schema_arrow.names
    for i, name in enumerate(names):
        if name in names[:i]:
            raise BadFile(path, "the file has this column twice", column=name)
    return file


@contextlib.contextmanager
def arrow_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises BadFile where pyarrow cannot read a Parquet file."""
    errors = (pyarrow().ArrowException, OSError)
    try:
        yield
    except errors as error:
        raise BadFile(path, f"not a Parquet file, or a damaged one ({error})") from error


def parquet_column(
    path: str | os.PathLike[str], name: str, values: Any, wanted: str | None, rows_before: int = 0
) -> Column:
    """Returns a column of a pyarrow Table.

    Args:
        path: the file, for errors.
        name: of the column.
        values: pyarrow ChunkedArray, some rows of it.
        wanted: the type that is insisted on, None for any.
        rows_before: number of rows before these, for errors.
    """
    kind = str(values.type)
    if kind in ("string", "large_string"):
        values = values.dictionary_encode()  # Each distinct text is made, and looked at, once.
    column = read_column(name, values)
    if column.type == "MIXED":
        reason = f"columns must hold numbers, texts or times, got {kind}"
        raise BadFile(path, reason, row=rows_before, column=name)
    if column.is_text and "binary" not in kind:
        try:
            values.validate(full=True)
        except pyarrow().ArrowInvalid:
            row = rows_before + (first_not_utf8(column.values) or 0)
            raise BadFile(path, "a text is not UTF-8", row=row, column=name) from None
    if wanted and column.type and column.is_text != (wanted == "BYTES"):
        raise _other_type(path, column, wanted, kind, rows_before)
    if wanted and column.type is None:
        return read_column(name, _array([None] * len(column.values), wanted))
    return column


def _other_type(
    path: str | os.PathLike[str], column: Column, wanted: str, kind: str, rows_before: int
) -> BadFile:
    """Names the first text that does not spell a number, or the first value."""
    rows = np.flatnonzero(column.present).tolist()
    odd = (row for row in rows if column.is_text and not _FLOAT.fullmatch(column.values[row]))
    row = next(odd, rows[0])
    value = column.values[row : row + 1].tolist()[0]
    reason = f"{wanted} is wanted, got {kind} such as {_short(value)}"
    return BadFile(path, reason, row=rows_before + row, column=column.name)
