"""Missing values as a sign of who is under-represented: rates by slice, beside the model's error."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.data.anomalies import Anomaly, anomaly
from jaxml.data.columns import Column, read_columns
from jaxml.data.leaks import levels

__all__ = ["MissingBySlice", "missing_by_slice", "underrepresented_slices"]


class MissingBySlice(NamedTuple):
    """How often a column is missing in one slice of the rows, and how wrong the model is there.

    Attributes:
        column: whose values are missing.
        slice_column: by which the rows are sliced.
        slice_value: of the slice; None for the rows where the slicing column itself is missing.
        num_rows: in the slice.
        missing_rate: of the column, in the slice.
        missing_rate_elsewhere: in all other rows.
        p_value: of the two rates being one (two-proportion z-test, two-sided, not corrected).
        error: the model's mean error in the slice; NaN without errors.
        error_elsewhere: in all other rows.
        error_where_missing: in the rows of the slice where the column is missing; NaN if there are none.
    """

    column: str
    slice_column: str
    slice_value: object
    num_rows: int
    missing_rate: float
    missing_rate_elsewhere: float
    p_value: float
    error: float
    error_elsewhere: float
    error_where_missing: float


def missing_by_slice(
    columns: Mapping[str, ArrayLike],
    slice_by: str | Sequence[str],
    errors: ArrayLike | None = None,
    *,
    num_bins: int = 10,
) -> list[MissingBySlice]:
    """The missing rate of every column with gaps in every slice, beside the model's error there.

    Values are seldom missing at random: where a group is hard to reach, little is known of it, and the
    model that is trained on the rest errs there.

    Args:
        columns: the table.
        slice_by: a column, or several taken one after the other. Text is sliced by its values (the
            rarest together once there are more than `num_bins` · 10), numbers of more than `num_bins`
            values by quantiles.
        errors: [N] the model's error on each row (loss, absolute error, 0 or 1); NaN is left out. Or
            None.
        num_bins: slices of a number.

    Returns:
        Rows for each column that has gaps, the largest excess of missing values first. `slice_value` of
        numbers cut into quantiles is the text of their range.

    Raises:
        ValueError: for a name that is no column, or errors of another length.

    Example:
        >>> table = {"income": [1.0, np.nan, np.nan, 4.0], "town": ["a", "b", "b", "a"]}
        >>> first = missing_by_slice(table, "town", errors=[0.1, 0.9, 0.7, 0.3])[0]
        >>> first.column, first.slice_value, first.missing_rate, first.error, first.error_elsewhere
        ('income', 'b', 1.0, 0.8, 0.2)
    """
    read = read_columns(columns)
    slicers = [slice_by] if isinstance(slice_by, str) else list(slice_by)
    rows = len(next(iter(read.values())).values) if read else 0
    error = np.full(rows, np.nan) if errors is None else np.asarray(errors, np.float64)
    if error.shape != (rows,):
        raise ValueError(f"errors must have shape ({rows},), got {error.shape}")
    known = ~np.isnan(error)
    weighed = np.where(known, error, 0.0)
    found = []
    for slicer in slicers:
        if slicer not in read:
            raise ValueError(f"slice_by must be among {list(read)}, got {slicer!r}")
        column = read[slicer]
        codes, labels = _slices(column, num_bins)
        size = len(labels)
        counts = np.bincount(codes, minlength=size)
        sums, numbers = np.bincount(codes, weighed, size), np.bincount(codes, known, size)
        for name, other in read.items():
            gaps = ~other.present
            if name == slicer or not gaps.any():
                continue
            missing = np.bincount(codes, gaps, size)
            missing_sums = np.bincount(codes, weighed * gaps, size)
            missing_known = np.bincount(codes, known & gaps, size)
            for level in np.flatnonzero(counts).tolist():
                here, elsewhere = counts[level], rows - counts[level]
                if not elsewhere:
                    continue
                rate = missing[level] / here
                rest = (gaps.sum() - missing[level]) / elsewhere
                found.append(
                    MissingBySlice(
                        name,
                        slicer,
                        labels[level],
                        int(here),
                        float(rate),
                        float(rest),
                        two_proportions(
                            missing[level], here, gaps.sum() - missing[level], elsewhere
                        ),
                        _ratio(sums[level], numbers[level]),
                        _ratio(sums.sum() - sums[level], numbers.sum() - numbers[level]),
                        _ratio(missing_sums[level], missing_known[level]),
                    )
                )
    return sorted(found, key=lambda row: row.missing_rate_elsewhere - row.missing_rate)


def _slices(column: Column, num_bins: int) -> tuple[NDArray[np.int64], list[object]]:
    """The slice of each row, and what the slices are called; the last one is where the value is missing."""
    text = column.type == "BYTES" or column.is_bool
    codes, size = levels(column, num_bins * 10 if text else num_bins)
    named = _labels(column.values, column.present, codes, size)
    return codes, [named.get(level) for level in range(size)]


def _ratio(total: float, count: float) -> float:
    return round(float(total / count), 12) if count else math.nan


def _labels(
    values: np.ndarray, present: np.ndarray, codes: np.ndarray, size: int
) -> dict[int, object]:
    labels: dict[int, object] = {size - 1: None}
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(size + 1))
    for level in range(size - 1):
        inside = values[order[starts[level] : starts[level + 1]]]
        if not len(inside):
            continue
        if inside.dtype.kind in "biufmM":
            low, high = inside.min(), inside.max()
            labels[level] = low.item() if low == high else f"{low} … {high}"
        else:
            first = inside[0]
            labels[level] = str(first) if (inside == first).all() else "other"
    return labels


def two_proportions(hits_a: float, num_a: float, hits_b: float, num_b: float) -> float:
    """The p-value of two proportions being one: pooled z-test, two-sided; 1 where nothing varies."""
    pooled = (hits_a + hits_b) / (num_a + num_b)
    variance = pooled * (1 - pooled) * (1 / num_a + 1 / num_b)
    if variance <= 0:
        return 1.0
    z = abs(hits_a / num_a - hits_b / num_b) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def underrepresented_slices(
    columns: Mapping[str, ArrayLike],
    slice_by: str | Sequence[str],
    errors: ArrayLike | None = None,
    *,
    significance: float = 0.01,
    min_excess: float = 0.05,
) -> list[Anomaly]:
    """Slices of which values are missing more often than elsewhere, and whether the model errs there.

    Args:
        columns: as in `missing_by_slice`.
        slice_by: as in `missing_by_slice`.
        errors: as in `missing_by_slice`.
        significance: of all comparisons together, in (0, 1); each has its share of it (Bonferroni).
        min_excess: the least difference of the two rates that is told, ≥ 0.

    Returns:
        UNDERREPRESENTED_SLICE on the column with the gaps, the largest excess first; its `rows` are those
        of the slice that lack the value, its `share` is that of the slice in all rows. An error where the
        model's error is higher there too, else a warning.

    Raises:
        ValueError: as in `missing_by_slice`, and for a significance outside (0, 1).

    Example:
        >>> income = np.where(np.arange(400) < 80, np.nan, 1.0)
        >>> table = {"income": income, "town": ["b"] * 90 + ["a"] * 310}
        >>> [(a.column, a.examples) for a in underrepresented_slices(table, "town")]
        [('income', ('b',))]
    """
    if not 0 < significance < 1:
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    rows = missing_by_slice(columns, slice_by, errors)
    total = max((len(np.asarray(values)) for values in columns.values()), default=0)
    read = read_columns(columns)
    found = []
    for row in rows:
        excess = row.missing_rate - row.missing_rate_elsewhere
        if excess < min_excess or row.p_value > significance / len(rows):
            continue
        told = (
            f"missing in {row.missing_rate:.1%} of the {row.num_rows} rows with {row.slice_column} = "
            f"{row.slice_value!r}, in {row.missing_rate_elsewhere:.1%} elsewhere"
        )
        worse = not math.isnan(row.error) and row.error > row.error_elsewhere
        if not math.isnan(row.error):
            told += (
                f"; the model's error is {row.error:.4g} there, {row.error_elsewhere:.4g} elsewhere"
            )
        codes, labels = _slices(read[row.slice_column], 10)
        inside = codes == labels.index(row.slice_value)
        found.append(
            anomaly(
                "UNDERREPRESENTED_SLICE",
                row.column,
                told,
                examples=[row.slice_value],
                rows=np.flatnonzero(inside & ~read[row.column].present),
                share=row.num_rows / total,
                severity="error" if worse else "warning",
            )
        )
    return found
