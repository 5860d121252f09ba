"""Held-out rows as a gate sees them: labels, groups and their resamples, and the parts to be judged."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml.serving.candidate import Gate, Threshold
from jaxml.validation.columns import Column, Table, read_columns

RESAMPLES = 200

_ROWS, _GROUPS, _OF_A_CLASS = 100, 10, 10  # fewer are too few


class Part(NamedTuple):
    """Some of the rows.

    Attributes:
        name: such as "origin = EWR".
        rows: bool [n]; None if there are too few.
        lacking: why, then.
        required: whether it fails, then.
    """

    name: str
    rows: NDArray[np.bool_] | None
    lacking: str
    required: bool


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out rows as a gate sees them.

    Attributes:
        labels: [n], 0 and 1 as float64, or ids as int64; of sequences 1, where `sequences` counts.
        sequences: n sets of the right sequences, as texts; empty for other tasks.
        group: [n], the number of each row's group.
        columns: all columns.
        copies: [200, G], how often each group is in each resample.
    """

    labels: NDArray[Any]
    sequences: tuple[frozenset[str], ...]
    group: NDArray[np.int64]
    columns: Mapping[str, Column]
    copies: NDArray[np.uint8]

    @classmethod
    def read(cls, table: Table, gate: Gate) -> "HeldOut":
        """Returns the rows of a table, or raises a ValueError that names the column at fault."""
        columns = read_columns(table, "held_out")
        for name in filter(None, (gate.label, gate.group, gate.baseline)):
            if name not in columns:
                raise ValueError(
                    f"held-out rows must have the column {name!r}, got {list(columns)}"
                )
        sequences: tuple[frozenset[str], ...] = ()
        if gate.task == "sequence":
            texts = columns[gate.label].exact().tolist()
            sequences = tuple(frozenset(str(each).split(" | ")) for each in texts)
            labels = np.ones(len(texts))
        else:
            labels = columns[gate.label].numbers()
        wrong = (labels != 0) & (labels != 1) if gate.task == "binary" else labels % 1 != 0
        if wrong.any():
            wanted = "0 or 1" if gate.task == "binary" else "ids"
            row = int(np.argmax(wrong))
            raise ValueError(f"{gate.label!r} must be {wanted}, got {labels[row]} in row {row}")
        group = np.arange(len(labels))
        if gate.group is not None:
            codes, _ = columns[gate.group].codes()
            group = np.unique(codes, return_inverse=True)[1]
        rng, number = np.random.default_rng(0), int(group.max(initial=-1)) + 1
        copies = np.zeros((RESAMPLES, number), np.uint8)
        for each in copies:
            each[:] = np.bincount(rng.integers(0, number, number), minlength=number)
        kind = np.float64 if gate.task == "binary" else np.int64
        return cls(labels.astype(kind), sequences, group, columns, copies)

    def parts(self, threshold: Threshold) -> list[Part]:
        """Returns the parts of the rows on which a threshold is judged."""
        if threshold.by is None:
            return [self._part("", np.ones(len(self.labels), bool), required=True)]
        if threshold.by not in self.columns:
            return [Part(threshold.by, None, "held-out rows have no such column", True)]
        codes, distinct = self.columns[threshold.by].codes()
        named = [value for value in threshold.values if value not in distinct]
        found = [
            self._part(f"{threshold.by} = {value}", codes == i, required=value in threshold.values)
            for i, value in enumerate(distinct)
        ]
        found.sort(key=lambda part: part.name)
        found += [Part(f"{threshold.by} = {value}", None, "no such rows", True) for value in named]
        if not any(part.rows is not None or part.required for part in found):
            found.append(Part(threshold.by, None, "no value has enough rows", True))
        return found

    def _part(self, name: str, rows: NDArray[np.bool_], *, required: bool) -> Part:
        number, groups = int(rows.sum()), len(np.unique(self.group[rows]))
        lacking = ""
        if number < _ROWS:
            lacking = f"{number} rows are too few"
        elif groups < _GROUPS:
            lacking = f"{groups} groups are too few"
        elif self.labels.dtype == np.float64:  # 0 and 1
            ones = int(self.labels[rows].sum())
            if min(ones, number - ones) < _OF_A_CLASS:
                lacking = f"{ones} of {number} rows with label 1 are too few, or too many"
        return Part(name, None if lacking else rows, lacking, required)
