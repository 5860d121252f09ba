"""The recommender, judged statistically: columns whose kind is known, at several sizes."""

import collections

import numpy as np
import pytest
from sklearn import datasets

from jaxml.features import FeaturePipeline, recommend


def outliers(rng, base, share, low, high):
    """The base with a share of its values thrown low to high deviations off."""
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
        lambda r, n: mixture(r, n, [0, 20], [4, 1]),  # a fifth of the values is no outlier
    ],
    "constant": [lambda r, n: np.full(n, 3.7)],
    "categorical": [
        lambda r, n: r.integers(1, 13, n),
        lambda r, n: r.choice([101, 205, 317, 900, 4000], n),
        lambda r, n: r.choice([0, 1], n, p=[0.9, 0.1]),
    ],
}


@pytest.mark.parametrize(("size", "least"), [(100, 0.85), (300, 0.95), (2000, 0.97)])
def test_kinds_are_recognised(size, least):
    """Ten seeds a column; the accuracy of each kind, not only of all."""
    for kind, makers in COLUMNS.items():
        told = collections.Counter(
            recommend(make(np.random.default_rng([seed, size, i]), size)).kind
            for i, make in enumerate(makers)
            for seed in range(10)
        )
        assert told[kind] >= least * told.total(), f"{kind} at {size}: {dict(told)}"


def test_few_rows_with_a_gap_are_clusters_and_are_told_to_be_few():
    rng = np.random.default_rng(0)
    for n in (30, 40, 60):
        for _ in range(10):
            apart = np.append(rng.normal(0, 1, n // 2), rng.normal(10, 1, n - n // 2))
            assert recommend(apart).kind == "clusters"
            assert recommend(rng.random(n)).kind != "clusters"
            assert recommend(np.tile(np.arange(6) / 2, n // 6)).kind != "clusters"  # a grid
    assert "told from 30 values" in str(recommend(rng.random(30)))
    assert "told from" not in str(recommend(rng.random(300))) + str(recommend([3, 3]))


def test_the_picture(tmp_path):
    """Every kind's two panels are ones that the plot takes."""
    plots = pytest.importorskip("jaxml.reports.plots")
    rng = np.random.default_rng(0)
    panels = []
    for kind, makers in COLUMNS.items():
        pair = recommend(makers[0](rng, 500)).panels("column")
        assert len(pair) == 2 and kind.replace("_", " ") in pair[0][0]
        panels += pair
    plots.histograms(tmp_path / "all.png", panels, title="What is recommended", columns=4)
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_units_do_not_matter():
    rng = np.random.default_rng(0)
    for kind, makers in COLUMNS.items():
        if kind == "categorical":
            continue  # integers have no unit
        x = makers[0](rng, 1000).astype(float)
        assert {recommend(x * unit).kind for unit in (1e-6, 1.0, 4.0, 1e9)} == {kind}
        assert recommend(rng.permutation(x)).kind == kind


def test_what_is_recommended_works():
    rng = np.random.default_rng(0)
    for makers in COLUMNS.values():
        x = makers[0](rng, 1000)
        found = recommend(x)
        assert found.before.counts.sum() == 1000
        if not found.transforms:
            continue
        fitted = FeaturePipeline({"x": found.transforms}).fit({"x": x})
        y = np.asarray(fitted({"x": x})["x"])
        assert np.isfinite(y).all() and np.abs(y).max() < 8
        assert found.after.counts.sum() == 1000
        assert repr(found.transforms[0]) in str(found) and found.reason in str(found)


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
    assert recommend(named["s4"]).kind == "clusters"  # a ratio, most of them whole


def test_edges():
    holes = recommend([1.0, np.nan, 2.0, 3.0, np.inf] * 30)
    assert holes.evidence["missing"] == pytest.approx(0.4)
    assert "impute" in holes.reason
    assert recommend([5]).kind == recommend(np.full(9, 1e300)).kind == "constant"
    assert recommend([1, 2]).kind in ("normal", "uniform")
    assert recommend(np.array([0.0] * 95 + [1.0, 2, 3, 4, 5])).transforms
    assert recommend([1e-300, 2e-300, 1e-300]).transforms
    for bad, message in [
        ([], "no finite number"),
        ([np.nan], "no finite number"),
        (["a"], "text such as"),
    ]:
        with pytest.raises(ValueError, match=message):
            recommend(bad)
    with pytest.raises(ValueError, match="num_bins is 0"):
        recommend([1, 2], num_bins=0)
