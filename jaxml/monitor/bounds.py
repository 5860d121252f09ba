"""Proves that an update is finite from bounds on what goes in, without reading an entry of it.

An optimizer is an opaque function, so whether its update holds a NaN can be told only by a pass over the
update, which costs a step some percent. Nearly always a proof will do: with every |gradient| ≤ 3 and every
second moment in [0, 9], Adam's `m / (√v + 1e-8)` is at most 3e8. `propagate` follows such intervals through
the optimizer's program, some dozens of operations on scalars a tensor.

Sound, not complete. An interval is one of finite numbers: what could be NaN, infinite or within a factor of
ten of overflow has none, and neither has what is computed from it. Interval arithmetic (Moore, 1966) on
IEEE numbers, whose basic operations are monotone after rounding as well.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.types import Array, PyTree

__all__ = ["Value", "finite", "known", "observe", "propagate"]

# What a denominator must at least be: below, it may be flushed to 0.
_TINY = 1e-37


class Value(NamedTuple):
    """What is known of an array.

    Attributes:
        low: float32 scalar, no entry is below; −infinity where nothing is known.
        high: float32 scalar, no entry is above; infinity where nothing is known.
        exact: None, or gives the array itself, where that is cheap to have.
    """

    low: Array | float
    high: Array | float
    exact: Callable[[], Any] | None = None


UNKNOWN = Value(-math.inf, math.inf)


def known(array: Any) -> Value:
    """Of an array that may be read: scalars, and what is to be reduced to them."""
    if jnp.ndim(array) == 0 and jnp.issubdtype(jnp.result_type(array), jnp.number):
        value = jnp.asarray(array).astype(jnp.float32)
        return _closed(value, value, jnp.float32, lambda: array)
    return Value(-math.inf, math.inf, lambda: array)


def observe(array: Array) -> Value:
    """By a pass over the array."""
    if not array.size:
        return Value(0.0, 0.0)
    real = array.astype(jnp.float32)
    # A NaN is in both.
    return _closed(jnp.min(real), jnp.max(real), array.dtype)


def finite(values: Sequence[Value]) -> Array | bool:
    """Whether all are known to be finite; False, not an array, if no data could make it true."""
    found: Array | bool = True
    for value in values:
        if isinstance(value.high, float) and not math.isfinite(value.high):
            return False
        found = found & jnp.isfinite(value.high) & jnp.isfinite(value.low)
    return found


def propagate(function: Callable[..., PyTree], arguments: PyTree, values: Sequence[Value]) -> Any:
    """Bounds of a function's results.

    Args:
        function: of the arguments, traceable.
        arguments: a tuple of pytrees of arrays; only shapes and dtypes are looked at.
        values: what is known of each of their leaves.

    Returns:
        A `Value` for each leaf of the result, in its structure.

    Example:
        >>> half = lambda x, y: x / (jnp.sqrt(y) + 1)
        >>> found = propagate(half, (jnp.zeros(9), jnp.zeros(9)), [Value(-3.0, 3.0), Value(0.0, 4.0)])
        >>> print(f"{found.low:.2f} {found.high:.2f}")
        -3.00 3.00
    """
    program, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    found = _run(program.jaxpr, program.consts, values, {})
    return jax.tree.unflatten(jax.tree.structure(shape), found)


def _closed(
    low: Any, high: Any, dtype: Any, exact: Callable[[], Any] | None = None, count: int = 1
) -> Value:
    """An interval, unless it reaches out of what the dtype holds; rounding `count` times is forgiven."""
    if jnp.issubdtype(dtype, jnp.inexact):
        largest = 0.1 * float(jnp.finfo(dtype).max)
        largest = min(largest, 0.1 * float(np.finfo(np.float32).max))
    else:
        largest = 2.0**62
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    # False for NaN, too.
    inside = (jnp.abs(low) < largest) & (jnp.abs(high) < largest)
    slack = 1 + 1e-6 * count
    low = jnp.where(low < 0, low * slack, low)
    high = jnp.where(high > 0, high * slack, high)
    return Value(jnp.where(inside, low, -jnp.inf), jnp.where(inside, high, jnp.inf), exact)


def _hull(*numbers: Any) -> tuple[Any, Any]:
    low = high = numbers[0]
    for number in numbers[1:]:
        low, high = jnp.minimum(low, number), jnp.maximum(high, number)
    return low, high


def _product(a: Value, b: Value) -> tuple[Any, Any]:
    return _hull(a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high)


def _square(a: Value) -> tuple[Any, Any]:
    low, high = _hull(a.low * a.low, a.high * a.high)
    return jnp.where((a.low <= 0) & (a.high >= 0), 0.0, low), high


def _quotient(a: Value, b: Value) -> tuple[Any, Any]:
    apart = (b.low > _TINY) | (b.high < -_TINY)
    low, high = _hull(a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high)
    return jnp.where(apart, low, -jnp.inf), jnp.where(apart, high, jnp.inf)


def _power(a: Value, exponent: int) -> tuple[Any, Any]:
    if exponent == 2:
        return _square(a)
    ends = _hull(a.low**exponent, a.high**exponent)
    if exponent < 0:
        apart = (a.low > _TINY) | (a.high < -_TINY)
        return jnp.where(apart, ends[0], -jnp.inf), jnp.where(apart, ends[1], jnp.inf)
    if exponent % 2 == 0:
        return jnp.where((a.low <= 0) & (a.high >= 0), 0.0, ends[0]), ends[1]
    return ends


def _root(a: Value) -> tuple[Any, Any]:
    real = a.low >= 0
    return jnp.where(real, jnp.sqrt(a.low), -jnp.inf), jnp.where(real, jnp.sqrt(a.high), jnp.inf)


def _reciprocal_root(a: Value) -> tuple[Any, Any]:
    apart = a.low > _TINY
    return (
        jnp.where(apart, jax.lax.rsqrt(jnp.maximum(a.high, _TINY)), -jnp.inf),
        jnp.where(apart, jax.lax.rsqrt(jnp.maximum(a.low, _TINY)), jnp.inf),
    )


def _magnitude(a: Value) -> tuple[Any, Any]:
    low, high = _hull(jnp.abs(a.low), jnp.abs(a.high))
    return jnp.where((a.low <= 0) & (a.high >= 0), 0.0, low), high


_RULES: dict[str, Callable[..., tuple[Any, Any]]] = {
    "add": lambda a, b: (a.low + b.low, a.high + b.high),
    "add_any": lambda a, b: (a.low + b.low, a.high + b.high),
    "sub": lambda a, b: (a.low - b.high, a.high - b.low),
    "mul": _product,
    "div": _quotient,
    "neg": lambda a: (-a.high, -a.low),
    "abs": _magnitude,
    "sign": lambda a: (jnp.sign(a.low), jnp.sign(a.high)),
    "square": _square,
    "sqrt": _root,
    "rsqrt": _reciprocal_root,
    "tanh": lambda a: (-1.0, 1.0),
    "logistic": lambda a: (0.0, 1.0),
    "max": lambda a, b: (jnp.maximum(a.low, b.low), jnp.maximum(a.high, b.high)),
    "min": lambda a, b: (jnp.minimum(a.low, b.low), jnp.minimum(a.high, b.high)),
    "clamp": lambda low, a, high: (
        jnp.minimum(jnp.maximum(a.low, low.low), high.high),
        jnp.minimum(jnp.maximum(a.high, low.low), high.high),
    ),
}

# Their entries are entries of what goes in.
_MOVES = {
    "broadcast_in_dim",
    "copy",
    "copy_p",
    "convert_element_type",
    "dynamic_slice",
    "expand_dims",
    "optimization_barrier",
    "reduce_max",
    "reduce_min",
    "reshape",
    "rev",
    "slice",
    "squeeze",
    "transpose",
}
_TESTS = {"eq", "ne", "lt", "le", "gt", "ge", "is_finite"}
_CALLS = {"pjit", "jit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call"}


def _literal(value: Any) -> Value:
    if np.ndim(value) == 0:
        return known(value)
    return Value(-math.inf, math.inf, lambda: value)


# What was found, by operation and what went in: tensors that are treated alike are followed once.
_Found = dict[Any, Any]


def _run(jaxpr: Any, consts: Sequence[Any], values: Sequence[Value], found: _Found) -> list[Value]:
    held: dict[Any, Value] = dict(zip(jaxpr.constvars, map(_literal, consts), strict=True))
    held.update(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Value:
        if not hasattr(atom, "val"):
            return held[atom]
        if np.ndim(atom.val):
            return _literal(atom.val)
        key = (str(atom.val), str(np.result_type(atom.val)))
        if key not in found:
            found[key] = _literal(atom.val)
        return found[key]

    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        held.update(zip(equation.outvars, _equation(equation, given, found), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(equation: Any, given: list[Value], found: _Found) -> list[Value]:
    name, outputs = equation.primitive.name, equation.outvars
    if name in _CALLS:
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if hasattr(inner, "jaxpr"):
            return _run(inner.jaxpr, inner.consts, given, found)
        return _run(inner, (), given, found)

    exact = _exactly(equation, given)
    if exact is not None and all(out.aval.shape == () for out in outputs):
        # A number that follows from numbers: read, not bounded.
        return [
            known(exact()[i])._replace(exact=functools.partial(_item, exact, i))
            for i in range(len(outputs))
        ]
    if len(outputs) != 1:
        return [UNKNOWN] * len(outputs)
    dtype = outputs[0].aval.dtype
    first = None if exact is None else (lambda: exact()[0])
    same = name == "mul" and equation.invars[0] is equation.invars[1]
    ends = tuple((id(value.low), id(value.high)) for value in given)
    key = (name, equation.params.get("y"), _terms(equation), dtype, same, ends)
    if key not in found:
        bounds = _rule(equation, given)
        if bounds is None or not jnp.issubdtype(dtype, jnp.number):
            bounded = UNKNOWN
        else:
            bounded = _closed(*bounds, dtype, count=_terms(equation))
        # What went in is kept, so that nothing else takes its identity.
        found[key] = bounded, given
    return [found[key][0]._replace(exact=first)]


def _terms(equation: Any) -> int:
    """How many additions a result may be rounded in."""
    if equation.primitive.name != "reduce_sum":
        return 1
    return max(1, equation.invars[0].aval.size // max(1, equation.outvars[0].aval.size))


def _rule(equation: Any, given: list[Value]) -> tuple[Any, Any] | None:
    """Ends of the result's interval; None for an operation that is not followed."""
    name = equation.primitive.name
    if name == "select_n":
        given = given[1:]
    # A NaN, which no interval holds, passes through most operations.
    if any(isinstance(value.high, float) and not math.isfinite(value.high) for value in given):
        return None
    if name == "mul" and equation.invars[0] is equation.invars[1]:
        low, high = _square(given[0])
    elif name in _RULES:
        low, high = _RULES[name](*given)
    elif name in _MOVES and len(given) >= 1:
        low, high = given[0].low, given[0].high
    elif name in ("select_n", "concatenate", "pad"):
        low, _ = _hull(*(value.low for value in given))
        _, high = _hull(*(value.high for value in given))
    elif name == "integer_pow":
        low, high = _power(given[0], equation.params["y"])
    elif name == "reduce_sum":
        number = _terms(equation)
        low, high = number * given[0].low, number * given[0].high
    else:
        return None
    whole = finite(given)
    return jnp.where(whole, low, -jnp.inf), jnp.where(whole, high, jnp.inf)


def _item(results: Callable[[], Sequence[Any]], number: int) -> Any:
    return results()[number]


def _exactly(equation: Any, given: list[Value]) -> Callable[[], Sequence[Any]] | None:
    """Evaluates an equation, once and only if asked, where all that goes in may be read."""
    if any(value.exact is None for value in given):
        return None
    if equation.primitive.name.startswith("custom_"):  # It takes functions besides arrays.
        return None
    results: list[Sequence[Any]] = []

    def evaluate() -> Sequence[Any]:
        if not results:
            taken = [value.exact() for value in given if value.exact is not None]
            found = equation.primitive.bind(*taken, **equation.params)
            results.append(found if equation.primitive.multiple_results else [found])
        return results[0]

    return evaluate
