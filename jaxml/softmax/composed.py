"""Samplers that draw what is there already: the batch's own labels, those of steps before, or both
beside candidates of another kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.softmax import checks
from jaxml.softmax.candidates import Candidates, Sampler
from jaxml.types import Array, Key, PyTree


class LabelSampler(Sampler):
    """A Sampler whose draw is made of the labels that it is given.

    Any other sampler says what it expects of an id when it is given that id as a label. This one
    would draw it.

    Attributes:
        expected_count: `expected_count(state, key, ids, present, labels, num_sampled, *, unique,
            where, inputs)`, float32, the shape of `ids`; of those that are not `present` it may be
            anything finite.
    """

    expected_count: Callable[..., Array]


class Frequencies(NamedTuple):
    """What is known of how often classes occur as labels: three of the functions of a Sampler."""

    init: Callable[..., PyTree]
    update: Callable[..., PyTree]
    probability: Callable[..., Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QueueState:
    """The labels seen last.

    Attributes:
        ids: int32 [size], a ring; `num_classes` where nothing was written yet.
        place: int32 [], where the next label is written.
        frequencies: the state of what knows the classes' frequencies.
    """

    ids: Array
    place: Array
    frequencies: PyTree


def in_batch(num_classes: int, *, frequencies: Sampler | None = None) -> Sampler:
    """The labels of the batch are each other's candidates.

    Nothing is drawn: slot i holds label i (in row-major order), so its row need not be gathered again.
    A masked label leaves its slot empty and, with `unique=True`, so does one that stood in an earlier
    slot. What is random is the batch, taken to hold N labels (those not masked) drawn independently,
    class k with probability p_k. Then

        expected_count(k) = N p_k                  (unique=False)
        expected_count(k) = 1 − (1 − p_k)^N        (unique=True: the probability to be there at all)

    Frequencies p come from `init(weights)`: [num_classes] numbers, none negative, not all 0, in
    proportion to which the classes occur; None means that all are alike. Or they are learned, by
    the sampler given as `frequencies`, whose state is then this sampler's too.

    Args:
        num_classes: int in `[1, 2³¹ − 2]`.
        frequencies: a Sampler of the same classes that knows or learns how often they occur
            (`learned_unigram`, `streaming_unigram`, `unigram`); its own draws are not used.

    Returns:
        A Sampler. `num_sampled` must be the number of labels, masked ones included, and the key is
        not used. O(N log N) to find what is there already.

    Raises:
        ValueError: `num_classes` is out of range, `frequencies` is no Sampler; later `weights`
            are no frequencies, or `num_sampled` is not the number of labels.

    Example:
        >>> sampler = in_batch(4)
        >>> state = sampler.init(weights=[1, 1, 1, 1])
        >>> got = sampler.sample(state, jax.random.key(0), np.array([2, 0, 2]), 3)
        >>> got.ids.tolist(), got.expected_count.tolist()
        ([2, 0, 4], [0.578125, 0.578125, 0.0])

    References:
        Bengio & Senécal 2008, "Adaptive importance sampling"; Yi et al. 2019,
        "Sampling-bias-corrected neural modeling for large corpus item recommendations".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    return from_labels(num_classes, _frequencies(num_classes, frequencies))


def from_labels(num_classes: int, frequencies: Frequencies) -> LabelSampler:
    """`in_batch` for arguments that were checked."""

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
        checked = checks.known_labels(labels, where, num_classes)
        num_sampled = checks.integer("num_sampled", num_sampled, 1, checks.MAX_CLASSES)
        if num_sampled != checked.size:
            raise ValueError(
                f"num_sampled must be {checked.size}, the number of labels, is {num_sampled}"
            )
        return draw(state, checked, where, unique=bool(unique))

    @partial(jax.jit, static_argnames="unique")
    def draw(state: PyTree, labels: Array, where: Array | None, *, unique: bool) -> Candidates:
        present = _present(labels, where, num_classes)
        ids = jnp.where(present, labels, num_classes).reshape(-1)
        if unique:
            ids = _without_repeats(ids, num_classes)
        expected = partial(_expected, count=present.sum(), unique=unique)
        return Candidates(
            ids=ids,
            expected_count=expected(frequencies.probability(state, ids)),
            true_expected_count=expected(frequencies.probability(state, labels)),
        )

    def expected_count(
        state: PyTree,
        key: Key,
        ids: Array,
        present: Array,
        labels: Array,
        num_sampled: int,
        *,
        unique: bool,
        where: Array | None,
        inputs: Array | None,
    ) -> Array:
        count = _present(checks.int32("labels", labels, num_classes), where, num_classes).sum()
        return _expected(frequencies.probability(state, ids), count=count, unique=unique)

    sampler = LabelSampler(frequencies.init, sample, frequencies.update, frequencies.probability)
    sampler.expected_count = expected_count
    return sampler


def queue(num_classes: int, size: int, *, frequencies: Sampler | None = None) -> Sampler:
    """The last `size` labels are the candidates, across batches.

    `update` writes the labels that are not masked into a ring; until it is full the rest of the slots
    are empty. With `unique=True` an id stands in one of its slots and the others are empty. As in
    `in_batch`, what is random is what came in: with N slots filled by independent labels, class k
    with probability p_k,

        expected_count(k) = N p_k   (unique=False),      1 − (1 − p_k)^N   (unique=True).

    Args:
        num_classes: int in `[1, 2³¹ − 2]`.
        size: int, at least 1.
        frequencies: as in `in_batch`; without it p comes from `init(weights)`.

    Returns:
        A Sampler whose state is a `QueueState`; `num_sampled` must be `size`, and the key is not
        used. `update` takes a label in once, whatever its weight, which goes to `frequencies` only.

    Raises:
        ValueError: an argument is out of range; later `num_sampled` is not `size`.

    Example:
        >>> sampler = queue(9, 4)
        >>> state = sampler.update(sampler.init(), np.array([5, 7, 5]))
        >>> sampler.sample(state, jax.random.key(0), np.array([0]), 4, unique=False).ids.tolist()
        [5, 7, 5, 9]

    References:
        Wang et al. 2020, "Cross-batch negative sampling for training two-tower recommenders".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    size = checks.integer("size", size, 1, checks.MAX_CLASSES)
    known = _frequencies(num_classes, frequencies)

    def init(weights: Any = None) -> QueueState:
        return QueueState(
            ids=jnp.full(size, num_classes, jnp.int32),
            place=jnp.zeros((), jnp.int32),
            frequencies=known.init(weights),
        )

    def sample(
        state: QueueState,
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
        if num_sampled != size:
            raise ValueError(f"num_sampled must be {size}, the size of the queue, is {num_sampled}")
        return draw(state, labels, unique=bool(unique))

    @partial(jax.jit, static_argnames="unique")
    def draw(state: QueueState, labels: Array, *, unique: bool) -> Candidates:
        ids = _without_repeats(state.ids, num_classes) if unique else state.ids
        filled = (state.ids < num_classes).sum()
        expected = partial(_expected, count=filled, unique=unique)
        return Candidates(
            ids=ids,
            expected_count=expected(known.probability(state.frequencies, ids)),
            true_expected_count=expected(known.probability(state.frequencies, labels)),
        )

    def update(
        state: QueueState, labels: Array, *, where: Array | None = None, weights: Any = None
    ) -> QueueState:
        checked = checks.known_labels(labels, where, num_classes)
        present = _present(checked, where, num_classes).reshape(-1)
        number = jnp.cumsum(present, dtype=jnp.int32)
        count = number[-1] if number.size else jnp.zeros((), jnp.int32)
        # Of more labels than there are slots only the last are written: no slot twice.
        kept = present & (number > count - size)
        slot = (state.place + (number - 1) % size) % size
        return QueueState(
            ids=state.ids.at[jnp.where(kept, slot, size)].set(checked.reshape(-1), mode="drop"),
            place=(state.place + count % size) % size,
            frequencies=known.update(state.frequencies, labels, where=where, weights=weights),
        )

    def probability(state: QueueState, ids: Array) -> Array:
        return known.probability(state.frequencies, ids)

    return Sampler(init, sample, update, probability)


def mixed(samplers: Sequence[Sampler], num_sampled_each: Sequence[int]) -> Sampler:
    """The candidates of several samplers side by side.

        expected_count(k) = Σ_parts expected_count_part(k)

    for every slot, whichever part filled it, and for the true classes. A class may be drawn by several
    parts: it then fills several slots, its count is the mean number of them, and it may exceed 1. With
    these counts a sum over the slots estimates the sum over all classes without bias. (A part's own
    count would not do: of a class that two parts can draw it would count both.)

    Args:
        samplers: at least one, all of the same classes.
        num_sampled_each: for each of them the number of slots, at least 1.

    Returns:
        A Sampler. Its state is the tuple of the parts' states, each part has its own key, and
        `unique` holds within a part. `init(weights)` and `update(…, weights=…)` hand `weights` to
        all parts, or, if it is a tuple with an entry for each, to each its own. `probability` is
        that of a slot picked at random, Σ num_sampled_part p_part / Σ num_sampled_part. If a part
        draws for each example, [B, S], so does the mixture.

    Raises:
        ValueError: there is no sampler, or something else in its place; not as many numbers as
            samplers, or one below 1; later `num_sampled` is not their sum.

    Example:
        >>> from jaxml.softmax.candidates import uniform
        >>> sampler = mixed([in_batch(100), uniform(100)], [1, 7])
        >>> state, key = sampler.init(), jax.random.key(0)
        >>> sampler.sample(state, key, np.array([3]), 8, unique=False).true_expected_count
        Array([0.08], dtype=float32)

    References:
        Yang et al. 2020, "Mixed negative sampling for learning two-tower neural networks in
        recommendations".
    """
    samplers = _samplers(samplers)
    if np.ndim(num_sampled_each) != 1:
        raise ValueError(f"num_sampled_each must be a list of integers, is {num_sampled_each!r}")
    sizes = tuple(num_sampled_each)
    if len(sizes) != len(samplers):
        raise ValueError(
            f"num_sampled_each must have an entry for each of {len(samplers)} samplers, "
            f"has {len(sizes)}"
        )
    sizes = tuple(checks.integer("num_sampled_each", size, 1, checks.MAX_CLASSES) for size in sizes)
    total = sum(sizes)

    def each(weights: Any) -> tuple:
        if isinstance(weights, tuple):
            if len(weights) != len(samplers):
                raise ValueError(
                    f"weights must have an entry for each of {len(samplers)} samplers, "
                    f"has {len(weights)}"
                )
            return weights
        return (weights,) * len(samplers)

    def init(weights: Any = None) -> tuple:
        return tuple(s.init(w) for s, w in zip(samplers, each(weights), strict=True))

    def sample(
        state: tuple,
        key: Key,
        labels: Array,
        num_sampled: int,
        *,
        unique: bool = True,
        where: Array | None = None,
        inputs: Array | None = None,
    ) -> Candidates:
        _check_total(num_sampled)
        drawn = [
            part.sample(own, k, labels, size, unique=unique, where=where, inputs=inputs)
            for part, own, k, size in zip(samplers, state, split(key), sizes, strict=True)
        ]
        # Slots that all examples share stand beside those that they do not.
        batch = max((c.ids.shape[:-1] for c in drawn), key=len)
        ids, own_count = (
            jnp.concatenate([jnp.broadcast_to(a, (*batch, a.shape[-1])) for a in column], -1)
            for column in ([c.ids for c in drawn], [c.expected_count for c in drawn])
        )
        present = own_count > 0
        options: dict[str, Any] = {"unique": unique, "where": where, "inputs": inputs}
        expected = expected_count(state, key, ids, present, labels, num_sampled, **options)
        return Candidates(
            ids=ids,
            expected_count=jnp.where(present, expected, 0),
            true_expected_count=sum(
                (c.true_expected_count for c in drawn), start=jnp.zeros(np.shape(labels))
            ),
        )

    def expected_count(
        state: tuple,
        key: Key,
        ids: Array,
        present: Array,
        labels: Array,
        num_sampled: int,
        *,
        unique: bool,
        where: Array | None,
        inputs: Array | None,
    ) -> Array:
        _check_total(num_sampled)
        count = jnp.zeros(ids.shape)
        for part, own, k, size in zip(samplers, state, split(key), sizes, strict=True):
            if isinstance(part, LabelSampler):
                count += part.expected_count(
                    own, k, ids, present, labels, size, unique=unique, where=where, inputs=inputs
                )
            else:
                # What a part expects of an id it says when the id is a label. That it draws again
                # costs nothing once compiled: nobody looks at the draw.
                count += part.sample(
                    own, k, ids, size, unique=unique, where=present, inputs=inputs
                ).true_expected_count
        return count

    def _check_total(num_sampled: int) -> None:
        if checks.integer("num_sampled", num_sampled, 1, checks.MAX_CLASSES) != total:
            raise ValueError(
                f"num_sampled must be {total}, the sum of num_sampled_each, is {num_sampled}"
            )

    def split(key: Key) -> list[Key]:
        return list(jax.random.split(key, len(samplers)))

    def update(
        state: tuple, labels: Array, *, where: Array | None = None, weights: Any = None
    ) -> tuple:
        return tuple(
            part.update(own, labels, where=where, weights=own_weights)
            for part, own, own_weights in zip(samplers, state, each(weights), strict=True)
        )

    def probability(state: tuple, ids: Array) -> Array:
        shares = (
            part.probability(own, ids) * (size / total)
            for part, own, size in zip(samplers, state, sizes, strict=True)
        )
        return sum(shares, start=jnp.zeros(np.shape(ids)))

    sampler = LabelSampler(init, sample, update, probability)
    sampler.expected_count = expected_count
    return sampler


def _samplers(samplers: Any) -> tuple[Sampler, ...]:
    # A Sampler is itself a tuple, of functions.
    if isinstance(samplers, Sampler) or not isinstance(samplers, Sequence) or not samplers:
        raise ValueError(f"samplers must be a list of at least one Sampler, is {samplers!r}")
    for i, sampler in enumerate(samplers):
        if not isinstance(sampler, Sampler):
            raise ValueError(f"samplers[{i}] must be a Sampler, is {sampler!r}")
    return tuple(samplers)


def _frequencies(num_classes: int, sampler: Sampler | None) -> Frequencies:
    if sampler is None:
        return _given(num_classes)
    if not isinstance(sampler, Sampler):
        raise ValueError(f"frequencies must be a Sampler or None, is {sampler!r}")
    return Frequencies(sampler.init, sampler.update, sampler.probability)


def _given(num_classes: int) -> Frequencies:
    """Frequencies that `init` is told; the state is float32 [num_classes], or [1] if all are alike."""

    def init(weights: Any = None) -> Array:
        if weights is None:
            return jnp.full(1, 1 / num_classes, jnp.float32)
        if np.shape(weights) != (num_classes,):
            raise ValueError(
                f"weights must be the classes' frequencies, [{num_classes}], "
                f"has shape {list(np.shape(weights))}"
            )
        if isinstance(weights, jax.core.Tracer):
            return weights.astype(jnp.float32) / weights.astype(jnp.float32).sum()
        values = np.asarray(weights, np.float64)
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if bad.size:
            raise ValueError(
                f"weights must be finite and at least 0; weights[{bad[0]}] is {values[bad[0]]}"
            )
        if not values.any():
            raise ValueError("weights must have a positive entry; all are 0")
        values = values / values.max()
        return jnp.asarray(values / values.sum(), jnp.float32)

    def update(state: Array, labels: Array, *, where: Any = None, weights: Any = None) -> Array:
        checks.known_labels(labels, where, num_classes)
        return state

    def probability(state: Array, ids: Array) -> Array:
        ids = checks.int32("ids", ids, num_classes)
        inside = (ids >= 0) & (ids < num_classes)
        return jnp.where(inside, jnp.take(state, ids, mode="clip"), 0)

    return Frequencies(init, update, probability)


def _present(labels: Array, where: Array | None, num_classes: int) -> Array:
    inside = (labels >= 0) & (labels < num_classes)
    return inside if where is None else inside & jnp.asarray(where, bool)


def _without_repeats(ids: Array, num_classes: int) -> Array:
    """The ids [K], each in its first slot only; `num_classes` in the others."""
    order = jnp.argsort(ids, stable=True)
    ordered = ids[order]
    first = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
    return jnp.where(jnp.zeros_like(first).at[order].set(first), ids, num_classes)


def _expected(p: Array, *, count: Array, unique: bool) -> Array:
    """How often a class of this frequency is to be expected among `count` labels."""
    count = count.astype(jnp.float32)
    if not unique:
        return count * p
    # Where p is 1 and count 0 the product would be NaN.
    never = jnp.log1p(-jnp.clip(p, 0, 1 - 2.0**-24)) * count
    return jnp.where((p >= 1) & (count > 0), 1.0, -jnp.expm1(never))
