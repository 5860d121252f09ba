"""Rows and columns that make a model look better than it is: duplicates, shared rows, leaks.

Each function returns anomalies with the rows at fault, or nothing. `names` are the columns that must agree,
None for all; a name that is not a column raises ValueError. `name` is that of a column in the report.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import checks, hashing
from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import (
    Column,
    Table,
    in_one_unit,
    num_rows,
    read_column,
    read_columns,
)
from jaxml.validation.levels import levels

Names = str | Sequence[str] | None


def row_hashes(columns: Table) -> NDArray[np.uint64]:
    """Returns a 64-bit hash of each row, uint64 [N], the same in every process and on every machine.

    Columns are taken by name, whatever their order, and values hash as in `Column.hashes`.

    >>> hashes = row_hashes({"a": [1, 1, 2], "b": ["x", "x", "x"]})
    >>> (hashes[0] == hashes[1], hashes[0] == hashes[2])
    (np.True_, np.False_)
    """
    read = read_columns(columns)
    total = np.zeros(num_rows(read), np.uint64)
    for name, column in read.items():
        # A sum over columns, each mixed with its name, does not depend on their order.
        total += hashing.mix(column.hashes() + hashing.hash_texts([str(name)]))
    return hashing.mix(total)


def repeated(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Returns which hashes occur before."""
    again = np.ones(len(hashes), bool)
    again[np.unique(hashes, return_index=True)[1]] = False
    return again


def _chosen(read: Mapping[str, Column], names: Names) -> dict[str, Column]:
    chosen = list(read) if names is None else [names] if isinstance(names, str) else list(names)
    for name in chosen:
        checks.choice("column", name, read)
    return {name: read[name] for name in chosen}


def _at(
    kind: str, column: str | None, bad: NDArray[np.bool_], message: str, examples: Sequence[Any]
) -> list[Anomaly]:
    rows = np.flatnonzero(bad)
    return [Anomaly(kind, column, message, examples=examples, rows=rows, share=bad.mean())]


def _first(read: Mapping[str, Column], bad: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Returns the first three rows, None where a value is missing."""
    some = [column.examples(bad, 3) for column in read.values()]
    return [dict(zip(read, row, strict=True)) for row in zip(*some, strict=True)]


def duplicate_rows(columns: Table, names: Names = None) -> list[Anomaly]:
    """Returns one DUPLICATE_ROWS with all rows that repeat an earlier one.

    >>> [a.rows.tolist() for a in duplicate_rows({"id": [7, 8, 7], "x": [1, 1, 1]})]
    [[2]]
    """
    chosen = _chosen(read_columns(columns), names)
    again = repeated(row_hashes(chosen))
    if not again.any():
        return []
    of_names = "" if names is None else f" in {', '.join(chosen)}"
    message = f"{again.sum()} of {len(again)} rows repeat an earlier one{of_names}"
    return _at("DUPLICATE_ROWS", None, again, message, _first(chosen, again))


def conflicting_labels(columns: Table, label: str, names: Names = None) -> list[Anomaly]:
    """Returns one CONFLICTING_LABELS with all rows that have equal features and different labels.

    Its description gives the error that no model can go below on this table: the share of the rows
    outside of the majority of their set. Rows without a label are left out.

    >>> table = {"x": [1, 1, 2], "y": ["a", "b", "a"]}
    >>> [a.rows.tolist() for a in conflicting_labels(table, "y")]
    [[0, 1]]
    """
    read = read_columns(columns)
    labels = _chosen(read, label)[label]
    features = {name: c for name, c in _chosen(read, names).items() if name != label}
    known = np.flatnonzero(labels.present)
    if not features or not len(known):
        return []
    _, sets = np.unique(row_hashes(features)[known], return_inverse=True)
    codes, distinct = labels.codes()
    pairs, sizes = np.unique(sets * len(distinct) + codes[known], return_counts=True)
    of_set = pairs // len(distinct)
    at_odds = np.zeros(len(codes), bool)
    at_odds[known] = np.bincount(of_set)[sets] > 1
    if not at_odds.any():
        return []
    largest = np.zeros(of_set[-1] + 1)
    np.maximum.at(largest, of_set, sizes)
    lowest = 1 - largest.sum() / len(known)
    message = (
        f"{at_odds.sum()} rows of {(np.bincount(of_set) > 1).sum()} sets with the same features have "
        f"different labels: no model errs on fewer than {lowest:.3g} of the rows"
    )
    some = labels.examples(at_odds, 5)
    return _at("CONFLICTING_LABELS", label, at_odds, message, some)


def shared_rows(training: Table, evaluation: Table, names: Names = None) -> list[Anomaly]:
    """Returns one SHARED_ROWS with the rows of the evaluation table that are in the training table too.

    Its description gives the share of training rows that have a twin there: as many are to be expected.
    Without `names` the columns that both tables have must agree.

    >>> [a.rows.tolist() for a in shared_rows({"x": [1, 2]}, {"x": [3, 2]})]
    [[1]]
    """
    known, asked = read_columns(training, "training"), read_columns(evaluation, "evaluation")
    names = [name for name in known if name in asked] if names is None else names
    if not names:
        raise ValueError("training and evaluation must have columns in common, got none")
    hashes, counts = np.unique(row_hashes(_chosen(known, names)), return_counts=True)
    asked = _chosen(asked, names)
    found = np.isin(row_hashes(asked), hashes)
    if not found.any():
        return []
    twins = counts[counts > 1].sum() / counts.sum()
    message = (
        f"{found.sum()} of {len(found)} rows are in the training table too "
        f"(of whose own rows {twins:.2g} have a twin)"
    )
    return _at("SHARED_ROWS", None, found, message, _first(asked, found))


def shared_groups(training: Any, evaluation: Any, name: str = "group") -> list[Anomaly]:
    """Returns one SHARED_GROUPS with the evaluation rows whose group is in training too.

    Args:
        training: [N] the group (patient, user, aircraft) of each training row. Missing is no group.
        evaluation: [M] the group of each evaluation row.

    >>> [a.examples for a in shared_groups(["ann", "bob"], ["bob", "eve"], "patient")]
    [('bob',)]
    """
    groups = set(read_column(name, training).codes()[1])
    codes, distinct = read_column(name, evaluation).codes()
    both = [i for i, value in enumerate(distinct) if value in groups]
    if not both:
        return []
    found = np.isin(codes, both)
    message = f"{len(both)} groups are on both sides, with {found.sum()} of {len(codes)} rows"
    return _at("SHARED_GROUPS", name, found, message, [distinct[i] for i in both[:5]])


def _check_times(known: Column, asked: Column) -> None:
    title = {"TIME": "times", "INT": "numbers", "FLOAT": "numbers"}
    kinds = [title.get(column.type or "") for column in (known, asked)]
    if known.type and asked.type and (None in kinds or kinds[0] != kinds[1]):
        names = " and ".join(dict.fromkeys([known.name, asked.name]))
        raise ValueError(
            f"{names} must hold times on both sides, or numbers, got {known.type} and {asked.type}"
        )


def time_overlap(
    training: Any, evaluation: Any, name: str = "time", *, gap: Any = None
) -> list[Anomaly]:
    """Returns one TIME_OVERLAP with the evaluation rows that are not later than all of training.

    Args:
        training: [N] times or numbers of the training rows.
        evaluation: [M] times of the evaluation rows.
        gap: how much later they must be, as the difference of two times; None for any.

    Raises:
        ValueError: if they are not both times or both numbers.

    >>> [a.rows.tolist() for a in time_overlap([1, 2, 3], [3, 4, 5])]
    [[0]]
    """
    known, asked = read_column(name, training), read_column(name, evaluation)
    _check_times(known, asked)
    if not known.num_present or not asked.num_present:
        return []
    latest = known.known().max()
    end = latest if gap is None else latest + _length(gap)
    times, end = in_one_unit(asked.values, np.array(end))
    early = (times <= end if gap is None else times < end) & asked.present
    if not early.any():
        return []
    message = f"{early.sum()} of {len(early)} rows lie before the end of training, {latest}"
    if gap is not None:
        message += f", and {gap} after it"
    some = [str(value) for value in asked.values[early][:3]]
    return _at("TIME_OVERLAP", name, early, message, some)


def _length(gap: Any) -> Any:
    """Returns a gap that can be added to a time of any year: in nanoseconds only if it has some."""
    length = read_column("gap", [gap]).values
    if length.dtype.kind == "m" and (length.astype("m8[us]") == length).all():
        length = length.astype("m8[us]")
    return length[0]


def time_leaks(columns: Table, known_at: Mapping[str, str], predicted_at: str) -> list[Anomaly]:
    """Returns a TIME_LEAK for each feature with values that are known only after the prediction.

    Args:
        known_at: by feature, the column with the time at which its value is known.
        predicted_at: the column with the time of the prediction. A missing time or value is no leak.

    Raises:
        ValueError: if two columns are not both times or both numbers.

    >>> table = {"delay": [5.0, 9.0], "landed": [10, 30], "asked": [20, 20]}
    >>> [(a.column, a.rows.tolist()) for a in time_leaks(table, {"delay": "landed"}, "asked")]
    [('delay', [1])]
    """
    read = _chosen(read_columns(columns), [*known_at, *known_at.values(), predicted_at])
    asked = read[predicted_at]
    found = []
    for name, time in known_at.items():
        known, value = read[time], read[name]
        _check_times(known, asked)
        if known.type is None or asked.type is None:
            continue
        then, now = in_one_unit(known.values, asked.values)
        late = (then > now) & known.present & asked.present & value.present
        if late.any():
            message = (
                f"{late.sum()} values are known after the prediction ({time} > {predicted_at})"
            )
            found += _at("TIME_LEAK", name, late, message, value.examples(late, 3))
    return found


def label_leaks(columns: Table, label: str, *, threshold: float = 0.9) -> list[Anomaly]:
    """Returns a LABEL_LEAK for each column that by itself predicts the label, the strongest first.

    Each column is cut into at most 64 levels (see `levels.levels`). The label's distribution in each level
    is taken from one half of the rows and predicts the other half:

        score = 1 − H(label | level) / H(label)

    Chance gives 0 or less, whatever the number of levels.

    Args:
        label: the column to predict; a number of more than ten values is cut into ten quantiles.
        threshold: a score of at least this is a leak, in (0, 1].

    Returns:
        Anomalies with the score as `share`. Empty with fewer than 40 labelled rows.

    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 1000)
    >>> table = {"noise": rng.normal(size=1000), "y_as_text": np.where(y, "late", "ok"), "y": y}
    >>> [a.column for a in label_leaks(table, "y")]
    ['y_as_text']
    """
    checks.number("threshold", threshold, at_most=1, above=0)
    read = read_columns(columns)
    labels = _chosen(read, label)[label]
    labelled = np.flatnonzero(labels.present)
    classes, num_classes = levels(labels, 10)
    if len(labelled) < 40 or len(np.unique(classes[labelled])) < 2:
        return []
    half = np.random.default_rng(0).permutation(len(labelled)) % 2 == 0
    first, second = labelled[half], labelled[~half]
    found = []
    for name, column in read.items():
        if name != label and column.num_present and column.type != "MIXED":
            codes, num_levels = levels(column, 64)
            joint = np.zeros((num_levels, num_classes))
            np.add.at(joint, (codes[first], classes[first]), 1)
            score = _explained_entropy(joint, codes[second], classes[second])
            if score >= threshold:
                message = f"explains {score:.3f} of the entropy of {label!r}"
                found.append(Anomaly("LABEL_LEAK", name, message, share=score))
    return sorted(found, key=lambda each: -each.share)


def _explained_entropy(
    joint: NDArray[np.float64], codes: NDArray[np.int64], classes: NDArray[np.int64]
) -> float:
    """Returns the share of the entropy of `classes` that `codes` explain, by the counts of other rows."""
    prior = joint.sum(0) + 0.5
    prior = prior / prior.sum()
    # The prior has the weight of one row in each level.
    smooth = (joint + prior) / (joint.sum(1, keepdims=True) + 1)
    entropy = -float(np.log(prior[classes]).mean())
    if entropy <= 1e-12 or not math.isfinite(entropy):
        return 0.0
    return 1 + float(np.log(smooth[codes, classes]).mean()) / entropy
