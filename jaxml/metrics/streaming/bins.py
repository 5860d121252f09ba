"""Bins of scores, evenly spaced in logit and finer where the scores are crowded.

Bins that are evenly spaced in probability are useless for a rare class: at a base rate of 0.001 nearly all
scores lie in the first. Here there are 512 bins between one power of two and the next, of p below ½ and of
1 − p above: 0.1 to 0.2 % apart everywhere, which is 0.001 to 0.002 in logit. Logits have 512 bins a unit up
to ±32, and 512 an octave beyond, up to ±2¹⁴.

Scores that all lie within a percent of one another would share a few bins. So each bin has 128 parts, which
are counted too: not of all 42,000 bins (86 MB), but *folded*, part j of the bins b, b + 256, b + 512, … in
one counter. Where only one of those bins holds a score, as the counts of the bins show, the folded counts
are those of that bin, and it is *cut* into its parts. Where several do, the scores are spread over enough
bins. Folded counts add up like all others, so that states merge by a sum, in any order.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml.metrics.sums import Sums
from jaxml.types import Array

# The upper 9 bits of a mantissa are the step between two powers of two; the next 7 are the part.
_BITS, _PART_BITS = 9, 7
_STEPS, PARTS = 1 << _BITS, 1 << _PART_BITS
FOLD = 256  # neighbouring bins with counters of their own: half an octave
# Octaves of p below ½, from 2⁻⁶⁰ (a logit of −42) on, and of 1 − p, whose least in float32 is 2⁻²⁴.
_SMALLEST, _NEAREST, _HALF = -60, -24, -1
_LOW = (_HALF - _SMALLEST) * _STEPS + 1  # and one bin for smaller ones
_HIGH = (_HALF - _NEAREST) * _STEPS + 2  # and one for p = 1, one for p = ½
# Logits: evenly cut within ±2⁵, then by octaves up to ±2¹⁴.
_EVEN, _LARGEST = 5, 14
_FAR = (_LARGEST - _EVEN) * _STEPS + 1  # and one bin for larger ones
_NEAR = 2 * (_STEPS << _EVEN)


def _bits(values: Array) -> Array:
    """A float32 of at least 0 as an integer of the same order."""
    return jax.lax.bitcast_convert_type(values, jnp.int32)


def _step(values: Array, octave: int) -> Array:
    """Number of steps from 2^octave to a float32 of at least 0, read off its bits; below 0 for smaller."""
    return (_bits(values) >> (23 - _BITS)) - ((octave + 127) * _STEPS)


def _part(values: Array) -> Array:
    """The part of its step in which a float32 of at least 0 lies."""
    return (_bits(values) >> (23 - _BITS - _PART_BITS)) & (PARTS - 1)


def _start(step: Array, part: Array, octave: int) -> Array:
    """Bits of the float32 at which a part of a step begins; part `PARTS` is the next step's first."""
    whole = (step + (octave + 127) * _STEPS) << (23 - _BITS)
    return whole + (part << (23 - _BITS - _PART_BITS))


def _float(bits: Array) -> Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _ends(low: int, high: int) -> NDArray[np.float64]:
    """The numbers at which the steps from 2^low to 2^high begin, and 2^high."""
    octaves = np.ldexp(1.0, np.arange(low, high))[:, None]
    return np.append((octaves * (1 + np.arange(_STEPS) / _STEPS)).ravel(), 2.0**high)


def bins(scores: Array, from_logits: bool) -> Array:
    """Returns the bin of each score, int32 in [0, len(lower_ends(from_logits))), rising with the score.

    Scores are float32, probabilities in [0, 1] or any logits but NaN.
    """
    if from_logits:
        limit = 2.0**_EVEN
        far = jnp.clip(_step(jnp.abs(scores), _EVEN), 0, _FAR - 1)
        near = jnp.floor(jnp.clip(scores, -limit, limit) * _STEPS).astype(jnp.int32)
        beyond = jnp.where(scores > 0, _FAR + _NEAR + far, _FAR - 1 - far)
        return jnp.where(jnp.abs(scores) >= limit, beyond, _FAR + _NEAR // 2 + near)
    low = jnp.clip(_step(scores, _SMALLEST) + 1, 0, _LOW - 1)
    # 1 − p is exact in float32 from ½ on.
    high = jnp.clip(_step(1 - scores, _NEAREST) + 1, 0, _HIGH - 1)
    return jnp.where(scores < 0.5, low, _LOW + _HIGH - 1 - high)


def parts(scores: Array, from_logits: bool) -> Array:
    """Returns the part of its bin in which each score lies, int32 in [0, PARTS), rising with the score."""
    last = PARTS - 1
    if from_logits:
        limit = 2.0**_EVEN
        fine = jnp.clip(scores, -limit, limit) * (_STEPS * PARTS)
        near = jnp.floor(fine).astype(jnp.int32) & last
        far = _part(jnp.abs(scores))
        beyond = jnp.where(scores > 0, far, last - far)
        part = jnp.where(jnp.abs(scores) >= limit, beyond, near)
        open_ended = jnp.abs(scores) >= 2.0**_LARGEST
    else:
        part = jnp.where(scores < 0.5, _part(scores), last - _part(1 - scores))
        open_ended = scores < 2.0**_SMALLEST
    # A bin without an end has one part, the last; its other parts are empty.
    return jnp.where(open_ended, last, part)


@functools.cache
def lower_ends(from_logits: bool) -> NDArray[np.float32]:
    """Returns the lower ends [B] of the bins: a score is in bin b or above if it is at least the b-th."""
    if from_logits:
        ends = _ends(_EVEN, _LARGEST).astype(np.float32)
        near = (np.arange(_NEAR) - _NEAR // 2) / _STEPS
        # Of sizes [a, b) the negative numbers are (−b, −a]: they begin with the float above −b.
        above = np.nextafter(-ends[::-1], np.float32(0))
        return np.concatenate([[-np.inf], above, near[1:], ends]).astype(np.float32)
    low = np.append(0.0, _ends(_SMALLEST, _HALF)[:-1])
    # 1 − p in [a, b) begins with the float above 1 − b. All floats from ½ to 1 are multiples of 2⁻²⁴.
    unit = 2.0**_NEAREST
    largest = (np.ceil(_ends(_NEAREST, _HALF) / unit) - 1) * unit
    high = 1 - np.append(largest, 0.5)
    return np.concatenate([low, high[::-1]]).astype(np.float32)


def part_ends(at: Array, part: Array, from_logits: bool) -> Array:
    """Returns the lower ends of parts of bins: a score is in it or above if it is at least this.

    Args:
        at: int32, bins.
        part: int32 in [0, PARTS), of the same shape.
    """
    # They may be int64 with 64 bits enabled.
    at, part = at.astype(jnp.int32), part.astype(jnp.int32)
    if from_logits:
        near = (at - _FAR - _NEAR // 2) / _STEPS + part / (_STEPS * PARTS)
        # −32 itself is beyond.
        near = jnp.maximum(near, np.nextafter(np.float32(-(2.0**_EVEN)), np.float32(0)))
        right, left = at - _FAR - _NEAR, _FAR - 1 - at
        above = _float(_start(right, jnp.where(right == _FAR - 1, 0, part), _EVEN))
        below = -_float(_start(left, PARTS - part, _EVEN) - 1)
        below = jnp.where(left == _FAR - 1, -jnp.inf, below)
        return jnp.where(right >= 0, above, jnp.where(left >= 0, below, near)).astype(jnp.float32)
    low = jnp.where(at == 0, 0.0, _float(_start(at - 1, part, _SMALLEST)))
    step = _LOW + _HIGH - 2 - at  # of 1 − p; below 0: p = 1
    unit = 2.0**_NEAREST
    beyond = _float(_start(jnp.maximum(step, 0), PARTS - part, _NEAREST))
    largest = (jnp.ceil(beyond / unit) - 1) * unit
    high = jnp.where(step < 0, 1.0, jnp.maximum(1 - largest, 0.5))
    return jnp.where(at < _LOW, low, high)


def folded(at: Array, part: Array) -> Array:
    """Returns the counter of a part of a bin, int32 in [0, FOLD · PARTS)."""
    return (at % FOLD) * PARTS + part


def cut(whole: Sums) -> tuple[Array, Array]:
    """Returns which bins can be cut, given the counts [2, B] of all.

    Returns:
        For each remainder after division by FOLD, [FOLD], the bin (int32), and whether no other bin of that
        remainder holds a score, so that the folded counts are its own.
    """
    occupied = ((whole.high != 0) | (whole.low != 0)).any(0)
    turns = jnp.pad(occupied, (0, -occupied.size % FOLD)).reshape(-1, FOLD)
    first = turns.argmax(0).astype(jnp.int32)
    return first * FOLD + jnp.arange(FOLD), turns.sum(0) <= 1


def unfolded(whole: Sums, fine: Sums, from_logits: bool) -> tuple[Array, Sums]:
    """Returns all bins in their order, with the parts of each bin that can be cut in its place.

    Args:
        whole: [2, B], counts of bins by label.
        fine: [2, FOLD · PARTS], counts of folded parts.

    Returns:
        Lower ends [T], and counts [2, T] of labels 0 and 1.
    """
    size = whole.high.shape[-1]
    wide, alone = cut(whole)
    starts = jnp.sort(wide) + (PARTS - 1) * jnp.arange(FOLD)
    place = jnp.arange(size + FOLD * (PARTS - 1))
    turn = jnp.searchsorted(starts, place, "right") - 1
    part = jnp.where(turn < 0, 0, place - starts[turn])
    within = (turn >= 0) & (part < PARTS)
    # Each part after a cut bin's first is one place more than there are bins.
    at = place - (PARTS - 1) * jnp.maximum(turn, 0) - jnp.minimum(part, PARTS - 1)
    part = jnp.where(within, part, 0)
    known = within & alone[at % FOLD]
    # A bin that cannot be cut has all of its count in its last part.
    there = jnp.where(within, part == PARTS - 1, True)
    where = folded(at, part)
    counts = Sums(
        *(
            jnp.where(known, fine_part[:, where], jnp.where(there, whole_part[:, at], 0.0))
            for whole_part, fine_part in zip(whole, fine, strict=True)
        )
    )
    ends = jnp.asarray(lower_ends(from_logits))[at]
    return jnp.where(known, part_ends(at, part, from_logits), ends), counts
