"""Softmax in two steps: first a cluster of classes, then a class of the cluster.

    P(c | h) = P(cluster of c | h) · P(c | cluster of c, h)

Both factors are softmaxes, so the probabilities sum to one, and a loss needs the scores of one cluster
only. The price is in the model: classes compete within their cluster, and a class in a neglected cluster is
hard to find.

- `adaptive_softmax`: few clusters of falling frequency and rising size; the most frequent classes are in
  the first step themselves, and rare ones have short vectors.
- `two_level_softmax`: about √C clusters of about √C classes, all vectors of one length.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxml import checks, meshes
from jaxml.keys import as_key
from jaxml.softmax.logits import (
    TrueClasses,
    at_most_float32,
    at_most_largest,
    infinite,
    products,
    true_classes,
)
from jaxml.types import Array, Key, PyTree


class AdaptiveSoftmax(NamedTuple):
    """Four pure functions of an output layer with clusters.

    Attributes:
        init: `init(key, dim) -> params`, nested dicts of float32 arrays, uniform in ±1/√fan_in.
        loss: `loss(params, inputs, labels, *, where=None) -> float32 [*batch]`, the mean of −log P over the
            true classes.
        log_prob: `log_prob(params, inputs) -> float32 [*batch, num_classes]`, of every class.
        top_k: `top_k(params, inputs, k) -> (scores, ids)`, the k most probable classes: float32 log
            probabilities and int32 ids [*batch, k], best first, of equals the lower id first.
    """

    init: Callable[..., PyTree]
    loss: Callable[..., Array]
    log_prob: Callable[..., Array]
    top_k: Callable[..., tuple[Array, Array]]


def adaptive_softmax(
    cutoffs: Iterable[int], *, div_value: float = 4.0, head_bias: bool = False
) -> AdaptiveSoftmax:
    """Returns a layer that scores frequent classes at once, and rare ones through their cluster.

        P(c) = head_c                                           for c < c_1
        P(c) = head_(cluster i) · softmax(W_i P_i h)_c          for c_i <= c < c_(i+1)

    where head = softmax(H h) scores the c_1 most frequent classes and one entry for each tail cluster,
    and P_i projects the input to ⌊dim / div_value^i⌋ numbers, at least one (i = 1, 2, …).

    Params are `{"head": {"weights": [c_1 + tails, dim]}, "tail_0": {"projection": [h_0, dim],
    "weights": [n_0, h_0]}, "tail_1": …}`, with `"biases"` in the head if asked for: the arrays of PyTorch's
    `AdaptiveLogSoftmaxWithLoss`, whose output is −loss.

    **Cost.** The loss takes B · (c_1 + tails) head scores, and of each tail only the scores of the examples
    whose label lies there. The program holds each tail for B, B/4 and B/16 examples, and runs the smallest
    that suffices, so it is exact for any labels. Scores are computed again in the backward pass. Labels by
    Zipf's law over 10⁵ classes, dim 128, B = 512 and cutoffs [2000, 10000, 100000] took 0.25 × the time of
    the full softmax (loss and gradients, two CPU cores). Under `vmap` over labels all three sizes are
    computed: put the batch into the inputs' leading axes instead. `log_prob` and `top_k` score all classes.

    Args:
        cutoffs: ascending positive ints, at least one; the last is the number of classes. (PyTorch passes
            that one as `n_classes`.) `[num_classes]` alone is the full softmax. Class ids must be in order
            of falling frequency to gain from this.
        div_value: above 0; the ratio of the vector lengths of neighbouring tails.
        head_bias: whether the head adds a bias, which starts at 0.

    Example:
        >>> layer = adaptive_softmax([2, 6, 20])
        >>> params = layer.init(jax.random.key(0), 16)
        >>> params["head"]["weights"].shape, params["tail_1"]["weights"].shape
        ((4, 16), (14, 1))
        >>> layer.loss(params, jnp.ones((3, 16)), jnp.array([0, 5, 19])).shape
        (3,)

    References:
        Grave, Joulin, Cissé, Grangier & Jégou 2017, "Efficient softmax approximation for GPUs",
        section 4.
    """
    bounds = _cutoffs(cutoffs)
    div_value = checks.number("div_value", div_value, above=0)
    num_classes, first, tails = bounds[-1], bounds[0], len(bounds) - 1

    def shapes(dim: int) -> dict:
        head: dict[str, tuple[int, ...]] = {"weights": (first + tails, dim)}
        if head_bias:
            head["biases"] = (first + tails,)
        tree = {"head": head}
        for i in range(tails):
            hidden = max(1, int(dim // div_value ** (i + 1)))
            tree[f"tail_{i}"] = {
                "projection": (hidden, dim),
                "weights": (bounds[i + 1] - bounds[i], hidden),
            }
        return tree

    def head_logits(params: PyTree, inputs: Array) -> Array:
        logits = products(inputs, params["head"]["weights"])
        if not head_bias:
            return logits
        biases = jnp.asarray(params["head"]["biases"], jnp.float32)
        return logits + biases.reshape((1,) * (logits.ndim - 1) + biases.shape)

    def loss(params: PyTree, inputs: Any, labels: Any, *, where: Any = None) -> Array:
        params, inputs = _checked(params, inputs, shapes)
        true = true_classes(labels, where, inputs, num_classes)
        inputs, ids = _flat(inputs, true)
        if not ids.size:
            return jnp.zeros(true.ids.shape[:-1], jnp.float32)
        # Which tail, counted from 1; the first classes and masked ones (id -1) are in none.
        starts = jnp.asarray(bounds[:-1], jnp.int32).reshape(1, 1, -1)
        tail = (ids[..., None] >= starts).sum(-1)
        column = jnp.where(tail > 0, first - 1 + tail, jnp.maximum(ids, 0))
        losses = _negative_log_softmax(head_logits(params, inputs), column)
        by_tail = jnp.argsort(tail.ravel(), stable=True)
        for i in range(tails):
            table, count = params[f"tail_{i}"], (tail == i + 1).sum()
            losses += _tail_losses(
                *meshes.alike(
                    inputs,
                    table["projection"],
                    table["weights"],
                    jnp.where(tail == i + 1, ids - bounds[i], 0).ravel(),
                    jnp.roll(by_tail, -(tail <= i).sum()),
                    count,
                )
            ).reshape(ids.shape)
        return _mean(losses, true)

    def log_prob(params: PyTree, inputs: Any) -> Array:
        params, inputs = _checked(params, inputs, shapes)
        head = _log_softmax(head_logits(params, inputs))
        parts = [head[..., :first]]
        for i in range(tails):
            scores = _tail_logits(inputs, **params[f"tail_{i}"])
            parts.append(_log_softmax(scores) + head[..., first + i : first + i + 1])
        return jnp.concatenate(parts, axis=-1)

    return _layer(shapes, loss, log_prob, num_classes)


def two_level_softmax(num_classes: int, *, num_clusters: int | None = None) -> AdaptiveSoftmax:
    """Returns a layer that scores a cluster, then its classes: about 2√C scores in place of C.

        P(c) = softmax(U h)_(cluster of c) · softmax over the cluster's classes (W h)_c

    Clusters hold consecutive ids, and their sizes differ by one at most. Number the classes so that similar
    ones are neighbours: the first step can only learn what the classes of a cluster have in common.

    Params are `{"clusters": {"weights": [num_clusters, dim]}, "classes": {"weights":
    [num_classes, dim]}}`.

    **Cost.** The loss takes B · (num_clusters + T · C / num_clusters) scores, and gathers the rows of the
    labels' clusters, [B, T, C / num_clusters, dim]. The gradient of the params is dense. `log_prob` and
    `top_k` score all classes.

    `num_clusters` is an int in [1, num_classes], by default ⌈√num_classes⌉; 1 is the full softmax.

    Example:
        >>> layer = two_level_softmax(100)
        >>> params = layer.init(jax.random.key(0), 16)
        >>> float(jnp.exp(layer.log_prob(params, jnp.ones(16))).sum().round(5))
        1.0

    References:
        Goodman 2001, "Classes for fast maximum entropy training".
    """
    num_classes = checks.integer("num_classes", num_classes, 1)
    if num_clusters is None:
        num_clusters = math.isqrt(num_classes - 1) + 1
    num_clusters = checks.integer("num_clusters", num_clusters, 1, num_classes)
    # The first `longer` clusters hold one class more.
    shorter_size, longer = divmod(num_classes, num_clusters)
    width = shorter_size + (longer > 0)

    def cluster_of(ids: Array) -> Array:
        bound = longer * (shorter_size + 1)
        return jnp.where(
            ids < bound, ids // (shorter_size + 1), longer + (ids - bound) // shorter_size
        )

    def start_of(cluster: Array) -> Array:
        return cluster * shorter_size + jnp.minimum(cluster, longer)

    def members_of(cluster: Array) -> tuple[Array, Array]:
        """Ids [..., width] of the clusters' classes, and which slots are used."""
        slot = jnp.arange(width, dtype=jnp.int32).reshape((1,) * cluster.ndim + (width,))
        used = slot < (shorter_size + (cluster < longer))[..., None]
        return jnp.where(used, start_of(cluster)[..., None] + slot, 0), used

    def shapes(dim: int) -> dict:
        return {
            "clusters": {"weights": (num_clusters, dim)},
            "classes": {"weights": (num_classes, dim)},
        }

    def loss(params: PyTree, inputs: Any, labels: Any, *, where: Any = None) -> Array:
        params, inputs = _checked(params, inputs, shapes)
        true = true_classes(labels, where, inputs, num_classes)
        inputs, ids = _flat(inputs, true)
        if not ids.size:
            return jnp.zeros(true.ids.shape[:-1], jnp.float32)
        ids = jnp.maximum(ids, 0)
        cluster = cluster_of(ids)
        losses = _negative_log_softmax(products(inputs, params["clusters"]["weights"]), cluster)
        members, used = members_of(cluster)
        rows = jnp.take(params["classes"]["weights"], members, axis=0)
        # products() takes one axis of rows: T clusters of `width` classes are T · width classes.
        scores = products(inputs, rows.reshape(len(inputs), -1, inputs.shape[-1]))
        scores = jnp.where(used, scores.reshape(used.shape), -jnp.inf)
        position = (ids - start_of(cluster))[..., None]
        losses += _negative_log_softmax(scores, position)[..., 0]
        return _mean(losses, true)

    def log_prob(params: PyTree, inputs: Any) -> Array:
        params, inputs = _checked(params, inputs, shapes)
        scores = at_most_largest(products(inputs, params["classes"]["weights"]))
        members, used = members_of(jnp.arange(num_clusters, dtype=jnp.int32))
        used = used.reshape((1,) * (inputs.ndim - 1) + used.shape)
        within = jnp.where(used, jnp.take(scores, members, axis=-1), -jnp.inf)
        between = _log_softmax(products(inputs, params["clusters"]["weights"]))
        cluster = cluster_of(jnp.arange(num_classes, dtype=jnp.int32))
        of_cluster = (jax.nn.logsumexp(within, axis=-1), between)
        total, between = (jnp.take(each, cluster, axis=-1) for each in of_cluster)
        return between - infinite(total - scores)

    return _layer(shapes, loss, log_prob, num_classes)


# --- one tail of the adaptive softmax -----------------------------------------------------------


# As fractions of the batch; each is another program to compile for every tail.
_SIZES = (16, 4, 1)


@jax.custom_vjp
def _tail_losses(
    inputs: Array, projection: Array, weights: Array, columns: Array, order: Array, count: Array
) -> Array:
    """−log softmax(W P h) of the labels that lie in this tail, 0 of the others: float32 [N · T].

    For T labels to an input, `columns` int32 [N · T] are the labels' places in the tail, and `order` the
    places in `columns`, first those of the `count` labels in this tail.
    """
    return _at_size(_losses_of_some, order, count, inputs, projection, weights, columns)


def _tail_losses_forward(*arguments):
    return _tail_losses(*arguments), arguments


def _tail_losses_backward(arguments, cotangent):
    inputs, projection, weights, columns, order, count = arguments

    def gradients(size, order, count, inputs, projection, weights, columns, cotangent):
        def losses(inputs, projection, weights):
            return _losses_of_some(size, order, count, inputs, projection, weights, columns)

        return jax.vjp(losses, inputs, projection, weights)[1](cotangent)

    # Autodiff would store the residuals of every size.
    found = _at_size(gradients, order, count, inputs, projection, weights, columns, cotangent)
    return (*found, None, None, None)


_tail_losses.defvjp(_tail_losses_forward, _tail_losses_backward)


def _at_size(function: Callable, order: Array, count: Array, *arguments: Array):
    """`function(size, order, count, *arguments)` at the smallest static size that holds `count`."""
    sizes = sorted({-(-order.size // part) for part in _SIZES})
    choice = (count > np.array(sizes[:-1], np.int32)).sum()
    return lax.switch(choice, [partial(function, size) for size in sizes], order, count, *arguments)


def _losses_of_some(size, order, count, inputs, projection, weights, columns):
    """The losses of the first `count` labels of `order`; only `size` of them are computed."""
    chosen = order[:size]
    labels_each = columns.size // inputs.shape[0]
    scores = _tail_logits(inputs[chosen // labels_each], projection, weights)
    losses = _negative_log_softmax(scores, columns[chosen][:, None])[:, 0]
    losses = jnp.where(jnp.arange(size) < count, losses, 0.0)
    return jnp.zeros(columns.shape, jnp.float32).at[chosen].set(losses, unique_indices=True)


def _tail_logits(inputs: Array, projection: Array, weights: Array) -> Array:
    hidden = products(inputs, projection)
    # As narrow as the table that it meets, which may be large, and is not to be widened.
    return products(hidden.astype(at_most_float32(weights).dtype), weights)


# --- what both share ----------------------------------------------------------------------------


def _negative_log_softmax(logits: Array, columns: Array) -> Array:
    """−log softmax of logits [..., n] at columns [..., T]: [..., T]; keeps the digits of a small one."""
    logits = at_most_largest(logits)
    highest = lax.stop_gradient(logits.max(-1, keepdims=True))
    total = jnp.exp(logits - highest).sum(-1, keepdims=True)
    return jnp.log(total) + infinite(highest - jnp.take_along_axis(logits, columns, axis=-1))


def _log_softmax(logits: Array) -> Array:
    return -infinite(-jax.nn.log_softmax(at_most_largest(logits)))


def _flat(inputs: Array, true: TrueClasses) -> tuple[Array, Array]:
    """Inputs [N, D], zero (and not NaN) where an example has no label, and ids [N, T]."""
    inputs = jnp.where(true.present.any(-1, keepdims=True), inputs, 0)
    number = math.prod(inputs.shape[:-1])
    return inputs.reshape(number, inputs.shape[-1]), true.ids.reshape(number, true.ids.shape[-1])


def _mean(losses: Array, true: TrueClasses) -> Array:
    """The mean over the true classes of losses [N, T]: [*batch]."""
    losses = jnp.where(true.refused, jnp.nan, losses.reshape(true.ids.shape))
    total = jnp.where(true.present, losses, 0.0).sum(-1)
    return total / jnp.maximum(true.present.sum(-1), 1)


def _layer(
    shapes: Callable[[int], dict], loss: Callable, log_prob: Callable, num_classes: int
) -> AdaptiveSoftmax:
    def init(key: Key, dim: int) -> PyTree:
        tree = shapes(checks.integer("dim", dim, 1))
        leaves, structure = jax.tree.flatten(tree, is_leaf=lambda node: isinstance(node, tuple))
        keys = jax.random.split(as_key(key), len(leaves))
        return jax.tree.unflatten(structure, map(_initial, keys, leaves))

    def top_k(params: PyTree, inputs: Any, k: int) -> tuple[Array, Array]:
        return lax.top_k(log_prob(params, inputs), checks.integer("k", k, 1, num_classes))

    as_inputs = meshes.laid_out_as("inputs")
    return AdaptiveSoftmax(init, as_inputs(loss), as_inputs(log_prob), as_inputs(top_k))


def _initial(key: Key, shape: tuple[int, ...]) -> Array:
    if len(shape) == 1:
        return jnp.zeros(shape, jnp.float32)
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _checked(params: PyTree, inputs: Any, shapes: Callable[[int], dict]) -> tuple[PyTree, Array]:
    """Both as JAX arrays, or ValueError if they do not fit."""
    inputs = jnp.asarray(inputs)
    if not inputs.ndim or not inputs.shape[-1]:
        raise ValueError(f"inputs must be [*batch, dim] with dim >= 1, got {inputs.shape}")
    wanted, got = shapes(inputs.shape[-1]), jax.tree.map(jnp.shape, params)
    if wanted != got:
        raise ValueError(
            f"params must have the shapes {wanted} for inputs {inputs.shape}, got {got}"
        )
    return jax.tree.map(jnp.asarray, params), inputs


def _cutoffs(cutoffs: Iterable[int]) -> list[int]:
    try:
        bounds = [checks.integer("cutoffs", cutoff) for cutoff in cutoffs]
    except (TypeError, ValueError) as error:
        raise ValueError(f"cutoffs must be a list of ints, got {cutoffs!r}") from error
    if not bounds or bounds[0] < 1 or any(a >= b for a, b in itertools.pairwise(bounds)):
        raise ValueError(
            f"cutoffs must be ascending positive ints, at least the number of classes, got {bounds}"
        )
    return bounds
