"""Losses of classes. They take logits, because probabilities lose precision.

An outlier here is a *wrong label*: an example of which the model is sure and that is labelled otherwise.
The influence is the derivative of the loss by the margin, the logit of the labelled class above the others.

A logit of −inf excludes its class; +inf is certainty. At infinite logits losses are 0 or infinite.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml.losses import checks
from jaxml.losses.per_example import (
    distributions,
    of_binary_labels,
    of_classes,
    of_signs,
    probabilities,
)
from jaxml.types import Array

__all__ = [
    "focal",
    "hinge",
    "multiclass_hinge",
    "one_vs_all",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "softmax_focal",
]

_LARGEST = float(np.finfo(np.float32).max)


def _from_logits(loss: Callable[[Array], Array], logits: Array) -> Array:
    """A binary loss of Optax, at infinite logits too, where Optax multiplies 0 by infinity."""
    infinite = jnp.isinf(logits)
    losses = loss(jnp.where(infinite, jnp.sign(logits) * _LARGEST, logits))
    return jnp.where(infinite & (losses > 1), jnp.inf, losses)


@of_binary_labels
def sigmoid_binary_cross_entropy(logits, labels) -> Array:
    """Binary cross-entropy (log loss) of log-odds.

        loss = −y log σ(z) − (1 − y) log σ(−z)

    Outliers: the influence of a wrong label is at most 1, but the loss itself grows without bound: the most
    confident mistakes pull hardest.

    Args:
        labels: 0 and 1, bool, or probabilities in [0, 1].

    >>> sigmoid_binary_cross_entropy(jnp.array([0.0, 100.0, jnp.inf]), jnp.array([1, 0, 1]))
    Array([  0.6931472, 100.       ,   0.       ], dtype=float32)
    """
    return _from_logits(lambda z: optax.sigmoid_binary_cross_entropy(z, labels), logits)


@of_classes(rows=probabilities, centred=False)
def one_vs_all(logits, labels) -> Array:
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
    if labels.ndim < logits.ndim:
        labels = jax.nn.one_hot(labels, logits.shape[-1])
    losses = _from_logits(lambda z: optax.sigmoid_binary_cross_entropy(z, labels), logits)
    return losses.sum(-1)


@of_classes(rows=distributions)
def softmax_cross_entropy(logits, labels, *, label_smoothing=0.0) -> Array:
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
    if labels.ndim < logits.ndim:
        if not smooth:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        labels = jax.nn.one_hot(labels, logits.shape[-1])
    present = ~jnp.isneginf(logits)
    if smooth:
        count = jnp.maximum(present.sum(-1, keepdims=True), 1)
        labels = (1 - smoothing) * labels + smoothing * present / count
    # Where q is 0, the logit of an excluded class must not enter: 0 · ∞, and its derivatives.
    needed = jnp.where(present | (labels > 0), logits, 0.0)
    return (labels * (jax.nn.logsumexp(logits, axis=-1, keepdims=True) - needed)).sum(-1)


@of_binary_labels
def focal(logits, labels, *, gamma=2.0, alpha=None) -> Array:
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
    return _from_logits(
        lambda z: optax.sigmoid_focal_loss(z, labels, alpha=alpha, gamma=gamma), logits
    )


def _label_and_others(logits: Array, ids: Array) -> tuple[Array, Array, Array]:
    """The label's logit, the others (with −inf at the label), and whether there are no others."""
    of_label = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
    at_label = ids[..., None] == jnp.arange(logits.shape[-1]).reshape((1,) * ids.ndim + (-1,))
    others = jnp.where(at_label, -jnp.inf, logits)
    return of_label, others, (others == -jnp.inf).all(-1)


@of_classes
def softmax_focal(logits, labels, *, gamma=2.0) -> Array:
    """Focal loss of a softmax over the classes: (1 − p_y)^γ (−log p_y).

    Outliers: as for `focal`.

    Args:
        labels: ids.
        gamma: at least 0, may be traced; 0 is `softmax_cross_entropy`.

    Numerics: p_y is σ of the margin m = z_y − log Σ_(c ≠ y) exp z_c, so that neither p_y nor 1 − p_y loses
    precision.

    >>> softmax_focal(jnp.zeros((1, 2)), jnp.array([0])).round(7)  # log(2) / 4
    Array([0.1732868], dtype=float32)
    """
    gamma = checks.scalar("gamma", gamma, 0)
    of_label, others, alone = _label_and_others(logits, labels)
    # The gradient of a log-sum-exp of nothing but −inf is NaN.
    total = jax.nn.logsumexp(jnp.where(alone[..., None], 0.0, others), axis=-1)
    margin = jnp.where(alone, jnp.where(of_label == -jnp.inf, jnp.nan, jnp.inf), of_label - total)
    return _from_logits(
        lambda m: optax.sigmoid_focal_loss(m, jnp.ones_like(m), gamma=gamma), margin
    )


@of_signs
def hinge(logits, labels) -> Array:
    """Hinge loss max(0, 1 − s z), with s = 1 for the label 1 and −1 for the label 0.

    Outliers: the influence of a wrong label is 1, however far off. Examples beyond the margin of 1 do not
    pull at all.

    Args:
        labels: 0 and 1, or bool, or −1 and 1 (not 0 beside −1). Traced ones count as 1 if positive and as
            −1 otherwise.

    >>> hinge(jnp.array([0.5, 3.0, 3.0]), jnp.array([1, 1, 0]))
    Array([0.5, 0. , 4. ], dtype=float32)

    References:
        Cortes & Vapnik 1995, "Support-vector networks".
    """
    return optax.hinge_loss(logits, labels)


@of_classes
def multiclass_hinge(logits, labels) -> Array:
    """Hinge loss of Crammer and Singer: the label should exceed the best other class by 1.

        loss = max(0, 1 + max_(c ≠ y) z_c − z_y)

    Outliers: a wrong label pulls by 1 at two logits, however far off.

    Args:
        labels: ids.

    Numerics: if several classes are best, each gets its share of the gradient.

    >>> multiclass_hinge(jnp.array([[2.0, 1.5, 0.0]]), jnp.array([0]))
    Array([0.5], dtype=float32)

    References:
        Crammer & Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector
        machines".
    """
    of_label, others, alone = _label_and_others(logits, labels)
    best = jnp.where(alone[..., None], 0.0, others).max(-1)
    losses = jnp.maximum(0.0, 1.0 + best - of_label)
    return jnp.where(alone, jnp.where(of_label == -jnp.inf, jnp.nan, 0.0), losses)
