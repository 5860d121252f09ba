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
def compiled(sampler, count, unique):
    def one(state, key):
        got = sampler.sample(state, key, jnp.zeros((1,), jnp.int32), count, unique=unique)
        return got.ids, got.expected_count

    return jax.jit(jax.vmap(one, in_axes=(None, 0))), sampler.init()


@cache
def draw(sampler, count, draws, unique, seed=0):
    """ids and expected counts of many draws, each [draws, count]."""
    sample, state = compiled(sampler, count, unique)
    ids, expected = sample(state, jax.random.split(jax.random.key(seed), draws))
    return np.asarray(ids), np.asarray(expected, np.float64)


def sets_of(name, unique, seed=0):
    return draw(SAMPLERS[name], NUM_SAMPLED, 4000, unique, 2 * seed + unique)


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
    ids, expected = sets_of(name, unique)
    return np.sum(np.exp(scores()[shape])[ids] / expected, axis=1)


@each
@both
def test_the_partition_estimate_is_unbiased(name, unique):
    for shape, score in scores().items():
        got, wanted = estimates(name, unique, shape), np.exp(score).sum()
        error = got.std() / np.sqrt(len(got))
        assert abs(got.mean() - wanted) <= 4.5 * error + 1e-5 * wanted, shape


@each
def test_the_partition_estimate_is_no_less_certain_than_from_independent_draws(name):
    for shape in scores():
        deviation = estimates(name, True, shape).std()
        # In theory at most 1 ×; 1.2 × is the promise, and each deviation is known to 1.6 % or so.
        assert deviation <= 1.1 * estimates(name, False, shape).std() + 1e-6, shape


def partners(ids, size):
    """How many others each class has met, [size]."""
    member = np.zeros((len(ids), size), np.float32)
    member[np.arange(len(ids))[:, None], ids] = 1
    return np.count_nonzero(member.T @ member, axis=1) - (member.sum(0) > 0)


@each
def test_a_class_meets_the_partners_that_it_meets_in_independent_draws(name):
    ids = sets_of(name, True)[0]
    met = partners(ids, NUM_CLASSES)
    alone = partners(sets_of(name, False)[0], NUM_CLASSES)
    # How often a rare class is drawn at all is luck; then compare those drawn about as expected.
    seen = [np.bincount(np.ravel(sets_of(name, u)[0]), minlength=NUM_CLASSES) for u in (1, 0)]
    often = (seen[0] >= 40) & (seen[1] >= 40)
    assert often.sum() >= 20
    assert np.all(met[often] >= 0.8 * alone[often])
    assert met.sum() >= 0.95 * alone.sum()


@each
def test_a_class_meets_the_partners_that_it_meets_in_successive_draws(name):
    """Drawing one after the other without putting back, as drawing and rejecting does.

    There, the most probable classes may be missed, and the others are drawn the more for it; the
    steeper the distribution, the more partners that gives to the rare ones.
    """
    sampler, rng = SAMPLERS[name], np.random.default_rng(5)
    p = np.asarray(sampler.probability(sampler.init(), np.arange(NUM_CLASSES)), np.float64)
    races = (-np.log(p) + np.log(rng.exponential(size=(500, NUM_CLASSES))) for _ in range(8))
    first = np.concatenate(
        [np.argpartition(race, NUM_SAMPLED, axis=1)[:, :NUM_SAMPLED] for race in races]
    )
    met, wanted = partners(sets_of(name, True)[0], NUM_CLASSES), partners(first, NUM_CLASSES)
    assert np.median(met / np.maximum(wanted, 1)) >= 0.8
    assert met.sum() >= 0.8 * wanted.sum()


@each
def test_reported_counts_are_the_true_inclusion_probabilities_within_one_percent(name):
    ids = np.concatenate([sets_of(name, True, seed)[0] for seed in range(5)])
    sampler = SAMPLERS[name]
    inclusion = sampler.expected_count(sampler.init(), np.arange(NUM_CLASSES), NUM_SAMPLED)
    inclusion = np.asarray(inclusion, np.float64)
    # In 16 groups of classes alike in probability, each of which is drawn very often.
    order = np.argsort(-inclusion)
    hits = np.bincount(np.ravel(ids), minlength=NUM_CLASSES) / len(ids)
    for group in np.array_split(order, 16):
        rate, wanted = hits[group].sum(), inclusion[group].sum()
        assert abs(rate / wanted - 1) <= 0.01 + 4.5 / np.sqrt(wanted * len(ids))


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


@both
@huge
def test_what_is_drawn_follows_its_count_across_all_magnitudes(name, unique):
    ids, expected = draw(HUGE_SAMPLERS[name], 2048, 512, unique)
    # The Horvitz-Thompson estimate of how many classes a block holds, octave by octave.
    octave = np.floor(np.log2(ids + 1.0)).astype(int)
    for o in range(27):
        size = min(2 ** (o + 1), HUGE + 1) - 2**o
        values = np.sum((octave == o) / expected, axis=1)
        if values.any():
            assert abs(values.mean() - size) <= 4.5 * values.std() / np.sqrt(512) + 1e-4 * size
