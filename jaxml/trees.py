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
    "stays_finite",
    "take",
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
    """Returns the Euclidean norm of all numbers in a tree, seen as one vector, as a float32 scalar.

    ‖x‖ = m · sqrt(Σᵢ (xᵢ / m)²) with a power of two m near maxᵢ |xᵢ|: no square overflows or underflows, in
    float32, whatever real, complex or integer dtype the leaves have. It is 0 for a tree without numbers;
    typed PRNG keys are ignored. A NaN anywhere gives NaN; otherwise an infinity gives infinity. The
    gradient is x / ‖x‖, and 0 at 0.

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
    """Returns whether no number of a tree is NaN or infinite, a boolean scalar; keys are ignored.

    >>> import numpy as np
    >>> print(all_finite({"weights": np.ones(3), "count": 7}), all_finite([np.float32("nan")]))
    True False
    """
    return _all([jnp.isfinite(leaf) for leaf in _numbers(tree) if _is_inexact(leaf)])


def stays_finite(new: PyTree, old: PyTree) -> Array:
    """Returns whether no finite number of `old` is NaN or infinite in `new`, a boolean scalar.

    The trees have one structure and shapes; keys are ignored.

    >>> import numpy as np
    >>> old = {"lowest": np.float32([np.inf, 1.0])}
    >>> print(stays_finite(old, old), stays_finite({"lowest": np.float32([2.0, np.nan])}, old))
    True False
    """
    pairs = zip(_numbers(new), _numbers(old), strict=True)
    return _all([jnp.isfinite(a) | ~jnp.isfinite(b) for a, b in pairs if _is_inexact(a)])


def _is_inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(_dtype(leaf), jnp.inexact))


def _all(arrays: list[Array]) -> Array:
    return jnp.all(jnp.stack([jnp.all(each) for each in arrays])) if arrays else jnp.ones((), bool)


def num_parameters(tree: PyTree) -> int:
    """Returns how many numbers a tree of arrays or of shapes (`jax.eval_shape`) holds, without keys.

    >>> import numpy as np
    >>> num_parameters({"weights": np.zeros((3, 4)), "bias": np.zeros(4)})
    16
    """
    return sum(math.prod(_shape(leaf)) for leaf in _numbers(tree))


def num_bytes(tree: PyTree) -> int:
    """Returns the bytes of a tree of arrays or of shapes, keys included, without padding.

    >>> import numpy as np
    >>> num_bytes({"weights": np.zeros((3, 4), np.float32), "step": np.int32(0)})
    52
    """
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(_shape(leaf)) * _dtype(leaf).itemsize for leaf in leaves)


def select(predicate: Array | bool, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Returns one of two trees: a step that is rejected keeps the old state.

    NaN in the tree that is not chosen does not leak, and every bit of the chosen one is kept. Both trees
    are read in full. Leaves may be typed PRNG keys.

    Args:
        predicate: boolean scalar. To choose for each member of an ensemble, use `jax.vmap`.
        on_true: the tree returned where the predicate holds.
        on_false: the tree returned elsewhere, of the same structure, shapes and dtypes.

    Raises:
        ValueError: if the predicate is not a scalar, or the trees differ in structure, shape or dtype.

    >>> import numpy as np
    >>> print(select(False, {"w": np.float32("nan")}, {"w": np.float32(1.0)}))
    {'w': Array(1., dtype=float32)}
    """
    if _shape(predicate) != ():
        raise ValueError(f"predicate must be a scalar, got shape {_shape(predicate)}")
    structures: Any = jax.tree.structure(on_true), jax.tree.structure(on_false)
    if structures[0] != structures[1]:
        raise ValueError(f"on_false must have the structure of on_true, got {structures}")

    def choose(path: Any, one: Any, other: Any) -> Array:
        given, wanted = ((_dtype(leaf), _shape(leaf)) for leaf in (other, one))
        if given != wanted:
            name = f"on_false{jax.tree_util.keystr(path)}"
            raise ValueError(f"{name} must be {wanted} as in on_true, got {given}")
        return jnp.where(predicate, one, other)

    return jax.tree_util.tree_map_with_path(choose, on_true, on_false)


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Joins trees of equal structure and shapes into one with a new leading axis, for `vmap`.

    >>> import numpy as np
    >>> stack([{"w": np.zeros(2)}, {"w": np.ones(2)}])["w"].shape
    (2, 2)
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def take(tree: PyTree, rows: Any) -> Any:
    """Returns these rows of every leaf: indices of any shape, a mask, or a slice."""
    return jax.tree.map(lambda leaf: leaf[rows], tree)
