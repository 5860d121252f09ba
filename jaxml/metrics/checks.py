"""Labels, scores, weights and masks of the one-call metrics, read on the host and checked by row."""

import operator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_REAL = (bool, int, float, np.bool_, np.integer, np.floating)


class Rows(NamedTuple):
    """What counts, in float64.

    Attributes:
        labels: [n, …].
        scores: [n, …].
        weights: [n] or None.
        numbers: [n], the row's place among all that were given.
    """

    labels: NDArray[np.float64]
    scores: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    numbers: NDArray[np.int64]

    def sum(self, values: NDArray) -> float:
        """Weighted sum over rows."""
        if self.weights is None:
            return float(np.sum(values))
        # Weight 0 takes a row out, even if its loss is infinite.
        some = self.weights > 0
        return float(np.sum(values[some] * self.weights[some]))

    def mean(self, values: NDArray) -> float:
        """Weighted mean over rows; NaN where nothing has weight."""
        total = float(len(values)) if self.weights is None else float(self.weights.sum())
        return self.sum(values) / total if total > 0 else float("nan")


def ratio(over: float, under: float, undefined: float = float("nan")) -> float:
    """`over / under`, or what stands for it where `under` is zero; no warning."""
    return float(over) / float(under) if under != 0 else undefined


def integer(name: str, value: Any, low: int) -> int:
    """The value as an int of at least `low`, or ValueError that names it."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} must be an integer, got {value!r}") from error
    if number < low:
        raise ValueError(f"{name} must be at least {low}, got {number}")
    return number


def number(name: str, value: Any, low: float, *, exclusive: bool = False) -> float:
    """The value as a finite float of at least (or above) `low`, or ValueError that names it."""
    given = float(value)
    if not np.isfinite(given) or given < low or (exclusive and given == low):
        raise ValueError(
            f"{name} must be {'above' if exclusive else 'at least'} {low}, got {value!r}"
        )
    return given


def choice(name: str, value: Any, among: tuple[Any, ...]) -> Any:
    """The value, or ValueError that lists what it may be."""
    if value not in among:
        raise ValueError(f"{name} must be one of {among}, got {value!r}")
    return value


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(values)
    if given.dtype.kind == "O" and all(isinstance(v, _REAL) for v in given.flat):
        given = given.astype(np.float64)
    if given.dtype.kind in "USOMmc":
        raise ValueError(f"{name} must hold real numbers, got dtype {given.dtype}")
    return given.astype(np.float64)


def booleans(mask: ArrayLike) -> NDArray[np.bool_]:
    """A mask of booleans, or of zeros and ones of any dtype, as booleans; or ValueError."""
    given = np.asarray(mask)
    if given.dtype == bool:
        return given
    if given.dtype.kind not in "iuf" or not ((given == 0) | (given == 1)).all():
        raise ValueError(
            f"mask must be boolean, or hold zeros and ones; got {given.dtype}, {mask!r:.60}"
        )
    return given == 1


def _row(where: NDArray[np.bool_], index: NDArray[np.int64]) -> int:
    """Number of the first row at fault, as the caller counts."""
    at = int(np.argmax(where.reshape(len(where), -1).any(1)))
    return int(index[at])


def refuse(
    name: str, values: NDArray, fault: NDArray[np.bool_], index: NDArray[np.int64], wanted: str
) -> None:
    """Raises ValueError with row number and value if any row is at fault."""
    if fault.any():
        shown = values[np.argmax(fault.reshape(len(fault), -1).any(1))]
        raise ValueError(f"{name} must be {wanted}; row {_row(fault, index)} is {shown}")


def read(
    labels: ArrayLike,
    scores: ArrayLike,
    weights: ArrayLike | None,
    mask: ArrayLike | None,
    *,
    names: tuple[str, str] = ("labels", "scores"),
    lists: bool = False,
    columns: bool = False,
    finite: bool = False,
) -> Rows:
    """The rows that the mask leaves, flattened and checked.

    Args:
        labels: [...], or [..., D] for lists.
        scores: of the labels' shape, or with one more axis if `columns`.
        weights: None, or of the labels' shape (without D for lists), finite and at least 0.
        mask: None, or booleans (or zeros and ones) like the weights; False takes a row out, whatever it
            holds.
        names: what messages call labels and scores.
        lists: each row is a list along the last axis.
        columns: scores may have one more axis than labels, a score a class.
        finite: whether infinite labels and scores are refused, too.

    Returns:
        Rows.

    Raises:
        ValueError: shapes that do not fit, or NaN, or weights out of range, with the row.
    """
    truth, given = _numbers(names[0], labels), _numbers(names[1], scores)
    wider = columns and given.ndim == truth.ndim + 1
    if (given.shape[:-1] if wider else given.shape) != truth.shape:
        more = " (with or without an axis of classes)" if columns else ""
        raise ValueError(
            f"{names[1]} must have the shape of {names[0]}, {truth.shape}{more}; got {given.shape}"
        )
    if lists and truth.ndim < 1:
        raise ValueError(f"{names[0]} must have an axis of items; got a scalar")
    lead = truth.shape[:-1] if lists else truth.shape
    n = int(np.prod(lead, dtype=np.int64))
    truth = truth.reshape(n, *truth.shape[len(lead) :])
    given = given.reshape(n, *given.shape[len(lead) :])
    index = np.arange(n)
    w = None if weights is None else _numbers("weights", weights)
    if w is not None:
        if w.shape != lead:
            raise ValueError(f"weights must have shape {lead}; got {w.shape}")
        w = w.reshape(n)
    if mask is not None:
        keep = booleans(mask)
        if keep.shape != lead:
            raise ValueError(f"mask must have shape {lead}; got {keep.shape}")
        keep = keep.reshape(n)
        truth, given, index = truth[keep], given[keep], index[keep]
        w = None if w is None else w[keep]
    bad = (lambda v: ~np.isfinite(v)) if finite else np.isnan
    wanted = "finite" if finite else "numbers"
    refuse(names[0], truth, bad(truth), index, wanted)
    refuse(names[1], given, bad(given), index, wanted)
    if w is not None:
        refuse("weights", w, ~(np.isfinite(w) & (w >= 0)), index, "finite and at least 0")
    return Rows(truth, given, w, index)


def binary(rows: Rows) -> NDArray[np.bool_]:
    """The labels as booleans, or ValueError with the first row that is neither 0 nor 1."""
    fault = (rows.labels != 0) & (rows.labels != 1)
    refuse("labels", rows.labels, fault, rows.numbers, "0 or 1")
    return rows.labels == 1


def class_ids(
    name: str, values: NDArray, index: NDArray[np.int64], num_classes: int | None
) -> NDArray[np.int64]:
    """The values as ids, or ValueError with the first row that is not a whole number in range."""
    high = np.inf if num_classes is None else num_classes
    fault = ~((values >= 0) & (values < high) & (np.floor(values) == values))
    until = "0, 1, 2, …" if num_classes is None else f"whole numbers in [0, {num_classes})"
    refuse(name, values, fault, index, until)
    return values.astype(np.int64)


def probabilities(rows: Rows) -> NDArray[np.float64]:
    """The scores, or ValueError with the first row out of [0, 1]."""
    fault = (rows.scores < 0) | (rows.scores > 1)
    refuse(
        "scores", rows.scores, fault, rows.numbers, "probabilities in [0, 1] (or say from_logits)"
    )
    return rows.scores
