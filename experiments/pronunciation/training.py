"""Trains a network on the chunks of letters: fixed ones, or what a teacher says of each."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from experiments.pronunciation import analogy, words
from experiments.pronunciation.model import Pronouncer
from jaxml import models, train
from jaxml.types import Array, PyTree

__all__ = ["Schedule", "fit"]

_REPORTS = 10


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns."""

    num_steps: int = 16_000
    """Steps of training."""
    batch_size: int = 64
    """Pairs of a word and a pronunciation in a step."""
    learning_rate: float = 2e-3
    """Largest learning rate of AdamW: it rises over 3 % of the steps, and falls by a cosine to zero."""
    weight_decay: float = 0.01
    """Of AdamW."""
    dropout: float = 0.1
    """Share of units that are dropped in a training step."""


def _optimizer(schedule: Schedule) -> optax.GradientTransformation:
    steps = schedule.num_steps
    rate = optax.warmup_cosine_decay_schedule(
        0.0, schedule.learning_rate, max(1, steps // 33), steps
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, weight_decay=schedule.weight_decay),
    )


def fit(
    network: Pronouncer,
    seen: analogy.Seen,
    targets: Callable[[NDArray[np.integer], int], dict[str, NDArray]],
    loss: Callable[[Array, dict[str, Array], PyTree], Array],
    schedule: Schedule,
    seeds: Sequence[int],
    trials: PyTree,
    report: Callable[[int, dict[str, float], PyTree], None],
) -> PyTree:
    """Returns the variables of M networks that are trained side by side on the same batches, stacked.

    Args:
        network: with its dropout.
        seen: of N pairs, without what they say themselves.
        targets: `targets(rows [B], width)` returns `chunks` int32 [B, width], -1 past the end, and what
            else the loss needs.
        loss: `loss(logits [B, width, C], targets, trial) -> [B, width]`.
        schedule: of the training.
        seeds: M, of initialisation and dropout; the first also sets the order.
        trials: what differs in the losses of the M networks, leaves [M]; may be empty.
        report: called about ten times with step, figures and the variables.
    """
    model, optimizer = models.from_linen(network), _optimizer(schedule)

    def batch_of(rows: NDArray[np.integer], width: int) -> dict[str, NDArray]:
        there = rows[:, None] >= 0
        taken = targets(np.maximum(rows, 0), width)
        chunks = np.where(there, taken["chunks"], -1)
        told = jax.tree.map(lambda leaf: (leaf[rows, :width].T * there.T).T, seen)
        return {**taken, "seen": told, "chunks": chunks}

    def step(state: train.State, trial: PyTree, batch: PyTree) -> tuple[train.State, train.Report]:
        def mean_loss(params, model_state, rows, batch, context, key):
            logits, _ = model.apply({"params": params}, batch, key=key, training=True)
            known = batch["chunks"] >= 0
            each = jnp.where(known, loss(logits, batch, trial), 0.0)
            return each.sum() / jnp.maximum(known.sum(), 1), (model_state, {})

        return train.make_step(train.Task(mean_loss), optimizer=optimizer)(state, batch)

    def start(seed: Array) -> train.State:
        key = jax.random.key(seed)
        params = model.init(key, batch_of(none, words.WIDTHS[0]))["params"]
        return train.create_state(jax.random.fold_in(key, 1), params=params, optimizer=optimizer)

    letters = seen.letters
    none = np.full(schedule.batch_size, -1)
    widths = sorted({words.width_of(each) for each in np.unique((letters > 0).sum(1)).tolist()})
    # By `vmap`, the orthogonal matrices of large networks never come on a CPU of two devices.
    states = jax.jit(lambda seeds: jax.lax.map(start, seeds))(jnp.asarray(seeds))

    # Each device trains its share of the networks. On a CPU one after the other takes no longer than all of
    # them by `vmap`; a donated state is updated in place, which takes a quarter longer than a new one.
    def share(states: train.State, trials: PyTree, batch: PyTree) -> tuple[train.State, Any]:
        return jax.lax.map(lambda one: step(one[0], one[1], batch), (states, trials))

    devices = jax.devices()[: math.gcd(len(seeds), jax.device_count())]
    mesh = jax.sharding.Mesh(np.array(devices), ("networks",))
    each = P("networks")
    many = jax.jit(
        jax.shard_map(share, mesh=mesh, in_specs=(each, each, P()), out_specs=each, check_vma=False)
    )
    states, trials = jax.device_put((states, trials), NamedSharding(mesh, each))

    with futures.ThreadPoolExecutor(2) as pool:  # A compiler uses one core.
        compiled = pool.map(
            lambda width: many.lower(states, trials, batch_of(none, width)).compile(), widths
        )
        programs = dict(zip(widths, compiled, strict=True))

    def variables() -> PyTree:
        return jax.device_get({"params": states.params})

    every = max(1, schedule.num_steps // _REPORTS)
    batches = words.batches(letters, schedule.batch_size, seeds[0])
    losses, started = [], time.perf_counter()
    for number in range(1, schedule.num_steps + 1):
        width, rows = next(batches)
        states, happened = programs[width](states, trials, batch_of(rows, width))
        losses.append(happened.loss)
        if number % every == 0 or number == schedule.num_steps:
            figures = {"loss": float(np.mean(losses)), "seconds": time.perf_counter() - started}
            losses.clear()
            report(number, figures, variables())
    return variables()
