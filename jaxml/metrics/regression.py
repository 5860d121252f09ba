"""Errors of predicted numbers. Labels and predictions must be finite; the unit is the labels'."""

import numpy as np

from jaxml.metrics.rows import Rows, of_rows, scikit_learn, weighted_quantiles

__all__ = [
    "mean_absolute_error",
    "mean_squared_error",
    "median_absolute_error",
    "r2",
    "root_mean_squared_error",
]

_of_predictions = of_rows(scores="predictions", finite=True)


@_of_predictions
def mean_squared_error(rows: Rows) -> float:
    """Mean of (label − prediction)².

    >>> mean_squared_error([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    return float(scikit_learn("mean_squared_error", rows))


@_of_predictions
def root_mean_squared_error(rows: Rows) -> float:
    """Square root of the mean squared error.

    >>> root_mean_squared_error([1.0, 2.0], [5.0, 6.0])
    4.0
    """
    return float(scikit_learn("root_mean_squared_error", rows))


@_of_predictions
def mean_absolute_error(rows: Rows) -> float:
    """Mean of |label − prediction|.

    >>> mean_absolute_error([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    return float(scikit_learn("mean_absolute_error", rows))


@_of_predictions
def median_absolute_error(rows: Rows) -> float:
    """Median of |label − prediction|, which outliers do not move.

    Of an even number the mean of the two in the middle; with weights, the mean of the lower and the upper
    weighted median.

    >>> median_absolute_error([0.0, 0.0, 0.0, 0.0], [1.0, 2.0, -4.0, 1000.0])
    3.0
    >>> median_absolute_error([0] * 6, [1, 2, 3, 4, 5, 6], weights=[0.1] * 6)
    3.5
    """
    rows = rows.counted()
    if not len(rows.labels):
        return float("nan")
    errors = np.abs(rows.labels - rows.scores)
    w = np.ones(len(errors)) if rows.weights is None else rows.weights
    return float(np.mean(weighted_quantiles(errors, w, np.array(0.5))))


@_of_predictions
def r2(rows: Rows) -> float:
    """Coefficient of determination: 1 is perfect, 0 is as good as predicting the mean, below 0 is worse.

        R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²

    NaN if all labels are equal; scikit-learn returns 0 or 1 by default.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]), r2([1.0, 1.0], [1.0, 2.0])
    (0.5, nan)
    """
    labels = rows.counted().labels
    if not len(labels) or labels.min() == labels.max():  # a variance would be rounding error, not 0
        return float("nan")
    return float(scikit_learn("r2_score", rows))
