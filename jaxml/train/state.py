"""The state of a training and the report of a step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jaxml.keys import as_key
from jaxml.types import Array, Key, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """The state that a step takes and returns.

    Attributes:
        params: parameters of the dense optimizer.
        model_state: the model's other collections (batch statistics).
        opt_state: the dense optimizer's state.
        tables: row-sparse tables by name, each `[num_rows, dim]` or `[num_rows]`.
        table_states: the row optimizers' states, by the same names.
        sampler_state: the candidate sampler's state.
        step: int32 scalar, steps taken, rejected ones included.
        position: int32 scalar, batches drawn from the data, rejected ones included.
        key: typed key of the run; a step folds its number into it.
    """

    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    tables: dict[str, Array]
    table_states: dict[str, PyTree]
    sampler_state: PyTree
    step: Array
    position: Array
    key: Key


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Report:
    """The report of a step.

    Attributes:
        loss: float32 scalar, the mean loss of the batch before the update.
        accepted: bool scalar; False if the update was rejected and only `step` and `position` changed.
        metrics: scalars by name, as the task's loss returns them.
    """

    loss: Array
    accepted: Array
    metrics: dict[str, Any] = field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Best:
    """State of early stopping.

    Attributes:
        loss: float32 scalar, the lowest validation loss so far.
        params: the parameters that had it.
        model_state: the model's other collections that had it.
        waited: int32 scalar, validations since then.
        stopped_at: int32 scalar, steps taken when training stopped; −1 before.
    """

    loss: Array
    params: PyTree
    model_state: PyTree
    waited: Array
    stopped_at: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of `fit` and `sweep`, from which a training can continue.

    Attributes:
        state: parameters, optimizer, counts, key.
        first_validation: float32 scalar, the validation loss before the first step; 0 until it is measured.
        last_validation: float32 scalar, the last validation loss; 0 until it is measured.
        best: of early stopping; None without.
    """

    state: State
    first_validation: Array
    last_validation: Array
    best: Best | None

    @property
    def step(self) -> Array:
        """int32 scalar, steps taken."""
        return self.state.step

    @property
    def position(self) -> Array:
        """int32 scalar, batches drawn."""
        return self.state.position


def create_state(
    key: Key,
    *,
    params: PyTree = (),
    model_state: PyTree = (),
    optimizer: Any = None,
    tables: Mapping[str, Array] | None = None,
    row_optimizers: Mapping[str, Any] | None = None,
    sampler_state: PyTree = (),
) -> State:
    """Returns the state before the first step.

    A step that donates the state (`jax.jit(step, donate_argnums=0)`) deletes its arrays. The state has
    copies of the key and of arrays that occur twice, such as tied parameters or what an optimizer keeps
    of them; it takes the other arrays, which may be large, as they are: pass `jnp.copy` of what is used
    later.

    Args:
        key: key of the run, or an integer as seed.
        params: dense parameters; may be empty.
        model_state: the model's other collections.
        optimizer: an `optax.GradientTransformation` for `params`; None where there are none.
        tables: row-sparse tables by name.
        row_optimizers: for each table `step -> RowOptimizer`, as `make_step` takes them.
        sampler_state: as `Sampler.init` returns it.

    Raises:
        ValueError: if the tables and the row optimizers do not have the same names.

    Example:
        >>> state = create_state(jax.random.key(0), params={"w": jnp.zeros(3)})
        >>> int(state.step), state.tables
        (0, {})
    """
    tables, row_optimizers = dict(tables or {}), dict(row_optimizers or {})
    if tables.keys() != row_optimizers.keys():
        raise ValueError(
            f"row_optimizers must name the tables {sorted(tables)}, got {sorted(row_optimizers)}"
        )
    zero = jnp.zeros((), jnp.int32)
    state = State(
        params=params,
        model_state=model_state,
        opt_state=() if optimizer is None else optimizer.init(params),
        tables=tables,
        table_states={name: row_optimizers[name](zero).init(tables[name]) for name in tables},
        sampler_state=sampler_state,
        # Two buffers, because a step donates both.
        step=jnp.zeros((), jnp.int32),
        position=jnp.zeros((), jnp.int32),
        key=as_key(key),
    )
    taken = {id(key)}

    def own(leaf: Any) -> Any:
        """The leaf, or a copy if it is another leaf too, or the key."""
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            leaf = jnp.copy(leaf) if id(leaf) in taken else leaf
            taken.add(id(leaf))
        return leaf

    return jax.tree.map(own, state)
