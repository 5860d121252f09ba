"""Schemas: drafts, files, and the anomalies of tables against them."""

import datetime
import random

import numpy as np
import pandas
import pytest

from jaxml.validation import drift, leaks, missing, statistics
from jaxml.validation.anomalies import KINDS
from jaxml.validation.columns import read_column
from jaxml.validation.drift import Comparator
from jaxml.validation.readers import read_csv, read_parquet
from jaxml.validation.schema import Feature, Schema, infer_schema, validate


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


# ------------------------------------------------------------------------------------------ inference


def test_types_presence_domains_and_ranges_are_inferred():
    schema = infer_schema(table())
    assert [f.type for f in schema.features.values()] == [
        "INT", "FLOAT", "BYTES", "INT", "FLOAT", "INT",
    ]  # fmt: skip
    assert schema["pay"].domain == ("Card", "Cash", "Other")
    assert (schema["hour"].min, schema["hour"].max) == (0, 23)
    assert schema["shared"].is_bool and schema["shared"].max is None
    assert schema["fare"].min_fraction == 1.0 and 0.4 < schema["tip"].min_fraction < 0.8
    assert schema.min_examples_count == 1
    assert repr(schema) == "<Schema of 6 columns: hour, fare, pay, shared, tip, late>"


def test_a_table_matches_its_own_schema_and_so_do_resamples():
    clean = table(2000)
    schema = infer_schema(clean)
    assert validate(clean, schema) == []
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = rng.integers(0, 2000, 500)
        assert validate({k: v[rows] for k, v in clean.items()}, schema) == []


@pytest.mark.parametrize(
    "values, low, high",
    [
        (np.arange(1000) % 50, 0, 49),  # Reached again and again.
        (np.array([3, 5, 9]), 3, 9),  # Few.
        (np.linspace(0, 1, 500) ** 3, 0.0, None),  # Never across zero.
        (np.array([2**63 - 1, -(2**63)] * 30), -(2**63), 2**63 - 1),
        (np.full(50, 7.0), 7.0, 7.0),
        (np.array([np.inf, 1.0]), 1.0, None),
    ],
)
def test_ranges_end_where_the_values_do(values, low, high):
    feature = infer_schema({"x": values})["x"]
    assert feature.min == low
    assert high is None or feature.max == high


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.geometric(0.2, 2000),
        lambda rng: rng.integers(0, 1000, 2000),
        lambda rng: rng.lognormal(size=2000),
    ],
)
def test_new_draws_are_hardly_ever_outside_of_the_drafted_range(draw):
    rng = np.random.default_rng(0)
    accused = sum(
        bool(validate({"x": draw(rng)}, infer_schema({"x": draw(rng)}))) for _ in range(100)
    )
    assert accused <= 2


@pytest.mark.parametrize("rows", [25, 60, 150])
def test_ranges_of_small_tables_are_as_wide_as_those_of_large_ones(rows):
    """Of 600 tables some two are accused; a range of the observed values is passed by two in three."""
    rng = np.random.default_rng(0)
    accused = 0
    for _ in range(200):
        for draw in (rng.normal, rng.exponential, rng.random):
            known, batch = {"x": draw(size=rows)}, {"x": draw(size=rows)}
            accused += bool(validate(batch, infer_schema(known)))
    assert accused <= 6


@pytest.mark.parametrize("file", ["", "csv", "parquet"])
def test_the_same_table_in_single_precision_is_in_its_own_range(tmp_path, file):
    clean = {
        "x": np.array([0.1, 0.7, 123.456, -0.3]),
        "tiny": np.array([1e-60, 0.5, 1.0, np.nan]),
        "id": np.ma.masked_array([16_777_217, 123_456_789, 1, 0], [False, False, False, True]),
    }
    if file == "csv":
        del clean["id"]  # Written as 1.6777216e+07, which is no integer to a reader.
    single = {k: np.ma.filled(v.astype(np.float32), np.nan) for k, v in clean.items()}
    drafted = infer_schema(clean)
    path = tmp_path / "table"
    if file == "csv":
        pandas.DataFrame(single).to_csv(path, index=False)
        single = read_csv(path, drafted)
    elif file == "parquet":
        pandas.DataFrame(single).to_parquet(path, index=False)
        single = read_parquet(path, drafted)
    assert validate(single, drafted) == []


def test_domains_of_tables_split_at_random_hardly_ever_accuse_the_other_half():
    """Names and dates that are seen once, twice or a few times stay open; few categories are closed."""
    rng = np.random.default_rng(0)
    accused = closed = 0
    weights = np.arange(1, 61.0) ** -1.5
    for _ in range(50):
        day = np.datetime64("2020-01-01") + rng.integers(0, 90, 200).astype("m8[D]")
        table = {
            "name": np.array([f"name {i // 2}" for i in range(200)]),
            "date": day.astype(str),
            "town": rng.choice([f"town {i}" for i in range(60)], 200, p=weights / weights.sum()),
            "pay": rng.choice(["Cash", "Card", "Voucher"], 200, p=[0.7, 0.2, 0.1]),
        }
        order = rng.permutation(200)
        drafted = infer_schema({k: v[order[:100]] for k, v in table.items()})
        accused += bool(validate({k: v[order[100:]] for k, v in table.items()}, drafted))
        closed += drafted["pay"].domain is not None
    assert accused <= 2 and closed >= 45


def test_a_domain_is_closed_only_if_no_value_was_seen_just_once():
    names = [f"name {i % 40}" for i in range(80)]
    assert infer_schema({"s": names})["s"].domain is not None
    assert infer_schema({"s": [*names, "another"]})["s"].domain is None
    # One value seen twice among frequent ones does not say that there is no other.
    assert infer_schema({"s": ["a", "b"] * 50 + ["c"] * 2})["s"].domain is None
    assert infer_schema({"s": ["a", "b"] * 50 + ["c"] * 5})["s"].domain == ("a", "b", "c")
    assert infer_schema({"s": names}, max_string_domain_size=39)["s"].domain is None
    assert infer_schema({"s": ["a", "b"]})["s"].domain == ("a", "b")  # Too small a table to know.


# ----------------------------------------------------------------------------------------- anomalies


def cases():
    clean = table()
    rows = len(clean["hour"])
    every = list(range(rows))
    objects = clean["fare"].astype(object)
    objects[3] = "twelve"
    return [
        ("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "pay", with_row(clean["pay"], 7, "cash"), [7]),
        ("ENUM_TYPE_INVALID_UTF8", "pay", with_row(clean["pay"], 8, "\ud800"), [8]),
        ("ENUM_TYPE_INVALID_UTF8", "pay", with_row(clean["pay"], 8, b"\xff", object), [8]),
        ("INT_TYPE_BIG_INT", "hour", with_row(clean["hour"], 5, 24), [5]),
        ("INT_TYPE_SMALL_INT", "hour", with_row(clean["hour"], 5, -1), [5]),
        ("FLOAT_TYPE_BIG_FLOAT", "fare", with_row(clean["fare"], 9, 1e6), [9]),
        ("FLOAT_TYPE_BIG_FLOAT", "fare", with_row(clean["fare"], 9, np.inf), [9]),
        ("FLOAT_TYPE_SMALL_FLOAT", "fare", with_row(clean["fare"], 9, -1.0), [9]),
        ("FEATURE_TYPE_LOW_FRACTION_PRESENT", "fare", with_row(clean["fare"], 2, np.nan), [2]),
        ("FEATURE_TYPE_LOW_FRACTION_PRESENT", "pay", with_row(clean["pay"], 2, ""), [2]),
        ("FEATURE_TYPE_NOT_PRESENT", "tip", np.full(rows, np.nan), every),
        ("UNEXPECTED_DATA_TYPE", "hour", clean["hour"] + 0.5, every),
        ("UNEXPECTED_DATA_TYPE", "hour", clean["hour"] + np.eye(rows)[3] / 2, [3]),
        ("UNEXPECTED_DATA_TYPE", "fare", clean["fare"].astype(int), every),
        ("UNEXPECTED_DATA_TYPE", "pay", clean["hour"], every),
        ("UNEXPECTED_DATA_TYPE", "hour", clean["hour"].astype(str), every),
        ("UNEXPECTED_DATA_TYPE", "hour", with_row(clean["hour"], 4, "x", "U9"), [4]),
        ("UNEXPECTED_DATA_TYPE", "hour", clean["shared"], every),
        ("UNEXPECTED_DATA_TYPE", "fare", objects, [3]),
        ("UNEXPECTED_DATA_TYPE", "tip", [[0.5], [1.0, 2.0]] * (rows // 2), every),
        ("UNEXPECTED_DATA_TYPE", "tip", np.zeros(rows, complex), every),
        ("UNEXPECTED_DATA_TYPE", "tip", np.arange(rows).astype("M8[D]"), every),
        ("UNEXPECTED_DATA_TYPE", "pay", with_row(clean["pay"], 6, {"a": 1}, object), [6]),
        ("UNEXPECTED_DATA_TYPE", "tip", np.zeros(rows, [("x", int)]), every),
        ("BOOL_TYPE_BIG_INT", "shared", with_row(clean["shared"], 1, 2, int), [1]),
        ("BOOL_TYPE_SMALL_INT", "shared", with_row(clean["shared"], 1, -2, int), [1]),
        ("BOOL_TYPE_UNEXPECTED_FLOAT", "shared", with_row(clean["shared"], 1, 0.5, float), [1]),
        ("INVALID_FEATURE_SHAPE", "tip", np.zeros((rows, 2)), []),
        ("INVALID_FEATURE_SHAPE", "tip", 0.5, []),
        ("SCHEMA_NEW_COLUMN", "stranger", clean["hour"], []),
    ]


@pytest.mark.parametrize("kind, column, values, wanted", cases())
def test_each_kind_has_its_condition(kind, column, values, wanted):
    clean = table()
    (found,) = (
        a for a in validate({**clean, column: values}, infer_schema(clean)) if a.kind == kind
    )
    assert found.column == column and found.rows.tolist() == wanted
    assert found.advice and found.severity == ("warning" if "warning" in str(found) else "error")
    if wanted:
        assert found.share == pytest.approx(len(wanted) / 200)
        assert found.examples or kind.startswith("FEATURE_TYPE")


def test_absent_columns_and_the_size_of_the_table():
    clean = table()
    schema = infer_schema(clean)
    lacking = {k: v for k, v in clean.items() if k != "pay"}
    assert kinds(validate(lacking, schema)) == {("SCHEMA_MISSING_COLUMN", "pay")}
    none = {k: v[:0] for k, v in clean.items()}
    assert kinds(validate(none, schema)) == {("DATASET_LOW_NUM_EXAMPLES", None)}
    assert validate(dict(reversed(clean.items())), schema) == []


def test_where_the_label_may_be_absent_its_values_may_be_missing():
    clean = table()
    schema = infer_schema(clean).without("late", environment="SERVING").without("shared")
    serving = {k: v for k, v in clean.items() if k != "late"}
    assert validate(serving, schema, environment="SERVING") == []
    assert kinds(validate(serving, schema)) == {("SCHEMA_MISSING_COLUMN", "late")}
    for empty in (np.full(200, np.nan), np.full(200, None), np.ma.masked_all(200, int)):
        given = {**clean, "late": empty, "shared": empty}
        assert validate(given, schema, environment="SERVING") == []
        assert ("FEATURE_TYPE_NOT_PRESENT", "late") in kinds(validate(given, schema))
    wrong = {**clean, "late": np.full(200, 7)}  # Values that are there must be right.
    assert kinds(validate(wrong, schema, environment="SERVING")) == {("INT_TYPE_BIG_INT", "late")}
    with pytest.raises(ValueError, match="environment must be one of 'TRAINING', 'SERVING', got"):
        validate(serving, schema, environment="SERVNG")


def test_a_share_that_just_equals_the_domain_mass_is_enough():
    for mass in (0.7, 0.99):
        texts = Feature("BYTES", domain=("a",), min_domain_mass=mass)
        schema = Schema({"s": texts, "n": Feature("INT", max=1, min_domain_mass=mass)})
        for more, wanted in ((0, 0), (1, 2)):
            odd = np.arange(1000) < round(1000 * (1 - mass)) + more
            found = validate({"s": np.where(odd, "b", "a"), "n": np.where(odd, 2, 1)}, schema)
            assert len(found) == wanted
        drafted = infer_schema({"n": np.arange(9), "b": [True] * 9}, min_domain_mass=mass)
        assert drafted["n"].min_domain_mass == mass and drafted["b"].min_domain_mass == 1


@pytest.mark.parametrize("bound", [10**400, 2**63, 7.5, float("inf")])
def test_bounds_of_any_size_are_compared_with_values_of_any_dtype(bound):
    small = [np.array([0, 1], dtype) for dtype in (bool, np.int8, np.uint64, np.float16, object)]
    for values in small:
        for type_ in ("INT", "FLOAT"):
            above = validate({"a": values}, Schema({"a": Feature(type_, max=bound)}))
            assert {a.kind for a in above} <= {"UNEXPECTED_DATA_TYPE"}
            below = validate({"a": values}, Schema({"a": Feature(type_, min=-bound, max=-bound)}))
            assert f"{type_}_TYPE_BIG_{type_}" in {a.kind for a in below}
    (found,) = validate({"a": [2**70, 1]}, Schema({"a": Feature("INT", max=2**70 - 1)}))
    assert found.rows.tolist() == [0]


def test_drift_and_skew_have_thresholds_in_the_schema():
    clean = table(2000)
    schema = infer_schema(clean).replace(
        "pay", drift=Comparator(infinity_norm=0.1), skew=Comparator(jensen_shannon_divergence=0.1)
    )
    other = {**table(2000, seed=1), "pay": np.full(2000, "Cash")}
    assert validate(clean, schema, previous=table(2000, seed=2)) == []
    (found,) = validate(clean, schema, previous=other)
    assert (found.kind, found.column) == ("COMPARATOR_L_INFTY_HIGH", "pay")
    assert found.examples == ("Cash",)
    (skew,) = validate(clean, schema, serving=other)
    assert skew.kind == "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"
    (gone,) = validate(clean, schema, serving={"hour": other["hour"]})
    assert gone.kind == "COMPARATOR_CONTROL_DATA_MISSING"


def test_gaps_do_not_fix_the_type_of_the_next_table():
    gaps = infer_schema({"a": np.array([True, None, False], object)})
    assert validate({"a": np.array([1.0, np.nan, 0.0])}, gaps) == []
    schema = infer_schema({"a": np.array([1.0, np.nan, 3.0])})
    assert schema["a"].type == "FLOAT" and schema["a"].whole_numbers
    assert validate({"a": np.array([1, 2, 3])}, schema) == []
    assert validate({"a": np.array([1.5, 2.0, 3.0])}, schema) == []


def test_times_in_several_zones_are_not_one_type():
    here = datetime.datetime(2013, 1, 1)
    schema = infer_schema({"t": [here, here]})
    (found,) = validate({"t": [here, here.replace(tzinfo=datetime.UTC)]}, schema)
    assert found.kind == "UNEXPECTED_DATA_TYPE" and "several zones" in found.description


def test_whole_floats_are_not_called_broken():
    wanted = Schema({"hour": Feature("INT")})
    (whole,) = validate({"hour": np.array([5.0, 6.0])}, wanted)
    (broken,) = validate({"hour": np.array([5.0, 6.5])}, wanted)
    assert "not whole" not in str(whole) and "1 of 2 values not whole" in str(broken)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: infer_schema({"a": np.zeros((2, 2))}), r"one-dimensional.*\(2, 2\)"),
        (lambda: infer_schema({"a": [1, 2, "x"]}), r"column 'a'.*INT 1 in row 0, BYTES 'x' in row 2"),
        (lambda: infer_schema({"": np.zeros(1)}), "texts and not empty, got ''"),
        (lambda: infer_schema({}, min_domain_mass=1.5), r"min_domain_mass must be .* \[0, 1\], got 1.5"),
        (lambda: validate({"a": [1, 2], "b": [1, 2, 3]}, Schema({})), "3 of 'b'"),
        (lambda: Schema({}).without("label"), "column must be one of .*'label'"),
        (lambda: Schema(["a"]), r"features must be Features by name, got \['a'\]"),
        (lambda: Schema({"a": "INT"}), "column 'a' must be a Feature, got 'INT'"),
        (lambda: validate({"a": [1]}, {"a": "INT"}), "schema must be a Schema, got {'a': 'INT'}"),
        (lambda: infer_schema(np.zeros((2, 2))), "columns must be a mapping .* got ndarray"),
        (lambda: infer_schema([{"a": 1}, {"a": 2}]), "columns must be a mapping .* got list"),
        (lambda: infer_schema({}, max_string_domain_size=-1), "max_string_domain_size must be an integer"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_table_without_rows_or_columns():
    schema = infer_schema({"a": np.zeros(0), "b": np.zeros(0, "U3")})
    assert [f.type for f in schema.features.values()] == ["FLOAT", None]
    assert validate({"a": np.ones(3), "b": np.array(list("xyz"))}, schema) == []
    assert validate({}, infer_schema({})) == []
    unknown = infer_schema({"a": [None, None]})
    assert unknown["a"].type is None and validate({"a": ["x", 1]}, unknown) == []


# ---------------------------------------------------------------------------------- features and files


def test_shown_shortly():
    columns = {f"column {i}": [str(j) for j in range(100)] * 2 for i in range(99)}
    schema = infer_schema(columns | {"<age>": [20, 31] * 100})
    assert (
        repr(schema["<age>"])
        == "Feature(type='INT', min_fraction=1.0, min_count=1, min=20, max=31)"
    )
    assert len(repr(schema["column 0"])) < 150 and len(repr(schema)) < 100
    page = schema._repr_html_()
    summary = statistics.generate_statistics({"hour": [9] * 99 + [None], "pay": ["Cash"] * 100})
    assert repr(summary) == "<Statistics of 100 rows and 2 columns: hour, pay>"
    assert repr(summary.columns["hour"]) == "<ColumnStatistics of 99 INT values>"
    assert repr(read_column("hour", [9, None])) == "<Column 'hour': INT, 1 of 2 present>"
    assert "… and 50 more" in page and len(page) < 20_000
    assert "<th>&lt;age&gt;</th>" in infer_schema({"<age>": [1]})._repr_html_()


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"type": "NUMBER"}, "type must be one of"),
        ({"type": "INT", "domain": ("x",)}, "domain must be None for the type INT"),
        ({"type": "BYTES", "min": 0}, "min and max must be None for the type BYTES"),
        ({"type": "INT", "min": 5, "max": 1}, "min must be at most max, got 5 and 1"),
        ({"type": "INT", "min_fraction": 2.0}, r"min_fraction must be .* \[0, 1\], got 2.0"),
        ({"type": "INT", "min_count": -1}, "min_count must be an integer of at least 0, got -1"),
        ({"type": "TIME", "is_bool": True}, "type must be INT for booleans"),
        ({"type": "INT", "max": float("nan")}, "max must be a number, got nan"),
        ({"type": "INT", "drift": 0.1}, "drift must be a Comparator"),
        ({"type": "BYTES", "domain": 3}, "domain must hold texts, got 3"),
    ],
)
def test_a_feature_that_contradicts_itself_is_refused(attributes, message):
    with pytest.raises(ValueError, match=message):
        Feature(**attributes)


AWKWARD = {
    "plain": np.array(["a", "b"]),
    'quo"te\\ \n\t.': np.array(['x"', "y\\\n\x7f\x01"]),
    "ünï 東京 🛫": np.array(["Zürich", "🛬"]),
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
    schema = infer_schema(AWKWARD).without("plain")
    schema = schema.replace("f", drift=Comparator(infinity_norm=0.1), skew=Comparator())
    path = tmp_path / "folder" / "schema.toml"
    schema.save(path)
    loaded = Schema.load(path)
    assert loaded == schema and list(loaded.features) == list(schema.features)
    assert loaded["f"].max == 0.1 + 0.2 and loaded["huge"].max == 10**30
    assert validate(AWKWARD, loaded) == []
    assert Schema.from_text(schema.to_text()).to_text() == schema.to_text() == str(schema)


def test_a_file_has_the_mode_of_any_other(tmp_path):
    (tmp_path / "other").write_text("")
    path = tmp_path / "new" / "schema.toml"
    for _ in range(2):
        infer_schema({"a": [1]}).save(path)
        assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    "text, message",
    [
        ("[features.a]\ntyp = 'INT'", "features.a: .*'typ'"),
        ("[features.a]\nmin_count = 'x'", "min_count must be an integer"),
        ("[features.a]\ntype = 'BYTES'\ndomain = [1]", "domain must hold texts"),
        ("[features.a]\ndrift = { l_inf = 1 }", "features.a: .*'l_inf'"),
        ("[features.a]\nskew = { infinity_norm = nan }", "infinity_norm must be a finite number"),
        ("[features.a\nx = 1", "line 1"),
        ("owner = 'me'", "schema: .*'owner'"),
    ],
)
def test_a_file_that_is_not_a_schema_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"wrong\.toml.*{message}"):
        Schema.load(path)


# --------------------------------------------------------------------------------------- random tables


def generated(r):
    """A small table of any columns, and its rows."""
    rows = r.choice([1, 1, 2, 3, 5, 8, 30])
    makers = [
        lambda: np.array([r.randint(-5, 5) for _ in range(rows)]),
        lambda: np.array([r.randint(-(2**40), 2**40) for _ in range(rows)], np.int64),
        lambda: np.array([r.gauss(0, 1) * 10 ** r.randint(-3, 6) for _ in range(rows)]),
        lambda: np.array([r.choice(["a", "b", "", " a", "é"]) for _ in range(rows)]),
        lambda: np.array([r.choice(["a", None, "🛫"]) for _ in range(rows)], object),
        lambda: np.array([r.random() < 0.5 for _ in range(rows)]),
        lambda: np.ma.masked_array(
            [r.randint(0, 9) for _ in range(rows)], [r.random() < 0.2 for _ in range(rows)]
        ),
        lambda: np.array([r.randint(0, 10**9) for _ in range(rows)], "M8[s]"),
        lambda: np.array([r.choice([1, 2.5, None]) for _ in range(rows)], object),
        lambda: np.array([r.choice([1e308, -1e308, 0.0, np.inf]) for _ in range(rows)]),
    ]
    return {f"c{i}": r.choice(makers)() for i in range(r.randint(1, 4))}, rows


def test_random_tables_match_their_own_schema():
    r = random.Random(0)
    for i in range(300):
        columns, _ = generated(r)
        schema = infer_schema(columns)
        assert validate(columns, schema) == [], (i, columns)
        assert Schema.from_text(schema.to_text()) == schema


JUNK = [
    None, 0, -1, True, 2.5, float("nan"), float("inf"), "", "a", "é\ud800", b"\xff", b"x", 10**40, [1],
    {}, np.datetime64("NaT", "s"), np.datetime64("2013-01-01"), np.timedelta64(3, "s"), np.float32(1.5),
    np.int8(3), np.bool_(False), 1 + 2j, object,
]  # fmt: skip


def test_no_junk_in_a_column_stops_the_validator():
    r = random.Random(1)
    for _ in range(300):
        clean, rows = generated(r)
        schema = infer_schema(clean)
        name = r.choice(list(clean))
        junk = np.empty(rows, object)
        junk[:] = [r.choice(JUNK) for _ in range(rows)]
        for found in validate({**clean, name: junk}, schema):
            assert found.kind in KINDS and str(found)
            assert 0 <= found.share <= 1 and (found.rows < rows).all()


def test_tables_of_any_kind_go_through_everything_else():
    r = random.Random(2)
    for _ in range(60):
        (clean, rows), (other, _) = generated(r), generated(r)
        names = list(clean)
        for given in (clean, other, dict(zip(clean, other.values(), strict=False))):
            found = statistics.find_changes(given, statistics.generate_statistics(clean))
            found += drift.compare(given, clean, dict.fromkeys(names, Comparator(0.1, 0.1)))
            found += leaks.duplicate_rows(given)
            assert all(str(each) for each in found)
        assert len(leaks.shared_rows(clean, clean)[0].rows) == rows
        leaks.conflicting_labels(clean, names[0])
        leaks.label_leaks(clean, names[0])
        missing.underrepresented_slices(clean, names, np.arange(rows))
