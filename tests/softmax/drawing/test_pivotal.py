"""Pivotal sampling against its defining process, followed branch by branch."""

from collections import defaultdict
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax.drawing import cdfs
from jaxml.softmax.drawing.pivotal import certain, independent, pivotal
from jaxml.softmax.samplers import unigram


def duels(inclusion):
    """The law of ordered pivotal sampling, by definition: the first two units with a chance
    fight; either one takes both chances and the other is out, or one is chosen and the other
    keeps what is over 1.

    Args:
        inclusion: exact inclusion probabilities in the order of the line; they sum to an integer.

    Returns:
        dict from the frozenset of chosen positions to its probability.
    """
    law = {(None, Fraction(0), frozenset()): Fraction(1)}
    for unit, share in enumerate(inclusion):
        after = defaultdict(Fraction)
        for (holder, held, chosen), p in law.items():
            both = held + share
            if both < 1:
                after[holder, both, chosen] += p * held / both if both else 0
                after[unit, both, chosen] += p * share / both if both else p
            else:
                first = (1 - share) / (2 - both) if both < 2 else Fraction(1)
                after[unit, both - 1, chosen | {holder}] += p * first
                after[holder, both - 1, chosen | {unit}] += p * (1 - first)
        law = {key: p for key, p in after.items() if p}
    sets = defaultdict(Fraction)
    for (_, _, chosen), p in law.items():
        sets[chosen] += p
    return sets


def law_of(lengths, count):
    """The law of `pivotal`: the certain ranks, and duels along the ring from a random start."""
    lengths = [Fraction(length) for length in lengths]
    head = next(
        h for h in range(count) if (count - h) * lengths[h] <= sum(lengths[h:], Fraction(0))
    )
    tail = lengths[head:]
    inclusion = [(count - head) * length / sum(tail) for length in tail]
    law = defaultdict(Fraction)
    for start in range(len(tail)):
        turned = inclusion[start:] + inclusion[:start]
        for chosen, p in duels(turned).items():
            ranks = frozenset(head + (start + i) % len(tail) for i in chosen)
            law[ranks | frozenset(range(head))] += p / len(tail)
    return law


def table(lengths):
    """A cdf whose segments have lengths in these proportions, and its state."""
    state = unigram(lengths).init()
    high, low = (np.asarray(word).astype(np.uint64) for word in state.edges)
    return cdfs.table(high << np.uint64(32) | low), state


def logarithmic_lengths(size):
    cdf = cdfs.logarithmic(size)
    return [cdf.left_edge(rank + 1) - cdf.left_edge(rank) for rank in range(size)]


STEEP = [400, 90, 40, 20, 9, 5, 2, 1]
STEPS = [6, 6, 6, 2, 2, 1, 1]
LINES = {
    "logarithmic": (cdfs.logarithmic(8), (), logarithmic_lengths(8)),
    "steep": (*table(STEEP), STEEP),
    "steps": (*table(STEPS), STEPS),
}


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("steep", 5),
        pytest.param("logarithmic", 2, marks=pytest.mark.slow),
        pytest.param("steps", 5, marks=pytest.mark.slow),
    ],
)
def test_inclusion_and_joint_inclusion_are_those_of_the_process(line, count):
    cdf, state, lengths = LINES[line]
    law, size, draws = law_of(lengths, count), len(lengths), 100_000
    keys = jax.random.split(jax.random.key(count), draws)
    sample = jax.jit(jax.vmap(partial(pivotal, cdf, state, count=count)))
    member = np.zeros((draws, size), np.float32)
    member[np.arange(draws)[:, None], np.asarray(sample(keys))] = 1
    expected = np.zeros((size, size))
    for ranks, p in law.items():
        chosen = sorted(ranks)
        expected[np.ix_(chosen, chosen)] += float(p)
    observed = (member.T @ member) / draws
    error = np.sqrt(expected * (1 - expected) / draws)
    assert np.all(np.abs(observed - expected) <= 4.5 * error + 1e-9)
    np.testing.assert_allclose(member.sum(1), count)


def test_certain_is_the_smallest_head_that_leaves_no_chance_above_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = np.sort(np.ceil(rng.pareto(0.3, 40) + 1))[::-1].clip(max=2**40).astype(np.int64)
        edges = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
        cdf = cdfs.table(edges)
        for count in (1, 2, 7, 20, 39, 40):
            head = certain(cdf, count)
            fits = [(count - h) * lengths[h] <= lengths[h:].sum() for h in range(count)]
            assert head == fits.index(True)
            assert all(fits[head:])


@pytest.mark.parametrize("count", [0, -1, 8])
def test_certain_refuses_a_count_that_the_line_does_not_hold(count):
    with pytest.raises(ValueError, match=rf"count must be in \[1, 7\], got {count}"):
        certain(cdfs.even(7), count)


GIANT = [1e18] + [1] * 39
HALVING = 2.0 ** -np.arange(60)
AWKWARD = {
    "one of one": (cdfs.logarithmic(1), (), [1]),
    "of a prime, logarithmic": (cdfs.logarithmic(97), (), [31]),
    "all alike": (*table([1] * 40), [39, 40]),
    "one giant": (*table(GIANT), [2, 40]),
    "halving": (*table(HALVING), [30]),
    "two levels": (*table([1000] * 7 + [1] * 33), [8]),
}


@pytest.mark.parametrize(("cdf", "state", "counts"), AWKWARD.values(), ids=AWKWARD)
def test_ranks_are_distinct_and_in_range_for_awkward_sizes(cdf, state, counts):
    keys = jax.random.split(jax.random.key(0), 300)
    for count in counts:
        ranks = np.sort(jax.jit(jax.vmap(partial(pivotal, cdf, state, count=count)))(keys), 1)
        assert ranks.shape == (300, count)
        assert ranks.min() >= 0 and ranks.max() < cdf.size
        assert (np.diff(ranks) > 0).all()


@pytest.mark.optimized
def test_independent_draws_follow_the_lengths_and_repeat():
    cdf, state, lengths = LINES["steep"]
    draws = 100_000
    ranks = np.asarray(independent(cdf, state, jax.random.key(0), draws))
    p = np.array(lengths) / sum(lengths)
    error = np.sqrt(p * (1 - p) / draws)
    assert np.all(np.abs(np.bincount(ranks, minlength=8) / draws - p) <= 4.5 * error)
    assert ranks.dtype == jnp.int32
