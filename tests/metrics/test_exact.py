"""One-call metrics against scikit-learn, over random data with ties, weights, masks and extremes."""

import functools
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk

from jaxml import metrics


def data(seed, kind):
    """Labels, scores in [0, 1] and weights of one of many kinds."""
    rng = np.random.default_rng([seed, 7])
    n = int(rng.integers(20, 400))
    labels = rng.random(n) < rng.choice([0.05, 0.5, 0.9])
    labels[:2] = [False, True]
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) * 3 + labels)))
    if kind == "ties":
        scores = np.round(scores * 4) / 4
    elif kind == "constant":
        scores = np.full(n, 0.3)
    elif kind == "crowded near 0":
        scores = scores * 1e-12
    elif kind == "crowded near 1":
        scores = 1 - scores * 1e-12
    elif kind == "0 and 1":
        scores = np.round(scores)
    weights = rng.choice([0.0, 0.5, 1.0, 3.0], n) + rng.random(n) * (seed % 2)
    weights[:2] = 1.0
    return labels.astype([int, bool, float][seed % 3]), scores, weights


KINDS = ["plain", "ties", "constant", "crowded near 0", "crowded near 1", "0 and 1"]


def said(scores, threshold=0.5):
    return (scores >= threshold).astype(int)


def fpr(labels, decisions, sample_weight):
    (tn, fp), _ = sk.confusion_matrix(labels, decisions, sample_weight=sample_weight)
    return fp / (tn + fp)


BINARY = {
    "roc_auc": (metrics.roc_auc, lambda y, s, w: sk.roc_auc_score(y, s, sample_weight=w)),
    "average_precision": (
        metrics.average_precision,
        lambda y, s, w: sk.average_precision_score(y, s, sample_weight=w),
    ),
    "log_loss": (metrics.log_loss, lambda y, s, w: sk.log_loss(y, s, sample_weight=w)),
    "brier": (metrics.brier, lambda y, s, w: sk.brier_score_loss(y, s, sample_weight=w)),
    "accuracy": (
        metrics.accuracy,
        lambda y, s, w: sk.accuracy_score(y, said(s), sample_weight=w),
    ),
    "precision": (
        functools.partial(metrics.precision, zero_division=0.0),
        lambda y, s, w: sk.precision_score(y, said(s), sample_weight=w, zero_division=0),
    ),
    "recall at 0.2": (
        functools.partial(metrics.recall, threshold=0.2),
        lambda y, s, w: sk.recall_score(y, said(s, 0.2), sample_weight=w),
    ),
    "f_beta": (
        functools.partial(metrics.f_beta, beta=2.0),
        lambda y, s, w: sk.fbeta_score(y, said(s), beta=2, sample_weight=w, zero_division=0),
    ),
    "false_positive_rate": (
        metrics.false_positive_rate,
        lambda y, s, w: fpr(y, said(s), w),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BINARY)
def test_binary_metrics_are_scikit_learns(name, kind):
    ours, theirs = BINARY[name]
    for seed in range(6):
        labels, scores, weights = data(seed, kind)
        for w in (None, weights):
            wanted = theirs(labels.astype(int), scores, w)
            assert ours(labels, scores, weights=w) == pytest.approx(wanted, abs=1e-12), (seed, w)


@pytest.mark.parametrize("name", BINARY)
def test_masked_rows_do_not_count_whatever_they_hold(name):
    ours, _ = BINARY[name]
    labels, scores, weights = data(1, "ties")
    wanted = ours(labels, scores, weights=weights)
    pad = [np.append(part.astype(float), [np.nan, 7.0]) for part in (labels, scores, weights)]
    mask = np.arange(len(pad[0])) < len(labels)
    order = np.random.default_rng(0).permutation(len(mask))
    given = [part[order] for part in (*pad, mask)]
    assert ours(*given[:2], weights=given[2], mask=given[3]) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", BINARY)
def test_numpy_lists_and_jax_arrays_of_any_shape(name):
    ours, _ = BINARY[name]
    labels, scores = np.array([[0, 1, 1], [1, 0, 0]]), np.array([[0.25, 0.5, 0.75]] * 2)
    wanted = ours(labels.ravel(), scores.ravel())
    for kind in (
        np.asarray,
        jnp.asarray,
        np.ndarray.tolist,
        lambda v: jnp.asarray(v, jnp.bfloat16),
    ):
        assert ours(kind(labels), kind(scores)) == pytest.approx(wanted, abs=1e-12)


def test_what_is_undefined_is_nan_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.roc_auc([1, 1], [0.1, 0.2]))
        assert np.isnan(metrics.roc_auc([0, 0], [0.1, 0.2]))
        assert np.isnan(metrics.average_precision([0, 0], [0.1, 0.2]))
        assert metrics.average_precision([1, 1], [0.1, 0.2]) == 1
        assert np.isnan(metrics.roc_curve([1, 1], [0.1, 0.2]).fpr).all()
        assert np.isnan(metrics.precision([0, 1], [0.1, 0.2]))
        assert np.isnan(metrics.recall([0, 0], [0.1, 0.2]))
        assert np.isnan(metrics.false_positive_rate([1, 1], [0.1, 0.2]))
        for ours, _ in BINARY.values():
            if not isinstance(ours, functools.partial) or "zero_division" not in ours.keywords:
                assert np.isnan(ours([], []))
                assert np.isnan(ours([0, 1], [0.2, 0.3], mask=[False, False]))
                assert np.isnan(ours([0, 1], [0.2, 0.3], weights=[0, 0]))
        for of in ("mean_squared_error", "mean_absolute_error", "median_absolute_error", "r2",
                   "explained_variance", "huber", "root_mean_squared_error"):  # fmt: skip
            assert np.isnan(getattr(metrics, of)([], []))
        assert np.isnan(metrics.calibration_error([], []))
        assert np.isnan(metrics.ndcg(np.zeros((0, 3)), np.zeros((0, 3))))


@pytest.mark.parametrize(
    "labels, scores, options, message",
    [
        ([0, 1, 1], [0.1, 0.2, np.nan], {}, "scores must be numbers; row 2"),
        ([0, 1, 2], [0.1, 0.2, 0.3], {}, "labels must be 0 or 1; row 2 is 2"),
        ([-1, 1], [0.1, 0.2], {}, "labels must be 0 or 1; row 0"),
        ([0, np.nan], [0.1, 0.2], {}, "labels must be numbers; row 1"),
        ([0, 1], [0.1, 0.2, 0.3], {}, r"shape of labels, \(2,\)"),
        ([0, 1], [0.1, 0.2], {"weights": [1, -1]}, "weights must be finite and at least 0; row 1"),
        ([0, 1], [0.1, 0.2], {"weights": [1]}, r"weights must have shape \(2,\)"),
        ([0, 1], [0.1, 0.2], {"mask": [1, 2]}, "mask must be boolean, or hold zeros and ones"),
        # The row is the caller's, not that of what the mask left.
        ([0, 1, 5], [0.1, 0.2, 1], {"mask": [False, True, True]}, "row 2 is 5"),
        (["a", "b"], [0.1, 0.2], {}, "labels must hold real numbers"),
    ],
)
def test_bad_rows_are_refused_with_their_number(labels, scores, options, message):
    for of in (metrics.roc_auc, metrics.average_precision, metrics.precision):
        with pytest.raises(ValueError, match=message):
            of(labels, scores, **options)


def test_curves_are_scikit_learns():
    for seed in range(12):
        labels, scores, weights = data(seed, KINDS[seed % 6])
        w = weights if seed % 4 else None
        y = labels.astype(int)
        for drop in (True, False):
            wanted = sk.roc_curve(y, scores, sample_weight=w, drop_intermediate=drop)
            got = metrics.roc_curve(labels, scores, weights=w, drop_intermediate=drop)
            if w is None or not drop:  # whether rounded weights lie on a line is a matter of bits
                for ours, theirs in zip(got, wanted, strict=True):
                    np.testing.assert_allclose(ours, theirs, atol=1e-12)
            assert sk.auc(got.fpr, got.tpr) == pytest.approx(
                metrics.roc_auc(labels, scores, weights=w), abs=1e-12
            )
        wanted = sk.precision_recall_curve(y, scores, sample_weight=w)
        for ours, theirs in zip(
            metrics.precision_recall_curve(labels, scores, weights=w), wanted, strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_infinite_scores_are_scores():
    assert metrics.roc_auc([0, 1, 1], [-np.inf, 0.0, np.inf]) == 1
    assert metrics.log_loss([1, 0], [np.inf, -np.inf], from_logits=True) == 0


def test_confusion_matrix_and_averages_are_scikit_learns():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        n, c = 60, 5
        labels, decisions = rng.integers(0, c - seed % 2, n), rng.integers(0, c, n)
        w = rng.random(n) if seed % 3 else None
        np.testing.assert_allclose(
            metrics.confusion_matrix(labels, decisions, num_classes=c, weights=w),
            sk.confusion_matrix(labels, decisions, labels=range(c), sample_weight=w),
        )
        for average in ("micro", "macro", "weighted", None):
            options = {"average": average, "sample_weight": w, "zero_division": 0}
            ours = {"average": average, "weights": w, "zero_division": 0}
            np.testing.assert_allclose(
                metrics.precision(labels, decisions, **ours),
                sk.precision_score(labels, decisions, **options),
            )
            np.testing.assert_allclose(
                metrics.recall(labels, decisions, **ours),
                sk.recall_score(labels, decisions, **options),
            )
            np.testing.assert_allclose(
                metrics.f_beta(labels, decisions, beta=0.5, **ours),
                sk.fbeta_score(labels, decisions, beta=0.5, **options),
            )
        assert metrics.accuracy(labels, decisions, weights=w) == pytest.approx(
            sk.accuracy_score(labels, decisions, sample_weight=w)
        )


def test_a_class_that_occurs_nowhere_is_left_out_of_the_average():
    two = metrics.f_beta([0, 1, 1], [0, 1, 0], average="macro", num_classes=2)
    assert metrics.f_beta([0, 1, 1], [0, 1, 0], average="macro", num_classes=9) == two
    per_class = metrics.recall([0, 1, 1], [0, 1, 0], average=None, num_classes=3)
    np.testing.assert_array_equal(per_class, [1, 0.5, np.nan])


def test_several_classes_are_scikit_learns():
    rng = np.random.default_rng(0)
    n, c = 200, 6
    labels, logits = rng.integers(0, c, n), rng.normal(size=(n, c)) * 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    w = rng.random(n)
    assert metrics.log_loss(labels, p, weights=w) == pytest.approx(
        sk.log_loss(labels, p, sample_weight=w), abs=1e-12
    )
    assert metrics.log_loss(labels, logits, weights=w, from_logits=True) == pytest.approx(
        sk.log_loss(labels, p, sample_weight=w), abs=1e-12
    )
    assert metrics.brier(labels, p) == pytest.approx(sk.brier_score_loss(labels, p), abs=1e-12)
    for k in (1, 2, 5, 6, 9):
        assert metrics.top_k_accuracy(labels, logits, k, weights=w) == pytest.approx(
            sk.top_k_accuracy_score(labels, logits, k=min(k, c - 1), sample_weight=w)
            if k < c
            else 1.0
        )
    assert metrics.accuracy(labels, p) == pytest.approx((p.argmax(1) == labels).mean())
    with pytest.raises(ValueError, match=r"sum to 1; row 3"):
        metrics.log_loss([0] * 4, [[0.5, 0.5]] * 3 + [[0.5, 0.7]])


def test_ties_of_the_top_k_are_shared():
    scores = [[1.0, 1.0, 1.0, 0.0]]
    assert [metrics.top_k_accuracy([0], scores, k) for k in (1, 2, 3)] == [1 / 3, 2 / 3, 1]
    assert metrics.top_k_accuracy([3], scores, 3) == 0


def test_probabilities_are_probabilities():
    for of in (metrics.log_loss, metrics.brier, metrics.calibration_error, metrics.prediction_bias):
        with pytest.raises(ValueError, match=r"probabilities in \[0, 1\].*row 1"):
            of([0, 1], [0.5, 1.5])
        labels, logits = [0, 1, 1], np.array([-1.0, 0.3, 2.0])
        assert of(labels, logits, from_logits=True) == pytest.approx(
            of(labels, 1 / (1 + np.exp(-logits))), abs=1e-12
        )


def test_log_loss_clips_by_the_dtype_as_scikit_learn():
    for dtype in (np.float64, np.float32):
        p = np.array([0, 1, 0.5], dtype)
        assert metrics.log_loss([1, 0, 1], p) == pytest.approx(sk.log_loss([1, 0, 1], p), rel=1e-6)
    assert metrics.log_loss([1, 0], [-1e4, 1e4], from_logits=True) == 1e4


@pytest.mark.parametrize(
    "binning, strategy", [("equal_width", "uniform"), ("equal_mass", "quantile")]
)
def test_reliability_is_scikit_learns(binning, strategy):
    for seed in range(8):
        labels, scores, _ = data(seed, ["plain", "ties", "0 and 1", "constant"][seed % 4])
        wanted = sk_calibration.calibration_curve(
            labels.astype(int), scores, n_bins=7, strategy=strategy
        )
        seen = metrics.reliability_diagram(labels, scores, num_bins=7, binning=binning)
        some = seen.weight > 0
        np.testing.assert_allclose(seen.fraction_positive[some], wanted[0], atol=1e-12)
        np.testing.assert_allclose(seen.mean_score[some], wanted[1], atol=1e-12)
        gaps = np.abs(wanted[0] - wanted[1])
        share = seen.weight[some] / seen.weight.sum()
        for norm, error in (
            ("l1", (share * gaps).sum()),
            ("l2", np.sqrt((share * gaps**2).sum())),
            ("max", gaps.max()),
        ):
            assert metrics.calibration_error(
                labels, scores, num_bins=7, binning=binning, norm=norm
            ) == pytest.approx(error, abs=1e-12)


def test_whole_weights_are_copies():
    rng = np.random.default_rng(3)
    labels, scores, copies = rng.integers(0, 2, 50), rng.random(50), rng.integers(0, 4, 50)
    again = [np.repeat(part, copies) for part in (labels, scores)]
    for of in (
        metrics.roc_auc,
        metrics.average_precision,
        metrics.log_loss,
        metrics.calibration_error,
        metrics.prediction_bias,
        metrics.r2,
        metrics.median_absolute_error,
        metrics.huber,
    ):
        assert of(labels, scores, weights=copies) == pytest.approx(of(*again), abs=1e-12), of


def test_the_highest_of_several_classes_is_what_is_calibrated():
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.9, 0.1]])
    assert metrics.calibration_error([0, 1, 1], p, num_bins=2) == pytest.approx(abs(2.4 - 2) / 3)


REGRESSION = {
    "mean_squared_error": sk.mean_squared_error,
    "root_mean_squared_error": sk.root_mean_squared_error,
    "mean_absolute_error": sk.mean_absolute_error,
    "median_absolute_error": sk.median_absolute_error,
    "r2": sk.r2_score,
    "explained_variance": sk.explained_variance_score,
}


@pytest.mark.parametrize("name", REGRESSION)
def test_regression_is_scikit_learns(name):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 60))
        labels = rng.normal(size=n) * 10.0 ** rng.integers(-3, 4) + rng.choice([0, 1e4])
        predictions = labels + rng.standard_t(2, n)
        w = rng.random(n) if seed % 2 else None
        assert getattr(metrics, name)(labels, predictions, weights=w) == pytest.approx(
            REGRESSION[name](labels, predictions, sample_weight=w), rel=1e-9
        ), seed


def test_regression_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="predictions must be finite; row 1 is inf"):
        metrics.mean_squared_error([0, 1], [0, np.inf])
    assert np.isnan(metrics.r2([2, 2, 2], [1, 2, 3]))
    with pytest.raises(ValueError, match=r"delta must be above 0.*got 0"):
        metrics.huber([0], [1], delta=0)


def test_labels_that_are_all_alike_have_no_variance_whatever_the_rounding():
    for weights in (None, [0.3] * 7):
        assert np.isnan(metrics.r2([0.1] * 7, [0.2] * 7, weights=weights))
        assert np.isnan(metrics.explained_variance([0.1] * 7, [0.1] * 7, weights=weights))
    assert np.isnan(metrics.r2([0.1] * 6 + [5], [0.2] * 7, weights=[0.3] * 6 + [0]))


def test_a_row_of_no_weight_may_cost_infinitely_much():
    of = functools.partial(metrics.log_loss, [1, 1], [-np.inf, 0.0], from_logits=True)
    assert of() == np.inf
    assert of(weights=[0, 1]) == pytest.approx(np.log(2))


def test_a_mask_of_zeros_and_ones_is_a_mask():
    labels, scores = [0, 1, 1, 7], [0.2, 0.1, 0.9, np.nan]
    wanted = metrics.roc_auc(labels, scores, mask=np.array([True, True, True, False]))
    for dtype in (int, np.uint8, np.float32):
        assert metrics.roc_auc(labels, scores, mask=np.array([1, 1, 1, 0], dtype)) == wanted == 0.5
    lists = metrics.ndcg([[1, 0, 5]], [[0.1, 0.2, 0.3]], mask=[[1, 1, 0]])
    assert lists == metrics.ndcg([[1, 0]], [[0.1, 0.2]])
    for mask in ([1, 1, 1, 2], [1, 1, 1, np.nan], [1, 1, 1, None]):
        with pytest.raises(ValueError, match="mask must be boolean, or hold zeros and ones"):
            metrics.roc_auc(labels, scores, mask=mask)


def test_objects_that_are_numbers_are_numbers():
    """Columns of a data frame with booleans that may be missing come like this."""
    given = np.array([True, False, True], object), np.array([0.1, 0.2, 3], object)
    assert metrics.roc_auc(*given) == 0.5
    for bad in ("0.1", None):
        with pytest.raises(ValueError, match="scores must hold real numbers, got dtype object"):
            metrics.roc_auc([0, 1], np.array([bad, 0.2], object))


def test_logits_of_several_classes_need_a_finite_largest():
    logits = [[-np.inf, 1.0], [-np.inf, -np.inf]]
    for of in (metrics.log_loss, metrics.brier, metrics.calibration_error):
        with pytest.raises(ValueError, match="largest is finite; row 1"):
            of([1, 0], logits, from_logits=True)
        with pytest.raises(ValueError, match="largest is finite; row 0"):
            of([1], [[0.0, np.inf]], from_logits=True)
    assert metrics.log_loss([1], logits[:1], from_logits=True) == 0
