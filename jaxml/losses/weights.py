"""Weights of examples and classes, masks, and the weighted mean."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxml.checks import integer
from jaxml.losses import checks
from jaxml.types import Array

__all__ = ["balanced_class_weights", "example_weights", "mean", "weighted"]


def _times(weights: Array, losses: Array) -> Array:
    """The product; 0 where the weight is 0, even if the loss is not finite."""
    nothing = (weights == 0) & ~jnp.isfinite(losses)
    return weights * jnp.where(nothing, 0.0, losses)


def _not_negative(name: str, values: Any, where: Any) -> None:
    if values is not None:
        numbers = np.asarray(values, np.float32)
        checks.refuse(name, numbers, np.isfinite(numbers) & (numbers >= 0), where, "at least 0")


def mean(losses, weights=None, mask=None) -> Array:
    """Weighted mean Σ w · loss / Σ w of the losses that are not masked.

    Args:
        losses: [...], any float.
        weights: None for 1 each, or at least 0: of the losses' shape, or with length 1 in some axes.
        mask: None, or bool in such a shape; False leaves out the example.

    Returns:
        A float32 scalar: 0, with gradient 0, if all examples are masked or have weight 0.

    NaN or infinity in a loss that is masked or has weight 0 does not reach the result, nor the gradient by
    the losses. The loss function itself may still have no derivative there (0 · NaN is NaN): pass it the
    mask as `where`.

    >>> losses, mask = jnp.array([1.0, 4.0, jnp.nan]), jnp.array([True, True, False])
    >>> print(mean(losses, jnp.array([2.0, 1.0, 1.0]), mask), mean(losses, mask=jnp.zeros(3, bool)))
    2.0 0.0
    """
    losses = checks.float32("losses", losses)
    kept = jnp.ones(losses.shape, bool)
    if mask is not None:
        if not jnp.issubdtype(jnp.result_type(mask), jnp.bool_):
            raise ValueError(f"mask must be bool, got {jnp.result_type(mask)}")
        kept = _spread("mask", mask, losses.shape)
    w = jnp.ones(losses.shape, jnp.float32)
    if weights is not None:
        w = _spread("weights", checks.float32("weights", weights), losses.shape)
        if checks.checkable(weights, kept) is not None:
            _not_negative("weights", checks.known(w), kept)
    w = jnp.where(kept, w, 0.0)
    total = w.sum()
    return _times(w, losses).sum() / jnp.where(total > 0, total, 1.0)


def _spread(name: str, values: Any, shape: tuple[int, ...]) -> Array:
    given = np.shape(values)
    # Of another rank, [N] beside [N, 1] would broadcast to N² pairs.
    if len(given) != len(shape) or any(a not in (1, b) for a, b in zip(given, shape, strict=True)):
        raise ValueError(
            f"{name} must have the losses' shape {shape}, or 1 in some axes; got {given}"
        )
    return jnp.broadcast_to(jnp.asarray(values), shape)


def _class_weights(class_weights: Any) -> Array:
    weights = checks.float32("class_weights", class_weights)
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"class_weights must be of shape [C], C ≥ 1, got {weights.shape}")
    _not_negative("class_weights", checks.known(class_weights), None)
    return weights


def _array(labels: Any) -> Any:
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    return labels.astype(np.int32) if labels.dtype == bool else labels


def example_weights(labels, class_weights) -> Array:
    """Returns the weight [...] of each example by its class, for `mean`.

    Args:
        labels: ids in [0, C) or bools, [...]; or floats [..., C], the share of each class, for Σ_c q_c w_c.
        class_weights: [C], at least 0, may be traced.

    >>> example_weights(jnp.array([1, 0, 1]), jnp.array([1.0, 5.0]))
    Array([5., 1., 5.], dtype=float32)
    """
    weights, labels = _class_weights(class_weights), _array(labels)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        shares = checks.float32("labels", labels)
        if shares.shape[-1:] != weights.shape:
            raise ValueError(
                f"labels must be integers, or floats of shape [..., {weights.size}]; "
                f"got {labels.dtype} of {shares.shape}"
            )
        return (shares * weights.reshape((1,) * (shares.ndim - 1) + (-1,))).sum(-1)
    ids, outside = checks.class_ids("labels", labels, None, np.shape(labels), weights.size)
    return jnp.where(outside, jnp.nan, weights[ids])


def weighted(loss: Callable[..., Array], class_weights) -> Callable[..., Array]:
    """Returns a loss that is multiplied by the weight of the example's class.

    The mean over a batch is then Σ w loss / N. To divide by Σ w, pass `example_weights` to `mean` instead;
    with `balanced_class_weights` both agree over the whole training data.

    Args:
        loss: `loss(outputs, labels, **options) -> [...]`.
        class_weights: [C], at least 0, may be traced. For binary losses [2], the weights of 0 and of 1;
            labels in between have weights in between.

    >>> from jaxml import losses
    >>> rare_counts = weighted(losses.sigmoid_binary_cross_entropy, [1.0, 10.0])
    >>> rare_counts(jnp.zeros(2), jnp.array([0, 1]))
    Array([0.6931472, 6.931472 ], dtype=float32)
    """
    weights = _class_weights(class_weights)

    def weighted_loss(outputs: Any, labels: Any, **options: Any) -> Array:
        losses = loss(outputs, labels, **options)
        labels = _array(labels)
        if labels.shape == (*losses.shape, weights.size):
            labels = jnp.asarray(labels, jnp.float32)
        elif labels.shape == losses.shape and jnp.issubdtype(labels.dtype, jnp.floating):
            if weights.size != 2:
                raise ValueError(
                    f"labels must be integers where there are {weights.size} class_weights, "
                    f"got {labels.dtype}"
                )
            ones = jnp.asarray(labels, jnp.float32)
            labels = jnp.stack([1 - ones, ones], axis=-1)
        elif labels.shape != losses.shape:
            raise ValueError(
                f"labels must be of shape {losses.shape} or {(*losses.shape, weights.size)}, "
                f"got {labels.shape}"
            )
        where = options.get("where")
        if where is not None:  # A masked label may be anything.
            shape = (*losses.shape, *((1,) * (labels.ndim - losses.ndim)))
            labels = jnp.where(jnp.reshape(jnp.asarray(where), shape), labels, 0)
        return _times(example_weights(labels, weights), losses)

    return weighted_loss


def balanced_class_weights(labels, num_classes: int) -> np.ndarray:
    """Returns class weights w_c = N / (C · N_c), with which all classes count the same.

    They are scikit-learn's "balanced" weights, float32 [C]. A class without examples has weight 0.

    Args:
        labels: ids in [0, C) of the training data, any shape.
        num_classes: C.

    >>> balanced_class_weights([0, 0, 0, 1], 2).round(3)
    array([0.667, 2.   ], dtype=float32)
    """
    num_classes = integer("num_classes", num_classes, at_least=1)
    values = _array(labels)
    if not values.size or values.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, at least one; got {values.size} {values.dtype}")
    values = np.asarray(values)
    good = (values >= 0) & (values < num_classes)
    checks.refuse("labels", values, good, None, f"in [0, {num_classes})")
    counts = np.bincount(values.ravel().astype(np.int64), minlength=num_classes)
    balanced = values.size / (num_classes * np.maximum(counts, 1))
    return np.where(counts > 0, balanced, 0.0).astype(np.float32)
