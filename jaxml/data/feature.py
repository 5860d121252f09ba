"""What one column of a table should hold, and whether that can be at all."""

import dataclasses
from typing import Any

from jaxml.data.anomalies import Anomaly, anomaly
from jaxml.data.drift import Comparator, is_number

TYPES = ("BYTES", "INT", "FLOAT", "TIME", "DURATION")

LIFECYCLE_STAGES = (
    "PLANNED",
    "ALPHA",
    "BETA",
    "PRODUCTION",
    "DEPRECATED",
    "DEBUG_ONLY",
    "DISABLED",
    "VALIDATION_DERIVED",
)

# Not validated, as in TensorFlow Data Validation: not ready yet, or no longer used.
NOT_VALIDATED = {"PLANNED", "ALPHA", "DEPRECATED", "DEBUG_ONLY", "DISABLED"}


@dataclasses.dataclass(frozen=True)
class Feature:
    """What one column should hold.

    Attributes:
        type: `"BYTES"` (text), `"INT"`, `"FLOAT"`, `"TIME"` or `"DURATION"`; None if it was never seen.
        min_fraction: of the values that must be present, in [0, 1].
        min_count: of the values that must be present.
        domain: the texts allowed, or None for any. With a type of BYTES only.
        min_domain_mass: share of the values present that must be in the domain, or in the range.
        is_bool: the values are booleans: `bool`, 0 and 1, or the texts "true" and "false".
        min: lowest number allowed; for BYTES with `number` of the numbers that the texts spell.
        max: highest number allowed.
        number: None, or for texts that spell numbers `"INT"` or `"FLOAT"` (TFDV: an int_domain on BYTES).
        disallow_nan: whether NaN is an anomaly of its own, apart from being a missing value.
        disallow_inf: whether infinities are.
        whole_numbers: a FLOAT column that held whole numbers and gaps: arrays of integers are welcome.
        unique_min: fewest distinct values.
        unique_max: most distinct values.
        in_environment: environments in which the column is expected, besides the schema's default ones.
        not_in_environment: environments in which it is not.
        lifecycle_stage: one of `LIFECYCLE_STAGES`; what is PLANNED, ALPHA, DEPRECATED, DEBUG_ONLY or
            DISABLED is not validated.
        drift: thresholds against the span of data before.
        skew: thresholds of training against serving data.
    """

    type: str | None = None
    min_fraction: float = 0.0
    min_count: int = 0
    domain: tuple[str, ...] | None = None
    min_domain_mass: float = 1.0
    is_bool: bool = False
    min: float | int | None = None
    max: float | int | None = None
    number: str | None = None
    disallow_nan: bool = False
    disallow_inf: bool = False
    whole_numbers: bool = False
    unique_min: int | None = None
    unique_max: int | None = None
    in_environment: tuple[str, ...] = ()
    not_in_environment: tuple[str, ...] = ()
    lifecycle_stage: str = "PRODUCTION"
    drift: Comparator | None = None
    skew: Comparator | None = None

    def __post_init__(self) -> None:
        for name in ("domain", "in_environment", "not_in_environment"):
            value = getattr(self, name)
            if isinstance(value, set | frozenset):
                value = sorted(value)
            if value is not None:  # A text is one name, not a list of letters.
                value = (value,) if isinstance(value, str) else tuple(map(_text, value))
            object.__setattr__(self, name, value)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value  # Of NumPy's, Python's.


def check_specification(name: str, feature: Feature) -> list[Anomaly]:
    """What of the schema contradicts itself.

    Args:
        name: of the feature.
        feature: as the schema has it.

    Returns:
        Anomalies without rows: it is the schema that is to be corrected, not the table.

    Example:
        >>> [a.kind for a in check_specification("age", Feature("INT", min=5, max=1))]
        ['INVALID_DOMAIN_SPECIFICATION']
    """
    found: list[Anomaly] = []

    def wrong(kind: str, told: str) -> None:
        found.append(anomaly(kind, name, told))

    if not name:
        wrong("FEATURE_MISSING_NAME", "the feature has no name")
    never_seen = feature.type is None and feature.min_count == 0 and feature.min_fraction == 0
    if feature.type is None and not never_seen:
        wrong("FEATURE_MISSING_TYPE", "the feature has no type")
    if feature.type is not None and feature.type not in TYPES:
        wrong("INVALID_SCHEMA_SPECIFICATION", f"type must be in {TYPES}, got {feature.type!r}")
    if feature.lifecycle_stage not in LIFECYCLE_STAGES:
        told = f"lifecycle_stage must be in {LIFECYCLE_STAGES}, got {feature.lifecycle_stage!r}"
        wrong("INVALID_SCHEMA_SPECIFICATION", told)
    for field, value in _not_numbers(feature).items():
        kind = f"INVALID_{'DOMAIN' if field in ('min', 'max') else 'SCHEMA'}_SPECIFICATION"
        wrong(kind, f"{field} must be a number, got {value!r}")
    feature = with_numbers(feature)
    for field, comparator in (("drift", feature.drift), ("skew", feature.skew)):
        for told in comparator.contradictions() if comparator is not None else ():
            wrong("INVALID_SCHEMA_SPECIFICATION", f"{field}: {told}")
    for field in ("min_fraction", "min_domain_mass"):
        if not 0 <= getattr(feature, field) <= 1:
            told = f"{field} must be in [0, 1], got {getattr(feature, field)}"
            wrong("INVALID_SCHEMA_SPECIFICATION", told)
    if feature.min_count < 0:
        wrong("INVALID_SCHEMA_SPECIFICATION", f"min_count must be ≥ 0, got {feature.min_count}")
    if feature.min_domain_mass != 1 and not is_bounded(feature):
        wrong("INVALID_SCHEMA_SPECIFICATION", "min_domain_mass is given, and no domain or range")
    low, high = feature.unique_min, feature.unique_max
    if low is not None and high is not None and low > high:
        wrong("INVALID_SCHEMA_SPECIFICATION", f"unique_min {low} is above unique_max {high}")
    if feature.min is not None and feature.max is not None and feature.min > feature.max:
        told = f"min {feature.min} is above max {feature.max}"
        wrong("INVALID_DOMAIN_SPECIFICATION", told)
    if feature.number not in (None, "INT", "FLOAT"):
        wrong(
            "INVALID_DOMAIN_SPECIFICATION", f"number must be INT or FLOAT, got {feature.number!r}"
        )
    if feature.domain is not None:
        if len(set(feature.domain)) != len(feature.domain):
            twice = [v for i, v in enumerate(feature.domain) if v in feature.domain[:i]]
            wrong("INVALID_DOMAIN_SPECIFICATION", f"the domain holds {twice[0]!r} twice")
        if feature.type != "BYTES":
            wrong("DOMAIN_INVALID_FOR_TYPE", f"a domain of texts, and the type {feature.type}")
    if feature.is_bool and feature.type in ("TIME", "DURATION"):
        wrong("DOMAIN_INVALID_FOR_TYPE", f"booleans, and the type {feature.type}")
    if feature.is_bool and (is_bounded(feature) or feature.number is not None):
        wrong("BOOL_TYPE_INVALID_CONFIG", "booleans, and another domain or range besides")
    if feature.number is not None and feature.type != "BYTES":
        wrong("DOMAIN_INVALID_FOR_TYPE", f"texts that spell numbers, and the type {feature.type}")
    if (feature.min is not None or feature.max is not None) and not (
        feature.type in ("INT", "FLOAT") or feature.number
    ):
        wrong("DOMAIN_INVALID_FOR_TYPE", f"a range of numbers, and the type {feature.type}")
    return found


_NUMBERS = (
    "min_fraction", "min_count", "min_domain_mass", "min", "max", "unique_min", "unique_max",
)  # fmt: skip


def _not_numbers(feature: Feature) -> dict[str, Any]:
    """What should be a number and is none, or NaN, with which nothing can be compared."""
    values = {name: getattr(feature, name) for name in _NUMBERS}
    return {name: v for name, v in values.items() if v is not None and not is_number(v)}


def with_numbers(feature: Feature) -> Feature:
    """The feature without what cannot be compared with."""
    defaults: dict[str, Any] = {name: getattr(Feature(), name) for name in _not_numbers(feature)}
    return dataclasses.replace(feature, **defaults) if defaults else feature


def is_bounded(feature: Feature) -> bool:
    """Whether its values have a domain or a range."""
    return feature.domain is not None or feature.min is not None or feature.max is not None
