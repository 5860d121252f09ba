"""Populations: one training for each combination of hyperparameters and seed, many in one program."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import optax

from jaxml import monitor as monitoring
from jaxml.train import inputs
from jaxml.train.checkpoint import Checkpoints
from jaxml.train.fit import check_numbers, default_validate_every, joined, streams
from jaxml.train.members import Metric, Sweep, fitted, swept, values
from jaxml.train.program import Course
from jaxml.train.progress import Meter, Progress
from jaxml.train.spaces import grid
from jaxml.train.state import Report
from jaxml.train.study import OnChunk, Setting, Study
from jaxml.types import Array, Key, PyTree

__all__ = ["successive_halving", "sweep"]

# Steps of the first rung, at least, where the number of rungs is not given.
_FIRST_RUNG = 10


def sweep(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation],
    data: tuple[Any, Any],
    *,
    space: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    num_steps: int,
    batch_size: int | Sequence[int | None] | None,
    key: Key,
    seeds: int | Sequence[int] = 1,
    penalty: Callable[[dict[str, Array], PyTree], Array] | None = None,
    validation_data: tuple[Any, Any] | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    monitor: bool = True,
    explain: bool = True,
    on_bad_data: Literal["report", "drop", "raise"] = "report",
    shuffle: bool = True,
    every: int = 10,
    accumulate: int = 1,
    remat: bool = False,
    stream: bool | None = None,
    max_bytes: int | None = None,
    chunk: int | None = None,
    progress: Callable[[Progress], Any] | bool | None = None,
    on_chunk: OnChunk | None = None,
    checkpoints: Checkpoints | None = None,
) -> Sweep:
    """Trains a model once for each combination of hyperparameters and seed, many at once.

    Every member is a `fit` of its own, with its own key, guard and findings: the same step, under `vmap`.
    Hyperparameters are traced: one program is compiled for each shape (batch size, members at once), and
    other values compile nothing. A member that diverges harms no other. Members of one seed begin with
    the same parameters and see the same examples in the same order (common random numbers), so that
    they differ by their hyperparameters alone.

    Args:
        model: any Linen module.
        loss: `loss(outputs, labels) -> ` loss of each example.
        optimizer: `optimizer(hyperparameters) -> ` an optax transformation; the hyperparameters are a dict
            of float32 scalars that are traced: no Python `if` may depend on them.
        data: `(x, y)`, as in `fit`.
        space: hyperparameter → values, of which every combination is taken (`grid`), or the combinations
            themselves as dicts (`random_space`). `"batch_size"` may be one of them.
        num_steps: steps of each member.
        batch_size: examples in a step, or several such numbers to go over; None for all.
        key: typed key. A seed's key is `jax.random.fold_in(key, seed)`.
        seeds: how many, or which.
        penalty: None, or `penalty(hyperparameters, params) -> ` scalar to minimise besides the loss; it is
            no part of the loss that is reported.
        validation_data: `(x, y)` to follow the loss on.
        validate_every: as in `fit`.
        patience: as in `fit`; a member that has stopped stays as it is, bit for bit.
        monitor: whether to guard and to watch.
        explain: whether each member is measured when it is over, as `fit` does, before its findings are
            read: without, they are read off the record alone, which is faster and says less.
        on_bad_data: as in `fit`.
        shuffle: as in `fit`.
        every: as in `fit`.
        accumulate: as in `fit`.
        remat: as in `fit`.
        stream: as in `fit`.
        max_bytes: that the members of a chunk, and the data, may take on the device; None for what it has.
        chunk: members at once, at most; None for as many as fit, on a CPU as many as stay in a core's
            cache. Chunks have one size, so that they are one program. 1 is a loop over single trainings.
        progress: as in `fit`, over all members.
        on_chunk: `on_chunk(number, course, report)` after each call of the program, as in `fit`, with the
            number of the chunk; chunks come in a fixed order and may be trained side by side.
        checkpoints: as in `fit`; each chunk is saved in a folder of its own.

    Returns:
        A `Sweep`.

    Raises:
        ValueError: as `fit` does; also if the space is empty, names different hyperparameters, or holds
            what is no finite number, and if not even one member fits: the message states what it needs.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> squared = lambda outputs, labels: jnp.square(outputs - labels)
        >>> swept = sweep(nn.Dense(1), squared, lambda h: optax.sgd(h["learning_rate"]), (x, 2 * x),
        ...               space={"learning_rate": [1e-4, 0.3]}, num_steps=100, batch_size=32,
        ...               key=jax.random.key(0), monitor=False)
        >>> swept.loss_curves.shape, round(swept.best().hyperparameters["learning_rate"], 6)
        ((2, 100), 0.3)
    """
    study, inspected = _study(
        model,
        loss,
        optimizer,
        data,
        space=space,
        num_steps=num_steps,
        batch_size=batch_size,
        key=key,
        seeds=seeds,
        validation_data=validation_data,
        validate_every=validate_every,
        patience=patience,
        on_bad_data=on_bad_data,
        shuffle=shuffle,
        stream=stream,
        max_bytes=max_bytes,
        chunk=chunk,
        penalty=penalty,
        monitor=monitor,
        every=every,
        accumulate=accumulate,
        remat=remat,
    )
    everyone = range(len(study.settings))
    meter = Meter(progress, num_steps * len(everyone), len(everyone))
    found = study.train(everyone, {}, num_steps, meter, on_chunk, checkpoints)
    return swept(study, found, inspected, explain)


def successive_halving(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation],
    data: tuple[Any, Any],
    *,
    space: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    num_steps: int,
    batch_size: int | Sequence[int | None] | None,
    key: Key,
    factor: int = 3,
    rungs: int | None = None,
    metric: Metric | None = None,
    explain: bool = True,
    progress: Callable[[Progress], Any] | bool | None = None,
    **options: Any,
) -> Sweep:
    """A sweep that gives its steps to who does best: most members end early, the best go on.

    At rungs of num_steps / factorᵏ, …, num_steps / factor steps the members are ranked; one in `factor`
    goes on, from where it is. All seeds of a combination go or stay together, by the mean over them: one
    lucky seed saves nobody. Who is not finite never goes on before who is.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
    AISTATS 2016.

    Args:
        model: as in `sweep`.
        loss: as in `sweep`.
        optimizer: as in `sweep`.
        data: as in `sweep`.
        space: as in `sweep`.
        num_steps: steps of those that go on to the end.
        batch_size: as in `sweep`.
        key: as in `sweep`.
        factor: one in so many goes on, at least 2.
        rungs: how often to rank; None for as often as more than one combination is left and the first
            rung has ten steps.
        metric: what to rank by, lower is better, as in `Sweep.best`.
        explain: as in `sweep`.
        progress: as in `sweep`.
        options: further arguments of `sweep`: `seeds`, `penalty`, `validation_data`, `validate_every`,
            `monitor`, `on_bad_data`, `shuffle`, `every`, `accumulate`, `remat`, `stream`,
            `max_bytes`, `chunk`.

    Returns:
        A `Sweep` of all members: those that ended early have shorter curves (`Member.steps`).

    Raises:
        ValueError: as `sweep` does; also if `factor` is below 2 or `rungs` below 0, or there are more rungs
            than steps allow.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> squared = lambda outputs, labels: jnp.square(outputs - labels)
        >>> halved = successive_halving(
        ...     nn.Dense(1), squared, lambda h: optax.sgd(h["learning_rate"]), (x, 2 * x),
        ...     space={"learning_rate": [1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.4]}, num_steps=90, batch_size=32,
        ...     key=jax.random.key(0), rungs=1, monitor=False)
        >>> [member.steps for member in halved.members]
        [30, 30, 30, 30, 90, 90]
    """
    if factor < 2:
        raise ValueError(f"factor must be at least 2, got {factor}")
    if rungs is not None and rungs < 0:
        raise ValueError(f"rungs must be at least 0, got {rungs}")
    study, inspected = _study(
        model,
        loss,
        optimizer,
        data,
        space=space,
        num_steps=num_steps,
        batch_size=batch_size,
        key=key,
        **options,
    )
    together = len(dict.fromkeys(each.seed for each in study.settings))
    combinations = len(study.settings) // together
    most = 0
    while factor ** (most + 1) <= combinations and num_steps // factor ** (most + 1) >= _FIRST_RUNG:
        most += 1
    if rungs is not None:
        if num_steps // factor**rungs < 1:
            raise ValueError(
                f"rungs must leave the first at least one step, got {rungs} of factor {factor} "
                f"in {num_steps} steps"
            )
        most = rungs
    stages = [num_steps // factor**k for k in range(most, -1, -1)]
    alive = list(range(combinations))
    # All that will be done, of all members.
    sizes = [max(1, combinations // factor**k) * together for k in range(len(stages))]
    lengths = np.diff([0, *stages])
    meter = Meter(progress, int(np.dot(sizes, lengths)), len(study.settings))
    courses: dict[int, Course] = {}
    reports: dict[int, list[Report]] = {i: [] for i in range(len(study.settings))}
    for stage, until in enumerate(stages):
        members = [together * c + s for c in alive for s in range(together)]
        for i, (course, report) in study.train(members, courses, until, meter).items():
            courses[i] = course
            reports[i].append(report)
        if stage + 1 < len(stages):
            ranked = [fitted(study, i, courses[i], joined(reports[i])) for i in members]
            scores = values(ranked, metric).reshape(len(alive), together).mean(1)
            scores = np.where(np.isfinite(scores), scores, np.inf)
            keep = max(1, len(alive) // factor)
            alive = sorted(alive[i] for i in np.argsort(scores, kind="stable")[:keep])
    found = {i: (courses[i], joined(reports[i])) for i in courses}
    return swept(study, found, inspected, explain)


def _study(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: Callable[[Any], optax.GradientTransformation],
    data: tuple[Any, Any],
    *,
    space: Any,
    num_steps: int,
    batch_size: Any,
    key: Key,
    seeds: int | Sequence[int] = 1,
    penalty: Callable[[Any, PyTree], Array] | None = None,
    validation_data: tuple[Any, Any] | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    monitor: bool = True,
    on_bad_data: Literal["report", "drop", "raise"] = "report",
    shuffle: bool = True,
    every: int = 10,
    accumulate: int = 1,
    remat: bool = False,
    stream: bool | None = None,
    max_bytes: int | None = None,
    chunk: int | None = None,
) -> tuple[Study, monitoring.DataReport | None]:
    """What is to be trained, checked."""
    pair = inputs.pair("data", data)
    held_out = inputs.held_out_pair(validation_data, pair)
    check_numbers(num_steps, every, validate_every, patience, held_out is not None)
    for name, value in (("chunk", chunk), ("max_bytes", max_bytes)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not callable(optimizer) or hasattr(optimizer, "update"):
        raise ValueError(
            "optimizer must be a function from hyperparameters to an optax transformation, "
            f"got {optimizer!r}"
        )
    pair, inspected = inputs.clean(pair, on_bad_data, inspect=monitor)
    settings = _settings(space, batch_size, seeds)
    for each in settings:
        inputs.check_batch(each.batch_size, len(pair[1]), accumulate)
    study = Study(
        model,
        loss,
        optimizer,
        pair,
        held_out,
        settings,
        key=key,
        num_steps=num_steps,
        validate_every=validate_every or default_validate_every(num_steps),
        patience=patience,
        shuffle=shuffle,
        chunk=chunk,
        max_bytes=max_bytes,
        stream=streams(stream, pair),
        penalty=penalty,
        monitor=monitor,
        every=every,
        accumulate=accumulate,
        remat=remat,
    )
    return study, inspected


def _settings(space: Any, batch_size: Any, seeds: int | Sequence[int]) -> list[Setting]:
    """A setting for each combination and seed, seeds running fastest."""
    if isinstance(space, Mapping):
        combinations = grid(space)
    else:
        combinations = [dict(each) for each in space]
    if not combinations or not combinations[0]:
        raise ValueError(f"space must hold at least one hyperparameter, got {space!r}")
    names = list(combinations[0])
    for each in combinations:
        if set(each) != set(names):
            raise ValueError(f"space must name {sorted(names)} throughout, got {sorted(each)}")
    if "batch_size" in names:
        sizes: list[Any] = [None]
    elif isinstance(batch_size, Sequence | np.ndarray):
        sizes = list(batch_size)
        if not sizes:
            raise ValueError("batch_size must hold at least one number, got none")
    else:
        sizes = [batch_size]
    which = range(int(seeds)) if isinstance(seeds, int | np.integer) else [*map(int, seeds)]
    if not which or min(which) < 0 or len(set(which)) < len(which):
        raise ValueError(f"seeds must be at least 1, or different numbers from 0 on, got {seeds}")
    found = []
    for each in combinations:
        numbers = {name: _number(name, each[name]) for name in names if name != "batch_size"}
        rate = numbers.get("learning_rate")
        if rate is not None and rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {rate} in space")
        for size in [each["batch_size"]] if "batch_size" in names else sizes:
            found += [Setting(numbers, seed, size) for seed in which]
    return found


def _number(name: str, value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    # As it will be traced: beyond the range of float32 it is no number, either.
    if not math.isfinite(found) or not np.isfinite(np.float32(found)):
        raise ValueError(f"space must hold finite numbers, got {name}={value!r}")
    return found
