"""The recommender on columns of known shape, and with labels."""

import collections

import numpy as np
import pytest
from sklearn import datasets

from jaxml.features import FeaturePipeline, recommend


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


@pytest.mark.parametrize(
    "x",
    [[0.0] * 995 + [1.0, 2, 3, 4, 5], [0.0] * 500 + [3.0] * 8 + [5e3], [1e-300, 2e-300, 1e-300]],
)
def test_no_chain_makes_a_column_constant(x):
    fitted = FeaturePipeline({"x": recommend(x).transforms}).fit({"x": x})
    assert len(np.unique(fitted({"x": x})["x"], axis=0)) > 1


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
