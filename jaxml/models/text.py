"""Encoders of short texts given as bags of hashed n-grams."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxml.types import Array


def unit_norm(x: Array, *, epsilon: float = 1e-6) -> Array:
    """Scales vectors to length one: `x / sqrt(|x|² + ε)`.

    Args:
        x: `[..., D]` float.
        epsilon: added to the squared length, so that the zero vector stays zero with a finite gradient.

    Returns:
        `[..., D]` float32.

    Example:
        >>> [round(float(x), 4) for x in unit_norm(jnp.array([3.0, 4.0]))]
        [0.6, 0.8]
    """
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon)


class BagEncoder(nn.Module):
    """The sum of a bag of embedding rows as one vector of length one.

    With `hidden > 0` a residual network of one hidden layer follows, `h + W₂ relu(W₁ h)`, whose `W₂`
    starts at zero so that training starts from the plain bag. The rows themselves live in a row-sparse
    table outside of the module, and are summed as they are read.

    Attributes:
        hidden: width of the hidden layer; 0 for the plain bag.
    """

    hidden: int = 0

    @nn.compact
    def __call__(self, sums: Array) -> Array:
        """Encodes a batch of bags.

        Args:
            sums: `[..., D]` float, the sum of each bag's rows.

        Returns:
            `[..., D]` float32 of length one (zeros for an empty bag).
        """
        bag = unit_norm(sums)
        if not self.hidden:
            return bag
        wide = nn.relu(nn.Dense(self.hidden)(bag))
        return unit_norm(bag + nn.Dense(bag.shape[-1], kernel_init=nn.initializers.zeros)(wide))
