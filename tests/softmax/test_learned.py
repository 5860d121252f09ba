"""Samplers that learn: their counts and gaps, and draws by what they learned."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax import learned_unigram, streaming_unigram
from jaxml.softmax.drawing import fenwick, uint64
from jaxml.softmax.drawing.uint64 import UInt64

NUM_CLASSES = 50
IDS = np.arange(NUM_CLASSES)
KINDS = {
    "learned": learned_unigram(NUM_CLASSES),
    "streaming": streaming_unigram(NUM_CLASSES, rate=0.05),
}
kinds = pytest.mark.parametrize("name", KINDS)


def batches(number, size=40, seed=0):
    """Labels of a Zipf law, so that most batches hold some of them several times."""
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1.0, NUM_CLASSES + 1) ** 1.2
    return rng.choice(rng.permutation(NUM_CLASSES), (number, size), p=p / p.sum())


@cache
def compiled_update(name):
    return jax.jit(KINDS[name].update)


def learn(name, state, labels, where=None):
    """One update by up to 40 labels, in a program that is compiled once."""
    where = np.ones(len(labels), bool) if where is None else where
    rest = (0, 40 - len(labels))
    return compiled_update(name)(state, np.pad(labels, rest), where=np.pad(where, rest))


@cache
def after(name):
    """The state after 60 batches."""
    state = KINDS[name].init()
    for labels in batches(60):
        state = learn(name, state, labels)
    return state


def probabilities(name, state):
    return np.asarray(KINDS[name].probability(state, IDS), np.float64)


def assert_same_state(one, other):
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(leaves, others, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# --- learning -----------------------------------------------------------------------------------


def test_learned_counts_are_those_of_all_batches():
    counts = 1 + np.bincount(batches(60).ravel(), minlength=NUM_CLASSES)
    np.testing.assert_allclose(
        probabilities("learned", after("learned")), counts / counts.sum(), rtol=1e-6
    )


@kinds
def test_masked_labels_do_not_count_and_an_update_without_labels_changes_nothing(name):
    labels, where = np.array([1, 2, 1, 7, 2, 2, 5]), np.array([1, 1, 1, 0, 0, 1, 1], bool)
    state = after(name)
    assert_same_state(learn(name, state, labels, where), learn(name, state, labels[where]))
    assert_same_state(learn(name, state, labels, np.zeros(7, bool)), state)
    assert_same_state(KINDS[name].update(state, np.zeros((0,), int)), state)


@kinds
def test_labels_of_any_shape_and_traced_ones_out_of_range(name):
    state = KINDS[name].init()
    labels = np.array([[3, -1, 3], [NUM_CLASSES, 4, 2**31 - 1]])
    wanted = learn(name, state, np.array([3, 3, 4]))
    assert_same_state(jax.jit(KINDS[name].update)(state, labels), wanted)


def test_counts_go_past_what_float32_and_one_word_hold():
    sampler, big = learned_unigram(3), 2**40
    counted = UInt64(jnp.full(2, big << 20 >> 32, jnp.uint32), jnp.zeros(2, jnp.uint32))
    tree = fenwick.add(sampler.init(), jnp.arange(2), counted)
    # In units of 2⁻²⁰; a float32 would have stopped counting at 2²⁴.
    tree = jax.jit(sampler.update)(tree, np.array([0, 0, 2]))
    found = fenwick.segments(fenwick.Line(tree, uint64.constant(0)), jnp.arange(3))
    units = [(int(h) << 32) + int(l) for h, l in zip(*found.lengths, strict=True)]
    assert units == [big + 2 << 20, big << 20, 1 << 20]
    p = sampler.probability(tree, np.arange(3))
    np.testing.assert_allclose(p, [0.5, 0.5, 2 / (2 * big)], rtol=1e-6)


def one_by_one(labels, rate):
    """Mean gaps as they are defined, label by label."""
    gap, last, seen = {}, {}, {}
    for t, k in enumerate(labels, start=1):
        seen[k] = seen.get(k, 0) + 1
        weight = max(rate, 1 / seen[k])
        gap[k] = (1 - weight) * gap.get(k, 0.0) + weight * (t - last.get(k, 0))
        last[k] = t
    return gap, last, seen


def test_gaps_of_batches_are_those_of_the_stream_label_by_label():
    labels = batches(60)
    gap, last, seen = one_by_one(labels.ravel().tolist(), 0.05)
    state = after("streaming")
    for k in IDS.tolist():
        if k in gap:
            np.testing.assert_allclose(state.gap[k], gap[k], rtol=1e-5)
            assert int(state.last.low[k]) == last[k]
            assert int(state.seen[k]) == min(seen[k], 39)
        else:
            assert int(state.seen[k]) == 0
    assert int(state.position.low) == labels.size
    # The estimate of 1 / gap without its bias, and one label of the whole stream for each class.
    number, gap = np.minimum(np.array([seen.get(k, 0) for k in IDS]), 39), np.float64(state.gap)
    share = np.where(number > 1, (number - 1) / np.maximum(number * gap - 1, 1e-9), 0)
    share += 1 / labels.size
    np.testing.assert_allclose(probabilities("streaming", state), share / share.sum(), rtol=1e-5)


def test_positions_go_past_32_bits():
    sampler = streaming_unigram(2, rate=1.0)
    update = jax.jit(sampler.update)
    state = update(sampler.init(), np.array([0, 1]))
    for _ in range(3):  # Labels of neither class, which only move the position.
        moved = uint64.add(state.position, uint64.constant(3 * 2**31))
        state = update(dataclasses.replace(state, position=moved), np.array([0, 1]))
    assert (int(state.position.high) << 32) + int(state.position.low) == 9 * 2**31 + 8
    np.testing.assert_allclose(state.gap, 3.0 * 2**31, rtol=1e-6)


# --- pure functions -----------------------------------------------------------------------------


@kinds
def test_a_batch_of_states_is_a_loop(name):
    sampler, labels = KINDS[name], batches(1, seed=5)[0]
    states = [after(name), sampler.init()]
    learn_all = jax.jit(jax.vmap(lambda state: sampler.update(state, labels)))
    together = learn_all(jax.tree.map(lambda a, b: jnp.stack([a, b]), *states))
    for i, state in enumerate(states):
        got = probabilities(name, jax.tree.map(lambda leaf, i=i: leaf[i], together))
        wanted = probabilities(name, learn(name, state, labels))
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    "make", [learned_unigram, pytest.param(streaming_unigram, marks=pytest.mark.slow)]
)
@pytest.mark.optimized
def test_an_update_touches_only_what_it_must(make):
    size = 10**6
    sampler = make(size)
    state = jax.eval_shape(sampler.init)
    labels = jax.ShapeDtypeStruct((64,), jnp.int32)
    compiled = jax.jit(sampler.update, donate_argnums=0).lower(state, labels).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10**5


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learned_unigram(0), "num_classes must be .*, got 0"),
        (lambda: streaming_unigram(5, rate=0), r"rate must be .* \[1e-06, 1\], got 0"),
    ],
)
def test_samplers_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()
