"""Samplers made of labels (the batch's own, or those of earlier steps) and of other samplers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks
from jaxml.softmax.logits import MAX_CLASSES
from jaxml.softmax.samplers import (
    Request,
    Sampler,
    checked_counts,
    make_sampler,
    present_ids,
)
from jaxml.types import Array, Key, PyTree


def in_batch(num_classes: int, *, frequencies: Sampler | None = None) -> Sampler:
    """Returns a sampler for which the labels of the batch are each other's candidates.

    Slot i holds label i (in row-major order), so its row need not be gathered again. A masked label leaves
    its slot empty and so does, with `unique=True`, a label that is in an earlier slot. The counts take the
    batch for N labels (those not masked) drawn independently, class k with probability p_k:

        expected_count(k) = N p_k                  (unique=False)
        expected_count(k) = 1 − (1 − p_k)^N        (unique=True: the probability to be there at all)

    `num_sampled` must be the number of labels, masked ones included; the key is not used.

    Args:
        num_classes: bound of the ids.
        frequencies: a Sampler of the same classes that knows or learns the p (`learned_unigram`,
            `streaming_unigram`, `unigram`). Without it they come from `init(weights)`: [num_classes]
            numbers in proportion to which the classes occur, or None if all are alike.

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
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
    known = _frequencies(num_classes, frequencies)

    def check(state: PyTree, request: Request) -> Request:
        labels = request.labels
        if labels is None:
            raise ValueError("labels must be given: their number decides the counts, got None")
        if request.num_sampled != labels.size:
            raise ValueError(
                f"num_sampled must be {labels.size}, the number of labels, got {request.num_sampled}"
            )
        return request._replace(inputs=None)

    def draw(state: PyTree, key: Key, request: Request) -> tuple[Array, None]:
        ids = present_ids(request.labels, request.where, num_classes)
        return _without_repeats(ids, num_classes) if request.unique else ids, None

    def count(state: PyTree, ids: Array, request: Request) -> Array:
        present = present_ids(request.labels, request.where, num_classes) < num_classes
        return _expected(known.probability(state, ids), present.sum(), request.unique)

    return make_sampler(
        num_classes,
        init=known.init,
        draw=draw,
        count=count,
        check=check,
        fewest=0,
        update=known.update,
        probability=lambda state, ids, inputs: known.probability(state, ids),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QueueState:
    """The labels seen last.

    Attributes:
        ids: int32 [size], a ring; `num_classes` where nothing was written yet.
        place: int32 [], where the next label is written.
        frequencies: the state of the class frequencies.
    """

    ids: Array
    place: Array
    frequencies: PyTree


def queue(num_classes: int, size: int, *, frequencies: Sampler | None = None) -> Sampler:
    """Returns a sampler whose candidates are the last `size` labels, across batches.

    `update` writes the unmasked labels into a ring; until it is full the other slots are empty. With
    `unique=True` an id is in one of its slots and the others are empty. The counts are those of `in_batch`
    for N filled slots; `num_classes` and `frequencies` are as there. `num_sampled` must be `size`, at least
    1; the key is not used. The state is a `QueueState`.

    Example:
        >>> sampler = queue(9, 4)
        >>> state = sampler.update(sampler.init(), np.array([5, 7, 5]))
        >>> sampler.sample(state, jax.random.key(0), np.array([0]), 4, unique=False).ids.tolist()
        [5, 7, 5, 9]

    References:
        Wang et al. 2020, "Cross-batch negative sampling for training two-tower recommenders".
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
    size = checks.integer("size", size, 1, MAX_CLASSES)
    known = _frequencies(num_classes, frequencies)

    def init(weights: Any) -> QueueState:
        return QueueState(
            ids=jnp.full(size, num_classes, jnp.int32),
            place=jnp.zeros((), jnp.int32),
            frequencies=known.init(weights),
        )

    def check(state: PyTree, request: Request) -> Request:
        if request.num_sampled != size:
            raise ValueError(
                f"num_sampled must be {size}, the size of the queue, got {request.num_sampled}"
            )
        return Request(size, request.unique)

    def draw(state: QueueState, key: Key, request: Request) -> tuple[Array, None]:
        return _without_repeats(state.ids, num_classes) if request.unique else state.ids, None

    def count(state: QueueState, ids: Array, request: Request) -> Array:
        filled = (state.ids < num_classes).sum()
        return _expected(known.probability(state.frequencies, ids), filled, request.unique)

    def update(state: QueueState, labels: Array, *, where: Any) -> QueueState:
        ids = present_ids(labels, where, num_classes)
        present = ids < num_classes
        number = jnp.cumsum(present, dtype=jnp.int32)
        total = present.sum(dtype=jnp.int32)
        # Of more labels than slots only the last are written: no slot twice.
        kept = present & (number > total - size)
        slot = (state.place + (number - 1) % size) % size
        return QueueState(
            ids=state.ids.at[jnp.where(kept, slot, size)].set(ids, mode="drop"),
            place=(state.place + total % size) % size,
            frequencies=known.update(state.frequencies, labels, where=where),
        )

    return make_sampler(
        num_classes,
        init=init,
        draw=draw,
        count=count,
        check=check,
        update=update,
        probability=lambda state, ids, inputs: known.probability(state.frequencies, ids),
    )


def mixed(samplers: Sequence[Sampler], num_sampled_each: Sequence[int]) -> Sampler:
    """Returns a sampler that puts the candidates of several samplers side by side.

        expected_count(k) = Σ_parts expected_count_part(k)

    for every slot, whichever part filled it, and for the true classes. A class that several parts draw
    fills several slots; its count is their mean number, and may exceed 1. With these counts a sum over the
    slots estimates the sum over all classes without bias.

    The state is the tuple of the parts' states; each part has its own key, and `unique` holds within a
    part. `init(weights)` passes `weights` to all parts or, if it is a tuple with an entry for each, one to
    each. `probability` is that of a random slot, Σ num_sampled_part p_part / Σ num_sampled_part. If a part
    draws for each example, [*batch, S], so does the mixture. `num_sampled` must be the sum of
    `num_sampled_each`.

    Args:
        samplers: at least one, all of the same classes.
        num_sampled_each: for each of them the number of slots, at least 1.

    Example:
        >>> from jaxml.softmax.samplers import uniform
        >>> sampler = mixed([in_batch(100), uniform(100)], [1, 7])
        >>> state, key = sampler.init(), jax.random.key(0)
        >>> sampler.sample(state, key, np.array([3]), 8, unique=False).true_expected_count
        Array([0.08], dtype=float32)

    References:
        Yang et al. 2020, "Mixed negative sampling for learning two-tower neural networks in
        recommendations".
    """
    # A Sampler is itself a tuple, of functions.
    if isinstance(samplers, Sampler) or not isinstance(samplers, Sequence) or not samplers:
        raise ValueError(f"samplers must be a list of at least one Sampler, got {samplers!r}")
    for i, sampler in enumerate(samplers):
        if not isinstance(sampler, Sampler):
            raise ValueError(f"samplers[{i}] must be a Sampler, got {sampler!r}")
    if np.ndim(num_sampled_each) != 1 or len(num_sampled_each) != len(samplers):
        raise ValueError(
            f"num_sampled_each must have an entry for each of {len(samplers)} samplers, "
            f"got {num_sampled_each!r}"
        )
    sizes = [checks.integer("num_sampled_each", n, 0, MAX_CLASSES) for n in num_sampled_each]
    total = sum(sizes)

    def init(weights: Any) -> tuple:
        if not isinstance(weights, tuple):
            weights = (weights,) * len(samplers)
        if len(weights) != len(samplers):
            raise ValueError(
                f"weights must have an entry for each of {len(samplers)} samplers, "
                f"got {len(weights)}"
            )
        return tuple(s.init(w) for s, w in zip(samplers, weights, strict=True))

    def check(state: tuple, request: Request) -> Request:
        if request.num_sampled != total:
            raise ValueError(
                f"num_sampled must be {total}, the sum of num_sampled_each, "
                f"got {request.num_sampled}"
            )
        return request

    def draw(state: tuple, key: Key, request: Request) -> tuple[Array, Array]:
        options = dict(unique=request.unique, where=request.where, inputs=request.inputs)
        keys = jax.random.split(key, len(samplers))
        drawn = [
            part.sample(own, k, request.labels, size, **options)
            for part, own, k, size in zip(samplers, state, keys, sizes, strict=True)
        ]
        # Slots that all examples share stand beside those of each example.
        batch = max((c.ids.shape[:-1] for c in drawn), key=len)
        ids, filled = (
            jnp.concatenate([jnp.broadcast_to(a, (*batch, a.shape[-1])) for a in column], -1)
            for column in ([c.ids for c in drawn], [c.expected_count > 0 for c in drawn])
        )
        return ids, jnp.where(filled, count(state, ids, request), 0)

    def count(state: tuple, ids: Array, request: Request) -> Array:
        options = request._asdict()
        del options["num_sampled"]
        found = jnp.zeros(ids.shape, jnp.float32)
        for part, own, size in zip(samplers, state, sizes, strict=True):
            found += part.expected_count(own, ids, size, **options)
        return found

    def update(state: tuple, labels: Array, *, where: Any) -> tuple:
        parts = zip(samplers, state, strict=True)
        return tuple(part.update(own, labels, where=where) for part, own in parts)

    def probability(state: tuple, ids: Array, inputs: Array | None) -> Array:
        p = jnp.zeros(ids.shape, jnp.float32)
        for part, own, size in zip(samplers, state, sizes, strict=True):
            p += part.probability(own, ids, inputs=inputs) * (size / total)
        return p

    # The parts know the bound of the ids: they refuse labels, and return 0 for ids, out of range.
    return make_sampler(
        MAX_CLASSES,
        compiled=False,
        init=init,
        draw=draw,
        count=count,
        check=check,
        update=update,
        probability=probability,
    )


class _Frequencies(NamedTuple):
    """How often classes occur as labels: three of the functions of a Sampler."""

    init: Callable[..., PyTree]
    update: Callable[..., PyTree]
    probability: Callable[..., Array]


def _frequencies(num_classes: int, sampler: Sampler | None) -> _Frequencies:
    """Those of the sampler, or those given to `init`: float32 [num_classes], or [1] if all are alike."""
    if sampler is not None:
        if not isinstance(sampler, Sampler):
            raise ValueError(f"frequencies must be a Sampler or None, got {sampler!r}")
        return _Frequencies(sampler.init, sampler.update, sampler.probability)

    def init(weights: Any) -> Array:
        if weights is None:
            return jnp.full(1, 1 / num_classes, jnp.float32)
        if np.shape(weights) != (num_classes,):
            raise ValueError(
                f"weights must be the classes' frequencies, [{num_classes}], "
                f"got shape {list(np.shape(weights))}"
            )
        if isinstance(weights, jax.core.Tracer):
            return weights.astype(jnp.float32) / weights.astype(jnp.float32).sum()
        values = checked_counts("weights", weights)
        values = values / values.max()
        return jnp.asarray(values / values.sum(), jnp.float32)

    return _Frequencies(
        init=init,
        update=lambda state, labels, *, where: state,
        probability=lambda state, ids: jnp.take(state, ids, mode="clip"),
    )


def _without_repeats(ids: Array, num_classes: int) -> Array:
    """The ids [K], each in its first slot only; `num_classes` in the others."""
    order = jnp.argsort(ids, stable=True)
    ordered = ids[order]
    first = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])[: ids.size]
    return jnp.where(jnp.zeros_like(first).at[order].set(first), ids, num_classes)


def _expected(p: Array, count: Array, unique: bool) -> Array:
    """The expected number of times that a class of frequency p occurs among `count` labels."""
    count = count.astype(jnp.float32)
    if not unique:
        return count * p
    # Where p is 1 and count 0 the product would be NaN.
    never = jnp.log1p(-jnp.clip(p, 0, 1 - 2.0**-24)) * count
    return jnp.where((p >= 1) & (count > 0), 1.0, -jnp.expm1(never))
