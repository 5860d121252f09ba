"""`Counts`: independent of the order of chunks, and exact up to a stated error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.features.counts import Counts

NUMBERS = st.one_of(st.none(), st.integers(-9, 9), st.floats(-1e6, 1e6))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(NUMBERS, max_size=30), min_size=1, max_size=5),
    st.sampled_from([0, 8, 100]),
    st.randoms(),
)
def test_chunks_and_their_order_do_not_matter(chunks, limit, random):
    whole = Counts.empty(limit).update([v for chunk in chunks for v in chunk])
    parts = [Counts.empty(limit).update(chunk) for chunk in chunks]
    while len(parts) > 1:
        random.shuffle(parts)
        parts.append(parts.pop().merge(parts.pop()))
    np.testing.assert_array_equal(parts[0].values.astype(float), whole.values.astype(float))
    for one, other in zip(parts[0][1:], whole[1:], strict=True):
        np.testing.assert_equal(one, other)
    assert whole.total == sum(map(len, chunks))


def test_beyond_the_limit_values_are_off_by_the_stated_error():
    x = np.random.default_rng(0).lognormal(0, 2, 20_000) * np.tile([1, -1], 10_000)
    counts = Counts.empty(512).update(x)
    values, often = counts.numbers()
    assert 128 <= len(values) <= 512 and often.sum() == len(x)
    assert values[0] == x.min() and values[-1] == x.max()
    nearest = np.sort(x)[np.cumsum(often) - 1]
    assert (np.abs(values - nearest) <= 2 * 2.0 ** (counts.dropped - 53) * np.abs(nearest)).all()
    # Cells are fine where the values are close together: noise around 1e9 keeps its digits.
    far, _ = Counts.empty(4096).update(1e9 + np.sort(x)[5000:15000]).numbers()
    assert np.diff(far).max() < 0.01


def test_text_is_not_mixed_with_numbers():
    counts = Counts.empty().update(["a", "b", "a", None])
    assert counts.texts == {"a": 2, "b": 1} and counts.missing == 1 and counts.total == 4
    with pytest.raises(ValueError, match="got 'a' in one chunk and 3 in another"):
        counts.update([3])
    with pytest.raises(ValueError, match="max_distinct must be equal, got 8 and 9"):
        Counts.empty(8).merge(Counts.empty(9))


def test_integers_of_64_bits_are_exact():
    ids = Counts.empty(0).update(np.array([2**63 + 1], np.uint64)).update([2**62 + 1])
    assert ids.values.tolist() == [2**62 + 1, 2**63 + 1]
    assert Counts.empty().update([0.0, -0.0]).counts.tolist() == [2]
