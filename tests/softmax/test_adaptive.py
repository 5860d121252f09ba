"""Softmax by clusters: against the published formulas in float64, example by example."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax import adaptive_softmax, two_level_softmax

CUTOFFS = [3, 8, 9, 25]  # a tail of a single class among them
DIM = 12
LAYERS = {
    "adaptive": adaptive_softmax(CUTOFFS, div_value=2.0),
    "adaptive, biased": adaptive_softmax([9, 25], head_bias=True),
    "two levels": two_level_softmax(25, num_clusters=7),
}
NUM_CLASSES = 25
each = pytest.mark.parametrize("name", LAYERS)


def log_softmax(scores):
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def adaptive_reference(params, h, cutoffs):
    """log P of every class for one input: Grave et al., as PyTorch's AdaptiveLogSoftmaxWithLoss."""
    head = log_softmax(params["head"]["weights"] @ h + params["head"].get("biases", 0))
    parts = [head[: cutoffs[0]]]
    for i in range(len(cutoffs) - 1):
        tail = params[f"tail_{i}"]
        parts.append(head[cutoffs[0] + i] + log_softmax(tail["weights"] @ tail["projection"] @ h))
    return np.concatenate(parts)


def two_level_reference(params, h, num_classes, num_clusters):
    clusters = log_softmax(params["clusters"]["weights"] @ h)
    members = np.array_split(np.arange(num_classes), num_clusters)  # the longer ones come first
    scores = params["classes"]["weights"] @ h
    return np.concatenate([clusters[i] + log_softmax(scores[m]) for i, m in enumerate(members)])


def reference(name, params, inputs):
    params = jax.tree.map(np.float64, params)
    cutoffs = {"adaptive": CUTOFFS, "adaptive, biased": [9, 25]}
    flat = np.float64(inputs).reshape(-1, inputs.shape[-1])
    if name.startswith("adaptive"):
        rows = [adaptive_reference(params, h, cutoffs[name]) for h in flat]
    else:
        rows = [two_level_reference(params, h, 25, 7) for h in flat]
    return np.stack(rows).reshape(*inputs.shape[:-1], NUM_CLASSES)


@cache
def params_of(name, scale=3.0):
    params = LAYERS[name].init(jax.random.key(0), DIM)
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(1)  # biases start at 0, which would test nothing
    leaves = [jnp.float32(scale * x + 0.3 * rng.normal(size=x.shape)) for x in leaves]
    return jax.tree.unflatten(structure, leaves)


def batch(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return np.float32(rng.normal(size=(*shape, DIM))), rng.integers(0, NUM_CLASSES, shape)


# --- value and gradient -------------------------------------------------------------------------


@each
def test_log_probabilities_are_the_published_formula_and_sum_to_one(name):
    inputs, _ = batch(2, 3)
    got = jax.jit(LAYERS[name].log_prob)(params_of(name), inputs)
    assert (got.shape, got.dtype) == ((2, 3, NUM_CLASSES), jnp.float32)
    np.testing.assert_allclose(got, reference(name, params_of(name), inputs), rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(np.float64(got)).sum(-1), 1, rtol=1e-5)


@cache
def compiled_loss(name):
    """`loss_and_gradients(params, inputs, labels, where, cotangent)`, compiled once for all tests."""

    def total(params, inputs, labels, where, cotangent):
        losses = LAYERS[name].loss(params, inputs, labels, where=where)
        return (losses * cotangent).sum(), losses

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


def loss_and_gradients(name, params, inputs, labels, where=None, cotangent=None):
    where = np.ones(labels.shape, bool) if where is None else where
    cotangent = np.ones(len(labels), np.float32) if cotangent is None else cotangent
    (_, losses), gradients = compiled_loss(name)(params, inputs, labels, where, cotangent)
    return losses, gradients


def every_label():
    """25 inputs; the labels [25, 2] name every class twice."""
    inputs, _ = batch(NUM_CLASSES)
    return inputs, np.stack([np.arange(NUM_CLASSES), (7 * np.arange(NUM_CLASSES) + 3) % 25], 1)


@each
def test_value_and_gradients_are_those_of_float64(name):
    params, (inputs, labels) = params_of(name), every_label()
    rng = np.random.default_rng(0)
    cotangent = np.float32(rng.normal(size=NUM_CLASSES))
    where = rng.random(labels.shape) < 0.7

    where[0] = False  # Whatever its input and its labels are.

    def losses_of(params, inputs):
        log_probs = np.take_along_axis(reference(name, params, inputs), labels, axis=1)
        return -(log_probs * where).sum(1) / np.maximum(where.sum(1), 1)

    def total(params, inputs):
        return (losses_of(params, inputs) * cotangent).sum()

    shown = np.where(where, labels, 99)
    losses, got = loss_and_gradients(name, params, inputs, shown, where, cotangent)
    np.testing.assert_allclose(losses, losses_of(params, inputs), rtol=2e-5, atol=1e-5)
    point = jax.tree.map(np.float64, (params, inputs))
    for _ in range(5):
        step = jax.tree.map(lambda x: 1e-5 * rng.normal(size=x.shape), point)
        ahead = total(*jax.tree.map(np.add, point, step))
        behind = total(*jax.tree.map(np.subtract, point, step))
        slopes = jax.tree.map(lambda g, d: np.sum(np.float64(g) * d), got, step)
        slope = 2 * sum(jax.tree.leaves(slopes))
        np.testing.assert_allclose(slope, ahead - behind, rtol=2e-4, atol=1e-9)


def test_the_loss_is_exact_whatever_share_of_the_batch_is_in_the_tail():
    """Each of the static sizes is taken, just filled, and overfull by one."""
    size = 33
    layer = adaptive_softmax([9, 25])
    params = jax.tree.map(lambda x: 3 * x, layer.init(jax.random.key(0), DIM))
    inputs, _ = batch(size)

    def dense(params, labels):
        return -jnp.take_along_axis(layer.log_prob(params, inputs), labels[:, None], axis=1)[:, 0]

    def pull(losses, params):
        return jax.vjp(losses, params)[1](jnp.arange(1.0, size + 1))[0]

    both = jax.jit(
        lambda params, labels: [
            (losses(params), pull(losses, params))
            for losses in (lambda p: layer.loss(p, inputs, labels), lambda p: dense(p, labels))
        ]
    )
    edges = {0, 1, size, *(-(-size // part) + more for part in (4, 16) for more in (0, 1))}
    for count in sorted(edge for edge in edges if edge <= size):
        labels = np.r_[9 + np.arange(count) % 16, np.ones(size - count, int)]
        labels = np.random.default_rng(count).permutation(labels)
        got, wanted = both(params, labels)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), got, wanted
        )


# --- top k --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, k", [("adaptive", 4), ("adaptive", 25), ("adaptive, biased", 1), ("two levels", 4)]
)
def test_top_k_is_the_head_of_a_stable_sort(name, k):
    inputs, _ = batch(2, 3)
    scores, ids = jax.jit(LAYERS[name].top_k, static_argnums=2)(params_of(name), inputs, k)
    log_probs = reference(name, params_of(name), inputs)
    wanted = np.argsort(-log_probs, axis=-1, kind="stable")[..., :k]
    assert (scores.dtype, ids.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(ids, wanted)
    np.testing.assert_allclose(
        scores, np.take_along_axis(log_probs, wanted, -1), rtol=2e-5, atol=1e-5
    )


def test_shapes_are_those_of_pytorch():
    layer = adaptive_softmax([10, 40, 100, 1000], head_bias=True)
    params = jax.jit(layer.init, static_argnums=1)(jax.random.key(0), 40)
    assert jax.tree.map(jnp.shape, params) == {
        "head": {"weights": (13, 40), "biases": (13,)},
        "tail_0": {"projection": (10, 40), "weights": (30, 10)},
        "tail_1": {"projection": (2, 40), "weights": (60, 2)},
        # int(40 // 4**3) is 0 there, and no class can be told from another.
        "tail_2": {"projection": (1, 40), "weights": (900, 1)},
    }
    weights = np.asarray(params["head"]["weights"])
    assert 0.9 / 40**0.5 < np.abs(weights).max() <= 1 / 40**0.5
    assert not np.any(params["head"]["biases"])


# --- pure functions -----------------------------------------------------------------------------


def test_the_loss_of_two_levels_never_scores_all_classes():
    layer = two_level_softmax(10_000)
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), 4))
    text = str(jax.make_jaxpr(layer.loss)(params, jnp.ones((8, 4)), jnp.zeros(8, jnp.int32)))
    assert "[8,100]" in text and "8,10000" not in text


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: adaptive_softmax([]), r"cutoffs must be ascending positive ints, .* got \[\]"),
        (lambda: adaptive_softmax([2.5, 5]), r"cutoffs must be a list of ints, got \[2\.5, 5\]"),
        (lambda: adaptive_softmax([5, 9], div_value=0), "div_value must be .* above 0, got 0"),
        (lambda: two_level_softmax(0), "num_classes must be .*, got 0"),
        (
            lambda: two_level_softmax(4, num_clusters=5),
            r"num_clusters must be .* \[1, 4\], got 5",
        ),
    ],
)
def test_layers_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@each
def test_arguments_that_do_not_fit(name):
    layer, params = LAYERS[name], params_of(name)
    inputs, _ = batch(4)
    with pytest.raises(ValueError, match="params must have the shapes"):
        layer.log_prob(params, inputs[:, :5])
    for k in (0, 26):
        with pytest.raises(ValueError, match=rf"k must be .* \[1, 25\], got {k}"):
            layer.top_k(params, inputs, k)
    with pytest.raises(ValueError, match=r"dim must be .*, got 0"):
        layer.init(jax.random.key(0), 0)


@pytest.mark.parametrize(
    ("num_classes", "num_clusters", "rows"),
    [(1, None, 1), (5, 5, 5), (9, None, 3)],
)
def test_any_small_number_of_classes_in_any_number_of_clusters(num_classes, num_clusters, rows):
    layer = two_level_softmax(num_classes, num_clusters=num_clusters)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), 2))
    assert shapes["clusters"]["weights"].shape == (rows, 2)
    rng = np.random.default_rng(num_classes)
    params = jax.tree.map(lambda shape: np.float32(rng.normal(size=shape.shape)), shapes)
    h = np.float32([1.0, -0.5])
    wanted = two_level_reference(params, h, num_classes, rows)
    both = jax.jit(lambda p: (layer.log_prob(p, h), layer.loss(p, h[None], jnp.array([0]))))
    log_probs, losses = both(params)
    np.testing.assert_allclose(log_probs, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses, -wanted[:1], rtol=1e-5, atol=1e-6)
