"""Unsigned 64-bit integers as pairs of uint32. Every function is elementwise and exact modulo 2⁶⁴."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxml.types import Array


class UInt64(NamedTuple):
    """The number `high · 2³² + low`; both are uint32 of one shape."""

    high: Array
    low: Array


def constant(value: int) -> UInt64:
    """The scalar `value`, in `[0, 2⁶⁴)`."""
    return UInt64(
        jnp.asarray(value >> 32, jnp.uint32), jnp.asarray(value & (2**32 - 1), jnp.uint32)
    )


def add(a: UInt64, b: UInt64) -> UInt64:
    """`a + b`."""
    low = a.low + b.low
    return UInt64(a.high + b.high + (low < a.low).astype(jnp.uint32), low)


def subtract(a: UInt64, b: UInt64) -> UInt64:
    """`a - b`."""
    return UInt64(a.high - b.high - (a.low < b.low).astype(jnp.uint32), a.low - b.low)


def less(a: UInt64, b: UInt64) -> Array:
    """`a < b`."""
    return (a.high < b.high) | ((a.high == b.high) & (a.low < b.low))


def choose(condition: Array, a: UInt64, b: UInt64) -> UInt64:
    """`a` where the condition holds, else `b`."""
    return UInt64(jnp.where(condition, a.high, b.high), jnp.where(condition, a.low, b.low))


def multiply(a: Array, b: Array) -> UInt64:
    """The full product of two uint32 numbers, from four products of their 16-bit halves."""
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    # Each sum below is at most (2¹⁶ - 1)² + 2 (2¹⁶ - 1) = 2³² - 1.
    middle = a_low * b_high + ((a_low * b_low) >> 16)
    carry = a_high * b_low + (middle & 0xFFFF)
    return UInt64(a_high * b_high + (middle >> 16) + (carry >> 16), a * b)


def times(a: UInt64, b: Array) -> UInt64:
    """`a · b` for a uint32 `b`."""
    product = multiply(a.low, b)
    return UInt64(product.high + a.high * b, product.low)


def fraction(a: UInt64, u: UInt64) -> UInt64:
    """`floor(a · u / 2⁶⁴)`: a uniform integer in `[0, a)` if `u` is 64 random bits; 0 if `a = 0`.

    The probability of each integer differs from `1 / a` by less than 2⁻⁶⁴.
    """
    zero = jnp.zeros_like(u.low)
    lowest = multiply(a.low, u.low)
    # Neither sum overflows: (2³² - 1)² + 2³² - 1 < 2⁶⁴.
    one = add(multiply(a.low, u.high), UInt64(zero, lowest.high))
    two = add(multiply(a.high, u.low), UInt64(zero, one.low))
    carries = add(UInt64(zero, one.high), UInt64(zero, two.high))
    return add(multiply(a.high, u.high), carries)
