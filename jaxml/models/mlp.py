"""Multilayer perceptrons."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import numpy as np

from jaxml import checks
from jaxml.models.activations import activate
from jaxml.models.initializers import InitializerSpec, initializer
from jaxml.types import Array


class MLP(nn.Module):
    """Dense layers with an activation after each but the last.

        x ← dropout(activation(norm(W x + b)))        for each hidden layer

    SELU keeps its activations normalized only with an initializer of variance 1 / fan_in (Flax's default)
    and without dropout, which adds variance.

    Attributes:
        widths: of the hidden layers, named `hidden_0`, `hidden_1`, …; the last layer is `output`.
        num_outputs: of the last layer.
        activation: as `activate` takes it; a Linen module is shared by all layers.
        kernel_init: of all layers, as `initializer` takes it.
        normalization: between a layer and its activation. "batch" normalizes by the statistics of the batch
            in training, over all axes but the last, and by running means in evaluation.
        dropout: share of units dropped after each activation in training, in [0, 1).
        output_activation: as `activation`.
    """

    widths: tuple[int, ...]
    num_outputs: int
    activation: str | Callable[[Array], Array] = "relu"
    kernel_init: InitializerSpec = "lecun_normal"
    normalization: Literal["none", "layer", "batch"] = "none"
    dropout: float = 0.0
    output_activation: str | Callable[[Array], Array] = "none"

    @nn.compact
    def __call__(self, x: Array, training: bool = False) -> Array:
        """Returns `[..., num_outputs]` for `x` of `[..., D]` numbers, float32.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> module = MLP((8, 8), 3, "gelu", "he_normal", "layer")
            >>> x = jnp.ones((5, 4))
            >>> variables = module.init(jax.random.key(0), x)
            >>> module.apply(variables, x).shape, sorted(variables["params"])[:2]
            ((5, 3), ['hidden_0', 'hidden_1'])
        """
        checks.choice("normalization", self.normalization, ("none", "layer", "batch"))
        checks.number("dropout", self.dropout, at_least=0, below=1)
        widths = [checks.integer(f"widths[{i}]", w, at_least=1) for i, w in enumerate(self.widths)]
        num_outputs = checks.integer("num_outputs", self.num_outputs, at_least=1)
        init = initializer(self.kernel_init)
        for i, width in enumerate(widths):
            x = nn.Dense(width, kernel_init=init, name=f"hidden_{i}")(x)
            if self.normalization == "layer":
                x = nn.LayerNorm(name=f"norm_{i}")(x)
            elif self.normalization == "batch":
                x = nn.BatchNorm(use_running_average=not training, name=f"norm_{i}")(x)
            x = activate(x, self.activation, name=f"slope_{i}")
            if self.dropout:
                # A float32, or other units are dropped where 64 bits are enabled.
                x = nn.Dropout(np.float32(self.dropout), deterministic=not training)(x)
        x = nn.Dense(num_outputs, kernel_init=init, name="output")(x)
        return activate(x, self.output_activation, name="slope_output")
