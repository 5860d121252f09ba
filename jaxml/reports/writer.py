"""The protocol of a writer, and several writers as one."""

import math
import operator
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class Writer(Protocol):
    """A destination of a run's reports: two methods, so that any tracker fits behind them."""

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes numbers of one step: Python, NumPy or JAX scalars by name."""

    def close(self) -> None:
        """Writes what is pending and releases files and screen; may be called twice."""


class Writers:
    """Several writers as one: each call goes to each of them, in order.

    >>> Writers().scalars(0, {"loss": 1.0})
    """

    def __init__(self, *writers: Writer):
        self._writers = writers

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Reads the numbers once, which waits for the device, and hands them to every writer."""
        values = numbers(values)
        for writer in self._writers:
            writer.scalars(step, values)

    def close(self) -> None:
        """Closes every writer, even if one of them fails."""
        errors = []
        for writer in self._writers:
            try:
                writer.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


def numbers(values: Mapping[str, Any]) -> dict[str, int | float]:
    """Returns Python, NumPy or JAX scalars as `int` (integers and booleans) and `float`.

    Floats of 32 bits and fewer become the shortest decimal that rounds back to them: float32 0.1 is 0.1,
    not 0.10000000149011612. A value that is no real scalar raises ValueError.

    >>> numbers({"loss": np.float32(0.1), "seen": np.int64(3), "accepted": True})
    {'loss': 0.1, 'seen': 3, 'accepted': 1}
    """
    return {name: _number(name, value) for name, value in values.items()}


def step_number(step: Any) -> int:
    """Returns the step as a Python integer; ValueError unless it is one of at least 0."""
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"step must be an integer of at least 0, got {step!r}")
    return number


def _number(name: str, value: Any) -> int | float:
    if type(value) in (int, float):
        return value
    array = np.asarray(value)
    if array.shape != ():
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}")
    if array.dtype.kind in "biu":
        return int(array)
    if array.dtype == np.float64:
        return float(array)
    # bfloat16 and its like are kinds of their own, of type "V"; all of them fit into float32.
    if array.dtype.kind in "fV":
        try:
            single = array.astype(np.float32)
        except (TypeError, ValueError):
            pass
        else:
            return float(str(single)) if math.isfinite(single) else float(single)
    raise ValueError(f"{name} must be a real number, got {value!r}")
