"""Tables: reading them, describing them with a schema, and finding faults in them.

- `readers`: CSV and Parquet files as columns.
- `columns`: one reader of values of any usual kind, and one rule of what is missing.
- `schema`: what a table should hold, in a text file that a person reviews; `validate`.
- `statistics`: whether a table comes from where a reference came from; `find_changes`.
- `drift`: distances between two distributions.
- `leaks`: duplicates, conflicting labels, rows and groups in both splits, columns that give away the label.
- `missing`: missing values by slice, beside the model's error there.

A table (`columns` in the arguments) is a mapping of names to columns, a pandas DataFrame or a pyarrow
Table; columns that do not make a table raise ValueError. Whatever is found is an `anomalies.Anomaly` with
kind, column, rows, examples and advice. Nothing here imports JAX.
"""
