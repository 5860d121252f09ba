"""Arithmetic on pytrees: norms, finiteness, sizes, a select, and the members of an ensemble."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.types import Array, PyTree

__all__ = [
    "all_finite",
    "global_norm",
    "norm",
    "num_bytes",
    "num_parameters",
    "select",
    "stack",
    "take",
    "unstack",
]


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def _shape(leaf: Any) -> tuple[int, ...]:
    return leaf.shape if hasattr(leaf, "shape") else np.shape(leaf)


def _numbers(tree: PyTree) -> list[Any]:
    """The leaves that hold numbers: every leaf but typed PRNG keys."""
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if not jnp.issubdtype(_dtype(leaf), jax.dtypes.prng_key)]


def global_norm(tree: PyTree) -> Array:
    """Euclidean norm of all numbers in a tree, seen as one vector.

    ‖x‖ = m · sqrt(Σᵢ (xᵢ / m)²) with a power of two m near maxᵢ |xᵢ|: no square overflows or underflows.

    Args:
        tree: leaves of any shape and of any real, complex or integer dtype; typed PRNG keys are
            ignored.

    Returns:
        float32 scalar, 0 for a tree without numbers. All arithmetic is float32, whatever the
        leaves are; entries of 1e20 and of 1e-30 are measured as well as those of 1. A NaN
        anywhere gives NaN; otherwise an infinity gives infinity. The gradient is x / ‖x‖, and 0
        at 0.

    >>> import numpy as np
    >>> print(global_norm({"weights": np.float32([3e20, 0.0]), "bias": np.float32(4e20)}))
    5e+20
    """
    norms = [norm(jnp.asarray(leaf)) for leaf in _numbers(tree)]
    return norm(jnp.stack(norms)) if norms else jnp.zeros((), jnp.float32)


def norm(array: Array, axis: int | None = None) -> Array:
    """Returns the Euclidean norm of an array, or along an axis, as `global_norm` of a tree."""
    if not array.size:
        return jnp.zeros(np.delete(array.shape, axis) if axis is not None else (), jnp.float32)
    real = (jnp.abs(array) if jnp.iscomplexobj(array) else array).astype(jnp.float32)
    largest = jnp.max(jnp.abs(real), axis=axis, keepdims=True)
    # A power of two, so that scaling is exact and no square overflows or underflows. The products are
    # chosen, not the factor: XLA makes (c · s)² of a constant c into c² · s², and s² is infinite.
    big, small = largest > 2.0**40, largest < 2.0**-40
    scaled = jnp.where(big, real * 2.0**-84, jnp.where(small, real * 2.0**84, real))
    total = jnp.sum(jnp.square(scaled), axis=axis)
    zero = total == 0
    # sqrt has an infinite slope at 0: the branch that is not chosen must not be given the 0.
    root = jnp.sqrt(jnp.where(zero, 1.0, total))
    back = jnp.where(big, 2.0**84, jnp.where(small, 2.0**-84, 1.0)).reshape(root.shape)
    return jnp.where(zero, 0.0, back * root)


def all_finite(tree: PyTree) -> Array:
    """Whether no number of a tree is NaN or infinite.

    Args:
        tree: leaves of any shape and dtype. Integers and booleans are finite; typed PRNG keys
            are ignored.

    Returns:
        Boolean scalar; true for a tree without numbers.

    >>> import numpy as np
    >>> print(all_finite({"weights": np.ones(3), "count": 7}), all_finite([np.float32("nan")]))
    True False
    """
    inexact = [leaf for leaf in _numbers(tree) if jnp.issubdtype(_dtype(leaf), jnp.inexact)]
    if not inexact:
        return jnp.ones((), bool)
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in inexact]))


def num_parameters(tree: PyTree) -> int:
    """Count of numbers in a tree, of arrays as of their shapes (`jax.eval_shape`).

    Args:
        tree: leaves with a shape, or Python numbers; typed PRNG keys are not counted.

    Returns:
        A Python integer, so that 10⁸ rows of 128 do not overflow.

    >>> import numpy as np
    >>> num_parameters({"weights": np.zeros((3, 4)), "bias": np.zeros(4)})
    16
    """
    return sum(math.prod(_shape(leaf)) for leaf in _numbers(tree))


def num_bytes(tree: PyTree) -> int:
    """Bytes that the arrays of a tree take, of arrays as of their shapes (`jax.eval_shape`).

    Args:
        tree: leaves with a shape and dtype, typed PRNG keys included, or Python numbers.

    Returns:
        A Python integer: elements times bytes an element, without padding or alignment.

    >>> import numpy as np
    >>> num_bytes({"weights": np.zeros((3, 4), np.float32), "step": np.int32(0)})
    52
    """
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(_shape(leaf)) * _dtype(leaf).itemsize for leaf in leaves)


def _check_alike(trees: Sequence[PyTree], names: Sequence[str]) -> None:
    """Raises ValueError unless the trees agree in structure and each leaf in shape and dtype."""
    structure: Any = jax.tree.structure(trees[0])
    for tree, name in zip(trees[1:], names[1:], strict=True):
        other: Any = jax.tree.structure(tree)
        if other != structure:
            raise ValueError(
                f"{name} must have the structure of {names[0]}, {structure}; got {other}"
            )
        first = jax.tree_util.tree_leaves_with_path(trees[0])
        for (path, wanted), given in zip(first, jax.tree.leaves(tree), strict=True):
            if (_shape(given), _dtype(given)) != (_shape(wanted), _dtype(wanted)):
                raise ValueError(
                    f"{name}{jax.tree_util.keystr(path)} must be {_dtype(wanted)} of shape "
                    f"{_shape(wanted)} as in {names[0]}; "
                    f"got {_dtype(given)} of shape {_shape(given)}"
                )


def select(predicate: Array | bool, on_true: PyTree, on_false: PyTree) -> PyTree:
    """One of two trees, leaf by leaf: a step that is refused keeps the old state.

    Args:
        predicate: boolean scalar. To choose for each member of an ensemble, use `jax.vmap`.
        on_true: the tree taken where the predicate holds; typed PRNG keys are welcome.
        on_false: the tree taken elsewhere, of the same structure, shapes and dtypes.

    Returns:
        A tree like both. A NaN in the tree not taken does not leak, and every bit of the tree
        that is taken is kept, the sign of -0.0 included. Both trees are read in full.

    Raises:
        ValueError: if the predicate is no scalar or the trees differ in structure, or a leaf in
            shape or dtype.

    >>> import numpy as np
    >>> print(select(False, {"w": np.float32("nan")}, {"w": np.float32(1.0)}))
    {'w': Array(1., dtype=float32)}
    """
    if _shape(predicate) != ():
        raise ValueError(f"predicate must be a scalar; got shape {_shape(predicate)}")
    _check_alike([on_true, on_false], ["on_true", "on_false"])
    return jax.tree.map(lambda a, b: jnp.where(predicate, a, b), on_true, on_false)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Joins trees of equal structure into one, with a new leading axis: an ensemble for `vmap`.

    Args:
        trees: at least one tree; all alike in structure, shapes and dtypes.

    Returns:
        A tree of the same structure; a leaf of shape `[...]` becomes `[len(trees), ...]`.

    Raises:
        ValueError: if there is no tree, or two of them differ.

    >>> import numpy as np
    >>> stack([{"w": np.zeros(2)}, {"w": np.ones(2)}])["w"].shape
    (2, 2)
    """
    trees = list(trees)
    if not trees:
        raise ValueError("trees must hold at least one tree; got none")
    _check_alike(trees, [f"trees[{i}]" for i in range(len(trees))])
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: PyTree) -> list[PyTree]:
    """Splits a tree along the leading axis of its leaves; the inverse of `stack`.

    Args:
        tree: at least one leaf; every leaf of shape `[members, ...]`, with one `members`.

    Returns:
        `members` trees of the same structure, with leaves of shape `[...]`.

    Raises:
        ValueError: if there is no leaf, one is a scalar, or their leading axes differ.

    >>> import numpy as np
    >>> [member["w"].shape for member in unstack({"w": np.zeros((3, 2))})]
    [(2,), (2,), (2,)]
    """
    leaves, structure = jax.tree.flatten(tree)
    shapes = [_shape(leaf) for leaf in leaves]
    leading = {shape[:1] for shape in shapes}
    if len(leading) != 1 or leading == {()}:
        raise ValueError(f"tree must have leaves with one common leading axis; got shapes {shapes}")
    ((members,),) = leading
    return [jax.tree.unflatten(structure, [leaf[i] for leaf in leaves]) for i in range(members)]


def take(tree: PyTree, rows: Any) -> Any:
    """Returns these rows of every leaf.

    Args:
        tree: arrays of equally many rows.
        rows: indices of any shape, a mask, or a slice.
    """
    return jax.tree.map(lambda leaf: leaf[rows], tree)
