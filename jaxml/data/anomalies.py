"""What is wrong with a table, by the names of TensorFlow Data Validation, and what to do about it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Severity = Literal["error", "warning"]

KINDS: dict[str, tuple[Severity, str]] = {
    # Columns and their types.
    "SCHEMA_MISSING_COLUMN": (
        "error",
        "find out why it is no longer delivered; if it is gone for good, take it out of the schema "
        "(or of this environment) and train anew",
    ),
    "SCHEMA_NEW_COLUMN": (
        "warning",
        "describe it in the schema if it is meant to be there; check that it does not hold the answer",
    ),
    "UNEXPECTED_DATA_TYPE": (
        "error",
        "convert it where the table is made; if the new type is right, change the schema",
    ),
    "INVALID_FEATURE_SHAPE": ("error", "give one value a row; split vectors into columns"),
    "FEATURE_MISSING_NAME": ("error", "name the feature in the schema"),
    "FEATURE_MISSING_TYPE": ("error", "give the feature a type in the schema"),
    "DOMAIN_INVALID_FOR_TYPE": ("error", "correct the schema: this domain belongs to another type"),
    "INVALID_DOMAIN_SPECIFICATION": ("error", "correct the domain in the schema"),
    "INVALID_SCHEMA_SPECIFICATION": ("error", "correct the schema"),
    # Presence and distinct values.
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": (
        "error",
        "look where the values get lost (a failed join, a sensor, one kind of row); if this is how it "
        "is now, lower min_fraction and let the model know what is missing",
    ),
    "FEATURE_TYPE_LOW_NUMBER_PRESENT": (
        "error",
        "look where the values get lost, or lower min_count",
    ),
    "FEATURE_TYPE_NOT_PRESENT": ("error", "the column is there and empty: mend what fills it"),
    "FEATURE_TYPE_HIGH_UNIQUE": (
        "error",
        "look for values written in several ways, or for an identifier in place of a category",
    ),
    "FEATURE_TYPE_LOW_UNIQUE": ("error", "look for a filter, a default value or a stuck source"),
    "FEATURE_TYPE_NO_UNIQUE": (
        "error",
        "distinct values are counted for text and integers: take unique_min and unique_max off",
    ),
    # Values.
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": (
        "error",
        "correct what is misspelt (case, spaces); add to the domain what is new and right, or lower "
        "min_domain_mass if new values are to be expected",
    ),
    "ENUM_TYPE_INVALID_UTF8": ("error", "read the file in the encoding it was written in"),
    "INT_TYPE_BIG_INT": ("error", "check units and codes for 'missing'; widen max if it is real"),
    "INT_TYPE_SMALL_INT": ("error", "check signs and codes for 'missing'; lower min if it is real"),
    "INT_TYPE_NOT_INT_STRING": ("error", "find the rows whose text is no integer"),
    "FLOAT_TYPE_BIG_FLOAT": (
        "error",
        "check units and codes for 'missing'; widen max if it is real",
    ),
    "FLOAT_TYPE_SMALL_FLOAT": (
        "error",
        "check signs and codes for 'missing'; lower min if it is real",
    ),
    "FLOAT_TYPE_STRING_NOT_FLOAT": ("error", "find the rows whose text is no number"),
    "FLOAT_TYPE_HAS_NAN": ("error", "find the division or join that makes NaN"),
    "FLOAT_TYPE_HAS_INF": ("error", "find the division or logarithm that makes infinity"),
    "BOOL_TYPE_BIG_INT": ("error", "a boolean is 0 or 1"),
    "BOOL_TYPE_SMALL_INT": ("error", "a boolean is 0 or 1"),
    "BOOL_TYPE_UNEXPECTED_STRING": ("error", "a boolean is written 'true' or 'false'"),
    "BOOL_TYPE_UNEXPECTED_FLOAT": ("error", "a boolean is 0 or 1, and never NaN"),
    "BOOL_TYPE_INVALID_CONFIG": (
        "error",
        "correct the schema: a boolean needs no other domain and no range",
    ),
    # The table as a whole.
    "DATASET_LOW_NUM_EXAMPLES": ("error", "look for a file cut short or a filter that takes all"),
    "DATASET_HIGH_NUM_EXAMPLES": ("error", "look for a file read twice or a join that multiplies"),
    # Against another table.
    "COMPARATOR_CONTROL_DATA_MISSING": (
        "warning",
        "there is nothing to compare it with: deliver the column on both sides",
    ),
    "COMPARATOR_L_INFTY_HIGH": (
        "warning",
        "look at the value named: is it the world that changed (train anew) or the pipeline (mend it)?",
    ),
    "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": (
        "warning",
        "plot both histograms: is it the world that changed (train anew) or the pipeline (mend it)?",
    ),
    "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH": (
        "warning",
        "look at the value named, and at how many rows each side has",
    ),
    "COMPARATOR_LOW_NUM_EXAMPLES": ("warning", "look for a source that delivers less than before"),
    "COMPARATOR_HIGH_NUM_EXAMPLES": ("warning", "look for rows delivered twice"),
    # Not of TensorFlow Data Validation.
    "COMPARATOR_POPULATION_STABILITY_INDEX_HIGH": (
        "warning",
        "look at the values named: is it the world that changed (train anew) or the pipeline (mend it)?",
    ),
    "COMPARATOR_KOLMOGOROV_SMIRNOV_HIGH": (
        "warning",
        "plot both histograms: is it the world that changed (train anew) or the pipeline (mend it)?",
    ),
    "DUPLICATE_ROWS": ("warning", "keep one of each, unless the same thing did happen twice"),
    "CONFLICTING_LABELS": (
        "warning",
        "have the rows labelled again; if the same features truly lead to both, no model can tell",
    ),
    "SHARED_ROWS": (
        "error",
        "take them out of one split: what was trained on must not be judged on",
    ),
    "SHARED_GROUPS": ("error", "split by group, so that each is on one side only"),
    "TIME_OVERLAP": ("error", "cut by time: train on what came before, judge on what comes after"),
    "TIME_LEAK": (
        "error",
        "leave the column out, or take the value that was known at the time of prediction",
    ),
    "LABEL_LEAK": ("error", "find out when this column is known; if only afterwards, leave it out"),
    "UNDERREPRESENTED_SLICE": (
        "warning",
        "collect more of this slice, or tell the model what is missing; judge it by slice",
    ),
    "DISTRIBUTION_CHANGED": (
        "warning",
        "compare the values with the reference's: units, codes, filters; or the world has changed",
    ),
    "MISSING_RATE_CHANGED": ("warning", "look where values get lost, or are filled in"),
    "UNSEEN_VALUES": ("warning", "look for values written in another way (case, spaces, encoding)"),
    "ASSOCIATION_CHANGED": (
        "error",
        "the column no longer goes with the others as it did: look for a join on the wrong key, "
        "shifted or swapped rows, or values known only afterwards",
    ),
}
"""Every kind there is: its severity, and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Anomaly:
    """Something in a table that is not as it should be.

    Attributes:
        kind: of `KINDS`; up to "Not of TensorFlow Data Validation" its names and conditions.
        column: the column at fault, None for the table as a whole.
        description: what was found and what was wanted, in words.
        examples: some of the values at fault, the most frequent first.
        rows: int64 [R], the numbers (from 0) of the rows at fault; empty if none can be named.
        share: of the rows (or of the values present) that are at fault, in [0, 1].
        severity: `"error"` if the table should not be used as it is, `"warning"` if it should be looked
            at.
        advice: what to do.

    Example:
        >>> print(anomaly("SHARED_ROWS", None, "2 rows", rows=[3, 5], share=0.25).description)
        2 rows
    """

    kind: str
    column: str | None
    description: str = ""
    examples: tuple[Any, ...] = ()
    rows: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    share: float = 0.0
    severity: Severity = "error"
    advice: str = ""

    def __str__(self) -> str:
        where = "" if self.column is None else f" in {self.column!r}"
        told = [f"{100 * self.share:.3g}% of rows"] if self.share else []
        if len(self.rows):
            some = ", ".join(map(str, self.rows[:5].tolist()))
            told.append(f"row{'s' * (len(self.rows) > 1)} {some}{', …' * (len(self.rows) > 5)}")
        if self.examples:
            some = ", ".join(map(repr, self.examples[:5]))
            told.append(f"such as {some}")
        tail = f" ({'; '.join(told)})" if told else ""
        advice = f". {self.advice[0].upper()}{self.advice[1:]}." if self.advice else "."
        description = f": {self.description}" if self.description else ""
        return f"{self.severity}: {self.kind}{where}{description}{tail}{advice}"


def anomaly(
    kind: str,
    column: str | None,
    description: str,
    *,
    examples: Sequence[Any] = (),
    rows: Sequence[int] | NDArray[np.integer] = (),
    share: float = 0.0,
    severity: Severity | None = None,
) -> Anomaly:
    """An `Anomaly` with the severity and the advice of its kind.

    Args:
        kind: of `KINDS`.
        column: None for the table as a whole.
        description: what was found and what was wanted.
        examples: values at fault.
        rows: rows at fault.
        share: of the rows at fault.
        severity: None for the kind's own.

    Raises:
        ValueError: for a kind that there is not.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of KINDS, got {kind!r}")
    own, advice = KINDS[kind]
    return Anomaly(
        kind,
        column,
        description,
        tuple(examples),
        np.asarray(rows, np.int64),
        float(share),
        severity or own,
        advice,
    )
