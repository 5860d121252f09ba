"""What a large resolver answers to every training alias: its best k places, computed once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from experiments.geonames import model
from experiments.geonames.config import Config
from experiments.geonames.data import Aliases
from jaxml import reports, softmax, train
from jaxml.types import Array, PyTree

__all__ = ["Answers", "answers", "found", "mixed"]

_BLOCKS = 64
_OTHERS = 1_024
_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """The best k places of training aliases, int32 [N, k], and their probabilities, float32 [N, k]."""

    ids: NDArray[np.int32]
    probabilities: NDArray[np.float32]


def answers(config: Config, aliases: Aliases, state: train.State, k: int) -> Answers:
    """Returns the answers of a resolver to the training aliases.

    A search of all places for each of a million aliases is 1.4e14 operations. So the places are cut
    into blocks of similar ones, and for an alias those blocks are searched that are most similar to the
    block of its place; the others' share of the partition function is estimated from a sample. `found`
    tells how many of the best are missed: with a teacher of 256 dimensions and k = 8, 73 % of the places,
    but most of them hold little. The k that are kept have 0.82 of the probability, the best of all places
    0.84; the first place's probability errs by 0.10 on average.

    Args:
        config: of the resolver.
        aliases: the data.
        state: of the resolver after training.
        k: places.
    """
    vectors = model.class_vectors(state)
    num_places = len(vectors)
    parts = softmax.neighbourhoods(vectors, jax.random.key(0), block_size=config.block_size)
    # An empty slot reads a vector of zeros, which the mask takes away.
    vectors = jnp.pad(vectors, ((0, 1), (0, 0)))
    means = vectors[parts.members].sum(1)
    near = jax.lax.top_k(means @ means.T, min(_BLOCKS, len(means)))[1]
    others = jax.random.randint(jax.random.key(1), (_OTHERS,), 0, num_places)

    @jax.jit
    def search(tables: PyTree, ngrams: Array, block: Array) -> tuple[Array, Array]:
        table, vectors, near, parts = tables
        inputs = model.encode(table, ngrams) / config.temperature
        ids = parts.members[near[block]].reshape(-1)
        scores = jnp.where((ids < num_places)[None], inputs @ vectors[ids].T, -jnp.inf)
        elsewhere = (parts.block[others][:, None] != near[block][None]).all(-1)
        sampled = jnp.where(elsewhere[None], inputs @ vectors[others].T, -jnp.inf)
        rest = jax.nn.logsumexp(sampled, axis=-1) + np.log(num_places / _OTHERS)
        total = jnp.logaddexp(jax.nn.logsumexp(scores, axis=-1), rest)
        best, at = jax.lax.top_k(scores, k)
        return ids[at], jnp.exp(best - total[:, None])

    tables = state.tables["ngrams"], vectors, near, parts
    pairs = aliases.names.train
    block_of = np.asarray(parts.block)[aliases.names.place[pairs]]
    order = np.argsort(block_of, kind="stable")
    ends = np.cumsum(np.bincount(block_of, minlength=len(means)))
    ids = np.zeros((len(pairs), k), np.int32)
    probabilities = np.zeros((len(pairs), k), np.float32)
    for block, members in enumerate(reports.progress(np.split(order, ends[:-1]), "teacher")):
        for start in range(0, len(members), _AT_ONCE):
            rows = members[start : start + _AT_ONCE]
            # The last ones are filled up, so that one program serves all.
            ngrams = aliases.ngrams[pairs[np.resize(rows, _AT_ONCE)]]
            best, shares = search(tables, ngrams, block)
            ids[rows], probabilities[rows] = best[: len(rows)], shares[: len(rows)]
    return Answers(ids, probabilities)


def found(
    config: Config, aliases: Aliases, state: train.State, given: Answers, sample: int
) -> dict[str, Any]:
    """Returns how the answers compare with a search of all places, on some aliases.

    Returns:
        `recall`, the share of the best k that was found; `probability`, the mean that they have; and
        `error`, the mean absolute error of the first place's probability.
    """
    rows = np.random.default_rng(0).choice(len(given.ids), min(sample, len(given.ids)), False)
    inputs = model.encode(state.tables["ngrams"], aliases.ngrams[aliases.names.train[rows]])
    vectors, k = model.class_vectors(state), given.ids.shape[1]
    parts = [
        softmax.top_k_probabilities(part / config.temperature, vectors, k=k)
        for part in jnp.array_split(inputs, max(1, len(inputs) // 256))
    ]
    shares, ids = (np.concatenate(each) for each in zip(*parts, strict=True))
    hit = (given.ids[rows][:, :, None] == ids[:, None]).any(1)
    return {
        "recall": float(hit.mean()),
        "probability": float(shares.sum(1).mean()),
        "error": float(np.abs(shares[:, 0] - given.probabilities[rows][:, 0]).mean()),
    }


def mixed(given: Answers, labels: NDArray[np.int32], alpha: float) -> Answers:
    """Returns targets of which the teacher has the share alpha, and the label the others.

    A cross-entropy is linear in its targets. A label that is not among the k takes the place of the last.
    """
    ids, probabilities = given.ids.copy(), alpha * given.probabilities
    is_label = ids == labels[:, None]
    absent = ~is_label.any(1)
    ids[absent, -1], probabilities[absent, -1] = labels[absent], 0.0
    is_label[absent, -1] = True
    return Answers(ids, (probabilities + (1 - alpha) * is_label).astype(np.float32))
