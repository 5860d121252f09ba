"""`Counts`: how often each value of a column occurs.

Every transform is fitted from `Counts`, the column as a multiset. Counts of chunks can be merged in any
order, on any number of machines, with the same bits in the end; and a chain of transforms is fitted in one
pass, because the second transform sees the image of the multiset under the first.
"""

import collections
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.validation.columns import Column, read_column

__all__ = ["MAX_DISTINCT", "Counts"]

MAX_DISTINCT = 1 << 20
"""Distinct numbers of a column that are counted exactly; beyond, neighbours share a cell."""


class Counts(NamedTuple):
    """How often each value of a column occurs.

    Numbers are exact while there are at most `max_distinct` distinct ones. Beyond, the lowest bits of the
    float64 are dropped, as few as possible, and each cell is represented by its middle: the relative error
    is below 2^(dropped − 53). The number of dropped bits depends on the multiset alone, so the result does
    not depend on the order of the chunks. The least and the greatest value are exact.

    Attributes:
        values: [D] distinct numbers, ascending, int64, uint64 or float64; empty for text.
        counts: [D] int64.
        texts: count of each distinct text.
        missing: number of missing values.
        low: the least finite number, +inf if there is none.
        high: the greatest finite number, −inf if there is none.
        dropped: how many of the fraction's 52 bits were dropped.
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
        """Returns counts of nothing."""
        none = np.zeros(0, np.int64)
        return cls(none, none, {}, 0, math.inf, -math.inf, 0, max_distinct)

    @property
    def total(self) -> int:
        """The number of values, missing ones included."""
        return self.missing + int(self.counts.sum()) + sum(self.texts.values())

    def update(
        self, values: Any, weights: ArrayLike | None = None, name: str = "values"
    ) -> "Counts":
        """Returns these counts and those of further values.

        Args:
            values: a `Column`, or anything that `read_column` reads.
            weights: how often each value counts; once if None.
            name: of the values in an error.

        >>> Counts.empty().update([3.0, 1.0, None, 3.0]).values.tolist()
        [1.0, 3.0]
        """
        column = read_column(name, values)
        present = column.present
        often = np.ones(present.shape, np.int64) if weights is None else np.asarray(weights)
        missing = int(often[~present].sum())
        known, often = column.exact()[present], often[present]
        base = Counts.empty(self.max_distinct)._replace(missing=missing)
        if column.is_text:
            texts: dict[str, int] = collections.Counter()
            for text, repeat in zip(known.tolist(), often.tolist(), strict=True):
                texts[text] += repeat
            return self.merge(base._replace(texts=dict(texts)), name)
        distinct, counts = _summed(known, often)
        if distinct.dtype.kind == "f":
            distinct = distinct + 0.0  # -0.0 becomes 0.0
        finite = distinct[np.isfinite(distinct)]
        low, high = (float(finite[0]), float(finite[-1])) if len(finite) else (math.inf, -math.inf)
        base = base._replace(values=distinct, counts=counts, low=low, high=high)
        return self.merge(base._limited(0), name)

    def merge(self, other: "Counts", name: str = "values") -> "Counts":
        """Returns the counts of both; merging is commutative and associative to the bit.

        Raises:
            ValueError: one counts numbers and the other text, or their limits differ.
        """
        if self.max_distinct != other.max_distinct:
            raise ValueError(
                f"max_distinct must be equal, got {self.max_distinct} and {other.max_distinct}"
            )
        texts = {t: self.texts.get(t, 0) + n for t, n in other.texts.items()}
        texts = {**self.texts, **texts}
        if texts and (len(self.values) or len(other.values)):
            number = (self.values if len(self.values) else other.values)[0]
            raise ValueError(
                f"{name} must hold all numbers or all text, got {next(iter(texts))!r} in one chunk and "
                f"{number} in another"
            )
        dropped = max(self.dropped, other.dropped)
        if not len(self.values) or not len(other.values):
            filled = self if len(self.values) else other
            values, counts = filled.values, filled.counts
        else:
            parts = [each._limited(dropped) for each in (self, other)]
            dtype = np.result_type(*(part.values.dtype for part in parts))
            if dtype == np.float64 and all(part.values.dtype.kind in "iu" for part in parts):
                # int64 and uint64: float64 would lose digits of ids.
                dtype = np.dtype(np.uint64 if min(self.low, other.low) >= 0 else np.float64)
            values, counts = _summed(
                np.concatenate([part.values.astype(dtype) for part in parts]),
                np.concatenate([part.counts for part in parts]),
            )
        low, high = min(self.low, other.low), max(self.high, other.high)
        missing = self.missing + other.missing
        both = Counts(values, counts, texts, missing, low, high, dropped, self.max_distinct)
        return both._limited(dropped)

    def numbers(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns the finite numbers, ascending, and how often each occurs.

        Raises:
            ValueError: there are none, or the column is text.
        """
        if self.texts:
            raise ValueError(
                f"values must hold numbers, got texts such as {next(iter(self.texts))!r}"
            )
        values = self.values.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.any():
            raise ValueError(f"values must hold a finite number, got none in {self.total} rows")
        # Two integers beyond 2⁵³ may be one float64.
        values, counts = _summed(values[finite], self.counts[finite])
        return np.clip(values, self.low, self.high), counts

    def as_column(self) -> tuple[Column, NDArray[np.int64]]:
        """Returns each distinct value once, then a missing one, and how often each occurs."""
        seen: NDArray
        if self.texts:
            seen, nothing = np.array([*self.texts, ""], object), "BYTES"
            weights = np.array([*self.texts.values(), self.missing], np.int64)
        else:
            seen = self.values
            if self.dropped:
                seen = np.where(np.isfinite(seen), np.clip(seen, self.low, self.high), seen)
            nothing = "FLOAT" if seen.dtype.kind == "f" else "INT"
            last = np.array([np.nan if nothing == "FLOAT" else 0], seen.dtype)
            seen = np.concatenate([seen, last])
            weights = np.append(self.counts, np.int64(self.missing))
        missing = np.arange(len(seen)) == len(seen) - 1
        return Column("values", nothing, seen, missing), weights

    def _limited(self, dropped: int) -> "Counts":
        """At most `max_distinct` values, and at least so many bits dropped."""
        over = self.max_distinct and len(self.values) > self.max_distinct
        if not over and dropped <= self.dropped:
            return self
        values = self.values.astype(np.float64)
        finite = np.isfinite(values)
        endless, endless_counts = values[~finite], self.counts[~finite]
        bits = dropped
        cells, sums = _summed(_ordered(values[finite]) >> bits, self.counts[finite])
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
    """Returns distinct values, ascending, and the sum of the counts of each."""
    if not len(values):
        return values, counts.astype(np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], np.add.reduceat(counts[order], starts).astype(np.int64)


def _ordered(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns integers in the order of the numbers: the bits, inverted below the sign for negatives."""
    bits = np.ascontiguousarray(values).view(np.int64)
    return bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))


def _unordered(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    bits = keys ^ ((keys >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
    return bits.view(np.float64)
