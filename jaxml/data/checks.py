"""What of a column's values is not as its feature wants them, value by value, with the rows."""

import math
import re
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaxml.data.anomalies import Anomaly, anomaly
from jaxml.data.columns import Column, is_utf8
from jaxml.data.feature import Feature


def check_feature(column: Column, feature: Feature) -> list[Anomaly]:
    """What of the values is not as wanted: presence, type, domain or range, distinct values.

    Args:
        column: read, with at least one row.
        feature: what it should hold, of bounds that can be compared with (`feature.with_numbers`).

    Returns:
        Anomalies with the rows at fault, those of presence first.

    Example:
        >>> from jaxml.data.columns import read_column
        >>> [a.rows.tolist() for a in check_feature(read_column("n", [1, 9]), Feature("INT", max=5))]
        [[1]]
    """
    found = _check_presence(column, feature)
    known_rows = np.flatnonzero(column.present)
    if not len(known_rows):
        return found
    if feature.type is None:  # Never seen before: nothing is known of its values.
        return found
    wrong_type = _check_type(column, feature)
    found += wrong_type
    values = column.known()
    if column.type == "MIXED" or (wrong_type and column.type == "BYTES"):
        # Texts among (or for) numbers are read, so that the report says which ones do not spell any.
        number = feature.type if feature.type in ("INT", "FLOAT") else None
        if feature.is_bool:
            found += _check_bool(column, feature, known_rows)
        elif number is not None:
            found += _check_spelling(column, number, feature, known_rows)
        elif column.type == "MIXED" and feature.type == "BYTES":
            found += _check_texts(column, feature, known_rows)
    elif feature.is_bool:
        found += _check_bool(column, feature, known_rows)
    elif column.type == "BYTES":
        found += _check_texts(column, feature, known_rows)
        if feature.number is not None:
            found += _check_spelling(column, feature.number, feature, known_rows)
    elif column.type in ("INT", "FLOAT") and feature.type in ("INT", "FLOAT"):
        found += _check_numbers(column, values, feature, known_rows)
    found += _check_unique(column, feature)
    return found


def _check_presence(column: Column, feature: Feature) -> list[Anomaly]:
    rows, present = len(column.values), column.num_present
    found = []
    missing = np.flatnonzero(~column.present)
    share = len(missing) / rows

    def low(kind: str, told: str) -> None:
        found.append(anomaly(kind, column.name, told, rows=missing, share=share))

    if present == 0 and (feature.min_count > 0 or feature.min_fraction > 0):
        low("FEATURE_TYPE_NOT_PRESENT", f"none of {rows} rows has a value")
    if present / rows < feature.min_fraction:
        told = f"{present / rows:.4g} of the rows have a value, at least {feature.min_fraction:.4g} should"
        low("FEATURE_TYPE_LOW_FRACTION_PRESENT", told)
    if 0 < present < feature.min_count:
        told = f"{present} rows have a value, at least {feature.min_count} should"
        low("FEATURE_TYPE_LOW_NUMBER_PRESENT", told)
    if feature.disallow_nan and column.nan is not None and column.nan.any():
        found.append(
            anomaly(
                "BOOL_TYPE_UNEXPECTED_FLOAT" if feature.is_bool else "FLOAT_TYPE_HAS_NAN",
                column.name,
                f"{column.num_nan} values are NaN, none should be",
                examples=[math.nan],
                rows=np.flatnonzero(column.nan),
                share=column.num_nan / rows,
            )
        )
    return found


def _check_type(column: Column, feature: Feature) -> list[Anomaly]:
    if column.type == feature.type:
        if feature.type == "INT" and column.is_bool and not feature.is_bool:
            told = "INT is wanted, got booleans"
            return [_whole_column("UNEXPECTED_DATA_TYPE", column, told, "warning")]
        return []
    if feature.type == "INT" and column.type == "FLOAT":
        if column.num_present < len(column.values) and column.is_whole():
            return []  # Integers with gaps.
        values = column.known()
        with np.errstate(invalid="ignore"):
            broken = ~(values % 1 == 0)
        rows = np.flatnonzero(column.present)
        if not broken.any():
            return [_whole_column("UNEXPECTED_DATA_TYPE", column, "INT is wanted, got FLOAT")]
        return [
            anomaly(
                "UNEXPECTED_DATA_TYPE",
                column.name,
                f"INT is wanted, got FLOAT, {broken.sum()} of {len(values)} values not whole",
                examples=some_values(values[broken]),
                rows=rows[broken],
                share=broken.mean(),
            )
        ]
    if feature.type == "FLOAT" and column.type == "INT":
        if feature.whole_numbers and not column.is_bool:
            return []
        got = "booleans" if column.is_bool else "INT"
        told = f"FLOAT is wanted, got {got}: decimals may have been cut off"
        return [_whole_column("UNEXPECTED_DATA_TYPE", column, told, "warning")]
    if column.type == "MIXED":
        assert column.kinds is not None
        fine = {feature.type, "INT" if feature.type == "FLOAT" else "", "BOOL" * feature.is_bool}
        rows = np.array(
            [r for r in np.flatnonzero(column.present).tolist() if column.kinds[r] not in fine],
            np.int64,
        )
        got = ", ".join(sorted(set(column.kinds[rows].tolist()))) or "values of several forms"
        return [
            anomaly(
                "UNEXPECTED_DATA_TYPE",
                column.name,
                f"{feature.type} is wanted, got {got} among them",
                examples=some_values(column.values[rows]),
                rows=rows,
                share=len(rows) / max(column.num_present, 1),
            )
        ]
    told = f"{feature.type} is wanted, got {column.type}"
    return [_whole_column("UNEXPECTED_DATA_TYPE", column, told)]


def _whole_column(
    kind: str, column: Column, told: str, severity: Literal["error", "warning"] | None = None
) -> Anomaly:
    rows = np.flatnonzero(column.present)
    return anomaly(
        kind,
        column.name,
        told,
        examples=some_values(column.values[rows[:100]]),
        rows=rows,
        share=1.0,
        severity=severity,
    )


def some_values(values: Iterable[Any], most: int = 5) -> tuple[Any, ...]:
    """A few distinct values, the most frequent first, as plain Python objects."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    counts: dict[Any, int] = {}
    for value in listed[:100_000]:
        try:
            counts[value] = counts.get(value, 0) + 1
        except TypeError:  # A list or another thing without a hash.
            counts[repr(value)] = counts.get(repr(value), 0) + 1
    return tuple(sorted(counts, key=lambda value: -counts[value])[:most])


def _check_bool(column: Column, feature: Feature, rows: NDArray[np.int64]) -> list[Anomaly]:
    values = column.known()
    checks: list[tuple[str, Any, str]] = []
    if column.type == "INT" and not column.is_bool:
        checks = [
            ("BOOL_TYPE_BIG_INT", values > 1, "above 1"),
            ("BOOL_TYPE_SMALL_INT", values < 0, "below 0"),
        ]
    elif column.type == "FLOAT":
        checks = [("BOOL_TYPE_UNEXPECTED_FLOAT", (values != 0) & (values != 1), "neither 0 nor 1")]
    elif column.type in ("BYTES", "MIXED"):
        fine = (
            {"true", "false", "0", "1", "0.0", "1.0"}
            if column.type == "MIXED"
            else {"true", "false"}
        )
        odd = np.array([str(value).lower() not in fine for value in values.tolist()], bool)
        checks = [("BOOL_TYPE_UNEXPECTED_STRING", odd, "neither 'true' nor 'false'")]
    return _out_of_bounds(column, values, rows, checks)


def _out_of_bounds(
    column: Column,
    values: NDArray[Any],
    rows: NDArray[np.int64],
    checks: Iterable[tuple[str, Any, str]],
    least: float = 1.0,
) -> list[Anomaly]:
    """An anomaly for each check that some values fail; out of a range may lie 1 − `least` of them."""
    found = []
    for kind, bad, told in checks:
        bad = np.asarray(bad, bool)
        bounded = kind.endswith(("_BIG_INT", "_SMALL_INT", "_BIG_FLOAT", "_SMALL_FLOAT"))
        if bad.any() and not (bounded and np.mean(~bad) >= least):
            found.append(
                anomaly(
                    kind,
                    column.name,
                    f"{bad.sum()} of {len(values)} values are {told}",
                    examples=some_values(values[bad]),
                    rows=rows[bad],
                    share=bad.mean(),
                )
            )
    return found


def _check_numbers(
    column: Column, values: NDArray[Any], feature: Feature, rows: NDArray[np.int64]
) -> list[Anomaly]:
    whole = feature.type == "INT"
    big, small = (
        ("INT_TYPE_BIG_INT", "INT_TYPE_SMALL_INT")
        if whole
        else ("FLOAT_TYPE_BIG_FLOAT", "FLOAT_TYPE_SMALL_FLOAT")
    )
    finite: Any = np.isfinite(values) if values.dtype.kind == "f" else True
    checks: list[tuple[str, Any, str]] = []
    # An infinity is out of every range, and is told as what it is where that is forbidden.
    ranged = finite if feature.disallow_inf else True
    if feature.max is not None:
        checks.append((big, _above(values, feature.max) & ranged, f"above {feature.max}"))
    if feature.min is not None:
        checks.append((small, _below(values, feature.min) & ranged, f"below {feature.min}"))
    if feature.disallow_inf and values.dtype.kind == "f":
        checks.append(("FLOAT_TYPE_HAS_INF", ~finite, "infinite"))
    return _out_of_bounds(column, values, rows, checks, feature.min_domain_mass)


def _above(values: NDArray[Any], bound: float) -> NDArray[np.bool_]:
    return np.asarray(values > _comparable(values, bound), bool)


def _below(values: NDArray[Any], bound: float) -> NDArray[np.bool_]:
    return np.asarray(values < _comparable(values, bound), bool)


def _comparable(values: NDArray[Any], bound: float) -> float:
    """A bound that NumPy compares with exactly: with integers it does so of any size, not with others."""
    if values.dtype.kind in "iuO" or not isinstance(bound, int):
        return bound
    if values.dtype.kind == "b":
        return min(max(bound, -1), 2)
    return float(bound) if abs(bound) < 2**1023 else math.inf if bound > 0 else -math.inf


def _check_spelling(
    column: Column, number: str, feature: Feature, rows: NDArray[np.int64]
) -> list[Anomaly]:
    """Values as texts that should spell numbers: which do not, and which are out of range."""
    parse = _parse_int if number == "INT" else _parse_float
    listed = column.known().tolist()
    parsed: dict[Any, float | None] = {}
    for value in listed:
        key = value if isinstance(value, str) else repr(value)
        if key not in parsed:
            text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            parsed[key] = parse(text)
    numbers = [parsed[v if isinstance(v, str) else repr(v)] for v in listed]
    values = np.empty(len(listed), object)
    values[:] = listed
    kind = "INT_TYPE_NOT_INT_STRING" if number == "INT" else "FLOAT_TYPE_STRING_NOT_FLOAT"
    told = "not the text of an integer" if number == "INT" else "not the text of a number"
    checks: list[tuple[str, Any, str]] = [(kind, [n is None for n in numbers], told)]
    if feature.max is not None:
        big = "INT_TYPE_BIG_INT" if number == "INT" else "FLOAT_TYPE_BIG_FLOAT"
        high = feature.max
        checks.append((big, [n is not None and n > high for n in numbers], f"above {high}"))
    if feature.min is not None:
        small = "INT_TYPE_SMALL_INT" if number == "INT" else "FLOAT_TYPE_SMALL_FLOAT"
        low = feature.min
        checks.append((small, [n is not None and n < low for n in numbers], f"below {low}"))
    return _out_of_bounds(column, values, rows, checks, feature.min_domain_mass)


def _parse_int(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,4000}", text) else None


def _parse_float(text: str) -> float | None:
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _check_texts(column: Column, feature: Feature, rows: NDArray[np.int64]) -> list[Anomaly]:
    found: list[Anomaly] = []
    listed = column.known().tolist()
    texts = {value for value in listed if isinstance(value, str)}
    broken = {text for text in texts if not is_utf8(text)}
    allowed = texts if feature.domain is None else set(feature.domain)
    odd = texts - allowed - broken
    values = column.known()
    if broken:
        bad = np.fromiter(
            (isinstance(value, str) and value in broken for value in listed), bool, len(listed)
        )
        checks = [("ENUM_TYPE_INVALID_UTF8", bad, "no valid UTF-8")]
        found += _out_of_bounds(column, values, rows, checks)
    if odd:
        bad = np.fromiter(
            (isinstance(value, str) and value in odd for value in listed), bool, len(listed)
        )
        if np.mean(~bad) < feature.min_domain_mass:
            told = f"not in the domain of {len(allowed)} ({len(odd)} new)"
            checks = [("ENUM_TYPE_UNEXPECTED_STRING_VALUES", bad, told)]
            found += _out_of_bounds(column, values, rows, checks)
    return found


def _check_unique(column: Column, feature: Feature) -> list[Anomaly]:
    low, high = feature.unique_min, feature.unique_max
    if low is None and high is None:
        return []
    if column.type not in ("BYTES", "INT"):
        told = f"distinct values are counted for text and integers, this is {column.type}"
        return [anomaly("FEATURE_TYPE_NO_UNIQUE", column.name, told)]
    codes, distinct = column.codes()
    number = len(distinct)
    if low is not None and number < low:
        told = f"{number} distinct values, at least {low} are wanted"
        return [_whole_column("FEATURE_TYPE_LOW_UNIQUE", column, told)]
    if high is not None and number > high:
        told = f"{number} distinct values, at most {high} are wanted"
        # At fault are the rarest ones, as many as there are too many.
        counts = np.bincount(codes[codes >= 0], minlength=number)
        surplus = np.zeros(number, bool)
        surplus[np.argsort(-counts, kind="stable")[max(high, 0) :]] = True
        odd = surplus[codes] & (codes >= 0)
        return [
            anomaly(
                "FEATURE_TYPE_HIGH_UNIQUE",
                column.name,
                told,
                examples=some_values(column.values[odd]),
                rows=np.flatnonzero(odd),
                share=odd.sum() / column.num_present,
            )
        ]
    return []


def unreadable(name: str, array: NDArray[Any]) -> Anomaly:
    """The anomaly of an array that is no column at all, for its shape or for what it holds."""
    if array.ndim != 1:
        told = f"one value a row is wanted, got an array of shape {array.shape}"
        return anomaly("INVALID_FEATURE_SHAPE", name, told, share=1.0)
    told = f"numbers, text or times are wanted, got {array.dtype}"
    rows, some = np.arange(len(array)), some_values(array[:100])
    return anomaly("UNEXPECTED_DATA_TYPE", name, told, examples=some, rows=rows, share=1.0)
