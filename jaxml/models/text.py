"""Encoders of short texts as bags of hashed n-grams."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxml.types import Array


def unit_norm(x: Array, *, epsilon: float = 1e-6) -> Array:
    """Returns vectors scaled to length one, `x / sqrt(|x|² + ε)`, float32.

    Args:
        x: `[..., D]` float.
        epsilon: keeps the gradient at the zero vector finite.

    Example:
        >>> [round(float(x), 4) for x in unit_norm(jnp.array([3.0, 4.0]))]
        [0.6, 0.8]
    """
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon)


class BagEncoder(nn.Module):
    """The sum of a bag of embedding rows, scaled to length one; zeros for an empty bag.

    The rows themselves are in a row-sparse table outside of the module, and are summed as they are read.
    """

    @nn.compact
    def __call__(self, sums: Array) -> Array:
        """Returns vectors `[..., D]` of length one, given the sums of rows."""
        return unit_norm(sums)
