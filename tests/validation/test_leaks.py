"""Rows and columns that make a model look better than it is."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.validation import leaks
from jaxml.validation.statistics import find_changes, generate_statistics


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", None])), max_size=12))
def test_rows_hash_alike_exactly_if_they_are_alike(rows):
    table = {"n": [row[0] for row in rows], "s": [row[1] for row in rows]}
    hashes = leaks.row_hashes(table)
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            assert (hashes[i] == hashes[j]) == (first == second)
    turned = {"s": table["s"], "n": np.array(table["n"], np.float32)}
    np.testing.assert_array_equal(leaks.row_hashes(turned), hashes)


def test_rows_hash_by_value_and_column():
    def one(*values):
        return [int(leaks.row_hashes({"x": value})[0]) for value in values]

    others = one([1], ["1"], [2], [1.5], [None], [np.inf], [-np.inf], [2**62], [10**30])
    assert len(set(others)) == len(others)
    # A value that moves to another column, or two that change places.
    tables = [{"a": [1], "b": [2]}, {"a": [2], "b": [1]}, {"a": [1], "c": [2]}, {"a": [1]}]
    assert len({int(leaks.row_hashes(table)[0]) for table in tables}) == 4


def test_hashes_never_change():
    # Golden: statistics that were saved hold such hashes.
    hashes = leaks.row_hashes({"a": ["x", None, "é"], "b": [1.5, 2.0, 3.0]})
    assert hashes.tolist() == [14954676135943317909, 12597723673753312301, 9733095299207508308]


def test_duplicates_are_all_but_the_first():
    table = {"id": np.array([7, 8, 7, 9, 7]), "x": np.array([1.0, 1.0, 1.0, np.nan, 2.0])}
    (found,) = leaks.duplicate_rows(table)
    assert found.rows.tolist() == [2] and found.share == 0.2
    assert found.examples == ({"id": 7, "x": 1.0},)
    (by_key,) = leaks.duplicate_rows(table, ["id"])
    assert by_key.rows.tolist() == [2, 4]
    assert leaks.duplicate_rows({"id": np.arange(5)}) == []
    assert leaks.duplicate_rows({"id": np.zeros(0)}) == leaks.duplicate_rows({}) == []
    with pytest.raises(ValueError, match="'key'"):
        leaks.duplicate_rows(table, ["key"])


def test_conflicting_labels_and_the_error_that_they_force():
    table = {
        "x": np.array([1, 1, 1, 2, 2, 3, 1]),
        "y": np.array(["a", "b", "a", "c", "c", "d", None], object),
    }
    (found,) = leaks.conflicting_labels(table, "y")
    assert found.column == "y" and found.rows.tolist() == [0, 1, 2]
    assert "0.167 of the rows" in found.description
    assert found.share == pytest.approx(3 / 7)
    assert leaks.conflicting_labels({**table, "id": np.arange(7)}, "y") == []
    assert len(leaks.conflicting_labels({**table, "id": np.arange(7)}, "y", ["x"])) == 1
    assert leaks.conflicting_labels({"x": np.zeros(0), "y": np.zeros(0)}, "y") == []
    assert leaks.conflicting_labels({"y": np.zeros(3)}, "y") == []
    assert leaks.conflicting_labels({"x": [1, 1], "y": [None, None]}, "y") == []
    with pytest.raises(ValueError, match="'z'"):
        leaks.conflicting_labels(table, "z")


def test_rows_and_groups_on_both_sides():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2))
    train = {"a": x[:80, 0], "b": x[:80, 1]}
    test = {"b": x[70:, 1], "a": x[70:, 0], "c": np.zeros(30)}
    (found,) = leaks.shared_rows(train, test)
    assert found.rows.tolist() == list(range(10)) and found.share == pytest.approx(1 / 3)
    assert leaks.shared_rows(train, {"a": x[80:, 0], "b": x[80:, 1]}) == []
    with pytest.raises(ValueError, match="in common"):
        leaks.shared_rows(train, {"z": x[:, 0]})
    (groups,) = leaks.shared_groups(["ann", "bob", None], ["eve", "ann", None, "ann"], "patient")
    assert groups.rows.tolist() == [1, 3] and groups.column == "patient"
    assert leaks.shared_groups(["ann"], ["bob"]) == []


def test_splits_that_overlap_in_time():
    days = np.arange("2013-01-01", "2013-01-11", dtype="M8[D]")
    assert leaks.time_overlap(days[:5], days[5:]) == []
    (found,) = leaks.time_overlap(days[:6], days[4:])
    assert found.rows.tolist() == [0, 1]
    (near,) = leaks.time_overlap(days[:5], days[5:], gap=np.timedelta64(2, "D"))
    assert near.rows.tolist() == [0]
    assert leaks.time_overlap([], days) == []
    far = np.array(["9999-12-31", "0001-01-01"], "M8[D]")
    assert leaks.time_overlap(days.astype("M8[ns]"), far)[0].rows.tolist() == [1]
    assert leaks.time_overlap(far, days.astype("M8[ns]"))[0].share == 1
    later = far + np.timedelta64(7, "D")
    assert leaks.time_overlap(far[:1], later[:1], gap=pd.Timedelta(7, "D")) == []
    (found,) = leaks.time_overlap(
        far[:1], later[:1], gap=pd.Timedelta(7, "D") + pd.Timedelta(1, "us")
    )
    assert found.rows.tolist() == [0]
    with pytest.raises(ValueError, match="must hold times on both sides, or numbers, got BYTES"):
        leaks.time_overlap(["a"], ["b"])
    with pytest.raises(ValueError, match="got TIME and INT"):
        leaks.time_overlap(days, np.arange(3))


def test_values_known_only_afterwards():
    table = {
        "delay": np.array([5.0, np.nan, 7.0, 8.0]),
        "landed": np.array(["2013-01-01T10", "2013-01-01T23", "2013-01-01T13", "NaT"], "M8[h]"),
        "asked": np.array(["2013-01-01T12"] * 4, "M8[h]"),
    }
    (found,) = leaks.time_leaks(table, {"delay": "landed"}, "asked")
    assert found.rows.tolist() == [2] and found.examples == (7.0,)
    late = {**table, "landed": np.array(["9999-12-31"] * 4, "M8[D]")}
    late["asked"] = late["asked"].astype("M8[ns]")
    (found,) = leaks.time_leaks(late, {"delay": "landed"}, "asked")
    assert found.rows.tolist() == [0, 2, 3]
    with pytest.raises(ValueError, match="'gone'"):
        leaks.time_leaks(table, {"gone": "landed"}, "asked")
    with pytest.raises(ValueError, match="landed and asked must hold times"):
        leaks.time_leaks({**table, "landed": np.arange(4)}, {"delay": "landed"}, "asked")


def test_columns_that_hold_the_answer():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 3000)
    table = {
        "y": y,
        "noise": rng.normal(size=3000),
        "id": np.arange(3000),
        "many": np.array([f"v{i}" for i in rng.integers(0, 2000, 3000)]),
        "some": np.where(rng.random(3000) < 0.5, y, rng.integers(0, 3, 3000)),
        "scaled": 3.5 * y + rng.normal(0, 0.1, 3000),
        "missing": np.where(y == 2, np.nan, y),
        "constant": np.zeros(3000),
    }
    found = leaks.label_leaks(table, "y")
    assert {a.column for a in found} == {"scaled", "missing"}
    assert {a.column for a in leaks.label_leaks(table, "y", threshold=0.2)} == {
        "scaled", "missing", "some",
    }  # fmt: skip
    assert leaks.label_leaks({k: v[:30] for k, v in table.items()}, "y") == []
    assert leaks.label_leaks({**table, "y": np.zeros(3000)}, "y") == []
    with pytest.raises(ValueError, match="threshold"):
        leaks.label_leaks(table, "y", threshold=0)


def test_a_number_to_be_predicted_can_leak_too():
    rng = np.random.default_rng(1)
    fare = rng.gamma(2, 10, 2000)
    table = {"fare": fare, "tax": 0.08 * fare, "miles": fare + rng.normal(0, 20, 2000)}
    assert [a.column for a in leaks.label_leaks(table, "fare", threshold=0.8)] == ["tax"]


def test_tables_of_pandas_have_names_and_times_of_their_own():
    unnamed = pd.DataFrame([[1, 2], [3, 4], [1, 2]])
    (found,) = leaks.duplicate_rows(unnamed)
    assert found.rows.tolist() == [2] and found.examples == ({0: 1, 1: 2},)
    assert find_changes(unnamed, generate_statistics(unnamed)) == []
    days = pd.DataFrame({"t": np.array(["2013-01-01"] * 2, "M8[ns]")})
    (found,) = leaks.duplicate_rows(days)
    assert found.examples == ({"t": datetime.datetime(2013, 1, 1)},)
    (found,) = leaks.conflicting_labels(days.assign(y=[2**60 + 1, 2**60 + 2]), "y")
    assert found.examples == (2**60 + 1, 2**60 + 2)


def test_one_name_is_one_column_and_hidden_values_stay_hidden():
    table = {"ab": [1, 1], "a": [1, 2], "b": [3, 4]}
    assert [a.rows.tolist() for a in leaks.duplicate_rows(table, "ab")] == [[1]]
    assert [a.rows.tolist() for a in leaks.shared_rows(table, table, "ab")] == [[0, 1]]
    with pytest.raises(ValueError, match="'c'"):
        leaks.shared_rows(table, table, ["c"])
    masked = np.ma.masked_array([1, 5, 7], [False, True, True])
    (found,) = leaks.duplicate_rows({"a": masked})
    assert found.examples == ({"a": None},)
