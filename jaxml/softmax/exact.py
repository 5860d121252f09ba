"""Softmax over all classes: the reference that the sampled losses estimate."""

import jax
import jax.numpy as jnp

from jaxml.softmax.logits import (
    check_table,
    check_temperature,
    products,
    true_classes,
    with_bias_and_temperature,
)
from jaxml.types import Array


def full_softmax_loss(
    inputs, labels, weights, biases=None, *, temperature=1.0, where=None
) -> Array:
    """Cross-entropy of the softmax over every class; builds all the logits.

        z_c  = (inputs · weights_c + biases_c) / temperature
        loss = log Σ_c exp(z_c) − (1/T) Σ_t z_(label t)

    The slow, obvious form. Its time and memory grow with the number of classes: for many of them
    train on a sample (`sampled_softmax_loss`).

    Args:
        inputs: [*batch, D], any float.
        labels: integers in [0, C): [*batch], one class each, or [*batch, T], several that share
            the target mass evenly.
        weights: [C, D], any float.
        biases: [C] or None. A bias of −inf takes its class out.
        temperature: scalar > 0, may be traced.
        where: None, or bool of the labels' shape; False masks a label, which may then hold any id.
            T counts the labels that are left.

    Returns:
        float32 [*batch]. An example with no label left has loss 0 and gradient 0, whatever its
        inputs hold. A label out of range that is only known inside `jit` gives NaN.

    Raises:
        ValueError: for shapes that do not fit, an empty table, a temperature that is not
            positive, or a label out of range (when its value is known).

    Numerics: computed in float32 from the distance to the largest logit, so it neither overflows
    nor loses the loss of logits around ±1e4; +inf when the true class has a logit of −inf (and
    NaN when all classes have).

    >>> import jax.numpy as jnp
    >>> full_softmax_loss(jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3)))  # log 4
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    inputs, weights = jnp.asarray(inputs), jnp.asarray(weights)
    biases = None if biases is None else jnp.asarray(biases)
    check_table(inputs, weights, biases)
    check_temperature(temperature)
    true = true_classes(labels, where, inputs, weights.shape[0])
    count = true.present.sum(-1)
    # Zero times NaN is NaN: what an example without labels holds must not reach a product.
    inputs = jnp.where((count > 0)[..., None], inputs, 0)

    logits = with_bias_and_temperature(products(inputs, weights), biases, temperature)
    highest = jax.lax.stop_gradient(logits.max(-1))
    highest = jnp.where(jnp.isfinite(highest), highest, 0.0)
    total = jnp.exp(logits - highest[..., None]).sum(-1)
    # ids are -1 where there is no class to look up; what is read there is thrown away.
    below = highest[..., None] - jnp.take_along_axis(logits, jnp.maximum(true.ids, 0), axis=-1)
    below = jnp.where(true.refused, jnp.nan, below)
    mean = jnp.where(true.present, below, 0.0).sum(-1) / jnp.maximum(count, 1)
    return jnp.log(jnp.where(count > 0, total, 1.0)) + mean
