"""What one column of a table should hold: its properties, and a first draft of them."""

import dataclasses
import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import checks
from jaxml.validation.columns import Column, is_utf8
from jaxml.validation.drift import Comparator

TYPES = ("BYTES", "INT", "FLOAT", "TIME", "DURATION")


@dataclasses.dataclass(frozen=True, repr=False)
class Feature:
    """What one column should hold.

    Attributes:
        type: `"BYTES"` (text), `"INT"`, `"FLOAT"`, `"TIME"`, `"DURATION"`, or None if it was never seen.
        min_fraction: least share of the rows with a value, in [0, 1].
        min_count: least number of rows with a value; 0 if the column may be absent.
        domain: the texts allowed, or None for any. BYTES only.
        min_domain_mass: least share of the values present that are in the domain or in the range.
        is_bool: whether the values are booleans (or 0 and 1). INT only.
        min: lowest number allowed. INT and FLOAT only.
        max: highest number allowed.
        whole_numbers: whether a FLOAT column held whole numbers and gaps, so that integers are fine too.
        not_in_environment: environments in which the column may be absent.
        drift: thresholds against the previous table.
        skew: thresholds of training against serving data.

    Raises:
        ValueError: for a value that does not fit its attribute, or two that contradict each other.

    >>> Feature("INT", min=5, max=1)
    Traceback (most recent call last):
    ValueError: min must be at most max, got 5 and 1
    """

    type: str | None = None
    min_fraction: float = 0.0
    min_count: int = 0
    domain: tuple[str, ...] | None = None
    min_domain_mass: float = 1.0
    is_bool: bool = False
    min: float | int | None = None
    max: float | int | None = None
    whole_numbers: bool = False
    not_in_environment: tuple[str, ...] = ()
    drift: Comparator | None = None
    skew: Comparator | None = None

    def __post_init__(self) -> None:
        checks.choice("type", self.type, (*TYPES, None))
        checks.number("min_fraction", self.min_fraction, 0, 1)
        checks.number("min_domain_mass", self.min_domain_mass, 0, 1)
        checks.integer("min_count", self.min_count, 0)
        for name in ("is_bool", "whole_numbers"):
            checks.choice(name, getattr(self, name), (True, False))
        for name in ("domain", "not_in_environment"):
            texts = getattr(self, name)
            if texts is not None:
                if not isinstance(texts, Iterable):
                    raise ValueError(f"{name} must hold texts, got {texts!r}")
                texts = (texts,) if isinstance(texts, str) else tuple(texts)
                for text in texts:
                    if not isinstance(text, str):
                        raise ValueError(f"{name} must hold texts, got {text!r}")
                object.__setattr__(self, name, texts)
        for name in ("min", "max"):
            bound = getattr(self, name)
            number = isinstance(bound, int | float) and not isinstance(bound, bool)
            if bound is not None and not (number and bound == bound):
                raise ValueError(f"{name} must be a number, got {bound!r}")
        for name in ("drift", "skew"):
            if not isinstance(getattr(self, name), Comparator | None):
                raise ValueError(f"{name} must be a Comparator, got {getattr(self, name)!r}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must be at most max, got {self.min} and {self.max}")
        if self.domain is not None and self.type != "BYTES":
            raise ValueError(f"domain must be None for the type {self.type}, got {self.domain}")
        if self.is_bool and self.type != "INT":
            raise ValueError(f"type must be INT for booleans, got {self.type}")
        ranged = self.min is not None or self.max is not None
        if ranged and (self.is_bool or self.type not in ("INT", "FLOAT")):
            kind = "booleans" if self.is_bool else f"the type {self.type}"
            raise ValueError(f"min and max must be None for {kind}, got {self.min} and {self.max}")

    def __repr__(self) -> str:
        fields = [(field, getattr(self, field.name)) for field in dataclasses.fields(self)]
        given = [f"{field.name}={value!r:.60}" for field, value in fields if value != field.default]
        return f"Feature({', '.join(given)})"


# A drafted bound lies this many times the distance between the largest and the eleventh largest value
# beyond the largest.
_WIDENING = 5
# Distinct values that decide whether integers end where they end.
_LAST = 4
# With fewer rows a domain or range is drafted as it stands: nothing can be known of values not seen.
_FEW_ROWS = 20
# Another value as frequent as one seen so often would have been missed with a probability of e⁻⁵.
_SURE = 5


def infer_feature(column: Column, max_domain: int, min_domain_mass: float) -> Feature:
    """Returns the draft for one column, see `schema.infer_schema`."""
    known, rows = column.known(), len(column.values)
    found: dict[str, Any] = {"type": column.type, "min_count": min(len(known), 1)}
    if not len(known):
        return Feature(**found)
    share = 1 - len(known) / rows
    slack = 2 * share + 3 * math.sqrt(share * (1 - share) / rows)
    found["min_fraction"] = math.floor(1000 * max(0.0, 1 - slack)) / 1000
    if column.is_bool:
        found["is_bool"] = True
    elif column.type in ("INT", "FLOAT"):
        found["min"], found["max"] = _range(known, column.type == "INT")
        found["whole_numbers"] = column.type == "FLOAT" and share > 0 and column.is_whole()
    elif column.is_text:
        codes, distinct = column.codes()
        closed = rows < _FEW_ROWS or _is_closed(np.bincount(codes[codes >= 0]))
        if len(distinct) <= max_domain and closed:
            found["domain"] = tuple(sorted(filter(is_utf8, distinct)))
    if any(found.get(name) is not None for name in ("domain", "min", "max")):
        found["min_domain_mass"] = min_domain_mass
    return Feature(**found)


def _is_closed(counts: NDArray[np.int64]) -> bool:
    """Returns whether no other values are to come (Good and Turing): none of the rare ones, of which there
    are none or several, was seen just once."""
    rare = counts[counts < _SURE]
    return not len(rare) or bool(rare.min() > 1 and len(rare) >= _SURE)


def _range(known: NDArray[Any], whole: bool) -> tuple[Any, Any]:
    """Returns the bounds, None where the values go to infinity."""
    finite = np.sort(known if whole else known[np.isfinite(known)])
    if not len(finite):
        return None, None
    distinct, counts = np.unique(finite, return_counts=True)
    k = 11 if len(finite) >= _FEW_ROWS else 1
    # As Python's numbers: differences of int64 extremes overflow int64.
    high = _upper(finite[-k:].tolist(), distinct[-_LAST:].tolist(), counts[-_LAST:], whole)
    lowest, smallest = (
        list(map(operator.neg, end[::-1].tolist())) for end in (finite[:k], distinct[:_LAST])
    )
    low = 0 - _upper(lowest, smallest, counts[:_LAST][::-1], whole)
    open_below, open_above = (not whole and infinity in known for infinity in (-np.inf, np.inf))
    return None if open_below else low, None if open_above else high


def _upper(end: list[Any], distinct: list[Any], counts: NDArray[np.int64], whole: bool) -> Any:
    """Returns the last of the end, moved outwards by `_WIDENING` times its distance to the first.

    The spacings of the k + 1 largest of an exponential tail are independent, E_j / j; as many fresh draws
    pass the bound with a probability of about Π_j j / (j + 5): 1 in 3,003 for k = 10, and 1 in 100 for a
    heavier tail, the lognormal's.
    """
    extreme, wide = end[-1], _WIDENING * (end[-1] - end[0])
    if wide == 0 or (whole and _stops(distinct, counts)):
        return extreme
    bound = extreme + wide
    if not whole:
        if not math.isfinite(bound) or wide < 1e-298:
            return extreme
        bound = round(bound, 1 - math.floor(math.log10(wide)))
    # A column that was never positive does not become so.
    return min(bound, type(bound)(0)) if extreme <= 0 else bound


def _stops(distinct: list[int], counts: NDArray[np.int64]) -> bool:
    """Returns whether integers end where they end: 1 … 12, 0 … 99, but not counts of a rare event.

    The last values follow each other in steps of one, each seen five times or more on average, and the
    last is not far rarer than those before it.
    """
    if distinct[-1] - distinct[0] != len(distinct) - 1:
        return False
    before = counts[:-1].mean() if len(counts) > 1 else 0
    return bool(counts.mean() >= _SURE and counts[-1] >= before / 3)
