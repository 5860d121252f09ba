"""Writing tables as Parquet files."""

import importlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml import files
from jaxml.validation.columns import Table, read_column, table_columns

__all__ = ["write_parquet"]


def write_parquet(path: str | os.PathLike[str], columns: Table) -> None:
    """Replaces a Parquet file by a table, as a whole; missing values are nulls.

    Args:
        path: the file to create or replace; its directory is made.
        columns: by name, [N] each, or [N, k] for lists of k values; a row of a masked array that is hidden
            as a whole is a null.

    Raises:
        ValueError: columns of different lengths, or of values that Parquet cannot hold.
    """
    pyarrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    arrays = {}
    for name, values in table_columns(columns).items():
        given = np.asarray(values)
        if given.ndim == 1:
            column = read_column(name, values)
            if column.values.dtype.kind in "mM":
                given = column.values.astype(f"{column.values.dtype.kind}8[us]")
            arrays[name] = pyarrow.array(
                given.tolist() if given.dtype == object else given,
                pyarrow.string() if column.is_text and not column.num_present else None,
                mask=column.missing,
            )
        else:
            hidden = np.all(np.ma.getmaskarray(values).reshape(len(given), -1), axis=1)
            arrays[name] = _lists(pyarrow, given, hidden)
    try:
        table = pyarrow.table(arrays)
    except pyarrow.ArrowException as error:
        raise ValueError(f"columns must make a table: {error}") from error
    with files.replacing(path) as temporary:
        parquet.write_table(table, temporary)


def _lists(pyarrow: Any, given: NDArray[Any], hidden: NDArray[np.bool_] | None) -> Any:
    if given.ndim == 1:
        return pyarrow.array(given.tolist() if given.dtype == object else given)
    rows, size, *rest = given.shape
    offsets = pyarrow.array(np.arange(rows + 1, dtype=np.int32) * size)
    values = _lists(pyarrow, given.reshape(rows * size, *rest), None)
    return pyarrow.ListArray.from_arrays(
        offsets, values, mask=None if hidden is None else pyarrow.array(hidden)
    )
