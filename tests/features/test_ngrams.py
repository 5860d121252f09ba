"""Hashed n-grams against a slow reference in plain Python integers, and the laws they obey."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.features.ngrams import HashedNgrams, fold, normalise, pad

WORD = 2**64 - 1
MULTIPLIER = 0x9E3779B97F4A7C15


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & WORD
    return x ^ (x >> 31)


def words_of(text):
    """The words of a normalised text."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return "".join(" " if unicodedata.category(c) == "Pd" else c for c in text).split()


def reference(config, text):
    """The ids of one string, as the module's docstring defines them."""

    def bucket(hash_):
        return (mix(hash_ & WORD) >> 32) * config.num_buckets >> 32

    def ids(text, kind):
        seed = mix(config.seed + kind * MULTIPLIER & WORD)
        words = words_of(text)
        found = []
        if config.whole and words:
            found.append(bucket(span(" ".join(words)) + seed + (1 << 32)))
        if config.words:
            found += [bucket(span(word) + seed + (2 << 32)) for word in words]
        marked = f" {' '.join(words)} " if words else ""
        for start, size in itertools.product(range(len(marked)), config.sizes):
            ngram = marked[start : start + size]
            if len(ngram) == size and ngram != " ":
                state = seed
                for char in ngram:
                    state = (state * MULTIPLIER + ord(char)) & WORD
                found.append(bucket(state + size))
        return found

    def span(text):
        # Position 0 is the boundary before the text and counts nothing.
        return sum(mix((ord(c) * MULTIPLIER + i) & WORD) for i, c in enumerate(text, start=1))

    text = text.replace("\0", " ")
    found = ids(fold(text) if config.folding == "only" else normalise(text), 0)
    if config.folding == "both":
        found += ids(fold(text), 1)
    if config.folding == "union" and fold(text) != normalise(text):
        found += [i for i in dict.fromkeys(ids(fold(text), 0)) if i not in found]
    return list(dict.fromkeys(found)) if config.unique else found


CONFIGS = [
    HashedNgrams(),
    HashedNgrams(sizes=(1, 3), num_buckets=50_021, seed=7),
    HashedNgrams(sizes=(5,), num_buckets=2**31 - 2, folding="only", seed=2**64 - 1),
    HashedNgrams(sizes=(2, 3), folding="union", words=True),
    HashedNgrams(sizes=(2,), num_buckets=64, folding="union", whole=True, unique=True),
    HashedNgrams(sizes=(1, 2, 4), folding="both", words=True, whole=True),
    HashedNgrams(sizes=(), words=True, whole=True),
    HashedNgrams(sizes=(2,), num_buckets=1),
]

TEXTS = [
    "",
    " ",
    "a",
    "München",
    "Bad  Ischl",
    "-Saint–Jean - d'Acre- ",
    "北京",
    "대구",
    "Київ",
    "दिल्ली",
    "ﬁ İ ß Ⅳ",
    "wrgwn\u200e\u200e ",
    "\u0301",
    "e\u0301a\u0308",
    "a\0b",
    "\ud800x",
    "🏔🏔🏔",
    "ab" * 40,
]


def rows(ragged):
    ids, offsets = ragged
    assert ids.dtype == np.int32
    assert offsets.dtype == np.int64
    assert offsets[0] == 0
    assert offsets[-1] == len(ids)
    return [part.tolist() for part in np.split(ids, offsets[1:-1])] if len(offsets) > 1 else []


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_agrees_with_the_definition(config):
    assert rows(config.apply_ragged(TEXTS)) == [reference(config, text) for text in TEXTS]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=12), max_size=5))
def test_agrees_with_the_definition_on_any_text(config, texts):
    assert rows(config.apply_ragged(texts)) == [reference(config, text) for text in texts]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_string_has_the_same_ids_alone_and_among_many(config):
    # More than one chunk, whose border falls inside.
    texts = TEXTS * 1_000
    many = rows(config.apply_ragged(texts))
    alone = [rows(config.apply_ragged([text]))[0] for text in TEXTS]
    assert many == alone * 1_000


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("width", [1, 5, 200])
def test_padded_form_is_the_beginning_of_the_ragged_one(config, width):
    narrow = HashedNgrams(**{**vars(config), "max_ngrams": width})
    padded = narrow.apply(TEXTS)
    assert padded.dtype == np.int32
    assert padded.shape == (len(TEXTS), width)
    for row, ids in zip(padded.tolist(), rows(config.apply_ragged(TEXTS)), strict=True):
        assert row == (ids + [config.num_buckets] * width)[:width]


def test_no_strings():
    assert HashedNgrams(max_ngrams=3).apply([]).shape == (0, 3)
    ids, offsets = HashedNgrams().apply_ragged([])
    assert ids.tolist() == []
    assert offsets.tolist() == [0]


def test_any_sequence_of_strings_will_do():
    wanted = HashedNgrams().apply(TEXTS[:4])
    np.testing.assert_array_equal(HashedNgrams().apply(tuple(TEXTS[:4])), wanted)
    np.testing.assert_array_equal(HashedNgrams().apply(np.array(TEXTS[:4])), wanted)


def test_ids_never_change():
    # Golden: recorded when the hash was fixed. Saved models and features depend on these numbers.
    config = HashedNgrams(sizes=(2, 3), whole=True, words=True)
    ids, offsets = config.apply_ragged(["Bad Ischl", "東京"])
    assert offsets.tolist() == [0, 22, 29]
    assert ids[:6].tolist() == [117606, 34138, 241550, 144892, 242938, 28771]
    assert ids[22:].tolist() == [62774, 113091, 158295, 74660, 214580, 84017, 36505]


def test_folded_forms_share_their_ngrams():
    def ids(text, folding):
        return set(rows(HashedNgrams(folding=folding).apply_ragged([text]))[0])

    assert ids("München", "only") == ids("Munchen", "only") == ids("Munchen", "none")
    assert ids("München", "union") == ids("München", "none") | ids("Munchen", "none")
    assert ids("Munchen", "union") == ids("Munchen", "none")
    assert ids("MUNCHEN", "none") == ids("Munchen", "none")
    assert len(ids("München", "both")) == len(ids("München", "none")) + len(ids("Munchen", "none"))


def test_spaces_and_hyphens_are_one_boundary():
    spellings = ["Bad Ischl", " bad-ischl", "Bad \u2013 Ischl\u00a0", "Bad\tIs\u00adchl"]
    padded = HashedNgrams(words=True, whole=True).apply(spellings)
    assert (padded == padded[0]).all()
    assert (HashedNgrams().apply(["Badischl"]) != padded[0]).any()


def test_boundaries_tell_the_ends_of_a_word():
    ids, offsets = HashedNgrams(sizes=(2,), num_buckets=2**31 - 2).apply_ragged(["ab", "cabd"])
    assert offsets.tolist() == [0, 3, 8]  # ␣a ab b␣ and ␣c ca ab bd d␣
    assert len(set(ids.tolist())) == 7


def test_fold_removes_accents_and_nothing_else():
    assert fold("ÀÉÎõüç Ǻ ở") == "aeiouc a o"
    assert fold("Łódź Ålesund Ærø") == "łodz alesund ærø"
    assert fold("Йошкар-Ола") == "иошкар-ола"
    assert fold("대구") == "대구"
    assert fold("दिल्ली").count("ि") == 1
    assert fold("") == ""


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_normal_forms_are_fixed_points(text):
    assert normalise(normalise(text)) == normalise(text)
    assert fold(fold(text)) == fold(text)
    assert normalise(fold(text)) == fold(text)


def test_buckets_are_evenly_filled():
    # All 4-grams over an alphabet: χ² of the counts of 2¹⁰ buckets, within 5 standard errors.
    letters = [chr(0x430 + i) for i in range(24)]
    texts = ["".join(t) for t in itertools.product(letters, repeat=3)]
    num_buckets = 2**10
    config = HashedNgrams(sizes=(4,), num_buckets=num_buckets)
    ids, _ = config.apply_ragged(texts)
    distinct = np.unique(HashedNgrams(sizes=(4,), num_buckets=2**31 - 2).apply_ragged(texts)[0])
    assert len(distinct) == 2 * 24**3  # ␣abc and abc␣: no two alike
    counts = np.bincount(ids, minlength=num_buckets)
    expected = len(ids) / num_buckets
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi2 - (num_buckets - 1)) < 5 * np.sqrt(2 * (num_buckets - 1))


def test_order_counts_in_words_and_whole():
    config = HashedNgrams(sizes=(), whole=True, words=True, num_buckets=2**31 - 2)
    (whole, first, second), (swapped, *words), (anagram, _, _) = rows(
        config.apply_ragged(["ab cd", "cd ab", "ba cd"])
    )
    assert words == [second, first]
    assert len({whole, swapped, anagram, first, second}) == 5


def test_another_seed_is_another_hash():
    ids = [HashedNgrams(seed=seed, num_buckets=2**20).apply(["Wien"]) for seed in range(20)]
    shared = sum(len(np.intersect1d(a[a < 2**20], b)) for a, b in itertools.combinations(ids, 2))
    assert shared <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (0, 2)}, r"sizes is \(0, 2\)"),
        ({"sizes": (3, 2)}, r"sizes is \(3, 2\)"),
        ({"sizes": (2, 2)}, r"sizes is \(2, 2\)"),
        ({"sizes": ()}, "sizes is empty"),
        ({"num_buckets": 0}, "num_buckets is 0"),
        ({"num_buckets": 2**31 - 1}, "num_buckets is 2147483647"),
        ({"max_ngrams": 0}, "max_ngrams is 0"),
        ({"folding": "some"}, "folding is 'some'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HashedNgrams(**options)


@pytest.mark.parametrize("method", ["apply", "apply_ragged"])
def test_what_is_no_list_of_strings_is_refused(method):
    with pytest.raises(ValueError, match="strings is the one string 'Wien'"):
        getattr(HashedNgrams(), method)("Wien")
    with pytest.raises(ValueError, match=r"strings\[1\] is None"):
        getattr(HashedNgrams(), method)(["Wien", None])


def test_pad_gathers_rows_in_any_order_and_more_than_once():
    ids, offsets = np.arange(10, 16, dtype=np.int32), np.array([0, 1, 1, 6])
    wanted = [[11, 12, 13], [99, 99, 99], [10, 99, 99], [11, 12, 13]]
    padded = pad(ids, offsets, 3, 99, rows=[2, 1, 0, -1])
    assert padded.tolist() == wanted
    assert padded.dtype == np.int32
    assert pad(ids, offsets, 0, 99).shape == (3, 0)
    assert pad(ids, offsets, 2, 99, rows=[]).shape == (0, 2)
    with pytest.raises(ValueError, match="width is -1"):
        pad(ids, offsets, -1, 99)
