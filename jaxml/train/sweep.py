"""Populations: one training for each combination of hyperparameters and seed, many in one program."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import monitor as monitoring
from jaxml import trees
from jaxml.train import inputs
from jaxml.train.aftermath import Aftermath
from jaxml.train.fit import (
    Fit,
    best_step,
    check_numbers,
    default_validate_every,
    joined,
    streams,
    validations,
)
from jaxml.train.program import Course
from jaxml.train.progress import Meter, Progress
from jaxml.train.spaces import grid
from jaxml.train.state import Report
from jaxml.train.study import OnChunk, Resume, Setting, Study
from jaxml.types import Array, Key, PyTree

__all__ = ["Member", "Sweep", "successive_halving", "sweep"]

Metric = str | Callable[["Member"], float]


@dataclasses.dataclass(frozen=True)
class Member:
    """One training of a sweep.

    Attributes:
        index: its place in the sweep.
        hyperparameters: by name.
        seed: of initialisation, order and dropout, which it shares with the others of this seed.
        batch_size: examples in a step; None for all.
        key: `fit` with this key and these hyperparameters is this training.
        fit: what came of it.
    """

    index: int
    hyperparameters: dict[str, float]
    seed: int
    batch_size: int | None
    key: Key
    fit: Fit

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.fit.loss_curve)

    @property
    def loss(self) -> float:
        """Mean training loss over the last tenth of the steps; NaN if one of them is."""
        return float(np.mean(self.fit.loss_curve[-max(1, self.steps // 10) :]))

    @property
    def validation_loss(self) -> float:
        """Loss on the validation data in the end; NaN without them."""
        curve = self.fit.validation_curve
        return float(curve[-1]) if len(curve) else math.nan

    @property
    def lowest_validation_loss(self) -> float:
        """The lowest loss on the validation data; NaN without them."""
        curve = self.fit.validation_curve
        return float(np.nanmin(curve)) if np.isfinite(curve).any() else math.nan


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What came of a population.

    Attributes:
        members: in the order of the space, the seeds of a combination next to each other.
        seconds: wall time by `"compile"`, `"run"` and `"explain"`.
        programs: how many were compiled: one for each shape.
        chunk: members that were trained at once, at most.
    """

    members: tuple[Member, ...]
    seconds: dict[str, float]
    programs: int
    chunk: int

    def __len__(self) -> int:
        return len(self.members)

    @functools.cached_property
    def params(self) -> PyTree:
        """The members' parameters, with the member as leading axis."""
        return trees.stack([member.fit.params for member in self.members])

    @functools.cached_property
    def model_state(self) -> PyTree:
        """The members' other collections, with the member as leading axis."""
        states = [member.fit.model_state for member in self.members]
        return trees.stack(states) if jax.tree.leaves(states[0]) else states[0]

    @functools.cached_property
    def loss_curves(self) -> NDArray[np.float64]:
        """[members, steps], NaN where a member had stopped."""
        return _padded([member.fit.loss_curve for member in self.members])

    @functools.cached_property
    def validation_steps(self) -> NDArray[np.int64]:
        """[validations], steps before each, of those that went on longest."""
        return max((member.fit.validation_steps for member in self.members), key=len)

    @functools.cached_property
    def validation_curves(self) -> NDArray[np.float64]:
        """[members, validations], NaN where a member had stopped."""
        return _padded([member.fit.validation_curve for member in self.members])

    @property
    def findings(self) -> list[list[monitoring.Finding]]:
        """Of each member."""
        return [member.fit.findings for member in self.members]

    def best(self, metric: Metric | None = None) -> Member:
        """The member with the lowest metric; a NaN is never the lowest.

        Args:
            metric: `"lowest_validation_loss"`, `"validation_loss"` (in the end) or `"loss"` (of training), or
                a function of a member; None for the first of them, or without validation data the last.

        Raises:
            ValueError: if the metric is unknown, or finite for no member.
        """
        values = _values(self.members, metric)
        if not np.isfinite(values).any():
            raise ValueError(f"metric must be finite for a member, got {values.tolist()}")
        return self.members[int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))]

    def table(self) -> Any:
        """A row for each member, as a pandas DataFrame.

        Its columns: the hyperparameters, `batch_size` and `seed`; `steps` taken, `stopped_at`, `loss`,
        `validation_loss`, `lowest_validation_loss` and `best_step` as `Member` and `Fit` have them;
        `refused`, the share of steps that the guard kept out; and `findings`, their symptoms.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("Sweep.table needs pandas: pip install pandas") from error
        return pandas.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """What `table` shows, as plain values."""
        return [
            {
                **member.hyperparameters,
                "batch_size": member.batch_size,
                "seed": member.seed,
                "steps": member.steps,
                "stopped_at": member.fit.stopped_at,
                "loss": member.loss,
                "validation_loss": member.validation_loss,
                "lowest_validation_loss": member.lowest_validation_loss,
                "best_step": member.fit.best_step,
                "refused": math.nan
                if member.fit.history is None
                else float(np.mean(~member.fit.history.taken)),
                "findings": ", ".join(finding.symptom for finding in member.fit.findings),
            }
            for member in self.members
        ]


def _padded(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    found = np.full((len(curves), max(map(len, curves))), np.nan)
    for row, curve in zip(found, curves, strict=True):
        row[: len(curve)] = curve
    return found


def _values(members: Sequence[Member], metric: Metric | None) -> NDArray[np.float64]:
    if metric is None:
        validates = any(len(member.fit.validation_curve) for member in members)
        metric = "lowest_validation_loss" if validates else "loss"
    if callable(metric):
        return np.array([float(metric(member)) for member in members])
    if metric not in ("lowest_validation_loss", "validation_loss", "loss"):
        raise ValueError(
            "metric must be 'lowest_validation_loss', 'validation_loss', 'loss' or a function, "
            f"got {metric!r}"
        )
    return np.array([getattr(member, metric) for member in members])


def sweep(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation],
    data: tuple[Any, Any],
    *,
    space: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    num_steps: int,
    batch_size: int | None | Sequence[int | None],
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
    vanishing: Literal["ignore", "rescale"] = "ignore",
    accumulate: int = 1,
    remat: bool = False,
    stream: bool | None = None,
    max_bytes: int | None = None,
    chunk: int | None = None,
    progress: Callable[[Progress], Any] | bool | None = None,
    on_chunk: OnChunk | None = None,
    resume: Resume | None = None,
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
        data: `(x, y)`, arrays `[N, …]`.
        space: hyperparameter → values, of which every combination is taken (`grid`), or the combinations
            themselves as dicts (`random_space`). `"batch_size"` may be one of them.
        num_steps: steps of each member.
        batch_size: examples in a step, or several such numbers to go over; None for all.
        key: typed key. A seed's key is `jax.random.fold_in(key, seed)`.
        seeds: how many, or which.
        penalty: None, or `penalty(hyperparameters, params) -> ` scalar to minimise besides the loss; it is no
            part of the loss that is reported.
        validation_data: `(x, y)` to follow the loss on.
        validate_every, patience: as in `fit`; a member that has stopped stays as it is, bit for bit.
        monitor: whether to guard and to watch.
        explain: whether each member is measured when it is over, as `fit` does, before its findings are
            read: without, they are read off the record alone, which is faster and says less.
        on_bad_data, shuffle, every, vanishing, accumulate, remat, stream: as in `fit`.
        max_bytes: that the members of a chunk, and the data, may take on the device; None for what it has.
        chunk: members at once, at most; None for as many as fit, on a CPU as many as stay in a core's
            cache. Chunks have one size, so that they are one program. 1 is a loop over single trainings.
        progress: as in `fit`, over all members.
        on_chunk: `on_chunk(number, course, report)` after each call of the program, as in `fit`, with the
            number of the chunk; chunks come in a fixed order and may be trained side by side.
        resume: `resume(number, course) -> (course, reports)` or None, as in `fit`, for each chunk.

    Returns:
        A `Sweep`.

    Raises:
        ValueError: as `fit` does; also if the space is empty, names different hyperparameters, or holds what
            is no finite number, and if not even one member fits: the message states what it would need.

    Example:
        >>> import flax.linen as nn, jax.numpy as jnp
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
        vanishing=vanishing,
        accumulate=accumulate,
        remat=remat,
    )
    everyone = range(len(study.settings))
    meter = Meter(progress, num_steps * len(everyone), len(everyone))
    found = study.train(everyone, {}, num_steps, meter, on_chunk, resume)
    return _swept(study, found, inspected, explain)


def successive_halving(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation],
    data: tuple[Any, Any],
    *,
    space: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    num_steps: int,
    batch_size: int | None | Sequence[int | None],
    key: Key,
    factor: int = 3,
    rungs: int | None = None,
    metric: Metric | None = None,
    seeds: int | Sequence[int] = 1,
    penalty: Callable[[dict[str, Array], PyTree], Array] | None = None,
    validation_data: tuple[Any, Any] | None = None,
    validate_every: int | None = None,
    monitor: bool = True,
    explain: bool = True,
    on_bad_data: Literal["report", "drop", "raise"] = "report",
    shuffle: bool = True,
    every: int = 10,
    vanishing: Literal["ignore", "rescale"] = "ignore",
    accumulate: int = 1,
    remat: bool = False,
    stream: bool | None = None,
    max_bytes: int | None = None,
    chunk: int | None = None,
    progress: Callable[[Progress], Any] | bool | None = None,
) -> Sweep:
    """A sweep that gives its steps to who does best: most members end early, the best go on.

    At rungs of num_steps / factorᵏ, …, num_steps / factor steps the members are ranked; one in `factor` goes
    on, from where it is. All seeds of a combination go or stay together, by the mean over them: one lucky
    seed saves nobody. A member whose metric is not finite never goes on before one whose is.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
    AISTATS 2016.

    Args:
        model, loss, optimizer, data, space, batch_size, key, seeds, penalty, validation_data,
            validate_every, monitor, explain, on_bad_data, shuffle, every, vanishing, accumulate, remat,
            stream, max_bytes, chunk, progress: as in `sweep`.
        num_steps: steps of those that go on to the end.
        factor: one in so many goes on, at least 2.
        rungs: how often to rank; None for as often as more than one combination is left, and as the first
            rung has at least one step in ten of the mean epoch, or ten steps.
        metric: what to rank by, lower is better, as in `Sweep.best`.

    Returns:
        A `Sweep` of all members: those that ended early have shorter curves (`Member.steps`).

    Raises:
        ValueError: as `sweep` does; also if `factor` is below 2 or `rungs` below 0, or there are more rungs
            than steps allow.

    Example:
        >>> import flax.linen as nn, jax.numpy as jnp
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
        seeds=seeds,
        validation_data=validation_data,
        validate_every=validate_every,
        patience=None,
        on_bad_data=on_bad_data,
        shuffle=shuffle,
        stream=stream,
        max_bytes=max_bytes,
        chunk=chunk,
        penalty=penalty,
        monitor=monitor,
        every=every,
        vanishing=vanishing,
        accumulate=accumulate,
        remat=remat,
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
            ranked = [_fitted(study, i, courses[i], joined(reports[i])) for i in members]
            scores = _values(ranked, metric).reshape(len(alive), together).mean(1)
            scores = np.where(np.isfinite(scores), scores, np.inf)
            keep = max(1, len(alive) // factor)
            alive = sorted(alive[i] for i in np.argsort(scores, kind="stable")[:keep])
    found = {i: (courses[i], joined(reports[i])) for i in courses}
    return _swept(study, found, inspected, explain)


# Steps of the first rung, at least, where it is not given.
_FIRST_RUNG = 10


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
    seeds: int | Sequence[int],
    validation_data: tuple[Any, Any] | None,
    validate_every: int | None,
    patience: int | None,
    on_bad_data: Literal["report", "drop", "raise"],
    shuffle: bool,
    stream: bool | None,
    max_bytes: int | None,
    chunk: int | None,
    **options: Any,
) -> tuple[Study, monitoring.DataReport | None]:
    """What is to be trained, checked."""
    pair = inputs.pair("data", data)
    held_out = inputs.held_out_pair(validation_data, pair)
    check_numbers(num_steps, options["every"], validate_every, patience, held_out is not None)
    for name, value in (("chunk", chunk), ("max_bytes", max_bytes)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not callable(optimizer) or hasattr(optimizer, "update"):
        raise ValueError(
            "optimizer must be a function from hyperparameters to an optax transformation, "
            f"got {optimizer!r}"
        )
    pair, inspected = inputs.clean(pair, on_bad_data, inspect=options["monitor"])
    settings = _settings(space, batch_size, seeds)
    for each in settings:
        inputs.check_batch(each.batch_size, len(pair[0]), options["accumulate"])
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
        **options,
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
    if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool):
        if seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {seeds}")
        seeds = range(int(seeds))
    seeds = [int(seed) for seed in seeds]
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be different whole numbers from 0 on, got {seeds}")
    found = []
    for each in combinations:
        numbers = {name: _number(name, each[name]) for name in names if name != "batch_size"}
        rate = numbers.get("learning_rate")
        if rate is not None and rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {rate} in space")
        for size in [each["batch_size"]] if "batch_size" in names else sizes:
            found += [Setting(numbers, seed, size) for seed in seeds]
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


def _fitted(study: Study, i: int, course: Course, report: Any) -> Member:
    """A member with its curves, and nothing yet of what they mean."""
    setting, stopping = study.settings[i], course.stopping
    stopped = -1 if stopping is None else int(stopping.stopped_at)
    if stopped >= 0:
        report = jax.tree.map(lambda leaf: leaf[:stopped], report)
    at, losses = validations(
        report.metrics.get("validation"), course.first_validation, study.validate_every
    )
    fitted = Fit(
        params=course.state.params if stopping is None else stopping.params,
        model_state=course.state.model_state if stopping is None else stopping.model_state,
        loss_curve=report.metrics["loss"].astype(np.float64),
        validation_curve=losses,
        validation_steps=at,
        findings=[],
        history=None,
        opt_state=course.state.opt_state,
        stopped_at=None if stopped < 0 else stopped,
        best_step=best_step(at, losses),
    )
    return Member(
        index=i,
        hyperparameters=setting.hyperparameters,
        seed=setting.seed,
        batch_size=setting.batch_size,
        key=study.keys[setting.seed],
        fit=fitted,
    )


def _swept(
    study: Study,
    found: Mapping[int, tuple[Course, Any]],
    inspected: monitoring.DataReport | None,
    explain: bool,
) -> Sweep:
    members = [_fitted(study, i, *found[i]) for i in range(len(study.settings))]
    started = time.perf_counter()
    if study.recipe.watch is not None and inspected is not None:
        members = _explained(study, found, members, inspected, explain)
    seconds = {**study.seconds, "explain": time.perf_counter() - started}
    return Sweep(tuple(members), seconds, study.programs, study.widest)


def _explained(
    study: Study,
    found: Mapping[int, tuple[Course, Any]],
    members: list[Member],
    inspected: monitoring.DataReport,
    explain: bool,
) -> list[Member]:
    """Members with history and findings."""
    watch, recipe = study.recipe.watch, study.recipe
    assert watch is not None
    aftermath = Aftermath(recipe.compute, recipe.loss, recipe.bare, study.data)
    explained = []
    for member in members:
        course, report = found[member.index]
        report = jax.tree.map(lambda leaf, n=member.steps: leaf[:n], report)
        history = watch.history(
            report,
            inspected,
            len(study.data[0]) / study.batch(member.batch_size),
            member.fit.validation_steps,
            member.fit.validation_curve,
            study.shuffle,
        )
        if explain:
            after = aftermath.measure(
                study.initial(member.seed),
                course.state,
                seed=study.order_seeds[member.seed],
                curved=monitoring.is_suspicious(history),
                hyperparameters=study.hyperparameters_of(member.index),
            )
            history = dataclasses.replace(history, after=after)
        findings = monitoring.diagnose(history)
        fitted = dataclasses.replace(member.fit, history=history, findings=findings)
        explained.append(dataclasses.replace(member, fit=fitted))
    accused = [
        member.index
        for member in explained
        if any(
            f.symptom == "no_learnable_signal" and f.where == "input" for f in member.fit.findings
        )
    ]
    # An accusation of the data, to be sure of: does what one half teaches hold for the other? See `fit`.
    for seed in dict.fromkeys(explained[i].seed for i in accused):
        mine = [i for i in accused if explained[i].seed == seed]
        x, y = study.data
        order = np.random.default_rng(study.order_seeds[seed]).permutation(len(x))
        half, rest = np.array_split(order, 2)
        if len(rest) < 2:
            continue
        half.sort()
        again = study.on(half, mine)
        trained = again.train(range(len(mine)), {}, study.num_steps, Meter(None, study.num_steps))
        for place, i in enumerate(mine):
            state = trained[place][0].state
            beyond = aftermath.held_out(state.params, state.model_state, (x[rest], y[rest]))
            fitted = explained[i].fit
            assert fitted.history is not None and fitted.history.after is not None
            after = dataclasses.replace(fitted.history.after, held_out=beyond)
            history = dataclasses.replace(fitted.history, after=after)
            fitted = dataclasses.replace(
                fitted, history=history, findings=monitoring.diagnose(history)
            )
            explained[i] = dataclasses.replace(explained[i], fit=fitted)
    return explained
