"""What a transform is called with, read as plain Python values: a file of JSON is to hold it.

NumPy's scalars come from loops over `np.arange` and from columns; 3.0 buckets are 3, and 2.5 are refused.
"""

import math
import operator
from typing import Any


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A Python int within [least, most].

    >>> integer("num_buckets", 3.0, 1)
    3
    """
    try:
        whole = (
            int(value)
            if isinstance(value, float) and value == int(value)
            else operator.index(value)
        )
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole < least or (most is not None and whole > most):
        ends = f"of at least {least}" if most is None else f"in [{least}, {most}]"
        raise ValueError(f"{name} is {value!r}, wanted an integer {ends}")
    return whole


def optional_integer(name: str, value: Any, least: int) -> int | None:
    """None, or a Python int of at least `least`."""
    return None if value is None else integer(name, value, least)


def number(name: str, value: Any) -> float:
    """A Python float that is no NaN.

    >>> number("low", 3)
    3.0
    """
    try:
        read = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        read = math.nan
    if math.isnan(read):
        raise ValueError(f"{name} is {value!r}, wanted a number")
    return read


def quantile_range(name: str, value: Any) -> tuple[float, float]:
    """Two shares 0 ≤ low < high ≤ 1."""
    try:
        low, high = value
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}, wanted two numbers, (low, high)") from None
    low, high = number(name, low), number(name, high)
    if not 0 <= low < high <= 1:
        raise ValueError(f"quantiles are {low} and {high}, wanted 0 ≤ low < high ≤ 1")
    return low, high
