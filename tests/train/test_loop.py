"""The one loop: call boundaries change nothing, signals end it politely."""

import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml.train import Task, create_state, make_step, repeat, run, stop_on_signals

OPTIMIZER = optax.adam(1e-2)


def noisy_loss(params, model_state, rows, batch, context, key):
    """Depends on data and key, so that a wrong position or step shows."""
    noise = jax.random.normal(key, params["w"].shape)
    return jnp.sum(jnp.square(params["w"] - batch + 0.1 * noise)), (model_state, {})


def start():
    return create_state(jax.random.key(7), params={"w": jnp.zeros(3)}, optimizer=OPTIMIZER)


def batches(position, count):
    numbers = np.arange(position, position + count, dtype=np.float32)
    return np.sin(numbers)[:, None] * np.ones(3, np.float32)


@pytest.fixture(scope="module")
def program():
    return repeat(make_step(Task(noisy_loss), optimizer=OPTIMIZER))


@pytest.fixture(scope="module")
def whole(program):
    return run(program, start(), batches, num_steps=23, steps_per_call=5)


def same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(one.step) == int(other.step) and int(one.position) == int(other.position)


def test_steps_are_counted_and_each_sees_its_own_batch(program, whole):
    state = start()
    step = jax.jit(make_step(Task(noisy_loss), optimizer=OPTIMIZER))
    for i in range(23):
        state, _ = step(state, batches(i, 1)[0])
    assert int(whole.step) == 23
    np.testing.assert_allclose(whole.params["w"], state.params["w"], rtol=1e-6)


def test_a_stop_anywhere_and_going_on_gives_the_same_bits(program, whole):
    for stop_after in (1, 2, 4):
        calls = itertools.count(1)
        state = run(
            program, start(), batches, num_steps=23, steps_per_call=5,
            should_stop=lambda calls=calls, n=stop_after: next(calls) >= n,
        )  # fmt: skip
        assert int(state.step) == 5 * stop_after
        same_bits(run(program, state, batches, num_steps=23, steps_per_call=5), whole)


def test_reports_come_once_a_call_and_cover_every_step(program):
    seen = []

    def on_reports(state, reports):
        seen.append((int(state.step), reports.loss))

    run(program, start(), batches, num_steps=23, steps_per_call=5, on_reports=on_reports)
    assert [step for step, _ in seen] == [5, 10, 15, 20, 23]
    assert [len(loss) for _, loss in seen] == [5, 5, 5, 5, 3]
    assert np.concatenate([loss for _, loss in seen]).all()


def test_one_program_for_calls_of_any_length():
    traces = []

    def counted(params, model_state, rows, batch, context, key):
        traces.append(1)
        return noisy_loss(params, model_state, rows, batch, context, key)

    program = repeat(make_step(Task(counted), optimizer=OPTIMIZER))
    state = run(program, start(), batches, num_steps=7, steps_per_call=5)
    tracings = len(traces)
    run(program, state, batches, num_steps=30, steps_per_call=5)
    assert len(traces) == tracings


def test_nothing_happens_when_all_steps_are_done(program, whole):
    def no_batches(position, count):
        raise AssertionError("asked for batches")

    same_bits(run(program, whole, no_batches, num_steps=23), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), number)
        assert should_stop()
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_call_of_no_steps_is_refused(program):
    with pytest.raises(ValueError, match="steps_per_call must be an integer of at least 1, got 0"):
        run(program, start(), batches, num_steps=1, steps_per_call=0)
