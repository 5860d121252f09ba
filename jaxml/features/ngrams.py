"""Hashed character n-grams: any text, in any script, as a bag of bucket ids. Nothing is fitted.

A string is read in two forms, `normalise` and, where it differs, `fold`, so that "Munchen" shares all of
its n-grams with "München". Every run of spaces and hyphens becomes one word boundary, and one boundary is
put at either end: "Bad Ischl" is read as `␣bad␣ischl␣`. Its n-grams are all windows of 2, 3 and 4 code
points, boundaries included, so prefixes, suffixes and joints of words are features of their own; each word
is one more.

The bucket of an n-gram with code points c₁…cₙ is computed in 64-bit integers that wrap around:

    h₀ = 0,  hᵢ = hᵢ₋₁ · M + cᵢ          M an odd constant
    bucket = ⌊⌊mix(hₙ + n) / 2³²⌋ · num_buckets / 2³²⌋

A word is hashed as the sum of mix(c · M + position) over its code points, mixed again (see `jaxml.hashing`
for mix and M). Only code points, `unicodedata` and integers enter, so ids are the same in every process and
on every platform whose Python has the same Unicode tables for the characters at hand.

References:
    Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (ICML 2009); Bojanowski et al.,
    "Enriching Word Vectors with Subword Information" (TACL 2017).
"""

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import checks, hashing
from jaxml.features.transform import Output, Transform
from jaxml.hashing import MULTIPLIER, mix
from jaxml.validation.columns import Column

__all__ = ["character_ngrams", "hashed_ngrams"]

_SIZES = (2, 3, 4)
_BOUNDARY = np.uint32(ord(" "))
_MOST_BUCKETS = 2**31 - 2
_CHUNK = 1 << 14  # strings that are hashed at a time, so that the arrays stay in cache
_CHUNK_CHARACTERS = 1 << 20  # A few hundred bytes are needed for each.


def normalise(text: str) -> str:
    """Returns the text without compatibility variants and case: NFKC, case folded, NFKC again.

    Example:
        >>> normalise("ＺÜRICH"), normalise("Weißensee")
        ('zürich', 'weissensee')
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def fold(text: str) -> str:
    """Returns `normalise` of the text without accents: characters of a combining class above 0 after NFKD.

    Letters that are not letter and accent (ø, ł, ı) stay, and so do the vowel signs of Brahmic scripts.

    Example:
        >>> fold("München"), fold("Ảnh"), fold("Tromsø")
        ('munchen', 'anh', 'tromsø')
    """
    decomposed = unicodedata.normalize("NFKD", text)
    marks = {ord(char): None for char in set(decomposed) if unicodedata.combining(char)}
    return normalise(decomposed.translate(marks))  # composes Hangul syllables again


def hashed_ngrams(strings: Any, *, num_buckets: int, max_ngrams: int) -> NDArray[np.int32]:
    """Returns the ids of the words and n-grams of each string, once each, cut or padded to one width.

    Args:
        strings: N strings of any length: a list, an array, a series.
        num_buckets: ids are in [0, num_buckets); num_buckets is an empty slot. In [1, 2³¹ − 1).
        max_ngrams: width of the result, ≥ 1. A string with more ids keeps the first: words come before
            n-grams, these by where they start, short before long; the folded form comes last.

    Returns:
        [N, max_ngrams] int32. A string of nothing but spaces and hyphens has no ids.

    Raises:
        ValueError: `strings` is one string, or holds something else than strings.

    Example:
        >>> hashed_ngrams(["Köln", "KÖLN", ""], num_buckets=1000, max_ngrams=4)
        array([[ 691,  246,  564,  299],
               [ 691,  246,  564,  299],
               [1000, 1000, 1000, 1000]], dtype=int32)
    """
    num_buckets = checks.integer("num_buckets", num_buckets, 1, _MOST_BUCKETS)
    max_ngrams = checks.integer("max_ngrams", max_ngrams, 1)
    if isinstance(strings, str):
        raise ValueError(f"strings must be a sequence of strings, got {strings!r}")
    # Arrow's arrays hold its own scalars.
    strings = strings.to_pylist() if hasattr(strings, "to_pylist") else list(strings)
    for row, string in enumerate(strings):
        if not isinstance(string, str):
            raise ValueError(f"strings[{row}] must be a string, got {string!r}")
    padded = np.full((len(strings), max_ngrams), num_buckets, np.int32)
    for start, end in _chunks(strings):
        # U+0000 separates the strings below, so it is replaced by a space, which means the same.
        texts = [string.replace("\0", " ") for string in strings[start:end]]
        written, folded = _each(normalise, texts), _each(fold, texts)
        differ = [row for row, text in enumerate(folded) if text != written[row]]
        parts = [
            *_hashed(written, np.arange(len(texts)), num_buckets),
            *_hashed([folded[row] for row in differ], np.array(differ, np.int64), num_buckets),
        ]
        rows, ids = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(rows, kind="stable")
        rows, ids = rows[order], ids[order]
        first = np.sort(np.unique((rows << 31) + ids, return_index=True)[1])
        rows, ids = rows[first], ids[first]
        lengths = np.bincount(rows, minlength=len(texts))
        place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        kept = place < max_ngrams
        padded[start + rows[kept], place[kept]] = ids[kept]
    return padded


@dataclasses.dataclass(frozen=True, repr=False)
class character_ngrams(Transform):
    """`hashed_ngrams` of a text: several ids a row, int32 [B, max_ngrams]. A missing text has none.

    Args:
        num_buckets: ids are in [0, num_buckets); num_buckets is an empty slot. In [1, 2³¹ − 1).
        max_ngrams: ids of a row, ≥ 1.

    Example:
        >>> transform = character_ngrams(1000, 4)
        >>> transform.apply(transform.fit(["Köln"]), ["Köln", None])
        array([[ 691,  246,  564,  299],
               [1000, 1000, 1000, 1000]], dtype=int32)
    """

    num_buckets: int
    max_ngrams: int

    gives = "ids"

    def __post_init__(self) -> None:
        self._set(num_buckets=checks.integer("num_buckets", self.num_buckets, 1, _MOST_BUCKETS))
        self._set(max_ngrams=checks.integer("max_ngrams", self.max_ngrams, 1))

    def run(self, state: tuple[()], column: Column) -> NDArray[np.int32]:
        values = column.exact()
        if not column.is_text and column.num_present:
            raise ValueError(f"values must be text, got {column.known().tolist()[0]!r}")
        texts = values.ravel().tolist() if column.is_text else [""] * values.size
        ids = hashed_ngrams(texts, num_buckets=self.num_buckets, max_ngrams=self.max_ngrams)
        return ids.reshape(*values.shape, self.max_ngrams)

    def output(self, state: tuple[()]) -> Output:
        return Output(self.num_buckets + 1, length=self.max_ngrams)


def _chunks(strings: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields start and end of strings that are hashed together: not too many, and not too long."""
    start = characters = 0
    for row, string in enumerate(strings):
        characters += len(string)
        if row > start and (row - start == _CHUNK or characters > _CHUNK_CHARACTERS):
            yield start, row
            start, characters = row, len(string)
    if strings:
        yield start, len(strings)


def _each(form: Callable[[str], str], texts: Sequence[str]) -> list[str]:
    """Returns `form` of each text in one call: U+0000 neither composes nor folds."""
    return form("\0".join(texts)).split("\0") if texts else []


def _hashed(
    texts: Sequence[str], rows: NDArray[np.int64], num_buckets: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Yields row and id of each word of normalised texts, then of each n-gram, in ascending rows."""
    codes, ends = _marked(texts)
    lengths = np.diff(ends)
    row = np.repeat(rows, lengths)  # of each code but the last boundary, which starts nothing

    starts = np.flatnonzero(codes == _BOUNDARY)
    position = np.arange(len(row)) - np.repeat(starts[:-1], np.diff(starts))
    values = mix(codes[:-1] * MULTIPLIER + position.astype(np.uint64))
    values[starts[:-1]] = 0
    sums = np.add.reduceat(values, starts[:-1]) if len(values) else values
    used = np.diff(starts) > 1
    words = hashing.buckets(mix(sums[used] + np.uint64(2 << 32)), num_buckets)
    yield row[starts[:-1]][used], words

    room = np.repeat(ends[1:], lengths) - np.arange(len(row))  # up to the end of the text
    room[np.repeat(lengths == 1, lengths)] = 0  # a text of one boundary has no n-gram
    ids = np.empty((len(row), len(_SIZES)), np.int32)
    state = np.zeros(len(row), np.uint64)
    padded = np.append(codes, np.zeros(max(_SIZES), np.uint32)).astype(np.uint64)
    for size in range(1, max(_SIZES) + 1):
        state *= MULTIPLIER
        state += padded[size - 1 : size - 1 + len(row)]
        if size in _SIZES:
            hashes = mix(state + np.uint64(size))
            ids[:, _SIZES.index(size)] = hashing.buckets(hashes, num_buckets)
    fits = room[:, None] >= np.array(_SIZES) - 1
    yield np.repeat(row, fits.sum(1)), ids[fits]


def _marked(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Returns code points with word boundaries.

    Returns:
        codes: [T] uint32, a boundary, the first text, a boundary, the second text, …, a boundary; a run of
            spaces and hyphens within a text is one boundary, format characters are left out.
        ends: [N + 1] int64, the positions of the boundaries between the texts.
    """
    text = "".join(["\0", *(text + "\0" for text in texts)])
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)
    kinds = np.zeros(0x110000, np.uint8)
    for code in set(codes.tolist()):
        kinds[code] = _kind(code)
    kind = kinds[codes]

    codes, kind = codes[kind != _FORMAT], kind[kind != _FORMAT]
    # Drop spaces that do not follow a letter, then those at the end of a text.
    spare = np.append(False, (kind[1:] == _SPACE) & (kind[:-1] != _LETTER))
    codes, kind = codes[~spare], kind[~spare]
    spare = np.append((kind[:-1] == _SPACE) & (kind[1:] == _END), False)
    codes, kind = codes[~spare], kind[~spare]
    return np.where(kind == _LETTER, codes, _BOUNDARY), np.flatnonzero(kind == _END)


_LETTER, _SPACE, _END, _FORMAT = range(4)


@functools.cache
def _kind(code: int) -> int:
    char = chr(code)
    if char == "\0":
        return _END
    if char.isspace() or unicodedata.category(char) == "Pd":
        return _SPACE
    # Marks of direction, joiners and the soft hyphen are invisible.
    return _FORMAT if unicodedata.category(char) == "Cf" else _LETTER
