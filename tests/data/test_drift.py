"""Distances of distributions, against SciPy and the golden values of TensorFlow Data Validation."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from jaxml.data import drift
from jaxml.data.drift import Comparator, Histogram

DISTANCES = (
    drift.l_infinity,
    drift.jensen_shannon,
    drift.normalized_absolute_difference,
    drift.population_stability_index,
    drift.kolmogorov_smirnov,
)


def counts(size):
    return st.lists(st.integers(0, 50), min_size=size, max_size=size).filter(any)


@settings(max_examples=50)
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(counts(n), counts(n))))
def test_counts_by_category_against_scipy(pair):
    a, b = (np.array(side, float) for side in pair)
    p, q = a / a.sum(), b / b.sum()
    assert drift.l_infinity(a, b) == pytest.approx(np.abs(p - q).max())
    # SciPy's is the root of ours; its square is accurate to about the root of its precision.
    assert drift.jensen_shannon(a, b) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-7)
    nad = np.abs(a - b).max() / (a.sum() + b.sum())
    assert drift.normalized_absolute_difference(a, b) == pytest.approx(nad)
    for distance in DISTANCES:
        maps = [{f"c{i}": n for i, n in enumerate(side)} for side in (a, b)]
        if distance is not drift.kolmogorov_smirnov:  # There an array is the sample itself.
            assert distance(*maps) == pytest.approx(distance(a, b))
        assert distance(*maps) == pytest.approx(distance(*maps[::-1]))
        assert distance(maps[0], maps[0]) == 0
        scaled = {k: 3 * n for k, n in maps[0].items()}
        if distance is not drift.normalized_absolute_difference:
            assert distance(scaled, maps[1]) == pytest.approx(distance(*maps))


@pytest.mark.parametrize(
    "a, b, wanted",  # metrics_test.cc, LInftyDistanceTest.
    [
        ({}, {}, 0.0),
        ({"hello": 0.1, "world": 0.9}, {"hello": 0.3, "world": 0.7}, 0.2),
        ({"b": 0.9, "c": 0.1}, {"a": 0.3, "b": 0.7}, 0.3),
        ({"a": 0.3, "b": 0.7}, {"b": 0.9, "c": 0.1}, 0.3),
    ],
)
def test_l_infinity_has_the_golden_values(a, b, wanted):
    assert drift.l_infinity(a, b) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "a, b, wanted",  # metrics_test.cc, JensenShannonDivergence.
    [
        (([2, 2], [1, 2, 3]), ([2, 2], [2, 4, 6]), 0.65563906222),
        (([2, 2], [0, 1, 2]), ([2, 2], [3, 4, 6]), 1.0),
        (([4], [1, 1]), ([2, 2], [2, 4, 6]), 1.0),
        (Histogram(np.array([3.0]), np.array([1.0, 2.0]), 1), ([4], [1, 2]), 0.13792538096),
    ],
)
def test_jensen_shannon_has_the_golden_values(a, b, wanted):
    assert drift.jensen_shannon(a, b) == pytest.approx(wanted, abs=1e-9)
    assert drift.jensen_shannon(b, a) == pytest.approx(wanted, abs=1e-9)


def test_nan_and_infinite_mass_match_nothing():
    inf = np.inf
    same = Histogram(np.array([3.0]), np.array([1.0, 2.0]), 1)
    # A quarter on each side is alone: JSD = 1/4.
    assert drift.jensen_shannon(same, same) == pytest.approx(0.25)
    endless = Histogram(np.array([1.0, 3.0]), np.array([-inf, 1.0, 2.0]))
    assert drift.jensen_shannon(endless, endless) == pytest.approx(0.25)
    assert drift.jensen_shannon(Histogram(np.zeros(0), np.zeros(0), 2), same) == 1.0
    assert drift.kolmogorov_smirnov(same, same) == pytest.approx(0.25)
    assert drift.l_infinity(same, same) == pytest.approx(0.25)


@pytest.mark.parametrize("key", [np.nan, np.inf, -np.inf, np.float32("nan")])
def test_categories_that_are_no_finite_number_match_nothing_either(key):
    same = {key: 1, 1.0: 3}
    assert drift.jensen_shannon(same, same) == pytest.approx(0.25)
    assert drift.l_infinity(same, same) == pytest.approx(0.25)
    assert drift.kolmogorov_smirnov(same, same) == pytest.approx(0.25)
    assert drift.normalized_absolute_difference(same, same) == pytest.approx(1 / 8)
    assert drift.largest_difference({key: 1, 2.0: 1}, {2.0: 1})[0] == 0.5
    assert drift.kolmogorov_smirnov({key: 1}, {key: 1}) == 1.0


def test_point_masses_meet_only_at_the_same_point():
    a = Histogram(np.array([1.0, 2.0, 1.0]), np.array([0.0, 1.0, 1.0, 2.0]))
    assert drift.jensen_shannon(a, a) == 0
    wide = Histogram(np.array([2.0, 2.0]), np.array([0.0, 1.0, 2.0]))
    # Half of a's mass lies on the point; of the rest both have the same shape.
    assert drift.l_infinity(a, wide) == pytest.approx(0.5)
    assert drift.kolmogorov_smirnov(a, wide) == pytest.approx(0.25)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30), st.integers(1, 6))
def test_histograms_hold_every_value_once(values, bins):
    numbers = np.array(values, float)
    for method in ("standard", "quantiles"):
        found = drift.histogram(numbers, bins, method)
        assert found.counts.sum() == len(values)
        with_junk = drift.histogram(
            np.concatenate([numbers, [np.nan, np.inf, -np.inf]]), bins, method
        )
        assert with_junk.counts.sum() == len(values) + 2 and with_junk.num_nan == 1
        assert with_junk.edges[0] == -np.inf and with_junk.edges[-1] == np.inf
        np.testing.assert_array_equal(with_junk.counts[1:-1], found.counts)
    if numbers.min() < numbers.max():
        mine = drift.histogram(numbers, bins)
        np.testing.assert_array_equal(mine.counts, np.histogram(numbers, bins)[0])


def test_histograms_of_given_edges_hold_what_lies_outside():
    found = drift.histogram([-5.0, 0.5, 1.0, 9.0], [0.0, 1.0, 2.0])
    assert found.edges.tolist() == [-5.0, 1.0, 9.0] and found.counts.tolist() == [2, 2]
    point = drift.histogram([0.0, 1.0, 1.0, 3.0], [1.0, 1.0, 2.0])
    assert point.edges.tolist() == [0.0, 1.0, 1.0, 3.0] and point.counts.tolist() == [1, 2, 1]
    assert drift.histogram([], 3).counts.tolist() == []
    assert drift.histogram([7.0, 7.0], 3).counts.tolist() == [2]
    wide = drift.histogram([-1.7e308, 1.7e308, 0.0], 2)
    assert np.isfinite(wide.edges).all() and wide.counts.tolist() == [1, 2]


def test_a_rebucketed_histogram_keeps_its_mass():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=4000), rng.normal(0.3, 1, size=3000)
    coarse = [np.histogram(side, 12) for side in (x, y)]
    shares = [
        np.histogram(side, np.union1d(coarse[0][1], coarse[1][1]))[0] / len(side) for side in (x, y)
    ]
    exact = jensenshannon(*shares, base=2) ** 2
    assert drift.jensen_shannon(*coarse) == pytest.approx(exact, abs=0.02)
    assert drift.kolmogorov_smirnov(*coarse) == pytest.approx(
        stats.ks_2samp(x, y).statistic, abs=0.02
    )


@settings(max_examples=50)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=20),
    st.lists(st.integers(-3, 3), min_size=1, max_size=20),
)
def test_kolmogorov_smirnov_of_samples_is_scipys(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of its p-value; the statistic is what is asked for.
        wanted = stats.ks_2samp(x, y).statistic
    assert drift.kolmogorov_smirnov(x, y) == pytest.approx(wanted)
    assert drift.kolmogorov_smirnov([*x, np.nan], y) == pytest.approx(wanted)
    as_counts = [drift.category_counts(np.array(side)) for side in (x, y)]
    assert drift.kolmogorov_smirnov(*as_counts) == pytest.approx(wanted)


def test_the_stability_index_is_the_symmetric_divergence():
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    wanted = stats.entropy(p, q) + stats.entropy(q, p)
    assert drift.population_stability_index(p, q) == pytest.approx(wanted)
    assert np.isfinite(drift.population_stability_index([1, 0], [0, 1]))
    with pytest.raises(ValueError, match="epsilon must be positive"):
        drift.population_stability_index([1], [1], epsilon=0)


def test_the_widest_range_of_floats_has_a_width():
    wide, half = ([2, 2], [-1.7e308, 0.0, 1.7e308]), ([1, 3], [-1.7e308, 0.0, 1.7e308])
    for distance in DISTANCES:
        assert distance(wide, wide) == 0
        assert np.isfinite(distance(wide, half)) and distance(wide, half) > 0
    shifted = ([4], [-1.7e308, 1.7e308])
    assert drift.kolmogorov_smirnov(wide, shifted) == pytest.approx(0, abs=1e-12)
    assert drift.jensen_shannon(wide, shifted) == pytest.approx(0, abs=1e-12)


def test_texts_are_counted():
    assert drift.l_infinity(np.array(["a", "b"]), np.array(["a", "a"])) == 0.5
    assert drift.jensen_shannon(["a", "b"], np.array(["c", None], object)) == 1.0
    booleans = np.array([True, False, True, True]), np.array([False, True])
    assert drift.l_infinity(*booleans) == 0.25
    assert drift.kolmogorov_smirnov(*booleans) == 0.25


def test_lists_and_tuples_mean_the_same():
    pairs = ([1, 2], [0.0, 1.0, 3.0]), ([1, 4], [0.0, 2.0, 3.0])
    for distance in DISTANCES:
        assert distance(*map(list, pairs)) == distance(*pairs) > 0
        assert distance((5, 2, 3), (3, 2, 7)) == distance([5, 2, 3], [3, 2, 7])


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda f: f.__name__)
def test_what_cannot_be_compared_is_refused(distance):
    for a, b, told in (
        ({"x": -1, "y": 2}, {"x": 1}, "finite counts of at least 0"),
        ({"x": np.nan}, {"x": 1}, "finite counts"),
        ({"x": None}, {"x": 1}, "finite counts"),
        ({"x": 1}, [1], "both"),
        (([1], [0, 1]), {"x": 1}, "both be histograms"),
        (([1, 2], [0, 1]), ([1], [0, 1]), "one edge more"),
        (([1], [1, 0]), ([1], [0, 1]), "do not fall"),
    ):
        with pytest.raises(ValueError, match=told):
            distance(a, b)
    if distance is not drift.normalized_absolute_difference:
        with pytest.raises(ValueError, match="empty"):
            distance({"x": 1}, {"x": 0})
        with pytest.raises(ValueError, match="empty"):
            distance(([0], [0, 1]), ([1], [0, 1]))
    with pytest.raises(ValueError, match="empty"):
        distance({"x": 0}, {"x": 0})


def test_columns_are_compared_by_their_thresholds():
    rng = np.random.default_rng(0)
    before = {"pay": rng.choice(["a", "b"], 1000), "fare": rng.normal(size=1000)}
    same = {"pay": rng.choice(["a", "b"], 1000), "fare": rng.normal(size=1000)}
    moved = {"pay": np.where(rng.random(1000) < 0.8, "a", "c"), "fare": same["fare"] + 3}
    for source in ("STANDARD", "QUANTILES"):
        every = Comparator(0.2, 0.1, 0.1, 0.25, 0.2, source)
        wanted = {"pay": every, "fare": every}
        assert drift.compare(same, before, wanted) == []
        found = drift.compare(moved, before, wanted)
        assert len(found) == 10 and {a.column for a in found} == {"pay", "fare"}
        assert all(a.kind.startswith("COMPARATOR_") for a in found)
    gaps = {**same, "fare": np.where(rng.random(1000) < 0.5, np.nan, same["fare"])}
    (found,) = drift.compare(gaps, before, {"fare": Comparator(jensen_shannon_divergence=0.1)})
    assert found.examples == ("NaN",)
    assert found.rows.tolist() == np.flatnonzero(np.isnan(gaps["fare"])).tolist()
    (new,) = drift.compare(moved, before, {"pay": Comparator(infinity_norm=0.3)})
    assert new.examples == ("b",) and len(new.rows) == 0  # Gone, and so in no row.
    (more,) = drift.compare({"pay": ["a", "c", "c"]}, {"pay": ["a", "a"]}, {"pay": Comparator(0.1)})
    assert more.examples == ("a",) and more.rows.tolist() == [0]
    (missing,) = drift.compare(same, {}, {"pay": Comparator(0.1)})
    assert missing.kind == "COMPARATOR_CONTROL_DATA_MISSING"
    assert drift.compare({}, before, {"pay": Comparator(0.1)}) == []
    assert drift.compare(same, before, {"pay": Comparator()}) == []


def test_types_that_do_not_go_together_share_nothing():
    wanted = {"a": Comparator(jensen_shannon_divergence=0.5)}
    (found,) = drift.compare({"a": np.array(["1", "2"])}, {"a": np.array([1, 2])}, wanted)
    assert found.kind == "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"
