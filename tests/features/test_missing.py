"""Imputation and the indicator, against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.impute import SimpleImputer

from jaxml import features

X = np.array([3.0, np.nan, 1.0, 1.0, 7.0, np.nan])


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
def test_scikit_learn_agrees(strategy):
    value = 5.0 if strategy == "constant" else None
    oracle = SimpleImputer(strategy=strategy, fill_value=value)
    wanted = np.float32(oracle.fit_transform(X[:, None])[:, 0])
    transform = features.imputation(strategy, value)
    state = transform.fit(X)
    np.testing.assert_array_equal(transform.apply(state, X), wanted)
    np.testing.assert_array_equal(jax.jit(transform.apply)(state, X), wanted)
    np.testing.assert_array_equal(jax.vmap(transform.apply, (None, 0))(state, X), wanted)
    np.testing.assert_array_equal(transform.apply(state, [np.inf, None]), [np.inf, wanted[1]])


def test_texts_are_imputed_on_the_host():
    transform = features.imputation("most_frequent")
    state = transform.fit(["b", "a", None, "a", "b"])
    assert transform.apply(state, ["c", "", None]).tolist() == ["c", "a", "a"]
    constant = features.imputation("constant", "?")
    assert constant.apply(constant.fit([None]), [None, "x"]).tolist() == ["?", "x"]
    with pytest.raises(ValueError, match="holds 3, wanted text as in fitting"):
        transform.apply(state, [3])


def test_the_indicator():
    transform = features.missing_indicator()
    state = transform.fit([None])
    np.testing.assert_array_equal(transform.apply(state, X), np.isnan(X))
    np.testing.assert_array_equal(jax.jit(transform.apply)(state, jnp.asarray(X)), np.isnan(X))
    np.testing.assert_array_equal(transform.apply(state, ["a", "", None]), [0, 1, 1])


def test_what_cannot_be_is_refused():
    for strategy in ("mean", "median", "most_frequent"):
        with pytest.raises(ValueError, match="no finite number"):
            features.imputation(strategy).fit([np.nan])
    with pytest.raises(ValueError, match="holds text"):
        features.imputation("mean").fit(["a"])
    for transform in (features.imputation(), features.missing_indicator()):
        with pytest.raises(ValueError, match="values is empty"):
            transform.fit([])
    with pytest.raises(ValueError, match="strategy is 'mode'"):
        features.imputation("mode")
    with pytest.raises(ValueError, match="value is None with strategy 'constant'"):
        features.imputation("constant")
    with pytest.raises(ValueError, match="value is 3 with strategy 'mean'"):
        features.imputation("mean", 3)
