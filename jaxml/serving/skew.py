"""What was served against what was trained: row by row, and by distribution.

Row by row finds features that are computed otherwise in serving than in training: of the same rows there is
not one that may differ. By distribution finds that the rows are others: a source has broken, or the world
has changed.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.validation import drift, two_samples
from jaxml.validation.columns import (
    Column,
    Table,
    in_one_unit,
    num_rows,
    read_columns,
    table_columns,
)
from jaxml.validation.drift import Comparator
from jaxml.validation.levels import levels
from jaxml.validation.schema import Schema

__all__ = ["ColumnSkew", "FeatureSkew", "RowSkew", "compare_columns", "compare_rows"]

# Of a column for which the schema has no `skew`. Where one row in ten has a value that no row had before,
# the divergence is 0.052 bits, whatever the other values.
DEFAULT = Comparator(jensen_shannon_divergence=0.05)
# Probability of a false alarm on rows that are drawn at random from where the training rows were.
SIGNIFICANCE = 0.01

_TEXTS, _VALUES, _QUANTILES = 64, 24, 10  # levels of texts, of few numbers, of many
_SAMPLES = 3


@dataclasses.dataclass(frozen=True)
class FeatureSkew:
    """How a feature of the same rows differs on two sides.

    Attributes:
        feature: its name.
        matched: number of rows with equal values, or without a value on both sides.
        mismatched: number of rows with different values.
        only_expected: number of rows that have a value on the expected side alone.
        only_served: number of rows that have a value on the served side alone.
        samples: (key, expected, served) of the first rows that differ.
    """

    feature: str
    matched: int
    mismatched: int
    only_expected: int
    only_served: int
    samples: tuple[tuple[str, Any, Any], ...]

    @property
    def different(self) -> int:
        """Number of rows that differ in any way."""
        return self.mismatched + self.only_expected + self.only_served


@dataclasses.dataclass(frozen=True)
class RowSkew:
    """How the same rows differ on two sides.

    Attributes:
        features: each feature's.
        rows: number of served rows that were found on the expected side.
        not_expected: number of served rows whose key is not on the expected side.
        not_served: number of expected rows whose key is not on the served side.
        ambiguous: number of keys that are on the expected side twice or more; their rows are not compared.
    """

    features: tuple[FeatureSkew, ...]
    rows: int
    not_expected: int
    not_served: int
    ambiguous: int

    @property
    def different(self) -> tuple[FeatureSkew, ...]:
        """The features that differ, the worst first."""
        found = [each for each in self.features if each.different]
        return tuple(sorted(found, key=lambda each: -each.different))


def compare_rows(
    expected: Table, served: Table, *, expected_keys: Sequence[Any], served_keys: Sequence[Any]
) -> RowSkew:
    """Returns how rows differ that have the same key; floats must be equal to the bit.

    Both sides come of the same code, so a tolerance would only hide faults. A key may be served several
    times, as a client may ask again.

    Args:
        expected: columns by name, [N] each, as training has them; those that were not served are ignored.
        served: columns by name, [M] each.
        expected_keys: [N] key of each row.
        served_keys: [M] key of each row. Keys are equal if their texts are.

    Raises:
        ValueError: a served column that is not among the expected, or lengths that differ.

    >>> features = {"miles": [1400, 229]}, {"miles": [2253, 229]}
    >>> found = compare_rows(*features, expected_keys=[7, 8], served_keys=["7", "8"])
    >>> found.different[0].samples
    (('7', 1400, 2253),)

    References:
        TensorFlow Data Validation, feature_skew_detector.
    """
    before, after = table_columns(expected, "expected"), read_columns(served, "served")
    for name in after:
        checks.choice("served", name, before)
    before = read_columns({name: before[name] for name in after}, "expected")
    place: dict[str, int] = {}
    twice = set()
    keys = [_text(each) for each in expected_keys]
    for row, key in enumerate(keys):
        if place.setdefault(key, row) != row:
            twice.add(key)
    asked = [_text(each) for each in served_keys]
    for what, table, given in (("expected", before, keys), ("served", after, asked)):
        if table and num_rows(table) != len(given):
            raise ValueError(f"{what}_keys must be {num_rows(table)}, got {len(given)}")
    found = [(i, key) for i, key in enumerate(asked) if key in place and key not in twice]
    here = np.array([i for i, _ in found], np.int64)
    there = np.array([place[key] for _, key in found], np.int64)
    names = [key for _, key in found]
    return RowSkew(
        features=tuple(
            _feature(name, before[name].take(there), after[name].take(here), names)
            for name in after
        ),
        rows=len(found),
        not_expected=sum(key not in place for key in asked),
        not_served=len(set(place) - set(asked)),
        ambiguous=len(twice),
    )


def _text(key: Any) -> str:
    return key if isinstance(key, str) else str(key)


def _feature(name: str, a: Column, b: Column, keys: Sequence[str]) -> FeatureSkew:
    both = a.present & b.present
    same = both & _equal(a, b)
    rows = np.flatnonzero(~same & (a.present | b.present))
    some = rows[:_SAMPLES]
    pairs = zip([keys[row] for row in some], a.examples(some), b.examples(some), strict=True)
    return FeatureSkew(
        feature=name,
        matched=len(same) - len(rows),
        mismatched=int((both & ~same).sum()),
        only_expected=int((a.present & b.missing).sum()),
        only_served=int((a.missing & b.present).sum()),
        samples=tuple(pairs),
    )


def _equal(a: Column, b: Column) -> NDArray[np.bool_]:
    kinds = {"FLOAT" if each.type == "INT" else each.type for each in (a, b)}
    if len(kinds) > 1:
        return np.zeros(len(a.values), bool)
    return np.asarray(np.equal(*in_one_unit(a.values, b.values)), bool)


@dataclasses.dataclass(frozen=True)
class ColumnSkew:
    """How far the values of a served column are from those of training.

    Attributes:
        column: its name.
        distance: Jensen–Shannon divergence in bits, or L-infinity distance, in [0, 1].
        threshold: from the schema's `skew`, or `DEFAULT`.
        rows: number of served rows.
        log_p: log of the probability that as many rows, drawn at random from where the training rows were,
            differ as much; of a χ² test.
        cells: (values, share in training, share served) of each level of the column.
        medians: in training and served, of numbers.
    """

    column: str
    distance: float
    threshold: float
    rows: int
    log_p: float
    cells: tuple[tuple[str, float, float], ...]
    medians: tuple[float, float] | None
    _log_significance: float

    @property
    def by_chance(self) -> bool:
        """Whether the distance is above the threshold and so few rows may lead to it by chance."""
        return self.distance > self.threshold and self.log_p >= self._log_significance

    @property
    def differs(self) -> bool:
        """Whether the distance is above the threshold, and not by chance."""
        return self.distance > self.threshold and self.log_p < self._log_significance

    @property
    def worst(self) -> tuple[str, float, float]:
        """The level whose share differs most."""
        return max(self.cells, key=lambda cell: abs(cell[1] - cell[2]))

    @property
    def change(self) -> str:
        """What has changed from training to serving, in words."""
        cell, before, now = self.worst
        if self.medians and cell != "missing" and self.medians[0] != self.medians[1]:
            return f"median {self.medians[0]:.4g} → {self.medians[1]:.4g}"
        return f"{cell}: {before:.1%} → {now:.1%}"


def compare_columns(served: Table, training: Table, schema: Schema) -> list[ColumnSkew]:
    """Returns the distance of each served column from that of training, the worst first.

    Distances are those of `jaxml.validation.drift`, between the shares of levels: the values of a column of
    few values, quantiles of numbers, the 64 most frequent texts and all others; and of missing values. A
    single outlier does not move them, nor do texts that hardly ever come twice.

    A distance counts if it is above its threshold **and** a χ² test says that it is not due to chance: the
    fewer rows there are, the larger are the distances of random samples. Columns of times are left out:
    time goes on.

    Args:
        served: raw columns, [N] each; of these, the ones that `training` has are compared.
        training: raw columns of training.
        schema: thresholds by column are its features' `skew`, where there are some.

    Raises:
        ValueError: no row on one of the sides, or columns of different lengths.
    """
    now, before = read_columns(served, "served"), read_columns(training, "training")
    for name, table in (("served", now), ("training", before)):
        if not num_rows(table):
            raise ValueError(f"{name} must hold at least one row, got none")
    names = [n for n in before if n in now and before[n].type != "TIME"]
    log_significance = math.log(SIGNIFICANCE / max(len(names), 1))
    found = []
    for name in names:
        feature = schema.features.get(name)
        comparator = (feature and feature.skew) or DEFAULT
        found.append(_column(before[name], now[name], comparator, log_significance))
    return sorted(
        found, key=lambda each: (not each.differs, -each.distance / (each.threshold or 1e-9))
    )


def _column(
    before: Column, now: Column, comparator: Comparator, log_significance: float
) -> ColumnSkew:
    both = _joined(before, now)
    cells, counts = _cells(both, len(before.values))
    sides = dict(enumerate(counts[0].tolist())), dict(enumerate(counts[1].tolist()))
    distances = [
        (drift.l_infinity(*sides), comparator.infinity_norm),
        (drift.jensen_shannon(*sides), comparator.jensen_shannon_divergence),
    ]
    wanted = [(d, t) for d, t in distances if t is not None] or [(distances[1][0], 1.0)]
    distance, threshold = max(wanted, key=lambda each: each[0] - each[1])
    shares = counts / counts.sum(1, keepdims=True)
    return ColumnSkew(
        column=now.name,
        distance=distance,
        threshold=threshold,
        rows=len(now.values),
        log_p=two_samples.chi_square(*counts)[0],
        cells=tuple(zip(cells, *shares.tolist(), strict=True)),
        medians=_medians(both, len(before.values)),
        _log_significance=log_significance,
    )


def _cells(both: Column, number: int) -> tuple[list[str], NDArray[np.int64]]:
    """Returns names of the levels, and how many of the first rows and of the others are in each, [2, L]."""
    few = _VALUES if len(both.codes()[1]) <= _VALUES else _QUANTILES
    codes, size = levels(both, _TEXTS if both.is_text else few)
    counts = np.stack(
        [np.bincount(each, minlength=size) for each in (codes[:number], codes[number:])]
    )
    used = np.flatnonzero(counts.sum(0)).tolist()
    return [_level_name(both, codes, level, size) for level in used], counts[:, used]


def _level_name(both: Column, codes: NDArray[np.int64], level: int, size: int) -> str:
    if level == size - 1:
        return "missing"
    values = both.values[codes == level]
    if both.is_text:
        return "other texts" if level == _TEXTS else repr(values[0])
    low, high = values.min(), values.max()
    return f"{low:.4g}" if low == high else f"{low:.4g} … {high:.4g}"


def _medians(both: Column, number: int) -> tuple[float, float] | None:
    sides = [both.values[rows][both.present[rows]] for rows in (slice(number), slice(number, None))]
    if both.is_text or not all(map(len, sides)):
        return None
    return float(np.median(sides[0])), float(np.median(sides[1]))


def _joined(before: Column, now: Column) -> Column:
    """Returns both columns as one of numbers or of texts."""
    sides = (before, now)
    missing = np.concatenate([each.missing for each in sides])
    if any(each.type in ("BYTES", "MIXED") for each in sides):
        # 1 and "1" are different values.
        texts = [
            each.values.tolist()
            if each.is_text
            else [f"{type(value).__name__} {value!r}" for value in each.values.tolist()]
            for each in sides
        ]
        values = np.array([*texts[0], *texts[1]], object)
        return Column(now.name, "BYTES", values, missing)
    numbers = np.concatenate([each.numbers() for each in sides])
    return Column(now.name, "FLOAT", numbers, missing)
