"""Samplers that learn how often classes occur from the labels of each batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxml import checks
from jaxml.softmax.drawing import fenwick, uint64
from jaxml.softmax.drawing.fenwick import Line
from jaxml.softmax.drawing.pivotal import pivotal_of_line, strata_of
from jaxml.softmax.drawing.uint64 import UInt64
from jaxml.softmax.logits import MAX_CLASSES
from jaxml.softmax.samplers import Request, Sampler, at_most, make_sampler, present_ids
from jaxml.types import Array, Key, PyTree

# A count of 1 is many units: strata are cut in whole units, and the shortest segment is one count long.
_COUNT = 2**20


def learned_unigram(num_classes: int) -> Sampler:
    """Returns a sampler that draws classes as often as they were seen.

    P(k) = (1 + n_k) / (num_classes + Σ n), where n_k is how often k was a label. No class has probability
    0. Nothing is forgotten: `streaming_unigram` follows drift.

    The state is a Fenwick tree, 8 bytes a class. An update of K labels takes O(K log num_classes), n
    independent draws O(n log num_classes), n distinct ones O(n (log n + log num_classes)). Counts are
    integers, exact up to 2⁴² labels in all. Inclusion probabilities have a relative error of at most 2⁻¹⁶.

    Example:
        >>> sampler = learned_unigram(3)
        >>> state = sampler.update(sampler.init(), jnp.array([2, 2, 0, 2, 2]))
        >>> sampler.probability(state, jnp.arange(3)).tolist()
        [0.25, 0.125, 0.625]

    References:
        `tf.random.learned_unigram_candidate_sampler` has the same probabilities.
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)

    def init(weights: Any) -> UInt64:
        return fenwick.empty(num_classes)

    @jax.jit
    def learn(tree: UInt64, ids: Array) -> UInt64:
        zeros = jnp.zeros(ids.shape, jnp.uint32)
        return fenwick.add(tree, ids, UInt64(zeros, zeros + _COUNT))

    def line(tree: UInt64) -> Line:
        return Line(tree, uint64.constant(_COUNT))

    return _learner(num_classes, init, learn, line)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StreamingState:
    """Mean gaps between occurrences, 24 bytes a class.

    Attributes:
        gap: float32 [num_classes]; the mean gap, in labels.
        last: UInt64 of [num_classes]; the position of the last occurrence.
        seen: int32 [num_classes]; the number of gaps that the mean is worth.
        position: UInt64 of []; the number of labels so far.
        tree: UInt64 of [num_classes], the frequencies; see `fenwick.Line`.
    """

    gap: Array
    last: UInt64
    seen: Array
    position: UInt64
    tree: UInt64


def streaming_unigram(num_classes: int, *, rate: float = 0.01) -> Sampler:
    """Returns a sampler that estimates frequencies from gaps between occurrences, and follows drift.

    The unmasked labels are numbered as they come, batch after batch and in row-major order within one.
    When class k occurs at position t, having occurred at A_k before,

        B_k ← (1 − α) B_k + α (t − A_k),      A_k ← t,      p_k ≈ 1 / B_k.

    A class that occurs several times in a batch has as many gaps, so the mean gap is 1 / p_k for any batch
    size. Two corrections concern the start and the noise. α is the larger of `rate` and 1 / (number of the
    occurrence): the first gaps are averaged evenly, and B needs no initial value. And 1 / B is too large on
    average, most of all for rare classes; from the mean of r gaps

        p̂_k = (r − 1) / (r B_k − 1)        (0 for r = 1; 1 / B_k for many gaps)

    is unbiased (Haldane). r stops at 2 / rate − 1, the number of gaps that a moving average is worth. After
    t labels, with C = num_classes, classes are drawn with

        P(k) ∝ p̂_k + 1 / t,   that is about (t p̂_k + 1) / (t + C).

    The state is a `StreamingState`. An update of K labels takes O(K log num_classes), a draw as long as
    that of `learned_unigram`. Both samplers can be the `frequencies` of an `in_batch` or a `queue`.
    Positions are 64-bit integers, gaps float32; the frequencies of 10⁷ classes are rounded to 2⁻³⁸.

    Args:
        num_classes: C.
        rate: α, in [1e-6, 1]; about the last 1 / rate occurrences of a class count.

    Example:
        >>> sampler = streaming_unigram(5)
        >>> state = sampler.update(sampler.init(), jnp.tile(jnp.array([3, 1, 3, 2]), 2500))
        >>> [round(p, 2) for p in sampler.probability(state, jnp.arange(5)).tolist()]
        [0.0, 0.25, 0.25, 0.5, 0.0]

    References:
        Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item
        recommendations", section 4; Haldane 1945, "On a method of estimating frequencies".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
    rate = checks.number("rate", rate, 1e-6, 1)
    # All frequencies together stay below 2⁶², and so does the length that all have in common.
    scale = 2.0 ** (62 - num_classes.bit_length())

    def init(weights: Any) -> StreamingState:
        return StreamingState(
            gap=jnp.zeros(num_classes, jnp.float32),
            last=fenwick.empty(num_classes),
            seen=jnp.zeros(num_classes, jnp.int32),
            position=uint64.constant(0),
            tree=fenwick.empty(num_classes),
        )

    def estimate(state: StreamingState, ids: Array) -> Array:
        gap, seen = (jnp.take(a, ids, mode="clip") for a in (state.gap, state.seen))
        number = seen.astype(jnp.float32)
        p = (number - 1) / jnp.where(seen > 1, number * gap - 1, 1.0)
        return jnp.where(seen > 1, p, 0)

    @jax.jit
    def learn(state: StreamingState, ids: Array) -> StreamingState:
        if not ids.size:
            return state
        after = _observe(state, ids, rate)
        # The first occurrence of a class in the batch changes its frequency.
        ordered = jnp.sort(ids)
        first = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
        zero = jnp.zeros((), jnp.uint32)
        held = fenwick.segments(Line(state.tree, UInt64(zero, zero)), ordered).lengths
        missing = uint64.subtract(_to_uint64(estimate(after, ordered) * scale), held)
        tree = fenwick.add(state.tree, jnp.where(first, ordered, num_classes), missing)
        return StreamingState(after.gap, after.last, after.seen, after.position, tree)

    def line(state: StreamingState) -> Line:
        labels = jnp.maximum(fenwick.to_float(state.position), 1)
        return Line(state.tree, _to_uint64(jnp.maximum(scale / labels, 1)))

    return _learner(num_classes, init, learn, line)


def _learner(
    num_classes: int,
    init: Callable[[Any], PyTree],
    learn: Callable[[PyTree, Array], PyTree],
    line: Callable[[PyTree], Line],
) -> Sampler:
    """Returns the sampler of classes on the line `line(state)`.

    `learn(state, ids [K]) -> state` takes int32 ids; `num_classes` is no label.
    """

    def prepare(state: PyTree, request: Request):
        now = line(state)
        return now, strata_of(now, request.num_sampled) if request.unique else None

    def draw(context, key: Key, request: Request) -> tuple[Array, None]:
        now, strata = context
        if strata is not None:
            return pivotal_of_line(now, strata, key), None
        bits = jax.random.bits(key, (2, request.num_sampled), jnp.uint32)
        points = uint64.fraction(fenwick.total(now), UInt64(bits[0], bits[1]))
        return fenwick.find(now, points), None

    def count(context, ids: Array, request: Request) -> Array:
        now, strata = context
        length = fenwick.to_float(fenwick.segments(now, ids).lengths)
        if strata is not None:
            return jnp.minimum(length * strata.scale, 1.0)
        return length * (request.num_sampled / fenwick.to_float(fenwick.total(now)))

    def update(state: PyTree, labels: Array, *, where: Any) -> PyTree:
        return learn(state, present_ids(labels, where, num_classes))

    return make_sampler(
        num_classes,
        init=init,
        draw=draw,
        count=count,
        check=at_most(num_classes),
        prepare=prepare,
        update=update,
    )


def _observe(state: StreamingState, ids: Array, rate: float) -> StreamingState:
    """The state after labels [K] in the order of the stream; `tree` is left as it was."""
    num_classes = state.gap.shape[0]
    counted = (ids < num_classes).astype(jnp.uint32)
    through = fenwick.cumulative(UInt64(jnp.zeros_like(counted), counted))
    through = uint64.add(through, state.position)
    position = UInt64(through.high[-1], through.low[-1])
    order = jnp.argsort(ids, stable=True)
    ids, through = ids[order], fenwick.take(through, order)
    different = ids[1:] != ids[:-1]
    first = jnp.pad(different, (1, 0), constant_values=True)
    final = jnp.pad(different, (0, 1), constant_values=True)
    # Read before the new numbers are written, or XLA would write to a copy.
    old_gap, old_last, old_seen = jax.lax.optimization_barrier(
        (
            jnp.take(state.gap, ids, mode="clip"),
            fenwick.take(state.last, ids),
            jnp.take(state.seen, ids, mode="clip"),
        )
    )
    previous = uint64.choose(
        first, old_last, UInt64(jnp.roll(through.high, 1), jnp.roll(through.low, 1))
    )
    length = fenwick.to_float(uint64.subtract(through, previous))

    # The number of gaps in the mean after this one.
    place = jnp.arange(ids.shape[0], dtype=jnp.int32)
    number = old_seen + place - jax.lax.cummax(jnp.where(first, place, 0)) + 1
    weight = jnp.maximum(rate, 1 / number)
    # Each label maps the mean B to slope · B + offset. The first of a class starts from its old mean.
    slope, offset = 1 - weight, weight * length
    offset = jnp.where(first, slope * old_gap + offset, offset)
    slope = jnp.where(first, 0.0, slope)
    _, mean = jax.lax.associative_scan(
        lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (slope, offset)
    )

    at = jnp.where(final, ids, num_classes)
    # Adding the change, and not setting the new number, orders the write after the read.
    change = (new - old for new, old in zip(through, old_last, strict=True))
    last = UInt64(
        *(w.at[at].add(by, mode="drop") for w, by in zip(state.last, change, strict=True))
    )
    return StreamingState(
        gap=state.gap.at[at].set(mean, mode="drop"),
        last=last,
        seen=state.seen.at[at].set(jnp.minimum(number, round(2 / rate) - 1), mode="drop"),
        position=position,
        tree=state.tree,
    )


def _to_uint64(number: Array) -> UInt64:
    """A float32 in [0, 2⁶⁴) as an integer, rounded down."""
    high = jnp.floor(number * 2.0**-32)
    return UInt64(high.astype(jnp.uint32), (number - high * 2.0**32).astype(jnp.uint32))
