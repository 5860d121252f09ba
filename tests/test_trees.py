"""Trees: against float64 references, at the ends of float32's range, under jit and vmap."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml import trees


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    weights: dict
    key: jax.Array
    step: jax.Array


def a_state(seed=0):
    key = jax.random.key(seed)
    return State(
        weights={"w": jax.random.normal(key, (3, 4)), "pair": Pair(jnp.ones(2), jnp.float32(5))},
        key=jax.random.fold_in(key, 1),
        step=jnp.int32(seed),
    )


def equal(a, b):
    """Same structure, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


# global_norm


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-(2.0**122), 2.0**122, width=32), min_size=7, max_size=7))
def test_norm_agrees_with_float64(values):
    values = np.float32(values)
    values[np.abs(values) < 1e-30] = 0  # denormals are flushed to zero on some devices
    wanted = np.linalg.norm(values.astype(np.float64))
    got = trees.global_norm({"a": values[::2], "b": (values[1::2],)})
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-37, 1.0, 1e37])
def test_norm_neither_overflows_nor_underflows(scale):
    tree = [np.full((10, 10), scale, np.float32), np.zeros(3, np.float32)]
    np.testing.assert_allclose(trees.global_norm(tree), 10 * scale, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "bool", "complex64"])
def test_norm_of_any_dtype_is_a_float32_sum(dtype):
    norm = trees.global_norm([jnp.ones((10_000,), dtype)])
    assert norm.dtype == jnp.float32
    assert norm == 100  # In bfloat16 a sum of ones stays at 256.
    np.testing.assert_allclose(trees.global_norm(jnp.complex64(3 + 4j)), 5, rtol=1e-6)


@pytest.mark.parametrize(
    "tree", [{}, jnp.zeros((0, 3)), jax.random.key], ids=["dict", "rows", "key"]
)
def test_norm_of_nothing_is_zero(tree):
    norm = trees.global_norm(jax.random.key(0) if callable(tree) else tree)
    assert norm == 0
    assert norm.dtype == jnp.float32


def test_norm_of_infinity_and_nan():
    assert trees.global_norm([jnp.inf, 1.0]) == jnp.inf
    assert trees.global_norm([-jnp.inf, 1.0]) == jnp.inf
    assert jnp.isnan(trees.global_norm([jnp.nan, 1.0]))
    assert jnp.isnan(trees.global_norm([jnp.nan, jnp.inf]))


@pytest.mark.parametrize("values", [[3.0, 4.0], [3e20, 4e20], [0.0, 0.0], [1.0, 0.0]])
def test_gradient_of_norm_is_the_unit_vector(values):
    values = jnp.float32(values)
    norm = np.linalg.norm(np.asarray(values, np.float64))
    wanted = np.asarray(values) / norm if norm else np.zeros(2)
    np.testing.assert_allclose(jax.grad(trees.global_norm)(values), wanted, rtol=1e-6)


# all_finite


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_one_bad_number_is_seen(bad, dtype):
    tree = {"good": jnp.ones(3), "bad": jnp.zeros((4, 5), dtype)}
    assert trees.all_finite(tree)
    tree["bad"] = tree["bad"].at[3, 4].set(bad)
    assert not trees.all_finite(tree)


def test_integers_keys_and_nothing_are_finite():
    assert trees.all_finite({"ids": jnp.arange(3), "flag": True, "key": jax.random.key(0)})
    assert trees.all_finite({})
    assert trees.all_finite([jnp.zeros((0,)), 3, 2.5])
    assert trees.all_finite({}).dtype == bool


# counts


def test_counts_are_the_same_of_shapes_as_of_arrays():
    state = a_state()
    shapes = jax.eval_shape(a_state)
    assert trees.num_parameters(state) == trees.num_parameters(shapes) == 12 + 2 + 1 + 1
    assert trees.num_bytes(state) == trees.num_bytes(shapes) == 4 * 16 + 8


def test_counts_do_not_overflow():
    table = jax.ShapeDtypeStruct((100_000_000, 128), jnp.bfloat16)
    assert trees.num_parameters(table) == 12_800_000_000
    assert trees.num_bytes(table) == 25_600_000_000


def test_counts_of_python_numbers():
    assert trees.num_parameters([1, 2.0, jnp.zeros((0, 7))]) == 2
    assert trees.num_bytes([1, 2.0]) == 8


# select


@pytest.mark.parametrize("predicate", [True, False])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_select_takes_a_whole_tree(predicate, transform):
    new, old = a_state(1), a_state(2)
    equal(transform(trees.select)(predicate, new, old), new if predicate else old)


def test_select_keeps_out_nan_and_keeps_every_bit():
    poison = jnp.full((4,), jnp.nan)
    kept = jnp.float32([-0.0, np.inf, 1e-30, np.nan])
    equal(trees.select(jnp.bool_(False), {"x": poison}, {"x": kept}), {"x": kept})


def test_select_under_vmap_chooses_for_each_member():
    new, old = (trees.stack([a_state(i) for i in seeds]) for seeds in [(0, 1, 2), (3, 4, 5)])
    chosen = jax.vmap(trees.select)(jnp.array([True, False, True]), new, old)
    equal(chosen, trees.stack([a_state(0), a_state(4), a_state(2)]))


@pytest.mark.parametrize(
    ("on_true", "on_false", "message"),
    [
        ({"a": np.ones(2)}, {"b": np.ones(2)}, "structure"),
        ([np.ones(2)], [[np.ones(2)]], "structure"),
        ({"a": np.ones(2)}, {"a": np.ones(3)}, r"on_false\['a'\].*\(2,\).*\(3,\)"),
        ({"a": np.ones(2, "f4")}, {"a": np.ones(2, "i4")}, "float32.*int32"),
    ],
)
def test_select_refuses_trees_that_differ(on_true, on_false, message):
    with pytest.raises(ValueError, match=message):
        trees.select(True, on_true, on_false)


def test_select_refuses_a_vector_of_predicates():
    with pytest.raises(ValueError, match=r"predicate.*\(2,\)"):
        trees.select(jnp.array([True, False]), jnp.ones(2), jnp.zeros(2))


# transformations


@pytest.mark.parametrize("function", [trees.global_norm, trees.all_finite])
def test_jit_and_vmap_equal_a_loop(function):
    members = [a_state(i) for i in range(4)]
    members[2].weights["w"] = members[2].weights["w"].at[0, 0].set(jnp.inf)
    wanted = jnp.stack([function(member) for member in members])
    stacked = trees.stack(members)
    np.testing.assert_array_equal(jax.vmap(function)(stacked), wanted)
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(stacked), wanted, rtol=1e-6)
