"""The monitored step: statistics of examples and moments, compilation, lowering."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import models, monitor, train

KEY = jax.random.key(0)
NOISE = np.random.default_rng(0)


def cross_entropy(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def fit(model, optimizer, data, loss=cross_entropy, **kw):
    settings = {"num_steps": 300, "batch_size": 64, "key": KEY, **kw}
    return train.fit(model, loss, optimizer, data, **settings)


def watched_program(traced=lambda: None):
    model = models.MLP((16, 16), 2)
    x = np.zeros((32, 6), np.float32)
    # A key of its own: the program consumes its state.
    key = jax.random.key(1)
    variables = model.init(KEY, jnp.asarray(x))
    recorder = monitor.Recorder(model, cross_entropy, variables, x, every=5)
    optimizer = monitor.guard(optax.adam(1e-3), recorder.layout)
    functional = models.from_linen(model)

    def loss(params, model_state, rows, batch, context, key):
        traced()
        each = cross_entropy(functional.apply({"params": params}, batch["x"])[0], batch["y"])
        return each.mean(), (model_state, {})

    step = train.make_step(train.Task(loss), optimizer=optimizer)
    state = train.create_state(key, params=variables["params"], model_state={}, optimizer=optimizer)
    batches = {"x": jnp.zeros((10, 32, 6)), "y": jnp.zeros((10, 32), jnp.int32)}
    return train.repeat(train.recorded(step, recorder)), state, batches


def test_a_watched_step_is_compiled_once():
    traces = []
    program, state, batches = watched_program(lambda: traces.append(1))
    state, _ = program(state, batches, jnp.int32(10))
    number = len(traces)
    for count in (3, 7):
        state, _ = program(state, batches, jnp.int32(count))
    assert len(traces) == number > 0 and int(state.step) == 20


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_watched_step_lowers_for_accelerators(platform):
    program, state, batches = watched_program()
    exported = jax.export.export(program, platforms=[platform])(state, batches, jnp.int32(10))
    assert exported.platforms == (platform,)
    # No call back to the host.
    assert "callback" not in exported.mlir_module()


@pytest.mark.parametrize("watched", [True, False])
def test_an_optimizer_that_wants_the_loss(watched):
    x = NOISE.normal(size=(200, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    optimizer = optax.chain(optax.sgd(0.3), optax.contrib.reduce_on_plateau())
    fitted = fit(nn.Dense(2), optimizer, (x, y), num_steps=50, monitor=watched)
    assert fitted.loss_curve[-1] < 0.5 * fitted.loss_curve[0]
