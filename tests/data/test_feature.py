"""Features of which no table can be as they want it are told."""

import numpy as np

from jaxml.data.drift import Comparator
from jaxml.data.schema import Feature, Schema, validate


def test_a_schema_that_contradicts_itself_is_told():
    one = {"a": np.array([1])}
    for feature, kind in (
        (Feature("INT", domain=("x",)), "DOMAIN_INVALID_FOR_TYPE"),
        (Feature("BYTES", min=0), "DOMAIN_INVALID_FOR_TYPE"),
        (Feature("INT", min=5, max=1), "INVALID_DOMAIN_SPECIFICATION"),
        (Feature("BYTES", domain=("x", "x")), "INVALID_DOMAIN_SPECIFICATION"),
        (Feature("INT", min_fraction=2.0), "INVALID_SCHEMA_SPECIFICATION"),
        (Feature("NUMBER"), "INVALID_SCHEMA_SPECIFICATION"),
        (Feature("BYTES", min_domain_mass=0.5), "INVALID_SCHEMA_SPECIFICATION"),
        (Feature(None, min_count=1), "FEATURE_MISSING_TYPE"),
        (Feature("INT", is_bool=True, max=1), "BOOL_TYPE_INVALID_CONFIG"),
        (Feature("BYTES", is_bool=True, domain=("yes",)), "BOOL_TYPE_INVALID_CONFIG"),
        (Feature("TIME", is_bool=True), "DOMAIN_INVALID_FOR_TYPE"),
        (Feature("INT", max=float("nan")), "INVALID_DOMAIN_SPECIFICATION"),
        (Feature("INT", min="0"), "INVALID_DOMAIN_SPECIFICATION"),
        (Feature("INT", min_fraction="all"), "INVALID_SCHEMA_SPECIFICATION"),
        (Feature("INT", drift=Comparator(float("nan"))), "INVALID_SCHEMA_SPECIFICATION"),
        (Feature("INT", skew=Comparator(0.1, source="DEFAULT")), "INVALID_SCHEMA_SPECIFICATION"),
    ):
        assert kind in {a.kind for a in validate(one, Schema({"a": feature}))}, feature
    assert "FEATURE_MISSING_NAME" in {a.kind for a in validate(one, Schema({"": Feature("INT")}))}
    sizes = Schema({"a": Feature("INT")}, min_examples_count=1, max_examples_count=0)
    found = [(a.kind, a.column) for a in validate(one, sizes)]
    assert ("INVALID_SCHEMA_SPECIFICATION", None) in found


def test_names_may_be_given_in_any_sequence():
    wanted = Feature("BYTES", domain=("a", "b"), not_in_environment=("SERVING",))
    for domain in (["a", "b"], {"b", "a"}, np.array(["a", "b"])):
        assert Feature("BYTES", domain=domain, not_in_environment="SERVING") == wanted
    schema = Schema({"s": Feature("BYTES")}).replace("s", domain=np.array(["a", "b"]))
    assert Schema.from_text(schema.to_text()) == schema
