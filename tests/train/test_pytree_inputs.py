"""Inputs that are several arrays: a dict of numbers and ids goes through a training as one array does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import losses, models, monitor, train

RNG = np.random.default_rng(0)
N = 210
DENSE = RNG.normal(size=(N, 3)).astype(np.float32)
IDS = RNG.integers(0, 8, (N, 2))
X = {"dense": DENSE, "ids": IDS}
Y = ((DENSE[:, 0] > 0) ^ (IDS[:, 0] > 3)).astype(np.float32)
MODEL = models.TabularMLP((8, 8), 4, (16,), 1)
KEY = jax.random.key(0)


def loss(outputs, labels):
    return losses.sigmoid_binary_cross_entropy(outputs[:, 0], labels)


def fit(x=X, y=Y, **options):
    settings = {"num_steps": 60, "batch_size": 32, "key": KEY, "monitor": False, **options}
    return train.fit(MODEL, loss, optax.adam(0.05), (x, y), **settings)


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    np.testing.assert_array_equal(first.loss_curve, second.loss_curve)


@pytest.fixture(scope="module")
def plain():
    return fit(validation_data=(X, Y))


def test_numbers_and_ids_are_trained_on(plain):
    assert plain.loss_curve[-10:].mean() < 0.2 < 0.6 < plain.loss_curve[0]
    outputs = MODEL.apply({"params": plain.params}, X)
    held_out = float(jnp.mean(loss(outputs, Y)))
    np.testing.assert_allclose(plain.validation_curve[-1], held_out, rtol=1e-5)


def test_a_pair_is_the_same(plain):
    same(plain, fit((DENSE, IDS), validation_data=((DENSE, IDS), Y)))


def test_a_monitor_watches_and_a_sweep_trains_the_same():
    alone = fit(monitor=True)
    assert alone.findings == []
    assert alone.history.layers[-1].startswith("mlp")
    swept = train.sweep(
        MODEL,
        loss,
        lambda given: optax.adam(given["rate"]),
        (X, Y),
        space={"rate": [0.05, 0.01]},
        num_steps=20,
        batch_size=32,
        key=KEY,
        validation_data=(X, Y),
        monitor=False,
    )
    assert [len(trial.fit.loss_curve) for trial in swept.trials] == [20, 20]
    assert swept.trials[0].fit.loss_curve[-1] < swept.trials[0].fit.loss_curve[0]


def test_bad_rows_are_named_and_dropped(plain):
    dense = DENSE.copy()
    dense[5, 2] = np.nan
    x = {"dense": dense, "ids": IDS}
    with pytest.raises(ValueError, match=r"x\['dense'\]\[5\], column 2"):
        fit(x, monitor=train.Monitor(on_bad_data="raise"))
    keep = np.delete(np.arange(N), 5)
    rest = jax.tree.map(lambda leaf: leaf[keep], X)
    drop = train.Monitor(on_bad_data="drop", final_diagnostics=False)
    whole = train.Monitor(final_diagnostics=False)
    same(fit(x, monitor=drop, num_steps=8), fit(rest, Y[keep], num_steps=8, monitor=whole))


def test_the_data_are_inspected_leaf_by_leaf():
    whole = monitor.inspect({"dense": DENSE * [1, 1, 500], "ids": IDS}, Y)
    assert whole.unscaled and whole.worst_column == 2 and whole.distinct == 1
    again = monitor.inspect(
        jax.tree.map(lambda leaf: np.tile(leaf[:20], (9, 1)), X), np.tile(Y[:20], 9)
    )
    assert again.period == 20


@pytest.mark.parametrize(
    ("x", "y", "validation", "message"),
    [
        ({"dense": DENSE, "ids": IDS[:-1]}, Y, None, r"equally many rows, got shapes .*\(209, 2\)"),
        ({}, Y, None, "equally many rows"),
        ({"dense": DENSE, "ids": IDS.astype(str)}, Y, None, "must hold numbers"),
        (X, Y, ({"dense": DENSE}, Y), "rows like those of data"),
    ],
)
def test_what_is_no_table_is_refused(x, y, validation, message):
    with pytest.raises(ValueError, match=message):
        fit(x, y, validation_data=validation)
