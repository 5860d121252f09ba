"""Scalings and buckets: scikit-learn and float64 NumPy as oracles, and the edges of each."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import preprocessing

from jaxml import features

rng = np.random.default_rng(0)
X = rng.lognormal(2, 1, 501)
FINITE = st.floats(-1e300, 1e300)

ORACLES = {
    "z_score": (features.z_score(), preprocessing.StandardScaler()),
    "linear": (features.linear_scaling(-1, 3), preprocessing.MinMaxScaler((-1, 3))),
}


def applied(transform, values, later=None):
    return transform.apply(transform.fit(values), values if later is None else later)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(
    "x", [X - 9, X * 1e-10, X * 1e20, -5e12 + 1e3 * X, np.float32(X), np.arange(7)],
    ids=["signs", "small", "large", "far", "float32", "int"],
)  # fmt: skip
def test_scalings_agree_with_scikit_learn(name, x):
    transform, oracle = ORACLES[name]
    wanted = oracle.fit_transform(x.astype(np.float64)[:, None])[:, 0]
    np.testing.assert_allclose(applied(transform, x), wanted, rtol=2e-6, atol=2e-6)


def test_noise_around_large_numbers_keeps_its_digits():
    """float32 alone would round 1e9 + noise to multiples of 64."""
    x = 1e9 + rng.normal(size=1000)
    for transform in (features.z_score(), features.linear_scaling()):
        y = applied(transform, x).astype(np.float64)
        assert np.corrcoef(x - 1e9, y)[0, 1] > 1 - 1e-9
        assert len(np.unique(y)) > 990
    ids = 2**40 + np.arange(1000)
    wanted = (np.arange(1000) - 499.5) / np.arange(1000).std()
    np.testing.assert_allclose(applied(features.z_score(), ids), wanted, rtol=1e-6, atol=1e-6)
    stamps = np.datetime64("2013-01-01") + np.arange(1000).astype("m8[s]")
    np.testing.assert_array_equal(
        applied(features.z_score(), stamps), applied(features.z_score(), ids)
    )


@pytest.mark.parametrize("value", [0.0, 0.1, -123456789.123, 2**53])
def test_a_constant_column(value):
    column = np.full(1000, value)
    later = np.array([value, value + 5, value - 1e3, np.nan, np.inf])
    for transform, wanted in [
        (features.z_score(), 0),
        (features.linear_scaling(2, 4), 3),
        (features.interpolated_buckets(4), 0.5),
    ]:
        np.testing.assert_array_equal(
            applied(transform, column, later), [wanted, wanted, wanted, np.nan, wanted]
        )
    for make in (features.quantile_buckets, features.uniform_buckets):
        assert applied(make(4), column, later).tolist() == [0, 0, 0, 1, 0]


def test_linear_scaling_meets_its_ends_and_stays_within():
    for x in (X, 1e9 + X, X * 1e-6, rng.normal(size=999) * 1e5):
        for low, high in ((0, 1), (-1, 1), (0.1, 0.3), (1000, 1001)):
            y = applied(features.linear_scaling(low, high), x)
            assert y.min() == np.float32(low) and y.max() == np.float32(high)
            assert y[np.argmax(x)] == np.float32(high)
    later = applied(features.linear_scaling(), [0.0, 10.0], [-10.0, 20.0, np.inf, -np.inf])
    np.testing.assert_array_equal(later, [-1.0, 2.0, np.inf, -np.inf])


def test_log_scaling():
    log = features.log_scaling()
    np.testing.assert_allclose(applied(log, X), np.log(X), rtol=1e-6, atol=1e-6)
    for x in (np.array([0, 1, 2, 1e6]), np.array([0, 1e-6, 1e-3])):
        np.testing.assert_allclose(applied(log, x), np.log1p(x), rtol=1e-6)
    shifted = applied(features.log_scaling(10), [-9.0, 5.0], [-9, 0, -10.0, -1e9, -np.inf])
    np.testing.assert_allclose(shifted, [0, np.log(10), 0, 0, 0], atol=1e-6)
    later = applied(log, X, [0.0, -3.0, np.inf])
    np.testing.assert_allclose(later, [np.log(X.min())] * 2 + [np.inf], rtol=1e-6)
    with pytest.raises(ValueError, match=r"at least 0 for a logarithm, got 2 of 3 .* such as -5"):
        log.fit([-5.0, -1.0, 3.0])
    with pytest.raises(ValueError, match="above -2 for a logarithm, got 1 of 2"):
        features.log_scaling(2).fit([-2.0, 1.0])


def test_clipping():
    values = [-9, -1, 0.5, 2, 9, np.inf, -np.inf, np.nan]
    clipped = applied(features.clipping(-1, 2), [0.0], values)
    np.testing.assert_array_equal(clipped, [-1, -1, 0.5, 2, 2, 2, -1, np.nan])
    one_side = applied(features.clipping(low=0), [1], [-3, np.inf])
    np.testing.assert_array_equal(one_side, [0, np.inf])
    wanted = np.clip(X, *np.quantile(X, [0.1, 0.8]))
    found = applied(features.clipping(quantiles=(0.1, 0.8)), X)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_interpolated_buckets_agree_with_the_quantile_transformer():
    for x in (X, np.round(X), rng.normal(size=2000), 1e9 + rng.normal(size=2000)):
        oracle = preprocessing.QuantileTransformer(n_quantiles=51, subsample=None)
        got = applied(features.interpolated_buckets(50), x)
        np.testing.assert_allclose(got, oracle.fit_transform(x[:, None])[:, 0], atol=1e-6)
        assert got.min() == 0 and got.max() == 1
        assert (np.diff(got[np.argsort(x)]) >= 0).all()
    pile = np.array([0.0] * 60 + list(range(1, 41)))
    later = applied(
        features.interpolated_buckets(10), pile, [-1, 0, 40, 41, np.inf, -np.inf, np.nan]
    )
    np.testing.assert_array_equal(later, [0, 0, 1, 1, 1, 0, np.nan])


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.float64, 8, elements=st.floats(-1e30, 1e30)), st.sampled_from(sorted(ORACLES)))
@example(np.array([0.0] * 7 + [5e-324]), "linear")
@example(np.array([0.0] * 7 + [5e-324]), "z_score")
def test_any_column_gives_finite_features(x, name):
    y = applied(ORACLES[name][0], x)
    assert np.isfinite(y).all()
    if name == "linear":
        assert y.min() >= -1 and y.max() <= 3


def test_numbers_beyond_float32_are_refused():
    for transform in (features.z_score(), features.clipping(quantiles=(0, 0.5))):
        with pytest.raises(ValueError, match=r"at most 3.4e\+38 \(float32\), got 1e\+300"):
            transform.fit([1.0, 1e300])


@settings(max_examples=100, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=9, unique=True), st.lists(FINITE, max_size=9))
def test_bucketize_is_digitize(boundaries, values):
    boundaries = sorted(boundaries)
    around = [*values, *boundaries, *np.nextafter(boundaries, -np.inf), np.inf, -np.inf]
    ids = applied(features.bucketize(boundaries), [0.0], around)
    np.testing.assert_array_equal(ids, np.digitize(around, boundaries))


@pytest.mark.parametrize("num", [2, 10])
def test_buckets_agree_with_scikit_learn(num):
    for strategy, make, options in [
        ("uniform", features.uniform_buckets, {}),
        ("quantile", features.quantile_buckets, {"quantile_method": "linear"}),
    ]:
        oracle = preprocessing.KBinsDiscretizer(num, encode="ordinal", strategy=strategy, **options)
        wanted = oracle.fit_transform(X[:, None])[:, 0]
        np.testing.assert_array_equal(applied(make(num), X), wanted)
    assert (applied(features.quantile_buckets(1), X) == 0).all()


def test_ties_make_fewer_buckets_and_none_is_empty():
    x = [0.0] * 60 + [1.0] * 20 + list(range(2, 22))
    transform = features.quantile_buckets(10)
    state = transform.fit(x)
    ids = transform.apply(state, x)
    assert (np.bincount(ids) > 0).all()
    assert transform.apply(state, [None]).tolist() == [ids.max() + 1]
    assert transform.output(state).width == ids.max() + 2


@pytest.mark.parametrize("make", [features.quantile_buckets, features.uniform_buckets])
def test_values_beyond_the_fitted_range_go_into_the_outer_buckets(make):
    found = applied(make(4), [1, 2, 3, 4, np.nan, np.inf], [0, 4, 99, np.inf, -np.inf, None])
    assert found.tolist() == [0, 3, 3, 3, 0, 4]
    assert np.isfinite(make(4).fit([-1.5e308, 1.5e308]).boundaries).all()
