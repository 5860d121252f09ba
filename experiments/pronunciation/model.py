"""The network: an encoder of letters in both directions, and a decoder of what each letter stands for.

Beside each letter the encoder is told the letters around it, as rows of tables: one for each group of three
letters, one for each of five. A table learns in one pass what a stem sounds like, and costs no product.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks, models
from jaxml.data import cmudict
from jaxml.types import Array, PyTree

__all__ = ["Pronouncer", "Size"]


_GROUPS = (3, 5)
"""Letters of a group: one and its neighbours."""
_WINDOW = 5
"""Letters that the encoder is told one by one."""
_ALPHABET = 1 + len(cmudict.LETTERS)
_TABLE_INIT = nn.initializers.normal(0.1)


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a network is."""

    encoder_features: int = 192
    """Units of the encoder, in one direction."""
    decoder_features: int = 256
    """Units of the decoder."""
    table_rows: int = 65_536
    """Rows of a table of groups of letters; rare groups share them."""
    table_features: int = 32
    """Length of a row."""


class Pronouncer(nn.Module):
    """Logits of the chunk of phones that each letter stands for, given those of the letters before.

    Attributes:
        size: of encoder and decoder.
        num_chunks: C.
        dropout: share of units that are dropped behind every layer in training, in [0, 0.5); twice that of
            the tables' rows, or what they know by heart would count for more than it does for new words.
    """

    size: Size
    num_chunks: int
    dropout: float = 0.0

    def setup(self) -> None:
        size = self.size
        checks.number("dropout", self.dropout, at_least=0, below=0.5)
        self.tables = [
            nn.Embed(rows_of(number, size), size.table_features, embedding_init=_TABLE_INIT)
            for number in _GROUPS
        ]
        self.encoder = models.Recurrent("gru", size.encoder_features, bidirectional=True)
        self.decoder = models.Recurrent("gru", size.decoder_features)
        self.outputs = nn.Dense(self.num_chunks)
        self.drop = nn.Dropout(self.dropout)
        self.drop_rows = nn.Dropout(2 * self.dropout, broadcast_dims=(-1,))

    def encode(self, letters: Array, training: bool = False) -> Array:
        """Returns what the decoder is told of each letter, float32 [B, T, E].

        Args:
            letters: int32 [B, T], 0 past the end.
        """
        length, near = letters.shape[1], _WINDOW // 2
        around = jnp.pad(letters, ((0, 0), (near, near)))
        one_hot = jax.nn.one_hot(around, _ALPHABET)
        seen = [one_hot[:, place : place + length] for place in range(_WINDOW)]
        for number, table in zip(_GROUPS, self.tables, strict=True):
            rows = table(groups(letters, number) % rows_of(number, self.size))
            seen.append(self.drop_rows(rows, deterministic=not training))
        encoded, _ = self.encoder(jnp.concatenate(seen, -1), lengths=(letters > 0).sum(1))
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


def rows_of(number: int, size: Size) -> int:
    """Returns the rows of the table of groups of so many letters."""
    return min(size.table_rows, _ALPHABET**number)


def groups(letters: Array, number: int) -> Array:
    """Returns a number for each letter and its neighbours, int32 [B, T], at least 0.

    Two groups of five letters may have the same number.
    """
    half = number // 2
    around = jnp.pad(letters, ((0, 0), (half, half))).astype(jnp.uint32)
    code = jnp.zeros(letters.shape, jnp.uint32)
    for place in range(number):
        code = code * _ALPHABET + around[:, place : place + letters.shape[1]]
    if number > 3:
        code = (code * np.uint32(2654435761)) >> 7  # Knuth's: similar groups get numbers far apart.
    return (code & 0x7FFFFFFF).astype(jnp.int32)
