"""Embeddings beside dense columns, and ids that have no row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import models
from jaxml.models import Embedding, TabularMLP

DENSE = np.random.default_rng(3).normal(size=(5, 2)).astype(np.float32)
IDS = np.array([[0, 6], [1, 5], [2, 4], [0, 3], [1, 0]], np.int32)


def test_embeddings_are_rows_beside_the_dense_columns(key):
    module = TabularMLP((3, 7), (2, 4), (), 2)
    variables = module.init(key, {"dense": DENSE, "ids": IDS})
    params = variables["params"]
    rows = [np.asarray(params[f"embedding_{i}"]["table"]["embedding"]) for i in range(2)]
    assert [row.shape for row in rows] == [(3, 2), (7, 4)]
    joined = np.concatenate([DENSE, rows[0][IDS[:, 0]], rows[1][IDS[:, 1]]], 1)
    output = params["mlp"]["output"]
    wanted = joined @ np.asarray(output["kernel"]) + np.asarray(output["bias"])
    for x in (
        {"dense": DENSE, "ids": IDS},
        (DENSE, IDS),
        {"ids": IDS.astype(np.int8), "dense": DENSE},
    ):
        np.testing.assert_allclose(module.apply(variables, x), wanted, rtol=1e-5, atol=1e-6)


def test_one_part_may_be_missing(key):
    of_ids = TabularMLP((3, 7), 2, (4,), 1)
    variables = of_ids.init(key, IDS)
    outputs = of_ids.apply(variables, IDS)
    for x in ({"ids": IDS}, {"ids": IDS, "dense": None}):
        np.testing.assert_array_equal(of_ids.apply(variables, x), outputs)
    of_dense = TabularMLP((), 2, (4,), 1)
    assert of_dense.init_with_output(key, {"dense": DENSE})[0].shape == (5, 1)
    assert of_dense.init_with_output(key, {"dense": DENSE > 0})[0].dtype == jnp.float32


@pytest.mark.parametrize("size", [1, 3])
def test_an_id_without_a_row_is_nan_and_no_other_row(key, size):
    module = Embedding(size, 2)
    ids = jnp.array([0, size - 1, size, -1, 2**31 - 1, -(2**31)])
    vectors, variables = module.init_with_output(key, ids)
    assert np.isnan(vectors).any(-1).tolist() == [False, False, True, True, True, True]
    jitted = jax.jit(module.apply)(variables, ids)
    np.testing.assert_array_equal(vectors, jitted)
    # The gradient reaches the rows of valid ids, whatever the others are.
    gradient = jax.grad(lambda v: jnp.nansum(module.apply(v, ids)))(variables)
    wanted = np.zeros((size, 2))
    np.add.at(wanted, [0, size - 1], 1)
    np.testing.assert_array_equal(gradient["params"]["table"]["embedding"], wanted)


def test_an_id_without_a_row_can_have_one_of_its_own(key):
    module = Embedding(3, 2, "unknown")
    ids = jnp.array([0, 2, 3, -1, 1000])
    vectors, variables = module.init_with_output(key, ids)
    table = variables["params"]["table"]["embedding"]
    assert table.shape == (4, 2)
    np.testing.assert_array_equal(vectors, table[jnp.array([0, 2, 3, 3, 3])])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_ids_of_any_width(key, dtype):
    """300 is no number of eight bits, and 2³² − 1 is none of 31."""
    module = Embedding(300, 2)
    variables = module.init(key, jnp.zeros(1, jnp.int32))
    ids = np.array([0, 100, np.iinfo(dtype).max], dtype)
    vectors = module.apply(variables, ids)
    known = ids.astype(np.int64) < 300
    np.testing.assert_array_equal(np.isfinite(vectors).all(-1), known)
    table = variables["params"]["table"]["embedding"]
    np.testing.assert_array_equal(vectors[known], table[ids[known].astype(np.int32)])


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (TabularMLP((3, 7), 2, (4,), 1), IDS[:, :1], "ids must have 2 columns, .* got 1"),
        (TabularMLP((3, 7), (2,), (4,), 1), IDS, r"embedding_dims must be one or 2, .* got \(2,\)"),
        (TabularMLP((3, 7), 2, (4,), 1), DENSE, "ids must be integers, got dtype float32"),
        (TabularMLP((3, 7), 2, (4,), 1), {"id": IDS}, r"keys dense and ids, got \['id'\]"),
        (TabularMLP((3, 7), 2, (4,), 1), {"dense": DENSE[:3], "ids": IDS}, "same leading axes"),
        (TabularMLP((), 2, (4,), 1), {"dense": None}, "got neither"),
        (TabularMLP((3, 0), 2, (4,), 1), IDS, "vocabulary_size must be .* of at least 1, got 0"),
        (Embedding(3, 2), DENSE > 0, "ids must be integers, got dtype bool"),
        (Embedding(3, 2, "clip"), IDS, "out_of_range must be one of .* got 'clip'"),
    ],
)
def test_invalid_arguments_are_refused(key, module, x, message):
    with pytest.raises(ValueError, match=message):
        models.from_linen(module).init(key, x)
