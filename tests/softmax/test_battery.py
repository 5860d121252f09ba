"""Every output layer through the same battery: what each promises is written down once, in `VARIANTS`."""

from collections.abc import Callable
from functools import cache
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


@cache
def compiled(name):
    """Returns losses, and the gradients of Σ cotangent · loss by inputs and params."""

    def total(inputs, params, labels, where, cotangent):
        losses = VARIANTS[name].loss(inputs, labels, params, where)
        return (losses * cotangent).sum(), losses

    return jax.jit(jax.grad(total, (0, 1), has_aux=True))


def run(name, inputs, labels, params, where=None, cotangent=None):
    where = np.ones(labels.shape, bool) if where is None else where
    cotangent = np.ones(labels.shape, np.float32) if cotangent is None else cotangent
    gradients, losses = compiled(name)(inputs, params, labels, where, cotangent)
    return losses, gradients


@with_reference
def test_value_and_gradient_are_those_of_float64(name):
    inputs, labels, table = problem(name)
    reference = VARIANTS[name].reference
    x, w = np.float64(inputs), np.float64(table)
    expected = [reference(w @ h, y) for h, y in zip(x, labels.tolist(), strict=True)]
    cotangent = np.linspace(-1, 2, BATCH, dtype=np.float32)

    def total(x, w):
        scores = x @ w.T
        return sum(
            c * reference(s, y) for c, s, y in zip(cotangent, scores, labels.tolist(), strict=True)
        )

    losses, (d_inputs, d_table) = run(name, inputs, labels, table, cotangent=cotangent)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
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


@pytest.mark.parametrize("name", ["full", "blockwise", "sampled", "per_example", "one_vs_all"])
def test_narrow_inputs_keep_their_dtype_in_gradients_alone(name):
    inputs, labels, params = problem(name, dtype=jnp.bfloat16)
    losses, gradients = run(name, inputs, labels, params)
    assert losses.dtype == jnp.float32
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), (inputs, params))
    expected, _ = run(name, wide[0], labels, wide[1])
    np.testing.assert_allclose(losses, expected, rtol=2e-2, atol=2e-2)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    "name", ["blockwise", "sampled", "per_example", "one_vs_all", "adaptive", "two_level"]
)
def test_vmap_equals_a_leading_batch(name):
    inputs, labels, params = problem(name, batch=(2, 3))
    loss = lambda x, y: VARIANTS[name].loss(x, y, params, None)  # noqa: E731
    run = jax.jit(lambda: (loss(inputs, labels), jax.vmap(loss)(inputs, labels)))
    together, mapped = run()
    assert together.shape == (2, 3)
    np.testing.assert_allclose(together, mapped, rtol=1e-5, atol=1e-6)


@each
def test_extreme_scores_stay_finite(name):
    """Around ±1e4 neither value nor gradient overflows."""
    inputs, labels, params = problem(name)
    losses, gradients = run(name, 5e3 * inputs, labels, params)
    assert np.isfinite(losses).all() and (losses >= 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@each
def test_masked_examples_have_no_loss_whatever_they_hold(name):
    inputs, labels, params = problem(name)
    whole, _ = run(name, inputs, labels, params)
    broken, wrong = inputs.at[2].set(jnp.nan), labels.at[2].set(-5)
    losses, gradients = run(name, broken, wrong, params, np.arange(BATCH) != 2)
    np.testing.assert_allclose(losses, whole.at[2].set(0), rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    nothing = run(name, broken, wrong, params, np.zeros(BATCH, bool))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))


@each
def test_an_empty_batch(name):
    inputs, labels, params = problem(name, batch=(0,))
    losses = jax.eval_shape(lambda: VARIANTS[name].loss(inputs, labels, params, None))
    assert losses.shape == (0,)


@each
def test_a_label_of_no_class_is_refused_or_nan(name):
    """Refused if it is known, under differentiation too; else its loss is NaN, and no other."""
    inputs, labels, params = problem(name)
    whole, _ = run(name, inputs, labels, params)
    for label in (-1, CLASSES, 2**32 + 1):
        wrong = np.asarray(labels, np.int64)
        wrong[3] = label
        with pytest.raises(
            ValueError, match=rf"labels must be in \[0, 23\), got {label} at \(3,\)"
        ):
            jax.grad(lambda x, y=wrong: VARIANTS[name].loss(x, y, params, None).sum())(inputs)
        if label < 2**31:
            losses, _ = run(name, inputs, wrong.astype(np.int32), params)
            np.testing.assert_allclose(losses, whole.at[3].set(jnp.nan), rtol=1e-5, atol=1e-6)


@each
def test_labels_and_masks_that_do_not_fit(name):
    inputs, labels, params = problem(name)
    for change, message in (
        (dict(y=labels + 0.5), "labels must be integers, got dtype float32"),
        (dict(y=labels[:2]), r"labels must be \(7,\) or \(7, 'T'\)"),
        (dict(where=np.ones(3, bool)), r"where must have the labels' shape \(7,\), got \(3,\)"),
        (dict(x=np.float32(1)), "inputs must be"),
        (
            dict(x=inputs[:, :3]),
            r"(weights must be \[num_classes, 3\]|params must have the shapes)",
        ),
    ):
        given = dict(x=inputs, y=labels, where=None) | change
        with pytest.raises(ValueError, match=message):
            VARIANTS[name].loss(given["x"], given["y"], params, given["where"])


@with_reference
def test_an_empty_table_is_refused(name):
    with pytest.raises(ValueError, match="weights must have at least one class"):
        VARIANTS[name].loss(jnp.ones((1, DIM)), np.zeros(1, int), jnp.ones((0, DIM)), None)


def test_gradients_lower_for_accelerators():
    def total(inputs, labels, params):
        losses = [VARIANTS[name].loss(inputs, labels, params[name], None) for name in VARIANTS]
        return sum(loss.sum() for loss in losses)

    inputs, labels, _ = problem("full")
    params = {name: problem(name)[2] for name in VARIANTS}
    exported = jax.export.export(jax.jit(jax.grad(total, (0, 2))), platforms=("tpu", "cuda"))(
        inputs, labels, params
    )
    assert exported.platforms == ("tpu", "cuda")


def test_a_softmax_over_one_class_is_certain():
    inputs, labels = jnp.ones((3, DIM)), jnp.zeros(3, jnp.int32)

    @jax.jit
    def losses(one):
        params = {"head": {"weights": one}}
        return (
            softmax.full_softmax_loss(inputs, labels, one),
            softmax.blockwise_softmax_loss(inputs, labels, one),
            softmax.adaptive_softmax([1]).loss(params, inputs, labels),
        )

    for loss in losses(jnp.ones((1, DIM))):
        np.testing.assert_array_equal(loss, jnp.zeros(3))


@each
def test_a_score_of_infinity_is_certainty(name):
    """Of one class, and of two, which then share the probability."""
    inputs, _, params = problem(name, (3,))
    inputs, labels, far = jnp.abs(inputs), np.array([0, 1, CLASSES - 1]), np.inf
    certain = jax.tree.map(np.array, params)
    if name in clusters:
        for part in {"adaptive": ["head"], "two_level": ["clusters", "classes"]}[name]:
            certain[part]["weights"][0] = [far] + [0] * (DIM - 1)
        losses, _ = run(name, inputs, labels, certain)
        np.testing.assert_array_equal(losses, [0, far, far])
        log_p = clusters[name].log_prob(certain, inputs)
        assert (log_p[:, 0] == 0).all() and np.isneginf(log_p[:, 1:]).all()
        return
    is_sigmoid = VARIANTS[name].reference is sigmoids
    certain[0] = [far] + [0] * (DIM - 1)
    losses, _ = run(name, inputs, labels, certain)
    high, _ = run(name, inputs, labels, np.where(certain == far, 1e6, certain))
    np.testing.assert_allclose(losses, [high[0], far, far], rtol=1e-6)
    assert is_sigmoid or losses[0] == 0
    certain[1] = certain[0]
    losses, _ = run(name, inputs, labels, certain)
    together = [far, far, far] if is_sigmoid else [np.log(2), np.log(2), far]
    np.testing.assert_allclose(losses, together, rtol=1e-6)
