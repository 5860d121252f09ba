"""Recurrent cells: one battery for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import models
from jaxml.models.cells import CELLS

B, T, D, F = 3, 8, 4, 6
LENGTHS = jnp.array([8, 3, 5])
every_cell = pytest.mark.parametrize("cell", CELLS)


def close(a, b, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=atol), a, b)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (B, T, D))


@pytest.fixture(scope="module")
def made(x):
    """Module, variables and compiled application of each cell, in two layers."""
    kept = {}

    def make(cell, **options):
        if (cell, *options.items()) not in kept:
            module = models.Recurrent(cell, F, 2, **options)
            variables = jax.jit(module.init)(jax.random.key(1), x)
            kept[cell, *options.items()] = module, variables, jax.jit(module.apply)
        return kept[cell, *options.items()]

    return make


@every_cell
def test_a_window_is_two_halves_with_the_carry(cell, made, x):
    _, variables, apply = made(cell)
    outputs, end = apply(variables, x)
    first, carry = apply(variables, x[:, : T // 2])
    second, carry = apply(variables, x[:, T // 2 :], carry=carry)
    close(jnp.concatenate([first, second], axis=1), outputs)
    close(carry, end)


@every_cell
@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_lies_past_the_end_changes_nothing(cell, bidirectional, made, x):
    module, variables, apply = made(cell, bidirectional=bidirectional)
    past = jnp.arange(T)[None, :, None] >= LENGTHS[:, None, None]

    @jax.jit
    def of(variables, x):
        def loss(variables, x):
            outputs, carry = module.apply(variables, x, LENGTHS)
            return jnp.square(outputs).sum() + sum(map(jnp.sum, jax.tree.leaves(carry)))

        return module.apply(variables, x, LENGTHS), jax.grad(loss, argnums=(0, 1))(variables, x)

    ragged = of(variables, x)
    jax.tree.map(np.testing.assert_array_equal, of(variables, jnp.where(past, jnp.nan, x)), ragged)
    (outputs, carry), _ = ragged
    for i, length in enumerate(LENGTHS.tolist()):
        alone, end = apply(variables, x[i : i + 1, :length])
        close(outputs[i, :length], alone[0])
        close(
            [leaf[i] for leaf in jax.tree.leaves(carry)], [leaf[0] for leaf in jax.tree.leaves(end)]
        )
        assert not outputs[i, length:].any()
