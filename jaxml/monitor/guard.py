"""What may reach the parameters: any optax optimizer, wrapped."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxml.monitor import bounds, probes
from jaxml.types import Array, PyTree

__all__ = ["Guard", "GuardState", "Verdict", "guard", "verdict"]

WINDOW = 48
"""Norms that the running median and deviation are taken of."""

RELEASE_AFTER = 25
"""Steps beyond the bound after which the new level is believed: more than half of the window."""

# Steps between two looks at single entries of the gradient, where all goes well.
_DETAILED = 100

# Entries of a tensor that stand for all, where a mean is wanted.
_SPREAD = 4096

# Taken for the largest |parameter| where an update depends on them.
_LARGEST_PARAMETER = 1e30

# Beyond it a square, which second moments are made of, is infinite.
_LARGEST_NORM = 1e18

# A median absolute deviation in standard deviations of a normal distribution.
_NORMAL = 1.4826


class Verdict(NamedTuple):
    """What was made of the last step.

    Attributes:
        accepted: bool scalar; False if gradient, loss or update was not finite and nothing moved.
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

    accepted: Array
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
        extents: float32 [slots, 2], numbers between which the entries of each tree of arrays within lie;
            infinite where that is not known.
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
    extents: Array
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
    """Along the first axis, of the first `filled` entries of each column; 0 where there are none.

    By counting for each entry those before it: a sort of so few takes several times as long.
    """
    place = jnp.arange(len(values))
    filled = jnp.minimum(filled, len(values))
    known = place[:, None] < filled[None]
    values = jnp.where(known, values, jnp.inf)
    this, other = values[:, None], values[None]
    earlier = (place[None] < place[:, None])[..., None]
    rank = jnp.sum((other < this) | ((other == this) & earlier), axis=1)
    middle = jnp.maximum(filled - 1, 0)
    low = jnp.sum(jnp.where(rank == (middle // 2)[None], values, 0.0), axis=0)
    high = jnp.sum(jnp.where(rank == ((middle + 1) // 2)[None], values, 0.0), axis=0)
    return jnp.where(filled > 0, (low + high) / 2, 0.0)


def guard(
    optimizer: optax.GradientTransformation,
    *,
    layout: probes.Layout | None = None,
    deviations: float = 10.0,
    factor: float = 6.0,
    vanishing: Literal["ignore", "rescale"] = "ignore",
    every: int = 10,
    branch: bool = True,
) -> "Guard":
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

    An update is judged before anything is written, yet seldom read: interval arithmetic on the optimizer's
    own program (`jaxml.monitor.bounds`) proves most updates finite from the norms of the gradients and from
    bounds of the state that it keeps. What cannot be proven is read.

    All of it are values in the state: it works in `scan`, under `vmap` for each member by itself, and with
    donated buffers. On a step that is neither clipped nor skipped the gradient is multiplied by exactly 1.

    Args:
        optimizer: any optax transformation.
        layout: which tensors are which layers, `probes.layout`; None for one from the parameters' names.
        deviations: allowed beyond the median, in standard deviations of log norms.
        factor: always allowed, as a multiple of the median.
        vanishing: what to do where gradients vanish over depth.
        every: steps between two measurements of `Verdict.statistics` and `Verdict.moment_ratio`. Columns
            that count single entries are measured at every hundredth step, or at every `every`th where
            that is more, and whenever a step is clipped or refused.
        branch: whether a step that need not be judged takes a shorter way. False where the guard runs under
            `vmap`, which would compute both ways: what is measured is then measured on schedule alone.

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
        >>> bool(verdict(state).accepted), optax.apply_updates(params, updates)["w"].tolist()
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

        within = inner.init(params)
        return GuardState(
            inner=within,
            extents=_extents(within, params),
            steps=zeros(dtype=jnp.int32),
            window=zeros(WINDOW, number),
            filled=zeros(number, dtype=jnp.int32),
            raw=zeros(WINDOW, number),
            raw_filled=zeros(number, dtype=jnp.int32),
            streak=zeros(number, dtype=jnp.int32),
            losses=zeros(WINDOW, 1),
            losses_filled=zeros(1, dtype=jnp.int32),
            verdict=Verdict(
                accepted=jnp.ones((), bool),
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

    def follow(
        in_place: bool,
        gradients: PyTree,
        state: GuardState,
        params: PyTree | None = None,
        *,
        value: Array | None = None,
        step: Array | None = None,
        **extra: Any,
    ) -> tuple[PyTree, GuardState]:
        """The update, or in place the parameters after it; and the state."""
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
        # Side by side in one array: so few numbers cost a step what their operations cost to start.
        number = len(leaves) + 1
        differences = (state.window - jnp.roll(state.window, 1, axis=0))[1:]
        padded = jnp.pad(differences, ((0, 1), (0, 0)))
        known = jnp.minimum(state.filled - 1, WINDOW - 1)
        medians = _median(
            jnp.concatenate([state.window, padded, state.losses], axis=1),
            jnp.concatenate([state.filled, known, state.losses_filled]),
        )
        center, trend, usual_loss = jnp.split(medians, (number, 2 * number))
        spread = _NORMAL / math.sqrt(2) * _median(jnp.abs(padded - trend[None]), known)
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
        grown = (state.losses_filled > 0) & (log_loss > usual_loss + math.log(10))
        release &= ~grown
        coefficients = jnp.where(release[:-1], 1.0, coefficients) * jnp.where(
            release[-1], 1.0, coefficient
        )
        coefficients = jnp.where(finite, coefficients, 1.0)

        # What was seen enters the windows.
        logs = jnp.concatenate([jnp.log(norms), jnp.log(whole)[None], log_loss[None]])
        enters = finite & jnp.isfinite(logs)
        rings, counts = _enter(
            jnp.concatenate([state.window, state.raw, state.losses], axis=1),
            jnp.concatenate([state.filled, state.raw_filled, state.losses_filled]),
            jnp.concatenate([logs[:-1], logs]),
            jnp.concatenate([enters[:-1] & ~outliers, enters]),
        )
        window, raw, losses = jnp.split(rings, (number, 2 * number), axis=1)
        filled, raw_filled, losses_filled = jnp.split(counts, (number, 2 * number))
        window, filled = (
            jnp.where(release[None], raw, window),
            jnp.where(release, raw_filled, filled),
        )

        count = state.steps if step is None else step
        due, detailed = count % every == 0, count % max(every, _DETAILED) == 0
        if branch:
            due |= ~finite
            surprising = jnp.log(whole) > center[-1] + jnp.maximum(
                math.log(2), deviations / 2 * spread[-1]
            )
            detailed |= ~finite | (due & surprising) | outliers.any()
            due |= detailed

        # What is updated in place is read before, or the compiler would keep a copy of it at every step.
        old = state.verdict
        nothing = [jnp.zeros_like(each) for each in by_layer]
        held_norms, counts, ratio = nothing, old.statistics[:, 3:], old.moment_ratio
        if leaves:
            held_norms, ratio = _if(
                due,
                lambda: (
                    probes.leaf_norms(held, where.stacked),
                    _moment_ratio(gradients, state.inner),
                ),
                lambda: (nothing, ratio),
            )
            counts = _if(detailed, lambda: probes.layer_counts(gradients, where), lambda: counts)
        # Never false; a barrier would not do.
        finite &= (
            ~(jnp.sum(jnp.concatenate(held_norms)) + jnp.sum(counts) + ratio < 0)
            if leaves
            else True
        )

        def clip() -> PyTree:
            clipped = [leaf * coefficients[i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
            return jax.tree.unflatten(structure, clipped)

        def take(hold: _Moved) -> tuple[PyTree, PyTree]:
            own = hold.landed if in_place else params
            updates, after = inner.update(clip(), hold.inner, own, **extra)
            # A state that is kept and one that is new are of one type.
            return updates, jax.tree.map(
                lambda new, old: new.astype(old.dtype) if new.dtype != old.dtype else new,
                after,
                hold.inner,
            )

        def land(updates: PyTree, hold: _Moved) -> PyTree:
            if not in_place:
                return updates
            return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), hold.landed, updates)

        def advance(measured: bool, hold: _Moved) -> _Moved:
            updates, after = take(hold)
            norms = probes.leaf_norms(updates, where.stacked) if measured else hold.norms
            landed, fine = land(updates, hold), jnp.ones((), bool)
            return _Moved(landed, after, extents, norms, fine, hold.rescaled)

        def judge(hold: _Moved) -> _Moved:
            updates, after = take(hold)
            moved = probes.leaf_norms(updates, where.stacked)
            fine = finite & (_norm(jnp.concatenate(moved)) < jnp.inf if leaves else True)
            rescaled = hold.rescaled
            if vanishing == "rescale" and params is not None:
                gains, rescaled = _gains(by_layer, moved, params, where, rescaled, fine)
                updates = _scale_layers(updates, gains, where)
                moved = probes.leaf_norms(updates, where.stacked)
            updates = jax.tree.map(lambda u: jnp.where(fine, u, -jnp.zeros_like(u)), updates)
            after = jax.tree.map(lambda new, old: jnp.where(fine, new, old), after, hold.inner)
            moved = [jnp.where(fine, norm, 0.0) for norm in moved]
            reached = jnp.full_like(state.extents, jnp.inf)
            if shortcut:
                lost = ~jnp.isfinite(extents).all()
                reached = _if(lost, lambda: _extents(after, gradients), lambda: extents)
                reached = jnp.where(fine, reached, state.extents)
            return _Moved(land(updates, hold), after, reached, moved, fine, rescaled)

        proven: Array | bool = False
        extents = state.extents
        branches = branch and isinstance(finite, jax.core.Tracer) and bool(leaves)
        if branches and vanishing == "ignore":
            reach = 1.01 * jnp.max(coefficients * norms)
            proven, extents = _foresee(
                inner, clip(), state.inner, params, extra, reach, state.extents
            )
        shortcut = proven is not False
        ways: list[tuple[Array, Callable[[_Moved], _Moved]]] = [(finite, judge)]
        if shortcut:
            ways = [
                (finite & proven & ~due, functools.partial(advance, False)),
                (finite & proven & due, functools.partial(advance, True)),
                (finite & ~proven, judge),
            ]
        landed = params
        if not in_place:
            shapes = jax.eval_shape(
                lambda: inner.update(gradients, state.inner, params, **extra)[0]
            )
            landed = jax.tree.map(lambda leaf: -jnp.zeros(leaf.shape, leaf.dtype), shapes)
        moved = _Moved(
            landed, state.inner, state.extents, nothing, jnp.zeros((), bool), old.rescaled
        )
        # One after the other, at most one of them taken: branches of one choice would be copied from.
        for wanted, way in ways:
            moved = jax.lax.cond(wanted, way, lambda hold: hold, moved) if branches else way(moved)
        finite = moved.fine
        statistics = old.statistics
        if leaves:
            statistics = _if(
                due | ~finite if branch else due,
                lambda: probes.layer_statistics(
                    gradients,
                    held,
                    gradients,
                    where,
                    gradient_norms=by_layer,
                    parameter_norms=held_norms,
                    update_norms=moved.norms,
                    counts=counts,
                ),
                lambda: old.statistics,
            )
        smallest = jnp.min(coefficients, initial=1.0)
        seen_before = jnp.minimum(state.steps, 99).astype(jnp.float32)
        share = state.verdict.clipped_share
        share = share + ((smallest < 1) - share) / (seen_before + 1)
        return moved.landed, GuardState(
            inner=moved.inner,
            extents=moved.extents,
            steps=state.steps + 1,
            window=window,
            filled=filled,
            raw=raw,
            raw_filled=raw_filled,
            streak=jnp.where(release, 0, streak).astype(jnp.int32),
            losses=losses,
            losses_filled=losses_filled,
            verdict=Verdict(
                accepted=finite,
                coefficient=smallest,
                skipped_in_a_row=jnp.where(finite, 0, state.verdict.skipped_in_a_row + 1),
                clipped_share=share,
                released=release.any(),
                rescaled=moved.rescaled,
                norm=whole,
                bound=jnp.exp(bound[-1]),
                statistics=statistics,
                moment_ratio=ratio,
            ),
        )

    guarded = Guard(init, functools.partial(follow, False))
    guarded.step = functools.partial(follow, True)
    return guarded


class Guard(optax.GradientTransformationExtraArgs):
    """A guarded optimizer.

    Attributes:
        init: of parameters.
        update: as of any optax transformation.
        step: `step(gradients, state, params, ...) -> (params, state)`, with the arguments of `update`: the
            update and its application in one, which under donation touches parameters and state once.
    """

    step: Callable[..., tuple[PyTree, GuardState]]


class _Moved(NamedTuple):
    """What a step came to: of update or parameters, the inner state and its extents, norms of the update
    by leaf, whether it was taken and whether it was rescaled."""

    landed: PyTree
    inner: PyTree
    extents: Array
    norms: list[Array]
    fine: Array
    rescaled: Array


def _if(condition: Array, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`lax.cond`, decided in Python where nothing is traced: an eager step then runs as it is written."""
    if isinstance(condition, jax.core.Tracer):
        return jax.lax.cond(condition, yes, no)
    return yes() if condition else no()


def _slots(inner: PyTree, params: PyTree) -> list[int | None]:
    """For each leaf of an optimizer's state the number of the slot it is in; None for what is none.

    A slot is a tree like the parameters (all first moments, say), or an array by itself. What is known of
    its entries is known of all of them together: that is a few numbers a step, not a few a tensor.
    """
    structure: Any = jax.tree.structure(params)
    is_slot = lambda node: jax.tree.structure(node) == structure  # noqa: E731
    found: list[int | None] = []
    number = 0
    for node in jax.tree.leaves(inner, is_leaf=is_slot):
        arrays = [
            jnp.ndim(leaf) > 0 and jnp.issubdtype(leaf.dtype, jnp.floating)
            for leaf in jax.tree.leaves(node)
        ]
        found += [number if is_array else None for is_array in arrays]
        number += any(arrays)
    return found


def _hulls(values: list[bounds.Value], slots: list[int | None]) -> Array:
    """Least and largest of all values of a slot, [slots, 2]."""
    number = max((slot + 1 for slot in slots if slot is not None), default=0)
    rows = []
    for slot in range(number):
        own = [value for value, its in zip(values, slots, strict=True) if its == slot]
        lows = jnp.stack([jnp.asarray(value.low, jnp.float32) for value in own])
        highs = jnp.stack([jnp.asarray(value.high, jnp.float32) for value in own])
        rows.append(jnp.stack([lows.min(), highs.max()]))
    return jnp.stack(rows) if rows else jnp.zeros((0, 2))


def _extents(inner: PyTree, params: PyTree) -> Array:
    """Least and largest entry of the slots of an optimizer's state, infinite if not finite; [slots, 2]."""
    slots = _slots(inner, params)
    leaves = jax.tree.leaves(inner)
    values = [
        bounds.UNKNOWN if slot is None else bounds.observe(leaf)
        for leaf, slot in zip(leaves, slots, strict=True)
    ]
    return _hulls(values, slots)


def _itself(leaf: Array) -> Array:
    return leaf


def _foresee(
    inner: optax.GradientTransformationExtraArgs,
    gradients: PyTree,
    state: PyTree,
    params: PyTree,
    extra: dict[str, Any],
    largest: Array,
    extents: Array,
) -> tuple[Array | bool, Array]:
    """Whether the update must be finite, False if it can never be told; and the extents after it."""
    # One interval for all, not one like the other: tensors that are treated alike are followed once.
    low, high = -largest, largest
    values = [
        bounds.Value(low, high, functools.partial(_itself, leaf))
        for leaf in jax.tree.leaves(gradients)
    ]
    slots = _slots(state, gradients)
    known = [bounds.Value(*extent) for extent in extents]
    for leaf, slot in zip(jax.tree.leaves(state), slots, strict=True):
        values.append(bounds.known(leaf) if slot is None else known[slot])
    # Parameters that are not finite are not made by an update, and not judged by one.
    parameter = bounds.Value(jnp.float32(-_LARGEST_PARAMETER), jnp.float32(_LARGEST_PARAMETER))
    values += [parameter for _ in jax.tree.leaves(params)]
    updates, after = bounds.propagate(
        lambda gradients, state, params: inner.update(gradients, state, params, **extra),
        (gradients, state, params),
        values,
    )
    is_value = lambda node: isinstance(node, bounds.Value)  # noqa: E731
    found = jax.tree.leaves(after, is_leaf=is_value)
    held = [value for value, slot in zip(found, slots, strict=True) if slot is not None]
    proven = bounds.finite([*jax.tree.leaves(updates, is_leaf=is_value), *held])
    return proven, _hulls(found, slots)


def holds_moments(node: Any) -> bool:
    """Whether a node of an optimizer's state is the one that holds its second moments, as `nu`."""
    return hasattr(node, "_fields") and "nu" in node._fields


def _moment_ratio(gradients: PyTree, inner: PyTree) -> Array:
    """√mean(g²/v), where the state within holds second moments of such gradients; else 0.

    Of evenly spread entries of each tensor: the mean of a few thousand tells as much as that of all.
    """
    structure: Any = jax.tree.structure(gradients)
    for node in jax.tree.leaves(inner, is_leaf=holds_moments):
        if holds_moments(node) and jax.tree.structure(node.nu) == structure:
            pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(node.nu), strict=True)
            sums, counts = [], []
            for gradient, moment in pairs:
                stride = max(1, moment.size // _SPREAD)
                gradient, moment = gradient.reshape(-1)[::stride], moment.reshape(-1)[::stride]
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
