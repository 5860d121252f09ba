"""The dictionary as arrays, its batches, and word and phone error rates."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.pronunciation import alignment, analogy
from jaxml import checks, features
from jaxml.data import cmudict, sequences

__all__ = [
    "LONGEST",
    "Aligned",
    "align",
    "batches",
    "encoded",
    "error_rates",
    "pipeline",
    "width_of",
]

LONGEST = 28
"""Letters of the longest word."""
WIDTHS = (5, 6, 7, 8, 10, 13, LONGEST)
"""A batch holds words of at most so many letters, and more than the width before: little is padded."""

Phones = tuple[str, ...]


class Aligned(NamedTuple):
    """Pairs of a training word and one of its pronunciations, each letter with its chunk of phones.

    Attributes:
        letters: int32 [N, 28], as `encoded` gives them.
        chunks: int32 [N, 28], rows of `phones`; -1 past the end.
        phones: int32 [C, 2], the phones of each chunk, -1 for none. Chunk 0 has none.
        num_left_out: pairs that cannot be aligned.
        analogies: what the pairs say of letters in their contexts.
    """

    letters: NDArray[np.int32]
    chunks: NDArray[np.int32]
    phones: NDArray[np.int32]
    num_left_out: int
    analogies: analogy.Analogies


def pipeline() -> features.FeaturePipeline:
    """Returns the feature of a word, the same in training and in answers."""
    letters = features.characters(cmudict.LETTERS, LONGEST)
    return features.FeaturePipeline({"word": letters}).fit({"word": ["a"]})


def encoded(words: Sequence[str]) -> NDArray[np.int32]:
    """Returns the letters of words, int32 [N, 28]: 1 + their place in the alphabet, 0 past the end."""
    return pipeline().encode({"word": words})["word"]


def align(data: cmudict.CMUDict, num_words: int | None) -> Aligned:
    """Returns the pairs of the first training words, aligned.

    Raises:
        ValueError: fewer than two words: what is said of a word is what others say.
    """
    if num_words is not None:
        checks.integer("num_words", num_words, 2)
    number = {phone: i for i, phone in enumerate(cmudict.PHONES)}
    pairs = [
        (data.words[i], each) for i in data.train[:num_words] for each in data.pronunciations[i]
    ]
    letters = encoded([word for word, _ in pairs])
    lengths = (letters > 0).sum(1)
    chunks_of, phones = alignment.align(
        [row[:length] - 1 for row, length in zip(letters, lengths, strict=True)],
        [[number[phone] for phone in each] for _, each in pairs],
        len(cmudict.LETTERS),
        len(cmudict.PHONES),
    )
    chunks = np.full(letters.shape, -1, np.int32)
    for row, found in enumerate(chunks_of):
        if found is not None:
            chunks[row, : len(found)] = found
    kept = chunks[:, 0] >= 0
    letters, chunks = letters[kept], chunks[kept]
    analogies = analogy.collect(letters, chunks)
    return Aligned(letters, chunks, phones.astype(np.int32), int((~kept).sum()), analogies)


def batches(
    letters: NDArray[np.int32], batch_size: int, seed: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields batches without end: the width of the words, and rows [batch_size], -1 where it is not full.

    An epoch holds each row once; the words of a batch are of similar length.
    """
    lengths = (letters > 0).sum(1)
    for epoch in itertools.count():
        yield from sequences.bucketed_epoch(lengths, WIDTHS, batch_size, seed=seed, epoch=epoch)


def width_of(length: int) -> int:
    """Returns the width of a batch of words of this length at most."""
    return next(width for width in WIDTHS if length <= width)


def error_rates(
    answers: Sequence[Phones], wanted: Sequence[Sequence[Phones]]
) -> tuple[float, float]:
    """Returns word and phone error rate of answers to words, each with its right pronunciations.

    A word is right if its answer is one of them. The phone error rate is the sum of the edit distances to
    the nearest one, divided by the sum of its lengths.

    >>> error_rates([("AH",), ("B", "IY")], [[("EY",), ("AH",)], [("B", "IY", "Z"), ("B", "IH", "Z", "Z")]])
    (0.5, 0.25)
    """
    nearest = [
        min((edit_distance(answer, each), len(each)) for each in right)
        for answer, right in zip(answers, wanted, strict=True)
    ]
    distances, lengths = np.array(nearest).T
    return float((distances > 0).mean()), float(distances.sum() / lengths.sum())


def edit_distance(one: Phones, other: Phones) -> int:
    """Returns the least number of phones to insert, delete or replace that make one into the other."""
    row = [*range(len(other) + 1)]
    for i, phone in enumerate(one, 1):
        before, row = row, [i]
        for j, each in enumerate(other, 1):
            row.append(min(before[j - 1] + (phone != each), before[j] + 1, row[-1] + 1))
    return row[-1]
