"""Missing values by slice, beside the model's error there: a sign of who is under-represented."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks
from jaxml.validation.anomalies import Anomaly, anomaly
from jaxml.validation.columns import Column, Table, num_rows, read_columns
from jaxml.validation.levels import levels

_NUM_BINS = 10  # Slices of a number; texts have ten times as many.


class MissingBySlice(NamedTuple):
    """How often a column is missing in one slice of the rows, and how wrong the model is there.

    Attributes:
        column: the column whose values are missing.
        slice_column: the column that slices the rows.
        slice_value: value of the slice, or the text of its range; None where the slicing column is missing.
        num_rows: rows in the slice.
        missing_rate: share of the slice in which the column is missing.
        missing_rate_elsewhere: the same of all other rows.
        p_value: two-proportion z-test of the two rates, two-sided, not corrected.
        error: mean error of the model in the slice; NaN without errors.
        error_elsewhere: the same of all other rows.
        error_where_missing: the same of the rows in the slice where the column is missing.
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
    columns: Table, slice_by: str | Sequence[str], errors: ArrayLike | None = None
) -> list[MissingBySlice]:
    """Returns the missing rate of each column with gaps in each slice, and the model's error there.

    Values are seldom missing at random: where a group is hard to reach, little is known of it, and a model
    that is trained on the rest errs there.

    Args:
        columns: the table.
        slice_by: one or several columns, taken one after the other. Texts are sliced by value (the
            rarest together beyond 100), numbers of more than ten values by quantiles.
        errors: [N] error of the model on each row (loss, absolute error, 0 or 1); NaN is left out.

    Returns:
        The largest excess of missing values first.

    Raises:
        ValueError: for a name that is not a column, or errors of another length.

    >>> table = {"income": [1.0, np.nan, np.nan, 4.0], "town": ["a", "b", "b", "a"]}
    >>> first = missing_by_slice(table, "town", errors=[0.1, 0.9, 0.7, 0.3])[0]
    >>> first.column, first.slice_value, first.missing_rate, first.error, first.error_elsewhere
    ('income', 'b', 1.0, 0.8, 0.2)
    """
    read = read_columns(columns)
    rows = num_rows(read)
    error = np.full(rows, np.nan) if errors is None else np.asarray(errors, np.float64)
    if error.shape != (rows,):
        raise ValueError(f"errors must have shape ({rows},), got {error.shape}")
    found = []
    for slicer in [slice_by] if isinstance(slice_by, str) else slice_by:
        checks.choice("slice_by", slicer, read)
        for value, inside in _slices(read[slicer]):
            for name, column in read.items():
                gaps = column.missing
                if name == slicer or not gaps.any() or inside.all():
                    continue
                counts = (
                    (gaps & inside).sum(),
                    inside.sum(),
                    (gaps & ~inside).sum(),
                    (~inside).sum(),
                )
                found.append(
                    MissingBySlice(
                        name, slicer, value, int(counts[1]), float(counts[0] / counts[1]),
                        float(counts[2] / counts[3]), two_proportions(*counts),
                        _mean(error[inside]), _mean(error[~inside]), _mean(error[inside & gaps]),
                    )
                )  # fmt: skip
    return sorted(found, key=lambda row: row.missing_rate_elsewhere - row.missing_rate)


def _slices(column: Column) -> list[tuple[Any, NDArray[np.bool_]]]:
    """Returns the value and the rows of each slice."""
    codes, size = levels(column, _NUM_BINS * (10 if column.is_text else 1))
    found: list[tuple[Any, NDArray[np.bool_]]] = []
    for level in np.unique(codes).tolist():
        inside = codes == level
        values = column.values[inside]
        if level == size - 1:
            value: Any = None
        elif (values == values[0]).all():
            value = values[:1].tolist()[0]
        else:
            value = "other" if column.is_text else f"{values.min()} … {values.max()}"
        found.append((value, inside))
    return found


def _mean(errors: NDArray[np.float64]) -> float:
    known = errors[~np.isnan(errors)]
    return round(float(known.mean()), 12) if len(known) else math.nan


def two_proportions(hits_a: float, num_a: float, hits_b: float, num_b: float) -> float:
    """Returns the p-value of two proportions being equal: pooled z-test, two-sided; 1 if nothing varies."""
    pooled = (hits_a + hits_b) / (num_a + num_b)
    variance = pooled * (1 - pooled) * (1 / num_a + 1 / num_b)
    if variance <= 0:
        return 1.0
    return math.erfc(abs(hits_a / num_a - hits_b / num_b) / math.sqrt(2 * variance))


def underrepresented_slices(
    columns: Table,
    slice_by: str | Sequence[str],
    errors: ArrayLike | None = None,
    *,
    significance: float = 0.01,
    min_excess: float = 0.05,
) -> list[Anomaly]:
    """Returns an UNDERREPRESENTED_SLICE for each slice where a column is missing more often than elsewhere.

    Args:
        columns: as in `missing_by_slice`.
        slice_by: as in `missing_by_slice`.
        errors: as in `missing_by_slice`.
        significance: of all comparisons together, in (0, 1]; each has its share of it (Bonferroni).
        min_excess: least difference of the two rates.

    Returns:
        Anomalies of the columns with gaps, the largest excess first. `rows` are those of the slice that
        lack the value, `share` is the slice's share of all rows. The severity is `"error"` where the
        model's error is higher there too.

    >>> income = np.where(np.arange(400) < 80, np.nan, 1.0)
    >>> table = {"income": income, "town": ["b"] * 90 + ["a"] * 310}
    >>> [(a.column, a.examples) for a in underrepresented_slices(table, "town")]
    [('income', ('b',))]
    """
    checks.number("significance", significance, at_most=1, above=0)
    read = read_columns(columns)
    rows = missing_by_slice(read, slice_by, errors)
    found = []
    for row in rows:
        excess = row.missing_rate - row.missing_rate_elsewhere
        if excess < min_excess or row.p_value > significance / len(rows):
            continue
        message = (
            f"missing in {row.missing_rate:.1%} of the {row.num_rows} rows with {row.slice_column} = "
            f"{row.slice_value!r}, in {row.missing_rate_elsewhere:.1%} elsewhere"
        )
        if not math.isnan(row.error):
            message += (
                f"; the model's error is {row.error:.4g}, {row.error_elsewhere:.4g} elsewhere"
            )
        inside = next(
            rows for value, rows in _slices(read[row.slice_column]) if value == row.slice_value
        )
        found.append(
            anomaly(
                "UNDERREPRESENTED_SLICE",
                row.column,
                message,
                examples=[row.slice_value],
                rows=np.flatnonzero(inside & read[row.column].missing),
                share=row.num_rows / len(inside),
                severity="error" if row.error > row.error_elsewhere else "warning",
            )
        )
    return found
