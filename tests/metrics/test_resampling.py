"""Bootstrap intervals: reproducible, as wide as theory predicts, and covering as often as promised."""

import jax
import numpy as np
import pytest
from scipy import special

from jaxml import metrics
from jaxml.metrics import streaming

rng = np.random.default_rng(0)
LABELS = rng.random(1000) < 0.3
SCORES = special.expit(rng.normal(size=1000) + 1.5 * LABELS - 1)


def test_a_key_is_an_interval(key):
    one = metrics.bootstrap(streaming.brier(), LABELS, SCORES, key=key, num_samples=50)
    two = metrics.bootstrap(streaming.brier(), LABELS, SCORES, key=key, num_samples=50)
    np.testing.assert_array_equal(one.samples, two.samples)
    assert one[:4] == two[:4]
    other = metrics.bootstrap(
        streaming.brier(), LABELS, SCORES, key=jax.random.key(1), num_samples=50
    )
    assert other.low != one.low


def test_one_call_and_mergeable_forms_see_the_same_resamples(key):
    options = {"key": key, "num_samples": 40}
    exact = metrics.bootstrap(metrics.accuracy, LABELS, SCORES, **options)
    streamed = metrics.bootstrap(streaming.accuracy(), LABELS, SCORES, **options)
    np.testing.assert_allclose(exact.samples, streamed.samples, atol=1e-6)
    np.testing.assert_allclose(exact[:4], streamed[:4], atol=1e-6)


def test_the_standard_error_is_that_of_a_mean(key):
    found = metrics.bootstrap(streaming.accuracy(), LABELS, SCORES, key=key, num_samples=320)
    wanted = np.sqrt(found.value * (1 - found.value) / 1000)
    assert found.standard_error == pytest.approx(wanted, rel=0.15)
    assert found.high - found.low == pytest.approx(2 * 1.96 * wanted, rel=0.2)


@pytest.mark.slow
def test_nine_in_ten_intervals_hold_the_truth(key):
    """Of 90 % intervals for accuracy, over 100 samples of 256: within three standard errors, 9 %."""
    truth, held = 0.8, 0
    for i in range(100):
        hits = np.random.default_rng(i).random(256) < truth
        found = metrics.bootstrap(
            streaming.accuracy(),
            np.ones(256, np.int32),
            hits.astype(np.float32),
            key=jax.random.fold_in(key, i),
            num_samples=96,
            confidence=0.9,
        )
        held += found.low <= truth <= found.high
    assert 0.81 <= held / 100 <= 0.99


def test_a_rare_class_keeps_its_size(key):
    labels = np.zeros(1000, int)
    labels[:3] = 1

    def positives(labels, scores, weights):
        return float((labels * weights).sum())

    kept = metrics.bootstrap(positives, labels, labels, key=key, num_samples=20)
    assert (kept.samples == 3).all()
    auc = metrics.bootstrap(metrics.roc_auc, labels, rng.random(1000), key=key, num_samples=20)
    assert np.isfinite(auc.samples).all() and auc.low < auc.high


def test_nothing_and_one_class_give_nan(key):
    empty = metrics.bootstrap(streaming.accuracy(), [], [], key=key, num_samples=2)
    assert np.isnan([empty.value, empty.low, empty.high]).all()
    one = metrics.bootstrap(metrics.roc_auc, [1, 1], [0.1, 0.2], key=key, num_samples=4)
    assert np.isnan([one.value, one.low, one.high]).all()
    with pytest.raises(ValueError, match="confidence must be a finite number"):
        metrics.bootstrap(metrics.roc_auc, LABELS, SCORES, key=key, confidence=95)
    with pytest.raises(ValueError, match="metric must give one number"):
        metrics.bootstrap(streaming.confusion_counts(), LABELS, SCORES, key=key)


def test_masked_rows_are_never_drawn(key):
    padded = [np.append(part, [np.nan] * 24) for part in (LABELS.astype(float), SCORES)]
    mask = np.arange(1024) < 1000
    options = {"key": key, "num_samples": 30}
    with_mask = metrics.bootstrap(streaming.brier(), *padded, mask=mask, **options)
    without = metrics.bootstrap(streaming.brier(), LABELS, SCORES, **options)
    np.testing.assert_allclose(with_mask.samples, without.samples)


def test_columns_of_pandas_are_arrays(key):
    pandas = pytest.importorskip("pandas")
    labels, scores = [0, 1, 1, 0], [0.1, 0.9, 0.2, 0.4]
    options = {"key": key, "num_samples": 16}
    wanted = metrics.bootstrap(streaming.accuracy(), labels, scores, **options)
    series = pandas.Series(labels, [3, 2, 1, 0], dtype="Int64")
    found = metrics.bootstrap(streaming.accuracy(), series, pandas.Series(scores), **options)
    np.testing.assert_array_equal(found.samples, wanted.samples)
