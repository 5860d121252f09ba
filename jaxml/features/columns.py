"""A raw column, read once: numbers or text, what is missing, and how often each value occurs.

`Counts` is what every transform is fitted from. It is the column as a multiset, so it can be gathered
from chunks in any order, on any number of machines, with the same bits in the end; and a chain of
transforms is fitted in one pass, since what the second transform will see is the image of the
multiset under the first.
"""

import collections
import datetime
import decimal
import fractions
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MAX_DISTINCT", "Column", "Counts", "numbers", "read"]

MAX_DISTINCT = 1 << 20
"""Distinct numbers of a column that are counted exactly; beyond, neighbours share a cell."""


class Column(NamedTuple):
    """A column on the host.

    Attributes:
        values: int64, uint64 or float64 numbers, or texts (any NumPy string dtype, or objects). What
            is missing holds 0, NaN or "".
        missing: bool, of the shape of `values`.
    """

    values: NDArray
    missing: NDArray[np.bool_]

    @property
    def is_text(self) -> bool:
        """Whether the values are text."""
        return self.values.dtype.kind not in "iuf"


def read(values: ArrayLike, name: str = "values") -> Column:
    """Values of any usual kind as a `Column`.

    Missing are NaN, None, NaT, the empty text and what is masked (`numpy.ma`). Booleans are read as 0
    and 1, times (dates, too) as seconds since 1970 in UTC and durations as seconds, bytes as UTF-8.

    Args:
        values: an array, a list or a scalar; of any shape, of numbers, text, times, or objects that
            are all numbers or all text but for what is missing.
        name: what to call it in an error.

    Returns:
        A `Column` of that shape.

    Raises:
        ValueError: numbers and text in one column, or values of any other type.

    >>> read(["UA", None, ""]).missing.tolist()
    [False, True, True]
    >>> read([2**40 + 1, None]).values.tolist()
    [1099511627777, 0]
    """
    if isinstance(values, Column):
        return values
    if isinstance(values, np.ma.MaskedArray):
        plain = read(values.data, name)
        return Column(plain.values, plain.missing | np.ma.getmaskarray(values))
    array = _as_array(values)
    kind = array.dtype.kind
    if kind in "bi":
        array = array.astype(np.int64)
        return Column(array, np.zeros(array.shape, bool))
    if kind == "u":
        array = array.astype(np.uint64)
        small = not array.size or array.max() < 2**63
        return Column(array.astype(np.int64) if small else array, np.zeros(array.shape, bool))
    if kind == "f" or array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        array = array.astype(np.float64)
        return Column(array, np.isnan(array))
    if kind in "mM":
        nat = np.isnat(array)
        unit = array.astype(f"{kind}8[us]").astype(np.int64)
        return Column(np.where(nat, np.nan, unit / 1e6), nat)
    if kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            return _read_objects(array.astype(object), name)  # which knows the row
        kind = "U"
    if kind == "U":
        return Column(array, array == "")
    if kind in "OT":
        return _read_objects(array.astype(object), name)
    raise ValueError(f"{name} has dtype {array.dtype}, wanted numbers, text or times")


def _as_array(values: Any) -> NDArray:
    if isinstance(values, np.ndarray) or hasattr(values, "dtype"):
        return np.asarray(values)
    # NumPy would write the number 1 beside "a" as "1", and None beside a number as an object.
    array = np.array(values, dtype=object)
    types = set(map(type, array.ravel().tolist()))
    if (types and types <= {bool, int, float}) or (types and types <= {str}):
        plain = np.asarray(values)
        return array if plain.dtype.kind == "O" or (int in types and float in types) else plain
    return array


def _is_missing(value: Any) -> bool:
    # pandas' NA compares as neither true nor false; it is told by its name, pandas being no need.
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and math.isnan(value)


def _read_objects(array: NDArray, name: str) -> Column:
    items = array.ravel().tolist()
    missing = np.fromiter(
        (_is_missing(item) or item in ("", b"") for item in items), bool, len(items)
    )
    present = [item for item, gone in zip(items, missing, strict=True) if not gone]
    gone = missing.reshape(array.shape)
    if all(isinstance(item, str | bytes) for item in present):
        if not present:  # nothing but missing: numbers or text, both will do
            empty = all(item in ("", b"") for item in items if isinstance(item, str | bytes))
            as_text = any(isinstance(item, str | bytes) for item in items) and empty
            return Column(np.full(array.shape, "" if as_text else np.nan), gone)
        texts = [
            "" if lost else item if isinstance(item, str) else _decoded(item, name, row)
            for row, (item, lost) in enumerate(zip(items, missing, strict=True))
        ]
        filled = np.empty(len(items), object)
        filled[:] = texts
        return Column(filled.reshape(array.shape), gone)
    for types, unit in (
        (
            (np.datetime64, datetime.date),
            "M8[us]",
        ),  # a datetime is a date, and so is pandas' Timestamp
        ((np.timedelta64, datetime.timedelta), "m8[us]"),
    ):
        if all(isinstance(item, types) for item in present):
            times = [
                np.array("NaT", unit) if lost else _without_zone(item)
                for item, lost in zip(items, missing, strict=True)
            ]
            return read(np.array(times, unit).reshape(array.shape), name)
    numeric = (bool, int, float, np.number, np.bool_, decimal.Decimal, fractions.Fraction)
    first = present[0]
    for row, item in enumerate(items):
        if not missing[row] and not isinstance(item, numeric):
            others = [each for each in present if type(each) is not type(item)]
            beside = f" beside {others[0]!r}" if others else f", a {type(first).__name__}"
            raise ValueError(
                f"{name} holds {item!r} at row {row}{beside}, wanted all numbers, all text or all "
                "times, and None or NaN for what is missing"
            )
    fractional = (float, np.floating, decimal.Decimal, fractions.Fraction)
    whole = [not isinstance(item, fractional) for item in present]
    if all(whole):
        integers = [0 if lost else int(item) for item, lost in zip(items, missing, strict=True)]
        if not -(2**63) <= min(integers) <= max(integers) < 2**64:
            raise ValueError(f"{name} holds an integer beyond 64 bits, wanted at most 64")
        dtype = np.uint64 if max(integers) >= 2**63 else np.int64
        return Column(np.array(integers, dtype).reshape(array.shape), gone)
    floats = [math.nan if lost else float(item) for item, lost in zip(items, missing, strict=True)]
    return Column(np.array(floats, np.float64).reshape(array.shape), gone)


def _decoded(item: bytes, name: str, row: int) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} holds {item!r} at row {row}, wanted text in UTF-8") from error


def _without_zone(item: Any) -> Any:
    """A time with a zone as UTC, which is what NumPy's times are."""
    if getattr(item, "tzinfo", None) is None:
        return item
    return item.astimezone(datetime.UTC).replace(tzinfo=None)


def numbers(values: ArrayLike, name: str = "values") -> NDArray[np.float64]:
    """Values as float64, NaN where one is missing.

    Raises:
        ValueError: the column is text.

    >>> numbers([1, None, 2]).tolist()
    [1.0, nan, 2.0]
    """
    column = read(values, name)
    if column.is_text:
        if column.missing.all():
            return np.full(column.values.shape, np.nan)
        first = column.values[~column.missing].ravel()[0]
        raise ValueError(f"{name} holds text such as {str(first)!r}, wanted numbers")
    return np.where(column.missing, np.nan, column.values.astype(np.float64))


class Counts(NamedTuple):
    """How often each value of a column occurs.

    Numbers: exact while there are at most `max_distinct` distinct ones. Beyond, the lowest bits of the
    float64 are dropped, as few as will do, and a cell stands for its middle: relative to a value the
    error is below 2^(dropped − 53). How many bits that takes depends on the multiset alone, so the
    result still does not depend on the order in which chunks came. The least and the greatest are exact.

    Attributes:
        values: [D] distinct numbers in rising order, int64, uint64 or float64; empty for text.
        counts: [D] int64.
        texts: count of each distinct text.
        missing: how many values were missing.
        low: the least finite number, +inf if there is none.
        high: the greatest finite number, −inf if there is none.
        dropped: how many of 52 bits of the fraction were dropped.
        max_distinct: 0 for no limit.
    """

    values: NDArray
    counts: NDArray[np.int64]
    texts: Mapping[str, int]
    missing: int
    low: float
    high: float
    dropped: int
    max_distinct: int

    @classmethod
    def empty(cls, max_distinct: int = MAX_DISTINCT) -> "Counts":
        """Counts of nothing."""
        none = np.zeros(0, np.int64)
        return cls(none, none, {}, 0, math.inf, -math.inf, 0, max_distinct)

    @property
    def total(self) -> int:
        """How many values were counted, the missing included."""
        return self.missing + int(self.counts.sum()) + sum(self.texts.values())

    def update(self, values: ArrayLike, weights: ArrayLike | None = None, name: str = "values"):
        """These counts and those of further values.

        Args:
            values: as for `read`.
            weights: how often each is to be counted; once if None.
            name: what to call the values in an error.

        Returns:
            `Counts`.

        >>> Counts.empty().update([3.0, 1.0, None, 3.0]).values.tolist()
        [1.0, 3.0]
        """
        column = read(values, name)
        present = ~column.missing
        if weights is None:
            often, missing = None, int(column.missing.sum())
        else:
            often = np.asarray(weights, np.int64)
            missing = int(often[column.missing].sum())
            often = often[present]
        base = Counts.empty(self.max_distinct)._replace(missing=missing)
        chosen = column.values[present].ravel()
        if column.is_text:
            texts: dict[str, int] = dict(collections.Counter(chosen.tolist()))
            if often is not None:
                texts = {}
                for text, repeat in zip(chosen.tolist(), often.tolist(), strict=True):
                    texts[text] = texts.get(text, 0) + repeat
            return self.merge(base._replace(texts=texts), name)
        if often is None:
            distinct, counts = np.unique(chosen, return_counts=True)
        else:
            distinct, counts = _summed(chosen, often)
        if distinct.dtype.kind == "f":
            distinct = distinct + 0.0  # -0.0 is 0.0
        finite = distinct[np.isfinite(distinct)]
        low, high = (float(finite[0]), float(finite[-1])) if len(finite) else (math.inf, -math.inf)
        base = base._replace(values=distinct, counts=counts.astype(np.int64), low=low, high=high)
        return self.merge(base._limited(0), name)

    def merge(self, other: "Counts", name: str = "values") -> "Counts":
        """The counts of both; merging is commutative and associative to the bit.

        Raises:
            ValueError: one counts numbers and the other text, or their limits differ.
        """
        if self.max_distinct != other.max_distinct:
            raise ValueError(
                f"max_distinct is {self.max_distinct} here and {other.max_distinct} there, wanted one"
            )
        merged_texts: Mapping[str, int] = self.texts or other.texts
        if self.texts and other.texts:
            merged = dict(self.texts)
            for text, count in other.texts.items():
                merged[text] = merged.get(text, 0) + count
            merged_texts = merged
        if merged_texts and (len(self.values) or len(other.values)):
            number = (self.values if len(self.values) else other.values)[0]
            raise ValueError(
                f"{name} holds {next(iter(merged_texts))!r} in one chunk and {number} in another, "
                "wanted all numbers or all text"
            )
        dropped = max(self.dropped, other.dropped)
        if not len(self.values) or not len(other.values):
            filled = self if len(self.values) else other
            values, counts = filled.values, filled.counts
        else:
            parts = [each._limited(dropped) for each in (self, other)]
            dtype = np.result_type(*(part.values.dtype for part in parts))
            if dtype == np.float64 and all(part.values.dtype.kind in "iu" for part in parts):
                # int64 and uint64: NumPy's answer would lose digits of ids that one of them holds.
                dtype = np.dtype(np.uint64 if min(self.low, other.low) >= 0 else np.float64)
            values, counts = _summed(
                np.concatenate([part.values.astype(dtype) for part in parts]),
                np.concatenate([part.counts for part in parts]),
            )
        low, high = min(self.low, other.low), max(self.high, other.high)
        both = Counts(
            values, counts, merged_texts, self.missing + other.missing, low, high, dropped,
            self.max_distinct,
        )  # fmt: skip
        return both._limited(dropped)

    def numbers(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The finite numbers in rising order, and how often each occurs.

        Raises:
            ValueError: there are none, or the column is text.
        """
        if self.texts:
            raise ValueError(
                f"values holds text such as {next(iter(self.texts))!r}, wanted numbers"
            )
        values = self.values.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.any():
            raise ValueError(f"values has no finite number among {self.total}, wanted at least one")
        # Two integers beyond 2⁵³ may be one float64.
        values, counts = _summed(values[finite], self.counts[finite])
        if self.dropped:
            values = np.clip(values, self.low, self.high)
        return values, counts

    def as_column(self) -> tuple[Column, NDArray[np.int64]]:
        """Each distinct value once, then one that is missing, and how often each occurs."""
        if self.texts:
            values = np.array([*self.texts, ""], object)
            weights = np.array([*self.texts.values(), self.missing], np.int64)
        else:
            seen = self.values
            if self.dropped:
                seen = np.where(np.isfinite(seen), np.clip(seen, self.low, self.high), seen)
            nothing = np.nan if seen.dtype.kind == "f" else 0
            values = np.append(seen, np.array(nothing, seen.dtype))
            weights = np.append(self.counts, np.int64(self.missing))
        gone = np.zeros(len(values), bool)
        gone[-1] = True
        return Column(values, gone), weights

    def _limited(self, dropped: int) -> "Counts":
        """At most `max_distinct` values, and at least so many bits dropped."""
        over = self.max_distinct and len(self.values) > self.max_distinct
        if not over and dropped <= self.dropped:
            return self
        values = self.values.astype(np.float64)
        finite = np.isfinite(values)
        endless, endless_counts = values[~finite], self.counts[~finite]
        keys, counts = _ordered(values[finite]), self.counts[finite]
        bits = dropped
        cells, sums = _summed(keys >> bits, counts)
        while len(cells) + len(endless) > self.max_distinct and bits < 52:
            bits += 1
            cells, sums = _summed(cells >> 1, sums)
        middle = _unordered((cells << bits) + ((1 << bits) >> 1))
        values = np.concatenate([middle, endless])
        order = np.argsort(values, kind="stable")
        return self._replace(
            values=values[order], counts=np.concatenate([sums, endless_counts])[order], dropped=bits
        )


def _summed(values: NDArray, counts: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.int64]]:
    """Distinct values in rising order, and the sum of the counts of each."""
    if not len(values):
        return values, counts.astype(np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], np.add.reduceat(counts[order], starts).astype(np.int64)


def _ordered(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """float64 as integers of the same order: the bits, those below the sign turned for negatives."""
    bits = np.ascontiguousarray(values).view(np.int64)
    return bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))


def _unordered(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    bits = keys ^ ((keys >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
    return bits.view(np.float64)
