"""`Counts`: how often each value of a column occurs.

Every transform is fitted from `Counts`, the column as a multiset. Counts of chunks can be merged in any
order, on any number of machines, with the same bits in the end; and a chain of transforms is fitted in one
pass, because the second transform sees the image of the multiset under the first.
"""

import collections
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.validation.columns import Column, integers, read_column

__all__ = ["Counts"]

_NONE = np.zeros(0, np.int64)


class Counts(NamedTuple):
    """How often each value of a column occurs; `Counts()` counts nothing.

    Attributes:
        values: [D] distinct values, ascending: int64, uint64 or float64 numbers, or texts as objects.
            Integers that need 64 bits and a sign are objects, too.
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
        return bool(len(self.values)) and isinstance(self.values[0], str)

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

        Integers stay exact beside floats that are whole, too; beside others they become floats.

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
        values = _joined(self.values, other.values)
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
        dtype, kind, nothing = self.values.dtype, "INT", np.zeros(1, self.values.dtype)
        if self.is_text or dtype.kind == "f":
            kind = "BYTES" if self.is_text else "FLOAT"
            nothing = np.array(["" if self.is_text else np.nan], dtype)
        values = np.append(self.values, nothing)
        missing = np.arange(len(values)) == len(self.values)
        return Column("values", kind, values, missing), np.append(self.counts, self.missing)


def _joined(first: NDArray, second: NDArray) -> NDArray:
    """Returns both arrays as one that holds the integers exactly, unless there are fractions."""
    if first.dtype == second.dtype:
        return np.concatenate([first, second])
    parts = first, second
    floats = [part.astype(np.float64) for part in parts]
    exact = all(one.tolist() == part.tolist() for one, part in zip(floats, parts, strict=True))
    of_floats = [part for part in parts if part.dtype.kind == "f"]
    if of_floats and (exact or not all(map(_are_integers, of_floats))):
        return np.concatenate(floats)
    return integers([int(value) for part in parts for value in part.tolist()])


def _are_integers(values: NDArray[np.float64]) -> bool:
    """Returns whether ascending floats are integers of at most 64 bits."""
    inside = -(2.0**63) <= values[0] and values[-1] < 2.0**64
    return bool(inside and (np.floor(values) == values).all())


def _summed(values: NDArray, counts: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.int64]]:
    """Returns distinct values, ascending, and the sum of the counts of each."""
    if not len(values):
        return values, counts.astype(np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], np.add.reduceat(counts[order], starts).astype(np.int64)
