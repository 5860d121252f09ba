"""The contract of candidates and samplers, and TensorFlow's published semantics.

Golden figures come from the public tests of TensorFlow's range samplers
(tensorflow/core/kernels/range_sampler_test.cc, named where they are used).
"""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxml.softmax.candidates import Candidates, Sampler, log_uniform, uniform, unigram

NUM_CLASSES = 50
SAMPLERS = {
    "uniform": uniform(NUM_CLASSES),
    "log_uniform": log_uniform(NUM_CLASSES),
    # Not in order of frequency, two ids reserved, and one class that needs no luck.
    "unigram": unigram(
        np.random.default_rng(0).permutation([10_000, *range(1, NUM_CLASSES - 2)]), num_reserved=2
    ),
}
LABELS = np.arange(NUM_CLASSES)
each = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
named = pytest.mark.parametrize("name", SAMPLERS)
both = pytest.mark.parametrize("unique", [True, False], ids=["unique", "independent"])


def drawn(sampler, count, *, unique=True, labels=LABELS, draws=20_000):
    """Candidates of many keys, as [draws, …] arrays."""
    state = sampler.init()
    sample = jax.vmap(lambda key: sampler.sample(state, key, labels, count, unique=unique))
    return jax.tree.map(np.asarray, jax.jit(sample)(jax.random.split(jax.random.key(0), draws)))


def counts_of(sampler, labels, count, **options):
    """Only the counts of the labels; the draw itself is compiled away."""
    state = sampler.init()

    @jax.jit
    def counts(key):
        return sampler.sample(state, key, labels, count, **options).true_expected_count

    return np.asarray(counts(jax.random.key(0)))


def shapes_of(sampler, labels, count, **options):
    """The sample as shapes and dtypes; nothing is compiled."""
    state = sampler.init()
    return jax.eval_shape(
        lambda key: sampler.sample(state, key, labels, count, **options), jax.random.key(0)
    )


@cache
def twelve(name, unique):
    return drawn(SAMPLERS[name], 12, unique=unique)


# --- what a sample is ---------------------------------------------------------------------------


@each
@both
def test_shapes_and_dtypes(sampler, unique):
    for labels in (np.zeros((3, 2), np.int64), np.zeros((0,), np.uint8), [1, 2], 3):
        got = shapes_of(sampler, labels, 8, unique=unique)
        assert isinstance(got, Candidates)
        assert (got.ids.shape, got.ids.dtype) == ((8,), jnp.int32)
        assert (got.expected_count.shape, got.expected_count.dtype) == ((8,), jnp.float32)
        assert got.true_expected_count.shape == np.shape(labels)
        assert got.true_expected_count.dtype == jnp.float32


@each
def test_probability_is_a_distribution_over_the_classes_and_zero_outside(sampler):
    state = sampler.init()
    p = sampler.probability(state, LABELS)
    assert p.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(p, np.float64).sum(), 1, rtol=1e-6)
    outside = np.array([-(2**31), -1, NUM_CLASSES, 2**31 - 1])
    assert sampler.probability(state, outside).tolist() == [0, 0, 0, 0]
    assert sampler.probability(state, np.array([2**40 + 1, -(2**40)])).tolist() == [0, 0]
    grid = LABELS.reshape(5, 10)
    np.testing.assert_array_equal(sampler.probability(state, grid), p.reshape(5, 10))


@named
def test_independent_counts_are_the_number_of_draws_times_p(name):
    got, sampler = twelve(name, False), SAMPLERS[name]
    p = np.asarray(sampler.probability(sampler.init(), LABELS))
    np.testing.assert_allclose(got.expected_count, 12 * p[got.ids], rtol=1e-6)
    np.testing.assert_allclose(got.true_expected_count[0], 12 * p, rtol=1e-6)


@named
@pytest.mark.parametrize("count", [1, 12, 47])
def test_inclusion_is_a_capped_multiple_of_p_that_sums_to_the_sample(name, count):
    sampler = SAMPLERS[name]
    inclusion = counts_of(sampler, LABELS, count).astype(np.float64)
    p = np.asarray(sampler.probability(sampler.init(), LABELS), np.float64)
    assert inclusion.max() <= 1
    np.testing.assert_allclose(inclusion.sum(), count, rtol=1e-6)
    free = (inclusion < 1 - 1e-6) & (p > 0)
    if free.any():
        ratio = inclusion[free] / p[free]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
        assert np.all(ratio[0] * p[~free & (p > 0)] >= 1 - 1e-5)


@named
def test_unique_ids_are_distinct_and_counted_as_their_labels_are(name):
    got = twelve(name, True)
    assert np.all(np.diff(np.sort(got.ids, axis=1)) > 0)
    np.testing.assert_array_equal(got.expected_count, got.true_expected_count[0][got.ids])


@named
@both
def test_ids_come_as_often_as_they_were_expected(name, unique):
    got = twelve(name, unique)
    mean = got.true_expected_count[0].astype(np.float64)
    rate = np.bincount(got.ids.ravel(), minlength=NUM_CLASSES) / len(got.ids)
    # A class occurs once or not at all if unique; its number of occurrences is binomial if not.
    variance = mean * (1 - mean) if unique else mean * (1 - mean / 12)
    assert np.all(np.abs(rate - mean) <= 4.5 * np.sqrt(variance / len(got.ids)) + 1e-6)


@pytest.mark.parametrize("make", [uniform, log_uniform, lambda n: unigram([1] * n)])
def test_every_class_can_be_asked_for(make):
    np.testing.assert_allclose(counts_of(make(49), np.arange(49), 49), 1, rtol=1e-6)
    sampler = make(3)
    got = sampler.sample(sampler.init(), jax.random.key(0), np.array([2]), 3)
    assert sorted(got.ids.tolist()) == [0, 1, 2]


def test_a_reserved_or_uncounted_class_is_never_drawn():
    sampler = unigram([0, 3, 0, 1, 0, 2], num_reserved=2)
    for unique in (True, False):
        got = drawn(sampler, 3, draws=50, unique=unique, labels=np.arange(8))
        assert set(np.ravel(got.ids).tolist()) == {3, 5, 7}
        assert np.all(np.asarray(got.true_expected_count[:, [0, 1, 2, 4, 6]]) == 0)


def test_a_tail_too_thin_for_float32_sums_is_drawn_in_full():
    # Beside the giant, each of the others has p = 1e-18 and an inclusion probability of 1/4.
    sampler = unigram([1e18, *[1.0] * 40])
    got = drawn(sampler, 11, draws=4000, labels=np.arange(41))
    np.testing.assert_allclose(got.true_expected_count[0], [1, *[0.25] * 40], rtol=1e-5)
    rate = np.bincount(np.ravel(got.ids), minlength=41) / 4000
    assert rate[0] == 1
    assert np.all(np.abs(rate[1:] - 0.25) < 4.5 * np.sqrt(0.25 * 0.75 / 4000))


# --- pure functions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unique"), [*((name, True) for name in SAMPLERS), ("log_uniform", False)]
)
def test_a_batch_of_keys_is_a_loop_over_keys(name, unique):
    sampler = SAMPLERS[name]
    state = sampler.init()

    def sample(key):
        return sampler.sample(state, key, LABELS, 9, unique=unique)

    keys = jax.random.split(jax.random.key(1), 5)
    mapped = jax.vmap(sample)(keys)
    for i, key in enumerate(keys):
        one, again = sample(key), sample(key)
        np.testing.assert_array_equal(one.ids, again.ids)
        np.testing.assert_array_equal(one.ids, mapped.ids[i])
        np.testing.assert_allclose(one.expected_count, mapped.expected_count[i], rtol=1e-6)
        np.testing.assert_allclose(
            one.true_expected_count, mapped.true_expected_count[i], rtol=1e-6
        )
    assert len({tuple(ids) for ids in mapped.ids.tolist()}) > 1


def test_compiled_is_step_by_step():
    sampler = SAMPLERS["log_uniform"]  # the one that guesses in floats before it settles
    state, key = sampler.init(), jax.random.key(1)
    compiled = sampler.sample(state, key, LABELS, 9)
    with jax.disable_jit():
        step_by_step = sampler.sample(state, key, LABELS, 9)
    np.testing.assert_array_equal(compiled.ids, step_by_step.ids)
    np.testing.assert_allclose(compiled.expected_count, step_by_step.expected_count, rtol=1e-6)
    np.testing.assert_allclose(
        compiled.true_expected_count, step_by_step.true_expected_count, rtol=1e-6
    )


@each
def test_one_trace_over_many_steps(sampler):
    traces = []

    @jax.jit
    def step(state, key, labels, where):
        traces.append(1)
        return sampler.sample(state, key, labels, 9, where=where, inputs=None).true_expected_count

    state = sampler.init()
    for i in range(4):
        step(state, jax.random.key(i), jnp.full((6,), i), jnp.arange(6) < i)
        state = sampler.update(state, jnp.full((6,), i))
    assert len(traces) == 1


@each
def test_update_learns_nothing_and_init_takes_weights(sampler):
    state = sampler.init(weights=jnp.zeros((NUM_CLASSES, 2)))
    after = sampler.update(state, LABELS, where=LABELS > 3, weights=jnp.ones(NUM_CLASSES))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(a is b for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True))
    assert isinstance(sampler, Sampler)


def test_candidates_are_a_frozen_pytree():
    got = shapes_of(SAMPLERS["uniform"], LABELS, 4)
    assert [leaf.shape for leaf in jax.tree.leaves(got)] == [(4,), (4,), (NUM_CLASSES,)]
    with pytest.raises(AttributeError):
        got.ids = None


@each
@both
def test_sampling_lowers_for_accelerators(sampler, unique):
    def sample(state, key, labels):
        return sampler.sample(state, key, labels, 9, unique=unique)

    exported = export.export(jax.jit(sample), platforms=("cpu", "cuda", "tpu"))(
        sampler.init(), jax.random.key(0), jnp.zeros((4,), jnp.int32)
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")


@both
@pytest.mark.parametrize("make", [uniform, log_uniform])
def test_a_hundred_million_classes_take_no_more_memory_than_the_sample(make, unique):
    sampler, count = make(10**8), 2048
    compiled = (
        jax.jit(lambda key, labels: sampler.sample((), key, labels, count, unique=unique))
        .lower(jax.random.key(0), jnp.zeros((512,), jnp.int32))
        .compile()
    )
    shapes = re.findall(r"\b(?:pred|[suf]\d+|bf16)\[([\d,]*)\]", compiled.as_text())
    sizes = [int(np.prod([int(d) for d in shape.split(",") if d])) for shape in shapes]
    assert count <= max(sizes) <= 4 * count
    assert compiled.memory_analysis().temp_size_in_bytes < 100 * count


# --- what TensorFlow publishes ------------------------------------------------------------------


def test_uniform_probabilities_as_published():  # UniformProbabilities
    p = uniform(10).probability((), np.arange(10))
    assert p.tolist() == [np.float32(0.1)] * 10


def test_log_uniform_probabilities_as_published():  # LogUniformProbabilities
    sampler, ids = log_uniform(1_000_000), 100 * 2 ** np.arange(14)
    ratio = sampler.probability((), ids) / sampler.probability((), ids // 2)
    np.testing.assert_allclose(ratio, 0.5, atol=0.1)


@pytest.mark.parametrize("size", [1, 10, 50_000, 10**8, 2**31 - 2])
def test_log_uniform_probability_is_the_closed_form(size):
    ids = np.unique(((size + 1) ** np.linspace(0, 1, 500)).astype(np.int64).clip(1, size)) - 1
    wanted = np.log1p(1 / (ids + 1.0)) / np.log(size + 1.0)
    np.testing.assert_allclose(log_uniform(size).probability((), ids), wanted, rtol=1e-6)


@pytest.mark.parametrize("reserved", [0, 1, 2])
def test_fixed_unigram_probabilities_as_published(reserved):  # FixedUnigramProbabilities…Reserve2
    sampler = unigram(2.0 ** np.arange(9), distortion=0.8, num_reserved=reserved)
    p = sampler.probability(sampler.init(), np.arange(reserved + 9))
    assert p[:reserved].tolist() == [0] * reserved
    np.testing.assert_allclose(p[reserved:], 2 ** (0.8 * np.arange(9)) / 197.05, atol=1e-4)
    assert sampler.probability(sampler.init(), np.array(reserved + 9)) == 0


@pytest.mark.parametrize(
    "sampler", [uniform(10), log_uniform(10), unigram(2.0 ** np.arange(9), distortion=0.8)]
)
def test_histograms_as_published(sampler):  # …Histogram: 1,000 draws, tolerance 0.05
    state = sampler.init()
    ids = sampler.sample(state, jax.random.key(123), np.array([0]), 1000, unique=False).ids
    seen = np.bincount(ids, minlength=10) / 1000
    np.testing.assert_allclose(seen, sampler.probability(state, np.arange(10)), atol=0.05)


@pytest.mark.parametrize("sampler", [uniform(1), log_uniform(1), unigram([3])])
@pytest.mark.parametrize(("count", "unique"), [(1, True), (3, False)])
def test_a_single_class_as_published(sampler, count, unique):  # testUnigramSingleClass
    got = sampler.sample(sampler.init(), jax.random.key(0), np.array([[0]]), count, unique=unique)
    assert got.ids.tolist() == [0] * count
    assert got.expected_count.tolist() == [count] * count
    assert got.true_expected_count.tolist() == [[count]]


def test_unique_counts_as_published():  # Unique: logU(100), 50 sampled, 100 batches
    got = drawn(log_uniform(100), 50, draws=100, labels=np.arange(100))
    counts = np.asarray(got.true_expected_count)
    assert np.all(counts == counts[0])  # TensorFlow's own are random, and may exceed 1
    average = np.bincount(np.ravel(got.ids), minlength=100) / 100
    np.testing.assert_allclose(average, counts[0], atol=0.2)


@pytest.mark.parametrize("make", [uniform, log_uniform])
def test_the_largest_range(make):  # testLargeUniformRange asks TensorFlow for 2³² + 1
    size = 2**31 - 2
    got = make(size).sample((), jax.random.key(0), np.array([size - 1]), 4096)
    ids = np.asarray(got.ids, np.int64)
    assert 0 <= ids.min() and ids.max() < size
    assert ids.max() > size * 0.99
    assert np.all(np.asarray(got.true_expected_count) > 0)


def test_distortion_zero_makes_all_alike_and_one_keeps_the_counts():
    counts = [0, 5, 15]
    for distortion, wanted in ((0, [1 / 3] * 3), (1, [0, 0.25, 0.75]), (2, [0, 0.1, 0.9])):
        sampler = unigram(counts, distortion=distortion)
        p = sampler.probability(sampler.init(), np.arange(3))
        np.testing.assert_allclose(p, wanted, rtol=1e-6)


def test_counts_of_any_kind_and_size():
    for counts in (
        [1, 3],
        (1, 3),
        np.array([1, 3], np.uint8),
        jnp.array([1.0, 3.0]),
        [1e300, 3e300],
    ):
        sampler = unigram(counts)
        assert sampler.probability(sampler.init(), np.arange(2)).tolist() == [0.25, 0.75]
    sampler = unigram([1e-300, 1e300])  # still two classes, so both can be drawn
    assert sorted(drawn(sampler, 2, labels=np.array([0])).ids[0].tolist()) == [0, 1]


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [uniform, log_uniform])
@pytest.mark.parametrize("size", [0, -3, 2**31 - 1])
def test_a_number_of_classes_out_of_range(make, size):
    with pytest.raises(ValueError, match=rf"num_classes must be in \[1, 2147483646\], is {size}"):
        make(size)


def test_a_number_of_classes_that_is_none():
    with pytest.raises(ValueError, match=r"num_classes must be a static integer, is 2\.5"):
        uniform(2.5)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([], {}, r"counts must have shape \[C\] with C >= 1, has \[0\]"),
        ([[1, 2]], {}, r"counts must have shape \[C\] with C >= 1, has \[1, 2\]"),
        ([1, -2, 3], {}, r"counts must be finite and at least 0; counts\[1\] is -2\.0"),
        ([1, 2, np.nan], {}, r"counts\[2\] is nan"),
        ([np.inf, 2], {}, r"counts\[0\] is inf"),
        ([0, 0], {}, r"counts must have a positive entry; all are 0"),
        ([1], {"distortion": np.nan}, r"distortion must be finite, is nan"),
        ([1, 0], {"distortion": -1}, r"counts \*\* distortion must be finite; distortion is -1"),
        ([1], {"num_reserved": -1}, r"num_reserved must be in \[0, 2147483645\], is -1"),
        ([1, 1], {"num_reserved": 2**31 - 3}, r"must be at most 2147483646, is 2147483647"),
    ],
)
def test_counts_that_make_no_distribution(counts, options, message):
    with pytest.raises(ValueError, match=message):
        unigram(counts, **options)


@each
@pytest.mark.parametrize("count", [0, -1, 2.5])
@both
def test_a_sample_size_that_is_none(sampler, count, unique):
    with pytest.raises(ValueError, match=f"num_sampled must be .*, is {count}"):
        sampler.sample(sampler.init(), jax.random.key(0), LABELS, count, unique=unique)


def test_more_distinct_classes_than_there_are():
    cases = [(uniform(5), 5), (log_uniform(5), 5), (unigram([1, 0, 2, 0], num_reserved=3), 2)]
    for sampler, most in cases:
        state, key, label = sampler.init(), jax.random.key(0), np.array([0])
        message = f"num_sampled must be at most {most}, .* is {most + 1}"
        with pytest.raises(ValueError, match=message):
            sampler.sample(state, key, label, most + 1)
        with pytest.raises(ValueError, match=message):
            jax.jit(lambda k, s=sampler, m=most: s.sample(s.init(), k, jnp.array([0]), m + 1))(key)
        assert shapes_of(sampler, label, most + 1, unique=False).ids.shape == (most + 1,)


@each
@pytest.mark.parametrize("labels", [np.array([0.0, 1.0]), np.array([True]), jnp.array([1.5])])
def test_labels_that_are_no_integers(sampler, labels):
    with pytest.raises(ValueError, match="labels must be integers, have dtype"):
        sampler.sample(sampler.init(), jax.random.key(0), labels, 4)
    with pytest.raises(ValueError, match="labels must be integers, have dtype"):
        sampler.update(sampler.init(), labels)
    with pytest.raises(ValueError, match="ids must be integers, have dtype"):
        sampler.probability(sampler.init(), labels)


@each
def test_a_label_out_of_range_is_refused_unless_masked(sampler):
    state, key = sampler.init(), jax.random.key(0)
    where = np.array([[True, True], [True, False]])
    for bad in (-1, NUM_CLASSES, 2**40, 3 - 2**40):
        labels = np.array([[1, 2], [3, bad]])
        message = rf"labels must be in \[0, {NUM_CLASSES}\); the one at \(1, 1\) is {bad}"
        with pytest.raises(ValueError, match=message):
            sampler.sample(state, key, labels, 4)
        with pytest.raises(ValueError, match=message):
            sampler.update(state, labels, where=np.ones((2, 2), bool))
        assert np.all(np.isfinite(counts_of(sampler, labels, 4, where=where)))
        assert sampler.update(state, labels, where=where) is state


@each
def test_a_traced_label_out_of_range_is_never_expected(sampler):
    labels = jnp.array([-1, NUM_CLASSES, -(2**31), 2**31 - 1])
    state, key = sampler.init(), jax.random.key(0)
    counts = jax.jit(lambda l: sampler.sample(state, key, l, 4).true_expected_count)(labels)
    assert counts.tolist() == [0] * 4


@each
def test_a_mask_of_another_shape(sampler):
    with pytest.raises(ValueError, match=r"where must have the shape of labels, \[2\], has \[1\]"):
        sampler.sample(
            sampler.init(), jax.random.key(0), np.array([1, 2]), 4, where=np.array([True])
        )
