"""What a feature transform is: fitted once, then a pure function of a state and values.

Arithmetic on numbers is float32 and takes the same bits whether a value comes alone or in a batch,
eagerly, under `jit` or under `vmap`. Two things see to that. Divisions are multiplications by a
reciprocal that is part of the state, since a compiler may or may not turn a division by a constant
into one. States are `opaque`: XLA makes (x − a) − b into x − (a + b) where it sees that a and b are
constants. And a product is `sealed` before anything is added to it: LLVM contracts a multiplication
and an addition to one fused operation, with one rounding instead of two, where it sees both, which
it does under `jit` and does not eagerly.

Where float32 does not resolve a column (seconds since 1970 are 128 apart), a number enters as a
`Pair`: what float32 makes of it, and what that leaves over.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.features.columns import MAX_DISTINCT, Counts, numbers
from jaxml.types import Array

State: TypeAlias = Any
"""What was fitted: a NamedTuple of small NumPy arrays, or () where there is nothing to fit."""

Stage: TypeAlias = Literal["host", "either", "device"]

Gives: TypeAlias = Literal["number", "id", "vector", "same"]


class Output(NamedTuple):
    """What a fitted transform puts out.

    Attributes:
        width: how many ids there are, or how long a vector is; 1 for a number.
        low: no output is below it.
        high: no output is above it.
        out_of_vocabulary: ids [first, end) that mean an unseen category.
    """

    width: int = 1
    low: float = -np.inf
    high: float = np.inf
    out_of_vocabulary: tuple[int, int] = (0, 0)


class Transform(NamedTuple):
    """A feature transform: `fit` once, `apply` as a pure function for ever after.

    Attributes:
        fit: `fit(values) -> state`. Values are a column: an array or a list of N ≥ 1 numbers, texts or
            times; None, NaN, NaT and "" are missing. The state is a pytree of small NumPy arrays.
        apply: `apply(state, values) -> values`, of any shape. Transforms of numbers and ids take JAX
            arrays too, under `jit`, `vmap` and `grad`, and give float32 or int32; those of raw
            categories (`stage` "host") take what `fit` takes.
        empty: `empty() -> counts`, to fit in chunks: `finish(merge(update(empty(), a), update(empty(),
            b)))` is `fit` of both, in any order, to the bit.
        update: `update(counts, values) -> counts`.
        merge: `merge(counts, counts) -> counts`.
        finish: `finish(counts) -> state`.
        name: of the function that made it.
        options: what it was called with, as JSON could hold it; `pipeline` remakes it from them.
        gives: "number", float32 of the shape of the values; "id", int32 of that shape; "vector", float32
            with one more axis; "same", what went in.
        stage: "host" belongs into NumPy (text, 64-bit ids, exact comparisons), "device" into the JAX
            program, "either" goes with what comes after it.
        core: `core(numpy or jax.numpy, state, values) -> values`; values are a `Column` for "host", a
            `Pair` or ids for "device".
        output: `output(state) -> Output`.
        exact: whether it needs counts without a limit on distinct values.
        reads: whether fitting looks at values at all.
    """

    fit: Callable[[Any], State]
    apply: Callable[[State, Any], Any]
    empty: Callable[[], Counts]
    update: Callable[[Counts, Any], Counts]
    merge: Callable[[Counts, Counts], Counts]
    finish: Callable[[Counts], State]
    name: str
    options: Mapping[str, Any]
    gives: Gives
    stage: Stage
    core: Callable[[Any, State, Any], Any]
    output: Callable[[State], Output]
    exact: bool
    reads: bool

    def __reduce__(self) -> tuple[Any, ...]:
        # Closures do not pickle; what they were made from does.
        from jaxml import features  # the package imports this module

        if not hasattr(features, self.name):  # somebody's own transform, as far as it pickles
            return Transform, tuple(self)
        return _remade, (self.name, dict(self.options))

    def __repr__(self) -> str:
        told = ", ".join(
            f"{key}={value!r}" for key, value in self.options.items() if value is not None
        )
        return f"{self.name}({told})"


def _remade(name: str, options: Mapping[str, Any]) -> Transform:
    """The transform that a function of this package makes of such options."""
    from jaxml import features

    return getattr(features, name)(**options)


class Pair(NamedTuple):
    """Numbers as the sum of two float32: about 48 bits, where one float32 has 24.

    Attributes:
        high: float32.
        low: float32 of that shape, or None for zeros.
    """

    high: Any
    low: Any

    @property
    def value(self) -> Any:
        """The sum, in float32."""
        return self.high if self.low is None else self.high + self.low


def split(values: Any, fine: Any = True) -> Pair:
    """Values as a `Pair`.

    Args:
        values: numbers of any kind and shape; JAX arrays stay on their device.
        fine: False leaves the second half out. Where it is not known (a tracer) both are made.

    Returns:
        A `Pair` of NumPy arrays, or of JAX arrays if `values` is one.
    """
    if isinstance(values, Pair):
        return values
    both = isinstance(fine, jax.core.Tracer) or bool(fine)
    if isinstance(values, jax.Array):
        if both and values.dtype in (jnp.int32, jnp.uint32):
            # The upper 20 bits and the lower 12 are each a float32.
            upper = values & ~jnp.array(0xFFF, values.dtype)
            return Pair(upper.astype(jnp.float32), (values - upper).astype(jnp.float32))
        high = values.astype(jnp.float32)
        if not both or values.dtype not in (jnp.float64, jnp.int64, jnp.uint64):
            return Pair(high, None)
        low = (values.astype(jnp.float64) - high.astype(jnp.float64)).astype(jnp.float32)
        return Pair(high, jnp.where(jnp.isfinite(high), low, 0))
    wide = numbers(values)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = wide.astype(np.float32)
        rest = np.where(np.isfinite(rounded), wide - rounded, 0).astype(np.float32)
    return Pair(rounded, rest if both else None)


def halves(value: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One number as two float32 scalars."""
    pair = split(np.float64(value))
    return np.asarray(pair.high, np.float32), np.asarray(pair.low, np.float32)


def is_fine(largest: float, scale: float) -> np.bool_:
    """Whether float32 rounds numbers as large as that by 1e-5 of the scale at which they are seen."""
    return np.bool_(abs(largest) * 2.0**-24 > 1e-5 * scale)


def minus(pair: Pair, high: Any, low: Any) -> Any:
    """pair − (high + low), right to float32 even where both are large and close together."""
    rest = -low if pair.low is None else pair.low - low
    return (pair.high - high) + rest


def sealed(xp: Any, product: Any) -> Any:
    """The product itself, in a form that no addition is fused into."""
    return product if xp is np else _sealed(product)


@jax.custom_jvp
def _sealed(product: Array) -> Array:
    # Neither an optimization barrier nor a reduction to the same precision stops LLVM, nor does a
    # select of another zero for −0, which an addition cannot tell. This changes nothing either, but
    # takes knowing that no number is below the least.
    least = np.float32(np.finfo(np.float32).min)
    return jnp.where(product < least, product, jnp.maximum(product, least))


@_sealed.defjvp
def _sealed_jvp(primals, tangents):
    return _sealed(primals[0]), tangents[0]


def opaque(state: State) -> State:
    """A state as values that a compiler knows nothing about, though they be constants."""
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, state))


def on_device(pair: Pair) -> Pair:
    """The same as JAX arrays."""
    return Pair(jnp.asarray(pair.high), None if pair.low is None else jnp.asarray(pair.low))


@functools.partial(jax.jit, static_argnums=0)
def run(core: Callable[[Any, State, Any], Any], state: State, values: Any) -> Array:
    """A core on a device, as one program: eager calls compile once a shape, not once an operation."""
    made = core(jnp, opaque(state), values)
    return made.value if isinstance(made, Pair) else made


def check_rows(counts: Counts) -> None:
    """An empty column is an error for every transform."""
    if not counts.total:
        raise ValueError("values is empty, wanted at least one row")


def numeric(
    name: str,
    options: Mapping[str, Any],
    finish: Callable[[Counts], State],
    core: Callable[[Any, State, Pair], Any],
    output: Callable[[State], Output],
    *,
    gives: Gives = "number",
    stage: Stage = "device",
) -> Transform:
    """A transform of numbers to numbers. Its state has a leaf `fine`, or is never fine."""

    def apply(state: State, values: Any) -> Array:
        return run(core, state, on_device(split(values, getattr(state, "fine", False))))

    return make(name, options, finish, apply, core, output, gives=gives, stage=stage)


def make(
    name: str,
    options: Mapping[str, Any],
    finish: Callable[[Counts], State],
    apply: Callable[[State, Any], Any],
    core: Callable[[Any, State, Any], Any],
    output: Callable[[State], Output],
    *,
    gives: Gives,
    stage: Stage,
    exact: bool = False,
    reads: bool = True,
) -> Transform:
    """A `Transform` with the accumulator that all of them share."""

    def empty() -> Counts:
        return Counts.empty(0 if exact else MAX_DISTINCT)

    def update(counts: Counts, values: ArrayLike) -> Counts:
        if isinstance(values, jax.core.Tracer):
            raise ValueError("values is traced, wanted values on the host: fit outside of jit")
        return counts.update(values)

    def finished(counts: Counts) -> State:
        check_rows(counts)
        # NumPy's scalars are arrays too, but checkpoints do not take them for such.
        return jax.tree.map(np.asarray, finish(counts))

    def fit(values: ArrayLike) -> State:
        return finished(update(empty(), values))

    return Transform(
        fit=fit,
        apply=apply,
        empty=empty,
        update=update,
        merge=Counts.merge,
        finish=finished,
        name=name,
        options=options,
        gives=gives,
        stage=stage,
        core=core,
        output=output,
        exact=exact,
        reads=reads,
    )
