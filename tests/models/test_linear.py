"""The linear model reaches the closed form of least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import optimize

from jaxml import models

NOISE = np.random.default_rng(2)
X = NOISE.normal(size=(120, 3)).astype(np.float32)


def test_regression_is_least_squares(key):
    y = X @ np.array([1.0, -2.0, 0.5], np.float32) + 3 + NOISE.normal(size=120).astype(np.float32)
    model = models.from_linen(models.Linear(squeeze=True))
    start, structure = ravel_pytree(model.init(key, X))
    assert not start.any()

    @jax.jit
    @jax.value_and_grad
    def loss(flat):
        return jnp.square(model.apply(structure(flat), X)[0] - y).mean()

    def in_float64(flat):
        return [np.asarray(part, np.float64) for part in loss(jnp.float32(flat))]

    best = optimize.minimize(in_float64, start, jac=True).x
    found = structure(jnp.float32(best))["params"]["output"]
    wanted = np.linalg.lstsq(np.c_[X, np.ones(120)].astype(np.float64), y, rcond=None)[0]
    np.testing.assert_allclose(found["kernel"][:, 0], wanted[:3], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["bias"], wanted[3:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (models.Linear(0), "num_outputs must be an integer of at least 1, got 0"),
        (models.Linear(2, squeeze=True), "num_outputs must be 1 with squeeze, got 2"),
    ],
)
def test_invalid_arguments_are_refused(key, module, message):
    with pytest.raises(ValueError, match=message):
        module.init(key, X)
