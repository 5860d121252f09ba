"""Losses of classes, all from logits: probabilities would have lost their digits before they came here.

An outlier here is a *wrong label*: an example that the model is sure of, and that is labelled otherwise.
How hard it pulls is read from the influence, the derivative of the loss by the margin m, the logit of the
labelled class above the others.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml.losses import checks
from jaxml.types import Array

__all__ = [
    "focal",
    "hinge",
    "log_loss",
    "multiclass_hinge",
    "one_vs_all",
    "softmax_cross_entropy",
    "softmax_focal",
]

_LARGEST = float(np.finfo(np.float32).max)


def _binary(logits: Any, labels: Any, where: Any) -> tuple[Array, Array, Array | None]:
    """Logits and labels in [0, 1] of one shape; a label out of range that is only known later is NaN."""
    values, kept = checks.known(labels), np.ones((), bool) if where is None else checks.known(where)
    logits, labels, where = checks.pair(logits, labels, where, ("logits", "labels"))
    if values is not None and kept is not None:
        numbers = np.asarray(values, np.float32)
        checks.refuse("labels", values, ~((numbers >= 0) & (numbers <= 1)) & kept, "in [0, 1]")
    return logits, jnp.where((labels >= 0) & (labels <= 1), labels, jnp.nan), where


def _from_logits(loss: Callable[[Array], Array], logits: Array) -> Array:
    """A binary loss that Optax computes, at infinite logits too: it multiplies 0 by infinity there."""
    infinite = jnp.isinf(logits)
    losses = loss(jnp.where(infinite, jnp.sign(logits) * _LARGEST, logits))
    return jnp.where(infinite & (losses > 1), jnp.inf, losses)


def _num_classes(logits: Array, axis: int) -> int:
    if not -logits.ndim <= axis < logits.ndim:
        raise ValueError(f"axis must be one of logits' {logits.ndim} axes, got {axis}")
    if not logits.shape[axis]:
        raise ValueError(f"logits must have at least one class along axis {axis}, got none")
    return logits.shape[axis]


def _classes_last(logits: Any, axis: int) -> Array:
    """float32 logits with the classes last and below 0; beside an infinite one the others are nothing."""
    logits = checks.float32("logits", logits)
    _num_classes(logits, axis)
    logits = jnp.moveaxis(logits, axis, -1)
    # The softmax of +inf is certainty; inf − inf would make it NaN.
    certain = jnp.isposinf(logits)
    logits = jnp.where(
        certain.any(-1, keepdims=True) & ~jnp.isnan(logits).any(-1, keepdims=True),
        jnp.where(certain, 0.0, -jnp.inf),
        logits,
    )
    # No loss of these changes if all logits do; around 1e4 a float32 has three decimals left.
    return logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))


def _masked_classes(logits: Array, where: Any) -> tuple[Array, Array | None]:
    where = checks.mask(where, logits.shape[:-1])
    return (logits if where is None else jnp.where(where[..., None], logits, 0.0)), where


def _of_label(logits: Array, labels: Array) -> Array:
    return jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]


def _others(logits: Array, labels: Array) -> Array:
    """The logits with −inf at the label."""
    own = labels[..., None] == jnp.arange(logits.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    return jnp.where(own, -jnp.inf, logits)


def log_loss(logits, labels, *, where=None) -> Array:
    """Log loss of yes-or-no questions (binary cross-entropy), from logits.

        loss = −y log σ(z) − (1 − y) log σ(−z)

    Outliers: the influence on a wrong label tends to 1 and stays there: bounded, but the loss itself grows
    without end, so that the worst labelled examples pull hardest.

    Args:
        logits: [...], any real dtype: log-odds of the answer 1.
        labels: of exactly the logits' shape: 0 and 1, bool, or probabilities in [0, 1].
        where: None, or bool of that shape; False masks an example, whatever it holds.

    Returns:
        float32 [...], in nats; 0, with gradient 0, where masked. A label out of range that is only known
        inside `jit` gives NaN, to its own example alone.

    Raises:
        ValueError: for shapes that differ, or a label out of [0, 1], −1 among them (when it is known).

    Numerics: `optax.sigmoid_binary_cross_entropy` in float32: no overflow, and all digits of a loss that
    is almost 0. At ±inf the loss is 0 or infinite, and the gradient 0.

    >>> import jax.numpy as jnp
    >>> log_loss(jnp.array([0.0, 100.0, jnp.inf]), jnp.array([1, 0, 1]))
    Array([  0.6931472, 100.       ,   0.       ], dtype=float32)
    """
    logits, labels, where = _binary(logits, labels, where)
    losses = _from_logits(lambda z: optax.sigmoid_binary_cross_entropy(z, labels), logits)
    return checks.kept(losses, where)


def one_vs_all(logits, labels, *, axis: int = -1, where=None) -> Array:
    """One yes-or-no question for each class: the log losses of all of them, summed.

        loss = Σ_c −y_c log σ(z_c) − (1 − y_c) log σ(−z_c)

    For examples of several classes or of none, and for classes that do not exclude each other.

    Outliers: as `log_loss`, for each class by itself: a wrong label pulls at two classes, by at most 1.

    Args:
        logits: [..., C], any real dtype.
        labels: integers in [0, C) [...], one class each; or of the logits' shape, 0 and 1 or in [0, 1].
        axis: of the classes.
        where: None, or bool [...]; False masks an example, whatever it holds.

    Returns:
        float32 [...]: the logits' shape without `axis`. With all logits 0 it is C log 2.

    Raises:
        ValueError: for shapes that do not fit, or labels out of range (when they are known).

    Numerics: as `log_loss`. For very many classes, `jaxml.softmax.one_vs_all_loss`.

    >>> import jax.numpy as jnp
    >>> one_vs_all(jnp.zeros((1, 3)), jnp.array([2]))  # 3 log 2
    Array([2.0794415], dtype=float32)

    References:
        Rifkin & Klautau 2004, "In defense of one-vs-all classification".
    """
    logits = checks.float32("logits", logits)
    num_classes = _num_classes(logits, axis)
    shape = list(logits.shape)
    del shape[axis]
    where = checks.mask(where, tuple(shape))
    every = None if where is None else jnp.broadcast_to(jnp.expand_dims(where, axis), logits.shape)
    if np.shape(labels) != logits.shape:
        ids, outside = checks.class_ids("labels", labels, where, tuple(shape), num_classes)
        labels = jax.nn.one_hot(ids, num_classes, axis=axis)
        labels = jnp.where(jnp.expand_dims(outside, axis), jnp.nan, labels)
    return log_loss(logits, labels, where=every).sum(axis)


def softmax_cross_entropy(
    logits, labels, *, label_smoothing=0.0, axis: int = -1, where=None
) -> Array:
    """Cross-entropy of a softmax over the classes, from logits.

        loss = −Σ_c q_c log p_c,   p = softmax(z),   q the labels' distribution

    An integer label y has q_y = 1; smoothing by ε replaces q by (1 − ε) q + ε / C.

    Outliers: a wrong label pulls at its logit by 1 − p, which tends to 1: bounded, but as the loss grows
    without end it is the worst labelled that pull hardest. Smoothing bounds nothing; it lets the model be
    less sure.

    Args:
        logits: [..., C], any real dtype. A logit of −inf takes its class out.
        labels: integers in [0, C) [...], one class each; or of the logits' shape, distributions over the
            classes (one-hot, mixed, a teacher's).
        label_smoothing: ε in [0, 1], may be traced. It is spread over the classes that are not out.
        axis: of the classes.
        where: None, or bool [...]; False masks an example, whatever it holds.

    Returns:
        float32 [...], in nats: the logits' shape without `axis`; 0, with gradient 0, where masked. A label
        out of range that is only known inside `jit` gives NaN, to its own example alone.

    Raises:
        ValueError: for shapes that do not fit, labels out of range or distributions that are negative or do
            not sum to 1 (when they are known), or an ε out of range.

    Numerics: Optax's, in float32, from the distance to the largest logit: no overflow at ±1e4. A logit of
    +inf is certainty. Infinite where a class with q > 0 is out, NaN where all classes are.

    >>> import jax.numpy as jnp
    >>> softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))  # log 4
    Array([1.3862944], dtype=float32)

    References:
        Szegedy et al. 2016, "Rethinking the Inception architecture", section 7 (smoothing).
    """
    smoothing = checks.scalar("label_smoothing", label_smoothing, high=1.0)
    smooth = not (isinstance(label_smoothing, float | int) and label_smoothing == 0)
    given_shape = np.shape(logits)
    logits = _classes_last(logits, axis)
    num_classes = logits.shape[-1]
    logits, where = _masked_classes(logits, where)
    if np.shape(labels) == given_shape:
        distribution = _distributions(labels, axis, where)
        outside = jnp.zeros(logits.shape[:-1], bool)
    else:
        ids, outside = checks.class_ids("labels", labels, where, logits.shape[:-1], num_classes)
        if not smooth:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
            return checks.kept(jnp.where(outside, jnp.nan, losses), where)
        distribution = jax.nn.one_hot(ids, num_classes)
    if smooth:
        there = ~jnp.isneginf(logits)
        count = jnp.maximum(there.sum(-1, keepdims=True), 1)
        distribution = (1 - smoothing) * distribution + smoothing * there / count
    losses = optax.safe_softmax_cross_entropy(logits, distribution)
    return checks.kept(jnp.where(outside, jnp.nan, losses), where)


def _distributions(labels: Any, axis: int, where: Array | None) -> Array:
    """Distributions with the classes last, zeros where masked; refused if known to be none."""
    values = checks.known(labels)
    labels = jnp.moveaxis(checks.float32("labels", labels), axis, -1)
    kept = np.ones((), bool) if where is None else checks.known(where)
    if values is not None and kept is not None:
        rows = np.moveaxis(np.asarray(values, np.float32), axis, -1)
        # A teacher's float16 probabilities may miss 1 by a little; several ones miss it by 1.
        bad = ~((rows >= 0).all(-1) & (np.abs(rows.sum(-1) - 1) < 0.05)) & kept
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"labels must be distributions, at least 0 and of sum 1; the one at {at} is "
                f"{rows[at]}. For several classes at once there is one_vs_all"
            )
    return labels if where is None else jnp.where(where[..., None], labels, 0.0)


def focal(logits, labels, *, gamma=2.0, alpha=None, where=None) -> Array:
    """Focal loss of yes-or-no questions, from logits: what is already right counts for less.

        loss = a_t (1 − p_t)^γ (−log p_t),   p_t the probability of the right answer,
        a_t = alpha where that is 1, and 1 − alpha where it is 0

    Outliers: a wrong label keeps its full weight while all others lose theirs, so wrong labels pull
    *harder* than under `log_loss`, relative to the rest. It is for rare positives, not for dirty labels.

    Args:
        logits: [...], any real dtype.
        labels: of exactly the logits' shape: 0 and 1, bool, or in [0, 1] (then p_t = 1 − y − p + 2 y p).
        gamma: scalar ≥ 0, may be traced; 0 is `log_loss`.
        alpha: None for a_t = 1, or a scalar in [0, 1], may be traced.
        where: None, or bool of that shape; False masks an example, whatever it holds.

    Returns:
        float32 [...]; 0, with gradient 0, where masked. A label out of range that is only known inside
        `jit` gives NaN.

    Raises:
        ValueError: for shapes that differ, labels or hyperparameters out of range (when they are known).

    Numerics: `optax.sigmoid_focal_loss` in float32, (1 − p_t)^γ from its logarithm: no overflow, and no
    infinite slope for γ < 1. At ±inf the loss is 0 or infinite, and the gradient 0.

    >>> import jax.numpy as jnp
    >>> focal(jnp.array([0.0, 4.0]), jnp.array([1, 1])).round(7)  # log(2) / 4; (1 - p)² is 3e-4
    Array([1.732868e-01, 5.900000e-06], dtype=float32)

    References:
        Lin et al. 2017, "Focal loss for dense object detection", equation (5).
    """
    gamma = checks.scalar("gamma", gamma)
    alpha = None if alpha is None else checks.scalar("alpha", alpha, high=1.0)
    logits, labels, where = _binary(logits, labels, where)
    losses = _from_logits(
        lambda z: optax.sigmoid_focal_loss(z, labels, alpha=alpha, gamma=gamma), logits
    )
    return checks.kept(losses, where)


def softmax_focal(logits, labels, *, gamma=2.0, axis: int = -1, where=None) -> Array:
    """Focal loss of a softmax over the classes, from logits.

        loss = (1 − p_y)^γ (−log p_y)

    Outliers: as `focal`: a wrong label keeps its full weight while the others lose theirs.

    Args:
        logits: [..., C], any real dtype. A logit of −inf takes its class out.
        labels: integers in [0, C) [...].
        gamma: scalar ≥ 0, may be traced; 0 is `softmax_cross_entropy`.
        axis: of the classes.
        where: None, or bool [...]; False masks an example, whatever it holds.

    Returns:
        float32 [...]: the logits' shape without `axis`; 0, with gradient 0, where masked, and where there
        is no other class. A label out of range that is only known inside `jit` gives NaN.

    Raises:
        ValueError: for shapes that do not fit, labels or a gamma out of range (when they are known).

    Numerics: p_y is σ of the margin m = z_y − log Σ_(c ≠ y) exp z_c, so that neither p_y nor 1 − p_y loses
    its digits, at ±1e4 as at 0.

    >>> import jax.numpy as jnp
    >>> softmax_focal(jnp.zeros((1, 2)), jnp.array([0])).round(7)  # log(2) / 4
    Array([0.1732868], dtype=float32)
    """
    gamma = checks.scalar("gamma", gamma)
    logits = _classes_last(logits, axis)
    logits, where = _masked_classes(logits, where)
    ids, outside = checks.class_ids("labels", labels, where, logits.shape[:-1], logits.shape[-1])
    others = _others(logits, ids)
    alone = (others == -jnp.inf).all(-1)
    own = _of_label(logits, ids)
    # Of nothing the log-sum-exp is −inf, and its gradient NaN.
    total = jax.nn.logsumexp(jnp.where(alone[..., None], 0.0, others), axis=-1)
    margin = jnp.where(alone, jnp.where(own == -jnp.inf, jnp.nan, jnp.inf), own - total)
    losses = _from_logits(
        lambda m: optax.sigmoid_focal_loss(m, jnp.ones_like(m), gamma=gamma), margin
    )
    return checks.kept(jnp.where(outside, jnp.nan, losses), where)


def hinge(logits, labels, *, where=None) -> Array:
    """Hinge loss of yes-or-no questions: nothing is left to gain beyond a margin of 1.

        loss = max(0, 1 − s z),   s = +1 where the label is 1 and −1 where it is 0

    Outliers: the influence on a wrong label is 1, however far off: bounded. Examples beyond the margin do
    not pull at all.

    Args:
        logits: [...], any real dtype: scores, positive for the answer 1.
        labels: of exactly the logits' shape: 0 and 1, or bool, or −1 and 1; not 0 beside −1.
        where: None, or bool of that shape; False masks an example, whatever it holds.

    Returns:
        float32 [...]; 0, with gradient 0, where masked.

    Raises:
        ValueError: for shapes that differ, or other labels (when they are known).

    Numerics: `optax.hinge_loss` in float32. Labels that are only known inside `jit` count as 1 if positive
    and as −1 otherwise; NaN stays NaN.

    >>> import jax.numpy as jnp
    >>> hinge(jnp.array([0.5, 3.0, 3.0]), jnp.array([1, 1, 0]))
    Array([0.5, 0. , 4. ], dtype=float32)

    References:
        Cortes & Vapnik 1995, "Support-vector networks".
    """
    values, kept = checks.known(labels), np.ones((), bool) if where is None else checks.known(where)
    logits, labels, where = checks.pair(logits, labels, where, ("logits", "labels"))
    if values is not None and kept is not None:
        numbers = np.asarray(values, np.float32)
        low = -1 if (numbers[np.broadcast_to(kept, numbers.shape)] == -1).any() else 0
        wanted = f"{low} or 1"
        checks.refuse("labels", values, ~((numbers == low) | (numbers == 1)) & kept, wanted)
    signs = jnp.where(jnp.isnan(labels), labels, jnp.where(labels > 0, 1.0, -1.0))
    return checks.kept(optax.hinge_loss(logits, signs), where)


def multiclass_hinge(logits, labels, *, axis: int = -1, where=None) -> Array:
    """Hinge loss of Crammer and Singer: the label is to lead the best of the others by 1.

        loss = max(0, 1 + max_(c ≠ y) z_c − z_y)

    Outliers: a wrong label pulls by 1 at two logits, however far off: bounded. Examples beyond the margin
    do not pull at all.

    Args:
        logits: [..., C], any real dtype. A logit of −inf takes its class out.
        labels: integers in [0, C) [...].
        axis: of the classes.
        where: None, or bool [...]; False masks an example, whatever it holds.

    Returns:
        float32 [...]: the logits' shape without `axis`; 0, with gradient 0, where masked, and where there
        is no other class. A label out of range that is only known inside `jit` gives NaN.

    Raises:
        ValueError: for shapes that do not fit, or labels out of range (when they are known).

    Numerics: `optax.multiclass_hinge_loss`, but that a −inf is no NaN. Of several best classes each has its
    share of the gradient.

    >>> import jax.numpy as jnp
    >>> multiclass_hinge(jnp.array([[2.0, 1.5, 0.0]]), jnp.array([0]))
    Array([0.5], dtype=float32)

    References:
        Crammer & Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector
        machines".
    """
    logits = _classes_last(logits, axis)
    logits, where = _masked_classes(logits, where)
    ids, outside = checks.class_ids("labels", labels, where, logits.shape[:-1], logits.shape[-1])
    others = _others(logits, ids)
    alone = (others == -jnp.inf).all(-1)
    best = jnp.where(alone[..., None], 0.0, others).max(-1)
    own = _of_label(logits, ids)
    losses = jnp.maximum(0.0, 1.0 + best - own)
    losses = jnp.where(alone, jnp.where(own == -jnp.inf, jnp.nan, 0.0), losses)
    return checks.kept(jnp.where(outside, jnp.nan, losses), where)
