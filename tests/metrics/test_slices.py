"""By slice: the same as the metric of the slice alone."""

import datetime

import jax
import numpy as np
import pytest

from jaxml import metrics
from jaxml.metrics import streaming

rng = np.random.default_rng(0)
N = 600
LABELS, SCORES = rng.integers(0, 2, N), rng.random(N)
AIRPORT = rng.choice(["EWR", "JFK", "LGA"], N, p=[0.6, 0.35, 0.05])


@pytest.mark.parametrize("metric", [metrics.roc_auc, streaming.roc_auc()])
def test_each_slice_is_itself(metric):
    found = metrics.by_slice(metric, AIRPORT, LABELS, SCORES)
    assert list(found) == ["EWR", "JFK", "LGA"]
    for name, part in found.items():
        rows = AIRPORT == name
        wanted = metrics.roc_auc(LABELS[rows], SCORES[rows])
        assert part.value == pytest.approx(wanted, abs=1e-3)
        assert part.num_examples == rows.sum()
        assert part.small == (rows.sum() < 100)


def test_columns_by_name_and_masks_and_missing_values():
    month = rng.choice([1.0, 2.0, np.nan], N)
    mask = rng.random(N) < 0.5
    labels = np.where(mask, LABELS, -7)
    columns = {
        "airport": AIRPORT,
        "month": month,
        "plane": np.array(["N1", None] * (N // 2), object),
    }
    found = metrics.by_slice(metrics.accuracy, columns, labels, SCORES, mask=mask)
    assert list(found)[3:] == [
        ("month", 1.0),
        ("month", 2.0),
        ("month", None),
        ("plane", "N1"),
        ("plane", None),
    ]
    rows = mask & np.isnan(month)
    assert found["month", None].num_examples == rows.sum()
    assert found["month", None].value == metrics.accuracy(LABELS[rows], SCORES[rows])


def test_too_few_of_one_class_is_small():
    labels = np.zeros(N, int)
    labels[:9] = 1
    assert metrics.by_slice(metrics.roc_auc, np.zeros(N, int), labels, SCORES)[0].small
    labels[9] = 1
    assert not metrics.by_slice(metrics.roc_auc, np.zeros(N, int), labels, SCORES)[0].small


def test_an_interval_depends_on_its_own_slice_and_key_alone(key):
    options = {"key": key, "num_samples": 30}
    of = streaming.accuracy()
    airport = np.resize(["EWR", "JFK", "LGA"], N)  # of one size: one compiled program
    found = metrics.by_slice(of, airport, LABELS, SCORES, **options)
    rows = airport != "EWR"
    fewer = metrics.by_slice(of, airport[rows], LABELS[rows], SCORES[rows], **options)
    for name in fewer:
        np.testing.assert_array_equal(found[name].interval.samples, fewer[name].interval.samples)
        assert fewer[name].interval.low <= fewer[name].value <= fewer[name].interval.high
    other = metrics.by_slice(of, airport, LABELS, SCORES, key=jax.random.key(1), num_samples=30)
    assert other["EWR"].interval.low != found["EWR"].interval.low


def test_dates_and_missing_values_of_pandas():
    pandas = pytest.importorskip("pandas")
    days = np.array(["2013-01-01", "2013-01-02", "NaT", "2013-01-01"], "datetime64[ns]")
    found = metrics.by_slice(metrics.accuracy, days, [0, 1, 1, 0], [0.1, 0.9, 0.9, 0.1])
    assert [str(name)[:10] for name in found] == ["2013-01-01", "2013-01-02", "None"]
    column = pandas.array(["a", pandas.NA, "a", "b"], dtype="string")
    found = metrics.by_slice(metrics.accuracy, column, [0, 1, 1, 0], [0.1, 0.9, 0.9, 0.1])
    assert {name: part.num_examples for name, part in found.items()} == {"a": 2, "b": 1, None: 1}


def accuracy_of(slices):
    found = metrics.by_slice(metrics.accuracy, slices, [0, 1, 1, 0], [0.1, 0.9, 0.9, 0.1])
    return {name: part.num_examples for name, part in found.items()}


def test_a_slice_is_any_column():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    big, day = 2**60 + 1, datetime.datetime(2013, 1, 1)
    one, two = (datetime.timedelta(seconds=n) for n in (1, 2))
    for column, wanted in [
        (pandas.Series([big, pandas.NA, big + 1, big], dtype="Int64"), [big, big + 1, None]),
        (pandas.Series([big, pandas.NA, 7, "a"], dtype=object), [big, 7, "a", None]),
        (pandas.Series([True, None, False, True], dtype="boolean"), [False, True, None]),
        (pandas.Series(["b", None, "a", "b"], dtype="category"), ["a", "b", None]),
        (pandas.Series(pandas.to_datetime([day, None, day, day])), [day, None]),
        (pandas.Series(pandas.to_datetime([day] * 4)).dt.tz_localize("UTC"), [day]),
        (np.array([day, "NaT", day, day], "M8[ns]"), [day, None]),
        (np.array(["2013-01-01"] * 4, "M8[D]"), [day]),
        (np.array([1, "NaT", 2, 1], "m8[ns]") * 10**9, [one, two, None]),
        (np.array([0, 1, 0, 0], "M8[ns]"), [np.datetime64(0, "ns"), np.datetime64(1, "ns")]),
        (np.array([253402300800] * 4, "M8[s]"), [np.datetime64("10000-01-01T00:00:00.000000")]),
        (np.ma.masked_array([3, 9, 2, 3], [False, True, False, False]), [2, 3, None]),
        (np.ma.masked_array(["b", "x", "a", "b"], [False, True, False, False]), ["a", "b", None]),
        (pyarrow.array([big, None, big + 1, big]), [big, big + 1, None]),
        (pyarrow.chunked_array([["b", None], ["a", "b"]]), ["a", "b", None]),
        (["ab\0", "", "ab", "ab"], ["ab", "ab\0", None]),
        ([(1, 2), None, (1, 3), (1, 2)], [(1, 2), (1, 3), None]),
        ([10, 9, None, 2**70], [9, 10, 2**70, None]),
    ]:  # fmt: skip
        found = accuracy_of(column)
        assert list(found) == wanted and list(map(type, found)) == list(map(type, wanted))
        assert sum(found.values()) == 4


def test_slices_of_a_table_of_any_kind():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    table = {"a": ["x", "y", "x", None], "b": [1, 2, 2, 2]}
    wanted = {("a", "x"): 2, ("a", "y"): 1, ("a", None): 1, ("b", 1): 1, ("b", 2): 3}
    frame = pandas.DataFrame(table, index=[7, 7, 8, 9])
    for each in (table, frame, pyarrow.table(table), pyarrow.RecordBatch.from_pydict(table)):
        assert accuracy_of(each) == wanted


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"slices must have 600 rows"):
        metrics.by_slice(metrics.accuracy, AIRPORT[1:], LABELS, SCORES)
    with pytest.raises(ValueError, match=r"slices\['a'\] must have 600 rows"):
        metrics.by_slice(metrics.accuracy, {"a": AIRPORT[1:]}, LABELS, SCORES)
    assert metrics.by_slice(metrics.accuracy, [], [], []) == {}


def test_a_refused_row_is_named_as_the_caller_counts():
    with pytest.raises(ValueError, match="labels must be 0 or 1; row 3 is 7"):
        metrics.by_slice(metrics.roc_auc, ["a", "a", "b", "b"], [0, 1, 0, 7], [0.1, 0.2, 0.3, 0.4])
