"""Schemas: what is inferred, what is kept in the file, and what of a table is refused."""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest

from jaxml.data import drift, leaks, missing, statistics
from jaxml.data.anomalies import KINDS
from jaxml.data.drift import Comparator
from jaxml.data.schema import Feature, Schema, infer_schema, validate


def table(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "hour": rng.integers(0, 24, rows),
        "fare": rng.gamma(2.0, 6.0, rows),
        "pay": rng.choice(["Cash", "Card", "Other"], rows),
        "shared": rng.random(rows) < 0.3,
        "tip": np.where(rng.random(rows) < 0.2, np.nan, rng.gamma(1.0, 2.0, rows)),
        "late": rng.integers(0, 2, rows),
    }


def kinds(anomalies):
    return {(a.kind, a.column) for a in anomalies}


def with_row(values, row, value, dtype=None):
    changed = np.array(values, dtype or values.dtype)
    changed[row] = value
    return changed


def test_types_presence_domains_and_ranges_are_inferred():
    schema = infer_schema(table())
    assert [f.type for f in schema.features.values()] == [
        "INT", "FLOAT", "BYTES", "INT", "FLOAT", "INT",
    ]  # fmt: skip
    assert schema["pay"].domain == ("Card", "Cash", "Other")
    assert (schema["hour"].min, schema["hour"].max) == (0, 23)
    assert schema["shared"].is_bool and schema["shared"].max is None
    assert schema["fare"].min_fraction == 1.0 and 0.4 < schema["tip"].min_fraction < 0.8
    assert schema["fare"].disallow_nan and not schema["tip"].disallow_nan
    assert schema.min_examples_count == 1


def test_a_table_is_what_its_own_schema_says_and_resamples_are_too():
    clean = table(2000)
    schema = infer_schema(clean)
    assert validate(clean, schema) == []
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = rng.integers(0, 2000, 500)
        assert validate({k: v[rows] for k, v in clean.items()}, schema) == []


def test_new_draws_of_a_smooth_distribution_stay_in_the_widened_range():
    rng = np.random.default_rng(0)
    accused = {"widened": 0, "observed": 0}
    for _ in range(300):
        schema_rows, fresh = rng.normal(size=(2, 1000, 1))
        for ranges in accused:
            schema = infer_schema({"x": schema_rows[:, 0]}, ranges=ranges)
            accused[ranges] += bool(validate({"x": fresh[:, 0]}, schema))
    assert accused["widened"] <= 6  # 2 %
    assert accused["observed"] > 150


@pytest.mark.parametrize(
    "values, low, high",
    [
        (np.repeat(np.arange(1, 13), 50), 1, 12),  # Reached again and again.
        (np.arange(1000) % 50, 0, 49),  # In steps of one, each often.
        (np.random.default_rng(0).integers(1, 32, 300), 1, 31),
        (np.array([3, 5, 9]), 3, 9),  # Few.
        (np.linspace(0, 1, 500) ** 3, 0.0, None),  # Never across zero.
        (np.array([2**63 - 1, -(2**63)] * 30), -(2**63), 2**63 - 1),
        (np.full(50, 7.0), 7.0, 7.0),
    ],
)
def test_ranges_end_where_they_are_known_to(values, low, high):
    feature = infer_schema({"x": values})["x"]
    assert feature.min == low
    assert high is None or feature.max == high


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.poisson(3, 2000),
        lambda rng: rng.geometric(0.2, 2000),
        lambda rng: rng.integers(0, 1000, 2000),
        lambda rng: rng.exponential(size=2000),
        lambda rng: rng.lognormal(size=2000),
    ],
)
def test_new_draws_of_counts_and_of_long_tails_are_hardly_ever_accused(draw):
    rng = np.random.default_rng(0)
    accused = sum(
        bool(validate({"x": draw(rng)}, infer_schema({"x": draw(rng)}))) for _ in range(100)
    )
    assert accused <= 2


def test_each_kind_has_its_condition():
    clean = table()
    base = infer_schema(clean).without("late")
    rows = len(clean["hour"])
    objects = clean["fare"].astype(object)
    objects[3] = "twelve"
    cases = [
        ("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "pay", with_row(clean["pay"], 7, "cash"), [7]),
        ("INT_TYPE_BIG_INT", "hour", with_row(clean["hour"], 5, 24), [5]),
        ("INT_TYPE_SMALL_INT", "hour", with_row(clean["hour"], 5, -1), [5]),
        ("FLOAT_TYPE_BIG_FLOAT", "fare", with_row(clean["fare"], 9, 1e6), [9]),
        ("FLOAT_TYPE_SMALL_FLOAT", "fare", with_row(clean["fare"], 9, -1.0), [9]),
        ("FLOAT_TYPE_HAS_NAN", "fare", with_row(clean["fare"], 2, np.nan), [2]),
        ("FEATURE_TYPE_LOW_FRACTION_PRESENT", "fare", with_row(clean["fare"], 2, np.nan), [2]),
        ("FLOAT_TYPE_HAS_INF", "fare", with_row(clean["fare"], 2, -np.inf), [2]),
        ("UNEXPECTED_DATA_TYPE", "hour", clean["hour"] + 0.5, list(range(rows))),
        ("UNEXPECTED_DATA_TYPE", "hour", clean["hour"].astype(float), list(range(rows))),
        ("UNEXPECTED_DATA_TYPE", "fare", clean["fare"].astype(int), list(range(rows))),
        ("UNEXPECTED_DATA_TYPE", "pay", clean["hour"], list(range(rows))),
        ("UNEXPECTED_DATA_TYPE", "hour", clean["hour"].astype(str), list(range(rows))),
        ("INT_TYPE_NOT_INT_STRING", "hour", with_row(clean["hour"], 4, "x", "U9"), [4]),
        ("UNEXPECTED_DATA_TYPE", "fare", objects, [3]),
        ("FLOAT_TYPE_STRING_NOT_FLOAT", "fare", objects, [3]),
        ("BOOL_TYPE_BIG_INT", "shared", with_row(clean["shared"], 1, 2, int), [1]),
        ("BOOL_TYPE_SMALL_INT", "shared", with_row(clean["shared"], 1, -2, int), [1]),
        ("BOOL_TYPE_UNEXPECTED_FLOAT", "shared", with_row(clean["shared"], 1, 0.5, float), [1]),
        ("BOOL_TYPE_UNEXPECTED_STRING", "shared", with_row(clean["shared"], 1, "yes", "U5"), [1]),
        ("ENUM_TYPE_INVALID_UTF8", "pay", with_row(clean["pay"], 8, "\ud800"), [8]),
        ("FEATURE_TYPE_NOT_PRESENT", "tip", np.full(rows, np.nan), list(range(rows))),
        ("BOOL_TYPE_UNEXPECTED_FLOAT", "shared", with_row(clean["shared"], 1, np.nan, float), [1]),
        ("FLOAT_TYPE_HAS_NAN", "fare", with_row(clean["fare"], 2, np.nan, object), [2]),
        ("INVALID_FEATURE_SHAPE", "tip", np.zeros((rows, 2)), []),
        ("INVALID_FEATURE_SHAPE", "tip", [[0.5, 1.5]] * rows, []),
        ("INVALID_FEATURE_SHAPE", "tip", 0.5, []),
        ("UNEXPECTED_DATA_TYPE", "tip", [[0.5], [1.0, 2.0]] * (rows // 2), list(range(rows))),
        ("UNEXPECTED_DATA_TYPE", "tip", np.zeros(rows, complex), list(range(rows))),
        ("UNEXPECTED_DATA_TYPE", "tip", np.zeros(rows, [("x", int)]), list(range(rows))),
    ]
    for kind, column, values, wanted in cases:
        found = [a for a in validate({**clean, column: values}, base) if a.kind == kind]
        assert [a.column for a in found] == [column], (kind, column)
        assert found[0].rows.tolist() == wanted, kind
        assert (kind, column) not in kinds(validate(clean, base))
        assert found[0].advice and found[0].severity in ("error", "warning")
        if wanted and kind not in ("FEATURE_TYPE_LOW_FRACTION_PRESENT", "FEATURE_TYPE_NOT_PRESENT"):
            assert found[0].examples and found[0].share == pytest.approx(len(wanted) / rows)


def test_columns_that_are_missing_or_new_and_the_size_of_the_table():
    clean = table()
    schema = infer_schema(clean)
    lacking = {k: v for k, v in clean.items() if k != "pay"}
    assert kinds(validate(lacking, schema)) == {("SCHEMA_MISSING_COLUMN", "pay")}
    assert kinds(validate({**clean, "id": clean["hour"]}, schema)) == {("SCHEMA_NEW_COLUMN", "id")}
    none = {k: v[:0] for k, v in clean.items()}
    assert kinds(validate(none, schema)) == {("DATASET_LOW_NUM_EXAMPLES", None)}
    assert validate(dict(reversed(clean.items())), schema) == []
    small = dataclasses.replace(schema, max_examples_count=10)
    assert kinds(validate(clean, small)) == {("DATASET_HIGH_NUM_EXAMPLES", None)}


def test_the_label_is_wanted_in_training_only():
    clean = table()
    schema = infer_schema(clean).without("late", environment="SERVING")
    serving = {k: v for k, v in clean.items() if k != "late"}
    assert validate(serving, schema, environment="SERVING") == []
    assert kinds(validate(serving, schema)) == {("SCHEMA_MISSING_COLUMN", "late")}
    with pytest.raises(ValueError, match="'SERVNG'"):
        validate(serving, schema, environment="SERVNG")
    with pytest.raises(ValueError, match="'label'"):
        schema.without("label")


def test_where_the_label_is_absent_its_values_may_be_missing():
    clean = table()
    schema = infer_schema(clean).without("late").without("shared").without("fare")
    rows = len(clean["late"])
    for empty in (np.full(rows, np.nan), np.full(rows, None), np.ma.masked_all(rows, int)):
        serving = {**clean, "late": empty, "shared": empty, "fare": empty}
        assert validate(serving, schema, environment="SERVING") == []
        assert ("FEATURE_TYPE_NOT_PRESENT", "late") in kinds(validate(serving, schema))
    some = {**clean, "late": np.where(np.arange(rows) < 9, np.nan, 1.0)}
    assert validate(some, schema, environment="SERVING") == []
    wrong = {**clean, "late": np.full(rows, 7)}  # What is there must be right.
    assert kinds(validate(wrong, schema, environment="SERVING")) == {("INT_TYPE_BIG_INT", "late")}


def test_minimum_domain_mass_is_of_ranges_too():
    clean = {"n": np.arange(1000), "x": np.linspace(1, 2, 1000), "s": np.array(["a", "b"] * 500)}
    schema = infer_schema(clean, min_domain_mass=0.995)
    assert Schema.from_text(schema.to_text()) == schema
    few = {"n": clean["n"].copy(), "x": clean["x"].copy(), "s": clean["s"].copy()}
    few["n"][:5], few["x"][:5], few["s"][:5] = 9999, -1e3, "c"
    assert validate(few, schema) == []
    few["n"][5], few["x"][5], few["s"][5] = 9999, -1e3, "c"
    assert kinds(validate(few, schema)) == {
        ("INT_TYPE_BIG_INT", "n"),
        ("FLOAT_TYPE_SMALL_FLOAT", "x"),
        ("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "s"),
    }
    assert len(validate(few, infer_schema(clean))) == 3
    with pytest.raises(ValueError, match="min_domain_mass"):
        infer_schema(clean, min_domain_mass=1.5)


def test_stages_of_life_before_and_after_use_are_not_validated():
    schema = infer_schema(table())
    spoilt = {**table(), "pay": np.full(200, "?")}
    for stage, wanted in (("DEPRECATED", 0), ("PLANNED", 0), ("BETA", 1)):
        found = validate(spoilt, schema.replace("pay", lifecycle_stage=stage))
        assert len(found) == wanted, stage
        lacking = {k: v for k, v in spoilt.items() if k != "pay"}
        assert len(validate(lacking, schema.replace("pay", lifecycle_stage=stage))) == wanted


def test_drift_and_skew_have_thresholds_in_the_schema():
    clean = table(2000)
    schema = infer_schema(clean).replace(
        "pay", drift=Comparator(infinity_norm=0.1), skew=Comparator(jensen_shannon_divergence=0.1)
    )
    other = {**table(2000, seed=1), "pay": np.full(2000, "Cash")}
    assert validate(clean, schema, previous=table(2000, seed=2)) == []
    (drift,) = validate(clean, schema, previous=other)
    assert (drift.kind, drift.column, drift.examples) == (
        "COMPARATOR_L_INFTY_HIGH",
        "pay",
        ("Cash",),
    )
    (skew,) = validate(clean, schema, serving=other)
    assert skew.kind == "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"
    (gone,) = validate(clean, schema, serving={"hour": other["hour"]})
    assert gone.kind == "COMPARATOR_CONTROL_DATA_MISSING"
    sized = dataclasses.replace(schema, min_examples_drift=0.5, max_examples_drift=2.0)
    grown = {k: np.concatenate([v] * 3) for k, v in clean.items()}
    shrunk = {k: v[:900] for k, v in clean.items()}
    assert kinds(validate(grown, sized, previous=clean)) == {("COMPARATOR_HIGH_NUM_EXAMPLES", None)}
    assert kinds(validate(shrunk, sized, previous=clean)) == {("COMPARATOR_LOW_NUM_EXAMPLES", None)}


def test_missing_values_in_all_their_forms():
    schema = infer_schema(
        {"a": [1, 2, 3], "s": ["x", "y", "z"], "t": np.array(["2013-01-01"] * 3, "M8[D]")}
    )
    masked = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    for column, values in (
        ("a", [1, None, 3]),
        ("a", np.array([1.0, np.nan, 3.0])),
        ("a", masked),
        ("s", np.array(["x", None, "z"], object)),
        ("s", np.array(["x", np.nan, "z"], object)),
        ("t", np.array(["2013-01-01", "NaT", "2013-01-01"], "M8[D]")),
    ):
        base = {"a": [1, 2, 3], "s": ["x", "y", "z"], "t": np.array(["2013-01-01"] * 3, "M8[D]")}
        (found,) = validate({**base, column: values}, schema)
        assert found.kind == "FEATURE_TYPE_LOW_FRACTION_PRESENT" and found.rows.tolist() == [1]
    # The empty text is a text.
    empty = infer_schema({"s": ["", "x"]})
    assert empty["s"].domain == ("", "x") and empty["s"].min_fraction == 1.0


def test_gaps_in_booleans_may_be_none_or_nan():
    schema = infer_schema({"a": np.array([True, None, False], object)})
    assert validate({"a": np.array([1.0, np.nan, 0.0])}, schema) == []


def test_gaps_in_whole_numbers_do_not_fix_the_type_of_the_next_table():
    schema = infer_schema({"a": np.array([1.0, np.nan, 3.0])})
    assert schema["a"].type == "FLOAT" and schema["a"].whole_numbers
    assert validate({"a": np.array([1, 2, 3])}, schema) == []
    assert validate({"a": np.array([1.5, 2.0, 3.0])}, schema) == []


def test_what_is_no_table_is_refused():
    with pytest.raises(ValueError, match="'b' has 3"):
        infer_schema({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"one-dimensional.*\(2, 2\)"):
        infer_schema({"a": np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"column 'a'.*INT in row 0, BYTES in row 2"):
        infer_schema({"a": [1, 2, "x"]})
    with pytest.raises(ValueError, match="complex128"):
        infer_schema({"a": np.zeros(2, complex)})
    with pytest.raises(ValueError, match="'b' has 3"):
        validate({"a": [1, 2], "b": [1, 2, 3]}, Schema({}))


def test_a_table_without_rows_or_columns():
    schema = infer_schema({"a": np.zeros(0), "b": np.zeros(0, "U3")})
    assert [f.type for f in schema.features.values()] == ["FLOAT", "BYTES"]
    assert validate({"a": np.ones(3), "b": np.array(list("xyz"))}, schema) == []
    assert validate({}, infer_schema({})) == []
    unknown = infer_schema({"a": [None, None]})
    assert unknown["a"].type is None
    assert validate({"a": ["x", 1]}, unknown) == []


AWKWARD = {
    "plain": np.array(["a", "b"]),
    'quo"te\\ \n\t.': np.array(['x"', "y\\\n\x7f\x01"]),
    "ünï 東京 🛫": np.array(["Zürich", "🛬"]),
    "": None,
    "f": np.array([0.1 + 0.2, -1e-310]),
    "inf": np.array([np.inf, 1.0]),
    "big": np.array([2**63 - 1, -(2**63)]),
    "huge": np.array([10**30, 5], object),
    "bool": np.array([True, False]),
    "time": np.array(["2013-01-01", "NaT"], "M8[s]"),
    "wait": np.array([1, 2], "m8[s]"),
    "void": np.array([None, None], object),
}


def test_the_file_holds_the_schema_exactly(tmp_path):
    columns = {name: values for name, values in AWKWARD.items() if values is not None}
    schema = infer_schema(columns).without("plain")
    schema = schema.replace(
        "f", drift=Comparator(kolmogorov_smirnov=0.1, source="QUANTILES"), skew=Comparator()
    )
    path = tmp_path / "folder" / "schema.toml"
    schema.save(path)
    loaded = Schema.load(path)
    assert loaded == schema and list(loaded.features) == list(schema.features)
    assert loaded["f"].max == 0.1 + 0.2 and loaded["huge"].max == 10**30
    assert validate(columns, loaded) == []
    assert Schema.from_text(schema.to_text()).to_text() == schema.to_text() == str(schema)
    with pytest.raises(ValueError, match="names that are texts and not empty"):
        infer_schema({"": np.zeros(1)})
    with pytest.raises(ValueError, match="UTF-8"):
        Schema({"\ud800": Feature("INT")}).save(path)
    assert Schema.load(path) == schema  # Nothing half-written.


@pytest.mark.parametrize(
    "text, told",
    [
        ("[features.a]\ntyp = 'INT'", "has 'typ'"),
        ("[features.a]\nmin_count = 'x'", "min_count must be int"),
        ("[features.a]\nmin = true", "min must be"),
        ("[features.a]\ndomain = [1]", "domain must hold texts"),
        ("[features.a]\ndrift = { l_inf = 1 }", "has 'l_inf'"),
        ("[features.a]\nmin = nan", "must not be NaN"),
        ("features = 3", "table of tables"),
        ("[features.a\nx = 1", "line 1"),
        ("owner = 'me'", "has 'owner'"),
    ],
)
def test_a_file_that_is_no_schema_is_refused_by_name(tmp_path, text, told):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=told) as error:
        Schema.load(path)
    assert "wrong.toml" in str(error.value)


def test_kinds_are_those_of_the_field():
    assert len([k for k in KINDS if not k.startswith("COMPARATOR_")]) >= 30
    for severity, advice in KINDS.values():
        assert severity in ("error", "warning") and advice and not advice.endswith(".")


# ------------------------------------------------------------------------- ten thousand tables


def generated(r):
    """A small table of any columns, and its rows."""
    rows = r.choice([1, 1, 2, 3, 5, 8, 30])
    makers = [
        lambda: np.array([r.randint(-5, 5) for _ in range(rows)]),
        lambda: np.array([r.randint(-(2**40), 2**40) for _ in range(rows)], np.int64),
        lambda: np.array([r.gauss(0, 1) * 10 ** r.randint(-3, 6) for _ in range(rows)]),
        lambda: np.array([r.choice([r.random(), np.nan]) for _ in range(rows)]),
        lambda: np.array([r.choice(["a", "b", "", " a", "é"]) for _ in range(rows)]),
        lambda: np.array([r.choice(["a", None, "🛫"]) for _ in range(rows)], object),
        lambda: np.array([r.random() < 0.5 for _ in range(rows)]),
        lambda: np.ma.masked_array(
            [r.randint(0, 9) for _ in range(rows)], [r.random() < 0.2 for _ in range(rows)]
        ),
        lambda: np.array([r.randint(0, 10**9) for _ in range(rows)], "M8[s]"),
        lambda: np.array([r.choice([1, 2.5, None]) for _ in range(rows)], object),
        lambda: np.array([r.randint(0, 255) for _ in range(rows)], np.uint8),
        lambda: np.array([r.choice([1e308, -1e308, 0.0, np.inf]) for _ in range(rows)]),
    ]
    return {f"c{i}": r.choice(makers)() for i in range(r.randint(1, 4))}, rows


def as_objects(values):
    """A column as plain Python values, None where it is masked."""
    plain = np.empty(len(values), object)
    plain[:] = values.tolist() if values.dtype.kind != "M" else list(values)
    return plain


# One value of a column is replaced by what is said here (`...`: by None); None where that is no fault.
FAULTS_OF_A_VALUE = {
    "gap": lambda f: ... if f.min_fraction == 1 else None,
    "NaN": lambda f: np.nan if f.min_fraction == 1 else None,
    "infinity": lambda f: np.inf if f.type != "FLOAT" or f.disallow_inf else None,
    "big": lambda f: None if f.max is None else f.max + max(1, abs(f.max)),
    "small": lambda f: None if f.min is None else f.min - max(1, abs(f.min)),
    "category": lambda f: None if f.domain is None else "a stranger",
    "case": lambda f: None if f.domain is None else "A",
    "text": lambda f: "12x" if f.type != "BYTES" else None,
    "number": lambda f: 7 if f.type in ("BYTES", "TIME") else None,
    "time": lambda f: np.datetime64("2013-01-01") if f.type != "TIME" else None,
    "no Unicode": lambda f: "\ud800",
    "list": lambda f: [1, 2],
    "record": lambda f: {"a": 1},
}
# The column is replaced by what is said here.
FAULTS_OF_A_COLUMN = {
    "absent": lambda f, rows: ... if f.min_count else None,
    "empty": lambda f, rows: np.full(rows, None) if f.min_count else None,
    "texts": lambda f, rows: np.full(rows, "abc") if f.type != "BYTES" else None,
    "halves": lambda f, rows: np.arange(rows) + 0.5 if f.type != "FLOAT" else None,
    "booleans": lambda f, rows: np.arange(rows) % 2 == 0 if not f.is_bool else None,
    "vectors": lambda f, rows: np.zeros((rows, 2)),
    "complex": lambda f, rows: np.zeros(rows, complex),
}


def test_ten_thousand_tables_pass_their_own_schema_and_no_fault_passes():
    r = random.Random(0)
    injected = Counter()
    for i in range(10_000):
        columns, rows = generated(r)
        schema = infer_schema(columns)
        assert validate(columns, schema) == [], (i, columns)
        if i % 20 == 0:
            assert validate(dict(reversed(columns.items())), schema) == []
            assert Schema.from_text(schema.to_text()) == schema
        name, row = r.choice(list(columns)), r.randrange(rows)
        feature = schema[name]
        fault = r.choice([*FAULTS_OF_A_VALUE, *FAULTS_OF_A_COLUMN, "new"])
        if fault == "new":
            name, spoilt = "stranger", np.zeros(rows)
        elif fault in FAULTS_OF_A_COLUMN:
            spoilt = FAULTS_OF_A_COLUMN[fault](feature, rows)
        else:
            spoilt = as_objects(columns[name])
            spoilt[row] = FAULTS_OF_A_VALUE[fault](feature)
            if spoilt[row] is None:
                continue
            spoilt[row] = None if spoilt[row] is ... else spoilt[row]
        if spoilt is None or (feature.type is None and fault != "new"):
            continue
        injected[fault] += 1
        given = {**columns, name: spoilt}
        if spoilt is ...:
            del given[name]
        found = [a for a in validate(given, schema) if a.column == name]
        assert found and all(str(a) for a in found), (i, fault, columns[name], feature)
        if fault in FAULTS_OF_A_VALUE:
            assert any(row in a.rows for a in found), (i, fault, found)
    assert set(injected) == {*FAULTS_OF_A_VALUE, *FAULTS_OF_A_COLUMN, "new"}
    assert min(injected.values()) >= 50 and injected.total() >= 5_000, injected


JUNK = [
    None, 0, -1, True, 2.5, float("nan"), float("inf"), "", "a", "é\ud800", b"\xff", b"x", 10**40, [1],
    {}, np.datetime64("NaT", "s"), np.datetime64("2013-01-01"), np.timedelta64(3, "s"), np.float32(1.5),
    np.int8(3), np.bool_(False), 1 + 2j, object,
]  # fmt: skip


def test_whatever_a_column_holds_the_validator_says_something_or_nothing_and_goes_on():
    r = random.Random(1)
    for _ in range(1_000):
        clean, rows = generated(r)
        schema = infer_schema(clean)
        name = r.choice(list(clean))
        junk = np.empty(rows, object)
        junk[:] = [r.choice(JUNK) for _ in range(rows)]
        found = validate({**clean, name: junk}, schema)
        for each in found:
            assert each.kind in KINDS and str(each)
            assert 0 <= each.share <= 1 and (each.rows < rows).all()


def test_tables_of_any_kind_go_through_everything_else():
    r = random.Random(2)
    for _ in range(80):
        (clean, rows), (other, _) = generated(r), generated(r)
        same_names = dict(zip(clean, other.values(), strict=False))
        names = list(clean)
        for table in (clean, other, same_names):
            found = statistics.find_changes(table, statistics.generate_statistics(clean))
            for source in ("STANDARD", "QUANTILES"):
                every = Comparator(0.1, 0.1, 0.1, 0.1, 0.1, source)
                found += drift.compare(table, clean, dict.fromkeys(names, every))
            found += leaks.duplicate_rows(table)
            assert all(str(each) for each in found)
        assert len(leaks.shared_rows(clean, clean)[0].rows) == rows
        leaks.conflicting_labels(clean, names[0])
        errors = np.arange(rows)
        for row in missing.missing_by_slice(clean, names, errors):
            assert 0 <= row.missing_rate <= 1 and 1 <= row.num_rows < rows
