"""Rows in memory: rounding, gathering, initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.tables import (
    from_storage,
    gather_bags,
    gather_rows,
    init_table,
    storage,
    storage_dtype,
    to_storage,
)

# Every exponent and both signs, subnormals, infinities and NaN: bit patterns of float32 at random,
# with exact ties between two bfloat16 numbers among them.
PATTERNS = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
PATTERNS[::4] = PATTERNS[::4] & 0xFFFF0000 | 0x8000
PATTERNS[:6] = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38], np.float32).view(np.uint32)
NUMBERS = PATTERNS.view(np.float32)


@pytest.mark.parametrize(
    ("dtype", "platform", "stored"),
    [
        ("bfloat16", "cpu", "uint16"),
        ("bfloat16", "gpu", "bfloat16"),
        ("float16", "cpu", "float16"),
    ],
)
def test_storage_dtype(dtype, platform, stored):
    assert storage_dtype(dtype, platform=platform) == jnp.dtype(stored)


def test_nearest_is_the_rounding_of_astype():
    bits = np.asarray(to_storage(NUMBERS, "uint16"))
    with np.errstate(invalid="ignore"):
        wanted = NUMBERS.astype(jnp.bfloat16)
    nan = np.isnan(NUMBERS)
    np.testing.assert_array_equal(bits[~nan], wanted.view(np.uint16)[~nan])
    assert np.isnan(from_storage(jnp.asarray(bits[nan]))).all()
    same = np.asarray(to_storage(NUMBERS, jnp.bfloat16)).view(np.uint16)
    np.testing.assert_array_equal(same[~nan], bits[~nan])


def test_all_bits_survive_the_round_trip():
    bits = jnp.arange(2**16, dtype=jnp.uint32).astype(jnp.uint16)
    number = from_storage(bits).astype(jnp.float32)
    for key in (None, jax.random.key(0)):
        back = to_storage(number, "uint16", key=key)
        np.testing.assert_array_equal(back[~jnp.isnan(number)], bits[~jnp.isnan(number)])
        assert jnp.isnan(from_storage(back)[jnp.isnan(number)]).all()


def test_stochastic_rounding_gives_a_neighbour():
    down = (PATTERNS & np.uint32(0xFFFF0000)).view(np.float32)
    up = ((PATTERNS & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
    got = np.asarray(from_storage(to_storage(NUMBERS, "uint16", key=jax.random.key(1))))
    got = got.astype(np.float32)
    finite = np.isfinite(NUMBERS)
    assert ((got == down) | (got == up))[finite].all()
    assert 0.4 < (got == up)[finite & (down != NUMBERS)].mean() < 0.6
    np.testing.assert_array_equal(got[~finite], NUMBERS[~finite])


rounded = jax.jit(jax.vmap(lambda x, key: to_storage(x, "uint16", key=key), in_axes=(None, 0)))


@pytest.mark.parametrize("fraction", [1 / 512, 0.5, 0.9])
def test_stochastic_rounding_is_unbiased(fraction):
    spacing = 2.0**-7
    x = np.array([1.0, -1.0, 2.0**20, -(2.0**-126)], np.float32)
    x *= np.float32(1 + fraction * spacing)
    keys = jax.random.split(jax.random.key(2), 400)
    stored = rounded(jnp.tile(x, 101), keys)
    steps = np.asarray(from_storage(stored), np.float64).reshape(-1, 4) / x - 1
    error = steps.mean(0) * (1 + fraction * spacing) / spacing
    deviation = np.sqrt(fraction * (1 - fraction) / len(steps))
    assert (np.abs(error) < 4 * deviation).all(), error / deviation


def test_a_key_decides_the_rounding():
    x = jnp.linspace(0.0, 1.0, 999)
    one, same, other = (to_storage(x, "uint16", key=jax.random.key(s)) for s in (0, 0, 1))
    assert (one == same).all() and (one != other).any()
    np.testing.assert_array_equal(to_storage(x, "float32", key=jax.random.key(0)), x)


@pytest.mark.parametrize(
    "dtype, shape, ids_shape",
    [
        ("float32", (7,), (2, 0)),
        ("float16", (7,), (2, 3)),
        ("bfloat16", (7, 3), ()),
        ("uint16", (7, 3), (2, 3)),
    ],
)
def test_gather_rows(dtype, shape, ids_shape):
    rng = np.random.default_rng(0)
    table = to_storage(rng.normal(size=shape).astype(np.float32), dtype)
    dense = np.asarray(from_storage(table), np.float32)
    ids = rng.integers(-9, 16, ids_shape).astype(np.int32)
    rows = jax.jit(gather_rows)(table, ids)
    known = (ids >= 0) & (ids < 7)
    wanted = np.where(known.reshape(known.shape + (1,) * (len(shape) - 1)), dense[ids % 7], 0)
    assert rows.dtype == jnp.float32 and rows.shape == (*ids_shape, *shape[1:])
    np.testing.assert_array_equal(rows, wanted)
    if ids_shape:
        bags = jax.jit(gather_bags)(table, ids)
        np.testing.assert_allclose(bags, wanted.sum(len(ids_shape) - 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ids", [[[3, -1, 99], [3, 10, 11]], []])
def test_reading_ahead_in_a_large_table_changes_nothing(ids, monkeypatch):
    table = jnp.asarray(PATTERNS[:55].view(np.uint16)[:55].reshape(11, 5))
    ids = jnp.asarray(ids, jnp.int32)
    expected = np.asarray(gather_rows(table, ids))
    monkeypatch.setattr(storage, "_LARGE", 1)
    read_ahead = jax.jit(gather_rows)
    np.testing.assert_array_equal(read_ahead(table, ids), expected)
    np.testing.assert_array_equal(jax.vmap(gather_rows)(table[None], ids[None])[0], expected)
    lowered = {
        platform: read_ahead.trace(table, ids).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu", "cuda")
    }
    counts = {platform: text.count('"stablehlo.gather"(') for platform, text in lowered.items()}
    read = 1 if ids.size else 0
    assert counts == {"cpu": 3 * read, "tpu": read, "cuda": read}


def test_the_gradient_with_respect_to_a_table_goes_to_its_rows():
    gradient = jax.grad(lambda table: gather_rows(table, jnp.array([1, 1, -1])).sum())
    np.testing.assert_array_equal(gradient(jnp.ones((3, 2))), [[0, 0], [2, 2], [0, 0]])


@pytest.mark.parametrize("distribution, dtype", [("normal", "bfloat16"), ("uniform", "float32")])
def test_init_table_has_its_distribution(distribution, dtype):
    table = init_table(
        jax.random.key(0), 9_000, 8, dtype=dtype, scale=0.5, distribution=distribution
    )
    assert table.shape == (9_000, 8) and table.dtype == storage_dtype(dtype)
    values = np.asarray(from_storage(table), np.float64)
    deviation = 0.5 if distribution == "normal" else 0.5 / np.sqrt(3)
    assert abs(values.mean()) < 4 * deviation / np.sqrt(values.size)
    assert abs(values.std() / deviation - 1) < 4 / np.sqrt(2 * values.size)
    assert (np.abs(values).max() <= 0.5) == (distribution == "uniform")
    # No block repeats another: rows are as good as uncorrelated.
    assert len(np.unique(values, axis=0)) == 9_000


def test_init_table_scales_rows_to_norm_one():
    table = init_table(jax.random.key(0), 500, 64)
    assert abs(jnp.mean(jnp.sum(table**2, axis=1)) - 1) < 0.05
    traced = jax.jit(lambda scale: init_table(jax.random.key(0), 500, 64, scale=scale))(0.125)
    np.testing.assert_array_equal(traced, table)


def test_a_larger_table_begins_with_the_smaller_one():
    small, large = (init_table(jax.random.key(3), rows, 2) for rows in (5_000, 9_001))
    np.testing.assert_array_equal(large[:5_000], small)
    assert (large[:3] != init_table(jax.random.key(4), 3, 2)).all()


def test_init_table_holds_the_table_and_a_block():
    make = jax.jit(lambda key: init_table(key, 1_000_001, 16, dtype="bfloat16"))
    memory = make.lower(jax.random.key(0)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 10 * (4096 * 16 * 4) < memory.output_size_in_bytes / 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_storage(jnp.ones(2), "int8"), "a table must be .*got int8"),
        (lambda: to_storage(jnp.ones(2), "float16", key=jax.random.key(0)), "key must be None"),
        (lambda: gather_rows(jnp.ones((2, 2)), jnp.ones(2)), "ids must be integers.*float32"),
        (lambda: gather_rows(jnp.ones((2, 2), int), jnp.ones(2, int)), "a table must be"),
        (lambda: gather_rows(jnp.ones((2, 2, 2)), jnp.ones(2, int)), r"table must have shape"),
        (lambda: gather_bags(jnp.ones((2, 2)), jnp.int32(1)), "ids must have shape"),
        (lambda: init_table(jax.random.key(0), 0, 2), r"num_rows must be .*, got 0"),
        (lambda: init_table(jax.random.key(0), 2, 2, dtype="int32"), "a table must be"),
        (lambda: init_table(jax.random.key(0), 2, 2, distribution="x"), "distribution must be"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_id_of_no_row_reads_zeros():
    """Also one of 64 bits: 2³² + 1 is no row of this table."""
    table, ids = jnp.ones((3, 2)), np.array([2**32 + 1, 1, -(2**40), 3, -1, -(2**31)])
    np.testing.assert_array_equal(gather_rows(table, ids)[:, 0], [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(gather_bags(table, ids[None]), [[1, 1]])
