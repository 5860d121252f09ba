"""The order of items in lists: queries with their documents, users with what they were shown; exact.

Items of one score come in random order, and the expected value over all such orders is given: a model that
scores everything alike gets what chance gets. Every list counts once (or by its weight).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxml.metrics import checks

__all__ = ["hit_rate", "mean_reciprocal_rank", "ndcg", "precision_at_k", "recall_at_k"]

GAINS = ("linear", "exponential")


class Ranked(NamedTuple):
    """Lists in the order of falling scores, what is taken out at the end.

    Attributes:
        labels: [..., D], 0 for what is taken out.
        start: [..., D], place (from 0) of the first item of the same score.
        size: [..., D], number of items of that score.
        present: [..., D], whether an item is there.
        xp: NumPy or jax.numpy.
    """

    labels: Any
    start: Any
    size: Any
    present: Any
    xp: Any

    def group_sums(self, values: Any) -> Any:
        """[..., D]: for each item the sum of values over the items of its score."""
        xp = self.xp
        before = xp.concatenate([xp.zeros_like(values[..., :1]), xp.cumsum(values, -1)], -1)
        end = self.start + self.size
        return xp.take_along_axis(before, end, -1) - xp.take_along_axis(before, self.start, -1)


def ranked(xp: Any, labels: Any, scores: Any, where: Any) -> Ranked:
    """Sorts each list and finds its ties."""
    depth = labels.shape[-1]
    # Two keys in turn: by score, then what is out behind what is in, whatever its score.
    low = xp.where(where, scores, 0.0)
    order = xp.argsort(-low, axis=-1, stable=True)
    out = xp.take_along_axis(~where, order, -1)
    order = xp.take_along_axis(order, xp.argsort(out, axis=-1, stable=True), -1)
    present = xp.take_along_axis(where, order, -1)
    labels = xp.where(present, xp.take_along_axis(labels, order, -1), 0)
    low = xp.take_along_axis(low, order, -1)
    first = (low[..., 1:] != low[..., :-1]) | (present[..., 1:] != present[..., :-1])
    first = xp.concatenate([xp.ones_like(present[..., :1]), first], -1)
    places = xp.broadcast_to(xp.arange(depth), labels.shape)
    start = _running_max(xp, xp.where(first, places, 0))
    following = xp.concatenate(
        [xp.where(first, places, depth)[..., 1:], places[..., :1] * 0 + depth], -1
    )
    end = -_running_max(xp, -following[..., ::-1])[..., ::-1]
    return Ranked(labels, start, end - start, present, xp)


def _running_max(xp: Any, values: Any) -> Any:
    if xp is np:
        return np.maximum.accumulate(values, -1)
    return jax.lax.cummax(values, axis=values.ndim - 1)


def in_top(lists: Ranked, k: Any) -> Any:
    """[..., D]: the probability that an item is among the first k."""
    return lists.xp.clip((k - lists.start) / lists.size, 0.0, 1.0)


def _first_relevant(lists: Ranked) -> tuple[Any, Any]:
    """Place [..., 1] of the first tie with a relevant item; P(none among its first j) [..., D]."""
    xp = lists.xp
    relevant = (lists.labels > 0) & lists.present
    at = xp.argmax(relevant, -1)[..., None]
    hits = xp.take_along_axis(lists.group_sums(relevant * 1), at, -1)
    size = xp.take_along_axis(lists.size, at, -1)
    start = xp.take_along_axis(lists.start, at, -1)
    drawn = xp.broadcast_to(xp.arange(lists.labels.shape[-1]), lists.labels.shape)
    miss = xp.clip((size - hits - drawn) / xp.maximum(size - drawn, 1), 0.0, 1.0)
    return start, xp.cumprod(miss, -1)


def precision_of(lists: Ranked, k: Any) -> Any:
    """[...]: expected share of relevant items among the first k."""
    return (in_top(lists, k) * (lists.labels > 0)).sum(-1) / k


def recall_of(lists: Ranked, k: Any) -> Any:
    """[...]: expected share of the relevant items that are among the first k; NaN without one."""
    xp, relevant = lists.xp, lists.labels > 0
    total = relevant.sum(-1)
    found = (in_top(lists, k) * relevant).sum(-1)
    return xp.where(total > 0, found / xp.maximum(total, 1), np.nan)


def hit_of(lists: Ranked, k: Any) -> Any:
    """[...]: probability that the first k hold a relevant item; NaN without one."""
    xp = lists.xp
    start, later = _first_relevant(lists)
    slots = k - start
    depth = later.shape[-1]
    at = xp.clip(slots - 1, 0, depth - 1)
    missed = xp.where(slots > 0, xp.take_along_axis(later, at, -1), 1.0)[..., 0]
    return xp.where((lists.labels > 0).any(-1), 1 - missed, np.nan)


def reciprocal_of(lists: Ranked, k: Any) -> Any:
    """[...]: expected 1 / rank of the first relevant item, 0 beyond k; NaN without one."""
    xp = lists.xp
    start, later = _first_relevant(lists)
    sooner = xp.concatenate([xp.ones_like(later[..., :1]), later[..., :-1]], -1)
    rank = start + 1 + xp.arange(later.shape[-1]).reshape((1,) * (later.ndim - 1) + (-1,))
    value = (xp.where(rank <= k, 1.0 / rank, 0.0) * (sooner - later)).sum(-1)
    return xp.where((lists.labels > 0).any(-1), value, np.nan)


def ndcg_of(lists: Ranked, k: Any, gain: str) -> Any:
    """[...]: discounted gain over the best possible; NaN where no item has a gain."""
    xp = lists.xp
    gains = lists.labels
    if gain == "exponential":
        # 2^relevance − 1 in units of the largest 2^relevance, which cancel: nothing overflows.
        top = gains.max(-1, keepdims=True)
        gains = xp.exp2(gains - top) - xp.exp2(-top)
    places = xp.arange(gains.shape[-1]).reshape((1,) * (gains.ndim - 1) + (-1,))
    discount = xp.where(places < k, 1 / xp.log2(places + 2.0), 0.0) + 0 * gains
    # An item of a tie stands at each of the tie's places equally often.
    actual = (gains * lists.group_sums(discount) / lists.size).sum(-1)
    best = (-xp.sort(-gains, -1) * discount).sum(-1)
    return xp.where(best > 0, actual / xp.where(best > 0, best, 1.0), np.nan)


def _mean(
    labels: ArrayLike,
    scores: ArrayLike,
    k: int | None,
    weights: ArrayLike | None,
    mask: ArrayLike | None,
    value: Callable[[Ranked, int], Any],
) -> float:
    truth, given = np.asarray(labels), np.asarray(scores)
    there = np.ones(truth.shape, bool)
    if mask is not None and np.shape(mask) == truth.shape == given.shape and truth.ndim:
        there, mask = checks.booleans(mask), None
        truth, given = np.where(there, truth, 0), np.where(there, given, 0)
    rows = checks.read(truth, given, weights, mask, lists=True)
    depth = rows.labels.shape[-1]
    k = depth if k is None else checks.integer("k", k, 1)
    fault = ~((rows.labels >= 0) & np.isfinite(rows.labels))
    checks.refuse("labels", rows.labels, fault, rows.numbers, "finite relevances of at least 0")
    if not depth or not len(rows.labels):
        return float("nan")
    there = there.reshape(-1, depth)[rows.numbers]
    values = value(ranked(np, rows.labels, rows.scores, there), k)
    w = np.ones(len(values)) if rows.weights is None else rows.weights
    told = ~np.isnan(values) & there.any(-1)
    total = w[told].sum()
    return float((w[told] * values[told]).sum() / total) if total > 0 else float("nan")


def precision_at_k(
    labels: ArrayLike,
    scores: ArrayLike,
    k: int,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Share of relevant items among the k that score highest, averaged over lists.

    Args:
        labels: [..., D], relevance of each item; above 0 is relevant.
        scores: [..., D], any real.
        k: at least 1; a list shorter than k is still divided by k.
        weights: [...] or None, of each list.
        mask: None, or boolean: [..., D], where False takes out an item (padding), whatever it holds, or
            [...], where it takes out a list.

    Returns:
        A float in [0, 1]; NaN without a list. A list without items does not count.

    Raises:
        ValueError: for shapes that do not fit, k below 1; a value out of place, with the list's number.

    >>> precision_at_k([[1, 0, 1]], [[0.9, 0.5, 0.2]], 2)
    0.5
    """
    return _mean(labels, scores, k, weights, mask, precision_of)


def recall_at_k(
    labels: ArrayLike,
    scores: ArrayLike,
    k: int,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Share of the relevant items that are among the k that score highest, averaged over lists.

    Args:
        labels: [..., D], relevance of each item; above 0 is relevant.
        scores: [..., D], any real.
        k: at least 1.
        weights: [...] or None, of each list.
        mask: of items [..., D] or lists [...], as in `precision_at_k`.

    Returns:
        A float in [0, 1]; NaN without a list. A list without a relevant item does not count.

    Raises:
        ValueError: as `precision_at_k`.

    >>> recall_at_k([[1, 0, 1]], [[0.9, 0.5, 0.2]], 1)
    0.5
    """
    return _mean(labels, scores, k, weights, mask, recall_of)


def hit_rate(
    labels: ArrayLike,
    scores: ArrayLike,
    k: int,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Share of lists with a relevant item among the k that score highest.

    Args:
        labels: [..., D], relevance of each item; above 0 is relevant.
        scores: [..., D], any real.
        k: at least 1.
        weights: [...] or None, of each list.
        mask: of items [..., D] or lists [...], as in `precision_at_k`.

    Returns:
        A float in [0, 1]; NaN without a list. A list without a relevant item does not count.

    Raises:
        ValueError: as `precision_at_k`.

    >>> hit_rate([[0, 1], [1, 0]], [[0.9, 0.5], [0.9, 0.5]], 1), hit_rate([[1, 0]], [[3, 3]], 1)
    (0.5, 0.5)
    """
    return _mean(labels, scores, k, weights, mask, hit_of)


def mean_reciprocal_rank(
    labels: ArrayLike,
    scores: ArrayLike,
    k: int | None = None,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """1 / rank of the first relevant item, averaged over lists.

    Args:
        labels: [..., D], relevance of each item; above 0 is relevant.
        scores: [..., D], any real.
        k: at least 1: a first relevant item beyond it counts 0. None: no limit.
        weights: [...] or None, of each list.
        mask: of items [..., D] or lists [...], as in `precision_at_k`.

    Returns:
        A float in [0, 1]; NaN without a list. A list without a relevant item does not count.

    Raises:
        ValueError: as `precision_at_k`.

    >>> mean_reciprocal_rank([[0, 1, 0]], [[0.9, 0.5, 0.2]]), mean_reciprocal_rank([[0, 1]], [[7, 7]])
    (0.5, 0.75)
    """
    return _mean(labels, scores, k, weights, mask, reciprocal_of)


def ndcg(
    labels: ArrayLike,
    scores: ArrayLike,
    k: int | None = None,
    *,
    gain: str = "linear",
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Normalised discounted cumulative gain, averaged over lists.

        DCG = Σ_i gain_i / log₂(1 + rank_i) over ranks up to k,   NDCG = DCG / DCG of the best order

    Args:
        labels: [..., D], relevance of each item, at least 0.
        scores: [..., D], any real.
        k: at least 1; None: all.
        gain: "linear", the relevance itself, or "exponential", 2^relevance − 1.
        weights: [...] or None, of each list.
        mask: of items [..., D] or lists [...], as in `precision_at_k`.

    Returns:
        A float in [0, 1]; NaN without a list. A list without a relevant item does not count
        (scikit-learn counts it as 0).

    Raises:
        ValueError: as `precision_at_k`, or for an unknown gain.

    Source: Järvelin and Kekäläinen, ACM TOIS 20, 2002; ties: McSherry and Najork, ECIR 2008.

    >>> round(ndcg([[0, 1]], [[0.9, 0.5]]), 4)  # 1 / log2(3)
    0.6309
    """
    checks.choice("gain", gain, GAINS)
    return _mean(labels, scores, k, weights, mask, functools.partial(ndcg_of, gain=gain))
