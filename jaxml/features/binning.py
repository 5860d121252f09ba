"""Numbers to bucket ids: for columns whose effect is not linear, such as a latitude or an hour.

With boundaries b₁ < … < b_k bucket 0 holds x < b₁, bucket i holds bᵢ ≤ x < bᵢ₊₁ (a value on a boundary goes
right) and bucket k holds b_k ≤ x. Missing values have a bucket of their own, k + 1.

References:
    Google's Machine Learning Crash Course, "Numerical data: Binning".
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.features.counts import Counts
from jaxml.features.scaling import quantile
from jaxml.features.transform import Output, Transform
from jaxml.validation.columns import Column

__all__ = ["bucketize", "quantile_buckets", "uniform_buckets"]


class Buckets(NamedTuple):
    """State of all transforms to buckets: float64 boundaries, strictly ascending."""

    boundaries: NDArray[np.float64]


class _Buckets(Transform):
    gives = "id"
    State = Buckets

    def run(self, state: Buckets, column: Column) -> NDArray[np.int32]:
        x = column.numbers()
        ids = np.searchsorted(state.boundaries, x, side="right")
        return np.where(np.isnan(x), len(state.boundaries) + 1, ids).astype(np.int32)

    def output(self, state: Buckets) -> Output:
        return Output(len(state.boundaries) + 2)


@dataclasses.dataclass(frozen=True, repr=False)
class _Fitted(_Buckets):
    num_buckets: int

    def __post_init__(self) -> None:
        self._set(num_buckets=checks.integer("num_buckets", self.num_buckets, at_least=1))


@dataclasses.dataclass(frozen=True, repr=False)
class bucketize(_Buckets):
    """The number of boundaries that are at most x: ids in [0, k], and k + 1 for a missing value.

    Args:
        boundaries: k ≥ 1 finite numbers, strictly ascending.

    Example:
        >>> transform = bucketize([0, 10])
        >>> transform.apply(transform.fit([5.0]), [-1, 0, 9.9, 10, float("nan")])
        array([0, 1, 1, 2, 3], dtype=int32)
    """

    boundaries: Sequence[float]

    reads = False

    def __post_init__(self) -> None:
        try:
            edges = np.asarray(self.boundaries, np.float64)
        except (TypeError, ValueError):
            edges = np.zeros(0)
        rising = edges.ndim == 1 and np.isfinite(edges).all() and (np.diff(edges) > 0).all()
        if not (rising and edges.size):
            raise ValueError(
                "boundaries must be one or more finite numbers, strictly ascending, "
                f"got {self.boundaries!r}"
            )
        self._set(boundaries=tuple(edges.tolist()))

    def fitted(self, counts: Counts) -> Buckets:
        return Buckets(np.array(self.boundaries))


@dataclasses.dataclass(frozen=True, repr=False)
class quantile_buckets(_Fitted):
    """Buckets that hold equally many values: for skewed columns and clusters.

    Boundaries are the quantiles 1/n, …, (n − 1)/n of the finite values; equal ones are merged, and none is
    at or below the least value, so no bucket was empty in fitting. There may be fewer than n.

    Args:
        num_buckets: n ≥ 1.

    Example:
        >>> transform = quantile_buckets(2)
        >>> transform.apply(transform.fit([1, 2, 3, 1000]), [1, 2.5, 1000])
        array([0, 1, 1], dtype=int32)
    """

    def fitted(self, counts: Counts) -> Buckets:
        values, often = counts.numbers()
        inner = np.linspace(0, 1, self.num_buckets + 1)[1:-1]
        edges = np.unique(quantile(values, often, inner))
        # Drop edges that separate no values: below all of them, or between the same two as another.
        right = np.searchsorted(values, edges)
        return Buckets(edges[(right > 0) & (np.diff(right, prepend=0) > 0)])


@dataclasses.dataclass(frozen=True, repr=False)
class uniform_buckets(_Fitted):
    """Buckets of equal width between the least and the greatest value seen.

    Values beyond these go into the first and the last bucket. A constant column has one bucket.

    Args:
        num_buckets: n ≥ 1.

    Example:
        >>> transform = uniform_buckets(4)
        >>> transform.apply(transform.fit([0, 1, 8]), [-3, 1, 2, 8])
        array([0, 0, 1, 3], dtype=int32)
    """

    def fitted(self, counts: Counts) -> Buckets:
        values, _ = counts.numbers()
        shares = np.linspace(0, 1, self.num_buckets + 1)[1:-1]
        # Multiply first: the width of float64's whole range is not a float64.
        edges = np.unique(values[0] * (1 - shares) + values[-1] * shares)
        return Buckets(edges[(edges > values[0]) & (edges <= values[-1])])
