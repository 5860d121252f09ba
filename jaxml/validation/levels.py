"""Columns cut into few levels."""

import numpy as np
from numpy.typing import NDArray

from jaxml.validation.columns import Column


def quantile_levels(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Returns the level of each distinct value, of levels with about equal counts.

    Args:
        counts: how often each of the distinct values occurs, in their order.
        most: number of levels at most.

    >>> quantile_levels(np.array([1, 1, 1, 1, 4]), 2).tolist()
    [0, 0, 0, 0, 1]
    """
    if len(counts) <= most:
        return np.arange(len(counts))
    middle = np.cumsum(counts) - counts / 2
    return np.minimum((most * middle / counts.sum()).astype(np.int64), most - 1)


def levels(column: Column, most: int) -> tuple[NDArray[np.int64], int]:
    """Returns the level of each row, in [0, L), and L.

    Levels are the values of a column of few values, otherwise its `most` most frequent texts and one of
    all others, or `most` quantiles of its numbers. The last level is "missing".
    """
    codes, distinct = column.codes()
    if len(distinct) > most:
        counts = np.bincount(codes[codes >= 0], minlength=len(distinct))
        if column.values.dtype == object:
            place = np.empty(len(distinct), np.int64)
            place[np.argsort(-counts, kind="stable")] = np.arange(len(distinct))
            place = np.minimum(place, most)
        else:
            place = quantile_levels(counts, most)
        codes = np.where(codes >= 0, place[codes], -1)
    size = int(codes.max(initial=-1)) + 2
    return np.where(codes < 0, size - 1, codes), size
