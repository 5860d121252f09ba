"""Batches composed of groups: a few examples of the same kind beside each other."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks


def grouped_epoch(
    groups: ArrayLike, group_size: int, *, seed: int, epoch: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns one epoch, shuffled and cut into teams of examples of the same group.

    The examples of each group are shuffled and cut into teams of `group_size`; the last team of a group
    is filled up with -1. The teams are shuffled. Every example occurs once in the epoch.

    Args:
        groups: int [N], the group of each example, at least 0; an array, a list or a series.
        group_size: number of examples in a team, at least 1.
        seed: seed of the run, at least 0.
        epoch: number of the epoch; each has its own order.

    Returns:
        `(examples, team_group)`: int32 [M, group_size], indices of examples, -1 where a team is not
        full; int32 [M], the group of each team.

    Raises:
        ValueError: groups are not integers, or a number is out of range.

    >>> examples, team_group = grouped_epoch(np.array([0, 1, 0, 0]), 2, seed=0, epoch=0)
    >>> sorted(examples.ravel().tolist()), sorted(team_group.tolist())
    ([-1, -1, 0, 1, 2, 3], [0, 0, 1])
    """
    group_size = checks.integer("group_size", group_size, 1)
    seed, epoch = checks.integer("seed", seed, 0), checks.integer("epoch", epoch, 0)
    groups = np.asarray(groups)
    if groups.ndim != 1 or (groups.size and (groups.dtype.kind not in "iu" or groups.min() < 0)):
        raise ValueError(
            f"groups must be integers [N] of at least 0, got {groups.dtype} {groups.shape}, "
            f"{groups!r:.60}"
        )
    groups = groups.astype(np.int64)
    # Raw 64-bit words as sort keys: NumPy guarantees them, not what `Generator` makes of them.
    source = np.random.PCG64([seed, epoch])
    shuffled = np.argsort(source.random_raw(len(groups)), kind="stable")
    examples = shuffled[np.argsort(groups[shuffled], kind="stable")]
    sizes = np.bincount(groups)
    teams = -(-sizes // group_size)
    within = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    first_team = np.repeat(np.cumsum(teams) - teams, sizes)
    table = np.full((int(teams.sum()), group_size), -1, np.int32)
    table[first_team + within // group_size, within % group_size] = examples
    team_group = np.repeat(np.arange(len(sizes), dtype=np.int32), teams)
    order = np.argsort(source.random_raw(len(table)), kind="stable")
    return table[order], team_group[order]
