"""Row optimizers against their equations in float64, and what the compiled program holds."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.tables import (
    RowGradient,
    adagrad,
    adam,
    coalesce,
    from_storage,
    optimizers,
    rowwise_adagrad,
    sgd,
    to_storage,
)

OPTIMIZERS = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rowwise_adagrad": rowwise_adagrad,
    "adam": adam,
}
coalesce_jit = jax.jit(coalesce)
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
LEARNING_RATE = 0.1


@pytest.fixture
def passes_of_8(monkeypatch):
    """Gradients of a few entries take the way of large ones: several passes over their slots."""
    monkeypatch.setattr(optimizers, "_BLOCK", 8)


def compiled_update(name):
    """One program for all tables and gradients of one shape."""
    return _compiled_update(name, optimizers._BLOCK)


@functools.cache
def _compiled_update(name, block):
    update = OPTIMIZERS[name](LEARNING_RATE).update
    return jax.jit(lambda table, state, gradient: update(gradient, state, table))


def random_gradient(rng, num_rows, dim, size, low=0, high=None):
    shape = (size,) if dim is None else (size, dim)
    ids = rng.integers(low, num_rows if high is None else high, size)
    return RowGradient(
        jnp.asarray(ids, jnp.int32), jnp.asarray(rng.normal(size=shape), jnp.float32)
    )


def bits(array):
    array = np.asarray(array)
    return array.view({2: np.uint16, 4: np.uint32}[array.dtype.itemsize])


def assert_same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(bits(a), bits(b))


class Reference:
    """One row at a time, in float64, from the equations in the docstrings."""

    def __init__(self, name, table):
        self.name = name
        self.table = np.asarray(table, np.float64)
        self.rows = [None] * len(self.table)

    def update(self, gradient):
        sums = {}
        for row, value in zip(np.asarray(gradient.ids), np.asarray(gradient.values), strict=True):
            if 0 <= row < len(self.table):
                sums[row] = sums.get(row, 0.0) + value.astype(np.float64)
        for row, value in sums.items():
            self.table[row] -= LEARNING_RATE * self.direction(row, value)

    def direction(self, row, g):
        if self.name == "sgd":
            return g
        if self.name == "adagrad":
            self.rows[row] = (0.1 if self.rows[row] is None else self.rows[row]) + g**2
            return g / np.sqrt(self.rows[row] + 1e-7)
        if self.name == "rowwise_adagrad":
            self.rows[row] = (0.0 if self.rows[row] is None else self.rows[row]) + np.mean(g**2)
            return g / (np.sqrt(self.rows[row]) + 1e-8)
        m, v, n = (0.0, 0.0, 0) if self.rows[row] is None else self.rows[row]
        m, v, n = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2, n + 1
        self.rows[row] = m, v, n
        return m / (1 - 0.9**n) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)


@pytest.mark.parametrize(
    "name, dim, block",
    [*((name, 3, 8) for name in OPTIMIZERS), ("adam", 3, 4096), ("adam", None, 8)],
)
def test_sparse_steps_with_duplicates_and_empty_entries(name, dim, block, monkeypatch):
    monkeypatch.setattr(optimizers, "_BLOCK", block)
    rng = np.random.default_rng(1)
    table = jnp.asarray(rng.normal(size=(30,) if dim is None else (30, dim)), jnp.float32)
    optimizer, reference = OPTIMIZERS[name](LEARNING_RATE), Reference(name, table)
    update, state = compiled_update(name), optimizer.init(table)
    for step in range(40):
        # Some rows are met at every step, others rarely; one step in eight meets none.
        low, high = (-20, 0) if step % 8 == 5 else (-10, 12 if step % 4 else 40)
        gradient = random_gradient(rng, 30, dim, 20, low, high)
        table, state = update(table, state, gradient)
        reference.update(gradient)
    np.testing.assert_allclose(table, reference.table, rtol=2e-5, atol=2e-5)


@every_optimizer
def test_the_first_step_of_a_small_gradient(name, passes_of_8):
    """There eps counts."""
    table = jnp.zeros((12, 4))
    optimizer, reference = OPTIMIZERS[name](LEARNING_RATE), Reference(name, table)
    gradient = random_gradient(np.random.default_rng(6), 12, 4, 20)
    ids = jnp.where(jnp.arange(20) < 12, jnp.arange(20), -1)
    gradient = RowGradient(ids, 1e-5 * gradient.values)
    table, _ = compiled_update(name)(table, optimizer.init(table), gradient)
    reference.update(gradient)
    np.testing.assert_allclose(table, reference.table, rtol=2e-5)


@every_optimizer
def test_untouched_rows_and_slots_keep_every_bit(name, passes_of_8):
    rng = np.random.default_rng(2)
    patterns = rng.integers(0, 2**32, (40, 3), dtype=np.uint32)  # NaN and subnormals among them
    patterns[:20] = rng.normal(size=(20, 3)).astype(np.float32).view(np.uint32)
    table = jnp.asarray(patterns.view(np.float32))
    optimizer = OPTIMIZERS[name](LEARNING_RATE)
    state = optimizer.init(table)
    noise = lambda leaf: jnp.asarray(rng.integers(1, 9, leaf.shape), leaf.dtype)  # noqa: E731
    state = jax.tree.map(noise, state)
    gradient = random_gradient(rng, 40, 3, 30, -5, 20)
    touched = np.unique(gradient.ids[gradient.ids >= 0])
    untouched = np.setdiff1d(np.arange(40), touched)
    new_table, new_state = compiled_update(name)(table, state, gradient)
    assert_same_bits(new_table[untouched], table[untouched])
    for slot in state:
        assert_same_bits(new_state[slot][untouched], state[slot][untouched])
    assert (np.asarray(new_table)[touched] != np.asarray(table)[touched]).any(axis=1).all()


@pytest.mark.parametrize(
    ("name", "dtype"), [("sgd", "float32"), ("rowwise_adagrad", "float32"), ("adam", "uint16")]
)
def test_a_refused_update_changes_no_bit(name, dtype, passes_of_8):
    rng = np.random.default_rng(3)
    table = to_storage(rng.normal(size=(12, 4)).astype(np.float32), dtype)
    optimizer = OPTIMIZERS[name](LEARNING_RATE)
    update, state = compiled_update(name), optimizer.init(table)
    gradient = random_gradient(rng, 12, 4, 20)
    table, state = update(table, state, gradient)
    nowhere = jnp.array([-1, -12, 12, 2**31 - 1, -(2**31)] * 4, jnp.int32)
    for entries in (gradient, coalesce_jit(gradient)):
        for ids in (jnp.full(20, -1), nowhere):
            refused = dataclasses.replace(entries, ids=ids, values=entries.values * jnp.nan)
            assert_same_bits(update(table, state, refused), (table, state))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_coalesced_gradient_gives_the_same(name, passes_of_8):
    rng = np.random.default_rng(4)
    optimizer = OPTIMIZERS[name](LEARNING_RATE)
    table = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32)
    update, state = compiled_update(name), optimizer.init(table)
    gradient = random_gradient(rng, 12, 4, 20, -5)
    direct = update(table, state, gradient)
    sums = coalesce_jit(gradient)
    assert_same_bits(update(table, state, sums), direct)
    # Some entries emptied afterwards, out of order with the rest: those rows stay, the others move.
    kept = jnp.arange(20) % 3 != 0
    partly, _ = update(table, state, dataclasses.replace(sums, ids=jnp.where(kept, sums.ids, -1)))
    stay = np.asarray(sums.ids[~kept & (sums.ids < 12)])
    assert len(stay) > 1
    assert_same_bits(partly[stay], table[stay])
    others = np.setdiff1d(np.arange(12), stay)
    assert_same_bits(partly[others], direct[0][others])


@pytest.mark.parametrize("name", ["adagrad", "rowwise_adagrad", "adam"])
def test_extreme_gradients_give_no_nan(name, passes_of_8):
    values = np.zeros((20, 4), np.float32)
    values[1:5, :2] = [[1e-30, -1e-30], [1e-12, 0.0], [1e4, -1e4], [1e15, 1.0]]
    gradient = RowGradient(jnp.where(jnp.arange(20) < 5, jnp.arange(20), -1), jnp.asarray(values))
    table = jnp.ones((12, 4))
    update, state = compiled_update(name), OPTIMIZERS[name](LEARNING_RATE).init(table)
    for _ in range(3):
        table, state = update(table, state, gradient)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((table, state)))
    np.testing.assert_array_equal(table[0], 1.0)


@pytest.mark.parametrize(
    ("name", "rounding"),
    [("adam", None), ("sgd", 0)],
)
def test_bits_of_bfloat16_are_bfloat16(name, rounding):
    rng = np.random.default_rng(7)
    optimizer = OPTIMIZERS[name](LEARNING_RATE)
    update = jax.jit(
        lambda table, state, gradient, key: optimizer.update(gradient, state, table, key=key)
    )
    key = None if rounding is None else jax.random.key(rounding)
    native = jnp.asarray(rng.normal(size=(15, 4)), jnp.bfloat16)
    stored = to_storage(native, "uint16")
    native_state, stored_state = optimizer.init(native), optimizer.init(stored)
    for _ in range(3):
        gradient = random_gradient(rng, 15, 4, 20, -5)
        native, native_state = update(native, native_state, gradient, key)
        stored, stored_state = update(stored, stored_state, gradient, key)
    assert native.dtype == jnp.bfloat16 and stored.dtype == jnp.uint16
    assert_same_bits(from_storage(stored), native)
    assert_same_bits(stored_state, native_state)


@pytest.mark.parametrize(("name", "dtype"), [("adagrad", "bfloat16"), ("adam", "float16")])
def test_narrow_tables_are_rounded_once_after_float32_arithmetic(name, dtype, passes_of_8):
    rng = np.random.default_rng(8)
    optimizer = OPTIMIZERS[name](LEARNING_RATE)
    narrow = jnp.asarray(rng.normal(size=(12, 4)), dtype)
    wide = narrow.astype(jnp.float32)
    gradient = random_gradient(rng, 12, 4, 20)
    update = compiled_update(name)
    narrow, state = update(narrow, optimizer.init(narrow), gradient)
    wide, wide_state = update(wide, optimizer.init(wide), gradient)
    assert narrow.dtype == dtype
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(state))
    np.testing.assert_array_equal(narrow, wide.astype(dtype))
    assert_same_bits(state, wide_state)


def test_stochastic_rounding_keeps_small_updates_on_average():
    """Steps of 1/16 of the spacing: rounding to nearest loses all, stochastic rounding none."""
    rows, steps = 4000, 8
    table = to_storage(jnp.ones((rows, 1)), "uint16")
    gradient = RowGradient(jnp.arange(rows), jnp.full((rows, 1), -(2.0**-7) / 16))
    update = jax.jit(lambda table, key: sgd(1.0).update(gradient, {}, table, key=key)[0])
    assert_same_bits(update(table, None), table)
    for step in range(steps):
        table = update(table, jax.random.fold_in(jax.random.key(0), step))
    moved = (np.asarray(from_storage(table), np.float64) - 1) / 2.0**-7
    assert abs(moved.mean() - steps / 16) < 4 * np.sqrt(steps / 16 / rows)
    assert len(np.unique(moved)) > 2


def test_vmap_equals_a_loop(passes_of_8):
    rng = np.random.default_rng(9)
    tables = jnp.asarray(rng.normal(size=(3, 30, 4)), jnp.float32)
    ids = jnp.asarray(rng.integers(-9, 30, (3, 20)), jnp.int32)
    ids = ids.at[1].set(-1)  # a member that refuses, beside others that do not
    values = jnp.asarray(rng.normal(size=(3, 20, 4)), jnp.float32)

    def update(rate, table, state, gradient):
        return adam(rate).update(gradient, state, table)

    states = jax.vmap(adam(0.0).init)(tables)
    members = jnp.array([0.1, 0.2, 0.3]), tables, states, RowGradient(ids, values)
    together, compiled = jax.jit(jax.vmap(update))(*members), jax.jit(update)
    for member in range(3):
        mine, arguments = jax.tree.map(lambda leaf, i=member: leaf[i], (together, members))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
            mine,
            compiled(*arguments),
        )
        if member == 1:
            assert_same_bits(mine, arguments[1:3])


@every_optimizer
def test_the_rule_is_what_an_update_does_to_a_row(name, passes_of_8):
    """Applied to the table, as an exact softmax does, it equals one update of all rows."""
    rng = np.random.default_rng(10)
    optimizer = OPTIMIZERS[name](LEARNING_RATE)
    table = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32)
    state = optimizer.init(table)
    by_rule = table, state
    update, rule = compiled_update(name), jax.jit(optimizer.rule)
    for _ in range(3):
        values = jnp.asarray(rng.normal(size=(20, 4)), jnp.float32)
        ids = jnp.where(jnp.arange(20) < 12, jnp.arange(20), -1)
        table, state = update(table, state, RowGradient(ids, values))
        by_rule = rule(*by_rule, values[:12])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        (table, state),
        by_rule,
    )


NUM_ROWS, DIM = 500_021, 32  # a number that nothing else in the program has


def table_sized_operations(compiled):
    """Opcodes that produce an array with one entry a table row, or more."""
    text = compiled.as_text()
    return set(re.findall(rf" = \w+\[{NUM_ROWS}[,\d]*\][^ ]* ([\w-]+)\(", text))


def compile_update(name, dtype, size, *, coalesced=False, members=None, bare=False):
    """A step from (table, state) to (table, state), or the bare update, which swaps them."""
    optimizer = OPTIMIZERS[name](LEARNING_RATE)

    def update(table, state, gradient):
        return optimizer.update(gradient, state, table)

    table = jax.ShapeDtypeStruct((NUM_ROWS, DIM), dtype)
    gradient = RowGradient(
        jax.ShapeDtypeStruct((size,), jnp.int32),
        jax.ShapeDtypeStruct((size, DIM), jnp.float32),
        coalesced=coalesced,
    )
    arguments = (table, jax.eval_shape(optimizer.init, table), gradient)
    if bare:
        compiled = jax.jit(optimizer.update, donate_argnums=(1, 2))
        return compiled.lower(gradient, arguments[1], table).compile()
    if members:
        update = jax.vmap(update)
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), arguments
        )
    return jax.jit(update, donate_argnums=(0, 1)).lower(*arguments).compile()


@pytest.mark.parametrize(
    ("name", "dtype", "size", "coalesced"),
    [
        *((name, "float32", 300, False) for name in OPTIMIZERS),
        ("adam", "uint16", 5000, True),
    ],
)
def test_the_compiled_update_is_in_place(name, dtype, size, coalesced):
    compiled = compile_update(name, dtype, size, coalesced=coalesced)
    in_place = {"parameter", "scatter", "fusion", "get-tuple-element"}
    assert table_sized_operations(compiled) <= in_place
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 7 * size * DIM * 4 < NUM_ROWS * DIM
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 200


def test_the_bare_update_is_in_place_too():
    """Though state and table change places between its arguments and its results."""
    compiled = compile_update("adam", "float32", 300, bare=True)
    assert "copy" not in table_sized_operations(compiled)
    assert compiled.memory_analysis().temp_size_in_bytes < NUM_ROWS * DIM


def test_members_of_an_ensemble_are_updated_in_place():
    compiled = compile_update("adam", "float32", 5000, members=3)
    text = compiled.as_text()
    sized = set(re.findall(rf" = \w+\[3,{NUM_ROWS}[,\d]*\][^ ]* ([\w-]+)\(", text))
    assert sized <= {"parameter", "scatter", "fusion", "get-tuple-element", "bitcast"}
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * NUM_ROWS * DIM


def test_it_lowers_for_accelerators():
    name = "adam"
    optimizer = OPTIMIZERS[name](LEARNING_RATE)

    def update(table, state, ids, values, key):
        return optimizer.update(RowGradient(ids, values), state, table, key=key)

    table = jax.ShapeDtypeStruct((NUM_ROWS, DIM), jnp.bfloat16)
    exported = jax.export.export(jax.jit(update, donate_argnums=(0, 1)), platforms=("tpu", "cuda"))(
        table,
        jax.eval_shape(optimizer.init, table),
        jax.ShapeDtypeStruct((5000,), jnp.int32),
        jax.ShapeDtypeStruct((5000, DIM), jnp.float32),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    assert exported.platforms == ("tpu", "cuda")
    assert exported.out_avals[0].dtype == jnp.bfloat16


def a_table(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("table", "ids", "values", "message"),
    [
        (a_table(9, 2), (3,), (3, 4), r"values must have rows of shape \(2,\).*\(3, 4\).*\(9, 2\)"),
        (a_table(9), (3,), (3, 1), r"values must have rows of shape \(\)"),
        (a_table(9, 2, 2), (3,), (3, 2), r"table must have shape .*\(9, 2, 2\)"),
        (a_table(9, 2, dtype=jnp.int32), (3,), (3, 2), "a table must be float32.*got int32"),
    ],
)
def test_refuses(table, ids, values, message):
    gradient = RowGradient(jnp.zeros(ids, jnp.int32), jnp.zeros(values))
    with pytest.raises(ValueError, match=message):
        sgd(0.1).update(gradient, {}, table)


def test_refuses_the_state_of_another_table_and_ids_that_are_no_integers():
    gradient = RowGradient(jnp.zeros(3, jnp.int32), jnp.zeros((3, 2)))
    state = adagrad(0.1).init(a_table(8, 2))
    with pytest.raises(ValueError, match=r"state\['accumulator'\] must have shape \(9, 1, 2\)"):
        adagrad(0.1).update(gradient, state, a_table(9, 2))
    with pytest.raises(ValueError, match="ids must be integers, got dtype float32"):
        sgd(0.1).update(RowGradient(jnp.zeros(3), gradient.values), {}, a_table(9, 2))
    for optimizer in OPTIMIZERS.values():
        with pytest.raises(ValueError, match="a table must be float32"):
            optimizer(0.1).init(a_table(9, 2, dtype=jnp.int8))


def test_refuses_more_rows_than_int32_can_tell_from_empty_slots():
    table = jax.ShapeDtypeStruct((2**31 - 100, 2), jnp.uint16)
    gradient = RowGradient(jnp.zeros(60, jnp.int32), jnp.zeros((60, 2)))
    with pytest.raises(ValueError, match=r"fewer than 2\*\*31.*2147483548 rows and K = 60"):
        jax.eval_shape(lambda t: sgd(0.1).update(gradient, {}, t), table)
