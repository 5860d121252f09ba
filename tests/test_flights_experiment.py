"""The flights experiment from its command line, in a size of seconds: a tenth of the year, tiny models."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.flights import __main__ as experiment
from experiments.flights import models, table


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
    parts = experiment.split(flights)
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
    parts = experiment.split(flights)
    loss = np.where(np.isnan(flights.seats[parts.test]), 2.0, 1.0)
    told, under = experiment.gaps({**flights.columns()}, loss, parts)
    seats = next(row for row in told if row["column"] == "seats")
    assert seats["log loss where missing"] == 2.0 and seats["log loss elsewhere"] == 1.0
    # American and Envoy report fleet numbers instead of tail numbers.
    assert any("'MQ'" in each and "seats" in each for each in under)


def test_thresholds_are_chosen_on_the_validation_months_alone():
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.3).astype(float)
    scores = np.clip(0.5 * labels + 0.5 * rng.random(3000), 0, 1)
    rows = np.split(np.arange(3000), 3)
    before = experiment.thresholds(labels, scores, experiment.Split(*rows))
    changed = labels.copy()
    changed[rows[2]] = 1 - changed[rows[2]]
    after = experiment.thresholds(changed, scores, experiment.Split(*rows))
    for name, each in before.items():
        assert after[name]["threshold"] == each["threshold"]
        assert after[name]["precision in test"] != each["precision in test"]


def test_ids_go_through_the_float_array_unharmed():
    ids = np.arange(2000)
    there = ids.astype(np.float32) * models._ID
    np.testing.assert_array_equal(np.rint(there / models._ID).astype(int), ids)


def test_the_command_leaves_a_report(few, tmp_path, monkeypatch, capsys):
    """One clock with a handful of columns, since each column is compiled."""
    run = tmp_path / "run"
    wanted = ("carrier", "origin", "dest", "weekday", "hour", "time of day", "distance", "seats",
              "late, yesterday", "departure delay, airport, 60 min", "outstanding, airport",
              "aircraft, slack")  # fmt: skip
    whole = experiment.clocks.late
    monkeypatch.setattr(
        experiment.clocks, "late", lambda *given: {k: whole(*given)[k] for k in wanted}
    )
    monkeypatch.setattr(experiment, "shortened", lambda flights: np.arange(len(flights)))
    arguments = ["--smoke", "--clocks", "late", "--run-dir", str(run)]
    assert experiment.main(arguments) == 0
    assert "AUC" in capsys.readouterr().out
    results = json.loads((run / "results.json").read_text())
    kinds = results["clocks"]["late"]["classification"]
    assert set(kinds) == {
        "network", "logistic", "scikit-learn, logistic", "scikit-learn, boosting",
    }  # fmt: skip
    for figures in kinds.values():
        assert 0.5 < figures["AUC"] < 1 and 0 < figures["log loss"] < 0.8
    page = (run / "report.html").read_text()
    for name in ("models", "late-thresholds", "late-loss", "late-slices"):
        assert f"src={name}.png" in page
        assert (run / f"{name}.png").read_bytes()[1:4] == b"PNG"
        (run / f"{name}.png").unlink()
    assert experiment.main(["--again", str(run)]) == 0
    assert (run / "models.png").exists() and (run / "report.html").read_text() == page
    assert experiment.main(["--members", "0"]) == 2
