"""`fit`: what it returns, what it refuses, and what changes no bit of it."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import losses, monitor, train
from jaxml.train import trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = np.sin(X.sum(1)).astype(np.float32)
LABELS = (X.sum(1) > 0).astype(np.int32)
HELD_OUT = (X[48:], Y[48:])
KEY = jax.random.key(1)
CLASSES = optax.softmax_cross_entropy_with_integer_labels
ADAM = optax.adam(0.05)


class Net(nn.Module):
    """Dropout and batch statistics."""

    @nn.compact
    def __call__(self, x, training=False):
        x = nn.BatchNorm(use_running_average=not training)(x)
        x = nn.Dropout(0.2, deterministic=not training)(nn.tanh(nn.Dense(8)(x)))
        return nn.Dense(1)(x)


NET, CLASSIFIER = Net(), nn.Dense(2)


def squared(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


def fit(model=NET, loss=squared, optimizer=ADAM, data=(X[:48], Y[:48]), **changes):
    settings = {"num_steps": 30, "batch_size": 12, "key": KEY, "monitor": False, **changes}
    return train.fit(model, loss, optimizer, data, **settings)


def classify(labels=LABELS, x=X, **changes):
    return fit(CLASSIFIER, CLASSES, data=(x, labels), **changes)


def same_bits(one, other):
    for a, b in zip(
        *(jax.tree.leaves((f.params, f.model_state)) for f in (one, other)), strict=True
    ):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    np.testing.assert_array_equal(one.loss_curve, other.loss_curve)


@pytest.fixture(scope="module")
def plain():
    stopping = train.EarlyStopping(patience=100, validate_every=7)
    return fit(validation_data=HELD_OUT, early_stopping=stopping)


@pytest.fixture(scope="module")
def watched():
    return classify(monitor=True, num_steps=60)


def mean_loss(fitted, data):
    variables = {"params": fitted.params, **fitted.model_state}
    return float(squared(NET.apply(variables, data[0]), data[1]).mean())


def test_validations_come_first_last_and_between(plain):
    np.testing.assert_array_equal(plain.validation_steps, [0, 7, 14, 21, 28, 30])
    assert np.isfinite(plain.validation_curve).all() and plain.loss_curve.shape == (30,)
    # The parameters are those of the lowest validation loss.
    lowest = plain.validation_curve.min()
    assert mean_loss(plain, HELD_OUT) == pytest.approx(lowest, rel=1e-5)
    assert plain.lowest_validation_loss == lowest
    assert plain.best_step == plain.validation_steps[np.argmin(plain.validation_curve)]
    assert plain.seconds["run"] > 0 and plain.findings == [] and plain.history is None


@pytest.mark.optimized
def test_an_integer_is_a_seed():
    same_bits(fit(key=KEY), fit(key=1))


@pytest.mark.optimized
def test_what_changes_no_bit():
    """The same key; validation; other ends of calls; a sweep of one trial."""
    once = fit()
    same_bits(fit(), once)
    same_bits(fit(validation_data=HELD_OUT), once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_STEPS_PER_CALL", 7)
        same_bits(fit(), once)
    swept = train.sweep(
        NET, squared, lambda h: ADAM, (X[:48], Y[:48]), space={"unused": [1.0]}, num_steps=30,
        batch_size=12, key=KEY, seeds=[3], monitor=False,
    )  # fmt: skip
    (trial,) = swept.trials
    same_bits(fit(key=trial.key), trial.fit)


def test_a_second_fit_compiles_nothing(caplog):
    """Other data, key and number of steps; the same module, loss, optimizer and shapes."""
    fit(validation_data=HELD_OUT)
    with jax.log_compiles():
        again = fit(
            data=(X[:48] + 1, Y[:48]), key=jax.random.key(5), num_steps=40, validation_data=HELD_OUT
        )
    assert again.seconds["compile"] == 0
    assert not [record for record in caplog.records if "XLA compilation" in record.getMessage()]


def test_validation_data_that_give_nan_stop_nothing():
    x = HELD_OUT[0].copy()
    x[0, 0] = np.nan
    stopping = train.EarlyStopping(patience=1, validate_every=5)
    fitted = fit(validation_data=(x, HELD_OUT[1]), early_stopping=stopping)
    assert fitted.stopped_at is None and fitted.best_step is None
    # The parameters are the last ones.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        fitted.params,
        fit().params,
    )


def test_all_examples_and_one_example_in_each_step():
    whole = fit(nn.Dense(1), optimizer=optax.sgd(0.1), batch_size=None)
    shuffled = fit(nn.Dense(1), optimizer=optax.sgd(0.1), batch_size=48)
    np.testing.assert_allclose(whole.loss_curve, shuffled.loss_curve, rtol=1e-4)
    assert (np.diff(whole.loss_curve) < 0).all()
    assert fit(nn.Dense(1), optimizer=optax.sgd(0.1), batch_size=1).loss_curve.shape == (30,)


def test_rows_in_their_own_order():
    def first_label(outputs, labels):
        return labels.astype(jnp.float32) + 0 * outputs[:, 0]

    fitted = fit(
        nn.Dense(1), first_label, data=(np.ones((100, 4)), np.arange(100.0)), shuffle=False,
        num_steps=12, batch_size=10,
    )  # fmt: skip
    np.testing.assert_allclose(fitted.loss_curve, [4.5 + 10 * (i % 10) for i in range(12)])


class Pair(nn.Module):
    """Numbers and ids."""

    @nn.compact
    def __call__(self, x):
        embedded = nn.Embed(8, 4)(x["ids"]).reshape(len(x["ids"]), -1)
        return nn.Dense(1)(nn.relu(nn.Dense(16)(jnp.concatenate([x["dense"], embedded], 1))))


def test_inputs_of_several_arrays():
    x = {"dense": X, "ids": RNG.integers(0, 8, (60, 2))}
    y = ((X[:, 0] > 0) ^ (x["ids"][:, 0] > 3)).astype(np.float32)
    recorded = train.Monitor(final_diagnostics=False)
    fitted = fit(
        Pair(), squared, data=(x, y), validation_data=(x, y), num_steps=100, monitor=recorded
    )
    assert fitted.findings == [] and fitted.history.layers[-1].startswith("Dense")
    assert fitted.loss_curve[-10:].mean() < 0.1 < 0.2 < fitted.loss_curve[0]
    assert fitted.evaluate(x, y)["loss"] == pytest.approx(fitted.validation_curve[-1], rel=1e-5)
    bad = {**x, "dense": bad_rows()}
    with pytest.raises(ValueError, match=r"x\['dense'\]\[5\], column 2"):
        fit(Pair(), squared, data=(bad, y), monitor=train.Monitor(on_bad_data="raise"))
    options = {"batch_size": 10, "num_steps": 8, "shuffle": False}
    drop = train.Monitor(on_bad_data="drop", final_diagnostics=False)
    dropped = fit(Pair(), squared, data=(bad, y), monitor=drop, **options)
    keep = np.delete(np.arange(60), [5, 44])
    rest = jax.tree.map(lambda leaf: leaf[keep], (x, y))
    same_bits(dropped, fit(Pair(), squared, data=rest, monitor=recorded, **options))


# Use of the result


def test_predict_evaluate_save(plain, tmp_path):
    outputs = plain.predict(X, batch_size=7)
    variables = {"params": plain.params, **plain.model_state}
    np.testing.assert_allclose(outputs, NET.apply(variables, X), rtol=1e-5, atol=1e-6)
    metrics = {"mae": lambda outputs, labels: np.abs(outputs[:, 0] - labels).mean()}
    found = plain.evaluate(*HELD_OUT, metrics)
    assert found["loss"] == pytest.approx(mean_loss(plain, HELD_OUT), rel=1e-5)
    assert found["mae"] == pytest.approx(np.abs(plain.predict(X[48:])[:, 0] - Y[48:]).mean())
    plain.save(tmp_path / "model")
    loaded = train.checkpoint.load(tmp_path / "model", variables)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    np.testing.assert_allclose(plain.predict(X[:2].tolist()), outputs[:2], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="batch_size"):
        plain.predict(X, batch_size=0)
    with pytest.raises(ValueError, match="x must hold at least one row"):
        plain.predict(X[:0])


def test_a_short_repr_and_a_picture(plain, watched):
    for fitted in (plain, watched):
        assert len(repr(fitted).splitlines()) <= 10 and len(repr(fitted)) < 1000
        assert "<svg" in fitted._repr_html_() and "steps" in repr(fitted)


def test_frames(plain, watched):
    pytest.importorskip("pandas")
    frame = plain.to_frame()
    assert len(frame) == 31 and frame["validation_loss"].notna().sum() == 6
    assert list(watched.to_frame()) == ["step", "loss", "accepted", "norm", "coefficient"]


# With a monitor


def test_a_healthy_run_is_left_alone(watched):
    assert watched.findings == []
    np.testing.assert_allclose(watched.loss_curve, classify(num_steps=60).loss_curve, rtol=1e-4)
    history = watched.history
    assert (history.coefficient == 1).all() and history.accepted.all()
    assert history.statistics.shape[0] == 60 and history.activity.shape[0] == 6


def test_without_a_monitor_the_optimizer_is_bare(plain):
    expected = jax.tree.structure(ADAM.init(plain.params))
    assert jax.tree.structure(plain.opt_state) == expected


def bad_rows():
    x = X.copy()
    x[5, 2], x[44, 0] = np.nan, np.inf
    return x


def test_bad_rows_are_reported_and_cost_their_steps():
    with pytest.warns(monitor.FindingsWarning, match="non finite in `input`"):
        fitted = classify(x=bad_rows(), monitor=True, num_steps=60)
    finding = fitted.findings[0]
    assert (finding.symptom, finding.where) == ("non_finite", "input")
    assert (finding.evidence["row"], finding.evidence["column"]) == (5, 2)
    rejected = ~fitted.history.accepted
    # Each row comes once in an epoch of five batches.
    assert 15 <= rejected.sum() <= 26
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))
    with pytest.raises(ValueError, match=r"x\[5\], column 2"):
        classify(x=bad_rows(), monitor=train.Monitor(on_bad_data="raise"))


def test_a_diagnosis_that_fails_returns_the_parameters(monkeypatch):
    def fail(history):
        raise FloatingPointError("no")

    monkeypatch.setattr(monitor, "diagnose", fail)
    with pytest.warns(RuntimeWarning, match="diagnosis failed: FloatingPointError: no"):
        fitted = classify(monitor=True, num_steps=60)
    assert np.isfinite(fitted.params["kernel"]).all() and fitted.history is None


def test_verify_signal():
    options = {"num_steps": 100, "batch_size": 16, "key": KEY}
    x = RNG.normal(size=(400, 4)).astype(np.float32)
    signal, noise = (x[:, 0] > 0).astype(np.int32), RNG.integers(0, 2, 400)
    found = [
        train.verify_signal(CLASSIFIER, CLASSES, ADAM, (x, y), **options) for y in (signal, noise)
    ]
    assert found[0] > 4 > 3 > abs(found[1])


# Errors before the first step


def _silent(outputs, labels):
    raise AssertionError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"batch_size": 49}, "batch_size must be .* 48, got 49"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"monitor": 3}, "monitor"),
        ({"data": X}, "data"),
        ({"data": (X[:0], Y[:0])}, "data must hold at least one row"),
        ({"data": ({"a": X, "b": X[:-1]}, Y)}, r"equally many rows, got shapes .*\(59, 4\)"),
        ({"data": ({"a": X, "b": X.astype(str)}, Y)}, "must hold numbers"),
        ({"validation_data": (X[:9, :3], Y[:9])}, "validation_data must have rows like"),
        ({"early_stopping": train.EarlyStopping(2)}, "validation_data"),
        ({"early_stopping": 2}, "early_stopping must be a train.EarlyStopping or None, got 2"),
        ({"checkpoints": "runs"}, "checkpoints must be a train.Checkpoints or None, got 'runs'"),
        ({"data": {"x": X, "y": Y}}, r"data must be a pair \(x, y\), got dict"),
        ({"loss": CLASSES}, r"loss must take .* labels of float32 of shape \(2,\).*\(2, 1\)"),
        ({"optimizer": lambda h: ADAM}, "optimizer"),
        ({"optimizer": optax.adam}, "optimizer"),
        ({"key": 0.5}, "key must be a jax.random.key or an integer, got 0.5"),
        ({"data": (X[:48, 0], Y[:48])}, r"model must take .* shape \(\) .*x\[:, None\]"),
        ({"loss": _silent}, "loss must take these outputs .*: AssertionError: $"),
        ({"loss": "squared"}, "loss"),
        ({"loss": lambda o, y: jnp.mean(jnp.square(o[:, 0] - y))}, r"loss must .*got \(\)"),
        ({"loss": lambda o, y: jnp.square(o - y[None])}, r"\(2,\).*\(2, 1\).*got \(2, 2\)"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        fit(**changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: train.EarlyStopping(0), "patience"),
        (lambda: train.EarlyStopping(1, validate_every=0), "validate_every"),
        (lambda: train.Monitor(every=0), "every"),
        (lambda: train.Monitor(on_bad_data="ignore"), "on_bad_data"),
        (lambda: train.Monitor(preserve=-1), "preserve"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        options()


@pytest.mark.parametrize(("label", "dtype"), [(2, np.int32), (-1, np.int16)])
def test_labels_outside_the_outputs(label, dtype):
    labels = LABELS.astype(dtype)
    labels[17] = label
    message = f"label {label} in row 17, but the model has 2 outputs (0 … 1)"
    for loss in (CLASSES, losses.softmax_cross_entropy):
        with pytest.raises(ValueError, match=re.escape(message)):
            fit(CLASSIFIER, loss, data=(X, labels))
    with pytest.raises(ValueError, match=f"{label} in row 17 of validation_data, but the model"):
        fit(CLASSIFIER, CLASSES, data=(X, LABELS.astype(dtype)), validation_data=(X, labels))


def test_labels_that_a_loss_masks_or_does_not_index_with():
    labels = LABELS.copy()
    labels[17] = -1

    def masked(outputs, labels, classes=CLASSES):
        return jnp.where(labels < 0, 0.0, classes(outputs, jnp.maximum(labels, 0)))

    def masked_own(outputs, labels):
        return masked(outputs, labels, losses.softmax_cross_entropy)

    def counts(outputs, labels):
        return jnp.square(outputs[:, 0] - labels)

    for loss in (masked, masked_own):
        assert np.isfinite(fit(CLASSIFIER, loss, data=(X, labels)).loss_curve).all()
    assert np.isfinite(fit(CLASSIFIER, counts, data=(X, 9 * LABELS)).loss_curve).all()


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.MultiSteps(optax.sgd(0.1), 8),
        optax.chain(optax.sgd(0.3), optax.contrib.reduce_on_plateau()),
    ],
)
def test_optimizers_that_wait_or_want_the_loss(optimizer):
    """The guard hands the loss on."""
    settings = train.Monitor(final_diagnostics=False)
    fitted = fit(CLASSIFIER, CLASSES, optimizer, (X, LABELS), monitor=settings, num_steps=60)
    assert fitted.loss_curve[-8:].mean() < 0.8 * fitted.loss_curve[:8].mean()


def test_progress_in_a_terminal_and_nothing_where_piped(monkeypatch, capsys):
    from jaxml.train import progress

    fit()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "_FIRST", 0.0)
    monkeypatch.setattr(progress, "_BETWEEN", 0.0)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    fit(validation_data=HELD_OUT, num_steps=200)
    lines = capsys.readouterr().err.split("\r")
    assert "step 16/200" in lines[1] and "left" in lines[-1] and lines[-1].endswith("\n")
    assert "step 200/200" in lines[-1] and "validation" in lines[-1]


# The end of a training


def test_a_training_in_two_goes_stops_where_one_in_one_go_does(tmp_path):
    """The validation after step 12 falls between two others: it shows, and does not count."""
    stopping = train.EarlyStopping(3, validate_every=9)

    def rising(outputs, labels):
        return outputs[:, 0]

    def go(num_steps, name):
        # Every step lowers the loss of the rows in training and raises that of the others.
        with train.Checkpoints(tmp_path / name) as kept:
            return fit(
                nn.Dense(1), rising, optax.sgd(0.1), (np.ones((48, 1)), Y[:48]), num_steps=num_steps,
                validation_data=(-2 * np.ones((12, 1)), HELD_OUT[1]), early_stopping=stopping,
                checkpoints=kept,
            )  # fmt: skip

    first, again, whole = go(12, "two"), go(400, "two"), go(400, "one")
    np.testing.assert_array_equal(first.validation_steps, [0, 9, 12])
    same_bits(again, whole)
    for each in (again, whole):
        assert each.stopped_at == 27
        np.testing.assert_array_equal(each.validation_steps, [0, 9, 18, 27])
    np.testing.assert_array_equal(again.validation_curve, whole.validation_curve)


def test_the_last_validation_may_be_the_lowest():
    stopping = train.EarlyStopping(3, validate_every=9)
    data = (np.ones((48, 1)), np.ones(48))
    fitted = fit(
        nn.Dense(1), squared, optax.sgd(0.01), data, num_steps=12, validation_data=data,
        early_stopping=stopping,
    )  # fmt: skip
    assert fitted.best_step == 12
    assert fitted.evaluate(*data)["loss"] == pytest.approx(fitted.lowest_validation_loss, rel=1e-5)


@pytest.mark.parametrize("patience", [1, 3])
def test_a_training_that_diverges_is_stopped(patience):
    """A loss that is not finite is no improvement on one that was."""
    stopping = train.EarlyStopping(patience, validate_every=5)
    fitted = fit(
        nn.Dense(1), squared, optax.sgd(1e3), num_steps=200, validation_data=HELD_OUT,
        early_stopping=stopping,
    )  # fmt: skip
    assert fitted.stopped_at == 5 * patience and fitted.best_step == 0


def test_bad_validation_rows_are_found_dropped_or_refused():
    x = X.copy()
    x[3, 1] = np.nan
    options = {
        "num_steps": 60, "validation_data": (x, LABELS),
        "early_stopping": train.EarlyStopping(3, validate_every=5),
    }  # fmt: skip
    with pytest.warns(
        monitor.FindingsWarning, match=r"in validation_data, x\[3\], column 1, is not"
    ):
        fitted = classify(monitor=train.Monitor(final_diagnostics=False), **options)
    (finding,) = fitted.findings
    assert (finding.symptom, finding.where) == ("non_finite", "validation_data")
    assert finding.evidence["rows"] == 1 and "drop the rows" in finding.remedy
    assert fitted.stopped_at is None and fitted.loss_curve[-1] < 0.8 * fitted.loss_curve[0]
    drop = train.Monitor(on_bad_data="drop", final_diagnostics=False)
    dropped = classify(monitor=drop, **options)
    assert np.isfinite(dropped.validation_curve).all() and dropped.best_step == 60
    with pytest.raises(ValueError, match=r"validation_data must be finite: x\[3\], column 1"):
        classify(monitor=train.Monitor(on_bad_data="raise"), **options)


# With jax_debug_nans


@pytest.fixture
def debug_nans():
    with jax.debug_nans(True):
        yield


def test_a_healthy_training_passes_debug_nans(debug_nans, tmp_path):
    options = {
        "validation_data": (X, LABELS), "early_stopping": train.EarlyStopping(2, validate_every=7),
    }  # fmt: skip
    for watched in (False, True):
        with train.Checkpoints(tmp_path / str(watched), every=8, keep_best=True) as kept:
            fitted = classify(monitor=watched, checkpoints=kept, **options)
        assert fitted.findings == [] and np.isfinite(fitted.evaluate(X, LABELS)["loss"])


def test_labels_outside_the_outputs_pass_debug_nans(debug_nans):
    with pytest.raises(ValueError, match="label 9 in row 0"):
        classify(np.full(60, 9, np.int32))


@pytest.mark.parametrize("watched", [False, True])
def test_a_nan_of_the_model_raises_under_debug_nans(debug_nans, watched, caplog):
    def root(outputs, targets):
        return jnp.sqrt(jnp.square(outputs[:, 0] - jax.lax.stop_gradient(outputs[:, 0])))

    with pytest.raises(FloatingPointError, match="nan"):
        fit(nn.Dense(1), root, monitor=watched)
