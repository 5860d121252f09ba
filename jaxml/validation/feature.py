"""What one column of a table should hold."""

import dataclasses
from typing import Any

from jaxml import checks
from jaxml.validation.drift import Comparator

TYPES = ("BYTES", "INT", "FLOAT", "TIME", "DURATION")


@dataclasses.dataclass(frozen=True)
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
        for name in ("domain", "not_in_environment"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for name in ("is_bool", "whole_numbers"):
            checks.choice(name, getattr(self, name), (True, False))
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

    @property
    def is_bounded(self) -> bool:
        """Whether the values have a domain or a range."""
        return self.domain is not None or self.min is not None or self.max is not None


def _texts(name: str, values: Any) -> tuple[str, ...] | None:
    if values is None and name == "domain":
        return None
    if isinstance(values, str):  # One name, not a list of letters.
        values = (values,)
    found = tuple(sorted(values) if isinstance(values, set | frozenset) else values)
    for value in found:
        if not isinstance(value, str):
            raise ValueError(f"{name} must hold texts, got {value!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"{name} must hold different texts, got {found}")
    return tuple(map(str, found))  # Python's texts, of NumPy's.
