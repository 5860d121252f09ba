"""Checks of one column against its feature, with the rows at fault."""

import math
import re
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml.validation.anomalies import Anomaly, Severity
from jaxml.validation.columns import Column, is_utf8, plain
from jaxml.validation.feature import Feature

# Floats may pass a bound by this much of it, and by the smallest number: the same table in float32 is not
# an anomaly.
_FLOAT32, _SMALLEST = 2.0**-23, 2.0**-126


def check_feature(column: Column, feature: Feature) -> list[Anomaly]:
    """Returns anomalies of presence, of type, and of values out of the domain or range.

    >>> from jaxml.validation.columns import read_column
    >>> [each.rows.tolist() for each in check_feature(read_column("n", [1, 9]), Feature("INT", max=5))]
    [[1]]
    """
    found = _check_presence(column, feature)
    if not column.num_present or feature.type is None:
        return found
    found += _check_type(column, feature)
    if column.type == feature.type == "BYTES":
        found += _check_texts(column, feature)
    elif column.type in ("INT", "FLOAT") and feature.type in ("INT", "FLOAT"):
        found += _check_numbers(column, feature)
    return found


def _check_presence(column: Column, feature: Feature) -> list[Anomaly]:
    rows, present = len(column.values), column.num_present
    if present >= feature.min_count and present / rows >= feature.min_fraction:
        return []
    missing = np.flatnonzero(column.missing)
    share = len(missing) / rows
    found = []
    if present < feature.min_count:
        message = f"{present} of {rows} rows have a value, should be at least {feature.min_count}"
        found.append(("FEATURE_TYPE_NOT_PRESENT", message))
    if present / rows < feature.min_fraction:
        message = (
            f"{present / rows:.4g} of the rows have a value, should be {feature.min_fraction:.4g}"
        )
        found.append(("FEATURE_TYPE_LOW_FRACTION_PRESENT", message))
    return [Anomaly(kind, column.name, text, rows=missing, share=share) for kind, text in found]


def _check_type(column: Column, feature: Feature) -> list[Anomaly]:
    got = "booleans" if column.is_bool else column.type
    message = f"{feature.type} is wanted, got {got}"
    severity: Severity = "error"
    bad = column.present
    if column.type == feature.type:
        if not column.is_bool or feature.is_bool:
            return []
        severity = "warning"
    elif feature.type == "INT" and column.type == "FLOAT":
        whole = column.is_whole()
        if whole and column.missing.any():
            return []  # Integers with gaps, for which NumPy has no other dtype.
        if not whole:
            with np.errstate(invalid="ignore"):
                bad = bad & (column.values % 1 != 0)
            message += f", {bad.sum()} of {column.num_present} values not whole"
    elif feature.type == "FLOAT" and column.type == "INT":
        if feature.whole_numbers and not column.is_bool:
            return []
        message, severity = f"{message}: decimals may have been cut off", "warning"
    elif column.type == "MIXED":
        fine = {feature.type, "INT" if feature.type == "FLOAT" else None, "BOOL" * feature.is_bool}
        kinds = column.kinds()
        bad = bad & np.array([kind not in fine for kind in kinds])
        others = sorted({str(kind) for kind, odd in zip(kinds, bad, strict=True) if odd})
        message = (
            f"{feature.type} is wanted, got {', '.join(others) or 'times in several zones'} too"
        )
    elif feature.type in ("INT", "FLOAT") and column.is_text:
        codes, distinct = column.codes()
        pattern = r"[+-]?\d+" if feature.type == "INT" else r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
        spelt = np.array([bool(re.fullmatch(pattern, text, re.IGNORECASE)) for text in distinct])
        if spelt.any() and not spelt.all():
            bad = bad & ~spelt[codes]
            message += f", {bad.sum()} of {column.num_present} are not the text of one"
    return [_of_values("UNEXPECTED_DATA_TYPE", column, bad, message, severity)]


def _check_numbers(column: Column, feature: Feature) -> list[Anomaly]:
    values = column.values.astype(np.int64) if column.is_bool else column.values
    low, high = (0, 1) if feature.is_bool else (feature.min, feature.max)
    if feature.is_bool and column.type == "FLOAT":
        odd = (values != 0) & (values != 1)
        return _outside("BOOL_TYPE_UNEXPECTED_FLOAT", column, feature, odd, "neither 0 nor 1")
    kind = "BOOL_TYPE_{}_INT" if feature.is_bool else f"{feature.type}_TYPE_{{}}_{feature.type}"
    found = []
    if high is not None:
        odd = values > _beyond(values, high, feature.type, 1)
        found += _outside(kind.format("BIG"), column, feature, odd, f"above {high}")
    if low is not None:
        odd = values < _beyond(values, low, feature.type, -1)
        found += _outside(kind.format("SMALL"), column, feature, odd, f"below {low}")
    return found


def _beyond(values: NDArray[Any], bound: float, type_: str | None, sign: int) -> float:
    """Returns a bound that NumPy compares with exactly: integers of any size, but only with integers."""
    if values.dtype.kind == "f" or type_ == "FLOAT":
        try:
            bound = float(bound)
        except OverflowError:
            bound = math.inf if bound > 0 else -math.inf
    if values.dtype.kind != "f" or not math.isfinite(bound):
        return bound
    return bound + sign * (_FLOAT32 * abs(bound) + _SMALLEST)


def _check_texts(column: Column, feature: Feature) -> list[Anomaly]:
    codes, distinct = column.codes()
    broken = np.array([not is_utf8(text) for text in distinct])
    found = []
    if broken.any():
        bad = broken[codes] & column.present
        message = f"{bad.sum()} of {column.num_present} values are not UTF-8"
        found.append(_of_values("ENUM_TYPE_INVALID_UTF8", column, bad, message))
    if feature.domain is not None:
        domain = set(feature.domain)
        odd = np.array([text not in domain for text in distinct]) & ~broken
        message = f"not in the domain of {len(domain)} ({odd.sum()} new)"
        kind = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"
        found += _outside(kind, column, feature, odd[codes], message)
    return found


def _outside(
    kind: str, column: Column, feature: Feature, odd: NDArray[np.bool_], message: str
) -> list[Anomaly]:
    """Returns an anomaly if less than `min_domain_mass` of the values are inside."""
    if not odd.any():
        return []
    odd = odd & column.present
    if not odd.any() or 1 - odd.sum() / column.num_present >= feature.min_domain_mass:
        return []
    return [
        _of_values(kind, column, odd, f"{odd.sum()} of {column.num_present} values are {message}")
    ]


def _of_values(
    kind: str,
    column: Column,
    bad: NDArray[np.bool_],
    message: str,
    severity: Severity | None = None,
) -> Anomaly:
    return Anomaly(
        kind,
        column.name,
        message,
        examples=some_values(column.values[bad]),
        rows=np.flatnonzero(bad),
        share=bad.sum() / column.num_present,
        severity=severity,
    )


def some_values(values: NDArray[Any], most: int = 5) -> tuple[Any, ...]:
    """Returns a few distinct values, the most frequent first, as plain Python objects."""
    listed = plain(values[:100_000])
    try:
        counts: Counter[Any] = Counter(listed)
    except TypeError:  # A list or another thing without a hash.
        counts = Counter(map(repr, listed))
    return tuple(value for value, _ in counts.most_common(most))
