"""What a training is given, checked before anything is compiled, and the order its examples come in."""

import functools
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import monitor as monitoring
from jaxml.data import batches
from jaxml.trees import take
from jaxml.types import Array, PyTree

__all__ = [
    "check_batch",
    "check_updates",
    "clean",
    "device_memory",
    "examples",
    "identity",
    "num_bytes",
    "pair",
    "take",
]

Arrays = tuple[PyTree, NDArray[Any]]
"""Inputs, an array or a pytree of arrays of equally many rows, and targets."""

# Steps that an optimizer is watched for before it is said that it never moves: longer than what accumulates
# gradients is wont to wait.
_WATCHED = 64


def pair(name: str, data: tuple[Any, Any]) -> Arrays:
    """Inputs and targets as NumPy arrays of 32 bits.

    Raises:
        ValueError: if they are no pair of equally many rows of numbers, or there are no rows.
    """
    try:
        x, y = data
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a pair (x, y)") from None
    x = jax.tree.map(
        lambda leaf: _narrow(name, np.asarray(leaf)), x, is_leaf=lambda node: not _is_tree(node)
    )
    y = _narrow(name, np.asarray(y))
    leaves = jax.tree.leaves(x)
    shapes = " and ".join(str(each.shape) for each in (*leaves, y))
    if not leaves or not all(each.ndim and len(each) == len(leaves[0]) for each in (*leaves, y)):
        raise ValueError(f"{name} must be arrays of equally many rows, got shapes {shapes}")
    if not len(y):
        raise ValueError(f"{name} must hold at least one row, got shapes {shapes}")
    return x, y


def _is_tree(node: Any) -> bool:
    """Whether it holds arrays, and is not the rows of one."""
    if isinstance(node, list) or hasattr(node, "ndim"):
        return False
    if isinstance(node, tuple):
        return any(hasattr(part, "ndim") or isinstance(part, Mapping) for part in node)
    return not jax.tree_util.all_leaves([node])


def num_bytes(data: PyTree) -> int:
    """Of all arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(data))


def _narrow(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """As JAX would have it: 32 bits."""
    if values.dtype.kind in "OSUMm":
        raise ValueError(f"{name} must hold numbers, got {values.dtype}")
    return values.astype(jax.dtypes.canonicalize_dtype(values.dtype), copy=False)


def held_out_pair(data: tuple[Any, Any] | None, like: Arrays) -> Arrays | None:
    """Validation data, if there are any.

    Raises:
        ValueError: as `pair` does, or if their rows have another shape than those of the training data.
    """
    if data is None:
        return None
    found = pair("validation_data", data)
    for name, given, wanted in zip("xy", found, like, strict=True):
        rows, theirs = (jax.tree.map(lambda v: v.shape[1:], each) for each in (wanted, given))
        if rows != theirs:
            raise ValueError(
                f"validation_data must have rows like those of data: {name} of shape "
                f"{rows}, got {theirs}"
            )
    return found


def clean(
    data: Arrays, on_bad_data: Literal["report", "drop", "raise"], inspect: bool
) -> tuple[Arrays, monitoring.DataReport | None]:
    """Data without the rows that are to be dropped, and what was found in them.

    Args:
        data: `(x, y)`.
        on_bad_data: what to do with rows that hold NaN or infinity.
        inspect: whether a report is wanted.

    Raises:
        ValueError: if a row is bad and that is to be refused, or none is left.
    """
    if on_bad_data not in ("report", "drop", "raise"):
        raise ValueError(f"on_bad_data must be 'report', 'drop' or 'raise', got {on_bad_data!r}")
    if not inspect and on_bad_data == "report":
        return data, None
    x, y = data
    found = monitoring.inspect(x, y)
    if len(found.bad_rows) and on_bad_data == "raise":
        name, row, column = found.bad_cells[0]
        raise ValueError(
            f"data must be finite: {name}[{row}], column {column}, is not, nor are "
            f"{len(found.bad_rows) - 1} other rows"
        )
    if len(found.bad_rows) and on_bad_data == "drop":
        x, y = take((x, y), np.setdiff1d(np.arange(len(y)), found.bad_rows))
        if not len(y):
            raise ValueError("data must hold a finite row, got none")
    return (x, y), found


def check_batch(batch_size: int | None, num_examples: int, accumulate: int) -> int:
    """The number of examples in a batch.

    Raises:
        ValueError: if it is below 1, above the number of examples, or not a multiple of `accumulate`.
    """
    size = num_examples if batch_size is None else batch_size
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise ValueError(f"batch_size must be a whole number or None, got {batch_size!r}")
    if not 1 <= size <= num_examples:
        raise ValueError(
            f"batch_size must be at least 1 and at most the number of examples, {num_examples}, "
            f"got {batch_size}"
        )
    if accumulate < 1 or size % accumulate:
        raise ValueError(
            f"accumulate must divide the batch of {size} examples evenly, got {accumulate}"
        )
    return int(size)


def examples(num: int, batch_size: int, shuffle: bool, seed: int) -> Callable[[int, int], Array]:
    """`indices(position, count) -> ` int32 [count, batch_size], the examples of these batches."""

    def indices(position: int, count: int) -> Any:
        if shuffle:
            found = batches.many_batch_indices(num, batch_size, position, count, seed)
        else:
            found = np.arange(position * batch_size, (position + count) * batch_size) % num
            found = found.reshape(count, batch_size)
        return found.astype(np.int32)

    return indices


def identity(data: Arrays, held_out: Arrays | None, key: PyTree, **settings: Any) -> dict[str, Any]:
    """What a training is, as far as that can be told: what goes on from a checkpoint must be the same."""

    def checksum(arrays: Arrays | None) -> list[Any] | None:
        if arrays is None:
            return None
        return [
            [str(each.dtype), list(each.shape), zlib.crc32(np.ascontiguousarray(each).data)]
            for each in jax.tree.leaves(arrays)
        ]

    words = np.asarray(jax.random.key_data(key)).tolist()
    return {
        "data": checksum(data),
        "validation data": checksum(held_out),
        "key": words,
        **settings,
    }


def device_memory() -> int:
    """Bytes that the default device has for arrays, or about so many."""
    statistics = jax.devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_updates(
    optimizer: Callable[[Any], optax.GradientTransformation],
    hyperparameters: PyTree,
    params: PyTree,
    num_steps: int,
) -> None:
    """Refuses optimizers that never move, or move up the gradient: a constant learning rate ≤ 0.

    What they do is tried on parameters of the same structure, of two entries an axis, that are all zero,
    with a gradient of ones: at first, for some steps, and with their counts set further on, as a schedule
    may begin at zero.

    Args:
        optimizer: from the hyperparameters.
        hyperparameters: leaves [members], all of which are tried; None for one optimizer without any.
        params: of the model.
        num_steps: of the training.

    Raises:
        ValueError: if the update of a member is nowhere down the gradient.
    """
    small = jax.tree.map(
        lambda leaf: jnp.zeros(tuple(min(d, 2) for d in leaf.shape), leaf.dtype), params
    )
    if not jax.tree.leaves(small):
        return
    gradient = jax.tree.map(jnp.ones_like, small)
    counts = sorted({min(10**k, num_steps - 1) for k in range(10)} | {num_steps // 2})

    def tried(hyperparameters: PyTree) -> Array:
        chosen = optax.with_extra_args_support(optimizer(hyperparameters))
        state = chosen.init(small)

        def along(state: PyTree) -> tuple[PyTree, Array]:
            updates, after = chosen.update(gradient, state, small, value=jnp.float32(1))
            sums = [jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(updates)]
            return after, sum(sums, jnp.zeros(()))

        def moved_on(count: Array) -> Array:
            def to(leaf: Array) -> Array:
                whole = leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer)
                return count.astype(leaf.dtype) if whole else leaf

            return along(jax.tree.map(to, state))[1]

        steps = min(_WATCHED, num_steps)
        first = jax.lax.scan(lambda state, _: along(state), state, None, steps)[1]
        return jnp.concatenate([first, jax.lax.map(moved_on, jnp.asarray(counts, jnp.int32))])

    try:
        if hyperparameters is None:
            found = np.asarray(jax.jit(tried)(None))[None]
        else:
            found = np.asarray(jax.jit(jax.vmap(tried))(hyperparameters))
    except (TypeError, ValueError, AttributeError, KeyError, NotImplementedError):
        return  # It wants what only a training has; that will say so itself.
    wrong = np.flatnonzero(~(found < 0).any(1) & np.isfinite(found).all(1))
    if len(wrong):
        which = ""
        if hyperparameters is not None:
            values = {name: float(leaf[wrong[0]]) for name, leaf in hyperparameters.items()}
            which = f" with {values}"
        what = "up the gradient" if (found[wrong[0]] > 0).any() else "by nothing"
        raise ValueError(
            f"learning_rate must be above 0: the optimizer{which} moves parameters {what}"
        )


@functools.cache
def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
