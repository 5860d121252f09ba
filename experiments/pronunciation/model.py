"""The network: an encoder of letters in both directions, and a decoder of what each letter stands for."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxml import models
from jaxml.data import cmudict
from jaxml.types import Array, PyTree

__all__ = ["Pronouncer", "Size"]


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a network is."""

    cell: str = "gru"
    """Recurrent cell of encoder and decoder."""
    encoder_layers: int = 2
    """Layers of the encoder."""
    encoder_features: int = 192
    """Units of each of its layers, in one direction."""
    decoder_features: int = 256
    """Units of the decoder."""


class Pronouncer(nn.Module):
    """Logits of the chunk of phones that each letter stands for, given those of the letters before.

    Attributes:
        size: of encoder and decoder.
        num_chunks: C.
        dropout: share of units that are dropped behind every layer in training.
    """

    size: Size
    num_chunks: int
    dropout: float = 0.0

    def setup(self) -> None:
        size = self.size
        self.encoder = models.Recurrent(
            size.cell,
            size.encoder_features,
            size.encoder_layers,
            bidirectional=True,
            dropout=self.dropout,
        )
        self.decoder = models.Recurrent(size.cell, size.decoder_features)
        self.outputs = nn.Dense(self.num_chunks)
        self.drop = nn.Dropout(self.dropout)

    def encode(self, letters: Array, training: bool = False) -> Array:
        """Returns what the decoder is told of each letter, float32 [B, T, E].

        Args:
            letters: int32 [B, T], 0 past the end.
        """
        # Each letter with its neighbours.
        around = jnp.pad(letters, ((0, 0), (1, 1)))
        seen = jax.nn.one_hot(around, 1 + len(cmudict.LETTERS))
        window = jnp.concatenate([seen[:, :-2], seen[:, 1:-1], seen[:, 2:]], -1)
        encoded, _ = self.encoder(window, lengths=(letters > 0).sum(1), training=training)
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
        before = jax.nn.one_hot(previous, self.num_chunks + 1)
        states, carry = self.decoder(jnp.concatenate([encoded, before], -1), carry=carry)
        return self.outputs(self.drop(states, deterministic=not training)), carry

    def __call__(self, x: Any, training: bool = False) -> Array:
        """Returns the logits [B, T, C] of the chunks, given the right ones before.

        Args:
            x: `letters` int32 [B, T], and `chunks` int32 [B, T], of which the last is not read.
        """
        first = jnp.full_like(x["chunks"][:, :1], self.num_chunks)
        previous = jnp.concatenate([first, x["chunks"][:, :-1]], 1)
        return self.decode(self.encode(x["letters"], training), previous, training=training)[0]
