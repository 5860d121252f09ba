"""Fixed lines: the classes side by side as segments, as long as they are probable.

A class is drawn by finding the segment under a random point. Points and edges are 64-bit integers, so no
segment is too thin to be hit, and `find` is the exact inverse of `edge`. Classes are ranked: 0 is the most
probable.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import meshes
from jaxml.softmax.drawing import uint64
from jaxml.softmax.drawing.uint64 import UInt64
from jaxml.types import Array


class Cdf(NamedTuple):
    """A line of fewer than 2⁶³ units, cut into segments that never grow longer.

    Attributes:
        size: number of segments.
        left_edge: `left_edge(rank) -> int`, the left edge of segment `rank` in `[0, size]`, on the host;
            `left_edge(size)` is the end of the line.
        edge: `edge(state, ranks) -> UInt64`, the same on the device, for int32 ranks of any shape.
        find: `find(state, points) -> int32 ranks`, of the segments that hold the points:
            `edge(rank) <= point < edge(rank + 1)`.
    """

    size: int
    left_edge: Callable[[int], int]
    edge: Callable[[Any, Array], UInt64]
    find: Callable[[Any, UInt64], Array]


def even(size: int) -> Cdf:
    """All segments are 2³² units long, so a point's high word is its rank."""
    return Cdf(
        size=size,
        left_edge=lambda rank: rank << 32,
        edge=lambda state, ranks: UInt64(
            ranks.astype(jnp.uint32), jnp.zeros(ranks.shape, jnp.uint32)
        ),
        find=lambda state, points: points.high.astype(jnp.int32),
    )


# Binary logarithms of 1 + j / 4096 in units of 2⁻³¹, and straight lines between them. Segments are
# then within 1.3e-4 of their true length (3e-6 below rank 8,191, where every edge is a point of
# the table), and still never grow longer.
_CELLS = 4096
_LOG2 = np.rint(2.0**31 * np.log2(1 + np.arange(_CELLS + 1) / _CELLS)).astype(np.uint32)
_MASK19, _MASK27 = 2**19 - 1, 2**27 - 1


def logarithmic(size: int) -> Cdf:
    """Segment k reaches from log2(k + 1) to log2(k + 2), at 2⁵⁸ units to the octave.

    In constant memory. The number k + 1 is read as a floating-point one: its leading bit gives the
    octave, 12 more bits a cell of the octave, the other 19 the place in the cell, along which
    units run evenly. A point is taken back the same way.
    """

    def left_edge(rank: int) -> int:
        octave = (rank + 1).bit_length() - 1
        cell, place = divmod(((rank + 1) << (31 - octave)) - 2**31, 2**19)
        start, slope = int(_LOG2[cell]), int(_LOG2[cell + 1]) - int(_LOG2[cell])
        return (octave << 58) + (start << 27) + (slope * place << 8)

    def start_and_slope(cell: Array) -> tuple[Array, Array]:
        table = jnp.asarray(_LOG2)
        start = _lookup(table, cell)
        return start, _lookup(table, cell + 1) - start

    def edge(state: Any, ranks: Array) -> UInt64:
        number = ranks.astype(jnp.uint32) + 1
        shift = jax.lax.clz(number)
        mantissa = number << shift
        cell, place = (mantissa >> 19) & (_CELLS - 1), mantissa & _MASK19
        start, slope = start_and_slope(cell)
        product = uint64.multiply(slope, place)
        corner = UInt64(((31 - shift) << 26) + (start >> 5), start << 27)
        return uint64.add(corner, UInt64(product.high << 8 | product.low >> 24, product.low << 8))

    def find(state: Any, points: UInt64) -> Array:
        octave = points.high >> 26
        fraction = ((points.high << 5) & 0x7FFFFFFF) | points.low >> 27
        # exp2 names the cell or a neighbour of it, whatever its last bits; comparing settles it.
        guess = (jnp.exp2(_float(fraction) * 2.0**-31) - 1) * _CELLS
        cell = jnp.clip(guess.astype(jnp.int32), 0, _CELLS - 1).astype(jnp.uint32)
        start, slope = start_and_slope(cell)
        cell = cell + (fraction >= start + slope) - (fraction < start)
        start, slope = start_and_slope(cell)
        # The place is (above · 2¹⁹ + below) / slope, a quotient of 19 bits: float32 misses it by
        # one at most, and the remainder, small as it is, can be told from its low word.
        above, below = fraction - start, (points.low & _MASK27) >> 8
        guess = (_float(above) * 2.0**19 + _float(below)) / _float(slope)
        place = jnp.minimum(guess.astype(jnp.int32), _MASK19).astype(jnp.uint32)
        rest = ((above << 19 | below) - place * slope).astype(jnp.int32)
        place = place + (rest >= slope.astype(jnp.int32)) - (rest < 0)
        mantissa = np.uint32(2**31) + (cell << 19) + place
        return (mantissa >> (31 - octave)).astype(jnp.int32) - 1

    return Cdf(size, left_edge, edge, find)


def table(edges: np.ndarray) -> Cdf:
    """Segment k reaches from `edges[k]` to `edges[k + 1]`; `state.edges` are the same in UInt64.

    Args:
        edges: uint64 [size + 1], increasing from 0 by steps that never increase, below 2⁶³.
    """
    size = len(edges) - 1

    def edge(state: Any, ranks: Array) -> UInt64:
        return UInt64(_lookup(state.edges.high, ranks), _lookup(state.edges.low, ranks))

    def find(state: Any, points: UInt64) -> Array:
        return search(state.edges, points)

    return Cdf(size, left_edge=lambda rank: int(edges[rank]), edge=edge, find=find)


def search(edges: UInt64, points: UInt64) -> Array:
    """The last of the edges that is not above the point, by halving.

    Args:
        edges: UInt64 of [n + 1], never falling; the first is not above any point, the last above all.
        points: UInt64 of any shape.

    Returns:
        int32 in [0, n), the shape of the points.
    """
    size = edges.low.shape[0] - 1

    def halve(step: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        rank, stride = found
        # Past the end stands the last edge, which is above every point.
        probe = jnp.minimum(rank + stride, size)
        edge = UInt64(_lookup(edges.high, probe), _lookup(edges.low, probe))
        return jnp.where(uint64.less(points, edge), rank, probe), stride >> 1

    steps = max(size - 1, 0).bit_length()
    first = jnp.zeros(points.low.shape, jnp.int32), jnp.int32(2**steps >> 1)
    return meshes.fori_loop(0, steps, halve, first)[0]


_lookup = partial(jnp.take, mode="clip")


def _float(number: Array) -> Array:
    # Below 2³¹ a signed conversion is the same, and one instruction.
    return number.astype(jnp.int32).astype(jnp.float32)
