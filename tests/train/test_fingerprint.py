"""Fingerprints: the same where the computation is, in another process too; another where it is not."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import monitor, train
from jaxml.train.fingerprint import fingerprint, of_parts


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

TABLE, KEY = jnp.arange(3.0), jax.random.key(1)


def program(x):
    """Lambdas, custom derivatives, callbacks, constants, a key, a loop, a branch, a map."""
    jax.debug.print("{}", x[0])
    x = jax.pure_callback(lambda x: np.asarray(x), x, x)
    x = jax.jit(lambda x: jax.nn.relu(doubled(x)) + TABLE)(x)
    x = jax.lax.fori_loop(0, 3, lambda i, x: x * np.float32([1, 2, 3]), x)
    x += jax.random.normal(KEY, 3)
    x = jax.lax.cond(x[0] > 0, jnp.sin, lambda x: x, x)
    return jax.vmap(lambda x: jnp.sum(jax.checkpoint(jnp.tanh)(x)))(x[None])


def of(function, *arguments):
    return fingerprint(jax.make_jaxpr(function)(*arguments))


def test_another_process_has_the_same():
    code = (
        "import importlib.util, jax, jax.numpy as jnp\n"
        f"spec = importlib.util.spec_from_file_location('other', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "jax.jit(module.program)(jnp.ones(3)); print(module.of(module.program, jnp.ones(3)))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.split()[-2:] == of(program, jnp.ones(3)).split()


def scaled(by):
    return lambda x: x * by


def cond(on_true):
    return lambda x: jax.lax.cond(x[0] > 0, on_true, lambda x: x, x)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x - x[0], lambda x: x[0] - x),
        (scaled(np.float32(0.1)), scaled(np.nextafter(np.float32(0.1), 1))),
        (scaled(jnp.ones(3)), scaled(jnp.array([1.0, 1.0, 2.0]))),
        (jax.jit(scaled(jnp.ones(3))), jax.jit(scaled(jnp.zeros(3)))),
        (cond(jnp.sin), cond(jnp.cos)),
        (cond(scaled(np.arange(3.0))), cond(scaled(np.arange(3.0) + 1))),
        (jax.nn.relu, jax.nn.relu6),
        (jnp.sum, lambda x: jnp.sum(x, keepdims=True)),
        (lambda x: (x, x + 1), lambda x: (x + 1, x)),
        (lambda x: jax.random.normal(KEY, 3), lambda x: jax.random.normal(jax.random.key(2), 3)),
        (lambda x: x.astype(jnp.bfloat16), lambda x: x.astype(jnp.float16)),
    ],
)
def test_another_computation_has_another(one, other):
    x = jnp.ones(3)
    assert of(one, x) != of(other, x)
    assert of(one, x) == of(lambda renamed: one(renamed), x)


def test_parts_of_a_step():
    """The optimizer, guarded or not, is told from the loss."""

    def parts(optimizer, power=2):
        def loss(params, model_state, rows, batch, context, key):
            return jnp.mean(params["w"] ** power * batch), (model_state, {})

        state = train.create_state(
            jax.random.key(0), params={"w": jnp.ones(3)}, optimizer=optimizer
        )
        step = train.make_step(train.Task(loss), optimizer=optimizer)
        return of_parts(jax.make_jaxpr(jax.jit(step))(state, jnp.ones(3)))

    base = parts(optax.adam(0.1))
    assert parts(optax.adam(0.1)) == base
    for changed, name in (
        (parts(optax.adam(0.2)), "optimizer or schedule"),
        (parts(optax.adam(0.1, eps=1e-7)), "optimizer or schedule"),
        (parts(optax.adam(0.1), power=3), "loss"),
    ):
        assert [part for part in base if base[part] != changed[part]] == [name]
    assert parts(monitor.guard(optax.adam(0.1))) != parts(monitor.guard(optax.adam(0.2)))
