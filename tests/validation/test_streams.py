"""Tables in chunks: the values of the readers, whatever the chunks, in bounded memory."""

import gzip
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml.validation.columns import read_column
from jaxml.validation.readers import BadFile, read_csv, read_parquet
from jaxml.validation.schema import Feature, Schema, infer_schema
from jaxml.validation.streams import shape, stream
from jaxml.validation.writers import write_parquet

CSV = (
    "n,x,ok,code,word,gap,when\n"
    '1,1.5,true,007,"one\nand ""two""",3,2013-01-01T05:00\n'
    "-2,2e3,false,010,,,2013-01-02T05:00\n\n"
    '3,inf,true,100,"thr,ee",,2013-01-03T05:00\n'
    "4,,true,101,Zürich,,\n"
    "5,0,false,102,x,1,2013-01-03T06:00"
)
SCHEMA = Schema(
    {
        **{"n": Feature("INT"), "x": Feature("FLOAT"), "ok": Feature("INT", is_bool=True)},
        **{name: Feature("BYTES") for name in ("code", "word")},
        **{"gap": Feature("INT"), "when": Feature("TIME")},
    }
)


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def joined(chunks):
    chunks = [
        {name: column.examples(slice(None)) for name, column in chunk.items()} for chunk in chunks
    ]
    return {name: [v for chunk in chunks for v in chunk[name]] for name in chunks[0]}


def same(got, wanted):
    """Integers are floats where some are missing, in a table or in a chunk."""
    assert list(got) == list(wanted)
    for name in wanted:
        assert got[name] == read_column(name, wanted[name]).examples(slice(None)), name


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 100])
def test_chunks_of_a_csv_file_are_the_rows_that_read_csv_returns(write, num_rows):
    path = write(CSV)
    chunks = list(stream(path, SCHEMA, num_rows=num_rows))
    assert [len(c["n"].values) for c in chunks[:-1]] == [num_rows] * (len(chunks) - 1)
    same(joined(chunks), read_csv(path, SCHEMA))
    assert shape(path) == (tuple(SCHEMA.features), 5)
    if len(chunks) > 1:
        later = list(stream(path, SCHEMA, num_rows=num_rows, skip=1, columns=["word", "n"]))
        same(joined(later), {c: read_csv(path, SCHEMA)[c][num_rows:] for c in ("word", "n")})


@pytest.mark.parametrize("row_group", [2, 3, 100])
@pytest.mark.parametrize("num_rows", [1, 3, 4, 10, 11])
def test_chunks_of_a_parquet_file_are_the_rows_that_read_parquet_returns(
    tmp_path, num_rows, row_group
):
    path = tmp_path / "t.parquet"
    texts = ["a", None, "c", "d", "e"] * 2
    table = {
        "n": pyarrow.array([1, None, 3, 4, 5] * 2),
        "text": pyarrow.array(texts).dictionary_encode(),
        "gap": pyarrow.array([None] * 7 + [2.5, 1.0, 0.0]),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=row_group)
    whole = read_parquet(path)
    schema = infer_schema(whole)
    assert shape(path) == (("n", "text", "gap"), 10)
    for skip in range(-(-10 // num_rows)):
        chunks = list(stream(path, schema, num_rows=num_rows, skip=skip))
        assert [len(c["n"].values) for c in chunks[:-1]] == [num_rows] * (len(chunks) - 1)
        same(joined(chunks), {name: each[skip * num_rows :] for name, each in whole.items()})
        assert all(chunk["gap"].type == "FLOAT" for chunk in chunks)  # In chunks of gaps too.


BAD = [
    # content, columns, what the error says; chunks of two rows
    ("a,b\n1,2\n3,4\n5,x\n", "row 2 (line 4), column 'b': 'x' is not an integer"),
    ('a,b\n1,2\n3,"4"\n\n5,6\n7,\n9,1.5\n', "row 4 (line 7), column 'b': '1.5' is not an integer"),
    ("a,b\n1,2\n3,4\n5,6\n7\n", "row 3 (line 5), column 'b': 1 fields, should be 2"),
    ("a,b\n1,2\n3,4\n5,6,7\n8,9\n", "row 2 (line 4), column 'b': 3 fields, should be 2"),
    (b"a,b\n1,2\n3,4\n5,6\n7,\xe9\n", "row 3 (line 5), column 'b': byte 0xe9 is not UTF-8"),
    (b"\xff\xfea\0,\0b\0", "line 1: byte 0xff is not UTF-8"),
    ("a,b\n1,2\n3,4\n5,\0\n", "row 2 (line 4), column 'b': there are NUL characters"),
    ('a,b\n1,2\n3,4\n5,"6\n7,8\n', "row 2 (line 5): a quote is opened and never closed"),
    ("a;b\n1;2\n", "column 'a': the file does not have this column"),
    ("a,a\n1,2\n", "line 1, column 'a': the header has this name twice"),
    ("", "the file is empty"),
]


@pytest.mark.parametrize("content, message", BAD)
def test_refusals_name_the_place_in_the_file(write, content, message):
    schema = Schema({"a": Feature("INT"), "b": Feature("INT")})
    with pytest.raises(BadFile, match=r"table\.csv") as error:
        list(stream(write(content), schema, num_rows=2))
    assert message in str(error.value)


def test_a_parquet_file_is_refused_by_row_too(tmp_path):
    path = tmp_path / "t.parquet"
    write_parquet(path, {"a": ["1", "2", "3", "4x"]})
    schema = Schema({"a": Feature("INT")})
    with pytest.raises(BadFile, match=r"row 3, column 'a': INT is wanted, got .*'4x'"):
        list(stream(path, schema, num_rows=2, skip=1))
    with pytest.raises(BadFile, match="column 'b': the file does not have this column"):
        next(stream(path, schema, num_rows=2, columns=["b"]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadFile, match="not a Parquet file"):
        next(stream(path, schema, num_rows=2))
    for name in ("none.parquet", "none.csv"):
        with pytest.raises(FileNotFoundError):
            next(stream(tmp_path / name, schema, num_rows=2))
    with pytest.raises(IsADirectoryError):
        shape(tmp_path)


def test_the_suffix_tells_the_format_and_the_compression(write):
    path = write(gzip.compress(CSV.encode()), "table.csv.gz")
    same(joined(stream(path, SCHEMA, num_rows=2)), read_csv(path, SCHEMA))
    upper = write(CSV, "TABLE.CSV")
    assert shape(upper).num_rows == 5
    parquet = upper.with_name("table.csv.parquet")
    write_parquet(parquet, {"n": [1, 2]})
    assert shape(parquet) == (("n",), 2)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadFile, match="cut short or damaged"):
        list(stream(path, SCHEMA, num_rows=2))


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(write):
    path = write('a,b\n1,2\n3,"' + "x,y\n" * 5_000_000)
    with pytest.raises(BadFile, match="row 1: more than 16,777,216 characters"):
        shape(path)


cells = st.text(st.sampled_from('ab",\n\r 0'), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=9), st.integers(1, 4))
def test_any_quoted_text_survives(tmp_path_factory, rows, num_rows):
    path = tmp_path_factory.mktemp("any") / "t.csv"
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path.write_text("\r\n".join(["a,b", *lines, ""]), newline="")
    got = joined(stream(path, Schema({}), num_rows=num_rows, columns=["a", "b"]))
    assert got == {
        name: [cell or None for cell in each]
        for name, each in zip("ab", zip(*rows, strict=True), strict=True)
    }


MEMORY = """
import resource, sys
from jaxml.validation.schema import Feature, Schema
from jaxml.validation.streams import stream
schema = Schema({"n": Feature("INT"), "text": Feature("BYTES")})
rows = sum(len(chunk["n"].values) for chunk in stream(sys.argv[1], schema, num_rows=2000))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    used = {}
    for size in (4_000, 150_000):
        path = tmp_path / f"{size}{suffix}"
        texts = [f"{i:0200d}" for i in range(size)]  # 30 MB in the larger file.
        if suffix == ".csv":
            path.write_text("n,text\n" + "".join(f"{i},{t}\n" for i, t in enumerate(texts)))
        else:
            pyarrow.parquet.write_table(
                pyarrow.table({"n": range(size), "text": texts}),
                path,
                row_group_size=size,
                compression="none",
                use_dictionary=False,
            )
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(path)], check=True, capture_output=True, text=True
        )
        rows, used[size] = map(int, done.stdout.split())
        assert rows == size
    assert used[150_000] < used[4_000] + 12
