"""A model as a StableHLO program that runs without the code that wrote it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from numpy.typing import NDArray

from jaxml.types import PyTree

PLATFORMS = ("cpu", "cuda", "tpu")

Features = dict[str, NDArray]
"""`dense`, float32 [B, D], and `ids`, int32 [B, K], as `FeaturePipeline.stack` returns them."""


def named_leaves(params: PyTree) -> dict[str, NDArray]:
    """Returns the arrays of a pytree by name, in its order, with the dtypes that JAX gives them.

    Raises:
        ValueError: two arrays with one name.

    >>> list(named_leaves({"mlp": {"kernel": np.ones(2), "bias": np.ones(1)}}))
    ['mlp/bias', 'mlp/kernel']
    """
    found: dict[str, NDArray] = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in found:
            raise ValueError(f"params must have one array named {name!r}, got two")
        found[name] = np.asarray(jnp.asarray(leaf), order="C")
    return found


def exported(
    model: Callable[[PyTree, Any], Mapping[str, Any]], params: PyTree, features: Features
) -> bytes:
    """Returns the serialized program `(leaves of params, features) -> outputs`, for any number of rows.

    Parameters are arguments of the program, so it is small: it has no weights in it.

    Args:
        model: `model(params, features) -> {name: [B, …]}`, as `jax.jit` takes it.
        params: its parameters.
        features: some rows, for their dtypes and widths.

    Raises:
        ValueError: outputs that are not named arrays with one entry a row, or a model that depends on the
            number of rows.
    """
    structure = jax.tree.structure(params)
    (rows,) = export.symbolic_shape("b")

    def program(leaves: Sequence[Any], features: Features) -> dict[str, Any]:
        outputs = model(jax.tree.unflatten(structure, leaves), features)
        if not isinstance(outputs, Mapping) or not outputs:
            raise ValueError(f"model must return outputs by name, got {type(outputs).__name__}")
        for name, each in outputs.items():
            if jnp.ndim(each) < 1 or jnp.shape(each)[0] != rows:
                raise ValueError(
                    f"model must return one entry a row, got {name!r} of shape {jnp.shape(each)}"
                )
        return dict(outputs)

    shapes = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in named_leaves(params).values()
    ]
    try:
        with _without_paths():
            whole = export.export(jax.jit(program), platforms=PLATFORMS)(
                shapes, _shapes(features, rows)
            )
    except (TypeError, NotImplementedError, jax.errors.JAXTypeError) as error:
        raise ValueError(
            f"model must not depend on the number of rows: {str(error).splitlines()[0]:.200}"
        ) from error
    return bytes(whole.serialize())


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Keeps the names of source files, and so of this machine's directories, out of a program."""
    before = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


class Program:
    """A program on this machine's device, compiled once for each power-of-two number of rows.

    Args:
        blob: from `exported`.
        leaves: the parameters, in their order.
        max_batch: the largest number of rows of a call, a power of two.

    Raises:
        ValueError: a blob that cannot be read.
    """

    def __init__(self, blob: bytes, leaves: Sequence[NDArray], max_batch: int) -> None:
        try:
            self._exported = export.deserialize(bytearray(blob))
        except Exception as error:  # flatbuffers and jax raise errors of their own.
            raise ValueError(f"the program cannot be read: {error!r:.200}") from error
        self._leaves = [jax.device_put(leaf) for leaf in leaves]
        self._compiled: dict[int, Any] = {}
        self.max_batch = max_batch

    @property
    def buckets(self) -> tuple[int, ...]:
        """1, 2, 4, … `max_batch`."""
        return tuple(1 << i for i in range(self.max_batch.bit_length()))

    @property
    def outputs(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Dtype and shape of a row of each output."""
        avals = jax.tree.unflatten(self._exported.out_tree, self._exported.out_avals)
        return {name: (np.dtype(a.dtype), tuple(a.shape[1:])) for name, a in avals.items()}

    def warm(self, features: Features) -> None:
        """Compiles for all buckets; the features give dtypes and widths."""
        for size in self.buckets:
            self._program(size, features)

    def __call__(self, features: Features) -> dict[str, NDArray]:
        """Returns the outputs [B, …] of features [B, …], B ≥ 0.

        Rows are padded to the next bucket; more than `max_batch` are taken in turn.
        """
        number = len(features["ids"])
        parts = []
        for at in range(0, number, self.max_batch):
            some = {name: each[at : at + self.max_batch] for name, each in features.items()}
            count = len(some["ids"])
            size = 1 << (count - 1).bit_length()
            padded = {
                name: np.pad(each, ((0, size - count), (0, 0))) for name, each in some.items()
            }
            found = self._program(size, padded)(self._leaves, padded)
            parts.append({name: np.asarray(each)[:count] for name, each in found.items()})
        if not parts:
            return {name: np.zeros((0, *s), dtype) for name, (dtype, s) in self.outputs.items()}
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _program(self, size: int, features: Features) -> Any:
        if size not in self._compiled:
            call = jax.jit(self._exported.call)
            self._compiled[size] = call.lower(self._leaves, _shapes(features, size)).compile()
        return self._compiled[size]


def near(got: Any, wanted: Any) -> NDArray[np.bool_]:
    """Returns which values are the same: floats but for rounding, NaN as NaN, and all others exactly.

    The program for another number of rows, or compiled on another machine, rounds otherwise. A logit of 20
    in float32 is off by 2e-6, and so is the probability made of it, relatively.

    >>> near([0.5, 0.5, np.nan], [0.500003, 0.50001, np.nan]).tolist()
    [True, False, True]
    >>> near([234_907], [234_908]).tolist()
    [False]
    """
    if np.asarray(wanted).dtype.kind != "f":
        return np.asarray(np.equal(got, wanted), bool)
    return np.isclose(got, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)


def _shapes(features: Features, rows: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct((rows, *each.shape[1:]), each.dtype)
        for name, each in features.items()
    }
