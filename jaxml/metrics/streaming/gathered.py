"""What all streaming metrics are made of: rows of a batch, and pairs of sums that they are gathered in."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp

from jaxml.metrics import sums
from jaxml.metrics.metric import Metric
from jaxml.metrics.sums import Sums
from jaxml.types import Array

P = ParamSpec("P")

_CHUNK = 1 << 14  # of so many, the upper 10 bits of float32 add up exactly


class Gathered(NamedTuple):
    """The state of every streaming metric; merging adds it up.

    Attributes:
        sums: pairs of float32, of shapes that depend on the metric.
        refused: float32 scalar, above 0 if a label, score or weight was out of place.
    """

    sums: tuple[Sums, ...]
    refused: Array


class Rows(NamedTuple):
    """A batch, flattened.

    Attributes:
        labels: [n, …].
        scores: [n, …], float32 unless they are ids.
        weights: [n] float32 or None.
        keep: [n], rows that count; what the others hold is replaced by zeros.
        refused: float32 scalar, rows that should count and cannot.
    """

    labels: Array
    scores: Array
    weights: Array | None
    keep: Array
    refused: Array


def read(
    labels: Any,
    scores: Any,
    weights: Any,
    mask: Any,
    fault: Callable[[Array, Array], Array],
    *,
    lists: bool = False,
    columns: bool = False,
) -> Rows:
    """The rows of a batch.

    Args:
        labels: [...], or [..., D] for lists.
        scores: of the labels' shape, or with one more axis if `columns`.
        weights: None or [...].
        mask: None or [...], booleans, or zeros and ones.
        fault: of labels and scores, [n] each with what follows: [n] booleans, rows out of place.
        lists: each row is a list along the last axis.
        columns: scores may have an axis of classes more.

    Returns:
        Rows.

    Raises:
        ValueError: shapes that do not fit.
    """
    labels, scores = jnp.asarray(labels), jnp.asarray(scores)
    if not jnp.issubdtype(scores.dtype, jnp.integer):
        scores = scores.astype(jnp.float32)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        labels = labels.astype(jnp.float32)
    wider = columns and scores.ndim == labels.ndim + 1
    if (scores.shape[:-1] if wider else scores.shape) != labels.shape:
        raise ValueError(
            f"scores must have the shape of labels, {labels.shape}; got {scores.shape}"
        )
    if lists and not labels.ndim:
        raise ValueError("labels must have an axis of items, got a scalar")
    lead = labels.shape[:-1] if lists else labels.shape

    def flat(values: Array) -> Array:
        return values.reshape(-1, *values.shape[len(lead) :])

    if labels.size == 0:  # -1 cannot be told from an axis of nothing
        n = 0 if 0 in lead else -1
        labels, scores = (v.reshape(n, *v.shape[len(lead) :]) for v in (labels, scores))
    else:
        labels, scores = flat(labels), flat(scores)
    n = labels.shape[0]
    present = jnp.ones(n, bool)
    wrong = fault(labels, scores)
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.shape != lead:
            raise ValueError(f"mask must have shape {lead}; got {mask.shape}")
        present = mask.reshape(n) != 0
        # Zeros and ones of any dtype will do; other numbers are no mask.
        wrong |= present & (mask.reshape(n) != 1)
    if weights is not None:
        weights = jnp.asarray(weights)
        if weights.shape != lead:
            raise ValueError(f"weights must have shape {lead}; got {weights.shape}")
        weights = weights.reshape(n).astype(jnp.float32)
        wrong |= ~(jnp.isfinite(weights) & (weights >= 0))
        weights = jnp.where(present & ~wrong, weights, 0.0)
    keep = present & ~wrong

    def kept(values: Array) -> Array:
        return jnp.where(keep.reshape(n, *(1,) * (values.ndim - 1)), values, 0)

    refused = (present & wrong).sum().astype(jnp.float32)
    return Rows(kept(labels), kept(scores), weights, keep, refused)


def not_binary(labels: Array) -> Array:
    """Rows whose label is neither 0 nor 1."""
    return (labels != 0) & (labels != 1)


def not_an_id(ids: Array, num_classes: int) -> Array:
    """Rows whose id is not a whole number in [0, num_classes)."""
    wrong = (ids < 0) | (ids >= num_classes)
    if jnp.issubdtype(ids.dtype, jnp.integer):
        return wrong
    return wrong | (jnp.floor(ids) != ids)


def not_a_probability(scores: Array, from_logits: bool) -> Array:
    """Rows [n] of scores [n] or [n, C] that hold NaN, or anything out of [0, 1] unless they are logits."""
    wrong = jnp.isnan(scores) if from_logits else ~((scores >= 0) & (scores <= 1))
    return wrong if wrong.ndim == 1 else wrong.any(-1)


def total(rows: Rows, values: Array | Sums | None = None) -> Sums:
    """Weighted sum over rows of [..., n] float32 or booleans; of ones without values."""
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
    """Weighted sums [size] over the rows at each place.

    Args:
        rows: the batch.
        at: [n] int32 in [0, size); of rows that do not count anything.
        size: number of places.
        values: [n] float32, what is summed; None: ones.

    Returns:
        Sums [size]. Counts without weights are exact; others are added in chunks of 16,384, upper and lower
        bits of each apart, so that a million equal weights do not drift.
    """
    at = jnp.where(rows.keep, at, 0)
    if values is None and rows.weights is None:
        # The sorted and the unsorted scatter of integers give the same bits on every device.
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
    padding = -n % _CHUNK
    at, x = (jnp.pad(v, (0, padding)).reshape(-1, _CHUNK) for v in (at, x))
    return jax.lax.scan(
        lambda carry, chunk: (sums.add(carry, add_up(*chunk)), None), sums.zeros((size,)), (at, x)
    )[0]


def gathered(
    shapes: tuple[tuple[int, ...], ...],
    totals: Callable[[Any, Any, Any, Any], tuple[tuple[Sums, ...], Array]],
    finish: Callable[..., Any],
) -> Metric:
    """A metric from sums over rows.

    Args:
        shapes: of each sum.
        totals: of labels, scores, weights and mask of a batch: its sums, and how many rows were refused.
        finish: of all the sums: the value, a pytree of floats.

    Returns:
        Metric.
    """

    def empty() -> Gathered:
        return Gathered(tuple(sums.zeros(shape) for shape in shapes), jnp.zeros((), jnp.float32))

    def merge(a: Gathered, b: Gathered) -> Gathered:
        both = tuple(sums.add(one, two) for one, two in zip(a.sums, b.sums, strict=True))
        return Gathered(both, a.refused + b.refused)

    def update(
        state: Gathered, labels: Any, scores: Any, weights: Any = None, mask: Any = None
    ) -> Gathered:
        return merge(state, Gathered(*totals(labels, scores, weights, mask)))

    # Outside of `jit`, a hundred small operations would each be compiled and dispatched by itself.
    return Metric(empty, jax.jit(update), jax.jit(merge), _compute(finish))


def _compute(finish: Callable[..., Any]) -> Callable[[Gathered], Any]:
    @jax.jit
    def compute(state: Gathered) -> Any:
        value = finish(*state.sums)
        return jax.tree.map(lambda leaf: jnp.where(state.refused > 0, jnp.nan, leaf), value)

    return compute


def of_sums(base: Metric, finish: Callable[..., Any]) -> Metric:
    """Another value of the same sums; only what is made of them is compiled anew."""
    return base._replace(compute=_compute(finish))


def derived(base: Metric, finish: Callable[[Any], Any]) -> Metric:
    """What is made of another metric's value."""
    return base._replace(compute=jax.jit(lambda state: finish(base.compute(state))))


def made_once(factory: Callable[P, Metric]) -> Callable[P, Metric]:
    """The same metric for the same hyperparameters: compiled once, however often it is made."""
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
    """`over / under`, or what stands for it where `under` is zero."""
    return jnp.where(under != 0, over / jnp.where(under != 0, under, 1.0), undefined)
