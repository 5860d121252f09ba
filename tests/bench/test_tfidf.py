"""The TF-IDF baseline against the same definition written out in plain Python."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.bench.tfidf import tfidf_nearest_neighbour


def bag(text):
    text = f" {' '.join(text.casefold().split())} "
    return Counter(text[i : i + n] for n in (2, 3) for i in range(len(text) - n + 1))


def reference_scores(strings, labels, queries):
    """Best cosine of each query to each label, [Q, max label + 1]; 0 where nothing is shared."""
    bags = [bag(text) for text in strings]
    frequency = Counter(ngram for ngrams in bags for ngram in ngrams)
    idf = {g: 1 + math.log((1 + len(strings)) / (1 + df)) for g, df in frequency.items()}

    def weigh(ngrams):
        vector = {g: tf * idf[g] for g, tf in ngrams.items() if g in idf}
        length = math.sqrt(sum(x * x for x in vector.values())) or 1.0
        return {g: x / length for g, x in vector.items()}

    known = [weigh(ngrams) for ngrams in bags]
    scores = np.zeros((len(queries), max(labels) + 1))
    for row, text in enumerate(queries):
        query = weigh(bag(text))
        for label, vector in zip(labels, known, strict=True):
            score = sum(x * vector.get(g, 0.0) for g, x in query.items())
            scores[row, label] = max(scores[row, label], score)
    return scores


def assert_ranked(ranked, scores):
    """`ranked` lists every label that scores, best first, up to float32 rounding."""
    for row, labels in enumerate(ranked):
        found = labels[labels >= 0]
        assert len(set(found.tolist())) == len(found)
        np.testing.assert_array_equal(labels[len(found) :], -1)
        best = np.sort(scores[row])[::-1][: len(labels)]
        best = best[best > 1e-6]
        np.testing.assert_allclose(scores[row][found], best, atol=1e-6)


words = st.lists(st.text("abcéß -", max_size=6), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None)
@given(strings=words, queries=words, k=st.integers(1, 6), data=st.data())
def test_whole_search_agrees_with_the_definition(strings, queries, k, data):
    labels = data.draw(st.lists(st.integers(0, 4), min_size=len(strings), max_size=len(strings)))
    ranked = tfidf_nearest_neighbour(strings, labels, queries, k=k, max_df=1.0)
    assert ranked.dtype == np.int32
    assert ranked.shape == (len(queries), k)
    assert_ranked(ranked, reference_scores(strings, labels, queries))


def names(count, seed):
    rng = np.random.default_rng(seed)
    syllables = ["ba", "den", "burg", "wie", "dorf", "st", "ing", "ach", "ober", "neu", "ль", "北"]
    return ["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(count)]


def test_candidates_by_rare_ngrams_hold_the_nearest():
    strings, queries = names(600, 0), names(100, 1)
    labels = np.arange(600) % 211
    scores = reference_scores(strings, labels.tolist(), queries)
    ranked = tfidf_nearest_neighbour(strings, labels, queries, k=3, max_df=0.1, num_rescored=100)
    best = scores.max(axis=1)
    got = scores[np.arange(100), ranked[:, 0]]
    assert (got > best - 1e-6).mean() >= 0.98
    # What is found is ranked by all n-grams, not by the rare ones alone.
    third = np.take_along_axis(scores, ranked.astype(np.int64), axis=1)
    assert (np.diff(third, axis=1) < 1e-6).all()


def test_a_query_of_frequent_ngrams_alone_still_finds():
    strings = ["aa"] * 5 + ["ab"] * 5
    ranked = tfidf_nearest_neighbour(strings, np.arange(10), ["aa"], k=10, max_df=0.2)
    assert ranked.tolist() == [list(range(10))]


def test_equal_scores_go_to_the_lower_label_even_beyond_the_candidates():
    strings = ["Springfield"] * 50
    labels = np.arange(50)[::-1]
    ranked = tfidf_nearest_neighbour(
        strings, labels, ["springfield"], k=4, max_df=1.0, num_rescored=1
    )
    assert ranked.tolist() == [[0, 1, 2, 3]]


def test_more_queries_than_fit_a_block():
    strings = names(80, 2)
    together = tfidf_nearest_neighbour(strings, np.arange(80), strings, k=1, max_df=1.0)
    assert together[:, 0].tolist() == [strings.index(name) for name in strings]


def test_no_queries_and_no_label():
    assert tfidf_nearest_neighbour(["a"], [0], [], k=3).shape == (0, 3)
    with pytest.raises(ValueError, match=r"labels must have shape \[1\], got \(2,\)"):
        tfidf_nearest_neighbour(["a"], [0, 1], ["a"])
