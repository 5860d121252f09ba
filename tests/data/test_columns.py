"""Columns as they come: types, gaps, and values that stand for each other."""

import datetime
import decimal

import numpy as np
import pytest

from jaxml.data.columns import read_column, read_columns


@pytest.mark.parametrize(
    "values, type_, present",
    [
        (np.array([1, 2], np.int8), "INT", [1, 1]),
        (np.array([1, 2], np.uint64), "INT", [1, 1]),
        (np.array([1.0, np.nan], np.float32), "FLOAT", [1, 0]),
        (np.array([1.0, np.inf], np.float16), "FLOAT", [1, 1]),
        (np.array([True, False]), "INT", [1, 1]),
        (np.array(["a", ""]), "BYTES", [1, 1]),
        (np.array([b"a", b"\xff"]), "BYTES", [1, 1]),
        (np.array(["2013-01-01", "NaT"], "M8[D]"), "TIME", [1, 0]),
        (np.array([1, "NaT"], "m8[s]"), "DURATION", [1, 0]),
        ([None, "a"], "BYTES", [0, 1]),
        ([None, 3], "INT", [0, 1]),
        ([True, None], "INT", [1, 0]),
        ([1, 2.5], "FLOAT", [1, 1]),
        ([decimal.Decimal("1.5"), None], "FLOAT", [1, 0]),
        ([float("nan"), "a"], "BYTES", [0, 1]),
        ([float("nan"), None], "FLOAT", [0, 0]),
        ([None, None], None, [0, 0]),
        ([datetime.datetime(2013, 1, 1), None], "TIME", [1, 0]),
        ([datetime.timedelta(1), None], "DURATION", [1, 0]),
        ([np.datetime64("2013-01-01"), np.datetime64("NaT", "s")], "TIME", [1, 0]),
        ([1, "a"], "MIXED", [1, 1]),
        ([[1], {}], "MIXED", [1, 1]),
        ([10**30, 1], "INT", [1, 1]),
        (np.ma.masked_array([1, 2], [True, False]), "INT", [0, 1]),
        (np.ma.masked_array([1.0, np.nan], [True, False]), "FLOAT", [0, 0]),
        (np.array(["a", "b"], np.dtypes.StringDType()), "BYTES", [1, 1]),
    ],
)
def test_types_and_gaps(values, type_, present):
    column = read_column("x", values)
    assert column.type == type_
    assert column.present.tolist() == [bool(p) for p in present]


def test_codes_are_places_among_the_distinct_values():
    for values in (np.array([3, 1, 3]), ["b", None, "b"], [2.5, float("nan"), 2.5]):
        column = read_column("x", values)
        codes, distinct = column.codes()
        for value, code, there in zip(column.values, codes, column.present, strict=True):
            assert (distinct[code] == value) if there else code == -1


def test_whole_numbers_are_told():
    assert read_column("x", np.array([1.0, np.nan])).is_whole()
    assert not read_column("x", np.array([1.5, 2.0])).is_whole()
    assert not read_column("x", np.array([np.inf, 2.0])).is_whole()
    assert not read_column("x", ["1"]).is_whole()


def test_what_is_no_column_is_refused():
    with pytest.raises(ValueError, match="'x' must be one-dimensional"):
        read_column("x", np.zeros((2, 1)))
    with pytest.raises(ValueError, match="'x' must be one-dimensional"):
        read_column("x", np.float64(1))
    with pytest.raises(ValueError, match="'x' must hold numbers, text or times"):
        read_column("x", np.zeros(2, [("a", int)]))
    with pytest.raises(ValueError, match="'a' has 1 rows, 'b' has 2"):
        read_columns({"a": [1], "b": [1, 2]})
