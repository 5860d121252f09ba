"""The one loop: a compiled inner loop over steps, a thin outer one on the host."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml.train.state import Report, State
from jaxml.types import Array, PyTree

Step = Callable[[State, PyTree], tuple[State, Report]]
Program = Callable[[State, PyTree, Array], tuple[State, Report]]

# Steps of the first call, where calls are to take a certain time.
_FIRST_CALL = 16


def repeat(step: Step) -> Program:
    """Compiles many steps into one program.

    The number of steps is an argument, not part of the program: a shorter last call, or a run that was
    interrupted and goes on with other call boundaries, executes the same code and gives the same bits.

    Args:
        step: as `make_step` builds it.

    Returns:
        `program(state, batches, count) -> (state, reports)`, compiled, `state` donated. `batches` is a
        pytree whose leaves have the step as leading axis, `[steps, …]`; the first `count` are used.
        `reports` is a `Report` of arrays `[steps]`, those past `count` zero.

    Example:
        >>> from jaxml.train.state import create_state
        >>> from jaxml.train.step import Task, make_step
        >>> def loss(params, model_state, rows, batch, context, key):
        ...     return jnp.mean(batch), (model_state, {})
        >>> program = repeat(make_step(Task(loss)))
        >>> state, reports = program(create_state(jax.random.key(0)), jnp.arange(6.0).reshape(3, 2), 2)
        >>> int(state.step), reports.loss.tolist()
        (2, [0.5, 2.5, 0.0])
    """

    def many(state: State, batches: PyTree, count: Array) -> tuple[State, Report]:
        steps = jax.tree.leaves(batches)[0].shape[0]
        first = jax.tree.map(lambda leaf: leaf[0], batches)
        blank = jax.tree.map(
            lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype),
            jax.eval_shape(step, state, first)[1],
        )

        def body(i: Array, carry: tuple[State, Report]) -> tuple[State, Report]:
            state, reports = carry
            state, report = step(state, jax.tree.map(lambda leaf: leaf[i], batches))
            return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), reports, report)

        return jax.lax.fori_loop(0, count, body, (state, blank))

    return jax.jit(many, donate_argnums=0)


def run(
    program: Callable[[Any, PyTree, Array], tuple[Any, Report]],
    state: Any,
    batches: Callable[[int, int], PyTree],
    *,
    num_steps: int,
    steps_per_call: int = 50,
    seconds_per_call: float | None = None,
    on_reports: Callable[[Any, Report], Any] = lambda state, reports: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Any:
    """Trains until `state.step` is `num_steps`; everything that trains goes through here.

    While the device works on one call, the host makes the batches of the next; it reads the reports
    once a call. A state that was saved by `on_reports` and handed back in goes on exactly where it was.

    Args:
        program: as `repeat` compiles it.
        state: where to start, a `State` or what has its `step` and `position`; consumed (its buffers are
            donated).
        batches: `batches(position, count) -> pytree` of NumPy arrays `[count, …]`: the batches number
            `position` to `position + count - 1`, a pure function of their number.
        num_steps: the step count at which to stop.
        steps_per_call: steps in one compiled call; the host sees reports this often.
        seconds_per_call: begin with calls of a few steps and lengthen them, up to `steps_per_call`, until
            they take about so long; None for `steps_per_call` from the first. It changes no bit.
        on_reports: called after each call with the state and a `Report` of NumPy arrays `[count]`.
            It must not keep the state: the next call consumes it.
        should_stop: asked after each call; True ends the training early.

    Returns:
        The state after the last step.

    Raises:
        ValueError: if `steps_per_call` is below 1.
    """
    if steps_per_call < 1:
        raise ValueError(f"steps_per_call must be at least 1, got {steps_per_call}")
    done, position = int(state.step), int(state.position)
    length = steps_per_call if seconds_per_call is None else min(_FIRST_CALL, steps_per_call)

    def coming() -> tuple[int, PyTree]:
        """The number of steps of the next call, and their batches."""
        count = min(length, num_steps - done)
        made = batches(position, count)
        return count, jax.tree.map(lambda leaf: _filled(leaf, steps_per_call), made)

    if done < num_steps:
        count, ahead = coming()
    while done < num_steps:
        started = time.perf_counter()
        state, reports = program(state, ahead, jnp.int32(count))
        done, position, last = done + count, position + count, count
        if done < num_steps:
            count, ahead = coming()
        seen = jax.tree.map(lambda leaf, n=last: _head(leaf, n), reports)
        if seconds_per_call is not None:
            # At most eightfold: a call may have been fast or slow for reasons of its own.
            wanted = last * seconds_per_call / max(time.perf_counter() - started, 1e-6)
            length = int(min(max(wanted, 1), 8 * length, steps_per_call))
        on_reports(state, seen)
        if should_stop():
            break
    return state


def _filled(leaf: Any, length: int) -> Any:
    """Batches up to the number that the program takes; it does not look at those past the count."""
    missing = length - len(leaf)
    if not missing:
        return leaf
    return np.concatenate([leaf, np.zeros((missing, *leaf.shape[1:]), leaf.dtype)])


def _head(leaf: Any, count: int) -> NDArray[Any]:
    values = np.asarray(leaf)
    # A copy where much is left out, which a view would keep in memory.
    return values if count == len(values) else values[:count].copy()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a polite request, the second into an interrupt.

    Yields:
        `should_stop() -> bool`, True once a signal has come. Outside of the main thread, where no
        handler can be set, it stays False.

    Example:
        >>> with stop_on_signals() as should_stop:
        ...     should_stop()
        False
    """
    came = threading.Event()

    def note(number: int, frame: Any) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
