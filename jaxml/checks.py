"""Checks of arguments.

Each returns the value as a plain Python value, or raises a ValueError that names the argument, the value
that was wanted and the value it got.
"""

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")

_REAL: Any = numbers.Real  # NumPy's floats are some.


def integer(name: str, value: Any, at_least: int | None = None, at_most: int | None = None) -> int:
    """Returns the value as an int. Floats that are whole numbers (`1e4`) and NumPy's are accepted.

    >>> integer("num_steps", 1e2, at_least=1)
    100
    >>> integer("num_steps", 0, at_least=1)
    Traceback (most recent call last):
    ValueError: num_steps must be an integer of at least 1, got 0
    """
    try:
        whole = (
            int(value)
            if isinstance(value, _REAL) and value == int(value)
            else operator.index(value)
        )
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or not _within(whole, at_least, at_most):
        raise ValueError(f"{name} must be an integer{_range(at_least, at_most)}, got {value!r}")
    return whole


def number(
    name: str,
    value: Any,
    at_least: float | None = None,
    at_most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Returns the value as a finite float.

    >>> number("learning_rate", 0, above=0)
    Traceback (most recent call last):
    ValueError: learning_rate must be a finite number above 0, got 0
    """
    try:
        found = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    inside = (above is None or found > above) and (below is None or found < below)
    if not (math.isfinite(found) and inside and _within(found, at_least, at_most)):
        ends = (("above", above), ("below", below))
        wanted = " and".join(f" {name} {end}" for name, end in ends if end is not None)
        raise ValueError(
            f"{name} must be a finite number{wanted}{_range(at_least, at_most)}, got {value!r}"
        )
    return found


def choice(name: str, value: T, options: Iterable[T]) -> T:
    """Returns the value if it is one of the options.

    >>> choice("reduction", "men", ("mean", "sum"))
    Traceback (most recent call last):
    ValueError: reduction must be one of 'mean', 'sum', got 'men'
    """
    options = list(options)
    if not any(value is option or value == option for option in options):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" in [{low}, {high}]"
    if low is not None:
        return f" of at least {low}"
    return f" of at most {high}" if high is not None else ""
