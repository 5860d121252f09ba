"""Rows and columns that make a model look better than it is: duplicates, shared rows, leaks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.data.anomalies import Anomaly, anomaly
from jaxml.data.columns import Column, num_rows, read_column, read_columns

__all__ = [
    "conflicting_labels",
    "duplicate_rows",
    "label_leaks",
    "row_hashes",
    "shared_groups",
    "shared_rows",
    "time_leaks",
    "time_overlap",
]


def row_hashes(
    columns: Mapping[str, ArrayLike], names: str | Sequence[str] | None = None
) -> NDArray[np.uint64]:
    """A 64-bit hash of each row: the same in every process, and on every machine.

    Columns are taken by name, not by their order. Numbers that are equal hash alike whatever their dtype
    (1, 1.0 and True; 0.0 and −0.0), and so do all missing values; "1" is not 1.

    Args:
        columns: one-dimensional arrays of one length, by name.
        names: the columns that count; None for all.

    Returns:
        uint64 [N]. Two different rows agree with probability 2⁻⁶⁴.

    Raises:
        ValueError: for a name that is not a column, or columns that do not make a table.

    Example:
        >>> hashes = row_hashes({"a": [1, 1, 2], "b": ["x", "x", "x"]})
        >>> (hashes[0] == hashes[1], hashes[0] == hashes[2])
        (np.True_, np.False_)
    """
    chosen = _chosen(columns, names)
    read = {name: read_column(name, columns[name]) for name in chosen}
    total = np.zeros(num_rows(read), np.uint64)
    for name in sorted(read):
        salt = _text_hash(name)
        # A sum, after each column's bits are mixed with its name: no order of columns to remember.
        total += _mixed(_value_hashes(read[name]) ^ np.uint64(salt))
    return _mixed(total)


def _chosen(columns: Mapping[str, ArrayLike], names: str | Sequence[str] | None) -> list[str]:
    names = [names] if isinstance(names, str) else names
    for name in names or ():
        if name not in columns:
            raise ValueError(f"column must be among {list(columns)}, got {name!r}")
    return list(columns) if names is None else list(names)


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit depends on every bit."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _text_hash(text: str) -> int:
    """FNV-1a of the UTF-8 bytes: Python's own hash differs from process to process."""
    found = 0xCBF29CE484222325
    for byte in text.encode(errors="surrogatepass"):
        found = ((found ^ byte) * 0x100000001B3) % 2**64
    return found


def _value_hashes(column: Column) -> NDArray[np.uint64]:
    values, present = column.values, column.present
    if column.type == "BYTES" or values.dtype == object:
        codes, distinct = _object_codes(column)
        table = np.array([_text_hash(text) for text in distinct] or [0], np.uint64)
        bits = table[codes]
    elif column.type in ("TIME", "DURATION"):
        micro = values.astype("M8[us]" if column.type == "TIME" else "m8[us]")
        bits = micro.view(np.int64).view(np.uint64)
    elif values.dtype == np.float64:
        whole = np.isfinite(values) & (np.abs(values) < 2**63) & (values == np.trunc(values))
        integers = np.where(whole, values, 0).astype(np.int64).view(np.uint64)
        bits = np.where(whole, integers, values.view(np.uint64) ^ np.uint64(0x5851F42D4C957F2D))
    else:
        integers = (
            values.astype(np.uint64) if values.dtype == np.uint64 else values.astype(np.int64)
        )
        bits = integers.view(np.uint64)
    return np.where(present, bits, np.uint64(0x2545F4914F6CDD1D))


def _object_codes(column: Column) -> tuple[NDArray[np.int64], list[str]]:
    listed = column.values.tolist()
    texts = [f"t{v}" if isinstance(v, str) else f"{type(v).__name__}{v!r}" for v in listed]
    place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return np.fromiter(map(place.__getitem__, texts), np.int64, len(texts)), list(place)


def duplicate_rows(
    columns: Mapping[str, ArrayLike], names: str | Sequence[str] | None = None
) -> list[Anomaly]:
    """Rows that say what an earlier row has said.

    Args:
        columns: the table.
        names: the column or columns that must agree, such as those of a key; None for all.

    Returns:
        One DUPLICATE_ROWS, its `rows` all but the first of each set, or nothing.

    Raises:
        ValueError: as in `row_hashes`.

    Example:
        >>> [a.rows.tolist() for a in duplicate_rows({"id": [7, 8, 7], "x": [1, 1, 1]})]
        [[2]]
    """
    chosen = _chosen(columns, names)
    hashes = row_hashes(columns, chosen)
    _, first = np.unique(hashes, return_index=True)
    again = np.ones(len(hashes), bool)
    again[first] = False
    if not chosen or not again.any():
        return []
    told = f"{again.sum()} of {len(hashes)} rows repeat an earlier one"
    if names is not None:
        told += f" in {', '.join(chosen)}"
    rows = np.flatnonzero(again)
    some = _rows_of(columns, chosen, rows[:3])
    return [anomaly("DUPLICATE_ROWS", None, told, examples=some, rows=rows, share=again.mean())]


def _rows_of(
    columns: Mapping[str, ArrayLike], names: Sequence[str], rows: NDArray[np.int64]
) -> list[Any]:
    given = {n: columns[n] for n in names}
    listed: dict[str, Any] = {  # A pandas column is asked by place, not by its index.
        n: v if isinstance(v, list | tuple | np.ma.MaskedArray) else np.asarray(v)
        for n, v in given.items()
    }
    found = []
    for row in rows.tolist():
        values = {name: listed[name][row] for name in names}
        found.append({n: None if v is np.ma.masked else _plain(v) for n, v in values.items()})
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def conflicting_labels(
    columns: Mapping[str, ArrayLike], label: str, names: str | Sequence[str] | None = None
) -> list[Anomaly]:
    """Rows whose features are the same and whose labels are not.

    Args:
        columns: the table.
        label: the column to be predicted; rows where it is missing are left out.
        names: the features that must agree; None for all other columns.

    Returns:
        One CONFLICTING_LABELS on the label, its `rows` every row of a set that disagrees, or nothing. The
        description says which error no model can go below on this table: the rows outside of their set's
        majority.

    Raises:
        ValueError: as in `row_hashes`, or if the label is no column.

    Example:
        >>> table = {"x": [1, 1, 2], "y": ["a", "b", "a"]}
        >>> [a.rows.tolist() for a in conflicting_labels(table, "y")]
        [[0, 1]]
    """
    _chosen(columns, [label])
    features = [n for n in _chosen(columns, names) if n != label]
    labels = read_column(label, columns[label])
    if not features:
        return []
    known = np.flatnonzero(labels.present)
    inputs = row_hashes(columns, features)[known]
    codes = row_hashes({label: columns[label]})[known]
    order = np.lexsort((codes, inputs))
    inputs, codes, rows = inputs[order], codes[order], known[order]
    new_set = np.concatenate([[True], inputs[1:] != inputs[:-1]])[: len(rows)]
    group = np.cumsum(new_set) - 1
    new_label = new_set | np.concatenate([[True], codes[1:] != codes[:-1]])[: len(rows)]
    labels_in = np.bincount(group, new_label) if len(rows) else np.zeros(0)
    at_odds = labels_in[group] > 1 if len(rows) else np.zeros(0, bool)
    if not at_odds.any():
        return []
    runs = np.cumsum(new_label) - 1
    largest = np.zeros(group[-1] + 1)
    np.maximum.at(largest, group, np.bincount(runs)[runs].astype(float))
    lost = len(rows) - largest.sum()
    found = np.sort(rows[at_odds])
    told = (
        f"{at_odds.sum()} rows of {int((labels_in > 1).sum())} sets with the same features have different "
        f"labels: no model errs on fewer than {lost / len(rows):.3g} of the rows"
    )
    examples = _rows_of(columns, [label], found[:5])
    share = len(found) / len(labels.values)
    return [
        anomaly(
            "CONFLICTING_LABELS",
            label,
            told,
            examples=[each[label] for each in examples],
            rows=found,
            share=share,
        )
    ]


def shared_rows(
    training: Mapping[str, ArrayLike],
    evaluation: Mapping[str, ArrayLike],
    names: str | Sequence[str] | None = None,
) -> list[Anomaly]:
    """Rows of the evaluation split that are in the training split.

    Args:
        training: the table that is trained on.
        evaluation: the table that is judged on.
        names: the columns that must agree; None for all that both have.

    Returns:
        One SHARED_ROWS, its `rows` those of `evaluation`, or nothing. The description says how many to
        expect by themselves: as large a share as of the training rows that repeat each other.

    Raises:
        ValueError: as in `row_hashes`.

    Example:
        >>> [a.rows.tolist() for a in shared_rows({"x": [1, 2]}, {"x": [3, 2]})]
        [[1]]
    """
    both = [n for n in training if n in evaluation]
    chosen = both if names is None else _chosen(training, names)
    if not chosen:
        raise ValueError("training and evaluation must have columns in common, got none")
    known = row_hashes(training, chosen)
    asked = row_hashes(evaluation, chosen)
    found = np.isin(asked, known)
    if not found.any():
        return []
    counts = np.unique(known, return_counts=True)[1]
    alike = counts[counts > 1].sum() / len(known)
    told = (
        f"{found.sum()} of {len(asked)} rows are in the training table too "
        f"(of whose own rows {alike:.2g} have a twin)"
    )
    rows = np.flatnonzero(found)
    some = _rows_of(evaluation, chosen, rows[:3])
    return [anomaly("SHARED_ROWS", None, told, examples=some, rows=rows, share=found.mean())]


def shared_groups(training: ArrayLike, evaluation: ArrayLike, name: str = "group") -> list[Anomaly]:
    """Groups (patients, users, aircraft) that both splits hold.

    Args:
        training: [N] the group of each training row.
        evaluation: [M] the group of each row to judge on.
        name: of the column, for the report.

    Returns:
        One SHARED_GROUPS, its `rows` those of `evaluation`, or nothing. Missing values are no group.

    Example:
        >>> [a.examples for a in shared_groups(["ann", "bob"], ["bob", "eve"], "patient")]
        [('bob',)]
    """
    known, asked = read_column(name, training), read_column(name, evaluation)
    groups = set(known.known().tolist())
    listed = asked.values.tolist()
    found = np.fromiter((value in groups for value in listed), bool, len(listed)) & asked.present
    if not found.any():
        return []
    both = list(dict.fromkeys(asked.values[found].tolist()))
    told = f"{len(both)} groups are on both sides, with {found.sum()} of {len(listed)} rows"
    rows = np.flatnonzero(found)
    return [anomaly("SHARED_GROUPS", name, told, examples=both[:5], rows=rows, share=found.mean())]


def time_overlap(
    training: ArrayLike, evaluation: ArrayLike, name: str = "time", *, gap: Any = None
) -> list[Anomaly]:
    """Rows to judge on that are not later than all of training.

    Args:
        training: [N] times (datetime64 or numbers) of the training rows.
        evaluation: [M] times of the rows to judge on.
        name: of the column, for the report.
        gap: how much later they must be, as the difference of two times; None for any.

    Returns:
        One TIME_OVERLAP, its `rows` those of `evaluation`, or nothing.

    Raises:
        ValueError: if the times are neither datetime64 nor numbers.

    Example:
        >>> [a.rows.tolist() for a in time_overlap([1, 2, 3], [3, 4, 5])]
        [[0]]
    """
    known, asked = read_column(name, training), read_column(name, evaluation)
    for column in (known, asked):
        if column.type not in ("TIME", "INT", "FLOAT", None):
            raise ValueError(f"{name} must hold times or numbers, got {column.type}")
    if not known.num_present or not asked.num_present:
        return []
    if (known.type == "TIME") != (asked.type == "TIME"):
        raise ValueError(f"{name} must be times on both sides, got {known.type} and {asked.type}")
    latest = known.known().max()
    bound = latest if gap is None else latest + gap
    early = asked.present & (asked.values <= bound if gap is None else asked.values < bound)
    if not early.any():
        return []
    told = f"{early.sum()} of {len(early)} rows lie before the end of training, {latest}"
    if gap is not None:
        told += f", and {gap} after it"
    rows = np.flatnonzero(early)
    some = [str(value) for value in asked.values[rows[:3]]]
    return [anomaly("TIME_OVERLAP", name, told, examples=some, rows=rows, share=early.mean())]


def time_leaks(
    columns: Mapping[str, ArrayLike], known_at: Mapping[str, str], predicted_at: str
) -> list[Anomaly]:
    """Values that are known only after the moment of prediction.

    Args:
        columns: the table.
        known_at: for a feature, the column that says when its value is known.
        predicted_at: the column that says when the prediction is made.

    Returns:
        One TIME_LEAK for each feature with a value from later on, its `rows` those. Where a time is
        missing nothing can be said; a feature that is itself missing leaks nothing.

    Raises:
        ValueError: for a name that is no column, or times that cannot be compared.

    Example:
        >>> table = {"delay": [5.0, 9.0], "landed": [10, 30], "asked": [20, 20]}
        >>> [(a.column, a.rows.tolist()) for a in time_leaks(table, {"delay": "landed"}, "asked")]
        [('delay', [1])]
    """
    _chosen(columns, [*known_at, *known_at.values(), predicted_at])
    asked = read_column(predicted_at, columns[predicted_at])
    found = []
    for name, time in known_at.items():
        known, value = read_column(time, columns[time]), read_column(name, columns[name])
        num_rows({predicted_at: asked, time: known, name: value})
        if known.type is None or asked.type is None:
            continue
        if (known.type == "TIME") != (asked.type == "TIME") or known.type not in (
            "TIME",
            "INT",
            "FLOAT",
        ):
            raise ValueError(
                f"known_at[{name!r}] must be comparable with {predicted_at!r}, got {known.type} and "
                f"{asked.type}"
            )
        both = known.present & asked.present & value.present
        with np.errstate(invalid="ignore"):
            late = both & (known.values > asked.values)
        if late.any():
            told = f"{late.sum()} values were known only after the prediction ({time} > {predicted_at})"
            rows = np.flatnonzero(late)
            some = value.values[rows[:3]].tolist()
            found.append(
                anomaly("TIME_LEAK", name, told, examples=some, rows=rows, share=late.mean())
            )
    return found


def label_leaks(
    columns: Mapping[str, ArrayLike],
    label: str,
    *,
    threshold: float = 0.9,
    num_bins: int = 64,
    seed: int = 0,
) -> list[Anomaly]:
    """Columns that give the label away all by themselves.

    Each column is cut into at most `num_bins` levels (its most frequent values, or quantiles; missing
    is a level). The label's distribution in each level is taken from one half of the rows and used to
    predict the other: the share of the label's entropy that is gone,

        score = 1 − H(label | level) / H(label),

    with both in nats on the other half. Chance gives 0 or less, whatever the number of levels.

    Args:
        columns: the table.
        label: the column to be predicted; a number of many values is cut into ten quantiles.
        threshold: in (0, 1]; a score of at least this is a leak.
        num_bins: most levels of a column, ≥ 2.
        seed: of the two halves.

    Returns:
        LABEL_LEAK for each such column, the strongest first. Nothing with fewer than 40 labelled rows.

    Raises:
        ValueError: if the label is no column, a threshold or number of levels is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 1000)
        >>> table = {"noise": rng.normal(size=1000), "y_as_text": np.where(y, "late", "ok"), "y": y}
        >>> [a.column for a in label_leaks(table, "y")]
        ['y_as_text']
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    if num_bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}")
    _chosen(columns, [label])
    read = read_columns(columns)
    labelled = np.flatnonzero(read[label].present)
    if len(labelled) < 40:
        return []
    classes, num_classes = levels(read[label], 10)
    if len(np.unique(classes[labelled])) < 2:
        return []
    half = np.random.default_rng(seed).permutation(len(labelled)) % 2 == 0
    first, second = labelled[half], labelled[~half]
    scored = []
    for name, column in read.items():
        if name == label or column.type is None:
            continue
        codes, num_levels = levels(column, num_bins)
        score = explained_entropy(codes, classes, num_levels, num_classes, first, second)
        if score >= threshold:
            scored.append((score, name))
    return [
        anomaly(
            "LABEL_LEAK",
            name,
            f"this column alone takes away {score:.3f} of the entropy of {label!r}",
            share=score,
        )
        for score, name in sorted(scored, reverse=True)
    ]


def levels(column: Column, most: int) -> tuple[NDArray[np.int64], int]:
    """A column cut into few levels: its values, the most frequent of them, or quantiles.

    Args:
        column: any.
        most: levels at most, besides those of what is missing (the last one) and of the other texts.

    Returns:
        int64 [N] in [0, L), and L.
    """
    codes, distinct = column.codes()
    if len(distinct) > most:
        counts = np.bincount(codes[codes >= 0], minlength=len(distinct))
        if column.type == "BYTES" or column.values.dtype == object:
            rank = np.empty(len(distinct), np.int64)
            rank[np.argsort(-counts, kind="stable")] = np.arange(len(distinct))
            place = np.minimum(rank, most)
        else:
            # Distinct values come sorted: a level ends where its share of the rows is full.
            middle = np.cumsum(counts) - counts / 2
            place = np.minimum((most * middle / counts.sum()).astype(np.int64), most - 1)
        codes = np.where(codes >= 0, place[codes], -1)
    size = int(codes.max(initial=-1)) + 2
    return np.where(codes < 0, size - 1, codes), size


def explained_entropy(
    codes: NDArray[np.int64],
    classes: NDArray[np.int64],
    num_levels: int,
    num_classes: int,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> float:
    """The share of the entropy of `classes` that `codes` explain on rows `second`, learnt on `first`."""
    joint = np.bincount(
        codes[first] * num_classes + classes[first], minlength=num_levels * num_classes
    ).reshape(num_levels, num_classes)
    prior = joint.sum(0) + 0.5
    prior = prior / prior.sum()
    # A level seen seldom leans on the prior with the weight of one row.
    smooth = (joint + prior) / (joint.sum(1, keepdims=True) + 1)
    log_given = np.log(smooth[codes[second], classes[second]])
    log_prior = np.log(prior[classes[second]])
    entropy = -float(log_prior.mean())
    if entropy <= 1e-12 or not math.isfinite(entropy):
        return 0.0
    return 1 + float(log_given.mean()) / entropy
