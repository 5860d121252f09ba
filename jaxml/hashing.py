"""64-bit hashes of numbers and texts that are the same in every process and on every platform.

Python's `hash` of a text changes from process to process, so a model trained with it is useless after a
restart. Here only code points and wrapping 64-bit integers enter:

    text     h = mix(Σᵢ mix(cᵢ · M + i + 1) + n · M + salt)      c₁ … c_n its code points
    number   h = mix(mix(u + salt') + salt'')                    u its 64 bits

with `mix` the finaliser of SplitMix64 and M an odd constant. Numbers that are equal have equal hashes
whatever their dtype (below 2⁶³ in magnitude): 5, 5.0 and `np.int8(5)`. The text "5" is not the number 5.

References:
    Steele, Lea, Flood. "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, 2⁶⁴ divided by the golden ratio

_TEXT, _INTEGER, _FRACTION, _NEGATIVE = (np.uint64(salt << 32) for salt in (1, 2, 3, 4))
_MISSING = np.uint64(0x5851F42D4C957F2D)


# Integers wrap around on purpose; for scalars NumPy would warn.
@np.errstate(over="ignore")
def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns SplitMix64's finaliser of x, a bijection: each bit of the result depends on every bit of x.

    >>> mix(np.array([0, 1], np.uint64)).tolist()
    [0, 6238072747940578789]
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@np.errstate(over="ignore")
def hash_texts(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Returns the hash of each text, uint64 [N].

    >>> hash_texts(["UA", "AU"]).tolist()
    [15473985891023193905, 4818235786776981149]
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    ends = np.cumsum(lengths)
    position = np.arange(1, len(codes) + 1) - np.repeat(ends - lengths, lengths)
    each = mix(codes.astype(np.uint64) * MULTIPLIER + position.astype(np.uint64))
    # Differences of running sums wrap around as the sums do; `reduceat` cannot sum over nothing.
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(each, dtype=np.uint64)])
    sums = running[ends] - running[ends - lengths]
    return mix(sums + lengths.astype(np.uint64) * MULTIPLIER + _TEXT)


@np.errstate(over="ignore")
def hash_numbers(values: NDArray) -> NDArray[np.uint64]:
    """Returns the hash of each number of an array of integers, booleans or float64.

    >>> (hash_numbers(np.array([5, 7])) == hash_numbers(np.array([5.0, 7.5]))).tolist()
    [True, False]
    """
    if values.dtype.kind == "f":
        whole = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
        integers = hash_numbers(np.where(whole, values, 0).astype(np.int64))
        bits = np.ascontiguousarray(values).view(np.uint64).reshape(values.shape)
        return np.where(whole, integers, mix(mix(bits + _FRACTION)))
    salt = np.where(values < 0, _NEGATIVE, _INTEGER)
    return mix(mix(values.astype(np.uint64)) + salt)


@np.errstate(over="ignore")
def combine(hashes: Sequence[NDArray[np.uint64]], seed: int) -> NDArray[np.uint64]:
    """Returns one hash of several, in their order: h ← mix(h · M + hₖ), from mix(seed).

    Args:
        hashes: uint64 arrays of one shape, at least one.
        seed: in [0, 2⁶⁴).
    """
    combined = np.full(hashes[0].shape, mix(np.array(seed, np.uint64)))
    for each in hashes:
        combined = mix(combined * MULTIPLIER + each)
    return combined


@np.errstate(over="ignore")
def hash_rows(*arrays: NDArray) -> NDArray[np.uint64]:
    """Returns a hash of each row of numeric arrays [N, ...], taken together; uint64 [N].

    >>> hashes = hash_rows(np.array([[1, 2], [2, 1], [1, 2]]), np.array([0.0, 0.0, -0.0]))
    >>> (hashes == hashes[0]).tolist()
    [True, False, True]
    >>> len(set(hash_rows(np.array([2**60, 2**60 + 1])).tolist()))
    2
    """
    total = np.zeros(len(arrays[0]), np.uint64)
    for values in arrays:
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        each = hash_numbers(flat if flat.dtype.kind in "biu" else flat.astype(np.float64))
        place = np.arange(1, flat.shape[1] + 1, dtype=np.uint64) * MULTIPLIER
        total = mix(total * MULTIPLIER + mix(each + place).sum(1, dtype=np.uint64))
    return total


def with_missing(hashes: NDArray[np.uint64], missing: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Returns the hashes, with one hash of its own where a value is missing."""
    return np.where(missing, _MISSING, hashes)


def buckets(hashes: NDArray[np.uint64], num_buckets: int) -> NDArray[np.int32]:
    """Returns the upper halves scaled to [0, num_buckets): all buckets are equally likely."""
    upper = hashes >> np.uint64(32)
    return ((upper * np.uint64(num_buckets)) >> np.uint64(32)).astype(np.int32)
