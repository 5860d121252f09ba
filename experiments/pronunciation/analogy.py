"""Pronunciation by analogy: what other words say of a letter that stands among the same letters.

For each letter of a word, and each of nine contexts – so many letters before it and after it – the network
gets the most frequent chunk of phones in the training words, its share, and the logarithm of the number of
words. (The idea is older than networks: Dedina and Nusbaum, 1991.) So it need not memorise what a stem
sounds like, only learn which context to trust.

A word in training gets what other words say, never what it says itself, or the network would copy.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTEXTS", "Analogies", "Seen", "collect", "look_up", "without_own"]

CONTEXTS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (1, 4), (4, 1), (0, 5), (5, 0))
"""Letters before and after."""
_PARTS = 10
_CHUNKS = 256
"""Chunks, at most."""
_START, _PRIME = 2_166_136_261, 16_777_619  # of FNV-1a


class Analogies(NamedTuple):
    """What the words of a dictionary say, in each of the contexts that occur in them.

    Attributes:
        contexts: uint32 [N], numbers of contexts, sorted.
        chunks: uint8 [N], the chunk that most words have there, counted from 1.
        evidence: float16 [N, 2], the share of these words, and the logarithm of 1 + all words, halved.
    """

    contexts: NDArray[np.uint32]
    chunks: NDArray[np.uint8]
    evidence: NDArray[np.float16]


class Seen(NamedTuple):
    """What the network is told of words: arrays of NumPy or JAX.

    Attributes:
        letters: int32 [B, T], 0 past the end.
        chunks: uint8 [B, T, 9], what other words say in each context, counted from 1; 0 for nothing.
        evidence: float16 [B, T, 9, 2], as in `Analogies`; 0 for nothing.
    """

    letters: Any
    chunks: Any
    evidence: Any


def collect(letters: NDArray[np.int32], chunks: NDArray[np.int32]) -> Analogies:
    """Returns what pairs of a word and a pronunciation say.

    Args:
        letters: int32 [N, T], 0 past the end.
        chunks: int32 [N, T], of each letter.
    """
    there = letters > 0
    keys = _numbers(letters, np)[there].astype(np.uint64) * np.uint64(_CHUNKS)
    keys, votes = np.unique(keys + chunks[there].astype(np.uint64)[:, None], return_counts=True)
    contexts = keys // _CHUNKS
    first = np.flatnonzero(np.diff(contexts, prepend=np.uint64(2**63)))
    winner = np.lexsort((votes, contexts))[np.append(first[1:], len(keys)) - 1]
    everyone = np.add.reduceat(votes, first)
    evidence = np.stack([votes[winner] / everyone, np.log1p(everyone) / 2], -1)
    return Analogies(
        contexts[first].astype(np.uint32),
        (keys[winner] % _CHUNKS + 1).astype(np.uint8),
        evidence.astype(np.float16),
    )


@jax.jit
def look_up(analogies: Analogies, letters: Any) -> Seen:
    """Returns what is said of words, int32 [B, T], 0 past the end.

    A word of the dictionary is told what it says itself, too.
    """
    wanted = _numbers(letters, jnp)
    known = jnp.asarray(analogies.contexts)
    at = jnp.minimum(jnp.searchsorted(known, wanted), len(known) - 1)
    found = (known[at] == wanted) & (letters > 0)[..., None]
    chunks = jnp.where(found, jnp.asarray(analogies.chunks)[at], 0)
    evidence = jnp.where(found[..., None], jnp.asarray(analogies.evidence)[at], 0)
    return Seen(letters, chunks, evidence)


def without_own(letters: NDArray[np.int32], chunks: NDArray[np.int32]) -> Seen:
    """Returns what other words say of each pair: those of the other nine tenths of the dictionary.

    Words that follow one another, such as *happy* and *happily*, are in different tenths.

    Args:
        letters: int32 [N, T], 0 past the end.
        chunks: int32 [N, T], of each letter.
    """
    part = np.unique(letters, axis=0, return_inverse=True)[1].reshape(-1) % _PARTS
    size = (*letters.shape, len(CONTEXTS))
    seen = Seen(letters, np.zeros(size, np.uint8), np.zeros((*size, 2), np.float16))
    for number in range(_PARTS):
        own = part == number
        said = look_up(collect(letters[~own], chunks[~own]), letters[own])
        seen.chunks[own], seen.evidence[own] = said.chunks, said.evidence
    return seen


def _numbers(letters: Any, xp: Any) -> Any:
    """Returns a number for each letter's contexts, uint32 [B, T, 9]: the hash FNV-1a of their letters.

    Args:
        xp: `numpy` or `jax.numpy`.
    """
    length, found = letters.shape[1], []
    for place, (before, after) in enumerate(CONTEXTS):
        around = xp.pad(letters, ((0, 0), (before, after))).astype(xp.uint32)
        number = xp.full(letters.shape, (_START ^ place) * _PRIME % 2**32, xp.uint32)
        for at in range(before + after + 1):
            number = (number ^ around[:, at : at + length]) * np.uint32(_PRIME)
        found.append(number)
    return xp.stack(found, -1)
