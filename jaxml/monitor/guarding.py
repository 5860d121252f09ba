"""A wrapper for optax optimizers that keeps bad updates out of the parameters."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxml import trees
from jaxml.monitor.layers import Layout, squares
from jaxml.types import Array, PyTree

__all__ = ["MEMORY", "RELEASE_AFTER", "GuardState", "Verdict", "guard", "is_guarded", "verdict"]

MEMORY = 24
"""Steps over which the level and the deviation of log norms are averaged."""

RELEASE_AFTER = 25
"""Steps beyond its bound after which the new level of a norm is accepted."""

# The bound over the level: this factor, or so many standard deviations of the log norms.
_FACTOR, _DEVIATIONS = 6.0, 10.0

# Above this multiple of its level a loss has grown: no norm is released before so many steps, and the level
# stays for as many.
_GROWN_LOSS, _GROWN_FOR = 10.0, 2 * RELEASE_AFTER

# σ of a normal distribution from the mean absolute difference of two samples.
_NORMAL = math.sqrt(math.pi) / 2


class Verdict(NamedTuple):
    """What the guard decided in a step. Columns are the tensors, the whole gradient, and the loss.

    Attributes:
        accepted: bool scalar; False if the step was refused and no bit changed.
        coefficients: float32 [tensors], factors of the gradients; 1 if they were not clipped.
        log_norms: float32 [columns], before clipping; NaN or infinite if they are.
        log_bounds: float32 [columns], what they were compared with; infinite before the first norm.
        update_norms: float32 [tensors], also of an update that was refused.
    """

    accepted: Array
    coefficients: Array
    log_norms: Array
    log_bounds: Array
    update_norms: Array


class GuardState(NamedTuple):
    """State of a guarded optimizer.

    Attributes:
        inner: state of the optimizer.
        levels: float32 [6, columns], of the log norms: how many were averaged; their level; the mean
            absolute difference of one and the next; the last one; steps beyond the bound minus steps
            within; the bound of the last step.
        verdict: on the last step.
    """

    inner: PyTree
    levels: Array
    verdict: Verdict


def _guards(state: PyTree) -> list[GuardState]:
    is_guard = lambda node: isinstance(node, GuardState)  # noqa: E731
    return [node for node in jax.tree.leaves(state, is_leaf=is_guard) if is_guard(node)]


def is_guarded(state: PyTree) -> bool:
    """Returns whether an optimizer's state has a guard in it, at any depth of a chain."""
    return bool(_guards(state))


def verdict(state: PyTree) -> Verdict:
    """Returns the verdict in the state of a guarded optimizer, at any depth of a chain.

    Raises:
        ValueError: if there is no guard in it, or more than one.
    """
    found = _guards(state)
    if len(found) != 1:
        raise ValueError(f"state must hold one GuardState, got {len(found)}")
    return found[0].verdict


def guard(
    optimizer: optax.GradientTransformation, layout: Layout | None = None
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer, guarded: bad updates do not reach the parameters, good ones are unchanged.

    *Refused*: a step whose loss (`value=`), gradient or update is not finite, or that would make a finite
    number of the optimizer's state, or a float16 parameter, infinite or NaN. The update is then −0
    everywhere, so that adding it changes no bit, and the optimizer's state stays as it was. State of the
    parameters' shapes must be finite from the start; other state need not be.

    *Clipped*: the norm of each tensor's gradient, and that of the whole gradient, is compared with the
    running level of its logarithm, an average over `MEMORY` steps. Above

        level + max(log(6 · (1 + 10 / n)), 10 σ),    n norms averaged,

    it is scaled down to that bound; σ is estimated from the differences of successive log norms, so that a
    trend is no deviation. What is clipped does not enter the level. An unclipped gradient is multiplied by
    exactly 1.

    *Released*: after `RELEASE_AFTER` more steps beyond the bound than within, the level is the present
    norm; where the loss is above ten times its own level, after twice as many. The level of such a loss
    stays where it was for as many steps, and then follows by a factor of at most ten in `MEMORY` steps, so
    that an explosion of the loss that came before that of the norm is not forgotten.

    Norms are sums of squares in float32: below 1e-19 they count as 0, above 1e19 as infinite. The verdict
    is a value in the state: the guard works in `scan`, with donated buffers, and under `vmap` for each
    member by itself.

    Args:
        optimizer: any optax transformation.
        layout: of the parameters, where some hold several layers along their first axis: each of these is
            then a tensor of its own.

    Returns:
        An optax transformation. Its `update` takes `value=`, the loss, and `accept=`, False to refuse the
        step for another reason, and passes further arguments on.

    Example:
        >>> optimizer = guard(optax.sgd(0.1))
        >>> params = {"w": jnp.ones(2)}
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update({"w": jnp.array([1.0, jnp.nan])}, state, params)
        >>> bool(verdict(state).accepted), optax.apply_updates(params, updates)["w"].tolist()
        (False, [1.0, 1.0])
    """
    inner_update = update_given_loss(optimizer)

    def sizes(leaves: list[Array]) -> list[int]:
        """Tensors in each leaf: 1, or the number of stacked layers."""
        return [1] * len(leaves) if layout is None else [len(rows) for rows in layout.rows]

    def init(params: PyTree) -> GuardState:
        number, float32 = sum(sizes(jax.tree.leaves(params))), jnp.float32
        # Each leaf is a buffer of its own, so that all can be donated.
        return GuardState(
            inner=optimizer.init(params),
            levels=jnp.zeros((6, number + 2), float32),
            verdict=Verdict(
                accepted=jnp.ones((), bool),
                coefficients=jnp.ones(number, float32),
                log_norms=jnp.full(number + 2, -jnp.inf, float32),
                log_bounds=jnp.full(number + 2, jnp.inf, float32),
                update_norms=jnp.zeros(number, float32),
            ),
        )

    def update(
        gradients: PyTree,
        state: GuardState,
        params: PyTree | None = None,
        *,
        value: Array | None = None,
        accept: Array | bool = True,
        **extra: Any,
    ) -> tuple[PyTree, GuardState]:
        leaves, structure = jax.tree.flatten(gradients)
        number = sizes(leaves)
        loss = jnp.ones((), jnp.float32)
        if value is not None:
            loss, extra["value"] = jnp.asarray(value, jnp.float32), value

        def split(coefficients: Array, levels: Array) -> tuple[list[Array], Array, Array]:
            """Adds a factor for each leaf: a scalar, or one for each layer stacked along its first axis."""
            parts = jnp.split(coefficients, np.cumsum(number)[:-1]) if leaves else []
            shapes = [
                (several, *[1] * (leaf.ndim - 1)) if several > 1 else ()
                for leaf, several in zip(leaves, number, strict=True)
            ]
            factors = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
            return factors, coefficients, levels

        own = squares([[leaf] for leaf in leaves], number)
        whole = jnp.sum(own)
        finite = jnp.isfinite(whole) & jnp.isfinite(loss) & accept
        both = jnp.stack([whole, jnp.square(loss)])
        log_norms = 0.5 * jnp.log(jnp.concatenate([own, both]))
        # A branch, because what it returns is not computed again for every tensor.
        factors, coefficients, levels = jax.lax.cond(
            finite,
            lambda: split(*_judge(log_norms, state.levels)),
            lambda: split(jnp.ones_like(own), state.levels),
        )
        clipped = [(leaf * by).astype(leaf.dtype) for leaf, by in zip(leaves, factors, strict=True)]
        updates, inner = inner_update(
            jax.tree.unflatten(structure, clipped), state.inner, params, **extra
        )
        inner = jax.tree.map(
            lambda new, old: new if new.dtype == old.dtype else new.astype(old.dtype),
            inner,
            state.inner,
        )
        # Of arrays like the parameters the old ones are not read: that would be a tenth of a step.
        kept, others = _by_parameter(inner, gradients)
        if params is not None:
            landed = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
            half = [leaf if leaf.dtype == jnp.float16 else None for leaf in jax.tree.leaves(landed)]
            kept.append(half)
        moved = squares(list(zip(jax.tree.leaves(updates), *kept, strict=True)), number)
        accepted = finite & jnp.isfinite(jnp.sum(moved))
        accepted &= trees.stays_finite(others, _by_parameter(state.inner, gradients)[1])

        updates, inner = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (updates, inner),
            (jax.tree.map(lambda u: -jnp.zeros_like(u), updates), state.inner),
        )
        found = Verdict(accepted, coefficients, log_norms, levels[5], jnp.sqrt(moved))
        return updates, GuardState(inner, levels, found)

    return optax.GradientTransformationExtraArgs(init, update)


def update_given_loss(optimizer: Any) -> Callable[..., tuple[PyTree, PyTree]]:
    """Returns the optimizer's `update`, which may be given the loss, `value=`, whether it takes it or not.

    That it takes further arguments is no sign: `optax.contrib.sam` is declared to, and does not.
    """

    def update(*arguments: Any, **extra: Any) -> tuple[PyTree, PyTree]:
        try:
            return optimizer.update(*arguments, **extra)
        except TypeError as error:
            if "value" not in extra or "unexpected keyword argument 'value'" not in str(error):
                raise
        del extra["value"]
        return optimizer.update(*arguments, **extra)

    return update


def _judge(now: Array, levels: Array) -> tuple[Array, Array]:
    """Returns the coefficients of the tensors, and the levels after these log norms."""
    seen, level, jump, last, streak, _ = levels
    is_loss = np.arange(len(now)) == len(now) - 1
    allowed = jnp.maximum(
        math.log(_FACTOR) + jnp.log1p(10.0 / jnp.maximum(seen, 1.0)), _DEVIATIONS * _NORMAL * jump
    )
    allowed = jnp.where(is_loss, math.log(_GROWN_LOSS), allowed)
    bound = jnp.where(seen > 0, level + allowed, jnp.inf)
    beyond = now > bound
    streak = jnp.clip(streak + jnp.where(beyond, 1.0, -1.0), 0.0, _GROWN_FOR)
    released = streak >= jnp.where(beyond[-1], _GROWN_FOR, RELEASE_AFTER)

    # Tensors first; what is left of the whole is then compared with its own bound.
    clips = beyond & ~released
    over = jnp.where(clips, now - bound, 0.0)
    left = 0.5 * jnp.log(jnp.sum(jnp.exp(2.0 * (now - over)[:-2])))
    rest = jnp.where(clips[-2], jnp.maximum(left - bound[-2], 0.0), 0.0)
    coefficients = jnp.exp(-over[:-2] - rest)

    # Norms of 0, and those that are clipped, change no level; small ones, and a loss that has grown, change
    # it by little.
    enters = jnp.isfinite(now) & ~clips
    jumps = released & ~is_loss
    count = jnp.minimum(seen + 1.0, MEMORY)
    center = jnp.where(seen > 0, level + jnp.clip(now - level, -allowed, allowed) / count, now)
    difference = jnp.minimum(jnp.abs(now - last), 3.0 * jump + 0.1)
    spread = jnp.where(seen > 0, jump + (difference - jump) / jnp.maximum(count - 1.0, 1.0), 0.0)
    entered = jnp.stack([count, jnp.where(jumps, now, center), spread, now])
    rows = jnp.where(enters[None], entered, levels[:4])
    return coefficients, jnp.stack([*rows, jnp.where(jumps, 0.0, streak), bound])


def _by_parameter(inner: PyTree, like: PyTree) -> tuple[list[list[Array | None]], list[Array]]:
    """The float arrays of an optimizer's state: trees like the parameters as lists, and all others."""
    structure: Any = jax.tree.structure(like)
    shapes = [leaf.shape for leaf in jax.tree.leaves(like)]
    alike: list[list[Array | None]] = []
    others: list[Array] = []
    for node in jax.tree.leaves(inner, is_leaf=lambda node: jax.tree.structure(node) == structure):
        leaves = jax.tree.leaves(node)
        floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        if [leaf.shape for leaf in floats] == shapes:
            alike.append([*floats])
        else:
            others += floats
    return alike, others
