"""The constitution of the suite: rank promotion is an error, and (pyproject.toml) so is every warning."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    """The key of tests that need just one."""
    return jax.random.key(0)
