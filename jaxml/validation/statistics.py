"""Statistics of a reference table, and tests of whether another table comes from the same population.

A schema knows which values are allowed. Most damage leaves every value allowed: columns swapped or
shuffled, a unit changed within the range, labels flipped, rows delivered twice. It shows in how often
values occur and in how columns go together. Statistics keep that of a reference, and tests compare it.

Each comparison is a test whose null hypothesis is that reference and table are two random parts of one
population, and all of them together raise a false alarm with a probability of at most `significance`
(Bonferroni). Two seasons are not random parts of one population: give `generate_statistics` the `spans` of
the reference, and what differs from span to span is tolerated.

References:
    Rabanser, Günnemann, Lipton. "Failing Loudly" (NeurIPS 2019): univariate tests with Bonferroni.
    Efron, Thisted. "Estimating the Number of Unseen Species" (Biometrika 1976): unseen values.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks, hashing
from jaxml.validation import two_samples
from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import (
    Column,
    Table,
    num_rows,
    read_columns,
    table_columns,
)
from jaxml.validation.leaks import repeated, row_hashes
from jaxml.validation.levels import quantile_levels

__all__ = ["ColumnStatistics", "Statistics", "find_changes", "generate_statistics"]

# Levels of a number of many values, by itself and in a pair; levels of a text of many values in a pair.
_FINE, _COARSE, _TEXTS = 32, 12, 64
_FEW = 128  # Up to so many distinct values each is a level by itself.
_SKETCH = 16_384  # Row hashes kept.
_PART = "\0"  # Between a time's name and a part of it, as in "scheduled\0hour of day".


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ColumnStatistics:
    """Statistics of one column.

    Attributes:
        type: as in `Column`.
        num_present: number of rows with a value.
        counts: number of rows by value, of a text or a number of few values; None otherwise.
        fine: where the levels of a number of many values begin, by itself; empty for others.
        coarse: where its levels in a pair begin.
        levels: [L] number of rows in each of these levels.
        span_missing: twice the largest distance of a span's missing rate from the others'; 0 without spans.
        span_unseen: twice the largest share of values that are new in a later span; 0 without spans.
    """

    type: str | None
    num_present: int
    counts: dict[Any, int] | None
    fine: NDArray[Any]
    coarse: NDArray[Any]
    levels: NDArray[np.int64]
    span_missing: float = 0.0
    span_unseen: float = 0.0

    def __repr__(self) -> str:
        return f"<ColumnStatistics of {self.num_present:,} {self.type} values>"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Statistics:
    """Statistics of a reference table; `pickle` keeps them.

    Attributes:
        num_rows: number of its rows.
        columns: statistics by column.
        pairs: int64 [L, M] number of rows in each pair of coarse levels, by pair of columns.
        copies: int64 [2, C] numbers of copies of a row that occur, and how many distinct rows have them.
        sketch: uint64, the smallest of the row hashes, sorted.
        drift: by column and by pair, how far the spans of the reference are apart: twice the excess of χ²
            over its degrees of freedom, per row. Empty without spans.
    """

    num_rows: int
    columns: dict[str, ColumnStatistics]
    pairs: dict[tuple[str, str], NDArray[np.int64]]
    copies: NDArray[np.int64]
    sketch: NDArray[np.uint64]
    drift: dict[tuple[str, ...], float]

    def __repr__(self) -> str:
        size = f"{self.num_rows:,} rows and {len(self.columns)} columns"
        return f"<Statistics of {size}: {', '.join(self.columns):.60}>"


def generate_statistics(columns: Table, *, spans: ArrayLike | None = None) -> Statistics:
    """Returns counts of a reference table: of each column in some 32 levels, of each pair in 12 × 12 or so.

    Args:
        columns: the table, believed to be good.
        spans: [N] span of time (month, week) of each row. A table may then differ by twice as much as the
            spans do from each other, and have twice as many new values as a later span has.

    Raises:
        ValueError: for columns that do not make a table, for mixed types in a column, and for fewer than
            two spans.

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
    given = _read(columns)
    for column in given.values():
        if column.type == "MIXED":
            raise ValueError(column.mixture())
    read = _as_numbers(given)
    kept = {name: _column_statistics(column) for name, column in read.items()}
    codes = {name: _coarse_codes(column, kept[name]) for name, column in read.items()}
    counted = ~_level_rows(num_rows(read))
    rest = {name: (level[counted], size) for name, (level, size) in codes.items()}
    pairs = {(a, b): _joint(rest[a], rest[b]) for a, b in itertools.combinations(read, 2)}
    drift: dict[tuple[str, ...], float] = {}
    if spans is not None:
        drift, kept = _between_spans(read, kept, codes, read_columns({"spans": spans})["spans"])
    hashes, copies = np.unique(row_hashes(given), return_counts=True)
    multiplicity = np.array(np.unique(copies, return_counts=True))
    return Statistics(num_rows(read), kept, pairs, multiplicity, hashes[:_SKETCH], drift)


def _read(columns: Table) -> dict[str, Column]:
    # A DataFrame may have integers for names.
    return read_columns({str(name): values for name, values in table_columns(columns).items()})


def _as_numbers(given: Mapping[str, Column]) -> dict[str, Column]:
    """Returns the columns with anything but texts as numbers, and of each time its hour and its weekday."""
    found, parts = {}, {}
    for name, column in given.items():
        found[name] = column
        if column.type in ("BYTES", "MIXED"):
            continue
        # Integers stay exact if they fit into 64 bits.
        values = column.numbers() if column.values.dtype == object else column.exact()
        if column.type == "FLOAT":
            # To 24 bits, so that a table in float32 has the same values. Whole numbers stay.
            fraction, exponent = np.frexp(values)
            rounded = np.ldexp(np.round(fraction * 2.0**24), exponent - 24)
            values = np.where(np.round(values) == values, values, rounded)
        found[name] = dataclasses.replace(column, values=values)
        if column.type == "TIME":
            seconds = column.values.astype("M8[s]").astype(np.int64)
            # The first of January 1970 was a Thursday.
            weekdays = (seconds // 86400 + 3) % 7
            for part, values in (("hour of day", seconds // 3600 % 24), ("weekday", weekdays)):
                own = f"{name}{_PART}{part}"
                parts[own] = Column(own, "INT", values, column.missing)
    return found | parts


def _title(name: str) -> str:
    column, _, part = name.partition(_PART)
    return f"{part} of {column}" if part else column


def _column_statistics(column: Column) -> ColumnStatistics:
    codes, distinct = column.codes()
    sizes = np.bincount(codes[codes >= 0], minlength=len(distinct))
    fine = coarse = np.zeros(0)
    if not column.is_text and distinct:
        values = np.array(distinct, column.values.dtype)
        fine = coarse = _begins(values, sizes, _FINE)
        if len(distinct) > _COARSE:
            part = column.known()[_level_rows(len(codes))[column.present]]
            coarse = _begins(*np.unique(part, return_counts=True), _COARSE)
    if column.is_text or len(distinct) <= _FEW:
        counts: dict[Any, int] | None = dict(zip(distinct, sizes.tolist(), strict=True))
        fine, levels = fine[:0], np.array([column.num_present])
    else:
        counts = None
        place = np.searchsorted(fine, values, "right")
        levels = np.bincount(place, sizes, len(fine) + 1).astype(np.int64)
    return ColumnStatistics(column.type, column.num_present, counts, fine, coarse, levels)


def _begins(values: NDArray[Any], counts: NDArray[np.int64], most: int) -> NDArray[Any]:
    """Returns the values with which levels begin, of `most` levels."""
    if not len(values):
        return values
    level = quantile_levels(counts, most)
    return values[np.flatnonzero(np.append(True, level[1:] != level[:-1]))]


def _level_rows(num_rows: int) -> NDArray[np.bool_]:
    """Returns the rows at whose numbers coarse levels begin: a random eighth, or some 256 of many.

    They are not counted in pairs. Where two columns have levels that begin at neighbouring rows, no row
    of the reference lies between, but rows of other tables do.
    """
    # Not every eighth: rows may come in periods, such as the hours of a day.
    return np.random.default_rng(0).random(num_rows) * max(num_rows // 256, 8) < 1


def _coarse_codes(column: Column, kept: ColumnStatistics) -> tuple[NDArray[np.int64], int]:
    """Returns the level of each row of the reference in a pair, and the number of levels.

    A text has a level each value if they are few, otherwise values are hashed to levels. The last level
    is "missing".
    """
    if kept.type != "BYTES":
        size = len(kept.coarse) + 2
        place = np.searchsorted(kept.coarse, column.values, "right") if len(kept.coarse) else 0
        return np.where(column.missing, size - 1, place), size
    codes, distinct = column.codes()
    if _by_value(kept):
        return np.where(codes < 0, len(distinct), codes), len(distinct) + 1
    table = np.append(hashing.buckets(hashing.hash_texts(distinct), _TEXTS), _TEXTS)
    return table[codes], _TEXTS + 1  # Missing is −1, the last of the table.


def _by_value(kept: ColumnStatistics) -> bool:
    return kept.type == "BYTES" and kept.counts is not None and len(kept.counts) <= _FEW


def _levels_in_pairs(
    column: Column, kept: ColumnStatistics, num_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Returns the level of each coarse level of the reference, the level of each row, and their number.

    Texts that are frequent in both tables together have a level each, others are hashed to levels: which
    ones does not depend on which table the rows are in.
    """
    if not _by_value(kept):
        codes, size = _coarse_codes(column, kept)
        # For five rows a cell on the smaller side; "missing" stays the last.
        most = max(math.isqrt(min(num_rows, len(codes)) // 5), 2)
        joined = np.arange(size - 1) * most // max(size - 1, most)
        joined = np.append(joined, joined.max(initial=-1) + 1)
        return joined, joined[codes], int(joined[-1]) + 1
    known = dict(kept.counts or {})
    codes, distinct = column.codes()
    place = {value: i for i, value in enumerate(dict.fromkeys([*known, *distinct]))}
    codes = np.array([*map(place.__getitem__, distinct), len(place)])[codes]
    both = np.bincount(codes, minlength=len(place) + 1)[:-1]
    both[: len(known)] += np.fromiter(known.values(), np.int64, len(known))
    rare = two_samples.is_rare(both, num_rows, len(codes))
    hashed = hashing.buckets(hashing.hash_texts(list(place)), _TEXTS)
    levels = np.where(rare, hashed, _TEXTS + _ranks(list(place), column))
    _, levels = np.unique(np.append(levels, np.iinfo(np.int64).max), return_inverse=True)
    return levels[[*range(len(known)), -1]], levels[codes], int(levels[-1]) + 1


def _joint(a: tuple[NDArray[np.int64], int], b: tuple[NDArray[np.int64], int]) -> NDArray[np.int64]:
    return np.bincount(a[0] * b[1] + b[0], minlength=a[1] * b[1]).reshape(a[1], b[1])


def _between_spans(
    read: Mapping[str, Column],
    kept: Mapping[str, ColumnStatistics],
    codes: Mapping[str, tuple[NDArray[np.int64], int]],
    spans: Column,
) -> tuple[dict[tuple[str, ...], float], dict[str, ColumnStatistics]]:
    """Returns twice the largest excess of χ² of a span against the others, and of other differences."""
    num_rows({**read, "spans": spans})
    which, distinct = spans.codes()
    if len(distinct) < 2:
        raise ValueError(f"spans must hold at least two spans, got {len(distinct)}")
    # In order of time, whatever that of the rows.
    rank = np.argsort(np.argsort(np.array(distinct)))
    which = np.where(which < 0, -1, rank[which])

    def by_span(cells: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        there = (which >= 0) & (cells >= 0)
        flat = which[there] * size + cells[there]
        return np.bincount(flat, minlength=len(distinct) * size).reshape(-1, size)

    def excess(counts: NDArray[np.int64]) -> float:
        total = counts.sum(0)
        return 2 * max(two_samples.chi_square(total - each, each)[1] for each in counts)

    drift: dict[tuple[str, ...], float] = {}
    changed = {}
    for name, column in read.items():
        cells, values = column.codes()
        drift[(name,)] = excess(by_span(*_fine_cells(column, kept[name], cells, values)))
        counts = by_span(cells, len(values))
        gaps = by_span(np.where(column.missing, 0, -1), 1)[:, 0]
        sizes = counts.sum(1) + gaps
        others = (gaps.sum() - gaps) / np.maximum(sizes.sum() - sizes, 1)
        apart = np.abs(gaps / np.maximum(sizes, 1) - others).max()
        # Values that no earlier span has, in the later half of the spans.
        is_new = np.cumsum(counts, 0) == counts
        new = (counts * is_new).sum(1) / np.maximum(counts.sum(1), 1)
        newest = new[(len(distinct) + 1) // 2 :].max(initial=0.0)
        changed[name] = dataclasses.replace(
            kept[name], span_missing=2 * float(apart), span_unseen=2 * float(newest)
        )
    for a, b in itertools.combinations(read, 2):
        (first, height), (second, width) = codes[a], codes[b]
        drift[(a, b)] = excess(by_span(first * width + second, height * width))
    return drift, changed


def _fine_cells(
    column: Column, kept: ColumnStatistics, codes: NDArray[np.int64], values: list[Any]
) -> tuple[NDArray[np.int64], int]:
    """Returns the cell of each row by itself (−1 where missing), and the number of cells."""
    if kept.counts is None:
        cells = np.searchsorted(kept.fine, column.values, "right")
        return np.where(column.missing, -1, cells), len(kept.fine) + 1
    return np.append(_ranks(values, column), -1)[codes], len(values)


def _ranks(values: list[Any], column: Column) -> NDArray[np.int64]:
    """Returns the place of each value in an order that does not depend on the rows: the cells' order
    decides which of them are pooled."""
    keys = hashing.hash_texts(values) if column.is_text else np.array(values)
    return np.argsort(np.argsort(keys, kind="stable"), kind="stable")


def find_changes(
    columns: Table, statistics: Statistics, *, significance: float = 0.01
) -> list[Anomaly]:
    """Returns the anomalies of a table against a reference.

    | kind | test |
    |---|---|
    | MISSING_RATE_CHANGED | two proportions |
    | UNSEEN_VALUES | of the values that occur once in both together, how many are the table's (binomial); \
the most frequent new value, (M / (N + M))ᵏ |
    | DISTRIBUTION_CHANGED | χ² of two samples, by value of a text, in some 32 levels of a number |
    | ASSOCIATION_CHANGED | χ² of two samples in the levels of a pair, of columns without a finding |
    | DUPLICATE_ROWS | negative binomial, with the rarefaction of the reference's own repeated rows |
    | SHARED_ROWS | negative binomial, by a sketch of the reference's rows |

    Columns that only one side has, or that have another type, are left to the schema.

    Args:
        columns: the table in question; its rows should not be the reference's.
        statistics: statistics of the reference.
        significance: probability of a false alarm on a table from where the reference is, in (0, 1].

    Returns:
        Anomalies by column, then pairs (a column that no longer goes with others is reported once, with
        them as `examples`), then rows. Empty for a table without rows.

    Raises:
        ValueError: for columns that do not make a table.
    """
    if not isinstance(statistics, Statistics):
        wanted = "what generate_statistics returns"
        raise ValueError(f"statistics must be {wanted}, got {type(statistics).__name__}")
    checks.number("significance", significance, at_most=1, above=0)
    given = _read(columns)
    read = _as_numbers(given)
    rows = num_rows(read)
    common = [
        n for n, kept in statistics.columns.items() if n in read and _same_type(read[n], kept)
    ]
    if not rows or not statistics.num_rows or not common:
        return []
    num_tests = 4 * len(common) + len(common) * (len(common) - 1) + 2
    threshold = math.log(significance / num_tests)
    found: list[Anomaly] = []
    quiet = []
    for name in common:
        own = _column_changes(read[name], given.get(name, read[name]), statistics, threshold)
        found += own
        quiet += [] if own else [name]
    found += _pair_changes(read, statistics, quiet, threshold)
    if set(read) == set(statistics.columns) and len(common) == len(read):
        found += _row_changes(row_hashes(given), statistics, threshold)
    return found


def _same_type(column: Column, kept: ColumnStatistics) -> bool:
    # A column without any value has no type.
    return column.type in (kept.type, None) or {column.type, kept.type} <= {"INT", "FLOAT"}


def _column_changes(
    column: Column, given: Column, statistics: Statistics, threshold: float
) -> list[Anomaly]:
    kept = statistics.columns[column.name]
    found = _gap_changes(column, kept, statistics.num_rows, threshold)
    if column.num_present and kept.num_present:
        drift = statistics.drift.get((column.name,), 0.0)
        found += _unseen(column, kept, threshold) or _level_changes(
            column, given, kept, drift, threshold
        )
    return found


def _gap_changes(
    column: Column, kept: ColumnStatistics, num_rows: int, threshold: float
) -> list[Anomaly]:
    size = len(column.values)
    gaps, before = size - column.num_present, num_rows - kept.num_present
    log_p = two_samples.log_p_proportions(gaps, size, before, num_rows, kept.span_missing)
    if _PART in column.name or log_p >= threshold:
        return []
    message = (
        f"{gaps / size:.2%} of the rows have no value, {before / num_rows:.2%} in the reference "
        f"({_p(log_p)})"
    )
    more = gaps / size - before / num_rows
    rows = np.flatnonzero(column.missing) if more > 0 else ()
    return [Anomaly("MISSING_RATE_CHANGED", column.name, message, rows=rows, share=abs(more))]


def _level_changes(
    column: Column, given: Column, kept: ColumnStatistics, drift: float, threshold: float
) -> list[Anomaly]:
    codes, values = column.codes()
    reference = kept.levels
    if kept.counts is not None:
        there = set(values)
        values = [*values, *(value for value in kept.counts if value not in there)]
        reference = np.zeros(len(values), np.int64)
        reference[_ranks(values, column)] = [kept.counts.get(value, 0) for value in values]
    cells, size = _fine_cells(column, kept, codes, values)
    if kept.counts is None:
        # The reference's counts are about equal by construction, so the levels that are pooled must not
        # depend on the table's counts. Neighbours are joined.
        most = max(min(kept.num_present // 20, column.num_present // 8), 2)
        joined = quantile_levels(reference, most)
        reference, size = np.bincount(joined, reference).astype(np.int64), int(joined[-1]) + 1
        cells = np.append(joined, -1)[cells]
    table = np.bincount(cells[cells >= 0], minlength=size)
    log_p, _, parts = two_samples.chi_square(reference, table, drift)
    if log_p >= threshold:
        return []
    was, now = reference / kept.num_present, table / column.num_present
    worst = int(np.argmax(parts))
    apart = float(np.abs(was - now).sum() / 2)
    some = list(dict.fromkeys(given.examples(cells == worst, 1000)))[:3]
    around = f"around {some[0]!r} are" if some else "of one level are"
    message = (
        f"{apart:.2%} of the {_title(column.name)} lies elsewhere than in the reference ({_p(log_p)}); "
        f"{around} {now[worst]:.2%} instead of {was[worst]:.2%}"
    )
    more = np.append((now > was) & (parts > parts.sum() / len(parts)), False)
    rows = np.flatnonzero(more[cells])  # Missing is −1, the last.
    own = column.name.partition(_PART)[0]
    return [Anomaly("DISTRIBUTION_CHANGED", own, message, examples=some, rows=rows, share=apart)]


def _p(log_p: float) -> str:
    return f"p = 1e{log_p / math.log(10):.0f}"


def _unseen(column: Column, kept: ColumnStatistics, threshold: float) -> list[Anomaly]:
    """Values that the reference does not have, if there are more than its rare ones lead to expect."""
    if kept.counts is None or kept.type in ("TIME", "DURATION") or _PART in column.name:
        return []  # Time goes on, and numbers of many values are left to the levels.
    known = column.num_present
    codes, values = column.codes()
    sizes = np.bincount(codes[codes >= 0], minlength=len(values))
    new = np.array([value not in kept.counts for value in values])
    if sizes[new].sum() <= kept.span_unseen * known:
        return []
    share = known / (known + kept.num_present)
    once_here = int((sizes[new] == 1).sum())
    seen = set(values)
    once_there = sum(n == 1 and value not in seen for value, n in kept.counts.items())
    log_p = two_samples.log_p_binomial(once_here, once_here + once_there, share)
    most = int(sizes[new].max())
    if most > 1:
        # Any value that is not more frequent might have been the one that only the table has.
        rivals = int((sizes[new] >= 2).sum()) + 1 + sum(n <= most for n in kept.counts.values())
        log_p = min(log_p, most * math.log(share) + math.log(rivals))
    if log_p >= threshold:
        return []
    ranked = [values[i] for i in np.argsort(-np.where(new, sizes, 0), kind="stable")[: new.sum()]]
    rows = np.flatnonzero(np.append(new, False)[codes])
    message = f"{new.sum()} values in {len(rows)} rows are not in the reference ({_p(log_p)})"
    share = len(rows) / known
    return [
        Anomaly("UNSEEN_VALUES", column.name, message, examples=ranked[:5], rows=rows, share=share)
    ]


def _pair_changes(
    read: Mapping[str, Column], statistics: Statistics, names: list[str], threshold: float
) -> list[Anomaly]:
    levels = {
        name: _levels_in_pairs(read[name], statistics.columns[name], statistics.num_rows)
        for name in names
    }
    log_p: dict[tuple[str, str], float] = {}
    for pair in itertools.combinations(names, 2):
        (rows, a, height), (columns, b, width) = levels[pair[0]], levels[pair[1]]
        table = _joint((a, height), (b, width)).ravel()
        joined = np.zeros((height, width), np.int64)
        np.add.at(joined, np.ix_(rows, columns), statistics.pairs[pair])
        reference = joined.ravel()
        value = two_samples.chi_square(reference, table, statistics.drift.get(pair, 0.0))[0]
        if not statistics.drift:  # New combinations come with time.
            value = min(value, two_samples.log_p_new_cells(reference, table))
        if value < threshold:
            log_p[pair] = value
    found = []
    while log_p:
        # The column in most of the pairs explains them; a tie goes to the stronger evidence.
        number = Counter(name for pair in log_p for name in pair)
        evidence: Counter[str] = Counter()
        for pair, value in log_p.items():
            evidence.update(dict.fromkeys(pair, min(-value, 1e6)))
        worst = max(number, key=lambda name: (number[name], evidence[name]))
        own = sorted((value, pair) for pair, value in log_p.items() if worst in pair)
        partners = [_title(pair[0] if pair[1] == worst else pair[1]) for _, pair in own]
        message = (
            f"{_title(worst)} no longer goes with {', '.join(partners[:4])}"
            f"{', …' * (len(partners) > 4)} as in the reference ({_p(own[0][0])})"
        )
        column = worst.partition(_PART)[0]
        found.append(Anomaly("ASSOCIATION_CHANGED", column, message, examples=partners))
        log_p = {pair: value for pair, value in log_p.items() if worst not in pair}
    return found


def _row_changes(
    hashes: NDArray[np.uint64], statistics: Statistics, threshold: float
) -> list[Anomaly]:
    rows, reference = len(hashes), statistics.num_rows
    found = []
    again = repeated(hashes)
    copies, multiplicity = statistics.copies
    log_p = two_samples.log_p_repeats(int(again.sum()), copies, multiplicity, rows)
    if log_p < threshold:
        expected = two_samples.expected_repeats(copies, multiplicity, rows)
        message = f"{again.sum()} rows repeat an earlier one, {expected:.1f} are expected"
        where, share = np.flatnonzero(again), again.mean()
        found.append(Anomaly("DUPLICATE_ROWS", None, message, rows=where, share=share))
    sampled = hashes <= statistics.sketch[-1]
    shared = sampled & np.isin(hashes, statistics.sketch)
    # A new row is one of the reference's with the share of those that are not unique (Good and Turing).
    kept = len(statistics.sketch) / multiplicity.sum()
    unique = multiplicity[copies == 1].sum()
    twins = reference - unique + 2  # One pair more than was seen may well exist.
    number, expected = len(np.unique(hashes[shared])), twins / reference * rows * kept
    log_p = two_samples.log_p_negative_binomial(number, expected, twins / 2)
    if log_p < threshold:
        share = shared.sum() / sampled.sum()
        message = (
            f"about {share:.1%} of the rows are the reference's own ({shared.sum()} of a sample)"
        )
        where = np.flatnonzero(shared)
        found.append(Anomaly("SHARED_ROWS", None, message, rows=where, share=share))
    return found
