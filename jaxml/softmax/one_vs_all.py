"""One yes-or-no question for each class: independent sigmoids in place of a softmax."""

import math
import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxml.softmax.logits import aligned, check_table, products, true_classes
from jaxml.types import Array


def one_vs_all_loss(
    inputs, labels, weights, biases=None, *, where=None, block_size: int | None = None
) -> Array:
    """Binary cross-entropy of every class, summed; the logits are never all there at once.

        z_c  = inputs · weights_c + biases_c
        loss = − Σ_(c true) log σ(z_c) − Σ_(c not true) log σ(−z_c)

    Classes are scored a block at a time, and again in the backward pass. When C > block_size no array
    of B · C elements exists in the compiled program. `sampled_logistic_loss` is its sampled form: the two
    are equal when every class is a candidate, expected once, and one class is true (several have the
    target 1/T there, and 1 here).

    Args:
        inputs: [*batch, D], any float.
        labels: integers in [0, C): [*batch], one class each, or [*batch, T], several true ones, each
            with the target 1; one that is listed twice counts once.
        weights: [C, D], any float.
        biases: [C] or None. A bias of −inf takes its class out. One about −log C spares the first
            steps: with zero weights the loss starts at C log 2.
        where: None, or bool of the labels' shape; False masks a label, which may then hold any id.
        block_size: classes scored at once, at least 1; a block's scores are [B, block_size]. None:
            about 2²² scores.

    Returns:
        float32 [*batch]. An example with no label left has loss 0 and gradient 0, whatever its inputs
        hold. A label out of range that is only known inside `jit` gives NaN, to this example alone.

    Raises:
        ValueError: for shapes that do not fit, an empty table, a label out of range (when its value
            is known), or a `block_size` below 1.

    Numerics: scores, sums and carries are float32; log σ is computed without cancellation, so it
    neither overflows nor loses the loss of scores around ±1e4. Forward-mode differentiation is not
    offered.

    >>> import jax.numpy as jnp
    >>> one_vs_all_loss(jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3)))  # 4 log 2
    Array([2.7725887, 2.7725887], dtype=float32)

    References:
        Rifkin & Klautau 2004, "In defense of one-vs-all classification".
    """
    inputs, weights = jnp.asarray(inputs), jnp.asarray(weights)
    biases = None if biases is None else jnp.asarray(biases)
    check_table(inputs, weights, biases)
    num_classes, dim = weights.shape
    true = true_classes(labels, where, inputs, num_classes)
    batch = inputs.shape[:-1]
    rows = math.prod(batch)
    if block_size is None:
        block_size = max(2**22 // max(rows, 1), 2**7)
    block_size = min(_block_size(block_size), num_classes)

    if not true.ids.size:
        return jnp.zeros(batch, jnp.float32)
    active = true.present.any(-1)
    # Zero times NaN is NaN: what an example without labels holds must not reach a product.
    inputs = jnp.where(active[..., None], inputs, 0).reshape(rows, dim)
    ids = true.ids.reshape(rows, true.ids.shape[-1])
    losses = _summed(block_size, inputs, weights, biases, ids).reshape(batch)
    losses = jnp.where(true.refused.any(-1), jnp.nan, losses)
    return jnp.where(active, losses, 0.0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(block_size: int, inputs: Array, weights: Array, biases: Array | None, ids: Array):
    """The losses [N] of inputs [N, D] with the true ids [N, T], -1 where there is none."""

    def add_block(total, block):
        z, hit, fresh, _ = _block(block, block_size, inputs, weights, biases, ids)
        losses = _softplus(jnp.where(hit, -z, z))
        return total + jnp.where(fresh, losses, 0.0).sum(-1), None

    total, _ = lax.scan(
        add_block, jnp.zeros(len(inputs), jnp.float32), _blocks(weights, block_size)
    )
    return total


def _summed_forward(block_size, inputs, weights, biases, ids):
    arguments = (inputs, weights, biases, ids)
    return _summed(block_size, *arguments), arguments


def _summed_backward(block_size, arguments, cotangent):
    inputs, weights, biases, ids = arguments
    inputs_32 = inputs.astype(jnp.float32)

    def add_block(carry, block):
        d_inputs, d_weights, d_biases = carry
        z, hit, fresh, start = _block(block, block_size, inputs, weights, biases, ids)
        # The derivative of log(1 + exp(±z)), which keeps its digits where it is almost 0.
        d_z = jnp.where(hit, -jax.nn.sigmoid(-z), jax.nn.sigmoid(z)) * cotangent[:, None]
        d_z = jnp.where(fresh, d_z, 0.0)
        rows = lax.dynamic_slice_in_dim(weights, start, block_size).astype(jnp.float32)
        d_inputs += jnp.einsum("nc,cd->nd", d_z, rows)
        d_weights = _add(d_weights, jnp.einsum("nc,nd->cd", d_z, inputs_32), start)
        if biases is not None:
            d_biases = _add(d_biases, d_z.sum(0), start)
        return (d_inputs, d_weights, d_biases), None

    zeros = (
        jnp.zeros_like(inputs_32),
        jnp.zeros_like(weights),
        None if biases is None else jnp.zeros_like(biases),
    )
    gradients, _ = lax.scan(add_block, zeros, _blocks(weights, block_size))
    return gradients[0].astype(inputs.dtype), gradients[1], gradients[2], None


_summed.defvjp(_summed_forward, _summed_backward)


def _blocks(weights: Array, block_size: int) -> Array:
    return jnp.arange(-(-weights.shape[0] // block_size), dtype=jnp.int32)


def _block(block, block_size, inputs, weights, biases, ids):
    """One block's scores [N, block_size], which of them are true, which are new [1, …], and its start.

    The last block ends with the last class and may repeat some of the block before; these are not new.
    """
    wanted = block * block_size
    start = jnp.minimum(wanted, weights.shape[0] - block_size)
    z = products(inputs, lax.dynamic_slice_in_dim(weights, start, block_size))
    if biases is not None:
        slice_ = lax.dynamic_slice_in_dim(biases, start, block_size)
        z += aligned(slice_.astype(jnp.float32), z.ndim)
    column = start + jnp.arange(block_size, dtype=jnp.int32)[None]

    # One true class at a time: comparing with all at once would be [N, block_size, T].
    def or_equal(t, hit):
        return hit | (lax.dynamic_index_in_dim(ids, t, axis=1) == column)

    count = ids.shape[1]
    none = jnp.zeros(z.shape, bool)
    hit = lax.fori_loop(0, count, or_equal, none, unroll=max(1, min(count, 8)))
    return z, hit, column >= wanted, start


def _add(table: Array, block: Array, start: Array) -> Array:
    """The table with a block of rows added; in place, since it is a loop's carry."""
    old = lax.dynamic_slice_in_dim(table, start, block.shape[0])
    return lax.dynamic_update_slice_in_dim(table, old + block.astype(table.dtype), start, axis=0)


def _softplus(x: Array) -> Array:
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def _block_size(value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"block_size must be an int, got {value!r}") from error
    if number < 1:
        raise ValueError(f"block_size must be at least 1, got {number}")
    return number
