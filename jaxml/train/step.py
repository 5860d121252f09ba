"""The training step, from a task, optimizers and tables."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxml import meshes, monitor, trees
from jaxml import tables as row_tables
from jaxml.ids import as_int32
from jaxml.monitor.guarding import update_given_loss
from jaxml.train.state import Report, State
from jaxml.types import Array, PyTree

# Step -> RowOptimizer: the hyperparameters of a table are functions of the step count.
RowSchedule = Callable[[Array], row_tables.RowOptimizer]


class Bags(NamedTuple):
    """A request of `lookup` for sums of rows, such as the n-grams of a text.

    Attributes:
        ids: int32 `[..., L]`, the rows of each bag. The loss gets their sums, `[..., dim]`; the rows
            themselves, `[..., L, dim]`, are never in memory together.
    """

    ids: Array


class Whole(NamedTuple):
    """A request of `lookup` for all rows of a table, for a loss over every class.

    The loss gets the table as float32 `[num_rows, dim]`, and the row optimizer updates every row.
    """


class Task(NamedTuple):
    """The functions that define a training; all are pure.

    Attributes:
        loss: `loss(params, model_state, rows, batch, context, key) -> (loss, (model_state, metrics))`
            with the mean loss of the batch, a float32 scalar. `rows` holds for each table the float32 rows
            that `lookup` requested, `[*ids.shape, dim]`, or the sums of `Bags`; `metrics` are scalars
            by name.
        lookup: `lookup(batch, sampler_state, key) -> (ids, context)` with the int32 ids of the rows of each
            table that this batch needs (any shape, `Bags`, or `Whole`; an id out of range gives zeros and
            no update), and a context for `loss`, such as the candidates.
        observe: `observe(sampler_state, batch, accepted) -> sampler_state` updates the sampler, but not
            where `accepted` is False. Mask the update; a select over a table would copy it.
        draw: None, or a second lookup that uses the rows of the first, for candidates that depend on the
            model: `draw(params, model_state, rows, batch, context, sampler_state, key) -> (ids, context)`.
            It uses other tables than `lookup`; its context replaces the first. It has no gradient.
    """

    loss: Callable[..., tuple[Array, tuple[PyTree, dict[str, Array]]]]
    lookup: Callable[..., tuple[dict[str, Array], PyTree]] = lambda batch, sampler_state, key: (
        {},
        None,
    )
    observe: Callable[..., PyTree] = lambda sampler_state, batch, accepted: sampler_state
    draw: Callable[..., tuple[dict[str, Array], PyTree]] | None = None


def all_finite(loss: Array, gradients: PyTree) -> Array:
    """Accepts a step whose loss and gradients are finite.

    Args:
        loss: float scalar.
        gradients: pytree of float arrays, dense and row gradients together.

    Returns:
        bool scalar.

    Example:
        >>> bool(all_finite(jnp.float32(1.0), {"w": jnp.array([0.0, jnp.nan])}))
        False
    """
    return jnp.isfinite(loss) & trees.all_finite(gradients)


def make_step(
    task: Task,
    *,
    optimizer: Any = None,
    row_optimizers: Mapping[str, RowSchedule] | None = None,
    accept: Callable[[Array, PyTree], Array] = all_finite,
) -> Callable[[State, PyTree], tuple[State, Report]]:
    """Builds `step(state, batch) -> (state, report)`, pure; the caller compiles and donates.

    One step gathers the rows that the batch needs, differentiates the mean loss with respect to the dense
    parameters and those rows, and updates both. A step that `accept`, or the guard of the optimizer
    (`monitor.guard`), rejects changes only `step`, `position` and the guard's record. So does, with the
    default `accept` or a guard, one after which a finite number of the model's state, of parameters or an
    optimizer's state in float16, or a square that a row optimizer keeps would be infinite or NaN; a guard
    checks an optimizer's state in any precision. In dense state a
    select undoes it; in tables the ids of the update are set out of range, because a select would touch
    every row.

    Args:
        task: the functions of the training.
        optimizer: an `optax.GradientTransformation` for `state.params`; None where there are none.
        row_optimizers: for each table a function `step -> RowOptimizer`, so that a schedule counts steps.
        accept: `accept(loss, gradients) -> bool scalar`; `gradients` holds `"params"` and `"rows"`.

    Returns:
        The step. Under `jax.jit(step, donate_argnums=0)` tables are updated in place.

    Example:
        >>> import optax
        >>> from jaxml.train.state import create_state
        >>> def loss(params, model_state, rows, batch, context, key):
        ...     return jnp.mean(jnp.square(params["w"] * batch["x"] - batch["y"])), (model_state, {})
        >>> optimizer = optax.sgd(0.5)
        >>> state = create_state(jax.random.key(0), params={"w": jnp.zeros(())}, optimizer=optimizer)
        >>> step = jax.jit(make_step(Task(loss), optimizer=optimizer), donate_argnums=0)
        >>> state, report = step(state, {"x": jnp.ones(4), "y": jnp.full(4, 3.0)})
        >>> float(report.loss), float(state.params["w"]), int(state.step)
        (9.0, 3.0, 1)
    """
    row_optimizers = dict(row_optimizers or {})

    def step(state: State, batch: PyTree) -> tuple[State, Report]:
        lookup_key, loss_key, _ = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        with jax.named_scope("lookup"):
            ids, context = task.lookup(batch, state.sampler_state, lookup_key)
            rows = {name: _look_up(state.tables[name], ids[name]) for name in ids}
        if task.draw is not None:
            with jax.named_scope("draw"):
                drawn, context = task.draw(
                    state.params,
                    state.model_state,
                    rows,
                    batch,
                    context,
                    state.sampler_state,
                    jax.random.fold_in(lookup_key, 1),
                )
                if twice := sorted(set(drawn) & set(ids)):
                    raise ValueError(
                        f"draw must use other tables than lookup, but both use {twice}"
                    )
                ids = {**ids, **drawn}
                rows |= {name: _look_up(state.tables[name], drawn[name]) for name in drawn}
        with jax.named_scope("loss"):
            (loss, (model_state, metrics)), (d_params, d_rows) = jax.value_and_grad(
                task.loss, argnums=(0, 2), has_aux=True
            )(state.params, state.model_state, rows, batch, context, loss_key)
        accepted = accept(loss, {"params": d_params, "rows": d_rows})
        guarded = monitor.is_guarded(state.opt_state)
        # A verdict of the caller's own is not added to.
        keeps_finite = guarded or accept is all_finite
        if keeps_finite:
            accepted &= trees.stays_finite(model_state, state.model_state)
            # What row optimizers keep are squares.
            kept = [d_rows[name] for name in sorted(ids) if state.table_states[name]]
            accepted &= trees.all_finite(jax.tree.map(jnp.square, kept))

        with jax.named_scope("dense_update"):
            params, opt_state = state.params, state.opt_state
            if optimizer is not None:
                extra = {"accept": accepted} if guarded else {}
                updates, opt_state = update_given_loss(optimizer)(
                    d_params, state.opt_state, state.params, value=loss, **extra
                )
                params = optax.apply_updates(state.params, updates)
                if guarded:
                    accepted = monitor.verdict(opt_state).accepted
                elif keeps_finite:
                    # To read all moments again would be a quarter of a step.
                    accepted &= trees.stays_finite(
                        _of_float16((params, opt_state)),
                        _of_float16((state.params, state.opt_state)),
                    )
                if not guarded:
                    opt_state = trees.select(accepted, opt_state, state.opt_state)
            params, model_state = trees.select(
                accepted, (params, model_state), (state.params, state.model_state)
            )

        with jax.named_scope("row_update"):
            tables, table_states = dict(state.tables), dict(state.table_states)
            for name in sorted(ids):
                tables[name], table_states[name] = _update_rows(
                    row_optimizers[name](state.step),
                    ids[name],
                    d_rows[name],
                    table_states[name],
                    tables[name],
                    accepted,
                )

        after = State(
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            tables=tables,
            table_states=table_states,
            sampler_state=task.observe(state.sampler_state, batch, accepted),
            step=state.step + 1,
            position=state.position + 1,
            key=state.key,
        )
        return after, Report(loss.astype(jnp.float32), accepted, metrics)

    return step


def recorded(
    step: Callable[[State, PyTree], tuple[State, Report]], recorder: monitor.Recorder
) -> Callable[[State, PyTree], tuple[State, Report]]:
    """Returns the step with the guard's verdict and the layers' activity in its metrics.

    Args:
        step: of an optimizer guarded by the recorder.
        recorder: of the model that is trained.
    """

    def stepped(state: State, batch: PyTree) -> tuple[State, Report]:
        activity = recorder.observe(state.params, state.model_state, state.key, state.step, batch)
        # Observe before the update in place; otherwise the compiler keeps a copy of the parameters.
        activity, batch = jax.lax.optimization_barrier((activity, batch))
        after, report = step(state, batch)
        seen: Any = {"verdict": monitor.verdict(after.opt_state), "activity": activity}
        return after, dataclasses.replace(report, metrics={**report.metrics, **seen})

    return stepped


def _of_float16(tree: PyTree) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype == jnp.float16]


def _look_up(table: Array, ids: Any) -> Any:
    if isinstance(ids, dict):
        return {name: _look_up(table, some) for name, some in ids.items()}
    if isinstance(ids, Whole):
        return row_tables.from_storage(table).astype(jnp.float32)
    if isinstance(ids, Bags):
        return row_tables.gather_bags(table, ids.ids)
    return row_tables.gather_rows(table, ids)


def _row_gradient(table: Array, ids: Any, values: Any) -> row_tables.RowGradient:
    if isinstance(ids, dict):
        parts = [_row_gradient(table, ids[name], values[name]) for name in sorted(ids)]
        return row_tables.RowGradient(
            jnp.concatenate([part.ids for part in parts]),
            jnp.concatenate([part.values for part in parts]),
        )
    flat = ids.ids.reshape(-1, ids.ids.shape[-1]) if isinstance(ids, Bags) else ids.reshape(-1)
    # In a dtype that holds −1, for updates that are refused.
    return row_tables.RowGradient(as_int32("ids", flat), values.reshape(-1, *table.shape[1:]))


@meshes.laid_out_as(("table", "slots"))
def _update_rows(
    optimizer: row_tables.RowOptimizer,
    ids: Array | Bags | Whole,
    values: Array,
    slots: PyTree,
    table: Array,
    accepted: Array,
) -> tuple[Array, PyTree]:
    """Returns table and slots after the update."""
    if isinstance(ids, Whole):
        rows = row_tables.from_storage(table).astype(jnp.float32)
        rows, moved = optimizer.rule(rows, slots, values)
        after = (row_tables.to_storage(rows, table.dtype), moved)
        return trees.select(accepted, after, (table, slots))
    gradient = _row_gradient(table, ids, values)
    # Rows out of range take no update.
    gradient = dataclasses.replace(gradient, ids=jnp.where(accepted, gradient.ids, -1))
    return optimizer.update(gradient, slots, table)
