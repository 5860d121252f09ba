"""Every output layer through the same battery: what each promises is written down once, in `VARIANTS`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import softmax
from jaxml.softmax import Candidates

CLASSES, DIM, BATCH = 23, 6, 7
KEY = jax.random.key(3)

clusters = {
    "adaptive": softmax.adaptive_softmax([5, 11, CLASSES], div_value=2.0),
    "two_level": softmax.two_level_softmax(CLASSES),
}


def everything(labels):
    """Each class a candidate, expected once: the sampled losses are then their exact ones."""
    ones = jnp.ones(CLASSES)
    return Candidates(jnp.arange(CLASSES), ones, jnp.ones(jnp.shape(labels)))


class Variant(NamedTuple):
    """One output layer.

    Attributes:
        loss: `loss(inputs, labels, params, where) -> [*batch]`.
        reference: `reference(scores [C], label) -> loss` in float64, from a table's scores; None where
            the scores are not inner products with one table.
    """

    loss: Callable
    reference: Callable | None


def cross_entropy(scores, label):
    peak = scores.max()
    return peak + np.log(np.exp(scores - peak).sum()) - scores[label]


def sigmoids(scores, label):
    signs = np.where(np.arange(len(scores)) == label, -1, 1)
    return np.logaddexp(0, signs * scores).sum()


VARIANTS = {
    "full": Variant(
        lambda x, y, w, where: softmax.full_softmax_loss(x, y, w, where=where), cross_entropy
    ),
    "blockwise": Variant(
        lambda x, y, w, where: softmax.blockwise_softmax_loss(x, y, w, where=where, block_size=5),
        cross_entropy,
    ),
    "sampled": Variant(
        lambda x, y, w, where: softmax.sampled_softmax_loss(
            x, y, w, None, everything(y), where=where
        ),
        cross_entropy,
    ),
    "per_example": Variant(
        lambda x, y, w, where: softmax.per_example_sampled_softmax_loss(
            x, y, w, None, softmax.uniform(CLASSES), (), KEY, CLASSES, where=where
        ),
        cross_entropy,
    ),
    "one_vs_all": Variant(
        lambda x, y, w, where: softmax.one_vs_all_loss(x, y, w, where=where, block_size=5), sigmoids
    ),
    "sampled_logistic": Variant(
        lambda x, y, w, where: softmax.sampled_logistic_loss(
            x, y, w, None, everything(y), where=where
        ),
        sigmoids,
    ),
    **{
        name: Variant(
            lambda x, y, w, where, layer=layer: layer.loss(w, x, y, where=where),
            None,
        )
        for name, layer in clusters.items()
    },
}

each = pytest.mark.parametrize("name", VARIANTS)
with_reference = pytest.mark.parametrize(
    "name", [name for name, variant in VARIANTS.items() if variant.reference]
)


def problem(name, batch=(BATCH,), dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (*batch, DIM)).astype(dtype)
    labels = jax.random.randint(keys[1], batch, 0, CLASSES)
    if name in clusters:
        params = clusters[name].init(keys[2], DIM)
    else:
        params = jax.random.normal(keys[2], (CLASSES, DIM))
    return inputs, labels, jax.tree.map(lambda p: p.astype(dtype), params)


def run(name, inputs, labels, params, where=None):
    return VARIANTS[name].loss(inputs, labels, params, where)


def gradients(name, inputs, labels, params, where=None, weights=None):
    """Of a weighted sum of the losses, with respect to inputs and params."""

    def total(inputs, params):
        losses = run(name, inputs, labels, params, where)
        return (losses * (jnp.ones_like(losses) if weights is None else weights)).sum()

    return jax.jit(jax.grad(total, (0, 1)))(inputs, params)


@with_reference
def test_value_and_gradient_are_those_of_float64(name):
    inputs, labels, table = problem(name)
    reference = VARIANTS[name].reference
    x, w = np.float64(inputs), np.float64(table)
    expected = [reference(w @ h, y) for h, y in zip(x, labels.tolist(), strict=True)]
    losses = run(name, inputs, labels, table)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected, rtol=1e-5)

    weights = np.linspace(-1, 2, BATCH)  # An arbitrary cotangent.

    def total(x, w):
        scores = x @ w.T
        return sum(
            c * reference(s, y) for c, s, y in zip(weights, scores, labels.tolist(), strict=True)
        )

    d_inputs, d_table = gradients(name, inputs, labels, table, weights=jnp.asarray(weights))
    step, rng = 1e-6, np.random.default_rng(0)
    for array, gradient, place in ((x, d_inputs, 0), (w, d_table, 1)):
        direction = rng.standard_normal(array.shape)
        ends = []
        for sign in (1, -1):
            arguments = [x, w]
            arguments[place] = array + sign * step * direction
            ends.append(total(*arguments))
        slope = (np.float64(gradient) * direction).sum()
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-5)


@each
def test_narrow_inputs_keep_their_dtype_in_gradients_alone(name):
    inputs, labels, params = problem(name, dtype=jnp.bfloat16)
    losses = run(name, inputs, labels, params)
    assert losses.dtype == jnp.float32
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), (inputs, params))
    np.testing.assert_allclose(losses, run(name, wide[0], labels, wide[1]), rtol=2e-2, atol=2e-2)
    d_inputs, d_params = gradients(name, inputs, labels, params)
    assert d_inputs.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(d_params))


@each
def test_jit_is_eager_and_one_trace_serves_many_batches(name):
    traces = []

    @jax.jit
    def compiled(inputs, labels, params):
        traces.append(name)
        return run(name, inputs, labels, params)

    inputs, labels, params = problem(name)
    eager = run(name, inputs, labels, params)
    np.testing.assert_allclose(compiled(inputs, labels, params), eager, rtol=1e-5, atol=1e-6)
    compiled(2 * inputs, (labels + 1) % CLASSES, params)
    assert len(traces) == 1


@each
def test_vmap_and_any_leading_batch_are_a_loop(name):
    inputs, labels, params = problem(name, batch=(2, 3))
    together = run(name, inputs, labels, params)
    assert together.shape == (2, 3)
    looped = jnp.stack([run(name, x, y, params) for x, y in zip(inputs, labels, strict=True)])
    mapped = jax.vmap(lambda x, y: run(name, x, y, params))(inputs, labels)
    np.testing.assert_allclose(together, looped, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mapped, looped, rtol=1e-5, atol=1e-6)


@each
def test_extreme_scores_stay_finite(name):
    """Of around ±1e4: nothing overflows, neither in value nor in gradient."""
    inputs, labels, params = problem(name)
    losses = run(name, 5e3 * inputs, labels, params)
    assert np.isfinite(losses).all() and (losses >= 0).all()
    for leaf in jax.tree.leaves(gradients(name, 5e3 * inputs, labels, params)):
        assert np.isfinite(leaf).all()


@each
def test_what_is_masked_costs_nothing_whatever_it_holds(name):
    inputs, labels, params = problem(name)
    inputs, labels = inputs.at[2].set(jnp.nan), labels.at[2].set(-5)
    where = jnp.arange(BATCH) != 2
    losses = run(name, inputs, labels, params, where)
    assert losses[2] == 0 and np.isfinite(losses).all()
    keep = np.flatnonzero(where)
    others = run(name, inputs[keep], labels[keep], params)
    if name != "per_example":  # Its candidates follow the example's number; all of them are drawn.
        np.testing.assert_allclose(losses[keep], others, rtol=1e-5, atol=1e-6)
    nothing = jnp.zeros(BATCH, bool)
    assert not run(name, inputs, labels, params, nothing).any()
    for leaf in jax.tree.leaves(gradients(name, inputs, labels, params, nothing)):
        assert not leaf.any()


@each
def test_one_example_and_none(name):
    inputs, labels, params = problem(name)
    whole = run(name, inputs, labels, params)
    alone = run(name, inputs[:1], labels[:1], params)
    np.testing.assert_allclose(alone, whole[:1], rtol=1e-5, atol=1e-6)
    assert run(name, inputs[:0], labels[:0], params).shape == (0,)


@with_reference
def test_classes_have_no_order(name):
    """Renumbered, they give the same losses."""
    inputs, labels, table = problem(name)
    order = jax.random.permutation(jax.random.key(9), CLASSES)
    renumbered = jnp.argsort(order)[labels]
    np.testing.assert_allclose(
        run(name, inputs, renumbered, table[order]),
        run(name, inputs, labels, table),
        rtol=1e-5,
        atol=1e-5,
    )


@with_reference
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_of_no_class_is_refused(name, label):
    inputs, labels, table = problem(name)
    with pytest.raises(ValueError, match="labels"):
        run(name, inputs, np.asarray(labels.at[3].set(label)), table)


def test_a_softmax_over_one_class_is_certain():
    inputs, labels = jnp.ones((3, DIM)), jnp.zeros(3, jnp.int32)
    one = jnp.ones((1, DIM))
    for loss in (
        softmax.full_softmax_loss(inputs, labels, one),
        softmax.blockwise_softmax_loss(inputs, labels, one),
        softmax.adaptive_softmax([1]).loss({"head": {"weights": one}}, inputs, labels),
    ):
        np.testing.assert_array_equal(loss, jnp.zeros(3))
    np.testing.assert_allclose(
        softmax.one_vs_all_loss(inputs, labels, one), np.log1p(np.exp(-DIM)) * np.ones(3), rtol=1e-5
    )
