"""Batches by number: what an epoch holds, that position is all there is, and that it is uniform."""

import itertools

import numpy as np
import pytest

from jaxml.data import batches
from jaxml.data.batches import batch_indices


@pytest.mark.parametrize(("num_examples", "batch_size"), [(13, 4), (4, 13), (1, 1), (1000, 32)])
def test_every_epoch_holds_every_example_once(num_examples, batch_size):
    num_epochs = 6
    num_batches = -(-num_epochs * num_examples // batch_size)
    drawn = [batch_indices(num_examples, batch_size, at, seed=3) for at in range(num_batches)]
    assert {(batch.shape, batch.dtype) for batch in drawn} == {((batch_size,), np.dtype(np.int64))}
    stream = np.concatenate(drawn)[: num_epochs * num_examples].reshape(num_epochs, num_examples)
    np.testing.assert_array_equal(np.sort(stream), np.tile(np.arange(num_examples), (6, 1)))
    if num_examples >= 12:
        assert len(np.unique(stream, axis=0)) == num_epochs


def test_a_batch_depends_on_its_number_alone():
    in_order = [batch_indices(100, 16, at, seed=1).tolist() for at in range(40)]
    batches._permutation.cache_clear()
    backwards = [batch_indices(100, 16, at, seed=1).tolist() for at in reversed(range(40))]
    assert backwards[::-1] == in_order
    batch_indices(100, 16, 33, seed=1)[:] = 0  # A batch may be written to.
    assert batch_indices(100, 16, 33, seed=1).tolist() == in_order[33]


def test_another_size_of_batch_cuts_the_same_stream():
    large = np.concatenate([batch_indices(50, 20, at, seed=1) for at in range(10)])
    small = np.concatenate([batch_indices(50, 8, at, seed=1) for at in range(25)])
    np.testing.assert_array_equal(large, small)


def test_batches_never_change():
    # Golden: recorded when the rule was fixed. Resumed runs depend on these numbers.
    wanted = [622788, 95994, 136047, 821651]
    assert batch_indices(1_000_000, 4, 123_456_789, seed=7).tolist() == wanted
    # A position that would overflow when it is multiplied in 32 bits.
    far = batch_indices(10, 1_000, np.int32(2**31 - 1), np.uint32(1))
    assert far.tolist() == batch_indices(10, 1_000, 2**31 - 1, 1).tolist()


def test_permutations_are_uniform_over_seeds_and_epochs():
    # χ² over the 24 permutations of 4, in standard errors of its distribution.
    trials = 4_800
    for draws in (
        [batch_indices(4, 4, epoch, seed=0) for epoch in range(trials)],
        [batch_indices(4, 4, 0, seed=seed) for seed in range(trials)],
    ):
        counts = dict.fromkeys(itertools.permutations(range(4)), 0)
        for draw in draws:
            counts[tuple(draw.tolist())] += 1
        expected = trials / 24
        chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
        assert abs(chi2 - 23) < 4 * np.sqrt(2 * 23)


def test_arguments_below_their_bound_are_refused():
    with pytest.raises(ValueError, match="num_examples must be an integer of at least 1, got 0"):
        batch_indices(0, 1, 0, 0)
    with pytest.raises(ValueError, match="position must be an integer of at least 0, got -1"):
        batch_indices(1, 1, -1, 0)
