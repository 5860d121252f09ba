"""The recommender on columns of known shape, and with labels."""

import collections

import numpy as np
import pytest
from sklearn import datasets, linear_model

from jaxml.features import FeaturePipeline, check, one_hot, recommend, vocabulary, z_score


def outliers(rng, base, share, low, high):
    """The base with a share of its values moved low to high deviations away."""
    count = max(1, round(share * len(base)))
    x = base.copy()
    off = base.std() * rng.uniform(low, high, count) * rng.choice([-1, 1], count)
    x[rng.choice(len(x), count, False)] = base.mean() + off
    return x


def mixture(rng, n, centers, weights):
    return rng.choice(centers, n, p=np.array(weights) / sum(weights)) + rng.normal(size=n)


COLUMNS = {
    "uniform": [
        lambda r, n: r.random(n),
        lambda r, n: r.uniform(-5, 100, n),
        lambda r, n: r.integers(0, 1000, n),
        lambda r, n: r.integers(1, 13, n),
    ],
    "normal": [
        lambda r, n: r.normal(100, 3, n),
        lambda r, n: np.round(r.normal(170, 10, n), 1),
        lambda r, n: r.random((n, 12)).sum(1),
    ],
    "power_law": [
        lambda r, n: r.lognormal(3, 0.8, n),
        lambda r, n: r.lognormal(10, 1.5, n),
        lambda r, n: r.pareto(1.5, n) + 1,
        lambda r, n: np.floor(r.lognormal(4, 1.2, n)),
        lambda r, n: r.pareto(3, n) + 1,
        lambda r, n: r.zipf(1.8, n),  # six in ten are 1: the median is the least
    ],
    "outliers": [
        lambda r, n: outliers(r, r.normal(size=n), 0.01, 10, 50),
        lambda r, n: outliers(r, r.normal(50, 4, n), 0.03, 8, 20),
        lambda r, n: outliers(r, r.uniform(3, 4, n), 0.01, 20, 90),
        lambda r, n: r.standard_t(1.5, n),
    ],
    "clusters": [
        lambda r, n: mixture(r, n, [0, 6], [1, 1]),
        lambda r, n: mixture(r, n, [0, 6, 14], [3, 2, 2]),
        lambda r, n: mixture(r, n, [0, 8, 16, 24, 32], [1] * 5),
        lambda r, n: mixture(r, n, [0, 20], [4, 1]),  # a fifth of the values are no outliers
    ],
    "constant": [lambda r, n: np.full(n, 3.7)],
    "categorical": [lambda r, n: r.choice([0, 1], n, p=[0.9, 0.1])],
}


@pytest.mark.parametrize(
    ("size", "seeds", "least"),
    [
        (300, 3, 0.9),
        pytest.param(100, 10, 0.7, marks=pytest.mark.slow),
        pytest.param(2000, 10, 0.97, marks=pytest.mark.slow),
    ],
)
def test_shapes_are_recognised(size, seeds, least):
    for kind, makers in COLUMNS.items():
        found = collections.Counter(
            recommend(make(np.random.default_rng([seed, size, i]), size)).kind
            for seed in range(seeds)
            for i, make in enumerate(makers)
        )
        assert found[kind] >= least * found.total(), (kind, found)


def test_units_and_order_do_not_matter_and_the_result_is_usable():
    rng = np.random.default_rng(0)
    for kind, makers in COLUMNS.items():
        x = makers[0](rng, 1000).astype(float)
        assert {recommend(x * unit).kind for unit in (1e-6, 1.0, 4.0, 1e9)} == {kind}
        found = recommend(rng.permutation(x))
        assert found.kind == kind and found.reason in str(found)
        if found.transforms:
            y = FeaturePipeline({"x": found.transforms}).fit({"x": x})({"x": x})["x"]
            assert np.isfinite(y).all() and np.abs(y).max() < 8 and np.ptp(y, axis=0).max() > 0


def test_histograms_before_and_after():
    rng = np.random.default_rng(0)
    for kind, makers in COLUMNS.items():
        x = makers[0](rng, 500)
        pair = recommend(x).panels("column", x)
        assert kind.replace("_", " ") in pair[0][0] and len(pair) == 1 + (kind != "constant")
        assert all(counts.sum() == 500 for _, _, counts in pair)


def test_real_columns():
    cancer = datasets.load_breast_cancer()
    named = dict(zip(cancer.feature_names, cancer.data.T, strict=True))
    assert recommend(named["area error"]).kind == "power_law"  # 7 to 542, the median 25
    assert recommend(named["radius error"]).kind == "power_law"
    assert recommend(named["worst texture"]).kind == "normal"
    diabetes = datasets.load_diabetes(scaled=False)
    named = dict(zip(diabetes.feature_names, diabetes.data.T, strict=True))
    assert recommend(named["sex"]).kind == "categorical"
    assert recommend(named["bp"]).kind == "normal"
    assert recommend(named["age"], diabetes.target).kind in ("normal", "uniform")


def test_labels_decide_whether_integers_are_codes():
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 13, 2000)
    effect = rng.permutation(12)[codes - 1]  # no line through the codes
    assert recommend(codes).kind == "uniform"
    assert recommend(codes, effect + rng.normal(size=2000)).kind == "categorical"
    assert recommend(codes, np.where(effect > 5, "late", "on time")).kind == "categorical"
    as_number = recommend(codes, codes + rng.normal(size=2000))
    assert as_number.kind == "uniform" and as_number.evidence["uniform"] < 0.1
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\), got shape \(2,\)"):
        recommend([1, 2, 3], [0, 1])


RARE = np.arange(1.0, 11)
NORMAL = np.random.default_rng(0).normal(size=300)


@pytest.mark.parametrize(
    ("x", "levels"),
    [
        ([0.0] * 990 + [*RARE], 11),  # clipped at the 99th percentile ten values are one
        ([0.0] * 990 + [*-RARE], 11),
        ([0.0] * 1990 + [*RARE, *-RARE], 21),  # and with signs none is left
        ([0.0] * 500 + [3.0] * 8 + [5e3], 2),
        ([0.0] * 850 + [*NORMAL[:75] + 10, *NORMAL[75:150] + 30], 151),  # bins: two are left
        ([0.0] * 100_000 + [1.0, 2, 3], 4),  # a z-score would be 220
        ([1e-300, 2e-300, 1e-300], 2),
        ([*NORMAL, 1.7e308], 10),  # beyond float32: no z-score, but bins
        ([*1e38 * NORMAL, 4e38], 10),
    ],
)
def test_a_recommended_chain_keeps_what_tells_rows_apart(x, levels):
    found = recommend(x)
    fitted = FeaturePipeline({"x": found.transforms}).fit({"x": x})
    assert len(np.unique(fitted({"x": x})["x"], axis=0)) >= levels, found
    assert check(fitted, {"x": x}) == []
    chain = recommend(x, np.arange(len(x))[::-1]).transforms
    found = check(FeaturePipeline({"x": chain}).fit({"x": x}), {"x": x})
    assert {each.kind for each in found} <= {"out_of_vocabulary"}


@pytest.mark.parametrize(
    "x", [[*NORMAL[:50], 1e6], [*NORMAL, *[-999.0] * 10], [*NORMAL[:30], 9999]]
)
def test_outliers_are_clipped_however_few_rows_and_however_many_outliers(x):
    for labels in (None, np.arange(len(x)) % 7):
        chain = recommend(x, labels).transforms
        y = FeaturePipeline({"x": chain}).fit({"x": x})({"x": x})["x"]
        assert np.ptp(np.quantile(y, [0.25, 0.75])) > 0.5, chain
    assert repr(chain[0]).startswith("clipping(low=")


def held_out_error(chain, x, y):
    """Fitted on the first half, judged on the second; a share of the error of the mean."""
    half = len(x) // 2
    fitted = FeaturePipeline({"x": chain}).fit({"x": x[:half]})
    dense, _ = fitted.stack(fitted({"x": x}))
    model = linear_model.Ridge().fit(dense[:half], y[:half])
    error = ((model.predict(dense[half:]) - y[half:]) ** 2).sum()
    return error / ((y[:half].mean(0) - y[half:]) ** 2).sum()


def test_advice_for_real_counts_holds_on_rows_not_seen():
    digits = datasets.load_digits()
    rows = np.random.default_rng(0).permutation(len(digits.target))
    y = np.eye(10)[digits.target[rows]]
    errors = []
    for x in digits.data[rows].T[2::5]:
        found = recommend(x[:898], digits.target[rows][:898])
        plain = held_out_error([z_score()], x, y)
        codes = held_out_error([vocabulary(), one_hot()], x, y)
        errors.append([held_out_error(found.transforms, x, y), plain, codes])
    found, plain, codes = np.array(errors).T
    assert (found < plain + 0.002).all() and found.mean() < codes.mean() + 0.001
    assert np.mean(plain - found) > 0.005 and (found < 1.001).all()


def test_integers_are_codes_only_on_evidence():
    ages = np.random.default_rng(0).integers(18, 90, 600)
    noise = np.random.default_rng(1).normal(size=(10, 600))
    found = [recommend(ages, labels).kind for labels in (*noise, *(0.02 * ages + noise))]
    assert recommend(ages).kind == "uniform" and found.count("uniform") >= 17
    assert not {"categorical", "clusters"} & {*found}
    assert "alone it does not predict the labels" in recommend(ages, noise[0]).reason


def test_labels_that_cannot_be_compared_with():
    x = np.arange(40.0)
    for labels in (
        [None] * 40,
        [1.0] * 40,
        [np.nan, np.inf] * 20,
        ["a"] * 40,
        ["a", "b", *[""] * 38],
    ):
        found = recommend(x, labels)
        assert found.kind == "uniform" and "not compared with labels" in found.reason
    clusters = [*[0.0] * 299, 1.0, *NORMAL + 20]  # labels are known in one of the buckets only
    found = recommend(clusters, [*NORMAL, *[None] * 300])
    assert found.kind == "clusters" and "not compared with labels" in found.reason
    found = recommend(x, [*x[:-1], np.inf])
    assert found.kind == "uniform" and found.evidence["uniform"] < 0.01
    assert recommend(np.arange(500), [f"name {i}" for i in range(500)]).kind == "uniform"


def test_shown_shortly():
    found = recommend(np.arange(100.0))
    assert repr(found) == "<Recommendation uniform: linear_scaling(low=0.0, high=1.0)>"
    assert found.reason in found._repr_html_() and len(found._repr_html_()) < 200
    assert repr(recommend([1])) == "<Recommendation constant: leave it out>"


def test_edges():
    holes = recommend([1.0, np.nan, 2.0, 3.0, np.inf] * 30)
    assert holes.evidence["missing"] == pytest.approx(0.4) and "impute" in holes.reason
    assert recommend([5]).kind == recommend(np.full(9, 1e300)).kind == "constant"
    assert recommend([1, 2]).kind in ("normal", "uniform")
    for bad, message in [
        ([], "finite number, got none in 0 rows"),
        ([np.nan], "finite number, got none in 1 rows"),
        (["a"], "must hold numbers, got text"),
    ]:
        with pytest.raises(ValueError, match=message):
            recommend(bad)
