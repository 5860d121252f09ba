"""Initializers have the variance of their table and mean 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import models

FAN_IN, FAN_OUT = 200, 300

VARIANCES = {
    "he_normal": 2 / FAN_IN,
    "he_uniform": 2 / FAN_IN,
    "glorot_normal": 2 / (FAN_IN + FAN_OUT),
    "glorot_uniform": 2 / (FAN_IN + FAN_OUT),
    "lecun_normal": 1 / FAN_IN,
    "lecun_uniform": 1 / FAN_IN,
    "orthogonal": 1 / FAN_OUT,  # FAN_IN rows of length one, FAN_OUT long.
    ("orthogonal", 2.0): 4 / FAN_OUT,
    ("variance_scaling_normal", 0.4): 0.4 / FAN_IN,
    "normal": 1e-4,
    ("normal", 0.2): 0.04,
}


@pytest.mark.parametrize("spec", VARIANCES, ids=str)
def test_variance_and_mean(key, spec):
    init = jax.jit(lambda key: models.initializer(spec)(key, (FAN_IN, FAN_OUT), jnp.float32))
    kernel = np.asarray(init(key), np.float64)
    variance = VARIANCES[spec]
    number = kernel.size
    assert kernel.shape == (FAN_IN, FAN_OUT)
    # Five standard errors; the fourth moment is at most a normal one's, 3σ⁴.
    assert abs(kernel.mean()) < 5 * np.sqrt(variance / number)
    assert abs(np.square(kernel).mean() / variance - 1) < 5 * np.sqrt(2 / number)
    if "uniform" in str(spec):
        assert 0.99 < np.abs(kernel).max() / np.sqrt(3 * variance) <= 1 + 1e-6


def test_every_name_is_tested():
    names = {spec if isinstance(spec, str) else spec[0] for spec in VARIANCES}
    assert names | {"zeros", "constant"} == set(models.INITIALIZERS)


def test_constants(key):
    assert (models.initializer("zeros")(key, (2, 3)) == 0).all()
    assert (models.initializer(("constant", -1.5))(key, (2, 3)) == -1.5).all()


def test_functions_and_names_reach_the_layers(key):
    own = jax.nn.initializers.ones
    assert models.initializer(own) is own
    x = jnp.ones((1, 3))
    for spec in (own, ("constant", 1.0)):
        params = models.MLP((2,), 1, kernel_init=spec).init(key, x)["params"]
        assert (params["hidden_0"]["kernel"] == 1).all() and (params["output"]["kernel"] == 1).all()
    named = models.MLP((4,), 1, kernel_init="he_normal").init(key, x)
    given = models.MLP((4,), 1, kernel_init=jax.nn.initializers.he_normal()).init(key, x)
    jax.tree.map(np.testing.assert_array_equal, named, given)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("xavier", "a name among he_normal.* got 'xavier'"),
        (3, "got 3"),
        (("normal", 1.0, 2.0), "a pair of name and number"),
        (("he_normal", 2.0), "'he_normal' must have no number, got 2.0"),
        ("constant", "'constant' must have a finite number"),
        (("normal", -0.1), r"a finite number of at least 0.*got \('normal', -0.1\)"),
        (("normal", float("nan")), "finite"),
    ],
)
def test_invalid_initializers_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        models.initializer(spec)
