"""Bootstrap intervals of metrics."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from jaxml import checks
from jaxml.ids import unwrapped
from jaxml.keys import as_key
from jaxml.metrics.metric import Metric
from jaxml.metrics.rows import as_array, booleans
from jaxml.types import Array, Key

__all__ = ["Interval", "bootstrap"]

# With fewer examples of a class than this, resamples keep the size of each class.
_RARE = 100
# Resamples of one device program at a time.
_AT_ONCE = 16
# P(count ≤ c) of a Poisson variable of mean 1; the rest is below 1e-10.
_POISSON = np.cumsum(np.exp(-1.0) / special.factorial(np.arange(13))).astype(np.float32)


class Interval(NamedTuple):
    """A figure with a confidence interval.

    Attributes:
        value: of all examples.
        low: lower end; NaN if more than half of the resamples are undefined.
        high: upper end.
        standard_error: standard deviation over the resamples.
        samples: [B], the resamples' values; NaN where undefined. With the same key and number of rows, two
            models have the same resamples: their differences are paired.
    """

    value: float
    low: float
    high: float
    standard_error: float
    samples: NDArray[np.float64]


class Data(NamedTuple):
    """Rows on the host: labels [n], scores [n] or [n, C], and weights [n] or None."""

    labels: NDArray
    scores: NDArray
    weights: NDArray | None

    def take(self, rows: NDArray) -> "Data":
        """Returns some of the rows."""
        return Data(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]


def read(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None, mask: ArrayLike | None
) -> tuple[Data, NDArray[np.int64]]:
    """Returns the rows that the mask keeps, and their positions."""
    truth, given = as_array("labels", labels), as_array("scores", scores)
    if truth.ndim != 1 or given.shape[:1] != truth.shape:
        raise ValueError(
            f"labels must have shape [n] and scores as many rows, got {truth.shape}, {given.shape}"
        )
    w = None if weights is None else as_array("weights", weights)
    m = np.ones(len(truth), bool) if mask is None else booleans(mask)
    for name, part in (("weights", w), ("mask", m)):
        if part is not None and part.shape != truth.shape:
            raise ValueError(f"{name} must have shape {truth.shape}; got {part.shape}")
    rows = np.flatnonzero(m)
    return Data(truth, given, w).take(rows), rows


def evaluate(metric: Metric | Callable[..., Any], rows: Data) -> float:
    """Returns the metric of all rows, a number."""
    if isinstance(metric, Metric):
        return float(_number(metric.compute(metric.update(metric.empty(), *_padded(rows)))))
    return float(_number(metric(rows.labels, rows.scores, weights=rows.weights)))


def _number(value: Any) -> Any:
    """The value, or ValueError unless it is one number."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(value)]
    if shapes != [()]:
        raise ValueError(f"metric must give one number, got shapes {shapes}")
    return jax.tree.leaves(value)[0]


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _padded(rows: Data) -> Data:
    """Filled up to a power of two, so that slices of many sizes share few programs."""
    n = len(rows.labels)
    w = np.ones(n, np.float32) if rows.weights is None else rows.weights.astype(np.float32)

    def pad(part: NDArray) -> NDArray:
        return np.pad(part, [(0, _power_of_two(n) - n)] + [(0, 0)] * (part.ndim - 1))

    return Data(pad(rows.labels), pad(rows.scores), pad(w))


@functools.lru_cache(maxsize=32)
def _program(metric: Metric) -> Callable[[Data, ArrayLike], Array]:
    """A compiled program: [B] values for copies [B, n] of the rows."""

    @jax.jit
    def values(rows: Data, copies: Array) -> Array:
        def one(copies: Array) -> Array:
            assert rows.weights is not None  # by _padded
            w = copies * rows.weights
            state = metric.update(metric.empty(), rows.labels, rows.scores, w)
            return _number(metric.compute(state))

        return jax.vmap(one)(copies)

    return values


def _values(
    metric: Metric | Callable[..., Any], rows: Data
) -> Callable[[Any], NDArray[np.float64]]:
    """`values(copies) -> [B]` for copies [B, n or more] of the rows; B at most `_AT_ONCE`."""
    n = len(rows.labels)

    def one_call(copies: Any) -> NDArray[np.float64]:
        w = np.asarray(copies, np.float64)[:, :n]
        w = w if rows.weights is None else w * rows.weights
        found = [_number(metric(rows.labels, rows.scores, weights=one)) for one in w]  # type: ignore[operator]
        return np.array(found, np.float64)

    def mergeable(copies: Any) -> NDArray[np.float64]:
        full = np.zeros((_AT_ONCE, len(padded.labels)), np.float32)
        full[: len(copies), : copies.shape[1]] = copies
        return np.asarray(program(padded, full), np.float64)[: len(copies)]

    if not isinstance(metric, Metric):
        return one_call
    padded, program = (
        jax.tree.map(lambda x: jnp.asarray(unwrapped(x)), _padded(rows)),
        _program(metric),
    )
    return mergeable


@functools.partial(jax.jit, static_argnames="n")
def _poisson(keys: Key, n: int) -> Array:
    """[B, n]: how often each row is in each resample, Poisson of mean 1."""

    def one(key: Key) -> Array:
        return jnp.searchsorted(jnp.asarray(_POISSON), jax.random.uniform(key, (n,), jnp.float32))

    return jax.vmap(one)(keys).astype(jnp.float32)


@jax.jit
def _stratified(keys: Key, order: Array, start: Array, size: Array) -> Array:
    """[B, n]: how often each row is in each resample, as many of each class as there are."""

    def one(key: Key) -> Array:
        drawn = start + jax.random.randint(key, start.shape, 0, size, jnp.int32)
        return jnp.zeros(start.shape, jnp.float32).at[order[drawn]].add(1.0)

    return jax.vmap(one)(keys)


def _draws(labels: NDArray) -> Callable[[Key], Array]:
    """`draw(keys) -> copies [B, n']` of the rows and of the padding to a power of two."""
    n, ones = len(labels), (labels == 1).sum()
    binary = ((labels == 0) | (labels == 1)).all()
    if not binary or min(ones, n - ones) >= _RARE:
        return lambda keys: _poisson(keys, _power_of_two(n))
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    order = np.argsort(group, kind="stable")
    padding = np.arange(n, _power_of_two(n))  # draws itself
    parts = (
        (order, padding),
        (starts[group[order]], padding),
        (sizes[group[order]], np.ones_like(padding)),
    )
    arrays = [jnp.asarray(np.concatenate(part).astype(np.int32)) for part in parts]
    return lambda keys: _stratified(keys, *arrays)


def bootstrap(
    metric: Metric | Callable[..., Any],
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    key: Key,
    num_samples: int = 1000,
    confidence: float = 0.95,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Interval:
    """Returns a metric with a bootstrap interval.

    A resample gives every row a number of copies: independent Poisson variables of mean 1 or, if labels are
    0 and 1 and one of them has fewer than 100 rows, as many draws with replacement from each class as it
    has rows, so that no resample misses it. A mergeable metric is computed for many resamples at once by
    `vmap`, a one-call form for one after the other.

    Args:
        metric: a mergeable metric, or a one-call form such as `metrics.roc_auc` (any function of labels,
            scores and weights=), with one number as value.
        labels: [n].
        scores: [n] or [n, C].
        key: the same key gives the same interval.
        num_samples: number of resamples, at least 2.
        confidence: in (0, 1).

    References:
        Efron and Tibshirani 1993, An introduction to the bootstrap, chapter 13; Chamandy et al. 2012,
        Estimating uncertainty for massive data streams (Poisson).

    >>> from jaxml.metrics import streaming
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.random(400) < 0.5
    >>> interval = bootstrap(
    ...     streaming.accuracy(), labels, np.where(labels, 0.4, 0.0) + 0.6 * rng.random(400),
    ...     key=jax.random.key(0),
    ... )
    >>> interval.low < interval.value < interval.high
    True
    """
    return interval(metric, read(labels, scores, weights, mask)[0], key, num_samples, confidence)


def interval(
    metric: Metric | Callable[..., Any],
    rows: Data,
    key: Key,
    num_samples: int,
    confidence: float = 0.95,
) -> Interval:
    """`bootstrap` of rows that `read` has checked."""
    num_samples = checks.integer("num_samples", num_samples, at_least=2)
    confidence = checks.number("confidence", confidence, above=0, below=1)
    n, nan = len(rows.labels), float("nan")
    if not n:
        return Interval(evaluate(metric, rows), nan, nan, nan, np.full(num_samples, nan))
    draw, values = _draws(rows.labels), _values(metric, rows)
    # Whole batches of keys, so that neither the last batch nor the value needs a program of its own.
    keys = jax.random.split(as_key(key), -(-num_samples // _AT_ONCE) * _AT_ONCE)
    value = float(values(np.ones((1, n), np.float32))[0])
    batches = [values(draw(keys[i : i + _AT_ONCE])) for i in range(0, len(keys), _AT_ONCE)]
    samples = np.concatenate(batches)[:num_samples]
    defined = samples[~np.isnan(samples)]
    if len(defined) * 2 < num_samples or len(defined) < 2:
        return Interval(value, nan, nan, nan, samples)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), float(defined.std(ddof=1)), samples)
