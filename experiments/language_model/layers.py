"""Output layers over a large vocabulary behind one interface."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from numpy.typing import NDArray

from jaxml import checks, softmax, tables, train
from jaxml.types import Array, Key, PyTree

SAMPLERS = ("log_uniform", "unigram", "in_batch", "streaming_unigram")
NAMES = ("exact", "adaptive", *SAMPLERS)
CLASSES = "classes"
"""The table of output vectors, where a layer has one."""


class Layer(NamedTuple):
    """An output layer over states [B, T, D] of the network.

    Attributes:
        init: `init(key) -> tables` by name; one with a row for each word is called `CLASSES`.
        lookup: `lookup(sampler_state, labels, key) -> (ids, context)`, the rows of a step.
        losses: `losses(rows, states, labels, context) -> float32 [B, T]`.
        exact: `exact(tables, states, labels) -> float32 [B, T]`, with whole tables; 0 where a label is
            negative.
        sampler_state: before the first step.
        observe: `observe(sampler_state, labels, accepted) -> sampler_state`, after a step.
    """

    init: Callable[[Key], dict[str, Array]]
    lookup: Callable[[PyTree, Array, Key], tuple[dict[str, Any], PyTree]]
    losses: Callable[[dict[str, Any], Array, Array, PyTree], Array]
    exact: Callable[[dict[str, Array], Array, Array], Array]
    sampler_state: PyTree = ()
    observe: Callable[[PyTree, Array, Array], PyTree] = lambda state, labels, accepted: state


def layer(
    name: str, counts: NDArray[np.int64], *, dim: int, batch_size: int, num_sampled: int
) -> Layer:
    """Returns a layer of `NAMES` for words that occur `counts` [V] times, decreasing from the third on.

    A word's logit is the product of its vector and the state, plus the logarithm of its share of the text,
    which is not trained: before the first step the model is that of single words. (The adaptive softmax has
    such a bias in its head alone.)

    Args:
        name: of the layer.
        counts: of the training part.
        dim: length of the vectors.
        batch_size: words of a step.
        num_sampled: candidates of a step, shared by its words; `in_batch` has those of the batch.
    """
    checks.choice("layer", name, NAMES)
    share = log_shares(counts)
    if name == "adaptive":
        return _adaptive(share, dim)
    if name == "exact":
        return _whole(share, dim)
    setup = softmax.SAMPLERS[name](np.maximum(counts, 1), batch_size, num_sampled)
    return _sampled(setup, share, dim)


def log_shares(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the logarithm of each word's share of the text, float32 [V]; no count is below 1."""
    return np.log(np.maximum(counts, 1) / counts.sum()).astype(np.float32)


def _classes(size: int, dim: int, key: Key) -> dict[str, Array]:
    return {CLASSES: tables.init_table(key, size, dim)}


def _exact(biases: NDArray[np.float32], held: dict[str, Array], states, labels) -> Array:
    return softmax.blockwise_softmax_loss(states, labels, held[CLASSES], biases, where=labels >= 0)


def _whole(biases: NDArray[np.float32], dim: int) -> Layer:
    return Layer(
        init=partial(_classes, len(biases), dim),
        lookup=lambda sampler_state, labels, key: ({CLASSES: train.Whole()}, ()),
        losses=lambda rows, states, labels, context: _exact(biases, rows, states, labels),
        exact=partial(_exact, biases),
    )


def _sampled(setup: softmax.Setup, biases: NDArray[np.float32], dim: int) -> Layer:
    sampler = setup.sampler

    def lookup(sampler_state: PyTree, labels: Array, key: Key):
        drawn = sampler.sample(sampler_state, key, labels, setup.num_sampled, unique=setup.unique)
        return {CLASSES: {"true": labels, "candidates": drawn.ids}}, drawn

    def losses(rows: dict[str, Any], states: Array, labels: Array, drawn) -> Array:
        return softmax.sampled_softmax_loss_from_rows(
            states,
            rows[CLASSES]["true"],
            rows[CLASSES]["candidates"],
            labels,
            drawn,
            true_biases=jnp.asarray(biases)[labels],
            sampled_biases=jnp.take(jnp.asarray(biases), drawn.ids, mode="clip"),
            correction="negatives",
            num_classes=len(biases),
        )

    def observe(sampler_state: PyTree, labels: Array, accepted: Array) -> PyTree:
        return sampler.update(sampler_state, labels, where=jnp.broadcast_to(accepted, labels.shape))

    return Layer(
        init=partial(_classes, len(biases), dim),
        lookup=lookup,
        losses=losses,
        exact=partial(_exact, biases),
        sampler_state=sampler.init(),
        observe=observe,
    )


def _adaptive(share: NDArray[np.float32], dim: int) -> Layer:
    size = len(share)
    cutoffs = sorted({max(1, size // 40), max(1, size // 8), size})
    of = softmax.adaptive_softmax(cutoffs, head_bias=True)

    parts = np.split(np.exp(share), cutoffs[:-1])
    biases = np.log([*parts[0], *(part.sum() for part in parts[1:])])

    def init(key: Key) -> dict[str, Array]:
        made = of.init(key, dim)
        made["head"]["biases"] = jnp.asarray(biases, jnp.float32)
        return traverse_util.flatten_dict(made, sep="/")

    def losses(held: dict[str, Array], states: Array, labels: Array) -> Array:
        params = {name: part for name, part in held.items() if "/" in name}
        params = traverse_util.unflatten_dict(params, sep="/")
        return of.loss(params, states, labels, where=labels >= 0)

    names = jax.eval_shape(init, jax.random.key(0))
    return Layer(
        init=init,
        lookup=lambda sampler_state, labels, key: (dict.fromkeys(names, train.Whole()), ()),
        losses=lambda rows, states, labels, context: losses(rows, states, labels),
        exact=losses,
    )
