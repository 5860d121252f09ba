"""Activations by name."""

from collections.abc import Callable

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
    "silu": nn.silu,
    "swish": nn.swish,
    "softplus": nn.softplus,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "exponential": jnp.exp,
    "softmax": nn.softmax,
}
"""Flax's activations by name. `"prelu"` has a slope of its own in each layer (`flax.linen.PReLU`).

| name | for x → −∞ | derivative at 0 | initializer |
|---|---|---|---|
| `sigmoid` | 0 | ¼: vanishes over depth | `glorot_*` |
| `tanh` | −1 | 1 | `glorot_*` |
| `relu` | 0 exactly: units can die | 0 or 1 | `he_*` |
| `leaky_relu`, `prelu` | 0.01 x, a x with a learned | slope or 1 | `he_*` |
| `elu` | −1 | 1 | `he_*` |
| `gelu`, `silu` (`swish`) | 0 | ½ | `he_*` |
| `softplus` | 0 | ½ | `he_*` |
| `selu` | −1.758 | 1.05 or 1.76 | `lecun_*`: mean 0 and variance 1 are then a fixed point |

References: He et al. 2015 (PReLU); Clevert et al. 2016 (ELU); Hendrycks and Gimpel 2016 (GELU, here the
tanh formula); Klambauer et al. 2017 (SELU); Ramachandran et al. 2017 (swish)."""


def activate(
    x: Array, activation: str | Callable[[Array], Array], *, name: str | None = None
) -> Array:
    """Applies an activation, within a module's `@nn.compact` method.

    Args:
        x: any shape, float.
        activation: a name of `ACTIVATIONS`, `"prelu"`, or any function of an array or Linen module.
        name: of the submodule, if the activation has parameters.

    Example:
        >>> activate(jnp.array([-2.0, 3.0]), "relu").tolist()
        [0.0, 3.0]
    """
    if callable(activation):
        return activation(x)
    if activation == "prelu":
        return nn.PReLU(name=name)(x)
    if activation not in ACTIVATIONS:
        known = ", ".join((*ACTIVATIONS, "prelu"))
        raise ValueError(f"activation must be a function or among {known}, got {activation!r}")
    return ACTIVATIONS[activation](x)
