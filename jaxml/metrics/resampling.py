"""Bootstrap intervals: how much of a figure is chance of which examples were in the sample."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from jaxml.metrics import checks
from jaxml.metrics.metric import Metric
from jaxml.types import Array, Key

__all__ = ["Interval", "bootstrap"]

METHODS = ("percentile", "bca")
# Fewer examples than this of a class, and resamples keep the size of each class.
_RARE = 100
# Leave-out groups of the jackknife that measures how skewed the estimate is.
_GROUPS = 200
# Resamples of one device program at a time.
_AT_ONCE = 16
# P(count ≤ c) of a Poisson variable of mean 1; beyond 12 there is less than 1e-10.
_POISSON = np.cumsum(np.exp(-1.0) / special.factorial(np.arange(13))).astype(np.float32)


class Interval(NamedTuple):
    """A figure and how far chance may have moved it.

    Attributes:
        value: of all examples.
        low: lower end; NaN if more than half of the resamples are undefined.
        high: upper end.
        standard_error: standard deviation over the resamples.
        samples: [B], the resamples' values; NaN where undefined. With one key and as many rows, those of
            two models are of the same resamples: their differences are paired.
    """

    value: float
    low: float
    high: float
    standard_error: float
    samples: NDArray[np.float64]


class Data(NamedTuple):
    """Rows that count, on the host.

    Attributes:
        labels: [n, …].
        scores: [n, …].
        weights: [n] float32 or None.
        mask: None, or [n, …] of a list's items.
    """

    labels: NDArray
    scores: NDArray
    weights: NDArray | None
    mask: NDArray | None

    def take(self, rows: NDArray) -> "Data":
        """Some of the rows."""
        return Data(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]


def data(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None, mask: ArrayLike | None
) -> tuple[Data, NDArray[np.int64]]:
    """The rows along the first axis that the mask leaves, and their numbers.

    Raises:
        ValueError: if lengths differ.
    """
    truth, given = np.asarray(labels), np.asarray(scores)
    if truth.ndim < 1 or given.shape[:1] != truth.shape[:1]:
        raise ValueError(
            f"scores must have as many rows as labels, {truth.shape}; got {given.shape}"
        )
    n = len(truth)
    w = None if weights is None else np.asarray(weights)
    m = None if mask is None else checks.booleans(mask)
    for name, part in (("weights", w), ("mask", m)):
        if part is not None and part.shape[:1] != (n,):
            raise ValueError(f"{name} must have {n} rows, as labels; got shape {part.shape}")
    rows = np.arange(n)
    if m is not None and m.ndim == 1:
        rows, m = rows[m], None
    return Data(truth, given, w, m).take(rows), rows


def evaluate(metric: Metric | Callable[..., Any], rows: Data) -> float:
    """The metric of all rows, a number."""
    if isinstance(metric, Metric):
        padded = _padded(rows)
        value = metric.compute(metric.update(metric.empty(), *padded))
    else:
        value = metric(rows.labels, rows.scores, weights=rows.weights, mask=rows.mask)
    return float(_number(value))


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
    size = _power_of_two(n)
    w = np.ones(n, np.float32) if rows.weights is None else rows.weights.astype(np.float32)

    def pad(part: NDArray) -> NDArray:
        return np.concatenate([part, np.zeros((size - n, *part.shape[1:]), part.dtype)])

    mask = None if rows.mask is None else pad(rows.mask)
    return Data(pad(rows.labels), pad(rows.scores), pad(w), mask)


@functools.lru_cache(maxsize=32)
def _values(metric: Metric) -> Callable[[Data, ArrayLike], Array]:
    """A compiled program: [B] values for copies [B, n] of the rows."""

    @jax.jit
    def values(rows: Data, copies: Array) -> Array:
        def one(copies: Array) -> Array:
            assert rows.weights is not None  # _padded has put them there
            w = copies * rows.weights
            state = metric.update(metric.empty(), rows.labels, rows.scores, w, rows.mask)
            return _number(metric.compute(state))

        return jax.vmap(one)(copies)

    return values


@functools.partial(jax.jit, static_argnames="n")
def _poisson(keys: Key, n: int) -> Array:
    """[B, n]: how often each row is in each resample, Poisson of mean 1."""

    def one(key: Key) -> Array:
        return jnp.searchsorted(jnp.asarray(_POISSON), jax.random.uniform(key, (n,)))

    return jax.vmap(one)(keys).astype(jnp.float32)


@jax.jit
def _stratified(keys: Key, order: Array, start: Array, size: Array) -> Array:
    """[B, n]: how often each row is in each resample, as many of each class as there are."""

    def one(key: Key) -> Array:
        drawn = start + jax.random.randint(key, start.shape, 0, size)
        return jnp.zeros(start.shape, jnp.float32).at[order[drawn]].add(1.0)

    return jax.vmap(one)(keys)


def _rare_class(labels: NDArray) -> bool:
    if labels.ndim != 1 or not len(labels):
        return False
    ones = (labels == 1).sum()
    return bool(((labels == 0) | (labels == 1)).all()) and min(ones, len(labels) - ones) < _RARE


def bootstrap(
    metric: Metric | Callable[..., Any],
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    key: Key,
    num_samples: int = 1000,
    confidence: float = 0.95,
    method: str = "percentile",
    stratify: bool | None = None,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Interval:
    """A metric with a bootstrap interval.

    A resample gives every row a number of copies: independent Poisson variables of mean 1, or,
    stratified, as many draws with replacement from each class as it has rows. A mergeable metric is
    computed for many resamples at once, by `vmap`; a one-call form for one after the other.

    Args:
        metric: `streaming.…()`, or a one-call form such as `metrics.roc_auc` (any function of labels,
            scores, weights= and mask=) that gives one number.
        labels: [n, ...]; rows are drawn along the first axis.
        scores: [n, ...].
        key: the same key gives the same interval.
        num_samples: resamples, at least 2; a thousand for 95 %.
        confidence: share of such intervals that hold the true value, in (0, 1).
        method: "percentile", or "bca": bias-corrected and accelerated, which is right for skewed estimates,
            too, and costs up to 200 evaluations more.
        stratify: whether each class (each distinct label) keeps its size. None: if labels are 0 and 1 and
            one of them has fewer than 100 rows, so that no resample goes without it.
        weights: [n] or None.
        mask: [n] or None, boolean; what is False does not count, whatever it holds.

    Returns:
        Interval.

    Raises:
        ValueError: for shapes that do not fit or options out of range, or what the metric refuses.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 14; Poisson:
        Chamandy et al., Estimating Uncertainty for Massive Data Streams, 2012.

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
    num_samples = checks.integer("num_samples", num_samples, 2)
    checks.choice("method", method, METHODS)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")
    rows, _ = data(labels, scores, weights, mask)
    return interval(metric, rows, key, num_samples, confidence, method, stratify)


def interval(
    metric: Metric | Callable[..., Any],
    rows: Data,
    key: Key,
    num_samples: int,
    confidence: float,
    method: str,
    stratify: bool | None,
) -> Interval:
    """`bootstrap` of rows that were checked."""
    n = len(rows.labels)
    if not n:
        nothing = float("nan")
        value = evaluate(metric, rows)
        return Interval(value, nothing, nothing, nothing, np.full(num_samples, np.nan))
    if stratify is None:
        stratify = _rare_class(rows.labels)
    draw = _draws(rows.labels, stratify)
    of_copies = _evaluator(metric, rows)
    # Whole batches of keys, so that the last one needs no program of its own; nor does the value itself.
    keys = jax.random.split(key, -(-num_samples // _AT_ONCE) * _AT_ONCE)
    value = float(of_copies(np.ones((1, n), np.float32))[0])
    samples = np.concatenate(
        [of_copies(draw(keys[i : i + _AT_ONCE])) for i in range(0, len(keys), _AT_ONCE)]
    )[:num_samples]
    defined = samples[~np.isnan(samples)]
    if len(defined) * 2 < num_samples or len(defined) < 2:
        return Interval(value, float("nan"), float("nan"), float("nan"), samples)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca" and not np.isnan(value):
        tails = _corrected(tails, value, defined, _left_out(of_copies, n))
    low, high = np.quantile(defined, tails)
    return Interval(value, float(low), float(high), float(defined.std(ddof=1)), samples)


def _draws(labels: NDArray, stratify: bool) -> Callable[[Key], Array]:
    """Copies [B, n'] of the rows and of what fills them up to a power of two."""
    n = len(labels)
    size = _power_of_two(n)
    if not stratify:
        return lambda keys: _poisson(keys, size)
    if labels.ndim != 1:
        raise ValueError(f"stratify needs labels of one axis, got shape {labels.shape}")
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    order = np.argsort(group, kind="stable")
    # What fills up draws itself.
    filling = np.arange(n, size)
    parts = (
        (order, filling),
        (starts[group[order]], filling),
        (sizes[group[order]], np.ones_like(filling)),
    )
    arrays = [jnp.asarray(np.concatenate(part).astype(np.int32)) for part in parts]
    return lambda keys: _stratified(keys, *arrays)


def _evaluator(
    metric: Metric | Callable[..., Any], rows: Data
) -> Callable[[Any], NDArray[np.float64]]:
    """Values [B] for copies [B, n or more] of the rows; B at most `_AT_ONCE`."""
    n = len(rows.labels)
    if isinstance(metric, Metric):
        padded = jax.tree.map(jnp.asarray, _padded(rows))
        program = _values(metric)

        def mergeable(copies: Any) -> NDArray[np.float64]:
            size = padded.weights.shape[0]
            given = np.asarray(copies)
            full = np.zeros((_AT_ONCE, size), np.float32)
            full[: len(given), : given.shape[1]] = given
            return np.asarray(program(padded, full), np.float64)[: len(given)]

        return mergeable

    def one_call(copies: Any) -> NDArray[np.float64]:
        each = np.asarray(copies, np.float64)[:, :n]
        w = each if rows.weights is None else each * rows.weights
        of = functools.partial(metric, rows.labels, rows.scores, mask=rows.mask)
        return np.array([_number(of(weights=one)) for one in w], np.float64)

    return one_call


def _left_out(of_copies: Callable[[Any], NDArray], n: int) -> NDArray[np.float64]:
    """Values without each of at most 200 groups of rows."""
    groups = min(n, _GROUPS)
    without = (np.arange(n) % groups != np.arange(groups)[:, None]).astype(np.float32)
    parts = [of_copies(without[i : i + _AT_ONCE]) for i in range(0, groups, _AT_ONCE)]
    values = np.concatenate(parts)
    return values[~np.isnan(values)]


def _corrected(
    tails: NDArray, value: float, samples: NDArray, left_out: NDArray
) -> NDArray[np.float64]:
    """BCa's tail probabilities: shifted by the median's bias and stretched by the skewness."""
    share = (samples < value).mean() + (samples == value).mean() / 2
    edge = 0.5 / len(samples)
    bias = special.ndtri(np.clip(share, edge, 1 - edge))
    influence = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    scale = (influence**2).sum() ** 1.5
    acceleration = (influence**3).sum() / (6 * scale) if scale > 0 else 0.0
    shifted = bias + special.ndtri(tails)
    return special.ndtr(bias + shifted / (1 - acceleration * shifted))
