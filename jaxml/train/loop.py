"""The training loop: a compiled inner loop over steps, and an outer one on the host."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks
from jaxml.ids import at_most_32_bits
from jaxml.train.state import Report, State
from jaxml.types import Array, PyTree

Step = Callable[[State, PyTree], tuple[State, Report]]
Program = Callable[[State, PyTree, Any], tuple[State, Report]]

# Steps of the first call, where the time of a call is bounded.
_FIRST_CALL = 16


def repeat(step: Step) -> Program:
    """Compiles many steps into one program.

    The number of steps is an argument of the program, so that where calls end does not change a bit.

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
        return take_steps(step, batches, 0, count, state, blank_reports(step, state, batches))

    return jax.jit(many, donate_argnums=0)


def blank_reports(step: Callable[[Any, Any], Any], state: Any, batches: PyTree) -> Report:
    """Returns reports of zeros, one for each of the batches."""
    length = jax.tree.leaves(batches)[0].shape[0]
    one = jax.eval_shape(step, state, jax.tree.map(lambda leaf: leaf[0], batches))[1]
    return jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), one)


def take_steps(
    step: Callable[[Any, Any], Any], batches: PyTree, first: Any, end: Any, state: Any, reports: Any
) -> tuple[Any, Any]:
    """Returns state and reports after the steps `first` to `end - 1` of the batches."""

    def body(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, reports = carry
        state, report = step(state, jax.tree.map(lambda leaf: leaf[i], batches))
        return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), reports, report)

    return jax.lax.fori_loop(first, end, body, (state, reports))


def run(
    program: Callable[[Any, PyTree, Any], tuple[Any, Report]],
    state: Any,
    batches: Callable[[int, int], PyTree],
    *,
    num_steps: int,
    steps_per_call: int = 50,
    seconds_per_call: float | None = None,
    call_ends: Callable[[int], int] | None = None,
    on_reports: Callable[[Any, Report], Any] = lambda state, reports: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Any:
    """Trains until `state.step` is `num_steps`.

    While the device executes one call, the host makes the batches of the next. A training that continues
    from a state saved by `on_reports` gives the same bits.

    Args:
        program: as `repeat` compiles it.
        state: a `State`, or another dataclass with its `step` and `position`; its buffers are donated.
        batches: `batches(position, count)` returns a pytree of NumPy arrays `[count, …]`, the batches
            `position` to `position + count - 1`; a pure function.
        num_steps: the step count at which to stop.
        steps_per_call: the largest number of steps in one compiled call.
        seconds_per_call: start with calls of a few steps and lengthen them until they take about this long;
            None for calls of `steps_per_call`.
        call_ends: `call_ends(step)`, the step, above this one, at which a call that begins here must end;
            None for no such limit.
        on_reports: called after each call with the state and a `Report` of NumPy arrays `[count]`.
            It must not keep the state, whose buffers the next call takes.
        should_stop: called after each call; True ends the training early.

    Returns:
        The state after the last step.

    Raises:
        ValueError: if `steps_per_call` is below 1, or an integer of the batches has more than 32 bits.
    """
    steps_per_call = checks.integer("steps_per_call", steps_per_call, at_least=1)
    done, position = int(state.step), int(state.position)
    length = steps_per_call if seconds_per_call is None else min(_FIRST_CALL, steps_per_call)

    def coming() -> tuple[int, PyTree]:
        """The number of steps of the next call, and their batches."""
        end = num_steps if call_ends is None else min(num_steps, call_ends(done))
        count = min(length, end - done)
        made = jax.tree.map(partial(at_most_32_bits, "batches"), batches(position, count))
        missing = steps_per_call - count  # The program takes a fixed number of batches.
        if missing:
            made = jax.tree.map(
                lambda leaf: np.concatenate(
                    [leaf, np.zeros((missing, *leaf.shape[1:]), leaf.dtype)]
                ),
                made,
            )
        return count, made

    if done < num_steps:
        count, ahead = coming()
    while done < num_steps:
        started = time.perf_counter()
        state, reports = program(state, ahead, np.int32(count))
        done, position, last = done + count, position + count, count
        if done < num_steps:
            count, ahead = coming()
        # Copies: views would keep the whole arrays in memory.
        seen = jax.tree.map(lambda leaf, n=last: np.array(leaf[:n]), jax.device_get(reports))
        if seconds_per_call is not None:
            # At most eightfold: one call may be unusually fast or slow.
            wanted = last * seconds_per_call / max(time.perf_counter() - started, 1e-6)
            length = int(min(max(wanted, 1), 8 * length, steps_per_call))
        on_reports(state, seen)
        if should_stop():
            break
    return state


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop, the second into an interrupt.

    Yields:
        `should_stop() -> bool`, True once a signal has come. Outside of the main thread, where no handler
        can be set, always False.

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
