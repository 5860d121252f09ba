"""Training of any Linen module, watched: one call from data to parameters and findings."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import models
from jaxml import monitor as monitoring
from jaxml.train import inputs
from jaxml.train.checkpoint import Checkpoints
from jaxml.train.loop import run
from jaxml.train.program import Course, Data, Program, Recipe, held_out_blocks
from jaxml.train.progress import Meter, Progress
from jaxml.train.rewind import rewound, unwound
from jaxml.train.state import Report
from jaxml.types import Array, Key, PyTree

__all__ = ["Fit", "fit"]

# Steps and bytes of batches in one call of the compiled program, at most; seconds that it is to take, so
# that progress is seen and a signal heard.
_STEPS_PER_CALL = 1024
_BYTES_PER_CALL = 64 * 2**20
_SECONDS_PER_CALL = 0.5

# Share of the device's memory that data may take; larger ones are streamed.
_RESIDENT = 0.4


@dataclasses.dataclass(frozen=True)
class Fit:
    """What came of a training.

    Attributes:
        params: the trained parameters: the last ones, or with early stopping those of the lowest validation
            loss.
        model_state: the model's other collections (batch statistics), of the same moment.
        loss_curve: float64 [S], the mean loss of each step's batch, before its update; S is `num_steps`, or
            what was taken before an early stop.
        validation_curve: float64 [V], mean loss on the validation data; empty without them.
        validation_steps: int64 [V], steps taken before each of these.
        findings: what went wrong, in the order of cause and effect; empty for a healthy run or without
            monitor.
        history: all that was recorded; None without monitor.
        opt_state: of the optimizer after the last step; of the guard around it where there is a monitor.
        rewinds: how often the training went back to a snapshot.
        stopped_at: steps after which it stopped early; None if it did not.
        best_step: steps taken before the lowest validation loss, of which `params` are with early stopping;
            None without validation data.
        seconds: wall time by `"compile"` and `"run"`, of the training alone.
    """

    params: PyTree
    model_state: PyTree
    loss_curve: NDArray[np.float64]
    validation_curve: NDArray[np.float64]
    validation_steps: NDArray[np.int64]
    findings: list[monitoring.Finding]
    history: monitoring.History | None
    opt_state: PyTree
    rewinds: int = 0
    stopped_at: int | None = None
    best_step: int | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)


def fit(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: optax.GradientTransformation,
    data: tuple[Any, Any],
    *,
    num_steps: int,
    batch_size: int | None,
    key: Key,
    validation_data: tuple[Any, Any] | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    monitor: bool = True,
    on_bad_data: Literal["report", "drop", "raise"] = "report",
    shuffle: bool = True,
    every: int = 10,
    preserve: float = 0.0,
    rewind: int = 0,
    accumulate: int = 1,
    remat: bool = False,
    stream: bool | None = None,
    say: Callable[[str], Any] | None = None,
    progress: Callable[[Progress], Any] | bool | None = None,
    on_chunk: Callable[[Course, Report], Any] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fit:
    """Trains a model, keeps bad updates out of it, and says what went wrong.

    With a monitor the optimizer is guarded (`monitor.guard`): a step whose loss, gradient or update is not
    finite leaves the whole state as it was, and an exploding gradient is scaled down. Norms are measured
    in the optimizer's pass; every so many steps the layers are listened to on a part of the batch. What it
    means is decided when the training is over. Without a monitor none of it is compiled in.

    The training is one compiled program over data that lie on the device: steps inside, validations around
    them, early stopping included. The host sends which examples come next and reads the reports.

    Args:
        model: any Linen module, called as `model(x)`, with `training`, `train`, `deterministic` or
            `use_running_average` where it has one.
        loss: `loss(outputs, labels) -> ` loss of each example, any shape; the mean is trained on.
        optimizer: any optax transformation that needs no more than gradients, parameters and the loss
            (`value`); a line search is none.
        data: `(x, y)`, arrays `[N, …]`; x may be a pytree of arrays, whatever the model takes: a dict of
            numbers and ids, a pair. Lists are rows of one array.
        num_steps: steps to take.
        batch_size: examples in a step, 1 … N: 1 is stochastic gradient descent, None all of them (full
            batch, in their own order).
        key: typed key of initialisation, dropout and order.
        validation_data: `(x, y)` to follow the loss on.
        validate_every: steps between two validations; None for a fortieth of the training, at most 50.
            There is one before the first step and one after the last, too.
        patience: validations in a row without a new minimum after which to stop; `params` are then those
            of the minimum. None for never: `params` are the last.
        monitor: whether to watch.
        on_bad_data: what to do with rows that hold NaN or infinity: say so and go on, drop them, or refuse.
        shuffle: whether every epoch comes in an order of its own; else the rows' own.
        every: steps between two looks at the layers.
        preserve: weight of `monitor.preserving_penalty`, for recurrent models whose gradient vanishes on
            its way back through time; it is no part of the loss that is reported.
        rewind: steps between two snapshots that the training goes back to when all that was learned is
            lost, to go on in shorter steps (`rewinding`); 0 for none.
        accumulate: equal parts of a batch that are gone through one after the other, so that activations
            of one part at a time are held; the gradient is that of the whole batch up to rounding, but for
            models that look at the batch as a whole (batch normalisation sees each part by itself).
        remat: compute activations again in the backward pass instead of keeping them: less memory, about
            a third more work.
        stream: whether batches are gathered on the host and sent, instead of all data lying on the device;
            None decides by their size. Both give the same numbers.
        say: is called with each finding, as a line, when the training is over.
        progress: is told how far the training is, a few times a second; True for lines on standard error.
        on_chunk: `on_chunk(course, report)` after each call of the program, with all that it takes to go
            on, and what the steps of this call reported (NumPy arrays `[steps]`). The course must be read
            before it returns: the next call consumes its buffers.
        checkpoints: an entered `Checkpoints`: the training is saved there as it goes on, and goes on from
            what is there. The result is the same bit for bit as without the interruption (CPU; same device
            count), parameters and history.

    Returns:
        A `Fit`.

    Raises:
        ValueError: if `x` and `y` differ in length or are empty, an argument is out of range, the batch is
            larger than the data, the optimizer's learning rate is a constant ≤ 0, or a row is not finite
            and `on_bad_data` is "raise": the message names row and column.

    Example:
        >>> import flax.linen as nn
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> squared = lambda outputs, labels: jnp.square(outputs - labels)
        >>> fitted = fit(nn.Dense(1), squared, optax.sgd(0.3), (x, 2 * x), num_steps=100, batch_size=32,
        ...              key=jax.random.key(0))
        >>> float(fitted.loss_curve[-1]) < 1e-3, fitted.findings
        (True, [])
    """
    x, y = inputs.pair("data", data)
    held_out = inputs.held_out_pair(validation_data, (x, y))
    check_numbers(num_steps, every, validate_every, patience, held_out is not None)
    if rewind < 0:
        raise ValueError(f"rewind must be at least 0, got {rewind}")
    if not preserve >= 0:
        raise ValueError(f"preserve must be at least 0, got {preserve}")
    meter = Meter(progress, num_steps)
    (x, y), inspected = inputs.clean((x, y), on_bad_data, inspect=monitor)
    batch = inputs.check_batch(batch_size, len(y), accumulate)

    functional = models.from_linen(model)
    init_key, run_key, order_key = jax.random.split(key, 3)
    seed = int(jax.random.bits(order_key, dtype=jnp.uint32))
    variables = jax.jit(functional.init)(
        init_key, jax.tree.map(jnp.asarray, inputs.take(x, slice(2)))
    )
    params, model_state = models.split_variables(variables)
    inputs.check_updates(lambda _: optimizer, None, params, num_steps)
    recipe = Recipe(
        model,
        loss,
        lambda _: optimizer,
        variables,
        inputs.take(x, slice(batch)),
        monitor=monitor,
        every=every,
        preserve=preserve,
        rewind=rewind,
        accumulate=accumulate,
        remat=remat,
    )
    between = validate_every or default_validate_every(num_steps)
    resident = not streams(stream, (x, y))
    mode: Any = "stream" if not resident else "full" if batch_size is None else "indices"
    given = Data(
        hyperparameters={},
        training=jax.device_put((x, y)) if resident else None,
        held_out=None if held_out is None else held_out_blocks(*held_out),
        num_steps=jnp.int32(num_steps),
    )
    program = Program(recipe, given, validate_every=between, patience=patience, mode=mode)
    # A copy: the run consumes its state.
    course = jax.tree.map(
        jnp.copy, recipe.start({}, params, model_state, run_key, patience is not None)
    )
    reports: list[Report] = []
    order = inputs.examples(len(y), batch, shuffle and batch_size is not None, seed)

    def next_batches(position: int, count: int) -> PyTree:
        if mode == "full":
            return np.zeros((count, 0), np.int32)
        chosen = order(position, count)
        return inputs.take({"x": x, "y": y}, chosen) if mode == "stream" else chosen

    if checkpoints is not None:
        what = inputs.identity(
            (x, y),
            held_out,
            key,
            batch_size=batch_size,
            validate_every=between,
            patience=patience,
            monitor=monitor,
            every=every,
        )
        shapes = program.reports(course, next_batches(0, 1), given)
        if (found := checkpoints.restore(what, course, shapes)) is not None:
            course, reports = found[0], [found[1]]
        if int(course.step) > num_steps:
            raise ValueError(
                f"num_steps must be at least the {int(course.step)} that are in {checkpoints.directory}, "
                f"got {num_steps}"
            )
    watch, stopped_at = recipe.watch, -1

    def on_reports(course: Any, report: Any) -> None:
        nonlocal stopped_at
        before = stopped_at
        if course.stopping is not None:
            stopped_at = int(course.stopping.stopped_at)
        reports.append(report)
        over = int(course.step) >= num_steps or stopped_at >= 0
        meter.steps(
            len(report.loss) if before < 0 else 0,
            report.metrics["loss"][-1:],
            report.metrics.get("validation"),
            ended=int(over),
        )
        if checkpoints is not None:
            checkpoints.save(int(course.step), course, report)
        if on_chunk is not None:
            on_chunk(course, report)

    if course.stopping is not None:
        stopped_at = int(course.stopping.stopped_at)
    size = batch * (inputs.num_bytes((x, y)) // len(y) if mode == "stream" else 4)
    longest = min(_STEPS_PER_CALL, num_steps, max(1, _BYTES_PER_CALL // max(size, 1)))
    if say is not None:
        longest = min(longest, default_validate_every(num_steps))
    if checkpoints is not None:
        longest = min(longest, checkpoints.every)
    started = time.perf_counter()
    if stopped_at < 0:
        course = run(
            lambda course, batches, count: program(course, batches, count, given),
            course,
            next_batches,
            num_steps=num_steps,
            steps_per_call=longest,
            seconds_per_call=None if say is not None else _SECONDS_PER_CALL,
            on_reports=on_reports,
            should_stop=lambda: stopped_at >= 0,
        )
    if checkpoints is not None:
        checkpoints.finish(int(course.step), course)
    took = time.perf_counter() - started
    state, rewinds = course.state, 0
    if rewind:
        rewinds, state = int(rewound(state).times), unwound(state)
    whole = joined(reports)
    if stopped_at >= 0:
        whole = jax.tree.map(lambda leaf: leaf[:stopped_at], whole)
    at, validation = validations(whole.metrics.get("validation"), course.first_validation, between)
    history, findings = None, []
    if watch is not None and inspected is not None:
        history = watch.history(
            whole.metrics,
            inspected,
            len(y) / batch,
            validation_steps=at,
            validation_losses=validation,
            shuffled=shuffle,
        )
        aftermath = monitoring.FinalDiagnostics(recipe.compute, loss, recipe.bare, (x, y))
        after = aftermath.measure(
            (params, model_state),
            (state.params, state.model_state),
            state.opt_state,
            seed=seed,
            curved=monitoring.is_suspicious(history),
        )
        history = dataclasses.replace(history, after=after)
        findings = monitoring.diagnose(history)
        if say is not None:
            for finding in findings:
                say(str(finding))
    best = course.stopping
    return Fit(
        params=state.params if best is None else best.params,
        model_state=state.model_state if best is None else best.model_state,
        loss_curve=whole.metrics["loss"].astype(np.float64),
        validation_curve=validation,
        validation_steps=at,
        findings=findings,
        history=history,
        opt_state=state.opt_state,
        rewinds=rewinds,
        stopped_at=None if stopped_at < 0 else stopped_at,
        best_step=best_step(at, validation),
        seconds={"compile": program.compile_seconds, "run": took - program.compile_seconds},
    )


def check_numbers(
    num_steps: int,
    every: int,
    validate_every: int | None,
    patience: int | None,
    validates: bool,
) -> None:
    for name, value in (
        ("num_steps", num_steps),
        ("every", every),
        ("validate_every", validate_every),
        ("patience", patience),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if patience is not None and not validates:
        raise ValueError(f"patience needs validation_data to stop by, got {patience} and None")


def default_validate_every(num_steps: int) -> int:
    """Steps between two validations where none are asked for."""
    return max(1, min(50, math.ceil(num_steps / 40)))


def streams(stream: bool | None, data: inputs.Arrays) -> bool:
    """Whether data are sent batch by batch: as is wanted, or if they are too large for the device."""
    if stream is not None:
        return stream
    return inputs.num_bytes(data) > _RESIDENT * inputs.device_memory()


def joined(reports: Sequence[Report]) -> Any:
    """Reports of successive calls as one."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *reports)


def validations(
    losses: Any, first: Any, every: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps taken before each validation, and the losses there, which may be NaN.

    Args:
        losses: [S, …] after each step, where there is a validation; or None.
        first: […] before the first step.
        every: steps between two.
    """
    if losses is None:
        return np.zeros(0, np.int64), np.zeros(0)
    taken = len(losses)
    at = np.unique(np.append(np.arange(0, taken + 1, every), taken))
    found = np.concatenate([np.asarray(first)[None], losses[at[1:] - 1]])
    return at, found.astype(np.float64)


def best_step(at: NDArray[np.int64], losses: NDArray[np.float64]) -> int | None:
    """Steps before the first lowest loss; None if there is none."""
    return int(at[np.nanargmin(losses)]) if np.isfinite(losses).any() else None
