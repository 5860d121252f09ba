"""The exact losses: every implementation against the written-out formula in float64, option by option."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import tables
from jaxml.softmax import (
    blockwise_softmax_loss,
    blockwise_softmax_update,
    full_softmax_loss,
    top_k,
)

C, D = 23, 7
OPTIONS = {
    "temperature": dict(temperature=0.6),
    "smoothing": dict(label_smoothing=0.1),
    "z loss": dict(z_loss=0.3),
    "softcap": dict(softcap=1.5),
    "all": dict(temperature=0.8, label_smoothing=0.2, z_loss=0.1, softcap=2.0),
}


def in_blocks(*arguments, **options):
    return blockwise_softmax_loss(*arguments, block_size=5, **options)


LOSSES = {"full": full_softmax_loss, "blockwise": in_blocks}
each = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def problem(batch=(6,), num_true=None, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shape = batch if num_true is None else (*batch, num_true)
    return dict(
        inputs=rng.normal(size=(*batch, D)).astype(dtype),
        labels=rng.integers(0, C, shape),
        weights=rng.normal(size=(C, D)).astype(dtype),
        biases=rng.normal(size=C).astype(np.float32),
        cotangent=rng.normal(size=batch).astype(np.float32),
    )


def arguments(data):
    return [data[name] for name in ("inputs", "labels", "weights", "biases")]


def reference(x, labels, w, b, where=None, **options):
    """The definition in the docstring of `exact`, in any precision, for finite biases."""
    z = (jnp.asarray(x) @ jnp.asarray(w).T + jnp.reshape(b, (1,) * (np.ndim(x) - 1) + (-1,))) / (
        options.get("temperature", 1.0)
    )
    if "softcap" in options:
        z = options["softcap"] * jnp.tanh(z / options["softcap"])
    labels = labels if labels.ndim == z.ndim else labels[..., None]
    present = jnp.ones(labels.shape, bool) if where is None else jnp.reshape(where, labels.shape)
    count = present.sum(-1, keepdims=True)
    classes = jnp.arange(C).reshape((1,) * labels.ndim + (C,))
    one_hot = (jnp.asarray(labels)[..., None] == classes) & present[..., None]
    eps = options.get("label_smoothing", 0.0)
    target = (1 - eps) * one_hot.sum(-2) / jnp.maximum(count, 1)
    target += eps / C
    log_partition = jax.nn.logsumexp(z, axis=-1)
    below = jnp.where(target > 0, log_partition[..., None] - z, 0.0)
    losses = (target * below).sum(-1) + options.get("z_loss", 0.0) * log_partition**2
    return jnp.where(count[..., 0] > 0, losses, 0.0)


@functools.cache
def gradient_of(loss):
    """Returns losses, and the gradients of Σ cotangent · loss by inputs, weights and biases; compiled."""

    def total(x, w, b, cotangent, labels, where, options):
        losses = loss(x, labels, w, b, where=where, **options)
        return (losses * cotangent).sum(), losses

    return jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))


def in_float32(loss, data, where=None, **options):
    arrays = [jnp.asarray(data[k]) for k in ("inputs", "weights", "biases", "cotangent")]
    gradients, losses = gradient_of(loss)(*arrays, data["labels"], where, options)
    return losses, gradients


def in_float64(data, options, where=None):
    with jax.enable_x64(True):
        wide = [np.asarray(data[k], np.float64) for k in ("inputs", "weights", "biases")]
        cotangent = np.float64(data["cotangent"])
        gradients, losses = gradient_of(reference)(*wide, cotangent, data["labels"], where, options)
        return jax.tree.map(np.asarray, (losses, gradients))


def assert_close(got, expected, rtol=2e-5, atol=2e-5):
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=rtol, atol=atol), got, expected)


def traced(options):
    """All options as arrays, so that one program serves for all values."""
    neutral = dict(temperature=1.0, label_smoothing=0.0, z_loss=0.0)
    return {name: jnp.float32(value) for name, value in (neutral | options).items()}


@each
def test_value_and_gradients_of_every_option(loss):
    data = problem()
    assert_close(in_float32(loss, data), in_float64(data, {}))
    for option in map(traced, OPTIONS.values()):
        assert_close(in_float32(loss, data, **option), in_float64(data, option))


@pytest.mark.parametrize("block_size", [1, 23])
def test_blocks_of_one_class_and_of_all(block_size):
    data = problem()
    loss = functools.partial(blockwise_softmax_loss, block_size=block_size, **OPTIONS["all"])
    assert_close(in_float32(loss, data), in_float64(data, OPTIONS["all"]))


@each
@pytest.mark.parametrize("batch, num_true, masked", [((), 1, False), ((2, 3), 11, True)])
def test_any_batch_and_any_number_of_labels(loss, batch, num_true, masked):
    data = problem(batch, num_true)
    where = np.random.default_rng(1).random(data["labels"].shape) < 0.5 if masked else None
    if masked:
        where[0, 0] = False
        data["labels"] = np.where(where, data["labels"], -5)
    options = dict(label_smoothing=0.1, z_loss=0.1)
    got = in_float32(loss, data, where=where, **options)
    assert_close(got, in_float64(data, options, where))


@each
def test_reductions_count_the_examples_that_have_a_label(loss):
    data = problem((2, 3))

    @jax.jit
    def reduced(where):
        kinds = ("none", "sum", "mean")
        return [loss(*arguments(data), where=where, reduction=kind) for kind in kinds]

    losses, total, mean = reduced(np.array([[1, 1, 0], [1, 0, 1]], bool))
    np.testing.assert_allclose(total, losses.sum(), rtol=1e-6)
    np.testing.assert_allclose(mean, losses.sum() / 4, rtol=1e-6)
    assert reduced(np.zeros((2, 3), bool))[2] == 0


@each
def test_the_temperature_has_a_gradient(loss):
    data = problem()
    data["biases"][3] = -np.inf
    data["labels"] = data["labels"] % 3

    @jax.jit
    def mean(temperature):
        return loss(*arguments(data), temperature=temperature, reduction="mean")

    slope = jax.jit(jax.grad(mean))(0.7)
    differences = (mean(0.7 + 1e-2) - mean(0.7 - 1e-2)) / 2e-2
    np.testing.assert_allclose(slope, differences, rtol=1e-2)


@each
def test_a_bias_of_minus_infinity_removes_a_class(loss):
    data, kept = problem(), np.arange(C) % 3 > 0
    data["labels"] = np.flatnonzero(kept)[data["labels"] % kept.sum()]
    options = traced(dict(softcap=1.0, label_smoothing=0.3, z_loss=0.1))
    removed = dict(data, biases=np.where(kept, data["biases"], -np.inf).astype(np.float32))
    fewer = dict(
        data,
        labels=np.cumsum(kept)[data["labels"]] - 1,
        weights=data["weights"][kept],
        biases=data["biases"][kept],
    )
    losses, gradients = in_float32(loss, removed, **options)
    wanted, wanted_gradients = in_float32(full_softmax_loss, fewer, **options)
    assert_close(losses, wanted)
    assert_close(gradients[0], wanted_gradients[0])
    for got, want in zip(gradients[1:], wanted_gradients[1:], strict=True):
        assert_close(got[kept], want)
        assert not np.any(got[~kept])
    losses, _ = in_float32(loss, dict(removed, labels=np.zeros(6, int)), **options)
    assert (losses == np.inf).all()


@each
def test_large_logits_keep_the_digits_of_their_loss(loss):
    loss = jax.jit(loss)
    for size in (1e4, -1e4):
        inputs, weights = np.ones((2, 1), np.float32), size * np.ones((5, 1), np.float32)
        weights[2] += 1
        losses = loss(inputs, np.array([1, 2]), weights)
        np.testing.assert_allclose(losses, [np.log(4 + np.e), np.log(4 + np.e) - 1], rtol=1e-3)
    # Logits 10,000 and 9,990: the loss is log(1 + exp(-10)).
    small = loss(jnp.float32([[1e4]]), np.array([0]), jnp.float32([[1.0], [0.999]]))
    np.testing.assert_allclose(small, np.log1p(np.exp(-10.0)), atol=1e-7)
    # At a common offset label smoothing subtracts a mean logit: log 2 for two equal logits.
    two = np.full((2, 1), 1e6, np.float32)
    smoothed = loss(np.ones((1, 1), np.float32), np.array([0]), two, label_smoothing=0.1)
    np.testing.assert_allclose(smoothed, np.log(2), rtol=1e-6)


def test_bfloat16_keeps_float32_carries():
    data = problem(dtype=jnp.bfloat16)
    got, gradients = in_float32(in_blocks, data)
    expected, expected_gradients = in_float64(data, {})
    assert got.dtype == jnp.float32
    # The products of bfloat16 numbers are exact in float32: only the order of sums differs.
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    assert_close([g.astype(np.float32) for g in gradients], list(expected_gradients), 2e-2, 2e-2)


@each
def test_the_best_classes_come_with_the_loss(loss):
    data = problem((2, 3))
    run = jax.jit(lambda: (loss(*arguments(data), top_k=7), loss(*arguments(data))))
    (losses, (scores, ids)), alone = run()
    wanted_scores, wanted = top_k(data["inputs"], data["weights"], data["biases"], k=7)
    np.testing.assert_array_equal(ids, wanted)
    np.testing.assert_allclose(scores, wanted_scores, rtol=1e-6)
    np.testing.assert_allclose(losses, alone, rtol=1e-6)


def test_the_best_classes_cost_no_second_sweep():
    data = problem()

    def loops(**options):
        def run(*a):
            return blockwise_softmax_loss(*a, block_size=5, **options)

        return jax.jit(run).lower(*arguments(data)).as_text().count("stablehlo.while")

    assert loops() == loops(top_k=3)


# --- in the memory of one block -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["loss", "update"])
def test_no_array_of_all_logits_exists(form, largest_array):
    """In the compiled program, in one piece or in stacked blocks, forward or backward."""
    batch, num_classes, block = 64, 4096 + 50, 128
    x, table, b = jnp.zeros((batch, 4)), jnp.zeros((num_classes, 4)), jnp.zeros(num_classes)
    y = jnp.zeros(batch, jnp.int32)
    options = dict(block_size=block, label_smoothing=0.1, z_loss=0.1)

    def total(x, w, b):
        return blockwise_softmax_loss(x, y, w, b, top_k=2, **options)[0].sum()

    def update(x, w, b):
        return blockwise_softmax_update(x, y, w, {}, tables.sgd(0.1).rule, biases=b, **options)

    step = jax.value_and_grad(total, (0, 1, 2)) if form == "loss" else update
    compiled = jax.jit(step).lower(x, table, b).compile()
    assert largest_array(compiled) < batch * num_classes / 4


@pytest.mark.optimized
@pytest.mark.parametrize("dtype", ["float32", pytest.param("uint16", marks=pytest.mark.slow)])
def test_an_update_is_in_place_under_donation(dtype):
    batch, num_classes, dim, block = 16, 2**16, 8, 64
    optimizer = tables.adagrad(0.1)
    table = jax.ShapeDtypeStruct((num_classes, dim), jnp.dtype(dtype))
    x, y = jnp.zeros((batch, dim)), jnp.zeros(batch, jnp.int32)

    def step(table, state, x):
        return blockwise_softmax_update(x, y, table, state, optimizer.rule, block_size=block)

    state = jax.eval_shape(optimizer.init, table)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(table, state, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 8 * block * (batch + 3 * dim)


@pytest.mark.parametrize(
    "optimizer, block_size",
    [(tables.sgd(0.1), None), (tables.adam(0.1), 4)],
    ids=["sgd", "adam"],
)
def test_the_update_is_the_rule_on_the_gradient_of_the_mean(optimizer, block_size):
    data = problem((2, 3))
    x, y, w, b = map(jnp.asarray, arguments(data))
    state = optimizer.init(w)
    where = np.array([[1, 1, 0], [1, 0, 1]], bool)
    options = dict(where=where, label_smoothing=0.1, softcap=3.0)
    expected_table, expected_state, table = w, state, w

    @jax.jit
    def update(table, state):
        return blockwise_softmax_update(
            x, y, table, state, optimizer.rule, biases=b, block_size=block_size, **options
        )

    @jax.jit
    def expected(table, state):
        losses = full_softmax_loss(x, y, table, b, **options)
        mean = lambda x, w: full_softmax_loss(x, y, w, b, reduction="mean", **options)  # noqa: E731
        d_x, gradient = jax.grad(mean, (0, 1))(x, table)
        return losses, d_x, *optimizer.rule(table, state, gradient)

    for _ in range(2):
        *wanted, expected_table, expected_state = expected(expected_table, expected_state)
        *got, table, state = update(table, state)
        assert_close(got, wanted)
        assert_close(table, expected_table, 1e-4, 1e-4)
        assert_close(state, expected_state, 1e-3, 1e-5)


def test_an_update_that_is_not_finite_changes_no_bit():
    data = problem()
    w, optimizer = jnp.asarray(data["weights"]), tables.adam(0.1)
    state = jax.tree.map(lambda slot: slot + 1, optimizer.init(w))

    @jax.jit
    def update(x, y):
        return blockwise_softmax_update(x, y, w, state, optimizer.rule, block_size=4)

    labels = jnp.asarray(data["labels"])
    for broken in (np.nan, np.inf):
        x = jnp.asarray(data["inputs"]).at[2, 3].set(broken)
        _, d_inputs, table, after = update(x, labels)
        np.testing.assert_array_equal(table, w)
        jax.tree.map(np.testing.assert_array_equal, after, state)
        np.testing.assert_array_equal(d_inputs, 0)
    losses, _, table, _ = update(data["inputs"], labels.at[0].set(C))
    assert np.isnan(losses[0])
    np.testing.assert_array_equal(table, w)


def test_a_table_of_bfloat16_bits_is_a_table_of_bfloat16():
    data = problem()
    bits = tables.to_storage(data["weights"], "uint16")
    numbers = tables.from_storage(bits).astype(jnp.float32)

    @jax.jit
    def update(table):
        return blockwise_softmax_update(
            data["inputs"], data["labels"], table, {}, tables.sgd(0.5).rule, block_size=4
        )

    losses, d_inputs, table, _ = update(bits)
    expected = update(numbers)
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5)
    assert_close(d_inputs, expected[1], 1e-2, 1e-3)
    got = np.asarray(tables.from_storage(table).astype(jnp.float32))
    np.testing.assert_allclose(got, expected[2], rtol=1e-2, atol=1e-2)
    assert table.dtype == jnp.uint16 and (np.asarray(table) != np.asarray(bits)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(block_size=0), "block_size must be an integer of at least 1, got 0"),
        (dict(label_smoothing=1.5), r"label_smoothing must be .* in \[0, 1\], got 1.5"),
        (dict(label_smoothing=np.ones(2)), r"label_smoothing must be a scalar, got shape \(2,\)"),
        (dict(z_loss=-1), "z_loss must be .* at least 0, got -1"),
        (dict(softcap=0.0), "softcap must be .* above 0, got 0"),
        (dict(temperature=0.0), "temperature must be .* above 0, got 0"),
        (dict(reduction="men"), "reduction must be one of .* got 'men'"),
        (dict(top_k=24), r"top_k must be .* in \[1, 23\], got 24"),
    ],
)
def test_refuses(options, message):
    data = problem()
    for loss in LOSSES.values() if "block_size" not in options else [blockwise_softmax_loss]:
        with pytest.raises(ValueError, match=message):
            loss(data["inputs"], data["labels"], data["weights"], **options)


def test_refuses_a_state_that_is_not_the_tables():
    data = problem()
    with pytest.raises(ValueError, match=r"state\['m'\] must have 23 rows"):
        blockwise_softmax_update(
            data["inputs"], data["labels"], data["weights"], {"m": jnp.zeros(5)}, lambda *a: a[:2]
        )


@each
@pytest.mark.parametrize("offset", [1e6, -1e6, 1e20, 3e38])
def test_a_common_offset_costs_no_digits(loss, offset):
    """Of two equal logits, with smoothing; their squares may be infinite where there is no z-loss."""
    biases = jnp.full(2, offset, jnp.float32)
    found = loss(
        jnp.ones((1, 1)), jnp.array([0]), jnp.zeros((2, 1)), biases, label_smoothing=0.1, top_k=None
    )
    np.testing.assert_allclose(found, [np.log(2)], rtol=1e-6)


@each
def test_options_at_a_score_of_infinity(loss):
    """As in `losses.softmax_cross_entropy`: other classes have a share of smoothed labels."""
    x, w, far = jnp.ones((2, 1)), jnp.zeros((7, 1)), np.inf
    certain = jnp.zeros(7).at[3].set(far)
    alone = jnp.full(7, -far).at[3].set(far)
    for options, biases, wanted in (
        (dict(label_smoothing=0.1), certain, [far, far]),
        (dict(label_smoothing=0.1), alone, [0, far]),
        (dict(z_loss=0.1), certain, [far, far]),
        (dict(temperature=0.5), certain, [0, far]),
        (dict(softcap=2.0), alone, [0, far]),
    ):
        found = loss(x, np.array([3, 6]), w, biases, **options)
        np.testing.assert_array_equal(found, wanted, err_msg=str(options))


@each
def test_the_temperature_keeps_its_digits_at_a_common_offset(loss):
    biases = np.float32(1e4 + np.random.default_rng(0).normal(size=50))

    def of(temperature):
        options = dict(temperature=temperature, label_smoothing=0.1)
        return loss(jnp.ones((1, 1)), np.array([3]), jnp.zeros((50, 1)), biases, **options)[0]

    u = (biases - biases.mean(dtype=float)) / 0.7
    p = np.exp(u) / np.exp(u).sum()
    wanted = -((p - 0.9 * (np.arange(50) == 3) - 0.1 / 50) * u).sum() / 0.7
    np.testing.assert_allclose(jax.jit(jax.grad(of))(0.7), wanted, rtol=3e-3)
