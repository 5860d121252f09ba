"""Numbers to bucket ids: for columns whose effect is no line, such as a latitude or an hour.

With boundaries b₁ < … < b_k bucket 0 holds x < b₁, bucket i holds bᵢ ≤ x < bᵢ₊₁ (a value on a boundary
goes right) and bucket k holds b_k ≤ x. What is missing has a bucket of its own, k + 1: it is neither
small nor large, and a model may learn what it means.

On the host values are compared in float64, exactly; under JAX both sides are float32, rounded alike, so
that a value on a boundary still goes right.

Source: Google's Machine Learning Crash Course, "Numerical data: Binning".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.features.columns import Counts, numbers
from jaxml.features.options import integer
from jaxml.features.scaling import quantile
from jaxml.features.transform import Output, Transform, make, run, split

__all__ = ["bucketize", "quantile_buckets", "uniform_buckets"]

_FEW = 32  # boundaries that are compared all at once; of 64 that takes a hundred times as long


class Buckets(NamedTuple):
    """Of all transforms to buckets.

    Attributes:
        boundaries: float64 [k], strictly rising.
    """

    boundaries: Any


def _bucket_ids(xp: Any, state: Buckets, values: Any) -> Any:
    """On the host float64 values, on a device a `Pair` or an array."""
    if xp is np:
        wide = numbers(values)
        found = np.searchsorted(state.boundaries, wide, side="right")
        return np.where(np.isnan(wide), len(state.boundaries) + 1, found).astype(np.int32)
    x = split(values, False).value
    boundaries = jnp.asarray(state.boundaries, jnp.float32)
    ids = jnp.zeros(x.shape, jnp.int32)
    if boundaries.size:
        method = "compare_all" if boundaries.size <= _FEW else "scan"
        ids = jnp.searchsorted(boundaries, x, side="right", method=method)
    return jnp.where(jnp.isnan(x), boundaries.size + 1, ids).astype(jnp.int32)


def _buckets(
    name: str,
    options: Mapping[str, Any],
    finish: Callable[[Counts], Buckets],
    *,
    reads: bool = True,
) -> Transform:
    def apply(state: Buckets, values: Any) -> Any:
        return (
            run(_bucket_ids, state, values)
            if isinstance(values, jax.Array)
            else _bucket_ids(np, state, values)
        )

    def output(state: Buckets) -> Output:
        return Output(len(state.boundaries) + 2)

    return make(
        name, options, finish, apply, _bucket_ids, output, gives="id", stage="host", reads=reads
    )


def bucketize(boundaries: Sequence[float]) -> Transform:
    """The number of boundaries that are at most x: buckets that a person has chosen.

    Args:
        boundaries: k ≥ 1 finite numbers, strictly rising.

    Returns:
        A `Transform` of numbers to int32 ids in [0, k], and k + 1 for NaN.

    Raises:
        ValueError: no boundary, one that is not finite, or a wrong order.

    Example:
        >>> transform = bucketize([0, 10])
        >>> transform.apply(transform.fit([5.0]), [-1, 0, 9.9, 10, float("nan")])
        array([0, 1, 1, 2, 3], dtype=int32)
    """
    try:
        edges = np.asarray(boundaries, np.float64)
    except (TypeError, ValueError):
        edges = np.zeros(0)
    if (
        edges.ndim != 1
        or not edges.size
        or not np.isfinite(edges).all()
        or (np.diff(edges) <= 0).any()
    ):
        raise ValueError(
            f"boundaries is {boundaries!r}, wanted at least one finite number, strictly rising"
        )
    return _buckets(
        "bucketize",
        {"boundaries": edges.tolist()},
        lambda counts: Buckets(edges),
        reads=False,
    )


def quantile_buckets(num_buckets: int) -> Transform:
    """Buckets that hold as many values each: for skewed columns and clusters.

    Boundaries are the quantiles 1/n, …, (n − 1)/n of the finite values, `numpy.quantile`'s; equal ones
    are one, and none is at or below the least value, so that no bucket was empty in fitting; n is what
    is hoped for, `state.boundaries` what came of it. Exact up to 2²⁰ distinct values; beyond, a boundary
    may be off by the width of a cell (`Counts` states it).

    Args:
        num_buckets: n ≥ 1.

    Returns:
        A `Transform` of numbers to int32 ids: below n, and one more than the last for NaN.

    Raises:
        ValueError: no bucket.

    Example:
        >>> transform = quantile_buckets(2)
        >>> transform.apply(transform.fit([1, 2, 3, 1000]), [1, 2.5, 1000])
        array([0, 1, 1], dtype=int32)
    """
    num_buckets = integer("num_buckets", num_buckets, 1)

    def finish(counts: Counts) -> Buckets:
        values, often = counts.numbers()
        inner = np.linspace(0, 1, num_buckets + 1)[1:-1]
        edges = np.unique(quantile(values, often, inner))
        # Two edges between the same two values part nothing, nor does one before them all.
        right = np.searchsorted(values, edges)
        return Buckets(edges[(right > 0) & (np.diff(right, prepend=0) > 0)])

    return _buckets("quantile_buckets", {"num_buckets": num_buckets}, finish)


def uniform_buckets(num_buckets: int) -> Transform:
    """Buckets as wide as each other, between the least and the greatest value seen.

    Args:
        num_buckets: n ≥ 1.

    Returns:
        A `Transform` of numbers to int32 ids in [0, n), and n for NaN; what lies beyond the values seen
        goes into the first and the last. A constant column has one bucket.

    Raises:
        ValueError: no bucket.

    Example:
        >>> transform = uniform_buckets(4)
        >>> transform.apply(transform.fit([0, 1, 8]), [-3, 1, 2, 8])
        array([0, 0, 1, 3], dtype=int32)
    """
    num_buckets = integer("num_buckets", num_buckets, 1)

    def finish(counts: Counts) -> Buckets:
        values, _ = counts.numbers()
        shares = np.linspace(0, 1, num_buckets + 1)[1:-1]
        # Halves first: the range of float64 itself does not fit float64.
        edges = np.unique(values[0] * (1 - shares) + values[-1] * shares)
        return Buckets(edges[(edges > values[0]) & (edges <= values[-1])])

    return _buckets("uniform_buckets", {"num_buckets": num_buckets}, finish)
