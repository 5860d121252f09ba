"""Going back to a snapshot that is carried along."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import models, train


def quadratic(params, model_state, rows, batch, context, key):
    return jnp.mean(jnp.square(params["w"] - batch)), (model_state, {})


def start(rate, value=1.0):
    optimizer = optax.sgd(rate)
    state = train.create_state(
        jax.random.key(0), params={"w": jnp.full(4, value)}, optimizer=optimizer
    )
    return state, train.make_step(train.Task(quadratic), optimizer=optimizer)


BATCHES = 0.1 * jax.random.normal(jax.random.key(1), (300, 1))


def test_a_run_that_learns_is_what_it_was():
    state, step = start(0.3)
    plain, reports = train.repeat(step)(jax.tree.map(jnp.copy, state), BATCHES, 300)
    after, same = train.repeat(train.rewinding(step))(train.rewindable(state), BATCHES, 300)
    chex.assert_trees_all_equal(train.unwound(after), plain)
    chex.assert_trees_all_equal(same.loss, reports.loss)
    assert int(train.rewound(after).times) == 0


def test_it_goes_back_and_slows_down():
    state, step = start(9.0)
    program = train.repeat(train.rewinding(step, factor=0.5))
    after, reports = program(train.rewindable(state), BATCHES, 300)
    held = train.rewound(after)
    assert int(held.times) == 2 and float(held.share) == 0.25
    assert np.median(reports.loss[-50:]) < 0.1


def test_it_goes_back_to_what_was_learned():
    """Learned for a hundred steps; then a schedule loses its mind."""
    schedule = optax.piecewise_constant_schedule(0.3, {100: 100.0, 110: 0.01})
    optimizer = optax.sgd(schedule)
    state = train.create_state(jax.random.key(0), params={"w": jnp.ones(4)}, optimizer=optimizer)
    step = train.make_step(train.Task(quadratic), optimizer=optimizer)
    lost, _ = train.repeat(step)(jax.tree.map(jnp.copy, state), BATCHES, 120)
    assert float(jnp.abs(lost.params["w"]).max()) > 10
    after, _ = train.repeat(train.rewinding(step, every=40))(train.rewindable(state), BATCHES, 140)
    assert int(train.rewound(after).times) >= 1
    # Also while it is still mad: what was saved is what was learned.
    saved = train.rewound(after).saved[0]
    assert float(jnp.abs(saved).max()) < 0.2


def test_steps_that_are_refused_throughout_are_lost():
    state, step = start(0.3)
    batches = BATCHES.at[50:].set(jnp.nan)
    after, _ = train.repeat(train.rewinding(step))(train.rewindable(state), batches, 120)
    assert int(train.rewound(after).times) > 0
    assert np.isfinite(after.params["w"]).all()


def test_members_go_back_one_by_one():
    rates = jnp.array([0.3, 9.0])

    def member(rate):
        state, step = start(rate)
        return train.repeat(train.rewinding(step, factor=0.5))(
            train.rewindable(state), BATCHES, jnp.int32(300)
        )[0]

    both = jax.jit(jax.vmap(member))(rates)
    assert train.rewound(both).times.tolist() == [0, 2]
    alone = jax.jit(member)(rates[0])
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[0], both.params), alone.params, rtol=1e-6
    )


def test_a_fit_goes_back():
    noise = np.random.default_rng(0)
    x = noise.normal(size=(400, 8)).astype(np.float32)
    y = (x[:, :2].sum(1) > 0).astype(np.int32)
    schedule = optax.piecewise_constant_schedule(0.1, {150: 3000.0})
    settings = dict(num_steps=300, batch_size=32, key=jax.random.key(0), monitor=False)
    loss = optax.softmax_cross_entropy_with_integer_labels
    given = (models.MLP((16,), 2), loss, optax.sgd(schedule), (x, y))
    lost = train.fit(*given, **settings)
    saved = train.fit(*given, rewind=50, **settings)
    assert lost.rewinds == 0 and saved.rewinds > 0
    assert np.median(saved.loss_curve[-30:]) < 0.2
    assert not np.median(lost.loss_curve[-30:]) < 0.7


def test_what_is_refused():
    _, step = start(0.1)
    with pytest.raises(ValueError, match="every must be"):
        train.rewinding(step, every=0)
    with pytest.raises(ValueError, match="factor in"):
        train.rewinding(step, factor=1.0)


def test_unwound_is_the_inverse():
    state, _ = start(0.1)
    again = train.unwound(train.rewindable(state))
    assert dataclasses.fields(again) == dataclasses.fields(state)
    chex.assert_trees_all_equal(again, state)
