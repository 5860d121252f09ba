"""Names of types that the packages share."""

from typing import Any, TypeAlias

import jax

Array: TypeAlias = jax.Array
"""A JAX array; docstrings give its shape and dtype."""

Key: TypeAlias = jax.Array
"""A typed PRNG key, as made by `jax.random.key`."""

PyTree: TypeAlias = Any
"""Any nesting of tuples, lists, dicts and registered dataclasses with arrays as leaves."""
