"""Candidate samplers: the contract that all share, and those with a fixed distribution."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks, meshes
from jaxml.ids import as_int32
from jaxml.keys import as_key
from jaxml.softmax.drawing import cdfs
from jaxml.softmax.drawing.cdfs import Cdf
from jaxml.softmax.drawing.pivotal import certain, independent, pivotal
from jaxml.softmax.drawing.uint64 import UInt64
from jaxml.softmax.logits import MAX_CLASSES, checked_labels
from jaxml.types import Array, Key, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Candidates:
    """The classes drawn for one step, and their expected counts.

    A slot without a candidate has `ids = num_classes` and `expected_count = 0`; it never enters a loss.

    Attributes:
        ids: int32 [S] (shared by the batch) or [*batch, S], in `[0, num_classes]`.
        expected_count: float32, the shape of `ids`; the mean number of times that the id occurs in such
            a draw. A probability if the ids are distinct.
        true_expected_count: float32, the shape of the labels; the same for the true classes.
    """

    ids: Array
    expected_count: Array
    true_expected_count: Array


class Sampler(NamedTuple):
    """Five pure functions that draw candidates; `num_sampled` and `unique` are static.

    With `unique=True` the ids are distinct and `expected_count` is the inclusion probability
    min(1, c p) of the class, where c makes them sum to `num_sampled` over all classes. The draw is an
    ordered pivotal sample: its size is fixed, it ends in bounded time even if every class is asked for,
    and it estimates any sum over classes at least as accurately as independent draws do. With
    `unique=False` the draws are independent, duplicates stay, and `expected_count` is `num_sampled · p`.
    The ids are in no particular order.

    Attributes:
        init: `init(weights=None) -> state`, the device arrays that the sampler needs.
        sample: `sample(state, key, labels, num_sampled, *, unique=True, where=None, inputs=None) ->
            Candidates`, for labels of any shape. Samplers that follow the model draw for each of the
            `inputs` [*batch, D]. True classes are not excluded from the draw.
        update: `update(state, labels, *, where=None) -> state`, after learning from a batch; the same
            state if the sampler does not learn.
        probability: `probability(state, ids, *, inputs=None) -> float32`, of one draw; 0 for ids out of
            range.
        expected_count: `expected_count(state, ids, num_sampled, *, unique=True, labels=None, where=None,
            inputs=None) -> float32`, the shape of `ids`: the mean number of times that each id occurs in
            the draw that `sample` makes of the same arguments.

    `num_sampled` must be at least 1 and, if unique, at most the number of classes with p > 0.
    """

    init: Callable[..., PyTree]
    sample: Callable[..., Candidates]
    update: Callable[..., PyTree]
    probability: Callable[..., Array]
    expected_count: Callable[..., Array]


class Request(NamedTuple):
    """The checked arguments of a draw; `labels` may be None where only counts are asked for."""

    num_sampled: int
    unique: bool
    labels: Any = None
    where: Any = None
    inputs: Any = None


def make_sampler(
    num_classes: int,
    *,
    init: Callable[[Any], PyTree],
    draw: Callable[[PyTree, Key, Request], tuple[Array, Array | None]],
    count: Callable[[PyTree, Array, Request], Array],
    check: Callable[[PyTree, Request], Request],
    prepare: Callable[[PyTree, Request], PyTree] = lambda state, request: state,
    update: Callable[..., PyTree] | None = None,
    probability: Callable[[PyTree, Array, Array | None], Array] | None = None,
    unique_by_default: bool = True,
    fewest: int = 1,
    compiled: bool = True,
) -> Sampler:
    """Returns a Sampler from the functions in which samplers differ; checks and compiles once for all.

    Args:
        num_classes: bound of the ids.
        init: `init(weights) -> state`.
        draw: `draw(context, key, request) -> (ids, counts)`; counts of these ids, or None: then `count`
            is called.
        count: `count(context, ids, request) -> float32`, for int32 ids in range.
        check: `check(state, request) -> request`, with only the fields that the sampler needs; raises
            ValueError. The labels may be None.
        prepare: `prepare(state, request) -> context`, what `draw` and `count` both need.
        update: `update(state, labels, where=) -> state`, or None: nothing is learned.
        probability: `probability(state, ids, inputs)` for int32 ids in range, or None: the count in one
            independent draw.
        unique_by_default: default of `unique`.
        fewest: least `num_sampled`.
        compiled: whether `draw` and `count` are compiled even outside of jit: one program then, and not
            300 operations.
    """
    compile_ = partial(jax.jit, static_argnames=("num_sampled", "unique")) if compiled else partial

    def counts(context: PyTree, ids: Array, request: Request) -> Array:
        inside = (ids >= 0) & (ids < num_classes)
        return jnp.where(inside, count(context, jnp.clip(ids, 0, num_classes - 1), request), 0)

    like: Any = ("inputs", "inputs", "labels")

    @meshes.laid_out_as(Candidates(*like))
    @compile_
    def drawn(state, key, *, num_sampled, unique, labels, where, inputs) -> Candidates:
        request = Request(num_sampled, unique, labels, where, inputs)
        context = prepare(state, request)
        ids, own = draw(context, key, request)
        own = counts(context, ids, request) if own is None else own
        return Candidates(ids, own, counts(context, labels, request))

    @meshes.laid_out_as("ids")
    @compile_
    def expected(state, ids, *, num_sampled, unique, labels, where, inputs) -> Array:
        request = Request(num_sampled, unique, labels, where, inputs)
        return counts(prepare(state, request), ids, request)

    def requested(state, num_sampled, unique, labels, where, inputs) -> dict[str, Any]:
        where = None if where is None else jnp.asarray(where, bool)
        num_sampled = checks.integer("num_sampled", num_sampled, fewest, MAX_CLASSES)
        return check(state, Request(num_sampled, bool(unique), labels, where, inputs))._asdict()

    def sample(
        state: PyTree,
        key: Key,
        labels: Any,
        num_sampled: int,
        *,
        unique: bool = unique_by_default,
        where: Any = None,
        inputs: Any = None,
    ) -> Candidates:
        labels = checked_labels(labels, where, num_classes)
        request = requested(state, num_sampled, unique, labels, where, inputs)
        return drawn(state, as_key(key), **request | {"labels": labels})

    def expected_count(
        state: PyTree,
        ids: Any,
        num_sampled: int,
        *,
        unique: bool = unique_by_default,
        labels: Any = None,
        where: Any = None,
        inputs: Any = None,
    ) -> Array:
        ids = as_int32("ids", ids, num_classes)
        if labels is not None:
            labels = checked_labels(labels, where, num_classes)
        request = requested(state, num_sampled, unique, labels, where, inputs)
        return expected(state, ids, **request)

    @meshes.laid_out_as("state")
    def learn(state: PyTree, labels: Any, *, where: Any = None) -> PyTree:
        labels = checked_labels(labels, where, num_classes)
        return state if update is None else update(state, labels, where=where)

    @meshes.laid_out_as("ids")
    def of_one_draw(state: PyTree, ids: Any, *, inputs: Any = None) -> Array:
        if probability is None:
            return expected_count(state, ids, 1, unique=False, inputs=inputs)
        ids = as_int32("ids", ids, num_classes)
        inside = (ids >= 0) & (ids < num_classes)
        p = probability(state, jnp.clip(ids, 0, num_classes - 1), inputs)
        return jnp.where(inside, p, 0)

    return Sampler(lambda weights=None: init(weights), sample, learn, of_one_draw, expected_count)


def at_most(size: int) -> Callable[[PyTree, Request], Request]:
    """Returns a `check`: no more distinct candidates than classes, and no use for labels or inputs."""

    def check(state: PyTree, request: Request) -> Request:
        if request.unique and request.num_sampled > size:
            raise ValueError(
                f"num_sampled must be at most {size}, the number of classes with p > 0, "
                f"when unique=True; got {request.num_sampled}"
            )
        return Request(request.num_sampled, request.unique)

    return check


def present_ids(labels: Array, where: Any, num_classes: int) -> Array:
    """Returns labels of any shape as [K]; `num_classes` where they are masked or out of range."""
    present = (labels >= 0) & (labels < num_classes)
    if where is not None:
        present &= jnp.asarray(where, bool)
    return jnp.where(present, labels, num_classes).reshape(-1)


# --- fixed distributions ------------------------------------------------------------------------


def uniform(num_classes: int) -> Sampler:
    """Returns a sampler for which all classes are equally likely: P(k) = 1 / num_classes.

    It has no state; memory and time do not depend on `num_classes`.

    Example:
        >>> candidates = uniform(100_000_000).sample((), jax.random.key(0), np.array([7]), 5)
        >>> candidates.ids.shape, round(float(candidates.expected_count[0]) * 1e8, 5)
        ((5,), 5.0)
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
    return _fixed(
        num_classes,
        cdf=cdfs.even(num_classes),
        init=lambda: (),
        mass=lambda state, ids: jnp.ones(ids.shape, jnp.float32),
        mass_from=lambda rank: num_classes - rank,
        ids=lambda state, ranks: ranks,
    )


def log_uniform(num_classes: int) -> Sampler:
    """Returns a sampler that follows Zipf's law, for ids in order of falling frequency.

        P(k) = log((k + 2) / (k + 1)) / log(num_classes + 1)

    It has no state; memory and time do not depend on `num_classes`. Counts and probabilities are the closed
    form. Ids from 8,191 on are drawn with probabilities that differ from it
    by up to 0.013 %, since the logarithm is drawn as 4,096 straight lines to the octave.

    Example:
        >>> float(log_uniform(3).probability((), np.array(0)))
        0.5

    References:
        `tf.random.log_uniform_candidate_sampler` has the same probabilities.
    """
    num_classes = checks.integer("num_classes", num_classes, 1, MAX_CLASSES)
    return _fixed(
        num_classes,
        cdf=cdfs.logarithmic(num_classes),
        init=lambda: (),
        mass=lambda state, ids: jnp.log1p(1 / (ids.astype(jnp.float32) + 1)),
        mass_from=lambda rank: math.log((num_classes + 1) / (rank + 1)),
        ids=lambda state, ranks: ranks,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class UnigramState:
    """The arrays of a unigram sampler, 16 bytes a class.

    Attributes:
        order: int32 [P]; ids of the classes with p > 0, by decreasing probability.
        edges: UInt64 of [P + 1]; the cumulative probability in that order, in units.
        probability: float32 [num_classes]; of one draw, by id.
    """

    order: Array
    edges: UInt64
    probability: Array


def unigram(counts: Any, *, distortion: float = 1.0, num_reserved: int = 0) -> Sampler:
    """Returns a sampler that draws classes in proportion to a power of their counts.

        P(num_reserved + i) = counts[i] ** distortion / sum(counts ** distortion)

    There are `num_reserved + len(counts)` classes. The state is a `UnigramState`. Probabilities are
    multiples of about 2⁻⁶², and at least one unit if they are positive, so the thinnest tail can be drawn.

    Args:
        counts: [C] finite numbers of at least 0, not all 0, in any order. A class with count 0 is never
            drawn, unless `distortion` is 0 (0 ** 0 is 1).
        distortion: finite; 1 keeps the frequencies, 0.75 (word2vec) raises the rare ones.
        num_reserved: int, at least 0. Reserved ids (padding, unknown) come first and are never drawn.

    Example:
        >>> sampler = unigram([5, 0, 15], num_reserved=1)
        >>> sampler.probability(sampler.init(), np.arange(4)).tolist()
        [0.0, 0.25, 0.0, 0.75]

    References:
        `tf.random.fixed_unigram_candidate_sampler` has the same probabilities and ids.
    """
    num_reserved = checks.integer("num_reserved", num_reserved, 0, MAX_CLASSES - 1)
    units = _units(counts, distortion)
    num_classes = checks.integer(
        "num_reserved + len(counts)", num_reserved + len(units), 1, MAX_CLASSES
    )
    order = np.argsort(-units, kind="stable")[: np.count_nonzero(units)]
    edges = np.concatenate([[0], np.cumsum(units[order])]).astype(np.uint64)
    order = (order + num_reserved).astype(np.int32)
    total = int(edges[-1])
    p = np.concatenate([np.zeros(num_reserved), units / total]).astype(np.float32)

    def init() -> UnigramState:
        high, low = (edges >> np.uint64(32)), edges & np.uint64(2**32 - 1)
        words = UInt64(jnp.asarray(high.astype(np.uint32)), jnp.asarray(low.astype(np.uint32)))
        return UnigramState(jnp.asarray(order), words, jnp.asarray(p))

    return _fixed(
        num_classes,
        cdf=cdfs.table(edges),
        init=init,
        mass=lambda state, ids: jnp.take(state.probability, ids, mode="clip"),
        mass_from=lambda rank: (total - int(edges[rank])) / total,
        ids=lambda state, ranks: jnp.take(state.order, ranks, mode="clip"),
    )


def _fixed(
    num_classes: int,
    cdf: Cdf,
    init: Callable[[], PyTree],
    mass: Callable[[PyTree, Array], Array],
    mass_from: Callable[[int], float],
    ids: Callable[[PyTree, Array], Array],
) -> Sampler:
    """Returns the sampler of a fixed distribution.

    `cdf` has the classes with p > 0, by rank; `mass(state, ids)` is proportional to p, `mass_from(rank)` is
    the mass of all ranks from that one on, and `ids(state, ranks)` are the classes of these ranks.
    """

    def draw(state: PyTree, key: Key, request: Request) -> tuple[Array, None]:
        ranks = (pivotal if request.unique else independent)(cdf, state, key, request.num_sampled)
        return ids(state, ranks), None

    def count(state: PyTree, ids: Array, request: Request) -> Array:
        if not request.unique:
            return mass(state, ids) * (request.num_sampled / mass_from(0))
        head = certain(cdf, request.num_sampled)
        scale = (request.num_sampled - head) / mass_from(head)
        return jnp.minimum(mass(state, ids) * scale, 1.0)

    return make_sampler(
        num_classes, init=lambda weights: init(), draw=draw, count=count, check=at_most(cdf.size)
    )


def _units(counts: Any, distortion: float) -> np.ndarray:
    """The probabilities of the counts as int64 [C] that sum to about 2⁶²."""
    counts = checked_counts("counts", counts)
    distortion = checks.number("distortion", distortion)
    with np.errstate(all="ignore"):
        shares = (counts / counts.max()) ** distortion
        shares /= shares.sum()
    if not np.isfinite(shares).all():
        raise ValueError(
            f"counts ** distortion must be finite, got distortion {distortion} and the smallest "
            f"count {counts.min()}"
        )
    units = np.rint(shares * 2.0**62).astype(np.int64)
    # A share may be too small for one unit, or even for a float64: it still gets one.
    return np.maximum(units, (counts > 0) | (shares > 0))


def checked_counts(name: str, counts: Any) -> np.ndarray:
    """Returns the counts as float64 [C].

    Raises:
        ValueError: they are not [C] finite numbers of at least 0, or all are 0.
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not counts.size:
        raise ValueError(f"{name} must have shape [C] with C >= 1, got {list(counts.shape)}")
    bad = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if bad.size:
        raise ValueError(f"{name} must be finite and at least 0, got {counts[bad[0]]} at {bad[0]}")
    if not counts.any():
        raise ValueError(f"{name} must have a positive entry, got only 0")
    return counts
