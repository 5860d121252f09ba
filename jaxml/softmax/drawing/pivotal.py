"""Draws from a line of segments: independent ones, or a fixed number of distinct ones."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.softmax.drawing import cdfs, fenwick, uint64
from jaxml.softmax.drawing.cdfs import Cdf
from jaxml.softmax.drawing.fenwick import Line
from jaxml.softmax.drawing.uint64 import UInt64
from jaxml.types import Array, Key


def independent(cdf: Cdf, state: Any, key: Key, count: int) -> Array:
    """`count` ranks drawn with replacement, each as often as its segment is long: int32 [count]."""
    bits = jax.random.bits(key, (2, count), jnp.uint32)
    length = uint64.constant(cdf.left_edge(cdf.size))
    return cdf.find(state, uint64.fraction(length, UInt64(bits[0], bits[1])))


def certain(cdf: Cdf, count: int) -> int:
    """How many of the longest segments every sample of `count` distinct ones must hold.

    It is the smallest h for which the others can share the rest in proportion to their lengths, no
    inclusion probability above 1: `(count - h) · length(h) <= length of all from h on`. The left side
    only falls as h grows, and at `h = count - 1` it has fallen.

    Raises:
        ValueError: `count` is not in `[1, cdf.size]`.
    """
    if not 1 <= count <= cdf.size:
        raise ValueError(f"count must be in [1, {cdf.size}], got {count}")
    low, high = 0, count - 1
    while low < high:
        h = (low + high) // 2
        start = cdf.left_edge(h)
        fits = (count - h) * (cdf.left_edge(h + 1) - start) <= cdf.left_edge(cdf.size) - start
        low, high = (low, h) if fits else (h + 1, high)
    return low


def pivotal(cdf: Cdf, state: Any, key: Key, count: int) -> Array:
    """`count` distinct ranks, by ordered pivotal sampling; no loop, no rejection.

    With h = `certain(cdf, count)` and R the length of all segments from h on, rank k is held with
    probability exactly π_k = 1 for k < h, and π_k = (count − h) · length_k / R ≤ 1 for k ≥ h.

    The line from h on is closed to a ring, opened again at the left edge of a random segment (so that the
    classes that exclude each other vary), and cut into m = count − h strata of equal length. Each stratum
    yields one rank. A segment is no longer than a stratum, so it lies inside one or straddles a single
    border: border i is straddled by c_i, with b_i of its length right of the border and a_i left of it. In
    stratum i, of length w,

    1. a winner is drawn in proportion to length among the segments that lie inside and the survivor, which
       the stratum before handed over and which weighs b_i here;
    2. winner and c_{i+1} duel: c_{i+1} is chosen with probability a_{i+1} / (w − b_{i+1}), else the winner
       is; the other one survives into stratum i + 1, with weight b_{i+1}.

    The first survivor is the first segment, and at the end of the ring nothing straddles. So the sample is
    spread along the line like a stratified one, and the estimate of any sum has at most the variance that
    `count` independent draws give it.

    Strata do not wait for each other: only the survivor's name comes from the left, and it is c_i or a
    segment inside stratum i − 1 unless the survivor of stratum i − 1 is passed on. The last stratum that
    did not pass its survivor on is found for all by one cumulative maximum.

    Returns:
        int32 [count]: the certain ranks, then one for each stratum, not sorted.

    References:
        Deville & Tillé 1998, "Unequal probability sampling without replacement through a splitting
        method"; Chauvet 2012, "On a characterization of ordered pivotal sampling" (the form by strata);
        Chauvet & Ruiz-Gazen 2017, "A comparison of pivotal sampling and unequal probability sampling with
        replacement" (the variance).
    """
    h = certain(cdf, count)
    m = count - h
    base, end = cdf.left_edge(h), cdf.left_edge(cdf.size)
    origin = uint64.constant(base)
    # Lengths of strata differ by one unit at most; the first `longer` ones have it.
    each, longer = divmod(end - base, m)
    bits = _bits(key, m)

    def ends(ranks: Array) -> tuple[UInt64, UInt64]:
        both = cdf.edge(state, jnp.stack([ranks, ranks + 1]))
        return UInt64(both.high[0], both.low[0]), UInt64(both.high[1], both.low[1])

    place = uint64.fraction(uint64.constant(cdf.size - h), UInt64(bits[0], bits[1]))
    opening = uint64.subtract(cdf.edge(state, h + place.low.astype(jnp.int32)), origin)
    ring = _Ring(
        length=uint64.constant(end - base),
        origin=origin,
        opening=opening,
        find=partial(cdf.find, state),
        ends=ends,
    )
    strata = jnp.arange(_even(m), dtype=jnp.uint32)
    chosen = _one_for_each_stratum(ring, bits[2:], strata, uint64.constant(each), longer)
    return jnp.concatenate([jnp.arange(h, dtype=jnp.int32), chosen[:m]])


class Strata(NamedTuple):
    """How a sample of `count` distinct segments divides a line; see `strata_of`.

    Attributes:
        longest: [count] segments, longest first.
        head: int32 [], how many of them are in every sample.
        each: UInt64 of [], the length of a stratum of the rest,
        longer: uint32 [], or one more for the first so many.
        length: UInt64 of [], of all strata.
    """

    longest: fenwick.Segments
    head: Array
    each: UInt64
    longer: Array
    length: UInt64

    @property
    def scale(self) -> Array:
        """float32 [], the c of the inclusion probabilities min(1, c · length)."""
        m = self.longest.ids.shape[0] - self.head
        return m.astype(jnp.float32) / fenwick.to_float(self.length)


def strata_of(line: Line, count: int) -> Strata:
    """Returns the certain segments of a line, and the strata of the others; `count` in [1, size]."""
    long = fenwick.longest(line, count)
    before = uint64.subtract(fenwick.cumulative(long.lengths), long.lengths)
    rest = uint64.subtract(fenwick.total(line), before)
    each, longer = _divide_by_falling(rest, count)
    # As in `certain`: the first segment that is no longer than a stratum of what it leaves. The last slot
    # has one stratum, of all that is left.
    h = jnp.argmax(~uint64.less(each, long.lengths)).astype(jnp.int32)
    return Strata(long, h, fenwick.take(each, h), jnp.take(longer, h), fenwick.take(rest, h))


def pivotal_of_line(line: Line, strata: Strata, key: Key) -> Array:
    """`pivotal` for segments whose lengths are data: they change, and are in no order.

    Which segments are certain, and so the number m of strata, is only known on the device. The program
    has `count` strata; those beyond m repeat the first and are not used. The certain segments lie
    anywhere: they are taken out of the line, and the others close ranks.

    Takes O(count · (log count + log size)).

    Returns:
        int32 [count], distinct ids in no order.
    """
    long, h, length = strata.longest, strata.head, strata.length
    count = long.ids.shape[0]
    slots = jnp.arange(count, dtype=jnp.int32)

    # The certain segments shrink to nothing at these edges; a segment behind an edge moves left by the
    # lengths taken out before it.
    sure = slots < h
    zero = jnp.zeros((), jnp.uint32)
    out, *columns = jax.lax.sort(
        (
            jnp.where(sure, long.ids, np.iinfo(np.int32).max),
            *uint64.choose(sure, long.lengths, UInt64(zero, zero)),
            *long.starts,
        ),
        num_keys=1,
    )
    taken = fenwick.cumulative(UInt64(columns[0], columns[1]))
    shrunk = uint64.subtract(
        UInt64(columns[2], columns[3]), uint64.subtract(taken, UInt64(columns[0], columns[1]))
    )
    never = jnp.asarray(2**32 - 1, jnp.uint32)
    shrunk = uint64.choose(sure, shrunk, UInt64(never, never))
    taken = UInt64(*(jnp.pad(word, (1, 0)) for word in taken))
    edges = UInt64(*(jnp.pad(word, (1, 0)) for word in shrunk))
    edges = UInt64(*(jnp.append(word, never) for word in edges))

    def find(points: UInt64) -> Array:
        return fenwick.find(
            line, uint64.add(points, fenwick.take(taken, cdfs.search(edges, points)))
        )

    def ends(ids: Array) -> tuple[UInt64, UInt64]:
        found = fenwick.segments(line, ids)
        left = uint64.subtract(found.starts, fenwick.take(taken, jnp.searchsorted(out, ids)))
        return left, uint64.add(left, found.lengths)

    bits = _bits(key, count)
    size = uint64.constant(line.tree.low.shape[0])
    anyone = uint64.fraction(size, UInt64(bits[0], bits[1])).low.astype(jnp.int32)
    edge = ends(anyone)[0]
    # Behind the last segment of the ring there may have been certain ones.
    opening = uint64.choose(uint64.less(edge, length), edge, uint64.constant(0))
    ring = _Ring(length, origin=uint64.constant(0), opening=opening, find=find, ends=ends)
    numbers = jnp.minimum(jnp.arange(_even(count), dtype=jnp.int32), count - h).astype(jnp.uint32)
    chosen = _one_for_each_stratum(ring, bits[2:], numbers, strata.each, strata.longer)
    return jnp.where(sure, long.ids, jnp.take(chosen, slots - h, mode="clip"))


class _Ring(NamedTuple):
    """The segments that are not certain, closed to a ring.

    Attributes:
        length: UInt64 of [].
        origin: UInt64 of []; where the ring begins on the line that `find` and `ends` go by.
        opening: UInt64 of []; a left edge, from the origin, in [0, length).
        find: the segments that hold these points of the line.
        ends: the left and right edges of these segments.
    """

    length: UInt64
    origin: UInt64
    opening: UInt64
    find: Callable[[UInt64], Array]
    ends: Callable[[Array], tuple[UInt64, UInt64]]


def _even(m: int) -> int:
    # With an odd number of strata XLA's CPU backend cuts its loops into unequal parts, and takes
    # twice the time. A last one that repeats the first, once round the ring, makes it even.
    return m + m % 2


def _bits(key: Key, m: int) -> Array:
    return jax.random.bits(key, (3 * _even(m) + 2,), jnp.uint32)


def _one_for_each_stratum(
    ring: _Ring, bits: Array, strata: Array, each: UInt64, longer: Array | int
) -> Array:
    """The steps of `pivotal`: int32 [S], from `bits` uint32 [3 S]; no segment is longer than a stratum.

    `strata` uint32 [S] are 0, 1, … m − 1 and then nothing but m, which repeats the first, once round the
    ring. A stratum has the length `each`, or one unit more for the first `longer`.
    """
    size = strata.shape[0]
    point_bits, duel_bits = bits[: 2 * size], bits[2 * size :]

    def around(point: UInt64) -> UInt64:
        return uint64.choose(
            uint64.less(point, ring.length), point, uint64.subtract(point, ring.length)
        )

    zero = jnp.zeros_like(strata)
    before = uint64.add(uint64.times(each, strata), UInt64(zero, jnp.minimum(strata, longer)))
    length = uint64.add(each, UInt64(zero, (strata < longer).astype(jnp.uint32)))

    border = around(uint64.add(ring.opening, before))
    at = uint64.add(ring.origin, border)
    straddler = ring.find(at)
    left_end, right_end = ring.ends(straddler)
    left, right = uint64.subtract(at, left_end), uint64.subtract(right_end, at)

    # The last border is the opening itself, where a segment begins: nothing of it lies left.
    following = partial(jnp.roll, shift=-1)
    next_straddler = following(straddler)
    next_left = UInt64(following(left.high), following(left.low))
    next_right = UInt64(following(right.high), following(right.low))

    room = uint64.subtract(length, next_left)
    point = uint64.fraction(room, UInt64(point_bits[:size], point_bits[size:]))
    by_survivor = uint64.less(point, right)
    inside = ring.find(uint64.add(ring.origin, around(uint64.add(border, point))))
    duel = uint64.fraction(uint64.subtract(length, next_right), UInt64(duel_bits, zero))
    by_straddler = uint64.less(duel, next_left)

    # The survivor that enters a stratum if the one before did not pass its own on; at the opening that is
    # the first segment, the last entry of `next_straddler`.
    entrant = jnp.roll(jnp.where(by_straddler, inside, next_straddler), 1)
    passed_on = jnp.roll(by_straddler & by_survivor, 1)
    number = jnp.arange(size, dtype=jnp.int32)
    survivor = entrant[jax.lax.cummax(jnp.where(passed_on, 0, number))]

    winner = jnp.where(by_survivor, survivor, inside)
    return jnp.where(by_straddler, next_straddler, winner)


def _divide_by_falling(a: UInt64, count: int) -> tuple[UInt64, Array]:
    """Quotients and remainders of the numbers [count], below 2⁶³, by count, count - 1, … 1."""
    divisors = np.arange(count, 0, -1, dtype=np.uint64)
    inverse = (2**64 - 1) // divisors
    high, low = (inverse >> np.uint64(32)), inverse & np.uint64(2**32 - 1)
    divisor = jnp.asarray(divisors.astype(np.uint32))
    # a · inverse / 2⁶⁴ falls short of a / divisor by less than 1/2, so its floor by 1 at most.
    guess = uint64.fraction(a, UInt64(jnp.asarray(high, jnp.uint32), jnp.asarray(low, jnp.uint32)))
    rest = uint64.subtract(a, uint64.times(guess, divisor)).low
    more = (rest >= divisor).astype(jnp.uint32)
    return uint64.add(guess, UInt64(jnp.zeros_like(more), more)), rest - more * divisor
