"""The network: an encoder of letters in both directions, and a decoder of what each letter stands for.

Beside each letter the encoder is told the letters around it, and what other words say of it (`analogy`).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.pronunciation import analogy
from jaxml import checks, models
from jaxml.data import cmudict
from jaxml.types import Array, PyTree

__all__ = ["Pronouncer", "Size"]


_WINDOW = 5
"""Letters that the encoder is told one by one."""
_ALPHABET = 1 + len(cmudict.LETTERS)
_CHUNK_FEATURES = 16
"""Length of the vector of a chunk, one that other words say or the one before."""
_EMBEDDING = nn.initializers.normal(0.1)


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a network is."""

    encoder_features: int = 128
    """Units of the encoder, in one direction."""
    decoder_features: int = 192
    """Units of the decoder."""


class Pronouncer(nn.Module):
    """Logits of the chunk of phones that each letter stands for, given those of the letters before.

    Attributes:
        size: of encoder and decoder.
        num_chunks: C.
        dropout: share of units that are dropped behind encoder and decoder in training, in [0, 0.5).
    """

    size: Size
    num_chunks: int
    dropout: float = 0.0

    def setup(self) -> None:
        size = self.size
        checks.number("dropout", self.dropout, at_least=0, below=0.5)
        rows = 1 + self.num_chunks
        self.said = nn.Embed(
            len(analogy.CONTEXTS) * rows, _CHUNK_FEATURES, embedding_init=_EMBEDDING
        )
        self.previous = nn.Embed(rows, _CHUNK_FEATURES, embedding_init=_EMBEDDING)
        self.encoder = models.Recurrent("gru", size.encoder_features, bidirectional=True)
        self.decoder = models.Recurrent("gru", size.decoder_features)
        self.outputs = nn.Dense(self.num_chunks)
        self.drop = nn.Dropout(self.dropout)

    def encode(self, seen: analogy.Seen, training: bool = False) -> Array:
        """Returns what the decoder is told of each letter, float32 [B, T, E]."""
        letters, near = seen.letters, _WINDOW // 2
        around = jnp.pad(letters, ((0, 0), (near, near)))
        one_hot = jax.nn.one_hot(around, _ALPHABET)
        parts = [one_hot[:, place : place + letters.shape[1]] for place in range(_WINDOW)]
        tables = jnp.arange(len(analogy.CONTEXTS)) * (1 + self.num_chunks)
        said = self.said(tables[None, None] + seen.chunks)
        parts += [each.reshape(*letters.shape, -1) for each in (said, seen.evidence)]
        encoded, _ = self.encoder(jnp.concatenate(parts, -1), lengths=(letters > 0).sum(1))
        return self.drop(encoded, deterministic=not training)

    def decode(
        self, encoded: Array, previous: Array, carry: PyTree | None = None, training: bool = False
    ) -> tuple[Array, PyTree]:
        """Returns the logits of the chunks [B, T, C], and the state of the decoder.

        Args:
            encoded: float32 [B, T, E], of some letters.
            previous: int32 [B, T], the chunk of the letter before each; C before the first.
            carry: the state before these letters, None at the beginning of the word.
        """
        before = self.previous(previous)
        states, carry = self.decoder(jnp.concatenate([encoded, before], -1), carry=carry)
        return self.outputs(self.drop(states, deterministic=not training)), carry

    def __call__(self, x: Any, training: bool = False) -> Array:
        """Returns the logits [B, T, C] of the chunks, given the right ones before.

        Args:
            x: `seen`, and `chunks` int32 [B, T], of which the last is not read.
        """
        first = jnp.full_like(x["chunks"][:, :1], self.num_chunks)
        previous = jnp.concatenate([first, x["chunks"][:, :-1]], 1)
        return self.decode(self.encode(x["seen"], training), previous, training=training)[0]
