"""The flights experiment with an eighth of six weeks of flights and tiny models."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from experiments.flights import __main__ as experiment
from experiments.flights import clocks, judging, models, table


@pytest.fixture(scope="module")
def few():
    """Every eighth flight of three fortnights; the table is read once."""
    flights, weather = table.read()
    kept = flights.take(experiment.shortened(flights)[::8])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "read", lambda: (kept, weather))
        yield kept, weather


def test_the_tables_are_checked_against_their_schemas(few, tmp_path):
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


def test_missing_values_are_reported_with_the_loss(few):
    flights, _ = few
    parts = table.split(flights)
    loss = np.where(np.isnan(flights.seats[parts.test]), 2.0, 1.0)
    found, under = judging.gaps({**flights.columns()}, loss, parts)
    seats = next(row for row in found if row["column"] == "seats")
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
    outputs = {"first": first, "second": second}
    own, wide = judging.intervals(labels, outputs, day, 100)
    _, narrow = judging.intervals(labels, outputs, np.arange(1000), 100)
    for name, each in wide.items():
        low, high = each["interval"]
        assert low < each["value"] < high
        other = narrow[name]["interval"]
        assert high - low > 2 * (other[1] - other[0])
        assert all(ends[name][0] < ends[name][1] for ends in own.values())
    assert wide["AUC"]["value"] > 0 > wide["log loss"]["value"]


def test_pictures_need_the_files_of_a_run_alone(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.3).astype(float)
    logits = 2 * labels - 2 + rng.normal(size=500)
    figures = judging.classification(labels, logits)
    own, _ = judging.intervals(labels, {"a": logits, "b": -logits}, np.arange(500) // 9, 5)
    figures |= {f"{name} interval": ends for name, ends in own["a"].items()}
    parts = table.Split(*[np.arange(500)] * 3)
    rows = [
        {"slice": f"carrier {name}", "small": name == "B", "late": 0.3, "predicted": 0.25}
        for name in "AB"
    ]
    clock = {
        "classification": {"network": figures, "logistic": figures},
        "thresholds": judging.thresholds(labels, 1 / (1 + np.exp(-logits)), parts),
        "slices": rows,
    }
    (tmp_path / "results.json").write_text(json.dumps({"clocks": {"early": clock}}))
    arrays = {"labels": labels, "logits": logits, "steps": np.arange(9), "loss": np.ones(9),
              "validation_steps": np.arange(2), "validation_loss": np.ones(2)}  # fmt: skip
    np.savez(tmp_path / "predictions.npz", **{f"early {k}": v for k, v in arrays.items()})
    assert experiment.main(["--again", str(tmp_path)]) == 0
    drawn = capsys.readouterr().out.split()
    assert {path.rpartition("/")[2] for path in drawn} == {
        "models.png", "early-thresholds.png", "early-loss.png", "early-slices.png"
    }  # fmt: skip
    assert all(pathlib.Path(path).read_bytes()[1:4] == b"PNG" for path in drawn)
    assert experiment.main(["--members", "0"]) == 2


@pytest.fixture(scope="module")
def made():
    """Inputs of 1,200 flights whose delay depends on a number and a category."""
    rng = np.random.default_rng(0)
    dense, ids = rng.normal(size=(1200, 2)).astype(np.float32), rng.integers(0, 4, (1200, 1))
    minutes = 20 * dense[:, 0] + 15 * (ids[:, 0] == 2) + 10 * rng.normal(size=1200)
    inputs = models.Inputs({"dense": dense, "ids": ids.astype(np.int32)}, (4,), ("carrier",), [])
    return inputs, minutes, table.Split(*np.split(np.arange(1200), [800, 1000]))


def test_members_are_averaged_and_measured_in_minutes(made):
    inputs, minutes, parts = made
    settings = models.Settings(
        (8,), dropout=0.0, epochs=20.0, batch_size=64, learning_rate=0.02, monitor=False
    )
    trained = models.network(inputs, minutes, parts, settings, loss=models.huber, scale=(5.0, 20.0))
    assert trained.members.shape == (2, 1200) and (trained.members[0] != trained.members[1]).any()
    np.testing.assert_array_equal(trained.outputs, trained.members.mean(0))
    for member in trained.members:
        error = np.abs(member - minutes)[parts.test].mean()
        assert error < 10 < np.abs(5 - minutes)[parts.test].mean()


def test_logistic_regression_reaches_the_minimum_of_scikit_learn(made):
    inputs, minutes, parts = made
    labels = (minutes > 15).astype(float)
    settings = models.Settings(epochs=60.0, batch_size=200, learning_rate=3e-2, monitor=False)
    ours = models.logistic(inputs, labels, parts, settings)
    theirs = models.scikit_learn_logistic(inputs, labels, parts.training, iterations=100)
    np.testing.assert_allclose(ours.outputs, theirs.outputs, atol=0.03)
    assert np.ptp(theirs.outputs) > 1


def test_features_of_all_flights_are_fitted_on_the_training_rows(few):
    flights, weather = few
    parts = table.split(flights)
    columns = clocks.early(flights, weather)
    inputs = models.inputs(columns, parts.training)
    assert inputs.x["dense"].dtype == np.float32 and inputs.x["ids"].dtype == np.int32
    assert np.isfinite(inputs.x["dense"]).all()
    assert (inputs.x["ids"].max(0) < inputs.sizes).all()
    later = {name: np.concatenate([v, v[:5]]) for name, v in columns.items()}
    again = models.inputs(later, parts.training).x
    for name, values in inputs.x.items():
        np.testing.assert_array_equal(again[name][: len(flights)], values)
