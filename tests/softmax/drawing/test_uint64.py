"""64-bit integers of two words against Python's integers."""

import jax.numpy as jnp
import numpy as np

from jaxml.softmax.drawing import uint64
from jaxml.softmax.drawing.uint64 import UInt64

M32, M64 = 2**32 - 1, 2**64 - 1
EDGES = [0, 1, 2, 0xFFFF, 0x10000, M32 - 1, M32, M32 + 1, 2**63, M64 - M32, M64 - 1, M64]
RANDOM = np.random.default_rng(0).integers(0, M64, (300, 2), np.uint64, endpoint=True).tolist()
# Every two edges, and numbers at random.
A, B = zip(*[(a, b) for a in EDGES for b in EDGES], *RANDOM, strict=True)


def pack(values):
    words = np.array([divmod(value, 2**32) for value in values], np.uint32)
    return UInt64(jnp.asarray(words[:, 0]), jnp.asarray(words[:, 1]))


def unpack(value):
    return [(int(h) << 32) | int(l) for h, l in zip(value.high, value.low, strict=True)]


def each(wanted):
    return [wanted(a, b) for a, b in zip(A, B, strict=True)]


def test_sums_differences_order_and_choice():
    a, b = pack(A), pack(B)
    assert unpack(uint64.add(a, b)) == each(lambda a, b: (a + b) & M64)
    assert unpack(uint64.subtract(a, b)) == each(lambda a, b: (a - b) & M64)
    assert uint64.less(a, b).tolist() == each(lambda a, b: a < b)
    assert unpack(uint64.choose(uint64.less(a, b), a, b)) == each(min)
    for value in EDGES:
        high, low = uint64.constant(value)
        assert (int(high) << 32) | int(low) == value


def test_products():
    a, b = pack(A), pack(B)
    assert unpack(uint64.multiply(a.low, b.low)) == each(lambda a, b: (a & M32) * (b & M32))
    assert unpack(uint64.times(a, b.low)) == each(lambda a, b: a * (b & M32) & M64)
    assert unpack(uint64.fraction(a, b)) == each(lambda a, b: a * b >> 64)
