"""Initializers by name, those of `jax.nn.initializers`."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxml.types import Array

__all__ = ["INITIALIZERS", "Initializer", "InitializerSpec", "initializer"]

Initializer: TypeAlias = Callable[..., Array]
"""`init(key, shape, dtype=float32) -> Array`, as in JAX and Flax."""

InitializerSpec: TypeAlias = str | tuple[str, float] | Initializer
"""A name of `INITIALIZERS`, a name with its number, or an initializer."""

_jax = jax.nn.initializers

INITIALIZERS: dict[str, Callable[..., Initializer]] = {
    "he_normal": _jax.he_normal,
    "he_uniform": _jax.he_uniform,
    "glorot_normal": _jax.glorot_normal,
    "glorot_uniform": _jax.glorot_uniform,
    "lecun_normal": _jax.lecun_normal,
    "lecun_uniform": _jax.lecun_uniform,
    "orthogonal": _jax.orthogonal,
    "variance_scaling_normal": lambda scale: _jax.variance_scaling(scale, "fan_in", "normal"),
    "normal": _jax.normal,
    "constant": _jax.constant,
    "zeros": lambda: _jax.zeros,
}
"""Initializers by name.

| name | number | variance of a weight |
|---|---|---|
| `he_normal`, `he_uniform` | | 2 / fan_in |
| `glorot_normal`, `glorot_uniform` | | 2 / (fan_in + fan_out) |
| `lecun_normal`, `lecun_uniform` | | 1 / fan_in |
| `orthogonal` | gain g, default 1 | rows or columns orthogonal, of length g |
| `variance_scaling_normal` | s | s / fan_in |
| `normal` | standard deviation σ, default 0.01 | σ² |
| `constant` | c | 0: units that start equal stay equal |
| `zeros` | | 0: right for a linear model, fatal for hidden layers |

`he_normal`, `glorot_normal`, `lecun_normal` and `variance_scaling_normal` are normal distributions
truncated at two deviations and widened to the variance above, as in Keras and Flax.

References: LeCun et al. 1998, Efficient BackProp; Glorot and Bengio 2010; Saxe et al. 2014; He et al.
2015."""

# Whether a number must be given, of the names that take one.
_NUMBERED = {
    "orthogonal": False,
    "variance_scaling_normal": True,
    "normal": False,
    "constant": True,
}


def initializer(spec: InitializerSpec) -> Initializer:
    """Returns an initializer.

    Args:
        spec: a name of `INITIALIZERS`; a pair of name and number, as `("normal", 0.02)`; or an initializer,
            which is returned as it is. Fans are those of a kernel `[..., fan_in, fan_out]`.

    Example:
        >>> kernel = initializer(("normal", 0.5))(jax.random.key(0), (400, 500))
        >>> abs(float(kernel.std()) - 0.5) < 0.005
        True
    """
    if callable(spec):
        return spec
    name, *number = spec if isinstance(spec, tuple | list) else (spec,)
    if name not in INITIALIZERS or len(number) > 1:
        raise ValueError(
            f"initializer must be a function, a name among {', '.join(INITIALIZERS)}, or a pair of "
            f"name and number, got {spec!r}"
        )
    if number and name not in _NUMBERED:
        raise ValueError(f"initializer {name!r} must have no number, got {number[0]!r}")
    bad = any(not math.isfinite(n) or (n < 0 and name != "constant") for n in number)
    if bad or (not number and _NUMBERED.get(name, False)):
        raise ValueError(
            f"initializer {name!r} must have a finite number of at least 0, as in ({name!r}, 0.1), "
            f"got {spec!r}"
        )
    init = INITIALIZERS[name](*number)
    # Without a dtype JAX's have 64 bits where these are enabled, and other numbers.
    return lambda key, shape, dtype=jnp.float32, **options: init(key, shape, dtype, **options)
