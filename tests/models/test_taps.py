"""Taps: the module's outputs are its own, and the gradients at the layers are right."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxml import models

X = jax.random.normal(jax.random.key(0), (4, 9, 3))


class Mixed(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        h = nn.RNN(nn.GRUCell(7))(x)[:, -1]
        h = nn.BatchNorm(use_running_average=not training)(h)
        h = nn.Dropout(0.5, deterministic=not training)(nn.relu(nn.Dense(5, name="hidden")(h)))
        return nn.remat(nn.Dense)(2)(h)


class Both(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.RNN(nn.LSTMCell(6), reverse=True)(x)
        h = nn.Bidirectional(nn.RNN(nn.SimpleCell(4)), nn.RNN(nn.SimpleCell(4)))(h)
        return nn.Dense(1)(h)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.Dense(3)(x)), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        scan = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
        return nn.Dense(1, name="out")(scan(name="blocks")(x, None)[0])


class Shared(nn.Module):
    def setup(self):
        self.dense = nn.Dense(3)

    def __call__(self, x):
        return self.dense(nn.tanh(self.dense(x)))


@pytest.mark.parametrize("module", [Mixed(), Both(), Scanned(), Shared()])
def test_zero_taps_change_nothing(module):
    variables = module.init(jax.random.key(1), X)
    listener = models.listen(module)
    outputs, _, _ = listener.apply(variables, listener.taps(variables, X), X)
    # Up to rounding: a scan over cells that are listened to is another program.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        outputs,
        module.apply(variables, X),
    )


def test_layers_in_the_order_of_the_calls():
    variables = Mixed().init(jax.random.key(1), X)
    layers = models.listen(Mixed()).layers(variables, X)
    assert [(layer.kind, layer.shape) for layer in layers] == [
        ("cell", (9, 4, 7)),
        ("normalization", (4, 7)),
        ("dense", (4, 5)),
        ("dense", (4, 2)),
    ]


def test_a_second_call_is_a_layer_of_its_own():
    variables = Shared().init(jax.random.key(1), X)
    assert [layer.name for layer in models.listen(Shared()).layers(variables, X)] == [
        "dense",
        "dense#2",
    ]


def test_scanned_layers_are_known_as_stacked():
    variables = Scanned().init(jax.random.key(1), X)
    layers = models.listen(Scanned()).layers(variables, X)
    assert [(layer.name, layer.stacked, layer.shape is None) for layer in layers] == [
        ("blocks/Dense_0", 4, True),
        ("out", 0, False),
    ]


def test_state_is_updated_in_training_as_without():
    variables = Mixed().init(jax.random.key(1), X)
    listener, plain = models.listen(Mixed()), models.from_linen(Mixed())
    key = jax.random.key(2)
    outputs, state, _ = listener.apply(
        variables, listener.taps(variables, X), X, key=key, training=True
    )
    wanted, wanted_state = plain.apply(variables, X, key=key, training=True)
    np.testing.assert_allclose(outputs, wanted, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, wanted_state)


def test_gradients_through_time_are_those_of_the_carry():
    """A linear recurrence: ∂E/∂h_t is (Wᵀ)^(T−t) times that of the last step, known in closed form."""
    cell = nn.SimpleCell(3, activation_fn=lambda x: x)
    module = nn.Sequential([nn.RNN(cell), lambda h: h[:, -1].sum()])
    variables = module.init(jax.random.key(1), X)
    listener = models.listen(module)
    (name,) = listener.taps(variables, X)
    deltas = jax.grad(lambda taps: listener.apply(variables, taps, X)[0])(
        listener.taps(variables, X)
    )[name]
    (recurrent,) = (
        np.float64(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
        if "['h']['kernel']" in jax.tree_util.keystr(path)
    )
    wanted = np.ones(3)
    for step in range(8, -1, -1):
        for row in np.asarray(deltas["leaving"][step]):
            np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-6)
        wanted = recurrent @ wanted
        np.testing.assert_allclose(deltas["entering"][step][0], wanted, rtol=1e-4, atol=1e-6)


def test_what_is_no_module():
    with pytest.raises(ValueError, match="module"):
        models.listen(lambda x: x)
