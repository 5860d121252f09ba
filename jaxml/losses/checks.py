"""Checks of the arguments of losses. What is traced is checked by its shape and dtype only."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks
from jaxml.ids import as_int32
from jaxml.types import Array


def known(values: Any, where: Any = None) -> np.ndarray | None:
    """Returns the values, or None if they or their mask are traced."""
    traced = any(isinstance(part, jax.core.Tracer) for part in (values, where))
    return None if traced else np.asarray(values)


def float32(name: str, value: Any) -> Array:
    """Returns real numbers as float32."""
    value = value if isinstance(value, jax.Array) else np.asarray(value)  # A series, too.
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
        raise ValueError(f"{name} must be real numbers, got {value.dtype}")
    return jnp.asarray(value, jnp.float32)


def scalar(name: str, value: Any, *bounds: float, **ends: float) -> Array:
    """Returns a hyperparameter as a float32 scalar; the range is given as to `jaxml.checks.number`."""
    if np.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {np.shape(value)}")
    if not isinstance(value, jax.core.Tracer):
        value = checks.number(name, value, *bounds, **ends)
    return float32(name, value)


def refuse(name: str, values: Any, good: Any, where: Any, wanted: str) -> None:
    """Raises a ValueError with the place of the first unmasked value that is not good."""
    bad = ~np.asarray(good) & (True if where is None else np.asarray(where))
    if np.any(bad):
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name} must be {wanted}; the one at {at} is {np.asarray(values)[at]}")


def mask(where: Any, shape: tuple[int, ...]) -> Array | None:
    """Returns a mask of exactly this shape, or None."""
    if where is None:
        return None
    where = where if isinstance(where, jax.Array) else jnp.asarray(np.asarray(where))
    if where.dtype != bool or where.shape != shape:
        raise ValueError(
            f"where must be bool of the losses' shape {shape}, got {where.dtype} of {where.shape}"
        )
    return where


def kept(losses: Array, where: Array | None, outside: Array | None = None) -> Array:
    """Returns the losses, 0 where masked and NaN where a label is out of range."""
    if outside is not None:
        losses = jnp.where(outside, jnp.nan, losses)
    return losses if where is None else jnp.where(where, losses, 0.0)


def numbers(
    outputs: Any, targets: Any, where: Any, names: tuple[str, str] = ("outputs", "targets")
) -> tuple[Array, Array, Array | None]:
    """Returns outputs and targets as float32 of one shape, 0 where masked, and the mask."""
    one, other = float32(names[0], outputs), float32(names[1], targets)
    if one.shape != other.shape:
        hint = ""
        for name, wide, flat in ((names[0], one, other), (names[1], other, one)):
            if wide.shape == (*flat.shape, 1):
                hint = f": drop the last axis of {name} ({name}[..., 0])"
        raise ValueError(
            f"{names[1]} must have the shape of {names[0]}, {one.shape}, got {other.shape}{hint}"
        )
    where = mask(where, one.shape)
    return kept(one, where), kept(other, where), where


def binary(logits: Any, labels: Any, where: Any) -> tuple[Array, Array, Array | None]:
    """Returns logits and labels in [0, 1] as `numbers` does; traced labels out of range are NaN."""
    logits, numeric, kept_where = numbers(logits, labels, where, ("logits", "labels"))
    return logits, _in_unit_interval(labels, numeric, where), kept_where


def class_logits(name: str, logits: Any, where: Any) -> tuple[Array, Array | None]:
    """Returns numbers [..., C], C ≥ 1, as float32, 0 where masked, and the mask [...]."""
    logits = float32(name, logits)
    if not logits.ndim or not logits.shape[-1]:
        raise ValueError(f"{name} must have an axis of at least one class, got {logits.shape}")
    where = mask(where, logits.shape[:-1])
    return (logits if where is None else jnp.where(where[..., None], logits, 0.0)), where


def classes(
    logits: Any, labels: Any, where: Any, rows: Callable[[Any, Array | None], Array]
) -> tuple[Array, Array, Array | None, Array | None]:
    """Checks logits [..., C] and their labels.

    Args:
        rows: `rows(labels, where) -> [..., C]` checks labels of the logits' shape.

    Returns:
        Logits as float32, 0 where masked; int32 ids [...] in [0, C), or float32 rows [..., C]; the mask;
        and which ids are traced and out of range, or None.
    """
    logits, where = class_logits("logits", logits, where)
    if np.shape(labels) == logits.shape:
        return logits, rows(labels, where), where, None
    ids, outside = class_ids(labels, where, logits.shape[:-1], logits.shape[-1])
    return logits, ids, where, outside


def class_ids(
    labels: Any, where: Any, shape: tuple[int, ...], num_classes: int
) -> tuple[Array, Array]:
    """Returns integer labels as int32 ids clipped to their range, and which of them are out of it.

    Known labels out of range are refused, unless they are masked.
    """
    if np.shape(labels) != shape:
        raise ValueError(f"labels must be of shape {shape}, got {np.shape(labels)}")
    ids = as_int32("labels", labels, num_classes)
    if (values := known(labels, where)) is not None:
        good = (values >= 0) & (values < num_classes)
        refuse("labels", values, good, where, f"in [0, {num_classes})")
    outside = (ids < 0) | (ids >= num_classes)
    if where is not None:
        outside &= jnp.asarray(where)
    return jnp.clip(ids, 0, num_classes - 1), outside


def distributions(labels: Any, where: Array | None) -> Array:
    """Returns distributions over classes, zeros where masked."""
    if (values := known(labels, where)) is not None:
        given = np.asarray(values, np.float32)
        # A teacher's float16 probabilities may miss a sum of 1 by a little; several ones miss it by 1.
        good = (given >= 0).all(-1) & (np.abs(given.sum(-1) - 1) < 0.05)
        wanted = "distributions, at least 0 with sum 1 (of several classes at once, use one_vs_all)"
        refuse("labels", given, good, where, wanted)
    labels = float32("labels", labels)
    return labels if where is None else jnp.where(where[..., None], labels, 0.0)


def probabilities(labels: Any, where: Array | None) -> Array:
    """Returns a probability for each class, zeros where masked."""
    every = None if where is None else jnp.broadcast_to(where[..., None], np.shape(labels))
    return _in_unit_interval(labels, kept(float32("labels", labels), every), every)


def _in_unit_interval(given: Any, labels: Array, where: Any) -> Array:
    """The labels, NaN where they are traced and out of [0, 1]; known ones are refused as given."""
    if (values := known(given, where)) is not None:
        numeric = np.asarray(values, np.float32)
        refuse("labels", values, (numeric >= 0) & (numeric <= 1), where, "in [0, 1]")
    return jnp.where((labels >= 0) & (labels <= 1), labels, jnp.nan)
