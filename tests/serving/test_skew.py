"""What was served against what was trained."""

import contextlib
import sys

import numpy as np
import pytest

from jaxml import serving
from jaxml.serving import checking, log, skew
from jaxml.serving.__main__ import main
from jaxml.validation import writers
from jaxml.validation.drift import Comparator
from jaxml.validation.schema import Schema

NO_THRESHOLDS = Schema({})


def by_column(found):
    return {each.column: each for each in found}


def test_each_way_in_which_rows_differ_is_counted():
    expected = {
        "x": np.array([1.0, np.nan, np.nan, 4.0, 5.0]),
        "text": np.array(["a", "b", None, "d", "e"], object),
        "unused": [0] * 5,
    }
    served = {
        "x": np.array([1.0, np.nan, 3.0, np.nan, np.nextafter(5.0, 6.0)]),
        "text": np.array(["a", "B", "c", None, "e"], object),
    }
    found = skew.compare_rows(
        expected, served, expected_keys=range(5), served_keys=["0", "1", "2", "3", "4"]
    )
    x, text = found.features
    assert (x.matched, x.mismatched, x.only_expected, x.only_served) == (2, 1, 1, 1)
    assert (text.matched, text.mismatched, text.only_expected, text.only_served) == (2, 1, 1, 1)
    assert x.samples == (("2", None, 3.0), ("3", 4.0, None), ("4", 5.0, np.nextafter(5.0, 6.0)))
    assert [each.feature for each in found.different] == ["x", "text"] and x.different == 3
    assert (found.rows, found.not_expected, found.not_served, found.ambiguous) == (5, 0, 0, 0)


def test_keys_that_are_missing_or_there_twice():
    expected = {"x": [1, 2, 2, 3, 4]}
    found = skew.compare_rows(
        expected,
        {"x": [1, 2, 4, 4, 9]},
        expected_keys=["a", "b", "b", "c", "d"],
        served_keys=["a", "b", "d", "d", "?"],
    )
    assert (found.rows, found.not_expected, found.not_served, found.ambiguous) == (3, 1, 1, 1)
    assert not found.different
    with pytest.raises(ValueError, match="served must be one of 'x', got 'y'"):
        skew.compare_rows(expected, {"y": [1]}, expected_keys=[1], served_keys=[1])
    with pytest.raises(ValueError, match="expected_keys must be 5, got 1"):
        skew.compare_rows(expected, {"x": [1]}, expected_keys=[1], served_keys=[1])


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (np.array([2**60, 2**60 + 1]), np.array([2**60, 2**60]), [True, False]),
        (np.array([1, 0]), np.array([1.0, 0.5]), [True, False]),
        (np.array(["1", "2"]), np.array([1, 2]), [False, False]),
        (
            np.array(["2013-01-01", "2013-01-02"], "M8[D]"),
            np.array(["2013-01-01", "2013-01-02T05"], "M8[ns]"),
            [True, False],
        ),
        ([None, None], [np.nan, "x"], [True, False]),
    ],
    ids=["integers", "integers and floats", "texts and numbers", "times", "nothing"],
)
def test_values_of_several_kinds(a, b, equal):
    found = skew.compare_rows({"v": a}, {"v": b}, expected_keys=[0, 1], served_keys=[0, 1])
    assert found.features[0].different == 2 - sum(equal)
    assert [key for key, *_ in found.features[0].samples] == [
        str(i) for i in (0, 1) if not equal[i]
    ]


def test_random_rows_are_not_accused_however_few_they_are(flights):
    training, _ = flights(4000, seed=1)
    pool, _ = flights(4000, seed=2)
    rng = np.random.default_rng(0)
    above = 0
    for rows in (20, 60, 200, 1000):
        for _ in range(25):
            some = rng.choice(4000, rows, replace=False)
            found = skew.compare_columns(
                {name: each[some] for name, each in pool.items()}, training, NO_THRESHOLDS
            )
            assert not [each for each in found if each.differs]
            above += any(each.by_chance for each in found)
    assert above > 10  # Without the test of chance these were false alarms.


@pytest.mark.parametrize(
    ("column", "change", "text"),
    [
        ("distance", lambda x: x * 1.609344, "median 25"),
        ("origin", np.char.lower, "'JFK': 33.9% → 0.0%"),
        ("wind", lambda x: np.where(np.arange(len(x)) % 3, x, np.nan), "missing: 10"),
        ("hour", lambda x: np.minimum(x + 4, 23), "median 14 → 18"),
    ],
    ids=["unit", "other texts", "missing values", "another zone"],
)
def test_a_change_is_found_in_its_column_alone(flights, column, change, text):
    training, _ = flights(4000, seed=1)
    served, _ = flights(500, seed=2)
    served[column] = change(served[column])
    found = skew.compare_columns(served, training, NO_THRESHOLDS)
    assert [each.column for each in found if each.differs] == [column]
    assert found[0].column == column and found[0].rows == 500
    assert found[0].change.startswith(text)


def test_an_outlier_does_not_hide_a_change_and_is_none(flights):
    training, _ = flights(4000, seed=1)
    served, _ = flights(500, seed=2)
    served["distance"][0] = 10**9
    assert not any(each.differs for each in skew.compare_columns(served, training, NO_THRESHOLDS))
    served["distance"][1:] *= 2
    found = skew.compare_columns(served, training, NO_THRESHOLDS)
    assert [each.column for each in found if each.differs] == ["distance"]


def test_thresholds_of_the_schema_come_first(bundle, flights):
    training, served = flights(4000, seed=1)[0], flights(1000, seed=2)[0]
    served["hour"] = np.where(np.arange(1000) < 80, 23, served["hour"])
    found = by_column(skew.compare_columns(served, training, bundle.schema))
    assert not found["hour"].differs and found["hour"].threshold == 0.05
    schema = bundle.schema.replace("hour", skew=Comparator(infinity_norm=0.05))
    found = by_column(skew.compare_columns(served, training, schema))
    assert found["hour"].differs and found["hour"].distance == pytest.approx(0.075, abs=0.015)
    assert found["hour"].worst[0] == "23"


def test_columns_of_another_type_or_without_a_value(flights):
    training, _ = flights(400)
    served = {name: each[:100] for name, each in training.items()}
    served |= {"hour": served["hour"].astype(str), "wind": [None] * 100}
    found = by_column(skew.compare_columns(served, training, NO_THRESHOLDS))
    assert {name: each.differs for name, each in found.items()} == {
        "hour": True,
        "wind": True,
        "origin": False,
        "distance": False,
    }
    assert found["hour"].distance == 1.0
    with pytest.raises(ValueError, match="served must hold at least one row"):
        skew.compare_columns({"hour": []}, training, NO_THRESHOLDS)


@pytest.fixture
def store(tmp_path, bundle_path):
    """A store with one version in use."""
    made = serving.Store(tmp_path / "store")
    made.switch(made.add(bundle_path))
    return made


def serve(store, bundle, columns, *, features=None, outputs=None):
    """Logs rows as a server does; ids are r-0, r-1, …"""
    number = len(columns["hour"])
    with contextlib.closing(log.Log(store.path / "served" / "1", bundle.pipeline)) as written:
        encoded = bundle.encode(columns) if features is None else features
        ids = [f"r-{i}" for i in range(number)]
        answers = bundle.predict(columns) if outputs is None else outputs
        written.append(ids, [0] * number, columns, encoded, answers)


def test_rows_of_training_pass(store, bundle, columns, tmp_path, capsys):
    serve(store, bundle, columns)
    table = {**columns, "id": [f"r-{i}" for i in range(400)], "late": [0] * 400}
    writers.write_parquet(tmp_path / "table.parquet", table)
    picture = tmp_path / "skew.png"
    command = ["check", str(store.path), "--plot", str(picture)]
    assert main([*command, "--table", str(tmp_path / "table.parquet"), "--key", "id"]) == 0
    out = capsys.readouterr().out
    assert "flights, version 1: 400 rows served" in out
    assert "0 of 4 columns differ" in out and "400 rows, 0 of 5 differ" in out
    assert "400 rows, 0 of 1 differ" in out
    assert "400 rows, 0 of 9 differ" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib(store, bundle, columns, tmp_path, monkeypatch, capsys):
    serve(store, bundle, columns)
    monkeypatch.setitem(sys.modules, "matplotlib.layout_engine", None)
    assert main(["check", str(store.path), "--plot", str(tmp_path / "skew.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "matplotlib" in line and "pip install" in line


def test_a_feature_that_is_computed_otherwise_in_serving(store, bundle, columns, capsys):
    features = bundle.encode(columns)
    place = bundle.pipeline.dense_names.index("distance")
    features["dense"][7, place] = np.nextafter(features["dense"][7, place], np.float32(9))
    serve(store, bundle, columns, features=features)
    assert main(["check", str(store.path)]) == 1
    found = checking.check(store.path)
    assert [each.feature for each in found.features.different] == ["distance"]
    assert "400 rows, 1 of 5 differ" in capsys.readouterr().out


def test_answers_that_were_swapped(store, bundle, columns):
    answers = bundle.predict(columns)["probability"].copy()
    answers[:2] = answers[1::-1]
    answers[2:] += np.float32(1e-7)  # As a batch of another size may round.
    serve(store, bundle, columns, outputs={"probability": answers})
    (found,) = checking.check(store.path).answers.different
    assert (found.feature, found.different) == ("probability", 2)


def test_another_unit_in_serving_is_found_by_the_rows_of_the_table(
    store, bundle, columns, tmp_path, capsys
):
    served = {**columns, "distance": columns["distance"] * 1.01}  # Too little to show by itself.
    serve(store, bundle, served)
    assert main(["check", str(store.path)]) == 0
    table = tmp_path / "table.parquet"
    writers.write_parquet(table, {**columns, "id": [f"r-{i}" for i in range(400)]})
    assert main(["check", str(store.path), "--table", str(table), "--key", "id"]) == 1
    found = checking.check(store.path, table=table, key="id").table
    assert {each.feature: each.different for each in found.different} == {
        "column distance": 400,
        "feature distance": 400,
    }
    assert f"{columns['distance'][0]}" in capsys.readouterr().out
    writers.write_parquet(table, {**columns, "id": [f"r-{i // 2}" for i in range(400)]})
    assert main(["check", str(store.path), "--table", str(table), "--key", "id"]) == 1
    assert "200 KEYS are twice in the table" in capsys.readouterr().out


def test_what_a_user_gets_wrong_is_one_line(store, bundle, columns, tmp_path, capsys):
    def refused(*arguments):
        assert main(["check", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        return captured.err

    assert "no such directory" in refused(tmp_path / "none")
    assert "nothing has been served" in refused(store.path)
    serve(store, bundle, columns)
    table = tmp_path / "table.CSV"
    assert "table.CSV" in refused(store.path, "--table", table, "--key", "id")
    table.write_text("id,origin\n7,EWR\n")
    assert "needs a key" in refused(store.path, "--table", table)
    assert "without one" in refused(store.path, "--key", "id")
    assert "key must be one of" in refused(store.path, "--table", table, "--key", "no")
    assert "got 'distance'" in refused(store.path, "--table", table, "--key", "id")
    table.write_text("id,origin,distance,wind,hour\n7,EWR,100,3.5,8\n")
    assert "no value of 'id'" in refused(store.path, "--table", table, "--key", "id")
