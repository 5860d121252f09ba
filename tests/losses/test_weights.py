"""Weights of examples by their class."""

import jax
import numpy as np
import pytest

from jaxml import losses


def test_weighted_losses_are_products():
    z, y = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 3
    weights = np.array([1.0, 2.0, 0.0])
    weighted = losses.weighted(losses.softmax_cross_entropy, weights)
    many = np.array([[1, 1, 0], [0, 0, 1]])
    plain, by_label, by_share, multi, weighted_multi = jax.jit(
        lambda: (
            losses.softmax_cross_entropy(z, y),
            weighted(z, y),
            weighted(z, np.eye(3)[y]),
            losses.one_vs_all(z[:2], many),
            losses.weighted(losses.one_vs_all, weights)(z[:2], many),
        )
    )()
    np.testing.assert_allclose(by_label, weights[y] * plain, rtol=1e-6)
    np.testing.assert_allclose(by_share, weights[y] * plain, rtol=1e-6)
    np.testing.assert_allclose(weighted_multi, [3, 0] * np.asarray(multi), rtol=1e-6)
    binary = losses.weighted(losses.sigmoid_binary_cross_entropy, [1.0, 3.0])
    for labels in ([0, 1], [0.0, 1.0], [False, True]):
        (value,) = jax.jit(lambda labels=labels: [binary(np.zeros(2), np.array(labels))])()
        np.testing.assert_allclose(value, np.log(2) * np.r_[1, 3], rtol=1e-6)
    np.testing.assert_allclose(binary(np.zeros(1), np.array([0.5])), 2 * np.log(2), rtol=1e-6)
    kept = np.array([True, False])
    masked = binary(np.array([0.0, np.nan]), np.array([1, 9]), where=kept)
    np.testing.assert_allclose(masked, [3 * np.log(2), 0], rtol=1e-6)
    for labels, wrong, message in (
        ([3, 0], weights, r"labels must be in \[0, 3\)"),
        ([-1, 0], weights, r"labels must be in \[0, 3\)"),
        ([0, 1], -weights, r"class_weights must be at least 0; the one at \(0,\) is -1"),
        ([0, 1], weights[None], "class_weights must be of shape"),
        ([0.5, 1.0], weights, r"labels must be integers of shape \(2,\), or shares \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.weighted(losses.squared, wrong)(np.zeros(2), np.array(labels))
    late = jax.jit(losses.weighted(losses.squared, weights))(np.ones(2), np.array([1, 3]))
    assert late[0] == 0 and np.isnan(late[1])


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 2, 2, 1])
    balanced = losses.balanced_class_weights(labels, 3)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced, wanted, rtol=1e-6)
    assert losses.balanced_class_weights(labels, 4)[3] == 0
    for wrong in ([], [0.5], [3], [-1]):
        with pytest.raises(ValueError, match="labels must be"):
            losses.balanced_class_weights(np.array(wrong), 3)


def test_columns_of_pandas_are_arrays():
    pandas = pytest.importorskip("pandas")
    ids = pandas.Series([0, 1, 1], [9, 8, 7], dtype="Int64")
    outputs = pandas.Series([0.5, -1.0, 2.0], dtype="Float64")
    kept = pandas.Series([True, False, True], dtype="boolean")
    for loss in (losses.squared, losses.weighted(losses.sigmoid_binary_cross_entropy, [1, 2])):
        wanted = loss(np.array(outputs), np.array([0, 1, 1]), where=np.array(kept))
        np.testing.assert_array_equal(loss(outputs, ids, where=kept), wanted)
    logits = np.zeros((3, 2), np.float32)
    assert losses.softmax_cross_entropy(logits, ids).shape == (3,)
    with pytest.raises(ValueError, match="labels must be integers, got dtype"):
        losses.softmax_cross_entropy(logits, ids.shift())
