"""What `fit` and `sweep` return."""

import dataclasses
import functools
import html
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml import checks, monitor, text, trees
from jaxml.train import checkpoint, inputs
from jaxml.train.display import loss_curve_svg
from jaxml.types import Key, PyTree

__all__ = ["Fit", "Sweep", "Trial"]

# Findings that a repr shows.
_SHOWN = 3

METRICS = ("loss", "validation_loss", "lowest_validation_loss")
"""Names that `Sweep.best` knows."""


@dataclasses.dataclass(frozen=True, repr=False)
class Fit:
    """A trained model, its curves and its findings.

    Attributes:
        params: the parameters after the last step, or with early stopping those of the lowest validation
            loss.
        model_state: the model's other collections (batch statistics) after the same step.
        loss_curve: float64 [S], the mean loss of each step's batch before its update.
        validation_curve: float64 [V], mean loss on the validation data; empty without them.
        validation_steps: int64 [V], steps taken before each validation.
        findings: problems of the training, causes before effects; empty without monitor.
        history: the record of the monitor; None without monitor.
        opt_state: of the optimizer after the last step, or of the guard around it.
        stopped_at: the number of steps after which training stopped early; None if it did not.
        seconds: wall time by `"compile"` and `"run"`.
    """

    params: PyTree
    model_state: PyTree
    loss_curve: NDArray[np.float64]
    validation_curve: NDArray[np.float64]
    validation_steps: NDArray[np.int64]
    findings: list[monitor.Finding]
    history: monitor.History | None
    opt_state: PyTree
    stopped_at: int | None
    seconds: dict[str, float]
    _outputs: Callable[[PyTree, PyTree, PyTree], Any]
    _loss: Callable[[Any, Any], Any]

    @property
    def loss(self) -> float:
        """Mean training loss over the last tenth of the steps; NaN if one of them is."""
        return float(np.mean(self.loss_curve[-max(1, len(self.loss_curve) // 10) :]))

    @property
    def validation_loss(self) -> float:
        """The last validation loss; NaN without validation data."""
        return float(self.validation_curve[-1]) if len(self.validation_curve) else math.nan

    @property
    def lowest_validation_loss(self) -> float:
        """The lowest finite validation loss; NaN if there is none."""
        finite = self.validation_curve[np.isfinite(self.validation_curve)]
        return float(finite.min()) if len(finite) else math.nan

    @property
    def best_step(self) -> int | None:
        """The number of steps before the lowest finite validation loss; None if there is none."""
        curve = self.validation_curve
        if not np.isfinite(curve).any():
            return None
        return int(self.validation_steps[np.argmin(np.where(np.isfinite(curve), curve, np.inf))])

    def predict(self, x: PyTree, *, batch_size: int = 1024) -> Any:
        """Returns the model's outputs for `x`, in evaluation mode, as NumPy arrays `[N, …]`.

        What the model returns without examples, such as a scale for all of them, is returned as it is.

        Args:
            x: inputs like those it was trained on.
            batch_size: examples at a time.

        Raises:
            ValueError: if `x` has no rows or `batch_size` is below 1.
        """
        batch_size = checks.integer("batch_size", batch_size, at_least=1)
        x = inputs.arrays("x", x)
        number = len(jax.tree.leaves(x)[0])
        rows, found = min(batch_size, number), []
        for at in range(0, number, rows):
            # The last batch ends with the last example, so that all have one shape.
            part = trees.take(x, slice(min(at, number - rows), at + rows))
            outputs = self._outputs(self.params, self.model_state, part)
            found.append(jax.tree.map(np.asarray, outputs))

        def joined(*parts: NDArray[Any]) -> NDArray[Any]:
            # What is of no example, such as a scale for all, is the same in every batch.
            if parts[0].shape[:1] != (rows,):
                return parts[0]
            return np.concatenate([*parts[:-1], parts[-1][len(parts) * rows - number :]])

        return jax.tree.map(joined, *found)

    def evaluate(
        self, x: PyTree, y: Any, metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None
    ) -> dict[str, float]:
        """Returns the mean loss on `(x, y)`, and metrics.

        Args:
            x: inputs.
            y: labels.
            metrics: name → `function(outputs, labels)`, which returns a number.
        """
        x, y = inputs.pair("data", (x, y))
        outputs = self.predict(x)
        each = self._loss(jax.tree.map(jnp.asarray, outputs), jnp.asarray(y))
        values = {name: float(metric(outputs, y)) for name, metric in (metrics or {}).items()}
        return {"loss": float(jnp.mean(each)), **values}

    def save(self, path: str | os.PathLike) -> None:
        """Writes parameters and model state; `checkpoint.load(path, model.init(key, x))` reads them."""
        checkpoint.save(path, {"params": self.params, **self.model_state})

    def to_frame(self) -> Any:
        """Returns a pandas DataFrame with a row for each step: loss, validation loss, and with a monitor
        whether the step was accepted, the norm of its gradient and the factor it was scaled by."""
        rows = len(self.loss_curve)
        columns: dict[str, Any] = {"loss": self.loss_curve}
        if len(self.validation_curve):
            # A row more, for the validation after the last step.
            rows += 1
            columns["loss"] = np.append(self.loss_curve, np.nan)
            columns["validation_loss"] = np.full(rows, np.nan)
            columns["validation_loss"][self.validation_steps] = self.validation_curve
        if self.history is not None:
            for name in ("accepted", "norm", "coefficient"):
                recorded = getattr(self.history, name)
                columns[name] = [*recorded, *[None] * (rows - len(recorded))]
        return _pandas().DataFrame({"step": np.arange(rows), **columns})

    def __repr__(self) -> str:
        lines = [f"Fit: {self._summary()}"]
        for finding in self.findings[:_SHOWN]:
            lines.append(f"  {finding!r}")
        if len(self.findings) > _SHOWN:
            lines.append(f"  … and {len(self.findings) - _SHOWN} more in `findings`")
        if self.history is not None and not self.findings:
            lines.append("  no findings")
        return "\n".join(lines)

    def _summary(self) -> str:
        number = trees.num_parameters(self.params)
        parts = [f"{number:,} parameters", f"{len(self.loss_curve):,} steps"]
        if self.stopped_at is not None:
            parts[-1] += " (stopped early)"
        parts.append(f"loss {self.loss_curve[0]:.4g} → {self.loss:.4g}")
        if len(self.validation_curve):
            parts.append(f"lowest validation loss {self.lowest_validation_loss:.4g}")
            if self.best_step is not None:
                parts[-1] += f" at step {self.best_step:,}"
        return ", ".join(parts)

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in self.findings)
        curve = loss_curve_svg(
            [("training", np.arange(len(self.loss_curve)), self.loss_curve),
             ("validation", self.validation_steps, self.validation_curve)]
        )  # fmt: skip
        return f"<p><b>Fit</b>: {html.escape(self._summary())}</p>{curve}<ul>{items}</ul>"


@dataclasses.dataclass(frozen=True, repr=False)
class Trial:
    """One training of a sweep.

    Attributes:
        index: its place in the sweep.
        hyperparameters: by name.
        seed: determines initialisation, order of examples and dropout.
        batch_size: examples in a step; None for all.
        key: `fit` with this key and these hyperparameters repeats this training.
        fit: its result.
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
        """As `Fit.loss`."""
        return self.fit.loss

    @property
    def validation_loss(self) -> float:
        """As `Fit.validation_loss`."""
        return self.fit.validation_loss

    @property
    def lowest_validation_loss(self) -> float:
        """As `Fit.lowest_validation_loss`."""
        return self.fit.lowest_validation_loss

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value:.4g}" for name, value in self.hyperparameters.items())
        return f"Trial {self.index} ({values}, seed={self.seed}): {self.fit!r}"


@dataclasses.dataclass(frozen=True, repr=False)
class Sweep:
    """The trials of a sweep.

    Attributes:
        trials: in the order of the space, the seeds of a combination next to each other.
        seconds: wall time by `"compile"`, `"run"` and `"diagnose"`.
        width: the largest number of trials that were trained side by side.
    """

    trials: tuple[Trial, ...]
    seconds: dict[str, float]
    width: int

    def __len__(self) -> int:
        return len(self.trials)

    @functools.cached_property
    def params(self) -> PyTree:
        """The trials' parameters, with the trial as leading axis."""
        return trees.stack([trial.fit.params for trial in self.trials])

    @functools.cached_property
    def model_state(self) -> PyTree:
        """The trials' other collections, with the trial as leading axis."""
        states = [trial.fit.model_state for trial in self.trials]
        return trees.stack(states) if jax.tree.leaves(states[0]) else states[0]

    @functools.cached_property
    def loss_curves(self) -> NDArray[np.float64]:
        """[trials, steps], NaN after the end of shorter ones."""
        return _padded([trial.fit.loss_curve for trial in self.trials])

    @functools.cached_property
    def validation_steps(self) -> NDArray[np.int64]:
        """[validations], the steps before the validations of all trials."""
        return np.unique(np.concatenate([trial.fit.validation_steps for trial in self.trials]))

    @functools.cached_property
    def validation_curves(self) -> NDArray[np.float64]:
        """[trials, validations], NaN where a trial has none."""
        found = np.full((len(self), len(self.validation_steps)), np.nan)
        for row, trial in zip(found, self.trials, strict=True):
            at = np.searchsorted(self.validation_steps, trial.fit.validation_steps)
            row[at] = trial.fit.validation_curve
        return found

    @property
    def findings(self) -> list[list[monitor.Finding]]:
        """Of each trial."""
        return [trial.fit.findings for trial in self.trials]

    def best(self, metric: str | Callable[[Trial], float] | None = None) -> Trial:
        """Returns the trial with the lowest finite metric.

        Args:
            metric: `"lowest_validation_loss"`, `"validation_loss"` (the last), `"loss"` (of training), or a
                function of a trial. None: `"lowest_validation_loss"`, or `"loss"` if it is finite for none.

        Raises:
            ValueError: if the metric is unknown, or finite for no trial.
        """
        values = metric_values(self.trials, metric)
        if not np.isfinite(values).any():
            raise ValueError(
                f"metric must be finite for at least one trial, got {values.tolist()}: the findings of "
                "the trials say why, and another metric may be finite"
            )
        return self.trials[int(np.argmin(np.where(np.isfinite(values), values, np.inf)))]

    def table(self) -> str:
        """Returns a text table with a row for each trial and the columns in which trials differ."""
        rows = [
            {name: value for name, value in row.items() if name not in _ONLY_IN_FRAME}
            for row in self._rows()
        ]
        names = [
            name
            for name in rows[0]
            if len(rows) == 1 or any(repr(row[name]) != repr(rows[0][name]) for row in rows)
        ]
        headings = [name.replace("lowest_validation_loss", "validation loss") for name in names]
        for row in rows:
            row["batch_size"] = row["batch_size"] or "all"
            row["findings"] = row["findings"].replace("_", " ")
        return text.table(headings, [[row[name] for name in names] for row in rows])

    def to_frame(self) -> Any:
        """Returns a pandas DataFrame, a row for each trial.

        Columns: the hyperparameters, `batch_size`, `seed`, `steps`, `loss`, `validation_loss`,
        `lowest_validation_loss`, `best_step`, `rejected` (the share of steps that the guard rejected) and
        `findings` (their symptoms).
        """
        return _pandas().DataFrame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                **trial.hyperparameters,
                **{
                    name: getattr(trial, name) for name in ("batch_size", "seed", "steps", *METRICS)
                },
                "best_step": trial.fit.best_step,
                "rejected": math.nan
                if trial.fit.history is None
                else float(np.mean(~trial.fit.history.accepted)),
                "findings": ", ".join(finding.symptom for finding in trial.fit.findings),
            }
            for trial in self.trials
        ]

    def __repr__(self) -> str:
        steps = max(trial.steps for trial in self.trials)
        found = sum(bool(findings) for findings in self.findings)
        summary = f"Sweep: {len(self):,} trials of {steps:,} steps"
        summary += f", {found:,} with findings" if found else ""
        finite = np.isfinite(metric_values(self.trials, None))
        best = f"best: {self.best()!r}" if finite.any() else "no trial has a finite loss"
        return f"{summary}\n  {best}"

    def _repr_html_(self) -> str:
        curves = []
        for trial in self.trials[:12]:
            steps, losses = trial.fit.validation_steps, trial.fit.validation_curve
            if not len(losses):
                steps, losses = np.arange(trial.steps), trial.fit.loss_curve
            curves.append((f"trial {trial.index}", steps, losses))
        return f"<pre>{html.escape(repr(self))}</pre>{loss_curve_svg(curves)}"


_ONLY_IN_FRAME = ("validation_loss", "best_step", "rejected")


def metric_values(
    trials: Sequence[Trial], metric: str | Callable[[Trial], float] | None
) -> NDArray[np.float64]:
    """Returns a metric of each trial, as `Sweep.best` takes it."""
    if metric is None:
        metric = "loss"
        if any(np.isfinite(trial.lowest_validation_loss) for trial in trials):
            metric = "lowest_validation_loss"
    if callable(metric):
        return np.array([float(metric(trial)) for trial in trials])
    name = checks.choice("metric", metric, METRICS)
    return np.array([getattr(trial, name) for trial in trials])


def _padded(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    found = np.full((len(curves), max(map(len, curves))), np.nan)
    for row, curve in zip(found, curves, strict=True):
        row[: len(curve)] = curve
    return found


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install pandas") from error
    return pandas
