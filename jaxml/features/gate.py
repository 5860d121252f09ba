"""`check`: a gate on the features that a fitted pipeline makes of a table."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.features.pipeline import FeaturePipeline

__all__ = ["Finding", "check"]

Kind = Literal[
    "not_finite", "out_of_range", "too_large", "constant", "out_of_vocabulary", "hash_collisions"
]

_ROUNDING = 1e-5  # float32 may exceed the end of a range by a few parts in 2²⁴


class Finding(NamedTuple):
    """A fault of a feature.

    Attributes:
        feature: its name.
        kind: "not_finite", "out_of_range", "too_large", "constant", "out_of_vocabulary" or
            "hash_collisions".
        value: the measured share of rows, magnitude, or number of different values.
        limit: the limit that it exceeds.
        message: the fault and a remedy in words.
    """

    feature: str
    kind: Kind
    value: float
    limit: float
    message: str

    def __repr__(self) -> str:
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
    """Returns the faults of the features that a fitted pipeline makes of a table.

    - not_finite: the share of rows with a NaN or an infinity.
    - out_of_range: the share of rows outside the transform's range ([low, high] of `linear_scaling`), or
      whose id is outside `one_hot`'s depth: the table differs from the one that was fitted on.
    - too_large: the greatest magnitude, where the transform has no range. No learning rate fits a feature
      of 2,000 beside one of 0.5.
    - constant: all rows (two or more) are equal, so nothing can be learned from them.
    - out_of_vocabulary: the share of rows whose category has no id of its own.
    - hash_collisions: the share of rows that share a bucket with a more frequent category.

    Args:
        pipeline: a fitted pipeline.
        columns: a table of N ≥ 1 rows, best one that was not fitted on.
        max_not_finite, max_out_of_range, max_out_of_vocabulary, max_hash_collisions: shares in [0, 1].
        max_magnitude: > 0.

    Returns:
        `Finding`s in the order of the features; an empty list if there are none.

    Raises:
        ValueError: an unfitted pipeline, an empty table, or a column that cannot be read.

    Example:
        >>> from jaxml.features import clipping
        >>> pipeline = FeaturePipeline({"miles": clipping(low=0)}).fit({"miles": [1.0, 2000.0]})
        >>> [(found.kind, found.value) for found in check(pipeline, {"miles": [5.0, 2500.0]})]
        [('too_large', 2500.0)]
    """
    if not isinstance(pipeline, FeaturePipeline):
        raise ValueError(f"pipeline must be a FeaturePipeline, got {pipeline!r:.60}")
    features = pipeline.encode(columns)
    if not next(iter(features.values())).size:
        raise ValueError("columns must hold at least one row, got none")
    collisions: dict[str, float] = {}
    unseen: dict[str, float] = {}
    several: set[str] = set()
    for name, transform, before, after in pipeline.steps(columns):
        keys = transform.keys(before)
        if keys is not None:
            collisions[name] = _collisions(keys, after)
        low, high = pipeline.output(name).out_of_vocabulary
        if high > low and transform.gives == "id":
            unseen[name] = float(np.mean((after >= low) & (after < high)))
        if transform.gives in ("vector", "ids"):
            several.add(name)
    findings: list[Finding] = []

    def add(kind: Kind, value: float, limit: float, message: str) -> None:
        findings.append(Finding(name, kind, value, limit, message))

    for name, values in features.items():
        rows = values.reshape(-1, values.shape[-1] if name in several else 1)
        finite = np.isfinite(rows)
        if values.dtype.kind == "f":
            lost = float(1 - finite.all(1).mean())
            if lost > max_not_finite:
                message = (
                    f"{lost:.1%} of the rows are NaN or infinite: put imputation or clipping first, and "
                    "a missing_indicator beside it"
                )
                add("not_finite", lost, max_not_finite, message)
            output, some = pipeline.output(name), np.where(finite, rows, 0)
            ends = max(abs(output.low), abs(output.high))
            if np.isfinite(ends):
                slack = _ROUNDING * ends
                beyond = finite & ((some < output.low - slack) | (some > output.high + slack))
                share = float(beyond.any(1).mean())
                if share > max_out_of_range:
                    message = (
                        f"{share:.1%} of the rows are outside [{output.low:g}, {output.high:g}], from "
                        f"{some.min():.3g} to {some.max():.3g}: fit on data like this, or clip first"
                    )
                    add("out_of_range", share, max_out_of_range, message)
            if output.width > 1 and (share := float(1 - rows.any(1).mean())) > max_out_of_range:
                message = (
                    f"{share:.1%} of the rows are vectors of zeros, because their ids are not below "
                    f"{output.width}: fit on data like this, or put a vocabulary before one_hot"
                )
                add("out_of_range", share, max_out_of_range, message)
            largest = float(np.abs(some).max())
            # Values outside a range are reported above; a range that is itself too wide is not.
            if largest > max_magnitude and not 0 < ends <= max_magnitude:
                message = f"the greatest magnitude is {largest:.4g}: scale it (see `recommend`)"
                add("too_large", largest, max_magnitude, message)
        known = rows[finite.all(1)]
        if len(rows) > 1 and (not len(known) or (known == known[:1]).all()):
            held = "no finite value"
            if len(known):
                held = "the same" if known.shape[1] > 1 else f"{known[0, 0]:g}"
            add("constant", float(bool(len(known))), 2.0, f"all rows hold {held}: leave it out")
        share = unseen.get(name, 0.0)
        if share > max_out_of_vocabulary:
            message = (
                f"{share:.1%} of the rows hold a category without an id of its own: use a larger "
                "vocabulary, newer data to fit on, or hash_buckets"
            )
            add("out_of_vocabulary", share, max_out_of_vocabulary, message)
        share = collisions.get(name, 0.0)
        if share > max_hash_collisions:
            message = (
                f"{share:.1%} of the rows share a bucket with a more frequent category: use more buckets, "
                "or another seed"
            )
            add("hash_collisions", share, max_hash_collisions, message)
    return findings


def _collisions(keys: NDArray[np.uint64], ids: NDArray[np.int32]) -> float:
    """Returns the share of rows that are not of their bucket's most frequent key."""
    pairs, counts = np.unique(
        np.stack([ids.ravel().astype(np.uint64), keys.ravel()]), axis=1, return_counts=True
    )
    starts = np.flatnonzero(np.diff(pairs[0], prepend=pairs[0][:1] + np.uint64(1)))
    return float(1 - np.maximum.reduceat(counts, starts).sum() / counts.sum())
