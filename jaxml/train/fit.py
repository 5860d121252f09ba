"""Training of any Linen module, watched: one call from data to parameters and findings."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import models
from jaxml import monitor as monitoring
from jaxml.data import batches
from jaxml.train.aftermath import Aftermath
from jaxml.train.loop import repeat, run
from jaxml.train.rewind import rewindable, rewinding, rewound, unwound
from jaxml.train.state import State, create_state
from jaxml.train.step import Task, all_finite, make_step
from jaxml.train.watch import Watch
from jaxml.types import Array, Key, PyTree

__all__ = ["Fit", "fit"]

# Validation examples at a time.
_VALIDATED_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Fit:
    """What came of a training.

    Attributes:
        params: the trained parameters.
        model_state: the model's other collections (batch statistics).
        loss_curve: float64 [num_steps], the mean loss of each step's batch, before its update.
        validation_curve: float64 [V], mean loss on the validation data; empty without them.
        validation_steps: int64 [V], steps taken before each of these.
        findings: what went wrong, in the order of cause and effect; empty for a healthy run or without
            monitor.
        history: all that was recorded; None without monitor.
        opt_state: of the optimizer; of the guard around it where there is a monitor.
        rewinds: how often the training went back to a snapshot.
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


def fit(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: optax.GradientTransformation,
    data: tuple[Any, Any],
    *,
    num_steps: int,
    batch_size: int,
    key: Key,
    validation_data: tuple[Any, Any] | None = None,
    monitor: bool = True,
    on_bad_data: Literal["report", "drop", "raise"] = "report",
    shuffle: bool = True,
    every: int = 10,
    vanishing: Literal["ignore", "rescale"] = "ignore",
    preserve: float = 0.0,
    rewind: int = 0,
    say: Callable[[str], Any] | None = None,
) -> Fit:
    """Trains a model, keeps bad updates out of it, and says what went wrong.

    With a monitor the optimizer is guarded (`monitor.guard`): a step whose loss, gradient or update is not
    finite leaves the whole state as it was, and an exploding gradient is scaled down. Norms are measured
    in the optimizer's pass; every so many steps the layers are listened to on a part of the batch. What it
    means is decided when the training is over. Without a monitor none of it is compiled in.

    Args:
        model: any Linen module, called as `model(x)`, with `training`, `train`, `deterministic` or
            `use_running_average` where it has one.
        loss: `loss(outputs, labels) -> ` loss of each example, any shape; the mean is trained on.
        optimizer: any optax transformation that needs no more than gradients, parameters and the loss
            (`value`); a line search is none.
        data: `(x, y)`, arrays `[N, …]`.
        num_steps: steps to take.
        batch_size: examples in a step.
        key: typed key of initialisation, dropout and order.
        validation_data: `(x, y)` to follow the loss on.
        monitor: whether to watch.
        on_bad_data: what to do with rows that hold NaN or infinity: say so and go on, drop them, or refuse.
        shuffle: whether every epoch comes in an order of its own; else the rows' own.
        every: steps between two looks at the layers.
        vanishing: as in `monitor.guard`.
        preserve: weight of `monitor.preserving_penalty`, for recurrent models whose gradient vanishes on
            its way back through time; it is no part of the loss that is reported.
        rewind: steps between two snapshots that the training goes back to when all that was learned is
            lost, to go on in shorter steps (`rewinding`); 0 for none.
        say: is told each finding, as a line: what is definite while the training goes on
            (`monitor.signs`, each symptom once), and in the end what it all means.

    Returns:
        A `Fit`.

    Raises:
        ValueError: if `x` and `y` differ in length or are empty, an argument is out of range, or a row is
            not finite and `on_bad_data` is "raise": the message names row and column.

    Example:
        >>> import flax.linen as nn
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> squared = lambda outputs, labels: jnp.square(outputs - labels)
        >>> fitted = fit(nn.Dense(1), squared, optax.sgd(0.3), (x, 2 * x), num_steps=100, batch_size=32,
        ...              key=jax.random.key(0))
        >>> float(fitted.loss_curve[-1]) < 1e-3, fitted.findings
        (True, [])
    """
    x, y = _arrays("data", data)
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size), ("every", every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if rewind < 0:
        raise ValueError(f"rewind must be at least 0, got {rewind}")
    if preserve < 0:
        raise ValueError(f"preserve must be at least 0, got {preserve}")
    if on_bad_data not in ("report", "drop", "raise"):
        raise ValueError(f"on_bad_data must be 'report', 'drop' or 'raise', got {on_bad_data!r}")
    inspected = monitoring.inspect(x, y) if monitor or on_bad_data != "report" else None
    if inspected is not None and len(inspected.bad_rows) and on_bad_data != "report":
        if on_bad_data == "raise":
            name, row, column = inspected.bad_cells[0]
            raise ValueError(
                f"data must be finite: {name}[{row}], column {column}, is not, nor are "
                f"{len(inspected.bad_rows) - 1} other rows"
            )
        keep = np.setdiff1d(np.arange(len(x)), inspected.bad_rows)
        x, y = x[keep], y[keep]
        if not len(x):
            raise ValueError("data must hold a finite row, got none")
    held_out = None if validation_data is None else _arrays("validation_data", validation_data)

    functional = models.from_linen(model)
    init_key, run_key, order_key = jax.random.split(key, 3)
    seed = int(jax.random.bits(order_key, dtype=jnp.uint32))
    variables = jax.jit(functional.init)(init_key, jnp.asarray(x[: min(len(x), 2)]))
    params, model_state = models.split_variables(variables)

    def compute(params: PyTree, model_state: PyTree, x: Array, y: Array, key: Key, training: bool):
        outputs, state = functional.apply(
            {"params": params, **model_state}, x, key=key, training=training
        )
        return loss(outputs, y).astype(jnp.float32), outputs, state

    penalty = monitoring.preserving_penalty(model, loss) if preserve else None
    watch, bare = None, optimizer
    if monitor:
        watch = Watch(
            model, loss, optimizer, variables, x[:batch_size], every=every, vanishing=vanishing
        )
        optimizer = watch.optimizer

    def task_loss(params, model_state, rows, batch, context, key):
        each, _, state = compute(params, model_state, batch["x"], batch["y"], key, True)
        mean = jnp.mean(each)
        metrics = {"loss": mean}
        if monitor:
            metrics["worst"] = jnp.max(each) / jnp.where(mean > 0, mean, 1.0)
        if penalty is not None:
            held = {"params": params, **model_state}
            mean += preserve * penalty(held, batch["x"], batch["y"], key=key)
        return mean, (state, metrics)

    step = make_step(
        Task(task_loss),
        optimizer=optimizer,
        # Without a monitor nothing stands between a step and the parameters.
        accept=all_finite if watch else (lambda loss, gradients: jnp.ones((), bool)),
        verdict=(lambda state: monitoring.verdict(state).taken) if watch else None,
    )

    def order(position: int) -> NDArray[np.int64]:
        if shuffle:
            return batches.batch_indices(len(x), batch_size, position, seed)
        return np.arange(position * batch_size, (position + 1) * batch_size) % len(x)

    def next_batches(position: int, count: int) -> PyTree:
        chosen = np.stack([order(at) for at in range(position, position + count)])
        return {"x": x[chosen], "y": y[chosen]}

    state = create_state(run_key, params=params, model_state=model_state, optimizer=optimizer)
    validate = None
    if held_out is not None:
        validate = _validation(compute, held_out)
    step = watch.step(step) if watch else step
    if rewind:
        step, state = rewinding(step, every=rewind), rewindable(state)
    program = repeat(step)
    reports: list[Any] = []
    validated: list[tuple[int, float]] = []
    said: set[str] = set()

    def on_reports(state: State, report: Any) -> None:
        reports.append(report)
        if validate is not None:
            validated.append((int(state.step), validate(state.params, state.model_state)))
        if say is not None and watch is not None and inspected is not None:
            past = watch.history(_joined(reports), inspected, len(x) / batch_size)
            for sign in monitoring.signs(past):
                if sign.symptom not in said:
                    said.add(sign.symptom)
                    say(f"so far: {sign}")

    if validate is not None:
        validated.append((0, validate(params, model_state)))
    # A copy: the run consumes its state.
    state = run(
        program,
        jax.tree.map(jnp.copy, state),
        next_batches,
        num_steps=num_steps,
        steps_per_call=max(1, min(50, math.ceil(num_steps / 40))),
        on_reports=on_reports,
    )
    rewinds = 0
    if rewind:
        rewinds, state = int(rewound(state).times), unwound(state)
    joined = _joined(reports)
    curve = joined.metrics["loss"].astype(np.float64)
    at = np.array([step for step, _ in validated], np.int64)
    validation = np.array([value for _, value in validated], np.float64)
    history, findings = None, []
    if watch is not None and inspected is not None:
        history = watch.history(joined, inspected, len(x) / batch_size, at, validation, shuffle)
        aftermath = Aftermath(compute, loss, bare, params, model_state, (x, y), seed)
        after = aftermath.measure(state, monitoring.is_suspicious(history))
        history = dataclasses.replace(history, after=after)
        findings = monitoring.diagnose(history)
        if any(f.symptom == "no_learnable_signal" and f.where == "input" for f in findings):
            # An accusation of the data, to be sure of: does what one half teaches hold for the other?
            half, rest = np.array_split(np.random.default_rng(seed).permutation(len(x)), 2)
            if len(rest) > 1:
                half.sort()
                again = fit(
                    model,
                    loss,
                    bare,
                    (x[half], y[half]),
                    num_steps=num_steps,
                    batch_size=batch_size,
                    key=key,
                    monitor=False,
                    shuffle=shuffle,
                )
                beyond = aftermath.held_out(again.params, again.model_state, (x[rest], y[rest]))
                after = dataclasses.replace(after, held_out=beyond)
                history = dataclasses.replace(history, after=after)
                findings = monitoring.diagnose(history)
        if say is not None:
            for finding in findings:
                say(str(finding))
    return Fit(
        params=state.params,
        model_state=state.model_state,
        loss_curve=curve,
        validation_curve=validation,
        validation_steps=at,
        findings=findings,
        history=history,
        opt_state=state.opt_state,
        rewinds=rewinds,
    )


def _joined(reports: list[Any]) -> Any:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *reports)


def _arrays(name: str, data: tuple[Any, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        x, y = data
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a pair (x, y)") from None
    x, y = (_narrow(np.asarray(values)) for values in (x, y))
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        raise ValueError(
            f"{name} must be arrays of equally many rows, got shapes {x.shape} and {y.shape}"
        )
    return x, y


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """As JAX would have it: 32 bits."""
    if values.dtype.kind in "OSUMm":
        raise ValueError(f"data must hold numbers, got {values.dtype}")
    return values.astype(jax.dtypes.canonicalize_dtype(values.dtype), copy=False)


def _validation(
    compute: Callable[..., Any], data: tuple[NDArray[Any], NDArray[Any]]
) -> Callable[[PyTree, PyTree], float]:
    x, y = data
    parts = [
        (jnp.asarray(x[at : at + _VALIDATED_AT_ONCE]), jnp.asarray(y[at : at + _VALIDATED_AT_ONCE]))
        for at in range(0, len(x), _VALIDATED_AT_ONCE)
    ]
    total = jax.jit(
        lambda params, state, x, y: jnp.mean(compute(params, state, x, y, None, False)[0])
    )

    def validate(params: PyTree, model_state: PyTree) -> float:
        sums = [float(total(params, model_state, x, y)) * len(y) for x, y in parts]
        return sum(sums) / len(data[1])

    return validate
