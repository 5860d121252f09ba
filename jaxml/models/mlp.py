"""Multilayer perceptrons."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxml.types import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "selu": nn.selu,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "exponential": jnp.exp,
    "softmax": nn.softmax,
}
"""Activations by name; `prelu` is one, too, with a slope of its own for each layer that is learned."""


class MLP(nn.Module):
    """Dense layers, an activation after each but the last.

    Attributes:
        widths: of the hidden layers, named `hidden_0`, `hidden_1`, …; the last layer is `output`.
        num_outputs: of the last layer.
        activation: of `ACTIVATIONS`, or `"prelu"`.
        kernel_init: of all layers; None for Flax's own, LeCun's normal distribution.
        normalization: between a layer and its activation.
        dropout: share of units that training drops after each activation.
        output_activation: of `ACTIVATIONS`.
    """

    widths: tuple[int, ...]
    num_outputs: int
    activation: str = "relu"
    kernel_init: Callable[..., Array] | None = None
    normalization: Literal["none", "layer", "batch"] = "none"
    dropout: float = 0.0
    output_activation: str = "none"

    @nn.compact
    def __call__(self, x: Array, training: bool = False) -> Array:
        """Outputs for a batch.

        Args:
            x: `[..., D]` float.
            training: whether to drop units and to normalise by the batch's own statistics.

        Returns:
            `[..., num_outputs]`.

        Raises:
            ValueError: for an unknown activation or normalization.
        """
        initializer = self.kernel_init or nn.initializers.lecun_normal()
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=initializer, name=f"hidden_{i}")(x)
            if self.normalization == "layer":
                x = nn.LayerNorm(name=f"norm_{i}")(x)
            elif self.normalization == "batch":
                x = nn.BatchNorm(use_running_average=not training, name=f"norm_{i}")(x)
            elif self.normalization != "none":
                raise ValueError(
                    f"normalization must be none, layer or batch, got {self.normalization!r}"
                )
            x = self._activate(x, self.activation, f"slope_{i}")
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not training)(x)
        x = nn.Dense(self.num_outputs, kernel_init=initializer, name="output")(x)
        return self._activate(x, self.output_activation, "slope_output")

    def _activate(self, x: Array, activation: str, name: str) -> Array:
        if activation == "prelu":
            return nn.PReLU(name=name)(x)
        if activation not in ACTIVATIONS:
            known = ", ".join((*ACTIVATIONS, "prelu"))
            raise ValueError(f"activation must be among {known}, got {activation!r}")
        return ACTIVATIONS[activation](x)
