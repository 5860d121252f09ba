"""What a table should hold, in a text file that a person reviews, and whether one does.

    schema = infer_schema(training)              # a first draft
    schema = schema.without("late", environment="SERVING")
    schema.save("flights.toml")                  # read it, tighten it, keep it under version control
    anomalies = validate(serving, Schema.load("flights.toml"), environment="SERVING")

Names and conditions are those of TensorFlow Data Validation. Missing values are defined in
`jaxml.validation.columns`.

References:
    Breck, Polyzotis, Roy, Whang, Zinkevich. "Data Validation for Machine Learning" (MLSys 2019).
"""

import dataclasses
import html
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxml import checks, files
from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import Table, num_rows, read_column, read_columns, table_columns
from jaxml.validation.drift import Comparator, compare
from jaxml.validation.feature import Feature, infer_feature
from jaxml.validation.feature_checks import check_feature, some_values

__all__ = ["Comparator", "Feature", "Schema", "infer_schema", "validate"]

_SHOWN = 50  # columns of a schema in a notebook


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a table should hold.

    Attributes:
        features: the columns, by name.
        min_examples_count: least number of rows.

    >>> schema = infer_schema({"age": [20, 31, 44], "label": [0, 1, 1]})
    >>> found = validate({"age": [230]}, schema.without("label"), environment="SERVING")
    >>> [each.kind for each in found]
    ['INT_TYPE_BIG_INT']
    """

    features: Mapping[str, Feature]
    min_examples_count: int = 0

    def __post_init__(self) -> None:
        checks.integer("min_examples_count", self.min_examples_count, 0)
        if not isinstance(self.features, Mapping):
            raise ValueError(f"features must be Features by name, got {self.features!r:.60}")
        for name, feature in self.features.items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"names of columns must be texts and not empty, got {name!r}")
            if not isinstance(feature, Feature):
                raise ValueError(f"column {name!r} must be a Feature, got {feature!r:.60}")

    def __getitem__(self, column: str) -> Feature:
        checks.choice("column", column, self.features)
        return self.features[column]

    def without(self, column: str, environment: str = "SERVING") -> "Schema":
        """Returns the schema in which a column may be absent in an environment, as the label in serving."""
        absent = dict.fromkeys([*self[column].not_in_environment, environment])
        return self.replace(column, not_in_environment=tuple(absent))

    def replace(self, column: str, **changes: Any) -> "Schema":
        """Returns the schema with attributes of a feature changed, such as `min_domain_mass=0.99`."""
        changed = dataclasses.replace(self[column], **changes)
        return dataclasses.replace(self, features={**self.features, column: changed})

    def environments(self) -> tuple[str, ...]:
        """Returns TRAINING, SERVING, and every other environment that a feature names."""
        named = [name for each in self.features.values() for name in each.not_in_environment]
        return tuple(dict.fromkeys(["TRAINING", "SERVING", *named]))

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Schema of {len(self.features)} columns: {', '.join(self.features):.60}>"

    def _repr_html_(self) -> str:
        shown = list(self.features.items())[:_SHOWN]
        rows = [[name, f"{', '.join(_properties(feature)):.200}"] for name, feature in shown]
        if len(self.features) > _SHOWN:
            rows.append([f"… and {len(self.features) - _SHOWN} more", ""])
        cells = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in rows
        )
        return f"<table>{''.join(cells)}</table>"

    def to_text(self) -> str:
        """Returns the schema as TOML; properties that have their default value are left out."""
        lines = ["# Names as in TensorFlow Data Validation.", ""]
        lines.append(f"min_examples_count = {self.min_examples_count}")
        for name, feature in self.features.items():
            key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
            lines += ["", f"[features.{key}]", *_properties(feature)]
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_text(text: str) -> "Schema":
        """Returns the schema that a TOML text holds. Raises ValueError naming the fault."""
        table = tomllib.loads(text)  # TOMLDecodeError is a ValueError that names line and column.
        where, features = "features", {}
        try:
            for name, properties in table.pop("features", {}).items():
                where = f"features.{name}"
                for field in ("drift", "skew"):
                    if field in properties:
                        properties[field] = Comparator(**properties[field])
                features[name] = Feature(**properties)
            where = "schema"
            return Schema(features, **table)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the schema as a TOML file; its directory is made.

        Raises:
            ValueError: if a name or value cannot be written as UTF-8.
        """
        files.write_text(path, self.to_text())  # UnicodeEncodeError is a ValueError.

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Schema":
        """Returns the schema that `save` (or a person) wrote. Raises ValueError naming the file."""
        try:
            return Schema.from_text(Path(path).read_text("utf-8"))
        except ValueError as error:  # UnicodeDecodeError included.
            raise ValueError(f"{os.fspath(path)}: {error}") from error


def infer_schema(
    columns: Table, *, max_string_domain_size: int = 100, min_domain_mass: float = 1.0
) -> Schema:
    """Returns a first draft of the schema, from data believed to be good.

    - **Presence**: a column without gaps must have none. One with a share m of them missing (out of N)
      must have 1 − 2m − 3·√(m(1−m)/N) present: twice as many gaps as were seen, and three standard
      errors.
    - **Domain**: texts of at most `max_string_domain_size` distinct values may take no others if each was
      seen five times or more, or each twice or more and five of them less often than that. Otherwise
      there is a sign that others are to come, or none that they are not. (A table of fewer than 20 rows
      is taken as it stands.)
    - **Range**: the numbers seen, widened by five times the distance from the largest to the eleventh
      largest value. A bound that is reached again and again (hour 23, share 1.0) stays, and so does one
      where frequent integers end (1 … 31); none moves across zero.

    Args:
        max_string_domain_size: most distinct texts of a domain.
        min_domain_mass: `min_domain_mass` of each domain and range. At 1 a single outlier is an anomaly,
            as in TensorFlow Data Validation; of as many rows again, one lies outside of the observed
            range as likely as not.

    Raises:
        ValueError: for columns that do not make a table, and for mixed types in a column, with the rows.

    >>> schema = infer_schema({"pay": ["Cash", "Card"], "fare": [9.5, 12.0]})
    >>> schema["pay"].domain, schema["fare"].max
    (('Card', 'Cash'), 12.0)
    """
    checks.integer("max_string_domain_size", max_string_domain_size, 0)
    checks.number("min_domain_mass", min_domain_mass, 0, 1)
    read = read_columns(columns)
    features = {}
    for name, column in read.items():
        if column.type == "MIXED":
            raise ValueError(column.mixture())
        features[name] = infer_feature(column, max_string_domain_size, min_domain_mass)
    return Schema(features, min_examples_count=min(num_rows(read), 1))


def validate(
    columns: Table,
    schema: Schema,
    *,
    environment: str = "TRAINING",
    previous: Table | None = None,
    serving: Table | None = None,
) -> list[Anomaly]:
    """Returns the anomalies of a table against its schema.

    Args:
        environment: where the table is used. Columns that the schema has `without` this environment may be
            absent, or have missing values.
        previous: the previous table, for the features' `drift` thresholds.
        serving: the serving data, for the features' `skew` thresholds.

    Returns:
        Anomalies by column, in the order of the schema, then new columns, then the table as a whole.
        Empty for a table that is as it should be.

    Raises:
        ValueError: if columns differ in length, or the schema does not name the environment. Anything else
            that a column may hold (lists, records, complex numbers) is an anomaly.

    >>> schema = infer_schema({"pay": ["Cash", "Card", "Cash"]})
    >>> found = validate({"pay": ["Cash", "cash", "Card"]}, schema)
    >>> [(a.kind, a.column, a.examples, a.rows.tolist()) for a in found]
    [('ENUM_TYPE_UNEXPECTED_STRING_VALUES', 'pay', ('cash',), [1])]
    """
    if not isinstance(schema, Schema):
        raise ValueError(f"schema must be a Schema, got {schema!r:.60}")
    checks.choice("environment", environment, schema.environments())
    read, found = {}, []
    for name, values in table_columns(columns).items():
        column = read_column(name, values)
        if column.values.ndim == 1:
            read[name] = column
        else:
            message = f"one value a row is wanted, got an array of shape {column.values.shape}"
            found.append(Anomaly("INVALID_FEATURE_SHAPE", name, message, share=1.0))
    num_rows(read)
    optional = {n for n, f in schema.features.items() if environment in f.not_in_environment}
    for name, feature in schema.features.items():
        if name in optional:
            feature = dataclasses.replace(feature, min_fraction=0.0, min_count=0)
        if name in read and len(read[name].values):
            found += check_feature(read[name], feature)
        elif name not in read and name not in {each.column for each in found} and feature.min_count:
            message = f"the {feature.type} column is absent in {environment}"
            found.append(Anomaly("SCHEMA_MISSING_COLUMN", name, message, share=1.0))
    for name, column in read.items():
        if name not in schema.features:
            message = f"the schema does not know this {column.type or 'empty'} column"
            some = some_values(column.known()[:100])
            found.append(Anomaly("SCHEMA_NEW_COLUMN", name, message, examples=some, share=1.0))
    rows = max((len(each.values) for each in read.values()), default=0)
    if rows < schema.min_examples_count and not (found and not read):
        message = f"{rows} rows, should be at least {schema.min_examples_count}"
        found.append(Anomaly("DATASET_LOW_NUM_EXAMPLES", None, message))
    for field, other in (("drift", previous), ("skew", serving)):
        if other is not None:
            wanted = {n: getattr(f, field) for n, f in schema.features.items() if n in read}
            found += compare(read, other, {n: each for n, each in wanted.items() if each})
    return found


def _properties(value: Any) -> list[str]:
    fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return [f"{field.name} = {_toml(given)}" for field, given in fields if given != field.default]


def _toml(value: Any) -> str:
    if isinstance(value, Comparator):
        return "{ " + ", ".join(_properties(value)) + " }"
    if isinstance(value, float):  # TOML has inf as Python has it.
        return repr(float(value))
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > 80:
        text = json.dumps(value, ensure_ascii=False, indent=4)
    return text.replace("\x7f", "\\u007f")  # JSON's escapes are TOML's, but for DEL.
