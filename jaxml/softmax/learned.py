"""Samplers that learn how often classes occur from the labels that go by."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.softmax import checks, sums, words
from jaxml.softmax.candidates import Candidates, Sampler
from jaxml.softmax.composed import Frequencies, from_labels
from jaxml.softmax.pivotal import pivotal_of_sums
from jaxml.softmax.sums import Sums
from jaxml.softmax.words import Words
from jaxml.types import Array, Key, PyTree

# A count of 1 is many ticks, because samples of distinct classes cut the line into strata of whole
# ticks, and the shortest stratum is one count long.
_UNIT = 2**20
# With decay it grows from the first to 2 ** _OCTAVES times as much; then everything is divided.
_LEAST_UNIT, _OCTAVES = 2**16, 8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LearnedState:
    """Counts of the labels seen, 8 bytes a class.

    Attributes:
        tree: Words of [num_classes]; their running sums in ticks, see `sums.Sums`.
        unit: uint32 []; a count of 1, in ticks.
        phase: Words of []; the unit's place between two divisions, 2⁶⁴ being the whole way.
    """

    tree: Words
    unit: Array
    phase: Words


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StreamingState:
    """Mean gaps between occurrences, for M buckets in each of H tables.

    Attributes:
        gap: float32 [H, M]; the mean gap, in labels.
        last: Words of [H, M]; the position of the last occurrence.
        seen: int32 [H, M]; how many gaps the mean is worth.
        position: Words of []; how many labels went by.
        tree: Words of [num_classes], the running sums of the frequencies; of [0] if hashed.
    """

    gap: Array
    last: Words
    seen: Array
    position: Words
    tree: Words


def learned_unigram(num_classes: int, *, decay: float | None = None) -> Sampler:
    """Classes are drawn as often as they were seen, by counts that are kept up to date.

    P(k) = (1 + n_k) / (num_classes + Σ n), where n_k is how often k was a label. Everything starts at
    1, so nothing has probability 0. With `decay` each update first makes old counts worth less,

        n_k ← decay · n_k + (occurrences of k in the batch),

    and the 1 stays. A label occurs as often as it stands in the batch, times its weight: `update`
    takes integer `weights` of the labels' shape. Masked labels do not count, and an update without
    any label left changes nothing at all, not even by decay. `init` takes no notice of `weights`.

    Args:
        num_classes: int in `[1, 2³¹ − 2]`.
        decay: in (0, 1]; None or 1 forgets nothing. The last 1 / (1 − decay) updates are what
            counts.

    Returns:
        A Sampler whose state is a `LearnedState`. Always current: counts are kept as a Fenwick tree,
        nothing is refreshed. An update of K labels takes O(K log num_classes), n independent draws
        O(n log num_classes), n unique ones as much
        and O(n log n). Only with `decay` is there
        anything else: all counts are divided by 2⁸ when the unit has grown by that much, which
        takes O(num_classes) every 5.5 / (1 − decay) updates.

    Numerical behaviour:
        Counts are integers, in units of 2²⁰ ticks: right up to 2⁴² labels in all. With `decay` the
        unit is between 2¹⁶ and 2²⁴ ticks and each count off by 2⁻¹⁶ at most, after any number of
        updates; all that is not forgotten may sum to 2³⁸. Inclusion probabilities are right to
        within 2⁻¹⁶ of themselves.

    Raises:
        ValueError: `num_classes` or `decay` is out of range; later as for every Sampler, and for
            weights that are not integers, negative, or not of the labels' shape.

    Example:
        >>> sampler = learned_unigram(3)
        >>> state = sampler.update(sampler.init(), np.array([2, 2, 0, 2, 2]))
        >>> sampler.probability(state, np.arange(3)).tolist()
        [0.25, 0.125, 0.625]

    References:
        `tf.random.learned_unigram_candidate_sampler` has the same probabilities, without decay.
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    octaves = 0.0 if decay is None else -math.log2(_fraction("decay", decay))
    # 2⁶⁴ is a whole turn, at the end of which everything is divided.
    turns, step = divmod(round(octaves / _OCTAVES * 2**64), 2**64)

    def init(weights: Any = None) -> LearnedState:
        return LearnedState(
            tree=sums.empty(num_classes),
            unit=jnp.asarray(_LEAST_UNIT if octaves else _UNIT, jnp.uint32),
            phase=words.constant(0),
        )

    def line(state: LearnedState) -> Sums:
        return Sums(state.tree, Words(jnp.zeros_like(state.unit), state.unit))

    def update(
        state: LearnedState, labels: Array, *, where: Array | None = None, weights: Any = None
    ) -> LearnedState:
        ids, amounts = _occurrences(labels, where, weights, num_classes)
        return learn(state, ids, amounts)

    @jax.jit
    def learn(state: LearnedState, ids: Array, amounts: Array) -> LearnedState:
        if octaves:
            state = forget(state, jnp.any(amounts > 0))
        tree = sums.add(state.tree, ids, words.multiply(amounts, state.unit))
        return LearnedState(tree, state.unit, state.phase)

    def forget(state: LearnedState, any_label: Array) -> LearnedState:
        # What was seen keeps its ticks; that a count of 1 is more of them now makes it worth less.
        phase = words.add(state.phase, words.constant(step))
        times = turns + words.less(phase, state.phase).astype(jnp.int32)
        # A loop of no rounds leaves the tree where it is; a branch would copy it.
        tree = jax.lax.fori_loop(
            0,
            jnp.where(any_label, times, 0),
            lambda _, tree: sums.shift_right(tree, _OCTAVES),
            state.tree,
        )
        along = phase.high.astype(jnp.float32) * (_OCTAVES / 2.0**32)
        unit = jnp.round(_LEAST_UNIT * jnp.exp2(along)).astype(jnp.uint32)
        return LearnedState(
            tree=tree,
            unit=jnp.where(any_label, unit, state.unit),
            phase=words.choose(any_label, phase, state.phase),
        )

    return _sampler(num_classes, init, update, line)


def streaming_unigram(
    num_classes: int,
    *,
    rate: float = 0.01,
    num_buckets: int | None = None,
    num_hashes: int = 4,
) -> Sampler:
    """Frequencies from the mean gap between occurrences, which follow a stream that drifts.

    The labels that are not masked are numbered as they go by, batch after batch and in row-major
    order within one. When class k occurs at position t, having occurred at A_k before,

        B_k ← (1 − α) B_k + α (t − A_k),      A_k ← t,      p_k ≈ 1 / B_k.

    A class that occurs several times in a batch has as many gaps, the short ones among them: the result
    is that of going through the labels one by one. So the mean gap is 1 / p_k for labels drawn
    independently, whatever the size of the batches. (Counting batches for positions, and a class
    once in each, measures how often it is in a batch at all, and every label counted against the
    same A_k is a gap of 0.)

    Two things are done about the start and about noise. α is `rate` or 1 / (number of the
    occurrence), whichever is larger: the first gaps are averaged evenly, and B needs no initial
    value. And 1 / B is too large on average, most so for what was seen a few times; from the mean of
    r gaps

        p̂_k = (r − 1) / (r B_k − 1)        (0 for r = 1; 1 / B_k for many gaps)

    is without bias (Haldane). r stops at 2 / rate − 1, the number of gaps that a moving average is
    worth. What was not seen is kept possible like in `learned_unigram`: after t labels, with
    C = num_classes,

        P(k) ∝ p̂_k + 1 / t,   that is about (t p̂_k + 1) / (t + C).

    **Exact or hashed.** Without `num_buckets` each class has its own mean gap, and candidates are drawn
    from P as by every other sampler, any number of them. With `num_buckets` the state has that size and
    not that of the vocabulary: `num_hashes` hash functions each give a class a bucket in their own table.
    A bucket shared with others has shorter gaps, so the class's longest one is believed. There is no
    list of classes to draw from then: **`sample` takes the labels of the batch for candidates**, as
    `in_batch` does, with counts from these frequencies. Either kind can be the `frequencies` of an
    `in_batch` or a `queue`.

    Args:
        num_classes: int in `[1, 2³¹ − 2]`.
        rate: α, in [1e-6, 1]; about the last 1 / rate occurrences of a class count.
        num_buckets: None, or int, at least 1.
        num_hashes: int in [1, 16]; not used without `num_buckets`.

    Returns:
        A Sampler whose state is a `StreamingState` of 24 bytes a class, or 16 bytes a bucket of each
        table. An update of K labels takes O(K log num_classes) (hashed: O(num_hashes · K log K)); draws
        cost what those of `learned_unigram` do. `update` takes integer `weights`: a label of weight
        w is one that stands w times in a row. `init` takes no notice of `weights`.

    Numerical behaviour:
        Positions are 64-bit integers; gaps are float32 once they are taken. In the sum of
        frequencies each is rounded to 2⁻³⁸ for 10⁷ classes.

    Raises:
        ValueError: an argument is out of range; later as for every Sampler, and for weights that are
            not integers, negative, or not of the labels' shape.

    Example:
        >>> sampler = streaming_unigram(5, num_buckets=64)
        >>> state = sampler.update(sampler.init(), np.tile([3, 1, 3, 2], 2500))
        >>> [round(p, 2) for p in sampler.probability(state, np.arange(5)).tolist()]
        [0.0, 0.25, 0.25, 0.5, 0.0]

    References:
        Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item
        recommendations", section 4; Haldane 1945, "On a method of estimating frequencies".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    rate = _fraction("rate", rate, at_least=1e-6)
    hashed = num_buckets is not None
    if num_buckets is None:
        size, seeds = num_classes, np.zeros(1, np.uint32)
    else:
        size = checks.integer("num_buckets", num_buckets, 1, checks.MAX_CLASSES)
        tables = np.arange(1, checks.integer("num_hashes", num_hashes, 1, 16) + 1)
        seeds = (tables * 0x9E3779B9 % 2**32).astype(np.uint32)
    # All frequencies together stay below 2⁶², and so does what all have in common.
    scale = 2.0 ** (62 - num_classes.bit_length())

    def init(weights: Any = None) -> StreamingState:
        shape = (len(seeds), size)
        return StreamingState(
            gap=jnp.zeros(shape, jnp.float32),
            last=Words(jnp.zeros(shape, jnp.uint32), jnp.zeros(shape, jnp.uint32)),
            seen=jnp.zeros(shape, jnp.int32),
            position=words.constant(0),
            tree=sums.empty(0 if hashed else num_classes),
        )

    def buckets(ids: Array) -> Array:
        """[H, *ids.shape]"""
        if not hashed:
            return ids[None]
        return jax.vmap(lambda seed: _hash(ids, seed, size))(jnp.asarray(seeds))

    def estimate(state: StreamingState, ids: Array) -> Array:
        places = buckets(ids)
        table = jnp.arange(len(seeds)).reshape(-1, *[1] * ids.ndim)
        gap, seen = (a.at[table, places].get(mode="clip") for a in (state.gap, state.seen))
        number = seen.astype(jnp.float32)
        p = (number - 1) / jnp.where(seen > 1, number * gap - 1, 1.0)
        return jnp.where(seen > 1, p, 0).min(axis=0)

    def update(
        state: StreamingState, labels: Array, *, where: Array | None = None, weights: Any = None
    ) -> StreamingState:
        ids, amounts = _occurrences(labels, where, weights, num_classes)
        return learn(state, ids, amounts) if ids.size else state

    @jax.jit
    def learn(state: StreamingState, ids: Array, amounts: Array) -> StreamingState:
        amount = Words(jnp.zeros_like(amounts), amounts)
        through = words.add(sums.cumulative(amount), state.position)
        places = jnp.where(amounts > 0, buckets(ids), size)
        gap, last, seen = jax.vmap(partial(_observe, rate=rate), in_axes=(0, 0, 0, 0, None, None))(
            state.gap, state.last, state.seen, places, through, amounts
        )
        position = Words(through.high[-1], through.low[-1])
        after = StreamingState(gap, last, seen, position, state.tree)
        if hashed:
            return after
        # One of the occurrences of a class changes its frequency, by what that is short of.
        ordered = jnp.sort(jnp.where(amounts > 0, ids, num_classes))
        first = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
        zero = jnp.zeros((), jnp.uint32)
        held = sums.segments(Sums(state.tree, Words(zero, zero)), ordered).lengths
        short = words.subtract(_to_words(estimate(after, ordered) * scale), held)
        tree = sums.add(state.tree, jnp.where(first, ordered, num_classes), short)
        return StreamingState(gap, last, seen, position, tree)

    def line(state: StreamingState) -> Sums:
        labels = jnp.maximum(sums.to_float(state.position), 1)
        return Sums(state.tree, _to_words(jnp.maximum(scale / labels, 1)))

    @jax.jit
    def smoothed(state: StreamingState, ids: Array) -> Array:
        inside = (ids >= 0) & (ids < num_classes)
        labels = sums.to_float(state.position)
        p = (labels * estimate(state, ids) + 1) / (labels + num_classes)
        return jnp.where(inside, p, 0)

    def hashed_probability(state: StreamingState, ids: Array) -> Array:
        return smoothed(state, checks.int32("ids", ids, num_classes))

    if hashed:
        return from_labels(num_classes, Frequencies(init, update, hashed_probability))
    return _sampler(num_classes, init, update, line)


def _sampler(
    num_classes: int,
    init: Callable[..., PyTree],
    update: Callable[..., PyTree],
    line: Callable[[PyTree], Sums],
) -> Sampler:
    """The sampler of classes that lie on a line of the state's making, each with some length."""

    def scaled(line: Sums, ids: Array, scale: Array) -> Array:
        inside = (ids >= 0) & (ids < num_classes)
        return jnp.where(inside, sums.to_float(sums.segments(line, ids).lengths) * scale, 0)

    # Compiled even when the caller is not: outside of jit this is one program, not 300 operations.
    @partial(jax.jit, static_argnames=("num_sampled", "unique"))
    def draw(
        state: PyTree, key: Key, labels: Array, *, num_sampled: int, unique: bool
    ) -> Candidates:
        now = line(state)
        if unique:
            ids, scale = pivotal_of_sums(now, key, num_sampled)
            most = 1.0
        else:
            bits = jax.random.bits(key, (2, num_sampled), jnp.uint32)
            length = sums.total(now)
            ids = sums.find(now, words.fraction(length, Words(bits[0], bits[1])))
            scale, most = num_sampled / sums.to_float(length), math.inf
        return Candidates(
            ids=ids,
            expected_count=jnp.minimum(scaled(now, ids, scale), most),
            true_expected_count=jnp.minimum(scaled(now, labels, scale), most),
        )

    def sample(
        state: PyTree,
        key: Key,
        labels: Array,
        num_sampled: int,
        *,
        unique: bool = True,
        where: Array | None = None,
        inputs: Array | None = None,
    ) -> Candidates:
        labels = checks.known_labels(labels, where, num_classes)
        num_sampled = checks.integer("num_sampled", num_sampled, 1, checks.MAX_CLASSES)
        if unique and num_sampled > num_classes:
            raise ValueError(
                f"num_sampled must be at most {num_classes}, the number of classes with p > 0, "
                f"when unique=True; is {num_sampled}"
            )
        return draw(state, key, labels, num_sampled=num_sampled, unique=bool(unique))

    @jax.jit
    def of_one_draw(state: PyTree, ids: Array) -> Array:
        now = line(state)
        return scaled(now, ids, 1 / sums.to_float(sums.total(now)))

    def probability(state: PyTree, ids: Array) -> Array:
        return of_one_draw(state, checks.int32("ids", ids, num_classes))

    return Sampler(init, sample, update, probability)


def _observe(
    gap: Array,
    last: Words,
    seen: Array,
    places: Array,
    through: Words,
    amounts: Array,
    *,
    rate: float,
) -> tuple[Array, Words, Array]:
    """One table of mean gaps after labels at these places, in the order of the stream.

    Args:
        gap: float32 [M].
        last: Words of [M].
        seen: int32 [M].
        places: int32 [K]; M where there is no label.
        through: Words of [K]; the position of the label, of its last repetition if it is repeated.
        amounts: uint32 [K]; how often it is repeated.
        rate: α.

    Returns:
        gap, last and seen as they are after that.
    """
    size = gap.shape[0]
    order = jnp.argsort(places, stable=True)
    place, through = places[order], sums.take(through, order)
    amount = amounts[order]
    different = place[1:] != place[:-1]
    first = jnp.concatenate([jnp.ones((1,), bool), different])
    final = jnp.concatenate([different, jnp.ones((1,), bool)])
    # Read before the new numbers are written, or XLA would write to a copy.
    old_gap, old_last, old_seen = jax.lax.optimization_barrier(
        (
            jnp.take(gap, place, mode="clip"),
            sums.take(last, place),
            jnp.take(seen, place, mode="clip"),
        )
    )

    previous = words.choose(
        first, old_last, Words(jnp.roll(through.high, 1), jnp.roll(through.low, 1))
    )
    one = Words(jnp.zeros_like(amount), jnp.ones_like(amount))
    here = words.subtract(through, words.subtract(Words(one.high, amount), one))
    length = sums.to_float(words.subtract(here, previous))

    # How many gaps went into the mean before this one. It matters up to 2 / rate only.
    number = amount.astype(jnp.float32)
    before = jnp.cumsum(number) - number
    index = jnp.arange(place.shape[0], dtype=jnp.int32)
    start = jax.lax.cummax(jnp.where(first, index, 0))
    so_far = old_seen + before - before[start]

    # The first of the repetitions has the gap, the others have gaps of 1 and bring the mean nearer to
    # that: by (1 - 1/j) each while gaps are averaged evenly, by (1 - α) each from then on.
    weight = jnp.maximum(rate, 1 / (so_far + 1))
    evenly = math.floor(1 / rate)
    after = so_far + number
    even = jnp.maximum(jnp.minimum(after, evenly), so_far + 1)
    moving = jnp.maximum(after - jnp.maximum(so_far + 1, evenly), 0)
    nearer = (so_far + 1) / even * jnp.power(1 - rate, moving)

    # Each label takes the mean B to slope · B + offset. Those of one place follow upon each other: of
    # the last 2, 4, 8, … of them, each label knows what they do together.
    def double(step: Array, maps: tuple[Array, Array]) -> tuple[Array, Array]:
        slope, offset = maps
        earlier = index - (1 << step)
        inside = earlier >= start
        earlier = jnp.maximum(earlier, 0)
        return (
            jnp.where(inside, slope[earlier] * slope, slope),
            jnp.where(inside, offset[earlier] * slope + offset, offset),
        )

    maps = (1 - weight) * nearer, 1 + (weight * length - 1) * nearer
    slope, offset = jax.lax.fori_loop(0, (place.shape[0] - 1).bit_length(), double, maps)
    mean = slope * old_gap + offset

    at = jnp.where(final, place, size)
    worth = jnp.minimum(after, round(2 / rate) - 1).astype(jnp.int32)
    # What `last` is changed by, not what it is changed to: that would not wait for the old number.
    change = (new - old for new, old in zip(through, old_last, strict=True))
    return (
        gap.at[at].set(mean, mode="drop"),
        Words(*(word.at[at].add(by, mode="drop") for word, by in zip(last, change, strict=True))),
        seen.at[at].set(worth, mode="drop"),
    )


def _occurrences(labels: Any, where: Any, weights: Any, num_classes: int) -> tuple[Array, Array]:
    """The labels as int32 [K], and how often each counts as uint32 [K]; 0 for those left out."""
    ids = checks.known_labels(labels, where, num_classes)
    present = (ids >= 0) & (ids < num_classes)
    if where is not None:
        present &= jnp.asarray(where, bool)
    if weights is None:
        amounts = jnp.ones(ids.shape, jnp.uint32)
    else:
        if np.shape(weights) != ids.shape:
            raise ValueError(
                f"weights must have the shape of labels, {list(ids.shape)}, "
                f"has {list(np.shape(weights))}"
            )
        if not isinstance(weights, jax.Array):
            weights = np.asarray(weights)
        if not jnp.issubdtype(weights.dtype, jnp.integer):
            raise ValueError(f"weights must be integers, have dtype {weights.dtype}")
        if not isinstance(weights, jax.core.Tracer):
            values = np.asarray(weights)
            if values.size and not 0 <= values.min() <= values.max() < 2**32:
                bad = values.min() if values.min() < 0 else values.max()
                raise ValueError(f"weights must be in [0, 2**32), one is {bad}")
        present &= weights > 0
        amounts = jnp.asarray(weights).astype(jnp.uint32)
    return ids.reshape(-1), jnp.where(present, amounts, 0).reshape(-1)


def _fraction(name: str, value: Any, *, at_least: float = 0.0) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, jax.errors.ConcretizationTypeError) as error:
        raise ValueError(f"{name} must be a static number, is {value!r}") from error
    if not (at_least <= number <= 1 and number > 0):
        bound = f"[{at_least:g}, 1]" if at_least else "(0, 1]"
        raise ValueError(f"{name} must be in {bound}, is {number}")
    return number


def _hash(ids: Array, seed: Array, size: int) -> Array:
    """A bucket in [0, size) for each id; each seed sends them elsewhere."""
    mixed = ids.astype(jnp.uint32) + seed
    for multiplier, shift in ((0x7FEB352D, 16), (0x846CA68B, 15), (0x9E3779B1, 16)):
        mixed = (mixed ^ mixed >> shift) * np.uint32(multiplier)
    return words.multiply(mixed, jnp.uint32(size)).high.astype(jnp.int32)


def _to_words(number: Array) -> Words:
    """A float32 in [0, 2⁶⁴) as an integer, rounded down."""
    high = jnp.floor(number * 2.0**-32)
    return Words(high.astype(jnp.uint32), (number - high * 2.0**32).astype(jnp.uint32))
