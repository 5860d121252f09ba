"""Linen modules as two pure functions."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jaxml.keys import as_key
from jaxml.types import Array, Key, PyTree

# Names of a module's mode argument, and whether True means evaluation.
_MODE_ARGUMENTS = {
    "training": False,
    "train": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}

# Collections that a module writes for an observer, not for its next call.
_TRANSIENT = ("intermediates", "perturbations", "losses")


class Model(NamedTuple):
    """A model as two pure functions.

    Attributes:
        init: `init(key, x) -> variables`, a dict of collections with `"params"`. `x` may be a
            `jax.ShapeDtypeStruct` under `jax.eval_shape`.
        apply: `apply(variables, x, *, key=None, training=False) -> (outputs, new_model_state)`. The key is
            for dropout, and needed only if the model is random; `new_model_state` holds the collections
            besides `"params"` (batch statistics), updated when `training`.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., tuple[Any, PyTree]]


def split_variables(variables: Mapping[str, PyTree]) -> tuple[PyTree, dict[str, PyTree]]:
    """Returns the collection `"params"` (`{}` if there is none) and the other collections.

    Example:
        >>> split_variables({"params": {"w": 1.0}, "batch_stats": {"mean": 0.0}})
        ({'w': 1.0}, {'batch_stats': {'mean': 0.0}})
    """
    state = {name: value for name, value in variables.items() if name != "params"}
    return variables.get("params", {}), state


def mode_arguments(module: nn.Module) -> Callable[[bool], dict[str, bool]]:
    """Returns `mode(training) -> keyword arguments` under the names that the module's `__call__` has.

    Example:
        >>> mode_arguments(nn.Dropout(0.5))(True)
        {'deterministic': False}
    """
    known = inspect.signature(type(module).__call__).parameters
    names = {name: negated for name, negated in _MODE_ARGUMENTS.items() if name in known}

    def mode(training: bool) -> dict[str, bool]:
        return {name: training != negated for name, negated in names.items()}

    return mode


def from_linen(module: nn.Module) -> Model:
    """Returns a Linen module as a `Model`.

    The mode is passed under the name that the module's `__call__` has for it: `training`, `train` or
    `is_training`, or negated as `deterministic` or `use_running_average`. In training every collection but
    `"params"` is mutable and returned, except what is sown for an observer (`intermediates`,
    `perturbations`, `losses`); otherwise none is.

    Args:
        module: its `__call__` takes one positional input `x` (any pytree).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = from_linen(nn.Dense(3))
        >>> variables = model.init(jax.random.key(0), jnp.ones((2, 5)))
        >>> outputs, state = model.apply(variables, jnp.ones((2, 5)))
        >>> outputs.shape, state
        ((2, 3), {})
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module must be a flax.linen.Module, got {type(module).__name__}")
    mode = mode_arguments(module)

    def init(key: Key, x: PyTree) -> PyTree:
        key = as_key(key)
        variables = module.init({"params": key, "dropout": key}, x, **mode(False))
        return {name: value for name, value in variables.items() if name not in _TRANSIENT}

    def apply(
        variables: Mapping[str, PyTree],
        x: PyTree,
        *,
        key: Array | None = None,
        training: bool = False,
    ) -> tuple[Any, PyTree]:
        _, state = split_variables(variables)
        rngs = None if key is None else {"dropout": key}
        if not training or not state:
            return module.apply(variables, x, rngs=rngs, **mode(training)), state
        outputs, written = module.apply(
            variables, x, rngs=rngs, mutable=list(state), **mode(training)
        )
        return outputs, {**state, **written}

    return Model(init, apply)
