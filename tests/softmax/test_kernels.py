"""Samplers that follow the model: what they report is what they draw, and what is published."""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxml.softmax.candidates import Candidates, Sampler
from jaxml.softmax.kernels import inverted_multi_index, quadratic_kernel, random_fourier
from jaxml.softmax.sampled import sampled_softmax_loss

# 53 classes in blocks of 7: the last one is not full.
NUM_CLASSES, DIM, BATCH = 53, 6, 3
SAMPLERS = {
    "quadratic": quadratic_kernel(NUM_CLASSES, block_size=7),
    "quadratic, projected": quadratic_kernel(NUM_CLASSES, projection_dim=2, block_size=7),
    "fourier": random_fourier(NUM_CLASSES, num_features=31, temperature=0.8, block_size=7),
    "multi-index": inverted_multi_index(NUM_CLASSES, codebook_size=4),
}
each = pytest.mark.parametrize("name", SAMPLERS)
RNG = np.random.default_rng(0)
WEIGHTS = np.float32(0.6 * RNG.normal(size=(NUM_CLASSES, DIM)))
INPUTS = np.float32(RNG.normal(size=(BATCH, DIM)))
LABELS = np.array([0, 52, 17])
EVERY = np.tile(np.arange(NUM_CLASSES, dtype=np.int32), (BATCH, 1))


@cache
def state_of(name):
    return SAMPLERS[name].init(WEIGHTS)


def kernel(name, state, inputs, weights):
    """The published kernel of every class in float64, [B, C], by the slow and obvious way."""
    inputs, weights = np.float64(inputs), np.float64(weights)
    if name.startswith("quadratic"):
        if "projected" in name:
            # Singular vectors, and not the eigenvectors of the moments.
            directions = np.linalg.svd(weights)[2][:2].T
            inputs, weights = inputs @ directions, weights @ directions
        return 100 * (inputs @ weights.T) ** 2 + 1
    if name == "fourier":

        def features(x):
            x = x / np.sqrt(0.8)
            omega = np.float64(state.basis) * np.sqrt(0.8)
            return np.exp(x @ omega - (x**2).sum(-1, keepdims=True) / 2)

        return features(inputs) @ features(weights).T
    rounded = np.concatenate(
        [state.first[state.first_code], state.second[state.second_code]], axis=1, dtype=np.float64
    )
    return np.exp(inputs @ rounded.T)


def exhaustive(name):
    mass = kernel(name, state_of(name), INPUTS, WEIGHTS)
    return mass / mass.sum(1, keepdims=True)


@cache
def drawn(name, count=16, draws=4000):
    """Candidates of many keys: ids and counts [draws, B, count], true counts [draws, B]."""
    sampler, state = SAMPLERS[name], state_of(name)

    def sample(key):
        return sampler.sample(state, key, jnp.asarray(LABELS), count, inputs=jnp.asarray(INPUTS))

    keys = jax.random.split(jax.random.key(0), draws)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(sample))(keys))


# --- what is reported is what is published, and what is drawn -----------------------------------


@each
def test_the_probability_is_the_exhaustive_distribution(name):
    q = SAMPLERS[name].probability(state_of(name), EVERY, inputs=INPUTS)
    assert q.dtype == jnp.float32
    np.testing.assert_allclose(q, exhaustive(name), rtol=2e-5, atol=1e-8)
    np.testing.assert_allclose(np.float64(q).sum(1), 1, rtol=1e-6)


@each
def test_the_samplers_do_follow_the_model(name):
    """No two inputs have the same distribution, and none is near the uniform one."""
    q = exhaustive(name)
    apart = 0.5 * np.abs(q - np.stack([q[1], q[2], q[0]])).sum(1)
    assert apart.min() > 0.05
    assert (0.5 * np.abs(q - 1 / NUM_CLASSES).sum(1)).min() > 0.1


@each
def test_counts_are_the_number_of_draws_times_the_probability_of_each(name):
    got, q = drawn(name), exhaustive(name)
    assert got.ids.dtype == np.int32 and got.expected_count.dtype == np.float32
    assert got.ids.min() >= 0 and got.ids.max() < NUM_CLASSES
    example = np.arange(BATCH)[None, :, None]
    np.testing.assert_allclose(got.expected_count, 16 * q[example, got.ids], rtol=2e-5)
    np.testing.assert_allclose(
        got.true_expected_count, np.tile(16 * q[np.arange(BATCH), LABELS], (4000, 1)), rtol=2e-5
    )


@each
def test_ids_come_as_often_as_they_were_expected(name):
    ids, q = drawn(name).ids, exhaustive(name)
    total = ids[:, 0].size
    for example in range(BATCH):
        seen = np.bincount(ids[:, example].ravel(), minlength=NUM_CLASSES)
        expected = total * q[example]
        deviation = np.sqrt(expected * (1 - q[example]))
        assert np.all(np.abs(seen - expected) <= 4.5 * deviation + 0.5)
        # Pearson's statistic has the mean 52 and the deviation 10.2.
        assert ((seen - expected) ** 2 / expected).sum() < 52 + 4.5 * 10.2


@each
def test_the_partition_estimate_is_unbiased(name):
    got = drawn(name)
    z = np.exp(np.float64(INPUTS) @ np.float64(WEIGHTS).T)
    estimates = (z[np.arange(BATCH)[None, :, None], got.ids] / got.expected_count).sum(-1)
    error = estimates.std(0) / np.sqrt(len(estimates))
    assert np.all(np.abs(estimates.mean(0) - z.sum(1)) <= 4 * error)
    assert np.all(error < 0.02 * z.sum(1))


@each
def test_draws_are_independent_of_each_other_and_between_examples(name):
    got, q = drawn(name), exhaustive(name)

    def coincidences(a, b, p):
        rate, wanted = np.mean(a == b), p
        assert abs(rate - wanted) <= 4.5 * np.sqrt(wanted * (1 - wanted) / a.size) + 1e-12

    even, odd = got.ids[:, :, ::2], got.ids[:, :, 1::2]
    for example in range(BATCH):
        coincidences(even[:, example], odd[:, example], (q[example] ** 2).sum())
    coincidences(got.ids[:, 0], got.ids[:, 1], (q[0] * q[1]).sum())


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


def test_they_are_nearer_to_the_softmax_than_uniform_draws_are():
    z = np.exp(np.float64(INPUTS) @ np.float64(WEIGHTS).T)
    softmax = z / z.sum(1, keepdims=True)

    def distance(q):
        return 0.5 * np.abs(q - softmax).sum(1).mean()

    uniform = distance(1 / NUM_CLASSES)
    assert distance(exhaustive("multi-index")) < 0.7 * uniform
    fourier = random_fourier(NUM_CLASSES, num_features=512)
    q = fourier.probability(fourier.init(WEIGHTS), EVERY, inputs=INPUTS)
    assert distance(np.float64(q)) < 0.7 * uniform


def test_full_rank_projection_changes_nothing():
    plain, turned = (
        quadratic_kernel(NUM_CLASSES, projection_dim=dim, block_size=7) for dim in (None, DIM)
    )
    wanted = plain.probability(plain.init(WEIGHTS), EVERY, inputs=INPUTS)
    got = turned.probability(turned.init(WEIGHTS), EVERY, inputs=INPUTS)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


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


# --- extremes -----------------------------------------------------------------------------------


@each
def test_scores_that_underflow_leave_every_class_possible_and_counts_exact(name):
    sampler = SAMPLERS[name]
    state = sampler.init(WEIGHTS)

    @jax.jit
    def sample(inputs):
        got = sampler.sample(state, jax.random.key(1), LABELS, 64, inputs=inputs)
        return got, sampler.probability(state, EVERY, inputs=inputs)

    for scale in (0.0, 30.0, 1e4):
        got, q = sample(scale * INPUTS)
        q = np.float64(q)
        assert np.all(q > 0)
        np.testing.assert_allclose(q.sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(
            got.expected_count, 64 * np.take_along_axis(q, np.asarray(got.ids), 1), rtol=1e-5
        )
    # Where masses are broken all classes are alike, and the loss will show the NaN.
    got, q = sample(np.nan * INPUTS)
    assert np.all(np.isfinite(got.expected_count)) and np.all(q > 0)


@pytest.mark.parametrize("make", [quadratic_kernel, random_fourier, inverted_multi_index])
@pytest.mark.parametrize("num_classes, dim", [(1, 1), (2, 3), (300, 1)])
def test_any_number_of_classes_and_dimensions_by_default(make, num_classes, dim):
    sampler = make(num_classes)
    rng = np.random.default_rng(num_classes)
    state = sampler.init(rng.normal(size=(num_classes, dim)))
    h = np.float32(rng.normal(size=dim))
    q = sampler.probability(state, np.arange(num_classes), inputs=h)
    np.testing.assert_allclose(np.float64(q).sum(), 1, rtol=1e-5)
    got = sampler.sample(state, jax.random.key(0), num_classes - 1, 5, inputs=h)
    assert got.ids.shape == (5,) and got.true_expected_count.shape == ()
    np.testing.assert_allclose(got.expected_count, 5 * q[got.ids], rtol=1e-6)


def test_blocks_do_not_change_the_distribution():
    wanted = SAMPLERS["quadratic"].probability(state_of("quadratic"), EVERY, inputs=INPUTS)
    for block_size in (1, 53, 1000):
        sampler = quadratic_kernel(NUM_CLASSES, block_size=block_size)
        got = sampler.probability(sampler.init(WEIGHTS), EVERY, inputs=INPUTS)
        np.testing.assert_allclose(got, wanted, rtol=5e-5)


def test_equal_vectors_share_a_cell_and_empty_cells_are_never_drawn():
    sampler = inverted_multi_index(6, codebook_size=3)
    weights = np.float32([[0, 0], [0, 0], [0, 0], [5, 5], [5, 5], [9, 0]])
    state = sampler.init(weights)
    inputs = np.float32([[0.1, 0.2]])
    ids = sampler.sample(state, jax.random.key(0), np.array([0]), 500, inputs=inputs).ids
    assert set(np.ravel(ids).tolist()) == set(range(6))
    q = sampler.probability(state, np.arange(6)[None], inputs=inputs)[0]
    assert np.unique(np.asarray(q)[:3]).size == 1 and q[3] == q[4]


# --- the contract -------------------------------------------------------------------------------


@each
def test_shapes_of_labels_and_inputs(name):
    sampler, state = SAMPLERS[name], state_of(name)
    h = jnp.zeros((2, 4, DIM))
    for labels, where in (
        (np.zeros((2, 4), int), None),
        (np.zeros((2, 4, 3), np.uint8), np.ones((2, 4, 3), bool)),
        (np.zeros((2, 4, 0), int), None),
    ):
        got = jax.eval_shape(
            lambda key, l=labels, w=where: sampler.sample(state, key, l, 5, where=w, inputs=h),
            jax.random.key(0),
        )
        assert isinstance(got, Candidates)
        assert got.ids.shape == got.expected_count.shape == (2, 4, 5)
        assert got.true_expected_count.shape == labels.shape
    empty = sampler.sample(state, jax.random.key(0), np.zeros(0, int), 5, inputs=np.zeros((0, DIM)))
    assert empty.ids.shape == (0, 5)
    assert isinstance(sampler, Sampler)


@each
def test_masked_labels_and_traced_ones_out_of_range_are_not_expected(name):
    sampler, state = SAMPLERS[name], state_of(name)
    labels = np.array([[0, 52], [17, -3], [99, 2]])
    inside, where = (labels >= 0) & (labels < NUM_CLASSES), np.array([[1, 0], [1, 1], [1, 1]], bool)
    got = jax.jit(
        lambda l, w: sampler.sample(state, jax.random.key(0), l, 16, where=w, inputs=INPUTS)
    )(labels, where)
    q = np.take_along_axis(exhaustive(name), labels.clip(0, 52), axis=1)
    np.testing.assert_allclose(got.true_expected_count, 16 * q * (inside & where), rtol=2e-5)
    outside = np.array([[-1, 53, -(2**40), 2**40]] * BATCH)
    assert not np.any(sampler.probability(state, outside, inputs=INPUTS))


@each
def test_eager_and_alone_is_jitted_and_mapped(name):
    mapped = drawn(name)
    for i, key in enumerate(jax.random.split(jax.random.key(0), 4000)[:2]):
        got = SAMPLERS[name].sample(state_of(name), key, LABELS, 16, inputs=INPUTS)
        np.testing.assert_array_equal(got.ids, mapped.ids[i])
        np.testing.assert_allclose(got.expected_count, mapped.expected_count[i], rtol=1e-5)


@pytest.mark.parametrize("name", ["quadratic, projected", "multi-index"])
def test_a_new_table_needs_no_new_trace_and_update_learns_nothing(name):
    sampler, traces = SAMPLERS[name], []

    @jax.jit
    def step(weights, key, inputs, labels):
        traces.append(1)
        return sampler.sample(sampler.init(weights), key, labels, 4, inputs=inputs)

    for i in range(3):
        step(WEIGHTS * (i + 1), jax.random.key(i), INPUTS, LABELS)
    assert len(traces) == 1
    state = state_of(name)
    assert sampler.update(state, LABELS, where=LABELS > 3) is state


@pytest.mark.parametrize("name", ["quadratic"])
def test_the_loss_takes_the_candidates_and_no_gradient_flows_into_them(name):
    sampler, state = SAMPLERS[name], state_of(name)
    fixed = sampler.sample(state, jax.random.key(0), LABELS, 8, inputs=INPUTS)

    def loss(inputs, candidates):
        return sampled_softmax_loss(
            inputs, LABELS, WEIGHTS, None, candidates, correction="negatives"
        ).sum()

    def loss_and_more(inputs):
        candidates = sampler.sample(state, jax.random.key(0), LABELS, 8, inputs=inputs)
        counts = candidates.expected_count.sum() + candidates.true_expected_count.sum()
        return loss(inputs, candidates) + counts

    wanted = jax.jit(jax.grad(loss))(INPUTS, fixed)
    got = jax.jit(jax.grad(loss_and_more))(INPUTS)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["fourier", "multi-index"])
def test_sampling_and_building_lower_for_accelerators(name):
    sampler = SAMPLERS[name]

    def sample(weights, key, inputs, labels):
        return sampler.sample(sampler.init(weights), key, labels, 9, inputs=inputs)

    exported = export.export(jax.jit(sample), platforms=("cpu", "cuda", "tpu"))(
        jnp.asarray(WEIGHTS), jax.random.key(0), jnp.asarray(INPUTS), jnp.asarray(LABELS)
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    "sampler",
    [
        quadratic_kernel(40_000),
        random_fourier(40_000, num_features=8),
        inverted_multi_index(40_000, codebook_size=16),
    ],
    ids=["quadratic", "fourier", "multi-index"],
)
def test_sampling_never_scores_all_classes(sampler):
    batch = 256
    state = jax.eval_shape(sampler.init, jnp.zeros((40_000, 4)))
    compiled = (
        jax.jit(lambda s, key, h, l: sampler.sample(s, key, l, 64, inputs=h))
        .lower(state, jax.random.key(0), jnp.zeros((batch, 4)), jnp.zeros(batch, jnp.int32))
        .compile()
    )
    shapes = re.findall(r"\b(?:pred|[suf]\d+)\[([\d,]+)\]", compiled.as_text())
    largest = max(np.prod([int(d) for d in shape.split(",")]) for shape in shapes)
    assert largest < batch * 40_000 / 4


# --- bad input ----------------------------------------------------------------------------------


@each
def test_arguments_that_do_not_fit(name):
    sampler, state, key = SAMPLERS[name], state_of(name), jax.random.key(0)
    for arguments, message in (
        ({"unique": True}, "unique must be False: only independent draws are offered"),
        ({"inputs": None}, "inputs must be given"),
        ({"inputs": INPUTS[:, :4]}, r"inputs must be \[\*batch, 6\], got \(3, 4\)"),
        ({"inputs": np.float32(1)}, r"inputs must be \[\*batch, 6\], got \(\)"),
        ({"labels": LABELS[:2]}, r"labels must be \(3,\) or \(3, 'T'\)"),
        ({"labels": LABELS + 1}, r"labels must be in \[0, 53\), got 53 at \(1,\)"),
        ({"labels": LABELS * 1.0}, "labels must be integers"),
        ({"where": np.ones(2, bool)}, "where must have the labels' shape"),
        ({"num_sampled": 0}, r"num_sampled must be in \[1, .*, is 0"),
        ({"num_sampled": 2.5}, "num_sampled must be a static integer"),
    ):
        arguments = {"labels": LABELS, "num_sampled": 4, "inputs": INPUTS} | arguments
        with pytest.raises(ValueError, match=message):
            sampler.sample(state, key, **arguments)
    with pytest.raises(ValueError, match="inputs must be given"):
        sampler.probability(state, LABELS)
    with pytest.raises(ValueError, match=r"ids must be \(3,\) or \(3, 'n'\)"):
        sampler.probability(state, np.arange(53), inputs=INPUTS)
    with pytest.raises(ValueError, match="ids must be integers"):
        sampler.probability(state, LABELS * 1.0, inputs=INPUTS)
    for weights in (None, WEIGHTS[:5], WEIGHTS[0], WEIGHTS[:, :0]):
        with pytest.raises(ValueError, match="weights must"):
            sampler.init(weights)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (quadratic_kernel, {"num_classes": 0}, r"num_classes must be in \[1, 2147483646\], is 0"),
        (quadratic_kernel, {"alpha": -1.0}, "alpha must be finite and at least 0, got -1.0"),
        (quadratic_kernel, {"alpha": np.nan}, "alpha must be finite and at least 0, got nan"),
        (quadratic_kernel, {"projection_dim": 0}, "projection_dim must be in .*, is 0"),
        (quadratic_kernel, {"block_size": 0}, "block_size must be in .*, is 0"),
        (random_fourier, {"num_classes": 2.5}, "num_classes must be a static integer, is 2.5"),
        (random_fourier, {"num_features": 0}, "num_features must be in .*, is 0"),
        (random_fourier, {"temperature": 0.0}, "temperature must be greater than 0, got 0.0"),
        (random_fourier, {"block_size": -1}, "block_size must be in .*, is -1"),
        (inverted_multi_index, {"codebook_size": 0}, r"codebook_size must be in \[1, 9\], is 0"),
        (inverted_multi_index, {"codebook_size": 10}, r"codebook_size must be in \[1, 9\], is 10"),
        (inverted_multi_index, {"num_iterations": -1}, "num_iterations must be in .*, is -1"),
    ],
)
def test_options_out_of_range(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**{"num_classes": 9} | options)
