"""Changing lines against cumulative sums of NumPy, in 64-bit integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax.drawing import fenwick
from jaxml.softmax.drawing.fenwick import Line
from jaxml.softmax.drawing.uint64 import UInt64

# One segment, a power of two, and blocks of every shape.
sizes = pytest.mark.parametrize("size", [1, 8, 100])
add, find, segments = (jax.jit(f) for f in (fenwick.add, fenwick.find, fenwick.segments))
longest = jax.jit(fenwick.longest, static_argnums=1)


def to_words(numbers):
    numbers = np.asarray(numbers, np.uint64)
    return UInt64(
        jnp.asarray((numbers >> np.uint64(32)).astype(np.uint32)),
        jnp.asarray((numbers & np.uint64(2**32 - 1)).astype(np.uint32)),
    )


def to_numbers(a):
    return (np.asarray(a.high, np.uint64) << np.uint64(32)) + np.asarray(a.low, np.uint64)


def built(size, each=3, seed=0):
    rng = np.random.default_rng(seed)
    added = rng.integers(0, 2**50, size).astype(np.uint64)
    added[rng.random(size) < 0.3] = 0
    tree = add(fenwick.empty(size), jnp.arange(size, dtype=jnp.int32), to_words(added))
    return Line(tree, to_words(each)), added + np.uint64(each)


@sizes
def test_segments_lie_end_to_end(size):
    line, lengths = built(size)
    got = segments(line, jnp.arange(size))
    np.testing.assert_array_equal(to_numbers(got.lengths), lengths)
    np.testing.assert_array_equal(to_numbers(got.starts), np.cumsum(lengths) - lengths)
    assert to_numbers(fenwick.total(line)) == lengths.sum()


@sizes
def test_a_point_is_found_in_its_segment_from_its_first_tick_to_its_last(size):
    line, lengths = built(size)
    ends = np.cumsum(lengths)
    points = np.concatenate([ends - lengths, ends - np.uint64(1)])
    assert find(line, to_words(points)).tolist() == [*range(size), *range(size)]


@sizes
def test_ids_that_occur_several_times_or_nowhere(size):
    line, lengths = built(size)
    rng = np.random.default_rng(1)
    ids = rng.integers(-2, size + 3, 40).astype(np.int32)
    ids[-1] = 2**31 - 1
    amounts = rng.integers(0, 2**40, 40).astype(np.uint64)
    inside = (ids >= 0) & (ids < size)
    np.add.at(lengths, ids[inside], amounts[inside])
    after = Line(add(line.tree, jnp.asarray(ids), to_words(amounts)), line.each)
    got = segments(after, jnp.arange(size))
    np.testing.assert_array_equal(to_numbers(got.lengths), lengths)
    np.testing.assert_array_equal(to_numbers(got.starts), np.cumsum(lengths) - lengths)


def test_what_is_taken_away_again_was_never_there():
    line, _ = built(9)
    ids, amounts = jnp.array([4, 4, 8], jnp.int32), np.array([5, 2**45, 1], np.uint64)
    more = add(line.tree, ids, to_words(amounts))
    again = add(more, ids, to_words(-amounts))
    for before, after in zip(line.tree, again, strict=True):
        np.testing.assert_array_equal(before, after)


def test_no_ids_change_nothing():
    line, _ = built(9)
    assert fenwick.add(line.tree, jnp.zeros(0, jnp.int32), to_words([])) is line.tree


@pytest.mark.parametrize("count", [1, 60])
def test_every_segment_that_may_be_certain_is_among_the_longest(count):
    line, lengths = built(100, each=2**30)
    # Steep enough for some of them to be certain, and lying apart.
    heavy = np.arange(3, 90, 9)
    more = (2.0 ** (61 - 2 * np.arange(10))).astype(np.uint64)
    line = Line(add(line.tree, jnp.asarray(heavy, jnp.int32), to_words(more)), line.each)
    lengths[heavy] += more
    got = longest(line, count)
    ids = np.asarray(got.ids)
    assert len(ids) == count
    falling = np.sort(lengths.astype(object))[::-1]
    h = next(h for h in range(count) if (count - h) * falling[h] <= falling[h:].sum())
    assert (h > 0) == (count > 1)
    np.testing.assert_array_equal(to_numbers(got.lengths)[:h], falling[:h].astype(np.uint64))
    assert set(np.flatnonzero(lengths > falling[h])) <= set(ids.tolist())
    real = ids < 100
    assert len(set(ids[real].tolist())) == real.sum()
    np.testing.assert_array_equal(to_numbers(got.lengths)[real], lengths[ids[real]])
    np.testing.assert_array_equal(to_numbers(got.lengths)[~real], 0)
    np.testing.assert_array_equal(
        to_numbers(got.starts)[real], (np.cumsum(lengths) - lengths)[ids[real]]
    )


@pytest.mark.optimized
def test_adding_is_in_place():
    size = 10**6
    tree = jax.eval_shape(lambda: fenwick.empty(size))
    ids = jax.ShapeDtypeStruct((64,), jnp.int32)
    amounts = UInt64(*[jax.ShapeDtypeStruct((64,), jnp.uint32)] * 2)
    compiled = jax.jit(fenwick.add, donate_argnums=0).lower(tree, ids, amounts).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10**5
    assert compiled.memory_analysis().alias_size_in_bytes == 8 * size
