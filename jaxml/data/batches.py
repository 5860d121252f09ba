"""Shuffled batches as a pure function of their number: there is no iterator to save or restore."""

import functools

import numpy as np
from numpy.typing import NDArray

from jaxml import checks


def batch_indices(
    num_examples: int, batch_size: int, position: int, seed: int
) -> NDArray[np.int64]:
    """Returns the examples of one batch, [batch_size] in [0, num_examples).

    Each epoch is another uniform permutation of all examples. Epochs follow each other without a gap, and
    batch `position` begins at `position · batch_size`. So every batch is full, it may span two epochs (or
    more), and `num_examples` successive draws that start with an epoch hold every example once.

    The permutation sorts 64-bit words of PCG64 seeded with (seed, epoch), which NumPy guarantees never to
    change. It is made once an epoch and kept while it is in use.

    Args:
        num_examples: at least 1.
        batch_size: at least 1.
        position: number of the batch since the start of training: all that is needed to resume.
        seed: seed of the run, at least 0.

    >>> [batch_indices(5, 2, position, seed=0).tolist() for position in range(5)]
    [[3, 2], [1, 0], [4, 4], [1, 2], [0, 3]]
    """
    return many_batch_indices(num_examples, batch_size, position, 1, seed)[0]


def many_batch_indices(
    num_examples: int, batch_size: int, position: int, count: int, seed: int
) -> NDArray[np.int64]:
    """Returns the examples of `count` successive batches, [count, batch_size]; see `batch_indices`.

    >>> many_batch_indices(5, 2, 1, 3, seed=0).tolist()
    [[1, 0], [4, 4], [1, 2]]
    """
    num_examples = checks.integer("num_examples", num_examples, 1)
    batch_size = checks.integer("batch_size", batch_size, 1)
    start = checks.integer("position", position, 0) * batch_size
    end = start + checks.integer("count", count, 1) * batch_size
    seed = checks.integer("seed", seed, 0)
    pieces = []
    while start < end:
        epoch, first = divmod(start, num_examples)
        piece = _permutation(num_examples, seed, epoch)[first : first + end - start]
        pieces.append(piece)
        start += len(piece)
    return np.concatenate(pieces).reshape(count, batch_size)


# Two, for the batches that span the end of an epoch.
@functools.lru_cache(maxsize=2)
def _permutation(num_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    words = np.random.PCG64([seed, epoch]).random_raw(num_examples)
    return np.argsort(words, kind="stable")
