"""Sums that float32 does not round: pairs (high, low) whose exact sum is the value.

A plain float32 counter stops at 2²⁴: 16,777,216 + 1 = 16,777,216. A pair has 48 bits, and integers below
2⁴⁷ are added exactly, in any order. The error of one float addition is itself a float, and computed by more
float additions (Knuth, The Art of Computer Programming 2, 4.2.2, theorem B; Dekker, Numerische Mathematik
18, 1971).
"""

import math
from typing import NamedTuple

import jax.numpy as jnp

from jaxml import meshes
from jaxml.types import Array

_STEPS = 128


class Sums(NamedTuple):
    """Float32 pairs.

    Attributes:
        high: the sum, rounded.
        low: the rounding error.
    """

    high: Array
    low: Array

    def value(self) -> Array:
        """The sum as float32."""
        return self.high + self.low


def zeros(shape: tuple[int, ...] = ()) -> Sums:
    """Returns sums of nothing."""
    return Sums(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))


def _pair(high: Array, low: Array) -> Sums:
    """Renormalises. Infinities and NaN stay as they are, since their rounding errors would be NaN."""
    total = high + low
    rest = low - (total - high)
    whole = jnp.isfinite(high)
    return Sums(jnp.where(whole, total, high), jnp.where(whole & jnp.isfinite(total), rest, 0.0))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def add(a: Sums, b: Sums) -> Sums:
    """a + b; commutative to the bit."""
    high, error = _two_sum(a.high, b.high)
    low, rest = _two_sum(a.low, b.low)
    # Integers below 2⁴⁷ leave `rest` 0 and both additions of lows exact.
    return _pair(high, error + (low + rest))


def of_integers(counts: Array) -> Sums:
    """Exact pairs of int32 counts of at least 0."""
    # An int32 near 2³¹ would overflow when its rounded float is turned back: halves do not.
    upper, lower = counts >> 16, counts & 0xFFFF
    return add(
        Sums(upper.astype(jnp.float32) * 65536.0, jnp.zeros(counts.shape, jnp.float32)),
        Sums(lower.astype(jnp.float32), jnp.zeros(counts.shape, jnp.float32)),
    )


def product(a: Array, b: Array) -> Sums:
    """a · b without rounding, of float32 arrays."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    high = a * b

    def split(x: Array) -> tuple[Array, Array]:
        scaled = x * 4097.0  # 2¹² + 1
        upper = scaled - (scaled - x)
        return upper, x - upper

    (a1, a2), (b1, b2) = split(a), split(b)
    low = ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2
    # Beyond 2¹¹⁵ the split overflows; such numbers are only rounded.
    return Sums(high, jnp.where(jnp.isfinite(low), low, 0.0))


def minus(a: Sums, b: Sums) -> Sums:
    """a − b."""
    return add(a, Sums(-b.high, -b.low))


def total(values: Array | Sums) -> Sums:
    """Sum over the last axis, to 48 bits, of float32 [..., n]."""
    pair = values if isinstance(values, Sums) else Sums(values, jnp.zeros_like(values))
    n = pair.high.shape[-1]
    if n == 0:
        return zeros(pair.high.shape[:-1])
    while n > 1:
        # Short loops over long vectors: small programs, and nothing for a wide device to wait for.
        steps = min(n, _STEPS)
        blocks = _blocks(pair, steps)
        first, rest = (Sums(*(part[at] for part in blocks)) for at in (0, slice(1, None)))
        pair = meshes.scan(lambda a, b: (add(a, b), None), first, rest)[0]
        n = pair.high.shape[-1]
    return Sums(pair.high[..., 0], pair.low[..., 0])


def running(values: Sums) -> Sums:
    """Cumulative sums over the last axis, to 48 bits, of pairs [..., n]."""
    n = values.high.shape[-1]
    # [steps, ..., n / steps] of neighbours that lie apart: loops along blocks, then over their ends.
    steps = max(1, math.isqrt(n))
    blocks = _blocks(values, steps)
    nothing = zeros(blocks.high.shape[1:])
    inside = meshes.scan(lambda a, b: (add(a, b),) * 2, nothing, blocks)[1]
    ends = Sums(*(jnp.moveaxis(part[-1], -1, 0) for part in inside))
    before = meshes.scan(lambda a, b: (add(a, b), a), zeros(ends.high.shape[1:]), ends)[1]
    before = Sums(*(jnp.moveaxis(part, 0, -1)[None] for part in before))
    whole = add(inside, before)
    shape = (*values.high.shape[:-1], -1)
    return Sums(*(jnp.moveaxis(part, 0, -1).reshape(shape)[..., :n] for part in whole))


def _split(part: Array, steps: int) -> Array:
    """[..., n] as [..., n / steps, steps], filled up with zeros."""
    padding = [(0, 0)] * (part.ndim - 1) + [(0, -part.shape[-1] % steps)]
    return jnp.pad(part, padding).reshape(*part.shape[:-1], -1, steps)


def _blocks(pair: Sums, steps: int) -> Sums:
    """[..., n] as [steps, ..., n / steps], filled up with zeros."""
    return Sums(*(jnp.moveaxis(_split(part, steps), -1, 0) for part in pair))
