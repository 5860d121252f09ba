"""Batches of neighbourhoods: a few aliases of each of a few blocks of similar places."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from experiments.geonames.config import Config
from experiments.geonames.data import Aliases
from jaxml import train
from jaxml.data import geonames, grouping
from jaxml.types import PyTree


def steps_per_epoch(config: Config, names: geonames.GeoNames) -> int:
    """Returns the steps between two cuts into neighbourhoods."""
    return max(1, len(names.train) // config.batch_size)


def epoch_batches(
    config: Config, aliases: Aliases, state: train.State, epoch: int
) -> tuple[train.State, Callable[[int, int], PyTree]]:
    """Returns the state with the shares of the blocks, and the batches of an epoch by their number.

    Everything follows from the seed, the epoch and the neighbourhoods in the state: a run that continues in
    the middle of an epoch sees the same batches.
    """
    names = aliases.names
    per_epoch, drawn = steps_per_epoch(config, names), config.num_sampled // config.block_size
    block = np.asarray(state.sampler_state["parts"].block)
    teams, team_block = grouping.grouped_epoch(
        block[names.place[names.train]], config.batch_size // drawn, seed=config.seed, epoch=epoch
    )
    share = np.bincount(team_block, minlength=len(state.sampler_state["share"])) / len(team_block)
    state = dataclasses.replace(
        state,
        sampler_state={**state.sampler_state, "share": jnp.asarray(share, jnp.float32)},
    )

    def grouped(position: int, count: int) -> PyTree:
        # Batches past the end of the epoch are not used; the last one fills their place.
        number = np.minimum(
            np.arange(position, position + count) - epoch * per_epoch, per_epoch - 1
        )
        team = number[:, None] * drawn + np.arange(drawn)
        examples = teams[team % len(teams)].reshape(count, -1)
        rows = np.maximum(examples, 0)
        pairs = names.train[rows]
        batches: PyTree = {
            "ngrams": aliases.ngrams[pairs],
            "labels": np.where(examples >= 0, names.place[pairs], -1),
            "blocks": team_block[team % len(teams)],
        }
        if aliases.taught is not None:
            batches["taught"] = tuple(each[rows] for each in aliases.taught)
        return batches

    return state, grouped
