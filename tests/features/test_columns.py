"""Reading raw columns, and counts that do not depend on the order of chunks."""

import datetime
import decimal
import fractions

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.features.columns import Counts, numbers, read

EAST = datetime.timezone(datetime.timedelta(hours=3))


def same(a, b):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize(
    ("values", "wanted", "missing", "text"),
    [
        ([1, 2], [1, 2], [0, 0], False),
        ([1, None], [1, 0], [0, 1], False),
        ([1, 2.5], [1, 2.5], [0, 0], False),
        ([1.5, float("nan"), None], [1.5, np.nan, np.nan], [0, 1, 1], False),
        ([True, False], [1, 0], [0, 0], False),
        (["a", ""], ["a", ""], [0, 1], True),
        (["a", None, float("nan")], ["a", "", ""], [0, 1, 1], True),
        (np.array([b"a", b""]), ["a", ""], [0, 1], True),
        (np.array(["a", None], object), ["a", ""], [0, 1], True),
        (np.array([2**63 + 5], np.uint64), [2**63 + 5], [0], False),
        (np.array([7], np.uint8), [7], [0], False),
        ([2**60 + 1, None], [2**60 + 1, 0], [0, 1], False),
        (np.ma.masked_array([1, 2], [False, True]), [1, 2], [0, 1], False),
        (np.array(["1970-01-02", "NaT"], "M8[s]"), [86400, np.nan], [0, 1], False),
        (np.array([90, 30], "m8[m]"), [5400, 1800], [0, 0], False),
        (np.array([np.timedelta64(90, "m"), None], object), [5400, np.nan], [0, 1], False),
        ([datetime.timedelta(minutes=1), None], [60, np.nan], [0, 1], False),
        ([datetime.date(1970, 1, 2), None], [86400, np.nan], [0, 1], False),
        ([datetime.datetime(1970, 1, 2, 3, tzinfo=EAST)], [86400], [0], False),
        ([decimal.Decimal("1.5"), decimal.Decimal("nan"), 2], [1.5, np.nan, 2], [0, 1, 0], False),
        ([fractions.Fraction(1, 4)], [0.25], [0], False),
        ([None, None], [np.nan, np.nan], [1, 1], False),
        ([1.0, np.ma.masked], [1, np.nan], [0, 1], False),
        ([], [], [], False),
        ("UA", "UA", 0, True),
        (3, 3, 0, False),
    ],
)
def test_any_usual_kind_is_read(values, wanted, missing, text):
    column = read(values)
    assert column.is_text == text
    assert column.values.tolist() == pytest.approx(wanted, nan_ok=True) if not text else True
    if text:
        assert column.values.tolist() == wanted
    assert column.missing.astype(int).tolist() == missing


def test_what_is_no_column_is_refused():
    with pytest.raises(ValueError, match="column 'x' holds 'a' at row 1 beside 1"):
        read([1, "a"], "column 'x'")
    with pytest.raises(ValueError, match="column 'x' holds 'a' at row 0 beside 1"):
        read(["a", 1], "column 'x'")
    with pytest.raises(ValueError, match=r"holds \{2\} at row 0, a set, wanted all numbers"):
        read([{2}])
    with pytest.raises(ValueError, match="a time, wanted"):
        read([datetime.time(5)])
    for latin in ([b"a", b"\xff"], np.array([b"a", b"\xff"])):
        with pytest.raises(
            ValueError, match=r"column 'x' holds b'\\xff' at row 1, wanted .* UTF-8"
        ):
            read(latin, "column 'x'")
    with pytest.raises(ValueError, match="complex128, wanted numbers, text or times"):
        read(np.array([1j]))
    with pytest.raises(ValueError, match="beyond 64 bits"):
        read([2**70])
    with pytest.raises(ValueError, match="text such as 'a', wanted numbers"):
        numbers(["", "a"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.integers(-9, 9), st.floats(-1e6, 1e6)), max_size=30),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0, 8, 100]),
    st.randoms(),
)
def test_counts_do_not_depend_on_chunks_or_their_order(chunks, limit, random):
    whole = Counts.empty(limit).update([v for chunk in chunks for v in chunk])
    parts = [Counts.empty(limit).update(chunk) for chunk in chunks]
    while len(parts) > 1:
        random.shuffle(parts)
        parts.append(parts.pop().merge(parts.pop()))
    assert np.array_equal(parts[0].values.astype(float), whole.values.astype(float))
    same(parts[0]._replace(values=0), whole._replace(values=0))
    assert whole.total == sum(map(len, chunks))


def test_beyond_the_limit_values_are_off_by_what_is_stated():
    x = np.random.default_rng(0).lognormal(0, 2, 20_000) * np.tile([1, -1], 10_000)
    counts = Counts.empty(512).update(x)
    values, often = counts.numbers()
    assert 128 <= len(values) <= 512 and often.sum() == len(x)
    assert values[0] == x.min() and values[-1] == x.max()
    nearest = np.sort(x)[np.cumsum(often) - 1]
    assert (np.abs(values - nearest) <= 2 * 2.0 ** (counts.dropped - 53) * np.abs(nearest)).all()
    # Cells are fine where the values are close together: 1e9 takes no digit from the noise.
    far, _ = Counts.empty(4096).update(1e9 + np.sort(x)[5000:15000]).numbers()
    assert np.diff(far).max() < 0.01


def test_text_is_counted_and_not_mixed_with_numbers():
    counts = Counts.empty().update(["a", "b", "a", None])
    assert counts.texts == {"a": 2, "b": 1} and counts.missing == 1 and counts.total == 4
    with pytest.raises(ValueError, match="'a' in one chunk and 3 in another"):
        counts.update([3])
    with pytest.raises(ValueError, match="max_distinct is 8 here and 9 there"):
        Counts.empty(8).merge(Counts.empty(9))
    ids = Counts.empty(0).update(np.array([2**63 + 1], np.uint64)).update([2**62 + 1])
    assert ids.values.tolist() == [2**62 + 1, 2**63 + 1]
    assert Counts.empty().update([0.0, -0.0]).counts.tolist() == [2]
