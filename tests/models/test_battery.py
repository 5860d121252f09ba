"""What every model keeps to: jit as eager, members as a loop, any leading batch, dtypes, the mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import models

NOISE = np.random.default_rng(0)
DENSE = NOISE.normal(size=(6, 4)).astype(np.float32)
IDS = NOISE.integers(0, [3, 7], (6, 2)).astype(np.int32)
BOTH = {"dense": DENSE, "ids": IDS}

# Name → module, input, shape of an example's outputs.
MODELS = {
    "linear": (models.Linear(3, "lecun_normal"), DENSE, (3,)),
    "linear regression": (models.LinearRegression("lecun_normal"), DENSE, ()),
    "logistic regression": (models.LogisticRegression("lecun_normal"), DENSE, ()),
    "softmax": (models.SoftmaxClassifier(5, "lecun_normal"), DENSE, (5,)),
    "one vs all": (models.OneVsAllClassifier(5, "lecun_normal"), DENSE, (5,)),
    "mlp": (models.MLP((8, 5), 2), DENSE, (2,)),
    "no hidden layer": (models.MLP((), 2), DENSE, (2,)),
    "mlp of all": (models.MLP((8, 8), 2, "prelu", "he_normal", "batch", 0.5, residual=True),
                   DENSE, (2,)),
    "layer norm": (models.MLP((8, 8), 2, "selu", normalization="layer"), DENSE, (2,)),
    "tabular": (models.TabularMLP((3, 7), (2, 3), (8,), 2, "gelu", residual=True), BOTH, (2,)),
    "tabular of all": (models.TabularMLP((3, 7), 2, (8, 8), 2, "prelu", "orthogonal", "batch", 0.5,
                                         out_of_range="unknown"), BOTH, (2,)),
    "ids alone": (models.TabularMLP((3, 7), 2, (8,), 1), IDS, (1,)),
}  # fmt: skip
RANDOM = ("mlp of all", "tabular of all")


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    module, x, shape = MODELS[request.param]
    model = models.from_linen(module)
    x = jax.tree.map(jnp.asarray, x)
    return request.param, model, jax.jit(model.init)(jax.random.key(0), x), x, shape


def close(a, b, rtol=1e-5, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), a, b)


def test_outputs_have_their_shape_and_jit_is_eager(case):
    _, model, variables, x, shape = case
    outputs, state = model.apply(variables, x)
    assert outputs.shape == (6, *shape) and outputs.dtype == jnp.float32
    assert state == models.split_variables(variables)[1]
    assert np.isfinite(outputs).all() and np.ptp(outputs, axis=0).min() > 0
    close(jax.jit(model.apply)(variables, x)[0], outputs)


def test_members_together_are_members_one_by_one(case):
    _, model, _, x, _ = case
    keys = jax.random.split(jax.random.key(1), 3)

    def member(key):
        return model.apply(model.init(key, x), x)[0]

    together = jax.jit(jax.vmap(member))(keys)
    alone = jax.jit(member)
    for i, key in enumerate(keys):
        close(alone(key), together[i], rtol=1e-4)


def test_any_leading_batch(case):
    _, model, variables, x, shape = case
    outputs, _ = model.apply(variables, x)
    boxed = jax.tree.map(lambda leaf: leaf.reshape(2, 1, 3, -1), x)
    close(model.apply(variables, boxed)[0], outputs.reshape(2, 1, 3, *shape))
    close(model.apply(variables, jax.tree.map(lambda leaf: leaf[0], x))[0], outputs[0])
    none, _ = model.apply(variables, jax.tree.map(lambda leaf: leaf[:0], x))
    assert none.shape == (0, *shape)


def test_an_example_does_not_see_the_others_in_evaluation(case):
    _, model, variables, x, _ = case
    one, _ = model.apply(variables, jax.tree.map(lambda leaf: leaf[2:3], x))
    close(one[0], model.apply(variables, x)[0][2])


def test_training_is_evaluation_where_nothing_is_random(case):
    name, model, variables, x, _ = case
    outputs, _ = model.apply(variables, x)
    first, state = model.apply(variables, x, key=jax.random.key(2), training=True)
    again, _ = model.apply(variables, x, key=jax.random.key(2), training=True)
    np.testing.assert_array_equal(first, again)
    if name not in RANDOM:
        close(first, outputs)
        return
    other, _ = model.apply(variables, x, key=jax.random.key(3), training=True)
    assert not np.allclose(first, other)
    before = models.split_variables(variables)[1]
    assert jax.tree.structure(state) == jax.tree.structure(before)
    assert not any(map(np.allclose, jax.tree.leaves(state), jax.tree.leaves(before)))


def test_numbers_of_any_kind(case):
    """Integers, booleans and half precision are numbers; parameters are float32."""
    _, model, variables, x, _ = case
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}

    def cast(x, dense, ids):
        change = lambda leaf: leaf.astype(ids if leaf.dtype == jnp.int32 else dense)  # noqa: E731
        return jax.tree.map(change, x)

    whole = cast(jax.tree.map(jnp.round, x) if not isinstance(x, dict) else x, jnp.int32, jnp.int32)
    wanted, _ = model.apply(variables, cast(whole, jnp.float32, jnp.int32))
    if x is not whole:
        close(model.apply(variables, whole)[0], wanted)
    halves, _ = model.apply(variables, cast(x, jnp.bfloat16, jnp.uint8))
    assert halves.dtype == jnp.float32
    close(halves, model.apply(variables, x)[0], rtol=0.05, atol=0.05)


def test_every_parameter_learns(case):
    _, model, variables, x, _ = case

    def loss(params):
        outputs, _ = model.apply(
            {**variables, "params": params}, x, key=jax.random.key(0), training=True
        )
        return jnp.sum(jnp.square(outputs - jnp.arange(outputs.size).reshape(outputs.shape)))

    gradients = jax.grad(loss)(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # What a normalisation takes off again has no gradient.
        if "bias" not in name:
            assert np.abs(leaf).max() > 1e-6, name


def test_it_can_be_listened_to(case):
    _, model, variables, x, _ = case
    name = case[0]
    listener = models.listen(MODELS[name][0])
    outputs, _, seen = listener.apply(variables, listener.taps(variables, x), x)
    np.testing.assert_array_equal(outputs, model.apply(variables, x)[0])
    assert [key for key in seen if key.endswith("output")]
