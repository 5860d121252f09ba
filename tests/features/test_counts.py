"""`Counts`: independent of the order of chunks, and exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.features.counts import Counts

NUMBERS = st.one_of(st.none(), st.integers(-9, 9), st.floats(-1e6, 1e6))
TEXTS = st.one_of(st.none(), st.sampled_from(["", "a", "b", "東京", "a\0"]))


@settings(max_examples=60, deadline=None)
@given(st.one_of(*(st.lists(st.lists(each)) for each in (NUMBERS, TEXTS))), st.randoms())
def test_chunks_and_their_order_do_not_matter(chunks, random):
    whole = Counts().update([v for chunk in chunks for v in chunk])
    parts = [Counts(), *(Counts().update(chunk) for chunk in chunks)]
    while len(parts) > 1:
        random.shuffle(parts)
        parts.append(parts.pop().merge(parts.pop()))
    for one, other in zip(parts[0], whole, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.total == sum(map(len, chunks))


def test_text_is_not_mixed_with_numbers():
    counts = Counts().update(["b", "a", "b", None])
    assert counts.values.tolist() == ["a", "b"] and counts.counts.tolist() == [1, 2]
    assert counts.missing == 1 and counts.total == 4
    with pytest.raises(ValueError, match="got 'a' in one chunk and 3 in another"):
        counts.update([3])


def test_integers_of_64_bits_are_exact():
    ids = Counts().update(np.array([2**63 + 1], np.uint64)).update([2**62 + 1])
    assert ids.values.tolist() == [2**62 + 1, 2**63 + 1]
    assert Counts().update([0.0, -0.0]).counts.tolist() == [2]
