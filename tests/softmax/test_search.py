"""Exact search: against NumPy's stable sort, for any number of classes and any block."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxml.softmax import top_k, top_k_probabilities


def reference(inputs, weights, biases, k):
    scores = np.float64(inputs) @ np.float64(weights).T
    if biases is not None:
        scores = scores + np.float64(biases)
    ids = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(scores, ids, axis=-1), ids


def assert_exact(inputs, weights, biases, k, block_size=None, search=None):
    search = search or functools.partial(top_k, k=k, block_size=block_size)
    scores, ids = search(inputs, weights, biases)
    expected_scores, expected_ids = reference(inputs, weights, biases, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)
    assert (scores.dtype, ids.dtype) == (jnp.float32, jnp.int32)


# Whole numbers make every score exact; few of them put ties everywhere.
FEW = st.integers(-2, 2).map(np.float32)
MANY = st.integers(-(10**4), 10**4).map(np.float32)


@pytest.mark.parametrize(
    "batch, num_classes, k, block_size",
    [
        ((), 1, 1, None),
        ((2, 2), 11, 3, 4),
        ((2,), 60, 2, 17),
    ],
)
def test_equals_a_stable_sort(batch, num_classes, k, block_size):
    search = jax.jit(lambda *arguments: top_k(*arguments, k=k, block_size=block_size))

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(
        inputs=arrays(np.float32, (*batch, 1), elements=FEW),
        weights=arrays(np.float32, (num_classes, 1), elements=FEW | MANY),
        biases=arrays(np.float32, num_classes, elements=FEW | st.just(np.float32(-np.inf))),
    )
    def equals_a_stable_sort(inputs, weights, biases):
        assert_exact(inputs, weights, biases, k, search=search)

    equals_a_stable_sort()


@pytest.mark.parametrize(
    "num_classes, k, block_size", [(1024, 1, 256), (1031, 10, 999), (1031, 40, 256)]
)
def test_equals_a_stable_sort_where_blocks_are_searched_by_runs(num_classes, k, block_size):
    rng = np.random.default_rng(num_classes + k)
    inputs = np.float32([[1.0], [-1.0], [0.0]])
    for distinct in (2, 30, 10**4):
        weights = rng.integers(0, distinct, (num_classes, 1)).astype(np.float32)
        assert_exact(inputs, weights, None, k, block_size)


@pytest.mark.parametrize("num_classes", [4, 64])  # in one piece, and by runs
def test_zeros_of_either_sign_are_a_tie(num_classes):
    biases = np.where(np.arange(num_classes) < num_classes // 2, np.float32(-0.0), np.float32(0.0))
    # -1 · 0 is -0, and so the first scores are -0 and the others 0.
    inputs, weights = jnp.zeros((1, 1)), jnp.full((num_classes, 1), -1.0)
    _, ids = top_k(inputs, weights, biases, k=3, block_size=num_classes)
    np.testing.assert_array_equal(ids, [[0, 1, 2]])


def test_a_score_of_nan_comes_first_and_hides_no_other():
    weights = np.arange(200, dtype=np.float32)[:, None]
    biases = np.zeros(200, np.float32)
    biases[150] = np.nan
    for sign in (1.0, -1.0):
        scores, ids = top_k(jnp.ones((1, 1)), weights, biases * sign, k=3, block_size=100)
        np.testing.assert_array_equal(ids, [[150, 199, 198]])
        assert np.isnan(scores[0, 0])


@pytest.mark.parametrize("num_classes, block_size", [(1, None), (23, 5), (1000, 999), (1000, 64)])
def test_probabilities_are_those_of_the_softmax_over_all_classes(num_classes, block_size):
    rng = np.random.default_rng(0)
    inputs, weights = rng.normal(size=(2, 3, 8)), 3 * rng.normal(size=(num_classes, 8))
    biases = np.where(np.arange(num_classes) % 7 == 3, -np.inf, 100 * rng.normal(size=num_classes))
    k = min(4, num_classes)
    for offset in (None, biases):
        scores = inputs @ weights.T + (0 if offset is None else offset)
        wanted = np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))
        got, ids = top_k_probabilities(inputs, weights, offset, k=k, block_size=block_size)
        np.testing.assert_array_equal(ids, reference(inputs, weights, offset, k)[1])
        np.testing.assert_allclose(got, -np.sort(-wanted)[..., :k], rtol=2e-4, atol=1e-7)
        assert (got.dtype, ids.dtype) == (jnp.float32, jnp.int32)


def test_the_most_probable_classes_of_any_number_of_inputs():
    """Exported for a symbolic batch, as a model that is served."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)), jnp.float32)
    inputs = weights[:7] * 2
    search = jax.jit(lambda x: top_k_probabilities(x, weights, k=2, block_size=16))
    (rows,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(search)(jax.ShapeDtypeStruct((rows, 4), jnp.float32))
    for wanted, got in zip(search(inputs), exported.call(inputs), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("function", [top_k, top_k_probabilities])
def test_vmap_equals_a_batch(function):
    rng = np.random.default_rng(0)
    inputs, weights = rng.normal(size=(4, 8)), rng.normal(size=(100, 8))
    search = jax.jit(lambda inputs: function(inputs, weights, k=5, block_size=30))
    expected_scores, expected_ids = search(inputs)
    scores, ids = jax.vmap(search)(inputs)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)
    np.testing.assert_array_equal(ids, expected_ids)


def test_bfloat16_is_scored_in_float32():
    # 256 + 1 is no bfloat16: only a float32 sum tells the two classes apart.
    weights = jnp.array([[256.0, 0.0], [256.0, 1.0]], jnp.bfloat16)
    scores, ids = top_k(jnp.ones((1, 2), jnp.bfloat16), weights, k=2)
    np.testing.assert_array_equal(ids, [[1, 0]])
    np.testing.assert_array_equal(scores, np.float32([[257.0, 256.0]]))


def test_the_compiled_program_holds_no_scores_of_all_classes(largest_array):
    num_classes, batch, dim, k = 100_003, 64, 4, 10
    compiled = (
        jax.jit(lambda x, w, b: top_k(x, w, b, k=k))
        .lower(jnp.ones((batch, dim)), jnp.ones((num_classes, dim)), jnp.ones(num_classes))
        .compile()
    )
    assert num_classes * dim <= largest_array(compiled) < batch * num_classes / 2
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * batch * num_classes


@pytest.mark.parametrize(
    "arguments, options, match",
    [
        (((2, 3), (5, 3)), dict(k=0), r"k must be .* \[1, 5\], got 0"),
        (((2, 3), (5, 3)), dict(k=6), r"k must be .* \[1, 5\], got 6"),
        (((2, 3), (5, 3)), dict(k=1, block_size=0), "block_size must be .* at least 1, got 0"),
        (((2, 3), (5, 4)), dict(k=1), r"weights must be \[num_classes, 3\]"),
        (((2, 3), (5, 3), (4,)), dict(k=1), r"biases must be \(5,\) or None, got \(4,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, options, match):
    with pytest.raises(ValueError, match=match):
        top_k(*map(np.ones, arguments), **options)
