"""Weights, masks, and NaN that must not pass a mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses

VALUES = np.array([1.0, 4.0, 2.0, 8.0], np.float32)
WEIGHTS = np.array([2.0, 1.0, 0.0, 3.0], np.float32)


def test_the_mean_is_numpys():
    assert losses.mean(VALUES) == VALUES.mean()
    np.testing.assert_allclose(losses.mean(VALUES, WEIGHTS), np.average(VALUES, weights=WEIGHTS))
    mask = np.array([True, True, True, False])
    assert losses.mean(VALUES, mask=mask) == VALUES[:3].mean()
    np.testing.assert_allclose(losses.mean(VALUES, WEIGHTS, mask), 2.0)
    copies = np.repeat(VALUES, WEIGHTS.astype(int))
    np.testing.assert_allclose(losses.mean(VALUES, WEIGHTS), copies.mean())
    # A weight for each row of several losses stands for all of them.
    rows = np.stack([VALUES, VALUES + 1], -1)
    np.testing.assert_allclose(
        losses.mean(rows, WEIGHTS[:, None], np.ones((1, 2), bool)),
        np.average(rows.mean(1), weights=WEIGHTS),
    )


def test_a_mean_of_nothing_is_0():
    value, gradient = jax.jit(jax.value_and_grad(losses.mean))(
        VALUES, WEIGHTS, np.zeros(4, bool)
    )  # fmt: skip
    assert value == 0 and (gradient == 0).all()
    assert losses.mean(VALUES, np.zeros(4)) == 0
    assert losses.mean(np.zeros(0)) == 0
    assert losses.mean(jnp.float32(3.0)) == 3


def test_masked_values_reach_neither_value_nor_gradient():
    bad = VALUES.copy()
    bad[1], bad[2] = np.nan, np.inf
    mask = np.array([True, False, True, True])
    # The infinity has weight 0, the NaN has a mask and a weight that is none.
    weights = np.array([2.0, np.nan, 0.0, 3.0], np.float32)
    run = jax.jit(jax.value_and_grad(losses.mean, (0, 1)))
    value, (by_losses, by_weights) = run(bad, weights, mask)
    np.testing.assert_allclose(value, (2 * 1 + 3 * 8) / 5)
    np.testing.assert_allclose(by_losses, [0.4, 0, 0, 0.6], rtol=1e-6)
    assert np.isfinite(by_weights).all()
    assert np.isnan(losses.mean(bad))
    # The way through a loss: the same mask there.
    outputs, targets = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([0.0, 1.0, jnp.inf])
    kept = jnp.array([True, False, False])
    value, gradient = jax.value_and_grad(
        lambda o: losses.mean(losses.squared(o, targets, where=kept), mask=kept)
    )(outputs)
    assert value == 1 and gradient.tolist() == [2, 0, 0]


def test_a_weight_of_zero_still_has_a_gradient():
    """Weights may be learned, from 0 on."""
    by_weights = jax.grad(losses.mean, 1)(VALUES, WEIGHTS)
    mean, total = np.average(VALUES, weights=WEIGHTS), WEIGHTS.sum()
    np.testing.assert_allclose(by_weights, (VALUES - mean) / total, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((VALUES, WEIGHTS[:, None]), r"weights must have the losses' shape \(4,\)"),
        ((VALUES, WEIGHTS[:3]), "weights must have"),
        ((VALUES, -WEIGHTS), r"weights must be at least 0; the one at \(0,\) is -2"),
        ((VALUES, WEIGHTS * np.nan), "weights must be at least 0"),
        ((VALUES, None, np.ones((4, 1), bool)), "mask must have"),
        ((VALUES, None, np.ones(4)), "mask must be bool"),
    ],
)
def test_weights_and_masks_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        losses.mean(*arguments)


def test_class_weights_pick_by_label():
    weights = np.array([1.0, 10.0, 100.0])
    np.testing.assert_array_equal(losses.example_weights([2, 0], weights), [100, 1])
    np.testing.assert_array_equal(losses.example_weights([True, False], weights[:2]), [10, 1])
    shares = np.array([[0.5, 0.5, 0.0]])
    np.testing.assert_allclose(losses.example_weights(shares, weights), [5.5])
    late = jax.jit(losses.example_weights)(jnp.array([1, 3]), weights)
    assert late[0] == 10 and np.isnan(late[1])
    for labels, wrong, message in (
        ([3], weights, r"labels must be in \[0, 3\)"),
        ([-1], weights, r"labels must be in \[0, 3\)"),
        ([0], -weights, "class_weights must be at least 0"),
        ([0], weights[None], "class_weights must be of shape"),
        ([0.5], weights, "labels must be integers, or floats"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.example_weights(labels, wrong)


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
    with pytest.raises(ValueError, match="labels must be integers where there are 3"):
        losses.weighted(losses.squared, weights)(np.zeros(2), np.zeros(2))


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 2, 2, 1])
    balanced = losses.balanced_class_weights(labels, 3)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced, wanted, rtol=1e-6)
    np.testing.assert_allclose(losses.example_weights(labels, balanced).mean(), 1, rtol=1e-6)
    assert losses.balanced_class_weights(labels, 4)[3] == 0
    for wrong in ([], [0.5], [3], [-1]):
        with pytest.raises(ValueError, match="labels must be"):
            losses.balanced_class_weights(np.array(wrong), 3)
