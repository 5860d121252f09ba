"""What a column holds: its type, and which of its values are missing.

Missing are None, NaN, NaT, pandas' NA and what a mask covers. The empty text is a value like any other:
a reader that knows what its file writes for "nothing" says so (`read_csv(missing=…)`).
"""

import dataclasses
import datetime
import decimal
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

ColumnType = Literal["BYTES", "INT", "FLOAT", "TIME", "DURATION"]


class BadColumn(ValueError):
    """An array that is no column: of another shape, or of what is neither number, text nor time.

    Attributes:
        array: as it was given.
    """

    def __init__(self, message: str, array: NDArray[Any]) -> None:
        super().__init__(message)
        self.array = array


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One column, read.

    Attributes:
        name: of the column.
        type: `"INT"` (bool included), `"FLOAT"`, `"BYTES"` (text), `"TIME"`, `"DURATION"`; `"MIXED"` if
            it holds several that do not go together or what is none of these; None if nothing is present.
        values: [N] in one dtype: bool, int64, uint64, float64, text, datetime64, timedelta64, or object
            where it is mixed or an integer needs more than 64 bits. Undefined where not present.
        present: bool [N], False where the value is missing.
        nan: bool [N], where the value is NaN in so many words, not None or masked; None if nowhere.
        kinds: object [N], the type of each value; None unless the column is mixed.
    """

    name: str
    type: str | None
    values: NDArray[Any]
    present: NDArray[np.bool_]
    nan: NDArray[np.bool_] | None = None
    kinds: NDArray[Any] | None = None

    @property
    def is_bool(self) -> bool:
        """Whether it holds booleans."""
        return self.values.dtype == np.bool_

    @property
    def num_present(self) -> int:
        """How many values are not missing."""
        return int(np.count_nonzero(self.present))

    @property
    def num_nan(self) -> int:
        """How many values are NaN."""
        return 0 if self.nan is None else int(np.count_nonzero(self.nan))

    def known(self) -> NDArray[Any]:
        """The values that are present, in order; not a copy if all are."""
        return self.values if self.present.all() else self.values[self.present]

    def is_whole(self) -> bool:
        """Whether every value present is a whole number."""
        if self.type == "INT":
            return True
        known = self.known()
        return self.type == "FLOAT" and bool(np.isfinite(known).all() and (known % 1 == 0).all())

    def codes(self) -> tuple[NDArray[np.int64], list[Any]]:
        """Each value's place in the list of distinct ones (−1 where missing), and that list."""
        found = np.full(len(self.values), -1, np.int64)
        known = self.known()
        if self.type == "BYTES" or known.dtype == object:
            listed = known.tolist()  # A dictionary is faster than sorting text.
            place = {value: i for i, value in enumerate(dict.fromkeys(listed))}
            found[self.present] = np.fromiter(map(place.__getitem__, listed), np.int64, len(listed))
            return found, list(place)
        distinct, inverse = np.unique(known, return_inverse=True)
        found[self.present] = inverse
        return found, distinct.tolist()


def read_columns(columns: Mapping[str, ArrayLike]) -> dict[str, Column]:
    """Reads every column and sees that they make a table.

    Args:
        columns: one-dimensional arrays (or sequences) of one length, by name.

    Returns:
        The columns read, in the same order.

    Raises:
        BadColumn: a ValueError, if a column is not one-dimensional, or holds records or complex numbers.
        ValueError: if it has another length than the first.

    Example:
        >>> read = read_columns({"a": [1, 2, None], "b": np.array([0.5, np.nan, 1.0])})
        >>> [(c.type, c.present.tolist()) for c in read.values()]
        [('INT', [True, True, False]), ('FLOAT', [True, False, True])]
    """
    read = {name: read_column(name, values) for name, values in columns.items()}
    num_rows(read)
    return read


def num_rows(read: Mapping[str, Column]) -> int:
    """The one length of all columns, 0 for a table without columns."""
    lengths = {name: len(column.values) for name, column in read.items()}
    for name, length in lengths.items():
        first = next(iter(lengths))
        if length != lengths[first]:
            raise ValueError(
                f"columns must have one length: {first!r} has {lengths[first]} rows, "
                f"{name!r} has {length}"
            )
    return next(iter(lengths.values()), 0)


def read_column(name: str, values: ArrayLike) -> Column:
    """Reads one column, see `Column`.

    Raises:
        BadColumn: a ValueError, if it is not one-dimensional, or holds records or complex numbers.
    """
    array, hidden = _array(values)
    if array.ndim != 1:
        raise BadColumn(
            f"column {name!r} must be one-dimensional, got an array of shape {array.shape}", array
        )
    kind = array.dtype.kind
    visible = np.ones(len(array), bool) if hidden is None else ~hidden
    if kind == "V" and array.dtype.names is None and array.dtype.itemsize <= 2:
        array, kind = array.astype(np.float64), "f"  # bfloat16 and its kin.
    if kind == "b":
        return Column(name, "INT", array, visible)
    if kind in "iu":
        return Column(name, "INT", array.astype(np.uint64 if kind == "u" else np.int64), visible)
    if kind == "f":
        numbers = array.astype(np.float64, copy=False)
        nan = np.isnan(numbers)
        return Column(name, "FLOAT", numbers, visible & ~nan, visible & nan)
    if kind in "mM":
        type_ = "TIME" if kind == "M" else "DURATION"
        return Column(name, type_, array, visible & ~np.isnat(array))
    if kind == "U":
        return Column(name, "BYTES", array, visible)
    if kind in "SOT":
        return _objects(name, array.astype(object), visible)
    told = f"column {name!r} must hold numbers, text or times, got {array.dtype}"
    raise BadColumn(told, array)


def _array(values: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.getdata(values), np.ma.getmaskarray(values)
    if isinstance(values, list | tuple):
        # NumPy would make text of [1, "a"] and floats of [1, None].
        kinds = set(map(type, values))
        if len(kinds) == 1 and type(None) not in kinds:
            try:
                return np.asarray(values), None
            except (ValueError, OverflowError):
                pass  # Lists of several lengths, say: each is a value, and of no type that is known.
        array = np.fromiter(values, object, len(values))
        return array, None
    return np.asarray(values), None


_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("BOOL", (bool, np.bool_)),
    ("INT", (int, np.integer)),
    ("FLOAT", (float, np.floating, decimal.Decimal)),
    ("BYTES", (str, bytes)),
    ("TIME", (datetime.date, np.datetime64)),
    ("DURATION", (datetime.timedelta, np.timedelta64)),
)


def _kind_of(type_: type) -> str:
    for kind, types in _KINDS:
        # np.timedelta64 is a np.integer by inheritance, and no number for that.
        if issubclass(type_, types) and not (kind == "INT" and issubclass(type_, np.timedelta64)):
            return kind
    return type_.__name__


def is_missing(value: Any) -> bool:
    """None, NaN, NaT, pandas' NA."""
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    floats = (float, np.floating, np.datetime64, np.timedelta64, decimal.Decimal)
    return isinstance(value, floats) and bool(value != value)


def _objects(name: str, array: NDArray[Any], visible: NDArray[np.bool_]) -> Column:
    listed = array.tolist()
    types = {type(value) for value in listed}
    if types <= {str, type(None)}:
        present = visible & np.fromiter((value is not None for value in listed), bool, len(listed))
    else:
        missing = np.fromiter((is_missing(value) for value in listed), bool, len(listed))
        present = visible & ~missing
    nan = None
    if any(issubclass(type_, float | np.floating) for type_ in types):
        nan = visible & np.fromiter(
            (isinstance(value, float | np.floating) and value != value for value in listed),
            bool,
            len(listed),
        )
    kind_of = {type_: _kind_of(type_) for type_ in types}
    rows = np.flatnonzero(present).tolist()
    kinds = {kind_of[type(listed[row])] for row in rows}
    known = [listed[row] for row in rows]

    def column(type_: str, dtype: Any, known: Iterable[Any]) -> Column:
        values = np.zeros(len(listed), dtype)
        values[present] = np.fromiter(known, dtype, len(rows))
        return Column(name, type_, values, present, nan)

    if not kinds:
        some_nan = nan is not None and nan.any()
        return Column(name, "FLOAT" if some_nan else None, np.zeros(len(listed)), present, nan)
    if kinds == {"BOOL"}:
        return column("INT", bool, known)
    if kinds <= {"BOOL", "INT"}:
        try:
            return column("INT", np.int64, known)
        except OverflowError:
            return column("INT", object, map(int, known))
    if kinds <= {"INT", "FLOAT"}:
        try:
            return column("FLOAT", np.float64, map(float, known))
        except OverflowError:
            pass  # An integer beyond all floats: mixed it is.
    if kinds == {"BYTES"}:
        # Bytes that are no UTF-8 become lone surrogates, which no text can be encoded with.
        texts = [v.decode(errors="surrogateescape") if isinstance(v, bytes) else v for v in known]
        values = np.full(len(listed), "", object)
        values[present] = texts
        return Column(name, "BYTES", values, present)
    if kinds in ({"TIME"}, {"DURATION"}):
        (kind,) = kinds
        try:
            values = np.zeros(len(listed), "M8[us]" if kind == "TIME" else "m8[us]")
            values[present] = np.array(known, values.dtype)
            return Column(name, kind, values, present)
        except (ValueError, OverflowError, TypeError):
            pass  # Times with and without a zone.
    each = np.full(len(listed), None, object)
    each[rows] = [kind_of[type(value)] for value in known]
    return Column(name, "MIXED", array, present, nan, each)


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
