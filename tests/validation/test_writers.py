"""Tables written as Parquet: nulls where values are missing, types that do not depend on them."""

import numpy as np
import pyarrow.parquet

from jaxml.validation.writers import write_parquet


def test_lists_and_hidden_values(tmp_path):
    path = tmp_path / "t.parquet"
    lists = np.arange(6, dtype=np.float32).reshape(3, 2)
    table = {
        "list": lists,
        "hidden": np.ma.MaskedArray(lists, [[False] * 2, [True] * 2, [False] * 2]),
        "texts": np.array([["a", "b"], ["c", ""], ["é", "f"]], object),
        "deep": np.arange(12).reshape(3, 2, 2),
        "id": np.ma.MaskedArray(np.arange(3, dtype=np.int32), [False, True, True]),
        "no text": np.ma.MaskedArray(np.array(["", "", ""], object), True),
    }
    write_parquet(path, table)
    read = pyarrow.parquet.read_table(path)
    assert read.to_pydict() == {
        "list": lists.tolist(),
        "hidden": [[0.0, 1.0], None, [4.0, 5.0]],
        "texts": table["texts"].tolist(),
        "deep": table["deep"].tolist(),
        "id": [0, None, None],
        "no text": [None] * 3,
    }
    types = [str(read.schema.field(name).type) for name in ("hidden", "id", "no text")]
    assert types == ["list<element: float>", "int32", "string"]
