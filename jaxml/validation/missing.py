"""Missing values by slice, beside the model's error there: a sign of who is under-represented."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks
from jaxml.validation import two_samples
from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import Column, Table, num_rows, read_column, read_columns
from jaxml.validation.levels import levels

_SIGNIFICANCE, _EXCESS = 0.01, 0.05
_NUM_BINS = 10  # Slices of a number; texts have up to ten times as many.


def underrepresented_slices(
    columns: Table, slice_by: str | Sequence[str], errors: ArrayLike | None = None
) -> list[Anomaly]:
    """Returns an UNDERREPRESENTED_SLICE for each slice where a column is missing more often than elsewhere.

    That is by at least 0.05, with a significance of 0.01 over all comparisons (Bonferroni).

    Values are seldom missing at random: where a group is hard to reach, little is known of it, and a model
    that is trained on the rest errs there.

    Args:
        slice_by: one or several columns, taken one after the other. Texts are sliced by value (the
            rarest together beyond 100), numbers of more than ten values by quantiles.
        errors: [N] error of the model on each row (loss, absolute error, 0 or 1); NaN is left out.

    Returns:
        Anomalies of the columns with gaps, the largest excess first. `examples` holds the value of the
        slice (None where the slicing column is missing), `rows` those of the slice that lack the value,
        `share` is the slice's share of all rows. The severity is `"error"` where the model's error is
        higher, too.

    Raises:
        ValueError: for a name that is not a column, or errors of another length.

    >>> income = np.where(np.arange(400) < 80, np.nan, 1.0)
    >>> table = {"income": income, "town": ["b"] * 90 + ["a"] * 310}
    >>> [(a.column, a.examples) for a in underrepresented_slices(table, "town")]
    [('income', ('b',))]
    """
    read = read_columns(columns)
    rows = num_rows(read)
    error = np.full(rows, np.nan) if errors is None else read_column("errors", errors).numbers()
    if error.shape != (rows,):
        raise ValueError(f"errors must have shape ({rows},), got {error.shape}")
    pairs = []
    for slicer in [slice_by] if isinstance(slice_by, str) else slice_by:
        checks.choice("slice_by", slicer, read)
        for value, inside in _slices(read[slicer]):
            for column in read.values():
                if column.name != slicer and column.missing.any() and not inside.all():
                    pairs.append((slicer, value, inside, column))
    found = []
    for slicer, value, inside, column in pairs:
        gaps, others = column.missing[inside], column.missing[~inside]
        here, elsewhere = gaps.mean(), others.mean()
        log_p = two_samples.log_p_proportions(gaps.sum(), len(gaps), others.sum(), len(others))
        if here - elsewhere < _EXCESS or log_p > math.log(_SIGNIFICANCE / len(pairs)):
            continue
        message = (
            f"missing in {here:.1%} of the {inside.sum()} rows with {slicer} = {value!r}, in "
            f"{elsewhere:.1%} elsewhere"
        )
        wrong, less_wrong = _mean(error[inside]), _mean(error[~inside])
        if not math.isnan(wrong):
            message += f"; the model's error is {wrong:.4g}, {less_wrong:.4g} elsewhere"
        one = Anomaly(
            "UNDERREPRESENTED_SLICE",
            column.name,
            message,
            examples=[value],
            rows=np.flatnonzero(inside & column.missing),
            share=inside.mean(),
            severity="error" if wrong > less_wrong else "warning",
        )
        found.append((elsewhere - here, one))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


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
            value = column.examples(inside, 1)[0]
        else:
            value = "other" if column.is_text else f"{values.min()} … {values.max()}"
        found.append((value, inside))
    return found


def _mean(errors: NDArray[np.float64]) -> float:
    known = errors[~np.isnan(errors)]
    return float(known.mean()) if len(known) else math.nan
