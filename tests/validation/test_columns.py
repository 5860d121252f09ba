"""One reader of values: types, gaps, exactness, and the containers that columns come in."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from jaxml.validation.columns import in_one_unit, read_column, read_columns

EAST = datetime.timezone(datetime.timedelta(hours=3))
WEST = datetime.timezone(datetime.timedelta(hours=-5))
BIG = 2**60 + 1
NAN = float("nan")


class Spoken:
    """A column of another library that speaks Arrow; as an array its integers with gaps are floats."""

    def __init__(self, values, type_):
        self.values, self.dtype = pa.chunked_array([pa.array(values, type_)]), str(type_)

    def __array__(self, dtype=None, copy=None):
        return self.values.to_numpy().astype(dtype)

    def __arrow_c_stream__(self, requested_schema=None):
        return self.values.__arrow_c_stream__(requested_schema)


VIEWS = pa.DictionaryArray.from_arrays(
    pa.array([1, None, 0], pa.int8()), pa.array(["", "a"], pa.string_view())
)


def decimals(*values):
    return [decimal.Decimal(value) for value in values]


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
    (VIEWS, "BYTES", [0, 1, 1]),
    (pa.array([None, None], pa.dictionary(pa.int8(), pa.string())), None, [1, 1]),
    (pa.scalar(3), "INT", 0),
    (pa.array([datetime.date(2013, 1, 1), None]), "TIME", [0, 1]),
    (Spoken(["a", None], pa.string_view()), "BYTES", [0, 1]),
    (pa.nulls(2), None, [1, 1]),
    (pa.array([[1], [2, 3]]), "MIXED", [0, 0]),
]


@pytest.mark.parametrize("values, type_, missing", CASES)
def test_types_and_gaps(values, type_, missing):
    column = read_column("x", values)
    assert column.type == type_
    assert column.missing.tolist() == np.bool_(missing).tolist()
    assert column.num_present == np.sum(np.equal(missing, 0)) == len(column.known())


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
        (decimals(BIG, BIG + 1), [BIG, BIG + 1]),
        ([BIG, BIG + 1, 2.0], [BIG, BIG + 1, 2]),
        ([BIG, 0.5], [float(BIG), 0.5]),
        ([BIG, 1e300, float("inf")], [float(BIG), 1e300, float("inf")]),
        (pa.array([*decimals(BIG), None], pa.decimal128(38, 10)), [BIG, 0]),
        (pa.array(decimals(3, "0.5"), pa.decimal128(9, 1)), [3.0, 0.5]),
        (pd.Series(decimals(3, 4), dtype=pd.ArrowDtype(pa.decimal128(20, 0))), [3, 4]),
        (pd.Series([BIG, None], dtype=pd.ArrowDtype(pa.int64())), [BIG, 0]),
        (pa.array([BIG, None]).dictionary_encode(), [BIG, 0]),
        (Spoken([BIG, None], pa.int64()), [BIG, 0]),
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


def test_equal_times_are_equal_numbers_whatever_their_unit():
    times = np.random.default_rng(0).integers(-(10**15), 2 * 10**15, 500).astype("M8[us]")
    for of_micro in (times, times - times[::-1]):
        of_nano = of_micro.astype(of_micro.dtype.str.replace("us", "ns"))
        one, other = (read_column("t", each).numbers() for each in (of_micro, of_nano))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, of_micro.astype(np.int64) / 1e6, rtol=1e-15)


def test_times_of_several_units_do_not_overflow():
    fine, far = np.datetime64("2013-01-01T00:00", "ns"), datetime.date(9999, 12, 31)
    column = read_column("t", [fine, far, datetime.datetime(1, 1, 1), None])
    assert column.type == "TIME"
    assert column.values.astype("M8[Y]").astype(str).tolist() == ["2013", "9999", "0001", "NaT"]
    assert read_column("t", [fine - np.timedelta64(1, "ns"), fine]).values.dtype == "M8[ns]"
    assert (
        read_column("t", [fine + np.timedelta64(1, "ns"), far]).type == "MIXED"
    )  # No unit holds both.
    far, fine = (np.array([each], kind) for each, kind in ((far, "M8[D]"), (fine, "M8[ns]")))
    for one, other in (in_one_unit(far, fine), in_one_unit(fine, far)[::-1]):
        assert one > other
    early, _ = in_one_unit(np.array(["0001-01-01", "NaT"], "M8[D]"), fine)
    assert early[0] < fine and np.isnat(early[1])


def test_examples_are_python_objects():
    day = datetime.datetime(2013, 1, 1)
    for unit in ("s", "us", "ns"):
        assert read_column("t", np.array([day, "NaT"], f"M8[{unit}]")).examples([0, 1]) == [
            day,
            None,
        ]
    late = np.datetime64("10000-01-01T04:59:59.000000")
    assert read_column("t", np.array([late])).examples([True]) == [late]
    hour = read_column("t", np.array([3600 * 10**9, 1], "m8[ns]"))
    assert hour.examples([0]) == [datetime.timedelta(hours=1)]
    assert hour.examples([0, 1], 2)[1] == np.timedelta64(1, "ns")
    assert read_column("x", ["a", None, "b"]).examples(slice(None), 2) == ["a", None]


def test_equal_values_have_equal_hashes_and_others_not():
    def hashes(values):
        return read_column("x", values).hashes().tolist()

    others = hashes([1, 2**64 - 1, 5]) + hashes([-1, "1", 2**70, 2**70 + 1, "ab", "ab\0"])
    assert len(set(others)) == 9
    assert hashes([1, 0]) == hashes([1.0, -0.0]) == hashes([True, False])
    assert hashes([None, ""]) == hashes([NAN, np.datetime64("NaT", "s")])
    assert len(set(hashes([None, 0, ""]))) == 2
    # Beside what needs more than 64 bits, too.
    assert hashes([5, -1, 2**64 - 1, 2**70])[:3] == [*hashes([5, -1]), *hashes([2**64 - 1])]
    day, second, fine = (np.array([86400 * 10**9 + n], "M8[ns]") for n in (0, 10**9, 1))
    assert hashes(np.array([1], "M8[D]")) == hashes(day) == hashes(day.astype("M8[us]"))
    assert len({*hashes(day), *hashes(second), *hashes(fine)}) == 3


def test_codes_are_places_among_the_distinct_values():
    assert read_column("x", [2**70, 5, 5, -1]).codes()[1] == [-1, 5, 2**70]
    for values in (np.array([3, 1, 3]), ["b", None, "b"], [2.5, NAN, 2.5], [2**70, None, 1]):
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


class Frame:
    """A data frame as polars has it: names as a list of texts, columns that speak Arrow."""

    def __init__(self, table):
        self.table, self.columns = pa.table(table), [*table]

    def __getitem__(self, name):
        return self.table[name]


def test_tables_of_pandas_and_arrow():
    wanted = {"a": [1, 2], "b": ["x", ""]}
    batch = pa.RecordBatch.from_pydict(wanted)
    for table in (pd.DataFrame(wanted), pa.table(wanted), batch, Frame(wanted), wanted):
        read = read_columns(table)
        assert {name: column.values.tolist() for name, column in read.items()} == wanted
