"""CSV and Parquet files as columns; what cannot be read is refused with file, row and column.

Rows are counted from 0, as NumPy does, header and comments not included.
"""

import array
import csv
import datetime
import gzip
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml.data.columns import is_utf8
from jaxml.data.schema import Schema

# A number as files write it: no leading zeros (those are codes), no thousands, no underscores.
_INT = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?|nan",
    re.IGNORECASE,
)
_BOOL = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}


class BadFile(ValueError):
    """A file that is no table, or not the one wanted.

    Attributes:
        path: of the file.
        row: number of the row from 0, or None.
        column: its name, or None.
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
        place = [self.path]
        if row is not None:
            place.append(f"row {row}" + (f" (line {line})" if line is not None else ""))
        elif line is not None:
            place.append(f"line {line}")
        if column is not None:
            place.append(f"column {column!r}")
        super().__init__(f"{', '.join(place)}: {reason}")


def read_csv(
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    *,
    types: Mapping[str, str] | None = None,
    missing: str | Sequence[str] = ("",),
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> dict[str, NDArray[Any]]:
    """Reads a CSV file (RFC 4180: quotes, doubled quotes, line breaks within quotes).

    A file cut short is refused where that can be seen. Where the cut leaves whole rows, or digits of a
    last number that look like others, it cannot: keep `min_examples_count` in the schema.

    Without a schema a column is INT if every value that is there spells an integer, FLOAT if a number,
    boolean if "true" or "false", else text; numbers with leading zeros are codes, that is text. A
    column half or more of whose values spell numbers and the rest do not is refused: name its type to
    have it.

    Args:
        path: of the file; one that ends in `.gz` is decompressed.
        schema: types of the columns, and their order; columns that it does not know come after, those it
            misses are left for `validate` to report.
        types: `"INT"`, `"FLOAT"`, `"BOOL"`, `"BYTES"` or `"TIME"` by column; they precede the schema's.
        missing: text or texts that stand for no value, such as `("", "NA")`.
        delimiter: one character.
        encoding: of the text; a byte order mark of UTF-8 is skipped.

    Returns:
        Arrays [N] by column: int64 (float64 with NaN where values are missing), float64, bool (object
        with None), text (object with None), datetime64[us]. A table with a header and no rows has
        arrays of length 0.

    Raises:
        BadFile: a ValueError that names the file and, where it can, row and column: an empty file, names
            missing or twice in the header, a row with more or fewer fields than the header, a value
            that is not of its column's type or too large for it, bytes that are not in the encoding,
            NUL characters, a quote that is not closed, a last line that seems cut off.
        OSError: if the file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write('city,size\\n"Washington, DC",7\\nRome,\\n')
        ...     file.flush()
        ...     table = read_csv(file.name)
        >>> table["city"].tolist(), table["size"].tolist()
        (['Washington, DC', 'Rome'], [7.0, nan])
    """
    if len(delimiter) != 1:
        raise ValueError(f"delimiter must be one character, got {delimiter!r}")
    text = _text(path, encoding, delimiter)
    fields, lines = _parse(path, text, delimiter)
    wanted = _wanted([field.name for field in fields], schema, types)
    gone = {missing} if isinstance(missing, str) else set(missing)
    if len(lines) and not text.endswith(("\n", "\r")):
        _check_last(path, fields[-1], lines)
    columns = {
        field.name: _convert(path, field, gone, wanted.get(field.name), lines) for field in fields
    }
    return _ordered(columns, schema)


class _Fields(NamedTuple):
    """The texts of a column: which of the distinct ones, in the order they first appear, each row has."""

    name: str
    codes: NDArray[np.int64]
    distinct: list[str]

    def first(self, code: int) -> int:
        """The first row of a text."""
        return int(np.argmax(self.codes == code))


def _ordered(columns: dict[str, NDArray[Any]], schema: Schema | None) -> dict[str, NDArray[Any]]:
    if schema is None:
        return columns
    known = [name for name in schema.features if name in columns]
    rest = [name for name in columns if name not in schema.features]
    return {name: columns[name] for name in [*known, *rest]}


def _wanted(
    header: Sequence[str], schema: Schema | None, types: Mapping[str, str] | None
) -> dict[str, str]:
    wanted: dict[str, str] = {}
    if schema is not None:
        for name, feature in schema.features.items():
            if feature.type is not None:
                boolean = feature.is_bool and feature.type == "INT"
                wanted[name] = "BOOL" if boolean else feature.type
    for name, type_ in (types or {}).items():
        if name not in header:
            raise ValueError(f"types must name columns among {list(header)}, got {name!r}")
        if type_ not in ("INT", "FLOAT", "BOOL", "BYTES", "TIME"):
            raise ValueError(f"types must be INT, FLOAT, BOOL, BYTES or TIME, got {type_!r}")
        wanted[name] = type_
    return wanted


def _text(path: str | os.PathLike[str], encoding: str, delimiter: str) -> str:
    data = Path(path).read_bytes()
    if os.fspath(path).endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, OSError, ValueError) as error:
            raise BadFile(path, f"the compressed file is cut short or damaged ({error})") from error
        except Exception as error:  # zlib.error, which is none of these.
            raise BadFile(path, f"the compressed file is damaged ({error})") from error
    if not data.strip():
        raise BadFile(path, "the file is empty: not even a header")
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    if utf8 and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadFile(path, "the file is UTF-16 by its first bytes; pass encoding='utf-16'")
    try:
        text = data.decode("utf-8-sig" if utf8 else encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(path, data, error, encoding, delimiter) from error
    except LookupError as error:
        raise ValueError(f"encoding must be one that Python knows, got {encoding!r}") from error
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadFile(path, "there are NUL characters: not text, or another encoding", line=line)
    return text


def _undecodable(
    path: str | os.PathLike[str],
    data: bytes,
    error: UnicodeDecodeError,
    encoding: str,
    delimiter: str,
) -> BadFile:
    """Where the bytes are that the encoding does not know: the rows up to them are parsed as Latin-1."""
    if error.object != data:  # A codec that drops the byte order mark counts from behind it.
        offset = len(data) - len(error.object)
    else:
        offset = 0
    before = data[: error.start + offset].decode("latin-1")
    rows = list(csv.reader(io.StringIO(before, newline=""), delimiter=delimiter))
    line = before.count("\n") + 1
    bad = data[error.start + offset : error.start + offset + 1].hex()
    reason = f"byte 0x{bad} is not {encoding}; pass the encoding the file was written in"
    try:
        header = rows[0] if len(rows) > 1 else []
        return BadFile(
            path,
            reason,
            row=len(rows) - 2 + before.endswith("\n") if len(rows) > 1 else None,
            line=line,
            column=header[0 if before.endswith("\n") else len(rows[-1]) - 1] if header else None,
        )
    except IndexError:
        return BadFile(path, reason, line=line)


_BLOCK = 256  # Rows held as texts at a time; of all others each distinct text is kept once.


def _parse(
    path: str | os.PathLike[str], text: str, delimiter: str
) -> tuple[list[_Fields], Sequence[int]]:
    """The columns as texts, and the line on which each row ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    block: list[list[str]] = []
    lines = array.array("q")
    header: list[str] | None = None
    blank: int | None = None
    places: list[dict[str, int]] = []
    codes: list[array.array[int]] = []

    def empty_block() -> None:
        for place, code, values in zip(places, codes, zip(*block, strict=True), strict=False):
            for value in dict.fromkeys(values):
                place.setdefault(value, len(place))
            code.extend(map(place.__getitem__, values))
        block.clear()

    try:
        for row in reader:
            if header is None:
                if row:
                    header = row
                    _check_header(path, header)
                    places = [{} for _ in header]
                    codes = [array.array("q") for _ in header]
                continue
            if not row and len(header) > 1:
                blank = blank or reader.line_num  # Fine at the end of the file only.
                continue
            row = row or [""]  # Of one column: a gap.
            if blank is not None:
                raise BadFile(path, "an empty line among the rows", row=len(lines), line=blank)
            if len(row) != len(header):
                raise _ragged(path, header, row, len(lines), reader.line_num, text)
            block.append(row)
            lines.append(reader.line_num)
            if len(block) == _BLOCK:
                empty_block()
    except csv.Error as error:
        told = str(error)
        if "unexpected end of data" in told:
            told = "a quote is opened and never closed: is the file cut short?"
        raise BadFile(path, told, row=len(lines), line=reader.line_num) from error
    if header is None:
        raise BadFile(path, "the file is empty: not even a header")
    empty_block()
    fields = [
        _Fields(name, np.array(code, np.int64), list(place))
        for name, code, place in zip(header, codes, places, strict=True)
    ]
    return fields, lines


def _ragged(
    path: str | os.PathLike[str],
    header: list[str],
    row: list[str],
    number: int,
    line: int,
    text: str,
) -> BadFile:
    last = line >= text.count("\n") + (not text.endswith("\n"))
    hint = ": is the file cut short?" if last and len(row) < len(header) else ""
    if len(row) > len(header):
        hint = ": is there a delimiter in a text without quotes?"
    column = header[len(row)] if len(row) < len(header) else header[-1]
    told = f"{len(row)} fields, {len(header)} as in the header are wanted{hint}"
    return BadFile(path, told, row=number, line=line, column=column)


def _check_header(path: str | os.PathLike[str], header: list[str]) -> None:
    for i, name in enumerate(header):
        if not name.strip():
            raise BadFile(path, f"column {i} of the header has no name", line=1)
        if name in header[:i]:
            raise BadFile(path, "the header has this name twice", line=1, column=name)


def _check_last(path: str | os.PathLike[str], field: _Fields, lines: Sequence[int]) -> None:
    """A last line without its line break may be how the file is written, or the cut of a longer one.

    It is taken for a cut where the last field is, by the others of its column,

    - shorter than any of twenty or more, or than the one length of three or more texts (dates, codes);
    - a number of fewer decimals than any of ten or more (of three or more, if those have six), or one
      that ends in its point where no other does;
    - the beginning of a boolean among booleans, or of a text that comes up again and again, and is
      itself met nowhere else.
    """
    *before, code = field.codes.tolist()
    last, known = field.distinct[code], {field.distinct[other] for other in set(before)}
    number = len(before)
    if not number or last in known:
        return
    lengths, decimals = set(map(len, known)), min(map(_decimals, known))
    is_number = _FLOAT.fullmatch(last) is not None
    even = (
        number >= 3 and min(lengths) == max(lengths) >= 6 and not any(map(_FLOAT.fullmatch, known))
    )
    shorter = (number >= 20 or even) and len(last) < min(lengths)
    rounder = number >= (3 if decimals >= 6 else 10) and _decimals(last) < decimals
    repeated = 2 * len(known) <= number or all(text in _BOOL for text in known)
    begun = repeated and not is_number and any(other.startswith(last) for other in {*known, *_BOOL})
    pointed = is_number and last.endswith(".") and not any(text.endswith(".") for text in known)
    if shorter or rounder or begun or pointed:
        told = f"the last line has no line break and ends in {_short(last)}: is the file cut short?"
        raise BadFile(path, told, row=number, line=lines[-1], column=field.name)


def _decimals(text: str) -> int:
    """How many digits follow the point of a number; of other texts none."""
    return len(text.partition(".")[2]) if _FLOAT.fullmatch(text) else 0


def _convert(
    path: str | os.PathLike[str],
    field: _Fields,
    missing: set[str],
    wanted: str | None,
    lines: Sequence[int],
) -> NDArray[Any]:
    """Every distinct text is looked at once; the rows are then looked up among them."""
    present = [value for value in field.distinct if value not in missing]
    gaps = len(present) < len(field.distinct)
    if wanted is None:
        wanted = _guess(path, field, present, missing, lines)

    def refuse(bad: str, told: str) -> BadFile:
        row = field.first(field.distinct.index(bad))
        return BadFile(
            path, f"{_short(bad)} is {told}", row=row, line=lines[row], column=field.name
        )

    def spread(values: list[Any], dtype: Any) -> NDArray[Any]:
        table = np.empty(len(values), dtype)
        table[:] = values
        return table[field.codes]

    if wanted == "BYTES":
        for value in present:
            if not is_utf8(value):
                raise refuse(value, "no valid Unicode")
        if gaps:
            return spread([None if v in missing else v for v in field.distinct], object)
        longest = max(map(len, present), default=1)
        # A dtype of fixed width takes that much for every row.
        return spread(present, object if longest > 256 else f"U{max(longest, 1)}")
    parsed: list[Any] = []
    for value in field.distinct:
        text = value.strip()
        if value in missing:
            parsed.append(None)
        elif wanted == "INT":
            if not re.fullmatch(r"[+-]?[0-9]{1,4000}", text):
                raise refuse(value, "no integer, as the column should hold")
            parsed.append(int(text))
        elif wanted == "FLOAT":
            if not _FLOAT.fullmatch(text) and not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", text):
                raise refuse(value, "no number, as the column should hold")
            parsed.append(float(text))
            if math.isinf(parsed[-1]) and "inf" not in text.lower():
                raise refuse(value, "too large for a floating-point number")
        elif wanted == "BOOL":
            if text not in _BOOL and text not in ("0", "1"):
                raise refuse(value, "neither true nor false, as the column should hold")
            parsed.append(_BOOL[text] if text in _BOOL else text == "1")
        elif wanted == "TIME":
            try:
                parsed.append(_time(text))
            except ValueError:
                raise refuse(value, "no time in ISO 8601, as the column should hold") from None
        else:
            raise refuse(value, f"a text, and {wanted} cannot be read from text")
    if wanted == "TIME":
        return spread([np.datetime64("NaT", "us") if v is None else v for v in parsed], "M8[us]")
    if wanted == "BOOL":
        return spread(parsed, object if gaps else bool)
    if wanted == "INT":
        numbers = [value for value in parsed if value is not None]
        # Floats, which NaN needs, cannot count beyond 2⁵³; int64 not beyond 2⁶³.
        if any(abs(value) > 2**53 for value in numbers) if gaps else not _is_int64(numbers):
            return spread(parsed, object)
        if not gaps:
            return spread(parsed, np.int64)
    return spread([math.nan if value is None else value for value in parsed], np.float64)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def _is_int64(numbers: list[int]) -> bool:
    return not numbers or (min(numbers) >= -(2**63) and max(numbers) < 2**63)


def _time(text: str) -> np.datetime64:
    """An ISO 8601 time; one with a zone is brought to UTC."""
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is not None:
        found = found.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(found, "us")


def _guess(
    path: str | os.PathLike[str],
    field: _Fields,
    present: list[str],
    missing: set[str],
    lines: Sequence[int],
) -> str:
    if not present:
        return "FLOAT" if field.distinct else "BYTES"
    if all(value in _BOOL for value in present):
        return "BOOL"
    numbers = {value for value in present if _FLOAT.fullmatch(value.strip())}
    if len(numbers) == len(present):
        return "INT" if all(_INT.fullmatch(value.strip()) for value in present) else "FLOAT"
    if not numbers or any(re.fullmatch(r"0[0-9]+", value) for value in present):
        return "BYTES"
    sizes = np.bincount(field.codes, minlength=len(field.distinct)).tolist()
    spelt = sum(n for value, n in zip(field.distinct, sizes, strict=True) if value in numbers)
    filled = sum(n for value, n in zip(field.distinct, sizes, strict=True) if value not in missing)
    if 2 * spelt < filled:
        return "BYTES"
    bad = next(value for value in present if value not in numbers)
    row = field.first(field.distinct.index(bad))
    told = (
        f"{_short(bad)} is no number, and {spelt} of the column's {filled} values are; pass "
        f"types={{{field.name!r}: 'BYTES'}} to read it as text, or missing= if it stands for no value"
    )
    raise BadFile(path, told, row=row, line=lines[row], column=field.name)


# --------------------------------------------------------------------------------------------- Parquet


def read_parquet(
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """Reads a Parquet file; needs the package `pyarrow` (`pip install 'jaxml[parquet]'`).

    Args:
        path: of the file.
        schema: order of the columns, and types that are insisted on.
        columns: names of the columns to read; None for all.

    Returns:
        Arrays [N] by column: integers (float64 with NaN where there are nulls, objects with None beyond
        2⁵³), float64, bool, text (object with None where there are nulls), datetime64, timedelta64.
        Dictionary columns become text.

    Raises:
        BadFile: a ValueError that names the file and, where it can, row and column: not a Parquet file
            or one cut short, columns of lists or records, names that are there twice, a type that is
            not the schema's.
        ModuleNotFoundError: without pyarrow.
        OSError: if the file cannot be read.

    Example:
        >>> read_parquet(__file__)
        Traceback (most recent call last):
        ...
        jaxml.data.readers.BadFile: ...
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Parquet files are read by pyarrow: pip install 'jaxml[parquet]'"
        ) from error
    data = Path(path).read_bytes()
    if len(data) < 12 or data[:4] != b"PAR1":
        raise BadFile(path, "not a Parquet file: it does not begin with PAR1")
    if data[-4:] != b"PAR1":
        raise BadFile(path, "the Parquet file is cut short: it does not end with PAR1")
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        names = file.schema_arrow.names
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadFile(path, f"the Parquet file is damaged ({error})") from error
    for i, name in enumerate(names):
        if name in names[:i]:
            raise BadFile(path, "the file has this column twice", column=name)
    for name in columns or ():
        if name not in names:
            raise ValueError(f"columns must be among {names}, got {name!r}")
    try:
        table = file.read(columns=list(columns) if columns is not None else None)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise BadFile(path, f"the Parquet file is damaged ({error})") from error
    found = {}
    for name in table.column_names:
        found[name] = _from_arrow(pyarrow, path, name, table.column(name))
        if schema is not None and name in schema.features:
            _check_arrow(path, name, table.column(name), schema.features[name].type)
    return _ordered(found, schema)


def _from_arrow(arrow: Any, path: str | os.PathLike[str], name: str, column: Any) -> NDArray[Any]:
    types = arrow.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        kind = arrow.large_string() if types.is_string_view(kind) else arrow.large_binary()
        column = column.cast(kind)
    text = types.is_string(kind) or types.is_large_string(kind)
    if types.is_date(kind):
        column = column.cast(arrow.timestamp("s" if types.is_date32(kind) else "ms"))
    elif not (
        text
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_timestamp(kind)
        or types.is_duration(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    ):
        told = f"columns must hold numbers, text or times, got {kind}"
        raise BadFile(path, told, row=0 if len(column) else None, column=name)
    if types.is_null(kind):
        return np.full(len(column), None, object)
    if types.is_integer(kind) and column.null_count:
        values = column.to_pylist()
        if any(value is not None and abs(value) > 2**53 for value in values):
            return np.array(values, object)  # Floats cannot count that far.
        return np.array([math.nan if value is None else value for value in values], np.float64)
    if types.is_boolean(kind) or text or types.is_binary(kind) or types.is_large_binary(kind):
        try:
            values = column.to_pylist()
        except UnicodeDecodeError as error:
            texts = column.cast(arrow.large_binary()).to_pylist()
            row = next(i for i, each in enumerate(texts) if each is not None and not _decodes(each))
            raise BadFile(path, f"a text is no UTF-8 ({error})", row=row, column=name) from error
        whole = not column.null_count
        if types.is_boolean(kind):
            return np.array(values, bool if whole else object)
        if text and whole and max(map(len, values), default=0) <= 256:
            return np.array(values, np.str_)
        return np.array(values, object)
    if types.is_decimal(kind) or types.is_float16(kind):
        column = column.cast(arrow.float64())
    return np.asarray(column.to_numpy())


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_arrow(path: str | os.PathLike[str], name: str, column: Any, wanted: str | None) -> None:
    """Texts for numbers are refused by the first that spells none, numbers for texts by the first."""
    kind = str(column.type)
    is_text = "string" in kind or "binary" in kind
    if wanted is None or kind == "null" or is_text == (wanted == "BYTES") or not len(column):
        return
    values = column.to_pylist()
    first = next((i for i, value in enumerate(values) if value is not None), 0)
    texts = [(i, value) for i, value in enumerate(values) if isinstance(value, str)]
    row = next((i for i, value in texts if not _FLOAT.fullmatch(value)), first)
    told = f"{wanted} is wanted, got {kind} such as {_short(values[row])}"
    raise BadFile(path, told, row=row, column=name)
