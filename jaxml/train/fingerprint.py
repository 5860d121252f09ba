"""Fingerprints of a traced program: equal in every process and on every device where the computation is."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Parameters of operations that name functions, and functions that the trace has replaced.
_NAMES = ("name", "jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "debug_info")

# Parts of a training step, by the scopes in which `Program` and `make_step` compute them.
PARTS = {
    "model": ("loss", "model"),
    "penalty": ("loss", "penalty"),
    "loss": ("loss",),
    "optimizer or schedule": ("dense_update",),
}


def fingerprint(program: Any) -> str:
    """Returns a fingerprint of a jaxpr: of its operations, how they are connected, and all constants.

    Names of functions and variables do not matter, nor does what a callback computes on the host.

    Example:
        >>> of = lambda function: fingerprint(jax.make_jaxpr(function)(1.0))
        >>> def double(x):
        ...     return 2.0 * x
        >>> of(double) == of(lambda a: 2.0 * a), of(double) == of(lambda a: 2.5 * a)
        (True, False)
    """
    return _shown(_of_program(program, {}))


def of_parts(program: Any) -> dict[str, str]:
    """Returns a fingerprint of the operations of each of `PARTS`, without the backward pass, and of the
    program's constants, if they are arrays."""
    known: dict[int, str] = {}
    digests = {part: hashlib.sha256() for part in PARTS}
    for scopes, operation in _in_scopes(program):
        for part, scope in PARTS.items():
            if scopes[: len(scope)] == scope:
                digests[part].update(_of_operation(operation, _shape, known).encode())
                break
    digests["constants"] = hashlib.sha256("\n".join(map(_of_value, program.consts)).encode())
    return {part: _shown(digest.hexdigest()) for part, digest in digests.items()}


def _shown(digest: str) -> str:
    return f"fingerprint {digest[:16]}"


def _in_scopes(program: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields the operations in a named scope, each with its scopes, from inside of loops and branches."""
    for operation in program.eqns:
        words = re.findall(r"\w+", str(operation.source_info.name_stack))
        if not words:
            for inner in jax.tree.leaves(list(operation.params.values())):
                if hasattr(inner, "eqns"):
                    yield from _in_scopes(inner)
        elif "transpose" not in words:
            yield tuple(word for word in words if word not in ("jvp", "vmap")), operation


def _of_program(program: Any, known: dict[int, str]) -> str:
    """Returns the digest of a jaxpr; `known` holds those of jaxprs, by their ids, that are alive."""
    if id(program) not in known:
        inner = getattr(program, "jaxpr", program)
        numbers: dict[Any, int] = {}

        def number(atom: Any) -> str:
            """Variables are numbered in the order in which they come."""
            if hasattr(atom, "val"):
                return _of_value(atom.val)
            return f"{numbers.setdefault(atom, len(numbers))}:{_shape(atom)}"

        lines = [
            *map(_of_value, getattr(program, "consts", ())),
            *map(number, (*inner.constvars, *inner.invars)),
            *(_of_operation(operation, number, known) for operation in inner.eqns),
            *map(number, inner.outvars),
        ]
        known[id(program)] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return known[id(program)]


def _of_operation(operation: Any, atom: Callable[[Any], str], known: dict[int, str]) -> str:
    params = [
        f"{name}={_of_parameter(value, known)}"
        for name, value in operation.params.items()
        if name not in _NAMES
    ]
    atoms = map(atom, (*operation.invars, *operation.outvars))
    return " ".join([operation.primitive.name, *params, *atoms])


def _shape(atom: Any) -> str:
    """The type of a variable, or a literal's value."""
    if hasattr(atom, "val"):
        return _of_value(atom.val)
    return f"{getattr(atom.aval, 'dtype', '')}{getattr(atom.aval, 'shape', '')}"


def _of_parameter(value: Any, known: dict[int, str]) -> str:
    if hasattr(value, "eqns"):
        return _of_program(value, known)
    if isinstance(value, list | tuple):
        return f"({','.join(_of_parameter(each, known) for each in value)})"
    if isinstance(value, set | frozenset):
        return str(sorted(map(str, value)))
    if isinstance(value, np.ndarray | jax.Array):
        return _of_value(value)
    return re.sub(r"0x[0-9a-f]+", "", repr(value))


def _of_value(value: Any) -> str:
    if jnp.issubdtype(getattr(value, "dtype", np.float32), jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
