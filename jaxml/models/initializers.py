"""Initializers by name, those of `jax.nn.initializers` and by variance."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax

from jaxml.types import Array, Key

__all__ = ["INITIALIZERS", "Initializer", "InitializerSpec", "initializer"]

Initializer: TypeAlias = Callable[..., Array]
"""`init(key, shape, dtype=float32) -> Array`, as in JAX and Flax."""

InitializerSpec: TypeAlias = str | tuple[str, float] | Initializer
"""A name of `INITIALIZERS`, a name with its number, or an initializer."""

_jax = jax.nn.initializers


class _Entry(NamedTuple):
    make: Callable[[float], Initializer]
    number: str | None  # the meaning of the number; None without one
    default: float | None = None


def _plain(make: Callable[[], Initializer]) -> _Entry:
    return _Entry(lambda _: make(), None)


def _uniform_of_variance(variance: float) -> Initializer:
    # `jax.nn.initializers.uniform` is of [0, scale), which does not have mean 0.
    bound = math.sqrt(3 * variance)

    def init(key: Key, shape: Any, dtype: Any = float) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _fan_in(distribution: Any) -> _Entry:
    return _Entry(
        lambda scale: _jax.variance_scaling(scale, "fan_in", distribution), "variance · fan_in"
    )


INITIALIZERS: dict[str, _Entry] = {
    "he_normal": _plain(_jax.he_normal),
    "he_uniform": _plain(_jax.he_uniform),
    "glorot_normal": _plain(_jax.glorot_normal),
    "glorot_uniform": _plain(_jax.glorot_uniform),
    "lecun_normal": _plain(_jax.lecun_normal),
    "lecun_uniform": _plain(_jax.lecun_uniform),
    "orthogonal": _Entry(_jax.orthogonal, "gain", 1.0),
    "variance_scaling_normal": _fan_in("normal"),
    "variance_scaling_uniform": _fan_in("uniform"),
    "variance_normal": _Entry(lambda v: _jax.normal(math.sqrt(v)), "variance of a weight"),
    "variance_uniform": _Entry(_uniform_of_variance, "variance of a weight"),
    "normal": _Entry(_jax.normal, "standard deviation of a weight", 0.01),
    "constant": _Entry(_jax.constant, "value of every weight"),
    "zeros": _plain(lambda: _jax.zeros),
}
"""Initializers by name.

| name | number | variance of a weight |
|---|---|---|
| `he_normal`, `he_uniform` | | 2 / fan_in |
| `glorot_normal`, `glorot_uniform` | | 2 / (fan_in + fan_out) |
| `lecun_normal`, `lecun_uniform` | | 1 / fan_in |
| `orthogonal` | gain g, default 1 | rows or columns orthogonal, of length g |
| `variance_scaling_normal`, `variance_scaling_uniform` | s | s / fan_in |
| `variance_normal`, `variance_uniform` | v | v |
| `normal` | standard deviation σ, default 0.01 | σ² |
| `constant` | c | 0: units that start equal stay equal |
| `zeros` | | 0: right for a linear model, fatal for hidden layers |

`he_normal`, `glorot_normal` and `lecun_normal` are normal distributions truncated at two deviations and
widened to the variance above, as in Keras and Flax.

References: LeCun et al. 1998, Efficient BackProp; Glorot and Bengio 2010; Saxe et al. 2014; He et al.
2015."""

_MAY_BE_NEGATIVE = ("constant",)


def initializer(spec: InitializerSpec) -> Initializer:
    """Returns an initializer.

    Args:
        spec: a name of `INITIALIZERS`; a pair of name and number, as `("normal", 0.02)`; or an initializer,
            which is returned as it is. Fans are those of a kernel `[..., fan_in, fan_out]`.

    Example:
        >>> kernel = initializer(("variance_normal", 0.25))(jax.random.key(0), (400, 500))
        >>> abs(float(kernel.std()) - 0.5) < 0.005
        True
    """
    if callable(spec):
        return spec
    name, number = spec if isinstance(spec, tuple | list) and len(spec) == 2 else (spec, None)
    if not isinstance(name, str) or name not in INITIALIZERS:
        raise ValueError(
            f"initializer must be a function, a name among {', '.join(INITIALIZERS)}, or a pair of "
            f"name and number, got {spec!r}"
        )
    entry = INITIALIZERS[name]
    if entry.number is None:
        if number is not None:
            raise ValueError(f"initializer {name!r} must have no number, got {number!r}")
        return entry.make(0.0)
    number = entry.default if number is None else number
    if number is None or not math.isfinite(number) or (number < 0 and name not in _MAY_BE_NEGATIVE):
        raise ValueError(
            f"initializer {name!r} must have a finite number of at least 0 ({entry.number}), as in "
            f"({name!r}, 0.1), got {number!r}"
        )
    return entry.make(float(number))
