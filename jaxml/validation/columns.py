"""Columns of a table: one reader of values, and one rule of what is missing.

Missing are None, NaN, NaT, `pandas.NA`, masked values, Arrow's nulls, and the empty text: a CSV file
cannot tell an empty text from no value, so neither does anything that reads tables here. Everything else
is a value, texts such as "NA" or " " included (`readers.read_csv(missing=…)` makes those missing).
"""

import dataclasses
import datetime
import decimal
import operator
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import hashing

Table = Any
"""A mapping of names to columns, a data frame of pandas or polars, or a pyarrow Table or RecordBatch."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Column:
    """Values of one type, and which of them are missing.

    Attributes:
        name: name of the column.
        type: `"INT"` (booleans included), `"FLOAT"`, `"BYTES"` (texts), `"TIME"`, `"DURATION"`, `"MIXED"`
            (several that do not go together, or none of these), or None if no value is present.
        values: array of any shape. INT: bool, int64, uint64, or objects if an integer needs more than 64
            bits. FLOAT: float64, decimals with a fraction too. BYTES: objects that are all `str`; bytes
            that are not UTF-8 are decoded with lone surrogates. TIME, DURATION: datetime64 (UTC) and
            timedelta64, in the unit given. MIXED: objects as given. A missing value is 0, False, NaN, "" or
            NaT.
        missing: bool array of the same shape.
    """

    name: str
    type: str | None
    values: NDArray[Any]
    missing: NDArray[np.bool_]

    def __repr__(self) -> str:
        return f"<Column {self.name!r}: {self.type}, {self.num_present:,} of {self.missing.size:,} present>"

    @property
    def present(self) -> NDArray[np.bool_]:
        """Bool array, True where there is a value."""
        return ~self.missing

    @property
    def is_bool(self) -> bool:
        """Whether the values are booleans."""
        return self.values.dtype == np.bool_

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return self.type == "BYTES"

    @property
    def num_present(self) -> int:
        """Number of values that are not missing."""
        return self.missing.size - int(np.count_nonzero(self.missing))

    def known(self) -> NDArray[Any]:
        """Returns the values that are present, in order."""
        return self.values[~self.missing] if self.missing.any() else self.values.ravel()

    def take(self, rows: Any) -> "Column":
        """Returns some rows (a mask, numbers, or a slice) as a column of the same type."""
        return dataclasses.replace(self, values=self.values[rows], missing=self.missing[rows])

    def is_whole(self) -> bool:
        """Returns whether every value present is a whole number."""
        known = self.known()
        finite = self.type == "FLOAT" and bool(np.isfinite(known).all())
        return self.type == "INT" or (finite and bool((known % 1 == 0).all()))

    def numbers(self) -> NDArray[np.float64]:
        """Returns the values as float64, NaN where missing.

        Times are seconds since 1970 (UTC), durations seconds, booleans 0 and 1.

        Raises:
            ValueError: if the column holds texts or mixed values, or an integer beyond float64.

        >>> read_column("delay", [3, None]).numbers().tolist()
        [3.0, nan]
        """
        if self.type == "MIXED":
            raise ValueError(self.mixture())
        if self.is_text and self.num_present:
            raise ValueError(
                f"column {self.name!r} must hold numbers, got texts such as {self.known()[0]!r}"
            )
        if self.is_text:
            return np.full(self.values.shape, np.nan)
        if self.values.dtype.kind in "mM":
            return _seconds(self.values)
        try:
            numbers = self.values.astype(np.float64)
        except OverflowError as error:
            raise ValueError(f"column {self.name!r} must fit into float64: {error}") from error
        numbers[self.missing] = np.nan
        return numbers

    def exact(self) -> NDArray[Any]:
        """Returns the values as int64, uint64, float64 or texts, without rounding any integer.

        Booleans are 0 and 1, times and durations are seconds in float64. Integers that need 64 bits and a
        sign are objects.

        Raises:
            ValueError: naming the row, for mixed values, an integer beyond 64 bits, or bytes that are not
                UTF-8.

        >>> read_column("id", [2**60 + 1, None]).exact().tolist()
        [1152921504606846977, 0]
        """
        if self.type == "MIXED":
            raise ValueError(self.mixture())
        if self.is_text:
            row = first_not_utf8(self.values)
            if row is not None:
                raise ValueError(
                    f"column {self.name!r} must hold texts in UTF-8, got {self.values.flat[row]!r} in "
                    f"row {row}"
                )
        elif self.values.dtype == object:
            wide = (self.values < -(2**63)) | (self.values >= 2**64)
            if wide.any():
                row = int(np.argmax(wide))
                raise ValueError(
                    f"column {self.name!r} must hold integers of at most 64 bits, got "
                    f"{self.values.flat[row]} in row {row}"
                )
        elif self.values.dtype.kind in "mM":
            return _seconds(self.values)
        return self.values.astype(np.int64) if self.is_bool else self.values

    def hashes(self) -> NDArray[np.uint64]:
        """Returns a 64-bit hash of each value, the same in every process (see `jaxml.hashing`).

        Equal numbers below 2⁶³ in magnitude have equal hashes whatever their dtype (1, 1.0, True), equal
        times whatever their unit. All missing values have one hash. The text "1" is not the number 1.
        """
        values = self.values
        if values.dtype.kind in "mM":
            whole = np.where(
                self.missing, values.dtype.type(0, "s"), values.astype(f"{values.dtype.kind}8[s]")
            )
            rest = np.where(self.missing, np.timedelta64(0, "ns"), values - whole).astype("m8[ns]")
            found = hashing.hash_numbers(whole.astype(np.int64))
            found = np.where(
                rest.astype(np.int64) == 0, found, hashing.mix(found + rest.view(np.uint64))
            )
        elif values.dtype == object:
            codes, distinct = self.codes()
            of_distinct = _hash_integers if self.type == "INT" else hashing.hash_texts
            each = of_distinct(distinct)
            found = np.append(each, np.uint64(0))[codes].reshape(values.shape)
        else:
            found = hashing.hash_numbers(np.where(self.missing, 0, self.exact()))
        return hashing.with_missing(found, self.missing)

    def codes(self) -> tuple[NDArray[np.int64], list[Any]]:
        """Returns each value's place among the distinct values (−1 where missing), and those values.

        Distinct texts are in the order in which they first appear, distinct numbers are sorted. Mixed
        values become texts, such as "list [1]".
        """
        codes = np.full(self.missing.size, -1, np.int64)
        present, known = ~self.missing.ravel(), self.known()
        if known.dtype == object:
            listed = known.tolist()  # A dictionary is faster than sorting texts.
            if self.type == "MIXED":
                listed = [f"{type(value).__name__} {value!r}" for value in listed]
            terms = dict.fromkeys(listed)
            in_order = sorted(terms) if self.type == "INT" else terms
            place = {value: i for i, value in enumerate(in_order)}
            codes[present] = np.fromiter(map(place.__getitem__, listed), np.int64, len(listed))
            return codes, list(place)
        distinct, inverse = np.unique(known, return_inverse=True)
        codes[present] = inverse.ravel()
        # `tolist` makes bare integers of times in nanoseconds.
        return codes, list(distinct) if distinct.dtype.kind in "mM" else distinct.tolist()

    def examples(self, rows: Any, most: int | None = None) -> list[Any]:
        """Returns the values of some rows (a mask or numbers) as plain Python objects, None if missing.

        Times that `datetime` cannot hold (a nanosecond, the year 10000) are NumPy's.

        >>> read_column("day", np.array(["2013-01-01", "NaT"], "M8[ns]")).examples([0, 1])
        [datetime.datetime(2013, 1, 1, 0, 0), None]
        """
        values, missing = self.values[rows][:most], self.missing[rows][:most]
        pairs = zip(plain(values), missing.tolist(), strict=True)
        return [None if gone else value for value, gone in pairs]

    def kinds(self) -> list[str | None]:
        """Returns the type of each value of a mixed column, None where missing."""
        pairs = zip(self.values.flat, self.missing.flat, strict=True)
        return [None if missing else _kind(type(value)) for value, missing in pairs]

    def mixture(self) -> str:
        """Returns the error message for a mixed column, with the first row of each type."""
        rows: dict[str, int] = {}
        for row, kind in enumerate(self.kinds()):
            if kind is not None:
                rows.setdefault(kind, row)
        found = ", ".join(
            f"{kind} {self.values.flat[row]!r:.50} in row {row}"
            for kind, row in list(rows.items())[:4]
        )
        return f"column {self.name!r} must hold all numbers, all texts or all times, got {found}"


def is_table(values: Any) -> bool:
    """Returns whether these are columns by name, see `Table`."""
    return isinstance(values, Mapping) or _names(values) is not None


def _names(table: Any) -> list[Any] | None:
    names = getattr(table, "column_names", getattr(table, "columns", None))  # Arrow's; pandas'.
    return None if names is None or isinstance(table, np.ndarray) else list(names)


def table_columns(table: Table, name: str = "columns") -> dict[str, Any]:
    """Returns the columns of a table by name, not yet read.

    Raises:
        ValueError: if it is no `Table`, or two columns have one name.
    """
    if isinstance(table, Mapping):
        return dict(table)
    names = _names(table)
    if names is None:
        raise ValueError(
            f"{name} must be a mapping of names to columns, a DataFrame or a pyarrow Table, got "
            f"{type(table).__name__}"
        )
    if len(set(names)) < len(names):
        twice = next(each for i, each in enumerate(names) if each in names[:i])
        raise ValueError(f"{name} must have different names, got {twice!r} twice")
    return {each: table[each] for each in names}


def read_columns(table: Table, name: str = "columns") -> dict[str, Column]:
    """Returns the columns of a table.

    Args:
        table: one-dimensional columns of one length, see `Table`.
        name: what an error calls the table.

    Raises:
        ValueError: if the table is none of these, a column is not one-dimensional, or lengths differ.

    >>> read = read_columns({"a": [1, 2, None], "b": np.array([0.5, np.nan, 1.0])})
    >>> [(column.type, column.present.tolist()) for column in read.values()]
    [('INT', [True, True, False]), ('FLOAT', [True, False, True])]
    """
    read = {}
    for key, values in table_columns(table, name).items():
        read[key] = read_column(key, values)
        if read[key].values.ndim != 1:
            raise ValueError(
                f"column {key!r} must be one-dimensional, got shape {read[key].values.shape}"
            )
    num_rows(read)
    return read


def num_rows(read: Mapping[str, Column]) -> int:
    """Returns the length of all columns, 0 without columns. Raises ValueError if lengths differ."""
    lengths = {name: len(column.values) for name, column in read.items()}
    for name, length in lengths.items():
        first = next(iter(lengths))
        if length != lengths[first]:
            raise ValueError(
                f"columns must have one length, got {lengths[first]} rows of {first!r} and {length} of "
                f"{name!r}"
            )
    return next(iter(lengths.values()), 0)


def read_column(name: str, values: Any) -> Column:
    """Returns values of any usual kind as a `Column`.

    Args:
        name: name of the column.
        values: NumPy or JAX array, masked array, list (nested lists too), scalar, pandas Series, Index or
            extension array, pyarrow Array, ChunkedArray or Scalar, or a column of polars or of any other
            library that speaks Arrow. Integers stay exact, with gaps too.

    >>> read_column("carrier", ["UA", None, ""]).missing.tolist()
    [False, True, True]
    >>> column = read_column("id", [2**70, 1, None])
    >>> column.type, column.values.tolist()
    ('INT', [1180591620717411303424, 1, 0])
    """
    if isinstance(values, Column):
        return values
    if type(values) is np.ndarray:  # A request of one row has hundreds of such columns.
        if values.dtype == np.float64:
            return Column(name, "FLOAT", values, np.isnan(values))
        if values.dtype == np.int64:
            return Column(name, "INT", values, np.zeros(values.shape, bool))
    given = _as_array(values)
    array = np.ma.getdata(given)
    shown = np.ones(array.shape, bool)
    if isinstance(given, np.ma.MaskedArray):
        shown = ~np.ma.getmaskarray(given)
    kind = array.dtype.kind
    if kind == "V" and array.dtype.names is None and array.dtype.itemsize <= 2:
        array, kind = array.astype(np.float64), "f"  # bfloat16 and float8.
    if kind in "biu":
        if kind == "u" and (not array.size or array.max() < 2**63):
            kind = "i"
        plain: NDArray[Any] = array.astype({"b": np.bool_, "i": np.int64, "u": np.uint64}[kind])
        return Column(name, "INT", np.where(shown, plain, plain.dtype.type(0)), ~shown)
    if kind == "f":
        numbers = np.where(shown, array, np.nan).astype(np.float64, copy=False)
        return Column(name, "FLOAT", numbers, np.isnan(numbers))
    if kind in "mM":
        times = np.where(shown, array, np.array("NaT", array.dtype))
        return Column(name, "TIME" if kind == "M" else "DURATION", times, np.isnat(times))
    return _read_objects(name, array.astype(object), shown)


def _as_array(values: Any) -> NDArray[Any]:
    """Returns an array, masked where values are hidden."""
    package = type(values).__module__.partition(".")[0]
    if package == "pandas" and not isinstance(getattr(values, "dtype", np.dtype(int)), np.dtype):
        if not hasattr(values.dtype, "pyarrow_dtype"):
            return np.asarray(values.astype(object))
        return _from_arrow(getattr(values, "array", values).__arrow_array__())
    if package == "pyarrow" or (package != "pandas" and hasattr(values, "__arrow_c_stream__")):
        return _from_arrow(values)
    if hasattr(values, "dtype"):
        return np.asanyarray(values)
    # NumPy by itself makes texts of [1, "a"], floats of [1, None], and one text of ["a", "a\0"].
    try:
        return np.array(values, object)
    except ValueError:  # Lists of several lengths.
        return np.fromiter(values, object, len(values))


def _from_arrow(values: Any) -> NDArray[Any]:
    import pyarrow
    from pyarrow import types

    if isinstance(values, pyarrow.Scalar):
        return _as_array(values.as_py())
    if not isinstance(values, pyarrow.Array | pyarrow.ChunkedArray):
        values = pyarrow.chunked_array(values)
    if isinstance(values, pyarrow.ChunkedArray):
        values = values.combine_chunks()
    if types.is_dictionary(values.type):
        distinct = _from_arrow(values.dictionary)
        if not len(distinct):
            return np.full(len(values), None)
        places = values.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return np.ma.masked_array(distinct[places], values.is_null())
    kind = values.type
    if types.is_integer(kind) or types.is_boolean(kind):
        filled = values.fill_null(False if types.is_boolean(kind) else 0)
        return np.ma.masked_array(filled.to_numpy(zero_copy_only=False), values.is_null())
    if types.is_floating(kind) or types.is_timestamp(kind) or types.is_duration(kind):
        return values.to_numpy(zero_copy_only=False)
    try:
        listed = values.to_pylist()
    except UnicodeDecodeError:
        listed = values.cast(pyarrow.large_binary()).to_pylist()
    if types.is_decimal(kind) and kind.scale <= 0:
        listed = [None if value is None else int(value) for value in listed]
    return np.fromiter(listed, object, len(listed))


_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("BOOL", (bool, np.bool_)),
    # Before INT: np.timedelta64 inherits from np.integer.
    ("DURATION", (datetime.timedelta, np.timedelta64)),
    ("INT", (int, np.integer)),
    ("FLOAT", (float, np.floating, decimal.Decimal)),
    ("BYTES", (str, bytes)),
    ("TIME", (datetime.date, np.datetime64)),
)


def _kind(type_: type) -> str:
    return next((kind for kind, types in _KINDS if issubclass(type_, types)), type_.__name__)


def is_missing(value: Any) -> bool:
    """Returns whether a value is None, NaN, NaT, `pandas.NA`, masked, or an empty text."""
    if isinstance(value, str | bytes):
        return not value
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    floats = (float, np.floating, np.datetime64, np.timedelta64, decimal.Decimal)
    return isinstance(value, floats) and bool(value != value)


_SURROGATE = re.compile("[\ud800-\udfff]")


def first_not_utf8(texts: NDArray[Any]) -> int | None:
    """Returns the place of the first text with a lone surrogate, which UTF-8 cannot hold, or None."""
    listed = texts.ravel().tolist()
    if not _SURROGATE.search("".join(listed)):  # Usual, and faster than one by one.
        return None
    return next((row for row, text in enumerate(listed) if not is_utf8(text)), None)


def is_utf8(text: str) -> bool:
    """Returns whether a text can be written as UTF-8: it has no lone surrogates."""
    return not _SURROGATE.search(text)


def _read_objects(name: str, array: NDArray[Any], shown: NDArray[np.bool_]) -> Column:
    listed = array.ravel().tolist()
    texts = set(map(type, listed)) <= {str, type(None)}  # Usual, and faster so.
    gone = map(operator.not_, listed) if texts else map(is_missing, listed)
    present = shown.ravel() & ~np.fromiter(gone, bool, len(listed))
    missing = ~present.reshape(array.shape)
    known = [v for v, there in zip(listed, present.tolist(), strict=True) if there]
    kinds = set(map(_kind, set(map(type, known or listed))))
    try:
        type_, values, fill = _convert(known, kinds)
    except (OverflowError, TypeError, ValueError):
        # An integer beyond float64 among floats; times with and without a zone; something else.
        return Column(name, "MIXED", array, missing)
    filled = np.full(len(listed), fill, values.dtype)
    filled[present] = values
    return Column(name, type_, filled.reshape(array.shape), missing)


def _convert(known: list[Any], kinds: set[str]) -> tuple[str | None, NDArray[Any], Any]:
    """Returns the type of values, the values, and what stands in place of a missing one.

    Where no value is known, the kinds are those of the missing ones: an empty text is a text.
    """
    if not known and "BYTES" not in kinds:
        return "FLOAT" if "FLOAT" in kinds else None, np.zeros(0), np.nan
    if not known or kinds == {"BYTES"}:
        texts = [v.decode(errors="surrogateescape") if isinstance(v, bytes) else v for v in known]
        return "BYTES", np.array(texts, object), ""
    if kinds == {"BOOL"}:
        return "INT", np.array(known, np.bool_), False
    if kinds <= {"BOOL", "INT"}:
        return "INT", integers(list(map(int, known))), 0
    if kinds <= {"BOOL", "INT", "FLOAT"}:
        floats = list(map(float, known))
        # Python compares integers and decimals with floats exactly.
        if floats != known and all(map(_is_whole, known)):
            return "INT", integers(list(map(int, known))), 0
        return "FLOAT", np.array(floats, np.float64), np.nan
    if kinds == {"TIME"}:
        return "TIME", _in_one_unit(_times(known), "M8"), "NaT"
    if kinds == {"DURATION"}:
        return "DURATION", _in_one_unit(_to_numpy(known), "m8"), "NaT"
    raise TypeError(f"values of {sorted(kinds)}")


def _is_whole(number: Any) -> bool:
    if isinstance(number, decimal.Decimal):
        return number == number.to_integral_value()
    if isinstance(number, float | np.floating):
        # 1e300 is no id.
        return -(2.0**63) <= float(number) < 2.0**64 and float(number).is_integer()
    return True


def integers(values: list[int]) -> NDArray[Any]:
    """Returns integers of any size as int64, uint64, or objects if neither holds them all.

    >>> integers([-1, 2**63]).tolist()
    [-1, 9223372036854775808]
    """
    low, high = min(values, default=0), max(values, default=0)
    small = low >= -(2**63) and high < 2**63
    wide = np.uint64 if low >= 0 and high < 2**64 else object
    return np.array(values, np.int64 if small else wide)


def _hash_integers(values: list[int]) -> NDArray[np.uint64]:
    """Returns the hashes of integers of any size; those of at most 64 bits hash as in int64 and uint64."""
    whole = np.array(values, object)
    fits = (whole >= -(2**63)) & (whole < 2**64)
    low = hashing.hash_numbers(np.where(fits & (whole < 0), whole, 0).astype(np.int64))
    high = hashing.hash_numbers(np.where(fits & (whole >= 0), whole, 0).astype(np.uint64))
    wide = hashing.hash_texts([f"int {value}" for value in values])
    return np.where(fits, np.where(whole < 0, low, high), wide)


def _times(values: list[Any]) -> list[Any]:
    zoned = [getattr(v, "tzinfo", None) is not None for v in values]
    if not any(zoned):
        return _to_numpy(values)
    if not all(zoned):
        raise ValueError("times with and without a zone")
    # Subtracted by NumPy: the last hours of the year 9999 in the west are the year 10000 in UTC.
    local = [np.datetime64(v) for v in _to_numpy([v.replace(tzinfo=None) for v in values])]
    return [time - np.timedelta64(v.utcoffset()) for time, v in zip(local, values, strict=True)]


def _to_numpy(values: list[Any]) -> list[Any]:
    """Returns pandas' times, which NumPy would cut to microseconds, as NumPy's."""
    return [v.to_numpy() if hasattr(v, "to_numpy") else v for v in values]


def _in_one_unit(values: list[Any], kind: str) -> NDArray[Any]:
    """Returns times or durations in the finest of their units, or in microseconds if they fit.

    Raises:
        ValueError: if a nanosecond of one and the year of another do not fit into 64 bits.
    """
    try:
        finest, seconds = np.array(values, kind), np.array(values, f"{kind}[s]")
        if (finest.astype(seconds.dtype) == seconds).all():
            return finest
    except OverflowError:  # NumPy 2.5 and later; those before wrap around.
        pass
    micro = np.array(values, f"{kind}[us]")
    if any(isinstance(v, np.generic) and v.astype(micro.dtype) != v for v in values):
        raise ValueError("times too far apart for their unit")
    return micro


def in_one_unit(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns times (or durations) in the finer of two units, to be compared; other arrays as they are.

    NumPy would make 1816 of the year 9999 in nanoseconds. What that unit cannot hold is at its end.

    >>> day, instant = in_one_unit(np.array(["9999-12-31"], "M8[D]"), np.array(["2013-01-01"], "M8[ns]"))
    >>> day > instant
    array([ True])
    """
    if a.dtype.kind not in "mM" or a.dtype == b.dtype:
        return a, b
    finer = np.promote_types(a.dtype, b.dtype)

    def converted(times: NDArray[Any]) -> NDArray[Any]:
        end = np.array(2**63 - 1).astype(finer).astype(times.dtype).astype(np.int64)
        return np.clip(times, (-end).astype(times.dtype), end.astype(times.dtype)).astype(finer)

    return converted(a), converted(b)


def plain(values: NDArray[Any]) -> list[Any]:
    """Returns the values as Python objects. Times that `datetime` cannot hold are NumPy's.

    >>> plain(np.array([0, 1], "M8[ns]"))[1]
    np.datetime64('1970-01-01T00:00:00.000000001')
    """
    if values.dtype.kind not in "mM":
        return values.tolist()
    for unit in (values.dtype, np.dtype(f"{values.dtype.kind}8[us]")):
        listed, same = values.astype(unit).tolist(), values.astype(unit).astype(values.dtype)
        kept = (same == values) | np.isnat(values)
        if kept.all() and not any(isinstance(value, int) for value in listed):
            return listed
    return list(values)


def _seconds(times: NDArray[Any]) -> NDArray[np.float64]:
    # Nanoseconds since 1970 have more digits than float64: equal times would differ by their unit.
    whole = times.astype(f"{times.dtype.kind}8[s]")
    return whole.astype(np.int64) + (times - whole) / np.timedelta64(1, "s")
