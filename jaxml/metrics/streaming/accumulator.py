"""The parts of every streaming metric: rows of a batch, and the pairs of sums they are added to."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import meshes
from jaxml.ids import unwrapped
from jaxml.metrics import sums
from jaxml.metrics.metric import Metric
from jaxml.metrics.rows import as_array
from jaxml.metrics.sums import Sums
from jaxml.types import Array

P = ParamSpec("P")

_CHUNK = 1 << 14  # So many numbers add up exactly in the upper 10 bits of a float32.


class Accumulator(NamedTuple):
    """The state of every streaming metric; merging adds it up.

    Attributes:
        sums: pairs of float32, of shapes that depend on the metric.
        refused: float32 scalar, above 0 after a label, score or weight that was out of range.
    """

    sums: tuple[Sums, ...]
    refused: Array


class Rows(NamedTuple):
    """A batch, flattened.

    Attributes:
        labels: [n], int32 or float32.
        scores: [n] or [n, C], int32 or float32.
        weights: [n] float32 or None.
        keep: [n], rows that count; the others hold zeros.
        refused: float32 scalar, number of unmasked rows that are out of range.
    """

    labels: Array
    scores: Array
    weights: Array | None
    keep: Array
    refused: Array


def _plain(values: Any) -> Array:
    """Integers of at least 32 bits, which can be compared with any bound, or float32."""
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.integer):
        return values.astype(jnp.float32)
    return values.astype(jnp.int32) if values.dtype.itemsize < 4 else values


def read(
    labels: Any,
    scores: Any,
    weights: Any,
    mask: Any,
    fault: Callable[[Array, Array], Array],
    *,
    columns: bool = False,
) -> Rows:
    """Flattens and checks a batch.

    Args:
        fault: `fault(labels, scores) -> [n]`, True for rows out of range.
        columns: scores may have one more axis than labels, a score for each class.
    """
    labels, scores = _plain(labels), _plain(scores)
    wider = columns and scores.ndim == labels.ndim + 1
    if (scores.shape[:-1] if wider else scores.shape) != labels.shape:
        raise ValueError(
            f"scores must have the shape of labels, {labels.shape}; got {scores.shape}"
        )
    lead, n = labels.shape, labels.size
    labels, scores = labels.reshape(n), scores.reshape(n, *scores.shape[labels.ndim :])
    wrong = fault(labels, scores)
    present = jnp.ones(n, bool)
    if mask is not None:
        mask = _flat("mask", mask, lead)
        present = mask != 0
        wrong |= present & (mask != 1)  # zeros and ones of any dtype are a mask, other numbers not
    if weights is not None:
        weights = _flat("weights", weights, lead).astype(jnp.float32)
        wrong |= ~(jnp.isfinite(weights) & (weights >= 0))
        weights = jnp.where(present & ~wrong, weights, 0.0)
    keep = present & ~wrong

    def kept(values: Array) -> Array:
        return jnp.where(keep.reshape(n, *(1,) * (values.ndim - 1)), values, 0)

    refused = (present & wrong).sum().astype(jnp.float32)
    return Rows(kept(labels), kept(scores), weights, keep, refused)


def _flat(name: str, values: Any, shape: tuple[int, ...]) -> Array:
    values = jnp.asarray(values)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {values.shape}")
    return values.reshape(-1)


def not_binary(labels: Array) -> Array:
    """Rows whose label is neither 0 nor 1."""
    return (labels != 0) & (labels != 1)


def not_an_id(ids: Array, num_classes: int) -> Array:
    """Rows whose id is not a whole number in [0, num_classes)."""
    wrong = ~((ids >= 0) & (ids < num_classes))
    return wrong if jnp.issubdtype(ids.dtype, jnp.integer) else wrong | (jnp.floor(ids) != ids)


def not_a_probability(scores: Array, from_logits: bool) -> Array:
    """Rows [n] of scores [n] or [n, C] that hold NaN, or a number out of [0, 1] unless they are logits."""
    wrong = jnp.isnan(scores) if from_logits else ~((scores >= 0) & (scores <= 1))
    return wrong if wrong.ndim == 1 else wrong.any(-1)


def total(rows: Rows, values: Array | Sums | None = None) -> Sums:
    """Weighted sum over the last axis of float32 or booleans [..., n]; of ones without values."""
    if values is None:
        values = rows.keep
    if isinstance(values, jax.Array) and values.dtype == jnp.bool_:
        values = values & jnp.broadcast_to(rows.keep, values.shape)
        if rows.weights is None:
            return sums.of_integers(values.sum(-1, dtype=jnp.int32))
        return sums.total(jnp.where(values, jnp.broadcast_to(rows.weights, values.shape), 0.0))
    pair = values if isinstance(values, Sums) else Sums(values, jnp.zeros_like(values))
    keep = jnp.broadcast_to(rows.keep, pair.high.shape)
    pair = Sums(*(jnp.where(keep, part, 0.0) for part in pair))
    if rows.weights is not None:
        w = jnp.broadcast_to(rows.weights, pair.high.shape)
        exact = sums.product(w, pair.high)
        pair = Sums(exact.high, exact.low + w * pair.low)
    return sums.total(pair)


def histogram(rows: Rows, at: Array, size: int, values: Array | None = None) -> Sums:
    """Weighted sums [size] of values [n] (ones by default) at the places `at`, [n] int32 in [0, size).

    Counts without weights are exact. Others are added in chunks of 16,384, the upper and lower bits of each
    number apart, so that a million equal weights do not drift.
    """
    at = jnp.where(rows.keep, at, 0)
    if values is None and rows.weights is None:
        # Integers give the same bits in whatever order a device adds them.
        return sums.of_integers(jnp.zeros(size, jnp.int32).at[at].add(rows.keep.astype(jnp.int32)))
    x = jnp.ones(at.shape, jnp.float32) if values is None else values
    x = jnp.where(rows.keep, x if rows.weights is None else x * rows.weights, 0.0)

    def add_up(at: Array, x: Array) -> Sums:
        scaled = x * (_CHUNK + 1.0)
        upper = scaled - (scaled - x)
        upper = jnp.where(jnp.isfinite(upper), upper, x)
        parts = jnp.stack([upper, x - upper], -1)
        both = jnp.zeros((size, 2), jnp.float32).at[at].add(parts)
        return sums.add(*(Sums(both[:, i], jnp.zeros(size, jnp.float32)) for i in (0, 1)))

    n = at.shape[0]
    if n <= _CHUNK:
        return add_up(at, x)
    at, x = (jnp.pad(v, (0, -n % _CHUNK)).reshape(-1, _CHUNK) for v in (at, x))
    return meshes.scan(
        lambda carry, chunk: (sums.add(carry, add_up(*chunk)), None), sums.zeros((size,)), (at, x)
    )[0]


def accumulated(
    shapes: tuple[tuple[int, ...], ...],
    totals: Callable[[Any, Any, Any, Any], tuple[tuple[Sums, ...], Array]],
    finish: Callable[..., Any],
) -> Metric:
    """Makes a metric of sums over rows.

    Args:
        shapes: of each sum.
        totals: `totals(labels, scores, weights, mask) -> (sums, refused)` of a batch.
        finish: `finish(*sums) -> value`, a pytree of floats.
    """

    def empty() -> Accumulator:
        return Accumulator(tuple(sums.zeros(shape) for shape in shapes), jnp.zeros((), jnp.float32))

    def merge(a: Accumulator, b: Accumulator) -> Accumulator:
        both = tuple(sums.add(one, two) for one, two in zip(a.sums, b.sums, strict=True))
        return Accumulator(both, a.refused + b.refused)

    # Outside of `jit`, a hundred small operations would each be compiled and dispatched by itself.
    @jax.jit
    def add(state: Accumulator, *batch: Any) -> Accumulator:
        return merge(state, Accumulator(*totals(*batch)))

    @meshes.laid_out_as(None)
    def update(
        state: Accumulator, labels: Any, scores: Any, weights: Any = None, mask: Any = None
    ) -> Accumulator:
        given = {"labels": labels, "scores": scores, "weights": weights, "mask": mask}
        return add(state, *(_arrays(name, values) for name, values in given.items()))

    return Metric(empty, update, jax.jit(merge), _compute(finish))


def _arrays(name: str, values: Any) -> Any:
    """The values as JAX takes them; columns of pandas or Arrow, and masked ones, as arrays."""
    known = values is None or isinstance(values, jax.Array | list | tuple)
    return unwrapped(values if known or type(values) is np.ndarray else as_array(name, values))


def mean(
    read_rows: Callable[[Any, Any, Any, Any], Rows],
    values: Callable[[Rows], Array],
) -> Metric:
    """Makes a metric that is the weighted mean of a value of each row.

    Args:
        read_rows: `read_rows(labels, scores, weights, mask) -> Rows`.
        values: `values(rows) -> [n]`, float32 or booleans.
    """

    def totals(*batch: Any) -> tuple[tuple[Sums, ...], Array]:
        rows = read_rows(*batch)
        return (total(rows), total(rows, values(rows))), rows.refused

    return accumulated(((), ()), totals, lambda n, of: ratio(of.value(), n.value()))


def _compute(finish: Callable[..., Any]) -> Callable[[Accumulator], Any]:
    @jax.jit
    def compute(state: Accumulator) -> Any:
        value = finish(*state.sums)
        return jax.tree.map(lambda leaf: jnp.where(state.refused > 0, jnp.nan, leaf), value)

    return compute


def of_sums(base: Metric, finish: Callable[..., Any]) -> Metric:
    """Makes another value of the same sums; only `compute` is compiled anew."""
    return base._replace(compute=_compute(finish))


def derived(base: Metric, finish: Callable[[Any], Any]) -> Metric:
    """Makes a metric of another metric's value."""
    return base._replace(compute=jax.jit(lambda state: finish(base.compute(state))))


def made_once(factory: Callable[P, Metric]) -> Callable[P, Metric]:
    """Returns the same metric for the same hyperparameters, so that it is compiled once."""
    cached = functools.lru_cache(maxsize=64, typed=True)(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Metric:
        try:
            hash((args, tuple(kwargs.values())))
        except TypeError:  # a traced threshold
            return factory(*args, **kwargs)
        return cached(*args, **kwargs)  # type: ignore[arg-type]

    return make


def ratio(over: Array, under: Array, undefined: float = float("nan")) -> Array:
    """Returns `over / under`, or `undefined` where `under` is 0."""
    return jnp.where(under != 0, over / jnp.where(under != 0, under, 1.0), undefined)
