"""The gap between sampled and exact softmax, against other ways to compute it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax import full_softmax_loss, log_uniform, sampled_softmax_loss, uniform, unigram
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
        candidates = sampler.sample((), key, LABELS, 8)
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
    found = gap(sampler, 8, num_keys, gradients="both", correction="negatives")
    size = (gradient**2).sum()
    np.testing.assert_allclose(found.gradient_variance, variance / size, rtol=1e-4)
    np.testing.assert_allclose(found.gradient_bias**2, max(bias, 0) / size, rtol=1e-3, atol=1e-5)
    expected = np.mean([value for value, _ in drawn]) - loss
    np.testing.assert_allclose(found.loss_gap, expected, rtol=1e-4)


@pytest.mark.slow
def test_more_candidates_and_no_repeats_are_better():
    few, many = (gap(uniform(C), n, 400, correction="negatives") for n in (5, 20))
    assert many.gradient_variance < few.gradient_variance
    assert many.gradient_bias < few.gradient_bias
    # The logarithm of an unbiased estimate is too small on average.
    assert few.loss_gap < many.loss_gap < 0
    repeated = gap(uniform(C), 20, 400, correction="negatives", unique=False)
    assert many.gradient_variance < repeated.gradient_variance


@pytest.mark.slow
def test_drawing_by_the_softmax_itself_has_no_bias():
    """From the softmax of the only example, all weights are the same: E[g] is exact (Blanc & Rendle)."""
    x, y = INPUTS[:1], LABELS[:1]
    p = np.array(jax.nn.softmax(x @ WEIGHTS.T)[0], np.float64)
    p[y[0]] = 0  # Of the others.
    sampler = unigram(p)

    def of(sampler):
        return estimate_gap(
            x, y, WEIGHTS, None, sampler, sampler.init(), KEY, 4, 2_000,
            unique=False, correction="negatives",
        )  # fmt: skip

    adapted, blind = of(sampler), of(uniform(C))
    # Two thousand draws know the bias to about this.
    assert adapted.gradient_bias < 2 * np.sqrt(adapted.gradient_variance / 2_000)
    assert blind.gradient_bias > 4 * np.sqrt(blind.gradient_variance / 2_000)
    np.testing.assert_allclose(adapted.loss_gap, 0, atol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match=r"num_keys must be .* at least 2, got 1"):
        gap(uniform(C), 4, 1)
    with pytest.raises(ValueError, match=r"gradients must be one of .*, got 'all'"):
        gap(uniform(C), 4, 2, gradients="all")
