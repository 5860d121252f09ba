"""Words, vocabulary and split of a text, and the dictionary."""

import collections
import json

import numpy as np
import pytest

from jaxml.data import corpus, gcide, packages

TEXTS = [f"the cat{i % 7} sat on a mat{i % 3}, again" for i in range(50)] + ["", " -- ", "once"]


@pytest.fixture(scope="module")
def small():
    return corpus.build(TEXTS, held_out=0.1)


def test_documents_are_split_and_closed(small):
    parts = small.train, small.validation, small.test
    assert [int((part == corpus.END).sum()) for part in parts] == [41, 5, 5]
    assert all(part[-1] == corpus.END and part.dtype == np.int32 for part in parts)
    read = [
        tuple(small.words.take(document))
        for part in parts
        for document in np.split(part, np.flatnonzero(part == corpus.END)[:-1] + 1)
    ]
    wanted = [(*corpus.words_of(text), "</s>") for text in TEXTS if corpus.words_of(text)]
    known = set(small.words)
    wanted = [tuple(word if word in known else "<unk>" for word in text) for text in wanted]
    assert collections.Counter(read) == collections.Counter(wanted)


def test_ids_follow_falling_counts(small):
    assert (small.counts == np.bincount(small.train, minlength=small.num_words)).all()
    assert (np.diff(small.counts[2:]) <= 0).all() and small.counts[2:].min() >= 2
    assert small.words.take([0, 1]) == list(corpus.SPECIAL) and "once" not in set(small.words)


def test_the_split_is_that_of_the_seed(small):
    again, other = corpus.build(TEXTS, held_out=0.1), corpus.build(TEXTS, held_out=0.1, seed=1)
    assert (again.train == small.train).all() and not np.array_equal(other.train, small.train)


def test_texts_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="3 or more with a word in them, got 1"):
        corpus.build(["one", "--"])
    with pytest.raises(ValueError, match=r"held_out must be in \(0, 0.5\), got 0.5"):
        corpus.build(TEXTS, held_out=0.5)
    with pytest.raises(FileNotFoundError):
        corpus.read_documents(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt must be a text in UTF-8"):
        corpus.read_documents(tmp_path / "latin.txt")
    (tmp_path / "lines.txt").write_text("one\ntwo", "utf-8")
    assert corpus.read_documents(tmp_path / "lines.txt") == ["one", "two"]


def test_entries_become_documents(monkeypatch, tmp_path):
    """An etymology that the package repeats is read once, and a cache gives the same corpus."""
    meaning = {"text": "a thing", "examples": ["This thing."]}
    use = {"etymology": "[L. res]", "definitions": [meaning], "cs": "thing in itself"}

    def read(package, version, path):
        letter = path[-6]
        words = {f"{letter}{i}": {"entry": f"{letter}{i}", "pos": [use]} for i in range(2)}
        return json.dumps(words).encode()

    monkeypatch.setattr(packages, "read", read)
    first, second, *_ = texts = list(gcide.documents())
    assert first == "A0 [L. res] a thing This thing. thing in itself" and len(texts) == 52
    assert second == "A1 a thing This thing. thing in itself"
    made, kept = gcide.load(tmp_path), gcide.load(tmp_path)
    assert list(made.words) == list(kept.words) and (made.test == kept.test).all()
    monkeypatch.setattr(packages, "read", lambda *_: b"{")
    with pytest.raises(packages.DataMissing, match=r"has no readable words_A\.json"):
        list(gcide.documents())


@pytest.mark.slow
def test_the_dictionary():
    text = gcide.load()
    assert text.num_words == 84_827 and len(text.train) == 3_727_968
    assert len(text.validation) == 80_919 and len(text.test) == 84_508
    assert text.words.take(range(2, 6)) == ["the", "of", "a", "to"]
