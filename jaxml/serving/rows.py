"""Which rows of a request may be answered: the schema, row by row."""

import dataclasses
from typing import Any

from jaxml.validation.anomalies import Anomaly
from jaxml.validation.columns import Table
from jaxml.validation.schema import Schema, validate

__all__ = ["row_schema", "validate_rows"]


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
    absent = set(schema.features) - set(columns) - {each.column for each in found}
    for name in schema.features:
        if name in absent:
            text = f"the {schema[name].type} column is absent"
            found.append(Anomaly("SCHEMA_MISSING_COLUMN", name, text, share=1.0))
    return found
