"""Integer ids as int32, whatever integers they come as."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.types import Array


def as_int32(name: str, ids: Any, bound: int) -> Array:
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
