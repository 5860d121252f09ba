"""Exact softmax losses: one definition, and the form that builds all logits.

**Definition.** With s the inner product of an input and a class's row, b its bias, τ the temperature and κ
the soft cap,

    u = (s + b) / τ,     z = κ tanh(u / κ)  (z = u without a cap),
    L = log Σ_c exp(z_c)                                              (the log-partition),
    loss = Σ_c t_c (L − z_c) + ζ L².

The target t shares 1 − ε evenly among the example's true classes and ε among all classes (label smoothing);
ζ is the weight of the z-loss. A bias of −∞ removes its class, also from the smoothing.

**Arguments** of all exact losses are described in `jaxml.softmax`, except for

- `softcap`: κ > 0 or None; 30 is usual (Gemma 2). `label_smoothing`: ε in [0, 1]. `z_loss`: ζ ≥ 0; 1e−4 is
  usual (PaLM). Scalars, may be traced.
- `reduction`: "none" for the losses [*batch]; "sum", or "mean" over the examples that have a label.
- `top_k`: None, or k: also return the scores (logits) and ids [*batch, k] of the k best classes; of equal
  scores the lower id comes first. No gradient flows into these.

Losses are computed from the distance to the largest logit, so they keep their digits for logits around
±1e6. A true class with a bias of −∞ has loss +∞.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks, meshes
from jaxml.softmax.logits import (
    LARGEST,
    at_most_largest,
    check_scalar,
    checked_table,
    infinite,
    products,
    true_classes,
    with_bias_and_temperature,
)
from jaxml.types import Array

Reduction = Literal["none", "mean", "sum"]


class Data(NamedTuple):
    """The part of a loss without gradients. None stands for an option that is not used.

    Attributes:
        ids: int32 [N, T]; −1 where there is no class.
        target: float32 [N, T], the mass of a true class.
        counted: bool [N], whether a label is left.
        kept: bool [C], False for classes with a bias of −inf.
        number: float32 [], how many classes are kept.
        smoothing: float32 [], ε.
        softcap: float32 [], κ.
        z_loss: float32 [], ζ.
    """

    ids: Array
    target: Array
    counted: Array
    kept: Array | None
    number: Array
    smoothing: Array | None
    softcap: Array | None
    z_loss: Array


class Problem(NamedTuple):
    """The arguments of a loss, checked, with a flat batch of N examples.

    Attributes:
        inputs: [N, D]; 0 where no label is left.
        weights: [C, D].
        biases: float32 [C] or None; 0 in place of −inf.
        temperature: float32 [].
        data: the other arguments.
        refused: bool [N], where a label is out of range.
        batch: the shape of the batch.
    """

    inputs: Array
    weights: Array
    biases: Array | None
    temperature: Array
    data: Data
    refused: Array
    batch: tuple[int, ...]

    def reduced(self, losses: Array, reduction: Reduction) -> Array:
        """The result for losses [N]."""
        losses = jnp.where(self.refused, jnp.nan, losses)
        if reduction == "none":
            return losses.reshape(self.batch)
        total = losses.sum()
        return total / jnp.maximum(self.data.counted.sum(), 1) if reduction == "mean" else total


def problem_of(
    inputs, labels, weights, biases, temperature, softcap, label_smoothing, z_loss, where
) -> Problem:
    """Returns the arguments of an exact loss, checked and in one form."""
    inputs, weights, biases = checked_table(inputs, weights, biases)
    check_scalar("temperature", temperature, above=0)
    check_scalar("label_smoothing", label_smoothing, at_least=0, at_most=1)
    check_scalar("z_loss", z_loss, at_least=0)
    if softcap is not None:
        check_scalar("softcap", softcap, above=0)
        softcap = jnp.asarray(softcap, jnp.float32)
    true = true_classes(labels, where, inputs, weights.shape[0])

    batch, size = inputs.shape[:-1], math.prod(inputs.shape[:-1])
    ids, present, refused = (x.reshape(size, true.ids.shape[-1]) for x in true)
    count = present.sum(-1)
    counted = count > 0
    # Zero times NaN is NaN: the inputs of an example without labels must not reach a product.
    inputs = jnp.where(counted[:, None], inputs.reshape(size, inputs.shape[-1]), 0)
    kept, number = None, weights.shape[0]
    if biases is not None:
        kept = ~jnp.isneginf(biases)
        number = jnp.maximum(kept.sum(), 1)
        biases = jnp.where(kept, biases, 0).astype(jnp.float32)
    smoothing = None
    if isinstance(label_smoothing, jax.Array) or np.asarray(label_smoothing) > 0:
        smoothing = jnp.asarray(label_smoothing, jnp.float32)
    share = 1.0 if smoothing is None else 1.0 - smoothing
    data = Data(
        ids=ids,
        target=jnp.where(present, share / jnp.maximum(count, 1)[:, None].astype(jnp.float32), 0.0),
        counted=counted,
        kept=kept,
        number=jnp.asarray(number, jnp.float32),
        smoothing=smoothing,
        softcap=softcap,
        z_loss=jnp.asarray(z_loss, jnp.float32),
    )
    return Problem(
        inputs,
        weights,
        biases,
        jnp.asarray(temperature, jnp.float32),
        jax.lax.stop_gradient(data),
        refused.any(-1),
        batch,
    )


def capped(logits: Array, softcap: Array | None) -> Array:
    """Logits after the soft cap, finite above."""
    return at_most_largest(logits if softcap is None else softcap * jnp.tanh(logits / softcap))


def losses_of(data: Data, log_total: Array, peak: Array, true_logits: Array, below) -> Array:
    """Returns the losses [N].

    `log_total` [N] is log Σ_c exp(z_c − peak), for a `peak` [N] near the largest logit; `below` [N] is the
    mean of peak − z_c over the classes that are not removed, None without smoothing.
    """
    # Differences to the peak first: logits around ±1e6 keep the digits of their loss.
    distance = infinite(peak[:, None] - true_logits) + log_total[:, None]
    losses = (data.target * jnp.where(data.target > 0, distance, 0.0)).sum(-1)
    if data.smoothing is not None:
        losses += jnp.where(data.smoothing > 0, data.smoothing * (log_total + below), 0.0)
    losses += jnp.where(data.z_loss > 0, data.z_loss * (peak + log_total) ** 2, 0.0)
    return jnp.where(data.counted, losses, 0.0)


@meshes.laid_out_as("inputs")
def full_softmax_loss(
    inputs,
    labels,
    weights,
    biases=None,
    *,
    temperature=1.0,
    softcap=None,
    label_smoothing=0.0,
    z_loss=0.0,
    where=None,
    reduction: Reduction = "none",
    top_k: int | None = None,
) -> Any:
    """Returns the cross-entropy of the softmax over all classes; builds all the logits.

    The obvious form, differentiated by JAX. Time and memory grow with the number of classes: for many of
    them see `blockwise_softmax_loss`, or train on a sample (`sampled_softmax_loss`).

    Returns:
        float32 [*batch], or a scalar with a `reduction`; with `top_k` a pair of this and
        `(scores, ids)`.

    >>> full_softmax_loss(jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3)))  # log 4
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    checks.choice("reduction", reduction, ("none", "mean", "sum"))
    problem = problem_of(
        inputs, labels, weights, biases, temperature, softcap, label_smoothing, z_loss, where
    )
    data = problem.data
    scores = products(problem.inputs, problem.weights)
    logits = with_bias_and_temperature(scores, problem.biases, problem.temperature)
    logits = capped(logits, data.softcap)
    if data.kept is not None:
        logits = jnp.where(data.kept[None], logits, -jnp.inf)
    # At least a finite number: −inf − −inf would be NaN.
    peak = jax.lax.stop_gradient(jnp.maximum(logits.max(-1), -LARGEST))
    log_total = jnp.log(jnp.exp(logits - peak[:, None]).sum(-1))
    below = None
    if data.smoothing is not None:
        distance = infinite(peak[:, None] - logits)
        if data.kept is not None:
            distance = jnp.where(data.kept[None], distance, 0.0)
        below = distance.sum(-1) / data.number
    true_logits = jnp.take_along_axis(logits, jnp.maximum(data.ids, 0), axis=-1)
    result = problem.reduced(losses_of(data, log_total, peak, true_logits, below), reduction)
    if top_k is None:
        return result
    k = checks.integer("top_k", top_k, 1, logits.shape[-1])
    best = jax.lax.top_k(jax.lax.stop_gradient(logits), k)
    return result, tuple(x.reshape(*problem.batch, k) for x in best)
