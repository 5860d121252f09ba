"""Counts at thresholds spaced in logit are exact, and the areas are right where a class is rare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from jaxml import metrics
from jaxml.metrics import streaming

rng = np.random.default_rng(0)


def value(metric, labels, scores, weights=None):
    return jax.device_get(metric.compute(metric.update(metric.empty(), labels, scores, weights)))


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
    elif kind.startswith("within"):
        scores = rate * (1 + float(kind.split()[1]) * np.clip(z, -5, 5))
        if "but for a few" in kind:
            scores = np.where(rng.random(n) < 0.01, rng.integers(0, 2, n), scores)
    elif kind == "ranks":
        scores = (np.argsort(np.argsort(z)) + 1) / n
    elif kind == "ties":
        scores = np.round(1 / (1 + np.exp(-z)), 1)
    elif kind == "constant":
        scores = np.full(n, 0.001)
    return labels, scores.astype(np.float32)


KINDS = [
    "calibrated",
    "crowded near 0",
    "crowded near 1",
    "within 0.1 of the rate",
    "within 0.01 of the rate",
    "within 0.001 of the rate",
    "within 0.01 of the rate but for a few at 0 and 1",
    "ranks",
    "ties",
    "constant",
]


@pytest.mark.parametrize("kind", KINDS)
def test_areas_of_a_rare_class(kind):
    for rate in (0.001, 0.2):
        labels, scores = problem(kind, rate, 20_000)
        wanted = sk.roc_auc_score(labels, scores)
        wanted_ap = sk.average_precision_score(labels, scores)
        got = value(streaming.roc_auc_with_bound(), labels, scores)
        error = abs(float(got.value) - wanted)
        assert error < 0.001, (kind, rate)
        assert error <= float(got.bound) + 1e-6
        if kind in ("ties", "constant"):
            assert error < 1e-6
        assert float(value(streaming.average_precision(), labels, scores)) == pytest.approx(
            wanted_ap, abs=0.005
        )
        with np.errstate(divide="ignore"):
            logits = np.log(scores.astype(np.float64)) - np.log1p(-scores.astype(np.float64))
        logits = logits.astype(np.float32)
        for name, exact in (("roc_auc", wanted), ("average_precision", wanted_ap)):
            got = value(getattr(streaming, name)(from_logits=True), labels, logits)
            assert float(got) == pytest.approx(exact, abs=0.005), (name, rate)


@pytest.mark.parametrize("kind", ["calibrated", "within 0.01", "ties", "one bin", "near 1"])
@pytest.mark.parametrize("from_logits", [False, True])
def test_counts_are_exact_at_every_threshold(kind, from_logits):
    labels, scores = problem("calibrated" if kind in ("one bin", "near 1") else kind, 0.05, 400)
    if kind == "one bin":
        scores = (0.3 + 3e-4 * scores).astype(np.float32)
    elif kind == "near 1":
        scores = np.concatenate([1 - 1e-5 * scores[:300], np.ones(50), np.full(50, 0.5)])
    if from_logits:
        with np.errstate(divide="ignore"):
            scores = np.log(scores.astype(np.float64)) - np.log1p(-scores.astype(np.float64))
        scores[-20:] = np.array(
            [-np.inf, np.inf, -30000, 30000, 40, -40, 40.01, -40.01, 0, 1e-9] * 2
        )
    scores = scores.astype(np.float32)
    weights = rng.integers(1, 5, 400).astype(np.float32)
    counts = value(streaming.threshold_counts(from_logits=from_logits), labels, scores, weights)
    at = counts.thresholds
    assert np.isposinf(at[0]) and (at[1:-1] >= at[2:]).all()
    order = np.argsort(scores)
    reached = np.searchsorted(scores[order], at[1:], "left")
    for part, of in ((counts.true_positives, labels), (counts.false_positives, ~labels)):
        below = np.concatenate([[0.0], np.cumsum((of * weights)[order])])
        np.testing.assert_array_equal(part[1:], below[-1] - below[reached])
    if kind in ("within 0.01", "one bin"):  # which are 70 bins, and one or two
        assert len(np.unique(reached)) > (20 if kind == "one bin" else 330)
    # Areas take a shorter way than over all thresholds.
    tp, fp = (np.asarray(part, np.float64) for part in counts[1:3])
    rises = np.diff(tp)
    areas = {
        "roc_auc": (np.diff(fp) * (tp[1:] + tp[:-1])).sum() / 2 / (tp[-1] * fp[-1]),
        "average_precision": (rises * tp[1:])[rises > 0] @ (1 / (tp + fp)[1:][rises > 0]) / tp[-1],
    }
    for name, wanted in areas.items():
        got = value(getattr(streaming, name)(from_logits=from_logits), labels, scores, weights)
        assert float(got) == pytest.approx(wanted, abs=2e-6), name


def test_curves_are_made_of_the_counts():
    labels, scores = problem("calibrated", 0.05, 400)
    weights = rng.integers(1, 5, 400).astype(np.float32)
    counts = value(streaming.threshold_counts(), labels, scores, weights)
    curve = value(streaming.roc_curve(), labels, scores, weights)
    np.testing.assert_allclose(
        curve.tpr, np.asarray(counts.true_positives) / counts.true_positives[-1], rtol=1e-6
    )
    ends = curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]
    assert ends == pytest.approx((0, 0, 1, 1))
    pr = value(streaming.precision_recall_curve(), labels, scores, weights)
    assert (pr.precision[-1], pr.recall[-1], pr.recall[0]) == pytest.approx((1, 0, 1))
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


def test_large_errors_do_not_overflow():
    far = np.array([2e20, -3e20, 1.0], np.float32)
    got = float(value(streaming.root_mean_squared_error(), far, np.zeros(3, np.float32)))
    assert got == pytest.approx(metrics.root_mean_squared_error(far, 0 * far), rel=1e-6)
    # Nor do sums of many whose mean is a float32.
    for name, error in (
        ("mean_squared_error", 1e19),
        ("root_mean_squared_error", 3e38),
        ("mean_absolute_error", 3e38),
    ):
        many = np.append(np.full(10, error, np.float32), [2.0, -5.0])[:, None]
        got = float(value(getattr(streaming, name)(), many, 0 * many))
        assert got == pytest.approx(getattr(metrics, name)(many, 0 * many), rel=1e-6), name
