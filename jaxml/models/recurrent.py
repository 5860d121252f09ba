"""Recurrent networks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxml import checks, ids
from jaxml.models.cells import CELLS, Cell, Masks
from jaxml.models.initializers import InitializerSpec
from jaxml.types import Array, PyTree

__all__ = ["Recurrent"]


class Recurrent(nn.Module):
    """Stacked recurrent layers.

    Attributes:
        cell: of all layers.

            | name | state | source |
            |---|---|---|
            | `simple` | h = tanh(W x + b + U h) | Elman 1990 |
            | `lstm` | c = f c + i g, h = o tanh(c); the forget bias starts at 1 | Gers et al. 2000 |
            | `gru` | h = (1 − z) n + z h | Cho et al. 2014 |
            | `mingru` | h = (1 − z) h + z n, with z and n of the input alone | Feng et al. 2024 |
            | `minlstm` | h = f h + i n, with f + i = 1 of the input alone | Feng et al. 2024 |
            | `lru` | h = λ h + γ B x, λ complex and constant | Orvieto et al. 2023 |

            On accelerators the last three are computed by a parallel scan.
        features: width of a state, and of the outputs in one direction.
        num_layers: at least 1.
        bidirectional: every layer runs in both directions, and their outputs are concatenated.
        dropout: share of units dropped between layers in training, in [0, 1).
        recurrent_init: of each gate's recurrent kernel U, as `initializer` takes it.
        forget_bias: initial bias of the forget gate in `lstm` and `minlstm`.
    """

    cell: str
    features: int
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    recurrent_init: InitializerSpec = "orthogonal"
    forget_bias: float = 1.0

    @nn.compact
    def __call__(
        self,
        x: Array,
        lengths: Array | None = None,
        carry: PyTree | None = None,
        resets: Array | None = None,
        training: bool = False,
    ) -> tuple[Array, PyTree]:
        """Returns the outputs of the last layer and the state after the last step.

        Args:
            x: floats `[B, T, D]`, at least one step. Values past the end are ignored, NaN too.
            lengths: int `[B]`, steps of each sequence in [0, T]; None for T.
            carry: the state that an earlier window returned; None for zeros; must be None if
                bidirectional.
            resets: bool `[B, T]`, True where the state is set to zero before the step.

        Returns:
            `(outputs, carry)`: `[B, T, features]`, or 2 × features if bidirectional, of the dtype of `x`,
            zero past the end; a tuple with the state of each layer (and direction), float32 or float64.

        Raises:
            ValueError: an attribute is out of range, or an argument has another shape or dtype.

        Example:
            >>> module = Recurrent("lstm", 8)
            >>> x = jnp.ones((2, 6, 3))
            >>> variables = module.init(jax.random.key(0), x)
            >>> outputs, _ = module.apply(variables, x)
            >>> first, carry = module.apply(variables, x[:, :3])
            >>> second, _ = module.apply(variables, x[:, 3:], carry=carry)
            >>> bool(jnp.allclose(outputs, jnp.concatenate([first, second], 1), atol=1e-6))
            True
        """
        cells = self._cells()
        checks.number("dropout", self.dropout, at_least=0, below=1)
        if jnp.ndim(x) != 3 or x.shape[1] < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                "x must be floats [B, T, D] of at least one step, got "
                f"{jnp.result_type(x)} {jnp.shape(x)}"
            )
        batch, steps = x.shape[:2]
        start = self._start(cells, carry, batch, jnp.promote_types(x.dtype, jnp.float32))
        valid = None
        if lengths is not None:
            valid = jnp.arange(steps)[:, None] < _checked_lengths(lengths, batch, steps)[None]
        if resets is not None:
            if resets.shape != (batch, steps) or resets.dtype != bool:
                raise ValueError(
                    f"resets must be bool [{batch}, {steps}], got {resets.dtype} {resets.shape}"
                )
            resets = resets.T
        x = jnp.swapaxes(x, 0, 1)
        # Before the first product: 0 · NaN is NaN, in the gradient too.
        x = x if valid is None else jnp.where(valid[..., None], x, 0)
        ends = []
        for i, directions in enumerate(cells):
            if i and self.dropout:
                # A float32, or other units are dropped where 64 bits are enabled.
                x = nn.Dropout(np.float32(self.dropout), deterministic=not training)(x)
            outputs = []
            for cell, begin in zip(directions, start[i], strict=True):
                name = f"input_{i}_backward" if cell.reverse else f"input_{i}"
                width = cell.num_gates * cell.features
                dense = nn.Dense(width, dtype=x.dtype, name=name, **cell.projection())
                masks = Masks(_backward(resets) if cell.reverse else resets, valid)
                output, end = cell(dense(x), begin, masks)
                outputs.append(output)
                ends.append(end)
            x = jnp.concatenate(outputs, axis=-1) if self.bidirectional else outputs[0]
            x = x if valid is None else jnp.where(valid[..., None], x, 0)
        return jnp.swapaxes(x, 0, 1), tuple(ends)

    def _cells(self) -> list[list[Cell]]:
        """Returns the cells of each layer, one for each direction."""
        make = CELLS[checks.choice("cell", self.cell, CELLS)]
        features = checks.integer("features", self.features, at_least=1)
        num_layers = checks.integer("num_layers", self.num_layers, at_least=1)
        forget_bias = checks.number("forget_bias", self.forget_bias)
        ways = ((False, ""), (True, "_backward")) if self.bidirectional else ((False, ""),)
        return [
            [
                make(features, reverse, self.recurrent_init, forget_bias, name=f"cell_{i}{way}")
                for reverse, way in ways
            ]
            for i in range(num_layers)
        ]

    def _start(
        self, cells: list[list[Cell]], carry: PyTree | None, batch: int, dtype: Any
    ) -> list[list[PyTree]]:
        """Returns the state before the first step of each cell of each layer."""
        zeros = [[cell.zeros(batch, dtype) for cell in directions] for directions in cells]
        if carry is None:
            return zeros
        if self.bidirectional:
            raise ValueError("carry must be None if bidirectional: one direction begins at the end")
        wanted = tuple(state for (state,) in zeros)
        if jax.tree.map(jnp.shape, carry) != jax.tree.map(jnp.shape, wanted):
            raise ValueError(
                f"carry must be arrays of shapes {jax.tree.map(jnp.shape, wanted)}, got "
                f"{jax.tree.map(jnp.shape, carry)}"
            )
        return [[jax.tree.map(lambda leaf: leaf.astype(dtype), state)] for state in carry]


def _checked_lengths(lengths: Any, batch: int, steps: int) -> Array:
    """Returns the lengths as int32; known ones must be in [0, T]."""
    if np.shape(lengths) != (batch,):
        raise ValueError(f"lengths must be integers [{batch}], got {np.shape(lengths)}")
    if not isinstance(lengths, jax.core.Tracer):
        for row, length in enumerate(np.asarray(lengths).tolist()):
            checks.integer(f"lengths[{row}]", length, 0, steps)
    return ids.as_int32("lengths", lengths)


def _backward(resets: Array | None) -> Array | None:
    """Returns where the state is set to zero on the way back: at the last step before a reset."""
    if resets is None:
        return None
    return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])
