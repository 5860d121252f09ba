"""Decorators that make a loss of its mathematics: they check shapes and labels, and apply the mask."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.losses import checks
from jaxml.types import Array

Loss = Callable[..., Array]


def _decorated(loss: Loss, compute: Callable[..., Array], **extra: Any) -> Loss:
    """The loss with further keyword arguments; `compute(outputs, targets, options, **extra)`."""
    only = inspect.Parameter.KEYWORD_ONLY
    own = inspect.signature(loss)
    more = [inspect.Parameter(name, only, default=default) for name, default in extra.items()]
    signature = own.replace(parameters=[*own.parameters.values(), *more])
    first, second = list(own.parameters)[:2]

    @functools.wraps(loss)
    def per_example(*args: Any, **kwargs: Any) -> Array:
        given = {**extra, **signature.bind(*args, **kwargs).arguments}
        outputs, targets = given.pop(first), given.pop(second)
        own_extra = {name: given.pop(name) for name in extra}
        return compute(outputs, targets, given, **own_extra)

    per_example.__signature__ = signature  # type: ignore[attr-defined]
    return per_example


def _pair(
    outputs: Any, targets: Any, where: Any, names: tuple[str, str]
) -> tuple[Array, Array, Array | None]:
    """Both as float32 of one shape, with zeros where masked."""
    one, other = checks.float32(names[0], outputs), checks.float32(names[1], targets)
    if one.shape != other.shape:
        hint = ""
        if one.shape == (*other.shape, 1):
            hint = f": drop the last axis of {names[0]} ({names[0]}[..., 0])"
        elif other.shape == (*one.shape, 1):
            hint = f": drop the last axis of {names[1]} ({names[1]}[..., 0])"
        raise ValueError(
            f"{names[1]} must have the shape of {names[0]}, {one.shape}, got {other.shape}{hint}"
        )
    where = checks.mask(where, one.shape)
    if where is not None:
        one, other = jnp.where(where, one, 0.0), jnp.where(where, other, 0.0)
    return one, other, where


def _kept(losses: Array, where: Array | None) -> Array:
    return losses if where is None else jnp.where(where, losses, 0.0)


def of_numbers(loss: Loss) -> Loss:
    """Decorates `loss(outputs, targets, …)` of two float32 arrays of one shape."""

    def compute(outputs: Any, targets: Any, options: dict[str, Any], where: Any) -> Array:
        outputs, targets, where = _pair(outputs, targets, where, ("outputs", "targets"))
        return _kept(loss(outputs, targets, **options), where)

    return _decorated(loss, compute, where=None)


def _of_answers(loss: Loss, convert: Callable[[Array], Array], check: Callable[..., None]) -> Loss:
    def compute(logits: Any, labels: Any, options: dict[str, Any], where: Any) -> Array:
        given = labels
        logits, labels, mask = _pair(logits, labels, where, ("logits", "labels"))
        if (values := checks.checkable(given, where)) is not None:
            check(values, where)
        return _kept(loss(logits, convert(labels), **options), mask)

    return _decorated(loss, compute, where=None)


def of_binary_labels(loss: Loss) -> Loss:
    """Decorates `loss(logits, labels, …)` of float32 arrays of one shape, labels in [0, 1] or NaN."""
    return _of_answers(loss, _probabilities, _refuse_probabilities)


def of_signs(loss: Loss) -> Loss:
    """Decorates `loss(logits, signs, …)` of float32 arrays of one shape, signs −1, 1 or NaN."""

    def signs(labels: Array) -> Array:
        return jnp.where(jnp.isnan(labels), labels, jnp.where(labels > 0, 1.0, -1.0))

    def check(values: np.ndarray, where: Any) -> None:
        numbers = np.asarray(values, np.float32)
        kept = numbers if where is None else numbers[np.asarray(where)]
        low = -1 if (kept == -1).any() else 0
        checks.refuse("labels", values, (numbers == low) | (numbers == 1), where, f"{low} or 1")

    return _of_answers(loss, signs, check)


def of_classes(
    loss: Loss | None = None,
    *,
    rows: Callable[[Any, int, Any], Array] | None = None,
    centred: bool = True,
) -> Any:
    """Decorates `loss(logits, labels, …)` of float32 logits [..., C] and int32 ids [...].

    Args:
        rows: `rows(labels, axis, where) -> [..., C]` checks labels of the logits' shape; None refuses them.
        centred: shift the logits of each example so that the largest is 0.
    """
    if loss is None:
        return functools.partial(of_classes, rows=rows, centred=centred)

    def compute(logits: Any, labels: Any, options: dict[str, Any], axis: int, where: Any) -> Array:
        given = np.shape(logits)
        logits = _classes_last(logits, axis)
        if centred:
            logits = _centred(logits)
        where = checks.mask(where, logits.shape[:-1])
        if where is not None:
            logits = jnp.where(where[..., None], logits, 0.0)
        if rows is not None and np.shape(labels) == given:
            return _kept(loss(logits, rows(labels, axis, where), **options), where)
        ids, outside = checks.class_ids(
            "labels", labels, where, logits.shape[:-1], logits.shape[-1]
        )
        return _kept(jnp.where(outside, jnp.nan, loss(logits, ids, **options)), where)

    return _decorated(loss, compute, axis=-1, where=None)


def _classes_last(logits: Any, axis: int) -> Array:
    logits = checks.float32("logits", logits)
    if not -logits.ndim <= axis < logits.ndim:
        raise ValueError(f"axis must be one of logits' {logits.ndim} axes, got {axis}")
    if not logits.shape[axis]:
        raise ValueError(f"logits must have at least one class along axis {axis}, got none")
    return jnp.moveaxis(logits, axis, -1)


def _centred(logits: Array) -> Array:
    """Logits less their maximum. Beside +inf, which is certainty, the others are −inf."""
    certain = jnp.isposinf(logits)
    logits = jnp.where(
        certain.any(-1, keepdims=True) & ~jnp.isnan(logits).any(-1, keepdims=True),
        jnp.where(certain, 0.0, -jnp.inf),
        logits,
    )
    return logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))


def distributions(labels: Any, axis: int, where: Array | None) -> Array:
    """Returns distributions over classes with the classes last, zeros where masked."""
    values = checks.checkable(labels, where)
    if values is not None:
        rows = np.moveaxis(np.asarray(values, np.float32), axis, -1)
        # A teacher's float16 probabilities may miss a sum of 1 by a little; several ones miss it by 1.
        good = (rows >= 0).all(-1) & (np.abs(rows.sum(-1) - 1) < 0.05)
        wanted = "distributions, at least 0 with sum 1 (of several classes at once, use one_vs_all)"
        checks.refuse("labels", rows, good, where, wanted)
    labels = jnp.moveaxis(checks.float32("labels", labels), axis, -1)
    return labels if where is None else jnp.where(where[..., None], labels, 0.0)


def probabilities(labels: Any, axis: int, where: Array | None) -> Array:
    """Returns a probability for each class with the classes last, zeros where masked."""
    labels, every = jnp.moveaxis(checks.float32("labels", labels), axis, -1), None
    if where is not None:
        every = jnp.broadcast_to(where[..., None], labels.shape)
        labels = jnp.where(every, labels, 0.0)
    values = checks.checkable(labels, every)
    if values is not None:
        _refuse_probabilities(values, every)
    return _probabilities(labels)


def _refuse_probabilities(values: np.ndarray, where: Any) -> None:
    numbers = np.asarray(values, np.float32)
    checks.refuse("labels", values, (numbers >= 0) & (numbers <= 1), where, "in [0, 1]")


def _probabilities(labels: Array) -> Array:
    return jnp.where((labels >= 0) & (labels <= 1), labels, jnp.nan)
