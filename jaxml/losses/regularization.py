"""Penalties on parameters, which parameters they apply to, and proximal steps that reach exact zeros.

A *mask* chooses the parameters: None for all of them, a pytree of bools as the parameters or a prefix of
that, or a function `(path, leaf) -> bool` with the path as text, `"hidden_0/kernel"`. A mask that chooses
nothing is an error: it is a misspelt name far more often than a wish.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml import trees
from jaxml.losses import checks
from jaxml.types import Array, PyTree

__all__ = [
    "decoupled_weight_decay",
    "elastic_net",
    "group",
    "group_soft_threshold",
    "kernels_only",
    "l1",
    "l2",
    "matrices_only",
    "parameter_mask",
    "proximal_group",
    "proximal_l1",
    "soft_threshold",
]


def kernels_only(path: str, leaf: Any) -> bool:
    """A mask: the weights of Flax's layers, no biases and no scales of normalisations.

    Args:
        path: of the parameter, names joined by `/`.
        leaf: the parameter.

    Returns:
        Whether its own name is `kernel`.

    >>> kernels_only("hidden_0/kernel", None), kernels_only("hidden_0/bias", None)
    (True, False)
    """
    return path.split("/")[-1] == "kernel"


def matrices_only(path: str, leaf: Any) -> bool:
    """A mask: parameters of two axes or more, whatever their names: kernels and embeddings.

    Args:
        path: of the parameter, names joined by `/`.
        leaf: the parameter; of a population, a single member's, as inside `jax.vmap`.

    Returns:
        Whether it has two axes or more.

    >>> import numpy as np
    >>> matrices_only("w", np.ones((3, 2))), matrices_only("b", np.ones(2))
    (True, False)
    """
    return len(np.shape(leaf)) >= 2


def _is_float(leaf: Any) -> bool:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _chosen(value: Any) -> bool:
    if isinstance(value, jax.core.Tracer) or not isinstance(
        value, bool | np.bool_ | jax.Array | np.ndarray
    ):
        raise ValueError(f"mask must hold True or False, known before compiling; got {value!r}")
    if np.shape(value) != () or np.asarray(value).dtype != bool:
        raise ValueError(f"mask must hold one True or False for a parameter, got {value!r}")
    return bool(value)


def parameter_mask(mask=None) -> Callable[[PyTree], PyTree]:
    """A mask as Optax takes it: `optax.adamw(1e-3, mask=parameter_mask(kernels_only))`.

    Args:
        mask: None, a pytree of bools or a prefix of one, or a function `(path, leaf) -> bool`.

    Returns:
        `choose(params) -> pytree of bools` of the parameters' structure, True where the mask holds and the
        leaf is an array of floats.

    Raises:
        ValueError: by `choose`, for a mask that matches nothing, does not fit the parameters, or holds
            something else than True and False.

    >>> import numpy as np
    >>> params = {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
    >>> parameter_mask(kernels_only)(params)
    {'bias': False, 'kernel': True}
    """

    def choose(params: PyTree) -> PyTree:
        names = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree_util.tree_leaves_with_path(params)
        ]
        leaves = jax.tree.leaves(params)
        structure: Any = jax.tree.structure(params)
        if mask is None:
            chosen = [True] * len(leaves)
        elif callable(mask):
            chosen = [_chosen(mask(name, leaf)) for name, leaf in zip(names, leaves, strict=True)]
        else:
            try:
                spread = jax.tree.map(
                    lambda value, part: jax.tree.map(lambda _: _chosen(value), part), mask, params
                )
                chosen = jax.tree.leaves(spread)
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
        chosen = [yes and _is_float(leaf) for yes, leaf in zip(chosen, leaves, strict=True)]
        if mask is not None and not any(chosen):
            raise ValueError(f"mask must match a parameter of floats, matches none of {names}")
        return jax.tree.unflatten(structure, chosen)

    return choose


def _parts(params: PyTree, mask: Any) -> list[tuple[str, Array]]:
    """Names and float32 values of the parameters that the mask chooses."""
    chosen = jax.tree.leaves(parameter_mask(mask)(params))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), jnp.asarray(leaf, jnp.float32))
        for (path, leaf), yes in zip(leaves, chosen, strict=True)
        if yes
    ]


def _sum(parts: list[Array]) -> Array:
    return jnp.sum(jnp.stack(parts)) if parts else jnp.zeros((), jnp.float32)


def l1(params, strength=1.0, mask=None) -> Array:
    """Sum of absolute values (lasso): many parameters end at 0.

        penalty = strength · Σ |w|

    A gradient step crosses 0 and comes back, so under it weights get small, not zero: for exact zeros use
    `proximal_l1` *instead* of this term. As a loss of the weights it bounds their influence, which leaves
    large ones nearly alone.

    Args:
        params: a pytree.
        strength: scalar ≥ 0, may be traced.
        mask: which parameters; see `parameter_mask`.

    Returns:
        float32 scalar. The gradient at 0 is 0.

    Raises:
        ValueError: for a mask that matches nothing or does not fit, or a negative strength (when known).

    >>> import numpy as np
    >>> print(l1({"kernel": np.array([[1.0, -2.0]]), "bias": np.ones(1)}, 0.5, kernels_only))
    1.5

    References:
        Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """
    strength = checks.scalar("strength", strength)
    return strength * _sum([jnp.sum(checks.magnitude(leaf)) for _, leaf in _parts(params, mask)])


def l2(params, strength=1.0, mask=None) -> Array:
    """Sum of squares (ridge), without a half: all parameters are kept small.

        penalty = strength · Σ w²

    With SGD at learning rate η it is the decay of weights by 2 · strength · η a step; with Adam and its kin
    it is not, see `decoupled_weight_decay`.

    Args:
        params: a pytree.
        strength: scalar ≥ 0, may be traced.
        mask: which parameters; see `parameter_mask`.

    Returns:
        float32 scalar.

    Raises:
        ValueError: for a mask that matches nothing or does not fit, or a negative strength (when known).

    >>> import numpy as np
    >>> print(l2({"kernel": np.array([[1.0, -2.0]]), "bias": np.ones(1)}, 0.5, kernels_only))
    2.5

    References:
        Hoerl & Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems".
    """
    strength = checks.scalar("strength", strength)
    return strength * _sum([jnp.sum(jnp.square(leaf)) for _, leaf in _parts(params, mask)])


def elastic_net(params, l1_strength=1.0, l2_strength=1.0, mask=None) -> Array:
    """Lasso and ridge together: sparse, and of correlated columns it keeps all or none.

        penalty = l1_strength · Σ |w| + l2_strength · Σ w²

    scikit-learn's `ElasticNet(alpha, l1_ratio)` has l1_strength = alpha · l1_ratio and l2_strength =
    alpha · (1 − l1_ratio) / 2, beside *half* of the mean squared error.

    Args:
        params: a pytree.
        l1_strength: scalar ≥ 0, may be traced.
        l2_strength: scalar ≥ 0, may be traced.
        mask: which parameters; see `parameter_mask`.

    Returns:
        float32 scalar. The gradient at 0 is 0.

    Raises:
        ValueError: for a mask that matches nothing or does not fit, or a negative strength (when known).

    >>> import numpy as np
    >>> print(elastic_net({"w": np.array([1.0, -2.0])}, 1.0, 0.5))
    5.5

    References:
        Zou & Hastie 2005, "Regularization and variable selection via the elastic net".
    """
    checks.scalar("l1_strength", l1_strength)
    checks.scalar("l2_strength", l2_strength)
    return l1(params, l1_strength, mask) + l2(params, l2_strength, mask)


def _groups(name: str, leaf: Array, axis: int | tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """A parameter as [groups, size], and its axes within a group."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(not -leaf.ndim <= a < leaf.ndim for a in axes):
        raise ValueError(f"axis must be among the {leaf.ndim} axes of {name!r}, got {axis}")
    within = tuple(sorted({a % leaf.ndim for a in axes}))
    if len(within) != len(axes) or not axes:
        raise ValueError(f"axis must name axes of {name!r}, each once, got {axis}")
    last = tuple(range(leaf.ndim - len(within), leaf.ndim))
    moved = jnp.moveaxis(leaf, within, last)
    outer = moved.shape[: leaf.ndim - len(within)]
    size = int(np.prod([leaf.shape[a] for a in within]))
    return moved.reshape(int(np.prod(outer)), size), within


def _group_norms(groups: Array) -> Array:
    # Not jnp.linalg.norm, whose gradient at 0 is NaN and whose squares overflow.
    return jax.vmap(trees.global_norm)(groups)


def group(params, strength=1.0, axis: int | tuple[int, ...] = -1, mask=None) -> Array:
    """Sum of the groups' Euclidean norms (group lasso): whole groups end at 0.

        penalty = strength · Σ_g ‖w_g‖₂

    Groups all weigh the same; Yuan and Lin weigh them by the root of their size, which for groups of one
    size is in the strength.

    Args:
        params: a pytree.
        strength: scalar ≥ 0, may be traced.
        axis: the axis, or axes, that a group runs along. −1: in a kernel [inputs, outputs] the weights that
            leave one input, so that inputs are dropped as a whole; 0: those that enter one output.
        mask: which parameters; see `parameter_mask`. They must have this axis.

    Returns:
        float32 scalar. The gradient of a group at 0 is 0.

    Raises:
        ValueError: for a mask that matches nothing or does not fit, an axis that a chosen parameter does
            not have, or a negative strength (when known).

    Numerics: no square overflows or underflows.

    >>> import numpy as np
    >>> print(group({"kernel": np.array([[3.0, 4.0], [0.0, 0.0]])}, 0.5))
    2.5

    References:
        Yuan & Lin 2006, "Model selection and estimation in regression with grouped variables".
    """
    strength = checks.scalar("strength", strength)
    parts = [_groups(name, leaf, axis)[0] for name, leaf in _parts(params, mask)]
    return strength * _sum([jnp.sum(_group_norms(groups)) for groups in parts])


def decoupled_weight_decay(decay, mask=None) -> optax.GradientTransformation:
    """Weights shrink by a share of themselves, whatever the gradients' statistics say.

        update ← update + decay · w

    To be chained after the statistics and before the learning rate: `chain(scale_by_adam(),
    decoupled_weight_decay(0.01), scale_by_learning_rate(1e-3))` is AdamW.

    Args:
        decay: scalar ≥ 0 or a schedule; may be traced.
        mask: which parameters; see `parameter_mask`.

    Returns:
        `optax.add_decayed_weights` with this mask.

    Raises:
        ValueError: for a negative decay (when known); at `init`, for a mask that matches nothing.

    >>> import jax.numpy as jnp
    >>> decay, params = decoupled_weight_decay(0.1), {"w": jnp.array([2.0])}
    >>> decay.update({"w": jnp.zeros(1)}, decay.init(params), params)[0]
    {'w': Array([0.2], dtype=float32)}

    References:
        Loshchilov & Hutter 2019, "Decoupled weight decay regularization".
    """
    if not callable(decay):
        checks.scalar("decay", decay)
    return optax.add_decayed_weights(decay, mask=parameter_mask(mask))


def _floats(x: Any) -> Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else checks.float32("x", x)


def _wide(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def soft_threshold(x, threshold) -> Array:
    """Shrinks towards 0, and to exactly 0 what is no further from it than the threshold.

        y = sign(x) max(|x| − threshold, 0)

    The proximal operator of threshold · ‖x‖₁.

    Args:
        x: [...], any float.
        threshold: scalar ≥ 0, may be traced.

    Returns:
        [...], of the dtype of `x`. NaN stays NaN.

    Raises:
        ValueError: for a negative threshold (when known).

    >>> import jax.numpy as jnp
    >>> soft_threshold(jnp.array([-3.0, 0.5, 2.0]), 1.0) + 0.0
    Array([-2.,  0.,  1.], dtype=float32)
    """
    x = _floats(x)
    wide = x.astype(_wide(x))
    distance = jnp.abs(wide) - checks.scalar("threshold", threshold)
    return (jnp.sign(wide) * jnp.maximum(distance, 0.0)).astype(x.dtype)


def group_soft_threshold(x, threshold, axis: int | tuple[int, ...] = -1) -> Array:
    """Shrinks groups in length, and to exactly 0 those no longer than the threshold.

        y_g = x_g max(1 − threshold / ‖x_g‖, 0)

    The proximal operator of threshold · Σ_g ‖x_g‖₂.

    Args:
        x: [...], any float.
        threshold: scalar ≥ 0, may be traced.
        axis: the axis, or axes, that a group runs along.

    Returns:
        [...], of the dtype of `x`.

    Raises:
        ValueError: for a negative threshold (when known), or an axis that `x` does not have.

    >>> import jax.numpy as jnp
    >>> group_soft_threshold(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 2.5)
    Array([[1.5, 2. ],
           [0. , 0. ]], dtype=float32)
    """
    x = _floats(x)
    threshold = checks.scalar("threshold", threshold)
    groups, within = _groups("x", x.astype(jnp.float32), axis)
    norms = _group_norms(groups)
    shares = jnp.maximum(1 - threshold / jnp.where(norms > 0, norms, 1.0), 0.0)
    outer = [1 if a in within else size for a, size in enumerate(x.shape)]
    return (x.astype(_wide(x)) * shares.reshape(outer)).astype(x.dtype)


class ProximalState(NamedTuple):
    """State of a proximal step.

    Attributes:
        step: int32 scalar, the steps taken: where schedules stand.
    """

    step: Array


def _proximal(
    shrink: Callable[[Array, Array], Array], learning_rate: Any, strength: Any, mask: Any
) -> optax.GradientTransformation:
    for name, value in (("learning_rate", learning_rate), ("strength", strength)):
        if not callable(value):
            checks.scalar(name, value)

    def init(params: PyTree) -> ProximalState:
        return ProximalState(jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: ProximalState, params: PyTree = None):
        if params is None:
            raise ValueError("params must be given to update: the step is taken from them")
        rate, weight = (
            value(state.step) if callable(value) else jnp.asarray(value, jnp.float32)
            for value in (learning_rate, strength)
        )
        threshold = rate * weight

        def step(change: Array, param: Array) -> Array:
            # No narrower than the parameter: the update of what becomes 0 is then its exact negative.
            before = param.astype(_wide(param))
            after = shrink(before + change.astype(before.dtype), threshold)
            return (after - before).astype(jnp.promote_types(change.dtype, param.dtype))

        updates = jax.tree.map(step, updates, params)
        return updates, ProximalState(optax.safe_increment(state.step))

    return optax.masked(optax.GradientTransformation(init, update), parameter_mask(mask))


def proximal_l1(learning_rate, strength, mask=None) -> optax.GradientTransformation:
    """The L1 penalty as a proximal step: weights become exactly 0.

        w ← soft_threshold(w + update, learning_rate · strength)

    It stands last in a chain, where updates are what is added to the parameters:
    `chain(sgd(0.1), proximal_l1(0.1, strength))` is ISTA, the minimiser of loss + strength · Σ |w|. That is
    scikit-learn's `Lasso(alpha)` for the mean of `squared` and strength = 2 alpha. With momentum or Adam
    before it weights become zero as well, at other places than the minimiser's; clipping or refusing the
    update *after* it undoes the zeros of that step.

    Args:
        learning_rate: that of the step before it: a scalar ≥ 0 or a schedule; may be traced.
        strength: scalar ≥ 0 or a schedule; may be traced.
        mask: which parameters; see `parameter_mask`. Leave the intercept out.

    Returns:
        An Optax transformation that needs `params`; its state is a count of steps.

    Raises:
        ValueError: for a negative argument (when known); at `init`, for a mask that matches nothing.

    Numerics: `params + update` is exactly 0 where the threshold says so, in bfloat16 too.

    >>> import jax.numpy as jnp, optax
    >>> shrink, params = proximal_l1(0.1, 1.0), {"w": jnp.array([0.05, 1.0])}
    >>> updates, _ = shrink.update({"w": jnp.zeros(2)}, shrink.init(params), params)
    >>> optax.apply_updates(params, updates)
    {'w': Array([0. , 0.9], dtype=float32)}

    References:
        Daubechies, Defrise & De Mol 2004, "An iterative thresholding algorithm"; Parikh & Boyd 2014,
        "Proximal algorithms", sections 4.2 and 6.5.2.
    """
    return _proximal(soft_threshold, learning_rate, strength, mask)


def proximal_group(
    learning_rate, strength, axis: int | tuple[int, ...] = -1, mask=None
) -> optax.GradientTransformation:
    """The group penalty as a proximal step: whole groups become exactly 0.

        w_g ← (w_g + update_g) max(1 − learning_rate · strength / ‖w_g + update_g‖, 0)

    Args:
        learning_rate: as in `proximal_l1`.
        strength: scalar ≥ 0 or a schedule; may be traced.
        axis: the axis, or axes, that a group runs along, as in `group`.
        mask: which parameters; see `parameter_mask`.

    Returns:
        An Optax transformation, to stand last in a chain, as `proximal_l1`.

    Raises:
        ValueError: for a negative argument (when known); at `init`, for a mask that matches nothing.

    >>> import jax.numpy as jnp, optax
    >>> shrink, params = proximal_group(0.1, 5.0), {"w": jnp.array([[0.3, 0.4], [3.0, 4.0]])}
    >>> updates, _ = shrink.update({"w": jnp.zeros((2, 2))}, shrink.init(params), params)
    >>> optax.apply_updates(params, updates)["w"][:, 1]
    Array([0. , 3.6], dtype=float32)

    References:
        Yuan & Lin 2006; Parikh & Boyd 2014, "Proximal algorithms", section 6.5.4.
    """

    def shrink(x: Array, threshold: Array) -> Array:
        return group_soft_threshold(x, threshold, axis)

    return _proximal(shrink, learning_rate, strength, mask)
