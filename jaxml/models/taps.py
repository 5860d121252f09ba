"""Inputs, outputs and gradients of the layers of any Linen module.

A layer is a module that owns parameters. While the module is applied, the calls of its layers are
intercepted: their inputs and outputs are kept, and a zero, the *tap*, is added to the output, so that the
gradient with respect to the tap is that with respect to the activation. Recurrent cells are tapped at their
carry, once a step: the gradient of the carry that enters a step is what flows back through time, the
gradient of the carry that leaves it also has what comes from the output.

A cell that runs over all steps by itself is an `OverTime`, which is given the taps of all steps.

Layers inside of a lifted transformation with variables of its own (`nn.scan`) are skipped, except in
`nn.RNN`, whose variables are extended during the call.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxml.models.functional import draws, from_linen, mode_arguments
from jaxml.types import Array, Key, PyTree

__all__ = ["Layer", "Listener", "OverTime", "Seen", "listen"]

_TAPS, _SEEN = "jaxml_taps", "jaxml_seen"


class Layer(NamedTuple):
    """A layer, in the order of the calls.

    Attributes:
        name: its path, joined by `/`; the second call of the same layer is `name#2`.
        kind: `"dense"` (any module of weights), `"normalization"`, `"embedding"` or `"cell"`.
        parameters: path of its parameters in the tree of parameters.
        shape: of its output; for a cell, of the last leaf of the carry, with time in front. None inside of
            a transformation that takes no taps.
        stacked: number of layers whose parameters are stacked along the first axis (`nn.scan`), else 0.
    """

    name: str
    kind: str
    parameters: tuple[str, ...]
    shape: tuple[int, ...] | None
    stacked: int = 0


class Seen(NamedTuple):
    """Inputs and outputs of a layer in one application.

    Attributes:
        inputs: its first argument; None for a cell, and where that is no array of floats.
        outputs: its output; for a cell `[T, B, ...]`.
    """

    inputs: Array | None
    outputs: Array


class Listener(NamedTuple):
    """A module with taps.

    Attributes:
        layers: `layers(variables, x) -> tuple[Layer, …]`, without computing anything.
        taps: `taps(variables, x) -> zeros`, a dict by layer: an array like its output, or for a cell a dict
            of trees like its carry, `entering` and `leaving`, with time in front.
        apply: `apply(variables, taps, x, *, key=None, training=False) -> (outputs, new_model_state, seen)`
            as `Model.apply`, with a dict of `Seen` by layer.
    """

    layers: Callable[[PyTree, PyTree], tuple[Layer, ...]]
    taps: Callable[[PyTree, PyTree], dict[str, PyTree]]
    apply: Callable[..., tuple[Any, PyTree, dict[str, Seen]]]


class OverTime(nn.Module):
    """A recurrent cell that is applied to all steps at once.

    `__call__(inputs, carry, …, taps=None) -> (outputs, carry)`, inputs and outputs with time in front. Taps
    are a pair of trees like the carry with time in front: the cell adds the first to what enters a step,
    the second to what leaves it.
    """


class _Call(NamedTuple):
    name: str
    kind: str
    path: tuple[str, ...]
    number: int
    shapes: dict[str, tuple[int, ...]]


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.RNNCellBase | OverTime):
        return "cell"
    if "Norm" in type(module).__name__:
        return "normalization"
    return "embedding" if isinstance(module, nn.Embed) else "dense"


def _own_parameters(module: nn.Module) -> dict[str, Any]:
    held = module.variables.get("params", {})
    return {name: value for name, value in held.items() if not isinstance(value, Mapping)}


def _is_float(value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)


@contextlib.contextmanager
def _keeping(rnn: nn.RNN) -> Iterator[None]:
    """Lets the scan of an `nn.RNN` carry the variables of taps, one a step."""
    before = rnn.variable_axes
    object.__setattr__(rnn, "variable_axes", {**before, _TAPS: 0, _SEEN: 0})
    try:
        yield
    finally:
        object.__setattr__(rnn, "variable_axes", before)


class _Interceptor:
    """Intercepts the calls of one application and keeps their order."""

    def __init__(self) -> None:
        self.calls: dict[str, _Call] = {}
        self._numbers: dict[tuple[str, ...], int] = {}
        self._inside_cell = False

    def __call__(
        self,
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        if context.method_name != "__call__" or self._inside_cell or module.scope is None:
            return next_fun(*args, **kwargs)
        if isinstance(module, nn.RNN):
            with _keeping(module):
                return next_fun(*args, **kwargs)
        if isinstance(module, nn.RNNCellBase):
            return self._cell(next_fun, args, kwargs, module)
        if isinstance(module, OverTime):
            return self._over_time(next_fun, args, kwargs, module)
        outputs = next_fun(*args, **kwargs)
        if not _is_float(outputs) or not _own_parameters(module):
            return outputs
        call = self._call(module, self._numbers.get(module.path, 0) + 1)
        self._numbers[module.path] = call.number
        outputs = _tapped(module.scope, f"out{call.number}", outputs)
        if args and _is_float(args[0]):
            _keep(module.scope, f"in{call.number}", args[0])
        _keep(module.scope, f"out{call.number}", outputs)
        return outputs

    def _call(self, module: nn.Module, number: int) -> _Call:
        name = "/".join(module.path) or type(module).__name__
        name = name if number == 1 else f"{name}#{number}"
        shapes = {own: jnp.shape(value) for own, value in _own_parameters(module).items()}
        call = _Call(name, _kind(module), module.path, number, shapes)
        return self.calls.setdefault(name, call)

    def _cell(
        self,
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        module: nn.Module,
    ) -> Any:
        self._call(module, 1)
        carry, *rest = args
        entering = _tapped(module.scope, "entering", carry)
        self._inside_cell = True
        try:
            leaving, outputs = next_fun(entering, *rest, **kwargs)
        finally:
            self._inside_cell = False
        tapped = _tapped(module.scope, "leaving", leaving)
        # In most cells the output is a part of the carry: both must have the same tap.
        for before, after in zip(jax.tree.leaves(leaving), jax.tree.leaves(tapped), strict=True):
            if before is outputs:
                outputs = after
        _keep(module.scope, "out1", outputs)
        return tapped, outputs

    def _over_time(
        self,
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        module: nn.Module,
    ) -> Any:
        self._call(module, 1)
        scope: Any = module.scope
        inputs, carry, *_ = args
        if scope.is_mutable_collection(_TAPS):
            zeros = jax.tree.map(
                lambda leaf: jnp.zeros((len(inputs), *leaf.shape), leaf.dtype), carry
            )
            scope.put_variable(_TAPS, "entering", zeros)
            scope.put_variable(_TAPS, "leaving", zeros)
        if scope.has_variable(_TAPS, "entering"):
            names = ("entering", "leaving")
            kwargs = {**kwargs, "taps": tuple(scope.get_variable(_TAPS, name) for name in names)}
        outputs, carry = next_fun(*args, **kwargs)
        _keep(scope, "out1", outputs)
        return outputs, carry


def _tapped(scope: Any, name: str, value: PyTree) -> PyTree:
    """The value plus the tap of this name, if there is one."""
    if scope.is_mutable_collection(_TAPS):
        scope.put_variable(_TAPS, name, jax.tree.map(jnp.zeros_like, value))
    if not scope.has_variable(_TAPS, name):
        return value
    return jax.tree.map(jnp.add, value, scope.get_variable(_TAPS, name))


def _keep(scope: Any, name: str, value: Array) -> None:
    if scope.is_mutable_collection(_SEEN):
        scope.put_variable(_SEEN, name, value)


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for name in path:
        tree = tree.get(name, {})
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], name: str, value: Any) -> None:
    for part in path:
        tree = tree.setdefault(part, {})
    tree[name] = value


def listen(module: nn.Module) -> Listener:
    """Returns a `Listener` to a Linen module, one that `from_linen` takes. Zero taps change no output.

    Example:
        >>> module = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(1)])
        >>> x, listener = jnp.ones((2, 3)), listen(module)
        >>> variables = module.init(jax.random.key(0), x)
        >>> [(layer.name, layer.shape) for layer in listener.layers(variables, x)]
        [('layers_0', (2, 4)), ('layers_2', (2, 1))]
        >>> def loss(taps):
        ...     return listener.apply(variables, taps, x)[0].sum()
        >>> jax.grad(loss)(listener.taps(variables, x))["layers_2"].tolist()
        [[1.0], [1.0]]
    """
    from_linen(module)
    mode = mode_arguments(module)

    def run(
        variables: PyTree, x: PyTree, key: Key | None, training: bool, mutable: list[str]
    ) -> tuple[Any, dict[str, Any], dict[str, _Call]]:
        interceptor = _Interceptor()
        rngs = draws(key, training)
        with nn.intercept_methods(interceptor):
            outputs, written = module.apply(
                variables, x, rngs=rngs, mutable=mutable, **mode(training)
            )
        return outputs, dict(written), interceptor.calls

    def shapes(variables: PyTree, x: PyTree) -> tuple[dict[str, Any], dict[str, _Call]]:
        calls: dict[str, _Call] = {}

        def trace(variables: PyTree, x: PyTree) -> PyTree:
            _, written, found = run(variables, x, None, False, [_TAPS])
            calls.update(found)
            return written.get(_TAPS, {})

        return jax.eval_shape(trace, variables, x), calls

    def of_call(tree: Mapping[str, Any], call: _Call) -> PyTree | None:
        here = _at(tree, call.path)
        if call.kind == "cell":
            names = ("entering", "leaving")
            return {name: here[name] for name in names} if "entering" in here else None
        return here.get(f"out{call.number}")

    def layers(variables: PyTree, x: PyTree) -> tuple[Layer, ...]:
        written, calls = shapes(variables, x)
        found = []
        for call in calls.values():
            tap = of_call(written, call)
            shape = None if tap is None else tuple(jax.tree.leaves(tap)[-1].shape)
            if shape is None and call.number > 1:
                continue  # traced again, not called again
            held = _at(variables.get("params", {}), call.path)
            stacked = [
                held[name].shape[0]
                for name, inside in call.shapes.items()
                if held[name].ndim == len(inside) + 1
            ]
            found.append(
                Layer(call.name, call.kind, call.path, shape, stacked[0] if stacked else 0)
            )
        return tuple(found)

    def taps(variables: PyTree, x: PyTree) -> dict[str, PyTree]:
        written, calls = shapes(variables, x)
        zeros = {name: of_call(written, call) for name, call in calls.items()}
        return {
            name: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tap)
            for name, tap in zeros.items()
            if tap is not None
        }

    def apply(
        variables: PyTree,
        taps: Mapping[str, PyTree],
        x: PyTree,
        *,
        key: Key | None = None,
        training: bool = False,
    ) -> tuple[Any, PyTree, dict[str, Seen]]:
        _, calls = shapes(variables, x)
        tree: dict[str, Any] = {}
        for name, tap in taps.items():
            call = calls[name]
            parts = tap if call.kind == "cell" else {f"out{call.number}": tap}
            for part, value in parts.items():
                _put(tree, call.path, part, value)
        state = {name: value for name, value in variables.items() if name != "params"}
        mutable = [_SEEN, *(state if training else ())]
        outputs, written, _ = run({**variables, _TAPS: tree}, x, key, training, mutable)
        kept = written.pop(_SEEN, {})
        seen = {}
        for name, call in calls.items():
            here = _at(kept, call.path)
            if f"out{call.number}" in here:
                seen[name] = Seen(here.get(f"in{call.number}"), here[f"out{call.number}"])
        return outputs, {**state, **written}, seen

    return Listener(layers, taps, apply)
