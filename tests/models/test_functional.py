"""Any Linen module as a pair of pure functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors

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
    def __call__(self, x, is_training=False):
        return nn.Dropout(0.5, deterministic=not is_training)(x)


class InferenceMode(nn.Module):
    @nn.compact
    def __call__(self, x, inference_mode=True, return_hidden=False):
        assert return_hidden is False
        return nn.Dropout(0.5, deterministic=inference_mode)(x)


class Noisy(nn.Module):
    """Draws in every mode, from a stream of its own."""

    stream: str = "noise"

    @nn.compact
    def __call__(self, x):
        return x + jax.random.normal(self.make_rng(self.stream), x.shape)


class Sowing(nn.Module):
    """Writes what it sees into a collection; each call adds to it, or replaces it."""

    replaces: bool

    @nn.compact
    def __call__(self, x):
        options = {"reduce_fn": lambda old, new: new, "init_fn": lambda: 0.0}
        self.sow("seen", "inputs", x, **(options if self.replaces else {}))
        return nn.Dense(2)(x)


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


@pytest.mark.parametrize("module", [Deterministic(), IsTraining(), InferenceMode()])
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


@pytest.mark.parametrize("stream", ["noise", "dropout", "params"])
def test_evaluation_draws_without_a_key_and_training_does_not(key, stream):
    model, x = from_linen(Noisy(stream)), jnp.ones((4, 50))
    assert model.init(key, x) == {}
    one, again = (model.apply({}, x)[0] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert np.std(one) > 0.5
    trained = [model.apply({}, x, key=jax.random.key(n), training=True)[0] for n in (0, 1)]
    assert not np.array_equal(*trained)
    with pytest.raises(errors.InvalidRngError):
        model.apply({}, x, training=True)


def test_what_is_sown_is_not_kept(key):
    x = jnp.ones((3, 4))
    model = from_linen(Sowing(replaces=False))
    variables = model.init(key, x)
    assert set(variables) == {"params"}
    assert model.apply(variables, x, training=True)[1] == {}
    # As large as the batch: a state that no other batch fits.
    model = from_linen(Sowing(replaces=True))
    variables = model.init(key, x)
    with pytest.raises(ValueError, match=r"'seen' must keep their shapes.*\(5, 4\).*\(3, 4\)"):
        model.apply(variables, jnp.ones((5, 4)), training=True)


def test_boxes_are_taken_off(key):
    axes = nn.with_partitioning(nn.initializers.ones, (None, "model"))
    variables = from_linen(nn.Dense(2, kernel_init=axes)).init(key, jnp.ones((1, 3)))
    np.testing.assert_array_equal(variables["params"]["kernel"], np.ones((3, 2)))


def test_other_modules_are_refused():
    with pytest.raises(ValueError, match=r"module must be a flax\.linen\.Module, got int"):
        from_linen(3)
