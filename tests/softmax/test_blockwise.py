"""Exact softmax by blocks against the written-out formula in float64, option by option."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import tables
from jaxml.softmax import (
    blockwise_softmax_loss,
    blockwise_softmax_mean_loss,
    blockwise_softmax_update,
    full_softmax_loss,
    top_k,
)

C, D = 23, 7


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


RNG = np.random.default_rng(7)
SOME = RNG.random(C) < 0.7
OPTIONS = {
    "plain": {},
    "temperature": dict(temperature=0.6),
    "smoothing": dict(label_smoothing=0.1),
    "z loss": dict(z_loss=0.3),
    "softcap": dict(softcap=1.5),
    "class weights": dict(class_weights=RNG.uniform(0, 2, C).astype(np.float32)),
    "class mask": dict(class_mask=SOME),
    "all": dict(
        temperature=0.8,
        label_smoothing=0.2,
        z_loss=0.1,
        softcap=2.0,
        class_weights=RNG.uniform(0, 2, C).astype(np.float32),
        class_mask=SOME,
    ),
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def reference(inputs, labels, weights, biases, where, options):
    """The loss of every example as the docstring has it, one array at a time, in whatever precision."""
    inputs, weights = jnp.asarray(inputs), jnp.asarray(weights)
    scores = inputs @ weights.T
    if biases is not None:
        scores += jnp.reshape(biases, (1,) * (scores.ndim - 1) + (-1,))
    z = scores / options.get("temperature", 1.0)
    if "softcap" in options:
        z = options["softcap"] * jnp.tanh(z / options["softcap"])
    mask = jnp.asarray(options.get("class_mask", np.ones(C, bool)))
    row = (1,) * (z.ndim - 1) + (C,)
    z = jnp.where(mask.reshape(row), z, -jnp.inf)
    labels = jnp.asarray(labels)
    labels = labels if labels.ndim == z.ndim else labels[..., None]
    present = jnp.ones(labels.shape, bool) if where is None else jnp.reshape(where, labels.shape)
    count = present.sum(-1, keepdims=True)
    one_hot = (labels[..., None] == jnp.arange(C).reshape((1,) * labels.ndim + (C,))) & present[
        ..., None
    ]
    eps = options.get("label_smoothing", 0.0)
    target = (1 - eps) * one_hot.sum(-2) / jnp.maximum(count, 1)
    target += eps * (mask / mask.sum()).reshape(row)
    target *= jnp.reshape(options.get("class_weights", np.ones(C)), row)
    log_partition = jax.nn.logsumexp(z, axis=-1)
    below = jnp.where(target > 0, log_partition[..., None] - z, 0.0)
    losses = (target * below).sum(-1) + options.get("z_loss", 0.0) * log_partition**2
    return jnp.where(count[..., 0] > 0, losses, 0.0)


def in_float64(data, options, where=None, with_biases=True):
    """Losses, and the gradients of Σ cotangent · loss with respect to inputs, weights and biases."""
    with jax.enable_x64(True):
        wide = {
            k: np.asarray(v, np.float64) for k, v in data.items() if k not in ("labels", "biases")
        }
        biases = np.asarray(data["biases"], np.float64) if with_biases else None

        def total(x, w, b):
            losses = reference(x, data["labels"], w, b, where, options)
            return (losses * wide["cotangent"]).sum(), losses

        arguments = (wide["inputs"], wide["weights"], biases)
        wanted = (0, 1, 2) if with_biases else (0, 1)
        gradients, losses = jax.grad(total, wanted, has_aux=True)(*arguments)
        return jax.tree.map(np.asarray, (losses, gradients))


def in_float32(loss, data, with_biases=True):
    def total(x, w, b):
        losses = loss(x, data["labels"], w, b)
        return (losses * data["cotangent"]).sum(), losses

    arguments = (data["inputs"], data["weights"], data["biases"] if with_biases else None)
    wanted = (0, 1, 2) if with_biases else (0, 1)
    gradients, losses = jax.jit(jax.grad(total, wanted, has_aux=True))(*arguments)
    return losses, gradients


def assert_close(got, expected, rtol=2e-5, atol=2e-5):
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=rtol, atol=atol), got, expected)


@each_option
@pytest.mark.parametrize("block_size", [1, 4, 22, 23, 100, None])
def test_value_and_gradients_of_every_option(options, block_size):
    data = problem()
    if "class_mask" in options:
        data["labels"] = np.flatnonzero(SOME)[data["labels"] % SOME.sum()]
    got = in_float32(
        lambda *args: blockwise_softmax_loss(*args, block_size=block_size, **options), data
    )
    assert_close(got, in_float64(data, options))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
@pytest.mark.parametrize("num_true", [None, 1, 4, 11])
@pytest.mark.parametrize("masked", [False, True])
def test_any_batch_and_any_number_of_labels(batch, num_true, masked):
    data = problem(batch, num_true)
    where = np.random.default_rng(1).random(data["labels"].shape) < 0.5 if masked else None
    if masked:
        data["labels"] = np.where(where, data["labels"], -5)
    options = dict(label_smoothing=0.1, z_loss=0.1)
    got = in_float32(
        lambda *args: blockwise_softmax_loss(*args, block_size=5, where=where, **options), data
    )
    assert_close(got, in_float64(data, options, where))


def test_without_biases():
    data = problem()
    got = in_float32(lambda *a: blockwise_softmax_loss(*a, block_size=5), data, with_biases=False)
    assert_close(got, in_float64(data, {}, with_biases=False))


def test_a_single_class_is_certain():
    losses = blockwise_softmax_loss(np.ones((3, D)), np.zeros(3, int), np.ones((1, D)))
    np.testing.assert_array_equal(losses, 0)


def test_is_the_full_softmax_when_no_option_is_used():
    data = problem((2, 3))
    arguments = [data[name] for name in ("inputs", "labels", "weights", "biases")]
    expected = full_softmax_loss(*arguments, temperature=0.7)
    got = blockwise_softmax_loss(*arguments, block_size=6, temperature=0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_the_temperature_has_a_gradient():
    data = problem()
    arguments = [data[name] for name in ("inputs", "labels", "weights", "biases")]
    for loss in (blockwise_softmax_loss, blockwise_softmax_mean_loss):
        kwargs = {} if loss is blockwise_softmax_loss else dict(tile_size=4)

        def of(temperature, loss=loss, kwargs=kwargs):
            return loss(*arguments, block_size=5, temperature=temperature, **kwargs).mean()

        expected = jax.grad(lambda t: full_softmax_loss(*arguments, temperature=t).mean())(0.7)
        np.testing.assert_allclose(jax.grad(of)(0.7), expected, rtol=1e-5)


@pytest.mark.parametrize("tile_size", [0, 1, 4, 6, 50, None])
@each_option
def test_the_mean_form(options, tile_size):
    data = problem()
    if "class_mask" in options:
        data["labels"] = np.flatnonzero(SOME)[data["labels"] % SOME.sum()]
    where = np.array([1, 1, 0, 1, 0, 1], bool)
    data["cotangent"] = where * np.float32(3 / 4)  # Three times the mean of four.
    losses, expected = in_float64(data, options, where)
    mean = losses[where].mean()
    arguments = [data[name] for name in ("inputs", "labels", "weights", "biases")]
    value = blockwise_softmax_mean_loss(*arguments, where=where, block_size=5, **options)
    np.testing.assert_allclose(value, mean, rtol=1e-5)

    def three_times(x, w, b):
        return 3 * blockwise_softmax_mean_loss(
            x, data["labels"], w, b, where=where, block_size=5, tile_size=tile_size, **options
        )

    value, gradients = jax.jit(jax.value_and_grad(three_times, (0, 1, 2)))(
        data["inputs"], data["weights"], data["biases"]
    )
    np.testing.assert_allclose(value, 3 * mean, rtol=1e-5)
    assert_close(gradients, expected)


def test_bfloat16_keeps_float32_carries():
    data = problem(dtype=jnp.bfloat16)
    got, gradients = in_float32(lambda *a: blockwise_softmax_loss(*a, block_size=4), data)
    expected, expected_gradients = in_float64(data, {})
    assert got.dtype == jnp.float32
    # The products of bfloat16 numbers are exact in float32: only the order of sums differs.
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    assert_close([g.astype(np.float32) for g in gradients], list(expected_gradients), 2e-2, 2e-2)


def test_nothing_to_learn_from_gives_zeros_whatever_the_inputs_hold():
    data = problem((3,), 2)
    data["inputs"][1] = np.nan
    where = np.array([[1, 0], [0, 0], [1, 1]], bool)
    losses, gradients = in_float32(
        lambda *a: blockwise_softmax_loss(*a, block_size=4, where=where, z_loss=0.1), data
    )
    assert losses[1] == 0 and np.isfinite(losses).all()
    np.testing.assert_array_equal(gradients[0][1], 0)
    assert all(np.isfinite(g).all() for g in gradients)
    none = np.zeros((3, 2), bool)
    _, gradients = in_float32(lambda *a: blockwise_softmax_loss(*a, where=none), data)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)
    assert blockwise_softmax_mean_loss(*list(data.values())[:4], where=none) == 0


def test_an_ignored_label_is_a_masked_one():
    data = problem()
    labels = data["labels"].copy()
    labels[[1, 4]] = -100
    got = blockwise_softmax_loss(
        data["inputs"], labels, data["weights"], ignore_label=-100, block_size=9
    )
    expected = np.array(blockwise_softmax_loss(data["inputs"], data["labels"], data["weights"]))
    expected[[1, 4]] = 0
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_logits_keep_their_loss(size):
    inputs, weights = np.array([[1.0]], np.float32), size * np.ones((5, 1), np.float32)
    weights[2] += 1
    losses = [blockwise_softmax_loss(inputs, [c], weights, block_size=2)[0] for c in (1, 2)]
    np.testing.assert_allclose(losses, [np.log(4 + np.e), np.log(4 + np.e) - 1], rtol=1e-3)


def test_classes_that_are_out_stay_out():
    """A bias of −inf, a mask, and a capped logit alike, in the value, the gradient and the smoothing."""
    data = problem()
    data["labels"] = np.flatnonzero(SOME)[data["labels"] % SOME.sum()]
    options = dict(softcap=1.0, label_smoothing=0.3, block_size=4)
    arguments = data["inputs"], data["labels"], data["weights"]
    masked = blockwise_softmax_loss(*arguments, data["biases"], class_mask=SOME, **options)
    absent = np.where(SOME, data["biases"], -np.inf).astype(np.float32)
    np.testing.assert_array_equal(blockwise_softmax_loss(*arguments, absent, **options), masked)
    gradient = jax.grad(lambda b: blockwise_softmax_loss(*arguments, b, **options).sum())(absent)
    np.testing.assert_array_equal(gradient[~SOME], 0)
    assert np.isfinite(gradient).all() and (np.abs(gradient[SOME]) > 0).all()
    out = np.flatnonzero(~SOME)[0]
    assert (
        blockwise_softmax_loss(data["inputs"][0], out, data["weights"], class_mask=SOME) == np.inf
    )


def test_by_products_cost_no_second_sweep():
    data = problem((2, 3))
    names = ("log_partition", "argmax", "top_k", "entropy")
    arguments = [data[name] for name in ("inputs", "labels", "weights", "biases")]
    run = jax.jit(lambda *a: blockwise_softmax_loss(*a, block_size=5, by_products=names, k=7))
    losses, found = run(*arguments)
    z = data["inputs"] @ data["weights"].T + data["biases"]
    p = np.asarray(jax.nn.softmax(z))
    np.testing.assert_allclose(losses, blockwise_softmax_loss(*arguments), rtol=1e-6)
    np.testing.assert_allclose(found["log_partition"], jax.nn.logsumexp(z, axis=-1), rtol=1e-6)
    np.testing.assert_allclose(found["entropy"], -(p * np.log(p)).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(found["argmax"], z.argmax(-1))
    scores, ids = top_k(data["inputs"], data["weights"], data["biases"], k=7)
    np.testing.assert_array_equal(found["top_k"][1], ids)
    np.testing.assert_allclose(found["top_k"][0], scores, rtol=1e-6)
    loops = lambda f: jax.jit(f).lower(*arguments).as_text().count("stablehlo.while")  # noqa: E731
    assert loops(run) == loops(lambda *a: blockwise_softmax_loss(*a, block_size=5))


def test_entropy_of_classes_that_are_out():
    mask = np.arange(C) % 5 == 0
    inputs, weights = np.zeros((2, D)), np.zeros((C, D))
    _, found = blockwise_softmax_loss(
        inputs, [0, 5], weights, class_mask=mask, block_size=3, by_products=("entropy",)
    )
    np.testing.assert_allclose(found["entropy"], np.log(mask.sum()), rtol=1e-6)


def test_the_log_partition_has_a_gradient():
    data = problem()
    x, y, w, b = (data[name] for name in ("inputs", "labels", "weights", "biases"))

    def of(w):
        extra = blockwise_softmax_loss(x, y, w, b, block_size=4, by_products=("log_partition",))[1]
        return (extra["log_partition"] * data["cotangent"]).sum()

    def expected(w):
        return (jax.nn.logsumexp(x @ w.T + b[None], axis=-1) * data["cotangent"]).sum()

    np.testing.assert_allclose(jax.grad(of)(w), jax.grad(expected)(w), rtol=1e-4, atol=1e-6)


def test_a_filtered_gradient_is_off_by_no_more_than_it_says():
    data = problem((40,), seed=3)
    data["weights"] *= 3
    threshold = 1e-3

    def loss(x, y, w, b, **options):
        return blockwise_softmax_loss(x, y, w, b, block_size=2, **options)

    losses, exact = in_float32(loss, data)
    same, filtered = in_float32(lambda *a: loss(*a, gradient_filter=threshold), data)
    np.testing.assert_array_equal(losses, same)
    left_out = np.abs(exact[1] - filtered[1])
    bound = threshold * np.abs(data["cotangent"]) @ np.abs(data["inputs"])
    assert (left_out <= bound + 1e-6).all()
    small = dict(data, labels=np.zeros(40, int), weights=np.zeros((C, D), np.float32))
    small["biases"] = np.where(np.arange(C) < 2, 20.0, 0.0).astype(np.float32)
    _, skipped = in_float32(lambda *a: loss(*a, gradient_filter=threshold), small)
    assert (np.asarray(skipped[1][2:]) == 0).all() and np.any(skipped[1][:2])


def test_vmap_is_a_loop():
    members = [problem(seed=seed) for seed in range(3)]
    stacked = {name: np.stack([m[name] for m in members]) for name in members[0]}

    def gradients(x, y, w, b):
        return jax.grad(lambda w: blockwise_softmax_loss(x, y, w, b, block_size=4).sum())(w)

    names = ("inputs", "labels", "weights", "biases")
    got = jax.vmap(gradients)(*(stacked[name] for name in names))
    expected = np.stack([gradients(*(m[name] for name in names)) for m in members])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["example", "mean", "update"])
def test_no_array_of_all_logits_exists(form):
    """In the compiled program, in one piece or in stacked blocks, forward or backward."""
    batch, num_classes, block = 64, 4096 + 50, 128
    x = jnp.zeros((batch, D))
    y = jnp.zeros(batch, jnp.int32)
    w = jnp.zeros((num_classes, D))
    if form == "update":
        rule = tables.sgd(0.1).rule
        f = jax.jit(
            lambda x, w: blockwise_softmax_update(x, y, w, {}, rule, block_size=block),
            donate_argnums=1,
        )
    elif form == "mean":
        f = jax.jit(
            jax.grad(
                lambda x, w: blockwise_softmax_mean_loss(x, y, w, block_size=block, tile_size=0),
                (0, 1),
            )
        )
    else:
        f = jax.jit(
            jax.grad(lambda x, w: blockwise_softmax_loss(x, y, w, block_size=block).sum(), (0, 1))
        )
    compiled = f.lower(x, w).compile()
    sizes = [
        np.prod([int(n) for n in dims.split(",")])
        for dims in re.findall(r"(?:f32|bf16|s32|pred)\[([\d,]+)\]", compiled.as_text())
    ]
    assert max(sizes) <= max(num_classes * D, batch * block)
    # Temporaries: a few blocks of logits, not the gradient of the table.
    assert compiled.memory_analysis().temp_size_in_bytes < 6 * 4 * batch * block


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_update_is_in_place(name, dtype):
    """No copy of the table or of a slot: blocks are all that is added to what was given."""
    optimizer = getattr(tables, name)(0.1)
    batch, num_classes, dim, block = 64, 40_050, 32, 256
    table = jax.eval_shape(
        lambda key: tables.init_table(key, num_classes, dim, dtype=dtype), jax.random.key(0)
    )
    x, y = jnp.zeros((batch, dim)), jnp.zeros(batch, jnp.int32)

    def step(table, state, x):
        return blockwise_softmax_update(x, y, table, state, optimizer.rule, block_size=block)

    state = jax.eval_shape(optimizer.init, table)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(table, state, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 8 * block * (batch + 3 * dim)


ROW_OPTIMIZERS = {
    "sgd": tables.sgd(0.1),
    "adagrad": tables.adagrad(0.1),
    "adam": tables.adam(0.1),
    "adam, catching up": tables.adam(0.1, catch_up=True),
    "row-wise adagrad": tables.rowwise_adagrad(0.1),
}


@pytest.mark.parametrize("optimizer", ROW_OPTIMIZERS.values(), ids=ROW_OPTIMIZERS)
@pytest.mark.parametrize("block_size", [4, 23, None])
def test_the_update_is_the_rule_on_the_gradient_of_the_mean(optimizer, block_size):
    data = problem((2, 3))
    x, y, w, b = (jnp.asarray(data[name]) for name in ("inputs", "labels", "weights", "biases"))
    state = optimizer.init(w)
    where = np.array([[1, 1, 0], [1, 0, 1]], bool)
    expected_table, expected_state = w, state
    table = w

    @jax.jit
    def update(table, state):
        return blockwise_softmax_update(
            x, y, table, state, optimizer.rule, biases=b, where=where, block_size=block_size
        )

    for _ in range(3):
        mean = lambda x, w: full_softmax_loss(x, y, w, b, where=where).sum() / 4  # noqa: E731
        expected_dx, gradient = jax.grad(mean, (0, 1))(x, expected_table)
        expected_losses = full_softmax_loss(x, y, expected_table, b, where=where)
        expected_table, expected_state = optimizer.rule(expected_table, expected_state, gradient)
        losses, d_inputs, table, state = update(table, state)
        assert_close((losses, d_inputs), (expected_losses, expected_dx))
        assert_close(table, expected_table, 1e-4, 1e-4)
        assert_close(state, expected_state, 1e-3, 1e-5)


def test_an_update_that_is_not_finite_changes_no_bit():
    data = problem()
    w = jnp.asarray(data["weights"])
    optimizer = tables.adam(0.1, catch_up=True)
    state = jax.tree.map(lambda slot: slot + 1, optimizer.init(w))
    for broken in (np.nan, np.inf):
        x = data["inputs"].copy()
        x[2, 3] = broken
        _, d_inputs, table, after = blockwise_softmax_update(
            x, data["labels"], w, state, optimizer.rule, block_size=4
        )
        np.testing.assert_array_equal(table, w)
        jax.tree.map(np.testing.assert_array_equal, after, state)
        np.testing.assert_array_equal(d_inputs, 0)
    labels = jnp.asarray(data["labels"]).at[0].set(C)
    run = jax.jit(
        lambda y: blockwise_softmax_update(data["inputs"], y, w, {}, tables.sgd(1.0).rule)
    )
    losses, _, table, _ = run(labels)
    assert np.isnan(losses[0])
    np.testing.assert_array_equal(table, w)


def test_rows_are_clipped_one_by_one():
    data = problem()
    x, y, w = (jnp.asarray(data[name]) for name in ("inputs", "labels", "weights"))
    gradient = jax.grad(lambda w: full_softmax_loss(x, y, w).mean())(w)
    norms = jnp.linalg.norm(gradient, axis=1, keepdims=True)
    limit = float(jnp.median(norms))
    clipped = gradient * jnp.minimum(1.0, limit / norms)
    _, _, table, _ = blockwise_softmax_update(
        x, y, w, {}, tables.sgd(1.0).rule, block_size=4, max_row_norm=limit
    )
    np.testing.assert_allclose(table, w - clipped, rtol=1e-4, atol=1e-6)


def test_a_filtered_update_leaves_out_what_a_filtered_gradient_does():
    data = problem((3,))
    data["weights"] *= 3
    x, y, w = (jnp.asarray(data[name]) for name in ("inputs", "labels", "weights"))
    options = dict(block_size=2, gradient_filter=0.02)
    d_x, gradient = jax.grad(
        lambda x, w: blockwise_softmax_loss(x, y, w, **options).mean(), (0, 1)
    )(x, w)
    _, d_inputs, table, _ = blockwise_softmax_update(x, y, w, {}, tables.sgd(1.0).rule, **options)
    np.testing.assert_allclose(table, w - gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d_inputs, d_x, rtol=1e-4, atol=1e-6)
    untouched = np.all(np.asarray(table) == np.asarray(w), axis=1)
    assert 0 < untouched.sum() < C


def test_a_table_of_bfloat16_bits_is_a_table_of_bfloat16():
    data = problem()
    bits = tables.to_storage(data["weights"], "uint16")
    numbers = tables.from_storage(bits).astype(jnp.float32)
    rule = tables.sgd(0.5).rule
    losses, d_inputs, table, _ = blockwise_softmax_update(
        data["inputs"], data["labels"], bits, {}, rule, block_size=4
    )
    expected = blockwise_softmax_update(
        data["inputs"], data["labels"], numbers, {}, rule, block_size=4
    )
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5)
    assert_close(d_inputs, expected[1], 1e-2, 1e-3)
    got = np.asarray(tables.from_storage(table).astype(jnp.float32))
    np.testing.assert_allclose(got, expected[2], rtol=1e-2, atol=1e-2)
    assert table.dtype == jnp.uint16 and (np.asarray(table) != np.asarray(bits)).any()


def test_a_refused_label_is_seen():
    data = problem()
    with pytest.raises(ValueError, match=r"labels must be in \[0, 23\), got 23 at \(0,\)"):
        blockwise_softmax_loss(data["inputs"], np.full(6, 23), data["weights"])
    losses = jax.jit(lambda y: blockwise_softmax_loss(data["inputs"], y, data["weights"]))(
        jnp.full(6, 23)
    )
    assert np.isnan(losses).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(block_size=0), "block_size must be at least 1, got 0"),
        (dict(label_smoothing=1.5), r"label_smoothing must be in \[0, 1\], got 1.5"),
        (dict(label_smoothing=np.ones(2)), r"label_smoothing must be a scalar, got shape \(2,\)"),
        (dict(z_loss=-1), r"z_loss must be in \[0, inf\], got -1"),
        (dict(softcap=0.0), "softcap must be greater than 0, got 0"),
        (dict(temperature=0.0), "temperature must be greater than 0, got 0"),
        (dict(class_weights=np.ones(3)), r"class_weights must be \(23,\), got \(3,\)"),
        (dict(class_weights=-np.ones(C)), "class_weights must be at least 0, got -1"),
        (dict(class_mask=np.ones(3, bool)), r"class_mask must be \(23,\), got \(3,\)"),
        (dict(gradient_filter=2.0), r"gradient_filter must be in \[0, 1\], got 2.0"),
        (dict(by_products=("median",)), "by_products must be among .* got 'median'"),
        (dict(by_products=("top_k",), k=24), r"k must be in \[1, 23\], got 24"),
        (dict(where=np.ones(3, bool)), r"where must have the labels' shape \(6,\), got \(3,\)"),
    ],
)
def test_refuses(options, message):
    data = problem()
    with pytest.raises(ValueError, match=message):
        blockwise_softmax_loss(data["inputs"], data["labels"], data["weights"], **options)


def test_refuses_a_state_that_is_not_the_tables():
    data = problem()
    with pytest.raises(ValueError, match=r"state\['m'\] must be a scalar or have 23 rows"):
        blockwise_softmax_update(
            data["inputs"], data["labels"], data["weights"], {"m": jnp.zeros(5)}, lambda *a: a[:2]
        )
    with pytest.raises(ValueError, match="tile_size must be at least 0, got -1"):
        blockwise_softmax_mean_loss(data["inputs"], data["labels"], data["weights"], tile_size=-1)
