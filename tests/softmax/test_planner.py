"""Recommendations: what decides them, and predictions against the compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import tables
from jaxml.softmax import (
    blockwise_softmax_update,
    full_softmax_loss,
    log_uniform,
    sampled_softmax_loss_from_rows,
)
from jaxml.softmax.planner import NUM_SAMPLED, predict, recommend

GB = 1e9


@pytest.mark.parametrize(
    ("arguments", "options", "variant"),
    [
        ((8_192, 128, 512), {}, "exact"),
        ((8_193, 128, 512), {}, "sampled"),
        ((100_000, 128, 512), dict(num_steps=1_000), "exact"),
        ((100_000, 128, 512), dict(num_steps=10**6), "sampled"),
        # 40 GB of logits and their gradient.
        ((10_000_000, 64, 512), dict(num_steps=100), "blockwise"),
        ((8_000, 64, 10**6), {}, "blockwise"),
        ((100_000_000, 64, 8), {}, "adaptive"),
    ],
)
def test_recommends(arguments, options, variant):
    found = recommend(*arguments, memory_bytes=24 * GB, **options)
    assert found.variant == variant
    assert (found.predicted_bytes, found.predicted_operations) == predict(variant, *arguments)
    assert found.predicted_bytes <= 24 * GB
    assert found.reason


def compiled(variant, num_classes, dim, batch_size):
    """One step of gradient descent as it would be trained, table donated."""
    x = jnp.zeros((batch_size, dim))
    y = jnp.zeros(batch_size, jnp.int32)
    optimizer = tables.sgd(0.1)

    def exact(table, x):
        def loss(table, x):
            return full_softmax_loss(x, y, table).mean()

        gradient, d_x = jax.grad(loss, (0, 1))(table, x)
        return table - 0.1 * gradient, d_x

    def blockwise(table, x):
        _, d_x, table, _ = blockwise_softmax_update(x, y, table, {}, optimizer.rule)
        return table, d_x

    def sampled(table, x):
        drawn = log_uniform(num_classes).sample((), jax.random.key(0), y, NUM_SAMPLED)
        ids = jnp.concatenate([y, drawn.ids])

        def loss(rows, x):
            true, others = jax.lax.split(rows, (batch_size, NUM_SAMPLED))
            return sampled_softmax_loss_from_rows(x, true, others, y, drawn).mean()

        d_rows, d_x = jax.grad(loss, (0, 1))(tables.gather_rows(table, ids), x)
        return optimizer.update(tables.RowGradient(ids, d_rows), {}, table)[0], d_x

    step = {"exact": exact, "blockwise": blockwise, "sampled": sampled}[variant]
    table = jnp.zeros((num_classes, dim))
    return jax.jit(step, donate_argnums=0).lower(table, x).compile()


@pytest.mark.parametrize("variant", ["exact", "blockwise", "sampled"])
def test_predicted_bytes_are_those_of_the_compiled_step(variant):
    sizes = (50_000, 64, 256)
    memory = compiled(variant, *sizes).memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    np.testing.assert_allclose(predict(variant, *sizes)[0], held, rtol=0.25)


def test_refuses_what_does_not_fit_and_what_is_below_one():
    with pytest.raises(ValueError, match=r"memory_bytes must be at least \d+ for 1000000 classes"):
        recommend(1_000_000, 128, 512, memory_bytes=1e7)
    with pytest.raises(ValueError, match=r"dim must be .* at least 1, got 0"):
        recommend(10, 0, 2, memory_bytes=GB)
    with pytest.raises(ValueError, match=r"num_steps must be .* at least 1, got 0"):
        recommend(10, 4, 2, memory_bytes=GB, num_steps=0)
