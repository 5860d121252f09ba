"""A gate on feature engineering: are these features what a model can learn from?"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.features.pipeline import FeaturePipeline

__all__ = ["Finding", "check"]

Kind = Literal[
    "not_finite", "out_of_range", "too_large", "constant", "out_of_vocabulary", "hash_collisions"
]

# Rounding takes a value over the end of its range, by a few parts in 2²⁴.
_ROUNDING = 1e-5


class Finding(NamedTuple):
    """Something that is wrong with a feature.

    Attributes:
        feature: its name.
        kind: "not_finite", "out_of_range", "too_large", "constant", "out_of_vocabulary" or
            "hash_collisions".
        value: what was measured: a share of rows, a magnitude, a number of different values.
        limit: what it was to stay within.
        message: what it means and what to do, in words.
    """

    feature: str
    kind: Kind
    value: float
    limit: float
    message: str

    def __str__(self) -> str:
        return f"{self.feature} · {self.kind.replace('_', ' ')}: {self.message}"


def check(
    pipeline: FeaturePipeline,
    columns: Mapping[str, ArrayLike],
    *,
    max_not_finite: float = 0.0,
    max_out_of_range: float = 0.01,
    max_magnitude: float = 20.0,
    max_out_of_vocabulary: float = 0.05,
    max_hash_collisions: float = 0.05,
) -> list[Finding]:
    """Looks at every feature that a fitted pipeline makes of a table, and says what is wrong with it.

    - not_finite: the share of rows with a NaN or an infinity in the feature.
    - out_of_range: the share of rows outside the range that the transform promises ([low, high] of
      `linear_scaling`), or whose id `one_hot` has no place for: the table is not like the one that was
      fitted on.
    - too_large: the greatest magnitude, where no range is promised. A number of 2,000 beside one of
      0.5 makes the learning rate fit neither.
    - constant: all rows alike (of two rows or more); nothing can be learned from it.
    - out_of_vocabulary: the share of the rows whose category is there but was not in the vocabulary.
    - hash_collisions: the share of rows that are taken for another category: in each bucket all but
      those of the most frequent key.

    Args:
        pipeline: a fitted one.
        columns: a table of N ≥ 1 rows, best one that was not fitted on.
        max_not_finite: share in [0, 1].
        max_out_of_range: share in [0, 1].
        max_magnitude: > 0.
        max_out_of_vocabulary: share in [0, 1].
        max_hash_collisions: share in [0, 1].

    Returns:
        `Finding`s in the order of the features; an empty list if all is well.

    Raises:
        ValueError: an unfitted pipeline, an empty table, or a column that cannot be read.

    Example:
        >>> from jaxml.features.scaling import clipping
        >>> pipeline = FeaturePipeline({"miles": clipping(low=0)}).fit({"miles": [1.0, 2000.0]})
        >>> [(found.kind, found.value) for found in check(pipeline, {"miles": [5.0, 2500.0]})]
        [('too_large', 2500.0)]
    """
    encoded = pipeline.encode(columns)
    features = {name: np.asarray(values) for name, values in pipeline.apply(encoded).items()}
    num_rows = next(iter(features.values())).shape[:1]
    if num_rows == (0,):
        raise ValueError("columns are empty, wanted at least one row")
    hashed = pipeline.hashed(columns)
    findings = []

    def found(name: str, kind: Kind, value: Any, limit: float, message: str) -> None:
        findings.append(Finding(name, kind, float(value), limit, message))

    for name, values in features.items():
        output = pipeline.output(name)
        transforms = pipeline.chain(name)[1]
        is_vector = bool(transforms) and transforms[-1].gives == "vector"
        rows = values.reshape(-1, values.shape[-1] if is_vector else 1)
        finite = np.isfinite(rows)
        lost = 1 - finite.all(1).mean()
        if lost > max_not_finite:
            found(
                name, "not_finite", lost, max_not_finite,
                f"{lost:.1%} of the rows are NaN or infinite: put imputation or clipping first, "
                "and a missing_indicator beside it",
            )  # fmt: skip
        some = np.where(finite, rows, 0)
        if rows.dtype.kind == "f":
            bounded = np.isfinite(output.low) and np.isfinite(output.high)
            if bounded:
                room = _ROUNDING * max(abs(output.low), abs(output.high))
                beyond = finite & ((some < output.low - room) | (some > output.high + room))
                share = beyond.any(1).mean()
                if share > max_out_of_range:
                    found(
                        name, "out_of_range", share, max_out_of_range,
                        f"{share:.1%} of the rows lie outside [{output.low:g}, {output.high:g}], from "
                        f"{some.min():.3g} to {some.max():.3g}: fit on data like this, or clip first",
                    )  # fmt: skip
            if is_vector:
                nowhere = 1 - rows.any(1).mean()
                if nowhere > max_out_of_range:
                    found(
                        name, "out_of_range", nowhere, max_out_of_range,
                        f"{nowhere:.1%} of the rows are vectors of zeros, their ids being none of the "
                        f"{output.width}: fit on data like this, or put a vocabulary before one_hot",
                    )  # fmt: skip
            largest = np.abs(some).max()
            promised = max(abs(output.low), abs(output.high)) if bounded else 0.0
            # What is out of a promised range has been said; a range that is itself too wide has not.
            if largest > max_magnitude and not 0 < promised <= max_magnitude:
                found(
                    name, "too_large", largest, max_magnitude,
                    f"the greatest magnitude is {largest:.4g}: scale it; `recommend` says how",
                )  # fmt: skip
        if len(rows) > 1:
            first = rows[finite.all(1)][:1]
            if not len(first) or (rows[finite.all(1)] == first).all():
                held = f"{first.ravel()[0]:g}" if first.size == 1 else "one vector"
                found(
                    name, "constant", float(len(first)), 2.0,
                    f"all rows hold {held if len(first) else 'nothing finite'}: leave it out",
                )  # fmt: skip
        low, high = output.out_of_vocabulary
        if high > low:
            ids = values if values.dtype.kind == "i" else encoded[name]
            unseen = np.mean((ids >= low) & (ids < high))
            if unseen > max_out_of_vocabulary:
                found(
                    name, "out_of_vocabulary", unseen, max_out_of_vocabulary,
                    f"{unseen:.1%} of the rows hold a category that has no id of its own: a larger "
                    "vocabulary, newer data to fit on, or hash_buckets",
                )  # fmt: skip
        if name in hashed:
            mistaken = _mistaken(*hashed[name])
            if mistaken > max_hash_collisions:
                found(
                    name, "hash_collisions", mistaken, max_hash_collisions,
                    f"{mistaken:.1%} of the rows share a bucket with a more frequent category: more "
                    "buckets, or another seed",
                )  # fmt: skip
    return findings


def _mistaken(keys: NDArray[np.uint64], ids: NDArray) -> float:
    """The share of rows that are not of their bucket's most frequent key."""
    keys, ids = np.ravel(keys), np.ravel(ids)
    order = np.lexsort((keys, ids))
    keys, ids = keys[order], ids[order]
    starts = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]) | (ids[1:] != ids[:-1])))
    counts = np.diff(np.append(starts, len(keys)))
    most = np.maximum.reduceat(counts, np.flatnonzero(np.append(True, np.diff(ids[starts]) != 0)))
    return float(1 - most.sum() / len(keys))
