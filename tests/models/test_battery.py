"""One battery for all models: jit, vmap over members, any leading batch, dtypes, the mode."""

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
    "mlp": (models.MLP((8, 5), 2), DENSE, (2,)),
    "mlp of all": (models.MLP((8, 8), 2, "prelu", "he_normal", "batch", 0.5), DENSE, (2,)),
    "tabular": (models.TabularMLP((3, 7), 2, (8, 8), 2, "prelu", 0.5, "unknown"), BOTH, (2,)),
    "ids alone": (models.TabularMLP((3, 7), (2, 3), (8,), 1, "selu"), IDS, (1,)),
}
RANDOM = ("mlp of all", "tabular")


class Case:
    """A model, compiled once for all tests."""

    def __init__(self, name):
        self.name = name
        self.module, x, self.shape = MODELS[name]
        self.model = models.from_linen(self.module)
        self.x = jax.tree.map(jnp.asarray, x)
        self.init = jax.jit(self.model.init)
        self.variables = self.init(jax.random.key(0), self.x)
        self.apply = jax.jit(self.model.apply, static_argnames="training")

    def outputs(self, x=None):
        return self.apply(self.variables, self.x if x is None else x)[0]


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    return Case(request.param)


def close(a, b, rtol=1e-5, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), a, b)


def test_outputs_have_their_shape_and_jit_is_eager(case):
    outputs, state = case.model.apply(case.variables, case.x)
    assert outputs.shape == (6, *case.shape) and outputs.dtype == jnp.float32
    close(state, models.split_variables(case.variables)[1], rtol=0, atol=0)
    assert np.isfinite(outputs).all() and np.ptp(outputs, axis=0).min() > 0
    close(case.outputs(), outputs)


def test_members_together_are_members_one_by_one(case):
    keys = jax.random.split(jax.random.key(1), 3)

    def member(key):
        return case.model.apply(case.model.init(key, case.x), case.x)[0]

    together = jax.jit(jax.vmap(member))(keys)
    for i, key in enumerate(keys):
        close(case.apply(case.init(key, case.x), case.x)[0], together[i], rtol=1e-4)


def test_any_leading_batch(case):
    outputs = case.outputs()
    boxed = jax.tree.map(lambda leaf: leaf.reshape(2, 1, 3, -1), case.x)
    close(case.outputs(boxed), outputs.reshape(2, 1, 3, *case.shape))
    close(case.outputs(jax.tree.map(lambda leaf: leaf[0], case.x)), outputs[0])
    assert case.outputs(jax.tree.map(lambda leaf: leaf[:0], case.x)).shape == (0, *case.shape)


def test_an_example_does_not_see_the_others_in_evaluation(case):
    alone = case.outputs(jax.tree.map(lambda leaf: leaf.at[3:].set(0), case.x))
    close(alone[:3], case.outputs()[:3])


def test_training_is_evaluation_where_nothing_is_random(case):
    def trained(seed):
        return case.apply(case.variables, case.x, key=jax.random.key(seed), training=True)

    first, state = trained(2)
    np.testing.assert_array_equal(first, trained(2)[0])
    if case.name not in RANDOM:
        close(first, case.outputs())
        return
    assert not np.allclose(first, trained(3)[0])
    before = models.split_variables(case.variables)[1]
    assert jax.tree.structure(state) == jax.tree.structure(before)
    assert not any(map(np.allclose, jax.tree.leaves(state), jax.tree.leaves(before)))


def test_numbers_of_any_kind(case):
    assert {leaf.dtype for leaf in jax.tree.leaves(case.variables)} == {np.dtype(np.float32)}

    narrow = {np.dtype(np.float32): jnp.bfloat16, np.dtype(np.int32): jnp.uint8}
    halves = case.outputs(jax.tree.map(lambda leaf: leaf.astype(narrow[leaf.dtype]), case.x))
    assert halves.dtype == jnp.float32
    close(halves, case.outputs(), rtol=0.05, atol=0.05)


def test_every_parameter_learns(case):
    @jax.jit
    @jax.grad
    def gradient(params):
        outputs, _ = case.model.apply(
            {**case.variables, "params": params}, case.x, key=jax.random.key(0), training=True
        )
        return jnp.sum(jnp.square(outputs - jnp.arange(outputs.size).reshape(outputs.shape)))

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(case.variables["params"])):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # A bias before a normalization has no gradient.
        if "bias" not in name:
            assert np.abs(leaf).max() > 1e-6, name


def test_it_can_be_listened_to(case):
    listener = models.listen(case.module)
    outputs, _, seen = jax.jit(lambda v, x: listener.apply(v, listener.taps(v, x), x))(
        case.variables, case.x
    )
    close(outputs, case.outputs())
    assert [key for key in seen if key.endswith("output")]
