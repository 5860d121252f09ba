"""Losses of numbers, one for each number, and how far each lets an outlier pull.

With the residual e = output − target, what a loss ρ(e) makes of an outlier is read from its *influence
function* ψ(e) = ρ′(e): the force with which one example pulls at the fit. Unbounded, a single example can
carry the fit anywhere; bounded, it pulls no more than many an ordinary one (Huber & Ronchetti, Robust
Statistics, 2nd ed., 2009, sections 1.3 and 3.2).
"""

import jax
import jax.numpy as jnp
import optax

from jaxml.losses import checks
from jaxml.types import Array

__all__ = ["absolute", "huber", "log_cosh", "quantile", "squared"]


def squared(outputs, targets, *, where=None) -> Array:
    """Squared error, without a half.

        loss = (output − target)²

    Outliers: the influence 2e is unbounded; one example far enough off decides the fit. The minimum is
    the conditional mean.

    Args:
        outputs: [...], real numbers of any dtype.
        targets: of exactly the outputs' shape: [N, 1] beside [N] would make N² errors, and is refused.
        where: None, or bool of that shape; False masks an example, whatever it holds.

    Returns:
        float32 [...]; 0, with gradient 0, where masked. Twice `optax.l2_loss`.

    Raises:
        ValueError: for shapes that differ.

    Numerics: computed in float32; an error beyond 1.8e19 overflows to infinity.

    >>> import jax.numpy as jnp
    >>> squared(jnp.array([1.0, 4.0]), jnp.array([1.0, 1.0]))
    Array([0., 9.], dtype=float32)
    """
    outputs, targets, where = checks.pair(outputs, targets, where)
    return checks.kept(optax.squared_error(outputs, targets), where)


def absolute(outputs, targets, *, where=None) -> Array:
    """Absolute error.

        loss = |output − target|

    Outliers: the influence sign(e) is bounded, the same for an error of 1 and of 1,000: half of the
    examples may be wrong before the fit of a constant is lost. The minimum is the conditional median.
    (A point whose *inputs* are far off can still tilt a line, as with every loss of this file.)

    Args:
        outputs: [...], real numbers of any dtype.
        targets: of exactly the outputs' shape.
        where: None, or bool of that shape; False masks an example, whatever it holds.

    Returns:
        float32 [...]; 0, with gradient 0, where masked.

    Raises:
        ValueError: for shapes that differ.

    Numerics: the gradient is ±1 however small the error, and 0 at 0: with a constant step the fit goes
    round its minimum, so let the learning rate fall.

    >>> import jax.numpy as jnp
    >>> absolute(jnp.array([1.0, 4.0]), jnp.array([1.0, 1.0]))
    Array([0., 3.], dtype=float32)
    """
    outputs, targets, where = checks.pair(outputs, targets, where)
    return checks.kept(checks.magnitude(outputs - targets), where)


def huber(outputs, targets, delta=1.0, *, where=None) -> Array:
    """Huber's loss: squared near, absolute far.

        loss = e² / 2               if |e| ≤ delta,  e = output − target
             = delta (|e| − delta / 2)  else

    Outliers: the influence clip(e, −delta, delta) is bounded, yet ordinary errors are averaged as the
    squared loss averages them. delta = 1.345 standard deviations of ordinary errors keeps 95 % of the
    efficiency where there are no outliers. The minimum is a mean of what is near.

    Args:
        outputs: [...], real numbers of any dtype.
        targets: of exactly the outputs' shape.
        delta: scalar > 0, in the targets' unit; may be traced.
        where: None, or bool of that shape; False masks an example, whatever it holds.

    Returns:
        float32 [...]; 0, with gradient 0, where masked. For small errors half of `squared`.

    Raises:
        ValueError: for shapes that differ, or a delta that is not positive.

    Numerics: `optax.huber_loss` in float32; an infinite error has an infinite loss and the gradient ±delta.

    >>> import jax.numpy as jnp
    >>> huber(jnp.array([1.5, 4.0]), jnp.array([1.0, 1.0]))
    Array([0.125, 2.5  ], dtype=float32)

    References:
        Huber 1964, "Robust estimation of a location parameter", equation (2).
    """
    delta = checks.scalar("delta", delta, inside=True)
    outputs, targets, where = checks.pair(outputs, targets, where)
    return checks.kept(optax.huber_loss(outputs, targets, delta=delta), where)


@jax.custom_jvp
def _log_cosh(error: Array) -> Array:
    # |e| − log 2 + log(1 + exp(−2|e|)), as optax has it, cancels to noise for an e of 1e-3.
    near = jnp.abs(error) < 1.0
    half = jnp.where(near, error, 0.0) / 2
    far = jnp.abs(jnp.where(near, 1.0, error))
    return jnp.where(
        near,
        jnp.log1p(2 * jnp.square(jnp.sinh(half))),
        far - jnp.log(2.0) + jnp.log1p(jnp.exp(-2 * far)),
    )


_log_cosh.defjvps(lambda tangent, value, error: tangent * jnp.tanh(error))


def log_cosh(outputs, targets, *, where=None) -> Array:
    """Logarithm of the hyperbolic cosine of the error: Huber's loss without a corner.

        loss = log cosh(output − target)   ≈ e² / 2 near 0, |e| − log 2 far from it

    Outliers: the influence tanh(e) is bounded by 1. The change from squared to absolute is at about
    |e| = 1, so scale the targets such that ordinary errors are about 1.

    Args:
        outputs: [...], real numbers of any dtype.
        targets: of exactly the outputs' shape.
        where: None, or bool of that shape; False masks an example, whatever it holds.

    Returns:
        float32 [...]; 0, with gradient 0, where masked.

    Raises:
        ValueError: for shapes that differ.

    Numerics: no overflow, and all digits near 0, where log(e^x + e^−x) − log 2 has none; every
    derivative exists.

    >>> import jax.numpy as jnp
    >>> near, far = log_cosh(jnp.array([1e-3, 1e4]), jnp.zeros(2))
    >>> print(f"{near:.4g} {far:.6g}")
    5e-07 9999.31
    """
    outputs, targets, where = checks.pair(outputs, targets, where)
    return checks.kept(_log_cosh(outputs - targets), where)


def quantile(outputs, targets, quantile=0.5, *, where=None) -> Array:
    """Quantile (pinball) loss: errors on one side cost more.

        loss = max(q e, (q − 1) e),   e = target − output

    Outliers: the influence is bounded, q for a target above the output and 1 − q for one below. The
    minimum is the conditional q-quantile; q = 0.5 is half of `absolute`.

    Args:
        outputs: [...], real numbers of any dtype.
        targets: of exactly the outputs' shape.
        quantile: scalar q in (0, 1), may be traced; for several at once, `jax.vmap`.
        where: None, or bool of that shape; False masks an example, whatever it holds.

    Returns:
        float32 [...]; 0, with gradient 0, where masked.

    Raises:
        ValueError: for shapes that differ, or a quantile not in (0, 1).

    Numerics: exact up to rounding; at 0, where the loss has a corner, the gradient is the mean of both
    sides'.

    >>> import jax.numpy as jnp
    >>> quantile(jnp.array([0.0, 0.0]), jnp.array([1.0, -1.0]), 0.75)
    Array([0.75, 0.25], dtype=float32)

    References:
        Koenker & Bassett 1978, "Regression quantiles".
    """
    q = checks.scalar("quantile", quantile, high=1.0, inside=True)
    outputs, targets, where = checks.pair(outputs, targets, where)
    error = targets - outputs
    return checks.kept(jnp.maximum(q * error, (q - 1) * error), where)
