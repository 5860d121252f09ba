"""Checks of the arguments of losses. What is traced is checked by its shape and dtype only."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks
from jaxml.types import Array


def known(value: Any) -> np.ndarray | None:
    """Returns the value, or None if it is traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def float32(name: str, value: Any) -> Array:
    """Returns real numbers as float32."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise ValueError(f"{name} must be real numbers, got {dtype}")
    return jnp.asarray(value, jnp.float32)


def scalar(name: str, value: Any, *bounds: float, **ends: float) -> Array:
    """Returns a hyperparameter as a float32 scalar; the range is given as to `jaxml.checks.number`."""
    if np.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {np.shape(value)}")
    if not isinstance(value, jax.core.Tracer):
        value = checks.number(name, value, *bounds, **ends)
    return float32(name, value)


def mask(where: Any, shape: tuple[int, ...]) -> Array | None:
    """Returns a mask of exactly this shape, or None."""
    if where is None:
        return None
    where = jnp.asarray(where)
    if where.dtype != bool or where.shape != shape:
        raise ValueError(
            f"where must be bool of the losses' shape {shape}, got {where.dtype} of {where.shape}"
        )
    return where


def refuse(name: str, values: Any, good: Any, where: Any, wanted: str) -> None:
    """Raises a ValueError with the place of the first unmasked value that is not good."""
    bad = ~np.asarray(good) & (True if where is None else np.asarray(where))
    if np.any(bad):
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name} must be {wanted}; the one at {at} is {np.asarray(values)[at]}")


def checkable(values: Any, where: Any) -> np.ndarray | None:
    """Returns the values if they and the mask are known, else None."""
    return None if where is not None and known(where) is None else known(values)


def class_ids(
    name: str, labels: Any, where: Any, shape: tuple[int, ...], num_classes: int
) -> tuple[Array, Array]:
    """Returns integer labels as int32 ids clipped to their range, and which of them are out of it.

    Known labels out of range are refused, unless they are masked.
    """
    if np.shape(labels) != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {np.shape(labels)}")
    dtype = labels.dtype if hasattr(labels, "dtype") else np.asarray(labels).dtype
    if not np.size(labels) and not hasattr(labels, "dtype"):
        dtype = np.dtype(int)  # An empty list has no integers to show its type.
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"{name} must be integers, got {dtype}")
    values = checkable(labels, where)
    if values is not None:
        good = (values >= 0) & (values < num_classes)
        refuse(name, values, good, where, f"in [0, {num_classes})")
    if known(labels) is not None:
        labels = np.clip(known(labels).astype(np.int64), -1, num_classes)  # type: ignore[union-attr]
    ids = jnp.asarray(labels)
    if ids.dtype.itemsize < 4:  # 8 bits do not hold 256 classes
        ids = ids.astype(jnp.int32)
    outside = (ids < 0) | (ids >= num_classes)
    if where is not None:
        outside &= jnp.asarray(where)
    return jnp.clip(ids, 0, num_classes - 1).astype(jnp.int32), outside
