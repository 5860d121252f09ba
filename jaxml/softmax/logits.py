"""Arguments that the output layers share: labels, tables, and the scores they make."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks
from jaxml.ids import as_int32
from jaxml.types import Array

MAX_CLASSES = 2**31 - 2
"""Ids are int32, `num_classes` marks an empty slot, and 2³¹ − 1 stays free as a sentinel."""

LARGEST = float(np.finfo(np.float32).max)
"""A score of +∞ counts as this, so that a difference of two scores is a number."""


class TrueClasses(NamedTuple):
    """The true classes of a batch.

    Attributes:
        ids: int32 [*batch, T]; −1 where masked or out of range.
        present: bool [*batch, T], False where masked.
        refused: bool [*batch, T], True where a label is present and out of range.
    """

    ids: Array
    present: Array
    refused: Array


def checked_labels(labels: Any, where: Any, num_classes: int | None, name: str = "labels") -> Array:
    """Returns the labels as int32; `name` is what errors call them.

    Raises ValueError if they are not integers, `where` has another shape, or an unmasked label is out of
    range and known (not traced).
    """
    if where is not None and np.shape(where) != np.shape(labels):
        raise ValueError(
            f"where must have the labels' shape {np.shape(labels)}, got {np.shape(where)}"
        )
    checked = as_int32(name, labels, MAX_CLASSES + 1 if num_classes is None else num_classes)
    if not isinstance(labels, jax.core.Tracer) and not isinstance(where, jax.core.Tracer):
        values = np.asarray(labels)
        bad = values < 0
        if num_classes is not None:
            bad |= values >= num_classes
        if where is not None:
            bad &= np.asarray(where, bool)
        if bad.any():
            position = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(bad)))
            bound = "at least 0" if num_classes is None else f"in [0, {num_classes})"
            raise ValueError(f"{name} must be {bound}, got {values[bad][0]} at {position}")
    return checked


def true_classes(labels, where, inputs: Array, num_classes: int | None) -> TrueClasses:
    """Returns the true classes of checked labels [*batch] or [*batch, T], for inputs [*batch, D]."""
    if inputs.ndim == 0:
        raise ValueError("inputs must be [*batch, D], got a scalar")
    batch, shape = inputs.shape[:-1], np.shape(labels)
    if shape != batch and (len(shape) != inputs.ndim or shape[:-1] != batch):
        raise ValueError(
            f"labels must be {batch} or {(*batch, 'T')} for inputs {inputs.shape}, got {shape}"
        )
    ids = checked_labels(labels, where, num_classes)
    present = jnp.ones(shape, bool) if where is None else jnp.asarray(where, bool)
    in_range = ids >= 0
    if num_classes is not None:
        in_range &= ids < num_classes
    if ids.ndim < inputs.ndim:
        ids, present, in_range = ids[..., None], present[..., None], in_range[..., None]
    return TrueClasses(jnp.where(present & in_range, ids, -1), present, present & ~in_range)


def checked_table(inputs, weights, biases) -> tuple[Array, Array, Array | None]:
    """Returns inputs [*batch, D], weights [C, D] and biases [C] (or None) as JAX arrays that fit."""
    inputs, weights = jnp.asarray(inputs), jnp.asarray(weights)
    biases = None if biases is None else jnp.asarray(biases)
    if inputs.ndim == 0:
        raise ValueError("inputs must be [*batch, D], got a scalar")
    if weights.ndim != 2 or weights.shape[1] != inputs.shape[-1]:
        raise ValueError(
            f"weights must be [num_classes, {inputs.shape[-1]}] for inputs {inputs.shape}, "
            f"got {weights.shape}"
        )
    if weights.shape[0] == 0:
        raise ValueError(f"weights must have at least one class, got {weights.shape}")
    if biases is not None and biases.shape != weights.shape[:1]:
        raise ValueError(f"biases must be {weights.shape[:1]} or None, got {biases.shape}")
    return inputs, weights, biases


def check_scalar(name: str, value, *, at_least=None, at_most=None, above=None) -> None:
    """Raises ValueError unless the value is a scalar within the bounds, as far as it is known."""
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
    if not isinstance(value, jax.core.Tracer):
        checks.number(name, value, at_least, at_most, above=above)


def aligned(x: Array, ndim: int) -> Array:
    """`x` with leading axes of length one, up to `ndim`."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def products(inputs: Array, rows: Array, *, rows_are_columns: bool = False) -> Array:
    """Inner products of [*batch, D] with [S, D] or [*batch, S, D]: float32 [*batch, S].

    With `rows_are_columns` the rows come as [D, S]. Narrow operands stay narrow (a matrix unit multiplies
    them fast); sums are float32.
    """
    if rows_are_columns:
        subscripts = "...d,ds->...s"
    else:
        subscripts = "...d,sd->...s" if rows.ndim == 2 else "...d,...sd->...s"
    operands = (at_most_float32(inputs), at_most_float32(rows))
    return jnp.einsum(subscripts, *operands, preferred_element_type=jnp.float32)


def with_bias_and_temperature(scores: Array, biases: Array | None, temperature) -> Array:
    """(scores + biases) / temperature, for scores [*batch, S] and biases that end in [S]."""
    temperature = jnp.asarray(temperature, jnp.float32)
    if biases is None:
        return scores / temperature
    # −inf comes after the division: the temperature's gradient through it would be NaN.
    absent = jnp.isneginf(biases)
    finite = aligned(jnp.where(absent, 0, biases).astype(jnp.float32), scores.ndim)
    return (scores + finite) / temperature + aligned(jnp.where(absent, -jnp.inf, 0.0), scores.ndim)


@jax.custom_jvp
def at_most_largest(scores: Array) -> Array:
    """The scores, +∞ as `LARGEST`."""
    return jnp.minimum(scores, LARGEST)


@jax.custom_jvp
def infinite(losses: Array) -> Array:
    """The losses, those that come of a score of `LARGEST` as +∞."""
    return jnp.where(losses > LARGEST / 2, jnp.inf, losses)


# Identities to a gradient: a mask of [*batch, S] would have to be stored for it.
at_most_largest.defjvp(lambda x, dx: (at_most_largest(*x), dx[0]))
infinite.defjvp(lambda x, dx: (infinite(*x), dx[0]))


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """log(1 + exp(x)); `jax.nn.softplus` stores more of [*batch, S] for the backward pass."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


softplus.defjvp(lambda x, dx: (softplus(*x), jax.nn.sigmoid(*x) * dx[0]))


def at_most_float32(x: Array) -> Array:
    """`x` unchanged if it is a float of at most 32 bits, else as float32."""
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize <= 4
    return x if narrow else x.astype(jnp.float32)
