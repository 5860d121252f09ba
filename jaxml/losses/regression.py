"""Losses of numbers, and how hard an outlier pulls under each.

For the residual e = output − target, the *influence function* ψ(e) = ρ′(e) of a loss ρ is the force with
which one example pulls at the fit. If it is unbounded, a single example can move the fit anywhere (Huber &
Ronchetti, Robust Statistics, 2nd ed., 2009, sections 1.3 and 3.2).
"""

import jax.numpy as jnp
import optax

from jaxml.losses import checks
from jaxml.types import Array

__all__ = ["absolute", "huber", "quantile", "squared"]


def magnitude(x: Array) -> Array:
    """|x| with gradient 0 at 0; that of `jnp.abs` there depends on the version of JAX."""
    return jnp.maximum(x, -x)


def squared(outputs, targets, *, where=None) -> Array:
    """Squared error (output − target)², without a half.

    Outliers: the influence 2e is unbounded; one example far enough off decides the fit. The minimum is the
    conditional mean.

    Numerics: an error beyond 1.8e19 overflows to infinity.

    >>> squared(jnp.array([1.0, 4.0]), jnp.array([1.0, 1.0]))
    Array([0., 9.], dtype=float32)
    """
    outputs, targets, where = checks.numbers(outputs, targets, where)
    return checks.kept(optax.squared_error(outputs, targets), where)


def absolute(outputs, targets, *, where=None) -> Array:
    """Absolute error |output − target|.

    Outliers: the influence sign(e) is bounded and does not grow with the error: up to half of the examples
    may be wrong before the fit of a constant is lost. The minimum is the conditional median. (A point with
    extreme *inputs* can still tilt a line, under this and every other loss here.)

    Numerics: the gradient is ±1 however small the error, and 0 at 0. With a constant step the fit
    oscillates around its minimum, so decay the learning rate.

    >>> absolute(jnp.array([1.0, 4.0]), jnp.array([1.0, 1.0]))
    Array([0., 3.], dtype=float32)
    """
    outputs, targets, where = checks.numbers(outputs, targets, where)
    return checks.kept(magnitude(outputs - targets), where)


def huber(outputs, targets, delta=1.0, *, where=None) -> Array:
    """Huber's loss: quadratic near 0 and linear beyond `delta` > 0.

        loss = e² / 2               if |e| ≤ delta,  e = output − target
             = delta (|e| − delta / 2)  else

    Outliers: the influence clip(e, −delta, delta) is bounded, and ordinary errors are averaged as by the
    squared loss. delta = 1.345 standard deviations of ordinary errors keeps 95 % of the efficiency where
    there are no outliers.

    Numerics: an infinite error has an infinite loss and the gradient ±delta.

    >>> huber(jnp.array([1.5, 4.0]), jnp.array([1.0, 1.0]))
    Array([0.125, 2.5  ], dtype=float32)

    References:
        Huber 1964, "Robust estimation of a location parameter", equation (2).
    """
    delta = checks.scalar("delta", delta, above=0)
    outputs, targets, where = checks.numbers(outputs, targets, where)
    return checks.kept(optax.huber_loss(outputs, targets, delta=delta), where)


def quantile(outputs, targets, quantile=0.5, *, where=None) -> Array:
    """Quantile (pinball) loss for a quantile q in (0, 1).

        loss = max(q e, (q − 1) e),   e = target − output

    Outliers: the influence is bounded, q for a target above the output and 1 − q for one below. The minimum
    is the conditional q-quantile; q = 0.5 is half of `absolute`.

    >>> quantile(jnp.array([0.0, 0.0]), jnp.array([1.0, -1.0]), 0.75)
    Array([0.75, 0.25], dtype=float32)

    References:
        Koenker & Bassett 1978, "Regression quantiles".
    """
    q = checks.scalar("quantile", quantile, above=0, below=1)
    outputs, targets, where = checks.numbers(outputs, targets, where)
    error = targets - outputs
    return checks.kept(jnp.maximum(q * error, (q - 1) * error), where)
