"""Candidates that were labels, and candidates of several kinds side by side."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxml.softmax.candidates import Candidates, Sampler, log_uniform, uniform, unigram
from jaxml.softmax.composed import in_batch, mixed, queue
from jaxml.softmax.learned import learned_unigram, streaming_unigram

NUM_CLASSES, SIZE = 20, 12
IDS = np.arange(NUM_CLASSES)
P = (1 / np.arange(1.0, NUM_CLASSES + 1)) / (1 / np.arange(1.0, NUM_CLASSES + 1)).sum()
VALUES = np.exp(np.sin(IDS * 2.0))
both = pytest.mark.parametrize("unique", [True, False], ids=["unique", "independent"])


def sample(sampler, state, labels, count, **options):
    """One draw, as a single program."""
    draw = jax.jit(lambda state, key: sampler.sample(state, key, labels, count, **options))
    return draw(state, jax.random.key(0))


def per_example(num_classes):
    """A sampler that draws for each example: uniformly, its own candidates each."""

    def sample(state, key, labels, num_sampled, *, unique=True, where=None, inputs=None):
        ids = jax.random.randint(key, (inputs.shape[0], num_sampled), 0, num_classes)
        share = num_sampled / num_classes
        return Candidates(ids, jnp.full(ids.shape, share), jnp.full(np.shape(labels), share))

    return Sampler(
        lambda weights=None: (),
        sample,
        lambda state, labels, **_: state,
        lambda state, ids: jnp.full(np.shape(ids), 1 / num_classes),
    )


# What a draw consists of besides the key: labels that came by chance. Each is a function of a sampler
# state and a key that gives the candidates, and the counts of all classes.
def from_the_batch(sampler, state, key, unique):
    labels_key, key = jax.random.split(key)
    labels = jax.random.choice(labels_key, NUM_CLASSES, (4, 3), p=jnp.asarray(P, jnp.float32))
    where = jnp.arange(12).reshape(4, 3) != 5
    got = sampler.sample(state, key, labels, 12, unique=unique, where=where)
    return got, labels


def from_the_queue(sampler, state, key, unique):
    labels_key, key = jax.random.split(key)
    labels = jax.random.choice(labels_key, NUM_CLASSES, (9,), p=jnp.asarray(P, jnp.float32))
    state = sampler.update(state, labels)
    return sampler.sample(state, key, labels, SIZE, unique=unique), labels


def from_all(sampler, state, key, unique):
    labels_key, key = jax.random.split(key)
    labels = jax.random.choice(labels_key, NUM_CLASSES, (6,), p=jnp.asarray(P, jnp.float32))
    return sampler.sample(state, key, labels, 15, unique=unique), labels


DRAWS = {
    "in_batch": (in_batch(NUM_CLASSES), from_the_batch, P),
    "queue": (queue(NUM_CLASSES, SIZE), from_the_queue, P),
    "mixed": (
        mixed(
            [
                mixed([in_batch(NUM_CLASSES), log_uniform(NUM_CLASSES)], [6, 5]),
                unigram(np.arange(NUM_CLASSES)),
            ],
            [11, 4],
        ),
        from_all,
        P,
    ),
}
draws = pytest.mark.parametrize("name", DRAWS)


@cache
def drawn(name, unique, number=8000):
    sampler, draw, weights = DRAWS[name]
    state = sampler.init(weights)
    got = jax.jit(jax.vmap(lambda key: draw(sampler, state, key, unique)))(
        jax.random.split(jax.random.key(1), number)
    )
    return jax.tree.map(np.asarray, got)


@draws
@both
def test_classes_come_as_often_as_they_were_expected(name, unique):
    got, labels = drawn(name, unique)
    filled = got.ids < NUM_CLASSES
    assert np.all((got.expected_count > 0) == filled)
    # The counts that any slot or label ever reported: one for each class.
    mean = np.zeros(NUM_CLASSES)
    mean[got.ids[filled]] = got.expected_count[filled]
    mean[labels.ravel()] = got.true_expected_count.ravel()
    np.testing.assert_allclose(got.expected_count[filled], mean[got.ids[filled]], rtol=1e-5)
    np.testing.assert_allclose(got.true_expected_count, mean[labels], rtol=1e-5)
    came = np.stack([(got.ids == k).sum(axis=1) for k in IDS], axis=1)
    if unique and name != "mixed":
        assert came.max() == 1
    error = came.std(axis=0) / np.sqrt(len(came))
    assert np.all(np.abs(came.mean(axis=0) - mean) < 4.5 * error + 1e-5)


@draws
@both
def test_the_partition_estimate_is_unbiased(name, unique):
    got, _ = drawn(name, unique)
    filled = got.ids < NUM_CLASSES
    values = VALUES[np.minimum(got.ids, NUM_CLASSES - 1)]
    estimates = np.where(filled, values / np.where(filled, got.expected_count, 1), 0).sum(axis=1)
    error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - VALUES.sum()) < 4.5 * error


# --- in_batch -----------------------------------------------------------------------------------


def test_a_batch_stands_in_the_order_of_its_labels_without_repeats_and_without_masked_ones():
    sampler, key = in_batch(9), jax.random.key(0)
    labels = np.array([[5, 2], [5, 7], [2, 5]])
    where = np.array([[True, True], [True, False], [True, True]])
    state = sampler.init(np.arange(9))
    p = np.arange(9) / 36
    got = sampler.sample(state, key, labels, 6, where=where)
    assert got.ids.tolist() == [5, 2, 9, 9, 9, 9]
    once = 1 - (1 - p) ** 5
    np.testing.assert_allclose(got.expected_count, [once[5], once[2], 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(got.true_expected_count, once[labels], rtol=1e-6)
    got = sampler.sample(state, key, labels, 6, where=where, unique=False)
    assert got.ids.tolist() == [5, 2, 5, 9, 2, 5]
    np.testing.assert_allclose(got.expected_count, 5 * np.append(p, 0)[got.ids], rtol=1e-6)
    np.testing.assert_allclose(sampler.probability(state, np.arange(-1, 10)), [0, *p, 0])


@both
def test_extremes_of_frequency_and_of_number(unique):
    sampler, labels = in_batch(3), np.array([1, 1])
    state = sampler.init([0, 1, 0])
    got = sample(sampler, state, labels, 2, unique=unique)
    assert got.true_expected_count.tolist() == ([1, 1] if unique else [2, 2])
    nothing = sample(sampler, state, labels, 2, unique=unique, where=np.zeros(2, bool))
    assert nothing.ids.tolist() == [3, 3]
    assert nothing.expected_count.tolist() == [0, 0]
    assert nothing.true_expected_count.tolist() == [0, 0]
    rare = in_batch(10**8)  # 1 - (1 - p)^n would be 0 in float32
    got = sample(rare, rare.init(), np.array([3]), 1, unique=unique)
    np.testing.assert_allclose(got.expected_count, [1e-8], rtol=1e-6)


def test_a_hundred_million_alike_take_no_memory():
    assert in_batch(10**8).init().size == 1


@pytest.mark.parametrize(
    "learner",
    [learned_unigram(NUM_CLASSES), streaming_unigram(NUM_CLASSES, num_buckets=100)],
    ids=["learned", "streaming"],
)
def test_frequencies_may_be_learned(learner):
    labels = np.repeat([3, 4, 5], [40, 20, 60])
    labels = np.random.default_rng(0).permutation(labels)
    batch, line = (
        in_batch(NUM_CLASSES, frequencies=learner),
        queue(NUM_CLASSES, 3, frequencies=learner),
    )
    p = np.asarray(learner.probability(learner.update(learner.init(), labels), IDS))
    state, other = batch.update(batch.init(), labels), line.update(line.init(), labels)
    np.testing.assert_array_equal(batch.probability(state, IDS), p)
    np.testing.assert_array_equal(line.probability(other, IDS), p)
    got = sample(batch, state, np.array([3, 4, 3]), 3, unique=False)
    np.testing.assert_allclose(got.expected_count, 3 * p[[3, 4, 3]], rtol=1e-6)


# --- queue --------------------------------------------------------------------------------------


def test_a_queue_holds_the_labels_seen_last():
    rng = np.random.default_rng(0)
    sampler, seen = queue(NUM_CLASSES, SIZE), []
    state, update = sampler.init(), {}
    for size in (5, 0, 4, 30, 4, 12, 4):
        labels, where = rng.integers(0, NUM_CLASSES, size), rng.random(size) < 0.8
        seen += labels[where].tolist()
        step = update.setdefault(size, jax.jit(sampler.update))
        state = step(state, labels, where=where)
        got = sample(sampler, state, np.array([0]), SIZE, unique=False)
        assert sorted(i for i in got.ids.tolist() if i < NUM_CLASSES) == sorted(seen[-SIZE:])
        filled = min(len(seen), SIZE)
        np.testing.assert_allclose(got.true_expected_count, filled / NUM_CLASSES, rtol=1e-6)
        distinct = sample(sampler, state, np.array([0]), SIZE).ids
        assert sorted(i for i in distinct.tolist() if i < NUM_CLASSES) == sorted(set(seen[-SIZE:]))


def test_a_queue_ignores_traced_labels_out_of_range_and_a_batch_without_labels():
    sampler = queue(5, 3)
    state = sampler.update(sampler.init(), np.array([1, 2]))
    for labels in (jnp.array([-1, 5, 2**31 - 1]), jnp.array([], jnp.int32)):
        after = jax.jit(sampler.update)(state, labels)
        assert after.ids.tolist() == [1, 2, 5]
        assert int(after.place) == 2


# --- mixed --------------------------------------------------------------------------------------


def test_each_slot_carries_the_sum_of_the_parts_counts():
    parts, sizes = [log_uniform(8), unigram([0, 5, 1], num_reserved=5), in_batch(8)], [4, 2, 3]
    sampler, labels = mixed(parts, sizes), np.array([0, 6, 6])
    state = sampler.init((None, None, [1, 0, 0, 0, 0, 0, 3, 0]))
    assert isinstance(state, tuple)
    where = np.array([True, True, False])
    got = sample(sampler, state, labels, 9, unique=False, where=where)
    frequencies = [
        part.probability(own, np.arange(8)) for part, own in zip(parts, state, strict=True)
    ]
    frequencies = np.asarray(frequencies)
    total = np.append(np.array([4, 2, 2]) @ frequencies, 0)
    assert got.ids.tolist()[6:] == [0, 6, 8]
    np.testing.assert_allclose(got.expected_count, total[got.ids], rtol=1e-6)
    np.testing.assert_allclose(got.true_expected_count, total[labels], rtol=1e-6)
    assert total.max() > 1
    wanted = np.array(sizes) / 9 @ frequencies
    np.testing.assert_allclose(sampler.probability(state, np.arange(8)), wanted, rtol=1e-6)


def test_parts_draw_independently_of_each_other():
    sampler = mixed([uniform(1000), uniform(1000)], [50, 50])
    ids = sample(sampler, sampler.init(), np.array([1]), 100, unique=False).ids
    assert ids[:50].tolist() != ids[50:].tolist()


def test_a_part_that_draws_for_each_example_makes_all_do():
    sampler = mixed([per_example(9), log_uniform(9)], [4, 3])
    inputs, labels = jnp.ones((5, 2)), np.arange(5)
    got = sample(sampler, sampler.init(), labels, 7, inputs=inputs, unique=False)
    assert got.ids.shape == got.expected_count.shape == (5, 7)
    assert np.all(np.asarray(got.ids)[:, 4:] == np.asarray(got.ids)[0, 4:])
    total = 4 / 9 + 3 * np.log((np.arange(9) + 2.0) / (np.arange(9) + 1)) / np.log(10)
    np.testing.assert_allclose(got.expected_count, total[np.asarray(got.ids)], rtol=1e-5)
    np.testing.assert_allclose(got.true_expected_count, total[labels], rtol=1e-5)


def test_every_part_learns_and_weights_go_where_they_belong():
    sampler = mixed([learned_unigram(5), queue(5, 3), uniform(5)], [2, 3, 1])
    state = sampler.update(sampler.init(), np.array([4, 4]), weights=(np.array([3, 0]), None, None))
    p = sampler.probability(state, np.arange(5))
    learned = np.array([1, 1, 1, 1, 4]) / 8
    np.testing.assert_allclose(p, (2 * learned + 3 * 0.2 + 0.2) / 6, rtol=1e-6)
    assert state[1].ids.tolist() == [4, 4, 5]


def test_what_is_hashed_can_be_mixed():
    part = streaming_unigram(30, num_buckets=50)
    sampler = mixed([part, uniform(30)], [3, 5])
    state = sampler.update(sampler.init(), np.array([1, 2, 1, 1]))
    got = sample(sampler, state, np.array([2, 1, 2]), 8, unique=False)
    p = np.asarray(part.probability(state[0], np.arange(30)))
    wanted = np.append(3 * p + 5 / 30, 0)
    assert got.ids.tolist()[:3] == [2, 1, 2]
    np.testing.assert_allclose(got.expected_count, wanted[got.ids], rtol=1e-5)


def test_mixtures_of_mixtures_with_empty_slots():
    inner = mixed([in_batch(9), uniform(9)], [3, 2])
    sampler, labels = mixed([inner, queue(9, 4)], [5, 4]), np.array([4, 8, 4])
    where = np.array([True, False, True])
    state = sampler.update(sampler.init(), np.array([2, 4]))
    got = sample(sampler, state, labels, 9, unique=False, where=where)
    assert got.ids.tolist()[:3] == [4, 9, 4]
    assert got.ids.tolist()[5:] == [2, 4, 9, 9]
    total = 2 / 9 + 2 / 9 + 2 / 9
    np.testing.assert_allclose(got.expected_count, np.where(got.ids < 9, total, 0), rtol=1e-6)
    np.testing.assert_allclose(got.true_expected_count, total, rtol=1e-6)


# --- pure functions -----------------------------------------------------------------------------


@draws
def test_a_run_that_was_saved_goes_on_bit_for_bit(name):
    sampler, draw, weights = DRAWS[name]
    state = sampler.update(sampler.init(weights), np.array([3, 1, 4]))
    loaded = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).copy()), state)

    @jax.jit
    def step(state, key):
        return draw(sampler, state, key, False)[0], sampler.update(state, np.array([2, 7]))

    for key in jax.random.split(jax.random.key(0), 2):
        (one, state), (other, loaded) = step(state, key), step(loaded, key)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)
    if name != "mixed":
        called = draw(sampler, state, key, False)[0]
        np.testing.assert_array_equal(called.ids, step(state, key)[0].ids)


def test_everything_lowers_for_accelerators():
    for sampler, draw, weights in DRAWS.values():

        def step(state, key, sampler=sampler, draw=draw):
            got, labels = draw(sampler, state, key, True)
            return got, sampler.update(state, labels)

        exported = export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(
            sampler.init(weights), jax.random.key(0)
        )
        assert exported.platforms == ("cpu", "cuda", "tpu")


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: in_batch(0), r"num_classes must be in .*, is 0"),
        (lambda: in_batch(5, frequencies=3), "frequencies must be a Sampler or None, is 3"),
        (lambda: queue(0, 4), r"num_classes must be in .*, is 0"),
        (lambda: queue(5, 0), r"size must be in .*, is 0"),
        (lambda: mixed([], []), "samplers must be a list of at least one Sampler"),
        (lambda: mixed(uniform(3), [1]), "samplers must be a list of at least one Sampler"),
        (lambda: mixed([uniform(3), 7], [1, 1]), r"samplers\[1\] must be a Sampler, is 7"),
        (lambda: mixed([uniform(3)], [1, 2]), "an entry for each of 1 samplers, has 2"),
        (lambda: mixed([uniform(3)], [0]), r"num_sampled_each must be in .*, is 0"),
        (lambda: mixed([uniform(3)], 4), "num_sampled_each must be a list of integers, is 4"),
        (lambda: in_batch(3).init([1, 2]), r"weights must be .*, \[3\], has shape \[2\]"),
        (lambda: in_batch(3).init([1, 2, -1]), r"weights\[2\] is -1"),
        (lambda: in_batch(3).init([1, np.nan, 1]), r"weights\[1\] is nan"),
        (lambda: queue(3, 2).init([0, 0, 0]), "weights must have a positive entry; all are 0"),
        (
            lambda: mixed([uniform(3)], [1]).init((None, None)),
            "weights must have an entry for each of 1 samplers, has 2",
        ),
    ],
)
def test_samplers_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("sampler", "count", "message"),
    [
        (in_batch(9), 3, "num_sampled must be 4, the number of labels, is 3"),
        (queue(9, 6), 4, "num_sampled must be 6, the size of the queue, is 4"),
        (mixed([uniform(9)] * 2, [2, 3]), 4, "num_sampled must be 5, the sum of .*, is 4"),
    ],
)
def test_sample_sizes_and_labels_that_cannot_be(sampler, count, message):
    state, key, labels = sampler.init(), jax.random.key(0), np.array([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=message):
        sampler.sample(state, key, labels, count)
    with pytest.raises(ValueError, match=r"num_sampled must be .*, is 0"):
        sampler.sample(state, key, labels, 0)
    right = int(message.split()[3].rstrip(","))
    for bad, options, message in (
        (labels + 6, {}, r"labels must be in \[0, 9\); the one at \(1, 0\) is 9"),
        (labels * 1.0, {}, "labels must be integers, have dtype float64"),
        (labels, {"where": np.ones(4, bool)}, "where must have the shape of labels"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler.sample(state, key, bad, right, **options)
        with pytest.raises(ValueError, match=message):
            sampler.update(state, bad, **options)
