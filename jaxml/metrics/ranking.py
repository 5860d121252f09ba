"""The order of items in lists: queries with documents, users with what they were shown.

Labels [..., D] are relevances of at least 0, relevant above 0; scores are [..., D]. Weights are of the
lists. A mask [..., D] leaves out items (padding), a mask [...] whole lists. The mean is over lists; one
without a relevant item, for which a figure is undefined, does not count.

Items of equal score come in random order, and the figure is the expected value over all such orders: a
model that scores everything alike gets what chance gets.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxml import checks
from jaxml.metrics.rows import Rows, of_rows

__all__ = ["hit_rate", "mean_reciprocal_rank", "ndcg", "precision_at_k", "recall_at_k"]

GAINS = ("linear", "exponential")


class Ranked(NamedTuple):
    """Lists in the order of falling scores, masked items last.

    Attributes:
        labels: [..., D], 0 for masked items.
        start: [..., D], place (from 0) of the first item of the same score.
        size: [..., D], number of items of that score.
        present: [..., D], False for masked items.
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
    # Two keys in turn: by score, then masked items behind the others, whatever their score.
    scores = xp.where(where, scores, 0.0)
    order = xp.argsort(-scores, axis=-1, stable=True)
    out = xp.take_along_axis(~where, order, -1)
    order = xp.take_along_axis(order, xp.argsort(out, axis=-1, stable=True), -1)
    present = xp.take_along_axis(where, order, -1)
    labels = xp.where(present, xp.take_along_axis(labels, order, -1), 0)
    scores = xp.take_along_axis(scores, order, -1)
    first = (scores[..., 1:] != scores[..., :-1]) | (present[..., 1:] != present[..., :-1])
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


def _in_top(lists: Ranked, k: Any) -> Any:
    """[..., D]: probability that an item is among the first k."""
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
    return (_in_top(lists, k) * (lists.labels > 0)).sum(-1) / k


def recall_of(lists: Ranked, k: Any) -> Any:
    """[...]: expected share of the relevant items that are among the first k; NaN without one."""
    xp, relevant = lists.xp, lists.labels > 0
    total = relevant.sum(-1)
    found = (_in_top(lists, k) * relevant).sum(-1)
    return xp.where(total > 0, found / xp.maximum(total, 1), np.nan)


def hit_of(lists: Ranked, k: Any) -> Any:
    """[...]: probability that the first k hold a relevant item; NaN without one."""
    xp = lists.xp
    start, later = _first_relevant(lists)
    slots = k - start
    at = xp.clip(slots - 1, 0, later.shape[-1] - 1)
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


def _mean(rows: Rows, k: int | None, value: Callable[[Ranked, int], Any]) -> float:
    depth = rows.labels.shape[-1]
    k = depth if k is None else checks.integer("k", k, at_least=1)
    fault = ~((rows.labels >= 0) & np.isfinite(rows.labels))
    rows.refuse("labels", rows.labels, fault, "finite relevances of at least 0")
    if not rows.labels.size:
        return float("nan")
    present = np.ones(rows.labels.shape, bool) if rows.items is None else rows.items
    values = value(ranked(np, rows.labels, rows.scores, present), k)
    defined = ~np.isnan(values) & present.any(-1)
    w = defined * (1.0 if rows.weights is None else rows.weights)
    return rows._replace(weights=w).mean(np.where(defined, values, 0.0))


@of_rows(lists=True)
def precision_at_k(rows: Rows, k: int) -> float:
    """Mean share of relevant items among the k with the highest scores.

    A list shorter than k is still divided by k.

    >>> precision_at_k([[1, 0, 1]], [[0.9, 0.5, 0.2]], 2)
    0.5
    """
    return _mean(rows, k, precision_of)


@of_rows(lists=True)
def recall_at_k(rows: Rows, k: int) -> float:
    """Mean share of the relevant items that are among the k with the highest scores.

    >>> recall_at_k([[1, 0, 1]], [[0.9, 0.5, 0.2]], 1)
    0.5
    """
    return _mean(rows, k, recall_of)


@of_rows(lists=True)
def hit_rate(rows: Rows, k: int) -> float:
    """Share of lists with a relevant item among the k with the highest scores.

    >>> hit_rate([[0, 1], [1, 0]], [[0.9, 0.5], [0.9, 0.5]], 1), hit_rate([[1, 0]], [[3, 3]], 1)
    (0.5, 0.5)
    """
    return _mean(rows, k, hit_of)


@of_rows(lists=True)
def mean_reciprocal_rank(rows: Rows, k: int | None = None) -> float:
    """Mean of 1 / rank of the first relevant item, counting 0 beyond rank k.

    >>> mean_reciprocal_rank([[0, 1, 0]], [[0.9, 0.5, 0.2]]), mean_reciprocal_rank([[0, 1]], [[7, 7]])
    (0.5, 0.75)
    """
    return _mean(rows, k, reciprocal_of)


@of_rows(lists=True)
def ndcg(rows: Rows, k: int | None = None, *, gain: str = "linear") -> float:
    """Mean normalised discounted cumulative gain.

        DCG = Σ_i gain_i / log₂(1 + rank_i) over ranks up to k,   NDCG = DCG / DCG of the best order

    scikit-learn counts a list without a relevant item as 0; here it does not count.

    Args:
        gain: "linear", the relevance itself, or "exponential", 2^relevance − 1.

    References:
        Järvelin and Kekäläinen 2002, Cumulated gain-based evaluation; ties: McSherry and Najork 2008.

    >>> round(ndcg([[0, 1]], [[0.9, 0.5]]), 4)  # 1 / log2(3)
    0.6309
    """
    checks.choice("gain", gain, GAINS)
    return _mean(rows, k, functools.partial(ndcg_of, gain=gain))
