"""The linear model reaches the closed form of least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy import optimize

from jaxml import models

NOISE = np.random.default_rng(2)
X = NOISE.normal(size=(120, 3)).astype(np.float32)


def minimised(module, loss):
    """A convex loss has one minimum."""
    model = models.from_linen(module)
    start, structure = ravel_pytree(model.init(jax.random.key(0), X)["params"])

    @jax.jit
    def value_and_grad(flat):
        def mean(flat):
            params = structure(flat)
            return jnp.mean(loss(model.apply({"params": params}, X)[0], params))

        return jax.value_and_grad(mean)(flat)

    def doubled(flat):
        return [np.asarray(part, np.float64) for part in value_and_grad(jnp.float32(flat))]

    return structure(jnp.float32(optimize.minimize(doubled, start, jac=True).x))["output"]


def test_regression_is_least_squares():
    y = X @ np.array([1.0, -2.0, 0.5], np.float32) + 3 + NOISE.normal(size=120).astype(np.float32)
    found = minimised(models.Linear(squeeze=True), lambda out, _: optax.squared_error(out, y))
    columns = np.c_[X, np.ones(120)].astype(np.float64)
    wanted = np.linalg.lstsq(columns, y, rcond=None)[0]
    np.testing.assert_allclose(found["kernel"][:, 0], wanted[:3], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["bias"], wanted[3:], rtol=1e-3, atol=1e-4)


def test_the_start_is_zero_or_as_given(key):
    assert not any(leaf.any() for leaf in jax.tree.leaves(models.Linear(2).init(key, X)))
    module = models.Linear(100, bias_init=("constant", -float(np.log(99))))
    logits = module.init_with_output(key, X)[0]
    np.testing.assert_allclose(jax.nn.sigmoid(logits), np.full((120, 100), 0.01), rtol=1e-5)
    params = models.Linear(kernel_init="he_normal", use_bias=False).init(key, X)["params"]
    assert set(params["output"]) == {"kernel"} and params["output"]["kernel"].any()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (models.Linear(0), "num_outputs must be an integer of at least 1, got 0"),
        (models.Linear(2, squeeze=True), "num_outputs must be 1 with squeeze, got 2"),
        (models.Linear(kernel_init="ones"), "initializer must be .* got 'ones'"),
    ],
)
def test_invalid_arguments_are_refused(key, module, message):
    with pytest.raises(ValueError, match=message):
        module.init(key, X)
