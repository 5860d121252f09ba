"""Checks of training data."""

import numpy as np

from jaxml import monitor
from jaxml.monitor.inputs import neighbour_signal

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 300).astype(np.int32)


def test_healthy_data():
    report = monitor.inspect(X, Y)
    assert not len(report.bad_rows) and not report.unscaled and report.period == 0
    assert not len(report.outlier_rows) and not report.sorted_by_target
    assert report.distinct == 1


def test_cells_that_are_not_finite_are_named():
    x = X.copy()
    x[7, 3], x[200, 0] = np.nan, -np.inf
    report = monitor.inspect(x, Y)
    assert report.bad_rows.tolist() == [7, 200]
    assert report.bad_cells == (("x", 7, 3), ("x", 200, 0))
    report = monitor.inspect(X, np.where(np.arange(300) == 9, np.nan, 1.0))
    assert report.bad_cells == (("y", 9, 0),)


def test_scales():
    x = X.copy()
    x[:, 2] *= 1000
    report = monitor.inspect(x, Y)
    assert report.unscaled and report.worst_column == 2
    assert monitor.inspect(X, 1e4 * X[:, 0]).unscaled
    assert not monitor.inspect(X, 5 * X[:, 0]).unscaled


def test_a_few_targets_in_another_unit_are_outliers_and_no_scale():
    y = X[:, 0].copy()
    y[10:13] *= 1e4
    report = monitor.inspect(X, y)
    assert set(report.outlier_targets) <= {10, 11, 12} and len(report.outlier_targets) > 0
    assert not report.unscaled


def test_repetition_and_order():
    report = monitor.inspect(np.tile(X[:20], (15, 1)), np.tile(Y[:20], 15))
    assert report.period == 20 and report.distinct == 20 / 300
    assert monitor.inspect(X, np.sort(Y)).sorted_by_target


def test_integers_and_a_single_row():
    assert monitor.inspect(np.zeros((1, 3), np.int32), np.zeros(1, np.int32)).distinct == 1


def test_several_arrays_are_inspected_together():
    ids = RNG.integers(0, 8, (300, 2))
    scaled = monitor.inspect({"dense": X * [1, 1, 500, 1, 1], "ids": ids}, Y)
    assert scaled.unscaled and scaled.worst_column == 2 and scaled.distinct == 1
    tiled = {"dense": np.tile(X[:20], (15, 1)), "ids": np.tile(ids[:20], (15, 1))}
    assert monitor.inspect(tiled, np.tile(Y[:20], 15)).period == 20


def test_neighbours_have_alike_labels_if_these_follow_from_the_inputs():
    """Standard normal without a signal; of numbers, classes and ids, several inputs, few rows."""
    noise = np.random.default_rng(0)
    x = {"wide": 100 * noise.normal(size=(400, 6)), "ids": noise.integers(0, 9, (400, 2))}
    numbers, classes = noise.normal(size=400), noise.integers(0, 3, 400)
    blind = [neighbour_signal(x, noise.permutation(y)) for y in [numbers, classes] * 50]
    assert abs(np.mean(blind)) < 0.4 and 0.7 < np.std(blind) < 1.3
    seen = {**x, "wide": x["wide"][:, :2]}
    assert neighbour_signal(seen, (x["wide"][:, :2].prod(1) > 0).astype(int)) > 4
    assert neighbour_signal(seen, x["wide"][:, :1] + numbers[:, None]) > 4
    assert neighbour_signal(x["ids"], x["ids"][:, 0] % 2) > 4
    assert neighbour_signal(seen, np.zeros(400)) == neighbour_signal(numbers[:3], classes[:3]) == 0
