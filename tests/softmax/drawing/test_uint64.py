"""64-bit integers of two words against Python's integers."""

import jax.numpy as jnp
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxml.softmax.drawing import uint64
from jaxml.softmax.drawing.uint64 import UInt64

M32, M64 = 2**32 - 1, 2**64 - 1
EDGES = [0, 1, 2, 0xFFFF, 0x10000, M32 - 1, M32, M32 + 1, 2**63, M64 - M32, M64 - 1, M64]
word = st.integers(0, M32) | st.sampled_from([value for value in EDGES if value <= M32])
pair = st.integers(0, M64) | st.sampled_from(EDGES)


def number(value):
    return (int(value.high) << 32) | int(value.low)


def pack(values):
    high = np.array([value >> 32 for value in values], np.uint32)
    return UInt64(jnp.asarray(high), jnp.asarray(np.array([v & M32 for v in values], np.uint32)))


def unpack(value):
    return [(int(h) << 32) | int(l) for h, l in zip(value.high, value.low, strict=True)]


@settings(deadline=None)
@given(pair)
@example(M64)
def test_a_constant_is_its_number(a):
    assert number(uint64.constant(a)) == a


@settings(deadline=None)
@given(pair, pair)
def test_sums_differences_and_order(a, b):
    one, two = uint64.constant(a), uint64.constant(b)
    assert number(uint64.add(one, two)) == (a + b) & M64
    assert number(uint64.subtract(one, two)) == (a - b) & M64
    assert bool(uint64.less(one, two)) == (a < b)


@settings(deadline=None)
@given(word, word)
@example(M32, M32)
def test_the_full_product_of_two_words(a, b):
    assert number(uint64.multiply(jnp.uint32(a), jnp.uint32(b))) == a * b


@settings(deadline=None)
@given(pair, word)
@example(M64, M32)
def test_the_product_with_a_word_wraps(a, b):
    assert number(uint64.times(uint64.constant(a), jnp.uint32(b))) == (a * b) & M64


@settings(deadline=None)
@given(pair, pair)
@example(M64, M64)
def test_a_fraction_is_the_high_half_of_the_product(a, u):
    assert number(uint64.fraction(uint64.constant(a), uint64.constant(u))) == (a * u) >> 64


def test_choose_takes_each_word_from_its_side():
    one, two = pack([M64, 5]), pack([3, 2**40])
    assert unpack(uint64.choose(jnp.array([True, False]), one, two)) == [M64, 2**40]
