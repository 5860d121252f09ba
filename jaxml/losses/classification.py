"""Losses of classes. They take logits, because probabilities lose precision.

An outlier here is a *wrong label*: an example of which the model is sure and that is labelled otherwise.
The influence is the derivative of the loss by the margin, the logit of the labelled class above the others.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml.losses import checks
from jaxml.types import Array

__all__ = ["focal", "one_vs_all", "sigmoid_binary_cross_entropy", "softmax_cross_entropy"]

_LARGEST = float(np.finfo(np.float32).max)


def _from_logits(loss: Callable[[Array], Array], logits: Array) -> Array:
    """A binary loss of Optax, at infinite logits too, where Optax multiplies 0 by infinity."""
    infinite = jnp.isinf(logits)
    losses = loss(jnp.where(infinite, jnp.sign(logits) * _LARGEST, logits))
    return jnp.where(infinite & (losses > 1), jnp.inf, losses)


def sigmoid_binary_cross_entropy(logits, labels, *, where=None) -> Array:
    """Binary cross-entropy (log loss) of log-odds.

        loss = −y log σ(z) − (1 − y) log σ(−z)

    Outliers: the influence of a wrong label is at most 1, but the loss itself grows without bound: the most
    confident mistakes pull hardest.

    Args:
        labels: 0 and 1, bool, or probabilities in [0, 1].

    >>> sigmoid_binary_cross_entropy(jnp.array([0.0, 100.0, jnp.inf]), jnp.array([1, 0, 1]))
    Array([  0.6931472, 100.       ,   0.       ], dtype=float32)
    """
    logits, labels, where = checks.binary(logits, labels, where)
    losses = _from_logits(lambda z: optax.sigmoid_binary_cross_entropy(z, labels), logits)
    return checks.kept(losses, where)


def one_vs_all(logits, labels, *, where=None) -> Array:
    """Sum of the binary cross-entropies of all classes.

        loss = Σ_c −y_c log σ(z_c) − (1 − y_c) log σ(−z_c)

    For examples of several classes or of none, and for classes that do not exclude one another. For very
    many classes use `jaxml.softmax.one_vs_all_loss`.

    Outliers: a wrong label pulls at two classes, by at most 1 each.

    Args:
        labels: ids, one class each; or of the logits' shape, 0 and 1 or probabilities.

    >>> one_vs_all(jnp.zeros((1, 3)), jnp.array([2]))  # 3 log 2
    Array([2.0794415], dtype=float32)

    References:
        Rifkin & Klautau 2004, "In defense of one-vs-all classification".
    """
    logits, labels, where, outside = checks.classes(logits, labels, where, checks.probabilities)
    if labels.ndim < logits.ndim:
        labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    losses = _from_logits(lambda z: optax.sigmoid_binary_cross_entropy(z, labels), logits)
    return checks.kept(losses.sum(-1), where, outside)


def centred(logits: Array) -> Array:
    """Logits less their maximum. Beside +inf, which is certainty, the others are −inf."""
    certain = jnp.isposinf(logits)
    logits = jnp.where(
        certain.any(-1, keepdims=True) & ~jnp.isnan(logits).any(-1, keepdims=True),
        jnp.where(certain, 0.0, -jnp.inf),
        logits,
    )
    return logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))


def softmax_cross_entropy(logits, labels, *, label_smoothing=0.0, where=None) -> Array:
    """Cross-entropy of a softmax over the classes.

        loss = −Σ_c q_c log p_c,   p = softmax(z),   q the labels' distribution

    An id y has q_y = 1. Smoothing by ε replaces q by (1 − ε) q + ε / C, spread over the classes that are
    not excluded.

    Outliers: the influence of a wrong label is at most 1, but the loss grows without bound: the most
    confident mistakes pull hardest. Smoothing bounds nothing; it lets the model be less sure.

    Args:
        labels: ids, or distributions of the logits' shape (one-hot, mixed, a teacher's).
        label_smoothing: ε in [0, 1], may be traced.

    Numerics: no overflow. Infinite where a class with q > 0 is excluded, NaN where all are.

    >>> softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))  # log 4
    Array([1.3862944], dtype=float32)

    References:
        Szegedy et al. 2016, "Rethinking the Inception architecture", section 7 (smoothing).
    """
    smoothing = checks.scalar("label_smoothing", label_smoothing, 0, 1)
    smooth = not (isinstance(label_smoothing, float | int) and label_smoothing == 0)
    logits, labels, where, outside = checks.classes(logits, labels, where, checks.distributions)
    present = ~jnp.isneginf(logits)
    logits = centred(logits)
    if labels.ndim < logits.ndim and not smooth:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return checks.kept(losses, where, outside)
    if labels.ndim < logits.ndim:
        labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    if smooth:
        count = jnp.maximum(present.sum(-1, keepdims=True), 1)
        labels = (1 - smoothing) * labels + smoothing * present / count
    # Where q is 0, an infinite logit must not enter: 0 · ∞, and its derivatives.
    needed = jnp.where(jnp.isneginf(logits) & (labels == 0), 0.0, logits)
    losses = (labels * (jax.nn.logsumexp(logits, axis=-1, keepdims=True) - needed)).sum(-1)
    return checks.kept(losses, where, outside)


def focal(logits, labels, *, gamma=2.0, alpha=None, where=None) -> Array:
    """Focal loss: binary cross-entropy in which examples count less the better they are classified.

        loss = a_t (1 − p_t)^γ (−log p_t),   p_t the probability of the label,
        a_t = alpha where that is 1, and 1 − alpha where it is 0

    Outliers: a wrong label keeps its full weight while the others lose theirs, so wrong labels pull
    *harder* than under cross-entropy. Use it for rare positives, not for noisy labels.

    Args:
        labels: 0 and 1, bool, or probabilities in [0, 1] (then p_t = 1 − y − p + 2 y p).
        gamma: at least 0, may be traced; 0 is cross-entropy.
        alpha: None for a_t = 1, or in [0, 1], may be traced.

    Numerics: (1 − p_t)^γ is computed from its logarithm: no overflow, and no infinite slope for γ < 1.

    >>> focal(jnp.array([0.0, 4.0]), jnp.array([1, 1])).round(7)  # log(2) / 4; (1 - p)² is 3e-4
    Array([1.732868e-01, 5.900000e-06], dtype=float32)

    References:
        Lin et al. 2017, "Focal loss for dense object detection", equation (5).
    """
    gamma = checks.scalar("gamma", gamma, 0)
    alpha = None if alpha is None else checks.scalar("alpha", alpha, 0, 1)
    logits, labels, where = checks.binary(logits, labels, where)
    losses = _from_logits(
        lambda z: optax.sigmoid_focal_loss(z, labels, alpha=alpha, gamma=gamma), logits
    )
    return checks.kept(losses, where)
