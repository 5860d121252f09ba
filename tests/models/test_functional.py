"""Any Linen module as a pair of pure functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.models import from_linen, split_variables


class Normalised(nn.Module):
    """Batch normalization and dropout, with the mode of the first."""

    @nn.compact
    def __call__(self, x, *, use_running_average):
        x = nn.BatchNorm(use_running_average=use_running_average)(nn.Dense(4)(x))
        self.sow("intermediates", "hidden", x)
        return nn.Dropout(0.5, deterministic=use_running_average)(x)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        return nn.Dropout(0.5, deterministic=deterministic)(x)


class IsTraining(nn.Module):
    @nn.compact
    def __call__(self, x, is_training):
        return nn.Dropout(0.5, deterministic=not is_training)(x)


def test_training_updates_the_statistics_and_evaluation_does_not(key):
    model = from_linen(Normalised())
    x = jax.random.normal(key, (64, 3)) + 2.0
    variables = model.init(key, x)
    params, state = split_variables(variables)
    assert set(params) == {"Dense_0", "BatchNorm_0"} and set(state) == {"batch_stats"}
    before = state["batch_stats"]["BatchNorm_0"]["mean"]
    _, evaluated = model.apply(variables, x)
    _, trained = model.apply(variables, x, key=key, training=True)
    assert set(trained) == set(evaluated) == {"batch_stats"}
    np.testing.assert_array_equal(evaluated["batch_stats"]["BatchNorm_0"]["mean"], before)
    assert not np.allclose(trained["batch_stats"]["BatchNorm_0"]["mean"], before)


@pytest.mark.parametrize("module", [Deterministic(), IsTraining()])
def test_dropout_is_off_in_evaluation_and_keyed_in_training(key, module):
    model = from_linen(module)
    x = jnp.ones((4, 50))
    np.testing.assert_array_equal(model.apply({}, x)[0], x)
    first, _ = model.apply({}, x, key=key, training=True)
    again, _ = model.apply({}, x, key=key, training=True)
    other, _ = model.apply({}, x, key=jax.random.key(1), training=True)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_module_without_a_mode_is_called_with_its_input_alone(key):
    model = from_linen(nn.Dense(3))
    variables = model.init(key, jnp.ones((2, 5)))
    outputs, state = model.apply(variables, jnp.ones((2, 5)), key=key, training=True)
    assert outputs.shape == (2, 3) and state == {}


def test_other_modules_are_refused():
    with pytest.raises(ValueError, match=r"module must be a flax\.linen\.Module, got int"):
        from_linen(3)
