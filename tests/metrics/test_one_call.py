"""One-call metrics against scikit-learn, and the checks in front of them."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk

from jaxml import metrics
from jaxml.metrics import streaming


def data(seed, kind="plain"):
    """Labels, scores in [0, 1] and weights, of which some are 0."""
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
    weights = rng.choice([0.0, 0.5, 1.0, 3.0], n) + rng.random(n) * (seed % 2)
    weights[:2] = 1.0
    return labels.astype([int, bool, float][seed % 3]), scores, weights


KINDS = ["plain", "ties", "constant", "crowded near 0"]


def at(threshold, of, **options):
    """A figure of scikit-learn for decisions at a threshold."""
    return lambda y, s, w: of(y, (s >= threshold).astype(int), sample_weight=w, **options)


def of_scores(of):
    return lambda y, s, w: of(y, s, sample_weight=w)


BINARY = {
    "roc_auc": (metrics.roc_auc, of_scores(sk.roc_auc_score)),
    "average_precision": (metrics.average_precision, of_scores(sk.average_precision_score)),
    "log_loss": (metrics.log_loss, of_scores(sk.log_loss)),
    "brier": (metrics.brier, of_scores(sk.brier_score_loss)),
    "accuracy": (metrics.accuracy, at(0.5, sk.accuracy_score)),
    "precision": (metrics.precision, at(0.5, sk.precision_score, zero_division=np.nan)),
    "recall": (functools.partial(metrics.recall, threshold=0.2), at(0.2, sk.recall_score)),
    "f_beta": (
        functools.partial(metrics.f_beta, beta=2.0),
        at(0.5, sk.fbeta_score, beta=2, zero_division=np.nan),
    ),
    "false_positive_rate": (
        metrics.false_positive_rate,
        lambda y, s, w: 1 - at(0.5, sk.recall_score, pos_label=0)(y, s, w),
    ),
}
REGRESSION = {
    "mean_squared_error": sk.mean_squared_error,
    "root_mean_squared_error": sk.root_mean_squared_error,
    "mean_absolute_error": sk.mean_absolute_error,
    "median_absolute_error": sk.median_absolute_error,
    "r2": sk.r2_score,
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_metrics_are_scikit_learns(name):
    ours, theirs = BINARY[name]
    for seed, kind in enumerate(KINDS):
        labels, scores, weights = data(seed, kind)
        for w in (None, weights):
            wanted = pytest.approx(theirs(labels.astype(int), scores, w), abs=1e-12, nan_ok=True)
            assert ours(labels, scores, weights=w) == wanted, (kind, w)


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
    half = functools.partial(jnp.asarray, dtype=jnp.bfloat16)
    for kind in (np.asarray, jnp.asarray, np.ndarray.tolist, half):
        assert ours(kind(labels), kind(scores)) == pytest.approx(wanted, abs=1e-12)


def test_undefined_values_are_nan():
    assert np.isnan(metrics.roc_auc([1, 1], [0.1, 0.2]))
    assert np.isnan(metrics.roc_auc([0, 0], [0.1, 0.2]))
    assert np.isnan(metrics.average_precision([0, 0], [0.1, 0.2]))
    assert metrics.average_precision([1, 1], [0.1, 0.2]) == 1
    assert np.isnan(metrics.roc_curve([1, 1], [0.1, 0.2]).fpr).all()
    assert np.isnan(metrics.precision_recall_curve([0, 0], [0.1, 0.2]).recall[:-1]).all()
    assert np.isnan(metrics.precision([0, 1], [0.1, 0.2]))
    assert np.isnan(metrics.recall([0, 0], [0.1, 0.2]))
    assert np.isnan(metrics.f_beta([0, 0], [0.1, 0.2]))
    assert np.isnan(metrics.false_positive_rate([1, 1], [0.1, 0.2]))
    names = [*REGRESSION, "calibration_error", "prediction_bias", "accuracy"]
    for of in [getattr(metrics, name) for name in names] + [ours for ours, _ in BINARY.values()]:
        assert np.isnan(of([], []))
        assert np.isnan(of([0, 1], [0.2, 0.3], mask=[False, False]))
        assert np.isnan(of([0, 1], [0.2, 0.3], weights=[0, 0]))
    # A variance of equal labels would be rounding error.
    assert np.isnan(metrics.r2([0.1] * 7, [0.2] * 7, weights=[0.3] * 7))
    assert np.isnan(metrics.r2([0.1] * 6 + [5], [0.2] * 7, weights=[0.3] * 6 + [0]))


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
        (np.ma.masked_array([0, 1], [0, 1]), [0.1, 0.2], {}, "labels must be numbers; row 1"),
        ([0, 1], np.ma.masked_array([0.1, 0.2], [1, 0]), {}, "scores must be numbers; row 0"),
    ],
)
def test_bad_rows_are_refused_with_their_number(labels, scores, options, message):
    for of in (metrics.roc_auc, metrics.average_precision, metrics.precision):
        with pytest.raises(ValueError, match=message):
            of(labels, scores, **options)


def test_curves_are_scikit_learns():
    for seed in range(8):
        labels, scores, weights = data(seed, KINDS[seed % 4])
        w = weights if seed % 4 else None
        y = labels.astype(int)
        for drop in (True, False):
            wanted = sk.roc_curve(y, scores, sample_weight=w, drop_intermediate=drop)
            got = metrics.roc_curve(labels, scores, weights=w, drop_intermediate=drop)
            if w is None or not drop:  # whether rounded weights lie on a line is a matter of bits
                for ours, theirs in zip(got, wanted, strict=True):
                    np.testing.assert_allclose(ours, theirs, atol=1e-12)
            auc = metrics.roc_auc(labels, scores, weights=w)
            assert sk.auc(got.fpr, got.tpr) == pytest.approx(auc, abs=1e-12)
        wanted = sk.precision_recall_curve(y, scores, sample_weight=w)
        got = metrics.precision_recall_curve(labels, scores, weights=w)
        for ours, theirs in zip(got, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_infinite_scores_are_scores():
    assert metrics.roc_auc([0, 1, 1], [-np.inf, 0.0, np.inf]) == 1
    assert metrics.average_precision([0, 1, 1], [-np.inf, 0.0, np.inf]) == 1
    assert metrics.log_loss([1, 0], [np.inf, -np.inf], from_logits=True) == 0
    of = functools.partial(metrics.log_loss, [1, 1], [-np.inf, 0.0], from_logits=True)
    assert of() == np.inf
    assert of(weights=[0, 1]) == pytest.approx(np.log(2))


def test_confusion_matrix_and_averages_are_scikit_learns():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        n, c = 60, 5
        labels, decisions = rng.integers(0, c - seed % 2, n), rng.integers(0, c, n)
        w = rng.random(n) if seed % 3 else None
        np.testing.assert_allclose(
            metrics.confusion_matrix(labels, decisions, num_classes=c, weights=w),
            sk.confusion_matrix(labels, decisions, labels=range(c), sample_weight=w),
        )
        for average in ("micro", "macro", "weighted", None):
            undefined = np.nan if average is None else 0
            wanted = sk.fbeta_score(
                labels, decisions, beta=0.5, average=average, sample_weight=w,
                zero_division=undefined,
            )  # fmt: skip
            got = metrics.f_beta(labels, decisions, beta=0.5, average=average, weights=w)
            np.testing.assert_allclose(got, wanted)
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
    wanted = pytest.approx(sk.log_loss(labels, p, sample_weight=w), abs=1e-12)
    assert metrics.log_loss(labels, p, weights=w) == wanted
    assert metrics.log_loss(labels, logits, weights=w, from_logits=True) == wanted
    assert metrics.brier(labels, p) == pytest.approx(sk.brier_score_loss(labels, p), abs=1e-12)
    for k in (1, 2, 5):
        wanted = sk.top_k_accuracy_score(labels, logits, k=k, sample_weight=w)
        assert metrics.top_k_accuracy(labels, logits, k, weights=w) == pytest.approx(wanted)
    assert metrics.top_k_accuracy(labels, logits, 9) == 1
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
    for seed, kind in enumerate(KINDS):
        labels, scores, _ = data(seed, kind)
        wanted = sk_calibration.calibration_curve(
            labels.astype(int), scores, n_bins=7, strategy=strategy
        )
        diagram = metrics.reliability_diagram(labels, scores, num_bins=7, binning=binning)
        some = diagram.weight > 0
        np.testing.assert_allclose(diagram.fraction_positive[some], wanted[0], atol=1e-12)
        np.testing.assert_allclose(diagram.mean_score[some], wanted[1], atol=1e-12)
        if binning == "equal_width":
            gaps = np.abs(wanted[0] - wanted[1])
            assert metrics.calibration_error(labels, scores, num_bins=7) == pytest.approx(
                diagram.weight[some] @ gaps / len(labels), abs=1e-12
            )


def test_the_highest_of_several_classes_is_what_is_calibrated():
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.9, 0.1]])
    assert metrics.calibration_error([0, 1, 1], p, num_bins=2) == pytest.approx(abs(2.4 - 2) / 3)


def test_whole_weights_are_copies():
    rng = np.random.default_rng(3)
    labels, scores, copies = rng.integers(0, 2, 50), rng.random(50), rng.integers(0, 4, 50)
    again = [np.repeat(part, copies) for part in (labels, scores)]
    for name in ("roc_auc", "log_loss", "calibration_error", "prediction_bias", "r2"):
        of = getattr(metrics, name)
        assert of(labels, scores, weights=copies) == pytest.approx(of(*again), abs=1e-12), name


def test_the_weighted_median_is_that_of_copies_whatever_the_unit_of_the_weights():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 9))
        errors, copies = rng.permutation(n) + 1.0, rng.integers(1, 4, n)
        wanted = np.median(np.repeat(errors, copies))
        for unit in (1, 0.1, 1 / 3):
            got = metrics.median_absolute_error(0 * errors, errors, weights=copies * unit)
            assert got == wanted, (errors, copies * unit)


def test_weighted_bins_of_equal_mass_are_those_of_any_unit_of_the_weights():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(3, 20))
        labels, scores = rng.integers(0, 2, n), rng.random(n).round(2)
        of = functools.partial(
            metrics.reliability_diagram, labels, scores, num_bins=5, binning="equal_mass"
        )
        for copies, unweighted in ((rng.integers(0, 4, n), False), (np.ones(n), True)):
            if not copies.any():
                continue
            wanted = of(weights=None if unweighted else copies).edges
            for unit in (1, 0.1, 1 / 3):
                np.testing.assert_array_equal(of(weights=copies * unit).edges, wanted)
        some = np.array([3, 1, 1, 2, 1])
        wanted = np.quantile(np.repeat(np.arange(5) / 10, some), [0.2, 0.5], method="inverted_cdf")
        given = dict(num_bins=10, binning="equal_mass", weights=some * 0.1)
        found = metrics.reliability_diagram(np.ones(5), np.arange(5) / 10, **given).edges
        np.testing.assert_array_equal(found[[2, 5]], wanted)


@pytest.mark.parametrize("name", REGRESSION)
def test_regression_is_scikit_learns(name):
    for seed in range(4):
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
        metrics.mean_squared_error([0, 1], predictions=[0, np.inf])


def test_a_mask_of_zeros_and_ones_is_a_mask():
    labels, scores = [0, 1, 1, 7], [0.2, 0.1, 0.9, np.nan]
    for dtype in (bool, int, np.uint8, np.float32):
        assert metrics.roc_auc(labels, scores, mask=np.array([1, 1, 1, 0], dtype)) == 0.5
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


STREAMED = streaming.accuracy()


def test_columns_of_pandas_and_arrow_are_arrays():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    labels, scores, weights = [0, 1, 1, 0], [0.1, 0.9, 0.2, 0.4], [1, 2, 3, 4]
    wanted = metrics.log_loss(labels, scores, weights=weights, mask=[1, 1, 1, 0])
    gap = [True, True, True, None]
    for y, p, mask in [
        (pandas.Series([0, 1, 1, None], [9, 8, 7, 6], dtype="Int64"), pandas.Series(scores), gap),
        (pandas.array([False, True, True, None], "boolean"), pandas.array(scores, "Float64"), gap),
        (pyarrow.array([0, 1, 1, None]), pyarrow.chunked_array([scores]), gap),
    ]:
        kept = pandas.Series(mask, dtype="boolean").fillna(False)
        assert metrics.log_loss(y, p, weights=pandas.Series(weights), mask=kept) == wanted
        with pytest.raises(ValueError, match="labels must be numbers; row 3 is nan"):
            metrics.log_loss(y, p)
        with pytest.raises(ValueError, match="mask must be boolean"):
            metrics.log_loss(y, p, mask=pandas.Series(mask, dtype="boolean"))
        state = STREAMED.update(STREAMED.empty(), y, p, pandas.Series(weights), kept)
        assert STREAMED.compute(state) == np.float32(0.5)
        assert np.isnan(STREAMED.compute(STREAMED.update(STREAMED.empty(), y, p)))
    table = {"a": [0.1, 0.5], "b": [0.9, 0.3]}
    for each in (pandas.DataFrame(table), pyarrow.table(table)):
        assert metrics.confusion_matrix([1, 0], each).tolist() == [[1, 0], [0, 1]]


def test_logits_of_several_classes_need_a_finite_largest():
    logits = [[-np.inf, 1.0], [-np.inf, -np.inf]]
    for of in (metrics.log_loss, metrics.brier, metrics.calibration_error):
        with pytest.raises(ValueError, match="largest is finite; row 1"):
            of([1, 0], logits, from_logits=True)
        with pytest.raises(ValueError, match="largest is finite; row 0"):
            of([1], [[0.0, np.inf]], from_logits=True)
    assert metrics.log_loss([1], logits[:1], from_logits=True) == 0


def test_arguments_are_shown_and_checked():
    import inspect

    names = list(inspect.signature(metrics.f_beta).parameters)
    assert names[:3] == ["labels", "scores", "beta"] and names[-2:] == ["weights", "mask"]
    with pytest.raises(TypeError, match="'sample_weight'"):
        metrics.roc_auc([0, 1], [0, 1], sample_weight=[1, 1])
