"""Shuffled batches as a pure function of their number: there is no iterator to save or restore."""

import functools

import numpy as np
from numpy.typing import NDArray


def batch_indices(
    num_examples: int, batch_size: int, position: int, seed: int
) -> NDArray[np.int64]:
    """The examples of one batch.

    Every epoch is a uniform permutation of all examples, another one each time; the epochs follow
    each other without a gap, and batch `position` is what lies from `position · batch_size` on. So
    every batch is full, one may span two epochs (or more, if it is larger than the data), and any
    `num_examples` successive draws that start with an epoch hold every example once.

    The permutation sorts 64-bit words of PCG64 seeded with (seed, epoch), which NumPy guarantees
    never to change. It is made once an epoch, in O(num_examples log num_examples), and kept while
    it is in use; that saves time and alters nothing.

    Args:
        num_examples: ≥ 1.
        batch_size: ≥ 1.
        position: number of the batch since the start of training, ≥ 0: all there is to resume from.
        seed: of the run, ≥ 0.

    Returns:
        [batch_size] int64 in [0, num_examples).

    Raises:
        ValueError: an argument below its bound.

    Example:
        >>> [batch_indices(5, 2, position, seed=0).tolist() for position in range(5)]
        [[3, 2], [1, 0], [4, 4], [1, 2], [0, 3]]
    """
    return many_batch_indices(num_examples, batch_size, position, 1, seed)[0]


def many_batch_indices(
    num_examples: int, batch_size: int, position: int, count: int, seed: int
) -> NDArray[np.int64]:
    """The examples of successive batches: rows are `batch_indices` of one position after the other.

    They lie one behind the other in the epochs, so that it takes no longer than copying them.

    Args:
        num_examples: ≥ 1.
        batch_size: ≥ 1.
        position: number of the first batch, ≥ 0.
        count: of batches, ≥ 1.
        seed: of the run, ≥ 0.

    Returns:
        [count, batch_size] int64 in [0, num_examples).

    Raises:
        ValueError: an argument below its bound.

    Example:
        >>> many_batch_indices(5, 2, 1, 3, seed=0).tolist()
        [[1, 0], [4, 4], [1, 2]]
    """
    for argument, value, bound in (
        ("num_examples", num_examples, 1),
        ("batch_size", batch_size, 1),
        ("position", position, 0),
        ("count", count, 1),
        ("seed", seed, 0),
    ):
        if value < bound:
            raise ValueError(f"{argument} is {value}, wanted at least {bound}")
    pieces = []
    start = int(position) * int(batch_size)
    end = start + int(count) * int(batch_size)
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
