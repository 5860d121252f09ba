"""Candidates of each example's own, drawn again in the backward pass instead of being kept."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxml import checks
from jaxml.softmax.logits import check_temperature, checked_table, true_classes
from jaxml.softmax.sampled import Correction, sampled_softmax_loss_from_rows
from jaxml.softmax.samplers import Candidates, Sampler
from jaxml.softmax.sweeps import sweep
from jaxml.types import Array, Key, PyTree

# Numbers in the gathered rows of a tile of examples, [tile, S, D].
_TILE_NUMBERS = 2**22


class _Options(NamedTuple):
    sampler: Sampler
    num_sampled: int
    unique: bool
    correction: Correction
    tile_size: int


def per_example_sampled_softmax_loss(
    inputs,
    labels,
    weights,
    biases,
    sampler: Sampler,
    state: PyTree,
    key: Key,
    num_sampled: int,
    *,
    unique: bool = True,
    correction: Correction = "both",
    temperature=1.0,
    where=None,
) -> Array:
    """Returns `sampled_softmax_loss` with candidates of each example's own, float32 [*batch].

    Shared candidates make the examples' losses err together; own ones do not, at the price of B · S
    gathered rows in place of S. Example i draws with `fold_in(key, i)`; accidental hits are removed.
    Nothing of B · S elements is kept for the backward pass: a tile of examples at a time draws again from
    the same key, gathers again, and adds its gradients to that of the table.

    Args:
        inputs: [*batch, D]; arguments not listed are as in `sampled_softmax_loss`.
        sampler: one that draws without `inputs`; called for one example at a time.
        state: the sampler's; no gradient flows into it.
        key: typed key.
        num_sampled: candidates of an example.
        unique: whether an example's candidates are distinct.

    >>> from jaxml.softmax.samplers import uniform
    >>> inputs, labels, weights = jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3))
    >>> key = jax.random.key(0)
    >>> per_example_sampled_softmax_loss(inputs, labels, weights, None, uniform(4), (), key, 4)
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    inputs, weights, biases = checked_table(inputs, weights, biases)
    check_temperature(temperature)
    num_classes, dim = weights.shape
    num_sampled = checks.integer("num_sampled", num_sampled, 1)
    true = true_classes(labels, where, inputs, num_classes)
    batch = inputs.shape[:-1]
    size = inputs.size // max(dim, 1)
    tile_size = max(min(_TILE_NUMBERS // (num_sampled * max(dim, 1)), size), 1)
    options = _Options(sampler, num_sampled, unique, correction, tile_size)
    ids, present, refused = (x.reshape(size, true.ids.shape[-1]) for x in true)
    losses = _losses(
        options,
        inputs.reshape(size, dim),
        weights,
        biases,
        jnp.asarray(temperature, jnp.float32),
        (ids, present & (ids >= 0)),
        state,
        key,
    )
    return jnp.where(refused.any(-1), jnp.nan, losses).reshape(batch)


def _tile(options: _Options, labels, state, key, start, size):
    """Labels, their mask, and candidates of the examples from `start` on."""
    ids, present = (lax.dynamic_slice_in_dim(array, start, size) for array in labels)
    keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(size, dtype=jnp.int32))

    def draw(key: Key, ids: Array, present: Array) -> Candidates:
        return options.sampler.sample(
            state, key, ids, options.num_sampled, unique=options.unique, where=present
        )

    return ids, present, jax.vmap(draw)(keys, ids, present)


def _tile_losses(options: _Options, x, rows, biases, temperature, ids, present, drawn):
    """The losses of a tile, from its inputs and its gathered rows and biases, true and sampled."""
    true_rows, sampled_rows = rows
    true_biases, sampled_biases = biases
    return sampled_softmax_loss_from_rows(
        x,
        true_rows,
        sampled_rows,
        ids,
        drawn,
        true_biases=true_biases,
        sampled_biases=sampled_biases,
        correction=options.correction,
        temperature=temperature,
        where=present,
    )


def _gather(table, ids):
    return None if table is None else jnp.take(table, ids, axis=0, mode="clip")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(options: _Options, x, weights, biases, temperature, labels, state, key):
    def add(losses, start, size):
        ids, present, drawn = _tile(options, labels, state, key, start, size)
        rows, offsets = (
            (_gather(table, ids), _gather(table, drawn.ids)) for table in (weights, biases)
        )
        own = lax.dynamic_slice_in_dim(x, start, size)
        part = _tile_losses(options, own, rows, offsets, temperature, ids, present, drawn)
        return lax.dynamic_update_slice_in_dim(losses, part, start, 0)

    return sweep(add, jnp.zeros(x.shape[0], jnp.float32), x.shape[0], options.tile_size)


def _losses_fwd(options, *arguments):
    return _losses(options, *arguments), arguments


def _losses_bwd(options: _Options, arguments, d_losses):
    x, weights, biases, temperature, labels, state, key = arguments

    def scatter(table, ids, gradients):
        # Masked labels and empty slots have gradients of zero.
        flat = jnp.clip(ids, 0, table.shape[0] - 1).reshape(-1)
        return table.at[flat].add(gradients.reshape(-1, *table.shape[1:]).astype(table.dtype))

    def add(carry, start, size):
        d_x, d_weights, d_biases, d_temperature = carry
        ids, present, drawn = _tile(options, labels, state, key, start, size)
        rows, offsets = (
            (_gather(table, ids), _gather(table, drawn.ids)) for table in (weights, biases)
        )
        _, pull_back = jax.vjp(
            lambda x, rows, offsets, temperature: _tile_losses(
                options, x, rows, offsets, temperature, ids, present, drawn
            ),
            lax.dynamic_slice_in_dim(x, start, size),
            rows,
            offsets,
            temperature,
        )
        of_x, of_rows, of_offsets, of_temperature = pull_back(
            lax.dynamic_slice_in_dim(d_losses, start, size)
        )
        d_x = lax.dynamic_update_slice_in_dim(d_x, of_x, start, 0)
        for each, gradients in zip((ids, drawn.ids), of_rows, strict=True):
            d_weights = scatter(d_weights, each, gradients)
        if biases is not None:
            for each, gradients in zip((ids, drawn.ids), of_offsets, strict=True):
                d_biases = scatter(d_biases, each, gradients)
        return d_x, d_weights, d_biases, d_temperature + of_temperature

    carry = (
        jnp.zeros_like(x),
        jnp.zeros(weights.shape, jnp.float32),
        None if biases is None else jnp.zeros(biases.shape, jnp.float32),
        jnp.zeros((), jnp.float32),
    )
    d_x, d_weights, d_biases, d_temperature = sweep(add, carry, x.shape[0], options.tile_size)
    if biases is not None:
        d_biases = d_biases.astype(biases.dtype)
    return d_x, d_weights.astype(weights.dtype), d_biases, d_temperature, None, None, None


_losses.defvjp(_losses_fwd, _losses_bwd)
