"""Hashed character n-grams: any text, in any script, as a bag of bucket ids. Nothing is fitted.

A string is normalised (`normalise`, and for the folded variant `fold`), every run of spaces and
hyphens becomes one word boundary, and one boundary is put at either end: "Bad Ischl" is read as
`␣bad␣ischl␣`. Its n-grams are all windows of n code points, boundaries included, so that
prefixes, suffixes and the joints of words are features of their own.

The bucket of an n-gram with code points c₁…cₙ is computed in 64-bit integers that wrap around:

    h₀ = mix(seed),  hᵢ = hᵢ₋₁ · M + cᵢ          M an odd constant
    bucket = ⌊⌊mix(hₙ + n) / 2³²⌋ · num_buckets / 2³²⌋

where mix is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014). A whole string or word is hashed as the sum of
mix(c · M + position) over its code points, mixed again. Only code points, `unicodedata` and
integers enter: the ids are the same in every process and on every platform, as long as Python's
Unicode tables agree on the characters at hand (3.11 has Unicode 14; what was assigned later may
fold otherwise in a later one).

The method is that of feature hashing (Weinberger et al., ICML 2009) over the character n-grams of
fastText (Bojanowski et al., TACL 2017).
"""

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.hashing import MULTIPLIER, mix

Folding: TypeAlias = Literal["none", "only", "union", "both"]

Ragged: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Rows of different length: their ids one after the other, and the [N + 1] offsets of the rows."""

_BOUNDARY = np.uint32(ord(" "))

# Strings that are hashed at a time: enough to amortise a NumPy call, few enough to stay in cache.
_CHUNK = 1 << 14


def normalise(text: str) -> str:
    """The text with compatibility variants and case removed: NFKC, case folded, NFKC again.

    Example:
        >>> normalise("ＺÜRICH"), normalise("Weißensee")
        ('zürich', 'weissensee')
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def fold(text: str) -> str:
    """`normalise`, and accents removed: characters of a non-zero combining class after NFKD.

    Letters that are no letter and accent (ø, ł, ı) stay, and so do the vowel signs of Brahmic
    scripts, which are combining in shape only (class 0).

    Example:
        >>> fold("München"), fold("Ảnh"), fold("Tromsø")
        ('munchen', 'anh', 'tromsø')
    """
    decomposed = unicodedata.normalize("NFKD", text)
    marks = {ord(char): None for char in set(decomposed) if unicodedata.combining(char)}
    # Composed again: Hangul syllables would else fall apart into their letters.
    return normalise(decomposed.translate(marks))


@dataclasses.dataclass(frozen=True)
class HashedNgrams:
    """Strings to bags of n-gram ids; see the module for how an id is computed.

    Args:
        sizes: lengths n of the n-grams, in code points, each ≥ 1, given in rising order. An n-gram
            of one boundary alone is left out.
        num_buckets: ids lie in [0, num_buckets); num_buckets itself means an empty slot. In
            [1, 2³¹ − 1).
        max_ngrams: width of the padded form, ≥ 1. A string with more ids keeps the first ones.
            They come in the order whole, words, n-grams; these by where they start, short before
            long; so a long string is read from its beginning, in all sizes, as far as it fits.
        folding: which form of the string is read.
            "none": as `normalise` leaves it. "only": as `fold` leaves it.
            "union": the first, then what the second adds to it (in the same buckets, so that
            "Munchen" shares all of its n-grams with "München"; strings without accents gain
            nothing and pay nothing).
            "both": the first, then the second, in buckets of their own.
        words: adds one id for each word.
        whole: adds one id for the string as a whole.
        unique: drops an id that the string has already.
        seed: of the hash, in [0, 2⁶⁴).

    Raises:
        ValueError: an argument outside its range, or nothing to hash (no sizes, words or whole).

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
    whole: bool = False
    unique: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.sizes) or sorted(set(self.sizes)) != list(self.sizes):
            raise ValueError(f"sizes is {self.sizes}, wanted rising integers of at least 1")
        if not (self.sizes or self.words or self.whole):
            raise ValueError("sizes is empty, wanted at least one size, or words, or whole")
        if not 1 <= self.num_buckets < 2**31 - 1:
            raise ValueError(f"num_buckets is {self.num_buckets}, wanted 1 to 2³¹ - 2")
        if self.max_ngrams < 1:
            raise ValueError(f"max_ngrams is {self.max_ngrams}, wanted at least 1")
        if self.folding not in get_args(Folding):
            raise ValueError(f"folding is {self.folding!r}, wanted one of {get_args(Folding)}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}, wanted 0 to 2⁶⁴ - 1")

    def apply(self, strings: Sequence[str]) -> NDArray[np.int32]:
        """The ids of each string, cut or padded to one width.

        Args:
            strings: N strings of any length, the empty one included.

        Returns:
            [N, max_ngrams] int32, unused slots hold `num_buckets`; a string without a character
            other than spaces and hyphens has none but these.

        Raises:
            ValueError: `strings` is one string, or holds what is no string.
        """
        _check(strings)
        padded = np.empty((len(strings), self.max_ngrams), np.int32)
        for start in range(0, len(strings), _CHUNK):
            ids, offsets = self._hash(strings[start : start + _CHUNK])
            padded[start : start + _CHUNK] = pad(ids, offsets, self.max_ngrams, self.num_buckets)
        return padded

    def apply_ragged(self, strings: Sequence[str]) -> Ragged:
        """The ids of each string, all of them.

        Args:
            strings: N strings of any length, the empty one included.

        Returns:
            ids [total] int32 and offsets [N + 1] int64: string i has
            `ids[offsets[i]:offsets[i + 1]]`.

        Raises:
            ValueError: `strings` is one string, or holds what is no string.
        """
        _check(strings)
        parts = [
            self._hash(strings[start : start + _CHUNK]) for start in range(0, len(strings), _CHUNK)
        ]
        ids = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in parts)])
        counts = np.concatenate([np.empty(0, np.int64), *(np.diff(ends) for _, ends in parts)])
        return ids, _offsets(counts)

    def _hash(self, strings: Sequence[str]) -> Ragged:
        """The ids of a chunk."""
        # U+0000 will part the strings, so it may not occur in one; a space has the same meaning.
        texts = [string.replace("\0", " ") for string in strings]
        if self.folding == "only":
            ragged = self._ids(_each(fold, texts))
        else:
            written = _each(normalise, texts)
            ragged = self._ids(written)
        if self.folding == "both":
            ragged = _join_rows(ragged, self._ids(_each(fold, texts), kind=1))
        elif self.folding == "union":
            folded = _each(fold, texts)
            rows = [row for row, text in enumerate(folded) if text != written[row]]
            added = _additions(
                self._ids([written[row] for row in rows]), self._ids([folded[row] for row in rows])
            )
            ragged = _join_rows(ragged, _spread(added, rows, len(texts)))
        return _keep(ragged, _first_in_row(ragged)) if self.unique else ragged

    def _ids(self, texts: Sequence[str], *, kind: int = 0) -> Ragged:
        """The ids of normalised texts; another `kind` has its own buckets."""
        codes, ends = _marked(texts)
        seed = mix(np.array([self.seed], np.uint64) + np.array([kind], np.uint64) * MULTIPLIER)
        parts = []
        if self.whole:
            parts.append(self._spans(codes, ends, ends, seed + np.uint64(1 << 32)))
        if self.words:
            starts = np.flatnonzero(codes == _BOUNDARY)
            parts.append(self._spans(codes, ends, starts, seed + np.uint64(2 << 32)))
        if self.sizes:
            parts.append(self._windows(codes, ends, seed))
        return functools.reduce(_join_rows, parts)

    def _windows(
        self, codes: NDArray[np.uint32], ends: NDArray[np.int64], seed: NDArray[np.uint64]
    ) -> Ragged:
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
                ids[:, column] = self._buckets(mix(state + np.uint64(size)))
                fits[:, column] = (room >= size - 1) & ~empty
                if size == 1:
                    fits[:, column] &= codes[:-1] != _BOUNDARY
                column += 1
        return ids[fits], _offsets(fits.sum(1))[ends]

    def _spans(
        self,
        codes: NDArray[np.uint32],
        ends: NDArray[np.int64],
        starts: NDArray[np.int64],
        salt: NDArray[np.uint64],
    ) -> Ragged:
        """One id for each span between two of `starts`, which are boundaries."""
        lengths = np.diff(starts)
        position = np.arange(len(codes) - 1) - np.repeat(starts[:-1], lengths)
        values = mix(codes[:-1] * MULTIPLIER + position.astype(np.uint64))
        values[starts[:-1]] = 0
        sums = np.add.reduceat(values, starts[:-1]) if len(values) else values
        used = lengths > 1
        offsets = _offsets(used)[np.searchsorted(starts, ends)]
        return self._buckets(mix(sums[used] + salt)), offsets

    def _buckets(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Scales the upper halves to [0, num_buckets)."""
        upper = hashes >> np.uint64(32)
        return ((upper * np.uint64(self.num_buckets)) >> np.uint64(32)).astype(np.int32)


def pad(
    ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    width: int,
    fill: int,
    rows: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Ragged rows as a matrix: the first `width` ids of each, then `fill`.

    Args:
        ids: [total] integers, as from `HashedNgrams.apply_ragged`.
        offsets: [N + 1] integers.
        width: of the result, ≥ 0.
        fill: goes into unused slots.
        rows: [B] integers, which rows are wanted; None for all.

    Returns:
        [B, width], of the dtype of `ids`.

    Raises:
        ValueError: a negative width.

    Example:
        >>> pad(np.array([5, 6, 7]), np.array([0, 2, 2, 3]), width=2, fill=9, rows=[2, 0, 1])
        array([[7, 9],
               [5, 6],
               [9, 9]])
    """
    if width < 0:
        raise ValueError(f"width is {width}, wanted at least 0")
    starts, ends = offsets[:-1], offsets[1:]
    if rows is not None:
        index = np.asarray(rows, np.int64)
        starts, ends = starts[index], ends[index]
    counts = np.minimum(ends - starts, width)
    padded = np.full((len(counts), width), fill, ids.dtype)
    before = np.cumsum(counts) - counts
    padded[np.arange(width) < counts[:, None]] = ids[
        np.repeat(starts - before, counts) + np.arange(counts.sum())
    ]
    return padded


def _check(strings: Sequence[str]) -> None:
    if isinstance(strings, str):
        raise ValueError(f"strings is the one string {strings!r}, wanted a sequence of them")
    for row, string in enumerate(strings):
        if not isinstance(string, str):
            raise ValueError(f"strings[{row}] is {string!r}, wanted a string")


def _each(form: Callable[[str], str], texts: Sequence[str]) -> list[str]:
    """`form` of each text, at the price of one call: U+0000 neither composes nor folds."""
    return form("\0".join(texts)).split("\0") if texts else []


def _marked(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Code points with word boundaries.

    Returns:
        codes: [T] uint32, a boundary, the first text, a boundary, the second text, …, a boundary;
            every run of spaces and hyphens within a text is one boundary, format characters are
            left out.
        ends: [N + 1] int64, the positions of the boundaries that part the texts.
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
    # A space goes if anything but a letter is before it, and then if the text ends after it.
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
    # Marks of direction, joiners, the soft hyphen: nothing that a reader sees.
    return _FORMAT if unicodedata.category(char) == "Cf" else _LETTER


def _join_rows(first: Ragged, second: Ragged) -> Ragged:
    """Row by row, the ids of `first` and then those of `second`."""
    offsets = first[1] + second[1]
    ids = np.empty(offsets[-1], np.int32)
    for part, starts in ((first, offsets[:-1]), (second, offsets[:-1] + np.diff(first[1]))):
        values, own = part
        ids[np.repeat(starts - own[:-1], np.diff(own)) + np.arange(len(values))] = values
    return ids, offsets


def _spread(ragged: Ragged, rows: Sequence[int], num_rows: int) -> Ragged:
    """The same ids in rows `rows` of `num_rows`; the others are empty."""
    counts = np.zeros(num_rows, np.int64)
    counts[rows] = np.diff(ragged[1])
    return ragged[0], _offsets(counts)


def _keys(ragged: Ragged) -> NDArray[np.int64]:
    """One integer for each (row, id)."""
    ids, offsets = ragged
    rows: NDArray[np.int64] = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return (rows << 31) + ids


def _first_in_row(ragged: Ragged) -> NDArray[np.bool_]:
    first = np.zeros(len(ragged[0]), bool)
    first[np.unique(_keys(ragged), return_index=True)[1]] = True
    return first


def _additions(first: Ragged, second: Ragged) -> Ragged:
    """Row by row, the ids of `second` that `first` lacks, once each."""
    joined = _join_rows(first, second)
    counts = np.stack([np.diff(first[1]), np.diff(second[1])], axis=1)
    of_second = np.repeat(np.tile([False, True], len(counts)), counts.ravel())
    return _keep(joined, _first_in_row(joined) & of_second)


def _keep(ragged: Ragged, mask: NDArray[np.bool_]) -> Ragged:
    return ragged[0][mask], _offsets(mask)[ragged[1]]


def _offsets(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Where rows of these lengths begin, and where the last one ends."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
