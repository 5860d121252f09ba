"""Texts as arrays: every text comes back, whatever is in it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.features.texts import pack


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec=None), max_size=9)))
def test_every_text_comes_back(texts):
    packed = pack(texts)
    assert packed.tolist() == texts
    assert packed.utf8.dtype == "uint8" and packed.ends.dtype == "int64"


def test_what_numpy_would_cut_off_stays():
    odd = ["a\0", "a", "", "\ud800", "é", "e\u0301"]
    assert pack(odd).tolist() == odd
    assert pack([]).tolist() == []
