"""Vectors of length one."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.models import unit_norm


def test_vectors_have_length_one_whatever_their_size(key):
    x = jax.random.normal(key, (5, 8))
    unit = unit_norm(x)
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=-1), np.ones(5), rtol=1e-4)
    np.testing.assert_allclose(unit_norm(30 * x), unit, rtol=1e-3, atol=1e-5)
    assert unit_norm(x.astype(jnp.bfloat16)).dtype == jnp.float32
    np.testing.assert_allclose(unit_norm(jnp.array([3e30, 4e30])), [0.6, 0.8], rtol=1e-6)


def test_zero_stays_zero_with_a_finite_gradient():
    zero = jnp.zeros((1, 8))
    np.testing.assert_array_equal(unit_norm(zero), zero)
    assert bool(jnp.isfinite(jax.grad(lambda x: unit_norm(x).sum())(zero)).all())
