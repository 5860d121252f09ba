"""What may reach the parameters: any optax optimizer, wrapped."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxml.monitor import probes
from jaxml.types import Array, PyTree

__all__ = ["GuardState", "Verdict", "guard", "verdict"]

WINDOW = 48
"""Norms that the running median and deviation are taken of."""

RELEASE_AFTER = 25
"""Steps beyond the bound after which the new level is believed: more than half of the window."""

# Beyond it a square, which second moments are made of, is infinite.
_LARGEST_NORM = 1e18

# A median absolute deviation in standard deviations of a normal distribution.
_NORMAL = 1.4826


class Verdict(NamedTuple):
    """What was made of the last step.

    Attributes:
        taken: bool scalar; False if gradient, loss or update was not finite and nothing moved.
        coefficient: float32 scalar, the smallest factor that a gradient was multiplied by; 1 if none was
            clipped.
        skipped_in_a_row: int32 scalar.
        clipped_share: float32 scalar, share of the last hundred steps or so that were clipped.
        released: bool scalar; True if a lasting shift of the norms has just been believed.
        rescaled: bool scalar; whether updates are being normalised layer by layer.
        norm: float32 scalar, of the whole gradient, before clipping; infinite where it is not finite.
        bound: float32 scalar, what the norm was held against; infinite before there is a first norm.
        statistics: float32 [layers, `probes.STATISTICS`] of the last step that was measured.
        moment_ratio: float32 scalar, √mean(g²/v) there: the gradient against the second moments that an
            adaptive optimizer had of it before; 0 where it has none.
    """

    taken: Array
    coefficient: Array
    skipped_in_a_row: Array
    clipped_share: Array
    released: Array
    rescaled: Array
    norm: Array
    bound: Array
    statistics: Array
    moment_ratio: Array


class GuardState(NamedTuple):
    """State of a guarded optimizer.

    Attributes:
        inner: of the optimizer within.
        steps: int32 scalar, steps seen.
        window: float32 [WINDOW, tensors + 1], log norms that were within their bounds; the whole
            gradient's last.
        filled: int32 [tensors + 1], how many of them there have been.
        raw: float32 [WINDOW, tensors + 1], log norms of all steps.
        raw_filled: int32 [tensors + 1], how many of them there have been.
        streak: int32 [tensors + 1], steps beyond the bound, less those within, since there were as many.
        losses: float32 [WINDOW, 1], log losses, where they are known.
        losses_filled: int32 [1].
        verdict: on the last step.
    """

    inner: PyTree
    steps: Array
    window: Array
    filled: Array
    raw: Array
    raw_filled: Array
    streak: Array
    losses: Array
    losses_filled: Array
    verdict: Verdict


def verdict(state: PyTree) -> Verdict:
    """The verdict in the state of an optimizer that is guarded, at whatever depth of a chain.

    Raises:
        ValueError: if there is no guard in it, or more than one.
    """
    is_guard = lambda node: isinstance(node, GuardState)  # noqa: E731
    found = [node for node in jax.tree.leaves(state, is_leaf=is_guard) if is_guard(node)]
    if len(found) != 1:
        raise ValueError(f"state must hold one GuardState, got {len(found)}")
    return found[0].verdict


def _median(values: Array, filled: Array) -> Array:
    """Along the first axis, of the first `filled` entries of each column; 0 where there are none."""
    known = jnp.arange(len(values))[:, None] < filled[None]
    filled = jnp.minimum(filled, len(values))
    ordered = jnp.sort(jnp.where(known, values, jnp.inf), axis=0)
    middle = jnp.maximum(filled - 1, 0)
    low = jnp.take_along_axis(ordered, (middle // 2)[None], axis=0)[0]
    high = jnp.take_along_axis(ordered, ((middle + 1) // 2)[None], axis=0)[0]
    return jnp.where(filled > 0, (low + high) / 2, 0.0)


def guard(
    optimizer: optax.GradientTransformation,
    *,
    layout: probes.Layout | None = None,
    deviations: float = 10.0,
    factor: float = 6.0,
    vanishing: Literal["ignore", "rescale"] = "ignore",
    every: int = 10,
) -> optax.GradientTransformationExtraArgs:
    """Keeps bad updates out of the parameters, and leaves good ones as they are.

    *Not finite*: if an entry of gradient or update, or the loss (`value=`), is NaN or infinite, or a
    gradient is so large that its square is, the update is −0 everywhere, so that parameters keep every
    bit, and the optimizer within keeps its state. However often: there is no number of times after which
    it is let through.

    *Exploding*: the norm of each tensor's gradient, and of all together, is held against a running median
    of its last `WINDOW` log norms. Beyond

        median + max(log(factor · (1 + 10 / n)), deviations · σ),    n norms seen,

    it is scaled down to that; σ is 1.4826 / √2 of the median deviation of the differences between one log
    norm and the next, so that a trend is no deviation. What is clipped does not enter the window, nor what
    is zero or not finite: a burst neither masks the next one nor drags the median along. When
    `RELEASE_AFTER` more steps were beyond the bound than within, the window takes all norms as they were: a
    lasting shift is no explosion, unless the loss is known (`value=`) and ten times its own running
    median.

    *Vanishing* (`"rescale"`): where the gradients of the layers fall geometrically towards the input, below
    1e-3 of the largest, each layer's update is scaled up to the relative size of the largest, until they
    no longer do (above 1e-2).

    All of it are values in the state: it works in `scan`, under `vmap` for each member by itself, and with
    donated buffers. On a step that is neither clipped nor skipped the gradient is multiplied by exactly 1.

    Args:
        optimizer: any optax transformation.
        layout: which tensors are which layers, `probes.layout`; None for one from the parameters' names.
        deviations: allowed beyond the median, in standard deviations of log norms.
        factor: always allowed, as a multiple of the median.
        vanishing: what to do where gradients vanish over depth.
        every: steps between two measurements of what `Verdict.statistics` holds besides the norms of
            gradients and updates.

    Returns:
        An optax transformation whose state is a `GuardState`. Its `update` takes `value=`, the loss, too,
        and passes further arguments on.

    Raises:
        ValueError: if `deviations` or `factor` is not above 0 or 1, `vanishing` is unknown or `every`
            below 1.

    Example:
        >>> optimizer = guard(optax.sgd(0.1))
        >>> params = {"w": jnp.ones(2)}
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update({"w": jnp.array([1.0, jnp.nan])}, state, params)
        >>> bool(verdict(state).taken), optax.apply_updates(params, updates)["w"].tolist()
        (False, [1.0, 1.0])
    """
    if not deviations > 0:
        raise ValueError(f"deviations must be above 0, got {deviations}")
    if not factor > 1:
        raise ValueError(f"factor must be above 1, got {factor}")
    if vanishing not in ("ignore", "rescale"):
        raise ValueError(f"vanishing must be 'ignore' or 'rescale', got {vanishing!r}")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    inner = optax.with_extra_args_support(optimizer)

    def place(tree: PyTree) -> probes.Layout:
        return probes.layout(tree) if layout is None else layout

    def init(params: PyTree) -> GuardState:
        number = len(jax.tree.leaves(params)) + 1
        names = place(params).names

        # Each leaf a buffer of its own: a step may donate them all.
        def zeros(*shape: int, dtype: Any = jnp.float32) -> Array:
            return jnp.zeros(shape, dtype)

        return GuardState(
            inner=inner.init(params),
            steps=zeros(dtype=jnp.int32),
            window=zeros(WINDOW, number),
            filled=zeros(number, dtype=jnp.int32),
            raw=zeros(WINDOW, number),
            raw_filled=zeros(number, dtype=jnp.int32),
            streak=zeros(number, dtype=jnp.int32),
            losses=zeros(WINDOW, 1),
            losses_filled=zeros(1, dtype=jnp.int32),
            verdict=Verdict(
                taken=jnp.ones((), bool),
                coefficient=jnp.ones(()),
                skipped_in_a_row=zeros(dtype=jnp.int32),
                clipped_share=zeros(),
                released=jnp.zeros((), bool),
                rescaled=jnp.zeros((), bool),
                norm=zeros(),
                bound=jnp.full((), jnp.inf, jnp.float32),
                statistics=zeros(len(names), len(probes.STATISTICS)),
                moment_ratio=zeros(),
            ),
        )

    def update(
        gradients: PyTree,
        state: GuardState,
        params: PyTree | None = None,
        *,
        value: Array | None = None,
        **extra: Any,
    ) -> tuple[PyTree, GuardState]:
        leaves, structure = jax.tree.flatten(gradients)
        held = gradients if params is None else params
        where = place(gradients)
        by_layer = probes.leaf_norms(gradients, where.stacked)
        norms = jnp.stack([_norm(each) for each in by_layer]) if leaves else jnp.zeros(0)
        whole = _norm(norms)
        finite = whole < _LARGEST_NORM
        if value is not None:
            finite &= jnp.all(jnp.isfinite(value))
            extra["value"] = value

        # The bounds, from what was seen before.
        center = _median(state.window, state.filled)
        differences = (state.window - jnp.roll(state.window, 1, axis=0))[1:]
        trend = _median(differences, state.filled - 1)
        spread = (
            _NORMAL / math.sqrt(2) * _median(jnp.abs(differences - trend[None]), state.filled - 1)
        )
        seen = jnp.maximum(state.filled, 1)
        allowed = math.log(factor) + jnp.log1p(10 / seen)
        bound = center + jnp.maximum(allowed, deviations * spread)
        bound = jnp.where(state.filled > 0, bound, jnp.inf)

        def beyond(norms: Array, bound: Array) -> tuple[Array, Array]:
            logs = jnp.log(norms)
            out = finite & (logs > bound)
            return out, jnp.where(out, jnp.exp(bound - logs), 1.0)

        # Tensors first: what is left of the whole is then held against its own bound.
        outlying, coefficients = beyond(norms, bound[:-1])
        left = jnp.where(outlying, coefficients * norms, norms)
        _, coefficient = beyond(_norm(left), bound[-1])
        out_raw, _ = beyond(whole, bound[-1])
        outliers = jnp.append(outlying, out_raw)
        streak = jnp.maximum(state.streak + jnp.where(outliers, 1, -1), 0)
        streak = jnp.where(finite, streak, state.streak)
        release = streak >= RELEASE_AFTER
        log_loss = jnp.log(jnp.abs(jnp.asarray(1.0 if value is None else value, jnp.float32)))
        usual_loss = _median(state.losses, state.losses_filled)
        grown = (state.losses_filled > 0) & (log_loss > usual_loss + math.log(10))
        release &= ~grown
        losses, losses_filled = _enter(
            state.losses,
            state.losses_filled,
            log_loss[None],
            (finite & jnp.isfinite(log_loss))[None],
        )
        coefficients = jnp.where(release[:-1], 1.0, coefficients) * jnp.where(
            release[-1], 1.0, coefficient
        )
        coefficients = jnp.where(finite, coefficients, 1.0)

        # What was seen enters the windows.
        logs = jnp.log(jnp.append(norms, whole))
        enters = finite & jnp.isfinite(logs)
        raw, raw_filled = _enter(state.raw, state.raw_filled, logs, enters)
        window, filled = _enter(state.window, state.filled, logs, enters & ~outliers)
        window, filled = (
            jnp.where(release[None], raw, window),
            jnp.where(release, raw_filled, filled),
        )

        due = (state.steps % every == 0) | ~finite
        if leaves:
            of_parameters, leaves = _before(
                due, lambda: probes.leaf_norms(held, where.stacked), by_layer, leaves
            )
        clipped = [leaf * coefficients[i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
        updates, after = inner.update(
            jax.tree.unflatten(structure, clipped), state.inner, params, **extra
        )
        moved = probes.leaf_norms(updates, where.stacked)
        finite &= _norm(jnp.concatenate(moved)) < jnp.inf if leaves else True

        rescaled, rescales = state.verdict.rescaled, vanishing == "rescale" and params is not None
        if rescales:
            gains, rescaled = _gains(by_layer, moved, params, where, rescaled, finite)
            updates = _scale_layers(updates, gains, where)

        updates = jax.tree.map(lambda u: jnp.where(finite, u, -jnp.zeros_like(u)), updates)
        after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state.inner)

        def measure() -> Array:
            # What is refused moves by nothing; what is rescaled is gone over again.
            norms = None if rescales else [jnp.where(finite, norm, 0.0) for norm in moved]
            return probes.layer_statistics(
                gradients,
                held,
                updates,
                where,
                gradient_norms=by_layer,
                parameter_norms=of_parameters,
                update_norms=norms,
            )

        statistics, ratio = state.verdict.statistics, state.verdict.moment_ratio
        if leaves:
            statistics, ratio = jax.lax.cond(
                due | ~finite,
                lambda: (measure(), _moment_ratio(gradients, state.inner)),
                lambda: (statistics, ratio),
            )
        smallest = jnp.min(coefficients, initial=1.0)
        seen_before = jnp.minimum(state.steps, 99).astype(jnp.float32)
        share = state.verdict.clipped_share
        share = share + ((smallest < 1) - share) / (seen_before + 1)
        return updates, GuardState(
            inner=after,
            steps=state.steps + 1,
            window=window,
            filled=filled,
            raw=raw,
            raw_filled=raw_filled,
            streak=jnp.where(release, 0, streak).astype(jnp.int32),
            losses=losses,
            losses_filled=losses_filled,
            verdict=Verdict(
                taken=finite,
                coefficient=smallest,
                skipped_in_a_row=jnp.where(finite, 0, state.verdict.skipped_in_a_row + 1),
                clipped_share=share,
                released=release.any(),
                rescaled=rescaled,
                norm=whole,
                bound=jnp.exp(bound[-1]),
                statistics=statistics,
                moment_ratio=ratio,
            ),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _before(
    due: Array, norms: Callable[[], list[Array]], like: list[Array], leaves: list[Array]
) -> tuple[list[Array], list[Array]]:
    """Norms where they are due, else zeros; and the leaves, which now come after them.

    What is updated in place must not be read afterwards: else the compiler keeps a copy of it, at every
    step.
    """
    nothing = [jnp.zeros_like(norm) for norm in like]
    return jax.lax.optimization_barrier((jax.lax.cond(due, norms, lambda: nothing), leaves))


def holds_moments(node: Any) -> bool:
    """Whether a node of an optimizer's state is the one that holds its second moments, as `nu`."""
    return hasattr(node, "_fields") and "nu" in node._fields


def _moment_ratio(gradients: PyTree, inner: PyTree) -> Array:
    """√mean(g²/v), where the state within holds second moments of such gradients; else 0."""
    structure: Any = jax.tree.structure(gradients)
    for node in jax.tree.leaves(inner, is_leaf=holds_moments):
        if holds_moments(node) and jax.tree.structure(node.nu) == structure:
            pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(node.nu), strict=True)
            sums, counts = [], []
            for gradient, moment in pairs:
                known = moment > 1e-30
                ratio = jnp.square(gradient.astype(jnp.float32)) / jnp.where(known, moment, 1.0)
                sums.append(jnp.sum(jnp.where(known, ratio, 0.0)))
                counts.append(jnp.sum(jnp.where(known, 1.0, 0.0)))
            return jnp.sqrt(sum(sums, jnp.zeros(())) / jnp.maximum(sum(counts), 1.0))
    return jnp.zeros(())


def _enter(ring: Array, filled: Array, values: Array, enters: Array) -> tuple[Array, Array]:
    """Columns of a ring after a value each, where it enters."""
    here = jnp.arange(WINDOW)[:, None] == (filled % WINDOW)[None]
    ring = jnp.where(here & enters[None], values[None], ring)
    # Once a ring is full only its position matters: the count must not grow for ever.
    filled = filled + enters
    return ring, jnp.where(filled >= 2 * WINDOW, filled - WINDOW, filled)


def _norm(values: Array) -> Array:
    """Of a vector of norms, none of whose squares overflows."""
    largest = jnp.max(values, initial=0.0)
    scale = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1.0)
    total = scale * jnp.sqrt(jnp.sum(jnp.square(values / scale)))
    return jnp.where(jnp.isfinite(largest), total, jnp.inf)


def _gains(
    gradient_norms: list[Array],
    update_norms: list[Array],
    params: PyTree,
    where: probes.Layout,
    active: Array,
    finite: Array,
) -> tuple[Array, Array]:
    """Factors for the updates of the layers, and whether they are other than 1; [layers], bool scalar.

    The profile: log norms of the layers' gradients against their place, a line fitted to them. Layers
    without a gradient are no part of it.
    """
    norms = probes.join(gradient_norms, where)
    moved = probes.join(update_norms, where)
    held = probes.layer_norms(params, where)
    known = (norms > 0) & jnp.isfinite(norms)
    logs = jnp.where(known, jnp.log(jnp.where(known, norms, 1.0)), 0.0)
    number = jnp.maximum(known.sum(), 1)
    place = jnp.arange(len(norms), dtype=jnp.float32)
    from_center = jnp.where(known, place - jnp.where(known, place, 0).sum() / number, 0.0)
    from_mean = jnp.where(known, logs - logs.sum() / number, 0.0)
    along = jnp.sum(from_center * from_mean)
    geometric = (along > 0) & (
        jnp.square(along) > 0.6 * jnp.sum(jnp.square(from_center)) * jnp.sum(jnp.square(from_mean))
    )
    lowest = jnp.min(jnp.where(known, logs, jnp.inf))
    fall = lowest - jnp.max(jnp.where(known, logs, -jnp.inf))
    begins = geometric & (fall < math.log(1e-3)) & (number > 2)
    active = jnp.where(finite, begins | (active & (fall < math.log(1e-2))), active)
    usable = (held > 0) & (moved > 0) & jnp.isfinite(moved)
    relative = jnp.where(usable, moved / jnp.where(usable, held, 1.0), 0.0)
    gains = jnp.where(usable, relative.max() / jnp.where(usable, relative, 1.0), 1.0)
    return jnp.where(active, gains, 1.0), active


def _scale_layers(updates: PyTree, gains: Array, where: probes.Layout) -> PyTree:
    leaves, structure = jax.tree.flatten(updates)
    scaled = []
    for leaf, rows in zip(leaves, where.rows, strict=True):
        gain = gains[jnp.array(rows)]
        shape = (len(rows), *[1] * (leaf.ndim - 1)) if len(rows) > 1 else ()
        scaled.append(leaf * gain.reshape(shape).astype(leaf.dtype))
    return jax.tree.unflatten(structure, scaled)
