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
    """The sum of a bag of embedding rows, scaled to length one.

    With `hidden > 0` a residual network with one hidden layer follows, `h + W₂ relu(W₁ h)`, whose `W₂`
    starts at zero, so that training starts from the plain bag. The rows themselves are in a row-sparse
    table outside of the module, and are summed as they are read.

    Attributes:
        hidden: width of the hidden layer; 0 for the plain bag.
    """

    hidden: int = 0

    @nn.compact
    def __call__(self, sums: Array) -> Array:
        """Returns vectors `[..., D]` of length one, zeros for an empty bag, given the sums of rows."""
        bag = unit_norm(sums)
        if not self.hidden:
            return bag
        wide = nn.relu(nn.Dense(self.hidden)(bag))
        return unit_norm(bag + nn.Dense(bag.shape[-1], kernel_init=nn.initializers.zeros)(wide))
