"""What came of a population: its members, their curves and findings, as a table."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from jaxml import monitor as monitoring
from jaxml import trees
from jaxml.train.fit import (
    Fit,
    best_step,
    validations,
)
from jaxml.train.program import Course
from jaxml.train.study import Study
from jaxml.types import Key, PyTree

__all__ = ["Member", "Metric", "Sweep", "fitted", "swept", "values"]

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
            metric: `"lowest_validation_loss"`, `"validation_loss"` (in the end), `"loss"` (of training), or
                a function of a member; None for the first of them, or without validation data the last.

        Raises:
            ValueError: if the metric is unknown, or finite for no member.
        """
        found = values(self.members, metric)
        if not np.isfinite(found).any():
            raise ValueError(f"metric must be finite for a member, got {found.tolist()}")
        return self.members[int(np.argmin(np.where(np.isfinite(found), found, np.inf)))]

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
                else float(np.mean(~member.fit.history.accepted)),
                "findings": ", ".join(finding.symptom for finding in member.fit.findings),
            }
            for member in self.members
        ]


def _padded(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    found = np.full((len(curves), max(map(len, curves))), np.nan)
    for row, curve in zip(found, curves, strict=True):
        row[: len(curve)] = curve
    return found


def values(members: Sequence[Member], metric: Metric | None) -> NDArray[np.float64]:
    """[members] of a metric, as `Sweep.best` takes it."""
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


def fitted(study: Study, i: int, course: Course, report: Any) -> Member:
    """A member with its curves, and nothing yet of what they mean."""
    setting, stopping = study.settings[i], course.stopping
    stopped = -1 if stopping is None else int(stopping.stopped_at)
    if stopped >= 0:
        report = jax.tree.map(lambda leaf: leaf[:stopped], report)
    at, losses = validations(
        report.metrics.get("validation"), course.first_validation, study.validate_every
    )
    outcome = Fit(
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
        fit=outcome,
    )


def swept(
    study: Study,
    found: Mapping[int, tuple[Course, Any]],
    inspected: monitoring.DataReport | None,
    explain: bool,
) -> Sweep:
    """Members that have been trained, with what it means.

    Args:
        study: that has trained them.
        found: of each member its course and all its reports.
        inspected: what was found in the data; None without a monitor.
        explain: as in `sweep`.
    """
    members = [fitted(study, i, *found[i]) for i in range(len(study.settings))]
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
    aftermath = monitoring.FinalDiagnostics(recipe.compute, recipe.loss, recipe.bare, study.data)
    explained = []
    for member in members:
        course, report = found[member.index]
        report = jax.tree.map(lambda leaf, n=member.steps: leaf[:n], report)
        history = watch.history(
            report.metrics,
            inspected,
            len(study.data[1]) / study.batch(member.batch_size),
            validation_steps=member.fit.validation_steps,
            validation_losses=member.fit.validation_curve,
            shuffled=study.shuffle,
        )
        if explain:
            after = aftermath.measure(
                study.initial(member.seed),
                (course.state.params, course.state.model_state),
                course.state.opt_state,
                seed=study.order_seeds[member.seed],
                curved=monitoring.is_suspicious(history),
                hyperparameters=study.hyperparameters_of(member.index),
            )
            history = dataclasses.replace(history, after=after)
        findings = monitoring.diagnose(history)
        outcome = dataclasses.replace(member.fit, history=history, findings=findings)
        explained.append(dataclasses.replace(member, fit=outcome))
    return explained
