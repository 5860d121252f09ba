"""Which phones a letter stands for: each letter of a word has none, one or two of its phones, in order.

A chunk is what one letter stands for, and P(chunk | letter) is learned by expectation maximisation from
words and pronunciations alone: the forward and backward sums run over all alignments of a pair, for all
pairs of one length at once. Then each pair gets its most probable alignment (Viterbi).

References:
    Jiampojamarn, Kondrak and Sherif (2007), Applying many-to-many alignments and hidden Markov models to
    letter-to-phoneme conversion.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ITERATIONS = 12
_RARE = 8
"""A chunk of two phones that occurs less often is not used."""


class Pairs(NamedTuple):
    """Pairs of a word and a pronunciation, of one number of letters.

    Attributes:
        rows: [N] int, which pairs they are.
        letters: [N, T] int.
        single: [N, U] int, number of the chunk of phone u, 0 past the end.
        double: [N, U - 1] int, of the phones u and u + 1.
        num_phones: [N] int.
    """

    rows: NDArray[np.int64]
    letters: NDArray[np.int64]
    single: NDArray[np.int64]
    double: NDArray[np.int64]
    num_phones: NDArray[np.int64]


def align(
    words: Sequence[Sequence[int]],
    phones: Sequence[Sequence[int]],
    num_letters: int,
    num_phones: int,
) -> tuple[list[NDArray[np.int64] | None], NDArray[np.int64]]:
    """Returns the chunk of each letter of each word, and the chunks.

    Args:
        words: letters, each in 0 … num_letters - 1.
        phones: of the same words, each in 0 … num_phones - 1.
        num_letters: size of the alphabet.
        num_phones: number of phones.

    Returns:
        For each word int [T], rows of the chunks; None if the word cannot be aligned.
        [C, 2] int: the phones of each chunk, -1 for none. Chunk 0 is the silent letter, chunk 1 + p is
        phone p, and those of two phones follow.

    >>> chunks_of, chunks = align([[0, 1], [0], [1], [0]], [[0, 1], [0], [1], [0, 1, 0]], 2, 2)
    >>> [None if each is None else chunks[each].tolist() for each in chunks_of]
    [[[0, -1], [1, -1]], [[0, -1]], [[1, -1]], None]
    """
    groups = [*_groups(words, phones, num_phones)]
    table = np.full((num_letters, 1 + num_phones + num_phones**2), 1 / num_phones)
    table[:, 1 + num_phones :] = 0.01 / num_phones**2  # Two phones for a letter are an exception.
    for _ in range(_ITERATIONS):
        counts = np.sum([_expected_counts(group, table) for group in groups], axis=0)
        table = counts / np.maximum(counts.sum(1, keepdims=True), 1e-30)
    found = np.concatenate([chunk.ravel() for _, chunk in _paths(groups, table)])
    used = np.bincount(found, minlength=table.shape[1])
    table[:, 1 + num_phones :][:, used[1 + num_phones :] < _RARE] = 0
    kept = np.flatnonzero((used >= _RARE) | (np.arange(len(used)) <= num_phones))
    chunks_of: list[NDArray[np.int64] | None] = [None] * len(words)
    for rows, chunk in _paths(groups, table):
        for row, each in zip(rows.tolist(), np.searchsorted(kept, chunk), strict=True):
            chunks_of[row] = each
    return chunks_of, _phones_of(kept, num_phones)


def _phones_of(chunk: NDArray[np.int64], num_phones: int) -> NDArray[np.int64]:
    pair = chunk - 1 - num_phones
    first = np.where(pair < 0, chunk - 1, pair // num_phones)
    return np.stack([first, np.where(pair < 0, -1, pair % num_phones)], 1)


def _groups(
    words: Sequence[Sequence[int]], phones: Sequence[Sequence[int]], num_phones: int
) -> Iterator[Pairs]:
    """Yields the pairs by their number of letters; those of more than two phones a letter are left out."""
    length = np.array([len(word) for word in words])
    count = np.array([len(each) for each in phones])
    for size in np.unique(length):
        rows = np.flatnonzero((length == size) & (count <= 2 * size))
        if not len(rows):
            continue
        phone = np.full((len(rows), max(2, count[rows].max())), -1)
        for row, index in enumerate(rows.tolist()):
            phone[row, : count[index]] = phones[index]
        there = phone >= 0
        double = 1 + num_phones + phone[:, :-1] * num_phones + phone[:, 1:]
        yield Pairs(
            rows,
            np.array([words[index] for index in rows.tolist()]),
            np.where(there, 1 + phone, 0),
            np.where(there[:, 1:], double, 0),
            count[rows],
        )


def _emissions(pairs: Pairs, table: NDArray[np.float64], at: int) -> tuple[NDArray, ...]:
    """Returns P(chunk | letter at that place) of no phone [N, 1], of each phone [N, U], of each two."""
    letter = pairs.letters[:, at, None]
    return (
        table[letter, 0],
        np.where(pairs.single > 0, table[letter, pairs.single], 0),
        np.where(pairs.double > 0, table[letter, pairs.double], 0),
    )


def _forward(pairs: Pairs, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns [T + 1, N, U + 1]: P of all alignments of the first t letters and u phones."""
    rows, length = pairs.letters.shape
    sums = np.zeros((length + 1, rows, pairs.single.shape[1] + 1))
    sums[0, :, 0] = 1
    for at in range(length):
        none, one, two = _emissions(pairs, table, at)
        sums[at + 1] = sums[at] * none
        sums[at + 1, :, 1:] += sums[at, :, :-1] * one
        sums[at + 1, :, 2:] += sums[at, :, :-2] * two
    return sums


def _expected_counts(pairs: Pairs, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns how often each letter stands for each chunk, by the posterior of all alignments."""
    sums = _forward(pairs, table)
    length, everyone = pairs.letters.shape[1], np.arange(len(pairs.rows))
    whole = sums[length, everyone, pairs.num_phones]
    rest = np.zeros_like(sums[0])  # P of the letters and phones that follow
    rest[everyone, pairs.num_phones] = 1 / np.where(whole > 0, whole, np.inf)
    counts = np.zeros(table.size)
    for at in reversed(range(length)):
        none, one, two = _emissions(pairs, table, at)
        letter = pairs.letters[:, at] * table.shape[1]
        parts = (
            (letter, (sums[at] * none * rest).sum(1)),
            (letter[:, None] + pairs.single, sums[at, :, :-1] * one * rest[:, 1:]),
            (letter[:, None] + pairs.double, sums[at, :, :-2] * two * rest[:, 2:]),
        )
        for place, weight in parts:
            counts += np.bincount(place.ravel(), weight.ravel(), minlength=counts.size)
        rest, after = rest * none, rest
        rest[:, :-1] += after[:, 1:] * one
        rest[:, :-2] += after[:, 2:] * two
    return counts.reshape(table.shape)


def _paths(
    groups: Sequence[Pairs], table: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields rows [N] and the chunks [N, T] of their most probable alignment, where there is one."""
    for pairs in groups:
        rows, length = pairs.letters.shape
        best = np.zeros((rows, pairs.single.shape[1] + 1))
        best[:, 0] = 1
        # Phones of the letter, on the best way to (t, u).
        taken = np.zeros((length, *best.shape), np.int64)
        for at in range(length):
            none, one, two = _emissions(pairs, table, at)
            ways = np.zeros((3, *best.shape))
            ways[0] = best * none
            ways[1, :, 1:] = best[:, :-1] * one
            ways[2, :, 2:] = best[:, :-2] * two
            taken[at], best = ways.argmax(0), ways.max(0)
        everyone, end = np.arange(rows), pairs.num_phones.copy()
        chunk = np.zeros((rows, length), np.int64)
        for at in reversed(range(length)):
            number = taken[at, everyone, end]
            end -= number
            one = pairs.single[everyone, np.minimum(end, pairs.single.shape[1] - 1)]
            two = pairs.double[everyone, np.minimum(end, pairs.double.shape[1] - 1)]
            chunk[:, at] = np.choose(number, [0, one, two])
        found = best[everyone, pairs.num_phones] > 0
        yield pairs.rows[found], chunk[found]
