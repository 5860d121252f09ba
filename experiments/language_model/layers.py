"""Output layers over a large vocabulary behind one interface."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml import checks, softmax, train
from jaxml.types import Array, Key, PyTree

SAMPLERS = ("log_uniform", "unigram", "in_batch", "streaming_unigram")
NAMES = ("exact", "adaptive", *SAMPLERS)
CLASSES = "classes"
"""The table of output vectors, where a layer has one."""


LEARNING_RATES = dict.fromkeys(NAMES, (0.2, 0.002)) | {"adaptive": (0.1, 0.002)}
"""Of Adagrad for the tables, and of Adam for the rest."""


class Layer(NamedTuple):
    """An output layer over states [B, T, D] of the network.

    Attributes:
        params: `params(key) -> pytree`, what the dense optimizer trains.
        has_table: whether the layer has the table `CLASSES` [V, D].
        lookup: `lookup(sampler_state, labels, key) -> (ids, context)`, the rows of a step.
        losses: `losses(params, rows, states, labels, context) -> float32 [B, T]`.
        exact: `exact(params, classes, states, labels) -> float32 [B, T]`, with the whole table; 0 where a
            label is negative.
        sampler_state: before the first step.
        observe: `observe(sampler_state, labels, accepted) -> sampler_state`, after a step.
    """

    params: Callable[[Key], PyTree]
    has_table: bool
    lookup: Callable[[PyTree, Array, Key], tuple[dict[str, Any], PyTree]]
    losses: Callable[[PyTree, dict[str, Any], Array, Array, PyTree], Array]
    exact: Callable[[PyTree, Any, Array, Array], Array]
    sampler_state: PyTree = ()
    observe: Callable[[PyTree, Array, Array], PyTree] = lambda state, labels, accepted: state


def layer(
    name: str, counts: NDArray[np.int64], *, dim: int, batch_size: int, num_sampled: int
) -> Layer:
    """Returns a layer of `NAMES` for words that occur `counts` [V] times, falling from the third on.

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
        return _whole(share)
    setup = softmax.SAMPLERS[name](np.maximum(counts, 1), batch_size, num_sampled)
    return _sampled(setup, share)


def log_shares(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the logarithm of each word's share of the text, float32 [V]; no count is below 1."""
    return np.log(np.maximum(counts, 1) / counts.sum()).astype(np.float32)


def _exact(biases: NDArray[np.float32], params: PyTree, classes: Array, states, labels) -> Array:
    return softmax.blockwise_softmax_loss(states, labels, classes, biases, where=labels >= 0)


def _whole(biases: NDArray[np.float32]) -> Layer:
    return Layer(
        params=lambda key: {},
        has_table=True,
        lookup=lambda sampler_state, labels, key: ({CLASSES: train.Whole()}, ()),
        losses=lambda params, rows, states, labels, context: _exact(
            biases, params, rows[CLASSES], states, labels
        ),
        exact=partial(_exact, biases),
    )


def _sampled(setup: softmax.Setup, biases: NDArray[np.float32]) -> Layer:
    sampler = setup.sampler

    def lookup(sampler_state: PyTree, labels: Array, key: Key):
        drawn = sampler.sample(sampler_state, key, labels, setup.num_sampled, unique=setup.unique)
        return {CLASSES: {"true": labels, "candidates": drawn.ids}}, drawn

    def losses(params: PyTree, rows: dict[str, Any], states: Array, labels: Array, drawn) -> Array:
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
        params=lambda key: {},
        has_table=True,
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

    def params(key: Key) -> PyTree:
        made = of.init(key, dim)
        parts = np.split(np.exp(share), cutoffs[:-1])
        biases = np.concatenate([parts[0], [part.sum() for part in parts[1:]]])
        made["head"]["biases"] = jnp.asarray(np.log(biases), jnp.float32)
        return made

    return Layer(
        params=params,
        has_table=False,
        lookup=lambda sampler_state, labels, key: ({}, ()),
        losses=lambda params, rows, states, labels, context: of.loss(params, states, labels),
        exact=lambda params, classes, states, labels: of.loss(
            params, states, labels, where=labels >= 0
        ),
    )
