"""Schemas as TOML: one table per column, one line per property."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from jaxml.validation.drift import Comparator
from jaxml.validation.feature import Feature


def to_toml(features: Mapping[str, Feature], min_examples_count: int) -> str:
    """Returns the text; properties that have their default value are left out."""
    lines = ["# Names as in TensorFlow Data Validation.", ""]
    lines.append(f"min_examples_count = {min_examples_count}")
    for name, feature in features.items():
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
        lines += ["", f"[features.{key}]", *_properties(feature)]
    return "\n".join(lines) + "\n"


def from_toml(text: str) -> tuple[dict[str, Feature], dict[str, Any]]:
    """Returns the features, and the properties of the table.

    Raises:
        ValueError: naming the place, for text that is not TOML, an unknown key, or a wrong value.
    """
    table = tomllib.loads(text)  # TOMLDecodeError is a ValueError that names line and column.
    features = table.pop("features", {})
    if not isinstance(features, dict):
        raise ValueError("features must be a table of tables, [features.NAME]")
    return {name: _feature(name, raw) for name, raw in features.items()}, table


def _feature(name: str, raw: Any) -> Feature:
    where = f"features.{name}"
    if not isinstance(raw, dict):
        raise ValueError(f"{where} must be a table, got {raw!r}")
    try:
        for field in ("drift", "skew"):
            if isinstance(raw.get(field), dict):
                raw[field] = construct(Comparator, raw[field])
        return construct(Feature, raw)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def construct(kind: Any, properties: Mapping[str, Any]) -> Any:
    """Returns a dataclass made of its properties; an unknown one raises ValueError."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in properties:
        if key not in known:
            raise ValueError(f"properties must be among {known}, got {key!r}")
    return kind(**properties)


def _properties(value: Any) -> list[str]:
    fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return [f"{field.name} = {_toml(given)}" for field, given in fields if given != field.default]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, except that JSON leaves DEL as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, Comparator):
        return "{ " + ", ".join(_properties(value)) + " }"
    items = [_toml(item) for item in value]
    line = f"[{', '.join(items)}]"
    return line if len(line) <= 80 else "[\n    " + ",\n    ".join(items) + ",\n]"
