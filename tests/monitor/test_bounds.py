"""Bounds of what an optimizer makes: they hold, they are found where they should be, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import monitor
from jaxml.monitor import bounds
from jaxml.monitor.guard import _extents, _foresee

PARAMS = {
    "a": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)},
    "b": {"kernel": jnp.ones((3, 2))},
}
SCHEDULE = optax.schedules.warmup_cosine_decay_schedule(0.0, 0.1, 5, 40)
FOLLOWED = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(SCHEDULE, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(SCHEDULE),
    "amsgrad": optax.amsgrad(1e-2),
    "rmsprop": optax.rmsprop(1e-2),
    "adagrad": optax.adagrad(0.1),
    "lion": optax.lion(1e-2),
    "clipped by its norm": optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2)),
    "masked": optax.masked(optax.adam(1e-2), {"a": True, "b": False}),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
}
NOT_FOLLOWED = {
    "no epsilon": optax.scale_by_adam(eps=0.0),
    "quotient": optax.stateless(lambda u, _: jax.tree.map(lambda x: x / 0, u)),
    "nan": optax.stateless(lambda u, _: jax.tree.map(lambda x: x * jnp.nan, u)),
    "log": optax.stateless(lambda u, _: jax.tree.map(jnp.log, u)),
    "overflow": optax.scale(1e33),
    "half precision": optax.stateless(
        lambda u, _: jax.tree.map(lambda x: (x * 1e5).astype(jnp.float16), u)
    ),
    "several steps": optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
}


def gradients(key, scale):
    leaves, structure = jax.tree.flatten(PARAMS)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure,
        [scale * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)],
    )


def follow(optimizer):
    """Of some steps: whether they were proven, the bounds found, and what they must hold."""
    inner = optax.with_extra_args_support(optimizer)

    def step(carry, drawn):
        params, state, extents = carry
        key, scale = drawn
        given = gradients(key, scale)
        largest = jnp.max(jnp.stack([jnp.abs(x).max() for x in jax.tree.leaves(given)]))
        proven, extents = _foresee(inner, given, state, params, {}, largest, extents)
        updates, state = inner.update(given, state, params)
        finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(updates)]).all()
        seen = (jnp.asarray(proven), finite, extents, _extents(state, params))
        return (optax.apply_updates(params, updates), state, extents), seen

    def run(keys, scales):
        state = inner.init(PARAMS)
        carry = (PARAMS, state, _extents(state, PARAMS))
        return jax.lax.scan(step, carry, (keys, scales))[1]

    scales = 10.0 ** jnp.asarray(np.random.default_rng(0).uniform(-6, 6, 40), jnp.float32)
    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.split(jax.random.key(1), 40), scales))


@pytest.mark.parametrize("name", FOLLOWED)
def test_healthy_updates_are_proven_and_bounds_hold(name):
    proven, finite, found, true = follow(FOLLOWED[name])
    assert proven.all() and finite.all()
    assert (found[..., 0] <= true[..., 0]).all() and (true[..., 1] <= found[..., 1]).all()


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_what_could_be_other_than_finite_is_not_proven(name):
    proven, finite, *_ = follow(NOT_FOLLOWED[name])
    assert not (proven & ~finite).any()
    assert not proven.all()


def test_bounds_follow_from_what_is_read():
    # The denominator is bounded only because the norm itself is read.
    scaled = lambda x: x / jnp.sqrt(jnp.sum(x * x))  # noqa: E731
    x = jnp.array([3.0, 4.0])
    values = [bounds.Value(jnp.float32(-4.0), jnp.float32(4.0), lambda: x)]
    found = bounds.propagate(scaled, (x,), values)
    assert -1 <= found.low <= -0.8 and 0.8 <= found.high <= 1
    assert not bounds.finite([bounds.propagate(scaled, (x,), [values[0]._replace(exact=None)])])


def test_a_nan_has_no_bounds():
    for cell in (jnp.nan, jnp.inf, -jnp.inf):
        assert not bounds.finite([bounds.observe(jnp.array([1.0, cell]))])
        assert not bounds.finite([bounds.known(jnp.float32(cell))])


def test_an_unjudged_step_is_the_judged_one():
    """The short way and the long one lead to the same place, up to how each program is fused."""
    optimizer = monitor.guard(optax.adam(1e-2), every=5)
    long = monitor.guard(optax.adam(1e-2), every=5, branch=False)

    def run(guarded):
        def step(carry, key):
            params, state = carry
            params, state = guarded.step(gradients(key, 1.0), state, params)
            return (params, state), state.verdict

        start = (PARAMS, guarded.init(PARAMS))
        return jax.jit(lambda keys: jax.lax.scan(step, start, keys))(
            jax.random.split(jax.random.key(0), 12)
        )

    (params, state), verdicts = run(optimizer)
    (wanted, long_state), expected = run(long)
    ends, others = (params, state.inner), (wanted, long_state.inner)
    for a, b in zip(jax.tree.leaves(ends), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(
        verdicts.statistics[::5, :, :3], expected.statistics[::5, :, :3], 1e-6
    )
    assert np.isfinite(state.extents).all() and not np.isfinite(long_state.extents).all()


def test_after_an_eager_step_nothing_is_taken_for_known():
    optimizer = monitor.guard(optax.adam(1e-2))
    state = optimizer.init(PARAMS)
    assert np.isfinite(state.extents).all()
    _, state = optimizer.update(gradients(jax.random.key(0), 1.0), state, PARAMS)
    assert not np.isfinite(state.extents).any()
    _, state = jax.jit(optimizer.update)(gradients(jax.random.key(1), 1.0), state, PARAMS)
    assert state.verdict.accepted and np.isfinite(state.extents).all()


@pytest.mark.parametrize("in_place", [False, True])
def test_an_infinite_update_that_no_gradient_shows_is_refused(in_place):
    """Adam without epsilon divides 0 by 0 where a gradient has always been 0."""
    optimizer = monitor.guard(optax.scale_by_adam(eps=0.0))
    given = gradients(jax.random.key(0), 1.0)
    given["b"]["kernel"] = jnp.zeros((3, 2))
    state = optimizer.init(PARAMS)
    if in_place:
        params, after = jax.jit(optimizer.step)(given, state, PARAMS)
    else:
        updates, after = jax.jit(optimizer.update)(given, state, PARAMS)
        params = optax.apply_updates(PARAMS, updates)
    assert not after.verdict.accepted
    before = (PARAMS, state.inner)
    for old, new in zip(
        jax.tree.leaves(before), jax.tree.leaves((params, after.inner)), strict=True
    ):
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes()
