"""Recurrent cells: one battery for all of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxml import models
from jaxml.models import cells
from jaxml.models.cells import CELLS

B, T, D, F = 3, 8, 4, 6
LENGTHS = jnp.array([8, 3, 5])
every_cell = pytest.mark.parametrize("cell", CELLS)


def close(a, b, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=atol), a, b)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (B, T, D))


class Last(nn.Module):
    """The sum of the last outputs."""

    recurrent: models.Recurrent

    def __call__(self, x):
        return self.recurrent(x)[0][:, -1].sum()


class Made:
    """A module, its variables and its compiled application."""

    def __init__(self, cell, x, **options):
        self.module = models.Recurrent(cell, F, **options)
        self.variables = jax.jit(self.module.init)(jax.random.key(1), x)
        # Biases that are not zero, so that none of them can be left out.
        self.variables = jax.tree.map(
            lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape),
            self.variables,
        )
        self.apply = jax.jit(self.module.apply)

    def __call__(self, *arguments, **keywords):
        return self.apply(self.variables, *arguments, **keywords)


@pytest.fixture(scope="module")
def made(x):
    kept = {}

    def make(cell, **options):
        name = (cell, *options.items())
        if name not in kept:
            kept[name] = Made(cell, x, **options)
        return kept[name]

    return make


def numpy_reference(cell, variables, x):
    """The published equations in float64, example by example and step by step; one layer."""
    params = jax.tree.map(np.float64, variables["params"])
    own, dense = params.get("cell_0", {}), params["input_0"]
    sigmoid, g = lambda v: 1 / (1 + np.exp(-v)), lambda v: np.where(v >= 0, v + 0.5, sigmoid(v))
    outputs = np.zeros((*x.shape[:2], F))
    for b, sequence in enumerate(np.float64(x)):
        h, c = np.zeros(F), np.zeros(F)
        state = np.zeros(F, complex)
        for t, now in enumerate(sequence):
            w = np.split(now @ dense["kernel"] + dense["bias"], CELLS[cell].num_gates)
            if cell in ("simple", "lstm", "gru"):
                u = [h @ kernel for kernel in np.split(own["kernel"], len(w), axis=1)]
            if cell == "simple":
                h = np.tanh(w[0] + u[0])
            elif cell == "lstm":
                i, f, n, o = (wk + uk for wk, uk in zip(w, u, strict=True))
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(n)
                h = sigmoid(o) * np.tanh(c)
            elif cell == "gru":
                r, z = sigmoid(w[0] + u[0]), sigmoid(w[1] + u[1])
                n = np.tanh(w[2] + r * (u[2] + own["bias"]))
                h = (1 - z) * n + z * h
            elif cell == "mingru":
                z = sigmoid(w[0])
                h = (1 - z) * h + z * g(w[1])
            elif cell == "minlstm":
                f, i = sigmoid(w[0]), sigmoid(w[1])
                h = f / (f + i) * h + i / (f + i) * g(w[2])
            elif cell == "lru":
                lam = np.exp(-np.exp(own["nu"]) + 1j * np.exp(own["theta"]))
                state = lam * state + np.exp(own["gamma"]) * (w[0] + 1j * w[1])
                kernel = own["kernel"][:F] + 1j * own["kernel"][F:]
                h = np.float64(nn.gelu((state @ kernel).real + w[2]))
            outputs[b, t] = h
    return outputs


@every_cell
def test_published_equations(cell, made, x):
    one = made(cell)
    close(one(x)[0], numpy_reference(cell, one.variables, np.asarray(x)))


@pytest.mark.parametrize(
    ("cell", "flax", "gates"),
    [
        ("simple", nn.SimpleCell, ""),
        ("lstm", nn.OptimizedLSTMCell, "ifgo"),
        ("gru", nn.GRUCell, "rzn"),
    ],
)
def test_flax_cells_with_the_same_weights(cell, flax, gates, made, x):
    one = made(cell)
    params = one.variables["params"]
    split = lambda leaf: jnp.split(leaf, max(len(gates), 1), axis=-1)  # noqa: E731
    kernels, biases = split(params["input_0"]["kernel"]), split(params["input_0"]["bias"])
    recurrent = split(params["cell_0"]["kernel"])
    same = {}
    for gate, w, b, u in zip(gates or [""], kernels, biases, recurrent, strict=True):
        same[f"i{gate}"], same[f"h{gate}"] = {"kernel": w}, {"kernel": u}
        same[f"h{gate}" if cell == "lstm" else f"i{gate}"]["bias"] = b
    if cell == "gru":
        same["hn"]["bias"] = params["cell_0"]["bias"]
    rnn = nn.RNN(flax(F))
    shapes = jax.eval_shape(rnn.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, shapes["cell"]) == jax.tree.map(jnp.shape, same)
    close(jax.jit(rnn.apply)({"params": {"cell": same}}, x), one(x)[0])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_loop_scan_and_parallel_scan(reverse, dtype):
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.uniform(key, (13, 2, 3), maxval=0.99).astype(dtype) for key in keys)
    a = a if dtype == jnp.float32 else a * jnp.exp(0.3j)
    h, loop = np.zeros((2, 3)), np.zeros((13, 2, 3), np.complex128)
    for t in range(13)[:: -1 if reverse else 1]:
        h = loop[t] = np.asarray(a[t]) * h + np.asarray(b[t])

    def weighted(states, a, b):
        return jnp.real(states(a, b, reverse) * jnp.arange(1.0, 14)[:, None, None]).sum()

    gradients = []
    for states in (cells.step_by_step, cells.in_parallel):
        close(states(a, b, reverse), loop)
        gradients.append(jax.grad(weighted, argnums=(1, 2))(states, a, b))
    close(*gradients, atol=1e-4)


@every_cell
def test_a_window_is_two_halves_with_the_carry_and_so_are_its_gradients(cell, made, x):
    """Gradients too, if they flow through the carry; if it is a constant, they are others."""
    one = made(cell, num_layers=2)
    outputs, end = one(x)
    first, carry = one(x[:, : T // 2])
    second, carry = one(x[:, T // 2 :], carry=carry)
    close(jnp.concatenate([first, second], axis=1), outputs)
    close(carry, end)

    @jax.jit
    def gradients(variables):
        def full(variables):
            return jnp.square(one.module.apply(variables, x)[0]).sum()

        def halves(variables, cut):
            first, carry = one.module.apply(variables, x[:, : T // 2])
            carry = jax.lax.stop_gradient(carry) if cut else carry
            second, _ = one.module.apply(variables, x[:, T // 2 :], carry=carry)
            return jnp.square(first).sum() + jnp.square(second).sum()

        return [jax.grad(full)(variables), *(jax.grad(halves)(variables, c) for c in (False, True))]

    full, through, truncated = gradients(one.variables)
    close(through, full, atol=1e-4)
    assert any(
        not np.allclose(a, b, rtol=1e-3)
        for a, b in zip(jax.tree.leaves(truncated), jax.tree.leaves(full), strict=True)
    )


@every_cell
def test_what_lies_past_the_end_changes_nothing(cell, made, x):
    """Not the outputs, nor the carry, nor gradients; with NaN there as well. Both directions."""
    one = made(cell, bidirectional=True)
    past = jnp.arange(T)[None, :, None] >= LENGTHS[:, None, None]

    @jax.jit
    def of(variables, x):
        def loss(variables, x):
            outputs, carry = one.module.apply(variables, x, LENGTHS)
            total = jnp.square(outputs).sum() + sum(map(jnp.sum, jax.tree.leaves(carry)))
            return total, (outputs, carry)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables, x)

    ragged = of(one.variables, x)
    for other in (jnp.nan, 1e30):
        again = of(one.variables, jnp.where(past, other, x))
        jax.tree.map(np.testing.assert_array_equal, again, ragged)
    (_, (outputs, carry)), _ = ragged
    assert not jnp.where(past, outputs, 0).any()
    for i in (0, 1):
        length = int(LENGTHS[i])
        alone, end = one(x[i : i + 1, :length])
        close(outputs[i, :length], alone[0])
        for ours, its in zip(jax.tree.leaves(carry), jax.tree.leaves(end), strict=True):
            close(ours[i], its[0])


@every_cell
def test_backwards_is_forwards_on_the_reversed_sequence(cell, made, x):
    both, one = made(cell, bidirectional=True), made(cell)
    params = both.variables["params"]
    names = {"input_0": "input_0_backward", "cell_0": "cell_0_backward"}
    backward = {name: params[other] for name, other in names.items() if other in params}
    outputs, (_, end) = both(x)
    wanted, (its_end,) = one.apply({"params": backward}, x[:, ::-1])
    close(outputs[..., F:], wanted[:, ::-1])
    close(end, its_end)


@every_cell
def test_resets_are_documents_of_their_own(cell, made, x):
    one, both = made(cell), made(cell, bidirectional=True)
    resets = jnp.zeros((B, T), bool).at[:, 3].set(True)
    for made_one in (one, both):
        outputs, _ = made_one(x, resets=resets)
        close(outputs[:, :3], made_one(x[:, :3])[0])
        close(outputs[:, 3:], made_one(x[:, 3:])[0])
    # A reset at the first step drops what an earlier window left, and one within drops what stood before.
    _, carry = one(x)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), carry)
    for before in (carry, bad):
        again = one(x, carry=before, resets=resets.at[:, 0].set(True))
        close(again[0], one(x, resets=resets)[0])
    broken, _ = one(x.at[:, 1].set(jnp.nan), resets=resets)
    close(broken[:, 3:], one(x[:, 3:])[0])
    gradient = jax.grad(lambda x: one(x, resets=resets)[0][:, 3:].sum())
    close(gradient(x.at[:, 1].set(jnp.nan))[:, 3:], gradient(x)[:, 3:])


@every_cell
def test_under_shard_map_the_state_starts_at_zero(cell, x):
    module = models.Recurrent(cell, F)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    variables = module.init(jax.random.key(0), x)
    part = jax.sharding.PartitionSpec("data")
    apply = lambda x: module.apply(variables, x)  # noqa: E731
    for check in (True, False):
        mapped = jax.shard_map(apply, mesh=mesh, in_specs=part, out_specs=part, check_vma=check)
        close(mapped(x), apply(x))


@every_cell
def test_bfloat16_keeps_its_dtype_and_sums_in_float32(cell, made, x):
    one = made(cell)
    outputs, carry = one(x.astype(jnp.bfloat16))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(carry)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(outputs.astype(jnp.float32), one(x)[0], atol=0.06)


@every_cell
def test_export_with_a_symbolic_batch(cell, made, x):
    one = made(cell)
    (batch,) = export.symbolic_shape("b")
    given = jax.ShapeDtypeStruct((batch, T, D), jnp.float32)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    exported = export.export(one.apply, platforms=["cpu", "cuda", "tpu"])(
        jax.eval_shape(lambda: one.variables), given, lengths
    )
    called = export.deserialize(exported.serialize())
    outputs, carry = called.call(one.variables, x[:2], LENGTHS[:2])
    wanted, wanted_carry = one(x, LENGTHS)
    close(outputs, wanted[:2])
    close(carry, jax.tree.map(lambda leaf: leaf[:2], wanted_carry))


@every_cell
def test_the_monitor_sees_the_gradient_of_the_state(cell, made, x):
    """The gradient at what leaves a step is that of all later steps; of what enters, through it alone."""
    one = made(cell)

    variables = {"params": {"recurrent": one.variables["params"]}}
    listener = models.listen(Last(one.module))
    name = "recurrent/cell_0"
    kinds = {layer.name: (layer.kind, layer.shape) for layer in listener.layers(variables, x)}
    assert kinds[name] == ("cell", (T, B, F))
    found = jax.grad(lambda taps: listener.apply(variables, taps, x)[0])(
        listener.taps(variables, x)
    )[name]
    # The gradient with respect to the carry between two windows, twice.
    _, carry = one(x[:, :5])
    wanted = jax.grad(lambda carry: one(x[:, 5:], carry=carry)[0][:, -1].sum())(carry)[0]
    close(jax.tree.map(lambda leaf: leaf[5], found["entering"]), wanted)
    close(jax.tree.map(lambda leaf: leaf[4], found["leaving"]), wanted)


def test_starts():
    module = models.Recurrent("lstm", F, recurrent_init=("normal", 0.01), forget_bias=2.0)
    params = module.init(jax.random.key(0), jnp.ones((1, 2, D)))["params"]
    assert params["input_0"]["bias"].reshape(4, F).mean(1).tolist() == [0, 2, 0, 0]
    assert 0.005 < params["cell_0"]["kernel"].std() < 0.02
    params = models.Recurrent("gru", F).init(jax.random.key(0), jnp.ones((1, 2, D)))["params"]
    for kernel in jnp.split(params["cell_0"]["kernel"], 3, axis=1):
        close(kernel @ kernel.T, jnp.eye(F))
    own = models.Recurrent("lru", 64).init(jax.random.key(0), jnp.ones((1, 2, D)))["params"][
        "cell_0"
    ]
    modulus = jnp.exp(-jnp.exp(own["nu"]))
    assert 0.9 <= modulus.min() and modulus.max() <= 0.999
    close(jnp.exp(own["gamma"]), jnp.sqrt(1 - modulus**2))


def test_dropout_acts_between_layers_in_training(x):
    module = models.Recurrent("gru", F, 2, dropout=0.5)
    model = models.from_linen(module)
    variables = model.init(jax.random.key(0), x)
    quiet, _ = model.apply(variables, x)[0]
    loud, _ = model.apply(variables, x, key=jax.random.key(1), training=True)[0]
    assert not np.allclose(quiet, loud)


@pytest.mark.parametrize(
    ("message", "options", "given"),
    [
        ("cell must be one of 'simple'", {"cell": "elman"}, {}),
        ("features must be .* at least 1, got 0", {"features": 0}, {}),
        ("num_layers must be .* at least 1, got 0", {"num_layers": 0}, {}),
        ("dropout must be", {"dropout": 1.0}, {}),
        ("at least one step, got float32 .3, 0, 4.", {}, {"x": jnp.ones((3, 0, 4))}),
        ("x must be floats", {}, {"x": jnp.ones((3, 8), int)}),
        (r"lengths must be integers \[3\]", {}, {"lengths": jnp.ones(2, int)}),
        (r"lengths\[1\] must be .* got 9", {}, {"lengths": np.array([0, 9, 8])}),
        (r"lengths\[2\] must be .* got -1", {}, {"lengths": [8, 1, -1]}),
        ("lengths must be integers", {}, {"lengths": np.ones(3)}),
        (r"resets must be bool \[3, 8\]", {}, {"resets": jnp.ones((3, 8))}),
        ("carry must be arrays of shapes", {}, {"carry": (jnp.ones((3, 5)),)}),
        ("carry must be arrays of shapes", {"num_layers": 2}, {"carry": (jnp.ones((3, F)),)}),
        ("carry must be None", {"bidirectional": True}, {"carry": (jnp.ones((3, F)),)}),
    ],
)
def test_bad_input(message, options, given, x):
    module = models.Recurrent(**{"cell": "gru", "features": F, **options})
    with pytest.raises(ValueError, match=message):
        arguments = {"x": x, **given}
        jax.eval_shape(lambda key: module.init(key, **arguments), jax.random.key(0))


@every_cell
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_where_64_bits_are_enabled(cell, dtype):
    module = models.Recurrent(cell, F, 2, bidirectional=True)
    with jax.enable_x64(True):
        given = jax.ShapeDtypeStruct((B, T, D), dtype)
        variables = jax.eval_shape(module.init, jax.random.key(0), given)
        outputs, carry = jax.eval_shape(module.apply, variables, given, LENGTHS)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, carry))} == {jnp.dtype(dtype)}
