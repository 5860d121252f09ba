"""Drawing ranks from a ruler: independently, or a fixed number of distinct ones.

Both work in integers throughout: the same key gives the same ranks on every backend.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxml.softmax import words
from jaxml.softmax.rulers import Ruler
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
    ring, origin = words.constant(end - base), words.constant(base)
    # Lengths of strata differ by one tick at most; the first `longer` ones have it.
    each, longer = divmod(end - base, m)
    # With an odd number of strata XLA's CPU backend cuts its loops into unequal parts, and takes
    # twice the time. A last one that repeats the first, once round the ring, makes it even.
    even = m + m % 2
    bits = jax.random.bits(key, (3 * even + 2,), jnp.uint32)
    start_bits, point_bits, duel_bits = bits[:2], bits[2 : 2 * even + 2], bits[2 * even + 2 :]

    def around(point: Words) -> Words:
        return words.choose(words.less(point, ring), point, words.subtract(point, ring))

    def find(point: Words) -> Array:
        return ruler.find(state, words.add(origin, point))

    place = words.fraction(words.constant(ruler.size - h), Words(start_bits[0], start_bits[1]))
    opening = words.subtract(ruler.edge(state, h + place.low.astype(jnp.int32)), origin)

    strata = jnp.arange(even, dtype=jnp.uint32)
    zero = jnp.zeros_like(strata)
    before = words.add(
        words.times(words.constant(each), strata), Words(zero, jnp.minimum(strata, longer))
    )
    length = words.add(words.constant(each), Words(zero, (strata < longer).astype(jnp.uint32)))

    border = around(words.add(opening, before))
    straddler = find(border)
    at = words.add(origin, border)
    ends = ruler.edge(state, jnp.stack([straddler, straddler + 1]))
    left = words.subtract(at, Words(ends.high[0], ends.low[0]))
    right = words.subtract(Words(ends.high[1], ends.low[1]), at)

    # The last border is the opening itself, where a segment begins: nothing of it lies left.
    following = partial(jnp.roll, shift=-1)
    next_straddler = following(straddler)
    next_left = Words(following(left.high), following(left.low))
    next_right = Words(following(right.high), following(right.low))

    room = words.subtract(length, next_left)
    point = words.fraction(room, Words(point_bits[:even], point_bits[even:]))
    by_survivor = words.less(point, right)
    inside = find(around(words.add(border, point)))
    duel = words.fraction(words.subtract(length, next_right), Words(duel_bits, zero))
    by_straddler = words.less(duel, next_left)

    # Who enters a stratum as survivor, if the one before did not pass its own survivor on; at the
    # opening that is the first segment, which `next_straddler` names last.
    entrant = jnp.roll(jnp.where(by_straddler, inside, next_straddler), 1)
    passed_on = jnp.roll(by_straddler & by_survivor, 1)
    number = jnp.arange(even, dtype=jnp.int32)
    survivor = entrant[jax.lax.cummax(jnp.where(passed_on, 0, number))]

    winner = jnp.where(by_survivor, survivor, inside)
    chosen = jnp.where(by_straddler, next_straddler, winner)
    return jnp.concatenate([jnp.arange(h, dtype=jnp.int32), chosen[:m]])
