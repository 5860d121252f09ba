"""Tables: reading them, describing them with a schema, and finding what is wrong with them.

Modules: `columns` (one reader of values, one rule of what is missing).
"""
