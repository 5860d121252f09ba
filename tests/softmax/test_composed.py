"""Candidates that were labels, and candidates of several samplers side by side."""

import jax
import numpy as np
import pytest

from jaxml.softmax import (
    in_batch,
    learned_unigram,
    log_uniform,
    mixed,
    quadratic_kernel,
    queue,
    uniform,
)

NUM_CLASSES = 20
IDS = np.arange(NUM_CLASSES)
KEY = jax.random.key(0)
both = pytest.mark.parametrize("unique", [True, False], ids=["unique", "independent"])


def test_a_batch_keeps_the_order_of_its_labels_without_repeats_and_without_masked_ones():
    sampler = in_batch(9)
    labels = np.array([[5, 2], [5, 7], [2, 5]])
    where = np.array([[True, True], [True, False], [True, True]])
    state = sampler.init(np.arange(9))
    p = np.arange(9) / 36
    got = sampler.sample(state, KEY, labels, 6, where=where)
    assert got.ids.tolist() == [5, 2, 9, 9, 9, 9]
    once = 1 - (1 - p) ** 5
    np.testing.assert_allclose(got.expected_count, [once[5], once[2], 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(got.true_expected_count, once[labels], rtol=1e-6)
    got = sampler.sample(state, KEY, labels, 6, where=where, unique=False)
    assert got.ids.tolist() == [5, 2, 5, 9, 2, 5]
    np.testing.assert_allclose(got.expected_count, 5 * np.append(p, 0)[got.ids], rtol=1e-6)
    np.testing.assert_allclose(sampler.probability(state, np.arange(-1, 10)), [0, *p, 0])


@both
def test_extremes_of_frequency_and_of_number(unique):
    sampler, labels = in_batch(3), np.array([1, 1])
    state = sampler.init([0, 1, 0])
    got = sampler.sample(state, KEY, labels, 2, unique=unique)
    assert got.true_expected_count.tolist() == ([1, 1] if unique else [2, 2])
    nothing = sampler.sample(state, KEY, labels, 2, unique=unique, where=np.zeros(2, bool))
    assert nothing.ids.tolist() == [3, 3]
    assert not np.any(nothing.expected_count) and not np.any(nothing.true_expected_count)
    rare = in_batch(10**8)  # 1 - (1 - p)^n would be 0 in float32
    assert rare.init().size == 1
    got = rare.sample(rare.init(), KEY, np.array([3]), 1, unique=unique)
    np.testing.assert_allclose(got.expected_count, [1e-8], rtol=1e-6)
    empty = sampler.sample(state, KEY, np.zeros((0, 2), int), 0, unique=unique)
    assert empty.ids.shape == (0,) and empty.true_expected_count.shape == (0, 2)
    with_others = mixed([sampler, uniform(3)], [0, 2])
    got = with_others.sample(
        with_others.init(([0, 1, 0], None)), KEY, np.zeros(0, int), 2, unique=unique
    )
    assert got.ids.shape == got.expected_count.shape == (2,)


def test_frequencies_may_be_learned():
    learner = learned_unigram(NUM_CLASSES)
    labels = np.random.default_rng(0).permutation(np.repeat([3, 4, 5], [40, 20, 60]))
    batch = in_batch(NUM_CLASSES, frequencies=learner)
    line = queue(NUM_CLASSES, 3, frequencies=learner)
    p = np.asarray(learner.probability(learner.update(learner.init(), labels), IDS))
    state, other = batch.update(batch.init(), labels), line.update(line.init(), labels)
    np.testing.assert_allclose(batch.probability(state, IDS), p, rtol=1e-6)
    np.testing.assert_allclose(line.probability(other, IDS), p, rtol=1e-6)
    got = batch.sample(state, KEY, np.array([3, 4, 3]), 3, unique=False)
    np.testing.assert_allclose(got.expected_count, 3 * p[[3, 4, 3]], rtol=1e-6)


def test_a_queue_keeps_the_last_labels_of_many_batches():
    sampler, rng, seen = queue(NUM_CLASSES, 5), np.random.default_rng(0), []
    state, update = sampler.init(), jax.jit(sampler.update)
    for _ in range(12):
        labels, where = rng.integers(0, NUM_CLASSES, 7), rng.random(7) < 0.4
        state = update(state, labels, where=where)
        seen += labels[where].tolist()
        kept = [i for i in state.ids.tolist() if i < NUM_CLASSES]
        assert sorted(kept) == sorted(seen[-5:])
    got = sampler.sample(state, KEY, np.array([1]), 5, unique=False)
    np.testing.assert_array_equal(got.ids, state.ids)
    unique = sampler.sample(state, KEY, np.array([1]), 5)
    kept = [i for i in unique.ids.tolist() if i < NUM_CLASSES]
    assert sorted(kept) == sorted(set(seen[-5:]))


def test_a_part_that_draws_for_each_example_makes_all_do():
    follower = quadratic_kernel(9)
    sampler = mixed([follower, log_uniform(9)], [4, 3])
    rng = np.random.default_rng(0)
    table, inputs = np.float32(rng.normal(size=(9, 2))), np.float32(rng.normal(size=(5, 2)))
    labels, state = np.arange(5), sampler.init((table, None))
    got = sampler.sample(state, KEY, labels, 7, inputs=inputs, unique=False)
    assert got.ids.shape == got.expected_count.shape == (5, 7)
    assert np.all(np.asarray(got.ids)[:, 4:] == np.asarray(got.ids)[0, 4:])
    q = follower.probability(state[0], np.tile(np.arange(9), (5, 1)), inputs=inputs)
    total = 4 * q + 3 * log_uniform(9).probability((), np.arange(9))[None]
    np.testing.assert_allclose(
        got.expected_count, np.take_along_axis(np.asarray(total), np.asarray(got.ids), 1), rtol=1e-5
    )
    np.testing.assert_allclose(got.true_expected_count, total[labels, labels], rtol=1e-5)


def test_every_part_learns():
    sampler = mixed([learned_unigram(5), queue(5, 3), uniform(5)], [1, 3, 2])
    state = sampler.update(sampler.init(), np.array([4, 4]))
    p = sampler.probability(state, np.arange(5))
    learned = np.array([1, 1, 1, 1, 3]) / 7
    np.testing.assert_allclose(p, (learned + 3 * 0.2 + 2 * 0.2) / 6, rtol=1e-6)
    assert state[1].ids.tolist() == [4, 4, 5]


def test_mixtures_of_mixtures_with_empty_slots():
    inner = mixed([in_batch(9), uniform(9)], [3, 2])
    sampler, labels = mixed([inner, queue(9, 4)], [5, 4]), np.array([4, 8, 4])
    where = np.array([True, False, True])
    state = sampler.update(sampler.init(), np.array([2, 4]))
    got = sampler.sample(state, KEY, labels, 9, unique=False, where=where)
    assert got.ids.tolist()[:3] == [4, 9, 4]
    assert got.ids.tolist()[5:] == [2, 4, 9, 9]
    total = 2 / 9 + 2 / 9 + 2 / 9
    np.testing.assert_allclose(got.expected_count, np.where(got.ids < 9, total, 0), rtol=1e-6)
    np.testing.assert_allclose(got.true_expected_count, total, rtol=1e-6)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 9\), got 9 at \(0,\)"):
        sampler.sample(state, KEY, labels + 5, 9, unique=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: in_batch(5, frequencies=3), "frequencies must be a Sampler or None, got 3"),
        (lambda: mixed(uniform(3), [1]), "samplers must be a list of at least one Sampler"),
        (lambda: mixed([uniform(3), 7], [1, 1]), r"samplers\[1\] must be a Sampler, got 7"),
        (lambda: mixed([uniform(3)], [1, 2]), "an entry for each of 1 samplers, got"),
        (lambda: queue(3, 2).init([0, 0, 0]), "weights must have a positive entry"),
        (lambda: in_batch(3).init([1, 2]), r"weights must be .*, \[3\], got shape \[2\]"),
        (
            lambda: mixed([uniform(3)], [1]).init((None, None)),
            "weights must have an entry for each of 1 samplers, got 2",
        ),
    ],
)
def test_samplers_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("sampler", "count", "message"),
    [
        (in_batch(9), 3, "num_sampled must be 4, the number of labels, got 3"),
        (queue(9, 6), 4, "num_sampled must be 6, the size of the queue, got 4"),
        (mixed([uniform(9)] * 2, [2, 3]), 4, "num_sampled must be 5, the sum of .*, got 4"),
    ],
)
def test_sample_sizes_that_cannot_be(sampler, count, message):
    with pytest.raises(ValueError, match=message):
        sampler.sample(sampler.init(), KEY, np.array([[1, 2], [3, 4]]), count)
