"""One table in every form that it may come in is the same table to everything that reads tables."""

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxml import features, metrics
from jaxml.validation import leaks, readers, schema, statistics

TYPES = {
    "id": pa.int64(),
    "unsigned": pa.uint64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
}
CHOICES = {
    "id": [2**60 + 1, 2**60 + 2, -5, 7, None],
    "unsigned": [2**64 - 1, 2**64 - 2, 1, None],
    "number": [0.5, 1.0, -2.5, float("inf"), None],
    "flag": [True, False, None],
    "text": ["a", "ab ", "é", "NA", "1", None],
    "time": [
        *(datetime.datetime(year, 1, 1, 23, 5, 7, 123_456) for year in (1, 1700, 2020, 9999)),
        None,
    ],
}
rng = np.random.default_rng(0)
TABLE = {
    name: [values[i] for i in rng.integers(0, len(values), 60)] for name, values in CHOICES.items()
}
ARROW = pa.table({name: pa.array(values, TYPES[name]) for name, values in TABLE.items()})


def pandas(index):
    dtypes = ["Int64", "UInt64", "Float64", "boolean", "string", "datetime64[us]"]
    series = (pd.Series(TABLE[name], dtype=d) for name, d in zip(TABLE, dtypes, strict=True))
    frame = pd.DataFrame(dict(zip(TABLE, series, strict=True)))
    return frame.set_index(pd.Index(index))


def parquet(path, **options):
    pyarrow.parquet.write_table(ARROW, path / "t.parquet", **options)
    return readers.read_parquet(path / "t.parquet")


def csv(path):
    pandas(range(60)).to_csv(path / "t.csv")
    types = {"flag": "BOOL", "text": "BYTES", "time": "TIME"}
    return {n: v for n, v in readers.read_csv(path / "t.csv", types=types).items() if n in TABLE}


FORMS = {
    "objects": lambda path: {name: np.array(each, object) for name, each in TABLE.items()},
    "pandas": lambda path: pandas(range(60, 0, -1)),
    "categories": lambda path: pandas(range(60)).astype("category"),
    "arrow in pandas": lambda path: ARROW.to_pandas(types_mapper=pd.ArrowDtype),
    "arrow": lambda path: pa.concat_tables([ARROW[:7], ARROW[7:]]),
    "batch": lambda path: ARROW.to_batches()[0],
    "parquet": parquet,
    "int96": lambda path: parquet(path, use_deprecated_int96_timestamps=True),
    "csv": csv,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_the_same_in_every_form(form, tmp_path):
    table = FORMS[form](tmp_path)
    np.testing.assert_array_equal(leaks.row_hashes(table), leaks.row_hashes(TABLE))
    assert schema.validate(table, schema.infer_schema(TABLE)) == []
    changes = statistics.find_changes(table, statistics.generate_statistics(TABLE))
    assert {change.kind for change in changes} <= {"SHARED_ROWS"}
    chains = {name: features.vocabulary() for name in TABLE}
    chains["cross"] = features.cross(["id", "text"], 1000)
    pipeline = features.FeaturePipeline(chains).fit(TABLE)
    for name, ids in pipeline(TABLE).items():
        np.testing.assert_array_equal(pipeline(table)[name], ids)
    assert list(sizes(table).items()) == list(sizes(TABLE).items())


def sizes(table):
    found = metrics.by_slice(metrics.accuracy, table, np.arange(60) % 2, np.full(60, 0.3))
    return {name: part.num_examples for name, part in found.items()}
