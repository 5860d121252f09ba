"""Bias and variance of sampled gradients against the number of candidates."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.softmax_benchmark import layers
from experiments.softmax_benchmark.problems import Problem
from jaxml import models, softmax, tables
from jaxml.types import Array


def measure(
    problem: Problem,
    held: dict[str, Array],
    samplers: Sequence[str],
    *,
    num_sampled: Sequence[int],
    num_examples: int,
    num_keys: int,
    temperature: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Returns a row for each sampler and number of candidates, with the figures of `softmax.Gap`.

    Gradients are those of the mean loss of a batch of training examples with respect to the inputs.
    Samplers with own candidates for each example draw as many as the others share. `held` has the tables
    of a trained layer, "features" and "classes".
    """
    chosen = jax.random.choice(
        jax.random.key(seed), len(problem.train), (num_examples,), replace=False
    )
    examples = problem.train[chosen]
    labels = jnp.asarray(problem.labels[examples])
    sums = tables.gather_bags(held["features"], jnp.asarray(problem.bags[examples]))
    inputs = models.unit_norm(sums)
    rows = []
    for name in samplers:
        for number in num_sampled:
            setup = layers.sampling(name, problem.counts, num_examples, number, own=number)
            number = setup.num_sampled
            state = layers.sampler_state(setup, held, 1.0)
            gap = jax.jit(
                lambda x, w, key, state, setup=setup: softmax.estimate_gap(
                    x,
                    labels,
                    w,
                    None,
                    setup.sampler,
                    state,
                    key,
                    setup.num_sampled,
                    num_keys,
                    unique=setup.unique,
                    correction="negatives",
                    gradients="inputs",
                )
            )(inputs / temperature, held["classes"], jax.random.key(seed + 1), state)
            rows.append(
                dict(
                    problem=problem.name,
                    sampler=name,
                    num_sampled=number,
                    num_keys=num_keys,
                    num_examples=num_examples,
                    gradient_bias=float(gap.gradient_bias),
                    gradient_variance=float(gap.gradient_variance),
                    loss_gap=float(gap.loss_gap),
                )
            )
            if name == "in_batch":  # As many as there are examples, and no other number.
                break
    return rows
