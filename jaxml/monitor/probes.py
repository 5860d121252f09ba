"""What is measured of gradients, parameters and updates: one fixed-shape array, a row a layer."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxml.types import Array, PyTree

__all__ = [
    "STATISTICS",
    "Layout",
    "join",
    "layer_counts",
    "layer_norms",
    "layer_statistics",
    "layout",
    "leaf_norms",
]

STATISTICS = (
    "gradient_norm",
    "parameter_norm",
    "update_norm",
    "largest_gradient",
    "non_finite",
    "zeros",
)
"""Columns of `layer_statistics`: three Euclidean norms, the largest |gradient|, how many entries of the
gradient are NaN or infinite, how many exactly 0."""

# Sums of squares within are right to float32; below, some square may have been lost, above, one may
# overflow.
_SAFE = (1e-30, 1e37)


class Layout(NamedTuple):
    """Which leaves of a tree of parameters make up which layer.

    Attributes:
        names: of the layers, in the order in which they are computed where that is known.
        rows: for each leaf, in the tree's order, the rows of its layers: one, or one for each of the layers
            stacked along its first axis.
        leaves: paths of the leaves.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    leaves: tuple[str, ...]

    @property
    def stacked(self) -> tuple[bool, ...]:
        """For each leaf, whether it holds several layers."""
        return tuple(len(rows) > 1 for rows in self.rows)


def _path(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(
        str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part))))
        for part in path
    )


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
    """Groups the leaves of a tree by the module that owns them.

    Args:
        params: nested dicts of arrays, or any other tree; a layer is all leaves of the same parent.
        order: paths of modules in the order in which they are computed; those not named come last, sorted
            so that a number sorts as a number.
        stacked: how many layers lie along the first axis of the leaves at a path or below it; they are
            reported one by one, as `name[0]`, `name[1]`, …

    Returns:
        A `Layout`.

    Example:
        >>> params = {"out": {"kernel": jnp.ones(3)}, "in": {"bias": jnp.ones(2), "kernel": jnp.ones(4)}}
        >>> layout(params, [("in",), ("out",)])
        Layout(names=('in', 'out'), rows=((0,), (0,), (1,)), leaves=('in/bias', 'in/kernel', 'out/kernel'))
    """
    stacked = dict(stacked or {})
    leaves = jax.tree_util.tree_leaves_with_path(params)
    paths = [_path(path) for path, _ in leaves]
    owners = [path[:-1] or path for path in paths]

    def place(owner: tuple[str, ...]) -> tuple[Any, ...]:
        # A layer that was seen whole, such as a cell, stands for the modules within it.
        seen = [i for i, path in enumerate(order) if owner[: len(path)] == path]
        return (seen[0] if seen else len(order), _natural(owner))

    names: list[str] = []
    first: dict[tuple[str, ...], tuple[int, ...]] = {}
    for owner in sorted(set(owners), key=place):
        depth = next((n for path, n in stacked.items() if owner[: len(path)] == path), 0)
        name = "/".join(owner) or "params"
        first[owner] = tuple(range(len(names), len(names) + max(depth, 1)))
        names += [f"{name}[{i}]" for i in range(depth)] if depth > 1 else [name]
    rows = tuple(first[owner] for owner in owners)
    return Layout(tuple(names), rows, tuple("/".join(path) for path in paths))


def _axes(leaf: Array, stacked: bool) -> tuple[int, ...]:
    return tuple(range(1 if stacked else 0, leaf.ndim))


def _plain(leaf: Array, stacked: bool) -> Array:
    """Sums of squares, one for each layer of the leaf; [n] float32."""
    return jnp.atleast_1d(jnp.sum(jnp.square(_real(leaf)), axis=_axes(leaf, stacked)))


def _real(leaf: Array) -> Array:
    return (jnp.abs(leaf) if jnp.iscomplexobj(leaf) else leaf).astype(jnp.float32)


def _scaled(leaf: Array, stacked: bool) -> Array:
    """Norms by way of the largest entry; infinity where an entry is not finite; [n] float32."""
    if not leaf.size:
        return jnp.zeros(max(len(leaf) if stacked else 1, 1), jnp.float32)
    axes = _axes(leaf, stacked)
    magnitudes = jnp.abs(_real(leaf))
    largest = jnp.max(magnitudes, axis=axes, keepdims=True)
    scale = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1.0)
    sums = jnp.sum(jnp.square(magnitudes / scale), axis=axes, keepdims=True)
    return jnp.where(jnp.isfinite(largest), scale * jnp.sqrt(sums), jnp.inf).reshape(-1)


def leaf_norms(tree: PyTree, stacked: Sequence[bool] | None = None) -> list[Array]:
    """Euclidean norm of every leaf, entries of 1e20 and of 1e-30 included.

    The squares are summed as they are, in one pass; only if a sum is out of what float32 holds are all
    leaves gone over again, scaled by their largest entries.

    Args:
        tree: leaves of any shape and float dtype.
        stacked: for each leaf, whether its first axis is one of layers, to be kept apart; None for none.

    Returns:
        For each leaf float32 `[layers]`, `[1]` where it is not stacked; infinity where an entry is NaN or
        infinite.

    Example:
        >>> [f"{norm[0]:.3g}" for norm in leaf_norms({"w": jnp.array([3e20, 4e20])})]
        ['5e+20']
    """
    leaves = jax.tree.leaves(tree)
    stacked = [False] * len(leaves) if stacked is None else stacked
    if not leaves:
        return []
    sums = [_plain(leaf, apart) for leaf, apart in zip(leaves, stacked, strict=True)]
    every = jnp.concatenate(sums)
    safe = jnp.all((every > _SAFE[0]) & (every < _SAFE[1]))

    def again() -> list[Array]:
        return [_scaled(leaf, apart) for leaf, apart in zip(leaves, stacked, strict=True)]

    return jax.lax.cond(safe, lambda: [jnp.sqrt(each) for each in sums], again)


def join(norms: Sequence[Array], layout: Layout) -> Array:
    """Norms of layers from those of their leaves; [layers] float32. Scaled: no square overflows."""
    rows = jnp.array([row for rows in layout.rows for row in rows])
    values = jnp.concatenate(list(norms))
    largest = jnp.zeros(len(layout.names)).at[rows].max(values)
    scale = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1.0)
    sums = jnp.zeros(len(layout.names)).at[rows].add(jnp.square(values / scale[rows]))
    return jnp.where(jnp.isfinite(largest), scale * jnp.sqrt(sums), jnp.inf)


def layer_norms(tree: PyTree, layout: Layout) -> Array:
    """Euclidean norm of each layer; float32 [layers]."""
    return join(leaf_norms(tree, layout.stacked), layout)


def _counts(leaf: Array, stacked: bool) -> Array:
    axes = _axes(leaf, stacked)
    magnitudes = jnp.abs(_real(leaf))

    def count(which: Array) -> Array:
        return jnp.atleast_1d(jnp.sum(jnp.where(which, 1.0, 0.0), axis=axes))

    largest = jnp.atleast_1d(jnp.max(magnitudes, axis=axes, initial=0))
    # A maximum is NaN, or infinite, exactly where an entry is: only then is there something to count.
    odd = ~jnp.isfinite(largest)
    non_finite = jax.lax.cond(
        odd.any(), lambda: count(~jnp.isfinite(magnitudes)), lambda: jnp.zeros_like(largest)
    )
    return jnp.stack([jnp.where(odd, jnp.inf, largest), non_finite, count(magnitudes == 0)])


def layer_counts(gradients: PyTree, layout: Layout) -> Array:
    """The last three of `STATISTICS`: largest magnitude, entries not finite, entries exactly 0.

    Args:
        gradients: the tree that the layout was made of, or one like it.
        layout: which leaf belongs to which layer.

    Returns:
        float32 `[layers, 3]`.
    """
    counts = [
        _counts(leaf, apart)
        for leaf, apart in zip(jax.tree.leaves(gradients), layout.stacked, strict=True)
    ]
    rows = jnp.array([row for rows in layout.rows for row in rows])
    largest, non_finite, zeros = jnp.concatenate(counts, axis=1)
    none = jnp.zeros(len(layout.names))
    return jnp.stack(
        [none.at[rows].max(largest), none.at[rows].add(non_finite), none.at[rows].add(zeros)], 1
    )


def layer_statistics(
    gradients: PyTree,
    params: PyTree,
    updates: PyTree,
    layout: Layout,
    *,
    gradient_norms: Sequence[Array] | None = None,
    parameter_norms: Sequence[Array] | None = None,
    update_norms: Sequence[Array] | None = None,
    counts: Array | None = None,
) -> Array:
    """Everything that is measured of a step, a row a layer.

    Args:
        gradients: as `params`.
        params: the tree that the layout was made of.
        updates: as `params`, what is added to them.
        layout: which leaf belongs to which layer.
        gradient_norms: `leaf_norms` of the gradients where they are known.
        parameter_norms: `leaf_norms` of the parameters where they are known; `params` is then not read.
        update_norms: `leaf_norms` of the updates where they are known; `updates` is then not read.
        counts: `layer_counts` of the gradients where they are known; with `gradient_norms` `gradients` are
            then not read.

    Returns:
        float32 `[layers, len(STATISTICS)]`. Norms of entries of 1e20 and 1e-30 are right; where a gradient
        is not finite its norm and largest entry are infinite, and `non_finite` counts.
    """
    if gradient_norms is None:
        gradient_norms = leaf_norms(gradients, layout.stacked)
    if parameter_norms is None:
        parameter_norms = leaf_norms(params, layout.stacked)
    if update_norms is None:
        update_norms = leaf_norms(updates, layout.stacked)
    if counts is None:
        counts = layer_counts(gradients, layout)
    return jnp.stack(
        [
            join(gradient_norms, layout),
            join(parameter_norms, layout),
            join(update_norms, layout),
            *jnp.unstack(counts, axis=1),
        ],
        axis=1,
    )
