"""The compiled program of a training: of one trial, or of several under `vmap`.

`program_for(spec, example)` returns it from a cache, so that a second training with the same module, loss,
optimizer, options and shapes compiles nothing. Data, hyperparameters and counts are arguments of the
program: other values compile nothing either.
"""

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from jaxml import models, monitor, trees
from jaxml.train.loop import blank_reports, take_steps
from jaxml.train.options import Monitor
from jaxml.train.state import Best, Report, State, TrainState, create_state
from jaxml.train.step import Task, make_step, recorded
from jaxml.types import Array, Key, PyTree

# Validation examples at a time.
_VALIDATED_AT_ONCE = 1024

# For programs that run once: their compile time counts, not their run time.
_RUNS_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

# Hyperparameters by name, each a traced float32 scalar.
Hyperparameters = Mapping[str, Any]


class Constant(NamedTuple):
    """The optimizer of `fit` as a function of hyperparameters; equal for equal optimizers."""

    optimizer: optax.GradientTransformation

    def __call__(self, hyperparameters: Hyperparameters) -> optax.GradientTransformation:
        return self.optimizer


@dataclass(frozen=True)
class TrainingSpec:
    """The arguments of `sweep` on which the compiled program depends; hashable if its parts are.

    Attributes:
        names: the hyperparameters.
        stops: whether training may stop early.
        width: the number of trials side by side under `vmap`; None for one trial without `vmap`.
        spread: how examples are spread over several devices; None for the default device.
    """

    model: Any
    loss: Callable[[Any, Array], Array]
    optimizer: Callable[[Any], optax.GradientTransformation]
    penalty: Callable[[Any, PyTree], Array] | None
    names: tuple[str, ...]
    monitor: Monitor | None
    stops: bool
    width: int | None
    spread: NamedSharding | None = None


class Data(NamedTuple):
    """Arguments of a program besides the state.

    Attributes:
        hyperparameters: traced scalars by name, `[width]` under `vmap`.
        training: `(x, y)` on the device.
        validation: the same, or None.
        num_steps: int32 scalar, steps of the whole training.
        validate_every: int32 scalar, steps between two validations.
        patience: int32 scalar, validations without a new minimum after which to stop.
    """

    hyperparameters: PyTree
    training: PyTree
    validation: PyTree
    num_steps: Any
    validate_every: Any
    patience: Any


class Compiled:
    """A jitted function that is compiled once for each shape of its arguments, by one thread at a time.

    It computes without `jax_enable_x64`, under which Flax's dropout draws other numbers.

    Attributes:
        seconds: time taken by tracing and compiling so far.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self._jitted = jax.jit(function, **options)
        self._compiled: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        with jax.enable_x64(False):
            if jax.debug_nans.value:
                # JAX then takes the program apart to name the operation that made a NaN.
                return self._jitted(*jax.tree.map(jnp.asarray, arguments))
            leaves, structure = jax.tree.flatten(arguments)
            shapes = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
            with self._lock:
                if shapes not in self._compiled:
                    started = time.perf_counter()
                    self._compiled[shapes] = self._jitted.lower(*arguments).compile()
                    self.seconds += time.perf_counter() - started
            return self._compiled[shapes](*arguments)

    def trace(self, *arguments: Any) -> Any:
        """Returns what JAX traces, once for each shape of the arguments: `jaxpr` and `out_info`."""
        with jax.enable_x64(False):
            return self._jitted.trace(*arguments)


def program_for(spec: TrainingSpec, example: PyTree) -> "Program":
    """Returns the program of a training, from a cache if it is there.

    Args:
        spec: the training.
        example: `(x, y)` of a batch, as shapes.
    """
    leaves, structure = jax.tree.flatten(example)
    try:
        return _cached(spec, tuple(leaves), structure)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return Program(spec, example)


@functools.lru_cache(maxsize=32)
def _cached(spec: TrainingSpec, leaves: tuple[Any, ...], structure: Any) -> "Program":
    return Program(spec, jax.tree.unflatten(structure, leaves))


class Program:
    """Compiled functions of a training.

    Attributes:
        start: `start(key, x, hyperparameters) -> (TrainState, seed of the order of examples)`; under `vmap`
            the leading axis of keys and hyperparameters is the trial.
        run: `run(train_state, rows, count, data) -> (train_state, Report)` takes `count` steps. `rows` are
            int32 indices into the data, `[steps, batch]`, or `[steps, width, batch]` under `vmap`; an
            empty batch axis stands for all examples.
        recorder, final: the monitor's recorder and final diagnostics; None without monitor.
    """

    def __init__(self, spec: TrainingSpec, example: PyTree) -> None:
        self.spec = spec
        self.model = models.from_linen(spec.model)
        self.recorder: Any = None
        self.final: Any = None
        self._preserving: Any = None
        key = jax.eval_shape(lambda: jax.random.key(0))
        self.variables = jax.eval_shape(self.model.init, key, example[0])
        if spec.monitor is not None:
            self.recorder = monitor.Recorder(
                spec.model, spec.loss, self.variables, example[0], spec.monitor.every
            )
            self.final = monitor.FinalDiagnostics(self.compute, spec.loss, spec.optimizer)
            if spec.monitor.preserve:
                weight = spec.monitor.preserve
                penalty = monitor.preserving_penalty(spec.model, spec.loss)
                self._preserving = lambda *args, **given: weight * penalty(*args, **given)
        start: Any = self._start
        if spec.width is not None:
            scalars = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in spec.names}
            axes = _trial_axes(jax.eval_shape(start, key, example[0], scalars)[0])
            start = jax.vmap(start, in_axes=(0, None, 0), out_axes=(axes, 0))
        self.start = Compiled(start, compiler_options=_RUNS_ONCE)
        # On several devices each has the whole state.
        whole = spec.spread and NamedSharding(spec.spread.mesh, PartitionSpec())
        self.run = Compiled(self._run, donate_argnums=0, out_shardings=whole)
        self.outputs = jax.jit(
            lambda params, model_state, x: self.model.apply({"params": params, **model_state}, x)[0]
        )

    # One trial

    def compute(
        self,
        params: PyTree,
        model_state: PyTree,
        x: PyTree,
        y: Array,
        key: Key | None,
        training: bool,
    ) -> tuple[Array, Any, PyTree]:
        """Returns the loss of each example, the outputs, and the new model state."""
        with jax.named_scope("model"):
            outputs, state = self.model.apply(
                {"params": params, **model_state}, x, key=key, training=training
            )
        return self.spec.loss(outputs, y).astype(jnp.float32), outputs, state

    def _optimizer(self, hyperparameters: Hyperparameters) -> Any:
        try:
            optimizer = self.spec.optimizer(hyperparameters)
        except KeyError as error:
            raise ValueError(
                f"optimizer asks for the hyperparameter {error}, space names {list(hyperparameters)}"
            ) from error
        if not hasattr(optimizer, "update"):
            raise ValueError(f"optimizer must return an optax transformation, got {optimizer!r}")
        if self.recorder is None:
            return optimizer
        return monitor.guard(optimizer, self.recorder.layout)

    def _start(
        self, key: Key, x: PyTree, hyperparameters: Hyperparameters
    ) -> tuple[TrainState, Array]:
        init_key, run_key, order_key = jax.random.split(key, 3)
        params, model_state = models.split_variables(self.model.init(init_key, x))
        state = create_state(
            run_key,
            params=params,
            model_state=model_state,
            optimizer=self._optimizer(hyperparameters),
        )
        best = Best(
            loss=jnp.full((), jnp.inf, jnp.float32),
            params=params,
            model_state=model_state,
            waited=jnp.zeros((), jnp.int32),
            stopped_at=jnp.full((), -1, jnp.int32),
        )
        zero = jnp.zeros((), jnp.float32)
        order = jax.random.bits(order_key, dtype=jnp.uint32)
        return TrainState(state, zero, zero, best if self.spec.stops else None), order

    def _step(
        self, hyperparameters: Hyperparameters, state: State, batch: PyTree
    ) -> tuple[State, Report]:
        """Takes one step of one trial."""

        def loss(
            params: PyTree, model_state: PyTree, rows: Any, batch: PyTree, context: Any, key: Key
        ) -> tuple[Array, tuple[PyTree, dict[str, Array]]]:
            x, y = batch["x"], batch["y"]
            each, _, new_state = self.compute(params, model_state, x, y, key, True)
            minimised = mean = jnp.mean(each)
            if self._preserving is not None:
                variables = {"params": params, **model_state}
                minimised += self._preserving(variables, x, y, key=key)
            if self.spec.penalty is not None:
                with jax.named_scope("penalty"):
                    minimised += self.spec.penalty(hyperparameters, params)
            return minimised, (new_state, {"loss": mean})

        step = make_step(
            Task(loss),
            optimizer=self._optimizer(hyperparameters),
            # The guard rejects what is not finite. Without a monitor nothing is rejected.
            accept=lambda loss, gradients: jnp.ones((), bool),
        )
        if self.recorder is not None:
            step = recorded(step, self.recorder)
        return step(state, batch)

    def _advance(
        self,
        hyperparameters: Hyperparameters,
        train_state: TrainState,
        rows: Array,
        training: PyTree,
    ) -> tuple[TrainState, Report]:
        batch = dict(zip("xy", training, strict=True))
        if rows.shape[-1]:
            batch = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), batch)
            if self.spec.spread is not None and len(rows) % self.spec.spread.num_devices == 0:
                batch = jax.lax.with_sharding_constraint(batch, self.spec.spread)
        old = train_state.state
        state, report = self._step(hyperparameters, old, batch)
        if self.spec.width is not None and train_state.best is not None:
            # A trial that has stopped does not change while others continue.
            stopped = train_state.best.stopped_at >= 0
            kept = trees.select(stopped, old, state)
            state = dataclasses.replace(kept, step=state.step, position=state.position)
        return dataclasses.replace(train_state, state=state), report

    def _validation_loss(self, params: PyTree, model_state: PyTree, validation: PyTree) -> Array:
        number = len(validation[1])
        whole, rest = divmod(number, _VALIDATED_AT_ONCE)

        def mean(first: Any, size: int) -> Array:
            x, y = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), validation
            )
            return jnp.mean(self.compute(params, model_state, x, y, None, False)[0])

        total = jnp.zeros((), jnp.float32)
        if whole:
            firsts = jnp.arange(whole) * _VALIDATED_AT_ONCE
            means = jax.lax.map(lambda first: mean(first, _VALIDATED_AT_ONCE), firsts)
            total += jnp.sum(means) * (_VALIDATED_AT_ONCE / number)
        if rest:
            total += mean(number - rest, rest) * (rest / number)
        return total

    def _validate(
        self, train_state: TrainState, data: Data, step: Array
    ) -> tuple[TrainState, tuple[Array, Array]]:
        """Returns the state after a validation, its loss, and whether it is one of the curve.

        The validation after the last step does not count for early stopping if it falls between two others:
        a training that goes on stops where it would have stopped without that end.
        """
        state, best = train_state.state, train_state.best
        loss = self._validation_loss(state.params, state.model_state, data.validation)
        first = jnp.where(step == 0, loss, train_state.first_validation)
        counts = step % data.validate_every == 0
        if best is not None:
            counts &= best.stopped_at < 0
            better = counts & (loss < best.loss)
            # A loss that is not finite is no improvement, and ignored where none has been finite.
            judged = counts & (jnp.isfinite(loss) | jnp.isfinite(best.loss))
            waited = jnp.where(better, 0, best.waited + judged)
            stopped_at = jnp.where(counts & (waited >= data.patience), step, best.stopped_at)
            found = Best(loss, state.params, state.model_state, waited, stopped_at)
            kept = dataclasses.replace(best, waited=waited, stopped_at=stopped_at)
            best = trees.select(better, found, kept)
        return TrainState(state, first, loss, best), (jnp.where(counts, loss, 0.0), counts)

    # All steps of all trials

    def _run(
        self, train_state: TrainState, rows: Array, count: Array, data: Data
    ) -> tuple[TrainState, Report]:
        advance: Any = self._advance
        validate: Any = self._validate
        if self.spec.width is not None:
            axes = _trial_axes(train_state)
            advance = jax.vmap(advance, in_axes=(0, axes, 0, None), out_axes=(axes, 0))
            validate = jax.vmap(validate, in_axes=(axes, None, None), out_axes=(axes, 0))

        # Traced once, for its shapes and for the loop.
        advance = jax.jit(advance, inline=True)

        def step(train_state: TrainState, rows: Array) -> tuple[TrainState, Report]:
            return advance(data.hyperparameters, train_state, rows, data.training)

        blank = blank_reports(step, train_state, rows)
        if data.validation is None:
            return take_steps(step, rows, 0, count, train_state, blank)
        start = train_state.step

        def block(carry: Any) -> Any:
            """Takes the steps up to the next validation or the end of the call, and validates."""
            i, before_first, train_state, reports, curve = carry
            due = ((start + i) // data.validate_every + 1) * data.validate_every
            due = jnp.minimum(due, data.num_steps)
            end = jnp.where(before_first, i, jnp.minimum(due - start, count))
            train_state, reports = take_steps(step, rows, i, end, train_state, reports)
            train_state, validation = jax.lax.cond(
                before_first | (start + end == due),
                lambda train_state: validate(train_state, data, start + end),
                lambda train_state: (train_state, jax.tree.map(lambda all_: all_[0], none)),
                train_state,
            )
            # The validation before the first step is kept in the state.
            place = jnp.where(before_first, rows.shape[0], end - 1)
            curve = jax.tree.map(
                lambda all_, one: all_.at[place].set(one, mode="drop"), curve, validation
            )
            return end, jnp.zeros((), bool), train_state, reports, curve

        def goes_on(carry: Any) -> Array:
            i, before_first, train_state, *_ = carry
            more = (i < count) | before_first
            if train_state.best is not None:
                more &= jnp.any(train_state.best.stopped_at < 0)
            return more

        # The validation losses, and the steps after which there is one.
        none = curve = jnp.zeros_like(blank.loss), jnp.zeros_like(blank.loss, bool)
        begins = (start == 0) & (count > 0)
        carry = jnp.zeros((), jnp.int32), begins, train_state, blank, curve
        _, _, train_state, reports, curve = jax.lax.while_loop(goes_on, block, carry)
        metrics = {**reports.metrics, "validation": curve[0], "validated": curve[1]}
        return train_state, dataclasses.replace(reports, metrics=metrics)


def with_counts(train_state: TrainState, step: Any, position: Any) -> TrainState:
    """Returns a state with other counts; trials side by side share them."""
    state = dataclasses.replace(train_state.state, step=step, position=position)
    return dataclasses.replace(train_state, state=state)


def _trial_axes(train_state: TrainState) -> TrainState:
    """Returns the axis of the trials in each leaf: 0, or None for the counts that they share.

    A `lax.cond` on a shared count stays a branch under `vmap`.
    """
    return with_counts(jax.tree.map(lambda _: 0, train_state), None, None)
