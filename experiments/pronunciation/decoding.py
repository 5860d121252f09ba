"""The most probable pronunciations of words, by beam search over the chunks of their letters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from experiments.pronunciation import analogy
from experiments.pronunciation.model import Pronouncer
from jaxml.types import Array, PyTree

__all__ = ["Found", "merged", "pronouncer", "search", "spoken"]


class Found(NamedTuple):
    """What a search has found, the most probable first.

    Attributes:
        chunks: int32 [B, K, T], of each letter.
        scores: float32 [B, K], log P of these chunks.
    """

    chunks: Array
    scores: Array


def search(network: Pronouncer, members: PyTree, seen: analogy.Seen, beam: int) -> Found:
    """Returns the chunks of words that a beam search finds.

    Args:
        network: of all members.
        members: their variables, stacked: each step takes the mean of the members' probabilities.
        seen: of the words; each has at least one letter.
        beam: K, hypotheses that are kept at each letter; 1 for the greedy choice.
    """
    words, width = seen.letters.shape
    encoded = jax.vmap(lambda each: network.apply(each, seen, method="encode"))(members)
    lengths = (seen.letters > 0).sum(1)

    def logits(
        variables: PyTree, at: Array, previous: Array, carry: PyTree
    ) -> tuple[Array, PyTree]:
        now = jnp.repeat(at, beam, 0)[:, None]
        found, carry = network.apply(
            variables, now, previous.reshape(-1, 1), carry, method="decode"
        )
        return jax.nn.log_softmax(found[:, 0]), carry

    def first(variables: PyTree, at: Array) -> PyTree:
        """The shapes of a decoder's state, zeros."""
        previous = jnp.zeros((words, beam), jnp.int32)
        return logits(variables, at, previous, None)[1]

    zeros = jax.tree.map(jnp.zeros_like, jax.vmap(first)(members, encoded[:, :, 0]))
    start = Found(
        jnp.zeros((words, beam, width), jnp.int32),
        jnp.where(jnp.arange(beam)[None] > 0, -jnp.inf, jnp.zeros((words, 1))),
    )

    def step(t: Array, before: tuple[Found, Array, PyTree]) -> tuple[Found, Array, PyTree]:
        found, previous, carry = before
        at = jax.lax.dynamic_index_in_dim(encoded, t, 2, keepdims=False)
        log_p, carry = jax.vmap(logits, (0, 0, None, 0))(members, at, previous, carry)
        log_p = logsumexp(log_p, 0) - jnp.log(len(log_p))
        log_p = log_p.reshape(words, beam, -1)
        # Behind the last letter nothing is added, and nothing is chosen.
        nothing = jnp.where(jnp.arange(log_p.shape[-1]) > 0, -jnp.inf, 0.0)[None, None]
        log_p = jnp.where((t < lengths)[:, None, None], log_p, nothing)
        total = (found.scores[..., None] + log_p).reshape(words, -1)
        scores, chosen = jax.lax.top_k(total, beam)
        parent, chunk = jnp.divmod(chosen, log_p.shape[-1])
        chunks = jnp.take_along_axis(found.chunks, parent[..., None], 1).at[:, :, t].set(chunk)
        rows = (jnp.arange(words)[:, None] * beam + parent).reshape(-1)
        carry = jax.tree.map(lambda leaf: leaf[:, rows], carry)
        return Found(chunks, scores), chunk, carry

    begun = (start, jnp.full((words, beam), network.num_chunks, jnp.int32), zeros)
    return jax.lax.fori_loop(0, lengths.max(), step, begun)[0]


def spoken(found: Found, phones: Any) -> Array:
    """Returns the phones of each hypothesis, int32 [B, K, 2T]: counted from 1, 0 past the end.

    Args:
        phones: int32 [C, 2], the phones of each chunk, -1 for none.
    """
    each = (jnp.asarray(phones) + 1)[found.chunks]
    each = each.reshape(*each.shape[:2], -1)
    order = jnp.argsort(each == 0, axis=-1, stable=True)
    return jnp.take_along_axis(each, order, -1)


def merged(said: Array, scores: Array) -> tuple[Array, Array]:
    """Returns pronunciations and their probabilities [B, K], the most probable first.

    Hypotheses with equal phones but other alignments are merged: the first gets the sum of their
    probabilities, the others 0.

    Args:
        said: [B, K, U], phones of each hypothesis.
        scores: [B, K], log P.
    """
    same = (said[:, :, None] == said[:, None]).all(-1)
    earlier = jnp.tril(jnp.ones(same.shape[1:], bool), -1)
    sums = (same * jnp.exp(scores)[:, None]).sum(-1)
    sums = jnp.where((same & earlier[None]).any(-1), 0.0, sums)
    probability, best = jax.lax.top_k(sums, sums.shape[1])
    return jnp.take_along_axis(said, best[..., None], 1), probability


def pronouncer(
    network: Pronouncer, phones: Any, *, beam: int, answers: int
) -> Callable[[PyTree, PyTree], dict[str, Array]]:
    """Returns the model that is served: the most probable pronunciations of words.

    Args:
        network: of all members.
        phones: int32 [C, 2], the phones of each chunk, -1 for none.
        beam: as in `search`.
        answers: A, pronunciations of a word, at most `beam`.

    Returns:
        `model((members, analogies), {"ids": int32 [B, T]})
        -> {"phones": int32 [B, A, 2T], "probability": [B, A]}`, phones counted from 1, and 0 past the end.
    """

    def model(params: PyTree, features: PyTree) -> dict[str, Array]:
        members, analogies = params
        found = search(network, members, analogy.look_up(analogies, features["ids"]), beam)
        said, probability = merged(spoken(found, phones), found.scores)
        return {"phones": said[:, :answers], "probability": probability[:, :answers]}

    return model
