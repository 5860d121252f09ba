"""The linear model starts at zero, and is an affine map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import models

X = np.random.default_rng(2).normal(size=(12, 3)).astype(np.float32)


def test_it_is_an_affine_map_from_zero(key):
    for module, shape in ((models.Linear(2), (12, 2)), (models.Linear(squeeze=True), (12,))):
        variables = module.init(key, X)
        assert not any(leaf.any() for leaf in jax.tree.leaves(variables))
        ones = jax.tree.map(jnp.ones_like, variables)
        outputs = np.asarray(module.apply(ones, X)).reshape(12, -1)
        assert module.apply(variables, X).shape == shape
        np.testing.assert_allclose(
            outputs.T, [X.sum(1) + 1] * outputs.shape[1], rtol=1e-5, atol=1e-6
        )


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
