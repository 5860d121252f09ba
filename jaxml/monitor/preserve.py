"""A penalty on recurrent models whose gradient fades, or grows, on its way back through time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxml.models.taps import listen
from jaxml.types import Array, Key, PyTree

__all__ = ["preserving_penalty"]

# Entries below are noise: no direction is left to preserve.
_LOST = 1e-30


def _flat(carry: PyTree) -> Array:
    """Returns a tree of [T, B, …] as one float32 array [T, B, D], without the first step."""
    leaves = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(carry)]
    return jnp.concatenate(leaves, axis=-1).astype(jnp.float32)[1:]


def preserving_penalty(module: Any, loss: Callable[[Any, Array], Array]) -> Callable[..., Array]:
    """Returns a penalty on how much a step back in time changes the norm of the gradient.

    For every step t, example and recurrent cell

        Ω = (‖∂E/∂h_{t+1} · ∂h_{t+1}/∂h_t‖ / ‖∂E/∂h_{t+1}‖ − 1)²

    is averaged (Pascanu, Mikolov and Bengio, 2013, equation 9): of the directions in which the state may
    move, only the one that the error comes from has to be kept. Where a gradient has vanished altogether
    (no entry above 1e-30) there is nothing to keep, and the steps after it come first. It is
    differentiated as it stands, second derivatives included, so a step costs about three times as much.

    Args:
        module: a Linen module with cells within `nn.RNN`, or applied step by step.
        loss: `loss(outputs, labels) -> ` loss of each example.

    Returns:
        `penalty(variables, x, y, *, key=None) -> float32 scalar`; 0 where the module has no cells.

    Example:
        >>> import flax.linen as nn
        >>> class Last(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         return nn.RNN(nn.SimpleCell(4))(x)[:, -1]
        >>> x, y = jnp.ones((2, 5, 3)), jnp.zeros((2, 4))
        >>> penalty = preserving_penalty(Last(), lambda o, y: jnp.square(o - y).sum(-1))
        >>> 0 < float(penalty(Last().init(jax.random.key(0), x), x, y)) < 1
        True
    """
    listener = listen(module)

    def penalty(variables: PyTree, x: PyTree, y: Array, *, key: Key | None = None) -> Array:
        def of_taps(taps: PyTree) -> Array:
            outputs, _, _ = listener.apply(variables, taps, x, key=key, training=True)
            return jnp.sum(loss(outputs, y).astype(jnp.float32))

        deltas = jax.grad(of_taps)(listener.taps(variables, x))
        total, number = jnp.zeros((), jnp.float32), 0
        for delta in deltas.values():
            if not isinstance(delta, dict):
                continue
            # What enters step t + 1 against what left it; the first step's carry is a constant.
            back, here = _flat(delta["entering"]), _flat(delta["leaving"])
            largest = jax.lax.stop_gradient(jnp.max(jnp.abs(here), axis=-1, keepdims=True))
            known = largest > _LOST
            # To the scale of 1, so that neither a square nor its reciprocal is lost.
            scale = jnp.where(known, 1 / jnp.where(known, largest, 1.0), 0.0)
            back, here = (jnp.sum(jnp.square(scale * each), axis=-1) for each in (back, here))
            known = known[..., 0]
            ratio = jnp.sqrt(back / jnp.where(known, here, 1.0) + 1e-12)
            away = jnp.where(known, jnp.square(ratio - 1), 0.0)
            total, number = total + away.sum() / jnp.maximum(known.sum(), 1), number + 1
        return total / max(number, 1)

    return penalty
