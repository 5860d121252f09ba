"""Distances of distributions, against SciPy and the golden values of TensorFlow Data Validation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from jaxml.validation import drift
from jaxml.validation.drift import Comparator, Histogram

DISTANCES = (drift.l_infinity, drift.jensen_shannon)


def counts(size):
    return st.lists(st.integers(0, 50), min_size=size, max_size=size).filter(any)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(counts(n), counts(n))))
def test_counts_by_category_against_scipy(pair):
    a, b = (np.array(side, float) for side in pair)
    p, q = a / a.sum(), b / b.sum()
    assert drift.l_infinity(a, b) == pytest.approx(np.abs(p - q).max())
    # SciPy's is the root of ours; its square is accurate to about the root of its precision.
    assert drift.jensen_shannon(a, b) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-7)
    maps = [{f"c{i}": n for i, n in enumerate(side)} for side in (a, b)]
    for distance in DISTANCES:
        assert distance(*maps) == pytest.approx(distance(a, b))
        assert distance(*maps) == pytest.approx(distance(*maps[::-1]))
        assert distance(maps[0], maps[0]) == 0
        scaled = {k: 3 * n for k, n in maps[0].items()}
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
        (Histogram([3.0], [1.0, 2.0], 1), ([4], [1, 2]), 0.13792538096),
    ],
)
def test_jensen_shannon_has_the_golden_values(a, b, wanted):
    assert drift.jensen_shannon(a, b) == pytest.approx(wanted, abs=1e-9)
    assert drift.jensen_shannon(b, a) == pytest.approx(wanted, abs=1e-9)


def test_nan_and_infinite_mass_match_nothing():
    same = Histogram([3.0], [1.0, 2.0], 1)
    # A quarter on each side is alone: JSD = 1/4.
    for distance in DISTANCES:
        assert distance(same, same) == pytest.approx(0.25)
    endless = Histogram([1.0, 3.0], [-np.inf, 1.0, 2.0])
    assert drift.jensen_shannon(endless, endless) == pytest.approx(0.25)
    assert drift.jensen_shannon(Histogram([], [], 2), same) == 1.0


@pytest.mark.parametrize("key", [np.float32("nan"), -np.inf])
def test_categories_that_are_not_finite_match_nothing_either(key):
    same = {key: 1, 1.0: 3}
    for distance in DISTANCES:
        assert distance(same, same) == pytest.approx(0.25)
    assert drift.largest_difference({key: 1, 2.0: 1}, {2.0: 1})[0] == 0.5


def test_point_masses_meet_only_at_the_same_point():
    a = Histogram([1.0, 2.0, 1.0], [0.0, 1.0, 1.0, 2.0])
    assert drift.jensen_shannon(a, a) == 0
    # Half of a's mass lies on the point; of the rest both have the same shape.
    assert drift.l_infinity(a, Histogram([2.0, 2.0], [0.0, 1.0, 2.0])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "a, b, message",
    [
        ([1, 2], [1, 2, 3], r"one length, got shapes \(2,\) and \(3,\)"),
        ([1, -2], [1, 2], "a must hold finite counts of at least 0"),
        ([1, 2], [0, 0], "b must not be empty, its counts sum to 0"),
        ({"x": 1}, [1], "a and b must have one form, got counts and dict"),
        (([1, 2], [1, 2]), ([1], [1, 2]), "a must have one edge more than counts, got 2 and 2"),
        (([1, 2], [1, 3, 2]), ([1], [1, 2]), "edges that do not fall"),
    ],
)
def test_wrong_arguments_are_named(a, b, message):
    for distance in DISTANCES:
        with pytest.raises(ValueError, match=message):
            distance(a, b)


def test_texts_and_booleans_are_counted():
    assert drift.l_infinity(["a", "b", None], ["a", "a"]) == 0.5
    assert drift.l_infinity(np.array([True, False]), np.array([True, True])) == 0.5


def test_columns_are_compared_by_their_thresholds():
    rng = np.random.default_rng(0)
    wanted = {"fare": Comparator(0.1, 0.05), "pay": Comparator(0.1), "flag": Comparator(0.2, 0.5)}

    def table(shift=0.0, share=0.5, rows=1000):
        return {
            "fare": rng.normal(shift, 1, rows),
            "pay": np.where(rng.random(rows) < share, "a", "b"),
            "flag": rng.random(rows) < 0.5,
        }

    before = table()
    assert drift.compare(table(), before, wanted) == []
    found = drift.compare(table(2.0, 0.9), before, wanted)
    assert [(a.kind, a.column) for a in found] == [
        ("COMPARATOR_L_INFTY_HIGH", "fare"),
        ("COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "fare"),
        ("COMPARATOR_L_INFTY_HIGH", "pay"),
    ]
    (more,) = drift.compare({"pay": ["a", "c", "c"]}, {"pay": ["a", "a"]}, {"pay": Comparator(0.1)})
    assert more.examples == ("a",) and more.rows.tolist() == [0]
    (lost,) = drift.compare({"pay": ["a"]}, {"pay": ["a", "b", "b"]}, {"pay": Comparator(0.1)})
    assert lost.examples == ("a",)
    for control in ({}, {"pay": [None]}, {"pay": np.zeros((2, 2))}):
        (missing,) = drift.compare(before, control, {"pay": Comparator(0.1)})
        assert missing.kind == "COMPARATOR_CONTROL_DATA_MISSING"
    assert drift.compare({}, before, wanted) == []
    assert drift.compare(before, before, {"pay": Comparator()}) == []
    days = np.array(["2013-01-01", "2013-01-02"], "M8[ns]")
    (later,) = drift.compare({"t": days}, {"t": days[:1]}, {"t": Comparator(0.1)})
    assert later.rows.tolist() == [0]


def test_types_that_do_not_go_together_share_nothing():
    wanted = {"a": Comparator(jensen_shannon_divergence=0.99)}
    (found,) = drift.compare({"a": np.array(["1", "2"])}, {"a": np.array([1, 2])}, wanted)
    assert found.kind == "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"
