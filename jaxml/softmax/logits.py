"""What the output layers share: which classes are true, and how rows become scores."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.types import Array


class TrueClasses(NamedTuple):
    """The true classes of a batch, in one form whatever form the labels had.

    Attributes:
        ids: int32 [*batch, T]; -1, the id of no class, where masked or out of range.
        present: bool [*batch, T], False where masked.
        refused: bool [*batch, T], True where a label is present and out of range.
    """

    ids: Array
    present: Array
    refused: Array


def true_classes(labels, where, inputs: Array, num_classes: int | None) -> TrueClasses:
    """Reads labels and their mask, and refuses those that name no class.

    Args:
        labels: integers [*batch], one true class each, or [*batch, T], several.
        where: None or [*batch] or [*batch, T] as the labels; False masks a label.
        inputs: [*batch, D]; its rank tells one form of labels from the other.
        num_classes: the bound of the labels, or None where the caller does not know it.

    Returns:
        The `TrueClasses`.

    Raises:
        ValueError: for a shape that does not fit, and for a label out of range that is known while
            tracing. One that is not is marked in `refused`.
    """
    if inputs.ndim == 0:
        raise ValueError("inputs must be [*batch, D], got a scalar")
    batch = inputs.shape[:-1]
    # Not yet a JAX array: that would cut 64-bit ids to 32 bits before they are checked.
    labels = labels if isinstance(labels, jax.Array) else np.asarray(labels)
    if labels.size and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != batch and (labels.ndim != inputs.ndim or labels.shape[:-1] != batch):
        raise ValueError(
            f"labels must be {batch} or {(*batch, 'T')} for inputs {inputs.shape}, "
            f"got {labels.shape}"
        )
    if where is not None and jnp.shape(where) != labels.shape:
        raise ValueError(
            f"where must have the labels' shape {labels.shape}, got {jnp.shape(where)}"
        )
    _refuse_known(labels, where, num_classes)

    present = jnp.ones(labels.shape, bool) if where is None else jnp.asarray(where, bool)
    ids = jnp.asarray(labels, jnp.int32)
    in_range = ids >= 0
    if num_classes is not None:
        in_range &= ids < num_classes
    if labels.ndim < inputs.ndim:
        ids, present, in_range = ids[..., None], present[..., None], in_range[..., None]
    return TrueClasses(jnp.where(present & in_range, ids, -1), present, present & ~in_range)


def _refuse_known(labels, where, num_classes: int | None) -> None:
    """Raises for an unmasked label out of range, when labels and mask are no tracers."""
    if isinstance(labels, jax.core.Tracer) or isinstance(where, jax.core.Tracer):
        return
    values = np.asarray(labels)
    refused = values < 0
    if num_classes is not None:
        refused |= values >= num_classes
    if where is not None:
        refused &= np.asarray(where, bool)
    if refused.any():
        position = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(refused)))
        bound = "at least 0" if num_classes is None else f"in [0, {num_classes})"
        raise ValueError(f"labels must be {bound}, got {values[refused][0]} at {position}")


def check_table(inputs: Array, weights: Array, biases: Array | None) -> None:
    """Raises ValueError unless `weights` [C, D] and `biases` [C] fit `inputs` [*batch, D]."""
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


def check_temperature(temperature) -> None:
    """Raises ValueError unless `temperature` is a scalar that is positive or not yet known."""
    if jnp.ndim(temperature) != 0:
        raise ValueError(f"temperature must be a scalar, got shape {jnp.shape(temperature)}")
    # NumPy's comparison: within a trace JAX's would make a tracer of a number that is known.
    if not isinstance(temperature, jax.core.Tracer) and not np.asarray(temperature) > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")


def aligned(x: Array, ndim: int) -> Array:
    """`x` with axes of length one put in front, up to `ndim`: NumPy's promotion, but asked for."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def products(inputs: Array, rows: Array, *, rows_are_columns: bool = False) -> Array:
    """Inner products of [*batch, D] with [S, D] or [*batch, S, D]: [*batch, S] in float32.

    With `rows_are_columns` the rows come as [D, S].

    Narrow operands stay narrow (a matrix unit multiplies them fast), their sums do not.
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
    # −inf is put in after the division, through which the temperature's gradient would be NaN.
    absent = jnp.isneginf(biases)
    finite = aligned(jnp.where(absent, 0, biases).astype(jnp.float32), scores.ndim)
    return (scores + finite) / temperature + aligned(jnp.where(absent, -jnp.inf, 0.0), scores.ndim)


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """log(1 + exp(x)); `jax.nn.softplus` stores more of [*batch, S] for the backward pass."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


softplus.defjvp(lambda x, dx: (softplus(*x), jax.nn.sigmoid(*x) * dx[0]))


def at_most_float32(x: Array) -> Array:
    """`x` as it is when it is a float of at most 32 bits, else as float32."""
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize <= 4
    return x if narrow else x.astype(jnp.float32)
