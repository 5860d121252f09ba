"""Writing tables as Parquet files."""

import importlib
import os

import numpy as np

from jaxml import files
from jaxml.validation.columns import Table, read_column, table_columns

__all__ = ["write_parquet"]


def write_parquet(path: str | os.PathLike[str], columns: Table) -> None:
    """Replaces a Parquet file by a table, as a whole; missing values are nulls.

    Args:
        path: the file to create or replace; its directory is made.
        columns: by name, [N] each, or [N, k] for lists of k values.

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
                given.tolist() if given.dtype == object else given, mask=column.missing
            )
        else:
            arrays[name] = pyarrow.array(given.tolist())
    try:
        table = pyarrow.table(arrays)
    except pyarrow.ArrowException as error:
        raise ValueError(f"columns must make a table: {error}") from error
    with files.replacing(path) as temporary:
        parquet.write_table(table, temporary)
