"""Counts at logit-spaced thresholds: exact counts, and areas that are right where a class is rare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from jaxml import metrics
from jaxml.metrics import streaming
from jaxml.metrics.streaming.curves import bins, lower_ends

rng = np.random.default_rng(0)


def value(metric, labels, scores, weights=None):
    return jax.device_get(metric.compute(metric.update(metric.empty(), labels, scores, weights)))


@pytest.mark.parametrize("from_logits", [False, True])
def test_a_bin_is_what_is_between_its_ends(from_logits):
    ends = lower_ends(from_logits)
    assert (np.diff(ends) >= 0).all()
    if from_logits:
        extremes = [0.0, 32.0, -32.0, np.inf, -np.inf, 2.0**14, -(2.0**14), 1e30]
        some = [rng.normal(size=20_000) * scale for scale in (0.1, 5, 30, 1e4)]
    else:
        extremes = [0.0, 1.0, 0.5, 1 - 2.0**-24, 2.0**-60]
        some = [
            rng.random(20_000),
            10 ** rng.uniform(-25, 0, 20_000),
            1 - 10 ** rng.uniform(-8, 0, 20_000),
        ]
    scores = np.concatenate([*some, extremes, ends]).astype(np.float32)
    near = [np.nextafter(scores, np.float32(to)) for to in (-np.inf, np.inf)]
    scores = np.concatenate([scores, *near])
    # Subnormal numbers are flushed to 0.
    scores = scores[(np.abs(scores) > 1e-30) | (scores == 0)]
    if not from_logits:
        scores = scores[(scores >= 0) & (scores <= 1)]
    got = jax.jit(bins, static_argnums=1)(scores, from_logits)
    np.testing.assert_array_equal(got, np.searchsorted(ends, scores, "right") - 1)


def problem(kind, rate, n=300_000):
    """Labels and float32 scores of which the higher are likelier positive."""
    z = rng.normal(size=n)
    if kind == "crowded near 1":
        u = rng.random(n)
        return rng.random(n) < 2 * rate * u, (1 - 1e-4 * (1 - u)).astype(np.float32)
    labels = rng.random(n) < rate * np.exp(z - 0.5)
    if kind == "calibrated":
        scores = np.minimum(rate * np.exp(z - 0.5), 1)
    elif kind == "crowded near 0":
        scores = 1e-11 * np.exp(z)
    elif kind == "within one percent":
        scores = rate * (1 + 0.01 * np.clip(z, -5, 5))
    elif kind == "ties":
        scores = np.round(1 / (1 + np.exp(-z)), 1)
    elif kind == "constant":
        scores = np.full(n, 0.001)
    return labels, scores.astype(np.float32)


KINDS = ["calibrated", "crowded near 0", "crowded near 1", "within one percent", "ties", "constant"]


@pytest.mark.parametrize("kind", KINDS)
def test_auc_of_a_rare_class(kind):
    """Largest error seen in five draws each: 0.0022, of scores all within a few percent."""
    for rate in (0.001, 0.2):
        labels, scores = problem(kind, rate)
        wanted = sk.roc_auc_score(labels, scores)
        got = value(streaming.roc_auc_with_bound(), labels, scores)
        error = abs(float(got.value) - wanted)
        assert error < (0.005 if kind == "within one percent" else 2e-4), (kind, rate)
        assert error <= float(got.bound) + 1e-6
        if kind in ("ties", "constant"):
            assert error < 1e-6
        with np.errstate(divide="ignore"):
            logits = np.log(scores.astype(np.float64)) - np.log1p(-scores.astype(np.float64))
        of_logits = value(streaming.roc_auc(from_logits=True), labels, logits.astype(np.float32))
        assert float(of_logits) == pytest.approx(wanted, abs=0.005)
        average_precision = value(streaming.average_precision(), labels, scores)
        if kind != "within one percent":
            assert float(average_precision) == pytest.approx(
                sk.average_precision_score(labels, scores), abs=0.005
            )


def test_counts_and_curves_are_exact_at_every_threshold():
    labels, scores = problem("calibrated", 0.05, 300_000)
    labels, scores = labels[:60], scores[:60]
    weights = rng.integers(1, 5, 60).astype(np.float32)
    counts = value(streaming.threshold_counts(), labels, scores, weights)
    at = counts.thresholds
    assert np.isposinf(at[0]) and (np.diff(at[1:]) <= 0).all()
    for i in [0, 1, 5000, 30_000, *rng.integers(0, len(at), 40), len(at) - 1]:
        wanted = metrics.confusion_counts(labels, scores, threshold=at[i], weights=weights)
        assert [float(part[i]) for part in counts[1:]] == list(wanted)
    curve = value(streaming.roc_curve(), labels, scores, weights)
    np.testing.assert_allclose(
        curve.tpr, np.asarray(counts.true_positives) / counts.true_positives[-1], rtol=1e-6
    )
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    pr = value(streaming.precision_recall_curve(), labels, scores, weights)
    assert (pr.precision[-1], pr.recall[-1], pr.recall[0]) == (1, 0, 1)
    assert pr.precision[0] == pytest.approx((labels * weights).sum() / weights.sum())
    choice = metrics.threshold_for_f_beta(counts)
    exact = metrics.threshold_for_f_beta(metrics.threshold_counts(labels, scores, weights=weights))
    assert choice.objective == pytest.approx(exact.objective, abs=0.01)


def test_a_million_equal_weights_do_not_drift():
    n = 1_000_000
    labels = np.arange(n) % 1000 == 0
    scores = np.where(labels, 0.75, 0.25).astype(np.float32)
    counts = value(streaming.threshold_counts(), labels, scores, np.full(n, 0.1, np.float32))
    assert float(counts.false_positives[-1]) == pytest.approx(
        float(np.float32(0.1)) * 999_000, rel=1e-6
    )
    assert float(counts.true_positives[-1]) == pytest.approx(
        float(np.float32(0.1)) * 1000, rel=1e-6
    )


def test_counting_goes_on_where_float32_stops():
    metric = streaming.threshold_counts()
    state = metric.update(metric.empty(), jnp.zeros(3, int), jnp.full(3, 0.25))
    for _ in range(26):  # 3 · 2²⁶
        state = metric.merge(state, state)
    one = metric.update(metric.empty(), jnp.ones(1, int), jnp.full(1, 0.25))
    state = metric.merge(metric.merge(state, one), metric.update(metric.empty(), [0], [0.25]))
    total = [
        sum(float(part.sum()) for part in np.asarray(state.sums[0][i], np.float64)[None])
        for i in (0, 1)
    ]
    assert sum(total) == 3 * 2**26 + 2


def test_out_of_place_is_nan():
    for labels, scores in (([0, 1], [0.5, 1.5]), ([0, 2], [0.5, 0.5]), ([0, 1], [0.5, np.nan])):
        assert np.isnan(value(streaming.roc_auc(), np.array(labels), np.array(scores, np.float32)))
    assert np.isnan(value(streaming.roc_auc(), np.ones(2), np.full(2, 0.5)))
    with pytest.raises(ValueError, match="counts must be finite"):
        metrics.threshold_for_f_beta(
            value(streaming.threshold_counts(), np.array([0, 2]), np.full(2, 0.5))
        )


def test_bins_of_equal_mass():
    labels, scores = problem("calibrated", 0.1, 50_000)
    exact = metrics.calibration_error(labels, scores, binning="equal_mass", num_bins=10)
    metric = streaming.calibration_error(10, binning="equal_mass")
    assert float(value(metric, labels, scores)) == pytest.approx(exact, abs=1e-3)
    seen = value(streaming.reliability_diagram(10, binning="equal_mass"), labels, scores)
    np.testing.assert_allclose(seen.weight, 5000, rtol=0.02)
    assert (np.diff(seen.edges) >= 0).all()
    assert ((seen.mean_score >= seen.edges[:-1]) & (seen.mean_score <= seen.edges[1:])).all()


def test_variance_far_from_zero_and_heavy_tails():
    labels = (2013 + 0.1 * rng.normal(size=5000)).astype(np.float32)
    predictions = (labels + 0.05 * rng.normal(size=5000)).astype(np.float32)
    for name in ("r2", "explained_variance"):
        metric = getattr(streaming, name)()
        got = value(metric, labels, predictions)
        assert float(got) == pytest.approx(getattr(metrics, name)(labels, predictions), abs=1e-5)
    assert np.isnan(value(streaming.r2(), np.full(50, 2013.7, np.float32), labels[:50]))
    errors = (rng.standard_cauchy(5001) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    got = float(value(streaming.median_absolute_error(), errors, np.zeros_like(errors)))
    assert got == pytest.approx(metrics.median_absolute_error(errors, 0 * errors), rel=0.004)
