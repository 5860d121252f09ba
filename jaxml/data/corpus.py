"""A text as word ids: documents, a vocabulary by falling frequency, and a split by document.

**Words** are runs of letters and digits in lower case, with apostrophes inside (`don't`, `king's`); hyphens
separate words. Punctuation is dropped: what a model of words predicts is a word.

**Ids.** 0 ends a document, 1 stands for every word that is not in the vocabulary, and the words follow, by
falling number of occurrences in the training documents, ties in the order of the alphabet: the order that a
log-uniform sampler assumes of classes.
"""

import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.data.strings import Strings

END, UNKNOWN = 0, 1
"""Ids of the end of a document, and of a word outside of the vocabulary."""
SPECIAL = ("</s>", "<unk>")
"""How these two are written. No word has such characters."""
SPLIT_SEED = 1913
HELD_OUT = 0.02

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Documents of word ids, each closed by `END`.

    Attributes:
        words: V strings, the vocabulary; those of `END` and `UNKNOWN` come first.
        counts: [V] int64, occurrences in the training documents, which end in `END`.
        train: [N] int32, the training documents, one after the other.
        validation: [M] int32, for choices made while training.
        test: [L] int32, for the figures that are reported.
    """

    words: Strings
    counts: NDArray[np.int64]
    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    test: NDArray[np.int32]

    @property
    def num_words(self) -> int:
        return len(self.words)


def words_of(text: str) -> list[str]:
    """Returns the words of a text, in lower case.

    >>> words_of("A well-known Word, in the KING’s “1913” book.")
    ['a', 'well', 'known', 'word', 'in', 'the', "king's", '1913', 'book']
    """
    return _WORD.findall(text.lower().replace("’", "'"))


def build(
    documents: Sequence[str],
    *,
    least_count: int = 2,
    held_out: float = HELD_OUT,
    seed: int = SPLIT_SEED,
) -> Corpus:
    """Returns the corpus of these documents.

    Documents without a word are left out. The others are put in a random order, which depends on their
    number and the seed alone; the first ones are the test, the next the validation.

    Args:
        documents: texts, three or more with a word.
        least_count: occurrences in the training documents that make a word one of the vocabulary, at
            least 1.
        held_out: share of the documents of the test, and again of the validation, in (0, 0.5).
        seed: of the split, at least 0.

    >>> corpus = build(["a cat", "a dog", "a cow"], least_count=1, held_out=0.3)
    >>> corpus.words.take([0, 1, 2]), corpus.counts.tolist(), len(corpus.train), len(corpus.test)
    (['</s>', '<unk>', 'a'], [1, 0, 1, 1], 3, 3)
    """
    checks.integer("least_count", least_count, 1)
    if not 0 < held_out < 0.5:
        raise ValueError(f"held_out must be in (0, 0.5), got {held_out}")
    texts = [words for words in map(words_of, documents) if words]
    if len(texts) < 3:
        raise ValueError(f"documents must be 3 or more with a word in them, got {len(texts)}")
    order = np.argsort(np.random.PCG64(seed).random_raw(len(texts)), kind="stable")
    size = max(1, int(len(texts) * held_out))
    test, validation, train = np.split(order, [size, 2 * size])

    counted = Counter(itertools.chain.from_iterable(texts[at] for at in train))
    kept = sorted((-count, word) for word, count in counted.items() if count >= least_count)
    words = [*SPECIAL, *(word for _, word in kept)]
    known = [-count for count, _ in kept]
    counts = [len(train), counted.total() - sum(known), *known]
    ids = {word: at for at, word in enumerate(words)}

    def encoded(part: NDArray[np.int64]) -> NDArray[np.int32]:
        closed = ((*texts[at], SPECIAL[END]) for at in part.tolist())
        return np.fromiter(
            (ids.get(word, UNKNOWN) for word in itertools.chain.from_iterable(closed)), np.int32
        )

    return Corpus(
        Strings.pack(words),
        np.array(counts, np.int64),
        encoded(train),
        encoded(validation),
        encoded(test),
    )


def read_documents(path: str | os.PathLike[str]) -> list[str]:
    """Returns the lines of a text file, each of them a document.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no UTF-8.
    """
    try:
        return Path(path).read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text in UTF-8: {error}") from error
