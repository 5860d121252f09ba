"""The encoder of bags of n-grams."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.models import BagEncoder, from_linen, unit_norm


def test_vectors_have_length_one_whatever_the_size_of_the_bag(key):
    model = from_linen(BagEncoder())
    sums = jax.random.normal(key, (5, 8))
    encoded, _ = model.apply(model.init(key, sums), sums)
    np.testing.assert_allclose(jnp.linalg.norm(encoded, axis=-1), np.ones(5), rtol=1e-4)
    np.testing.assert_allclose(model.apply({}, 30 * sums)[0], encoded, rtol=1e-3, atol=1e-5)


def test_an_empty_bag_is_zero_with_a_finite_gradient():
    sums = jnp.zeros((1, 8))
    np.testing.assert_array_equal(unit_norm(sums), np.zeros((1, 8)))
    assert bool(jnp.isfinite(jax.grad(lambda s: unit_norm(s).sum())(sums)).all())


def test_unit_norm_computes_in_float32():
    assert unit_norm(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32
