"""What `coalesce` promises, by law and by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.tables import EMPTY_ID, RowGradient, coalesce

coalesce_jit = jax.jit(coalesce)


def sums_by_row(ids, values):
    """The obvious way: {row: float64 sum} over the entries that name a row."""
    sums = {}
    for row, value in zip(np.ravel(ids).tolist(), np.asarray(values, np.float64), strict=True):
        if 0 <= row < EMPTY_ID:
            sums[row] = sums.get(row, 0.0) + value
    return dict(sorted(sums.items()))


def assert_coalesced(result, sums):
    used = len(sums)
    assert result.ids.dtype == jnp.int32 and result.values.dtype == jnp.float32
    assert result.ids[:used].tolist() == list(sums)
    assert set(result.ids[used:].tolist()) <= {EMPTY_ID}
    np.testing.assert_array_equal(result.values[used:], 0)
    np.testing.assert_allclose(
        result.values[:used], np.reshape(list(sums.values()), result.values[:used].shape)
    )


row_ids = st.one_of(
    st.integers(-3, 4),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([2**24, 2**24 + 1, EMPTY_ID - 1, EMPTY_ID]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(row_ids, st.integers(-1000, 1000)), min_size=12, max_size=12))
def test_sums_duplicates_sorts_and_empties_the_rest(entries):
    ids = np.array([row for row, _ in entries], np.int32)
    values = np.array([[value, -2 * value, 1] for _, value in entries], np.float32)
    result = coalesce_jit(RowGradient(ids, values))
    assert_coalesced(result, sums_by_row(ids, values))
    scalars = coalesce_jit(RowGradient(ids, values[:, 0]))
    assert_coalesced(scalars, sums_by_row(ids, values[:, 0]))
    again = coalesce_jit(result)
    np.testing.assert_array_equal(again.ids, result.ids)
    np.testing.assert_array_equal(again.values, result.values)


@pytest.mark.parametrize("shape", [(3,), ()], ids=["rows", "scalars"])
def test_a_bag_gives_its_value_to_each_of_its_rows(shape):
    rng = np.random.default_rng(0)
    ids = rng.integers(-1, 6, (8, 5)).astype(np.int32)
    values = rng.integers(-9, 9, (8, *shape)).astype(np.float32)
    spread = np.repeat(values, 5, axis=0)
    result = coalesce_jit(RowGradient(ids, values))
    assert result.ids.shape == (40,) and result.values.shape == (40, *shape)
    assert_coalesced(result, sums_by_row(ids, spread))
    for bags in ((8, 0), (0, 5), (0, 0)):
        empty = RowGradient(np.zeros(bags, np.int32), values[: bags[0]])
        for result in (coalesce(empty), coalesce_jit(empty)):
            assert result.ids.shape == (0,) and result.values.shape == (0, *shape)


def test_a_nan_stays_with_its_row_and_an_empty_entry_goes_nowhere():
    ids = np.array([2, -1, EMPTY_ID, 2, 0], np.int32)
    result = coalesce(RowGradient(ids, np.float32([1.0, np.nan, np.inf, 2.0, np.nan])))
    assert result.ids.tolist() == [0, 2, EMPTY_ID, EMPTY_ID, EMPTY_ID]
    np.testing.assert_array_equal(result.values, [np.nan, 3.0, 0.0, 0.0, 0.0])


def test_sums_are_float32_whatever_the_values():
    # In bfloat16 the sum would stay at 256, in float16 at 2048.
    for dtype in (jnp.bfloat16, jnp.float16):
        result = coalesce_jit(RowGradient(jnp.zeros(4097, jnp.int32), jnp.ones((4097, 1), dtype)))
        assert result.values[0, 0] == 4097.0


def test_ids_of_any_integer_type_that_never_wrap():
    assert coalesce(RowGradient(jnp.array([3, 1, 3], jnp.int8), jnp.ones(3))).ids[1] == 3
    ids = jnp.array([2**31 + 5, 2**32 - 1, 5], jnp.uint32)
    assert coalesce(RowGradient(ids, jnp.ones(3))).ids.tolist() == [5, EMPTY_ID, EMPTY_ID]


def test_vmap_equals_a_loop():
    rng = np.random.default_rng(1)
    ids = jnp.asarray(rng.integers(-2, 5, (3, 9)), jnp.int32)
    values = jnp.asarray(rng.normal(size=(3, 9, 2)), jnp.float32)
    together = jax.jit(jax.vmap(coalesce))(RowGradient(ids, values))
    for member in range(3):
        alone = coalesce_jit(RowGradient(ids[member], values[member]))
        np.testing.assert_array_equal(together.ids[member], alone.ids)
        np.testing.assert_array_equal(together.values[member], alone.values)


def test_it_is_a_pytree_that_keeps_the_mark():
    gradient = coalesce(RowGradient(jnp.array([1, 1]), jnp.ones(2)))
    assert gradient.coalesced and len(jax.tree.leaves(gradient)) == 2
    assert jax.tree.map(lambda x: x, gradient).coalesced


@pytest.mark.parametrize(
    ("ids", "values", "message"),
    [
        (jnp.zeros(3, jnp.int32), jnp.zeros((4, 2)), r"values must have shape .*K = 3.*\(4, 2\)"),
        (jnp.zeros((3, 2, 2), jnp.int32), jnp.zeros((3, 2)), r"ids must have shape .*\(3, 2, 2\)"),
        (jnp.zeros(3), jnp.zeros((3, 2)), "ids must be integers, got dtype float32"),
        (jnp.zeros(3, jnp.int32), jnp.zeros((3, 2), jnp.int32), "values must be floating point"),
    ],
)
def test_refuses(ids, values, message):
    with pytest.raises(ValueError, match=message):
        coalesce(RowGradient(ids, values))
    bags = RowGradient(jnp.zeros((3, 2), jnp.int32), jnp.zeros(3), coalesced=True)
    with pytest.raises(ValueError, match=r"coalesced gradient must have shape \[K\], got \(3, 2\)"):
        coalesce(bags)
