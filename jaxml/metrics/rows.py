"""Rows of labels and scores for one-call metrics, read on the host in float64 and checked."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.validation.columns import is_table, read_column, table_columns


class Rows(NamedTuple):
    """The rows that the mask keeps.

    Attributes:
        labels: [n] float64.
        scores: [n] or [n, C] float64.
        weights: [n] float64 or None.
        numbers: [n], each row's position in the caller's arrays.
        dtype: of the scores as given.
    """

    labels: NDArray
    scores: NDArray
    weights: NDArray[np.float64] | None
    numbers: NDArray[np.int64]
    dtype: np.dtype

    def take(self, where: NDArray) -> "Rows":
        """Returns some of the rows."""
        w = None if self.weights is None else self.weights[where]
        return Rows(self.labels[where], self.scores[where], w, self.numbers[where], self.dtype)

    def sum(self, values: NDArray) -> float:
        """Returns the weighted sum; a row of weight 0 adds nothing, even if its value is infinite."""
        if self.weights is None:
            return float(np.sum(values))
        some = self.weights > 0
        return float(np.sum(values[some] * self.weights[some]))

    def mean(self, values: NDArray) -> float:
        """Returns the weighted mean, NaN if no row has weight."""
        total = float(len(values)) if self.weights is None else float(self.weights.sum())
        return ratio(self.sum(values), total)

    def counted(self) -> "Rows":
        """Returns the rows whose weight is not 0."""
        return self if self.weights is None else self.take(self.weights > 0)

    def refuse(self, name: str, values: NDArray, fault: NDArray[np.bool_], wanted: str) -> None:
        """Raises a ValueError with the number and value of the first row at fault, if there is one."""
        if fault.any():
            at = int(np.argmax(fault.reshape(len(fault), -1).any(1)))
            raise ValueError(f"{name} must be {wanted}; row {self.numbers[at]} is {values[at]}")

    def class_ids(self, name: str, values: NDArray, num_classes: int | None) -> NDArray[np.int64]:
        """Returns the values as ids below `num_classes`, or raises a ValueError with the row."""
        # Whole numbers of 2⁵³ and more are not all apart in float64.
        high = 2**53 if num_classes is None else num_classes
        until = "0, 1, 2, …" if num_classes is None else f"whole numbers in [0, {num_classes})"
        fault = ~((values >= 0) & (values < high) & (np.floor(values) == values))
        self.refuse(name, values, fault, until)
        return values.astype(np.int64)


def binary(rows: Rows) -> Rows:
    """Checks that labels are 0 or 1; returns them as booleans."""
    rows.refuse("labels", rows.labels, (rows.labels != 0) & (rows.labels != 1), "0 or 1")
    return rows._replace(labels=rows.labels == 1)


def ratio(over: float, under: float) -> float:
    """Returns `over / under`, or NaN where `under` is 0."""
    return float(over) / float(under) if under != 0 else float("nan")


def weighted_quantiles(
    values: NDArray, weights: NDArray, shares: NDArray
) -> tuple[NDArray, NDArray]:
    """Returns the lower and the upper quantiles, the same whatever the unit of the weights.

    They are the first values at which the weights add up to a share of all, and to more than that; they
    differ where a share falls between two values. `values` [n] has n ≥ 1, `weights` are above 0.
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    # Sums of fractional weights are rounded, so they are compared with a tolerance.
    wanted, rounding = shares * reached[-1], 1e-12 * reached[-1]
    lower = np.searchsorted(reached, wanted - rounding)
    upper = np.minimum(np.searchsorted(reached, wanted + rounding), len(values) - 1)
    return values[order[lower]], values[order[upper]]


def scikit_learn(name: str, rows: Rows, **options: Any) -> Any:
    """Returns what the function of `sklearn.metrics` returns for the rows, NaN if no row has weight."""
    from sklearn import metrics  # takes half a second to import

    rows = rows.counted()
    if not len(rows.labels):
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about undefined values, which are NaN here
        return getattr(metrics, name)(
            rows.labels, rows.scores, sample_weight=rows.weights, **options
        )


def of_rows(
    check: Callable[[Rows], Rows] | None = None,
    *,
    scores: str = "scores",
    columns: bool = False,
    finite: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes `metric(labels, scores, …, weights=None, mask=None)` of a function `(rows, …)`.

    Args:
        check: `check(rows) -> rows` that refuses labels out of range.
        scores: what the second argument is called.
        columns: scores may have one more axis than labels, a score for each class.
        finite: refuse infinite labels and scores.
    """

    def decorate(compute: Callable[..., Any]) -> Callable[..., Any]:
        both, only = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        own = inspect.signature(compute)
        signature = own.replace(
            parameters=[
                *(inspect.Parameter(name, both) for name in ("labels", scores)),
                *list(own.parameters.values())[1:],
                *(inspect.Parameter(name, only, default=None) for name in ("weights", "mask")),
            ]
        )

        @functools.wraps(compute)
        def metric(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            rows = read(
                given.pop("labels"),
                given.pop(scores),
                given.pop("weights", None),
                given.pop("mask", None),
                name=scores,
                columns=columns,
                finite=finite,
            )
            return compute(rows if check is None else check(rows), **given)

        metric.__signature__ = signature  # type: ignore[attr-defined]
        return metric

    return decorate


def read(
    labels: ArrayLike,
    scores: ArrayLike,
    weights: ArrayLike | None,
    mask: ArrayLike | None,
    *,
    name: str = "scores",
    columns: bool = False,
    finite: bool = False,
) -> Rows:
    """Flattens and checks; the options are those of `of_rows`."""
    labels, scores = as_array("labels", labels), as_array(name, scores)
    dtype = scores.dtype
    truth, given = labels.astype(np.float64), scores.astype(np.float64)
    wider = columns and given.ndim == truth.ndim + 1
    if (given.shape[:-1] if wider else given.shape) != truth.shape:
        more = " (with or without an axis of classes)" if columns else ""
        raise ValueError(
            f"{name} must have the shape of labels, {truth.shape}{more}; got {given.shape}"
        )
    shape, n = truth.shape, truth.size

    def flat(what: str, values: NDArray) -> NDArray:
        if values.shape != shape:
            raise ValueError(f"{what} must have shape {shape}; got {values.shape}")
        return values.reshape(n)

    given = given.reshape(n, *given.shape[truth.ndim :])
    w = (
        None
        if weights is None
        else flat("weights", as_array("weights", weights).astype(np.float64))
    )
    rows = Rows(truth.reshape(n), given, w, np.arange(n), dtype)
    if mask is not None:
        rows = rows.take(flat("mask", booleans(mask)))
    wanted = "finite" if finite else "numbers"
    for what, part in (("labels", rows.labels), (name, rows.scores)):
        rows.refuse(what, part, ~np.isfinite(part) if finite else np.isnan(part), wanted)
    if rows.weights is not None:
        w = rows.weights
        rows.refuse("weights", w, ~(np.isfinite(w) & (w >= 0)), "finite and at least 0")
    return rows


def booleans(mask: ArrayLike) -> NDArray[np.bool_]:
    """Returns a mask of booleans, or of zeros and ones of any dtype, as booleans."""
    given = read_column("mask", mask)
    if not given.missing.any() and given.type in ("INT", "FLOAT", None):
        if ((given.values == 0) | (given.values == 1)).all():
            return given.values == 1
    dtype = np.asarray(mask).dtype
    raise ValueError(f"mask must be boolean, or hold zeros and ones; got {dtype}, {mask!r:.60}")


def as_array(name: str, values: Any) -> NDArray[Any]:
    """Returns numbers as an array: anything that is a column, or a table of scores by class.

    A missing value (`pandas.NA`, Arrow's null, a masked one) is NaN; None among objects is refused.

    Raises:
        ValueError: if they are no real numbers.
    """
    if is_table(values):
        parts = table_columns(values).items()
        return np.stack([as_array(f"{name}[{each!r}]", part) for each, part in parts], -1)
    column = read_column(name, values)
    mixed = isinstance(values, np.ndarray | list) and np.asarray(values).dtype == object
    if column.type not in ("INT", "FLOAT", None) or (mixed and column.missing.any()):
        raise ValueError(f"{name} must hold real numbers, got dtype {np.asarray(values).dtype}")
    if column.type == "INT" and not column.missing.any():
        return column.values
    dtype = getattr(values, "dtype", None)
    own = column.type == "FLOAT" and isinstance(dtype, np.dtype) and dtype.kind in "fV"
    return column.numbers().astype(dtype if own else np.float64)
