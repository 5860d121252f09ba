"""Hashed character n-grams: any text, in any script, as a bag of bucket ids. Nothing is fitted.

A string is normalised (`normalise`, or `fold` for the folded form), every run of spaces and hyphens becomes
one word boundary, and one boundary is put at either end: "Bad Ischl" is read as `␣bad␣ischl␣`. Its n-grams
are all windows of n code points, boundaries included, so prefixes, suffixes and joints of words are
features of their own.

The bucket of an n-gram with code points c₁…cₙ is computed in 64-bit integers that wrap around:

    h₀ = mix(seed),  hᵢ = hᵢ₋₁ · M + cᵢ          M an odd constant
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
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from jaxml import checks, hashing
from jaxml.hashing import MULTIPLIER, mix

Folding: TypeAlias = Literal["none", "only", "union"]

_Ragged: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Rows of different length: their ids one after the other, and the [N + 1] offsets of the rows."""

_BOUNDARY = np.uint32(ord(" "))
_CHUNK = 1 << 14  # strings that are hashed at a time, so that the arrays stay in cache


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


@dataclasses.dataclass(frozen=True)
class HashedNgrams:
    """Strings to bags of n-gram ids; the module's docstring defines an id.

    Args:
        sizes: lengths n of the n-grams in code points, each ≥ 1, ascending. An n-gram of one boundary alone
            is left out.
        num_buckets: ids are in [0, num_buckets); num_buckets is an empty slot. In [1, 2³¹ − 1).
        max_ngrams: width of the result, ≥ 1. A string with more ids keeps the first: words come before
            n-grams, these by where they start, short before long.
        folding: the form of the string: "none", `normalise`; "only", `fold`; "union", the first, then the
            n-grams that the second adds to it, so that "Munchen" shares all of its n-grams with "München".
        words: adds one id for each word.
        unique: drops repeated ids of a string.
        seed: of the hash, in [0, 2⁶⁴).

    Example:
        >>> ngrams = HashedNgrams(sizes=(3,), num_buckets=1000, max_ngrams=6, folding="only")
        >>> ngrams.apply(["Köln", "KOLN", ""])
        array([[ 144,  845,  343,   44, 1000, 1000],
               [ 144,  845,  343,   44, 1000, 1000],
               [1000, 1000, 1000, 1000, 1000, 1000]], dtype=int32)
    """

    sizes: tuple[int, ...] = (2, 3, 4)
    num_buckets: int = 2**18
    max_ngrams: int = 64
    folding: Folding = "none"
    words: bool = False
    unique: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = list(self.sizes)
        if not sizes or min(sizes) < 1 or sorted(set(sizes)) != sizes:
            raise ValueError(f"sizes must be ascending integers of at least 1, got {self.sizes}")
        checks.integer("num_buckets", self.num_buckets, 1, 2**31 - 2)
        checks.integer("max_ngrams", self.max_ngrams, 1)
        checks.choice("folding", self.folding, get_args(Folding))
        checks.integer("seed", self.seed, 0, 2**64 - 1)

    def apply(self, strings: Sequence[str]) -> NDArray[np.int32]:
        """Returns the ids of each string, cut or padded to one width.

        Args:
            strings: N strings of any length.

        Returns:
            [N, max_ngrams] int32; unused slots hold `num_buckets`. A string of nothing but spaces and
            hyphens has no ids.

        Raises:
            ValueError: `strings` is one string, or holds something else than strings.
        """
        if isinstance(strings, str):
            raise ValueError(f"strings must be a sequence of strings, got {strings!r}")
        for row, string in enumerate(strings):
            if not isinstance(string, str):
                raise ValueError(f"strings[{row}] must be a string, got {string!r}")
        padded = np.full((len(strings), self.max_ngrams), self.num_buckets, np.int32)
        for start in range(0, len(strings), _CHUNK):
            ids, offsets = self._hash(strings[start : start + _CHUNK])
            lengths = np.minimum(np.diff(offsets), self.max_ngrams)
            used = np.arange(self.max_ngrams) < lengths[:, None]
            first = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            padded[start : start + _CHUNK][used] = ids[np.repeat(offsets[:-1], lengths) + first]
        return padded

    def _hash(self, strings: Sequence[str]) -> _Ragged:
        """The ids of a chunk."""
        # U+0000 separates the strings below, so it is replaced by a space, which means the same.
        texts = [string.replace("\0", " ") for string in strings]
        ragged = self._ids(written := _each(fold if self.folding == "only" else normalise, texts))
        if self.folding == "union":
            folded = _each(fold, texts)
            rows = [row for row, text in enumerate(folded) if text != written[row]]
            added = _additions(
                self._ids([written[row] for row in rows]), self._ids([folded[row] for row in rows])
            )
            ragged = _join_rows(ragged, _spread(added, rows, len(texts)))
        return _keep(ragged, _first_in_row(ragged)) if self.unique else ragged

    def _ids(self, texts: Sequence[str]) -> _Ragged:
        """The ids of normalised texts."""
        codes, ends = _marked(texts)
        seed = mix(np.array([self.seed], np.uint64))
        ngrams = self._windows(codes, ends, seed)
        return _join_rows(self._words(codes, ends, seed), ngrams) if self.words else ngrams

    def _windows(
        self, codes: NDArray[np.uint32], ends: NDArray[np.int64], seed: NDArray[np.uint64]
    ) -> _Ragged:
        """One id for each n-gram."""
        num_starts = len(codes) - 1  # The last boundary starts nothing.
        room = np.repeat(ends[1:], np.diff(ends)) - np.arange(num_starts)  # up to the row's end
        empty = np.repeat(np.diff(ends) == 1, np.diff(ends))
        ids = np.empty((num_starts, len(self.sizes)), np.int32)
        fits = np.empty((num_starts, len(self.sizes)), bool)
        state = np.repeat(seed, num_starts)
        padded = np.append(codes, np.zeros(max(self.sizes), np.uint32)).astype(np.uint64)
        column = 0
        for size in range(1, max(self.sizes) + 1):
            state *= MULTIPLIER
            state += padded[size - 1 : size - 1 + num_starts]
            if size == self.sizes[column]:
                ids[:, column] = hashing.buckets(mix(state + np.uint64(size)), self.num_buckets)
                fits[:, column] = (room >= size - 1) & ~empty
                if size == 1:
                    fits[:, column] &= codes[:-1] != _BOUNDARY
                column += 1
        return ids[fits], _offsets(fits.sum(1))[ends]

    def _words(
        self, codes: NDArray[np.uint32], ends: NDArray[np.int64], seed: NDArray[np.uint64]
    ) -> _Ragged:
        """One id for each word."""
        starts = np.flatnonzero(codes == _BOUNDARY)
        lengths = np.diff(starts)
        position = np.arange(len(codes) - 1) - np.repeat(starts[:-1], lengths)
        values = mix(codes[:-1] * MULTIPLIER + position.astype(np.uint64))
        values[starts[:-1]] = 0
        sums = np.add.reduceat(values, starts[:-1]) if len(values) else values
        used = lengths > 1
        ids = hashing.buckets(mix(sums[used] + seed + np.uint64(2 << 32)), self.num_buckets)
        return ids, _offsets(used)[np.searchsorted(starts, ends)]


def _each(form: Callable[[str], str], texts: Sequence[str]) -> list[str]:
    """Returns `form` of each text in one call: U+0000 neither composes nor folds."""
    return form("\0".join(texts)).split("\0") if texts else []


def _marked(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Returns code points with word boundaries.

    Returns:
        codes: [T] uint32, a boundary, the first text, a boundary, the second text, …, a boundary; a run of
            spaces and hyphens within a text is one boundary, format characters are left out.
        ends: [N + 1] int64, the positions of the boundaries between the texts.
    """
    text = "".join(["\0", *(text + "\0" for text in texts)])
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)
    present = np.zeros(0x110000, bool)
    present[codes] = True
    kinds = np.zeros(0x110000, np.uint8)
    for code in np.flatnonzero(present).tolist():
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


def _join_rows(first: _Ragged, second: _Ragged) -> _Ragged:
    """Row by row, the ids of `first` and then those of `second`."""
    offsets = first[1] + second[1]
    ids = np.empty(offsets[-1], np.int32)
    for part, starts in ((first, offsets[:-1]), (second, offsets[:-1] + np.diff(first[1]))):
        values, own = part
        ids[np.repeat(starts - own[:-1], np.diff(own)) + np.arange(len(values))] = values
    return ids, offsets


def _spread(ragged: _Ragged, rows: Sequence[int], num_rows: int) -> _Ragged:
    """The same ids in rows `rows` of `num_rows`; the others are empty."""
    counts = np.zeros(num_rows, np.int64)
    counts[rows] = np.diff(ragged[1])
    return ragged[0], _offsets(counts)


def _keys(ragged: _Ragged) -> NDArray[np.int64]:
    """One integer for each (row, id)."""
    ids, offsets = ragged
    rows: NDArray[np.int64] = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return (rows << 31) + ids


def _first_in_row(ragged: _Ragged) -> NDArray[np.bool_]:
    first = np.zeros(len(ragged[0]), bool)
    first[np.unique(_keys(ragged), return_index=True)[1]] = True
    return first


def _additions(first: _Ragged, second: _Ragged) -> _Ragged:
    """Row by row, the ids of `second` that `first` lacks, once each."""
    joined = _join_rows(first, second)
    counts = np.stack([np.diff(first[1]), np.diff(second[1])], axis=1)
    of_second = np.repeat(np.tile([False, True], len(counts)), counts.ravel())
    return _keep(joined, _first_in_row(joined) & of_second)


def _keep(ragged: _Ragged, mask: NDArray[np.bool_]) -> _Ragged:
    return ragged[0][mask], _offsets(mask)[ragged[1]]


def _offsets(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Where rows of these lengths begin, and where the last one ends."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
