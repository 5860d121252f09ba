"""How far is a sampled gradient from the exact one: bias and variance against the number of samples."""

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
    """Estimates bias, variance and gap of the loss on a batch of training examples.

    Gradients are those of the mean loss with respect to the inputs; their distances are in units of the
    exact gradient's length. Where each example has candidates of its own they are as many as where the
    batch shares them.

    Args:
        problem: the data.
        held: tables of a trained layer: "features" and "classes".
        samplers: of `layers.SAMPLERS`; those that need a batch of a certain size get one.
        num_sampled: candidates an example, each at most the number of classes.
        num_examples: of the probe batch.
        num_keys: draws.
        temperature: of the softmax.
        seed: of the probe batch and the draws.

    Returns:
        A row for each sampler and number: `gradient_bias`, `gradient_variance` and `loss_gap` as in
        `softmax.Gap`.
    """
    chosen = jax.random.choice(
        jax.random.key(seed), len(problem.train), (num_examples,), replace=False
    )
    examples = problem.train[chosen]
    labels = jnp.asarray(problem.labels[examples])
    sums = tables.gather_bags(held["features"], jnp.asarray(problem.bags[examples]))
    inputs = models.from_linen(models.BagEncoder()).apply({}, sums)[0]
    rows = []
    for name in samplers:
        for number in num_sampled:
            sampling = layers.samplings(problem.counts, num_examples, number, number)[name]
            number = sampling.number
            state = layers.sampler_state(sampling, held, temperature)
            gap = jax.jit(
                lambda x, w, key, state, sampling=sampling, number=number: softmax.estimate_gap(
                    x,
                    labels,
                    w,
                    None,
                    sampling.sampler,
                    state,
                    key,
                    number,
                    num_keys,
                    unique=sampling.unique,
                    correction="negatives",
                    temperature=temperature,
                    gradients="inputs",
                )
            )(inputs, held["classes"], jax.random.key(seed + 1), state)
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
