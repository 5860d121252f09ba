"""Candidate samplers: which few classes stand in for all the others in this step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.softmax import checks, rulers
from jaxml.softmax.pivotal import certain, independent, pivotal
from jaxml.softmax.rulers import Ruler
from jaxml.softmax.words import Words
from jaxml.types import Array, Key, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Candidates:
    """The classes drawn for one step, and how often each was to be expected.

    A slot that holds no candidate has `ids = num_classes` and `expected_count = 0`, and never
    enters a loss.

    Attributes:
        ids: int32 [S] (shared by the batch) or [B, S], in `[0, num_classes]`.
        expected_count: float32, the shape of `ids`; the mean number of times that the id occurs
            in a draw like this one. A probability when the ids are distinct.
        true_expected_count: float32, the shape of the labels; the same for the true classes.
    """

    ids: Array
    expected_count: Array
    true_expected_count: Array


class Sampler(NamedTuple):
    """Four pure functions that draw candidates; `num_sampled` and `unique` are static.

    With `unique=True` the ids are distinct and `expected_count` is the inclusion probability
    min(1, c p) of the class, where c makes them sum to `num_sampled` over all classes. The draw
    is an ordered pivotal sample (see `pivotal.pivotal`): its size is fixed, it ends in bounded
    time even when every class is asked for, and any sum over classes is estimated at least as
    accurately as from independent draws. With `unique=False` the draws are independent,
    duplicates stay, and `expected_count` is `num_sampled · p`. The ids come in no sorted order.

    Attributes:
        init: `init(weights=None) -> state`; makes the device arrays that the sampler needs.
        sample: `sample(state, key, labels, num_sampled, *, unique=True, where=None,
            inputs=None) -> Candidates`. Labels are integers of any shape, usually [B] or [B, T];
            `where` (bool, the same shape) excludes labels. One set of candidates is drawn for all
            of them, and true classes are not kept out of it. Raises ValueError for a
            `num_sampled` below 1 (or, if unique, above the number of classes with p > 0), labels
            that are not integers, and, unless they are being traced, labels out of range.
        update: `update(state, labels, *, where=None, weights=None) -> state`; what the sampler
            learns from a batch, the identity where nothing is learned.
        probability: `probability(state, ids) -> p`; of one draw, float32, 0 for ids out of range.
    """

    init: Callable[..., PyTree]
    sample: Callable[..., Candidates]
    update: Callable[..., PyTree]
    probability: Callable[..., Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class UnigramState:
    """The arrays of a unigram sampler, 16 bytes for each class.

    Attributes:
        order: int32 [P]; ids of the classes with p > 0, by decreasing probability.
        edges: Words of [P + 1]; the cumulative probability in that order, in integers.
        probability: float32 [num_classes]; of one draw, by id.
    """

    order: Array
    edges: Words
    probability: Array


def uniform(num_classes: int) -> Sampler:
    """Every class is as likely as any other.

    P(k) = 1 / num_classes.

    Args:
        num_classes: int in `[1, 2³¹ - 2]`.

    Returns:
        A Sampler without state; its memory and time do not depend on `num_classes`.

    Raises:
        ValueError: `num_classes` is out of range.

    Example:
        >>> candidates = uniform(100_000_000).sample((), jax.random.key(0), np.array([7]), 5)
        >>> candidates.ids.shape, round(float(candidates.expected_count[0]) * 1e8, 5)
        ((5,), 5.0)
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    return _sampler(
        num_classes=num_classes,
        ruler=rulers.even(num_classes),
        init=lambda: (),
        mass=lambda state, ids: jnp.ones(ids.shape, jnp.float32),
        span=lambda rank: num_classes - rank,
        ids=lambda state, ranks: ranks,
    )


def log_uniform(num_classes: int) -> Sampler:
    """Ids ordered by falling frequency are drawn about as Zipf's law has them.

    P(k) = log((k + 2) / (k + 1)) / log(num_classes + 1).

    Args:
        num_classes: int in `[1, 2³¹ - 2]`. Class 0 should be the most frequent one.

    Returns:
        A Sampler without state; its memory and time do not depend on `num_classes`. Counts and
        probabilities are the closed form; ids from 8,191 on are drawn with probabilities that
        differ from it by up to 0.013 %, because the logarithm is drawn as a chain of 4,096
        straight lines to the octave.

    Raises:
        ValueError: `num_classes` is out of range.

    Example:
        >>> float(log_uniform(3).probability((), np.array(0)))
        0.5

    References:
        `tf.random.log_uniform_candidate_sampler` has the same probabilities.
    """
    num_classes = checks.integer("num_classes", num_classes, 1, checks.MAX_CLASSES)
    return _sampler(
        num_classes=num_classes,
        ruler=rulers.logarithmic(num_classes),
        init=lambda: (),
        mass=lambda state, ids: jnp.log1p(1 / (ids.astype(jnp.float32) + 1)),
        span=lambda rank: math.log((num_classes + 1) / (rank + 1)),
        ids=lambda state, ranks: ranks,
    )


def unigram(counts: Any, *, distortion: float = 1.0, num_reserved: int = 0) -> Sampler:
    """Classes are drawn in proportion to a power of how often they occur.

    P(num_reserved + i) = counts[i] ** distortion / sum(counts ** distortion), and 0 below
    num_reserved: reserved ids (padding, unknown) come in front of the counted ones, so there are
    `num_reserved + len(counts)` classes.

    Args:
        counts: [C] numbers, finite, none negative, not all 0; any order. A class with count 0 is
            never drawn, unless `distortion` is 0 (which means: all alike, since 0 ** 0 is 1).
        distortion: finite; 1 keeps the frequencies, 0.75 (word2vec) raises the rare ones.
        num_reserved: int, at least 0.

    Returns:
        A Sampler; `init()` makes a UnigramState. Probabilities are multiples of about 2⁻⁶², at
        least one where they are positive, so that no tail is too thin to be drawn.

    Raises:
        ValueError: `counts` is empty, not one-dimensional, has an entry that is negative, NaN or
            infinite, or nothing positive; its powers are not finite; `distortion` or
            `num_reserved` is out of range.

    Example:
        >>> sampler = unigram([5, 0, 15], num_reserved=1)
        >>> sampler.probability(sampler.init(), np.arange(4)).tolist()
        [0.0, 0.25, 0.0, 0.75]

    References:
        `tf.random.fixed_unigram_candidate_sampler` has the same probabilities and the same ids.
    """
    num_reserved = checks.integer("num_reserved", num_reserved, 0, checks.MAX_CLASSES - 1)
    ticks = _ticks(counts, distortion)
    num_classes = num_reserved + len(ticks)
    if num_classes > checks.MAX_CLASSES:
        raise ValueError(
            f"num_reserved + len(counts) must be at most {checks.MAX_CLASSES}, is {num_classes}"
        )
    order = np.argsort(-ticks, kind="stable")[: np.count_nonzero(ticks)]
    edges = np.concatenate([[0], np.cumsum(ticks[order])]).astype(np.uint64)
    order = (order + num_reserved).astype(np.int32)
    total = int(edges[-1])
    p = np.concatenate([np.zeros(num_reserved), ticks / total]).astype(np.float32)

    def init() -> UnigramState:
        high, low = (edges >> np.uint64(32)), edges & np.uint64(2**32 - 1)
        words = Words(jnp.asarray(high.astype(np.uint32)), jnp.asarray(low.astype(np.uint32)))
        return UnigramState(jnp.asarray(order), words, jnp.asarray(p))

    return _sampler(
        num_classes=num_classes,
        ruler=rulers.table(edges),
        init=init,
        mass=lambda state, ids: jnp.take(state.probability, ids, mode="clip"),
        span=lambda rank: (total - int(edges[rank])) / total,
        ids=lambda state, ranks: jnp.take(state.order, ranks, mode="clip"),
    )


def _sampler(
    num_classes: int,
    ruler: Ruler,
    init: Callable[[], PyTree],
    mass: Callable[[PyTree, Array], Array],
    span: Callable[[int], float],
    ids: Callable[[PyTree, Array], Array],
) -> Sampler:
    """The sampler of a fixed distribution.

    Args:
        num_classes: bound of the ids.
        ruler: the classes with p > 0, by rank.
        init: makes the state.
        mass: `mass(state, ids) -> float32`, proportional to p, for ids in range.
        span: `span(rank) -> float`, the mass of all ranks from that one on.
        ids: `ids(state, ranks)`, the classes that have these ranks.
    """

    def scaled(state: PyTree, ids: Array, scale: float) -> Array:
        inside = (ids >= 0) & (ids < num_classes)
        return jnp.where(inside, mass(state, jnp.clip(ids, 0, num_classes - 1)) * scale, 0)

    # Compiled even when the caller is not: outside of jit this is one program, not 300 operations.
    @partial(jax.jit, static_argnames=("num_sampled", "unique"))
    def draw(
        state: PyTree, key: Key, labels: Array, *, num_sampled: int, unique: bool
    ) -> Candidates:
        if unique:
            drawn = ids(state, pivotal(ruler, state, key, num_sampled))
            head = certain(ruler, num_sampled)
            scale, most = (num_sampled - head) / span(head), 1.0
        else:
            drawn = ids(state, independent(ruler, state, key, num_sampled))
            scale, most = num_sampled / span(0), math.inf
        return Candidates(
            ids=drawn,
            expected_count=jnp.minimum(scaled(state, drawn, scale), most),
            true_expected_count=jnp.minimum(scaled(state, labels, scale), most),
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
        if unique and num_sampled > ruler.size:
            raise ValueError(
                f"num_sampled must be at most {ruler.size}, the number of classes with p > 0, "
                f"when unique=True; is {num_sampled}"
            )
        return draw(state, key, labels, num_sampled=num_sampled, unique=bool(unique))

    def update(
        state: PyTree, labels: Array, *, where: Array | None = None, weights: Array | None = None
    ) -> PyTree:
        checks.known_labels(labels, where, num_classes)
        return state

    def probability(state: PyTree, ids: Array) -> Array:
        return scaled(state, checks.int32("ids", ids, num_classes), 1 / span(0))

    return Sampler(lambda weights=None: init(), sample, update, probability)


def _ticks(counts: Any, distortion: float) -> np.ndarray:
    """The probabilities of the counts as int64 [C], summing to about 2⁶²."""
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not counts.size:
        raise ValueError(f"counts must have shape [C] with C >= 1, has {list(counts.shape)}")
    bad = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if bad.size:
        raise ValueError(
            f"counts must be finite and at least 0; counts[{bad[0]}] is {counts[bad[0]]}"
        )
    if not counts.any():
        raise ValueError("counts must have a positive entry; all are 0")
    if not math.isfinite(distortion):
        raise ValueError(f"distortion must be finite, is {distortion}")
    with np.errstate(all="ignore"):
        shares = (counts / counts.max()) ** distortion
        shares /= shares.sum()
    if not np.isfinite(shares).all():
        raise ValueError(
            f"counts ** distortion must be finite; distortion is {distortion} and the smallest "
            f"count {counts.min()}"
        )
    ticks = np.rint(shares * 2.0**62).astype(np.int64)
    # A share may be too small for a tick, or even for a float64; what occurs can be drawn.
    return np.maximum(ticks, (counts > 0) | (shares > 0))
