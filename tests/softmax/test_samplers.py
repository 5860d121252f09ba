"""The contract of samplers, for every sampler of the registry; then the fixed ones, as TensorFlow defines
them.

Golden figures come from the public tests of TensorFlow's range samplers
(tensorflow/core/kernels/range_sampler_test.cc; the names of its tests are in the comments).
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxml.softmax import (
    SAMPLERS,
    Candidates,
    Sampler,
    learned_unigram,
    log_uniform,
    uniform,
    unigram,
)

CLASSES, DIM, BATCH, NUM_SAMPLED, DRAWS = 50, 4, 6, 12, 3000
IDS = np.arange(CLASSES)
COUNTS = (3000 / (1.0 + IDS)).astype(int)
P = jnp.asarray(COUNTS / COUNTS.sum(), jnp.float32)
RNG = np.random.default_rng(0)
TABLE = np.float32(0.7 * RNG.normal(size=(CLASSES, DIM)))
INPUTS = np.float32(RNG.normal(size=(BATCH, DIM)))
OUTSIDE = np.array([-(2**31), -1, CLASSES, 2**31 - 1, -(2**40), 2**40 + 1])
KEYS = jax.random.split(jax.random.key(0), DRAWS)
SETUPS = {name: make(COUNTS, BATCH, NUM_SAMPLED) for name, make in SAMPLERS.items()}
each = pytest.mark.parametrize("name", SETUPS)
# `learned_unigram` draws by the same tree as the first; test_kernels draws from the others.
SLOW = (
    "streaming_unigram",
    "uniform_independent",
    "quadratic_kernel",
    "random_fourier",
    "inverted_multi_index",
)
drawn = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in SETUPS]
)


class Draws(NamedTuple):
    """Results of many keys; the draws are the leading axis."""

    got: Candidates
    labels: np.ndarray
    everything: np.ndarray  # the expected count of every class
    outside: np.ndarray  # of ids out of range
    p: Any  # the probability of every class, and of ids out of range


@cache
def state_of(name):
    sampler = SETUPS[name].sampler
    state = sampler.init(TABLE if SETUPS[name].follows_model else None)
    return sampler.update(state, np.repeat(IDS, COUNTS // 100))


def options_of(name):
    return dict(unique=SETUPS[name].unique, inputs=jnp.asarray(INPUTS))


def per_example(name, ids):
    """Ids as samplers that follow the model take them: for each input."""
    return np.tile(ids, (BATCH, 1)) if SETUPS[name].follows_model else ids


@cache
def step_of(name):
    """One draw of a key, with the counts and probabilities of all classes."""
    sampler, number = SETUPS[name].sampler, SETUPS[name].num_sampled

    def step(state, key):
        key, *keys = jax.random.split(key, 3)
        labels = jax.random.choice(keys[0], CLASSES, (BATCH,), p=P)
        if name == "queue":  # Its candidates are random labels.
            recent = jax.random.choice(keys[1], CLASSES, (NUM_SAMPLED,), p=P)
            state = sampler.update(state, recent)
        options = options_of(name)
        got = sampler.sample(state, key, labels, number, **options)

        def count(ids):
            ids = jnp.asarray(per_example(name, ids.clip(-(2**31), 2**31 - 1)), jnp.int32)
            return sampler.expected_count(state, ids, number, labels=labels, **options)

        def p(ids):
            return sampler.probability(state, per_example(name, ids), inputs=options["inputs"])

        return Draws(got, labels, count(IDS), count(OUTSIDE), (p(IDS), p(OUTSIDE)))

    return step


@cache
def draws_of(name):
    found = jax.jit(jax.vmap(step_of(name), in_axes=(None, 0)))(state_of(name), KEYS)
    return jax.tree.map(np.asarray, found)


def rows(name):
    """Ids, their counts [N, S], and the expected count of every class [N, C], a row an example."""
    found = draws_of(name)
    ids, counts = found.got.ids, found.got.expected_count
    return (
        ids.reshape(-1, ids.shape[-1]),
        counts.reshape(-1, ids.shape[-1]),
        found.everything.reshape(-1, CLASSES),
    )


@drawn
def test_shapes_and_dtypes(name):
    setup, found = SETUPS[name], draws_of(name)
    assert isinstance(setup.sampler, Sampler)
    shape = (BATCH, setup.num_sampled) if setup.follows_model else (setup.num_sampled,)
    got = found.got
    assert got.ids.shape == got.expected_count.shape == (DRAWS, *shape)
    assert got.true_expected_count.shape == (DRAWS, BATCH)
    assert got.ids.dtype == np.int32
    for counts in (got.expected_count, got.true_expected_count, found.p[0]):
        assert counts.dtype == np.float32


@drawn
def test_counts_of_candidates_and_labels_are_expected_counts(name):
    ids, counts, everything = rows(name)
    wanted = np.take_along_axis(np.pad(everything, ((0, 0), (0, 1))), ids, axis=1)
    np.testing.assert_allclose(counts, wanted, rtol=2e-5)
    found = draws_of(name)
    of_labels = found.everything
    if SETUPS[name].follows_model:
        of_labels = np.take_along_axis(of_labels, found.labels[..., None], axis=-1)[..., 0]
    else:
        of_labels = np.take_along_axis(of_labels, found.labels, axis=-1)
    np.testing.assert_allclose(found.got.true_expected_count, of_labels, rtol=2e-5)
    assert not found.outside.any() and not found.p[1].any()


@drawn
def test_probability_is_a_distribution(name):
    p = np.float64(draws_of(name).p[0][0]).reshape(-1, CLASSES)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    assert (p >= 0).all()
    if not SETUPS[name].unique:
        np.testing.assert_allclose(draws_of(name).everything[0].reshape(p.shape), 12 * p, rtol=1e-5)


@drawn
def test_classes_occur_as_often_as_expected(name):
    ids, _, everything = rows(name)
    occurrences = np.stack([(ids == k).sum(1) for k in IDS], 1).astype(float)
    if SETUPS[name].unique and name != "mixed":
        assert occurrences.max() == 1 and everything.max() <= 1
    if SETUPS[name].unique and not name.startswith(("in_batch", "queue", "mixed")):
        np.testing.assert_allclose(everything.sum(1), NUM_SAMPLED, rtol=1e-5)
        assert (ids < CLASSES).all()
    off = (occurrences - everything).reshape(DRAWS, -1, CLASSES)
    error = off.std(0) / np.sqrt(DRAWS)
    assert (np.abs(off.mean(0)) <= 4.8 * error + 3 / DRAWS).all()


@drawn
def test_a_sum_over_classes_is_estimated_without_bias(name):
    ids, counts, _ = rows(name)
    values = np.append(np.exp(np.sin(2.0 * IDS)), 0)
    estimates = (values[ids] / np.where(counts > 0, counts, 1)).sum(1).reshape(DRAWS, -1)
    error = estimates.std(0) / np.sqrt(DRAWS)
    assert (np.abs(estimates.mean(0) - values.sum()) <= 4.5 * error + 1e-4).all()


@pytest.mark.parametrize("name", ["log_uniform", "mixed"])
def test_vmap_equals_one_program_for_all_keys(name):
    mapped, compiled = draws_of(name), jax.jit(step_of(name))
    for i in (0, 7):
        one = compiled(state_of(name), KEYS[i])
        np.testing.assert_array_equal(one.got.ids, mapped.got.ids[i])
        np.testing.assert_allclose(one.got.expected_count, mapped.got.expected_count[i], rtol=1e-5)
    assert not np.array_equal(mapped.got.ids[0], mapped.got.ids[7])


@pytest.mark.parametrize(
    "name",
    ["log_uniform", "learned_unigram", "streaming_unigram", "queue", "mixed", "random_fourier"],
)
def test_sampling_and_updating_lower_for_accelerators(name):
    sampler, number = SETUPS[name].sampler, SETUPS[name].num_sampled

    def step(state, key, labels):
        got = sampler.sample(state, key, labels, number, **options_of(name))
        return got, sampler.update(state, labels)

    exported = export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(
        state_of(name), jax.random.key(0), jnp.zeros(BATCH, jnp.int32)
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")


@each
def test_bad_arguments(name):
    sampler, number, state = SETUPS[name].sampler, SETUPS[name].num_sampled, state_of(name)
    labels, key = np.arange(BATCH), jax.random.key(0)

    def sample(labels=labels, number=number, where=None):
        return sampler.sample(state, key, labels, number, where=where, **options_of(name))

    masked = np.arange(BATCH) != 1
    for bad in (-1, CLASSES, 2**40, 3 - 2**40):
        wrong = np.where(masked, labels, bad)
        with pytest.raises(
            ValueError, match=r"labels must be in \[0, (50|2147483646)\), got .* at \(1,\)"
        ):
            sample(wrong)
        with pytest.raises(ValueError, match="labels must be in"):
            sampler.update(state, wrong)
    for arguments, message in (
        (dict(labels=labels * 1.0), "labels must be integers, got dtype float64"),
        (dict(labels=labels > 3), "labels must be integers, got dtype bool"),
        (dict(where=np.ones(2, bool)), r"where must have the labels' shape \(6,\), got \(2,\)"),
        (dict(number=-1), "num_sampled must be .*, got -1"),
        (dict(number=2.5), "num_sampled must be .*, got 2.5"),
        (dict(number=0), "num_sampled must be .*, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(**arguments)
    with pytest.raises(ValueError, match="ids must be integers, got dtype"):
        sampler.probability(state, np.array([0.5]), inputs=INPUTS)
    kept = jax.eval_shape(lambda: sample(np.where(masked, labels, -7), where=masked))
    assert kept.true_expected_count.shape == labels.shape


@pytest.mark.parametrize("name", ["log_uniform", "in_batch", "quadratic_kernel"])
def test_a_sampler_that_does_not_learn_returns_its_state(name):
    state = state_of(name)
    assert SETUPS[name].sampler.update(state, IDS, where=IDS > 3) is state


# --- the fixed distributions --------------------------------------------------------------------


def counts_of(sampler, labels, count, **options):
    return np.asarray(sampler.expected_count(sampler.init(), labels, count, **options))


@pytest.mark.parametrize("name", ["uniform", "log_uniform", "unigram"])
@pytest.mark.parametrize("count", [1, 49])
def test_inclusion_is_a_capped_multiple_of_p_that_sums_to_the_sample(name, count):
    sampler = SETUPS[name].sampler
    inclusion = np.float64(counts_of(sampler, IDS, count))
    p = np.float64(sampler.probability(sampler.init(), IDS))
    assert inclusion.max() <= 1
    np.testing.assert_allclose(inclusion.sum(), count, rtol=1e-6)
    free = inclusion < 1 - 1e-6
    if free.any():
        ratio = inclusion[free] / p[free]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
        assert np.all(ratio[0] * p[~free] >= 1 - 1e-5)


def test_labels_and_ids_of_any_shape_and_dtype():
    sampler = SETUPS["log_uniform"].sampler
    for labels in (np.zeros((3, 2), np.int64), np.zeros((0,), np.uint8), [1, 2], [], 3):
        got = jax.eval_shape(lambda labels=labels: sampler.sample((), KEYS[0], labels, 8))
        assert got.ids.shape == (8,) and got.true_expected_count.shape == np.shape(labels)
    p = sampler.probability((), IDS)
    np.testing.assert_array_equal(sampler.probability((), IDS.reshape(5, 10)), p.reshape(5, 10))
    np.testing.assert_array_equal(sampler.probability((), IDS.astype(np.uint8)), p)


@pytest.mark.parametrize(
    "make", [uniform, log_uniform, lambda n: unigram([1] * n), learned_unigram]
)
def test_every_class_can_be_asked_for(make):
    sampler = make(5)
    got = jax.jit(lambda key: sampler.sample(sampler.init(), key, np.arange(5), 5))(KEYS[0])
    assert sorted(got.ids.tolist()) == list(range(5))
    np.testing.assert_allclose(got.true_expected_count, 1, rtol=1e-6)


def test_a_reserved_or_uncounted_class_is_never_drawn():
    sampler = unigram([0, 3, 0, 1, 0, 2], num_reserved=2)
    sample = jax.vmap(lambda key: sampler.sample(sampler.init(), key, np.arange(8), 3))
    got = jax.jit(sample)(KEYS[:50])
    assert set(np.ravel(got.ids).tolist()) == {3, 5, 7}
    assert not np.any(np.asarray(got.true_expected_count)[:, [0, 1, 2, 4, 6]])


def test_a_tail_too_thin_for_float32_sums_is_drawn_in_full():
    # Beside the giant, each of the others has p = 1e-18 and an inclusion probability of 1/4.
    sampler = unigram([1e18, *[1.0] * 40])
    sample = jax.vmap(lambda key: sampler.sample(sampler.init(), key, np.arange(41), 11))
    got = jax.jit(sample)(KEYS)
    np.testing.assert_allclose(got.true_expected_count[0], [1, *[0.25] * 40], rtol=1e-5)
    rate = np.bincount(np.ravel(got.ids), minlength=41) / DRAWS
    assert rate[0] == 1
    assert np.all(np.abs(rate[1:] - 0.25) < 4.5 * np.sqrt(0.25 * 0.75 / DRAWS))


@pytest.mark.parametrize("make, unique", [(uniform, False), (log_uniform, True)])
def test_a_hundred_million_classes_take_no_more_memory_than_the_sample(make, unique, largest_array):
    sampler, count = make(10**8), 2048
    compiled = (
        jax.jit(lambda key, labels: sampler.sample((), key, labels, count, unique=unique))
        .lower(jax.random.key(0), jnp.zeros((512,), jnp.int32))
        .compile()
    )
    assert count <= largest_array(compiled) <= 4 * count
    assert compiled.memory_analysis().temp_size_in_bytes < 100 * count


@pytest.mark.slow
@pytest.mark.parametrize("unique", [True, False], ids=["unique", "independent"])
@pytest.mark.parametrize("make", [uniform, log_uniform])
def test_every_id_up_to_the_last_is_drawn_at_its_rate(make, unique):
    size, count = 10**8, 2048
    sample = jax.vmap(lambda key: make(size).sample((), key, np.array([0]), count, unique=unique))
    ids = np.ravel(jax.jit(sample)(KEYS[:512]).ids)
    # Above 2²⁴ float32 knows only every second to eighth id; the last tenth is as even as any.
    last = ids[ids >= size - size // 10]
    for hits in (
        np.bincount(last % 16, minlength=16),
        np.bincount((last - size + size // 10) // (size // 100), minlength=10),
    ):
        wanted = len(last) / len(hits)
        assert np.all(np.abs(hits - wanted) <= 4.5 * np.sqrt(wanted) + 0.01 * wanted)
    # Ids that cannot be told apart would meet two to eight times as often.
    pairs, repeats = len(last) ** 2 / 2 / (size // 10), len(last) - len(np.unique(last))
    assert abs(repeats - pairs) <= 5 * np.sqrt(pairs) + 2


@pytest.mark.parametrize("size", [1, 10, 50_000, 10**8, 2**31 - 2])
def test_log_uniform_probability_is_the_closed_form(size):
    ids = np.unique(((size + 1) ** np.linspace(0, 1, 500)).astype(np.int64).clip(1, size)) - 1
    wanted = np.log1p(1 / (ids + 1.0)) / np.log(size + 1.0)
    np.testing.assert_allclose(log_uniform(size).probability((), ids), wanted, rtol=1e-6)


@pytest.mark.parametrize("reserved", [0, 2])
def test_fixed_unigram_probabilities_as_published(reserved):  # FixedUnigramProbabilities…Reserve2
    sampler = unigram(2.0 ** np.arange(9), distortion=0.8, num_reserved=reserved)
    p = sampler.probability(sampler.init(), np.arange(reserved + 9))
    assert p[:reserved].tolist() == [0] * reserved
    np.testing.assert_allclose(p[reserved:], 2 ** (0.8 * np.arange(9)) / 197.05, atol=1e-4)


@pytest.mark.parametrize(
    "sampler, count, unique",
    [(uniform(1), 3, False), (log_uniform(1), 1, True), (unigram([3]), 3, False)],
)
def test_a_single_class_as_published(sampler, count, unique):  # testUnigramSingleClass
    got = sampler.sample(sampler.init(), jax.random.key(0), np.array([[0]]), count, unique=unique)
    assert got.ids.tolist() == [0] * count
    assert got.expected_count.tolist() == [count] * count
    assert got.true_expected_count.tolist() == [[count]]


def test_the_largest_range():  # testLargeUniformRange asks TensorFlow for 2³² + 1
    size = 2**31 - 2
    got = log_uniform(size).sample((), jax.random.key(0), np.array([size - 1]), 4096)
    ids = np.asarray(got.ids, np.int64)
    assert 0 <= ids.min() and size * 0.99 < ids.max() < size
    assert np.all(np.asarray(got.true_expected_count) > 0)


def test_distortion_and_counts_of_any_kind():
    even = unigram([0, 5, 15], distortion=0)
    np.testing.assert_allclose(even.probability(even.init(), np.arange(3)), 1 / 3, rtol=1e-6)
    for counts in ((1, 3), np.array([1, 3], np.uint8), jnp.array([1.0, 3.0]), [1e300, 3e300]):
        sampler = unigram(counts)
        assert sampler.probability(sampler.init(), np.arange(2)).tolist() == [0.25, 0.75]
    sampler = unigram([1e-300, 1e300])  # Still two classes, so both can be drawn.
    got = sampler.sample(sampler.init(), KEYS[0], np.array([0]), 2)
    assert sorted(got.ids.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform(0), r"num_classes must be an integer in \[1, 2147483646\], got 0"),
        (lambda: log_uniform(2**31 - 1), r"num_classes must be .*, got 2147483647"),
        (lambda: unigram([]), r"counts must have shape \[C\] with C >= 1, got \[0\]"),
        (lambda: unigram([1, -2, 3]), r"counts must be finite and at least 0, got -2\.0 at 1"),
        (lambda: unigram([0, 0]), "counts must have a positive entry, got only 0"),
        (lambda: unigram([1], distortion=np.nan), "distortion must be a finite number, got nan"),
        (lambda: unigram([1, 0], distortion=-1), r"counts \*\* distortion must be finite"),
        (lambda: unigram([1, 1], num_reserved=2**31 - 3), "must be .*, got 2147483647"),
        (
            lambda: unigram([1, 0, 2]).sample((), KEYS[0], [0], 3),
            "num_sampled must be at most 2, .* got 3",
        ),
    ],
)
def test_distributions_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()
