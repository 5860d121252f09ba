"""Candidate samplers: which few classes stand in for all the others in this step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax

from jaxml.types import Array, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Candidates:
    """The classes drawn for one step, and how often each was to be expected.

    A slot that holds no candidate has `ids = num_classes` and `expected_count = 0`, and never
    enters a loss.

    Attributes:
        ids: int32 [S] (shared by the batch) or [B, S], in `[0, num_classes]`.
        expected_count: float32, the shape of `ids`; the mean number of times that the id occurs
            in a draw like this one. A probability when the ids are distinct.
        true_expected_count: float32, the shape of the labels; the same for the true classes.
    """

    ids: Array
    expected_count: Array
    true_expected_count: Array


class Sampler(NamedTuple):
    """Four pure functions that draw candidates.

    Attributes:
        init: `init(weights=None) -> state`; makes the device arrays that the sampler needs.
        sample: `sample(state, key, labels, num_sampled, *, unique=True, where=None,
            inputs=None) -> Candidates`.
        update: `update(state, labels, *, where=None, weights=None) -> state`; what the sampler
            learns from a batch, the identity where nothing is learned.
        probability: `probability(state, ids) -> p`; of one draw, float32, 0 for ids out of range.
    """

    init: Callable[..., PyTree]
    sample: Callable[..., Candidates]
    update: Callable[..., PyTree]
    probability: Callable[..., Array]
