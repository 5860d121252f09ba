"""CSV and Parquet files: types, exact values, and refusals with their place."""

import datetime
import decimal
import gzip

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.validation.leaks import duplicate_rows
from jaxml.validation.readers import BadFile, read_csv, read_parquet
from jaxml.validation.schema import infer_schema, validate


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def test_types_are_those_that_the_texts_spell(write):
    path = write(
        "n,x,ok,code,word,gap,when\n"
        "1,1.5,true,007,one,3,2013-01-01T05:00\n"
        "-2,2e3,false,010,,,2013-01-02T05:00\n"
        "3,inf,true,100,three,5,2013-01-03T05:00\n"
    )
    table = read_csv(path)
    assert table["n"].dtype == np.int64 and table["n"].tolist() == [1, -2, 3]
    assert table["x"].tolist() == [1.5, 2000.0, np.inf]
    assert table["ok"].dtype == bool
    assert table["code"].tolist() == ["007", "010", "100"]
    assert table["word"].tolist() == ["one", None, "three"]
    np.testing.assert_array_equal(table["gap"], [3, np.nan, 5])
    assert table["when"].dtype.kind == "U"
    typed = read_csv(path, types={"when": "TIME", "n": "FLOAT", "code": "INT"})
    assert typed["when"][1] == np.datetime64("2013-01-02T05:00")
    assert typed["n"].dtype == float and typed["code"].tolist() == [7, 10, 100]


READ = [
    # content, options, column, values
    ("a,b\n1,2\n\n\n", {}, "a", [1]),
    ("a\n1\n\n3\n", {}, "a", [1, np.nan, 3]),  # One column: a gap.
    ("a;b\n1;2", {"delimiter": ";"}, "b", [2]),
    ("a;b\n1;2\n", {"delimiter": ","}, "a;b", ["1;2"]),
    ("a\nZürich\n".encode("latin-1"), {"encoding": "latin-1"}, "a", ["Zürich"]),
    ("a,b\nNA,NA\n1,x\n", {"missing": ("", "NA")}, "b", [None, "x"]),
    ("b\nNA\nN\nA\n", {"missing": "NA"}, "b", [None, "N", "A"]),
    (",a,b\n0,1,x\n1,2,y\n", {}, "index", [0, 1]),
    ('"","a"\n"row 1",1\n', {}, "index", ["row 1"]),
    (",index\n0,5\n1,7\n", {}, "level_0", [0, 1]),
    (",index\n0,5\n1,7\n", {}, "index", [5, 7]),
    (",,a\nx,0,5\ny,0,7\n", {}, "level_0", ["x", "y"]),
    ("price; EUR\n3\n", {"delimiter": ","}, "price; EUR", [3]),
    ("price, EUR\n3\n", {"delimiter": ";"}, "price, EUR", [3]),
    ("full name\nAda Lovelace\n", {}, "full name", ["Ada Lovelace"]),
    ("unit price\n3\n", {}, "unit price", [3]),
    ("a b\n1 2\n", {"delimiter": " "}, "b", [2]),
    ('"a;b"\n"1;2"\n', {"delimiter": ";"}, "a;b", ["1;2"]),
    (f"a,b\n{2**60 + 1},1\nnan,1\n{2**60 + 2},1\n", {}, "a", [2**60 + 1, None, 2**60 + 2]),
    (f"a,b\n{2**53 + 1},1\n,2\n", {}, "a", [2**53 + 1, None]),
    (f"a\n{10**30}\n", {}, "a", [10**30]),
    ("a\n1e300\n-inf\n", {}, "a", [1e300, -np.inf]),
    ("a,b\n10,20\n3,4", {}, "b", [20, 4]),
    (
        "t\n2013-01-01\n2013-01-01T05:00+02:00\n",
        {"types": {"t": "TIME"}},
        "t",
        [datetime.datetime(2013, 1, 1), datetime.datetime(2013, 1, 1, 3)],
    ),
]


@pytest.mark.parametrize("content, options, column, wanted", READ)
def test_values_are_what_the_file_holds(write, content, options, column, wanted):
    np.testing.assert_equal(read_csv(write(content), **options)[column].tolist(), wanted)


def test_quotes_line_breaks_and_marks(write):
    path = write(b'\xef\xbb\xbfa,b\r\n"x, ""y""","two\r\nlines"\r\nz,w\r\n')
    table = read_csv(path)
    assert table["a"].tolist() == ['x, "y"', "z"] and table["b"].tolist() == ["two\r\nlines", "w"]
    packed = write(gzip.compress(b"a\n5\n"), "table.csv.gz")
    assert read_csv(packed)["a"].tolist() == [5]
    when = read_csv(write("t\n9999-12-31T23:59:59-05:00\n"), types={"t": "TIME"})["t"]
    assert str(when[0]) == "10000-01-01T04:59:59.000000"


WAIT = infer_schema({"a": np.array([3], "m8[s]")})
REFUSED = [
    # content, options, message, row, column
    ("", {}, "empty", None, None),
    ("a,a\n1,2\n", {}, "this name twice", None, "a"),
    ("a,,c\n1,2,3\n", {}, "column 1 of the header has no name", None, None),
    ("a,b\n1,2\n3\n4,5\n", {}, "1 fields, should be 2 as in the header", 1, "b"),
    ("a,b\n1,2\n3,4,5\n", {}, "3 fields.*delimiter in a text without quotes", 1, "b"),
    ("a,b\n1,2\n3", {}, "cut short", 1, "b"),
    ('a,b\n1,2\n3,"fo', {}, "never closed.*cut short", 1, None),
    ("a;b\n1;2\n", {}, r"pass delimiter=';' \(or ','\)", None, None),
    ("a,b\n1,2\n", {"delimiter": ";"}, "the one column is 'a,b'; pass delimiter=','$", None, None),
    ("a\tb\n1\t2\n", {"delimiter": ";"}, r"pass delimiter='\\t'$", None, None),
    ("a b\n1 -2.5\n", {}, r"the one column is 'a b'; pass delimiter=' ' \(or ','\)", None, None),
    (",\n1,2\n", {}, "column 0 of the header has no name", None, None),
    ("a\n\nx\n5\n", {"types": {"a": "INT"}}, "'x' is not an integer", 1, "a"),
    (b",a\nZ\xfcrich,1\n", {}, "0xfc is not utf-8", 0, "index"),
    (b"a,b\n" + b"x" * 200_000 + b",1\ny,\xfc\n", {}, "0xfc is not utf-8", 1, "b"),
    ("a,b\n" + "x" * 200_000 + ",1\ny,z\n", {"types": {"b": "INT"}}, "'z' is not an int", 1, "b"),
    ("a,b\n" + "x" * 200_000 + ',1\ny,"z\n', {}, "never closed", 1, None),
    ("a,b\n1,x\n2,y\n3,z\nfour,w\n", {}, "'four' is not a number", 3, "a"),
    ("a,b\n1,2\nNA,3\n", {}, "'NA' is not a number, and 1 of the column's 2", 1, "a"),
    (b"a,b\n1,x\n2,Z\xfcrich\n", {}, "0xfc is not utf-8", 1, "b"),
    (b"a,b\n1,x\n\xfc,y\n", {}, "0xfc is not utf-8", 1, "a"),
    ("a\n1\n".encode("utf-16"), {}, "UTF-16", None, None),
    (b"a,b\n1,\x00\n", {}, "NUL", None, None),
    (f"a\n{'9' * 5000}\n", {"types": {"a": "INT"}}, r"not an integer", 0, "a"),
    ("a\n1.5\n1e400\n", {}, "'1e400' is too large", 1, "a"),
    ("a\nmaybe\n", {"types": {"a": "BOOL"}}, "'maybe' is neither true nor false", 0, "a"),
    ("a\n3\n", {"schema": WAIT}, "'3' is a text, and DURATION", 0, "a"),
]


@pytest.mark.parametrize("content, options, message, row, column", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_place(
    write, content, options, message, row, column
):
    path = write(content)
    with pytest.raises(BadFile, match=message) as error:
        read_csv(path, **options)
    assert str(error.value).startswith(str(path)) and len(str(error.value)) < 400
    assert (error.value.row, error.value.column) == (row, column)
    if row is not None:
        assert f"row {row} (line {row + 2})" in str(error.value)


def test_a_file_cut_anywhere_is_refused_or_lacks_rows_alone(write):
    rng = np.random.default_rng(0)
    states = rng.choice(["late", "on time"], 60).tolist()
    rows = [f"{i},{rng.random():.6f},{state}" for i, state in enumerate(states)]
    data = ("id,x,state\n" + "\n".join(rows) + "\n").encode()
    refused = 0
    for size in range(600, len(data)):
        try:
            table = read_csv(write(data[:size]))
        except BadFile:
            refused += 1
            continue
        whole = data[:size].count(b"\n") - 1 + (data[size : size + 1] == b"\n")
        assert len(table["id"]) == whole
        assert set(table["state"].tolist()) <= {"late", "on time"}
    assert refused > 0.85 * (len(data) - 600)  # The rest are cuts between two lines.
    packed = gzip.compress(data)
    with pytest.raises(BadFile, match="cut short or damaged"):
        read_csv(write(packed[: len(packed) // 2], "t.csv.gz"))


def test_a_schema_orders_and_types(write):
    clean = {"n": np.array([1, 2]), "x": np.array([0.5, 1.0]), "ok": np.array([True, False])}
    schema = infer_schema(clean)
    path = write("ok,more,x,n\ntrue,a,1,2\nfalse,b,0.5,1\n")
    table = read_csv(path, schema)
    assert list(table) == ["n", "x", "ok", "more"]
    assert table["x"].dtype == float
    assert [a.kind for a in validate(table, schema)] == ["SCHEMA_NEW_COLUMN"]
    with pytest.raises(BadFile, match=r"row 1 \(line 3\), column 'n': '1.5' is not an integer"):
        read_csv(write("n,x,ok\n1,1,1\n1.5,1,0\n"), schema)


def test_a_table_without_rows(write):
    table = read_csv(write("a,b\n"))
    assert [len(values) for values in table.values()] == [0, 0]
    schema = infer_schema({"a": [1, 2], "b": ["x", "y"]})
    typed = read_csv(write("a,b\n"), schema)
    assert typed["a"].dtype == np.int64 and typed["b"].dtype.kind == "U"
    assert [a.kind for a in validate(typed, schema)] == ["DATASET_LOW_NUM_EXAMPLES"]


def test_very_many_categories_and_very_long_texts(write):
    names = [f"c{i}" for i in range(100_000)]
    path = write("id\n" + "\n".join(names) + "\n")
    table = read_csv(path)
    assert table["id"].tolist() == names
    assert infer_schema(table)["id"].domain is None
    late = write("i,w\n" + "".join(f"{i},w{i}\n" for i in range(20_000)) + "oops,w\n")
    with pytest.raises(BadFile, match=r"row 20000 \(line 20002\), column 'i': 'oops'"):
        read_csv(late)
    long = read_csv(write("a\n" + "x" * 10_000 + "\n" + "y\n" * 1000))
    assert long["a"].dtype == object  # Not ten thousand characters for every row.
    longer = read_csv(write("a,b\n" + "x" * 200_000 + ',"y\nz"\nw,v\n'))
    assert len(longer["a"][0]) == 200_000 and longer["a"][1] == "w"
    assert [*map(len, read_csv(write("a" * 200_000 + ",b\n1,2\n")))] == [200_000, 1]
    with pytest.raises(BadFile, match=r"row 0.*column 'b': 1 fields"):
        read_csv(write("a,b\n" + "x" * 200_000 + "\n"))


def test_a_last_number_with_fewer_decimals_is_the_cut_of_one(write):
    text = "id,price\n" + "".join(f"{i},{i}.50\n" for i in range(30))
    assert len(read_csv(write(text.rstrip("\n")))["id"]) == 30
    for cut in range(2, 5):
        with pytest.raises(BadFile, match="cut short") as error:
            read_csv(write(text[:-cut]))
        assert (error.value.row, error.value.column) == (29, "price")
    mixed = text + "30,7.5\n31,7"  # Decimals as they come: the last number may be whole.
    assert len(read_csv(write(mixed.replace(".50", "")))["id"]) == 32


@pytest.mark.parametrize(
    "column, last, cut",
    [
        (["2013-01-05", "2013-11-12"] * 10, "2013-02-03", "2013-02"),
        (["true", "false"] * 2, "false", "fals"),
        (["cash", "card"] * 2, "other", None),  # A new text, and the beginning of none.
        (["x", "y"], "", None),
    ],
)
def test_a_last_line_without_a_break_is_a_cut_where_its_column_shows_it(write, column, last, cut):
    text = "id,v\n" + "".join(f"{i},{value}\n" for i, value in enumerate(column)) + "9,"
    assert len(read_csv(write(text + last))["v"]) == len(column) + 1
    if cut is not None:
        assert len(read_csv(write(text + cut + "\n"))["v"]) == len(column) + 1
        with pytest.raises(BadFile, match="no line break"):
            read_csv(write(text + cut))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6)


@settings(max_examples=60)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
def test_texts_come_back_as_they_were(tmp_path_factory, rows):
    def quoted(text):
        return '"' + text.replace('"', '""') + '"'

    path = tmp_path_factory.getbasetemp() / "texts.csv"
    lines = [",".join(map(quoted, row)) for row in [("a", "b"), *rows]]
    path.write_text("\n".join(lines) + "\n", "utf-8", newline="")
    table = read_csv(path, types={"a": "BYTES", "b": "BYTES"}, missing=())
    for i, name in enumerate("ab"):
        wanted = [row[i] for row in rows]
        assert table[name].tolist() == wanted


def test_wrong_arguments_are_named(write):
    path = write("a\n1\n")
    with pytest.raises(ValueError, match="'b'"):
        read_csv(path, types={"b": "INT"})
    with pytest.raises(ValueError, match="'NUMBER'"):
        read_csv(path, types={"a": "NUMBER"})
    with pytest.raises(ValueError, match="encoding must be one that Python knows, got 'utf-9'"):
        read_csv(path, encoding="utf-9")
    with pytest.raises(ValueError, match="delimiter must be one character, got ', '"):
        read_csv(path, delimiter=", ")
    with pytest.raises(IsADirectoryError, match="a file is wanted"):
        read_csv(path.parent)
    with pytest.raises(FileNotFoundError):
        read_csv(path.with_name("nothing.csv"))


# --------------------------------------------------------------------------------------------- Parquet


def parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_gives_the_columns_that_csv_would(tmp_path):
    path = parquet(
        tmp_path / "t.parquet",
        n=[1, 2, None],
        big=[2**60 + 1, None, 3],
        whole=[1, 2, 3],
        x=[0.5, None, 2.0],
        word=["a", None, "c"],
        full=["a", "b", "c"],
        ok=[True, False, True],
        category=pyarrow.array(["u", "v", "u"]).dictionary_encode(),
        when=[datetime.datetime(2013, 1, 1), None, datetime.datetime(2013, 1, 2)],
        day=[datetime.date(2013, 1, 1), None, datetime.date(2013, 1, 2)],
        nothing=pyarrow.nulls(3),
    )
    table = read_parquet(path)
    np.testing.assert_array_equal(table["n"], [1, 2, np.nan])
    assert table["big"].tolist() == [2**60 + 1, None, 3]
    assert table["whole"].dtype == np.int64 and table["ok"].dtype == bool
    assert table["word"].tolist() == ["a", None, "c"] and table["full"].dtype.kind == "U"
    assert table["category"].tolist() == ["u", "v", "u"]
    assert np.isnat(table["when"]).tolist() == [False, True, False]
    assert np.isnat(table["day"]).tolist() == [False, True, False]
    schema = infer_schema(table)
    assert validate(table, schema) == []
    turned = parquet(tmp_path / "u.parquet", x=[1.0], n=[1])
    assert list(read_parquet(turned, infer_schema({"n": [1], "x": [1.0]}))) == ["n", "x"]
    assert list(read_parquet(path, columns=["x", "n"])) == ["x", "n"]


def test_parquet_values_at_the_edge_are_exact(tmp_path):
    decimals = pyarrow.array([decimal.Decimal(2**60 + 1), None], pyarrow.decimal128(20, 0))
    table = read_parquet(parquet(tmp_path / "d.parquet", a=decimals, b=["", "x"]))
    assert table["a"].tolist() == [2**60 + 1, None] and table["b"].tolist() == [None, "x"]
    whole = pyarrow.array([decimal.Decimal(2**60 + 1), None], pyarrow.decimal128(38, 10))
    unsigned = pyarrow.array([2**64 - 1, None], pyarrow.uint64())
    table = read_parquet(parquet(tmp_path / "d.parquet", a=whole, b=unsigned, c=["ab\0", "ab"]))
    assert [table[name].tolist() for name in "abc"] == [
        [2**60 + 1, None], [2**64 - 1, None], ["ab\0", "ab"]
    ]  # fmt: skip
    assert duplicate_rows(table, "c") == []
    times = pyarrow.table({"t": [datetime.datetime(9999, 12, 31, 23, 59)]})
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(times, path, use_deprecated_int96_timestamps=True)
    assert str(read_parquet(path)["t"][0]) == "9999-12-31T23:59:00.000000"


def test_damaged_parquet_is_refused(tmp_path):
    path = parquet(tmp_path / "t.parquet", n=list(range(1000)), word=["a"] * 1000)
    data = path.read_bytes()
    for size in (0, 3, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(BadFile, match=r"t\.parquet"):
            read_parquet(path)
    path.write_bytes(data[:20] + b"\xff" * 40 + data[60:])
    with pytest.raises(BadFile, match="damaged"):
        read_parquet(path)
    lists = parquet(tmp_path / "l.parquet", a=[[1], [2, 3]])
    with pytest.raises(BadFile, match=r"column 'a'.*list"):
        read_parquet(lists)
    schema = infer_schema({"a": [1, 2]})
    texts = parquet(tmp_path / "s.parquet", a=[None, "x"])
    with pytest.raises(BadFile, match="row 1, column 'a': INT is wanted, got string such as 'x'"):
        read_parquet(texts, schema)
    spelt = parquet(tmp_path / "s.parquet", a=["1", "2.5", "x"])
    with pytest.raises(BadFile, match="row 2, column 'a': INT is wanted, got string such as 'x'"):
        read_parquet(spelt, schema)
    raw = pyarrow.array([b"fine", None, b"caf\xe9"])
    with pytest.raises(BadFile, match="row 2, column 'a': a text is not UTF-8"):
        broken = pyarrow.StringArray.from_buffers(3, *raw.buffers()[1:], raw.buffers()[0])
        read_parquet(parquet(tmp_path / "b.parquet", a=broken))
    views = parquet(tmp_path / "v.parquet", a=pyarrow.array(["u", None], pyarrow.string_view()))
    assert read_parquet(views)["a"].tolist() == ["u", None]
    with pytest.raises(ValueError, match="'b'"):
        read_parquet(texts, columns=["b"])
    empty = parquet(tmp_path / "e.parquet", a=pyarrow.array([], pyarrow.int64()))
    assert len(read_parquet(empty, schema)["a"]) == 0
