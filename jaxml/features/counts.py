"""`Counts`: how often each value of a column occurs.

Every transform is fitted from `Counts`, the column as a multiset. Counts of chunks can be merged in any
order, on any number of machines, with the same bits in the end; and a chain of transforms is fitted in one
pass, because the second transform sees the image of the multiset under the first.
"""

import collections
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.validation.columns import Column, read_column

__all__ = ["Counts"]

_NONE = np.zeros(0, np.int64)


class Counts(NamedTuple):
    """How often each value of a column occurs; `Counts()` counts nothing.

    Attributes:
        values: [D] distinct values, ascending: int64, uint64 or float64 numbers, or texts as objects.
        counts: [D] int64.
        missing: number of missing values.
    """

    values: NDArray = _NONE
    counts: NDArray[np.int64] = _NONE
    missing: int = 0

    @property
    def total(self) -> int:
        """The number of values, missing ones included."""
        return self.missing + int(self.counts.sum())

    @property
    def is_text(self) -> bool:
        """Whether texts are counted."""
        return bool(len(self.values)) and self.values.dtype == object

    def update(
        self, values: Any, weights: ArrayLike | None = None, name: str = "values"
    ) -> "Counts":
        """Returns these counts and those of further values.

        Args:
            values: a `Column`, or anything that `read_column` reads.
            weights: how often each number counts; once if None.
            name: of the values in an error.

        >>> Counts().update([3.0, 1.0, None, 3.0]).values.tolist()
        [1.0, 3.0]
        """
        column = read_column(name, values)
        present = column.present
        often = np.ones(present.shape, np.int64) if weights is None else np.asarray(weights)
        missing = int(often[~present].sum())
        known, often = column.exact()[present], often[present]
        if column.is_text:  # a dictionary is faster than sorting texts
            texts = collections.Counter(known.tolist())
            known, often = np.array([*texts], object), np.array([*texts.values()], np.int64)
        elif known.dtype.kind == "f":
            known = known + 0.0  # -0.0 becomes 0.0
        return self.merge(Counts(*_summed(known, often), missing), name)

    def merge(self, other: "Counts", name: str = "values") -> "Counts":
        """Returns the counts of both; merging is commutative and associative to the bit.

        Raises:
            ValueError: one counts numbers and the other text.
        """
        missing = self.missing + other.missing
        if not len(self.values) or not len(other.values):
            return (self if len(self.values) else other)._replace(missing=missing)
        if self.is_text != other.is_text:
            text, number = (self, other) if self.is_text else (other, self)
            raise ValueError(
                f"{name} must hold all numbers or all text, got {text.values[0]!r} in one chunk and "
                f"{number.values[0]} in another"
            )
        parts = self.values, other.values
        dtype = np.result_type(*parts)
        if dtype == np.float64 and all(part.dtype.kind in "iu" for part in parts):
            # int64 and uint64: float64 would lose digits of ids.
            dtype = np.dtype(np.uint64 if min(part[0] for part in parts) >= 0 else np.float64)
        values = np.concatenate([part.astype(dtype) for part in parts])
        return Counts(*_summed(values, np.concatenate([self.counts, other.counts])), missing)

    def numbers(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns the finite numbers, ascending, and how often each occurs.

        Raises:
            ValueError: there are none, or the column is text.
        """
        if self.is_text:
            raise ValueError(f"values must hold numbers, got texts such as {self.values[0]!r}")
        values = self.values.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.any():
            raise ValueError(f"values must hold a finite number, got none in {self.total} rows")
        # Two integers beyond 2⁵³ may be one float64.
        return _summed(values[finite], self.counts[finite])

    def as_column(self) -> tuple[Column, NDArray[np.int64]]:
        """Returns each distinct value once, then a missing one, and how often each occurs."""
        dtype = self.values.dtype
        kind, nothing = {"O": ("BYTES", ""), "f": ("FLOAT", np.nan)}.get(dtype.kind, ("INT", 0))
        values = np.append(self.values, np.array([nothing], dtype))
        missing = np.arange(len(values)) == len(self.values)
        return Column("values", kind, values, missing), np.append(self.counts, self.missing)


def _summed(values: NDArray, counts: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.int64]]:
    """Returns distinct values, ascending, and the sum of the counts of each."""
    if not len(values):
        return values, counts.astype(np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], np.add.reduceat(counts[order], starts).astype(np.int64)
