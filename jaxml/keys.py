"""Random keys as arguments."""

from typing import Any

import jax
import numpy as np

from jaxml.types import Key


def as_key(key: Any) -> Key:
    """Returns a key of `jax.random`; an integer is taken as a seed.

    Raises:
        ValueError: if it is neither.

    >>> bool(as_key(3) == jax.random.key(3))
    True
    >>> as_key(0.5)
    Traceback (most recent call last):
    ValueError: key must be a jax.random.key or an integer, got 0.5
    """
    if isinstance(key, np.ndarray) and key.ndim:
        key = jax.numpy.asarray(key)
    if isinstance(key, jax.Array) and (
        key.ndim or jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    ):
        return key
    dtype = getattr(key, "dtype", type(key))
    if np.shape(key) or not jax.dtypes.issubdtype(dtype, np.integer):
        raise ValueError(f"key must be a jax.random.key or an integer, got {key!r}")
    return jax.random.key(key)
