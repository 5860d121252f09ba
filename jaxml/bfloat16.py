"""bfloat16 numbers stored as their bits, in uint16.

XLA's CPU backend rewrites a whole bfloat16 array to scatter into it; an integer array is updated in place.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxml.types import Array


def from_bits(values: Array) -> Array:
    """Returns uint16 bits as the bfloat16 numbers that they are; other dtypes unchanged.

    >>> from_bits(jnp.array([16256, 49152], jnp.uint16))
    Array([1, -2], dtype=bfloat16)
    """
    if values.dtype == jnp.uint16:
        return jax.lax.bitcast_convert_type(values, jnp.bfloat16)
    return values


def to_dtype(values: Array, dtype: DTypeLike) -> Array:
    """Returns floats rounded to nearest in `dtype`; for uint16 the bits of bfloat16.

    >>> to_dtype(jnp.array([1.0, -2.0]), jnp.uint16)
    Array([16256, 49152], dtype=uint16)
    """
    if jnp.dtype(dtype) == jnp.uint16:
        return jax.lax.bitcast_convert_type(values.astype(jnp.bfloat16), jnp.uint16)
    return values.astype(dtype)
