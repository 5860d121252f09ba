"""What a run is accused of, and what it is not: programs that other rules go wrong on."""

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


def squared(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


def fit(model, optimizer, data, loss=cross_entropy, **kw):
    settings = {"num_steps": 300, "batch_size": 64, "key": KEY, **kw}
    return train.fit(model, loss, optimizer, data, **settings)


def symptoms(fitted):
    return [finding.symptom for finding in fitted.findings]


def test_little_may_be_all_that_can_be_known():
    """A twentieth of the variance is signal; the rest is noise, and stays."""
    x = NOISE.normal(size=(6000, 8)).astype(np.float32)
    y = (0.23 * x[:, 0] + NOISE.normal(size=6000)).astype(np.float32)
    fitted = fit(models.MLP((16,), 1), optax.adam(1e-3), (x, y), squared, num_steps=600)
    assert symptoms(fitted) == []
    # Less than a tenth of the loss is saved; the initial parameters clear the data.
    assert fitted.history.after.held_out > 4


def test_what_is_learned_by_heart_is_no_signal():
    x = NOISE.normal(size=(2000, 8)).astype(np.float32)
    y = NOISE.normal(size=2000).astype(np.float32)
    fitted = fit(models.MLP((16,), 1), optax.adam(1e-3), (x, y), squared, num_steps=600)
    assert symptoms(fitted) == ["no_learnable_signal"]
    assert abs(fitted.findings[0].evidence["held_out"]) < 4
    assert "verify_signal" in fitted.findings[0].remedy


def test_labels_that_the_loss_does_not_look_at():
    latent = NOISE.normal(size=(1000, 2))
    x = (latent @ NOISE.normal(size=(2, 8))).astype(np.float32)

    class Autoencoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x, nn.Dense(8)(jnp.tanh(nn.Dense(4)(x)))

    def rebuilt(outputs, _):
        given, made = outputs
        return jnp.square(given - made).mean(-1)

    data = x, np.zeros(1000, np.float32)
    assert symptoms(fit(Autoencoder(), optax.adam(1e-2), data, rebuilt)) == []


def test_losses_below_zero():
    x = NOISE.normal(size=(1000, 4)).astype(np.float32)
    y = (x[:, 0] + 0.02 * NOISE.normal(size=1000)).astype(np.float32)

    def likelihood(outputs, targets):
        mean, log_deviation = outputs[:, 0], outputs[:, 1]
        return log_deviation + 0.5 * jnp.square((targets - mean) / jnp.exp(log_deviation))

    fitted = fit(models.MLP((16,), 2, "tanh"), optax.adam(3e-3), (x, y), likelihood, num_steps=600)
    assert fitted.loss_curve[-1] < -1 and symptoms(fitted) == []


def test_weights_of_zero():
    x = NOISE.normal(size=(600, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    model = models.MLP((16, 16), 2, "tanh", nn.initializers.zeros)
    fitted = fit(model, optax.sgd(0.1), (x, y))
    assert symptoms(fitted) == ["poor_initialization"]
    assert fitted.findings[0].evidence["kind"] == "zero"


def test_outputs_that_end_in_a_relu():
    x = NOISE.normal(size=(600, 6)).astype(np.float32)
    y = (x[:, 0]).astype(np.float32) - 3
    model = models.MLP((16,), 1, output_activation="relu")
    (finding, *_) = fit(model, optax.adam(1e-2), (x, y), squared).findings
    assert (finding.symptom, finding.where) == ("dead_relu", "output")
    assert monitor.remedy(finding).output_activation == "none"


def test_sequences_without_cells_are_heard_at_their_inputs():
    """A sum that forgets: ∂E/∂x_t stands in for the carry there is none of."""

    class Fading(nn.Module):
        @nn.compact
        def __call__(self, x):
            length = x.shape[1]
            weights = 0.7 ** jnp.arange(length - 1, -1, -1.0)
            return nn.Dense(2)(jnp.einsum("btd,t->bd", x, weights))

    x = NOISE.normal(size=(800, 60, 4)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.int32)
    fitted = fit(Fading(), optax.adam(1e-3), (x, y), num_steps=200)
    assert fitted.history.by_input
    (finding,) = (f for f in fitted.findings if f.symptom == "vanishing_through_time")
    assert finding.where == "input" and finding.evidence["measured_on"] == "∂E/∂x_t"
    assert finding.evidence["factor_a_step"] == pytest.approx(0.7, rel=1e-3)


def test_what_died_is_told_where_it_began():
    x = NOISE.normal(size=(600, 16)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int32)
    fitted = fit(models.MLP((32, 32), 2), optax.sgd(0.3), (x, 10 * y), squared)
    assert "learning_rate_too_high" in symptoms(fitted)
    told = [f for f in fitted.findings if "units of" in f.cause]
    dead = [f for f in fitted.findings if f.symptom == "dead_relu"]
    assert len(dead) == 1 and not dead[0].evidence["from_birth"]
    assert told and told[0].symptom in ("exploding_gradient", "learning_rate_too_high")
    assert f"by step {dead[0].evidence['by_step']}" in told[0].cause


def test_the_gradients_of_examples_are_those_of_vmap():
    """Goodfellow's trick against one gradient after the other."""
    model = models.MLP((8,), 2)
    x = jax.random.normal(KEY, (32, 5))
    y = (x[:, 0] > 0).astype(jnp.int32)
    variables = model.init(KEY, x)
    listener = models.listen(model)

    def of_taps(taps):
        outputs, _, seen = listener.apply(variables, taps, x, training=True)
        return cross_entropy(outputs, y).mean(), (outputs, seen)

    deltas, (outputs, seen) = jax.grad(of_taps, has_aux=True)(listener.taps(variables, x))
    found = monitor.activity(listener.layers(variables, x), seen, deltas, outputs)
    columns = [monitor.ACTIVITY.index(name) for name in ("example_gradient", "mean_gradient")]

    def single(params, x, y):
        return cross_entropy(model.apply({"params": params}, x[None]), y[None])[0]

    each = jax.vmap(jax.grad(single), (None, 0, 0))(variables["params"], x, y)
    for row, name in zip(np.asarray(found.layers)[:, columns], ("hidden_0", "output"), strict=True):
        kernels = np.asarray(each[name]["kernel"], np.float64)
        squares = np.square(kernels).sum((1, 2)).mean()
        mean = np.linalg.norm(kernels.mean(0))
        np.testing.assert_allclose(row, [np.sqrt(squares), mean], rtol=1e-4)


def watched_program(traced=lambda: None):
    model = models.MLP((16, 16), 2)
    x = np.zeros((32, 6), np.float32)
    # A key of its own: the program consumes its state.
    key = jax.random.key(1)
    variables = model.init(KEY, jnp.asarray(x))
    recorder = monitor.Recorder(model, cross_entropy, variables, x, every=5)
    optimizer = recorder.guard(optax.adam(1e-3))
    functional = models.from_linen(model)

    def loss(params, model_state, rows, batch, context, key):
        traced()
        each = cross_entropy(functional.apply({"params": params}, batch["x"])[0], batch["y"])
        return each.mean(), (model_state, {"worst": each.max()})

    step = train.make_step(
        train.Task(loss),
        optimizer=optimizer,
    )
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


def test_with_momentum_a_factor_is_advised_and_no_rate():
    x = NOISE.normal(size=(600, 8)).astype(np.float32)
    y = x @ NOISE.normal(size=8).astype(np.float32)
    sick = fit(nn.Dense(1), optax.sgd(2.0, momentum=0.9), (x, y), squared)
    finding = next(f for f in sick.findings if "learning_rate_factor" in f.evidence)
    changed = monitor.remedy(finding)
    assert changed.learning_rate is None and changed.learning_rate_factor < 0.5
