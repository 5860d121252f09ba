"""Weights of examples by their class."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.checks import integer
from jaxml.losses import checks
from jaxml.types import Array

__all__ = ["balanced_class_weights", "weighted"]


def weighted(loss: Callable[..., Array], class_weights) -> Callable[..., Array]:
    """Returns a loss that is multiplied by the weight of the example's class.

    The mean over a batch is then Σ w loss / N.

    Args:
        loss: `loss(outputs, labels, **options) -> [...]`.
        class_weights: [C], at least 0, may be traced. For binary losses [2], the weights of 0 and of 1;
            labels in between have weights in between.

    >>> from jaxml import losses
    >>> rare_counts = weighted(losses.sigmoid_binary_cross_entropy, [1.0, 10.0])
    >>> rare_counts(jnp.zeros(2), jnp.array([0, 1]))
    Array([0.6931472, 6.931472 ], dtype=float32)
    """
    weights = checks.float32("class_weights", class_weights)
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"class_weights must be of shape [C], C ≥ 1, got {weights.shape}")
    if (values := checks.known(weights)) is not None:
        good = np.isfinite(values) & (values >= 0)
        checks.refuse("class_weights", values, good, None, "at least 0")

    def of_examples(labels: Any, where: Any, shape: tuple[int, ...]) -> Array:
        if np.shape(labels) == (*shape, weights.size):
            shares = checks.float32("labels", labels)
            return (shares * weights.reshape((1,) * len(shape) + (-1,))).sum(-1)
        labels = labels if isinstance(labels, jax.Array) else np.asarray(labels)
        if jnp.issubdtype(labels.dtype, jnp.floating):
            if weights.size != 2 or labels.shape != shape:
                raise ValueError(
                    f"labels must be integers of shape {shape}, or shares {(*shape, weights.size)}; "
                    f"got {labels.dtype} of {labels.shape}"
                )
            ones = jnp.asarray(labels, jnp.float32)
            return (1 - ones) * weights[0] + ones * weights[1]
        labels = labels.astype(np.int32) if labels.dtype == bool else labels
        ids, outside = checks.class_ids(labels, where, shape, weights.size)
        return jnp.where(outside, jnp.nan, weights[ids])

    def weighted_loss(outputs: Any, labels: Any, **options: Any) -> Array:
        losses = loss(outputs, labels, **options)
        where: Any = options.get("where")
        where = where if where is None or isinstance(where, jax.Array) else np.asarray(where)
        w = checks.kept(of_examples(labels, where, losses.shape), where)
        # A weight of 0 is 0, even if the loss is not finite.
        return w * jnp.where((w == 0) & ~jnp.isfinite(losses), 0.0, losses)

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
    values = np.asarray(labels)
    values = values.astype(np.int64) if values.dtype == bool else values
    if not values.size or values.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, at least one; got {values.size} {values.dtype}")
    good = (values >= 0) & (values < num_classes)
    checks.refuse("labels", values, good, None, f"in [0, {num_classes})")
    counts = np.bincount(values.ravel().astype(np.int64), minlength=num_classes)
    balanced = values.size / (num_classes * np.maximum(counts, 1))
    return np.where(counts > 0, balanced, 0.0).astype(np.float32)
