"""Sums over all classes are estimated without bias, evenly, up to the last of 10⁸ ids. Slow tests."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax import log_uniform, uniform, unigram

pytestmark = pytest.mark.slow

NUM_CLASSES, NUM_SAMPLED = 1024, 64


def zipf(size, exponent=1.0):
    return 1 / np.arange(1.0, size + 1) ** exponent


SAMPLERS = {
    "uniform": uniform(NUM_CLASSES),
    "log_uniform": log_uniform(NUM_CLASSES),
    "unigram": unigram(zipf(NUM_CLASSES, 0.75)),
    "unigram, steep": unigram(np.random.default_rng(0).permutation(zipf(NUM_CLASSES, 1.5))),
}
each = pytest.mark.parametrize("name", SAMPLERS)
both = pytest.mark.parametrize("unique", [True, False], ids=["unique", "independent"])


@cache
def draw(sampler, count, draws, unique):
    """ids and expected counts of many draws, each [draws, count]."""

    def one(state, key):
        got = sampler.sample(state, key, jnp.zeros((1,), jnp.int32), count, unique=unique)
        return got.ids, got.expected_count

    sample = jax.jit(jax.vmap(one, in_axes=(None, 0)))
    ids, expected = sample(sampler.init(), jax.random.split(jax.random.key(unique), draws))
    return np.asarray(ids), np.asarray(expected, np.float64)


@cache
def scores():
    """exp(scores) by the shape of the scores; periods that divide N / n = 16, N, and neither."""
    ids, rng = np.arange(NUM_CLASSES), np.random.default_rng(3)
    periodic = {f"period {p}": np.sin(2 * np.pi * ids / p) * 2 for p in (2, 4, 16, 32, 64, 63, 17)}
    return {
        **periodic,
        "sorted": np.linspace(2, -2, NUM_CLASSES),
        "random": rng.normal(size=NUM_CLASSES),
        "constant": np.zeros(NUM_CLASSES),
    }


def estimates(name, unique, shape):
    ids, expected = draw(SAMPLERS[name], NUM_SAMPLED, 4000, unique)
    return np.sum(np.exp(scores()[shape])[ids] / expected, axis=1)


@each
def test_the_partition_estimate_is_no_less_certain_than_from_independent_draws(name):
    for shape in scores():
        deviation = estimates(name, True, shape).std()
        # In theory at most 1 ×; 1.2 × is the promise, and each deviation is known to 1.6 % or so.
        assert deviation <= 1.1 * estimates(name, False, shape).std() + 1e-6, shape


# --- every id, up to the last -------------------------------------------------------------------

HUGE = 10**8
HUGE_SAMPLERS = {"uniform": uniform(HUGE), "log_uniform": log_uniform(HUGE)}
huge = pytest.mark.parametrize("name", HUGE_SAMPLERS)


def check_rate(hits, wanted):
    """Counts with this mean and the variance of independent draws, which no other exceeds."""
    assert np.all(np.abs(np.asarray(hits) - wanted) <= 4.5 * np.sqrt(wanted)), (hits, wanted)


@both
@huge
def test_no_residue_and_no_last_block_is_left_out_at_a_hundred_million(name, unique):
    ids, expected = draw(HUGE_SAMPLERS[name], 2048, 512, unique)
    ids, expected = ids.ravel().astype(np.int64), expected.ravel()

    def wanted(first, end):
        """How often ids of this block are drawn, if those drawn are counted as they should be."""
        one = np.argmax(ids)  # a rare id, so its count is not capped
        if name == "uniform":
            return 512 * expected[one] * (end - first)
        share = np.log((end + 1) / (first + 1)) / np.log1p(1 / (ids[one] + 1))
        return 512 * expected[one] * share

    # Above 2²⁴ float32 knows only every second to eighth id.
    high = ids[ids >= 2**24]
    for block in ((2**24, HUGE), (HUGE // 2, HUGE), (HUGE - HUGE // 100, HUGE)):
        check_rate(np.sum((ids >= block[0]) & (ids < block[1])), wanted(*block))
    for modulus in (2, 3, 4, 8, 16):
        hits = np.bincount(high % modulus, minlength=modulus)
        check_rate(hits, len(high) / modulus)
    # Ids that float32 cannot tell apart would meet two to eight times as often.
    last = ids[ids >= HUGE - HUGE // 10]
    pairs = len(last) ** 2 / 2 / (HUGE // 10)
    repeats = len(last) - len(np.unique(last))
    assert abs(repeats - pairs) <= 5 * np.sqrt(pairs) + 2


LONG = 4 * 10**6


@cache
def long_table():
    return unigram(zipf(LONG))


@both
def test_the_tail_of_a_long_table_is_drawn_at_its_rate(unique):
    # Past 10⁶, p is less than float32 can add to a sum near 1: in a float32 cumulative sum most of
    # these classes have no width.
    size, half = LONG, LONG // 2
    weights = zipf(size)
    ids, expected = draw(long_table(), 2048, 512, unique)
    tail = np.ravel(ids)[np.ravel(ids) >= half]
    rate = expected[ids >= half] / weights[ids[ids >= half]]
    np.testing.assert_allclose(rate, rate[0], rtol=1e-5)
    check_rate(len(tail), 512 * rate[0] * weights[half:].sum())
    for modulus in (2, 3, 4, 8, 16):
        check_rate(np.bincount(tail % modulus, minlength=modulus), len(tail) / modulus)
    blocks = np.bincount((tail - half) // (half // 8), minlength=8)
    check_rate(blocks, 512 * rate[0] * weights[half:].reshape(8, -1).sum(1))
    pairs = len(tail) ** 2 / 2 * np.sum((weights[half:] / weights[half:].sum()) ** 2)
    assert abs(len(tail) - len(np.unique(tail)) - pairs) <= 5 * np.sqrt(pairs) + 2
