"""Models of tables: an embedding for each categorical column, and an MLP on all columns."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxml import checks
from jaxml.ids import as_int32
from jaxml.models.mlp import MLP
from jaxml.types import Array, PyTree

__all__ = ["Embedding", "TabularMLP"]

OutOfRange = Literal["nan", "unknown"]


class Embedding(nn.Module):
    """Rows `ids` of a table `[vocabulary_size, d]`: `flax.linen.Embed` that handles ids out of range.

    With JAX's indexing −1 is the last row. Here an id outside of `[0, vocabulary_size)` gives a vector of
    NaN, so that no loss hides it, or the extra last row of unknown ids. That row learns only if training
    has such ids (drop some ids at random, or count rare ones as unknown).

    Attributes:
        vocabulary_size: at least 1, without the row of unknown ids.
        embedding_dim: d, at least 1.
        out_of_range: `"nan"` or `"unknown"`.
    """

    vocabulary_size: int
    embedding_dim: int
    out_of_range: OutOfRange = "nan"

    @nn.compact
    def __call__(self, ids: Array) -> Array:
        """Returns `[..., embedding_dim]` float32 for integers `[...]`.

        Example:
            >>> import jax
            >>> vectors, _ = Embedding(3, 2).init_with_output(jax.random.key(0), jnp.array([0, 2, 3, -1]))
            >>> vectors.shape, jnp.isnan(vectors).any(-1).tolist()
            ((4, 2), [False, False, True, True])
        """
        size = checks.integer("vocabulary_size", self.vocabulary_size, at_least=1)
        dim = checks.integer("embedding_dim", self.embedding_dim, at_least=1)
        checks.choice("out_of_range", self.out_of_range, ("nan", "unknown"))
        ids = as_int32("ids", ids, size)
        known = (ids >= 0) & (ids < size)
        unknown = self.out_of_range == "unknown"
        table = nn.Embed(size + unknown, dim, name="table")
        vectors = table(jnp.where(known, ids, size if unknown else 0))
        return vectors if unknown else jnp.where(known[..., None], vectors, jnp.nan)


class TabularMLP(nn.Module):
    """An MLP on dense columns and on an embedding of each categorical column.

        mlp([dense, E_0[ids_0], E_1[ids_1], …])

    Parameters are `embedding_0`, `embedding_1`, … and `mlp`. The ids of a cross of columns come from the
    features.

    Attributes:
        vocabulary_sizes: K sizes, one for each categorical column; ids are in `[0, size)`.
        embedding_dims: d of all columns, or of each.
        widths, num_outputs, activation, dropout: those of `MLP`.
        out_of_range: that of `Embedding`.
    """

    vocabulary_sizes: tuple[int, ...]
    embedding_dims: int | tuple[int, ...]
    widths: tuple[int, ...]
    num_outputs: int
    activation: str | Callable[[Array], Array] = "relu"
    dropout: float = 0.0
    out_of_range: OutOfRange = "nan"

    @nn.compact
    def __call__(self, x: PyTree, training: bool = False) -> Array:
        """Returns `[..., num_outputs]` float32.

        Args:
            x: a dict of `dense`, `[..., D]` numbers, and `ids`, `[..., K]` integers, of which one may be
                missing; or the pair `(dense, ids)`; or an array of ids alone.
            training: as for `MLP`.

        Example:
            >>> import jax
            >>> module = TabularMLP((16, 105), (3, 8), (32,), 1)
            >>> x = {"dense": jnp.ones((4, 2)), "ids": jnp.zeros((4, 2), jnp.int32)}
            >>> variables = module.init(jax.random.key(0), x)
            >>> variables["params"]["mlp"]["hidden_0"]["kernel"].shape, module.apply(variables, x).shape
            ((13, 32), (4, 1))
        """
        dense, ids = _columns(x)
        number = len(self.vocabulary_sizes)
        dims = self.embedding_dims
        dims = tuple(dims) if isinstance(dims, Sequence) else (dims,) * number
        if len(dims) != number:
            raise ValueError(
                f"embedding_dims must be one or {number}, as vocabulary_sizes, got {dims!r}"
            )
        found = 0 if ids is None else ids.shape[-1]
        if found != number:
            raise ValueError(f"ids must have {number} columns, as vocabulary_sizes, got {found}")
        if dense is not None and ids is not None and dense.shape[:-1] != ids.shape[:-1]:
            raise ValueError(
                f"dense and ids must have the same leading axes, got {dense.shape} and {ids.shape}"
            )
        parts = [] if dense is None else [dense]
        if ids is not None:
            for i, (size, dim) in enumerate(zip(self.vocabulary_sizes, dims, strict=True)):
                rows = Embedding(size, dim, self.out_of_range, name=f"embedding_{i}")
                parts.append(rows(ids[..., i]))
        if not parts:
            raise ValueError("x must hold dense columns or ids, got neither")
        mlp = MLP(self.widths, self.num_outputs, self.activation, dropout=self.dropout, name="mlp")
        return mlp(jnp.concatenate(parts, axis=-1), training)


def _columns(x: PyTree) -> tuple[Array | None, Array | None]:
    """The dense columns as floats, and the ids."""
    if isinstance(x, Mapping) and (not x or set(x) - {"dense", "ids"}):
        raise ValueError(f"x must have the keys dense and ids, got {sorted(x)}")
    if isinstance(x, tuple):
        x = dict(zip(("dense", "ids"), x, strict=True))
    parts = x if isinstance(x, Mapping) else {"ids": x}
    dense, ids = parts.get("dense"), parts.get("ids")
    if ids is not None:
        ids = as_int32("ids", ids)
        if not ids.ndim:
            raise ValueError("ids must be an array [..., K] of integers, got a scalar")
    if dense is not None:
        dense = jnp.asarray(dense)
        if not jnp.issubdtype(dense.dtype, jnp.floating):
            dense = dense.astype(jnp.float32)
    return dense, ids
