"""Activations by name, and PReLU's learned slope."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import models


def test_the_slope_of_prelu_is_learned(key):
    module = models.MLP((1,), 1, "prelu", ("constant", 1.0))
    x = jnp.array([[-2.0], [3.0]])
    variables = module.init(key, x)
    assert set(variables["params"]) == {"hidden_0", "slope_0", "output"}
    slope = variables["params"]["slope_0"]["negative_slope"]
    assert slope.shape == ()
    np.testing.assert_allclose(module.apply(variables, x), [[-2 * slope], [3.0]], rtol=1e-6)
    gradient = jax.grad(lambda v: module.apply(v, x).sum())(variables)
    np.testing.assert_allclose(gradient["params"]["slope_0"]["negative_slope"], -2.0, rtol=1e-6)


def test_functions_and_modules_are_activations(key):
    x = jnp.ones((2, 3))
    square = models.MLP((4, 4), 1, jnp.square, output_activation=jnp.exp)
    variables = square.init(key, x)
    assert (square.apply(variables, x) > 0).all()
    shared = models.MLP((4, 4), 1, nn.PReLU())
    assert set(shared.init(key, x)["params"]) == {"activation", "hidden_0", "hidden_1", "output"}


def test_unknown_names_are_refused(key):
    for module in (models.MLP((4,), 1, "rely"), models.MLP((4,), 1, output_activation="rely")):
        with pytest.raises(ValueError, match=r"activation must be .*prelu, got 'rely'"):
            module.init(key, jnp.ones((2, 3)))
