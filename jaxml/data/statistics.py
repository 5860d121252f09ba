"""Whether a table is drawn from where the reference was: every column, and every pair of columns.

A schema says what a value may be. Most damage leaves every value valid: columns swapped or shuffled, a
unit changed within the range, labels flipped, rows delivered twice. It shows in how often values occur,
and in how columns go together; that is what is kept here of a reference table, and compared.

Every comparison is a test with an exact or asymptotic null distribution under exchangeability, that is if
reference and table are two random parts of one population, and all of them together raise a false alarm
with a probability of at most `significance` (Bonferroni). Two seasons are not exchangeable: give
`generate_statistics` the `spans` of the reference, and what differs from span to span is tolerated.
"""

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from jaxml.data.anomalies import Anomaly, anomaly
from jaxml.data.cache import write_atomically
from jaxml.data.columns import Column, num_rows, read_column, read_columns
from jaxml.data.leaks import row_hashes

__all__ = ["ColumnStatistics", "Statistics", "find_changes", "generate_statistics"]

# Levels of a number: quantiles, in a column by itself and in a pair; and of a text its most frequent
# values, and buckets that the others are hashed to.
_FINE, _COARSE = 32, 12
_OWN, _BUCKETS = 16, 48
_SKETCH = 16_384  # Row hashes kept.
_FEWEST = 5  # Expected rows of a cell, below which it is pooled with others.


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnStatistics:
    """What is kept of one column.

    Attributes:
        type: as in `Column`.
        num_present: rows with a value.
        counts: by value, of a text or a number of few values; None otherwise.
        fine: numbers where a level of the column by itself begins; empty for text.
        coarse: the same for pairs.
        levels: [L] rows in each fine level; the last one is "missing".
        span_missing: how far a span's missing rate lies from the others', twice; 0 without spans.
        span_unseen: share of values that no earlier span has, in a later one, twice; 0 without spans.
    """

    type: str | None
    num_present: int
    counts: dict[Any, int] | None
    fine: NDArray[Any]
    coarse: NDArray[Any]
    levels: NDArray[np.int64]
    span_missing: float = 0.0
    span_unseen: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """What is kept of a reference table.

    Attributes:
        num_rows: of it.
        columns: statistics by column.
        pairs: int64 [L, M] rows in each pair of coarse levels, by pair of columns.
        num_repeated: rows that repeat an earlier one.
        sketch: uint64, the smallest of the row hashes (a bottom-k sketch), sorted.
        drift: by column and by pair, how far the spans of the reference lie apart: the excess of χ² over
            its degrees of freedom per row. Empty without spans.
    """

    num_rows: int
    columns: dict[str, ColumnStatistics]
    pairs: dict[tuple[str, str], NDArray[np.int64]]
    num_repeated: int
    sketch: NDArray[np.uint64]
    drift: dict[tuple[str, ...], float]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes what is kept as JSON, to lie beside the schema's file.

        Args:
            path: of the file; its directory is made.

        Raises:
            OSError: if the file cannot be written.
        """
        content = {
            "num_rows": self.num_rows,
            "num_repeated": self.num_repeated,
            "sketch": self.sketch.tolist(),
            "columns": [
                {
                    "name": name,
                    "type": kept.type,
                    "num_present": kept.num_present,
                    "counts": None if kept.counts is None else list(kept.counts.items()),
                    "dtype": kept.fine.dtype.name,
                    "fine": kept.fine.tolist(),
                    "coarse": kept.coarse.tolist(),
                    "levels": kept.levels.tolist(),
                    "span_missing": kept.span_missing,
                    "span_unseen": kept.span_unseen,
                }
                for name, kept in self.columns.items()
            ],
            "pairs": [[*pair, counts.tolist()] for pair, counts in self.pairs.items()],
            "drift": [[list(names), excess] for names, excess in self.drift.items()],
        }
        text = json.dumps(content).encode()  # Escaped: any text there may be in a column.
        write_atomically(Path(path), lambda file: file.write(text))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Statistics":
        """Reads what `save` wrote.

        Args:
            path: of the file.

        Returns:
            Statistics that find what those saved would.

        Raises:
            ValueError: naming the file, if it holds something else.
            OSError: if the file cannot be read.
        """
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            columns = {
                each["name"]: ColumnStatistics(
                    each["type"],
                    each["num_present"],
                    None if each["counts"] is None else dict(map(tuple, each["counts"])),
                    np.array(each["fine"], each["dtype"]),
                    np.array(each["coarse"], each["dtype"]),
                    np.array(each["levels"], np.int64),
                    each["span_missing"],
                    each["span_unseen"],
                )
                for each in content["columns"]
            }
            return Statistics(
                content["num_rows"],
                columns,
                # A pair of columns without rows has no second dimension to infer.
                {(a, b): np.array(c, np.int64).reshape(len(c), -1) for a, b, c in content["pairs"]},
                content["num_repeated"],
                np.array(content["sketch"], np.uint64),
                {tuple(names): excess for names, excess in content["drift"]},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{os.fspath(path)} holds no statistics: {error!r}") from error


def generate_statistics(
    columns: Mapping[str, ArrayLike], *, spans: ArrayLike | None = None
) -> Statistics:
    """Counts a reference table: each column in some 32 levels, each pair of columns in 12 × 12 or so.

    Args:
        columns: one-dimensional arrays of one length, by name; believed to be good.
        spans: [N] the span of time (month, week) of each row, or None. What tells one span from the
            others is then measured, and a table may differ by twice the most of it without being told
            of; new values may be twice as many as a later one of the spans has brought.

    Returns:
        The `Statistics`.

    Raises:
        ValueError: for columns that do not make a table, and for a column of mixed types.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> a = rng.normal(size=4000)
        >>> table = {"a": a, "b": a + rng.normal(size=4000)}
        >>> reference = generate_statistics({k: v[:3000] for k, v in table.items()})
        >>> find_changes({k: v[3000:] for k, v in table.items()}, reference)
        []
        >>> shuffled = {"a": table["a"][3000:], "b": rng.permutation(table["b"][3000:])}
        >>> [(x.kind, sorted([x.column, *x.examples])) for x in find_changes(shuffled, reference)]
        [('ASSOCIATION_CHANGED', ['a', 'b'])]
    """
    read = _expanded(read_columns(columns))
    rows = num_rows(read)
    kept, codes = {}, {}
    for name, column in read.items():
        if column.type == "MIXED":
            raise ValueError(f"column {name!r} must hold one type of values")
        kept[name] = _column_statistics(column)
        codes[name] = _codes(column, kept[name], fine=False)
    pairs = {
        pair: _joint(codes[pair[0]], codes[pair[1]]) for pair in itertools.combinations(read, 2)
    }
    hashes = np.sort(row_hashes(columns))
    repeated = int((hashes[1:] == hashes[:-1]).sum())
    drift: dict[tuple[str, ...], float] = {}
    if spans is not None:
        drift, kept = _between_spans(read, kept, codes, read_column("spans", spans))
    return Statistics(rows, kept, pairs, repeated, np.unique(hashes)[:_SKETCH], drift)


def _expanded(read: Mapping[str, Column]) -> dict[str, Column]:
    """The columns, and of each time its hour of the day and its weekday, which go round."""
    found = dict(read)
    for name, column in read.items():
        if column.type != "TIME":
            continue
        seconds = column.values.astype("M8[s]").view(np.int64)
        for part, values in (
            ("hour of day", seconds // 3600 % 24),
            ("weekday", (seconds // 86400 + 3) % 7),  # The first of January 1970 was a Thursday.
        ):
            own = _part_name(name, part)
            found[own] = Column(own, "INT", values, column.present)
    return found


def _part_name(name: str, part: str) -> str:
    return f"{name}\0{part}"  # No name that a column has.


def _told_name(name: str) -> str:
    column, _, part = name.partition("\0")
    return f"{part} of {column}" if part else column


def _numbers(column: Column) -> NDArray[Any]:
    """Values that can be sorted: times as integers, booleans as numbers."""
    values = column.values
    if values.dtype.kind in "mM":
        unit = "M8[us]" if values.dtype.kind == "M" else "m8[us]"
        return values.astype(unit).view(np.int64)
    if values.dtype == object and column.type != "BYTES":
        return values.astype(np.float64)
    return values.astype(np.int64) if values.dtype == bool else values


def _column_statistics(column: Column) -> ColumnStatistics:
    none = np.zeros(0)
    counts: dict[Any, int] | None = None
    fine = coarse = none
    if column.type == "BYTES":
        codes, distinct = column.codes()
        sizes = np.bincount(codes[codes >= 0], minlength=len(distinct)).tolist()
        ranked = sorted(zip(sizes, distinct, strict=True), key=lambda pair: (-pair[0], pair[1]))
        counts = {value: size for size, value in ranked}
    elif column.type is not None:
        values, often = np.unique(_numbers(column)[column.present], return_counts=True)
        if len(values) <= 100:
            counts = dict(zip(values.tolist(), often.tolist(), strict=True))
        fine, coarse = _cuts(values, often, _FINE), _cuts(values, often, _COARSE)
    found = ColumnStatistics(
        column.type, column.num_present, counts, fine, coarse, np.zeros(0, np.int64)
    )
    levels = np.bincount(_codes(column, found, fine=True), minlength=_num_levels(found, fine=True))
    return dataclasses.replace(found, levels=levels)


def _cuts(distinct: NDArray[Any], sizes: NDArray[np.int64], most: int) -> NDArray[Any]:
    """Where levels of about equal size begin; the first begins at the smallest value."""
    if not len(distinct):
        return distinct
    middle = np.cumsum(sizes) - sizes / 2
    place = (most * middle / sizes.sum()).astype(np.int64)
    begins = np.concatenate([[True], place[1:] != place[:-1]])
    return distinct[begins]


def _num_levels(kept: ColumnStatistics, *, fine: bool) -> int:
    """Levels of a column: of numbers below and above, of texts unseen; and missing, the last."""
    if kept.type == "BYTES":
        return (_OWN * (4 if fine else 1)) + _BUCKETS + 2
    return len(kept.fine if fine else kept.coarse) + 3


def _codes(column: Column, kept: ColumnStatistics, *, fine: bool) -> NDArray[np.int64]:
    """The level of each row, the same for every table."""
    last = _num_levels(kept, fine=fine) - 1
    if kept.type == "BYTES":
        assert kept.counts is not None
        own = _OWN * (4 if fine else 1)
        place = {}
        # Rank modulo the buckets: like a hash, and each bucket has frequent and rare values.
        for rank, value in enumerate(kept.counts):
            place[value] = rank if rank < own else own + (rank - own) % _BUCKETS
        codes, distinct = column.codes()
        table = np.array([place.get(value, last - 1) for value in distinct] + [last], np.int64)
        return table[codes]  # Missing is −1, which is the last.
    cuts = kept.fine if fine else kept.coarse
    if not len(cuts):
        return np.where(column.present, 0, last)
    values = _numbers(column)
    with np.errstate(invalid="ignore"):
        codes = np.searchsorted(cuts, values, "right")
        highest = _highest(kept, cuts)
        codes = np.where(values > highest, len(cuts) + 1, codes)
    return np.where(column.present, codes, last)


def _highest(kept: ColumnStatistics, cuts: NDArray[Any]) -> Any:
    if kept.counts:
        return max(kept.counts)
    # Without counts the end of the range is unknown here: the last level is open.
    return np.inf if cuts.dtype.kind == "f" else np.iinfo(cuts.dtype).max


def _comparable(kept: ColumnStatistics, *, fine: bool) -> NDArray[np.bool_]:
    """The levels that are compared by their sizes: not of what is unseen, which has a test of its own."""
    found = np.ones(_num_levels(kept, fine=fine), bool)
    if kept.counts is not None:
        found[-2] = False
        found[0] = kept.type == "BYTES"
    return found


def _joint(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    width = int(b.max(initial=0)) + 1
    height = int(a.max(initial=0)) + 1
    return np.bincount(a * width + b, minlength=height * width).reshape(height, width)


def _fitted(counts: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.pad(
        counts, [(0, want - have) for want, have in zip(shape, counts.shape, strict=True)]
    )


def _chi_square(
    reference: NDArray[np.int64], table: NDArray[np.int64], drift: float = 0.0
) -> tuple[float, float, NDArray[np.float64]]:
    """Pearson's χ² of two samples being of one distribution: log p, excess per row, parts by cell.

    Cells in which fewer than five rows are to be expected are pooled. With a drift δ (excess per row) the
    statistic is divided by what a table of this size would show of it, 1 + δ·r.
    """
    shape = tuple(max(pair) for pair in zip(reference.shape, table.shape, strict=True))
    a = _fitted(reference, shape).astype(np.float64).ravel()
    b = _fitted(table, shape).astype(np.float64).ravel()
    total = a.sum(), b.sum()
    parts = np.zeros(a.size)
    if not total[0] or not total[1]:
        return 0.0, 0.0, parts.reshape(shape)
    expected = (a + b) * min(total) / sum(total)
    rare = np.flatnonzero((expected < _FEWEST) & (a + b > 0))
    keep = np.flatnonzero(expected >= _FEWEST)
    pool = np.array([a[rare].sum(), b[rare].sum()])
    pooled = pool.sum() * min(total) / sum(total) >= _FEWEST
    x = np.append(a[keep], pool[0] if pooled else [])
    y = np.append(b[keep], pool[1] if pooled else [])
    ratio = math.sqrt(total[1] / total[0])
    each = (x * ratio - y / ratio) ** 2 / (x + y)
    parts[keep] = each[: len(keep)]
    if pooled and len(rare):
        parts[rare] = each[-1] / len(rare)
    freedom = len(each) - 1
    if freedom < 1:
        return 0.0, 0.0, parts.reshape(shape)
    statistic = float(each.sum())
    harmonic = total[0] * total[1] / sum(total)
    excess = max(statistic / freedom - 1, 0.0) / harmonic
    statistic /= 1 + drift * harmonic
    return _log_p_chi_square(statistic, freedom), excess, parts.reshape(shape)


def _log_p_chi_square(statistic: float, freedom: int) -> float:
    """log P(χ² > statistic); beyond the smallest float by the leading term of the tail."""
    tail = float(special.chdtrc(freedom, statistic))
    if tail > 1e-300:
        return math.log(tail)
    half = statistic / 2
    return (freedom / 2 - 1) * math.log(half) - half - math.lgamma(freedom / 2)


def _log_p_binomial(number: int, trials: int, share: float) -> float:
    """log P(X ≥ number)."""
    return _log(special.betainc(number, trials - number + 1, share)) if number else 0.0


def _log_p_poisson(number: int, expected: float) -> float:
    """log P(X ≥ number)."""
    return _log(special.gammainc(number, expected)) if number else 0.0


def _log(probability: float) -> float:
    return math.log(max(float(probability), 1e-300))


def _log_p_unseen_cells(reference: NDArray[np.int64], table: NDArray[np.int64]) -> float:
    """log p of so many cells having rows of the table alone.

    A cell with c rows in both together has all of them in the table with probability ρᶜ, ρ = M / (N + M);
    the number of such cells is close to Poisson. It sees the few rows whose values cannot go together.
    """
    shape = tuple(max(pair) for pair in zip(reference.shape, table.shape, strict=True))
    a, b = _fitted(reference, shape), _fitted(table, shape)
    number = int(((a == 0) & (b > 0)).sum())
    if not number:
        return 0.0
    both = (a + b)[a + b > 0].astype(np.float64)
    return _log_p_poisson(number, float(((b.sum() / both.sum()) ** both).sum()))


def _between_spans(
    read: Mapping[str, Column],
    kept: dict[str, ColumnStatistics],
    codes: Mapping[str, NDArray[np.int64]],
    spans: Column,
) -> tuple[dict[tuple[str, ...], float], dict[str, ColumnStatistics]]:
    """The excess of χ² of each span against the others, the largest, twice."""
    num_rows({**read, "spans": spans})
    which, distinct = spans.codes()
    if len(distinct) < 2:
        raise ValueError(f"spans must hold at least two spans, got {len(distinct)}")
    number = len(distinct)
    drift: dict[tuple[str, ...], float] = {}
    changed = {}
    for name, column in read.items():
        fine = _codes(column, kept[name], fine=True)
        drift[(name,)] = 2 * _largest_excess(fine, which, number)
        sizes = np.bincount(which[which >= 0], minlength=number)
        gaps = np.bincount(which[which >= 0], ~column.present[which >= 0], number)
        others = (gaps.sum() - gaps) / np.maximum(sizes.sum() - sizes, 1)
        apart = float(np.abs(gaps / sizes - others).max())
        changed[name] = dataclasses.replace(
            kept[name], span_missing=2 * apart, span_unseen=2 * _newcomers(column, spans)
        )
    for a, b in itertools.combinations(read, 2):
        width = int(codes[b].max(initial=0)) + 1
        drift[(a, b)] = 2 * _largest_excess(codes[a] * width + codes[b], which, number)
    return drift, changed


def _newcomers(column: Column, spans: Column) -> float:
    """The share of a span's values that no earlier one has, the largest of the later half of spans."""
    codes, distinct = column.codes()
    which, order = spans.codes()
    rank = np.argsort(
        np.argsort(np.array(order))
    )  # Spans in their order, whatever that of the rows.
    both = (codes >= 0) & (which >= 0)
    codes, when = codes[both], rank[which[both]]
    first = np.full(len(distinct), len(order))
    np.minimum.at(first, codes, when)
    sizes = np.bincount(when, minlength=len(order))
    new = np.bincount(when, first[codes] == when, len(order))
    half = (len(order) + 1) // 2
    return float((new[half:] / np.maximum(sizes[half:], 1)).max(initial=0.0))


def _largest_excess(cells: NDArray[np.int64], which: NDArray[np.int64], number: int) -> float:
    size = int(cells.max(initial=0)) + 1
    there = which >= 0
    counts = np.bincount(which[there] * size + cells[there], minlength=number * size)
    counts = counts.reshape(number, size)
    total = counts.sum(0)
    return max(_chi_square(total - each, each)[1] for each in counts)


def find_changes(
    columns: Mapping[str, ArrayLike], statistics: Statistics, *, significance: float = 0.01
) -> list[Anomaly]:
    """What of a table is not as in the reference.

    | kind | test |
    |---|---|
    | MISSING_RATE_CHANGED | two proportions, z |
    | UNSEEN_VALUES | values that the reference does not have: of values met once in both together, how
    many are the table's (binomial); and the most frequent new one, (M/(N+M))ᵏ | | DISTRIBUTION_CHANGED
    | χ² of two samples in some 32 levels | | ASSOCIATION_CHANGED | χ² of two samples in the levels of a
    pair, of columns without another finding | | DUPLICATE_ROWS | Poisson, from the pairs of equal rows
    in the reference | | SHARED_ROWS | the same, by a sketch of the reference's rows |

    Columns that only one side has, or that have another type, are the schema's business and are passed
    over.

    Args:
        columns: the table in question; its rows should be others than the reference's.
        statistics: of the reference.
        significance: probability of a false alarm on a table from where the reference is, in (0, 1).

    Returns:
        Anomalies by column, then pairs (a column that has lost its partners is told once, with them as
        `examples`), then rows. None for a table without rows.

    Raises:
        ValueError: for columns that do not make a table or a significance outside (0, 1).

    Source: Rabanser, Günnemann, Lipton, "Failing Loudly" (NeurIPS 2019), for univariate tests with
    Bonferroni; Efron and Thisted (1976), for unseen values.
    """
    if not 0 < significance < 1:
        raise ValueError(f"significance must be in (0, 1), got {significance}")
    read = _expanded(read_columns(columns))
    rows = num_rows(read)
    common = [
        n for n in statistics.columns if n in read and _same_type(read[n], statistics.columns[n])
    ]
    if not rows or not statistics.num_rows or not common:
        return []
    num_tests = 4 * len(common) + len(common) * (len(common) - 1) + 2
    threshold = math.log(significance / num_tests)
    found: list[Anomaly] = []
    quiet = []
    for name in common:
        own = _column_changes(read[name], statistics, threshold)
        found += own
        quiet += [] if own else [name]
    found += _pair_changes(read, statistics, quiet, threshold)
    if list(read) and set(read) == set(statistics.columns) and len(common) == len(read):
        found += _row_changes(columns, statistics, threshold)
    return found


def _same_type(column: Column, kept: ColumnStatistics) -> bool:
    numbers = {"INT", "FLOAT"}
    # Of a column of objects that are all None nothing is known, but that its values are missing.
    return column.type in (kept.type, None) or {column.type, kept.type} <= numbers


def _column_changes(column: Column, statistics: Statistics, threshold: float) -> list[Anomaly]:
    kept = statistics.columns[column.name]
    name, rows, reference = column.name, len(column.values), statistics.num_rows
    found: list[Anomaly] = []
    if "\0" in name and column.num_present == 0:
        return found
    log_p = _log_p_proportions(
        rows - column.num_present, rows, reference - kept.num_present, reference, kept.span_missing
    )
    if log_p < threshold and "\0" not in name:  # Told of the time itself.
        now, before = 1 - column.num_present / rows, 1 - kept.num_present / reference
        told = f"{now:.2%} of the rows have no value, {before:.2%} in the reference ({_p(log_p)})"
        gaps = np.flatnonzero(~column.present) if now > before else ()
        found.append(
            anomaly("MISSING_RATE_CHANGED", name, told, rows=gaps, share=abs(now - before))
        )
    if not column.num_present or not kept.num_present:
        return found
    unseen = _unseen(column, kept, threshold)
    if unseen is not None:
        found.append(unseen)
    levels = np.bincount(_codes(column, kept, fine=True), minlength=len(kept.levels))
    compared = _comparable(kept, fine=True)[:-1]
    pair = np.where(compared, kept.levels[:-1], 0), np.where(compared, levels[:-1], 0)
    log_p, _, parts = _chi_square(*pair, statistics.drift.get((name,), 0.0))
    if log_p < threshold:
        shares = kept.levels[:-1] / kept.num_present, levels[:-1] / column.num_present
        worst = int(np.argmax(parts))
        was, is_ = (float(each[worst]) for each in shares)
        apart = float(np.abs(shares[0] - shares[1]).sum() / 2)
        codes = _codes(column, kept, fine=True)
        more = (shares[1] > shares[0]) & (parts > parts.sum() / len(parts))
        values = column.values[codes == worst]
        told = (
            f"{apart:.2%} of the {_told_name(name)} lies elsewhere than in the reference "
            f"({_p(log_p)}); around {_around(kept, worst)!r} are {is_:.2%} instead of {was:.2%}"
        )
        found.append(
            anomaly(
                "DISTRIBUTION_CHANGED",
                name.partition("\0")[0],
                told,
                examples=list(dict.fromkeys(values[:1000].tolist()))[:3],
                rows=np.flatnonzero(more[np.minimum(codes, len(more) - 1)] & column.present),
                share=apart,
            )
        )
    return found


def _around(kept: ColumnStatistics, level: int) -> Any:
    if kept.type == "BYTES":
        assert kept.counts is not None
        values = list(kept.counts)
        return values[level] if level < len(values) else "other values"
    value = kept.fine[min(max(level - 1, 0), len(kept.fine) - 1)]
    return str(np.datetime64(int(value), "us")) if kept.type == "TIME" else value.item()


def _p(log_p: float) -> str:
    return f"p = 1e{log_p / math.log(10):.0f}"


def _log_p_proportions(hits_a: int, num_a: int, hits_b: int, num_b: int, slack: float) -> float:
    """log p of two proportions that lie no more than `slack` apart; z-test with pooled variance."""
    pooled = (hits_a + hits_b) / (num_a + num_b)
    variance = pooled * (1 - pooled) * (1 / num_a + 1 / num_b)
    apart = max(abs(hits_a / num_a - hits_b / num_b) - slack, 0.0)
    if variance <= 0 or apart == 0:
        return 0.0
    if min(pooled, 1 - pooled) * min(num_a, num_b) < 10:
        # Too few for a normal law: given their sum, how many of them are the table's.
        few, total = (hits_a, hits_a + hits_b) if pooled < 0.5 else (num_a - hits_a, 0)
        if pooled >= 0.5:
            total = num_a + num_b - hits_a - hits_b
        share = num_a / (num_a + num_b)
        if slack:
            return 0.0
        tails = (
            _log_p_binomial(few, total, share),
            _log_p_binomial(total - few, total, 1 - share),
        )
        return float(min(min(tails) + math.log(2), 0.0))
    return float(math.log(2) + special.log_ndtr(-apart / math.sqrt(variance)))


def _unseen(column: Column, kept: ColumnStatistics, threshold: float) -> Anomaly | None:
    """Values that the reference does not have, if there are more than its own rare ones let expect."""
    known = column.num_present
    share = known / (known + kept.num_present)
    if kept.type in ("TIME", "DURATION") or "\0" in column.name:
        return None  # Time goes on.
    if kept.counts is None:
        return None  # Beyond the range is for the levels, and for the schema.
    codes, distinct = column.codes() if kept.type == "BYTES" else _number_codes(column)
    sizes = np.bincount(codes[codes >= 0], minlength=len(distinct))
    new = np.array([value not in kept.counts for value in distinct], bool)
    if not new.any():
        return None
    once_here = int((sizes[new] == 1).sum())
    seen = set(distinct)
    once_there = sum(n == 1 and value not in seen for value, n in kept.counts.items())
    singles = _log_p_binomial(once_here, once_here + once_there, share)
    most = int(sizes[new].max())
    # As many values as might have been the one: all that are not more frequent than it.
    rivals = int((sizes[new] >= 2).sum()) + 1
    rivals += sum(n <= most for n in kept.counts.values())
    frequent = most * math.log(share) + math.log(rivals) if most > 1 else 0.0
    if sizes[new].sum() <= kept.span_unseen * known:
        return None  # New values come with time.
    log_p = min(singles, frequent)
    if log_p >= threshold:
        return None
    ranked = [
        distinct[i] for i in np.argsort(-np.where(new, sizes, -1), kind="stable")[: new.sum()]
    ]
    rows = np.flatnonzero((codes >= 0) & new[codes])
    told = f"{new.sum()} values in {len(rows)} rows are not in the reference ({_p(log_p)})"
    return anomaly(
        "UNSEEN_VALUES", column.name, told, examples=ranked[:5], rows=rows, share=len(rows) / known
    )


def _number_codes(column: Column) -> tuple[NDArray[np.int64], list[Any]]:
    values = _numbers(column)
    codes = np.full(len(values), -1, np.int64)
    distinct, inverse = np.unique(values[column.present], return_inverse=True)
    codes[column.present] = inverse
    return codes, distinct.tolist()


def _pair_changes(
    read: Mapping[str, Column], statistics: Statistics, names: list[str], threshold: float
) -> list[Anomaly]:
    codes = {name: _codes(read[name], statistics.columns[name], fine=False) for name in names}
    log_p: dict[tuple[str, str], float] = {}
    for name in names:
        compared = _comparable(statistics.columns[name], fine=False)
        codes[name] = np.where(compared[codes[name]], codes[name], -1)
    for a, b in itertools.combinations(names, 2):
        both = (codes[a] >= 0) & (codes[b] >= 0)
        joint = _joint(codes[a][both], codes[b][both])
        drift = statistics.drift.get((a, b), 0.0)
        value = _chi_square(statistics.pairs[a, b], joint, drift)[0]
        if not statistics.drift:  # New combinations come with time.
            value = min(value, _log_p_unseen_cells(statistics.pairs[a, b], joint))
        if value < threshold:
            log_p[a, b] = value
    found = []
    while log_p:
        # The column in most of the pairs explains them; a tie goes to the stronger evidence.
        weight: dict[str, tuple[int, float]] = {}
        for pair, value in log_p.items():
            for name in pair:
                number, total = weight.get(name, (0, 0.0))
                weight[name] = number + 1, total + min(-value, 1e6)
        worst = max(weight, key=lambda name: weight[name])
        own = sorted((value, pair) for pair, value in log_p.items() if worst in pair)
        partners = [_told_name(pair[0] if pair[1] == worst else pair[1]) for _, pair in own]
        told = (
            f"{_told_name(worst)} no longer goes with {', '.join(partners[:4])}"
            f"{', …' * (len(partners) > 4)} as in the reference ({_p(own[0][0])})"
        )
        column = worst.partition("\0")[0]
        found.append(anomaly("ASSOCIATION_CHANGED", column, told, examples=partners))
        log_p = {pair: value for pair, value in log_p.items() if worst not in pair}
    return found


def _row_changes(
    columns: Mapping[str, ArrayLike], statistics: Statistics, threshold: float
) -> list[Anomaly]:
    hashes = row_hashes(columns)
    rows, reference = len(hashes), statistics.num_rows
    found = []
    _, first = np.unique(hashes, return_index=True)
    again = np.ones(rows, bool)
    again[first] = False
    # Pairs of equal rows grow with the square of the rows; three more than were seen may well be there.
    pairs = statistics.num_repeated + 3
    expected = pairs * (rows / reference) ** 2
    log_p = _log_p_poisson(int(again.sum()), expected)
    if log_p < threshold:
        told = (
            f"{again.sum()} rows repeat an earlier one, {expected:.1f} at most are to be expected"
        )
        found.append(
            anomaly("DUPLICATE_ROWS", None, told, rows=np.flatnonzero(again), share=again.mean())
        )
    sketch = statistics.sketch
    if not len(sketch):
        return found
    sampled = hashes <= sketch[-1]
    shared = sampled & np.isin(hashes, sketch)
    number = int(shared.sum())
    kept = len(sketch) / max(reference - statistics.num_repeated, 1)
    expected = 2 * pairs * rows / reference * kept
    log_p = _log_p_poisson(number, expected)
    if log_p < threshold:
        share = number / max(int(sampled.sum()), 1)
        told = f"about {share:.1%} of the rows are the reference's own ({number} of a sample are)"
        found.append(anomaly("SHARED_ROWS", None, told, rows=np.flatnonzero(shared), share=share))
    return found
