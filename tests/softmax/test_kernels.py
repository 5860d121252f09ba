"""Samplers that follow the model: their distributions are the published ones."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax import (
    inverted_multi_index,
    quadratic_kernel,
    random_fourier,
)

# 53 classes in blocks of 7: the last one is not full.
NUM_CLASSES, DIM, BATCH = 53, 6, 3
SAMPLERS = {
    "quadratic": quadratic_kernel(NUM_CLASSES, block_size=7),
    "quadratic, projected": quadratic_kernel(NUM_CLASSES, projection_dim=2, block_size=7),
    "fourier": random_fourier(NUM_CLASSES, num_features=31, temperature=0.8, block_size=7),
    "multi-index": inverted_multi_index(NUM_CLASSES, codebook_size=4),
}
each = pytest.mark.parametrize("name", SAMPLERS)
each_kind = pytest.mark.parametrize("name", ["quadratic", "fourier", "multi-index"])
RNG = np.random.default_rng(0)
WEIGHTS = np.float32(0.6 * RNG.normal(size=(NUM_CLASSES, DIM)))
INPUTS = np.float32(RNG.normal(size=(BATCH, DIM)))
LABELS = np.array([0, 52, 17])
EVERY = np.tile(np.arange(NUM_CLASSES, dtype=np.int32), (BATCH, 1))
KEY = jax.random.key(0)


@cache
def state_of(name):
    return SAMPLERS[name].init(WEIGHTS)


def exhaustive(name):
    """The published kernel of every class in float64, [B, C], normalised."""
    state, inputs, weights = state_of(name), np.float64(INPUTS), np.float64(WEIGHTS)
    if name.startswith("quadratic"):
        if "projected" in name:
            # Singular vectors, and not the eigenvectors of the moments.
            directions = np.linalg.svd(weights)[2][:2].T
            inputs, weights = inputs @ directions, weights @ directions
        mass = 100 * (inputs @ weights.T) ** 2 + 1
    elif name == "fourier":

        def features(x):
            x = x / np.sqrt(0.8)
            omega = np.float64(state.basis) * np.sqrt(0.8)
            return np.exp(x @ omega - (x**2).sum(-1, keepdims=True) / 2)

        mass = features(inputs) @ features(weights).T
    else:
        halves = [state.first[state.first_code], state.second[state.second_code]]
        mass = np.exp(inputs @ np.concatenate(halves, axis=1, dtype=np.float64).T)
    return mass / mass.sum(1, keepdims=True)


@each
def test_the_probability_is_the_exhaustive_distribution_and_follows_the_input(name):
    q = SAMPLERS[name].probability(state_of(name), EVERY, inputs=INPUTS)
    wanted = exhaustive(name)
    np.testing.assert_allclose(q, wanted, rtol=2e-5, atol=1e-8)
    apart = 0.5 * np.abs(wanted - wanted[[1, 2, 0]]).sum(1)
    assert apart.min() > 0.05
    assert (0.5 * np.abs(wanted - 1 / NUM_CLASSES).sum(1)).min() > 0.1


@each_kind
def test_draws_are_independent_and_as_probable_as_reported(name):
    sampler, q = SAMPLERS[name], exhaustive(name)

    def sample(key):
        return sampler.sample(state_of(name), key, jnp.asarray(LABELS), 16, inputs=INPUTS)

    got = jax.tree.map(np.asarray, jax.jit(jax.vmap(sample))(jax.random.split(KEY, 4000)))
    np.testing.assert_allclose(
        got.expected_count, 16 * q[np.arange(BATCH)[None, :, None], got.ids], rtol=2e-5
    )
    for example in range(BATCH):
        ids = got.ids[:, example]
        seen = np.bincount(ids.ravel(), minlength=NUM_CLASSES)
        expected = ids.size * q[example]
        # Pearson's statistic has the mean 52 and the deviation 10.2.
        assert ((seen - expected) ** 2 / expected).sum() < 52 + 4.5 * 10.2
        same, wanted = np.mean(ids[:, ::2] == ids[:, 1::2]), (q[example] ** 2).sum()
        assert abs(same - wanted) <= 4.5 * np.sqrt(wanted * (1 - wanted) / (ids.size / 2)) + 1e-12


def test_features_are_right_on_average():
    """The mean over features of φ(h) φ(w) is exp(h · w / τ)."""
    h, w = np.float64([0.6, -0.4]), np.float32([[0.5, 0.3], [-0.7, 0.2], [0.0, 0.9]])
    count = 40_000
    state = random_fourier(3, num_features=count, temperature=0.8).init(w)
    features = np.float64(state.vectors).reshape(3, count) * np.exp(np.float64(state.peaks))
    products = features * np.exp(h @ np.float64(state.basis) - (h**2).sum() / 1.6)
    # The second half repeats the first with −ω, so it is pairs that are independent.
    pairs = products.reshape(3, 2, count // 2).mean(1)
    error = pairs.std(1) / np.sqrt(count // 2)
    wanted = np.exp(h @ np.float64(w).T / 0.8)
    assert np.all(np.abs(pairs.mean(1) - wanted) <= 4 * error) and np.all(error < 0.02 * wanted)


def test_neither_blocks_nor_a_full_projection_change_the_distribution():
    wanted = exhaustive("quadratic")
    for options in (dict(block_size=1), dict(block_size=1000), dict(projection_dim=DIM)):
        sampler = quadratic_kernel(NUM_CLASSES, **options)
        got = sampler.probability(sampler.init(WEIGHTS), EVERY, inputs=INPUTS)
        np.testing.assert_allclose(got, wanted, rtol=5e-5)


def test_codewords_are_the_means_of_their_members():
    state = state_of("multi-index")
    for codewords, code, half in (
        (state.first, state.first_code, WEIGHTS[:, :3]),
        (state.second, state.second_code, WEIGHTS[:, 3:]),
    ):
        code, codewords = np.asarray(code), np.asarray(codewords)
        distances = ((half[:, None] - codewords[None]) ** 2).sum(-1)
        np.testing.assert_array_equal(code, distances.argmin(1))
        spread = (half - codewords[code]).var(0).sum() / half.var(0).sum()
        assert spread < 0.6
    assert np.asarray(state.sizes).sum() == NUM_CLASSES
    assert sorted(np.asarray(state.order).tolist()) == list(range(NUM_CLASSES))


@pytest.mark.parametrize("name", ["fourier", "multi-index"])
def test_scores_that_underflow_leave_every_class_possible_and_counts_exact(name):
    sampler, state = SAMPLERS[name], state_of(name)

    @jax.jit
    def sample(inputs):
        got = sampler.sample(state, KEY, LABELS, 64, inputs=inputs)
        return got, sampler.probability(state, EVERY, inputs=inputs)

    for scale in (0.0, 30.0, 1e4):
        got, q = sample(scale * INPUTS)
        q = np.float64(q)
        assert np.all(q > 0)
        np.testing.assert_allclose(q.sum(1), 1, rtol=1e-5)
        drawn = np.take_along_axis(q, np.asarray(got.ids), 1)
        np.testing.assert_allclose(got.expected_count, 64 * drawn, rtol=1e-5)
    # With broken masses all classes are alike, and the loss shows the NaN.
    got, q = sample(np.nan * INPUTS)
    assert np.all(np.isfinite(got.expected_count)) and np.all(q > 0)


def test_equal_vectors_share_a_cell_and_empty_cells_are_never_drawn():
    sampler = inverted_multi_index(6, codebook_size=3)
    state = sampler.init(np.float32([[0, 0], [0, 0], [0, 0], [5, 5], [5, 5], [9, 0]]))
    inputs = np.float32([[0.1, 0.2]])
    ids = sampler.sample(state, KEY, np.array([0]), 500, inputs=inputs).ids
    assert set(np.ravel(ids).tolist()) == set(range(6))
    q = sampler.probability(state, np.arange(6)[None], inputs=inputs)[0]
    assert np.unique(np.asarray(q)[:3]).size == 1 and q[3] == q[4]


def test_no_gradient_flows_into_candidates():
    sampler, state = SAMPLERS["quadratic"], state_of("quadratic")

    def counts(inputs):
        candidates = sampler.sample(state, KEY, LABELS, 8, inputs=inputs)
        return candidates.expected_count.sum() + candidates.true_expected_count.sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(counts))(INPUTS), 0)


@pytest.mark.parametrize(
    "sampler",
    [
        quadratic_kernel(40_000),
        inverted_multi_index(40_000, codebook_size=16),
    ],
    ids=["quadratic", "multi-index"],
)
def test_sampling_never_scores_all_classes(sampler, largest_array):
    batch = 256
    state = jax.eval_shape(sampler.init, jnp.zeros((40_000, 4)))
    compiled = (
        jax.jit(lambda s, key, h, l: sampler.sample(s, key, l, 64, inputs=h))
        .lower(state, KEY, jnp.zeros((batch, 4)), jnp.zeros(batch, jnp.int32))
        .compile()
    )
    assert largest_array(compiled) < batch * 40_000 / 4


def test_arguments_that_do_not_fit():
    sampler, state = SAMPLERS["quadratic"], state_of("quadratic")
    for arguments, message in (
        ({"unique": True}, "unique must be False: only independent draws are offered"),
        ({"inputs": None}, "inputs must be given"),
        ({"labels": LABELS[:2]}, r"labels must be \(3,\) or \(3, 'n'\)"),
        ({"inputs": np.float32(1)}, r"inputs must be \[\*batch, 6\], got \(\)"),
    ):
        arguments = {"labels": LABELS, "num_sampled": 4, "inputs": INPUTS} | arguments
        with pytest.raises(ValueError, match=message):
            sampler.sample(state, KEY, **arguments)
    with pytest.raises(ValueError, match="inputs must be given"):
        sampler.probability(state, LABELS)
    with pytest.raises(ValueError, match=r"ids must be \(3,\) or \(3, 'n'\)"):
        sampler.probability(state, np.arange(53), inputs=INPUTS)
    for weights in (None, WEIGHTS[:5], WEIGHTS[0], WEIGHTS[:, :0]):
        with pytest.raises(ValueError, match="weights must"):
            sampler.init(weights)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (quadratic_kernel, {"alpha": -1.0}, "alpha must be .* at least 0, got -1.0"),
        (quadratic_kernel, {"projection_dim": 0}, "projection_dim must be .*, got 0"),
        (quadratic_kernel, {"block_size": 0}, "block_size must be .*, got 0"),
        (random_fourier, {"temperature": 0.0}, "temperature must be .* above 0, got 0.0"),
        (inverted_multi_index, {"codebook_size": 10}, r"codebook_size must be .* \[1, 9\], got 10"),
    ],
)
def test_options_out_of_range(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(9, **options)
