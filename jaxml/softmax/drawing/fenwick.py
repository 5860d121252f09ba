"""Lines that change: a Fenwick tree of 64-bit lengths.

A learned distribution changes with every batch. A table of its cumulative sums would have to be rewritten
each time; here a change to one entry touches log2(size) numbers, and so does finding the entry under a
point. All sums are exact modulo 2⁶⁴.

Fenwick 1994, "A new data structure for cumulative frequency tables".
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxml import meshes
from jaxml.softmax.drawing import uint64
from jaxml.softmax.drawing.uint64 import UInt64
from jaxml.types import Array


class Line(NamedTuple):
    """Segments side by side on a line of fewer than 2⁶³ units; segment k is `each` + added_k long.

    The length that all segments have in common is kept once, so that it can change without touching any.

    Attributes:
        tree: UInt64 of [size]. Entry i > 0 is what was added to the segments in [i - b, i), b being
            the lowest set bit of i; entry 0 is what was added to all.
        each: UInt64 of []; at least 1, so that no segment is without length.
    """

    tree: UInt64
    each: UInt64


class Segments(NamedTuple):
    """Some segments: `ids` int32 [n], the left edges `starts` and the `lengths`, UInt64 of [n]."""

    ids: Array
    starts: UInt64
    lengths: UInt64


def empty(size: int) -> UInt64:
    """The tree of `size` segments to which nothing was added."""
    # Two buffers, so that both can be donated.
    return UInt64(jnp.zeros(size, jnp.uint32), jnp.zeros(size, jnp.uint32))


def add(tree: UInt64, ids: Array, amounts: UInt64) -> UInt64:
    """Adds amounts, UInt64 of [K], to the segments `ids`, int32 [K]; O(K log size).

    An id may occur several times, and one out of range is ignored. An amount may be negative, modulo 2⁶⁴.
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
    amounts = UInt64(high, low)
    through = cumulative(amounts)
    before = uint64.subtract(through, amounts)
    place = jnp.arange(ids.shape[0], dtype=jnp.int32)

    def add_level(level: Array, tree: UInt64) -> UInt64:
        # A scatter that adds could not carry from one word to the other: sorted as the ids are,
        # those of one block stand together, and the last of them writes for all.
        block = jnp.where(ids < size, ids >> level, -1)
        different = block[1:] != block[:-1]
        first = jnp.pad(different, (1, 0), constant_values=True)
        last = jnp.pad(different, (0, 1), constant_values=True)
        start = jax.lax.cummax(jnp.where(first, place, 0))
        amount = uint64.subtract(through, take(before, start))
        # Of two sister blocks only the left one has its sum in the tree, where the right one begins.
        # The topmost block is the only one, and is stored in front.
        middle = jnp.where(level < levels, (block + 1) << level, 0)
        stored = last & (block >= 0) & (block & 1 == 0) & (middle >= 0) & (middle < size)
        index = jnp.where(stored, middle, size)
        # The old numbers are read before the new ones are written, or XLA would write to a copy.
        old = jax.lax.optimization_barrier(take(tree, index))
        high, low = uint64.add(old, amount)
        return UInt64(
            tree.high.at[index].set(high, mode="drop"), tree.low.at[index].set(low, mode="drop")
        )

    levels = _levels(size)
    return meshes.fori_loop(0, levels + 1, add_level, tree)


def total(line: Line) -> UInt64:
    """The length of the line, UInt64 of []."""
    size = _size(line.tree)
    return uint64.add(
        UInt64(line.tree.high[0], line.tree.low[0]), uint64.times(line.each, jnp.uint32(size))
    )


def find(line: Line, points: UInt64) -> Array:
    """The segments that hold the points, int32, the shape of `points`; log2(size) steps."""
    size = _size(line.tree)
    levels = _levels(size)

    def descend(step: Array, found: tuple[Array, UInt64]) -> tuple[Array, UInt64]:
        start, rest = found
        middle, left = _halve(line, start, levels - 1 - step)
        right = (middle < size) & ~uint64.less(rest, left)
        return jnp.where(right, middle, start), uint64.choose(
            right, uint64.subtract(rest, left), rest
        )

    return meshes.fori_loop(0, levels, descend, (jnp.zeros(points.low.shape, jnp.int32), points))[0]


def segments(line: Line, ids: Array) -> Segments:
    """Where the segments of these ids lie; ids int32 of any shape, clipped into [0, size)."""
    return _blocks(line, jnp.clip(ids, 0, _size(line.tree) - 1), 0)


def longest(line: Line, count: int) -> Segments:
    """All segments that may be in every sample of `count` distinct ones, longest first.

    Let w be the length at which segments must be cut off so that they make up `count` pieces of that
    length: Σ min(length, w) = count · w. Wanted are those at least w long, and they are found without
    knowing w, going down the tree level by level. A block that holds such a segment is at least w long
    itself. Of blocks at least w / 2 long there are no more than 2 · count, since each has at least w / 2 of
    Σ min(length, w). So it is enough to keep those above a power of two that is low enough to leave no more
    than 2 · count of them, but no lower than it must be.

    Takes O(count · log size), and O(count · log count) once. Returns [count] segments, for a count in
    [1, size]; slots that are not filled have length 0 and id `size`.
    """
    size = _size(line.tree)
    width = 2 * count
    start_level = max(0, -(-size // width) - 1).bit_length()
    blocks = jnp.arange(width, dtype=jnp.int32)
    real = blocks < -(-size >> start_level)
    found = _blocks(line, jnp.where(real, blocks, 0) << start_level, start_level)
    zero = UInt64(*(jnp.zeros_like(word) for word in found.starts))
    first, start = jnp.where(real, found.ids, size), found.starts
    length = uint64.choose(real, found.lengths, zero)

    def descend(step: Array, found: Segments) -> Segments:
        first, start, length = found
        middle, left = _halve(line, first, start_level - 1 - step)
        left = uint64.choose((first < size) & (middle < size), left, length)
        first = jnp.concatenate([first, middle])
        start = _concatenate(start, uint64.add(start, left))
        length = _concatenate(left, uint64.subtract(length, left))
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
            starts=UInt64(*(filled(word, fill_value=0) for word in start)),
            lengths=UInt64(*(filled(word, fill_value=0) for word in length)),
        )

    first, start, length = meshes.fori_loop(0, start_level, descend, Segments(first, start, length))
    # Falling lengths are rising complements.
    order = jax.lax.sort((~length.high, ~length.low, jnp.arange(width)), num_keys=2)[2][:count]
    return Segments(first[order], take(start, order), take(length, order))


def cumulative(a: UInt64) -> UInt64:
    """The sums of the first 1, 2, … K numbers, for UInt64 of [K]."""
    low = jnp.cumsum(a.low)
    # A sum that wrapped is less than what was added to it.
    carry = (low < a.low).astype(jnp.uint32)
    return UInt64(jnp.cumsum(a.high + carry), low)


def to_float(a: UInt64) -> Array:
    """The float32 nearest to the number, or a neighbour of it."""
    return a.high.astype(jnp.float32) * 2.0**32 + a.low.astype(jnp.float32)


def take(a: UInt64, index: Array) -> UInt64:
    """The numbers at these places; one out of range is clipped."""
    return UInt64(*(jnp.take(word, index, mode="clip") for word in a))


def _size(tree: UInt64) -> int:
    return tree.low.shape[0]


def _levels(size: int) -> int:
    return (size - 1).bit_length()


def _halve(line: Line, first: Array, level: Array | int) -> tuple[Array, UInt64]:
    """For the blocks of 2 · 2^level from `first` on: where the right half begins, the left's length.

    The length means nothing where the right half begins past the end of the line.
    """
    half = jnp.left_shift(jnp.int32(1), level)
    middle = first + half
    left = uint64.add(take(line.tree, middle), uint64.times(line.each, half.astype(jnp.uint32)))
    return middle, left


def _blocks(line: Line, ids: Array, level: int) -> Segments:
    """The blocks of 2^level segments that hold these ids, by the first id of each."""
    size = _size(line.tree)
    levels = _levels(size)
    zero = jnp.zeros(ids.shape, jnp.uint32)
    whole = total(line)

    def descend(step: Array, found: Segments) -> Segments:
        first, start, length = found
        middle, left = _halve(line, first, levels - 1 - step)
        right = ids >= middle
        left = uint64.choose(middle < size, left, length)
        return Segments(
            jnp.where(right, middle, first),
            uint64.choose(right, uint64.add(start, left), start),
            uint64.choose(right, uint64.subtract(length, left), left),
        )

    found = Segments(
        jnp.zeros(ids.shape, jnp.int32),
        UInt64(zero, zero),
        UInt64(whole.high + zero, whole.low + zero),
    )
    return meshes.fori_loop(0, levels - level, descend, found)


def _concatenate(a: UInt64, b: UInt64) -> UInt64:
    return UInt64(*(jnp.concatenate(pair) for pair in zip(a, b, strict=True)))
