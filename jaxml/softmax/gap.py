"""Bias and variance of a sampled gradient, and the gap of its loss, against the exact softmax."""

from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxml import checks, meshes
from jaxml.keys import as_key
from jaxml.softmax.blockwise import blockwise_softmax_loss
from jaxml.softmax.sampled import Correction, sampled_softmax_loss
from jaxml.softmax.samplers import Sampler
from jaxml.types import Array, Key, PyTree

Gradients = Literal["inputs", "weights", "both"]


class Gap(NamedTuple):
    """The error that sampling makes in the mean loss of a batch, relative to the exact softmax.

    With g the gradient from one draw of candidates and g* the exact one,

        gradient_bias = ‖E[g] − g*‖ / ‖g*‖,     gradient_variance = E‖g − E[g]‖² / ‖g*‖²,
        loss_gap = E[loss] − loss*.

    Attributes:
        gradient_bias: float32 scalar. Its square is estimated without bias: the squared distance of the
            mean of the draws, less the part due to their scatter; a negative estimate is 0.
        gradient_variance: float32 scalar, of a single draw.
        loss_gap: float32 scalar, in nats. Only `correction="negatives"` estimates the exact loss; for the
            others the gap is the difference of two losses, not a measure of quality.
    """

    gradient_bias: Array
    gradient_variance: Array
    loss_gap: Array


@meshes.laid_out_as(None)
def estimate_gap(
    inputs,
    labels,
    weights,
    biases,
    sampler: Sampler,
    state: PyTree,
    key: Key,
    num_sampled: int,
    num_keys: int,
    *,
    unique: bool = True,
    correction: Correction = "both",
    gradients: Gradients = "both",
) -> Gap:
    """Compares the sampled softmax with the exact one, on a batch, over many draws.

    Takes one exact loss and gradient (by blocks) and `num_keys` sampled ones, and a few arrays of the
    table's size, unless only the inputs' gradients are asked for. For a temperature divide the inputs by it
    (all figures are relative, so nothing else changes).

    Args:
        inputs: [*batch, D].
        sampler: draws the candidates for labels and inputs.
        state: the sampler's, as training has it.
        key: a key, or an integer as seed; draw i uses `fold_in(key, i)`.
        num_sampled: candidates of a draw.
        num_keys: draws, at least 2. The error of a bias of 0 is about √(gradient_variance / num_keys).
        gradients: with respect to "inputs", "weights", or "both".

    >>> from jaxml.softmax.samplers import uniform
    >>> key, sampler = jax.random.key(0), uniform(50)
    >>> inputs, weights = jnp.ones((2, 3)), jax.random.normal(key, (50, 3))
    >>> gap = estimate_gap(inputs, jnp.array([1, 2]), weights, None, sampler, (), key, 50, 2)
    >>> bool(gap.gradient_bias < 1e-4) and bool(gap.gradient_variance < 1e-8)  # all classes drawn
    True
    """
    num_keys = checks.integer("num_keys", num_keys, 2)
    key = as_key(key)
    checks.choice("gradients", gradients, get_args(Gradients))
    inputs, weights = jnp.asarray(inputs), jnp.asarray(weights)
    exact = partial(blockwise_softmax_loss, labels=labels, biases=biases, reduction="mean")

    def sampled(x: Array, w: Array, key: Key) -> Array:
        candidates = sampler.sample(state, key, labels, num_sampled, unique=unique, inputs=inputs)
        losses = sampled_softmax_loss(x, labels, w, biases, candidates, correction=correction)
        return losses.mean()

    wanted = {"inputs": (0,), "weights": (1,), "both": (0, 1)}[gradients]
    loss, gradient = jax.value_and_grad(lambda x, w: exact(x, weights=w), wanted)(inputs, weights)
    draw = jax.value_and_grad(sampled, wanted)

    # Summed as differences from the exact gradient: what is small is then not lost in what is large.
    def add(i: Array, sums: tuple[PyTree, Array, Array]) -> tuple[PyTree, Array, Array]:
        total, squares, losses = sums
        value, drawn = draw(inputs, weights, jax.random.fold_in(key, i))
        off = jax.tree.map(lambda d, g: (d - g).astype(jnp.float32), drawn, gradient)
        return jax.tree.map(jnp.add, total, off), squares + _square(off), losses + (value - loss)

    zeros = jax.tree.map(lambda g: jnp.zeros(g.shape, jnp.float32), gradient)
    total, squares, losses = meshes.fori_loop(
        0, num_keys, add, (zeros, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))
    )
    mean_square = _square(total) / num_keys**2
    variance = (squares - num_keys * mean_square) / (num_keys - 1)
    bias_square = jnp.maximum(mean_square - variance / num_keys, 0.0)
    size = _square(gradient)
    return Gap(
        gradient_bias=jnp.sqrt(bias_square / size),
        gradient_variance=variance / size,
        loss_gap=losses / num_keys,
    )


def _square(tree: PyTree) -> Array:
    return sum(
        (jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)),
        start=jnp.zeros((), jnp.float32),
    )
