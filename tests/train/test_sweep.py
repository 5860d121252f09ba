"""Populations: each member is a training of its own, and none disturbs another."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * RNG.normal(size=200)).astype(np.float32)
KEY = jax.random.key(3)
MODEL = nn.Dense(1)
HELD_OUT = (X[150:], Y[150:])


def squared(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


def sgd(hyperparameters):
    return optax.sgd(hyperparameters["learning_rate"])


def sweep(space, **changes):
    settings = {
        "num_steps": 30, "batch_size": 16, "key": KEY, "monitor": False, "optimizer": sgd, "model": MODEL,
        "loss": squared, "data": (X[:150], Y[:150]), **changes,
    }  # fmt: skip
    first = [settings.pop(name) for name in ("model", "loss", "optimizer", "data")]
    return train.sweep(*first, space=space, **settings)


def rates(*values):
    return [{"learning_rate": value} for value in values]


def test_a_member_is_the_fit_with_its_key_and_hyperparameters():
    swept = sweep(
        {"learning_rate": [0.01, 0.1]},
        seeds=[0, 5],
        chunk=2,
        monitor=True,
        validation_data=HELD_OUT,
    )
    for member in (swept.members[1], swept.members[2]):
        np.testing.assert_array_equal(
            jax.random.key_data(member.key),
            jax.random.key_data(jax.random.fold_in(KEY, member.seed)),
        )
    member = swept.members[3]
    assert (member.hyperparameters, member.seed) == ({"learning_rate": 0.1}, 5)
    fitted = train.fit(
        MODEL, squared, optax.sgd(np.float32(0.1)), (X[:150], Y[:150]), num_steps=30, batch_size=16,
        key=member.key, validation_data=HELD_OUT,
    )  # fmt: skip
    np.testing.assert_allclose(member.fit.loss_curve, fitted.loss_curve, rtol=1e-4)
    np.testing.assert_allclose(member.fit.validation_curve, fitted.validation_curve, rtol=1e-4)
    np.testing.assert_array_equal(member.fit.validation_steps, fitted.validation_steps)
    np.testing.assert_allclose(member.fit.history.norm, fitted.history.norm, rtol=1e-3, atol=1e-6)
    assert [f.symptom for f in member.fit.findings] == [f.symptom for f in fitted.findings]
    assert member.fit.history.statistics.shape == fitted.history.statistics.shape


def test_values_do_not_retrace_and_a_shape_is_compiled_once():
    traces = []

    def counted(hyperparameters):
        traces.append(hyperparameters["learning_rate"])
        return sgd(hyperparameters)

    few = sweep(rates(0.01, 0.02), optimizer=counted, chunk=2)
    number = len(traces)
    traces.clear()
    many = sweep(rates(0.01, 0.02, 0.03, 0.04, 0.05, 0.06), optimizer=counted, chunk=2)
    assert len(traces) == number and few.programs == many.programs == 1
    assert all(isinstance(rate, jax.core.Tracer) for rate in traces)


def test_a_member_that_diverges_harms_no_other():
    """Same bits beside it and beside a sound one, and no NaN but its own."""
    runs = {
        (other, monitor): sweep(rates(0.05, other, 0.1), chunk=3, monitor=monitor, explain=False)
        for other in (0.02, 1e30)
        for monitor in (False, True)
    }
    for monitor in (False, True):
        sound, wild = runs[0.02, monitor], runs[1e30, monitor]
        for i in (0, 2):
            for a, b in zip(
                *(jax.tree.leaves(s.members[i].fit.params) for s in (sound, wild)), strict=True
            ):
                np.testing.assert_array_equal(a, b)
            assert np.isfinite(wild.loss_curves[i]).all()
    assert not np.isfinite(runs[1e30, False].loss_curves[1]).all()
    assert runs[1e30, False].best().index in (0, 2)
    # Its guard keeps it finite.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(runs[1e30, True].params))


def test_members_of_a_seed_share_initialisation_and_order():
    swept = sweep(rates(1e-12, 1e-9), seeds=2)
    losses = swept.loss_curves
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-5)
    assert np.abs(losses[0] - losses[1]).max() > 1e-3


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_nothing(chunk):
    whole = sweep(rates(0.01, 0.02, 0.05, 0.1, 0.2), chunk=5)
    parts = sweep(rates(0.01, 0.02, 0.05, 0.1, 0.2), chunk=chunk)
    np.testing.assert_allclose(parts.loss_curves, whole.loss_curves, rtol=1e-5)
    assert parts.programs == 1 and parts.chunk == chunk


def test_batch_sizes_and_penalties_are_swept():
    def penalty(hyperparameters, params):
        return hyperparameters["decay"] * jnp.sum(jnp.square(params["kernel"]))

    swept = sweep(
        {"learning_rate": 0.1, "decay": [0.0, 3.0]}, batch_size=[1, 16, None], penalty=penalty
    )
    assert swept.programs == 3 and len(swept) == 6
    assert [m.batch_size for m in swept.members] == [1, 16, None, 1, 16, None]
    norms = [float(jnp.abs(kernel).sum()) for kernel in swept.params["kernel"]]
    assert norms[3] < norms[0] and norms[5] < norms[2]
    # The penalty is no part of what is reported: the first loss is the same.
    np.testing.assert_allclose(swept.loss_curves[:3, 0], swept.loss_curves[3:, 0], rtol=1e-6)
    same = sweep([{"learning_rate": 0.1, "batch_size": 16}])
    np.testing.assert_allclose(same.loss_curves[0], swept.loss_curves[1], rtol=1e-5)


def test_stopped_members_stay_as_they_are():
    settings = {
        "validation_data": HELD_OUT, "validate_every": 2, "patience": 2, "num_steps": 60,
    }  # fmt: skip
    swept = sweep(rates(0.9, 0.01), chunk=2, **settings)
    wild, slow = swept.members
    assert wild.fit.stopped_at is not None and wild.steps == wild.fit.stopped_at < 60
    assert slow.steps == 60 and slow.fit.stopped_at is None
    assert np.isnan(swept.loss_curves[0, wild.steps :]).all()
    assert wild.fit.best_step == wild.fit.stopped_at - 4
    # Beside one that goes on, it is what it is alone.
    alone = sweep(rates(0.9, 0.9), chunk=2, **settings)
    for a, b in zip(
        *(jax.tree.leaves(s.members[0].fit.params) for s in (swept, alone)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert alone.members[0].fit.stopped_at == wild.fit.stopped_at
    # The parameters are those of the lowest validation loss.
    outputs = MODEL.apply({"params": wild.fit.params}, HELD_OUT[0])
    assert float(squared(outputs, HELD_OUT[1]).mean()) == pytest.approx(
        wild.lowest_validation_loss, rel=1e-5
    )


def test_the_table():
    frame = sweep(rates(0.01, 1e30), seeds=2, validation_data=HELD_OUT).table()
    assert len(frame) == 4 and frame["learning_rate"][0] == 0.01
    assert {"seed", "batch_size", "steps", "loss", "validation_loss", "findings"} <= set(frame)
    assert np.isfinite(frame["loss"][0]) and not np.isfinite(frame["validation_loss"][3])


def test_halving_goes_on_from_where_members_are():
    settings = {
        "space": rates(1e-4, 1e-3, 0.1, 1e30), "num_steps": 40, "batch_size": 16, "key": KEY, "seeds": 2,
        "validation_data": HELD_OUT, "validate_every": 5, "monitor": False,
    }  # fmt: skip
    given = MODEL, squared, sgd, (X[:150], Y[:150])
    halved = train.successive_halving(*given, factor=2, rungs=2, **settings)
    assert [m.steps for m in halved.members] == [10, 10, 20, 20, 40, 40, 10, 10]
    whole = train.sweep(*given, **settings)
    np.testing.assert_allclose(halved.loss_curves[4], whole.loss_curves[4], rtol=1e-5)
    assert halved.best().hyperparameters == {"learning_rate": 0.1}
    np.testing.assert_array_equal(halved.members[4].fit.validation_steps, np.arange(0, 41, 5))


@pytest.mark.parametrize(
    ("space", "changes", "message"),
    [
        ({}, {}, "space"),
        ([], {}, "space"),
        ({"learning_rate": []}, {}, "learning_rate"),
        ({"learning_rate": [0.1, 0.0]}, {}, "learning_rate must be above 0, got 0"),
        ({"learning_rate": [0.1, np.nan]}, {}, "finite"),
        ({"learning_rate": ["high"]}, {}, "finite"),
        ([{"learning_rate": 0.1}, {"rate": 0.1}], {}, "throughout"),
        (rates(0.1), {"batch_size": 151}, "batch_size.*150, got 151"),
        (rates(0.1), {"batch_size": []}, "batch_size"),
        (rates(0.1), {"seeds": 0}, "seeds"),
        (rates(0.1), {"seeds": [1, 1]}, "seeds"),
        (rates(0.1), {"patience": 3}, "validation_data"),
        (rates(0.1), {"chunk": 0}, "chunk"),
        (rates(0.1), {"max_bytes": 100}, r"it needs about [\d,]+ bytes"),
        (rates(0.1), {"optimizer": optax.sgd(0.1)}, "optimizer"),
        ({"rate": [0.1, -0.1]}, {"optimizer": lambda h: optax.adam(h["rate"])}, "rate.*up"),
    ],
)
def test_bad_arguments(space, changes, message):
    with pytest.raises(ValueError, match=message):
        sweep(space, **changes)


def test_what_fits_is_what_is_allowed():
    """Memory for some members: chunks of so many, and the same numbers."""
    whole = sweep(rates(*np.geomspace(1e-3, 1e-1, 6)), chunk=6)
    tight = sweep(rates(*np.geomspace(1e-3, 1e-1, 6)), max_bytes=4_500)
    assert 1 <= tight.chunk < 6
    np.testing.assert_allclose(tight.loss_curves, whole.loss_curves, rtol=1e-5)
