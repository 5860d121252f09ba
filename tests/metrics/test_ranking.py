"""Order in lists: scikit-learn's NDCG; the others against every order of the ties, one by one."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxml import metrics

rng = np.random.default_rng(0)


def of_order(labels, k):
    """The four measures of one order."""
    relevant = np.asarray(labels) > 0
    first = np.flatnonzero(relevant)[0] + 1
    return np.array(
        [
            relevant[:k].sum() / k,
            relevant[:k].sum() / relevant.sum(),
            float(first <= k),
            1 / first if first <= k else 0.0,
        ]
    )


def brute_force(labels, scores, k):
    """Mean over all orders of the items that sort the scores."""
    orders = [
        order
        for order in itertools.permutations(range(len(labels)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return np.mean([of_order(labels[list(order)], k) for order in orders], axis=0)


def ours(labels, scores, k, **options):
    of = (
        metrics.precision_at_k,
        metrics.recall_at_k,
        metrics.hit_rate,
        metrics.mean_reciprocal_rank,
    )
    return np.array([one(labels, scores, k, **options) for one in of])


def test_ties_are_averaged_over_every_order():
    for _ in range(40):
        d = int(rng.integers(1, 7))
        labels, scores = rng.integers(0, 2, d), rng.integers(0, 3, d)
        k = int(rng.integers(1, d + 2))
        if labels.any():
            np.testing.assert_allclose(
                ours(labels[None], scores[None], k), brute_force(labels, scores, k), atol=1e-12
            )


@pytest.mark.parametrize("k", [None, 1, 3, 50])
def test_ndcg_is_scikit_learns(k):
    for levels in (3, 1000):
        labels = rng.integers(0, 4, (30, 12))
        labels[:, 0] = 1
        scores = rng.integers(0, levels, (30, 12)) / levels
        assert metrics.ndcg(labels, scores, k) == pytest.approx(
            sk.ndcg_score(labels, scores, k=k), abs=1e-12
        )
        assert metrics.ndcg(labels, scores, k, gain="exponential") == pytest.approx(
            sk.ndcg_score(2.0**labels - 1, scores, k=k), abs=1e-12
        )


def test_padding_and_empty_lists_do_not_count():
    labels, scores = rng.integers(0, 2, (5, 6)), rng.random((5, 6))
    labels[:, 0] = 1
    wanted = np.append(ours(labels, scores, 2), metrics.ndcg(labels, scores, 2))
    filled = [
        np.pad(part.astype(float), ((0, 2), (0, 3)), constant_values=np.nan)
        for part in (labels, scores)
    ]
    there = np.pad(np.ones((5, 6), bool), ((0, 2), (0, 3)))
    got = np.append(ours(*filled, 2, mask=there), metrics.ndcg(*filled, 2, mask=there))
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    # A list without a relevant item counts for precision alone.
    one = np.array([[1, 0], [0, 0]])
    assert metrics.precision_at_k(one, one, 1) == 0.5
    assert metrics.recall_at_k(one, one, 1) == metrics.ndcg(one, one) == 1


def test_lists_are_weighted_and_refused_by_number():
    labels, scores = np.array([[1, 0], [0, 1]]), np.array([[2.0, 1.0]] * 2)
    assert metrics.hit_rate(labels, scores, 1, weights=[3, 1]) == 0.75
    assert metrics.hit_rate(labels, scores, 1, mask=np.array([True, False])) == 1
    with pytest.raises(ValueError, match="labels must be finite relevances of at least 0; row 1"):
        metrics.ndcg([[1, 0], [0, -1]], scores)
    with pytest.raises(ValueError, match="scores must be numbers; row 0"):
        metrics.ndcg(labels, [[np.nan, 0], [1, 2]])
    with pytest.raises(ValueError, match="k must be an integer of at least 1, got 0"):
        metrics.precision_at_k(labels, scores, 0)


def test_an_exponential_gain_does_not_overflow():
    labels, scores = [[2000, 1, 0]], [[0.2, 0.3, 0.1]]
    wanted = 1 / np.log2(3)
    assert metrics.ndcg(labels, scores, gain="exponential") == pytest.approx(wanted)
    metric = metrics.streaming.ndcg(gain="exponential")
    state = metric.update(metric.empty(), np.array(labels), np.array(scores))
    assert float(metric.compute(state)) == pytest.approx(wanted, rel=1e-6)
