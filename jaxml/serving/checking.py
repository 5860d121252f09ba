"""The `check` command: what a store has served against what its model was trained on."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxml import checks, text
from jaxml.reports import plots
from jaxml.serving import log, skew
from jaxml.serving.bundle import Bundle, load
from jaxml.serving.log import Served
from jaxml.serving.program import near
from jaxml.serving.rows import with_times
from jaxml.serving.skew import ColumnSkew, RowSkew
from jaxml.serving.store import Store
from jaxml.validation import readers, streams

__all__ = ["Report", "check", "plot"]

_SHOWN, _DRAWN, _LEVELS = 20, 20, 10
_ANSWERS = 10_000  # A model of many classes takes milliseconds for each.


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What `check` found.

    Attributes:
        model: name and version.
        served: the log.
        columns: distances of the raw columns from those of training.
        features: those that were logged, against those of the same raw columns.
        answers: the same of the answers, of the last 10,000 rows.
        table: raw columns and features of the same rows in a table, against what was logged; None without
            a table.
    """

    model: str
    served: Served
    columns: tuple[ColumnSkew, ...]
    features: RowSkew
    answers: RowSkew
    table: RowSkew | None

    @property
    def failed(self) -> bool:
        """Whether anything is past its threshold."""
        sides = (self.features, self.answers, *([self.table] if self.table else []))
        return any(each.differs for each in self.columns) or any(
            each.different or each.ambiguous for each in sides
        )

    def __str__(self) -> str:
        first, last = self.served.times.min(), self.served.times.max()
        lines = [
            f"{self.model}: {len(self.served):,} rows served from {first:.16} to {last:.16} UTC"
        ]
        lines += [f"left out: {each}" for each in self.served.damaged]
        lines += ["", *_distribution(self.columns)]
        for heading, rows in (
            ("Features, computed again from the served columns:", self.features),
            ("Answers, computed again:", self.answers),
            ("The same rows in the table:", self.table),
        ):
            if rows is not None and rows.features:
                lines += ["", heading, *_rows(rows)]
        return "\n".join(lines)


def check(
    path: str | os.PathLike[str],
    *,
    table: str | os.PathLike[str] | None = None,
    key: str | None = None,
) -> Report:
    """Compares what the version in use has served with what it was trained on.

    Args:
        path: a store.
        table: a CSV or Parquet file of the raw columns, from where training has them.
        key: its column that holds the ids of the requests; of a request of several rows, `id/row`.

    Raises:
        ValueError: no store, nothing served, a key without a table, a table that cannot be read or has no
            served row.
    """
    if key is not None and table is None:
        raise ValueError(f"key must belong to a table, got {key!r} without one")
    store = Store(path)
    bundle = load(store.bundle())
    served = log.read(store.path / "served" / bundle.path.name)
    for name in bundle.columns:
        checks.choice("served column", name, served.columns)
    raw = {name: served.columns[name] for name in bundle.columns}
    return Report(
        model=f"{bundle.manifest.name}, version {bundle.path.name}",
        served=served,
        columns=tuple(skew.compare_columns(raw, bundle.training(), bundle.schema)),
        features=_features_again(bundle, raw, served),
        answers=_answers_again(bundle, raw, served),
        table=None if table is None else _against(Path(table), key, bundle, raw, served),
    )


def _features_again(bundle: Bundle, raw: Mapping[str, Any], served: Served) -> RowSkew:
    expected = dict(log.named_features(bundle.pipeline, bundle.encode(raw)))
    rows = range(len(served))
    return skew.compare_rows(expected, served.features, expected_keys=rows, served_keys=rows)


def _answers_again(bundle: Bundle, raw: Mapping[str, Any], served: Served) -> RowSkew:
    last = slice(max(0, len(served) - _ANSWERS), len(served))
    outputs = bundle.program(bundle.encode({name: each[last] for name, each in raw.items()}))
    expected, got = {}, {}
    for name, values in log.named_outputs(outputs):
        # Batches of other sizes may round otherwise, so ids of equal probability may change places.
        if values.dtype.kind == "f" and name in served.outputs:
            got[name] = served.outputs[name][last]
            expected[name] = np.where(near(got[name], values), got[name], values)
    rows = range(last.start, last.stop)
    return skew.compare_rows(expected, got, expected_keys=rows, served_keys=rows)


def _against(
    path: Path, key: str | None, bundle: Bundle, raw: Mapping[str, Any], served: Served
) -> RowSkew:
    if key is None:
        raise ValueError(f"{path}: needs a key, the column that holds the ids of requests")
    read = readers.read_csv if streams.is_csv(path) else readers.read_parquet
    table = with_times(read(path, bundle.schema), bundle.schema)
    keys = table[checks.choice("key", key, table)]
    for name in bundle.columns:
        checks.choice("column", name, table)
    expected = {f"column {name}": table[name] for name in bundle.columns}
    features = log.named_features(bundle.pipeline, bundle.encode(table))
    expected |= {f"feature {name}": each for name, each in features}
    got = {f"column {n}": each for n, each in with_times(raw, bundle.schema).items()}
    got |= {f"feature {name}": each for name, each in served.features.items()}
    asked = served.keys
    found = skew.compare_rows(
        expected, got, expected_keys=keys.tolist(), served_keys=asked.tolist()
    )
    if not found.rows and not found.ambiguous:
        raise ValueError(
            f"{path}: no value of {key!r}, such as {keys[:1].tolist()}, is the id of a request, such as "
            f"{asked[0]!r}"
        )
    return found


def _distribution(columns: tuple[ColumnSkew, ...]) -> list[str]:
    shown = [each for i, each in enumerate(columns) if each.differs or i < _SHOWN]
    rows = []
    for each in shown:
        verdict = "DIFFERS" if each.differs else "by chance" if each.by_chance else "ok"
        rows.append([each.column, each.distance, each.threshold, verdict, each.change])
    number = sum(each.differs for each in columns)
    lines = [
        text.table(["column", "distance", "threshold", "verdict", "trained → served"], rows, 110)
    ]
    if len(shown) < len(columns):
        lines.append(f"… and {len(columns) - len(shown)} more")
    return [*lines, f"{number} of {len(columns)} columns differ from the training rows"]


def _rows(found: RowSkew) -> list[str]:
    lines = [f"{found.rows:,} rows, {len(found.different)} of {len(found.features)} differ"]
    if found.not_expected:
        lines.append(f"{found.not_expected:,} served rows are not in the table")
    if found.ambiguous:
        lines.append(f"{found.ambiguous:,} KEYS are twice in the table")
    if found.different:
        rows = []
        for each in found.different[:_SHOWN]:
            sample, before, now = each.samples[0]
            rows.append([each.feature, each.different, str(sample), str(before), str(now)])
        heading = ["feature", "rows that DIFFER", "such as", "trained", "served"]
        lines.append(text.table(heading, rows, 110))
    return lines


def plot(report: Report, path: str | os.PathLike[str]) -> None:
    """Draws the distances of the columns, and the levels of the three that differ most."""
    columns = report.columns[:_DRAWN]
    plots.distances(
        [(each.column, each.distance, each.threshold, each.differs) for each in columns],
        {each.column: _largest(each) for each in columns[:3]},
        title=f"{report.model}: {len(report.served):,} rows served, against training",
        path=path,
    )


def _largest(column: ColumnSkew) -> list[tuple[str, float, float]]:
    """Returns the levels whose shares differ most, in their order."""
    gaps = np.array([abs(before - now) for _, before, now in column.cells])
    return [column.cells[i] for i in np.sort(np.argsort(-gaps, kind="stable")[:_LEVELS])]
