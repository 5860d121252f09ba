"""Multilayer perceptrons."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn

from jaxml.models.activations import activate
from jaxml.models.initializers import InitializerSpec, initializer
from jaxml.types import Array


class MLP(nn.Module):
    """Dense layers, an activation after each but the last.

        x ← dropout(activation(norm(W x + b)))                  for each hidden layer
        x ← skip(x) + dropout(activation(norm(W x + b)))        with `residual`

    A residual connection carries `x` as it is where the widths before and after the layer agree, and else
    through a projection without bias, `skip_i` (He et al., 2015, section 3.3, option B): so there is a way
    without a nonlinearity from the inputs to the last layer, whatever the widths.

    SELU keeps its activations normalised only with an initialiser of variance 1 / fan_in (Flax's own) and
    without dropout, which adds variance.

    Attributes:
        widths: of the hidden layers, named `hidden_0`, `hidden_1`, …; the last layer is `output`.
        num_outputs: of the last layer.
        activation: of `ACTIVATIONS`, `"prelu"`, or any function of an array; a Linen module given as one is
            shared by all layers.
        kernel_init: of all layers: of `INITIALIZERS`, with a number, or a function; None for Flax's own,
            LeCun's normal distribution.
        normalization: between a layer and its activation. By batch, statistics are those of the batch in
            training, over all axes but the last, and running means in evaluation.
        dropout: share of units that training drops after each activation, in [0, 1).
        output_activation: as `activation`.
        residual: whether each hidden layer adds to what it was given.
        dtype: that is computed in; None for that of inputs and parameters together. Parameters are float32
            whatever it is.
    """

    widths: tuple[int, ...]
    num_outputs: int
    activation: str | Callable[[Array], Array] = "relu"
    kernel_init: InitializerSpec | None = None
    normalization: Literal["none", "layer", "batch"] = "none"
    dropout: float = 0.0
    output_activation: str | Callable[[Array], Array] = "none"
    residual: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, training: bool = False) -> Array:
        """Outputs for a batch.

        Args:
            x: `[..., D]` float; integers and booleans are taken as numbers.
            training: whether to drop units and to normalise by the batch's own statistics.

        Returns:
            `[..., num_outputs]`, float32 for inputs of at most 32 bits unless `dtype` says otherwise.

        Raises:
            ValueError: for an unknown activation, initialiser or normalization, a dropout out of [0, 1), or
                a width below 1.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> module = MLP((8, 8), 3, "gelu", "he_normal", "layer", residual=True)
            >>> x = jnp.ones((5, 4))
            >>> variables = module.init(jax.random.key(0), x)
            >>> module.apply(variables, x).shape, sorted(variables["params"])[:2]
            ((5, 3), ['hidden_0', 'hidden_1'])
        """
        self._check()
        init = initializer("lecun_normal" if self.kernel_init is None else self.kernel_init)
        for i, width in enumerate(self.widths):
            before = x
            if self.residual and x.shape[-1] != width:
                # Before the layer: what is next to it in the order of calls is taken for what follows it.
                before = nn.Dense(
                    width, use_bias=False, kernel_init=init, dtype=self.dtype, name=f"skip_{i}"
                )(x)
            x = nn.Dense(width, kernel_init=init, dtype=self.dtype, name=f"hidden_{i}")(x)
            if self.normalization == "layer":
                x = nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
            elif self.normalization == "batch":
                x = nn.BatchNorm(
                    use_running_average=not training, dtype=self.dtype, name=f"norm_{i}"
                )(x)
            x = activate(x, self.activation, name=f"slope_{i}")
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not training)(x)
            if self.residual:
                x = before + x
        x = nn.Dense(self.num_outputs, kernel_init=init, dtype=self.dtype, name="output")(x)
        return activate(x, self.output_activation, name="slope_output")

    def _check(self) -> None:
        if self.normalization not in ("none", "layer", "batch"):
            raise ValueError(
                f"normalization must be none, layer or batch, got {self.normalization!r}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout!r}")
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths must be at least 1, got {self.widths!r}")
        if self.num_outputs < 1:
            raise ValueError(f"num_outputs must be at least 1, got {self.num_outputs!r}")
