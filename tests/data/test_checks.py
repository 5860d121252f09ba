"""Single features against single columns: shares, bounds and distinct values, at their very edge."""

import dataclasses

import numpy as np
import pytest

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
