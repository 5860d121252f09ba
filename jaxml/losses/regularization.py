"""Penalties on parameters, and proximal steps that make parameters exactly 0.

All take a strength of at least 0, which may be traced, and a mask that selects the parameters: None for
all, a pytree of bools like the parameters or a prefix of it, or a function `(path, leaf) -> bool` with the
path as text, `"hidden_0/kernel"`. A mask that selects nothing is an error, since it is nearly always a
misspelt name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml import trees
from jaxml.losses import checks
from jaxml.losses.regression import magnitude
from jaxml.types import Array, PyTree

__all__ = [
    "elastic_net",
    "group",
    "kernels_only",
    "l1",
    "l2",
    "matrices_only",
    "parameter_mask",
    "proximal_group",
    "proximal_l1",
]


def kernels_only(path: str, leaf: Any) -> bool:
    """A mask that selects the weights of Flax's layers, not biases or scales.

    >>> kernels_only("hidden_0/kernel", None), kernels_only("hidden_0/bias", None)
    (True, False)
    """
    return path.split("/")[-1] == "kernel"


def matrices_only(path: str, leaf: Any) -> bool:
    """A mask that selects parameters of two axes or more, whatever their names.

    >>> matrices_only("w", np.ones((3, 2))), matrices_only("b", np.ones(2))
    (True, False)
    """
    return len(np.shape(leaf)) >= 2


def _named_leaves(params: PyTree) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]


def _is_float(leaf: Any) -> bool:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _selected(value: Any) -> bool:
    if isinstance(value, jax.core.Tracer) or not isinstance(
        value, bool | np.bool_ | jax.Array | np.ndarray
    ):
        raise ValueError(f"mask must hold True or False, known before compiling; got {value!r}")
    if np.shape(value) != () or np.asarray(value).dtype != bool:
        raise ValueError(f"mask must hold one True or False for a parameter, got {value!r}")
    return bool(value)


def parameter_mask(mask=None) -> Callable[[PyTree], PyTree]:
    """Returns the mask in Optax's form, `select(params) -> pytree of bools`.

    Weight decay that is decoupled from the gradient is `optax.adamw(1e-3, mask=parameter_mask(...))` or
    `optax.add_decayed_weights`. Leaves that are no floats are never selected.

    >>> params = {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
    >>> parameter_mask(kernels_only)(params)
    {'bias': False, 'kernel': True}
    """

    def select(params: PyTree) -> PyTree:
        named = _named_leaves(params)
        structure: Any = jax.tree.structure(params)
        if mask is None:
            selected = [True] * len(named)
        elif callable(mask):
            selected = [_selected(mask(name, leaf)) for name, leaf in named]
        else:
            try:
                spread = jax.tree.map(
                    lambda value, part: jax.tree.map(lambda _: _selected(value), part), mask, params
                )
                fits = jax.tree.structure(spread) == structure
            except (ValueError, TypeError, KeyError) as error:
                if str(error).startswith("mask must"):
                    raise
                fits = False
            if not fits:
                raise ValueError(
                    f"mask must have the structure of the parameters, {structure}, or a prefix of it; "
                    f"got {jax.tree.structure(mask)}"
                )
            selected = jax.tree.leaves(spread)
        selected = [yes and _is_float(leaf) for yes, (_, leaf) in zip(selected, named, strict=True)]
        if mask is not None and not any(selected):
            names = [name for name, _ in named]
            raise ValueError(f"mask must match a parameter of floats, matches none of {names}")
        return jax.tree.unflatten(structure, selected)

    return select


def _penalty(
    params: PyTree, strength: Any, mask: Any, of: Callable[[str, Array], Array], name="strength"
) -> Array:
    """`strength` times the sum of `of(name, leaf)` over the selected parameters."""
    strength = checks.scalar(name, strength, 0)
    selected = jax.tree.leaves(parameter_mask(mask)(params))
    parts = [
        of(path, jnp.asarray(leaf, jnp.float32))
        for (path, leaf), yes in zip(_named_leaves(params), selected, strict=True)
        if yes
    ]
    return strength * (jnp.sum(jnp.stack(parts)) if parts else jnp.zeros((), jnp.float32))


def _absolute(_: str, leaf: Array) -> Array:
    return jnp.sum(magnitude(leaf))


def _square(_: str, leaf: Array) -> Array:
    return jnp.sum(jnp.square(leaf))


def l1(params, strength=1.0, mask=None) -> Array:
    """L1 penalty (lasso): strength · Σ |w|, with gradient 0 at 0.

    Under gradient steps weights become small, not zero, since a step crosses 0 and comes back: for exact
    zeros use `proximal_l1` *instead*.

    >>> print(l1({"kernel": np.array([[1.0, -2.0]]), "bias": np.ones(1)}, 0.5, kernels_only))
    1.5

    References:
        Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """
    return _penalty(params, strength, mask, _absolute)


def l2(params, strength=1.0, mask=None) -> Array:
    """L2 penalty (ridge): strength · Σ w², without a half.

    With SGD at learning rate η it is a weight decay of 2 · strength · η a step; with adaptive optimizers it
    is not (Loshchilov & Hutter 2019): see `parameter_mask`.

    >>> print(l2({"kernel": np.array([[1.0, -2.0]]), "bias": np.ones(1)}, 0.5, kernels_only))
    2.5
    """
    return _penalty(params, strength, mask, _square)


def elastic_net(params, l1_strength=1.0, l2_strength=1.0, mask=None) -> Array:
    """Elastic net: l1_strength · Σ |w| + l2_strength · Σ w².

    scikit-learn's `ElasticNet(alpha, l1_ratio)` has l1_strength = alpha · l1_ratio and l2_strength =
    alpha · (1 − l1_ratio) / 2, beside *half* of the mean squared error.

    >>> print(elastic_net({"w": np.array([1.0, -2.0])}, 1.0, 0.5))
    5.5

    References:
        Zou & Hastie 2005, "Regularization and variable selection via the elastic net".
    """
    return _penalty(params, l1_strength, mask, _absolute, "l1_strength") + _penalty(
        params, l2_strength, mask, _square, "l2_strength"
    )


def _groups(name: str, leaf: Array, axis: int | tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """A parameter as [groups, size], and the shape of its groups with 1 in the axes of a group."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(not -leaf.ndim <= a < leaf.ndim for a in axes):
        raise ValueError(f"axis must be among the {leaf.ndim} axes of {name!r}, got {axis}")
    within = tuple(sorted({a % leaf.ndim for a in axes}))
    if len(within) != len(axes) or not axes:
        raise ValueError(f"axis must name axes of {name!r}, each once, got {axis}")
    moved = jnp.moveaxis(leaf, within, range(leaf.ndim - len(within), leaf.ndim))
    outer = tuple(1 if a in within else size for a, size in enumerate(leaf.shape))
    return moved.reshape(int(np.prod(outer)), -1), outer


def _norms(groups: Array) -> Array:
    # Not jnp.linalg.norm, whose gradient at 0 is NaN and whose squares overflow.
    return jax.vmap(trees.global_norm)(groups)


def group(params, strength=1.0, axis: int | tuple[int, ...] = -1, mask=None) -> Array:
    """Group lasso: strength · Σ_g ‖w_g‖₂, with gradient 0 for a group of zeros.

    All groups weigh the same; Yuan and Lin weigh them by the root of their size.

    Args:
        axis: the axis, or axes, of a group. −1: in a kernel [inputs, outputs] the weights of one input, so
            that inputs are dropped as a whole; 0: those of one output.

    >>> print(group({"kernel": np.array([[3.0, 4.0], [0.0, 0.0]])}, 0.5))
    2.5

    References:
        Yuan & Lin 2006, "Model selection and estimation in regression with grouped variables".
    """
    return _penalty(
        params, strength, mask, lambda name, leaf: _norms(_groups(name, leaf, axis)[0]).sum()
    )


class ProximalState(NamedTuple):
    """State of a proximal step: the number of steps, int32, for schedules."""

    step: Array


def _proximal(
    shrink: Callable[[Array, Array], Array], learning_rate: Any, strength: Any, mask: Any
) -> optax.GradientTransformation:
    """`w ← shrink(w + update, learning_rate · strength)`."""
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
            after = shrink(before + change.astype(before.dtype), rate * weight)
            return (after - before).astype(jnp.promote_types(change.dtype, param.dtype))

        updates = jax.tree.map(step, updates, params)
        return updates, ProximalState(optax.safe_increment(state.step))

    return optax.masked(optax.GradientTransformation(init, update), parameter_mask(mask))


def proximal_l1(learning_rate, strength, mask=None) -> optax.GradientTransformation:
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

    def shrink(x: Array, threshold: Array) -> Array:
        return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0.0)

    return _proximal(shrink, learning_rate, strength, mask)


def proximal_group(
    learning_rate, strength, axis: int | tuple[int, ...] = -1, mask=None
) -> optax.GradientTransformation:
    """The penalty of `group` as a proximal step, under which whole groups become exactly 0.

        w_g ← v_g max(1 − learning_rate · strength / ‖v_g‖, 0),   v = w + update

    Arguments are those of `proximal_l1` and `group`.

    >>> import optax
    >>> shrink, params = proximal_group(0.1, 5.0), {"w": jnp.array([[0.3, 0.4], [3.0, 4.0]])}
    >>> updates, _ = shrink.update({"w": jnp.zeros((2, 2))}, shrink.init(params), params)
    >>> optax.apply_updates(params, updates)["w"][:, 1]
    Array([0. , 3.6], dtype=float32)

    References:
        Parikh & Boyd 2014, "Proximal algorithms", section 6.5.4.
    """

    def shrink(x: Array, threshold: Array) -> Array:
        groups, outer = _groups("params", x, axis)
        norms = _norms(groups)
        shares = jnp.maximum(1 - threshold / jnp.where(norms > 0, norms, 1.0), 0.0)
        return x * shares.reshape(outer)

    return _proximal(shrink, learning_rate, strength, mask)
