"""Which tensors of a tree make up which layer, and their norms."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml.types import Array, PyTree

__all__ = ["STATISTICS", "Layout", "join", "layout", "squares"]

STATISTICS = ("gradient_norm", "parameter_norm", "update_norm")
"""What is recorded of a layer in a step: three Euclidean norms."""


class Layout(NamedTuple):
    """The layers of a tree of parameters. A tensor is a leaf, or one of the layers stacked in a leaf.

    Attributes:
        names: of the layers, in the order in which they are computed if it is known.
        rows: for each leaf, in the tree's order, the layers of its tensors: one, or one for each of the
            layers stacked along its first axis.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


def _natural(name: tuple[str, ...]) -> list[Any]:
    """Sorts `Dense_2` before `Dense_10`."""
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.split(r"(\d+)", "/".join(name))
    ]


def layout(
    params: PyTree,
    order: Sequence[tuple[str, ...]] = (),
    stacked: Mapping[tuple[str, ...], int] | None = None,
) -> Layout:
    """Returns the layers of a tree: its leaves grouped by the module that owns them.

    Args:
        params: nested dicts of arrays, or any other tree; a layer is all leaves of the same parent.
        order: paths of modules in the order in which they are computed; others come last, `Dense_2` before
            `Dense_10`.
        stacked: how many layers lie along the first axis of the leaves at a path or below it; they are
            reported one by one, as `name[0]`, `name[1]`, …

    Example:
        >>> params = {"out": {"kernel": jnp.ones(3)}, "in": {"bias": jnp.ones(2), "kernel": jnp.ones(4)}}
        >>> layout(params, [("in",), ("out",)])
        Layout(names=('in', 'out'), rows=((0,), (0,), (1,)))
    """
    owners = [
        tuple(jax.tree_util.keystr((part,), simple=True) for part in path[:-1] or path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]

    def place(owner: tuple[str, ...]) -> tuple[Any, ...]:
        # A module that was observed as a whole, such as a cell, stands for the modules inside it.
        seen = [i for i, path in enumerate(order) if owner[: len(path)] == path]
        return (seen[0] if seen else len(order), _natural(owner))

    names: list[str] = []
    first: dict[tuple[str, ...], tuple[int, ...]] = {}
    for owner in sorted(set(owners), key=place):
        depth = next((n for path, n in (stacked or {}).items() if owner[: len(path)] == path), 0)
        name = "/".join(owner) or "params"
        first[owner] = tuple(range(len(names), len(names) + max(depth, 1)))
        names += [f"{name}[{i}]" for i in range(depth)] if depth > 1 else [name]
    return Layout(tuple(names), tuple(first[owner] for owner in owners))


def squares(leaves: Sequence[Sequence[Array | None]], number: Sequence[int]) -> Array:
    """Returns the sum of squares of each tensor; NaN if an array beside its leaf is not finite.

    Args:
        leaves: for each leaf the leaf itself, then arrays of its shape to be checked, or None.
        number: tensors in each leaf, stacked along its first axis.

    Returns:
        float32 [tensors]; 0 below squares of 1e-38, infinite above 3e38.
    """
    sums = [jnp.zeros(0, jnp.float32)]
    for (leaf, *beside), several in zip(leaves, number, strict=True):
        terms = jnp.square(_real(leaf))
        for array in beside:
            if array is not None:
                terms += _real(array - array)  # 0, but NaN for NaN and infinity.
        axes = tuple(range(1 if several > 1 else 0, terms.ndim))
        sums.append(jnp.sum(terms, axis=axes).reshape(several))
    return jnp.concatenate(sums)


def _real(leaf: Any) -> Array:
    return (jnp.abs(leaf) if jnp.iscomplexobj(leaf) else leaf).astype(jnp.float32)


def join(norms: NDArray[np.float64], layout: Layout) -> NDArray[np.float64]:
    """Returns the norms of the layers, `[S, layers]`, from those of their tensors, `[S, tensors]`."""
    joined = np.zeros((len(layout.names), len(norms)))
    np.add.at(joined, [row for rows in layout.rows for row in rows], np.square(norms).T)
    return np.sqrt(joined.T)
