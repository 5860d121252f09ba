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

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

# `test_meshes.py` runs it in a process with eight devices.
collect_ignore = (
    ["eight_devices.py"] if "device_count" not in os.environ.get("XLA_FLAGS", "") else []
)

jax.config.update("jax_numpy_rank_promotion", "raise")
# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("jaxml", deadline=None)
hypothesis.settings.load_profile("jaxml")
# Tests ask for values, not for speed: compiling without optimizations takes a quarter less time.
jax.config.update("jax_disable_most_optimizations", True)


def pytest_unconfigure():
    if _made is not None:
        shutil.rmtree(_made, ignore_errors=True)


@pytest.fixture
def key():
    """The key of tests that need just one."""
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _optimizations(request):
    """Compiles tests marked `optimized` as a user's program is compiled."""
    optimized = request.node.get_closest_marker("optimized") is not None
    if optimized:
        jax.config.update("jax_disable_most_optimizations", False)
    yield
    if optimized:
        jax.config.update("jax_disable_most_optimizations", True)
