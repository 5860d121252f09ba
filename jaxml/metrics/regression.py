"""How far predictions are from what came; exact, in float64 on the host."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.metrics import checks
from jaxml.metrics.checks import Rows

__all__ = [
    "explained_variance",
    "huber",
    "mean_absolute_error",
    "mean_squared_error",
    "median_absolute_error",
    "r2",
    "root_mean_squared_error",
]

_NAMES = ("labels", "predictions")


def _read(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None, mask: ArrayLike | None
) -> tuple[Rows, NDArray[np.float64]]:
    rows = checks.read(labels, predictions, weights, mask, names=_NAMES, finite=True)
    return rows, rows.labels - rows.scores


def _spread(rows: Rows) -> float:
    """Variance of the labels; 0 if all that have weight are alike, whatever the rounding of their mean."""
    labels = rows.labels if rows.weights is None else rows.labels[rows.weights > 0]
    if len(labels) and labels.min() == labels.max():
        return 0.0
    return rows.mean(np.square(rows.labels - rows.mean(rows.labels)))


def mean_squared_error(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Mean of (label − prediction)².

    Args:
        labels: [...], finite.
        predictions: [...], finite.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float, in the square of the labels' unit; NaN if nothing has weight.

    Raises:
        ValueError: for shapes that do not fit; a value that is not finite or a weight below 0, with its
            row.

    >>> mean_squared_error([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    rows, error = _read(labels, predictions, weights, mask)
    return rows.mean(np.square(error))


def root_mean_squared_error(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Square root of the mean squared error.

    Args:
        labels: [...], finite.
        predictions: [...], finite.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float, in the labels' unit; NaN if nothing has weight.

    Raises:
        ValueError: as `mean_squared_error`.

    >>> root_mean_squared_error([1.0, 2.0], [5.0, 6.0])
    4.0
    """
    return float(np.sqrt(mean_squared_error(labels, predictions, weights=weights, mask=mask)))


def mean_absolute_error(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Mean of |label − prediction|.

    Args:
        labels: [...], finite.
        predictions: [...], finite.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float, in the labels' unit; NaN if nothing has weight.

    Raises:
        ValueError: as `mean_squared_error`.

    >>> mean_absolute_error([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    rows, error = _read(labels, predictions, weights, mask)
    return rows.mean(np.abs(error))


def median_absolute_error(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Median of |label − prediction|: half of the predictions are closer than this, whatever the outliers.

    Args:
        labels: [...], finite.
        predictions: [...], finite.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float, in the labels' unit: the middle one, or halfway between the two in the middle (weighted:
        between the lower and the upper weighted median); NaN if nothing has weight.

    Raises:
        ValueError: as `mean_squared_error`.

    >>> median_absolute_error([0.0, 0.0, 0.0, 0.0], [1.0, 2.0, -4.0, 1000.0])
    3.0
    """
    rows, error = _read(labels, predictions, weights, mask)
    order = np.argsort(np.abs(error), kind="stable")
    sizes = np.abs(error)[order]
    w = np.ones(len(sizes)) if rows.weights is None else rows.weights[order]
    sizes, w = sizes[w > 0], w[w > 0]
    if not len(sizes):
        return float("nan")
    reached = np.cumsum(w)
    half = reached[-1] / 2
    # The smallest size with half of the weight at or below it, and the next one if it is exactly half.
    lower = min(int(np.searchsorted(reached, half)), len(sizes) - 1)
    upper = min(lower + 1, len(sizes) - 1) if reached[lower] == half else lower
    return float((sizes[lower] + sizes[upper]) / 2)


def huber(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    delta: float = 1.0,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Mean Huber loss: quadratic up to δ, linear beyond, so that outliers do not decide.

        e² / 2  for |e| ≤ δ,   δ (|e| − δ / 2)  beyond

    Args:
        labels: [...], finite.
        predictions: [...], finite.
        delta: δ > 0, in the labels' unit.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float; NaN if nothing has weight.

    Raises:
        ValueError: as `mean_squared_error`, or for a δ that is not positive.

    Source: Huber, Annals of Mathematical Statistics 35, 1964.

    >>> huber([0.0, 0.0], [1.0, 3.0])  # (1/2 + 5/2) / 2
    1.5
    """
    delta = checks.number("delta", delta, 0.0, exclusive=True)
    rows, error = _read(labels, predictions, weights, mask)
    size = np.abs(error)
    near = np.minimum(size, delta)
    return rows.mean(near * (size - near / 2))


def r2(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Coefficient of determination: what is better than predicting the mean.

        R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²

    Args:
        labels: [...], finite.
        predictions: [...], finite.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float of at most 1, 0 for the mean, below 0 for worse. Labels that are all alike have no variance
        to explain: NaN (scikit-learn says 1 or 0).

    Raises:
        ValueError: as `mean_squared_error`.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]), r2([1.0, 1.0], [1.0, 2.0])
    (0.5, nan)
    """
    rows, error = _read(labels, predictions, weights, mask)
    spread = _spread(rows)
    return 1 - rows.mean(np.square(error)) / spread if spread > 0 else float("nan")


def explained_variance(
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Share of the labels' variance that is not in the errors: R² if the errors' mean is forgiven.

        1 − Var(y − ŷ) / Var(y)

    Args:
        labels: [...], finite.
        predictions: [...], finite.
        weights: [...] or None, finite and at least 0.
        mask: [...] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        A float of at most 1; NaN for labels that are all alike.

    Raises:
        ValueError: as `mean_squared_error`.

    >>> explained_variance([1.0, 2.0, 3.0], [11.0, 12.0, 13.0])
    1.0
    """
    rows, error = _read(labels, predictions, weights, mask)
    spread = _spread(rows)
    left = rows.mean(np.square(error - rows.mean(error)))
    return 1 - left / spread if spread > 0 else float("nan")
