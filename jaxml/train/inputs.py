"""Checks of training data before anything is compiled, and the order of the examples."""

import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from jaxml import checks, monitor, text, trees
from jaxml.data import batches
from jaxml.ids import at_most_32_bits
from jaxml.types import Array, PyTree

Arrays = tuple[PyTree, NDArray[Any]]
"""Inputs, an array or a pytree of arrays with equally many rows, and labels."""

# What is computed with, whether 64 bits are enabled or not.
_NARROW = {"f8": np.float32, "c16": np.complex64}

# Share of the device's memory that data may take.
_RESIDENT = 0.8


def arrays(name: str, tree: PyTree) -> Any:
    """Returns a tree of NumPy arrays of at most 32 bits; lists become arrays.

    Raises:
        ValueError: if they are not arrays of numbers with equally many rows, there are no rows, or an
            integer has more than 32 bits.
    """
    tree = jax.tree.map(
        lambda leaf: _canonical(name, np.asarray(leaf)),
        tree,
        is_leaf=lambda node: isinstance(node, list),
    )
    leaves = jax.tree.leaves(tree)
    shapes = " and ".join(str(leaf.shape) for leaf in leaves)
    if not leaves or not all(leaf.ndim and len(leaf) == len(leaves[0]) for leaf in leaves):
        raise ValueError(f"{name} must be arrays of equally many rows, got shapes {shapes}")
    if not len(leaves[0]):
        raise ValueError(f"{name} must hold at least one row, got shapes {shapes}")
    return tree


def pair(name: str, data: tuple[Any, Any], like: Arrays | None = None) -> Arrays:
    """Returns inputs and labels, as `arrays` does.

    Raises:
        ValueError: as `arrays` does, if they are no pair, do not fit on the device, or have rows of
            another shape than `like`.
    """
    try:
        x, y = data if not isinstance(data, Mapping) else ()
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a pair (x, y), got {type(data).__name__}") from None
    x, y = arrays(name, (arrays(name, x), np.asarray(y)))
    size, memory = trees.num_bytes((x, y)), device_memory()
    if size > _RESIDENT * memory:
        raise ValueError(
            f"{name} must fit in the device's {memory:,} bytes, got {size:,} bytes: "
            "train on larger data with make_step and run, which take batches from the host"
        )
    rows = jax.tree.map(lambda leaf: leaf.shape[1:], (x, y))
    wanted = jax.tree.map(lambda leaf: leaf.shape[1:], like)
    if like is not None and rows != wanted:
        raise ValueError(
            f"{name} must have rows like those of data: of shapes {wanted}, got {rows}"
        )
    return x, y


def _canonical(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind in "OSUMm":
        raise ValueError(f"{name} must hold numbers, got {values.dtype}")
    values = at_most_32_bits(name, values)
    return values.astype(_NARROW.get(values.dtype.str[1:], values.dtype), copy=False)


def spread(data: PyTree) -> NamedSharding | None:
    """Returns how examples are spread over the devices that arrays are put on; None for the default one."""
    arrays = [leaf for leaf in jax.tree.leaves(data) if isinstance(leaf, jax.Array)]
    devices = set().union(*(leaf.devices() for leaf in arrays if leaf.committed))
    if not devices or devices == jax.device_put(np.zeros(())).devices():
        return None
    ordered = np.array(sorted(devices, key=lambda device: device.id))
    mesh = Mesh(ordered, ("examples",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("examples"))


def put(tree: PyTree, spread: NamedSharding | None, whole: bool = False) -> Any:
    """Returns arrays on these devices, their rows spread over them, or whole on each."""

    def sharding(leaf: Any) -> NamedSharding | None:
        if spread is None or (not whole and len(leaf) % spread.num_devices == 0):
            return spread
        return NamedSharding(spread.mesh, PartitionSpec())

    return jax.device_put(tree, jax.tree.map(sharding, tree))


def shapes(data: PyTree, rows: int) -> PyTree:
    """Returns the shapes of the data with this number of rows."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), data
    )


def clean(
    name: str, data: Arrays, on_bad_data: Literal["report", "drop", "raise"]
) -> tuple[Arrays, monitor.DataReport]:
    """Returns data, without bad rows if they are to be dropped, and the report on all rows.

    Raises:
        ValueError: if a row is bad and `on_bad_data` is "raise", or if no row is left.
    """
    x, y = data
    found = monitor.inspect(x, y)
    if len(found.bad_rows) and on_bad_data == "raise":
        array, row, column = found.bad_cells[0]
        raise ValueError(
            f"{name} must be finite: {array}[{row}], column {column}, is not, nor are "
            f"{len(found.bad_rows) - 1} other rows"
        )
    if len(found.bad_rows) and on_bad_data == "drop":
        x, y = trees.take((x, y), np.setdiff1d(np.arange(len(y)), found.bad_rows))
        if not len(y):
            raise ValueError(f"{name} must hold a finite row, got none")
    return (x, y), found


def check_batch_size(batch_size: int | None, num_examples: int) -> int:
    """Returns the number of examples in a batch: all for None."""
    if batch_size is None:
        return num_examples
    size = checks.integer("batch_size", batch_size, at_least=1)
    if size > num_examples:
        raise ValueError(
            f"batch_size must be at most the number of examples, {num_examples}, got {size}"
        )
    return size


def check_loss(
    outputs: Callable[[PyTree], Any],
    loss: Callable[[Any, Array], Array],
    data: Arrays,
    validation_data: Arrays | None,
) -> None:
    """Checks that the loss returns a number for each label, and that labels index the outputs.

    Labels are checked only if the loss indexes the outputs with them. Outputs are evaluated only for their
    shapes.

    Raises:
        ValueError: if a check fails.
    """
    x, y = shapes(data, 2)
    try:
        made = jax.eval_shape(outputs, x)
    except Exception as error:
        each = jax.tree.map(lambda leaf: leaf.shape[1:], x)
        raise ValueError(
            f"model must take batches of x, whose examples have the shape {each} "
            f"(a single feature is a column, x[:, None]): {text.one_line(error)}"
        ) from error
    try:
        found = jax.eval_shape(loss, made, y)
    except Exception as error:
        raise ValueError(
            f"loss must take these outputs and labels, got labels of {y.dtype} of shape {y.shape} and "
            f"outputs of shape {jax.tree.map(lambda leaf: leaf.shape, made)} for two examples: "
            f"{text.one_line(error)}"
        ) from error
    shape = getattr(found, "shape", None)
    if not shape or shape != y.shape[: len(shape)]:
        wanted = " or ".join(dict.fromkeys((str(y.shape), str(y.shape[:1]))))
        raise ValueError(
            "loss must return a number for each label: for two examples, labels of shape "
            f"{y.shape} and outputs of shape {jax.tree.map(lambda leaf: leaf.shape, made)}, "
            f"it must be of shape {wanted}, got {shape}"
        )
    _check_labels(loss, made, data[1], "")
    if validation_data is not None:
        _check_labels(loss, made, validation_data[1], " of validation_data")


def _check_labels(
    loss: Callable[[Any, Array], Array], made: Any, labels: NDArray[Any], where: str
) -> None:
    if (
        labels.dtype.kind not in "iu"
        or getattr(made, "shape", None) is None
        or made.ndim != labels.ndim + 1
    ):
        return
    number = made.shape[-1]
    outside = np.flatnonzero((labels < 0) | (labels >= number))
    if not len(outside):
        return
    at = np.unravel_index(outside[0], labels.shape)
    label = int(labels[at])
    # All outputs differ, so that the loss of a negative label shows whether it wraps around.
    row = np.broadcast_to(np.linspace(0.0, 1.0, number, dtype=made.dtype), (1, *made.shape[1:]))

    def of(label: int) -> float:
        given = np.full((1, *labels.shape[1:]), label, labels.dtype)
        with jax.debug_nans(False):  # Compiled, an index out of range gives NaN and no error.
            return float(np.ravel(jax.jit(loss)(row, given))[0])

    indexed = np.isfinite(of(0)) and np.isnan(
        of(number if number <= np.iinfo(labels.dtype).max else label)
    )
    wraps = label < 0 and label + number >= 0 and indexed and of(label) == of(label + number)
    if indexed and (wraps or np.isnan(of(label))):
        raise ValueError(
            f"labels must index the outputs: label {label} in row {int(at[0])}{where}, but the model has "
            f"{number} outputs (0 … {number - 1})"
        )


def examples(
    num: int, batch_size: int, shuffle: bool, seed: int, position: int, count: int
) -> NDArray[np.int32]:
    """Returns [count, batch_size] indices of examples, the batches from `position` on."""
    if shuffle:
        found = batches.many_batch_indices(num, batch_size, position, count, seed)
    else:
        first, end = position * batch_size, (position + count) * batch_size
        found = (np.arange(first, end) % num).reshape(count, batch_size)
    return found.astype(np.int32)


def checksums(data: PyTree) -> list[str]:
    """Returns dtype, shape and CRC-32 of every array."""
    return [
        f"{each.dtype}{list(each.shape)} {zlib.crc32(np.ascontiguousarray(each).data):08x}"
        for each in jax.tree.leaves(data)
    ]


def device_memory() -> int:
    """Returns the memory of the default device in bytes, or that of the host."""
    statistics = jax.devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
