"""Fixed lines: host and device agree, `find` inverts `edge`, and lengths are what they claim."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.softmax.drawing import cdfs
from jaxml.softmax.drawing.uint64 import UInt64

LOW = np.uint64(2**32 - 1)


def pack(values):
    values = np.asarray(values, np.uint64)
    high, low = values >> np.uint64(32), values & LOW
    return UInt64(jnp.asarray(high.astype(np.uint32)), jnp.asarray(low.astype(np.uint32)))


def unpack(value):
    return (np.asarray(value.high).astype(np.uint64) << np.uint64(32)) | np.asarray(value.low)


def table_of(edges):
    edges = np.asarray(edges, np.uint64)
    return cdfs.table(edges), SimpleNamespace(edges=pack(edges))


def falling(size, seed=0):
    """A table whose segments span eighteen orders of magnitude, the last ones one unit long."""
    lengths = np.sort(2.0 ** np.random.default_rng(seed).uniform(0, 48, size))[::-1]
    return np.cumsum(np.concatenate([[0], lengths]).astype(np.uint64), dtype=np.uint64)


CASES = {
    **{f"even {n}": (cdfs.even(n), ()) for n in (1, 7, 2**31 - 2)},
    **{f"logarithmic {n}": (cdfs.logarithmic(n), ()) for n in (1, 10**8, 2**31 - 2)},
    **{f"table {n}": table_of(falling(n)) for n in (2, 5000)},
    "table 1": table_of([0, 1]),
    "table of units": table_of(range(1001)),
}


def some_ranks(size, seed=1):
    """The ends, the corners of octaves and cells, and ranks spread evenly and by magnitude."""
    rng = np.random.default_rng(seed)
    corners = np.concatenate([2.0 ** np.arange(31), 2.0**20 * (1 + np.arange(4096) / 4096)])
    near = (corners[:, None] + np.arange(-3, 3)).ravel()
    spread = np.concatenate([rng.uniform(0, size, 3000), (size + 1) ** rng.uniform(0, 1, 3000) - 1])
    ranks = np.concatenate([[0, size - 1], near, spread]).astype(np.int64)
    return np.unique(ranks[(ranks >= 0) & (ranks < size)])


@pytest.mark.parametrize(("cdf", "state"), CASES.values(), ids=CASES)
def test_a_point_is_found_in_the_segment_between_its_edges(cdf, state):
    ranks = some_ranks(cdf.size)
    left = np.array([cdf.left_edge(int(rank)) for rank in ranks], np.uint64)
    right = np.array([cdf.left_edge(int(rank) + 1) for rank in ranks], np.uint64)
    np.testing.assert_array_equal(unpack(cdf.edge(state, jnp.asarray(ranks, jnp.int32))), left)
    np.testing.assert_array_equal(unpack(cdf.edge(state, jnp.asarray(ranks + 1, jnp.int32))), right)
    within = (np.random.default_rng(2).random(len(ranks)) * (right - left)).astype(np.uint64)
    for points in (left, right - np.uint64(1), np.minimum(left + within, right - np.uint64(1))):
        np.testing.assert_array_equal(cdf.find(state, pack(points)), ranks)


@pytest.mark.parametrize(("cdf", "state"), CASES.values(), ids=CASES)
def test_segments_never_grow_and_the_line_fits(cdf, state):
    assert cdf.left_edge(0) == 0
    assert 0 < cdf.left_edge(cdf.size) < 2**63
    for rank in some_ranks(cdf.size)[:-1].tolist():
        one, two, three = (cdf.left_edge(rank + i) for i in range(3))
        assert two - one >= three - two > 0


def test_the_logarithmic_ruler_is_logarithmic():
    cdf = cdfs.logarithmic(2**31 - 2)
    ranks = some_ranks(cdf.size)
    length = np.array([cdf.left_edge(int(k) + 1) - cdf.left_edge(int(k)) for k in ranks]) / 2.0**58
    error = np.abs(length / (np.log1p(1 / (ranks + 1)) / np.log(2)) - 1)
    assert error[ranks < 8191].max() < 3e-6
    assert error.max() < 1.3e-4


@pytest.mark.parametrize("error", [-1e-4, 1e-4])
def test_finding_does_not_depend_on_how_a_backend_rounds(error, monkeypatch):
    exact = jnp.exp2
    monkeypatch.setattr(jnp, "exp2", lambda x: exact(x) * (1 + error))
    cdf = cdfs.logarithmic(2**31 - 2)
    ranks = some_ranks(cdf.size)
    for shift, edge in ((0, 0), (1, 1)):
        points = np.array([cdf.left_edge(int(rank) + shift) - edge for rank in ranks], np.uint64)
        np.testing.assert_array_equal(cdf.find((), pack(points)), ranks)
