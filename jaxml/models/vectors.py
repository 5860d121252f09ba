"""Vectors of length one."""

import jax
import jax.numpy as jnp

from jaxml.types import Array


def unit_norm(x: Array, *, epsilon: float = 1e-6) -> Array:
    """Returns vectors scaled to length one, `x / sqrt(|x|² + ε)`, float32. The zero vector stays zero.

    Args:
        x: `[..., D]` float.
        epsilon: keeps the gradient at the zero vector finite.

    Example:
        >>> [round(float(x), 4) for x in unit_norm(jnp.array([3.0, 4.0]))]
        [0.6, 0.8]
    """
    x = x.astype(jnp.float32)
    # Squares of numbers beyond 1.8e19 would overflow.
    unit = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(x), -1, keepdims=True, initial=0), 1))
    x = x / unit
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(square + epsilon / unit / unit)
