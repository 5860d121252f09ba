"""Sweeps: each trial is a training of its own, and none affects another."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import monitor, train
from jaxml.train import trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * RNG.normal(size=200)).astype(np.float32)
KEY = jax.random.key(3)
MODEL = nn.Dense(1)
HELD_OUT = (X[150:], Y[150:])
RECORD = train.Monitor(final_diagnostics=False)


def squared(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


def sgd(hyperparameters):
    return optax.sgd(hyperparameters["learning_rate"])


def sweep(space, run=train.sweep, **changes):
    settings = {
        "num_steps": 30, "batch_size": 16, "key": KEY, "monitor": False, "optimizer": sgd, "model": MODEL,
        "loss": squared, "data": (X[:150], Y[:150]), **changes,
    }  # fmt: skip
    first = [settings.pop(name) for name in ("model", "loss", "optimizer", "data")]
    return run(*first, space=space, **settings)


def rates(*values):
    return [{"learning_rate": value} for value in values]


def same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.fit.params, other.fit.params)
    np.testing.assert_array_equal(one.fit.loss_curve, other.fit.loss_curve)


def test_a_trial_is_the_fit_with_its_key_and_hyperparameters():
    swept = sweep(
        {"learning_rate": [0.01, 0.1]}, seeds=[0, 5], monitor=True, validation_data=HELD_OUT
    )
    trial = swept.trials[3]
    assert (trial.hyperparameters, trial.seed, swept.width) == ({"learning_rate": 0.1}, 5, 4)
    assert trial.key == jax.random.fold_in(KEY, 5)
    fitted = train.fit(
        MODEL, squared, optax.sgd(np.float32(0.1)), (X[:150], Y[:150]), num_steps=30, batch_size=16,
        key=trial.key, validation_data=HELD_OUT,
    )  # fmt: skip
    np.testing.assert_allclose(trial.fit.loss_curve, fitted.loss_curve, rtol=1e-4)
    np.testing.assert_allclose(trial.fit.validation_curve, fitted.validation_curve, rtol=1e-4)
    np.testing.assert_array_equal(trial.fit.validation_steps, fitted.validation_steps)
    np.testing.assert_allclose(trial.fit.history.norm, fitted.history.norm, rtol=1e-3, atol=1e-6)
    assert [f.symptom for f in trial.fit.findings] == [f.symptom for f in fitted.findings]
    assert trial.fit.history.statistics.shape == fitted.history.statistics.shape


def test_values_do_not_retrace_and_a_shape_is_compiled_once():
    traces = []

    def counted(hyperparameters):
        traces.append(hyperparameters["learning_rate"])
        return sgd(hyperparameters)

    sweep(rates(0.01, 0.02), optimizer=counted)
    traces.clear()
    again = sweep(rates(0.03, 0.04), optimizer=counted, seeds=[7], num_steps=20)
    assert not traces and again.seconds["compile"] == 0


def test_a_trial_that_diverges_affects_no_other():
    """Same bits beside it and beside a sound one, and no NaN but its own."""
    runs = {
        (other, watched): sweep(rates(0.05, other, 0.1), monitor=watched)
        for other in (0.02, 1e30)
        for watched in (False, RECORD)
    }
    for watched in (False, RECORD):
        sound, wild = runs[0.02, watched], runs[1e30, watched]
        for i in (0, 2):
            same_bits(sound.trials[i], wild.trials[i])
            assert np.isfinite(wild.loss_curves[i]).all()
    wild = runs[1e30, False]
    assert not np.isfinite(wild.loss_curves[1]).all() and wild.best().index in (0, 2)
    assert "nan" in wild.table() and "trial" in repr(wild).lower()
    # Its guard keeps it finite.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(runs[1e30, RECORD].params))


def test_trials_of_a_seed_share_initialisation_and_order():
    losses = sweep(rates(1e-12, 1e-9), seeds=2).loss_curves
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-5)
    assert np.abs(losses[0] - losses[1]).max() > 1e-3


def test_how_many_train_side_by_side_changes_nothing(monkeypatch):
    """Five trials in chunks of three and two."""
    whole = sweep(rates(0.01, 0.02, 0.05, 0.1, 0.2))
    monkeypatch.setattr(trainer.Trainer, "_most_at_once", lambda self, size: 3)
    parts = sweep(rates(0.01, 0.02, 0.05, 0.1, 0.2))
    np.testing.assert_allclose(parts.loss_curves, whole.loss_curves, rtol=1e-5)
    assert (whole.width, parts.width) == (5, 3)


def test_large_trials_are_trained_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(trainer, "_CACHE", 4_000)
    assert 1 <= sweep(rates(*np.geomspace(1e-3, 1e-1, 6))).width < 6


def test_batch_sizes_and_penalties_are_swept():
    def penalty(hyperparameters, params):
        return hyperparameters["decay"] * jnp.sum(jnp.square(params["kernel"]))

    swept = sweep(
        {"learning_rate": 0.1, "decay": [0.0, 3.0]},
        batch_size=[1, 16, None],
        penalty=penalty,
    )
    assert len(swept) == 6
    assert [m.batch_size for m in swept.trials] == [1, 16, None, 1, 16, None]
    norms = [float(jnp.abs(kernel).sum()) for kernel in swept.params["kernel"]]
    assert norms[3] < norms[0] and norms[5] < norms[2]
    # The penalty is not reported: the first loss is the same.
    np.testing.assert_allclose(swept.loss_curves[:3, 0], swept.loss_curves[3:, 0], rtol=1e-6)
    same = sweep([{"learning_rate": 0.1, "batch_size": 16}])
    np.testing.assert_allclose(same.loss_curves[0], swept.loss_curves[1], rtol=1e-5)


def test_stopped_trials_stay_as_they_are():
    settings = {
        "validation_data": HELD_OUT, "early_stopping": train.EarlyStopping(2, validate_every=2),
        "num_steps": 60,
    }  # fmt: skip
    swept = sweep(rates(0.9, 0.01), **settings)
    wild, slow = swept.trials
    assert wild.fit.stopped_at is not None and wild.steps == wild.fit.stopped_at < 60
    assert slow.steps == 60 and slow.fit.stopped_at is None
    assert np.isnan(swept.loss_curves[0, wild.steps :]).all()
    assert wild.fit.best_step == wild.fit.stopped_at - 4
    assert len(wild.fit.loss_curve) == wild.steps == wild.fit.validation_steps[-1]
    assert wild.lowest_validation_loss == wild.fit.validation_curve.min()
    # A stopped trial is the same beside one that continues as beside one that stops.
    alone = sweep(rates(0.9, 0.9), **settings)
    same_bits(swept.trials[0], alone.trials[0])
    outputs = MODEL.apply({"params": wild.fit.params}, HELD_OUT[0])
    assert float(squared(outputs, HELD_OUT[1]).mean()) == pytest.approx(
        wild.lowest_validation_loss, rel=1e-5
    )


def test_halving_where_trials_stop_early(monkeypatch):
    """All trials of a chunk stop in the first rung, or one of them."""
    monkeypatch.setattr(trainer.Trainer, "_most_at_once", lambda self, size: 2)
    halved = sweep(
        rates(0.9, 0.95, 0.01, 0.02), train.successive_halving, factor=2, rungs=2, num_steps=80,
        validation_data=HELD_OUT, early_stopping=train.EarlyStopping(2, validate_every=4),
        metric=lambda trial: -trial.hyperparameters["learning_rate"],
    )  # fmt: skip
    assert [trial.fit.stopped_at is not None for trial in halved.trials[:2]] == [True, True]
    assert all(trial.steps <= 20 for trial in halved.trials)


def test_trials_that_stop_at_once_and_rungs_between_validations():
    """A combination that has stopped early goes on as it is; curves stand at their own steps."""
    options = {
        "validation_data": HELD_OUT, "early_stopping": train.EarlyStopping(2, validate_every=4),
        "num_steps": 80,
    }  # fmt: skip
    space = rates(0.9, 0.95, 0.3, 0.2)
    halved = sweep(space, train.successive_halving, factor=2, rungs=2, **options)
    whole = sweep(space, **options)
    for trial, other in zip(halved.trials, whole.trials, strict=True):
        if trial.fit.stopped_at is not None:
            assert trial.fit.stopped_at == other.fit.stopped_at
            np.testing.assert_array_equal(trial.fit.validation_steps, other.fit.validation_steps)
    short = {
        **options,
        "num_steps": 45,
        "early_stopping": train.EarlyStopping(9, validate_every=10),
    }
    halved = sweep(rates(0.01, 0.1), train.successive_halving, factor=3, rungs=1, **short)
    np.testing.assert_array_equal(halved.validation_steps, [0, 10, 15, 20, 30, 40, 45])
    np.testing.assert_array_equal(
        np.isfinite(halved.validation_curves), [[1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 1]]
    )


def test_validation_losses_that_are_nan_leave_the_training_loss_to_rank():
    x = HELD_OUT[0].copy()
    x[3, 1] = np.nan
    options = {
        "validation_data": (x, HELD_OUT[1]), "num_steps": 40,
        "early_stopping": train.EarlyStopping(2, validate_every=4),
    }  # fmt: skip
    space = rates(1e-4, 1e-3, 0.1, 0.01)
    with pytest.warns(monitor.FindingsWarning, match="4 of 4 trials have findings, such as non f"):
        swept = sweep(space, monitor=RECORD, **options)
    assert swept.best().index == 2 and all(trial.steps == 40 for trial in swept.trials)
    with pytest.raises(ValueError, match="metric must be finite for at least one trial"):
        swept.best("lowest_validation_loss")
    with pytest.warns(UserWarning, match="finite for no combination: their training loss"):
        halved = sweep(space, train.successive_halving, factor=2, rungs=2, **options)
    assert [trial.steps for trial in halved.trials] == [10, 10, 40, 20]


def test_sweeps_pass_debug_nans():
    options = {
        "validation_data": HELD_OUT, "early_stopping": train.EarlyStopping(2, validate_every=4),
        "monitor": RECORD, "num_steps": 40, "factor": 2,
    }  # fmt: skip
    with jax.debug_nans(True):
        halved = sweep(rates(0.9, 0.01, 0.02, 0.03), train.successive_halving, **options)
        assert halved.best().fit.loss < 1.0
        with pytest.raises(FloatingPointError):
            sweep(rates(1e30, 0.01), monitor=False)


def test_the_result_in_a_few_lines_and_as_tables():
    space = {"learning_rate": np.geomspace(1e-3, 1e-1, 3), "a_longer_name": [1.0, 2.0]}
    swept = sweep(space, seeds=2, validation_data=HELD_OUT)
    lines = swept.table().splitlines()
    assert len(lines) == 13 and max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["learning_rate", "a_longer_name", "seed"]
    assert len(repr(swept).splitlines()) <= 10 and len(repr(swept.trials[0]).splitlines()) <= 10
    assert "<svg" in swept._repr_html_()
    pytest.importorskip("pandas")
    frame = swept.to_frame()
    assert len(frame) == 12 and frame["learning_rate"][0] == pytest.approx(1e-3)
    assert {"seed", "steps", "loss", "validation_loss", "rejected", "findings"} <= set(frame)


def test_findings_of_trials_are_one_warning():
    x = X[:150].copy()
    x[5, 2] = np.nan
    with pytest.warns(monitor.FindingsWarning, match="2 of 2 trials have findings") as caught:
        sweep(rates(0.01, 0.1), data=(x, Y[:150]), monitor=RECORD)
    assert len(caught) == 1


def test_halving_goes_on_from_where_trials_are():
    space = rates(1e-4, 1e-3, 0.1, 1e30)
    options = {"num_steps": 40, "seeds": 2, "validation_data": HELD_OUT, "monitor": RECORD}
    halved = sweep(space, train.successive_halving, factor=2, rungs=2, **options)
    assert [trial.steps for trial in halved.trials] == [10, 10, 20, 20, 40, 40, 10, 10]
    whole = sweep(space, **options)
    np.testing.assert_allclose(halved.loss_curves[4], whole.loss_curves[4], rtol=1e-5)
    assert halved.best().hyperparameters == {"learning_rate": 0.1}
    assert halved.trials[4].fit.validation_steps[-1] == 40
    assert len(halved.trials[4].fit.history.losses) == 40


@pytest.mark.parametrize(
    ("space", "changes", "message"),
    [
        ({}, {}, "space"),
        ({"learning_rate": []}, {}, "learning_rate"),
        ({"learning_rate": [0.1, 0.0]}, {}, "learning_rate must be above 0, got 0"),
        ({"learning_rate": ["high"]}, {}, "finite"),
        ({"learning_rate": [1e39]}, {}, "finite"),
        ([{"learning_rate": 0.1}, {"rate": 0.1}], {}, "throughout"),
        (rates(0.1), {"batch_size": 151}, "batch_size.*150, got 151"),
        (rates(0.1), {"batch_size": []}, "batch_size"),
        (rates(0.1), {"seeds": [1, 1]}, "seeds"),
        (rates(0.1), {"seeds": "two"}, "seeds must be an integer, got 't'"),
        (rates(0.1), {"penalty": "l2"}, "penalty must be a function .*'l2'"),
        (None, {}, "space must be a dict of values, .*None"),
        ([0.1, 0.2], {}, "space must be a dict of values"),
        (rates(0.1), {"optimizer": optax.sgd(0.1)}, "optimizer"),
        ({"momentum": [0.1]}, {}, r"optimizer asks for .*'learning_rate'.*\['momentum'\]"),
        (rates(0.1), {"optimizer": lambda h: optax.sgd}, "optimizer must return"),
        (rates(0.1), {"run": train.successive_halving, "factor": 1}, "factor"),
        (rates(0.1), {"run": train.successive_halving, "rungs": 9}, "rungs"),
    ],
)
def test_bad_arguments(space, changes, message):
    with pytest.raises(ValueError, match=message):
        sweep(space, **changes)
