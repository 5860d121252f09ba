"""Bins of scores, and their parts, hold the scores between their ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.metrics import sums
from jaxml.metrics.streaming.bins import FOLD, PARTS, bins, lower_ends, part_ends, parts, unfolded

rng = np.random.default_rng(0)


@pytest.mark.parametrize("from_logits", [False, True])
def test_bins_hold_what_is_between_their_ends(from_logits):
    """Scores of all sizes, all ends, and the floats beside them; for bins and for their parts."""
    ends = lower_ends(from_logits)
    assert (np.diff(ends) >= 0).all()
    if from_logits:
        extremes = [0.0, 32.0, -32.0, np.inf, -np.inf, 2.0**14, -(2.0**14), 1e30]
        some = [rng.normal(size=4_000) * scale for scale in (0.1, 5, 30, 1e4)]
    else:
        extremes = [0.0, 1.0, 0.5, 1 - 2.0**-24, 2.0**-60]
        some = [
            rng.random(4_000),
            10 ** rng.uniform(-25, 0, 4_000),
            1 - 10 ** rng.uniform(-8, 0, 4_000),
        ]
    scores = np.concatenate([*some, extremes, ends]).astype(np.float32)
    near = [np.nextafter(scores, np.float32(to)) for to in (-np.inf, np.inf)]
    scores = np.concatenate([scores, *near])
    # Subnormal numbers are flushed to 0.
    scores = scores[(np.abs(scores) > 1e-30) | (scores == 0)]
    if not from_logits:
        scores = scores[(scores >= 0) & (scores <= 1)]
    got = jax.jit(bins, static_argnums=1)(scores, from_logits)
    np.testing.assert_array_equal(got, np.searchsorted(ends, scores, "right") - 1)
    # The ends of the parts of some of them, and the floats at the ends.
    beside = [np.nextafter(np.float32(x), np.float32(to)) for x in extremes for to in (-99, 0, 1)]
    near_extremes = np.isin(scores, np.concatenate([np.float32(extremes), beside]))
    some = near_extremes | (np.arange(len(scores)) % 50 == 0)
    scores, got = scores[some], np.asarray(got)[some]
    of_parts = jax.jit(part_ends, static_argnums=2)
    each = jax.device_get(of_parts(got[:, None], jnp.arange(PARTS)[None], from_logits))
    assert (each[:, 1:] >= each[:, :-1]).all()
    np.testing.assert_array_equal(each[:, 0], ends[got])
    part = np.asarray(jax.jit(parts, static_argnums=1)(scores, from_logits))
    wanted = (each <= scores[:, None]).sum(1) - 1
    np.testing.assert_array_equal(part, wanted)
    cuts = each[:: len(each) // 200].ravel()
    again = jax.device_get(jax.jit(bins, static_argnums=1)(cuts, from_logits))
    part = np.asarray(jax.jit(parts, static_argnums=1)(cuts, from_logits))
    begins = jax.device_get(of_parts(again, part, from_logits))
    np.testing.assert_array_equal(begins, cuts)


@pytest.mark.parametrize("from_logits", [False, True])
def test_with_64_bits_enabled_all_is_the_same(from_logits):
    whole = sums.zeros((2, len(lower_ends(from_logits))))
    whole = whole._replace(high=whole.high.at[:, ::100].set(1.0))
    fine = sums.zeros((2, FOLD * PARTS))
    unfold = jax.jit(lambda whole, fine: unfolded(whole, fine, from_logits))
    wanted = unfold(whole, fine)
    with jax.enable_x64(True):
        got = unfold(whole, fine)
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, two)
