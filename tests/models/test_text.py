"""The encoder of bags of n-grams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.models import BagEncoder, from_linen, unit_norm


@pytest.mark.parametrize("hidden", [0, 16])
def test_vectors_have_length_one_whatever_the_size_of_the_bag(key, hidden):
    model = from_linen(BagEncoder(hidden=hidden))
    sums = jax.random.normal(key, (5, 8))
    variables = model.init(key, sums)
    encoded, _ = model.apply(variables, sums)
    np.testing.assert_allclose(jnp.linalg.norm(encoded, axis=-1), np.ones(5), rtol=1e-4)
    np.testing.assert_allclose(model.apply(variables, 30 * sums)[0], encoded, rtol=1e-3, atol=1e-5)


def test_the_hidden_layer_starts_as_the_plain_bag(key):
    sums = jax.random.normal(key, (5, 8))
    plain, _ = from_linen(BagEncoder()).apply({}, sums)
    model = from_linen(BagEncoder(hidden=16))
    start, _ = model.apply(model.init(key, sums), sums)
    np.testing.assert_allclose(start, plain, rtol=1e-4, atol=1e-6)


def test_an_empty_bag_is_zero_with_a_finite_gradient():
    sums = jnp.zeros((1, 8))
    model = from_linen(BagEncoder())
    np.testing.assert_array_equal(model.apply({}, sums)[0], np.zeros((1, 8)))
    gradient = jax.grad(lambda s: model.apply({}, s)[0].sum())(sums)
    assert bool(jnp.isfinite(gradient).all())


def test_unit_norm_computes_in_float32():
    assert unit_norm(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32
