"""Negatives of every example's own, drawn again in the backward pass instead of being kept."""

import operator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxml.softmax.candidates import Candidates, Sampler
from jaxml.softmax.logits import check_table, check_temperature, true_classes
from jaxml.softmax.sampled import Correction, sampled_softmax_loss_from_rows
from jaxml.softmax.sweeps import sweep
from jaxml.types import Array, Key, PyTree

# Numbers in the gathered rows of a tile, [tile, S, D].
_TILE_NUMBERS = 2**22


class _Options(NamedTuple):
    sampler: Sampler
    num_sampled: int
    unique: bool
    correction: Correction
    remove_accidental_hits: bool
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
    remove_accidental_hits: bool = True,
    temperature=1.0,
    where=None,
    tile_size: int | None = None,
) -> Array:
    """`sampled_softmax_loss` where each example has candidates of its own.

    Shared candidates make the examples' losses err together; own ones do not, at the price of B · S
    gathered rows in place of S. Example i draws with `fold_in(key, i)`. Nothing of B · S elements is kept
    for the backward pass, neither ids nor rows nor logits: a tile of examples at a time draws again from
    the same key, gathers again, and adds its gradients into that of the table.

    Args:
        inputs: [*batch, D], any float.
        labels: integers in [0, C): [*batch] or [*batch, T].
        weights: [C, D], any float.
        biases: [C] or None.
        sampler: as `uniform`, `log_uniform` or `unigram` make one: called for one example at a time.
        state: the sampler's; no gradient flows into it.
        key: typed key.
        num_sampled: candidates of an example.
        unique: whether an example's candidates are distinct.
        correction: as in `sampled_softmax_loss`.
        remove_accidental_hits: as in `sampled_softmax_loss`.
        temperature: scalar > 0, may be traced.
        where: None, or bool of the labels' shape; False masks a label.
        tile_size: examples at a time, at least 1; None: as many as gather about 2²² numbers.

    Returns:
        float32 [*batch], as `sampled_softmax_loss`.

    Raises:
        ValueError: as `sampled_softmax_loss` and the sampler do, and for a tile size below 1.

    >>> from jaxml.softmax.candidates import uniform
    >>> inputs, labels, weights = jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3))
    >>> key = jax.random.key(0)
    >>> per_example_sampled_softmax_loss(inputs, labels, weights, None, uniform(4), (), key, 4)
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    inputs, weights = jnp.asarray(inputs), jnp.asarray(weights)
    biases = None if biases is None else jnp.asarray(biases)
    check_table(inputs, weights, biases)
    check_temperature(temperature)
    num_classes, dim = weights.shape
    true = true_classes(labels, where, inputs, num_classes)
    batch = inputs.shape[:-1]
    size = inputs.size // max(dim, 1)
    if tile_size is None:
        tile_size = max(_TILE_NUMBERS // max(operator.index(num_sampled) * dim, 1), 1)
    if operator.index(tile_size) < 1:
        raise ValueError(f"tile_size must be at least 1, got {tile_size}")
    options = _Options(
        sampler,
        num_sampled,
        unique,
        correction,
        remove_accidental_hits,
        min(tile_size, max(size, 1)),
    )
    ids, present = (x.reshape(size, true.ids.shape[-1]) for x in (true.ids, true.present))
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
    refused = true.refused.reshape(size, true.ids.shape[-1]).any(-1)
    return jnp.where(refused, jnp.nan, losses).reshape(batch)


def _tile(options: _Options, labels, state, key, start, size):
    """Which classes the examples from `start` on need: labels, their mask, and the candidates."""
    ids, present = (lax.dynamic_slice_in_dim(array, start, size) for array in labels)
    keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(size))

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
        remove_accidental_hits=options.remove_accidental_hits,
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
        # Ids of no class, in masked labels and empty slots, have gradients of zero.
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
        jnp.zeros(()),
    )
    d_x, d_weights, d_biases, d_temperature = sweep(add, carry, x.shape[0], options.tile_size)
    if biases is not None:
        d_biases = d_biases.astype(biases.dtype)
    return d_x, d_weights.astype(weights.dtype), d_biases, d_temperature, None, None, None


_losses.defvjp(_losses_fwd, _losses_bwd)
