"""Is a candidate good enough to be used: on its own, beside the bundle in use, and beside a simple model?

All three answer the same held-out rows. Three kinds of check:

bound: the metric is at least (or at most) a number. Inclusive.

change: the metric is not worse than that of the bundle in use by more than is allowed, beyond noise. Noise
    is estimated by a paired bootstrap: 200 times, whole groups (days) are drawn with replacement, the same
    ones for both models, and the difference of their metrics is computed anew. Its interval is

        difference ± t · √(G / (G − 1)) · standard deviation of the 200 differences

    with Student's t of G − 1 degrees of freedom for G groups. The check fails if the whole interval lies
    beyond what is allowed; if it reaches into that, the loss may be chance. The intervals are so wide that
    two equally good models pass all changes of a gate together in at least 95 of 100 cases (Bonferroni). A
    small loss in a noisy metric can pass, therefore; bounds keep many of those from adding up.

baseline: the metric is better than that of the simple model, beyond noise: the 95 % interval of the
    difference lies above 0. One that is only as good as the simple model passes in 2.5 of 100 cases.

A metric that cannot be computed fails, and so does a value named in `Threshold.values` that is not there.
With fewer than 100 rows, 10 groups, or 10 rows of either label, figures mean little: such a value of a
column is skipped unless it is named, and all rows together fail. Without a bundle in use there is no change
to check, and the verdict says so. One in use that cannot answer the held-out rows any more fails the check.

References:
    Efron and Tibshirani 1993, An introduction to the bootstrap, chapters 8 and 12.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import text
from jaxml.serving import scores
from jaxml.serving.bundle import Bundle
from jaxml.serving.candidate import Gate, Threshold
from jaxml.serving.held_out import RESAMPLES, HeldOut
from jaxml.validation.columns import Table, table_columns

__all__ = ["Check", "Verdict", "judge"]

_LEVEL = 0.05
_TIMED = 40  # rows, one at a time
_BASELINE = {"binary": "roc_auc", "top_k": "precision@1"}

Answers = NDArray[Any] | str
"""Answers of a model to the held-out rows, or the reason why there are none."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it was.
        outcome: "passed", "failed" or "skipped".
        value: of the candidate.
        against: the same of the bundle in use, or of the baseline.
        wanted: in words.
        interval: of the candidate's value minus the other.
        note: what else is to say, such as why it failed.
        seconds: that it took, if that matters.
    """

    name: str
    outcome: str
    value: float | None = None
    against: float | None = None
    wanted: str = ""
    interval: tuple[float, float] | None = None
    note: str = ""
    seconds: float | None = None

    def __str__(self) -> str:
        numbers = "" if self.value is None else shown(self.value)
        if self.against is not None:
            numbers += f" against {shown(self.against)}"
        if self.interval is not None:
            low, high = map(shown, self.interval)
            numbers += f" (difference {low} to {high})"
        wanted = f"{self.wanted} is wanted" if self.wanted else ""
        return f"{self.name}: {'; '.join(filter(None, (numbers, wanted, self.note)))}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """All checks of a candidate; it is passed if none has failed."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check has failed."""
        return all(each.outcome != "failed" for each in self.checks)


def judge(candidate: Bundle, current: Bundle | None, held_out: Table, gate: Gate) -> Verdict:
    """Returns the verdict on a candidate by held-out rows.

    Args:
        candidate: the bundle to judge.
        current: the bundle in use, None if there is none.
        held_out: raw columns, label, and what else the gate names.
        gate: what is asked.

    Raises:
        ValueError: labels, groups or the baseline are not there, or labels are not what the task needs.
    """
    rows = HeldOut.read(held_out, gate)
    own, before = _answers(candidate, held_out, gate, rows), None
    if isinstance(own, str):
        return Verdict((Check("answers to the held-out rows", "failed", note=own),))
    if current is not None:
        before = _answers(current, held_out, gate, rows)
        if not _same_ids(candidate, current, gate.output):
            before = f"ids of {gate.output!r} stand for other labels in the bundle in use"
    in_use = current if isinstance(before, np.ndarray) else before
    whole = _of_bundle(candidate, in_use, held_out, gate, _level(rows, gate))
    return Verdict((*quality(own, before, rows, gate), *whole))


def quality(
    own: NDArray[Any], before: Answers | None, rows: HeldOut, gate: Gate
) -> Iterator[Check]:
    """Yields the checks of the answers.

    Args:
        own: the candidate's, [n], or [n, k] for top_k.
        before: those of the bundle in use; a text if it has none; None without a bundle in use.
        rows: the held-out rows.
        gate: what is asked.
    """
    level = _level(rows, gate)
    for each in gate.thresholds:
        if each.of_bundle:
            continue
        for part in rows.parts(each):
            name = f"{each.metric}, {part.name}" if part.name else each.metric
            if part.rows is None:
                yield Check(name, "failed" if part.required else "skipped", note=part.lacking)
            else:
                yield from _judged(each, name, part.rows, own, before, rows, level)
    if gate.baseline is not None:
        yield _above_baseline(own, rows, gate)


def _level(rows: HeldOut, gate: Gate) -> float:
    """Returns how often each of the intervals of changes may miss the difference."""
    changes = [each for each in gate.thresholds if _changes(each)]
    judged = [part for each in changes for part in rows.parts(each) if part.rows is not None]
    return _LEVEL / max(1, len(judged))


def _changes(threshold: Threshold) -> bool:
    return threshold.change is not None or threshold.relative_change is not None


def _judged(
    threshold: Threshold,
    name: str,
    part: NDArray[np.bool_],
    own: NDArray[Any],
    before: Answers | None,
    rows: HeldOut,
    level: float,
) -> Iterator[Check]:
    labels = rows.labels[part]
    try:
        value = scores.value(threshold.metric, labels, own[part])
    except ValueError as error:
        yield Check(name, "failed", note=f"metric not found: {error}")
        return
    yield from _bound(threshold, name, value)
    if not _changes(threshold):
        return
    if isinstance(before, np.ndarray):
        try:
            found = scores.compare(
                threshold.metric, labels, own[part], before[part], rows.group[part], rows.copies
            )
            yield _change(threshold, name, found, level)
            return
        except ValueError as error:
            before = f"of the bundle in use, metric not found: {error}"
    yield _no_change(name, value, before)


def _bound(threshold: Threshold, name: str, value: float) -> Iterator[Check]:
    if threshold.bound is None:
        return
    sign = threshold.direction
    good = sign * value >= sign * threshold.bound
    wanted = f"at {'least' if sign > 0 else 'most'} {shown(threshold.bound)}"
    note = "" if np.isfinite(value) else "metric not found: it is not a number"
    yield Check(name, "passed" if good else "failed", value, wanted=wanted, note=note)


def _change(threshold: Threshold, name: str, of: scores.Difference, level: float) -> Check:
    limits = []
    if threshold.change is not None:
        limits.append(threshold.change)
    if threshold.relative_change is not None:
        limits.append(threshold.relative_change * abs(of.against))
    allowed, sign = min(limits), threshold.direction
    low, high = of.interval(level)
    best = high if sign > 0 else -low  # the most that the candidate may be better
    good = best >= -allowed
    wanted = f"at most {shown(allowed)} {'lower' if sign > 0 else 'higher'}"
    note = ""
    if not np.isfinite(best):
        note = "metric not found: the difference is not a number"
    elif good and sign * (of.value - of.against) < -allowed:
        note = "may be chance"
    outcome = "passed" if good else "failed"
    return Check(f"change of {name}", outcome, of.value, of.against, wanted, (low, high), note)


def _no_change(name: str, value: float, before: str | None) -> Check:
    if before is None:
        return Check(
            f"change of {name}", "skipped", value, note="there is no bundle to compare with"
        )
    return Check(f"change of {name}", "failed", value, note=before)


def _above_baseline(own: NDArray[Any], rows: HeldOut, gate: Gate) -> Check:
    metric, column = _BASELINE[gate.task], gate.baseline or ""
    name, simple = f"{metric} above {column!r}", rows.columns[column].numbers()
    (part,) = rows.parts(Threshold(metric, bound=0.0))
    if part.rows is None:
        return Check(name, "failed", note=part.lacking)
    other = simple if gate.task == "binary" else simple[:, None]
    try:
        found = scores.compare(metric, rows.labels, own, other, rows.group, rows.copies)
    except ValueError as error:
        return Check(name, "failed", note=f"metric not found: {error}")
    low, high = found.interval(_LEVEL)
    note = "may be chance" if found.value > found.against and not low > 0 else ""
    outcome = "passed" if low > 0 else "failed"
    return Check(name, outcome, found.value, found.against, "higher", (low, high), note)


# ---------------------------------------------------------------------------------------------- answers


def _answers(bundle: Bundle, table: Table, gate: Gate, rows: HeldOut) -> Answers:
    """Returns the program's answers, or why there are none; of sequences [n, k], 1 where one is right."""
    given = table_columns(table)
    absent = [name for name in bundle.columns if name not in given]
    if absent:
        return f"it needs the column {absent[0]!r}, which the held-out rows do not have"
    try:
        found = bundle.program(bundle.encode({name: given[name] for name in bundle.columns}))
        decoded = bundle.decode(found)
    except (ValueError, TypeError, RuntimeError) as error:
        return f"it cannot answer the held-out rows: {text.one_line(error)}"
    if gate.output not in found:
        return f"it has no output {gate.output!r}, but {list(found)}"
    answers = found[gate.output]
    ids = np.issubdtype(answers.dtype, np.integer)
    if gate.task == "sequence":
        if answers.ndim != 3 or gate.output not in bundle.labels:
            return f"{gate.output!r} must be ids [B, k, T] with labels, got {answers.dtype} {answers.shape}"
        return _right(decoded[gate.output], rows.sequences)
    if (answers.ndim, ids) != ((1, False) if gate.task == "binary" else (2, True)):
        wanted = "probabilities [B]" if gate.task == "binary" else "ids [B, k]"
        return f"{gate.output!r} must be {wanted}, got {answers.dtype} {answers.shape}"
    return answers


def _right(texts: NDArray[Any], wanted: Sequence[frozenset[str]]) -> NDArray[np.int64]:
    """Returns which of the sequences [n, k, T] are wanted."""
    return np.array(
        [
            [" ".join(filter(None, each)) in right for each in ranked]
            for ranked, right in zip(texts.tolist(), wanted, strict=True)
        ],
        np.int64,
    )


def _same_ids(candidate: Bundle, current: Bundle, output: str) -> bool:
    own, other = (bundle.labels.get(output, ()) for bundle in (candidate, current))
    return np.array_equal(own, other)


# ---------------------------------------------------------------------------------------------- bundles


def _of_bundle(
    candidate: Bundle, in_use: Bundle | str | None, held_out: Table, gate: Gate, level: float
) -> Iterator[Check]:
    """Yields the checks of whole bundles; `in_use` may be the reason why there is nothing to compare."""
    bundles = [candidate, in_use] if isinstance(in_use, Bundle) else [candidate]
    for each in (each for each in gate.thresholds if each.of_bundle):
        drawn = _SAMPLES[each.metric](bundles, held_out)
        values = [float(np.median(one)) for one in drawn]
        yield from _bound(each, each.metric, values[0])
        if not _changes(each):
            continue
        if not isinstance(in_use, Bundle):
            yield _no_change(each.metric, values[0], in_use)
            continue
        count = len(drawn[0])
        chosen = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
        first, other = (np.median(one[chosen], axis=1) for one in drawn)
        difference = scores.Difference(values[0], values[1], first - other, count)
        yield _change(each, each.metric, difference, level)


def _refused(bundles: Sequence[Bundle], held_out: Table) -> list[NDArray[np.float64]]:
    given, found = table_columns(held_out), []
    for bundle in bundles:
        columns = {name: given[name] for name in bundle.columns}
        refused = np.zeros(len(next(iter(columns.values()))), bool)
        for each in bundle.check(columns):
            if each.severity == "error":
                refused[each.rows if len(each.rows) else slice(None)] = True
        found.append(refused.mean(keepdims=True))
    return found


def _sizes(bundles: Sequence[Bundle], held_out: Table) -> list[NDArray[np.float64]]:
    sizes = (sum(each["bytes"] for each in one.manifest.files.values()) for one in bundles)
    return [np.array([size], np.float64) for size in sizes]


def _times(bundles: Sequence[Bundle], held_out: Table) -> list[NDArray[np.float64]]:
    """Returns milliseconds [40] of one row at a time, in turns, so that both meet the same noise."""
    given = table_columns(held_out)
    found: list[list[float]] = [[] for _ in bundles]
    for i in range(-2, _TIMED):  # The first two compile and warm.
        row = max(i, 0) % len(next(iter(given.values())))
        for bundle, times in zip(bundles, found, strict=True):
            one = {name: given[name][row : row + 1] for name in bundle.columns}
            start = time.perf_counter()
            bundle.predict(one)
            times.append(1000 * (time.perf_counter() - start))
    return [np.array(each[2:]) for each in found]


_SAMPLES = {"refused_rows": _refused, "latency_ms": _times, "size_bytes": _sizes}


def shown(value: float) -> str:
    """Returns a number as text, four digits or all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
