"""One-vs-all: an independent sigmoid for each class in place of a softmax."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxml import checks, meshes
from jaxml.softmax import sweeps
from jaxml.softmax.logits import checked_table, softplus, true_classes
from jaxml.types import Array


@meshes.laid_out_as("inputs")
def one_vs_all_loss(
    inputs, labels, weights, biases=None, *, where=None, block_size: int | None = None
) -> Array:
    """Returns the binary cross-entropy summed over all classes, float32 [*batch], a block at a time.

        z_c  = inputs · weights_c + biases_c
        loss = − Σ_(c true) log σ(z_c) − Σ_(c not true) log σ(−z_c)

    Classes are scored again in the backward pass; if C > block_size no array of B · C elements exists in
    the compiled program. `sampled_logistic_loss` is the sampled form: the two are equal if every class is a
    candidate, expected once, and one class is true (of T true classes each has the target 1/T there, 1
    here).

    Each of several true classes has the target 1; a label listed twice counts once. Biases of about −log C
    spare the first steps: with zero weights and biases the loss starts at C log 2. `block_size` classes are
    scored at once, by default about 2²⁰ scores.

    >>> one_vs_all_loss(jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3)))  # 4 log 2
    Array([2.7725887, 2.7725887], dtype=float32)

    References:
        Rifkin & Klautau 2004, "In defense of one-vs-all classification".
    """
    inputs, weights, biases = checked_table(inputs, weights, biases)
    num_classes, dim = weights.shape
    true = true_classes(labels, where, inputs, num_classes)
    batch = inputs.shape[:-1]
    rows = math.prod(batch)
    if block_size is None:
        block_size = max(2**20 // max(rows, 1), 2**8)
    block_size = min(checks.integer("block_size", block_size, 1), num_classes)

    if not true.ids.size:
        return jnp.zeros(batch, jnp.float32)
    active = true.present.any(-1)
    # Zero times NaN is NaN: the inputs of an example without labels must not reach a product.
    inputs = jnp.where(active[..., None], inputs, 0).reshape(rows, dim)
    ids = true.ids.reshape(rows, true.ids.shape[-1])
    losses = _summed(block_size, *meshes.alike(inputs, weights, biases, ids)).reshape(batch)
    losses = jnp.where(true.refused.any(-1), jnp.nan, losses)
    return jnp.where(active, losses, 0.0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(block_size: int, inputs: Array, weights: Array, biases: Array | None, ids: Array):
    """The losses [N] of inputs [N, D] with the true ids [N, T], -1 where there is none."""
    columns = sweeps.columns(inputs)

    def add_block(total: Array, start: Array, size: int) -> Array:
        _, z, true = _block(columns, weights, biases, ids, start, size)
        return total + softplus(jnp.where(true, -z, z)).sum(0)

    total = jnp.zeros(len(inputs), jnp.float32)
    return sweeps.sweep(add_block, total, weights.shape[0], block_size)


def _summed_forward(block_size, inputs, weights, biases, ids):
    arguments = (inputs, weights, biases, ids)
    return _summed(block_size, *arguments), arguments


def _summed_backward(block_size, arguments, cotangent):
    inputs, weights, biases, ids = arguments
    columns = sweeps.columns(inputs)

    def add_block(carry, start: Array, size: int):
        d_columns, d_weights, d_biases = carry
        rows, z, true = _block(columns, weights, biases, ids, start, size)
        # The derivative of log(1 + exp(±z)), which keeps its digits where it is almost 0.
        d_z = jnp.where(true, -jax.nn.sigmoid(-z), jax.nn.sigmoid(z)) * cotangent[None]
        d_weights = sweeps.write(d_weights, sweeps.d_rows(inputs, d_z), start)
        if biases is not None:
            d_biases = sweeps.write(d_biases, d_z.sum(1), start)
        return d_columns + sweeps.d_columns(rows, d_z), d_weights, d_biases

    carry = (
        jnp.zeros(columns.shape, jnp.float32),
        jnp.zeros_like(weights),
        None if biases is None else jnp.zeros_like(biases),
    )
    d_columns, d_weights, d_biases = sweeps.sweep(add_block, carry, weights.shape[0], block_size)
    return d_columns.T.astype(inputs.dtype), d_weights, d_biases, None


_summed.defvjp(_summed_forward, _summed_backward)


def _block(columns, weights, biases, ids, start: Array, size: int):
    """The rows of the classes from `start` on, their scores [K, N], and which of these are true."""
    rows = lax.dynamic_slice_in_dim(weights, start, size)
    z = sweeps.scores(rows, columns)
    if biases is not None:
        z += lax.dynamic_slice_in_dim(biases, start, size).astype(jnp.float32)[:, None]
    none = jnp.zeros(z.shape, bool)
    return rows, z, sweeps.over_true(lambda true, own, t: true | own, ids, none, start)
