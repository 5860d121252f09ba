"""Arguments of losses, checked where they enter: shapes that must agree, labels, hyperparameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.types import Array


def known(value: Any) -> np.ndarray | None:
    """The value, or None where it is only known when the program runs."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def float32(name: str, value: Any) -> Array:
    """The value as float32, or ValueError that names it unless it holds real numbers."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise ValueError(f"{name} must be real numbers, got {dtype}")
    return jnp.asarray(value, jnp.float32)


def scalar(
    name: str, value: Any, *, low: float = 0.0, high: float = np.inf, inside: bool = False
) -> Array:
    """A hyperparameter as a float32 scalar; its range is checked if its value is known.

    `inside` leaves the ends out.
    """
    if np.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {np.shape(value)}")
    number = float32(name, value)
    at = known(value)
    if at is not None and not (low < at < high if inside else low <= at <= high):
        wanted = (
            f"{'(' if inside else '['}{low:g}, {high:g}{')' if inside or high == np.inf else ']'}"
        )
        raise ValueError(f"{name} must be in {wanted}, got {at}")
    return number


def mask(where: Any, shape: tuple[int, ...]) -> Array | None:
    """`where` as booleans of exactly this shape, or None."""
    if where is None:
        return None
    where = jnp.asarray(where)
    if where.dtype != bool or where.shape != shape:
        raise ValueError(
            f"where must be bool of the losses' shape {shape}, got {where.dtype} of {where.shape}"
        )
    return where


def pair(
    outputs: Any, targets: Any, where: Any, names: tuple[str, str] = ("outputs", "targets")
) -> tuple[Array, Array, Array | None]:
    """Both as float32 of one shape, zeros where masked: what stands there reaches no arithmetic."""
    one, other = float32(names[0], outputs), float32(names[1], targets)
    if one.shape != other.shape:
        hint = ""
        if one.shape == (*other.shape, 1):
            hint = f": drop the last axis of {names[0]} ({names[0]}[..., 0])"
        elif other.shape == (*one.shape, 1):
            hint = f": drop the last axis of {names[1]} ({names[1]}[..., 0])"
        raise ValueError(
            f"{names[1]} must have the shape of {names[0]}, {one.shape}, got {other.shape}{hint}"
        )
    where = mask(where, one.shape)
    if where is not None:
        one, other = jnp.where(where, one, 0.0), jnp.where(where, other, 0.0)
    return one, other, where


def magnitude(x: Array) -> Array:
    """|x|, with the gradient 0 at 0, where that of `jnp.abs` is 1 or 0 by the version of JAX."""
    return jnp.maximum(x, -x)


def kept(losses: Array, where: Array | None) -> Array:
    """The losses, 0 where masked."""
    return losses if where is None else jnp.where(where, losses, 0.0)


def refuse(name: str, values: Any, bad: np.ndarray, wanted: str) -> None:
    """ValueError that names the first bad value and where it stands, if there is one."""
    if np.any(bad):
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name} must be {wanted}; the one at {at} is {np.asarray(values)[at]}")


def class_ids(
    name: str, labels: Any, where: Any, shape: tuple[int, ...], num_classes: int
) -> tuple[Array, Array]:
    """Integer labels of this shape as int32 ids that can be looked up, and which of them are out of range.

    Masked labels may hold anything. Known ones out of range are refused at once.
    """
    if np.shape(labels) != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {np.shape(labels)}")
    dtype = labels.dtype if hasattr(labels, "dtype") else np.asarray(labels).dtype
    if not np.size(labels) and not hasattr(labels, "dtype"):
        dtype = np.dtype(int)  # An empty list says nothing of its type.
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"{name} must be integers, got {dtype}")
    values, kept_values = known(labels), np.ones((), bool) if where is None else known(where)
    if values is not None and kept_values is not None:
        outside = ((values < 0) | (values >= num_classes)) & kept_values
        refuse(name, values, outside, f"in [0, {num_classes})")
    if values is not None:
        labels = np.clip(values, -1, num_classes).astype(np.int32)
    ids = jnp.asarray(labels)
    outside = (ids < 0) | (ids >= num_classes)
    if where is not None:
        outside &= jnp.asarray(where)
    return jnp.clip(ids, 0, num_classes - 1).astype(jnp.int32), outside
