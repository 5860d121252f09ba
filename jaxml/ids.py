"""Integers of any dtype as JAX computes with them: none wraps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.types import Array


def as_int32(name: str, ids: Any, bound: int = 2**31 - 1) -> Array:
    """Returns the ids as int32. Those outside `[0, bound)` stay outside: nothing wraps.

    Raises:
        ValueError: the ids are not integers.

    >>> as_int32("ids", [3, 2**32 + 1, -(2**40)], 10)
    Array([ 3, 10, -1], dtype=int32)
    """
    ids = ids if isinstance(ids, jax.Array) else np.asarray(ids)
    if not ids.size:  # An empty list is an array of floats.
        return jnp.zeros(ids.shape, jnp.int32)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"{name} must be integers, got dtype {ids.dtype}")
    info = jnp.iinfo(ids.dtype)
    if info.max > 2**31 - 1:
        ids = ids.clip(max(-1, int(info.min)), bound)
    return jnp.asarray(ids, jnp.int32)


def at_most_32_bits(name: str, values: Any) -> Any:
    """Returns the values, NumPy integers of 64 bits as 32 bits.

    Raises:
        ValueError: an integer does not fit.

    >>> at_most_32_bits("x", np.array([7, 2**32 + 1]))
    Traceback (most recent call last):
    ValueError: x must hold integers of 32 bits, got 4294967297 in row 1
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu":
        return values
    if values.dtype.itemsize < 8:
        return values
    narrow = np.dtype(np.int32 if values.dtype.kind == "i" else np.uint32)
    outside = (values < np.iinfo(narrow).min) | (values > np.iinfo(narrow).max)
    if outside.any():
        row = int(np.argwhere(outside)[0][0])
        raise ValueError(
            f"{name} must hold integers of 32 bits, got {values[outside][0]} in row {row}"
        )
    return values.astype(narrow)


def unwrapped(values: Any) -> Any:
    """Returns the values; integers on the host that 32 bits cannot hold as float32.

    JAX would keep their lower bits.

    >>> unwrapped(np.array([1, 2**32 + 1]))
    array([1.0000000e+00, 4.2949673e+09], dtype=float32)
    """
    if isinstance(values, jax.Array):
        return values
    given = np.asarray(values)
    if given.dtype.kind not in "iu" or given.dtype.itemsize < 8 or not given.size:
        return values
    fits = -(2**31) <= int(given.min()) and int(given.max()) < 2**31
    return values if fits else given.astype(np.float32)
