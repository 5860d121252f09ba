"""Chosen thresholds against a search over all of them."""

import numpy as np
import pytest

from jaxml import metrics


def problem(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 60))
    labels = rng.random(n) < 0.4
    labels[:2] = [True, False]
    scores = np.round(rng.random(n) + 0.3 * labels, 1 + seed % 2)
    return labels, scores, metrics.threshold_counts(labels, scores)


def at_each(labels, scores, of):
    return {t: of(labels, scores, threshold=t) for t in [np.inf, *np.unique(scores)]}


def test_cost():
    for seed in range(12):
        labels, scores, counts = problem(seed)
        alarm, miss = np.random.default_rng(seed).integers(0, 5, 2)

        def cost(labels, scores, threshold, alarm=alarm, miss=miss):
            positive = scores >= threshold
            return np.mean(alarm * (positive & ~labels) + miss * (~positive & labels))

        choice = metrics.threshold_for_cost(counts, false_positive=alarm, false_negative=miss)
        best = min(at_each(labels, scores, cost).values())
        assert choice.objective == pytest.approx(best)
        assert cost(labels, scores, choice.threshold) == pytest.approx(best)
        assert choice.reached


def test_precision_and_recall():
    for seed in range(12):
        labels, scores, counts = problem(seed)
        precision = at_each(labels, scores, metrics.precision)
        recall = at_each(labels, scores, metrics.recall)
        for wish in (0.0, 0.5, 0.8, 1.0):
            choice = metrics.threshold_for_precision(counts, wish)
            fit = [t for t, p in precision.items() if p >= wish]
            assert choice.reached == bool(fit)
            if fit:
                assert choice.recall == max(recall[t] for t in fit)
                assert choice.precision >= wish
            else:
                assert choice.precision == np.nanmax(list(precision.values()))
                assert "cannot be reached" in str(choice)
            choice = metrics.threshold_for_recall(counts, wish)
            fit = [t for t, r in recall.items() if r >= wish]
            assert choice.reached and choice.recall >= wish
            assert choice.precision == np.nanmax([precision[t] for t in fit])
            assert choice.false_positive_rate == metrics.false_positive_rate(
                labels, scores, threshold=choice.threshold
            )


def test_f_beta():
    for seed in range(8):
        labels, scores, counts = problem(seed)
        for beta in (0.5, 1, 2):
            choice = metrics.threshold_for_f_beta(counts, beta)
            achieved = metrics.f_beta(labels, scores, beta=beta, threshold=choice.threshold)
            scored = [
                metrics.f_beta(labels, scores, beta=beta, threshold=t) for t in np.unique(scores)
            ]
            assert choice.objective == pytest.approx(max(scored)) == pytest.approx(achieved)


def test_unreachable_wishes():
    none = metrics.threshold_counts([0, 0], [0.1, 0.2])
    assert not metrics.threshold_for_recall(none, 0.5).reached
    assert not metrics.threshold_for_f_beta(none).reached
    assert not metrics.threshold_for_precision(none, 0.5).reached
    assert metrics.threshold_for_cost(none, false_positive=1, false_negative=1).threshold == np.inf
    every = metrics.threshold_counts([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="must hold an example"):
        metrics.threshold_for_cost(
            metrics.threshold_counts([], []), false_positive=1, false_negative=1
        )
    with pytest.raises(ValueError, match=r"minimum must be .* in \[0, 1\], got 1.5"):
        metrics.threshold_for_precision(every, 1.5)
    with pytest.raises(ValueError, match=r"false_positive must be .* at least 0, got -1"):
        metrics.threshold_for_cost(every, false_positive=-1, false_negative=1)


def test_a_calibrated_models_threshold_is_the_ratio_of_costs():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    counts = metrics.threshold_counts(rng.random(len(p)) < p, p)
    choice = metrics.threshold_for_cost(counts, false_positive=1, false_negative=4)
    assert choice.threshold == pytest.approx(1 / 5, abs=0.02)
