"""One reader of values: types, gaps, exactness, and the containers that columns come in."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from jaxml.validation.columns import read_column, read_columns

EAST = datetime.timezone(datetime.timedelta(hours=3))
WEST = datetime.timezone(datetime.timedelta(hours=-5))
BIG = 2**60 + 1
NAN = float("nan")

CASES = [
    # values, type, missing
    (np.array([1, 2], np.int8), "INT", [0, 0]),
    (np.array([1.0, np.nan], np.float32), "FLOAT", [0, 1]),
    (np.array([True, False]), "INT", [0, 0]),
    (np.array(["a", ""]), "BYTES", [0, 1]),
    (np.array([b"a", b"\xff"]), "BYTES", [0, 0]),
    (np.array(["a", ""], np.dtypes.StringDType()), "BYTES", [0, 1]),
    (np.array(["2013-01-01", "NaT"], "M8[D]"), "TIME", [0, 1]),
    (np.array([1, "NaT"], "m8[s]"), "DURATION", [0, 1]),
    (np.ma.masked_array([1, 2], [True, False]), "INT", [1, 0]),
    (np.ma.masked_array([1.0, np.nan], [True, False]), "FLOAT", [1, 1]),
    (["a", "", None], "BYTES", [0, 1, 1]),
    ([1, ""], "INT", [0, 1]),
    ([1, 2.5], "FLOAT", [0, 0]),
    ([1.0, np.ma.masked], "FLOAT", [0, 1]),
    ([decimal.Decimal("1.5"), decimal.Decimal("nan")], "FLOAT", [0, 1]),
    ([NAN, "a"], "BYTES", [1, 0]),
    ([NAN, None], "FLOAT", [1, 1]),
    ([None, None], None, [1, 1]),
    ([], None, []),
    ([datetime.datetime(2013, 1, 1), None], "TIME", [0, 1]),
    ([datetime.timedelta(1), None], "DURATION", [0, 1]),
    ([np.datetime64("2013-01-01"), np.datetime64("NaT", "s")], "TIME", [0, 1]),
    ([1, "a"], "MIXED", [0, 0]),
    ([10**400, 1.5], "MIXED", [0, 0]),
    ([datetime.datetime(2013, 1, 1), datetime.datetime(2013, 1, 1, tzinfo=EAST)], "MIXED", [0, 0]),
    (pd.Series(["a", None, ""]), "BYTES", [0, 1, 1]),
    (pd.Series([1.5, None], dtype="Float64"), "FLOAT", [0, 1]),
    (pd.Series(["a", None, "a"], dtype="category"), "BYTES", [0, 1, 0]),
    (pd.Series([True, None], dtype="boolean"), "INT", [0, 1]),
    (pa.array([1.5, None, NAN]), "FLOAT", [0, 1, 1]),
    (pa.chunked_array([["a"], [None, ""]]), "BYTES", [0, 1, 1]),
    (pa.array(["a", None]).dictionary_encode(), "BYTES", [0, 1]),
    (pa.array([datetime.date(2013, 1, 1), None]), "TIME", [0, 1]),
    (pa.nulls(2), None, [1, 1]),
    (pa.array([[1], [2, 3]]), "MIXED", [0, 0]),
]


@pytest.mark.parametrize("values, type_, missing", CASES)
def test_types_and_gaps(values, type_, missing):
    column = read_column("x", values)
    assert column.type == type_
    assert column.missing.tolist() == [bool(each) for each in missing]
    assert column.num_present == missing.count(0) == len(column.known())


@pytest.mark.parametrize(
    "values, wanted",
    [
        ([BIG, None], [BIG, 0]),
        (np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        ([2**63, -1], [2**63, -1]),
        ([2**70, 1], [2**70, 1]),
        (pd.Series([BIG, BIG + 1, None], dtype="Int64"), [BIG, BIG + 1, 0]),
        (pd.Series([BIG, None], dtype=pd.CategoricalDtype([BIG])), [BIG, 0]),
        (pa.array([decimal.Decimal(10**19 + 1), None], pa.decimal128(20, 0)), [10**19 + 1, 0]),
        (["ab\0", "ab"], ["ab\0", "ab"]),
        (pd.Series(["ab\0", None], dtype=object), ["ab\0", ""]),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("UA", "UA"),
        (3, 3),
    ],
)
def test_integers_and_texts_stay_exact(values, wanted):
    assert read_column("x", values).values.tolist() == wanted


@pytest.mark.parametrize(
    "values, wanted",
    [
        ([2**70, None], [2.0**70, NAN]),
        (np.array(["1970-01-02", "NaT"], "M8[s]"), [86400, NAN]),
        ([datetime.datetime(1970, 1, 2, 3, tzinfo=EAST)], [86400]),
        ([datetime.datetime(9999, 12, 31, 23, tzinfo=WEST)], [253402315200]),
        (pd.Series(pd.to_datetime(["1970-01-02"])).dt.tz_localize("Etc/GMT+5"), [104400]),
        (pd.Series([pd.Timestamp(1, unit="ns")], dtype=object), [1e-9]),
        ([pd.Timedelta(1, "ns")], [1e-9]),
        (["", None], [NAN, NAN]),
    ],
)
def test_numbers_are_floats_and_times_seconds(values, wanted):
    np.testing.assert_array_equal(read_column("x", values).numbers(), wanted)


def test_times_keep_their_unit():
    for unit in ("D", "s", "ns"):
        assert read_column("t", np.array([1], f"M8[{unit}]")).values.dtype == f"M8[{unit}]"


def test_equal_values_have_equal_hashes_and_others_not():
    def hashes(values):
        return read_column("x", values).hashes().tolist()

    others = hashes([1, 2**64 - 1, 5]) + hashes([-1, "1", 2**70, 2**70 + 1, "ab", "ab\0"])
    assert len(set(others)) == 9
    assert hashes([1, 0]) == hashes([1.0, -0.0]) == hashes([True, False])
    assert hashes([None, ""]) == hashes([NAN, np.datetime64("NaT", "s")])
    assert len(set(hashes([None, 0, ""]))) == 2
    day, second, fine = (np.array([86400 * 10**9 + n], "M8[ns]") for n in (0, 10**9, 1))
    assert hashes(np.array([1], "M8[D]")) == hashes(day) == hashes(day.astype("M8[us]"))
    assert len({*hashes(day), *hashes(second), *hashes(fine)}) == 3


def test_codes_are_places_among_the_distinct_values():
    for values in (np.array([3, 1, 3]), ["b", None, "b"], [2.5, NAN, 2.5]):
        column = read_column("x", values)
        codes, distinct = column.codes()
        for value, code, missing in zip(column.values, codes, column.missing, strict=True):
            assert code == -1 if missing else distinct[code] == value


def test_whole_numbers_are_found():
    assert read_column("x", np.array([1.0, np.nan])).is_whole()
    assert not read_column("x", np.array([1.5, 2.0])).is_whole()
    assert not read_column("x", np.array([np.inf, 2.0])).is_whole()
    assert not read_column("x", ["1"]).is_whole()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: read_column("x", np.zeros(2, [("a", int)])).exact(), r"got tuple \(0,\) in row 0"),
        (lambda: read_column("x", np.zeros(2, complex)).numbers(), "got complex 0j in row 0"),
        (lambda: read_column("x", [1, "a"]).exact(), "INT 1 in row 0, BYTES 'a' in row 1"),
        (lambda: read_column("x", [2**70, 1]).exact(), f"at most 64 bits, got {2**70} in row 0"),
        (lambda: read_column("x", [b"a", b"\xff"]).exact(), "UTF-8, got '.*' in row 1"),
        (lambda: read_column("x", ["", "a"]).numbers(), "must hold numbers, got texts such as 'a'"),
        (lambda: read_column("x", [10**400]).numbers(), "must fit into float64"),
        (lambda: read_columns({"x": np.zeros((2, 1))}), "'x' must be one-dimensional"),
        (lambda: read_columns({"a": [1], "b": [1, 2]}), "1 rows of 'a' and 2 of 'b'"),
        (lambda: read_columns([{"a": 1}]), "columns must be a mapping .*, got list"),
        (lambda: read_columns(pa.table([[1], [2]], names=["a", "a"])), "got 'a' twice"),
    ],
)  # fmt: skip
def test_what_is_not_a_column_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_tables_of_pandas_and_arrow():
    wanted = {"a": [1, 2], "b": ["x", ""]}
    for table in (pd.DataFrame(wanted), pa.table(wanted), wanted):
        read = read_columns(table)
        assert {name: column.values.tolist() for name, column in read.items()} == wanted
