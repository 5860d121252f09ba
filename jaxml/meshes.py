"""Meshes of devices: loops under `jax.shard_map`, and functions on a mesh with explicit axes.

There the type of an array says how the devices hold it, and JAX refuses what is ambiguous. Everywhere
else the functions of this module change nothing.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxml.types import PyTree

Carry = TypeVar("Carry")
Function = TypeVar("Function", bound=Callable[..., Any])


def fori_loop(lower: int, upper: Any, body: Callable, carry: Carry, **options: Any) -> Carry:
    """Returns `jax.lax.fori_loop(lower, upper, body, carry)`; the carry may start as a constant."""
    carry = settled(lambda carry: body(lower, carry), carry)
    return jax.lax.fori_loop(lower, upper, body, carry, **options)


def scan(body: Callable, carry: Carry, xs: PyTree) -> tuple[Carry, Any]:
    """Returns `jax.lax.scan(body, carry, xs)`; the carry may start as a constant."""
    carry = settled(lambda carry: body(carry, jax.tree.map(lambda leaf: leaf[0], xs))[0], carry)
    return jax.lax.scan(body, carry, xs)


def settled(body: Callable[[Carry], Carry], carry: Carry) -> Carry:
    """Returns the first carry of a loop, under `shard_map` with the types of what `body` returns.

    A constant is the same on all devices, and what the body makes of it need not be.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return carry
    while True:
        after = jax.eval_shape(body, carry)
        wider = jax.tree.map(lambda leaf, found: _varying(leaf, _axes(found)), carry, after)
        if all(map(lambda a, b: a is b, jax.tree.leaves(carry), jax.tree.leaves(wider))):
            return carry
        carry = wider


def alike(*trees: Any) -> Any:
    """Returns the trees; under `shard_map` all of them vary over the axes over which any of them does.

    A function with its own backward pass then returns gradients of the types of its arguments.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return trees
    axes = frozenset[str]().union(*(_axes(jax.typeof(leaf)) for leaf in jax.tree.leaves(trees)))
    return jax.tree.map(lambda leaf: _varying(leaf, axes), trees)


def _axes(described: Any) -> frozenset[str]:
    """The axes of a mesh over which an array of this type varies; none are known if `check_vma=False`."""
    kind = described.manual_axis_type
    return frozenset() if kind is None else kind.varying


def _varying(leaf: Any, axes: frozenset[str]) -> Any:
    missing = axes - _axes(jax.typeof(leaf))
    return jax.lax.pcast(leaf, tuple(sorted(missing)), to="varying") if missing else leaf


def laid_out_as(names: PyTree) -> Callable[[Function], Function]:
    """Returns a decorator for functions whose operations are ambiguous on a mesh with explicit axes.

    There the compiler chooses how they are computed. An axis of a result is laid out as the same axis of an
    argument, if they have the same size; the other axes are whole on every device.

    Args:
        names: for each result, or for all, the parameter that it is laid out as, or None.
    """

    def decorate(function: Any) -> Any:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def placed(*args: Any, **kwargs: Any) -> Any:
            leaves, structure = jax.tree.flatten((args, kwargs))
            mesh = next(filter(None, map(_explicit_mesh, leaves)), None)
            if mesh is None:
                return function(*args, **kwargs)
            models = jax.tree.map(signature.bind(*args, **kwargs).arguments.get, names)
            types = {
                name: AxisType.Auto
                for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
                if kind == AxisType.Explicit
            }
            with jax.sharding.use_abstract_mesh(mesh.update_axis_types(types)):
                leaves = [
                    jax.sharding.reshard(leaf, PartitionSpec()) if _explicit_mesh(leaf) else leaf
                    for leaf in leaves
                ]
                args, kwargs = jax.tree.unflatten(structure, leaves)
                results = function(*args, **kwargs)
            models = jax.tree.broadcast(models, results, is_leaf=lambda node: node is None)
            shardings = jax.tree.map(lambda *pair: _sharding(mesh, *pair), results, models)
            return jax.sharding.reshard(results, shardings)

        return placed

    return decorate


def _explicit_mesh(leaf: Any) -> Any:
    """The mesh that an array lies on, if it has explicit axes, or None."""
    if not isinstance(leaf, jax.Array):
        return None
    mesh = jax.typeof(leaf).sharding.mesh
    return mesh if AxisType.Explicit in mesh.axis_types else None


def _sharding(mesh: Any, result: Any, model: Any) -> NamedSharding:
    """How a result is laid out that has the layout of a model."""
    spec: list[Any] = []
    if _explicit_mesh(model) is not None:
        pairs = zip(result.shape, model.shape, jax.typeof(model).sharding.spec, strict=False)
        spec = [axes if size == other else None for size, other, axes in pairs]
    return NamedSharding(mesh, PartitionSpec(*spec))
