"""Losses of numbers: infinite errors, and hyperparameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        (losses.squared, None),
        (losses.absolute, 1.0),
        (losses.huber, 1.0),
        (losses.quantile, 0.5),
    ],
)
def test_infinite_errors(loss, slope):
    outputs = jnp.array([jnp.inf, -jnp.inf])
    assert np.isposinf(loss(outputs, jnp.zeros(2))).all()
    if slope is not None:
        gradient = jax.grad(lambda o: loss(o, jnp.zeros(2)).sum())(outputs)
        np.testing.assert_allclose(gradient, [slope, -slope])
    assert (jax.grad(lambda o: loss(o, jnp.zeros(2)).sum())(jnp.zeros(2)) == 0).all()


def test_hyperparameters_are_traced():
    """One program for all values: a sweep compiles once."""
    traces = []

    @jax.jit
    def both(delta, quantile):
        traces.append(1)
        return losses.huber(2.0, 0.0, delta), losses.quantile(0.0, 2.0, quantile)

    assert [float(x) for x in both(1.0, 0.5)] == [1.5, 1.0]
    assert [float(x) for x in both(2.0, 0.25)] == [2.0, 0.5]
    assert len(traces) == 1
    swept = jax.vmap(lambda d: losses.huber(jnp.ones(3), jnp.zeros(3), d))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(swept[:, 0], [0.375, 0.5])


@pytest.mark.parametrize("delta", [0.0, -1.0, np.nan, np.inf, [1.0, 2.0]])
def test_invalid_deltas(delta):
    with pytest.raises(ValueError, match="delta must be"):
        losses.huber(np.ones(2), np.ones(2), delta)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.1, np.nan])
def test_invalid_quantiles(quantile):
    with pytest.raises(ValueError, match=r"quantile must be a finite number above 0 and below 1"):
        losses.quantile(np.ones(2), np.ones(2), quantile)


def test_the_message_names_the_axis_to_drop():
    with pytest.raises(ValueError, match=r"outputs\[\.\.\., 0\]"):
        losses.squared(np.ones((3, 1)), np.ones(3))
    with pytest.raises(ValueError, match=r"targets\[\.\.\., 0\]"):
        losses.squared(np.ones(3), np.ones((3, 1)))
    with pytest.raises(ValueError, match="outputs must be real numbers"):
        losses.squared(np.array(["a"]), np.ones(1))
