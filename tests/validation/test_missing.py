"""Missing values by slice, beside the model's error there."""

import datetime

import numpy as np
import pandas as pd
import pytest

from jaxml.validation.missing import underrepresented_slices


def table(rows=2000, seed=0):
    rng = np.random.default_rng(seed)
    town = rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1])
    income = np.where(rng.random(rows) < np.where(town == "c", 0.5, 0.05), np.nan, 1.0)
    age = rng.integers(20, 90, rows)
    error = np.where(town == "c", 2.0, 1.0) + np.isnan(income)
    return {"town": town, "income": income, "age": age}, error


def test_the_slice_that_lacks_values_is_found_with_the_error_there():
    columns, error = table()
    (found,) = underrepresented_slices(columns, ["town", "age"], error)
    assert (found.column, found.examples, found.severity) == ("income", ("c",), "error")
    here, gaps = columns["town"] == "c", np.isnan(columns["income"])
    assert f"missing in {gaps[here].mean():.1%} of the {here.sum()} rows" in found.description
    assert f"in {gaps[~here].mean():.1%} elsewhere" in found.description
    assert f"error is {error[here].mean():.4g}, {error[~here].mean():.4g}" in found.description
    assert found.rows.tolist() == np.flatnonzero(here & gaps).tolist()
    (quiet,) = underrepresented_slices(columns, "town")
    assert quiet.severity == "warning" and found.share == pytest.approx(here.mean())


def test_gaps_at_random_are_not_found():
    columns, error = table()
    rng = np.random.default_rng(1)
    for _ in range(20):
        gaps = {**columns, "income": np.where(rng.random(2000) < 0.3, np.nan, 1.0)}
        assert underrepresented_slices(gaps, ["town", "age"], error) == []


def test_slices_are_values_ranges_or_missing():
    rows = np.arange(400)
    income = np.where((rows < 80) | (rows == 200), np.nan, 1.0)
    for town, value in (
        (np.where(rows < 90, "b", "a"), "b"),
        (rows < 90, True),
        (np.where(rows < 90, None, "a"), None),
        (rows // 90, 0),
    ):
        found = underrepresented_slices({"income": income, "town": town}, "town")[0]
        assert found.rows.tolist() == list(range(80)) and found.examples == (value,)
    days = np.where(rows < 90, np.datetime64("2013-01-01", "ns"), np.datetime64("2013-01-02", "ns"))
    found = underrepresented_slices({"income": income, "day": days}, "day")[0]
    assert found.examples == (datetime.datetime(2013, 1, 1),)
    found = underrepresented_slices({"income": income, "row": rows}, "row")
    assert {a.examples[0] for a in found} == {"0 … 39", "40 … 79"}
    assert underrepresented_slices({"s": ["a", "a"], "v": [1, None]}, "s") == []


def test_bad_arguments_are_named():
    columns, error = table()
    with pytest.raises(ValueError, match=r"slice_by must be one of .*'city'"):
        underrepresented_slices(columns, "city")
    gaps = pd.Series([1.0, None] * 1000, dtype="Float64")
    assert underrepresented_slices(columns, "town", gaps)[0].column == "income"
    with pytest.raises(ValueError, match=r"errors must have shape \(2000,\), got \(3,\)"):
        underrepresented_slices(columns, "town", error[:3])
