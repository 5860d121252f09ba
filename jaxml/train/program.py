"""A training as pure functions and one compiled program: `fit` runs it as it is, `sweep` under `vmap`."""

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import models, trees
from jaxml import monitor as monitoring
from jaxml.train.rewind import rewindable, rewinding
from jaxml.train.state import Report, State, create_state
from jaxml.train.step import Task, make_step, recorded
from jaxml.types import Array, Key, PyTree

__all__ = ["Course", "Program", "Recipe", "Stopping", "held_out_blocks", "population_axes"]

# Validation examples at a time.
_VALIDATED_AT_ONCE = 1024

# Hyperparameters by name, each a float32 scalar that is traced.
Hyperparameters = Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stopping:
    """What early stopping remembers.

    Attributes:
        loss: float32 scalar, the lowest validation loss so far.
        step: int32 scalar, steps taken before it.
        params: the parameters there.
        model_state: the model's other collections there.
        waited: int32 scalar, validations since.
        stopped_at: int32 scalar, steps taken when it was decided to stop; −1 while the training goes on.
    """

    loss: Array
    step: Array
    params: PyTree
    model_state: PyTree
    waited: Array
    stopped_at: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Course:
    """All that a training changes, and all that it takes to go on with it.

    Of a population every leaf has the member as leading axis, but the counts that all have in common:
    see `population_axes`.

    Attributes:
        state: parameters, optimizer, counts, key.
        first_validation: float32 scalar, the validation loss before the first step; NaN without data.
        stopping: None without early stopping.
    """

    state: State
    first_validation: Array
    stopping: Stopping | None

    @property
    def step(self) -> Array:
        """int32 scalar, steps taken; of a population those of its program."""
        return self.state.step

    @property
    def position(self) -> Array:
        """int32 scalar, batches drawn."""
        return self.state.position


class Data(NamedTuple):
    """What a program is given besides the state; none of it is a constant of the program.

    Attributes:
        hyperparameters: traced scalars by name; of a population [members].
        training: `(x, y)` on the device, or None where batches are streamed.
        held_out: as `held_out_blocks` makes it, or None.
        num_steps: int32 scalar, of the whole training.
    """

    hyperparameters: PyTree
    training: PyTree
    held_out: PyTree
    num_steps: Array


def held_out_blocks(x: PyTree, y: NDArray[Any]) -> PyTree:
    """Validation data in blocks of equal size and the rest, on the device."""
    whole = len(y) // _VALIDATED_AT_ONCE
    cut = whole * _VALIDATED_AT_ONCE

    def blocks(values: NDArray[Any]) -> Array:
        return jnp.asarray(values[:cut].reshape(whole, _VALIDATED_AT_ONCE, *values.shape[1:]))

    pair = x, y
    return jax.tree.map(blocks, pair), jax.tree.map(lambda leaf: jnp.asarray(leaf[cut:]), pair)


class Recipe:
    """What is trained and how, as pure functions of one member.

    Args:
        model: a Linen module.
        loss: `loss(outputs, labels) -> ` loss of each example.
        optimizer: `optimizer(hyperparameters) -> ` an optax transformation.
        variables: of the model, initialised: their shapes.
        few: the inputs of a batch.
        penalty: None, or `penalty(hyperparameters, params) -> ` scalar, added to what is minimised and not
            to what is reported.
        monitor: whether to guard and to watch.
        every: steps between two looks at the layers.
        preserve: weight of `monitor.preserving_penalty`.
        rewind: steps between two snapshots; 0 for none.
        accumulate: parts of a batch that are gone through one after the other.
        remat: whether to compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Array], Array],
        optimizer: Callable[[Hyperparameters], optax.GradientTransformation],
        variables: PyTree,
        few: PyTree,
        *,
        penalty: Callable[[Hyperparameters, PyTree], Array] | None = None,
        monitor: bool = True,
        every: int = 10,
        preserve: float = 0.0,
        rewind: int = 0,
        accumulate: int = 1,
        remat: bool = False,
    ) -> None:
        self.bare, self.loss = optimizer, loss
        self._functional, self._penalty = models.from_linen(model), penalty
        self._rewind, self._accumulate, self._remat = rewind, accumulate, remat
        self._preserve = preserve
        self._preserving = monitoring.preserving_penalty(model, loss) if preserve else None
        self.watch: monitoring.Recorder | None = None
        if monitor:
            self.watch = monitoring.Recorder(model, loss, variables, few, every)

    def compute(
        self,
        params: PyTree,
        model_state: PyTree,
        x: PyTree,
        y: Array,
        key: Key | None,
        training: bool,
    ) -> tuple[Array, Any, PyTree]:
        """Loss of each example, the outputs, and the model's state after them."""
        outputs, state = self._functional.apply(
            {"params": params, **model_state}, x, key=key, training=training
        )
        return self.loss(outputs, y).astype(jnp.float32), outputs, state

    def optimizer(self, hyperparameters: Hyperparameters, *, alone: bool = True) -> Any:
        """The member's optimizer, guarded where there is a monitor."""
        bare = self.bare(hyperparameters)
        return bare if self.watch is None else self.watch.guard(bare, branch=alone)

    def start(
        self,
        hyperparameters: Hyperparameters,
        params: PyTree,
        model_state: PyTree,
        key: Key,
        stops: bool,
    ) -> Course:
        """A member before its first step.

        Args:
            hyperparameters: its own.
            params: initialised.
            model_state: initialised.
            key: of its run.
            stops: whether it may stop early.
        """
        state = create_state(
            key,
            params=params,
            model_state=model_state,
            optimizer=self.optimizer(hyperparameters),
        )
        stopping = Stopping(
            loss=jnp.full((), jnp.inf, jnp.float32),
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=model_state,
            waited=jnp.zeros((), jnp.int32),
            stopped_at=jnp.full((), -1, jnp.int32),
        )
        return Course(
            state=rewindable(state) if self._rewind else state,
            first_validation=jnp.full((), jnp.nan, jnp.float32),
            stopping=stopping if stops else None,
        )

    def _part(
        self,
        params: PyTree,
        model_state: PyTree,
        x: PyTree,
        y: Array,
        key: Key,
    ) -> tuple[Array, tuple[PyTree, Array, Array]]:
        """Objective of a batch or a part of one; the model's state, mean loss and largest loss."""
        compute: Any = functools.partial(self.compute, training=True)
        if self._remat:
            compute = jax.checkpoint(compute)
        each, _, state = compute(params, model_state, x, y, key)
        mean = objective = jnp.mean(each)
        if self._preserving is not None:
            held = {"params": params, **model_state}
            objective = objective + self._preserve * self._preserving(held, x, y, key=key)
        return objective, (state, mean, jnp.max(each))

    def _objective(
        self, params: PyTree, model_state: PyTree, batch: PyTree, key: Key
    ) -> tuple[Array, tuple[PyTree, Array, Array]]:
        if self._accumulate == 1:
            return self._part(params, model_state, batch["x"], batch["y"], key)
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(self._accumulate, -1, *leaf.shape[1:]), batch
        )
        return _accumulated(self._part, self._accumulate)(params, model_state, parts, key)

    def step(
        self,
        hyperparameters: Hyperparameters,
        state: State,
        batch: PyTree,
        *,
        alone: bool = True,
    ) -> tuple[State, Report]:
        """One step of a member, alone or in a population."""
        watch = self.watch

        def loss(params, model_state, rows, batch, context, key):
            mean, (state, reported, worst) = self._objective(params, model_state, batch, key)
            metrics = {"loss": reported}
            if watch is not None:
                metrics["worst"] = worst / jnp.where(reported > 0, reported, 1.0)
            if self._penalty is not None:
                mean = mean + self._penalty(hyperparameters, params)
            return mean, (state, metrics)

        step = make_step(
            Task(loss),
            optimizer=self.optimizer(hyperparameters, alone=alone),
            # What is not finite is the guard's; without a monitor nothing stands between a step and the
            # parameters.
            accept=lambda loss, gradients: jnp.ones((), bool),
            verdict=(lambda state: monitoring.verdict(state).accepted) if watch else None,
        )
        if watch is not None:
            step = recorded(step, watch)
        if self._rewind:
            step = rewinding(step, every=self._rewind)
        return step(state, batch)

    def activation_bytes(self, params: PyTree, model_state: PyTree, batch: PyTree, key: Key) -> int:
        """Bytes that the forward pass leaves for the backward pass, as their shapes tell."""

        def kept(params: PyTree, model_state: PyTree, x: PyTree, y: Array, key: Key) -> Any:
            part = lambda params: self._part(params, model_state, x, y, key)  # noqa: E731
            return jax.vjp(part, params, has_aux=True)[1]

        parts = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (leaf.shape[0] // self._accumulate, *leaf.shape[1:]), leaf.dtype
            ),
            batch,
        )
        found = jax.eval_shape(kept, params, model_state, parts["x"], parts["y"], key)
        return trees.num_bytes(found)

    def validate(self, params: PyTree, model_state: PyTree, held_out: PyTree) -> Array:
        """Mean loss on validation data, float32 scalar."""
        (x, y), (rest_x, rest_y) = held_out

        def mean(pair: tuple[Array, Array]) -> Array:
            return jnp.mean(self.compute(params, model_state, *pair, None, False)[0])

        total, number = jnp.zeros(()), len(rest_y) + y.shape[0] * _VALIDATED_AT_ONCE
        if len(y):
            total += jnp.sum(jax.lax.map(mean, (x, y))) * (_VALIDATED_AT_ONCE / number)
        if len(rest_y):
            total += mean((rest_x, rest_y)) * (len(rest_y) / number)
        return total


def _accumulated(part: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The mean of a batch's parts, gone through one after the other.

    The gradient is summed up on the way forward, so that only one part's activations are held, and none is
    computed twice.
    """

    def forward(params: PyTree, model_state: PyTree, parts: PyTree, key: Key):
        def one(carry: PyTree, given: tuple[Array, PyTree]) -> tuple[PyTree, Any]:
            model_state, total = carry
            i, batch = given
            (objective, (model_state, mean, worst)), gradient = jax.value_and_grad(
                part, has_aux=True
            )(params, model_state, batch["x"], batch["y"], jax.random.fold_in(key, i))
            total = jax.tree.map(lambda t, g: t + g / number, total, gradient)
            return (model_state, total), (objective, mean, worst)

        def blank(leaf: Array) -> Array:
            return jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32))

        zeros = jax.tree.map(blank, params)
        (model_state, gradient), (objectives, means, worst) = jax.lax.scan(
            one, (model_state, zeros), (jnp.arange(number), parts)
        )
        found = jnp.mean(objectives), (model_state, jnp.mean(means), jnp.max(worst))
        return found, jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, params)

    @jax.custom_vjp
    def differentiated(params: PyTree, others: PyTree) -> Any:
        return forward(params, *others)[0]

    def forwards(params: PyTree, others: PyTree) -> Any:
        found, gradient = forward(params, *others)
        return found, (gradient, others)

    def backwards(kept: PyTree, cotangents: Any) -> Any:
        gradient, others = kept
        nothing = jax.tree.map(_no_cotangent, others)
        return jax.tree.map(lambda g: g * cotangents[0], gradient), nothing

    differentiated.defvjp(forwards, backwards)

    def objective(params: PyTree, model_state: PyTree, parts: PyTree, key: Key) -> Any:
        return differentiated(params, (model_state, parts, key))

    return objective


def _no_cotangent(leaf: Array) -> Any:
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


def population_axes(course: Course) -> Course:
    """Which leaves of a population's course have the member as leading axis: 0, or −1 for the others.

    What counts the steps is common to all: a `lax.cond` on it stays a branch under `vmap`.
    """

    def guarded(node: Any) -> bool:
        return isinstance(node, monitoring.GuardState)

    def of(node: Any) -> Any:
        members = jax.tree.map(lambda _: 0, node)
        return members._replace(steps=-1) if guarded(node) else members

    members = jax.tree.map(lambda _: 0, course)
    state = dataclasses.replace(
        members.state,
        opt_state=jax.tree.map(of, course.state.opt_state, is_leaf=guarded),
        step=-1,
        position=-1,
    )
    return dataclasses.replace(members, state=state)


def _keep(stopped: Array, before: Any, after: Any, axes: Any) -> Any:
    """`before` in a member that has stopped, but for what is common to all."""
    old, structure = jax.tree.flatten(before)
    new = jax.tree.leaves(after)
    kept = [
        b if axis < 0 else jnp.where(stopped, a, b)
        for axis, a, b in zip(jax.tree.leaves(axes), old, new, strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


class Program:
    """The compiled program of one member, or of a population: steps inside, validations outside.

    `program(course, batches, count)` takes `count` steps of the batches it is given: int32 indices into the
    training data `[steps, batch]` (of a population `[steps, members, batch]`, or `[steps, batch]` where all
    share them), the batches themselves where data are streamed, or, for a full batch, just something with
    `steps` as leading axis. The count is traced: where the calls end changes no bit and compiles nothing.

    Args:
        recipe: what is trained.
        data: what it is given.
        validate_every: steps between two validations; the last step is followed by one, too.
        patience: validations without a new minimum after which to stop; None for never.
        members: None for one training.
        shared: whether all members of a population are given the same batches.
        mode: of batches: by their indices, as they are, or all of the training data.

    Attributes:
        compile_seconds: what tracing and compiling took, 0 before.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        *,
        validate_every: int,
        patience: int | None = None,
        members: int | None = None,
        shared: bool = True,
        mode: Literal["indices", "stream", "full"] = "indices",
    ) -> None:
        self._recipe, self._every, self._patience = recipe, validate_every, patience
        self._members, self._shared, self._mode = members, shared, mode
        self._validates = data.held_out is not None
        self.compile_seconds = 0.0
        self._jitted = jax.jit(self._many, donate_argnums=0)
        self._compiled: Any = None
        self._lock = threading.Lock()

    def __call__(
        self, course: Course, batches: PyTree, count: Array, data: Data
    ) -> tuple[Course, Report]:
        # Chunks of a population, which call it from several threads, wait for one compilation.
        with self._lock:
            if self._compiled is None:
                started = time.perf_counter()
                self._compiled = self._jitted.lower(course, batches, count, data).compile()
                self.compile_seconds = time.perf_counter() - started
        return self._compiled(course, batches, count, data)

    def reports(self, course: Course, batches: PyTree, data: Data) -> Report:
        """Shapes and dtypes of what a call reports, `[steps, …]`."""
        return jax.eval_shape(self._many, course, batches, jnp.int32(1), data)[1]

    # One member

    def _batch(self, training: PyTree, given: PyTree) -> PyTree:
        if self._mode == "stream":
            return given
        x, y = training
        if self._mode == "full":
            return {"x": x, "y": y}
        return jax.tree.map(
            lambda leaf: leaf.at[given].get(mode="promise_in_bounds"), {"x": x, "y": y}
        )

    def _advance(
        self, axes: Course, hyperparameters: PyTree, course: Course, given: PyTree, training: PyTree
    ) -> tuple[Course, Report]:
        """A step; none where the member has stopped while others go on."""
        batch = self._batch(training, given)
        state, report = self._recipe.step(
            hyperparameters, course.state, batch, alone=self._members is None
        )
        if course.stopping is not None and self._members is not None:
            stopped = course.stopping.stopped_at >= 0
            state = _keep(stopped, course.state, state, axes.state)
        return dataclasses.replace(course, state=state), report

    def _validated(self, course: Course, held_out: PyTree, step: Array) -> tuple[Course, Array]:
        """A validation, and what follows from it."""
        state = course.state
        value = self._recipe.validate(state.params, state.model_state, held_out)
        record = course.stopping
        if record is None:
            first = jnp.where(step == 0, value, course.first_validation)
            return dataclasses.replace(course, first_validation=first), value
        assert self._patience is not None
        stopped = record.stopped_at >= 0
        value = jnp.where(stopped, jnp.nan, value)
        first = jnp.where(step == 0, value, course.first_validation)
        better = value < record.loss  # NaN is not.
        waited = jnp.where(better, 0, record.waited + 1)
        stops = ~stopped & (waited >= self._patience)

        def best(new: Array, old: Array) -> Array:
            return jnp.where(better, new, old)

        record = Stopping(
            loss=best(value, record.loss),
            step=best(step, record.step),
            params=jax.tree.map(best, state.params, record.params),
            model_state=jax.tree.map(best, state.model_state, record.model_state),
            waited=jnp.where(stopped, record.waited, waited),
            stopped_at=jnp.where(stops, step, record.stopped_at),
        )
        return dataclasses.replace(course, first_validation=first, stopping=record), value

    # All of them

    def _many(
        self, course: Course, batches: PyTree, count: Array, data: Data
    ) -> tuple[Course, Report]:
        axes = population_axes(course)
        advance: Any = functools.partial(self._advance, axes)
        validated: Any = self._validated
        if self._members is not None:
            given = None if self._shared else 0
            along = jax.tree.map(lambda axis: None if axis < 0 else axis, axes)
            advance = jax.vmap(advance, in_axes=(0, along, given, None), out_axes=(along, 0))
            validated = jax.vmap(validated, in_axes=(along, None, None), out_axes=(along, 0))

        def step(i: Array, carry: tuple[Course, Report]) -> tuple[Course, Report]:
            course, reports = carry
            given = jax.tree.map(lambda leaf: leaf[i], batches)
            course, report = advance(data.hyperparameters, course, given, data.training)
            return course, jax.tree.map(lambda all_, one: all_.at[i].set(one), reports, report)

        steps = jax.tree.leaves(batches)[0].shape[0]
        first = jax.tree.map(lambda leaf: leaf[0], batches)
        shape = jax.eval_shape(advance, data.hyperparameters, course, first, data.training)[1]
        blank = jax.tree.map(lambda leaf: jnp.zeros((steps, *leaf.shape), leaf.dtype), shape)
        if not self._validates:
            return jax.lax.fori_loop(0, count, step, (course, blank))
        start = course.step

        def going_on(carry: Any) -> Array:
            i, before_first, *_ = carry
            return (i < count) | before_first

        def block(carry: Any) -> Any:
            """Steps up to the next validation or the end of the call; and the validation."""
            i, before_first, course, reports, values = carry
            at = start + i
            due = jnp.minimum((at // self._every + 1) * self._every, data.num_steps)
            end = jnp.where(before_first, i, jnp.minimum(i + due - at, count))
            last = end
            if course.stopping is not None:
                # When all have stopped nothing moves any more.
                last = jnp.where(jnp.all(course.stopping.stopped_at >= 0), i, end)
            course, reports = jax.lax.fori_loop(i, last, step, (course, reports))
            now = (before_first | (start + end == due)) & (last == end)
            course, value = jax.lax.cond(
                now,
                lambda course: validated(course, data.held_out, start + end),
                lambda course: (course, jnp.full(values.shape[1:], jnp.nan)),
                course,
            )
            # The one before the first step is kept in the course.
            place = jnp.where(now & ~before_first, end - 1, steps)
            return (
                end,
                jnp.zeros((), bool),
                course,
                reports,
                values.at[place].set(value, mode="drop"),
            )

        values = jnp.full(blank.loss.shape, jnp.nan, jnp.float32)
        begins = (start == 0) & (count > 0)
        carry = jnp.zeros((), jnp.int32), begins, course, blank, values
        _, _, course, reports, values = jax.lax.while_loop(going_on, block, carry)
        metrics = {**reports.metrics, "validation": values}
        return course, dataclasses.replace(reports, metrics=metrics)
