"""Linear models."""

import flax.linen as nn

from jaxml import checks
from jaxml.types import Array


class Linear(nn.Module):
    """An affine map `x W + b` that starts at zero.

    The loss makes it a model: `Linear(1, squeeze=True)` is a linear regression with a squared error and a
    logistic regression with binary cross-entropy; `Linear(K)` is a softmax classifier with softmax
    cross-entropy, and K logistic regressions with one-vs-all cross-entropy. These losses are convex, so
    that the start does not matter.

    Attributes:
        num_outputs: at least 1.
        squeeze: return `[...]` for one output, without an axis of length one: `[N, 1]` outputs beside `[N]`
            targets would broadcast to `[N, N]`.
    """

    num_outputs: int = 1
    squeeze: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[..., num_outputs]`, or `[...]` if squeezed, for `x` of `[..., D]` numbers.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> variables = Linear(2).init(jax.random.key(0), jnp.ones((4, 3)))
            >>> jax.tree.map(jnp.shape, variables["params"])
            {'output': {'bias': (2,), 'kernel': (3, 2)}}
        """
        num_outputs = checks.integer("num_outputs", self.num_outputs, at_least=1)
        if self.squeeze and num_outputs != 1:
            raise ValueError(f"num_outputs must be 1 with squeeze, got {num_outputs}")
        outputs = nn.Dense(num_outputs, kernel_init=nn.initializers.zeros, name="output")(x)
        return outputs[..., 0] if self.squeeze else outputs
