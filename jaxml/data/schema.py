"""What a table should look like, in a text file that a person reviews, and whether one does.

    schema = infer_schema(training)              # a first draft
    schema = schema.without("late", environment="SERVING")
    schema.save("flights.toml")                  # read it, tighten it, keep it under version control
    anomalies = validate(serving, Schema.load("flights.toml"), environment="SERVING")

Names and conditions are those of TensorFlow Data Validation. A column is a NumPy array, one value
a row; what counts as missing is in `jaxml.data.columns`.

Source: Breck, Polyzotis, Roy, Whang, Zinkevich, "Data Validation for Machine Learning" (MLSys 2019).
"""

import dataclasses
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml.data.anomalies import Anomaly, anomaly
from jaxml.data.cache import write_atomically
from jaxml.data.checks import check_feature, some_values, unreadable
from jaxml.data.columns import BadColumn, Column, is_utf8, num_rows, read_column
from jaxml.data.drift import SOURCES, Comparator, compare
from jaxml.data.feature import (
    LIFECYCLE_STAGES,
    NOT_VALIDATED,
    TYPES,
    Feature,
    check_specification,
    is_bounded,
    with_numbers,
)

__all__ = [
    "LIFECYCLE_STAGES",
    "TYPES",
    "Anomaly",
    "Comparator",
    "Feature",
    "Schema",
    "infer_schema",
    "validate",
]


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a table should hold.

    Attributes:
        features: the columns wanted, by name.
        default_environment: the environments that a column is expected in unless it says otherwise.
        min_examples_count: fewest rows.
        max_examples_count: most rows; None for any number.
        min_examples_drift: fewest rows as a multiple of the span before.
        max_examples_drift: most rows as a multiple of the span before.

    Example:
        >>> schema = infer_schema({"age": np.array([20, 31, 44]), "label": np.array([0, 1, 1])})
        >>> serving = {"age": np.array([230])}
        >>> [str(a.kind) for a in validate(serving, schema.without("label"), environment="SERVING")]
        ['INT_TYPE_BIG_INT']
    """

    features: Mapping[str, Feature]
    default_environment: tuple[str, ...] = ("TRAINING", "SERVING")
    min_examples_count: int = 0
    max_examples_count: int | None = None
    min_examples_drift: float | None = None
    max_examples_drift: float | None = None

    def __getitem__(self, column: str) -> Feature:
        """The feature of that name."""
        self._known(column)
        return self.features[column]

    def without(self, column: str, environment: str = "SERVING") -> "Schema":
        """The schema in which a column need not be there in one environment, as the label in serving.

        Args:
            column: its name.
            environment: where it is absent.

        Returns:
            A new schema.

        Raises:
            ValueError: for a column that is not in the schema.
        """
        feature = self[column]
        absent = tuple(dict.fromkeys([*feature.not_in_environment, environment]))
        present = tuple(name for name in feature.in_environment if name != environment)
        return self.replace(column, not_in_environment=absent, in_environment=present)

    def replace(self, column: str, **changes: Any) -> "Schema":
        """The schema with some of a feature's attributes changed.

        Args:
            column: its name.
            **changes: attributes of `Feature`, such as `min_domain_mass=0.99` or
                `drift=Comparator(infinity_norm=0.01)`.

        Returns:
            A new schema.

        Raises:
            ValueError: for a column that is not in the schema, or an attribute that there is not.
        """
        feature = self[column]
        for name in changes:
            if name not in _FIELDS:
                raise ValueError(f"changes must be among {sorted(_FIELDS)}, got {name!r}")
        changed = dataclasses.replace(feature, **changes)
        return dataclasses.replace(self, features={**self.features, column: changed})

    def drop(self, column: str) -> "Schema":
        """The schema without a column altogether.

        Raises:
            ValueError: for a column that is not in the schema.
        """
        self._known(column)
        return dataclasses.replace(
            self, features={name: f for name, f in self.features.items() if name != column}
        )

    def environments(self) -> tuple[str, ...]:
        """Every environment that is spoken of."""
        names = list(self.default_environment)
        for feature in self.features.values():
            names += [*feature.in_environment, *feature.not_in_environment]
        return tuple(dict.fromkeys(names))

    def __str__(self) -> str:
        """The text that a person reviews."""
        return self.to_text()

    def to_text(self) -> str:
        """The schema as TOML, see `save`."""
        return _to_toml(self)

    @staticmethod
    def from_text(text: str) -> "Schema":
        """The schema that a TOML text holds.

        Raises:
            ValueError: for what is no TOML, an unknown key or a value of the wrong type.
        """
        return _from_toml(text)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the schema as a TOML file: one table a column, one line a property.

        Properties that have their default value are not written. What is loaded equals what was saved.

        Args:
            path: of the file; its directory is made.

        Raises:
            ValueError: if a name or value cannot be written as UTF-8.
            OSError: if the file cannot be written.
        """
        text = self.to_text().encode()
        write_atomically(Path(path), lambda file: file.write(text))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Schema":
        """Reads what `save` wrote, or a person did.

        Args:
            path: of the file.

        Returns:
            The schema.

        Raises:
            ValueError: naming the file, for what is no TOML, an unknown key or a value of the wrong type.
            OSError: if the file cannot be read.
        """
        try:
            return _from_toml(Path(path).read_text("utf-8"))
        except ValueError as error:  # UnicodeDecodeError included.
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def _known(self, column: str) -> None:
        if column not in self.features:
            raise ValueError(f"column must be among {list(self.features)}, got {column!r}")


# Times the distance between the largest and the eleventh largest value that a drafted bound lies beyond.
_WIDER = 5

# Distinct values that are looked at to see whether integers stop at the last of them.
_LAST = 4


# ------------------------------------------------------------------------------------------- inference


def infer_schema(
    columns: Mapping[str, ArrayLike],
    *,
    max_string_domain_size: int = 100,
    min_domain_mass: float = 1.0,
    ranges: Literal["widened", "observed"] = "widened",
) -> Schema:
    """A first draft of the schema, from data believed to be good.

    - **Type** of each column, from its dtype or, for object arrays, its values.
    - **Presence**: a column without gaps must have none. One with a share m of them missing (out of N)
      must have 1 − 2m − 3·√(m(1−m)/N) present: twice as many gaps as were seen, and three standard
      errors.
    - **Domain**: text of at most `max_string_domain_size` distinct values may take no others.
    - **Range**: the numbers seen, widened where the extremes are thinly strewn, by five times the
      distance from the largest to the eleventh largest value (with 20 rows or more a value counted;
      none below). A bound that is reached again and again (hour 23, share 1.0) is left as it is, so is
      one where integers that are seen often end (1 … 31), and none is moved across zero.
    - **NaN and infinity** are anomalies if there were none.

    Args:
        columns: one-dimensional arrays of one length, by name. Training data only.
        max_string_domain_size: most distinct texts that are taken for categories.
        min_domain_mass: of every domain and range, in [0, 1]: what share of a later table's values must
            be in it. At 1 a single stranger is an anomaly, as in TensorFlow Data Validation; of N rows
            seen and M to come, though, an outlier met once is as likely as not among those to come if M
            = N.
        ranges: `"observed"` for the extremes as they are.

    Returns:
        The schema; `validate(columns, infer_schema(columns))` is empty but for texts that are no UTF-8.
        Of a table without rows nothing but the types.

    Raises:
        ValueError: for columns of several lengths or more than one dimension, and for a column that mixes
            types that do not go together, naming the rows.

    Example:
        >>> schema = infer_schema({"pay": np.array(["Cash", "Card"]), "fare": np.array([9.5, 12.0])})
        >>> schema["pay"].domain, schema["fare"].max
        (('Card', 'Cash'), 12.0)
    """
    if not 0 <= min_domain_mass <= 1:
        raise ValueError(f"min_domain_mass must be in [0, 1], got {min_domain_mass}")
    if ranges not in ("widened", "observed"):
        raise ValueError(f"ranges must be 'widened' or 'observed', got {ranges!r}")
    read = {name: read_column(name, values) for name, values in columns.items()}
    rows = num_rows(read)
    features = {}
    for name, column in read.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"columns must have names that are texts and not empty, got {name!r}")
        if column.type == "MIXED":
            raise ValueError(_mixture(column))
        feature = _infer_feature(column, max_string_domain_size, ranges == "widened")
        if is_bounded(feature):
            feature = dataclasses.replace(feature, min_domain_mass=min_domain_mass)
        features[name] = feature
    return Schema(features, min_examples_count=min(rows, 1))


def _mixture(column: Column) -> str:
    assert column.kinds is not None
    seen: dict[str, int] = {}
    for row in np.flatnonzero(column.present).tolist():
        seen.setdefault(column.kinds[row], row)
    where = ", ".join(f"{kind} in row {row}" for kind, row in list(seen.items())[:4])
    return f"column {column.name!r} must hold one type of numbers, text or times, got {where}"


def _infer_feature(column: Column, max_domain: int, widen: bool) -> Feature:
    known, rows = column.known(), len(column.values)
    found: dict[str, Any] = {"type": column.type}
    if rows and len(known) == rows:
        found["min_fraction"] = 1.0
    elif len(known):
        missing = 1 - len(known) / rows
        slack = missing + 3 * math.sqrt(missing * (1 - missing) / rows)
        found["min_fraction"] = math.floor(1000 * max(0.0, 1 - missing - slack)) / 1000
    found["min_count"] = min(len(known), 1)
    if column.type == "FLOAT" or (column.is_bool and len(known) == rows):
        found["disallow_nan"] = bool(len(known)) and column.num_nan == 0
    if column.type == "FLOAT":
        found["disallow_inf"] = bool(len(known)) and not np.isinf(known).any()
        found["whole_numbers"] = len(known) < rows and column.is_whole()
    if column.is_bool:
        found["is_bool"] = bool(len(known))
    elif column.type in ("INT", "FLOAT") and len(known):
        found["min"], found["max"] = _range(known, column.type == "INT", widen)
    if column.type == "BYTES" and len(known):
        distinct = set(known.tolist())
        if len(distinct) <= max_domain:
            found["domain"] = tuple(sorted(value for value in distinct if is_utf8(value)))
    return Feature(**found)


def _range(known: NDArray[Any], whole: bool, widen: bool) -> tuple[Any, Any]:
    finite = known if whole else known[np.isfinite(known)]
    if not len(finite):
        return None, None
    k = min(10, len(finite) // 20) if widen else 0
    low: Any = _plain(finite.min())
    high: Any = _plain(finite.max())
    if k:
        ends = np.sort(finite)
        # Python's numbers: differences of int64 extremes overflow int64.
        high_end, low_end = ends[-k - 1 :].tolist(), ends[: k + 1].tolist()
        high = _outwards(high_end, ends, whole, upper=True)
        low = _outwards(low_end[::-1], ends, whole, upper=False)
    # Where infinities are at home the range is open.
    return (None if not whole and known.min() == -np.inf else low), (
        None if not whole and known.max() == np.inf else high
    )


def _is_an_end(known: NDArray[Any], *, upper: bool) -> bool:
    """Whether integers stop where they stop: 1 … 12, 0 … 99, but not counts of a rare event.

    The last values follow each other in steps of one, each seen five times or more on average, so that one
    left out would have to be missed by chance (e⁻⁵), and the last is not far rarer than those before it.
    """
    values, counts = np.unique(known, return_counts=True)
    outwards = slice(None) if upper else slice(None, None, -1)
    values, counts = values[outwards][-_LAST:], counts[outwards][-_LAST:]
    if abs(int(values[-1]) - int(values[0])) != len(values) - 1:
        return False
    before = counts[:-1].mean() if len(counts) > 1 else 0
    return bool(counts.mean() >= 5 and counts[-1] >= before / 3)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _outwards(end: list[Any], ends: NDArray[Any], whole: bool, *, upper: bool) -> Any:
    """The last of `end`, moved on by five times its distance to the first.

    The spacings of the k + 1 largest of an exponential tail are independent, E_j / j; as many fresh draws
    pass the bound with a probability of about Π_j j / (j + 5), 1 in 3,003 for k = 10; of a heavier tail,
    the lognormal's, 1 in 100.
    """
    extreme, distance = end[-1], abs(end[-1] - end[0])
    if distance == 0 or not math.isfinite(distance):
        return extreme
    if whole:
        if _is_an_end(ends, upper=upper):
            return extreme
        bound = extreme + _WIDER * distance if upper else extreme - _WIDER * distance
    else:
        wide = float(_WIDER) * distance
        if not math.isfinite(extreme + wide if upper else extreme - wide):
            return extreme
        digits = 1 - math.floor(math.log10(wide))
        if digits > 300:
            return extreme
        bound = round(extreme + wide if upper else extreme - wide, digits)
    # What was never negative is not taken to become so, and the other way round.
    if upper:
        return min(bound, type(bound)(0)) if extreme <= 0 else bound
    return max(bound, type(bound)(0)) if extreme >= 0 else bound


# ------------------------------------------------------------------------------------------ validation


def validate(
    columns: Mapping[str, ArrayLike],
    schema: Schema,
    *,
    environment: str = "TRAINING",
    previous: Mapping[str, ArrayLike] | None = None,
    serving: Mapping[str, ArrayLike] | None = None,
) -> list[Anomaly]:
    """What of a table is not as its schema says.

    Missing are None, NaN, NaT and masked values; the empty text is not. A float array of whole numbers
    and NaN may stand for INT with gaps, since NumPy has no other array for those.

    Args:
        columns: one-dimensional arrays of one length, by name; their order does not matter.
        schema: what is wanted.
        environment: in which the table is used: what the schema has `without` it may be absent, as a
            column or in some of its values.
        previous: the span of data before, held against the features' `drift` thresholds.
        serving: the serving data, held against the features' `skew` thresholds (`columns` is the
            training).

    Returns:
        Anomalies, in the order of the schema's features, then new columns, then the table as a whole;
        none for a table that is as it should be. One column may have several.

    Raises:
        ValueError: if columns differ in length, or for an environment of which the schema does not speak.
            Whatever else a column may hold (lists, records, complex numbers) is an anomaly.

    Example:
        >>> schema = infer_schema({"pay": np.array(["Cash", "Card", "Cash"])})
        >>> found = validate({"pay": np.array(["Cash", "cash", "Card"])}, schema)
        >>> [(a.kind, a.column, a.examples, a.rows.tolist()) for a in found]
        [('ENUM_TYPE_UNEXPECTED_STRING_VALUES', 'pay', ('cash',), [1])]
    """
    if environment not in schema.environments():
        raise ValueError(f"environment must be in {schema.environments()}, got {environment!r}")
    read: dict[str, Column] = {}
    found: list[Anomaly] = []
    unread: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        try:
            read[name] = read_column(name, values)
        except BadColumn as error:
            unread[name] = error.array
    rows = num_rows(read) or max((len(a) for a in unread.values() if a.ndim), default=0)

    validated = {}
    for name, feature in schema.features.items():
        found += check_specification(name, feature)
        feature = with_numbers(feature)
        if feature.lifecycle_stage in NOT_VALIDATED:
            continue
        if name in read:
            validated[name] = feature
            if not _is_expected(feature, schema, environment):
                # Where the column may be absent, its values may be missing: labels that come later.
                feature = dataclasses.replace(
                    feature, min_fraction=0.0, min_count=0, disallow_nan=False
                )
            if len(read[name].values):
                found += check_feature(read[name], feature)
        elif name in unread:
            found.append(unreadable(name, unread[name]))
        elif _is_expected(feature, schema, environment) and _is_required(feature):
            told = f"the {feature.type or ''} column is absent in {environment}".replace("  ", " ")
            found.append(anomaly("SCHEMA_MISSING_COLUMN", name, told, share=1.0))
    for name in columns:
        if name not in schema.features:
            if name in unread:
                found.append(unreadable(name, unread[name]))
            type_ = read[name].type if name in read else "no column"
            told = f"the schema does not know this column ({type_ or 'nothing but gaps'})"
            some = some_values(read[name].known()[:100]) if name in read else ()
            found.append(anomaly("SCHEMA_NEW_COLUMN", name, told, examples=some, share=1.0))

    found += _check_sizes(schema)
    if rows < schema.min_examples_count:
        told = f"{rows} rows, at least {schema.min_examples_count} are wanted"
        found.append(anomaly("DATASET_LOW_NUM_EXAMPLES", None, told))
    if schema.max_examples_count is not None and rows > schema.max_examples_count:
        told = f"{rows} rows, at most {schema.max_examples_count} are wanted"
        found.append(anomaly("DATASET_HIGH_NUM_EXAMPLES", None, told))
    if previous is not None:
        wanted = {n: f.drift for n, f in validated.items() if f.drift is not None}
        found += compare(columns, previous, wanted)
        found += _check_growth(rows, previous, schema)
    if serving is not None:
        wanted = {n: f.skew for n, f in validated.items() if f.skew is not None}
        found += compare(columns, serving, wanted)
    return found


def _check_sizes(schema: Schema) -> list[Anomaly]:
    found = []
    for low, high in (
        ("min_examples_count", "max_examples_count"),
        ("min_examples_drift", "max_examples_drift"),
    ):
        least, most = getattr(schema, low), getattr(schema, high)
        if least is not None and most is not None and least > most:
            told = f"{low} {least} is above {high} {most}"
            found.append(anomaly("INVALID_SCHEMA_SPECIFICATION", None, told))
    return found


def _is_expected(feature: Feature, schema: Schema, environment: str) -> bool:
    """Whether a column has its place in an environment."""
    if environment in feature.not_in_environment:
        return False
    return environment in schema.default_environment or environment in feature.in_environment


def _is_required(feature: Feature) -> bool:
    """Whether it must be there at all."""
    return feature.min_count > 0 or feature.min_fraction > 0


def _check_growth(rows: int, previous: Mapping[str, ArrayLike], schema: Schema) -> list[Anomaly]:
    before = max((len(values) for values in previous.values()), default=0)  # type: ignore[arg-type]
    if not rows or not before:
        return []
    ratio = rows / before
    told = f"{rows} rows are {ratio:.3g} times the {before} of the span before"
    if schema.min_examples_drift is not None and ratio < schema.min_examples_drift:
        wanted = f"{told}, at least {schema.min_examples_drift} are wanted"
        return [anomaly("COMPARATOR_LOW_NUM_EXAMPLES", None, wanted)]
    if schema.max_examples_drift is not None and ratio > schema.max_examples_drift:
        wanted = f"{told}, at most {schema.max_examples_drift} are wanted"
        return [anomaly("COMPARATOR_HIGH_NUM_EXAMPLES", None, wanted)]
    return []


# ------------------------------------------------------------------------------------------- text file

_FIELDS = {field.name: field for field in dataclasses.fields(Feature)}
_TABLE_FIELDS = [f for f in dataclasses.fields(Schema) if f.name != "features"]

# What a value of the text file must be, by the first word of the field's annotation.
_NUMBER = (int, float)
_WANTED: dict[str, tuple[type, ...]] = {
    "type": (str,), "min_fraction": _NUMBER, "min_count": (int,), "domain": (list,),
    "min_domain_mass": _NUMBER, "is_bool": (bool,), "min": _NUMBER, "max": _NUMBER, "number": (str,),
    "disallow_nan": (bool,), "disallow_inf": (bool,), "whole_numbers": (bool,), "unique_min": (int,),
    "unique_max": (int,), "in_environment": (list,), "not_in_environment": (list,),
    "lifecycle_stage": (str,), "drift": (dict,), "skew": (dict,), "default_environment": (list,),
    "min_examples_count": (int,), "max_examples_count": (int,), "min_examples_drift": _NUMBER,
    "max_examples_drift": _NUMBER,
}  # fmt: skip


def _to_toml(schema: Schema) -> str:
    lines = ["# What the table should hold; names as in TensorFlow Data Validation.", ""]
    for field in _TABLE_FIELDS:
        value = getattr(schema, field.name)
        if value is not None:
            lines.append(f"{field.name} = {_toml(value)}")
    for name, feature in schema.features.items():
        lines += ["", f"[features.{_toml_key(name)}]"]
        for field in dataclasses.fields(Feature):
            value = getattr(feature, field.name)
            if value != field.default:
                lines.append(f"{field.name} = {_toml(value)}")
    text = "\n".join(lines) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"schema must be writable as UTF-8, got {text[error.start : error.end]!r}"
        ) from error
    return text


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, all but that of DEL, which JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return repr(float(value))
    if isinstance(value, Comparator):
        pairs = [
            f"{field.name} = {_toml(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        ]
        return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
    if isinstance(value, tuple | list):
        items = [_toml(item) for item in value]
        line = f"[{', '.join(items)}]"
        if len(line) <= 80:
            return line
        lines, current = [], ""
        for item in items:
            if current and len(current) + len(item) > 92:
                lines.append(current.rstrip())
                current = ""
            current += f"{item}, "
        return "\n".join(["[", *(f"    {each}" for each in [*lines, current.rstrip()]), "]"])
    raise ValueError(f"a schema holds numbers, texts and lists of them, got {value!r}")


def _from_toml(text: str) -> Schema:
    raw = tomllib.loads(text)  # TOMLDecodeError is a ValueError that names line and column.
    features = raw.pop("features", {})
    if not isinstance(features, dict):
        raise ValueError("features must be a table of tables, [features.NAME]")
    read = {}
    for name, properties in features.items():
        if not isinstance(properties, dict):
            raise ValueError(f"features.{name} must be a table, got {properties!r}")
        read[name] = Feature(**_properties(properties, list(_FIELDS), f"features.{name}"))
    return Schema(read, **_properties(raw, [f.name for f in _TABLE_FIELDS], "the schema"))


def _properties(raw: Mapping[str, Any], known: list[str], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            raise ValueError(f"{where} has {key!r}, known are {known}")
        wanted = _WANTED[key]
        fits = isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))
        if not fits:
            names = " or ".join(type_.__name__ for type_ in wanted)
            raise ValueError(f"{where}: {key} must be {names}, got {value!r}")
        if isinstance(value, list):
            for item in value:
                if not isinstance(item, str):
                    raise ValueError(f"{where}: {key} must hold texts, got {item!r}")
            value = tuple(value)
        if isinstance(value, dict):
            value = _comparator(value, f"{where}.{key}")
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{where}: {key} must not be NaN")
        found[key] = value
    return found


def _comparator(raw: Mapping[str, Any], where: str) -> Comparator:
    known = [field.name for field in dataclasses.fields(Comparator)]
    for key, value in raw.items():
        if key not in known:
            raise ValueError(f"{where} has {key!r}, known are {known}")
        if key == "source":
            if value not in SOURCES:
                raise ValueError(f"{where}: source must be in {SOURCES}, got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}: {key} must be a number, got {value!r}")
    return Comparator(**raw)
