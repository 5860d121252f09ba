"""Candidates of each example's own, drawn again in the backward pass instead of being kept."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxml import checks, meshes
from jaxml.keys import as_key
from jaxml.softmax.logits import check_scalar, checked_table, true_classes
from jaxml.softmax.sampled import Correction, sampled_softmax_loss_from_rows
from jaxml.softmax.samplers import Candidates, Sampler
from jaxml.softmax.sweeps import sweep, write
from jaxml.types import Array, Key, PyTree

# Numbers in the gathered rows of a tile of examples, [tile, S, D].
_TILE_NUMBERS = 2**22


class _Options(NamedTuple):
    sampler: Sampler
    num_sampled: int
    unique: bool
    correction: Correction
    tile_size: int


@meshes.laid_out_as("inputs")
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

    The arguments are those of `sampled_softmax_loss`, with a sampler that draws without `inputs`, its
    `state` and a `key` in place of the candidates: `num_sampled` of each example, distinct if
    `unique`.

    >>> from jaxml.softmax.samplers import uniform
    >>> inputs, labels, weights = jnp.ones((2, 3)), jnp.array([0, 3]), jnp.zeros((4, 3))
    >>> key = jax.random.key(0)
    >>> per_example_sampled_softmax_loss(inputs, labels, weights, None, uniform(4), (), key, 4)
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    inputs, weights, biases = checked_table(inputs, weights, biases)
    check_scalar("temperature", temperature, above=0)
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
        *meshes.alike(
            inputs.reshape(size, dim),
            {"weights": weights, "biases": biases},
            jnp.asarray(temperature, jnp.float32),
            (ids, present & (ids >= 0)),
            state,
            as_key(key),
        ),
    )
    return jnp.where(refused.any(-1), jnp.nan, losses).reshape(batch)


def _tile(options: _Options, tables, labels, state, key, start, size):
    """Of the examples from `start` on: true and sampled ids [size, T + S], their rows, and the loss.

    `loss(x, rows, temperature) -> [size]`.
    """
    ids, present = (lax.dynamic_slice_in_dim(array, start, size) for array in labels)
    keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(size, dtype=jnp.int32))

    def draw(key: Key, ids: Array, present: Array) -> Candidates:
        return options.sampler.sample(
            state, key, ids, options.num_sampled, unique=options.unique, where=present
        )

    drawn = jax.vmap(draw)(keys, ids, present)
    every, num_true = jnp.concatenate([ids, drawn.ids], axis=1), ids.shape[1]

    def loss(x: Array, rows: PyTree, temperature: Array) -> Array:
        true = jax.tree.map(lambda row: row[:, :num_true], rows)
        sampled = jax.tree.map(lambda row: row[:, num_true:], rows)
        return sampled_softmax_loss_from_rows(
            x,
            true["weights"],
            sampled["weights"],
            ids,
            drawn,
            true_biases=true["biases"],
            sampled_biases=sampled["biases"],
            correction=options.correction,
            temperature=temperature,
            where=present,
        )

    rows = jax.tree.map(lambda table: jnp.take(table, every, axis=0, mode="clip"), tables)
    return every, rows, loss


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(options: _Options, x, tables, temperature, labels, state, key):
    def add(losses, start, size):
        _, rows, loss = _tile(options, tables, labels, state, key, start, size)
        part = loss(lax.dynamic_slice_in_dim(x, start, size), rows, temperature)
        return write(losses, part, start)

    return sweep(add, jnp.zeros(x.shape[0], jnp.float32), x.shape[0], options.tile_size)


def _losses_fwd(options, *arguments):
    return _losses(options, *arguments), arguments


def _losses_bwd(options: _Options, arguments, d_losses):
    x, tables, temperature, labels, state, key = arguments

    def add(carry, start, size):
        d_x, d_tables, d_temperature = carry
        ids, rows, loss = _tile(options, tables, labels, state, key, start, size)
        own, cotangent = (lax.dynamic_slice_in_dim(a, start, size) for a in (x, d_losses))
        of_x, of_rows, of_temperature = jax.vjp(loss, own, rows, temperature)[1](cotangent)
        # Masked labels and empty slots have gradients of zero.
        flat = jnp.clip(ids, 0, len(tables["weights"]) - 1).reshape(-1)

        def scatter(total: Array, gradients: Array) -> Array:
            gradients = gradients.reshape(-1, *total.shape[1:]).astype(jnp.float32)
            return total.at[flat].add(gradients)

        d_tables = jax.tree.map(scatter, d_tables, of_rows)
        return write(d_x, of_x, start), d_tables, d_temperature + of_temperature

    zeros = jax.tree.map(lambda table: jnp.zeros(table.shape, jnp.float32), tables)
    carry = jnp.zeros_like(x), zeros, jnp.zeros((), jnp.float32)
    d_x, d_tables, d_temperature = sweep(add, carry, x.shape[0], options.tile_size)
    d_tables = jax.tree.map(lambda d, table: d.astype(table.dtype), d_tables, tables)
    return d_x, d_tables, d_temperature, None, None, None


_losses.defvjp(_losses_fwd, _losses_bwd)
