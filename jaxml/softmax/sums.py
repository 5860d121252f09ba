"""Running sums of integers that keep changing: a Fenwick tree of two-word numbers.

A distribution that is learned changes with every batch. A table of its cumulative sums would have to
be rewritten each time; here a change to one entry touches log2(size) numbers, and so does finding the
entry under a point. All of it is exact: sums are integers modulo 2⁶⁴ (see `words`).

Fenwick 1994, "A new data structure for cumulative frequency tables".
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxml.softmax import words
from jaxml.softmax.words import Words
from jaxml.types import Array


class Sums(NamedTuple):
    """Segments side by side on a line of fewer than 2⁶³ ticks; segment k is `each` + added_k long.

    What all segments have in common is kept once, so that it can change without touching any.

    Attributes:
        tree: Words of [size]. Entry i > 0 is what was added to the segments in [i - b, i), b being
            the lowest set bit of i; entry 0 is what was added to all.
        each: Words of []; at least 1, so that no segment is without length.
    """

    tree: Words
    each: Words


class Segments(NamedTuple):
    """Some segments: `ids` int32 [n], the left edges `starts` and the `lengths`, Words of [n]."""

    ids: Array
    starts: Words
    lengths: Words


def empty(size: int) -> Words:
    """The tree of `size` segments to which nothing was added."""
    # Two buffers, so that both can be donated.
    return Words(jnp.zeros(size, jnp.uint32), jnp.zeros(size, jnp.uint32))


def add(tree: Words, ids: Array, amounts: Words) -> Words:
    """Adds to the segments; an id may occur several times, and one out of range is ignored.

    Takes O(K log size) for K ids. An amount may be negative, modulo 2⁶⁴.

    Args:
        tree: as in `Sums`.
        ids: int32 [K].
        amounts: Words of [K].
    """
    if not ids.size:
        return tree
    size = _size(tree)
    inside = (ids >= 0) & (ids < size)
    ids, high, low = jax.lax.sort(
        (
            jnp.where(inside, ids, size),
            jnp.where(inside, amounts.high, 0),
            jnp.where(inside, amounts.low, 0),
        ),
        num_keys=1,
    )
    amounts = Words(high, low)
    through = cumulative(amounts)
    before = words.subtract(through, amounts)
    place = jnp.arange(ids.shape[0], dtype=jnp.int32)

    def add_level(level: Array, tree: Words) -> Words:
        # A scatter that adds could not carry from one word to the other: sorted as the ids are,
        # those of one block stand together, and the last of them writes for all.
        block = jnp.where(ids < size, ids >> level, -1)
        different = block[1:] != block[:-1]
        first = jnp.pad(different, (1, 0), constant_values=True)
        last = jnp.pad(different, (0, 1), constant_values=True)
        start = jax.lax.cummax(jnp.where(first, place, 0))
        amount = words.subtract(through, take(before, start))
        # Of two sister blocks only the left one has its sum in the tree, where the right one begins.
        # The topmost block is the only one, and is stored in front.
        middle = jnp.where(level < levels, (block + 1) << level, 0)
        stored = last & (block >= 0) & (block & 1 == 0) & (middle >= 0) & (middle < size)
        index = jnp.where(stored, middle, size)
        # The old numbers are read before the new ones are written, or XLA would write to a copy.
        old = jax.lax.optimization_barrier(take(tree, index))
        high, low = words.add(old, amount)
        return Words(
            tree.high.at[index].set(high, mode="drop"), tree.low.at[index].set(low, mode="drop")
        )

    levels = _levels(size)
    return jax.lax.fori_loop(0, levels + 1, add_level, tree)


def total(sums: Sums) -> Words:
    """The length of the line, Words of []."""
    size = _size(sums.tree)
    return words.add(
        Words(sums.tree.high[0], sums.tree.low[0]), words.times(sums.each, jnp.uint32(size))
    )


def find(sums: Sums, points: Words) -> Array:
    """The segments that hold the points, int32, the shape of `points`; log2(size) steps."""
    size = _size(sums.tree)
    levels = _levels(size)

    def descend(step: Array, found: tuple[Array, Words]) -> tuple[Array, Words]:
        start, rest = found
        middle, left = _halve(sums, start, levels - 1 - step)
        right = (middle < size) & ~words.less(rest, left)
        return jnp.where(right, middle, start), words.choose(
            right, words.subtract(rest, left), rest
        )

    return jax.lax.fori_loop(0, levels, descend, (jnp.zeros(points.low.shape, jnp.int32), points))[
        0
    ]


def segments(sums: Sums, ids: Array) -> Segments:
    """Where the segments of these ids lie; ids int32 of any shape, clipped into [0, size)."""
    return _blocks(sums, jnp.clip(ids, 0, _size(sums.tree) - 1), 0)


def longest(sums: Sums, count: int) -> Segments:
    """All segments that may be in every sample of `count` distinct ones, longest first.

    Let w be the length at which segments must be cut off so that they make up `count` pieces of
    that length: Σ min(length, w) = count · w. Wanted are those at least w long, and they are found
    without knowing w, going down the tree level by level. A block that holds such a segment is at
    least w long itself. Of blocks at least w / 2 long there are no more than 2 · count, since each
    has at least w / 2 of Σ min(length, w). So it is enough to keep those above a power of two that
    is low enough to leave no more than 2 · count of them, but no lower than it must be.

    Takes O(count · log size), and O(count · log count) once.

    Args:
        sums: the line.
        count: in [1, size].

    Returns:
        [count] segments. Not all slots need be filled: the others have length 0 and id `size`.
    """
    size = _size(sums.tree)
    width = 2 * count
    start_level = max(0, -(-size // width) - 1).bit_length()
    blocks = jnp.arange(width, dtype=jnp.int32)
    real = blocks < -(-size >> start_level)
    found = _blocks(sums, jnp.where(real, blocks, 0) << start_level, start_level)
    zero = Words(*(jnp.zeros_like(word) for word in found.starts))
    first, start = jnp.where(real, found.ids, size), found.starts
    length = words.choose(real, found.lengths, zero)

    def descend(step: Array, found: Segments) -> Segments:
        first, start, length = found
        middle, left = _halve(sums, first, start_level - 1 - step)
        left = words.choose((first < size) & (middle < size), left, length)
        first = jnp.concatenate([first, middle])
        start = _concatenate(start, words.add(start, left))
        length = _concatenate(left, words.subtract(length, left))
        bits = jnp.where(
            length.high > 0, 64 - jax.lax.clz(length.high), 32 - jax.lax.clz(length.low)
        )
        # The largest number of bits that too many of the blocks have.
        too_few = jnp.zeros((), jnp.uint32)
        for stride in (32, 16, 8, 4, 2, 1):
            more = (bits >= too_few + stride).sum() > width
            too_few = too_few + stride * more.astype(jnp.uint32)
        kept = bits > too_few
        slot = jnp.where(kept, jnp.cumsum(kept, dtype=jnp.int32) - 1, width)
        origin = jnp.arange(2 * width, dtype=jnp.int32)
        index = jnp.full(width, 2 * width, jnp.int32).at[slot].set(origin, mode="drop")
        filled = partial(jnp.take, indices=index, mode="fill")
        return Segments(
            ids=filled(first, fill_value=size),
            starts=Words(*(filled(word, fill_value=0) for word in start)),
            lengths=Words(*(filled(word, fill_value=0) for word in length)),
        )

    first, start, length = jax.lax.fori_loop(
        0, start_level, descend, Segments(first, start, length)
    )
    # Falling lengths are rising complements.
    order = jax.lax.sort((~length.high, ~length.low, jnp.arange(width)), num_keys=2)[2][:count]
    return Segments(first[order], take(start, order), take(length, order))


def shift_right(tree: Words, bits: int) -> Words:
    """Halves what was added to each segment `bits` times, rounding down; O(size)."""
    size = _size(tree)
    levels = _levels(size)
    # Down: the sums of all blocks of a level, from those of the level above and the left halves.
    blocks = Words(tree.high[:1], tree.low[:1])
    for level in reversed(range(levels)):
        left = Words(*(word[1 << level :: 2 << level] for word in tree))
        pairs = left.low.shape[0]
        right = words.subtract(Words(*(word[:pairs] for word in blocks)), left)
        # A block without a sister is its parent.
        left = _concatenate(left, Words(*(word[pairs:] for word in blocks)))
        blocks = Words(*(_interleave(a, b) for a, b in zip(left, right, strict=True)))
    blocks = Words(blocks.high >> bits, blocks.low >> bits | blocks.high << (32 - bits))
    # Up again: half of each level goes into the tree, between the entries of the levels above.
    halves = []
    for _ in range(levels):
        left, right = (Words(*(word[i::2] for word in blocks)) for i in (0, 1))
        pairs = right.low.shape[0]
        halves.append(Words(*(word[:pairs] for word in left)))
        joined = words.add(halves[-1], right)
        blocks = _concatenate(joined, Words(*(word[pairs:] for word in left)))
    tree = blocks
    for half in reversed(halves):
        tree = Words(*(_interleave(a, b) for a, b in zip(tree, half, strict=True)))
    return tree


def cumulative(a: Words) -> Words:
    """The sums of the first 1, 2, … K numbers, for Words of [K]."""
    low = jnp.cumsum(a.low)
    # A sum that wrapped is less than what was added to it.
    carry = (low < a.low).astype(jnp.uint32)
    return Words(jnp.cumsum(a.high + carry), low)


def to_float(a: Words) -> Array:
    """The float32 nearest to the number, or a neighbour of it."""
    return a.high.astype(jnp.float32) * 2.0**32 + a.low.astype(jnp.float32)


def take(a: Words, index: Array) -> Words:
    """The numbers at these places; one out of range is clipped."""
    return Words(*(jnp.take(word, index, mode="clip") for word in a))


def _size(tree: Words) -> int:
    return tree.low.shape[0]


def _levels(size: int) -> int:
    return (size - 1).bit_length()


def _halve(sums: Sums, first: Array, level: Array | int) -> tuple[Array, Words]:
    """For the blocks of 2 · 2^level from `first` on: where the right half begins, the left's length.

    The length means nothing where the right half begins past the end of the line.
    """
    half = jnp.left_shift(jnp.int32(1), level)
    middle = first + half
    left = words.add(take(sums.tree, middle), words.times(sums.each, half.astype(jnp.uint32)))
    return middle, left


def _blocks(sums: Sums, ids: Array, level: int) -> Segments:
    """The blocks of 2^level segments that hold these ids, by the first id of each."""
    size = _size(sums.tree)
    levels = _levels(size)
    zero = jnp.zeros(ids.shape, jnp.uint32)
    whole = total(sums)

    def descend(step: Array, found: Segments) -> Segments:
        first, start, length = found
        middle, left = _halve(sums, first, levels - 1 - step)
        right = ids >= middle
        left = words.choose(middle < size, left, length)
        return Segments(
            jnp.where(right, middle, first),
            words.choose(right, words.add(start, left), start),
            words.choose(right, words.subtract(length, left), left),
        )

    found = Segments(
        jnp.zeros(ids.shape, jnp.int32),
        Words(zero, zero),
        Words(whole.high + zero, whole.low + zero),
    )
    return jax.lax.fori_loop(0, levels - level, descend, found)


def _concatenate(a: Words, b: Words) -> Words:
    return Words(*(jnp.concatenate(pair) for pair in zip(a, b, strict=True)))


def _interleave(a: Array, b: Array) -> Array:
    """a0 b0 a1 b1 …, for a `b` as long as `a` or shorter by one."""
    both = jnp.stack([a, jnp.pad(b, (0, a.shape[0] - b.shape[0]))], axis=-1).reshape(-1)
    return both[: a.shape[0] + b.shape[0]]
