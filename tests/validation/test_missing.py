"""Missing values by slice, beside the model's error there."""

import numpy as np
import pytest

from jaxml.validation.missing import missing_by_slice, two_proportions, underrepresented_slices


def table(rows=2000, seed=0):
    rng = np.random.default_rng(seed)
    town = rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1])
    income = np.where(rng.random(rows) < np.where(town == "c", 0.5, 0.05), np.nan, 1.0)
    age = rng.integers(20, 90, rows)
    error = np.where(town == "c", 2.0, 1.0) + np.isnan(income)
    return {"town": town, "income": income, "age": age}, error


def test_rates_and_errors_are_those_of_the_rows():
    columns, error = table()
    rows = missing_by_slice(columns, ["town", "age"], error)
    town, gaps = columns["town"], np.isnan(columns["income"])
    by_town = {row.slice_value: row for row in rows if row.slice_column == "town"}
    assert set(by_town) == {"a", "b", "c"}
    for name, row in by_town.items():
        here = town == name
        assert row.num_rows == here.sum() and row.column == "income"
        assert row.missing_rate == pytest.approx(gaps[here].mean())
        assert row.missing_rate_elsewhere == pytest.approx(gaps[~here].mean())
        assert row.error == pytest.approx(error[here].mean())
        assert row.error_elsewhere == pytest.approx(error[~here].mean())
        assert row.error_where_missing == pytest.approx(error[here & gaps].mean())
    ages = [row for row in rows if row.slice_column == "age"]
    assert sum(row.num_rows for row in ages) == 2000 and len(ages) == 10
    assert rows[0].slice_value == "c" and rows[0].p_value < 1e-20


def test_only_the_slice_that_lacks_is_told_and_an_error_where_the_model_errs():
    columns, error = table()
    (found,) = underrepresented_slices(columns, ["town", "age"], error)
    assert (found.column, found.examples, found.severity) == ("income", ("c",), "error")
    assert "the model's error is 2.5" in found.description
    (quiet,) = underrepresented_slices(columns, "town")
    assert quiet.severity == "warning"
    # At random over the slices: nothing to tell, for any seed.
    rng = np.random.default_rng(1)
    for _ in range(50):
        gaps = {**columns, "income": np.where(rng.random(2000) < 0.3, np.nan, 1.0)}
        assert underrepresented_slices(gaps, ["town", "age"], error) == []


def test_a_slice_may_itself_be_missing():
    columns = {"s": np.array(["x", None, None, "x"], object), "v": [1.0, None, None, 4.0]}
    first = missing_by_slice(columns, "s")[0]
    assert first.slice_value is None and first.missing_rate == 1 and np.isnan(first.error)
    assert missing_by_slice({"s": ["a", "b"], "v": [1, 2]}, "s") == []
    assert missing_by_slice({"s": ["a", "a"], "v": [1, None]}, "s") == []  # Nothing elsewhere.


def test_the_rows_are_those_of_the_slice_that_lack_the_value():
    rows = np.arange(400)
    for town in (np.where(rows < 90, "b", "a"), rows < 90, np.where(rows < 90, None, "a")):
        income = np.where((rows < 80) | (rows == 200), np.nan, 1.0)
        (found,) = underrepresented_slices({"income": income, "town": town}, "town")[:1]
        assert found.rows.tolist() == list(range(80))


def test_bad_arguments_are_named():
    columns, error = table()
    with pytest.raises(ValueError, match="'city'"):
        missing_by_slice(columns, "city")
    with pytest.raises(ValueError, match=r"errors must have shape \(2000,\), got \(3,\)"):
        missing_by_slice(columns, "town", error[:3])
    with pytest.raises(ValueError, match="significance"):
        underrepresented_slices(columns, "town", significance=0)


def test_proportions_are_tested_as_is_usual():
    # Two-sample z-test of 30/100 and 45/100: z = 2.1909.
    assert two_proportions(30, 100, 45, 100) == pytest.approx(0.02846, abs=1e-5)
    assert two_proportions(0, 10, 0, 10) == two_proportions(10, 10, 10, 10) == 1
