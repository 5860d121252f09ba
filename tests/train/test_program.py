"""The program of a training: modes of batches, early stopping, options that change nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import train
from jaxml.train import inputs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = np.sin(X.sum(1)).astype(np.float32)
HELD_OUT = (X[48:], Y[48:])
KEY = jax.random.key(1)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        x = nn.tanh(nn.Dense(8)(x))
        return nn.Dense(1)(nn.Dropout(0.2, deterministic=not training)(x))


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x)))


def squared(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


def fit(model=None, optimizer=None, **changes):
    settings = {"num_steps": 30, "batch_size": 12, "key": KEY, "monitor": False, **changes}
    data = settings.pop("data", (X[:48], Y[:48]))
    return train.fit(model or Plain(), squared, optimizer or optax.adam(0.05), data, **settings)


def same(one, other, **tolerance):
    for a, b in zip(*(jax.tree.leaves(f.params) for f in (one, other)), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.fixture(scope="module")
def plain():
    return fit(validation_data=HELD_OUT, validate_every=7)


def test_validations_come_first_last_and_between(plain):
    np.testing.assert_array_equal(plain.validation_steps, [0, 7, 14, 21, 28, 30])
    assert np.isfinite(plain.validation_curve).all() and plain.loss_curve.shape == (30,)
    outputs = Plain().apply({"params": plain.params}, HELD_OUT[0])
    expected = float(squared(outputs, HELD_OUT[1]).mean())
    assert plain.validation_curve[-1] == pytest.approx(expected, rel=1e-5)
    assert plain.best_step == plain.validation_steps[np.argmin(plain.validation_curve)]
    assert plain.seconds["compile"] > 0 and plain.seconds["run"] > 0


def test_validation_changes_no_bit_of_the_training(plain):
    same(fit(), plain, rtol=0)


def test_streamed_batches_give_the_same_bits(plain):
    same(fit(stream=True), plain, rtol=0)


@pytest.mark.parametrize("options", [{"remat": True}, {"accumulate": 3}])
def test_options_that_save_memory_change_nothing_but_rounding(plain, options):
    saved = fit(**options)
    np.testing.assert_allclose(saved.loss_curve, plain.loss_curve, rtol=1e-4, atol=1e-6)
    same(saved, plain, rtol=1e-3, atol=1e-5)


def test_accumulation_with_a_model_that_has_state_and_noise():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x, training=False):
            return Net()(nn.BatchNorm(use_running_average=not training)(x), training)

    fitted = fit(Normalised(), accumulate=2, num_steps=40)
    assert fitted.loss_curve[-5:].mean() < fitted.loss_curve[0]
    assert float(jnp.abs(jax.tree.leaves(fitted.model_state)[0]).sum()) > 0


def test_all_examples_in_each_step():
    whole = fit(optimizer=optax.sgd(0.1), batch_size=None)
    shuffled = fit(optimizer=optax.sgd(0.1), batch_size=48)
    np.testing.assert_allclose(whole.loss_curve, shuffled.loss_curve, rtol=1e-4)
    same(fit(optimizer=optax.sgd(0.1), batch_size=None, stream=True), whole, rtol=1e-5)
    assert (np.diff(whole.loss_curve) < 0).all()


def test_one_example_in_each_step():
    order = inputs.examples(48, 1, True, 0)(0, 48)[:, 0]
    assert sorted(order) == list(range(48))
    assert fit(batch_size=1).loss_curve.shape == (30,)


def test_early_stopping_returns_the_best():
    """A step that is too long: it soon gets worse than it was."""
    seen = []
    stopped = fit(
        optimizer=optax.sgd(1.3),
        validation_data=HELD_OUT,
        validate_every=3,
        patience=2,
        num_steps=300,
        on_chunk=lambda course, report: seen.append(
            np.array(course.state.params["Dense_0"]["bias"])
        ),
    )
    assert stopped.stopped_at == stopped.best_step + 6 < 300
    assert len(stopped.loss_curve) == stopped.stopped_at == stopped.validation_steps[-1]
    outputs = Plain().apply({"params": stopped.params}, HELD_OUT[0])
    assert float(squared(outputs, HELD_OUT[1]).mean()) == pytest.approx(
        stopped.validation_curve.min(), rel=1e-5
    )
    last = fit(optimizer=optax.sgd(1.3), num_steps=stopped.stopped_at)
    # In the course it stays where it stopped.
    np.testing.assert_allclose(seen[-1], last.params["Dense_0"]["bias"], rtol=1e-5)


def test_progress_is_told():
    told = []
    fit(progress=told.append, validation_data=HELD_OUT, num_steps=200)
    assert told[-1].step == told[-1].num_steps == 200 and np.isfinite(told[-1].validation_loss)
    assert "200/200" in str(told[-1]) and all(p.seconds > 0 for p in told)
    assert told[-1].remaining == 0 and told[-1].members == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 49}, "batch_size must be .* 48, got 49"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"accumulate": 5}, "accumulate must divide"),
        ({"accumulate": 0}, "accumulate"),
        ({"data": (X[:0], Y[:0])}, "data must hold at least one row"),
        ({"validation_data": (X[:0], Y[:0])}, "validation_data must hold at least one row"),
        ({"validation_data": (X[:9, :3], Y[:9])}, "validation_data must have rows like"),
        ({"validation_data": HELD_OUT, "validate_every": 0}, "validate_every"),
        ({"validation_data": HELD_OUT, "patience": 0}, "patience"),
        ({"patience": 2}, "validation_data"),
        ({"optimizer": optax.sgd(0.0)}, "learning_rate must be above 0.*nothing"),
        ({"optimizer": optax.adamw(-1e-3)}, "learning_rate must be above 0.*up"),
        ({"optimizer": optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)}, "learning_rate"),
        ({"progress": 3}, "progress"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        fit(**changes)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(optax.warmup_cosine_decay_schedule(0.0, 0.1, 100, 1000)),
        optax.MultiSteps(optax.adam(1e-3), 8),
        optax.lion(1e-4),
        optax.adafactor(1e-3),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.1)),
    ],
)
def test_sound_optimizers_are_let_through(optimizer):
    inputs.check_updates(
        lambda _: optimizer, None, {"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)}, 1000
    )
