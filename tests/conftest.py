"""The constitution of the suite: rank promotion is an error, and (pyproject.toml) so is every warning.

Nearly all of the suite's time is XLA compiling. What one process has compiled the others, and those that
they start, take from a directory that lives as long as the run.
"""

import os
import shutil
import tempfile

_SHARED = "JAX_COMPILATION_CACHE_DIR"
_made = None
if _SHARED not in os.environ:  # Before JAX is imported, which reads it; workers inherit it.
    _made = os.environ[_SHARED] = tempfile.mkdtemp(prefix="jaxml-tests-")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_unconfigure():
    if _made is not None:
        shutil.rmtree(_made, ignore_errors=True)


@pytest.fixture
def key():
    """The key of tests that need just one."""
    return jax.random.key(0)
