"""Linen modules as two pure functions."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxml.keys import as_key
from jaxml.types import Array, Key, PyTree

# Names of a module's mode argument: True means training, or evaluation.
_TRAINING = re.compile(r"(is_|in_)?train(ing)?(_mode)?")
_EVALUATION = re.compile(
    r"deterministic|use_running_average|(is_|in_)?(eval(uation|uate)?|inference|test(ing)?)(_mode)?"
)

# Collections that a module writes for an observer, not for its next call.
_TRANSIENT = ("intermediates", "perturbations", "losses")


class Model(NamedTuple):
    """A model as two pure functions.

    Attributes:
        init: `init(key, x) -> variables`, a dict of collections with `"params"`. `x` may be a
            `jax.ShapeDtypeStruct` under `jax.eval_shape`.
        apply: `apply(variables, x, *, key=None, training=False) -> (outputs, new_model_state)`. The key is
            for dropout and all other draws, and needed only if the model is random; evaluation without
            one draws the same numbers each time. `new_model_state` holds the collections besides
            `"params"` (batch statistics), updated when `training`.
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
    # Not itself and its input.
    known = list(inspect.signature(type(module).__call__).parameters)[2:]
    trains = [name for name in known if _TRAINING.fullmatch(name)]
    evaluates = [name for name in known if _EVALUATION.fullmatch(name)]

    def mode(training: bool) -> dict[str, bool]:
        return {**dict.fromkeys(trains, training), **dict.fromkeys(evaluates, not training)}

    return mode


def draws(key: Key | None, training: bool) -> dict[str, Key] | None:
    """Returns the keys of an application; a stream of any other name than dropout's has that of `params`.

    Evaluation without a key has a fixed one.
    """
    if key is None:
        if training:
            return None
        key = jax.random.key(0)
    return {"params": key, "dropout": key}


def from_linen(module: nn.Module) -> Model:
    """Returns a Linen module as a `Model`.

    The mode is passed under the name that the module's `__call__` has for it, such as `training`, `train`
    or `is_training`, or negated as `deterministic`, `use_running_average` or `inference`. In training every
    collection but `"params"` is mutable and returned, except what is sown for an observer
    (`intermediates`, `perturbations`, `losses`, and collections that grow with each call); otherwise none
    is.

    Metadata in boxes, such as the axes of `nn.with_partitioning`, is taken off the variables.

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

    def write(variables: PyTree, x: PyTree, key: Key | None) -> tuple[Any, dict[str, PyTree]]:
        """Returns the outputs and the collections besides `"params"` after a step of training."""
        state = list(split_variables(variables)[1])
        rngs = draws(key, True)
        outputs, written = module.apply(variables, x, rngs=rngs, mutable=state, **mode(True))
        return outputs, dict(written)

    def init(key: Key, x: PyTree) -> PyTree:
        key = as_key(key)
        variables = module.init({"params": key, "dropout": key}, x, **mode(False))
        variables = nn.meta.unbox(variables)
        kept = {name: value for name, value in variables.items() if name not in _TRANSIENT}
        if split_variables(kept)[1]:
            _, written = jax.eval_shape(write, kept, x, key)
            for name in _changed(kept, written):
                del kept[name]
        return kept

    def apply(
        variables: Mapping[str, PyTree],
        x: PyTree,
        *,
        key: Array | None = None,
        training: bool = False,
    ) -> tuple[Any, PyTree]:
        _, state = split_variables(variables)
        if not training or not state:
            rngs = draws(key, training)
            return module.apply(variables, x, rngs=rngs, **mode(training)), state
        outputs, written = write(variables, x, key)
        if changed := _changed(state, written):
            name, *_ = changed
            shapes = [jax.tree.map(jnp.shape, each[name]) for each in (written, state)]
            raise ValueError(
                f"arrays of the collection {name!r} must keep their shapes from call to call, got "
                f"{shapes[0]} after {shapes[1]}"
            )
        return outputs, {**state, **written}

    return Model(init, apply)


def _changed(state: Mapping[str, PyTree], written: Mapping[str, PyTree]) -> list[str]:
    """Returns the collections whose arrays have other names or shapes than before."""
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    return [name for name, new in written.items() if shapes(new) != shapes(state[name])]
