"""Initializers by name are JAX's, with their number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import models

SHAPE = (200, 300)


@pytest.mark.parametrize(
    "name", sorted({*models.INITIALIZERS} - {"variance_scaling_normal", "constant"})
)
def test_names_without_a_number_are_jaxs(key, name):
    init = getattr(jax.nn.initializers, name)
    wanted = (init if name == "zeros" else init())(key, SHAPE, jnp.float32)
    np.testing.assert_array_equal(models.initializer(name)(key, SHAPE, jnp.float32), wanted)


@pytest.mark.parametrize(
    ("spec", "variance"),
    [
        (("orthogonal", 2.0), 4 / 300),  # 200 rows of length two, 300 long
        (("variance_scaling_normal", 0.4), 0.4 / 200),
        (("normal", 0.2), 0.04),
        (("constant", -1.5), 2.25),
    ],
)
def test_numbers_are_those_of_the_table(key, spec, variance):
    kernel = np.asarray(models.initializer(spec)(key, SHAPE, jnp.float32), np.float64)
    # Five standard errors; the fourth moment is at most a normal one's, 3σ⁴.
    assert abs(np.square(kernel).mean() / variance - 1) < 5 * np.sqrt(2 / kernel.size)


def test_functions_and_names_reach_the_layers(key):
    own = jax.nn.initializers.ones
    assert models.initializer(own) is own
    for spec in (own, ("constant", 1.0)):
        params = models.MLP((2,), 1, kernel_init=spec).init(key, jnp.ones((1, 3)))["params"]
        assert all((params[name]["kernel"] == 1).all() for name in ("hidden_0", "output"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("xavier", "a name among he_normal.* got 'xavier'"),
        (("normal", 1.0, 2.0), "a pair of name and number"),
        (("he_normal", 2.0), "'he_normal' must have no number, got 2.0"),
        ("constant", "'constant' must have a finite number"),
        (("normal", float("nan")), "finite"),
        (("normal", -0.1), r"a finite number of at least 0.*got \('normal', -0.1\)"),
    ],
)
def test_invalid_initializers_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        models.initializer(spec)
