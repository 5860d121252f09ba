"""Examples that count more, less, or not at all: sample weights, class weights, masks, and their mean."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxml.losses import checks
from jaxml.types import Array

__all__ = ["balanced_class_weights", "example_weights", "mean", "weighted"]


def _times(weights: Array, losses: Array) -> Array:
    """The product, where a weight of 0 outweighs a loss that is not finite."""
    nothing = (weights == 0) & ~jnp.isfinite(losses)
    return weights * jnp.where(nothing, 0.0, losses)


def mean(losses, weights=None, mask=None) -> Array:
    """Weighted mean of the losses that are not masked.

        mean = Σ w · loss / Σ w,   both sums over what is not masked

    Args:
        losses: [...], any float.
        weights: None for 1 each, or at least 0: of the losses' shape, or of as many axes with some of
            length 1. A weight of 3 counts as three copies of the example.
        mask: None, or bool in such a shape; False leaves out the example.

    Returns:
        float32 scalar; 0, with gradient 0, if there is nothing to take the mean of: no losses, all masked,
        all weights 0.

    Raises:
        ValueError: for shapes that do not fit, or weights that are negative or not finite (when they are
            known).

    Numerics: NaN or infinity in a masked loss, or in one of weight 0, does not come through, nor into the
    gradient by the losses. If it is the *loss function* that has no derivative there (0 · NaN is NaN), mask
    it there: every loss of this room takes the same mask as `where`.

    >>> import jax.numpy as jnp
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
        values, known = checks.known(weights), checks.known(kept)
        if values is not None and known is not None:
            numbers = np.asarray(values, np.float32)
            fits = np.isfinite(numbers) & (numbers >= 0)
            fits = np.broadcast_to(fits, losses.shape) | ~known
            checks.refuse("weights", np.broadcast_to(numbers, losses.shape), ~fits, "at least 0")
    w = jnp.where(kept, w, 0.0)
    total = w.sum()
    return _times(w, losses).sum() / jnp.where(total > 0, total, 1.0)


def _spread(name: str, values: Any, shape: tuple[int, ...]) -> Array:
    given = np.shape(values)
    # Of another rank, [N] beside [N, 1] would spread over N² pairs.
    if len(given) != len(shape) or any(a not in (1, b) for a, b in zip(given, shape, strict=True)):
        raise ValueError(
            f"{name} must have the losses' shape {shape}, or 1 in some axes; got {given}"
        )
    return jnp.broadcast_to(jnp.asarray(values), shape)


def _class_weights(class_weights: Any) -> Array:
    values = checks.known(class_weights)
    weights = checks.float32("class_weights", class_weights)
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"class_weights must be of shape [C], C ≥ 1, got {weights.shape}")
    if values is not None:
        numbers = np.asarray(values, np.float32)
        checks.refuse(
            "class_weights", values, ~(np.isfinite(numbers) & (numbers >= 0)), "at least 0"
        )
    return weights


def example_weights(labels, class_weights) -> Array:
    """The weight of each example, by its class.

    Args:
        labels: integers in [0, C) or bools, [...]; or floats [..., C], the share of each class: the
            weight is then Σ_c q_c w_c.
        class_weights: [C], at least 0, may be traced.

    Returns:
        float32 [...], for `mean`. A label out of range that is only known inside `jit` gives NaN.

    Raises:
        ValueError: for shapes that do not fit, a label out of range or a negative weight (when known).

    >>> import jax.numpy as jnp
    >>> example_weights(jnp.array([1, 0, 1]), jnp.array([1.0, 5.0]))
    Array([5., 1., 5.], dtype=float32)
    """
    weights = _class_weights(class_weights)
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        shares = checks.float32("labels", labels)
        if shares.shape[-1:] != weights.shape:
            raise ValueError(
                f"labels must be integers, or floats of shape [..., {weights.size}]; "
                f"got {labels.dtype} of {shares.shape}"
            )
        return (shares * weights.reshape((1,) * (shares.ndim - 1) + (-1,))).sum(-1)
    if labels.dtype == bool:
        labels = labels.astype(np.int32)
    ids, outside = checks.class_ids("labels", labels, None, np.shape(labels), weights.size)
    return jnp.where(outside, jnp.nan, weights[ids])


def weighted(loss: Callable[..., Array], class_weights) -> Callable[..., Array]:
    """A loss of each example, times the weight of the example's class: fits wherever a loss does.

        weighted loss = w_y · loss

    The mean over a batch is then Σ w loss / N. To divide by Σ w instead, give `mean` the
    `example_weights`; with `balanced_class_weights` both agree on the whole training data.

    Args:
        loss: `loss(outputs, labels, **options) -> [...]`.
        class_weights: [C], at least 0, may be traced. Two for the binary losses: of 0 and of 1.

    Returns:
        `weighted_loss(outputs, labels, **options) -> float32 [...]`. Labels as in `example_weights`; those
        of the binary losses may be floats in [0, 1].

    Raises:
        ValueError: for weights that do not fit; the function, for labels that do not.

    >>> import jax.numpy as jnp
    >>> from jaxml import losses
    >>> rare_counts = weighted(losses.log_loss, [1.0, 10.0])
    >>> rare_counts(jnp.zeros(2), jnp.array([0, 1]))
    Array([0.6931472, 6.931472 ], dtype=float32)
    """
    weights = _class_weights(class_weights)

    def weighted_loss(outputs: Any, labels: Any, **options: Any) -> Array:
        losses = loss(outputs, labels, **options)
        labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
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
    """Class weights that let every class count the same, however rare.

        w_c = N / (C · N_c)

    Args:
        labels: integers in [0, C), any shape: those of the training data.
        num_classes: C.

    Returns:
        NumPy float32 [C], of mean 1 over the labels if no class is absent; an absent class has 0. The same
        as scikit-learn's "balanced".

    Raises:
        ValueError: for labels that are no integers or out of range, or none at all.

    >>> balanced_class_weights([0, 0, 0, 1], 2).round(3)
    array([0.667, 2.   ], dtype=float32)
    """
    values = np.asarray(labels)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if values.dtype == bool:
        values = values.astype(np.int32)
    if not values.size or values.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, at least one; got {values.size} {values.dtype}")
    checks.refuse(
        "labels", values, (values < 0) | (values >= num_classes), f"in [0, {num_classes})"
    )
    counts = np.bincount(values.ravel().astype(np.int64), minlength=num_classes)
    balanced = values.size / (num_classes * np.maximum(counts, 1))
    return np.where(counts > 0, balanced, 0.0).astype(np.float32)
