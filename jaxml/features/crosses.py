"""Crosses: one category for each combination of several columns, hashed into buckets.

A linear model can learn that flights of a carrier are late, and that evenings are; that this carrier is
late in the evening it can learn from a cross alone.

Source: Google's Machine Learning Crash Course, "Categorical data: Feature crosses".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import hashing
from jaxml.features.categories import hashes, num_buckets_and_seed
from jaxml.features.columns import Counts
from jaxml.features.transform import Output, Transform, make

__all__ = ["cross"]


def keys(parts: Sequence[Any], seed: int) -> NDArray[np.uint64]:
    """The 64-bit hash of each combination.

    Args:
        parts: columns of one shape, as for `columns.read`.
        seed: of the hash.

    Returns:
        uint64 of that shape.

    Raises:
        ValueError: columns of different shapes.
    """
    each = [hashes(part, f"column {place}") for place, part in enumerate(parts)]
    if len({part.shape for part in each}) > 1:
        raise ValueError(f"columns have shapes {[part.shape for part in each]}, wanted one")
    return hashing.combine(each, seed)


def cross(columns: Sequence[str], num_buckets: int, *, seed: int = 0) -> Transform:
    """The combination of several columns' values, in one of n buckets.

        h₀ = mix(seed),  hₖ = mix(hₖ₋₁ · M + hash(valueₖ))

    Every value is hashed by itself, so ("a", "bc") and ("ab", "c") differ, and so do ("a", "b") and
    ("b", "a"). What is missing counts as one more value. See `hashing` for `hash`.

    Args:
        columns: two names or more. In a `FeaturePipeline` the name of a feature that is ids (of bins, a
            vocabulary, hash buckets) stands for these ids, any other for the values of that column:
            numbers are crossed by bins where they have some.
        num_buckets: n in [1, 2³¹ − 1).
        seed: of the hash, in [0, 2⁶⁴).

    Returns:
        A `Transform` of a mapping of names to columns (or of the columns in order) of one shape, on the
        host, to int32 ids in [0, n).

    Raises:
        ValueError: fewer than two columns, an argument out of range, or columns missing or of different
            shapes.

    Example:
        >>> transform = cross(["carrier", "hour"], 1000)
        >>> table = {"carrier": ["UA", "UA", "B6"], "hour": [5, 6, 5]}
        >>> transform.apply(transform.fit(table), table)
        array([822, 818, 757], dtype=int32)
    """
    if isinstance(columns, str) or not np.iterable(columns):
        raise ValueError(f"columns is {columns!r}, wanted at least two names")
    for name in columns:
        if not isinstance(name, str):
            raise ValueError(f"columns holds {name!r}, wanted names of columns or features")
    names = [str(name) for name in columns]
    if len(names) < 2:
        raise ValueError(f"columns is {columns!r}, wanted at least two names")
    num_buckets, seed = num_buckets_and_seed(num_buckets, seed)

    def parts(values: Any) -> list[Any]:
        if isinstance(values, Mapping):
            for name in names:
                if name not in values:
                    raise ValueError(f"values has no column {name!r}, wanted {names}")
            return [values[name] for name in names]
        given = list(values)
        if len(given) != len(names):
            raise ValueError(f"values has {len(given)} columns, wanted {len(names)}: {names}")
        return given

    def fit(values: Any) -> tuple[()]:
        if not keys(parts(values), seed).size:
            raise ValueError("values is empty, wanted at least one row")
        return ()

    def apply(state: tuple[()], values: Any) -> NDArray[np.int32]:
        return hashing.buckets(keys(parts(values), seed), num_buckets)

    def update(counts: Counts, values: Any) -> Counts:
        return counts._replace(missing=counts.missing + keys(parts(values), seed).size)

    made = make(
        "cross",
        {"columns": names, "num_buckets": num_buckets, "seed": seed},
        lambda counts: (),
        apply,
        lambda xp, state, values: apply(state, values),
        lambda state: Output(num_buckets),
        gives="id",
        stage="host",
        reads=False,
    )
    return made._replace(fit=fit, update=update)
