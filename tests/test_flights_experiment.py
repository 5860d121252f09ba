"""The flights experiment from its command line, in a size of seconds: a tenth of the year, tiny models."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.flights import __main__ as experiment
from experiments.flights import judging, models, table


@pytest.fixture(scope="module")
def few():
    """Every eighth flight of three fortnights; the table is read once."""
    flights, weather = table.read()
    kept = flights.take(experiment.shortened(flights)[::8])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "read", lambda: (kept, weather))
        yield kept, weather


def test_the_tables_are_held_against_their_schemas(few, tmp_path):
    flights, weather = few
    parts = table.split(flights)
    assert set(flights.month[parts.training]) <= set(range(1, 9))
    assert set(flights.month[parts.validation]) <= {9, 10}
    assert set(flights.month[parts.test]) <= {11, 12}
    assert np.isfinite(flights.arr_delay[np.concatenate(dataclasses.astuple(parts))]).all()
    cleaned, found = experiment.checked(flights, weather, parts, tmp_path)
    # The wind of 1,048 miles an hour at Newark on 12 February is in the package.
    assert any("1048" in each for each in found["weather"])
    assert np.nanmax(weather.values) > 1048 and np.nanmax(cleaned.values[..., 4]) < 150
    assert np.isnan(cleaned.values).sum() == np.isnan(weather.values).sum() + 1
    assert (tmp_path / "schema-flights.toml").exists()


def test_what_is_missing_is_told_beside_the_error(few):
    flights, _ = few
    parts = table.split(flights)
    loss = np.where(np.isnan(flights.seats[parts.test]), 2.0, 1.0)
    told, under = judging.gaps({**flights.columns()}, loss, parts)
    seats = next(row for row in told if row["column"] == "seats")
    assert seats["log loss where missing"] == 2.0 and seats["log loss elsewhere"] == 1.0
    # American and Envoy report fleet numbers instead of tail numbers.
    assert any("'MQ'" in each and "seats" in each for each in under)


def test_thresholds_are_chosen_on_the_validation_months_alone():
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.3).astype(float)
    scores = np.clip(0.5 * labels + 0.5 * rng.random(3000), 0, 1)
    rows = np.split(np.arange(3000), 3)
    before = judging.thresholds(labels, scores, table.Split(*rows))
    changed = labels.copy()
    changed[rows[2]] = 1 - changed[rows[2]]
    after = judging.thresholds(changed, scores, table.Split(*rows))
    for name, each in before.items():
        assert after[name]["threshold"] == each["threshold"]
        assert after[name]["precision in test"] != each["precision in test"]


def test_differences_have_the_width_of_whole_days():
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(40), 25)
    labels = (rng.random(1000) < 0.4).astype(float)
    good_day = rng.random(40) < 0.6  # on the other days the second model is the better one
    first = np.where(good_day[day], 2 * labels - 1, 0.0)
    second = np.where(good_day[day], 0.0, 2 * labels - 1)
    wide = judging.differences(labels, first, second, day, 100)
    narrow = judging.differences(labels, first, second, np.arange(1000), 100)
    for name, each in wide.items():
        low, high = each["interval"]
        assert low < each["value"] < high
        other = narrow[name]["interval"]
        assert high - low > 2 * (other[1] - other[0])
    assert wide["AUC"]["value"] > 0 > wide["log loss"]["value"]


def test_a_report_from_what_a_run_has_written(tmp_path):
    """Pictures and page are made of results.json and predictions.npz alone."""
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.3).astype(float)
    logits = 2 * labels - 2 + rng.normal(size=500)
    figures = judging.classification(labels, logits)
    kinds = {
        kind: {**figures, "validation": figures, "seconds": 2.0, "seconds of compiling": 1.0}
        for kind in ("network", "logistic", "scikit-learn, logistic", "scikit-learn, boosting")
    }
    parts = table.Split(*[np.arange(500)] * 3)
    part = {"flights": 500, "late": 0.3, "predicted": 0.25, "AUC": 0.8, "AUC interval": [0.7, 0.9],
            "log loss": 0.5, "log loss interval": [0.4, 0.6]}  # fmt: skip
    clock = {
        "columns": 3, "inputs": 7, "gate on features": [], "settings": {"members": 2},
        "classification": kinds,
        "network less boosting": judging.differences(
            labels, logits, -logits, np.arange(500) // 9, 5
        ),
        "regression": {"median": judging.regression(labels, logits)},
        "thresholds": judging.thresholds(labels, 1 / (1 + np.exp(-logits)), parts),
        "slices": [{"slice": "carrier AA", "small": False, **part},
                   {"slice": "origin <JFK>", "small": True, **part}],
        "missing": [{"column": "seats", "missing in training": 0.1, "missing in test": 0.0,
                     "log loss where missing": None, "log loss elsewhere": 0.4}],
        "under-represented": [], "findings": [["a <finding>"], []],
        "random split": {"flights drawn at random": 0.8, "days drawn at random": 0.75,
                         "split by time": 0.7},
    }  # fmt: skip
    results = {
        "command": "python -m experiments.flights", "environment": {"cores": 2, "jax": "0"},
        "flights": 500, "left out, cancelled or diverted": 9, "seconds": 1.0,
        "rows": {"training": 1, "validation": 2, "test": 3},
        "anomalies": {"test": ["a wind & more"]}, "clocks": {"early": clock},
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results))
    arrays = {"labels": labels, "logits": logits, "steps": np.arange(9), "loss": np.ones(9),
              "validation_steps": np.arange(2), "validation_loss": np.ones(2)}  # fmt: skip
    np.savez(tmp_path / "predictions.npz", **{f"early {k}": v for k, v in arrays.items()})
    assert experiment.main(["--again", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    for name in ("models", "early-thresholds", "early-loss", "early-slices", "random-split"):
        assert f"src={name}.png" in page
        assert (tmp_path / f"{name}.png").read_bytes()[1:4] == b"PNG"
    assert f"{figures['AUC']:.4f}" in page and "a &lt;finding&gt;" in page and "0.050" in page
    assert experiment.main(["--members", "0"]) == 2


@pytest.fixture(scope="module")
def made():
    """Inputs of 1,200 flights, some of whose delay can be told from a number and a category."""
    rng = np.random.default_rng(0)
    dense, ids = rng.normal(size=(1200, 2)).astype(np.float32), rng.integers(0, 4, (1200, 1))
    minutes = 20 * dense[:, 0] + 15 * (ids[:, 0] == 2) + 10 * rng.normal(size=1200)
    x = {"dense": dense, "ids": ids.astype(np.int32)}
    return models.Inputs(x, (4,), ("carrier",)), minutes, np.split(np.arange(1200), [800, 1000])


def test_members_are_averaged_and_measured_in_minutes(made):
    given, minutes, (training, validation, test) = made
    settings = models.Settings(
        (8,), dropout=0.0, epochs=20.0, batch_size=64, learning_rate=0.02, monitor=False
    )
    trained = models.network(
        given, minutes, training, validation, settings, loss=models.huber, scale=(5.0, 20.0)
    )
    assert trained.members.shape == (2, 1200) and (trained.members[0] != trained.members[1]).any()
    np.testing.assert_array_equal(trained.outputs, trained.members.mean(0))
    for member in trained.members:
        assert np.abs(member - minutes)[test].mean() < 10 < np.abs(5 - minutes)[test].mean()


def test_logistic_regression_comes_to_the_minimum_of_scikit_learn(made):
    given, minutes, (training, validation, _) = made
    labels = (minutes > 15).astype(float)
    settings = models.Settings(epochs=60.0, batch_size=200, learning_rate=3e-2, monitor=False)
    ours = models.logistic(given, labels, training, validation, settings)
    theirs = models.scikit_learn("logistic", given, {}, labels, training, iterations=100)
    np.testing.assert_allclose(ours.outputs, theirs.outputs, atol=0.03)
    assert np.ptp(theirs.outputs) > 1
