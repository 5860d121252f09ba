"""Pairs of float32 that are exact where a float32 rounds."""

import fractions
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxml.metrics import sums
from jaxml.metrics.sums import Sums

rng = np.random.default_rng(0)


def exactly(pair):
    """The values of pairs, exactly."""
    high, low = (np.asarray(part, np.float64).ravel().tolist() for part in pair)
    return [fractions.Fraction(h) + fractions.Fraction(l) for h, l in zip(high, low, strict=True)]


def test_integers_add_up_exactly_in_any_order():
    numbers = [2**46, 2**24, 1, 2**24 + 1, 3, 2**31 - 1, 12345678901]
    pairs = [
        Sums(jnp.float32(high), jnp.float32(n - int(high)))
        for n in numbers
        for high in [np.float32(n)]
    ]
    add = jax.jit(sums.add)
    seen = set()
    for order in itertools.islice(itertools.permutations(pairs), 0, 5040, 97):
        total = order[0]
        for pair in order[1:]:
            total = add(total, pair)
        seen.add((float(total.high), float(total.low)))
    assert len(seen) == 1
    assert exactly(total) == [sum(numbers)]


def test_counts_are_exact_from_int32():
    counts = np.array([0, 1, 2**24 + 1, 2**31 - 1, 2**31 - 2, 77777777], np.int32)
    assert exactly(jax.jit(sums.of_integers)(counts)) == counts.tolist()


def test_sums_and_running_sums_have_48_bits():
    for n in (1, 129, 4097):
        x = (rng.random((3, n)) * 10.0 ** rng.integers(-3, 6, (3, n))).astype(np.float32)
        wanted = x.astype(np.float64).cumsum(-1)
        got = jax.jit(sums.running)(Sums(jnp.asarray(x), jnp.zeros_like(x)))
        got = np.asarray(got.high, np.float64) + np.asarray(got.low, np.float64)
        np.testing.assert_allclose(got, wanted, rtol=2.0**-42)
        total = jax.jit(sums.total)(x)
        total = np.asarray(total.high, np.float64) + np.asarray(total.low, np.float64)
        np.testing.assert_allclose(total, wanted[:, -1], rtol=2.0**-42)
    assert sums.total(jnp.zeros((2, 0))).high.shape == (2,)


def test_a_million_tenths():
    tenths = jnp.full(1_000_000, 0.1, jnp.float32)
    wanted = float(np.float32(0.1)) * 1e6
    assert abs(float(jax.jit(sums.total)(tenths).value()) - wanted) < 0.01


def test_products_are_exact():
    a, b = (
        (rng.normal(size=200) * 10.0 ** rng.integers(-6, 6, 200)).astype(np.float32) for _ in "ab"
    )
    product = exactly(jax.jit(sums.product)(a, b))
    wanted = [
        fractions.Fraction(float(x)) * fractions.Fraction(float(y))
        for x, y in zip(a, b, strict=True)
    ]
    assert product == wanted


def test_infinity_stays_infinite():
    one = Sums(jnp.float32(np.inf), jnp.float32(0))
    assert float(sums.add(one, one).value()) == np.inf
    assert float(sums.total(jnp.array([1.0, np.inf, 2.0])).value()) == np.inf
