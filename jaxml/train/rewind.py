"""A step that keeps a snapshot in the carry, and goes back to it when the training is lost."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxml import trees
from jaxml.train.loop import Step
from jaxml.train.state import Report, State
from jaxml.types import Array, PyTree

__all__ = ["Rewound", "rewindable", "rewinding", "rewound", "unwound"]

# Losses of which the median is the level.
_WINDOW = 16


class Rewound(NamedTuple):
    """An optimizer's state, and what there is to go back to.

    Attributes:
        opt_state: the optimizer's own.
        saved: leaves of the parameters, the model's state and the optimizer's, as they were.
        usual: float32 scalar, the level of the loss when they were saved.
        first: float32 scalar, the first loss.
        recent: float32 [16], the last losses; infinite where a step was refused.
        filled: int32 scalar, how many of them there are.
        share: float32 scalar, of each step that is taken: 1 before the first rewind.
        times: int32 scalar, rewinds so far.
    """

    opt_state: PyTree
    saved: tuple[Array, ...]
    usual: Array
    first: Array
    recent: Array
    filled: Array
    share: Array
    times: Array


def _leaves(state: State) -> tuple[Array, ...]:
    return tuple(jax.tree.leaves((state.params, state.model_state, state.opt_state)))


def _once(wanted: Array, after: Any, before: Any) -> Any:
    """`after` where it is wanted, else `before`, in place: a loop of one turn or none copies nothing."""
    return jax.lax.fori_loop(0, wanted.astype(jnp.int32), lambda _, __: after, before)


def rewindable(state: State) -> State:
    """A state with a snapshot of itself: what a rewinding step takes and returns.

    Args:
        state: as `create_state` makes it.
    """
    return dataclasses.replace(
        state,
        opt_state=Rewound(
            opt_state=state.opt_state,
            saved=jax.tree.map(jnp.copy, _leaves(state)),
            usual=jnp.full((), jnp.inf),
            first=jnp.full((), jnp.inf),
            recent=jnp.full(_WINDOW, jnp.inf),
            filled=jnp.zeros((), jnp.int32),
            share=jnp.ones(()),
            times=jnp.zeros((), jnp.int32),
        ),
    )


def rewound(state: State) -> Rewound:
    """What a rewindable state holds besides."""
    return state.opt_state


def unwound(state: State) -> State:
    """The state as it was before `rewindable`."""
    return dataclasses.replace(state, opt_state=state.opt_state.opt_state)


def rewinding(step: Step, *, every: int = 50, factor: float = 0.3) -> Step:
    """A step that goes back when all that was learned is lost, and goes on from there more slowly.

    Every so many steps the dense state (parameters, model state, optimizer) is saved, if the level of the
    loss, the median of 16 steps, is no higher than when it was last saved. When the level is above that
    by as much as the loss itself and by as much as it had ever fallen, or steps are refused throughout,
    the dense state is what was saved, and each later step goes `factor` of its way. The data and the key
    go on: it meets other batches. Tables and samplers stay.

    All of it is values in the carry: under `vmap` each member goes back by itself. A run that learns is
    what it was, bit for bit.

    Args:
        step: as `make_step` builds it.
        every: steps between two snapshots.
        factor: what is left of the length of a step after a rewind, in (0, 1).

    Returns:
        A step over states made by `rewindable`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from jaxml.train import Task, create_state, make_step, repeat
        >>> import optax
        >>> def loss(params, model_state, rows, batch, context, key):
        ...     return jnp.square(params), (model_state, {})
        >>> optimizer = optax.sgd(1.5)  # Above 1 it diverges.
        >>> state = create_state(jax.random.key(0), params=jnp.ones(()), optimizer=optimizer)
        >>> program = repeat(rewinding(make_step(Task(loss), optimizer=optimizer)))
        >>> state, reports = program(rewindable(state), jnp.zeros((400, 1)), 400)
        >>> int(rewound(state).times), bool(reports.loss[-1] < 1e-6)
        (1, True)
    """
    if every < 1 or not 0 < factor < 1:
        raise ValueError(f"every must be at least 1 and factor in (0, 1), got {every} and {factor}")

    def stepped(state: State, batch: PyTree) -> tuple[State, Report]:
        held: Rewound = state.opt_state
        after, report = step(unwound(state), batch)
        shorter = jax.tree.map(
            lambda new, old: (old + held.share * (new - old)).astype(new.dtype),
            after.params,
            state.params,
        )
        params = trees.select(held.share < 1, shorter, after.params)
        after = dataclasses.replace(after, params=params)

        loss = jnp.where(report.accepted & jnp.isfinite(report.loss), report.loss, jnp.inf)
        first = jnp.where(jnp.isfinite(held.first), held.first, loss)
        usual = jnp.where(jnp.isfinite(held.usual), held.usual, first)
        recent = jnp.roll(held.recent, 1).at[0].set(loss)
        filled = jnp.minimum(held.filled + 1, _WINDOW)
        level = jnp.sort(recent)[_WINDOW // 2]
        known = filled == _WINDOW
        bound = usual + jnp.maximum(jnp.abs(usual), jnp.abs(first - usual))
        lost = known & ~(level <= bound)
        keep = known & (state.step % every == every - 1) & (level <= usual)

        leaves, structure = (
            _leaves(after),
            jax.tree.structure((after.params, after.model_state, after.opt_state)),
        )
        saved = _once(keep, leaves, held.saved)
        leaves = _once(lost, saved, leaves)
        params, model_state, opt_state = jax.tree.unflatten(structure, leaves)
        around = Rewound(
            opt_state=opt_state,
            saved=saved,
            usual=jnp.where(keep, level, usual),
            first=first,
            recent=recent,
            filled=jnp.where(lost, 0, filled),
            share=jnp.where(lost, factor * held.share, held.share),
            times=held.times + lost,
        )
        return dataclasses.replace(
            after, params=params, model_state=model_state, opt_state=around
        ), report

    return stepped
