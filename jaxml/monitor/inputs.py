"""Checks of training data: values that are not finite, scales, outliers, repetitions. NumPy alone."""

from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from jaxml import hashing
from jaxml.types import PyTree

__all__ = ["DataReport", "inspect", "neighbour_signal"]

# Rows, and numbers in all of them, that neighbours are looked for in.
_ROWS, _NUMBERS = 2048, 20_000_000

# Root mean square, and deviation over the median column's, from which on data are unscaled. Bed: healthy
# up to 3.4 and 1.5, unscaled from 48 or a spread of 7,800.
_FAR, _SPREAD = 30.0, 300.0


class DataReport(NamedTuple):
    """Checks of a data set.

    Attributes:
        bad_rows: rows of inputs or targets that hold NaN or infinity.
        bad_cells: the first ten of them as (array, row, column), column in the flattened row. With several
            inputs the name is like "x['dense']".
        input_scale: largest root mean square of a column of the inputs.
        input_spread: largest deviation of a column over the median one; of columns that vary.
        worst_column: the column of the largest root mean square, counted through all numeric inputs.
        target_scale: root mean square of numeric targets, outliers apart; 1 for classes.
        outlier_rows: rows with a value more than 50 robust deviations from its column's median.
        outlier_targets: rows with such a target, if targets are numbers.
        period: the rows repeat in order with this period; 0 if they do not.
        distinct: share of rows that are distinct.
        sorted_by_target: whether the rows come in runs of equal targets.
    """

    bad_rows: NDArray[np.int64]
    bad_cells: tuple[tuple[str, int, int], ...]
    input_scale: float
    input_spread: float
    worst_column: int
    target_scale: float
    outlier_rows: NDArray[np.int64]
    outlier_targets: NDArray[np.int64]
    period: int
    distinct: float
    sorted_by_target: bool

    @property
    def unscaled(self) -> bool:
        """Whether inputs or targets are far from the scale that initializers and learning rates assume."""
        return self.input_scale > _FAR or self.input_spread > _SPREAD or self.target_scale > _FAR


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(len(values), -1)


def _is_number(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "f" or values.dtype.name == "bfloat16"


def inspect(x: PyTree, y: NDArray[Any]) -> DataReport:
    """Returns a `DataReport` of a data set.

    Args:
        x: [N, …] inputs, or a pytree of them; integers are ids.
        y: [N, …] targets; integers are classes.

    Example:
        >>> report = inspect(np.array([[1.0], [np.nan], [3.0]]), np.arange(3))
        >>> report.bad_rows.tolist(), report.bad_cells
        ([1], (('x', 1, 0),))
    """
    named = [
        (f"x{jax.tree_util.keystr(path)}", leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(x)
    ]
    bad = np.zeros(len(y), bool)
    cells: list[tuple[str, int, int]] = []
    for name, values in (*named, ("y", y)):
        if _is_number(values):
            wrong = ~np.isfinite(_flat(values).astype(np.float64))
            bad |= wrong.any(1)
            cells += [(name, int(row), int(column)) for row, column in np.argwhere(wrong)[:10]]
    good = ~bad
    scale, spread, worst, outliers = 1.0, 1.0, 0, np.zeros(0, np.int64)
    of_numbers = [_flat(values) for _, values in named if _is_number(values)]
    if of_numbers and good.any():
        columns = np.concatenate([each[good].astype(np.float64) for each in of_numbers], axis=1)
        rms = np.sqrt(np.square(columns).mean(0))
        deviation = columns.std(0)
        varying = deviation > 1e-12 * np.maximum(rms, 1e-300)
        scale, worst = float(rms.max(initial=0.0)), int(rms.argmax()) if rms.size else 0
        # Against the median column: some may vary little, as the border of an image does.
        if varying.sum() > 1:
            high = np.sort(deviation[varying])
            spread = float(high[-1] / max(np.median(high), 1e-300))
        outliers = np.flatnonzero(good)[_outliers(columns).any(1)]
    targets, outlying = 1.0, np.zeros(0, np.int64)
    if _is_number(y) and good.any():
        numbers = _flat(y)[good].astype(np.float64)
        # A few targets in another unit are outliers and no scale.
        away = np.abs(numbers - np.median(numbers))
        targets = float(np.sqrt(np.mean(np.square(numbers[away <= np.percentile(away, 95)]))))
        outlying = np.flatnonzero(good)[_outliers(numbers).any(1)]
    rows = hashing.hash_rows(*(values for _, values in named), y)
    _, first = np.unique(rows, return_index=True)
    return DataReport(
        bad_rows=np.flatnonzero(bad),
        bad_cells=tuple(cells[:10]),
        input_scale=scale,
        input_spread=spread,
        worst_column=worst,
        target_scale=targets,
        outlier_rows=outliers,
        outlier_targets=outlying,
        period=_period(rows, len(first)),
        distinct=len(first) / max(len(rows), 1),
        sorted_by_target=_in_runs(y),
    )


def neighbour_signal(x: PyTree, y: NDArray[Any]) -> float:
    """Returns by how much nearest neighbours have more alike labels than others, in standard errors.

    It needs no model: it is large where labels follow from the inputs in any way that near examples share.
    Each example of one half is compared with the nearest one of the other half.

    Args:
        x: [N, …] finite inputs, or a pytree of them, in random order.
        y: [N, …] labels; integers are classes.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> neighbour_signal(x, (x.prod(1) > 0).astype(int)) > 4
        True
    """
    leaves = [_flat(np.asarray(leaf)) for leaf in jax.tree.leaves(x)]
    half = min(_ROWS, len(y), _NUMBERS // max(sum(leaf.shape[1] for leaf in leaves), 1)) // 2
    if half < 2:
        return 0.0
    distance = np.zeros((half, half))
    for leaf in leaves:
        values = leaf[: 2 * half].astype(np.float32)
        if _is_number(leaf):
            values = values - values.mean(0)
            values = values / np.maximum(values.std(0), 1e-12)
            near, far = values[:half], values[half:]
            distance += np.square(near).sum(1)[:, None] + np.square(far).sum(1) - 2 * near @ far.T
        else:
            for column in values.T:
                distance += column[:half, None] != column[half:]
    labels = _flat(y)[: 2 * half]
    own, others = labels[:half], labels[half:]

    def apart(other: NDArray[Any]) -> NDArray[np.float64]:
        numeric = np.abs(own - other.astype(np.float64)) if _is_number(y) else own != other
        return numeric.mean(1)

    gain = apart(others) - apart(others[distance.argmin(1)])
    return float(gain.mean() / max(gain.std() / np.sqrt(half), 1e-12))


def _outliers(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    center = np.median(columns, axis=0)
    away = np.abs(columns - center)
    robust = 1.4826 * np.median(away, axis=0)
    # A column that is mostly one value has no deviation to judge by.
    return away > 50 * np.where(robust > 0, robust, np.inf)


def _period(rows: NDArray[np.uint64], distinct: int) -> int:
    """Returns the distance at which nearly all rows repeat, at least four times; 0 if there is none."""
    most = len(rows) // 4
    if 2 <= distinct <= most:
        for distance in (np.flatnonzero(rows[1:] == rows[0]) + 1)[:64]:
            if distance <= most and np.mean(rows[distance:] == rows[:-distance]) > 0.95:
                return int(distance)
    return 0


def _in_runs(y: NDArray[Any]) -> bool:
    """Returns whether equal targets are neighbours far more often than by chance."""
    flat = _flat(y)
    if len(flat) < 20:
        return False
    same = float(np.mean((flat[1:] == flat[:-1]).all(1)))
    _, counts = np.unique(hashing.hash_rows(flat), return_counts=True)
    by_chance = float(np.square(counts / len(flat)).sum())
    return by_chance < 0.9 and same > 0.5 + by_chance / 2 and len(counts) > 1
