"""Embedding tables with row-sparse gradients, and optimizers that touch only those rows.

A training step over millions of classes reads and writes a few thousand rows. Its gradient is a
`RowGradient`: which rows, and what for each. `coalesce` sums repeated rows, a `RowOptimizer` moves
them in place, and neither time nor memory depends on how many rows the table has.

```
gradient.py     RowGradient, coalesce
storage.py      how rows lie in memory: bfloat16 as bits, gathering, rounding, initialisation
optimizers.py   sgd, adagrad, rowwise_adagrad, adam
```
"""

from jaxml.tables.gradient import EMPTY_ID, RowGradient, coalesce
from jaxml.tables.optimizers import RowOptimizer, adagrad, adam, rowwise_adagrad, sgd
from jaxml.tables.storage import (
    from_storage,
    gather_bags,
    gather_rows,
    init_table,
    storage_dtype,
    to_storage,
)

__all__ = [
    "EMPTY_ID",
    "RowGradient",
    "RowOptimizer",
    "adagrad",
    "adam",
    "coalesce",
    "from_storage",
    "gather_bags",
    "gather_rows",
    "init_table",
    "rowwise_adagrad",
    "sgd",
    "storage_dtype",
    "to_storage",
]
