"""Buckets: boundaries go right, NaN has its own, and the oracles are NumPy's and scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import KBinsDiscretizer

from jaxml import features

X = np.random.default_rng(1).lognormal(0, 1, 777)
FINITE = st.floats(-1e300, 1e300)


@settings(max_examples=100, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=9, unique=True), st.lists(FINITE, max_size=9))
def test_bucketize_is_digitize_in_float64(boundaries, values):
    boundaries = sorted(boundaries)
    transform = features.bucketize(boundaries)
    around = [*values, *boundaries, *np.nextafter(boundaries, -np.inf), np.inf, -np.inf]
    ids = transform.apply(transform.fit([0.0]), around)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, np.digitize(around, boundaries))


@pytest.mark.parametrize("num", [3, 200])
def test_on_a_device_as_on_the_host(num):
    boundaries = np.sort(np.random.default_rng(num).normal(size=num))
    transform = features.bucketize(boundaries)
    state = transform.fit([0.0])
    x = np.float32([*boundaries, *np.linspace(-3, 3, 99), np.nan, np.inf, -np.inf])
    wanted = np.searchsorted(np.float32(boundaries), x, side="right")
    wanted[-3] = num + 1
    jitted = jax.jit(transform.apply)
    np.testing.assert_array_equal(jitted(state, x), wanted)
    np.testing.assert_array_equal(transform.apply(state, jnp.asarray(x)), wanted)
    np.testing.assert_array_equal(jax.vmap(transform.apply, (None, 0))(state, x), wanted)
    # A boundary that float32 rounds goes right all the same.
    assert (np.asarray(jitted(state, x))[:num] == np.arange(1, num + 1)).all()


@pytest.mark.parametrize("num", [1, 2, 5, 10])
def test_scikit_learn_agrees(num):
    if num > 1:
        for strategy, make in [
            ("uniform", features.uniform_buckets),
            ("quantile", features.quantile_buckets),
        ]:
            options = {"quantile_method": "linear"} if strategy == "quantile" else {}
            oracle = KBinsDiscretizer(num, encode="ordinal", strategy=strategy, **options)
            wanted = oracle.fit_transform(X[:, None])[:, 0]
            transform = make(num)
            np.testing.assert_array_equal(transform.apply(transform.fit(X), X), wanted)
    quantiles = features.quantile_buckets(num)
    counts = np.bincount(quantiles.apply(quantiles.fit(X), X), minlength=num)
    assert counts.max() - counts.min() <= 2


def test_ties_make_fewer_buckets_and_none_is_empty():
    x = [0.0] * 60 + [1.0] * 20 + list(range(2, 22))
    transform = features.quantile_buckets(10)
    state = transform.fit(x)
    ids = transform.apply(state, x)
    assert (np.bincount(ids) > 0).all()
    assert transform.apply(state, [None]).tolist() == [ids.max() + 1]
    assert transform.output(state).width == ids.max() + 2


@pytest.mark.parametrize("make", [features.quantile_buckets, features.uniform_buckets])
def test_edges_of_columns(make):
    transform = make(4)
    constant = transform.fit([7.0] * 5)
    assert transform.apply(constant, [6, 7, 8, np.nan]).tolist() == [0, 0, 0, 1]
    state = transform.fit([1, 2, 3, 4, np.nan, np.inf])
    assert transform.apply(state, [0, 4, 99, np.inf, -np.inf, None]).tolist() == [0, 3, 3, 3, 0, 4]
    assert transform.apply(state, 4).shape == ()
    for bad, message in [
        ([], "is empty"),
        ([np.nan], "no finite number"),
        (["a"], "text such as 'a'"),
    ]:
        with pytest.raises(ValueError, match=message):
            transform.fit(bad)
    with pytest.raises(ValueError, match="num_buckets is 0"):
        make(0)
    huge = transform.fit([-1.5e308, 1.5e308])
    assert np.isfinite(huge.boundaries).all()


@pytest.mark.parametrize("boundaries", [[], [1, 1], [2, 1], [np.nan], [np.inf], [[1]]])
def test_boundaries_that_are_none_are_refused(boundaries):
    with pytest.raises(ValueError, match="boundaries is"):
        features.bucketize(boundaries)
