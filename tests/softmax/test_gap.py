"""The gap between sampled and exact softmax, against other ways to compute it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax import full_softmax_loss, log_uniform, sampled_softmax_loss, uniform
from jaxml.softmax.gap import estimate_gap

C, D, B = 40, 5, 6
RNG = np.random.default_rng(0)
INPUTS = jnp.asarray(RNG.normal(size=(B, D)), jnp.float32)
WEIGHTS = jnp.asarray(RNG.normal(size=(C, D)), jnp.float32)
BIASES = jnp.asarray(RNG.normal(size=C), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, C, B))
KEY = jax.random.key(0)
BATCH = (INPUTS, LABELS, WEIGHTS, BIASES)


def gap(sampler, num_sampled, num_keys, **options):
    return jax.jit(
        lambda key: estimate_gap(
            *BATCH, sampler, sampler.init(), key, num_sampled, num_keys, **options
        )
    )(KEY)


def test_is_what_the_draws_give_one_by_one():
    """Bias, variance and gap from the stacked gradients of the same draws, in float64."""
    sampler, num_keys = log_uniform(C), 7

    def flat(tree):
        return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in tree])

    def sampled(x, w, key):
        candidates = sampler.sample((), key, LABELS, 8, unique=False)
        losses = sampled_softmax_loss(x, LABELS, w, BIASES, candidates, correction="negatives")
        return losses.mean()

    def exact(x, w):
        return full_softmax_loss(x, LABELS, w, BIASES).mean()

    loss, gradient = jax.jit(jax.value_and_grad(exact, (0, 1)))(INPUTS, WEIGHTS)
    of_key = jax.jit(jax.value_and_grad(sampled, (0, 1)))
    drawn = [of_key(INPUTS, WEIGHTS, jax.random.fold_in(KEY, i)) for i in range(num_keys)]
    stacked, gradient = np.stack([flat(g) for _, g in drawn]), flat(gradient)
    variance = stacked.var(axis=0, ddof=1).sum()
    bias = ((stacked.mean(0) - gradient) ** 2).sum() - variance / num_keys
    found = gap(sampler, 8, num_keys, unique=False, correction="negatives")
    size = (gradient**2).sum()
    np.testing.assert_allclose(found.gradient_variance, variance / size, rtol=1e-4)
    np.testing.assert_allclose(found.gradient_bias**2, max(bias, 0) / size, rtol=1e-3, atol=1e-5)
    expected = np.mean([value for value, _ in drawn]) - loss
    np.testing.assert_allclose(found.loss_gap, expected, rtol=1e-4)


def test_refuses():
    with pytest.raises(ValueError, match=r"num_keys must be .* at least 2, got 1"):
        gap(uniform(C), 4, 1)
    with pytest.raises(ValueError, match=r"gradients must be one of .*, got 'all'"):
        gap(uniform(C), 4, 2, gradients="all")
