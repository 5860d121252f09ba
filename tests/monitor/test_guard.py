"""The guard: what it lets through, what it does not, and that it lets go again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import monitor
from jaxml.monitor.guard import RELEASE_AFTER

PARAMS = {"a": {"kernel": jnp.ones(4)}, "b": {"kernel": -jnp.zeros((3, 3))}}
GUARDED = monitor.guard(optax.adam(0.1))


def gradients(norm):
    """Of this norm in all, the same direction each time."""
    return {
        "a": {"kernel": jnp.full(4, norm / 2 / np.sqrt(2))},
        "b": {"kernel": jnp.full((3, 3), norm / 3 / np.sqrt(2))},
    }


@jax.jit
def follow(norms):
    """Verdicts on gradients of these norms."""

    def step(state, norm):
        _, state = GUARDED.update(gradients(norm), state, PARAMS)
        return state, state.verdict

    return jax.lax.scan(step, GUARDED.init(PARAMS), norms)[1]


def verdicts(norms):
    padded = np.ones(400, np.float32)
    padded[: len(norms)] = norms
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(norms)], follow(padded))


def clipped(norms):
    return np.flatnonzero(verdicts(norms).coefficient < 1).tolist()


def noisy(number, deviation=0.2, seed=0):
    return np.exp(np.random.default_rng(seed).normal(0, deviation, number))


@pytest.mark.parametrize("deviation", [1e-6, 0.05, 0.3, 1.0])
def test_noise_is_left_alone(deviation):
    for seed in range(3):
        found = verdicts(noisy(400, deviation, seed))
        assert (found.coefficient == 1).all() and found.accepted.all()


@pytest.mark.parametrize(
    "norms",
    [
        np.geomspace(1, 1e-6, 400),
        np.linspace(1e-3, 1, 400),
        np.concatenate([np.zeros(20), noisy(300)]),
        np.concatenate([noisy(100), 3 * noisy(200)]),
        1e-12 * noisy(300),
        1e12 * noisy(300),
    ],
    ids=["fall", "warm-up", "zero at first", "rise of 3", "tiny", "huge"],
)
def test_what_is_healthy_is_left_alone(norms):
    assert clipped(norms) == []


def test_a_spike_is_scaled_to_its_bound():
    norms = noisy(100)
    norms[60] = 1e4
    found = verdicts(norms)
    assert np.flatnonzero(found.coefficient < 1).tolist() == [60]
    reached = found.coefficient[60] * 1e4
    assert 3 < reached < 15
    assert found.norm[60] == pytest.approx(1e4, rel=1e-4)


def test_the_start_is_guarded_too():
    norms = noisy(50)
    norms[2] = 1e4
    assert clipped(norms) == [2]


def test_a_burst_masks_nothing():
    norms = noisy(200)
    norms[100:120] = 1e3
    norms[121] = 50
    assert clipped(norms) == [*range(100, 120), 121]


@pytest.mark.parametrize("factor", [3.0, 10.0, 1e4])
def test_a_lasting_shift_is_let_go(factor):
    norms = noisy(300)
    norms[100:] *= factor
    found = verdicts(norms)
    assert (found.coefficient[100 + 2 * RELEASE_AFTER :] == 1).all()
    assert found.released.any() == (factor > 6)


def test_a_steady_explosion_is_clipped():
    norms = np.minimum(1.3 ** np.arange(200), 1e17)
    assert len(clipped(norms)) > 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])
def test_one_bad_step_costs_one_step(bad):
    norms = noisy(200)
    norms[100] = bad
    found = verdicts(norms)
    assert np.flatnonzero(~found.accepted).tolist() == [100]
    assert (found.coefficient == 1).all()


def test_a_lasting_nan_is_never_let_through():
    found = verdicts(np.where(np.arange(300) < 20, 1.0, np.nan))
    assert not found.accepted[20:].any()
    assert found.skipped_in_a_row[-1] == 280


def test_a_refused_step_changes_no_bit():
    optimizer = monitor.guard(optax.adam(0.1))
    state = optimizer.init(PARAMS)
    updates, state = optimizer.update(gradients(1.0), state, PARAMS)
    params = optax.apply_updates(PARAMS, updates)
    before = jax.tree.map(np.asarray, (params, state.inner))
    bad = gradients(1.0)
    bad["a"]["kernel"] = bad["a"]["kernel"].at[1].set(jnp.nan)
    updates, state = optimizer.update(bad, state, params)
    after = jax.tree.map(np.asarray, (optax.apply_updates(params, updates), state.inner))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert old.tobytes() == new.tobytes()
    assert np.signbit(-np.zeros(1) + np.asarray(updates["b"]["kernel"])).all()


def test_the_loss_refuses_a_step():
    optimizer = monitor.guard(optax.sgd(0.1))
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(gradients(1.0), state, PARAMS, value=jnp.float32(jnp.nan))
    assert not state.verdict.accepted


def test_an_infinite_update_is_refused():
    bad = optax.stateless(lambda updates, params: jax.tree.map(lambda u: u / 0, updates))
    optimizer = monitor.guard(bad)
    _, state = optimizer.update(gradients(1.0), optimizer.init(PARAMS), PARAMS)
    assert not state.verdict.accepted


@pytest.mark.parametrize(
    "inner", [optax.sgd(0.1, momentum=0.9), optax.adamw(0.01), optax.lion(1e-3)]
)
def test_a_healthy_step_is_the_inner_optimizers(inner):
    optimizer = monitor.guard(inner)
    state, own = optimizer.init(PARAMS), inner.init(PARAMS)
    for step in range(3):
        updates, state = optimizer.update(gradients(1.0 + step), state, PARAMS)
        wanted, own = inner.update(gradients(1.0 + step), own, PARAMS)
        for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(wanted), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_members_are_judged_by_themselves():
    norms = np.stack([noisy(80, seed=s) for s in range(3)]).astype(np.float32)
    norms[1, 40] = np.nan
    norms[2, 50] = 1e4

    def run(norms):
        def step(state, norm):
            _, state = GUARDED.update(gradients(norm), state, PARAMS)
            return state, (state.verdict.accepted, state.verdict.coefficient)

        return jax.lax.scan(step, GUARDED.init(PARAMS), norms)[1]

    taken, coefficient = jax.jit(jax.vmap(run))(norms)
    assert np.argwhere(~taken).tolist() == [[1, 40]]
    assert np.argwhere(coefficient < 1).tolist() == [[2, 50]]


def test_one_tensor_is_clipped_alone():
    optimizer = monitor.guard(optax.sgd(1.0))
    state = optimizer.init(PARAMS)
    update = jax.jit(optimizer.update)
    for _ in range(60):
        _, state = update(gradients(1.0), state, PARAMS)
    spiked = gradients(1.0)
    spiked["a"]["kernel"] *= 1e3
    updates, state = update(spiked, state, PARAMS)
    assert np.linalg.norm(updates["a"]["kernel"]) < 10
    # The other one is held back by what is left of the whole alone.
    assert np.linalg.norm(updates["b"]["kernel"]) > 0.5 / np.sqrt(2)


def test_vanishing_updates_are_rescaled_and_released():
    params = {f"layer_{i}": {"kernel": jnp.full(4, 0.5)} for i in range(5)}
    optimizer = monitor.guard(optax.sgd(1.0), vanishing="rescale")
    state, update = optimizer.init(params), jax.jit(optimizer.update)

    def of_ratio(ratio):
        return {f"layer_{i}": {"kernel": jnp.full(4, 0.01 * ratio ** (4 - i))} for i in range(5)}

    for _ in range(8):
        _, state = update(of_ratio(0.9), state, params)
    updates, state = update(of_ratio(0.1), state, params)
    sizes = [float(jnp.linalg.norm(updates[f"layer_{i}"]["kernel"])) for i in range(5)]
    assert state.verdict.rescaled and np.allclose(sizes, sizes[-1], rtol=1e-4)
    updates, state = update(of_ratio(0.9), state, params)
    assert not state.verdict.rescaled
    assert float(updates["layer_0"]["kernel"][0]) == pytest.approx(-0.01 * 0.9**4)


def test_it_runs_in_a_chain_with_donation():
    optimizer = optax.chain(monitor.guard(optax.adam(1e-2)), optax.scale(0.5))
    params, traces = {"w": jnp.ones(3)}, []

    def step(params, state):
        traces.append(1)
        updates, state = optimizer.update({"w": params["w"]}, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    state = optimizer.init(params)
    for _ in range(3):
        params, state = compiled(params, state)
    assert len(traces) == 1
    assert monitor.verdict(state).accepted


@pytest.mark.parametrize(
    "wrong", [{"deviations": 0.0}, {"factor": 1.0}, {"vanishing": "no"}, {"every": 0}]
)
def test_bad_options(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        monitor.guard(optax.sgd(0.1), **wrong)
