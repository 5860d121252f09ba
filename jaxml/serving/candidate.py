"""What a run leaves to be published: a bundle, rows to judge it on, and what is asked of it.

RUN/candidate/
  bundle/            written by `serving.save`
  held_out.parquet   rows that the model was not trained on: raw columns, label, group, slices, baseline
  gate.json          the `Gate`
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jaxml import checks, files, reports
from jaxml.serving.bundle import save
from jaxml.validation import readers, writers
from jaxml.validation.columns import Table, num_rows, read_columns

__all__ = ["Candidate", "CandidateError", "Gate", "Threshold", "leave", "read"]

BUNDLE = "bundle"
HELD_OUT = "held_out.parquet"
GATE = "gate.json"

# 1 where more is better, -1 where less is.
_DIRECTIONS = {
    "binary": {"roc_auc": 1, "log_loss": -1, "brier": -1, "calibration_error": -1},
    "top_k": {"precision@1": 1},
    "sequence": {"precision@1": 1},
    "bundle": {"refused_rows": -1, "latency_ms": -1, "size_bytes": -1},
}
_RECALL = re.compile(r"recall@([1-9][0-9]*)")


class CandidateError(ValueError):
    """A run has left nothing to publish, or is not finished. The message is one line."""


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What is asked of one metric; every bound is inclusive.

    Attributes:
        metric: "roc_auc", "log_loss", "brier", "calibration_error" (binary); "precision@1", "recall@10",
            any k (top_k, sequence); "refused_rows", the share of held-out rows that the bundle's own schema
            refuses; "latency_ms", the median time of one row on the judging machine; "size_bytes" of the
            bundle. More is better of the first and of precision and recall, less of the others.
        bound: the worst value admitted.
        change: how much worse than the bundle in use the metric may be, at least 0.
        relative_change: the same, as a share of the value of the bundle in use. If both are given, both
            must hold.
        by: a column; each of its values is judged alone. None for all rows together.
        values: of `by`, those that must be there with enough rows. Others with few rows are not judged.
    """

    metric: str
    bound: float | None = None
    change: float | None = None
    relative_change: float | None = None
    by: str | None = None
    values: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if self.bound is not None:
            checks.number("bound", self.bound)
        for name in ("change", "relative_change"):
            if (given := getattr(self, name)) is not None:
                checks.number(name, given, 0)
        if self.bound is self.change is self.relative_change is None:
            raise ValueError(f"threshold of {self.metric!r} must have a bound or a change")
        if self.values and self.by is None:
            raise ValueError(f"values must belong to a column `by`, got {self.values} without one")
        if self.by is not None and self.of_bundle:
            raise ValueError(f"{self.metric!r} is of the whole bundle, got by={self.by!r}")

    @property
    def of_bundle(self) -> bool:
        """Whether the metric is of the whole bundle, not of its answers."""
        return self.metric in _DIRECTIONS["bundle"]

    @property
    def direction(self) -> int:
        """1 if more is better, -1 if less is."""
        known = {name: sign for each in _DIRECTIONS.values() for name, sign in each.items()}
        return known.get(self.metric, 1)


@dataclasses.dataclass(frozen=True)
class Gate:
    """How a candidate is judged on the held-out rows, and what is asked of it.

    Attributes:
        task: "binary": the output is the probability that the label is 1. "top_k": the output is ids
            [B, k], the best first, and the label is the id of the right class. "sequence": the output is
            ids [B, k, T] that have labels, the best sequence first, of which an empty label is none; the
            column of the label holds the right one as a text, its labels with spaces in between, or several
            with " | " in between.
        label: a column of the held-out rows.
        output: of the bundle.
        thresholds: all must hold.
        baseline: a column with what a simple model says of the same rows: a score that is higher where 1 is
            more likely (binary), or its best id (top_k). The candidate must be better: by ROC AUC, or by
            precision@1.
        group: a column; rows of one group, such as a day, are drawn together when the noise of a difference
            is estimated. None if rows are independent.
    """

    task: str
    label: str
    output: str
    thresholds: tuple[Threshold, ...]
    baseline: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        checks.choice("task", self.task, ("binary", "top_k", "sequence"))
        if self.task == "sequence" and self.baseline is not None:
            raise ValueError(f"baseline must be None for sequences, got {self.baseline!r}")
        if not self.thresholds and self.baseline is None:
            raise ValueError("gate must have thresholds or a baseline, got neither")
        known = [*_DIRECTIONS[self.task], *_DIRECTIONS["bundle"]]
        for each in self.thresholds:
            if not (self.task != "binary" and _RECALL.fullmatch(each.metric)):
                checks.choice("metric", each.metric, known)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the held-out rows that it reads, besides those of the bundle."""
        named = (self.label, self.baseline, self.group, *(each.by for each in self.thresholds))
        return tuple(dict.fromkeys(name for name in named if name is not None))


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """What a finished run left: a directory of a bundle, held-out rows [N] by column, and the gate."""

    bundle: Path
    held_out: Mapping[str, NDArray[Any]]
    gate: Gate


def leave(run: str | os.PathLike[str], *, held_out: Table, gate: Gate, **arguments: Any) -> None:
    """Writes RUN/candidate, which `publish` takes once the run is finished, in place of an earlier one.

    Args:
        run: a run directory, or a folder inside of one.
        held_out: raw columns, label, and whatever else the gate names, of rows that were not trained on.
        gate: how the bundle is judged.
        arguments: those of `serving.save`.

    Raises:
        ValueError: held-out rows without a column that is needed, or what `serving.save` refuses.
    """
    columns = read_columns(held_out, "held_out")
    for name in (*gate.columns, *arguments["pipeline"].columns):
        checks.choice("a column of held_out", name, columns)
    if not num_rows(columns):
        raise ValueError("held_out must have rows, got none")
    place = Path(run) / "candidate"
    shutil.rmtree(place, ignore_errors=True)  # Of a run that was interrupted here, and goes on.
    writers.write_parquet(place / HELD_OUT, held_out)
    files.write_json(place / GATE, dataclasses.asdict(gate))
    save(place / BUNDLE, **arguments)  # Last: with the bundle, the candidate is whole.


def read(run: str | os.PathLike[str]) -> Candidate:
    """Returns what a finished run left to be published; its bundle is not read.

    Raises:
        CandidateError: a ValueError: the run is not finished, or left nothing, or it is damaged.
        RunDirectoryError: an OSError: there is no run.
    """
    given = Path(os.path.abspath(run))
    home = next(
        (p for p in (given, *given.parents) if (p / reports.rundir.RECORD).is_file()), given
    )
    found = reports.rundir.read(home)
    if found.status != "finished":
        raise CandidateError(f"{home}: a finished run is wanted, this one is {found.status}")
    place = given / "candidate"
    if not (place / BUNDLE).is_dir():
        raise CandidateError(f"{given}: has left no candidate/{BUNDLE} to publish")
    try:
        content = json.loads((place / GATE).read_text("utf-8"))
        thresholds = [Threshold(**each) for each in content.pop("thresholds")]
        gate = Gate(**content, thresholds=tuple(thresholds))
        rows = readers.read_parquet(place / HELD_OUT)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CandidateError(f"{place}: cannot be read: {error!r:.300}") from error
    return Candidate(place / BUNDLE, rows, gate)
