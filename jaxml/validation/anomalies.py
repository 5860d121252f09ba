"""Kinds of anomalies, with severity and advice. Names are those of TensorFlow Data Validation where it has
them."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Severity = Literal["error", "warning"]

_UNITS = "check units, signs and codes for 'missing'; widen the range if it is real"
_BOOLEAN = "a boolean is 0 or 1"
_DRIFT = "plot both sides: if the world changed, train again; if the pipeline did, repair it"

KINDS: dict[str, tuple[Severity, str]] = {
    # Against a schema.
    "SCHEMA_MISSING_COLUMN": (
        "error",
        "find out why it is no longer delivered; if it is gone for good, take it out of the schema "
        "(or of this environment) and train again",
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
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": (
        "error",
        "look where the values get lost (a failed join, a sensor, one kind of row); if this is how it "
        "is now, lower min_fraction and give the model a missing-value indicator",
    ),
    "FEATURE_TYPE_NOT_PRESENT": ("error", "the column is empty: repair what fills it"),
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": (
        "error",
        "correct what is misspelt (case, spaces); add to the domain what is new and right, or lower "
        "min_domain_mass if new values are to be expected",
    ),
    "ENUM_TYPE_INVALID_UTF8": ("error", "read the file in the encoding it was written in"),
    "INT_TYPE_BIG_INT": ("error", _UNITS),
    "INT_TYPE_SMALL_INT": ("error", _UNITS),
    "FLOAT_TYPE_BIG_FLOAT": ("error", _UNITS),
    "FLOAT_TYPE_SMALL_FLOAT": ("error", _UNITS),
    "BOOL_TYPE_BIG_INT": ("error", _BOOLEAN),
    "BOOL_TYPE_SMALL_INT": ("error", _BOOLEAN),
    "BOOL_TYPE_UNEXPECTED_FLOAT": ("error", _BOOLEAN),
    "DATASET_LOW_NUM_EXAMPLES": ("error", "look for a file cut short or a filter that takes all"),
    # Against another table.
    "COMPARATOR_CONTROL_DATA_MISSING": ("warning", "deliver the column on both sides"),
    "COMPARATOR_L_INFTY_HIGH": ("warning", _DRIFT),
    "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": ("warning", _DRIFT),
    # Below: not in TensorFlow Data Validation. Rows and splits.
    "DUPLICATE_ROWS": ("warning", "keep one of each, unless the same thing did happen twice"),
    "CONFLICTING_LABELS": (
        "warning",
        "label the rows again; if the same features truly lead to both, no model can tell them apart",
    ),
    "SHARED_ROWS": ("error", "take them out of one split: do not evaluate on training rows"),
    "SHARED_GROUPS": ("error", "split by group, so that each is on one side only"),
    "TIME_OVERLAP": ("error", "split by time: train on what came before, evaluate on what follows"),
    "TIME_LEAK": (
        "error",
        "leave the column out, or take the value that was known at the time of prediction",
    ),
    "LABEL_LEAK": ("error", "find out when this column is known; if only afterwards, leave it out"),
    "UNDERREPRESENTED_SLICE": (
        "warning",
        "collect more of this slice, or give the model a missing-value indicator; evaluate by slice",
    ),
    # Against the statistics of a reference.
    "DISTRIBUTION_CHANGED": (
        "warning",
        "compare the values with the reference's: units, codes, filters; or the world has changed",
    ),
    "MISSING_RATE_CHANGED": ("warning", "look where values get lost, or are filled in"),
    "UNSEEN_VALUES": ("warning", "look for values written in another way (case, spaces, encoding)"),
    "ASSOCIATION_CHANGED": (
        "error",
        "look for a join on the wrong key, shifted or swapped rows, or values known only afterwards",
    ),
}
"""Severity and advice of each kind."""


class Anomaly:
    """Something wrong with a table.

    Attributes:
        kind: a key of `KINDS`.
        column: the column at fault, None for the table as a whole.
        description: what was found and what was expected.
        examples: some of the values at fault, the most frequent first.
        rows: int64 [R], numbers (from 0) of the rows at fault; empty if there are none to name.
        share: share of the rows (or of the values present) at fault, in [0, 1].
        severity: `"error"` if the table should not be used as it is, `"warning"` if it should be checked.
            By default that of the kind.
        advice: what to do about it.

    >>> Anomaly("SHARED_ROWS", None, "2 of 8", rows=[3], share=0.25) # doctest: +ELLIPSIS
    error: SHARED_ROWS: 2 of 8 (25% of rows; row 3). Take them out of one split: ...
    """

    def __init__(
        self,
        kind: str,
        column: str | None,
        description: str,
        *,
        examples: Sequence[Any] = (),
        rows: Sequence[int] | NDArray[np.integer] = (),
        share: float = 0.0,
        severity: Severity | None = None,
    ) -> None:
        self.kind, self.column, self.description = kind, column, description
        self.examples = tuple(examples)
        self.rows = np.asarray(rows, np.int64)
        self.share = float(share)
        usual, self.advice = KINDS[kind]
        self.severity = severity or usual

    @property
    def finding(self) -> str:
        """What was found and where, without severity and advice."""
        where = "" if self.column is None else f" in {self.column!r}"
        details = [f"{100 * self.share:.3g}% of rows"] if self.share else []
        if len(self.rows):
            some = ", ".join(map(str, self.rows[:5].tolist()))
            details.append(f"row{'s' * (len(self.rows) > 1)} {some}{', …' * (len(self.rows) > 5)}")
        if self.examples:
            details.append(f"such as {', '.join(map(repr, self.examples[:5]))}")
        tail = f" ({'; '.join(details)})" if details else ""
        return f"{self.kind}{where}: {self.description}{tail}"

    def __repr__(self) -> str:
        advice = self.advice[0].upper() + self.advice[1:]
        return f"{self.severity}: {self.finding}. {advice}."
