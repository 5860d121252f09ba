"""The guard: which steps it accepts, clips and refuses, and that it releases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import monitor
from jaxml.monitor.guarding import RELEASE_AFTER

PARAMS = {"a": {"kernel": jnp.ones(4)}, "b": {"kernel": -jnp.zeros((3, 3))}}
GUARDED = monitor.guard(optax.adam(0.1))
STEPS = 300


def gradients(norm):
    """Of this norm in all, the same direction each time."""
    return {
        "a": {"kernel": jnp.full(4, norm / 2 / np.sqrt(2))},
        "b": {"kernel": jnp.full((3, 3), norm / 3 / np.sqrt(2))},
    }


@jax.jit
@jax.vmap
def follow(norms, losses):
    """Verdicts on gradients of these norms; one compiled program for all cases."""

    def step(state, given):
        norm, loss = given
        _, state = GUARDED.update(gradients(norm), state, PARAMS, value=loss)
        return state, state.verdict

    return jax.lax.scan(step, GUARDED.init(PARAMS), (norms, losses))[1]


def verdicts(*cases, loss=1.0):
    """Of three cases at most, the members of one population."""
    norms, losses = np.ones((2, 3, STEPS), np.float32)
    for row, case in zip(norms, cases, strict=False):
        row[: len(case)] = case
    losses[:] = loss
    found = jax.tree.map(np.asarray, follow(norms, losses))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(cases))]


def clipped(found):
    return np.flatnonzero(found.coefficients.min(1) < 1).tolist()


def noisy(number=STEPS, deviation=0.2, seed=0):
    return np.exp(np.random.default_rng(seed).normal(0, deviation, number))


def test_healthy_changes_are_not_clipped():
    cases = {
        **{f"noise {i}": noisy(deviation=s, seed=i) for i, s in enumerate([1e-6, 0.05, 0.3, 1.0])},
        "fall": np.geomspace(1, 1e-6, STEPS),
        "warm-up": np.linspace(1e-3, 1, STEPS),
        "zero at first": np.concatenate([np.zeros(20), noisy(280)]),
        "rise of 3": np.concatenate([noisy(100), 3 * noisy(200)]),
        "tiny": 1e-12 * noisy(),
        "huge": 1e12 * noisy(),
        "glitches to almost 0": np.where(np.arange(STEPS) % 60 == 50, 1e-10, noisy()),
        "large at first": np.concatenate([[1e4], noisy(299)]),
    }
    names = list(cases)
    for some in (names[i : i + 3] for i in range(0, len(names), 3)):
        for name, found in zip(some, verdicts(*(cases[each] for each in some)), strict=True):
            assert clipped(found) == [] and found.accepted.all(), name


def test_spikes_are_scaled_to_their_bounds():
    spike, start, burst = noisy(), noisy(), noisy()
    spike[60], start[2] = 1e4, 1e4
    burst[100:120], burst[121] = 1e3, 50
    found = verdicts(spike, start, burst)
    assert [clipped(each) for each in found] == [[60], [2], [*range(100, 120), 121]]
    assert np.exp(found[0].log_norms[60, -2]) == pytest.approx(1e4, rel=1e-4)
    left = found[0].coefficients[60] * np.exp(found[0].log_norms[60, :-2])
    assert 3 < np.linalg.norm(left) < 15


def test_lasting_shifts_are_released_and_explosions_are_not():
    shifts = [np.concatenate([noisy(100), factor * noisy(200)]) for factor in (10, 1e4)]
    *found, explosion = verdicts(*shifts, np.minimum(1.3 ** np.arange(200), 1e17))
    near, far = (set(clipped(each)) for each in found)
    assert near and near <= set(range(100, 100 + 2 * RELEASE_AFTER))
    assert far == set(range(100, 100 + RELEASE_AFTER - 1))
    assert len(clipped(explosion)) > 90  # Of 150 steps that it grows.


def test_no_shift_is_released_while_the_loss_has_grown():
    shift = np.concatenate([noisy(100), 100 * noisy(200)])
    loss = np.where(np.arange(STEPS) < 100, 1.0, 20.0)
    (found,) = verdicts(shift, loss=loss)
    assert clipped(found) == [*range(100, 100 + 2 * RELEASE_AFTER - 1)]


@pytest.mark.parametrize("factor", [1.5, 3.0, 1e12])
@pytest.mark.parametrize("before", [0, 24, 25, 40, 60])
def test_a_loss_that_exploded_before_the_norm_is_not_forgotten(before, factor):
    """It grows by a factor a step until it stands at 10¹² times what it was."""
    shift = np.concatenate([noisy(100), 1e6 * noisy(200)])
    steps = np.arange(STEPS) - 99.0 + before
    loss = factor ** np.clip(steps, 0, np.log(1e12) / np.log(factor))
    (found,) = verdicts(shift, loss=loss)
    assert clipped(found) == [*range(100, 100 + 2 * RELEASE_AFTER - 1)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])
def test_a_step_that_is_not_finite_is_refused_alone(bad):
    """Members of a population are judged by themselves."""
    norms = noisy()
    norms[100] = bad
    found, lasting, other = verdicts(
        norms, np.where(np.arange(STEPS) < 20, 1.0, np.nan), noisy(seed=1)
    )
    assert np.flatnonzero(~found.accepted).tolist() == [100]
    assert np.flatnonzero(~lasting.accepted).tolist() == [*range(20, STEPS)]
    assert other.accepted.all()
    assert clipped(found) == clipped(lasting) == clipped(other) == []


def test_the_loss_refuses_a_step():
    loss = np.ones(STEPS)
    loss[[5, 9]] = np.nan, np.inf
    (found,) = verdicts(noisy(), loss=loss)
    assert np.flatnonzero(~found.accepted).tolist() == [5, 9]


def same_bits(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def test_a_refused_step_changes_no_bit():
    update = jax.jit(GUARDED.update)
    updates, state = update(gradients(1.0), GUARDED.init(PARAMS), PARAMS)
    params = optax.apply_updates(PARAMS, updates)
    bad = gradients(1.0)
    bad["a"]["kernel"] = bad["a"]["kernel"].at[1].set(jnp.nan)
    updates, after = update(bad, state, params)
    assert same_bits((optax.apply_updates(params, updates), after.inner), (params, state.inner))
    updates, after = update(gradients(1.0), state, params, accept=jnp.array(False))
    assert not after.verdict.accepted
    assert same_bits((optax.apply_updates(params, updates), after.inner), (params, state.inner))


def failing(where):
    """An optimizer whose update or state overflows, though the gradient is finite."""

    def update(gradients, state, params=None):
        number = jax.tree.map(lambda leaf: leaf * 0 + 1e30, gradients)
        squared = jax.tree.map(lambda leaf: leaf * leaf, number)
        small = jax.tree.map(jnp.zeros_like, gradients)
        return {
            "update": (squared, state),
            "moments": (small, (squared, *state[1:])),
            "scalar": (small, (state[0], state[1] * 1e30 * 1e30, state[2])),
            "nothing": (small, state),
        }[where]

    def init(params):
        # An infinity that was there before is none of the step's.
        return jax.tree.map(jnp.zeros_like, params), jnp.ones(()), jnp.full((), jnp.inf)

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("where", ["update", "moments", "scalar", "nothing"])
def test_what_an_optimizer_keeps_is_finite(where):
    optimizer = monitor.guard(failing(where))
    _, state = optimizer.update(gradients(1.0), optimizer.init(PARAMS), PARAMS)
    assert state.verdict.accepted == (where == "nothing")


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    optimizer = monitor.guard(optax.adam(0.1))
    update = jax.jit(optimizer.update)
    state, verdicts = optimizer.init(params), []
    for norm in (1.0, 2.0, 3e4):
        given = jax.tree.map(lambda leaf: leaf.astype(dtype), gradients(norm))
        updates, state = update(given, state, params)
        params = optax.apply_updates(params, updates)
        verdicts.append(bool(state.verdict.accepted))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state.inner)))
    # Clipped, the last one is within what even float16 squares.
    assert verdicts == [True] * 3
    far = jax.tree.map(lambda leaf: jnp.full_like(leaf, 6e4), params)
    push = monitor.guard(optax.sgd(-1.0))
    _, state = push.update(far, push.init(params), far)
    assert state.verdict.accepted == (dtype == jnp.bfloat16)


@pytest.mark.optimized
@pytest.mark.parametrize(
    "inner",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.adamw(0.01),
        optax.adafactor(0.01),
        optax.contrib.reduce_on_plateau(),
    ],
)
def test_a_healthy_step_is_the_inner_optimizers(inner):
    optimizer = monitor.guard(inner)
    state, own = optimizer.init(PARAMS), inner.init(PARAMS)
    inner = optax.with_extra_args_support(inner)
    for step in range(3):
        updates, state = optimizer.update(gradients(1.0 + step), state, PARAMS, value=1.0)
        wanted, own = inner.update(gradients(1.0 + step), own, PARAMS, value=1.0)
        assert same_bits((updates, state.inner), (wanted, own)) and state.verdict.accepted


def test_a_tensor_is_clipped_alone_stacked_or_not():
    params = {"blocks": {"kernel": jnp.ones((3, 4))}, "out": {"kernel": jnp.ones(4)}}
    layout = monitor.layout(params, stacked={("blocks",): 3})
    optimizer = monitor.guard(optax.sgd(1.0), layout)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(30):
        _, state = update(params, state, params)
    spiked = {"blocks": {"kernel": params["blocks"]["kernel"].at[1].mul(1e3)}, "out": params["out"]}
    updates, state = update(spiked, state, params)
    norms = np.linalg.norm(updates["blocks"]["kernel"], axis=1)
    assert norms[1] < 20 and (norms[[0, 2]] > 1).all()
    assert np.linalg.norm(updates["out"]["kernel"]) > 1
    np.testing.assert_allclose(state.verdict.update_norms, [*norms, norms[0]], rtol=1e-5)


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
    assert monitor.is_guarded(state) and monitor.verdict(state).accepted
    with pytest.raises(ValueError, match="one GuardState, got 0"):
        monitor.verdict(optax.EmptyState())


def test_no_parameters_and_wide_numbers():
    optimizer = monitor.guard(optax.adam(0.1))
    _, state = optimizer.update({}, optimizer.init({}), {})
    assert state.verdict.accepted
    with jax.enable_x64(True):
        params = {"w": jnp.ones(3, jnp.float64)}
        state = optimizer.init(params)
        dtypes = jax.tree.map(lambda leaf: leaf.dtype, state)
        for value in (1.0, 2.0):
            updates, state = jax.jit(optimizer.update)(params, state, params, value=value)
        assert updates["w"].dtype == jnp.float64 and state.verdict.accepted
        assert jax.tree.map(lambda leaf: leaf.dtype, state) == dtypes


@pytest.mark.optimized
def test_no_result_is_computed_again_for_each_of_its_uses():
    """The cost of chained optimizers is the sum of their costs, in the program that is run."""
    params = {f"layer_{i}": jnp.ones((4, 4)) for i in range(4)}
    parts = optax.scale_by_adam(), optax.scale_by_belief(), optax.scale_by_amsgrad()

    def cost(optimizer):
        step = jax.jit(lambda g, s, p: optimizer.update(g, s, p, value=jnp.float32(1)))
        compiled = step.lower(params, optimizer.init(params), params).compile()
        return compiled.cost_analysis()["flops"]

    one, all_three = (cost(monitor.guard(optax.chain(*parts[:n]))) for n in (1, 3))
    assert all_three < 3.5 * one


@pytest.mark.optimized
def test_the_program_is_small():
    """Lines of HLO against those of the optimizer alone; of chained optimizers no more than of each."""
    params = {f"layer_{i}": {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)} for i in range(9)}

    def lines(optimizer):
        optimizer = optax.with_extra_args_support(optimizer)
        step = jax.jit(lambda g, s, p: optimizer.update(g, s, p, value=jnp.float32(1)))
        return len(step.lower(params, optimizer.init(params), params).as_text().splitlines())

    bare = lines(optax.adam(0.1))
    assert lines(monitor.guard(optax.adam(0.1))) < 2.5 * bare
    chained = optax.chain(*[optax.scale_by_adam() for _ in range(3)])
    assert lines(monitor.guard(chained)) < 2.5 * lines(chained)
