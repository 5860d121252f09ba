"""Samplers that learn how often classes occur from the labels of each batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks
from jaxml.softmax.drawing import fenwick, uint64
from jaxml.softmax.drawing.fenwick import Line
from jaxml.softmax.drawing.pivotal import pivotal_of_line, strata_of
from jaxml.softmax.drawing.uint64 import UInt64
from jaxml.softmax.logits import MAX_CLASSES
from jaxml.softmax.samplers import Request, Sampler, at_most, make_sampler
from jaxml.types import Array, Key, PyTree

# A count of 1 is many units: samples of distinct classes cut the line into strata of whole units, and the
# shortest segment is one count long.
_COUNT = 2**20
# With decay a count of 1 grows from the first to 2 ** _OCTAVES times as much; then everything is divided.
_SMALLEST_COUNT, _OCTAVES = 2**16, 8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LearnedState:
    """Counts of the labels seen, 8 bytes a class.

    Attributes:
        tree: UInt64 of [num_classes]; see `fenwick.Line`.
        unit: uint32 []; the length of a count of 1.
        phase: UInt64 of []; how far the unit has grown since the last division, of 2⁶⁴.
    """

    tree: UInt64
    unit: Array
    phase: UInt64


def learned_unigram(num_classes: int, *, decay: float | None = None) -> Sampler:
    """Returns a sampler that draws classes as often as they were seen.

    P(k) = (1 + n_k) / (num_classes + Σ n), where n_k is how often k was a label. No class has probability
    0. With `decay` each update first lowers the old counts:

        n_k ← decay · n_k + (occurrences of k in the batch).

    `update` takes integer `weights` of the labels' shape, as which a label counts. Masked labels do not
    count, and an update without labels changes nothing, not even by decay.

    Args:
        num_classes: int in `[1, 2³¹ − 2]`.
        decay: in (0, 1]; None or 1 forgets nothing. About the last 1 / (1 − decay) updates count.

    Returns:
        A Sampler whose state is a `LearnedState`. Counts are a Fenwick tree and never need a refresh: an
        update of K labels takes O(K log num_classes), n independent draws O(n log num_classes), n unique
        ones O(n (log n + log num_classes)). With `decay` all counts are divided by 2⁸ once every
        5.5 / (1 − decay) updates, in O(num_classes).

    Numerical behaviour:
        Counts are integers in units of 2⁻²⁰, exact up to 2⁴² labels in all. With `decay` each count is off
        by 2⁻¹⁶ at most, after any number of updates, and the counts may sum to 2³⁸. Inclusion
        probabilities have a relative error of at most 2⁻¹⁶.

    Example:
        >>> sampler = learned_unigram(3)
        >>> state = sampler.update(sampler.init(), np.array([2, 2, 0, 2, 2]))
        >>> sampler.probability(state, np.arange(3)).tolist()
        [0.25, 0.125, 0.625]

    References:
        `tf.random.learned_unigram_candidate_sampler` has the same probabilities, without decay.
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
    octaves = (
        0.0 if decay is None else -math.log2(checks.number("decay", decay, above=0, at_most=1))
    )
    # A phase of 2⁶⁴ is the end of the growth, at which everything is divided.
    divisions, step = divmod(round(octaves / _OCTAVES * 2**64), 2**64)

    def init(weights: Any) -> LearnedState:
        return LearnedState(
            tree=fenwick.empty(num_classes),
            unit=jnp.asarray(_SMALLEST_COUNT if octaves else _COUNT, jnp.uint32),
            phase=uint64.constant(0),
        )

    @jax.jit
    def learn(state: LearnedState, ids: Array, amounts: Array) -> LearnedState:
        if octaves:
            state = forget(state, jnp.any(amounts > 0))
        tree = fenwick.add(state.tree, ids, uint64.multiply(amounts, state.unit))
        return LearnedState(tree, state.unit, state.phase)

    def forget(state: LearnedState, any_label: Array) -> LearnedState:
        # Old counts keep their length while a count of 1 becomes longer: that makes them worth less.
        phase = uint64.add(state.phase, uint64.constant(step))
        times = divisions + uint64.less(phase, state.phase).astype(jnp.int32)
        # A loop of no rounds leaves the tree in place; a branch would copy it.
        tree = jax.lax.fori_loop(
            0,
            jnp.where(any_label, times, 0),
            lambda _, tree: fenwick.shift_right(tree, _OCTAVES),
            state.tree,
        )
        along = phase.high.astype(jnp.float32) * (_OCTAVES / 2.0**32)
        unit = jnp.round(_SMALLEST_COUNT * jnp.exp2(along)).astype(jnp.uint32)
        return LearnedState(
            tree=tree,
            unit=jnp.where(any_label, unit, state.unit),
            phase=uint64.choose(any_label, phase, state.phase),
        )

    def line(state: LearnedState) -> Line:
        return Line(state.tree, UInt64(jnp.zeros_like(state.unit), state.unit))

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

    The result equals that of going through the labels one by one: a class that occurs several times in a
    batch has as many gaps. So the mean gap is 1 / p_k for labels drawn independently, for any batch size.

    Two corrections concern the start and the noise. α is the larger of `rate` and 1 / (number of the
    occurrence): the first gaps are averaged evenly, and B needs no initial value. And 1 / B is too large on
    average, most of all for rare classes; from the mean of r gaps

        p̂_k = (r − 1) / (r B_k − 1)        (0 for r = 1; 1 / B_k for many gaps)

    is unbiased (Haldane). r stops at 2 / rate − 1, the number of gaps that a moving average is worth. After
    t labels, with C = num_classes, classes are drawn with

        P(k) ∝ p̂_k + 1 / t,   that is about (t p̂_k + 1) / (t + C).

    Args:
        num_classes: int in `[1, 2³¹ − 2]`.
        rate: α, in [1e-6, 1]; about the last 1 / rate occurrences of a class count.

    Returns:
        A Sampler whose state is a `StreamingState`. An update of K labels takes O(K log num_classes), a
        draw as long as that of `learned_unigram`. `update` takes integer `weights`: a label of weight w
        stands for w in a row. It can be the `frequencies` of an `in_batch` or a `queue`.

    Numerical behaviour:
        Positions are 64-bit integers, gaps float32. In the sum of frequencies each is rounded to 2⁻³⁸ for
        10⁷ classes.

    Example:
        >>> sampler = streaming_unigram(5)
        >>> state = sampler.update(sampler.init(), np.tile([3, 1, 3, 2], 2500))
        >>> [round(p, 2) for p in sampler.probability(state, np.arange(5)).tolist()]
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
    def learn(state: StreamingState, ids: Array, amounts: Array) -> StreamingState:
        if not ids.size:
            return state
        ids = jnp.where(amounts > 0, ids, num_classes)
        after = _observe(state, ids, amounts, rate)
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
    learn: Callable[[PyTree, Array, Array], PyTree],
    line: Callable[[PyTree], Line],
) -> Sampler:
    """Returns the sampler of classes on a line that the state defines.

    Args:
        num_classes: bound of the ids.
        init: `init(weights) -> state`.
        learn: `learn(state, ids [K], amounts uint32 [K]) -> state`; an amount of 0 is no label.
        line: `line(state)`, the classes side by side.
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

    def update(state: PyTree, labels: Array, *, where: Any, weights: Any) -> PyTree:
        return learn(state, *_occurrences(labels, where, weights, num_classes))

    return make_sampler(
        num_classes,
        init=init,
        draw=draw,
        count=count,
        check=at_most(num_classes),
        prepare=prepare,
        update=update,
    )


def _observe(state: StreamingState, ids: Array, amounts: Array, rate: float) -> StreamingState:
    """The state after labels in the order of the stream; `tree` is left as it was.

    Args:
        state: before.
        ids: int32 [K]; num_classes where there is no label.
        amounts: uint32 [K]; how often each is repeated in a row.
        rate: α.
    """
    zeros = jnp.zeros_like(amounts)
    through = uint64.add(fenwick.cumulative(UInt64(zeros, amounts)), state.position)
    position = UInt64(through.high[-1], through.low[-1])
    order = jnp.argsort(ids, stable=True)
    ids, amounts, through = ids[order], amounts[order], fenwick.take(through, order)
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
    here = uint64.subtract(
        through, uint64.subtract(UInt64(zeros, amounts), UInt64(zeros, zeros + 1))
    )
    length = fenwick.to_float(uint64.subtract(here, previous))

    # The number of gaps in the mean before this one.
    number = amounts.astype(jnp.float32)
    before = jnp.cumsum(number) - number
    start = jax.lax.cummax(jnp.where(first, jnp.arange(ids.shape[0], dtype=jnp.int32), 0))
    so_far = old_seen + before - before[start]

    # The first repetition has the gap; the others have gaps of 1 and move the mean towards 1: by (1 − 1/j)
    # each while gaps are averaged evenly, by (1 − α) each from then on.
    weight = jnp.maximum(rate, 1 / (so_far + 1))
    evenly = math.floor(1 / rate)
    after = so_far + number
    even = jnp.maximum(jnp.minimum(after, evenly), so_far + 1)
    moving = jnp.maximum(after - jnp.maximum(so_far + 1, evenly), 0)
    nearer = (so_far + 1) / even * jnp.power(1 - rate, moving)

    # Each label maps the mean B to slope · B + offset. The first of a class starts from its old mean.
    slope, offset = (1 - weight) * nearer, 1 + (weight * length - 1) * nearer
    offset = jnp.where(first, slope * old_gap + offset, offset)
    slope = jnp.where(first, 0.0, slope)
    _, mean = jax.lax.associative_scan(
        lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (slope, offset)
    )

    at = jnp.where(final, ids, state.gap.shape[0])
    worth = jnp.minimum(after, round(2 / rate) - 1).astype(jnp.int32)
    # Adding the change, and not setting the new number, orders the write after the read.
    change = (new - old for new, old in zip(through, old_last, strict=True))
    last = UInt64(
        *(w.at[at].add(by, mode="drop") for w, by in zip(state.last, change, strict=True))
    )
    return StreamingState(
        gap=state.gap.at[at].set(mean, mode="drop"),
        last=last,
        seen=state.seen.at[at].set(worth, mode="drop"),
        position=position,
        tree=state.tree,
    )


def _occurrences(ids: Array, where: Any, weights: Any, num_classes: int) -> tuple[Array, Array]:
    """Labels as int32 [K], and how often each counts as uint32 [K]; 0 for those left out."""
    present = (ids >= 0) & (ids < num_classes)
    if where is not None:
        present &= jnp.asarray(where, bool)
    amounts = jnp.ones(ids.shape, jnp.uint32)
    if weights is not None:
        if np.shape(weights) != ids.shape:
            raise ValueError(
                f"weights must have the labels' shape {ids.shape}, got {np.shape(weights)}"
            )
        weights = weights if isinstance(weights, jax.Array) else np.asarray(weights)
        if not jnp.issubdtype(weights.dtype, jnp.integer):
            raise ValueError(f"weights must be integers, got dtype {weights.dtype}")
        if not isinstance(weights, jax.core.Tracer):
            bad = np.asarray(weights)[(np.asarray(weights) < 0) | (np.asarray(weights) >= 2**32)]
            if bad.size:
                raise ValueError(f"weights must be in [0, 2**32), got {bad[0]}")
        present &= weights > 0
        amounts = jnp.asarray(weights).astype(jnp.uint32)
    return ids.reshape(-1), jnp.where(present, amounts, 0).reshape(-1)


def _to_uint64(number: Array) -> UInt64:
    """A float32 in [0, 2⁶⁴) as an integer, rounded down."""
    high = jnp.floor(number * 2.0**-32)
    return UInt64(high.astype(jnp.uint32), (number - high * 2.0**32).astype(jnp.uint32))
