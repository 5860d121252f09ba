"""Losses by which a student learns from a teacher's outputs.

The teacher's outputs are data, computed once and kept: no gradient flows into them.

**Sequences.** `soft_targets` takes the logits [B, T, C] of every position, with `where` [B, T]. For
sequence-level distillation (Kim & Rush, 2016) the labels are the teacher's own answers:
`softmax_cross_entropy` with the same `where`.

**Very many classes.** `jaxml.softmax.sampled_distillation_loss_from_rows` needs the teacher's best k only.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxml.checks import choice
from jaxml.losses import checks
from jaxml.losses.classification import centred, softmax_cross_entropy
from jaxml.types import Array

__all__ = ["distillation", "hint", "soft_targets", "teacher_ensemble"]

Average = Literal["probabilities", "logits"]


def soft_targets(logits, teacher_logits, *, temperature=1.0, where=None) -> Array:
    """Divergence of the student from the teacher, both softened by a temperature.

        loss = T² Σ_c p_c (log p_c − log q_c),   p = softmax(teacher / T),   q = softmax(z / T)

    This is the cross-entropy with soft targets less its smallest value: a student that agrees has loss 0.
    Its gradient is T (q − p). For T well above the logits that is (z − teacher) / C, both centred: T² keeps
    the gradient's scale, and with it the learning rate, independent of T.

    Outliers: the influence is at most T.

    Args:
        teacher_logits: of the logits' shape.
        temperature: T above 0, may be traced.

    Numerics: no overflow; the value errs by about 1e-7 T². Infinite where the student excludes a class that
    the teacher does not, NaN where one of them excludes all. At T = 1 it is
    KL(teacher ‖ student), in nats.

    >>> soft_targets(jnp.zeros((1, 2)), jnp.array([[1.0, -1.0]])).round(4)
    Array([0.3278], dtype=float32)

    References:
        Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """
    temperature = checks.scalar("temperature", temperature, above=0)
    logits, where = checks.class_logits("logits", logits, where)
    teacher_logits, _ = checks.class_logits("teacher_logits", teacher_logits, where)
    if teacher_logits.shape != logits.shape:
        raise ValueError(
            f"teacher_logits must be of the student's classes, shape {logits.shape}, "
            f"got {teacher_logits.shape}"
        )
    log_p = _log_softmax(jax.lax.stop_gradient(teacher_logits), temperature)
    log_q = _log_softmax(logits, temperature)
    p = jnp.exp(log_p)
    # Where p is 0, an infinite logarithm must not enter: 0 · ∞, and its derivatives.
    log_p, log_q = (jnp.where(p == 0, 0.0, each) for each in (log_p, log_q))
    return checks.kept(temperature**2 * (p * (log_p - log_q)).sum(-1), where)


def distillation(
    logits, teacher_logits, labels, *, alpha=0.5, temperature=1.0, where=None
) -> Array:
    """Mixture of the teacher's soft targets and the labels.

        loss = α soft_targets(z, teacher; T) + (1 − α) softmax_cross_entropy(z, labels)

    Outliers: a wrong label pulls by at most 1 − α, the teacher by at most α T.

    Args:
        teacher_logits: of the logits' shape.
        labels: ids, or distributions of the logits' shape.
        alpha: the teacher's share α in [0, 1], may be traced. For examples without labels use
            `soft_targets`.
        temperature: T above 0 of the soft targets, may be traced; that of the labels is 1.

    >>> student, teacher = jnp.zeros((1, 2)), jnp.array([[1.0, -1.0]])
    >>> distillation(student, teacher, jnp.array([0]), alpha=0.0)  # log 2
    Array([0.6931472], dtype=float32)

    References:
        Hinton, Vinyals & Dean 2015, section 2.
    """
    alpha = checks.scalar("alpha", alpha, 0, 1)
    soft = soft_targets(logits, teacher_logits, temperature=temperature, where=where)
    hard = softmax_cross_entropy(logits, labels, where=where)
    # A share of 0 is 0, even if the loss is infinite.
    return jnp.where(alpha == 0, 0.0, alpha * soft) + jnp.where(alpha == 1, 0.0, (1 - alpha) * hard)


def teacher_ensemble(logits, *, average: Average = "probabilities", temperature=1.0) -> Array:
    """Returns the logits of an ensemble, float32 [..., C], from those of its members, [M, ..., C].

        probabilities:  z = T log mean_m softmax(z_m / T)        (arithmetic mean)
        logits:         z = mean_m log softmax(z_m)              (geometric mean)

    Args:
        average: what is averaged. A class that one member excludes stays a class of the arithmetic mean,
            and is excluded by the geometric one.
        temperature: T above 0, may be traced. softmax(z / T) is the mean of the members' softened
            probabilities at this very T. The geometric mean is the same for every T.

    >>> jax.nn.softmax(teacher_ensemble(jnp.array([[0.0, -jnp.inf], [0.0, 0.0]]))).round(4)
    Array([0.75, 0.25], dtype=float32)

    References:
        Hinton, Vinyals & Dean 2015, section 5.
    """
    choice("average", average, get_args(Average))
    temperature = checks.scalar("temperature", temperature, above=0)
    members, _ = checks.class_logits("logits", logits, None)
    if members.ndim < 2 or not members.shape[0]:
        raise ValueError(f"logits must be [M, ..., C] of M ≥ 1 members, got {members.shape}")
    if average == "logits":
        return _log_softmax(members, 1.0).mean(0)
    log_p = _log_softmax(members, temperature)
    return temperature * (jax.nn.logsumexp(log_p, axis=0) - jnp.log(members.shape[0]))


def hint(features, teacher_features, projection, *, where=None) -> Array:
    """Mean squared distance between a teacher's hidden features and the student's, projected.

        loss = 1/E ‖x W − t‖²

    Outliers: the influence grows without bound.

    Args:
        features: [..., D], the student's x.
        teacher_features: [..., E].
        projection: W [D, E], a parameter that is trained with the student's and dropped after training.

    >>> hint(jnp.ones((1, 2)), jnp.zeros((1, 3)), jnp.ones((2, 3)))
    Array([4.], dtype=float32)

    References:
        Romero et al. 2015, "FitNets: hints for thin deep nets", equation (3).
        Jiao et al. 2020, "TinyBERT", equation (9), for a linear projection and the mean.
    """
    features = checks.float32("features", features)
    teacher_features = jax.lax.stop_gradient(checks.float32("teacher_features", teacher_features))
    projection = checks.float32("projection", projection)
    if projection.ndim != 2 or features.shape[-1:] != projection.shape[:1]:
        raise ValueError(
            f"projection must be [D, E] for features [..., D], got {projection.shape} "
            f"for {features.shape}"
        )
    if teacher_features.shape != (wanted := (*features.shape[:-1], projection.shape[1])):
        raise ValueError(f"teacher_features must be {wanted}, got {teacher_features.shape}")
    where = checks.mask(where, features.shape[:-1])
    if where is not None:
        features, teacher_features = (
            jnp.where(where[..., None], each, 0.0) for each in (features, teacher_features)
        )
    projected = jnp.matmul(features, projection, precision="highest")
    return checks.kept(jnp.square(projected - teacher_features).mean(-1), where)


def _log_softmax(logits: Array, temperature: Any) -> Array:
    """log softmax(z / T). The temperature meets finite logits only: its gradient at −∞ would be NaN."""
    logits = centred(logits)
    excluded = jnp.isneginf(logits)
    logits = jnp.where(excluded, -jnp.inf, jnp.where(excluded, 0.0, logits) / temperature)
    return logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
