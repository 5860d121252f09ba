"""The MLP against its formula, layer by layer."""

import jax
import numpy as np
import pytest

from jaxml import models

X = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)


def made(module, key, x=X):
    variables = module.init(key, x)
    return variables, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def test_plain(key):
    module = models.MLP((5, 3), 2, "tanh")
    variables, params = made(module, key)
    h = np.tanh(dense(np.tanh(dense(X, params["hidden_0"])), params["hidden_1"]))
    np.testing.assert_allclose(
        module.apply(variables, X), dense(h, params["output"]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("normalization", ["layer", "batch"])
def test_normalised_between_layer_and_activation(key, normalization):
    module = models.MLP((5,), 1, "none", normalization=normalization, output_activation="none")
    variables, params = made(module, key)
    axis = 1 if normalization == "layer" else 0
    h = dense(X, params["hidden_0"])
    h = (h - h.mean(axis, keepdims=True)) / np.sqrt(h.var(axis, keepdims=True) + 1e-6)
    outputs, _ = models.from_linen(module).apply(variables, X, training=True)
    np.testing.assert_allclose(outputs, dense(h, params["output"]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (models.MLP((4,), 1, normalization="group"), "normalization must be one of .* got 'group'"),
        (models.MLP((4,), 1, dropout=-0.1), r"dropout must be .* of at least 0, got -0.1"),
        (models.MLP((4,), 1, dropout=1.0), r"dropout must be .* below 1 of at least 0, got 1.0"),
        (models.MLP((4, 0), 1), r"widths\[1\] must be an integer of at least 1, got 0"),
    ],
)
def test_invalid_arguments_are_refused(key, module, message):
    with pytest.raises(ValueError, match=message):
        module.init(key, X)
