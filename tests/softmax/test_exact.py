"""The full softmax by itself; the battery it shares with the sampled losses is in test_sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml.softmax import full_softmax_loss


def table(num_classes=50, dim=8, batch=(4,), seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(*batch, dim)).astype(np.float32),
        rng.integers(0, num_classes, batch),
        rng.normal(size=(num_classes, dim)).astype(np.float32),
        rng.normal(size=num_classes).astype(np.float32),
    )


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_agrees_with_optax_on_the_logits(batch):
    inputs, labels, weights, biases = table(batch=batch)
    loss = jax.jit(full_softmax_loss)(inputs, labels, weights, biases, temperature=0.5)
    logits = (inputs @ weights.T + biases.reshape((1,) * len(batch) + (-1,))) / 0.5
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels))
    assert loss.shape == batch
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)


def test_several_labels_are_the_mean_of_the_losses_of_each():
    inputs, labels, weights, biases = table()
    labels = np.stack([labels, (labels + 1) % 50, (labels + 2) % 50], axis=-1)
    where = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    loss = full_softmax_loss(inputs, labels, weights, biases, where=where)
    each = np.stack([full_softmax_loss(inputs, labels[:, t], weights, biases) for t in range(3)], 1)
    expected = [each[i, where[i]].mean() if where[i].any() else 0.0 for i in range(4)]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_biases_are_optional():
    inputs, labels, weights, biases = table()
    np.testing.assert_allclose(
        full_softmax_loss(inputs, labels, weights),
        full_softmax_loss(inputs, labels, weights, np.zeros_like(biases)),
        rtol=1e-6,
    )


def test_a_loss_near_zero_of_large_logits_keeps_its_digits():
    # Logits 10,000 and 9,990: the loss is log(1 + exp(-10)), lost in log-sum-exp minus logit.
    loss = full_softmax_loss(jnp.float32([1e4]), 0, jnp.float32([[1.0], [0.999]]))
    np.testing.assert_allclose(loss, np.log1p(np.exp(-10.0)), atol=1e-7)


def test_probabilities_of_the_gradient_sum_to_zero():
    inputs, labels, weights, biases = table()
    gradient = jax.grad(
        lambda biases: full_softmax_loss(inputs, labels, weights, biases, temperature=0.3).sum()
    )(biases)
    np.testing.assert_allclose(gradient.sum(), 0.0, atol=1e-5)
