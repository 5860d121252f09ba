"""Drawing ranks from a ruler: independently, or a fixed number of distinct ones.

Both work in integers throughout: the same key gives the same ranks on every backend.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.softmax import rulers, sums, words
from jaxml.softmax.rulers import Ruler
from jaxml.softmax.sums import Sums
from jaxml.softmax.words import Words
from jaxml.types import Array, Key


def independent(ruler: Ruler, state: Any, key: Key, count: int) -> Array:
    """`count` ranks drawn with replacement, each as often as its segment is long.

    Returns:
        int32 [count].
    """
    bits = jax.random.bits(key, (2, count), jnp.uint32)
    length = words.constant(ruler.tick(ruler.size))
    return ruler.find(state, words.fraction(length, Words(bits[0], bits[1])))


def certain(ruler: Ruler, count: int) -> int:
    """How many of the longest segments every sample of `count` distinct ones must hold.

    It is the smallest h for which the others can share the rest in proportion to their lengths,
    no inclusion probability above 1: `(count - h) · length(h) <= length of all from h on`. (Asking
    once for `count · length > total` is not enough: the head's surplus goes to the others, and
    lifts some of them above 1 in turn.) The left side only falls as h grows, and at
    `h = count - 1` it has fallen.

    Raises:
        ValueError: `count` is not in `[1, ruler.size]`.
    """
    if not 1 <= count <= ruler.size:
        raise ValueError(f"count must be in [1, {ruler.size}], is {count}")
    low, high = 0, count - 1
    while low < high:
        h = (low + high) // 2
        start = ruler.tick(h)
        fits = (count - h) * (ruler.tick(h + 1) - start) <= ruler.tick(ruler.size) - start
        low, high = (low, h) if fits else (h + 1, high)
    return low


def pivotal(ruler: Ruler, state: Any, key: Key, count: int) -> Array:
    r"""`count` distinct ranks, by ordered pivotal sampling; no loop, no rejection.

    With h = `certain(ruler, count)` and R the length of all segments from h on, rank k is held
    with probability exactly

    .. math::  \pi_k = 1 \;(k < h), \qquad \pi_k = (count - h)\, length_k / R \le 1 \;(k \ge h).

    The line from h on is closed to a ring, opened again at the left edge of a random segment (so
    that it is not always the same classes that shut each other out), and cut into m = count - h
    strata of equal length. Each stratum yields one rank. A segment is no longer than a stratum,
    so it lies inside one or straddles a single border: border i is straddled by c_i, with b_i of
    its length right of the border and a_i left of it. In stratum i, of length w,

    1. a winner is drawn in proportion to length among the segments that lie inside and the
       survivor, which the stratum before handed over and which weighs b_i here;
    2. winner and c_{i+1} duel: c_{i+1} is chosen with probability a_{i+1} / (w - b_{i+1}), else
       the winner is; the other one survives into stratum i + 1, with weight b_{i+1}.

    The first survivor is the first segment, and at the end of the ring nothing straddles. So the
    sample is spread along the line like a stratified one, and whatever the scores, the estimate of
    their sum has at most the variance that `count` independent draws give it.

    Strata do not wait for each other: only the survivor's name comes from the left, and it is
    c_i or a segment inside stratum i - 1 unless the survivor of stratum i - 1 is passed on. The
    last stratum that did not pass its survivor on is found for all by one cumulative maximum.

    Returns:
        int32 [count]: the certain ranks, then one for each stratum. Neighbours on the line are
        near each other, but they are not sorted.

    References:
        Deville & Tillé 1998, "Unequal probability sampling without replacement through a
        splitting method"; Chauvet 2012, "On a characterization of ordered pivotal sampling"
        (the form by strata); Chauvet & Ruiz-Gazen 2017, "A comparison of pivotal sampling and
        unequal probability sampling with replacement" (the variance).
    """
    h = certain(ruler, count)
    m = count - h
    base, end = ruler.tick(h), ruler.tick(ruler.size)
    origin = words.constant(base)
    # Lengths of strata differ by one tick at most; the first `longer` ones have it.
    each, longer = divmod(end - base, m)
    bits = _bits(key, m)

    def ends(ranks: Array) -> tuple[Words, Words]:
        both = ruler.edge(state, jnp.stack([ranks, ranks + 1]))
        return Words(both.high[0], both.low[0]), Words(both.high[1], both.low[1])

    place = words.fraction(words.constant(ruler.size - h), Words(bits[0], bits[1]))
    opening = words.subtract(ruler.edge(state, h + place.low.astype(jnp.int32)), origin)
    ring = _Ring(
        length=words.constant(end - base),
        origin=origin,
        opening=opening,
        find=partial(ruler.find, state),
        ends=ends,
    )
    strata = jnp.arange(_even(m), dtype=jnp.uint32)
    chosen = _one_for_each_stratum(ring, bits[2:], strata, words.constant(each), longer)
    return jnp.concatenate([jnp.arange(h, dtype=jnp.int32), chosen[:m]])


def pivotal_of_sums(line: Sums, key: Key, count: int) -> tuple[Array, Array]:
    """`pivotal` for segments whose lengths are data: they change, and stand in no order.

    Which segments are certain, and so how many strata there are, is only known on the device. The
    strata keep their number, `count`; those beyond m repeat the first and are not used. The line
    is not cut off behind the certain segments, which lie anywhere: they are taken out of it, and the
    others close ranks.

    Takes O(count · (log count + log size)).

    Args:
        line: the segments.
        key: typed key.
        count: in [1, number of segments].

    Returns:
        int32 [count], distinct ids in no order, and float32 [], the c of the inclusion
        probabilities min(1, c · length).
    """
    long = sums.longest(line, count)
    slots = jnp.arange(count, dtype=jnp.int32)
    before = words.subtract(sums.cumulative(long.lengths), long.lengths)
    rest = words.subtract(sums.total(line), before)
    each, longer = _divide_by_falling(rest, count)
    # As `certain` has it: the first segment that is no longer than a stratum of what it leaves. The
    # last slot has one stratum, of all that is left.
    h = jnp.argmax(~words.less(each, long.lengths)).astype(jnp.int32)
    m, length = count - h, sums.take(rest, h)

    # The certain segments along the line. The edges are where they were before they shrank to nothing;
    # segment j between two of these edges is to be moved by what was taken out up to there.
    sure = slots < h
    zero = jnp.zeros((), jnp.uint32)
    out, *columns = jax.lax.sort(
        (
            jnp.where(sure, long.ids, np.iinfo(np.int32).max),
            *words.choose(sure, long.lengths, Words(zero, zero)),
            *long.starts,
        ),
        num_keys=1,
    )
    taken = sums.cumulative(Words(columns[0], columns[1]))
    shrunk = words.subtract(
        Words(columns[2], columns[3]), words.subtract(taken, Words(columns[0], columns[1]))
    )
    never = jnp.asarray(2**32 - 1, jnp.uint32)
    shrunk = words.choose(sure, shrunk, Words(never, never))
    taken = Words(*(jnp.pad(word, (1, 0)) for word in taken))
    edges = Words(*(jnp.pad(word, (1, 0)) for word in shrunk))
    edges = Words(*(jnp.append(word, never) for word in edges))

    def find(points: Words) -> Array:
        return sums.find(line, words.add(points, sums.take(taken, rulers.search(edges, points))))

    def ends(ids: Array) -> tuple[Words, Words]:
        found = sums.segments(line, ids)
        left = words.subtract(found.starts, sums.take(taken, jnp.searchsorted(out, ids)))
        return left, words.add(left, found.lengths)

    bits = _bits(key, count)
    size = words.constant(line.tree.low.shape[0])
    anyone = words.fraction(size, Words(bits[0], bits[1])).low.astype(jnp.int32)
    edge = ends(anyone)[0]
    # Behind the last segment of the ring there may have been certain ones.
    opening = words.choose(words.less(edge, length), edge, words.constant(0))
    ring = _Ring(length, origin=words.constant(0), opening=opening, find=find, ends=ends)
    strata = jnp.minimum(jnp.arange(_even(count)), m).astype(jnp.uint32)
    chosen = _one_for_each_stratum(ring, bits[2:], strata, sums.take(each, h), jnp.take(longer, h))
    ids = jnp.where(sure, long.ids, jnp.take(chosen, slots - h, mode="clip"))
    return ids, m.astype(jnp.float32) / sums.to_float(length)


class _Ring(NamedTuple):
    """The segments that are not certain, closed to a ring.

    Attributes:
        length: Words of [].
        origin: Words of []; where the ring begins on the line that `find` and `ends` go by.
        opening: Words of []; a left edge, from the origin, in [0, length).
        find: the segments that hold these points of the line.
        ends: the left and right edges of these segments.
    """

    length: Words
    origin: Words
    opening: Words
    find: Callable[[Words], Array]
    ends: Callable[[Array], tuple[Words, Words]]


def _even(m: int) -> int:
    # With an odd number of strata XLA's CPU backend cuts its loops into unequal parts, and takes
    # twice the time. A last one that repeats the first, once round the ring, makes it even.
    return m + m % 2


def _bits(key: Key, m: int) -> Array:
    return jax.random.bits(key, (3 * _even(m) + 2,), jnp.uint32)


def _one_for_each_stratum(
    ring: _Ring, bits: Array, strata: Array, each: Words, longer: Array | int
) -> Array:
    """The steps of `pivotal`; a stratum numbered m repeats the first, once round the ring.

    Args:
        ring: the segments, none longer than a stratum.
        bits: uint32 [3 S].
        strata: uint32 [S], 0, 1, … m - 1 and then nothing but m.
        each: Words of [], the length of a stratum,
        longer: or one more for the first so many.

    Returns:
        int32 [S].
    """
    size = strata.shape[0]
    point_bits, duel_bits = bits[: 2 * size], bits[2 * size :]

    def around(point: Words) -> Words:
        return words.choose(
            words.less(point, ring.length), point, words.subtract(point, ring.length)
        )

    zero = jnp.zeros_like(strata)
    before = words.add(words.times(each, strata), Words(zero, jnp.minimum(strata, longer)))
    length = words.add(each, Words(zero, (strata < longer).astype(jnp.uint32)))

    border = around(words.add(ring.opening, before))
    at = words.add(ring.origin, border)
    straddler = ring.find(at)
    left_end, right_end = ring.ends(straddler)
    left, right = words.subtract(at, left_end), words.subtract(right_end, at)

    # The last border is the opening itself, where a segment begins: nothing of it lies left.
    following = partial(jnp.roll, shift=-1)
    next_straddler = following(straddler)
    next_left = Words(following(left.high), following(left.low))
    next_right = Words(following(right.high), following(right.low))

    room = words.subtract(length, next_left)
    point = words.fraction(room, Words(point_bits[:size], point_bits[size:]))
    by_survivor = words.less(point, right)
    inside = ring.find(words.add(ring.origin, around(words.add(border, point))))
    duel = words.fraction(words.subtract(length, next_right), Words(duel_bits, zero))
    by_straddler = words.less(duel, next_left)

    # Who enters a stratum as survivor, if the one before did not pass its own survivor on; at the
    # opening that is the first segment, which `next_straddler` names last.
    entrant = jnp.roll(jnp.where(by_straddler, inside, next_straddler), 1)
    passed_on = jnp.roll(by_straddler & by_survivor, 1)
    number = jnp.arange(size, dtype=jnp.int32)
    survivor = entrant[jax.lax.cummax(jnp.where(passed_on, 0, number))]

    winner = jnp.where(by_survivor, survivor, inside)
    return jnp.where(by_straddler, next_straddler, winner)


def _divide_by_falling(a: Words, count: int) -> tuple[Words, Array]:
    """Quotients and remainders of the numbers [count], below 2⁶³, by count, count - 1, … 1."""
    divisors = np.arange(count, 0, -1, dtype=np.uint64)
    inverse = (2**64 - 1) // divisors
    high, low = (inverse >> np.uint64(32)), inverse & np.uint64(2**32 - 1)
    divisor = jnp.asarray(divisors.astype(np.uint32))
    # a · inverse / 2⁶⁴ falls short of a / divisor by less than 1/2, so its floor by 1 at most.
    guess = words.fraction(a, Words(jnp.asarray(high, jnp.uint32), jnp.asarray(low, jnp.uint32)))
    rest = words.subtract(a, words.times(guess, divisor)).low
    more = (rest >= divisor).astype(jnp.uint32)
    return words.add(guess, Words(jnp.zeros_like(more), more)), rest - more * divisor
