"""Penalties on parameters, and a proximal step that makes parameters exactly 0.

All take a strength of at least 0, which may be traced, and a mask that selects the parameters: None for
all, or a function `(path, leaf) -> bool` with the path as text, `"hidden_0/kernel"`. A mask that selects
nothing is an error, since it is nearly always a misspelt name. Leaves that are no floats are not selected.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxml.losses import checks
from jaxml.losses.regression import magnitude
from jaxml.types import Array, PyTree

__all__ = ["kernels_only", "l1", "l2", "proximal_l1"]

Mask = Callable[[str, Any], bool] | None


def kernels_only(path: str, leaf: Any) -> bool:
    """A mask that selects the weights of Flax's layers, not biases or scales.

    >>> kernels_only("hidden_0/kernel", None), kernels_only("hidden_0/bias", None)
    (True, False)
    """
    return path.split("/")[-1] == "kernel"


def _selected(params: PyTree, mask: Mask) -> PyTree:
    """A pytree of bools like the parameters."""
    named = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    selected = [
        jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
        and (mask is None or bool(mask(name, leaf)))
        for name, leaf in named
    ]
    if mask is not None and not any(selected):
        names = [name for name, _ in named]
        raise ValueError(f"mask must match a parameter of floats, matches none of {names}")
    return jax.tree.unflatten(jax.tree.structure(params), selected)


def _penalty(params: PyTree, strength: Any, mask: Mask, of: Callable[[Array], Array]) -> Array:
    """`strength` times the sum of `of(leaf)` over the selected parameters."""
    strength = checks.scalar("strength", strength, 0)
    leaves, selected = jax.tree.leaves(params), jax.tree.leaves(_selected(params, mask))
    parts = [
        of(jnp.asarray(leaf, jnp.float32)).sum()
        for leaf, yes in zip(leaves, selected, strict=True)
        if yes
    ]
    return strength * (jnp.sum(jnp.stack(parts)) if parts else jnp.zeros((), jnp.float32))


def l1(params, strength=1.0, mask: Mask = None) -> Array:
    """L1 penalty (lasso): strength · Σ |w|, with gradient 0 at 0.

    Under gradient steps weights become small, not zero, since a step crosses 0 and comes back: for exact
    zeros use `proximal_l1` *instead*.

    >>> print(l1({"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(1)}, 0.5, kernels_only))
    1.5

    References:
        Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """
    return _penalty(params, strength, mask, magnitude)


def l2(params, strength=1.0, mask: Mask = None) -> Array:
    """L2 penalty (ridge): strength · Σ w², without a half.

    With SGD at learning rate η it is a weight decay of 2 · strength · η a step; with adaptive optimizers it
    is not (Loshchilov & Hutter 2019): use `optax.adamw`.

    >>> print(l2({"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(1)}, 0.5, kernels_only))
    2.5
    """
    return _penalty(params, strength, mask, jnp.square)


class ProximalState(NamedTuple):
    """State of a proximal step: the number of steps, int32, for schedules."""

    step: Array


def proximal_l1(learning_rate, strength, mask: Mask = None) -> optax.GradientTransformation:
    """The L1 penalty as a proximal step, under which weights become exactly 0.

        w ← sign(v) max(|v| − learning_rate · strength, 0),   v = w + update

    Put it last in a chain: `chain(sgd(0.1), proximal_l1(0.1, strength))` is ISTA, and minimises
    loss + strength · Σ |w|; scikit-learn's `Lasso(alpha)` for the mean of `squared` and strength = 2 alpha.
    With momentum or Adam before it weights become zero as well, but not those of the minimiser. Clipping or
    rejecting the update *after* it undoes the zeros of that step.

    Args:
        learning_rate: that of the step before it: at least 0, or a schedule.
        strength: at least 0, or a schedule.
        mask: leave the intercept out.

    >>> import optax
    >>> shrink, params = proximal_l1(0.1, 1.0), {"w": jnp.array([0.05, 1.0])}
    >>> updates, _ = shrink.update({"w": jnp.zeros(2)}, shrink.init(params), params)
    >>> optax.apply_updates(params, updates)
    {'w': Array([0. , 0.9], dtype=float32)}

    References:
        Daubechies, Defrise & De Mol 2004, "An iterative thresholding algorithm"; Parikh & Boyd 2014,
        "Proximal algorithms", sections 4.2 and 6.5.2.
    """
    for name, value in (("learning_rate", learning_rate), ("strength", strength)):
        if not callable(value):
            checks.scalar(name, value, 0)

    def init(params: PyTree) -> ProximalState:
        return ProximalState(jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: ProximalState, params: PyTree = None):
        if params is None:
            raise ValueError("params must be given to update, got None")
        rate, weight = (
            value(state.step) if callable(value) else jnp.asarray(value, jnp.float32)
            for value in (learning_rate, strength)
        )

        def step(change: Array, param: Array) -> Array:
            # No narrower than the parameter: the update of what becomes 0 is then its exact negative.
            before = param.astype(jnp.promote_types(param.dtype, jnp.float32))
            moved = before + change.astype(before.dtype)
            after = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - rate * weight, 0.0)
            return (after - before).astype(jnp.promote_types(change.dtype, param.dtype))

        updates = jax.tree.map(step, updates, params)
        return updates, ProximalState(optax.safe_increment(state.step))

    return optax.masked(
        optax.GradientTransformation(init, update), lambda params: _selected(params, mask)
    )
