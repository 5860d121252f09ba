"""Arguments of samplers and losses, checked where they enter: sizes, ids, labels."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.types import Array

MAX_CLASSES = 2**31 - 2
"""Ids are int32 and `num_classes` itself marks an empty slot; 2³¹ - 1 stays free as a sentinel."""


def integer(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int, or ValueError that names it unless it is a static integer in [low, high]."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} must be a static integer, is {value!r}") from error
    if not low <= number <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], is {number}")
    return number


def positive(name: str, value: Any) -> int:
    """The value as an int, or ValueError that names it unless it is a static integer of at least 1."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} must be an int, got {value!r}") from error
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def int32(name: str, values: Any, num_classes: int) -> Array:
    """The values as int32; those out of `[0, num_classes)` stay out of it."""
    if not isinstance(values, jax.Array):
        values = np.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(f"{name} must be integers, have dtype {values.dtype}")
    if isinstance(values, np.ndarray):
        values = np.clip(values.astype(np.int64), -1, num_classes)
    return jnp.asarray(values, jnp.int32)


def known_labels(labels: Any, where: Any, num_classes: int) -> Array:
    """The labels as int32, checked as far as their values are known."""
    if where is not None and np.shape(where) != np.shape(labels):
        raise ValueError(
            f"where must have the shape of labels, {list(np.shape(labels))}, "
            f"has {list(np.shape(where))}"
        )
    checked = int32("labels", labels, num_classes)
    if not isinstance(labels, jax.core.Tracer) and not isinstance(where, jax.core.Tracer):
        values = np.asarray(labels)
        bad = (values < 0) | (values >= num_classes)
        if where is not None:
            bad &= np.asarray(where, bool)
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"labels must be in [0, {num_classes}); the one at {place} is {values[place]}"
            )
    return checked
