"""Scalings: scikit-learn and float64 NumPy as oracles, and what happens at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import preprocessing

from jaxml import features

rng = np.random.default_rng(0)
X = rng.lognormal(2, 1, 501)

ORACLES = {
    "z_score": (features.z_score(), preprocessing.StandardScaler()),
    "linear": (features.linear_scaling(-1, 3), preprocessing.MinMaxScaler((-1, 3))),
    "robust": (features.robust_scaling(), preprocessing.RobustScaler()),
    "robust wide": (
        features.robust_scaling(0.1, 0.9),
        preprocessing.RobustScaler(quantile_range=(10, 90)),
    ),
}
SCALINGS = {
    "z_score": features.z_score(),
    "robust": features.robust_scaling(),
    "linear": features.linear_scaling(-2, 2),
    "log": features.log_scaling(),
    "interpolated": features.interpolated_buckets(10),
    "clip": features.clipping(quantiles=(0.05, 0.95)),
    "clip values": features.clipping(1, 20),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(
    "x", [X, X - 9, X * 1e-10, X * 1e20, 1e9 + X, -5e12 + 1e3 * X, np.float32(X), np.arange(7)],
    ids=["as is", "signs", "small", "large", "far", "farther", "float32", "int"],
)  # fmt: skip
def test_scikit_learn_agrees(name, x):
    transform, oracle = ORACLES[name]
    wanted = oracle.fit_transform(x.astype(np.float64)[:, None])[:, 0]
    got = transform.apply(transform.fit(x), x)
    assert isinstance(got, jax.Array) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-5)


def test_a_million_seconds_keep_their_digits():
    """float32 alone would round 1e9 + noise to multiples of 64."""
    x = 1e9 + rng.normal(size=1000)
    assert len(np.unique(np.float32(x))) == 1
    for transform in (features.z_score(), features.robust_scaling(), features.linear_scaling()):
        y = np.asarray(transform.apply(transform.fit(x), x), np.float64)
        assert np.corrcoef(x - 1e9, y)[0, 1] > 1 - 1e-9
        assert len(np.unique(y)) > 990
    ids = 2**40 + np.arange(1000)
    z = features.z_score()
    np.testing.assert_allclose(
        z.apply(z.fit(ids), ids),
        (np.arange(1000) - 499.5) / np.arange(1000).std(),
        rtol=1e-5,
        atol=1e-6,
    )
    stamps = np.datetime64("2013-01-01") + np.arange(1000).astype("m8[s]")
    np.testing.assert_array_equal(z.apply(z.fit(stamps), stamps), z.apply(z.fit(ids), ids))
    on_device = jnp.asarray(2**30 + np.arange(1000))
    np.testing.assert_allclose(z.apply(z.fit(on_device), on_device)[0], -1.7303, rtol=1e-4)


@pytest.mark.parametrize("name", SCALINGS)
def test_jit_vmap_and_rows_give_the_same_bits(name):
    transform = SCALINGS[name]
    x = np.append(X, [np.nan, np.inf, -np.inf, 0.0, -1.0]).astype(np.float32)
    state = transform.fit(x[np.isfinite(x) & (x > 0)])
    eager = np.asarray(transform.apply(state, x))
    jitted = jax.jit(transform.apply)
    np.testing.assert_array_equal(jitted(state, x), eager)
    constant = jax.jit(lambda x: transform.apply(state, x))
    np.testing.assert_array_equal(constant(x), eager)
    np.testing.assert_array_equal(jax.vmap(transform.apply, (None, 0))(state, x), eager)
    for i in [0, 7, 500, 501, 503]:
        np.testing.assert_array_equal(constant(x[i]), eager[i])
    np.testing.assert_array_equal(transform.apply(state, x.reshape(2, -1)), eager.reshape(2, -1))
    # Python numbers, lists and half precision come in, too.
    assert transform.apply(state, 3).shape == ()
    assert transform.apply(state, [None, 2.0]).tolist()[1] == jitted(state, np.float32(2.0))
    assert transform.apply(state, jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32
    assert transform.apply(state, np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("name", SCALINGS)
def test_nan_passes_and_is_left_out_of_the_fit(name):
    transform = SCALINGS[name]
    holes = np.append(X, [np.nan, np.nan])
    state, wanted = transform.fit(holes), transform.fit(X)
    jax.tree.map(np.testing.assert_array_equal, state, wanted)
    assert np.isnan(transform.apply(state, holes)).tolist() == [False] * len(X) + [True, True]
    # An infinity does not move the fit either.
    jax.tree.map(np.testing.assert_array_equal, transform.fit(np.append(X, np.inf)), wanted)


@pytest.mark.parametrize("name", SCALINGS)
def test_columns_with_nothing_in_them_are_refused(name):
    transform = SCALINGS[name]
    with pytest.raises(ValueError, match="values is empty, wanted at least one row"):
        transform.fit([])
    if name != "clip values":  # which asks nothing of the column
        with pytest.raises(ValueError, match="no finite number among 2"):
            transform.fit([np.nan, np.inf])
        with pytest.raises(ValueError, match="holds text such as 'UA'"):
            transform.fit(["UA", "B6"])
        with pytest.raises(ValueError, match=r"1e\+300, wanted at most 3.4e\+38"):
            transform.fit([1.0, 1e300])
    with pytest.raises(ValueError, match="holds text such as 'UA', wanted numbers"):
        transform.apply(transform.fit(X), ["UA"])


@pytest.mark.parametrize("value", [0.0, 0.1, -7e8, 123456789.123, 2**53])
def test_a_constant_column(value):
    column = np.full(1000, value)
    later = np.array([value, value + 5, value - 1e3, np.nan, np.inf])

    def scaled(transform):
        return transform.apply(transform.fit(column), later).tolist()

    assert scaled(features.z_score())[:3] == [0, 0, 0]
    assert scaled(features.robust_scaling())[:3] == [0, 0, 0]
    assert scaled(features.linear_scaling(2, 4))[:3] == [3, 3, 3]
    assert scaled(features.interpolated_buckets(4))[:3] == [0.5] * 3
    for transform in (features.z_score(), features.linear_scaling()):
        assert np.isnan(scaled(transform)[3]) and np.isfinite(scaled(transform)[4])


def test_linear_scaling_hits_its_ends_and_stays_within():
    for x in (X, 1e9 + X, X * 1e-6, rng.normal(size=999) * 1e5):
        for low, high in ((0, 1), (-1, 1), (0.1, 0.3), (1000, 1001)):
            transform = features.linear_scaling(low, high)
            y = np.asarray(transform.apply(transform.fit(x), x))
            assert y.min() == np.float32(low) and y.max() == np.float32(high)
            assert y[np.argmax(x)] == np.float32(high)
    transform = features.linear_scaling()
    state = transform.fit([0.0, 10.0])
    assert transform.apply(state, [-10.0, 20.0]).tolist() == [-1.0, 2.0]
    np.testing.assert_array_equal(transform.apply(state, [np.inf, -np.inf]), [np.inf, -np.inf])


def test_robust_scaling_falls_back_where_quartiles_are_equal():
    x = np.array([0.0] * 90 + [1.0] * 5 + [100.0] * 5)
    transform = features.robust_scaling()
    np.testing.assert_allclose(
        transform.apply(transform.fit(x), [100.0]), [100 / x.std()], rtol=1e-6
    )


def test_log_scaling():
    log = features.log_scaling()
    np.testing.assert_allclose(log.apply(log.fit(X), X), np.log(X), rtol=1e-6, atol=1e-6)
    counts = np.array([0, 1, 2, 1e6])
    np.testing.assert_allclose(log.apply(log.fit(counts), counts), np.log1p(counts), rtol=1e-6)
    small = np.array([0, 1e-6, 1e-3])
    np.testing.assert_allclose(log.apply(log.fit(small), small), np.log1p(small), rtol=1e-6)
    shifted = features.log_scaling(10)
    state = shifted.fit([-9.0, 5.0])
    np.testing.assert_allclose(shifted.apply(state, [-9, 0]), [0, np.log(10)], atol=1e-6)
    # Below what has a logarithm: as the least that was seen.
    assert shifted.apply(state, [-10.0, -1e9, -np.inf]).tolist() == [0, 0, 0]
    assert np.isfinite(log.apply(log.fit(X), [0.0, -3.0])).all()
    np.testing.assert_array_equal(log.apply(log.fit(X), [np.inf]), [np.inf])
    with pytest.raises(ValueError, match="2 of 3 that have no logarithm, such as -5"):
        log.fit([-5.0, -1.0, 3.0])
    with pytest.raises(ValueError, match="1 of 2 that have no logarithm"):
        features.log_scaling(2).fit([-2.0, 1.0])


def test_clipping():
    by_value = features.clipping(-1, 2)
    state = by_value.fit([0.0])
    np.testing.assert_array_equal(
        by_value.apply(state, [-9, -1, 0.5, 2, 9, np.inf, -np.inf, np.nan]),
        [-1, -1, 0.5, 2, 2, 2, -1, np.nan],
    )
    one_side = features.clipping(low=0)
    np.testing.assert_array_equal(one_side.apply(one_side.fit([1]), [-3, np.inf]), [0, np.inf])
    by_quantile = features.clipping(quantiles=(0.1, 0.8))
    low, high = np.quantile(X, [0.1, 0.8])
    np.testing.assert_allclose(
        by_quantile.apply(by_quantile.fit(X), X), np.clip(X, low, high), rtol=1e-6
    )


def test_interpolated_buckets_agree_with_the_quantile_transformer():
    for x in (X, np.round(X), rng.normal(size=2000), 1e9 + rng.normal(size=2000)):
        oracle = preprocessing.QuantileTransformer(n_quantiles=51, subsample=None)
        wanted = oracle.fit_transform(x[:, None])[:, 0]
        transform = features.interpolated_buckets(50)
        got = np.asarray(transform.apply(transform.fit(x), x))
        np.testing.assert_allclose(got, wanted, atol=2e-4)
        assert got.min() == 0 and got.max() == 1
        order = np.argsort(x)
        assert (np.diff(got[order]) >= 0).all()
    spike = np.array([0.0] * 60 + list(range(1, 41)))
    transform = features.interpolated_buckets(10)
    got = np.asarray(
        transform.apply(transform.fit(spike), [-1, 0, 40, 41, np.inf, -np.inf, np.nan])
    )
    np.testing.assert_array_equal(got, [0, 0, 1, 1, 1, 0, np.nan])


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(np.float64, 8, elements=st.floats(-1e30, 1e30)),
    st.sampled_from(sorted(ORACLES)),
)
@example(np.array([0.0] * 7 + [2.0**-126]), "linear")  # 4 / 2⁻¹²⁶ is more than float32 holds
def test_whatever_the_column_a_fit_gives_finite_features(x, name):
    transform = ORACLES[name][0]
    try:
        state = transform.fit(x)
    except ValueError as error:
        assert "spread over" in str(error)  # less than float32 can divide by
        return
    y = np.asarray(transform.apply(state, x))
    assert np.isfinite(y).all()
    if name == "linear":
        assert y.min() >= -1 and y.max() <= 3


def test_fitting_is_for_the_host():
    with pytest.raises(
        ValueError, match="values is traced, wanted values on the host: fit outside"
    ):
        jax.jit(features.z_score().fit)(jnp.ones(3))


def test_gradients_pass():
    """Attributions of a model on raw numbers differentiate through the scaling."""
    transform = features.z_score()
    state = transform.fit(X)
    slope = jax.grad(lambda x: transform.apply(state, x))(jnp.float32(3.0))
    np.testing.assert_allclose(slope, 1 / X.std(), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: features.linear_scaling(1, 1), "low is 1.0 and high is 1.0"),
        (lambda: features.linear_scaling(0, np.inf), "wanted finite numbers"),
        (lambda: features.robust_scaling(0.7, 0.3), "quantiles are 0.7 and 0.3"),
        (lambda: features.log_scaling(-1), "shift is -1"),
        (lambda: features.clipping(), "wanted at least one bound"),
        (lambda: features.clipping(2, 1), "low is 2 and high is 1"),
        (lambda: features.clipping(2, quantiles=(0, 1)), "wanted one of both"),
        (lambda: features.clipping(quantiles=(0.5, 1.5)), "quantiles are 0.5 and 1.5"),
        (lambda: features.interpolated_buckets(0), "num_buckets is 0"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
