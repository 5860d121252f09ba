"""Unsigned 64-bit integers made of two 32-bit words, for programs that have no 64-bit integers.

JAX computes in 32 bits unless it is told otherwise for the whole process, and a float32 cannot
count past 2²⁴. A position among 10⁸ classes needs about 60 bits: fewer, and some classes are never
drawn. Every function here is exact, elementwise and wraps modulo 2⁶⁴ as unsigned integers do.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxml.types import Array


class Words(NamedTuple):
    """The number `high · 2³² + low`; both are uint32 of one shape."""

    high: Array
    low: Array


def constant(value: int) -> Words:
    """The scalar `value`, in `[0, 2⁶⁴)`."""
    return Words(jnp.asarray(value >> 32, jnp.uint32), jnp.asarray(value & (2**32 - 1), jnp.uint32))


def add(a: Words, b: Words) -> Words:
    """`a + b`."""
    low = a.low + b.low
    return Words(a.high + b.high + (low < a.low).astype(jnp.uint32), low)


def subtract(a: Words, b: Words) -> Words:
    """`a - b`."""
    return Words(a.high - b.high - (a.low < b.low).astype(jnp.uint32), a.low - b.low)


def less(a: Words, b: Words) -> Array:
    """`a < b`."""
    return (a.high < b.high) | ((a.high == b.high) & (a.low < b.low))


def choose(condition: Array, a: Words, b: Words) -> Words:
    """`a` where the condition holds, else `b`."""
    return Words(jnp.where(condition, a.high, b.high), jnp.where(condition, a.low, b.low))


def multiply(a: Array, b: Array) -> Words:
    """The full product of two uint32 numbers, from four products of their 16-bit halves."""
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    # Each sum below is at most (2¹⁶ - 1)² + 2 (2¹⁶ - 1) = 2³² - 1.
    middle = a_low * b_high + ((a_low * b_low) >> 16)
    carry = a_high * b_low + (middle & 0xFFFF)
    return Words(a_high * b_high + (middle >> 16) + (carry >> 16), a * b)


def times(a: Words, b: Array) -> Words:
    """`a · b` for a uint32 `b`."""
    product = multiply(a.low, b)
    return Words(product.high + a.high * b, product.low)


def fraction(a: Words, u: Words) -> Words:
    """`floor(a · u / 2⁶⁴)`: a uniform integer in `[0, a)` when `u` is 64 random bits.

    Each is then met with a probability that differs from `1 / a` by less than 2⁻⁶⁴. For `a = 0`
    the result is 0.
    """
    zero = jnp.zeros_like(u.low)
    lowest = multiply(a.low, u.low)
    # Neither sum overflows: (2³² - 1)² + 2³² - 1 < 2⁶⁴.
    one = add(multiply(a.low, u.high), Words(zero, lowest.high))
    two = add(multiply(a.high, u.low), Words(zero, one.low))
    carries = add(Words(zero, one.high), Words(zero, two.high))
    return add(multiply(a.high, u.high), carries)
