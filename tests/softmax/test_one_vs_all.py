"""Independent sigmoids over all classes: what the battery does not ask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax import one_vs_all_loss

NUM_CLASSES, DIM = 23, 5


def table(*batch, seed=0, num_classes=NUM_CLASSES):
    rng = np.random.default_rng(seed)
    return (
        np.float32(rng.normal(size=(*batch, DIM))),
        rng.integers(0, num_classes, batch),
        np.float32(rng.normal(size=(num_classes, DIM))),
        np.float32(rng.normal(size=num_classes)),
    )


def reference(inputs, is_true, weights, biases):
    """The sum of −log σ(±z) in float64, and its gradients for a cotangent of ones."""
    inputs, weights, biases = map(np.float64, (inputs, weights, biases))
    z = np.where(is_true, 1, -1) * (inputs @ weights.T + biases)
    active = is_true.any(-1, keepdims=True)
    d_z = np.where(is_true, -1, 1) / (1 + np.exp(z)) * active
    gradients = d_z @ weights, d_z.T @ inputs, d_z.sum(0)
    return (np.logaddexp(0, -z) * active).sum(-1), gradients


def test_several_true_classes_some_masked_some_listed_twice():
    inputs, _, weights, biases = table(4)
    labels = np.array([[0, 22, 8], [5, 5, 12], [3, -7, 99], [20, 1, 2]])
    where = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    clean = inputs.copy()
    inputs[3] = np.nan  # of no consequence without a label
    is_true = ((labels[..., None] == np.arange(NUM_CLASSES)) & where[..., None]).any(-2)
    wanted, wanted_gradients = reference(clean, is_true, weights, biases)

    def total(inputs, weights, biases):
        losses = one_vs_all_loss(inputs, labels, weights, biases, where=where, block_size=7)
        return losses.sum(), losses

    gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))
    (_, losses), gradients = gradient(inputs, weights, biases)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    assert losses[3] == 0
    for got, want in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_large_scores_neither_overflow_nor_lose_digits():
    weights = jnp.float32([[1.0], [-1.0]])
    loss = jax.jit(lambda w, s, label: one_vs_all_loss(s[None, None], label[None], w)[0])
    slope = jax.jit(jax.grad(loss))
    for score in map(np.float32, (30.0, 1e4)):
        right, wrong = (loss(weights, score, np.array(label)) for label in (0, 1))
        np.testing.assert_allclose(right, 2 * np.log1p(np.exp(-score)), rtol=1e-5)
        np.testing.assert_allclose(wrong, 2 * score, rtol=1e-5)
        wanted = score * np.float64([[-1.0], [1.0]]) / (1 + np.exp(score)) if score < 50 else 0
        got = slope(weights, score, np.array(0))
        np.testing.assert_allclose(got, np.broadcast_to(wanted, (2, 1)), rtol=1e-4)


def test_a_class_with_a_bias_of_minus_infinity_is_out():
    inputs, labels, weights, biases = table(4)
    labels = labels % 20
    biases[20:] = -np.inf
    loss = lambda w: one_vs_all_loss(inputs, labels, w, biases, block_size=6).sum()  # noqa: E731
    got, gradient = jax.jit(jax.value_and_grad(loss))(weights)
    fewer = jax.jit(one_vs_all_loss)(inputs, labels, weights[:20], biases[:20])
    np.testing.assert_allclose(got, fewer.sum(), rtol=1e-5)
    assert np.isfinite(gradient).all() and not np.any(gradient[20:])


def test_the_compiled_program_holds_no_scores_of_all_classes(largest_array):
    rows, block_size, num_classes = 64, 512, 5003
    inputs, labels, weights, biases = table(rows, num_classes=num_classes)
    step = jax.jit(
        jax.value_and_grad(
            lambda h, w, b: one_vs_all_loss(h, labels, w, b, block_size=block_size).sum(),
            argnums=(0, 1, 2),
        )
    )
    largest = largest_array(step.lower(inputs, weights, biases).compile())
    assert rows * block_size <= largest <= max(rows * block_size, num_classes * DIM)


def test_no_true_class_has_loss_zero_and_one_class_a_loss():
    inputs, _, weights, _ = table(3)
    loss = jax.jit(one_vs_all_loss)
    np.testing.assert_array_equal(loss(inputs, np.zeros((3, 0), int), weights), 0)
    alone = loss(jnp.zeros(DIM), 0, weights[:1])
    np.testing.assert_allclose(alone, np.log(2), rtol=1e-6)
    with pytest.raises(ValueError, match=r"block_size must be .*, got 0"):
        one_vs_all_loss(inputs, np.zeros(3, int), weights, block_size=0)
    with pytest.raises(ValueError, match=r"biases must be \(23,\) or None"):
        one_vs_all_loss(inputs, np.zeros(3, int), weights, np.zeros(3))
