"""Single features against single columns: shares, bounds and distinct values, at their very edge."""

import dataclasses

import numpy as np
import pytest

from jaxml.data.anomalies import KINDS
from jaxml.data.drift import Comparator
from jaxml.data.schema import Feature, Schema, validate


def kinds(anomalies):
    return {(a.kind, a.column) for a in anomalies}


@pytest.mark.parametrize("mass", [0.5, 0.7, 0.9, 0.99])
def test_a_share_that_is_just_the_domain_mass_will_do(mass):
    strangers = round(1000 * (1 - mass))
    schema = Schema(
        {
            "s": Feature("BYTES", domain=("a",), min_domain_mass=mass),
            "n": Feature("INT", max=1, min_domain_mass=mass),
        }
    )
    for more, wanted in ((0, 0), (1, 2)):
        odd = np.arange(1000) < strangers + more
        found = validate({"s": np.where(odd, "b", "a"), "n": np.where(odd, 2, 1)}, schema)
        assert len(found) == wanted


def test_minimum_domain_mass_lets_some_strangers_in():
    pay = np.array(["Cash"] * 95 + ["New"] * 5)
    schema = Schema({"pay": Feature("BYTES", domain=("Cash",))})
    assert kinds(validate({"pay": pay}, schema.replace("pay", min_domain_mass=0.95))) == set()
    strict = schema.replace("pay", min_domain_mass=0.96)
    (found,) = validate({"pay": pay}, strict)
    assert found.kind == "ENUM_TYPE_UNEXPECTED_STRING_VALUES"
    assert found.examples == ("New",) and found.share == 0.05


def test_a_text_that_is_no_utf8_is_told_once():
    schema = Schema({"s": Feature("BYTES", domain=("a",))})
    assert kinds(validate({"s": [b"a", b"\x80"]}, schema)) == {("ENUM_TYPE_INVALID_UTF8", "s")}


def test_distinct_values_are_bounded():
    schema = Schema({"a": Feature("BYTES", unique_min=2, unique_max=3)})
    for values, kind in (
        (["x"] * 4, "FEATURE_TYPE_LOW_UNIQUE"),
        (list("wxyz"), "FEATURE_TYPE_HIGH_UNIQUE"),
    ):
        assert kinds(validate({"a": np.array(values)}, schema)) == {(kind, "a")}
    assert validate({"a": np.array(list("xyx"))}, schema) == []
    (found,) = validate({"a": np.array([None, *"xxyyzuz"], object)}, schema)
    assert (found.rows.tolist(), found.examples, found.share) == ([6], ("u",), 1 / 7)
    floats = Schema({"a": Feature("FLOAT", unique_min=2)})
    assert kinds(validate({"a": np.zeros(3)}, floats)) == {("FEATURE_TYPE_NO_UNIQUE", "a")}


@pytest.mark.parametrize("bound", [10**400, 2**64, 2**63, 7, 7.5, float("inf")])
def test_bounds_of_any_size_are_compared_with_values_of_any_dtype(bound):
    small = [np.array([0, 1], dtype) for dtype in (bool, np.int8, np.uint64, np.float16, object)]
    for values in small:
        for feature in (Feature("INT", max=bound), Feature("FLOAT", max=bound)):
            found = {a.kind for a in validate({"a": values}, Schema({"a": feature}))}
            assert found <= {"UNEXPECTED_DATA_TYPE"}
            below = dataclasses.replace(feature, min=-bound, max=-bound)
            found = {a.kind for a in validate({"a": values}, Schema({"a": below}))}
            assert f"{feature.type}_TYPE_BIG_{feature.type}" in found


WANTED = {
    "n": Feature("INT", min_fraction=0.5, min_count=2, min=0, max=9, unique_min=1, unique_max=3),
    "x": Feature("FLOAT", min=0.0, max=9.0, disallow_nan=True, disallow_inf=True),
    "s": Feature("BYTES", domain=("a", "b")),
    "b": Feature("INT", is_bool=True, disallow_nan=True),
    "w": Feature("BYTES", number="INT"),
}
FINE = {"n": [1, 2, 3], "x": [1.5, 2.0, 3.0], "s": list("aba"), "b": [True, False, True]}
CASES = {
    "SCHEMA_MISSING_COLUMN": {"n": None},
    "SCHEMA_NEW_COLUMN": {"z": [1, 2, 3]},
    "UNEXPECTED_DATA_TYPE": {"n": [1.5, 2.5, 3.0]},
    "INVALID_FEATURE_SHAPE": {"n": [[1, 2], [3, 4], [5, 6]]},
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": {"n": [1, None, None]},
    "FEATURE_TYPE_LOW_NUMBER_PRESENT": {"n": [1, None, None]},
    "FEATURE_TYPE_NOT_PRESENT": {"n": [None, None, None]},
    "FEATURE_TYPE_HIGH_UNIQUE": {"n": [1, 2, 3, 4], "x": None, "s": None, "b": None},
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": {"s": ["a", "c", "b"]},
    "ENUM_TYPE_INVALID_UTF8": {"s": [b"a", b"\xff", b"b"]},
    "INT_TYPE_BIG_INT": {"n": [1, 2, 10]},
    "INT_TYPE_SMALL_INT": {"n": [1, 2, -1]},
    "INT_TYPE_NOT_INT_STRING": {"w": ["1", "2.5", "3"]},
    "FLOAT_TYPE_BIG_FLOAT": {"x": [1.0, 2.5, 9.5]},
    "FLOAT_TYPE_SMALL_FLOAT": {"x": [1.0, 2.5, -0.5]},
    "FLOAT_TYPE_STRING_NOT_FLOAT": {"x": ["1.0", "two", "3"]},
    "FLOAT_TYPE_HAS_NAN": {"x": [1.0, np.nan, 2.0]},
    "FLOAT_TYPE_HAS_INF": {"x": [1.0, np.inf, 2.0]},
    "BOOL_TYPE_BIG_INT": {"b": [0, 1, 2]},
    "BOOL_TYPE_SMALL_INT": {"b": [0, 1, -1]},
    "BOOL_TYPE_UNEXPECTED_STRING": {"b": ["true", "false", "yes"]},
    "BOOL_TYPE_UNEXPECTED_FLOAT": {"b": [0.0, 1.0, 0.5]},
}
SCHEMAS = {
    "FEATURE_MISSING_NAME": {"": Feature("INT")},
    "FEATURE_MISSING_TYPE": {"n": Feature(min_count=1)},
    "FEATURE_TYPE_LOW_UNIQUE": {"n": Feature("INT", unique_min=4)},
    "FEATURE_TYPE_NO_UNIQUE": {"x": Feature("FLOAT", unique_max=4)},
    "DOMAIN_INVALID_FOR_TYPE": {"n": Feature("INT", domain=("a",))},
    "INVALID_DOMAIN_SPECIFICATION": {"n": Feature("INT", min=9, max=0)},
    "INVALID_SCHEMA_SPECIFICATION": {"n": Feature("INT", min_fraction=2)},
    "BOOL_TYPE_INVALID_CONFIG": {"b": Feature("INT", is_bool=True, max=1)},
    "COMPARATOR_CONTROL_DATA_MISSING": {"x": Feature("FLOAT", drift=Comparator(0.1))},
    "COMPARATOR_L_INFTY_HIGH": {"s": Feature("BYTES", drift=Comparator(infinity_norm=0.1))},
    "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": {
        "s": Feature("BYTES", skew=Comparator(jensen_shannon_divergence=0.1))
    },
    "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH": {
        "s": Feature("BYTES", drift=Comparator(normalized_abs_difference=0.1))
    },
    "COMPARATOR_POPULATION_STABILITY_INDEX_HIGH": {
        "s": Feature("BYTES", skew=Comparator(population_stability_index=0.1))
    },
    "COMPARATOR_KOLMOGOROV_SMIRNOV_HIGH": {
        "s": Feature("BYTES", drift=Comparator(kolmogorov_smirnov=0.1))
    },
}
SIZES = {
    "DATASET_LOW_NUM_EXAMPLES": {"min_examples_count": 4},
    "DATASET_HIGH_NUM_EXAMPLES": {"max_examples_count": 2},
    "COMPARATOR_LOW_NUM_EXAMPLES": {"min_examples_drift": 2.0},
    "COMPARATOR_HIGH_NUM_EXAMPLES": {"max_examples_drift": 0.5},
}


def test_every_kind_of_the_field_is_reached():
    schema = Schema(WANTED)
    assert validate(FINE, schema) == []
    for kind, columns in CASES.items():
        given = {k: v for k, v in {**FINE, **columns}.items() if v is not None}
        (found,) = (a for a in validate(given, schema) if a.kind == kind)
        assert found.column in columns and found.share > 0
        assert len(found.rows) or kind.startswith(("SCHEMA_", "INVALID_FEATURE_SHAPE"))
    other = {"s": list("bbb"), "x": np.zeros((3, 2))}
    for kind, changed in SCHEMAS.items():
        found = validate(FINE, Schema({**WANTED, **changed}), previous=other, serving=other)
        assert kind in {a.kind for a in found if a.column in changed}, kind
    for kind, sizes in SIZES.items():
        assert kinds(validate(FINE, Schema(WANTED, **sizes), previous=FINE)) == {(kind, None)}
    of_the_field = list(KINDS)[: list(KINDS).index("COMPARATOR_KOLMOGOROV_SMIRNOV_HIGH") + 1]
    assert {*CASES, *SCHEMAS, *SIZES} == set(of_the_field) and len(of_the_field) == 40
