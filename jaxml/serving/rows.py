"""Which rows of a request may be answered: the schema, row by row."""

import dataclasses
import datetime
from typing import Any

import numpy as np

from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import Table, read_column, table_columns
from jaxml.validation.schema import Schema, validate

__all__ = ["row_schema", "validate_rows", "with_times"]


def with_times(columns: Table, schema: Schema) -> dict[str, Any]:
    """Returns the columns of a request with times in place of their texts (ISO 8601): JSON has no times.

    A time with a zone is read as UTC, and so is one without. A column with another text is left as it is,
    for the schema to judge.

    >>> from jaxml.validation.schema import Feature
    >>> found = with_times({"at": ["2013-01-01T05:15", None]}, Schema({"at": Feature("TIME")}))
    >>> found["at"].type, found["at"].missing.tolist()
    ('TIME', [False, True])
    """
    read = table_columns(columns)
    for name, feature in schema.features.items():
        if feature.type != "TIME" or name not in read:
            continue
        column = read[name] = read_column(name, read[name])
        if column.is_text and column.num_present:
            texts = column.values.tolist()
            try:
                times = [_utc(text) if text else None for text in texts]
            except (ValueError, OverflowError):
                continue
            read[name] = read_column(name, times)
    return read


def _utc(text: str) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(text)
    return time if time.tzinfo is None else time.astimezone(datetime.UTC).replace(tzinfo=None)


def row_schema(schema: Schema, columns: tuple[str, ...]) -> Schema:
    """Returns what each single row must satisfy, of a schema of whole tables.

    A share of rows (`min_fraction`, `min_domain_mass`) says nothing about one row: a value may be missing
    unless all must be present, and may lie outside of a domain or range unless all must lie inside.

    Args:
        columns: those of a request; the schema's other columns, such as the label, are left out.
    """
    features = {}
    for name in columns:
        feature = schema[name]
        changes: dict[str, Any] = {
            "drift": None,
            "skew": None,
            "not_in_environment": (),
            "min_count": 0,
        }
        if feature.min_fraction == 1.0:
            changes["min_count"] = 1
        else:
            changes["min_fraction"] = 0.0
        if feature.min_domain_mass < 1.0:
            changes |= {"domain": None, "min": None, "max": None, "min_domain_mass": 1.0}
        features[name] = dataclasses.replace(feature, **changes)
    return Schema(features)


def validate_rows(columns: Table, schema: Schema) -> list[Anomaly]:
    """Returns the anomalies of a request; each column of the schema must be there.

    Args:
        columns: by name, [B] each.
        schema: from `row_schema`.
    """
    found = validate(columns, schema)
    if any(each.kind == "UNEXPECTED_DATA_TYPE" for each in found):
        found = validate(_with_integers(columns, schema), schema)
    absent = set(schema.features) - set(columns) - {each.column for each in found}
    for name in schema.features:
        if name in absent:
            text = f"the {schema[name].type} column is absent"
            found.append(Anomaly("SCHEMA_MISSING_COLUMN", name, text, share=1.0))
    return found


def _with_integers(columns: Table, schema: Schema) -> dict[str, Any]:
    """Returns the columns with integers in place of whole floats, where the schema wants integers.

    NumPy and pandas have integers with gaps as floats, so a row's type would depend on its neighbours.
    """
    read = table_columns(columns)
    for name, feature in schema.features.items():
        if feature.type != "INT" or feature.is_bool or name not in read:
            continue
        column = read_column(name, read[name])
        if column.type == "FLOAT" and column.is_whole() and (np.abs(column.known()) <= 2**53).all():
            read[name] = np.ma.masked_array(
                np.nan_to_num(column.values).astype(int), column.missing
            )
    return read
