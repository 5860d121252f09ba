"""Batches of sequences of unequal length: bucketed by length, or as windows over a stream of documents."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxml import checks

__all__ = ["Windows", "bucketed_epoch", "windows"]


class Windows(NamedTuple):
    """A stream of documents, cut for truncated backpropagation through time.

    Attributes:
        tokens: [W, B, T], row b of window w + 1 goes on where row b of window w ends; 0 past the end.
        targets: [W, B, T], the token after each, -1 past the end; that of a document's last token is the
            next document's first.
        resets: bool [W, B, T], True at the first token of each document, and of each row: the state is set
            to zero there.
    """

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    resets: NDArray[np.bool_]


def bucketed_epoch(
    lengths: ArrayLike, buckets: Sequence[int], batch_size: int, *, seed: int, epoch: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields one epoch of batches whose examples are of similar length: `(bucket, examples)`.

    A bucket holds lengths above the next smaller bucket, up to its own. Every example occurs once; the last
    batch of a bucket is padded with -1. Batches come in random order, and so do the examples in them. So
    there are as many shapes as buckets.

    Args:
        lengths: int [N], at least 1 and at most the largest bucket.
        buckets: increasing lengths that sequences are padded to.
        batch_size: at least 1.
        seed: seed of the run, at least 0.
        epoch: number of the epoch; each has its own order.

    Raises:
        ValueError: a length is 0 or above the largest bucket, or buckets do not increase.

    >>> for bucket, examples in bucketed_epoch([3, 7, 2, 8, 1], (4, 8), 2, seed=0, epoch=0):
    ...     print(bucket, examples)
    4 [ 4 -1]
    8 [3 1]
    4 [2 0]
    """
    sizes = [checks.integer(f"buckets[{i}]", size, 1) for i, size in enumerate(buckets)]
    if not sizes or sizes != sorted(set(sizes)):
        raise ValueError(f"buckets must be increasing lengths, got {buckets!r}")
    batch_size = checks.integer("batch_size", batch_size, 1)
    seed, epoch = checks.integer("seed", seed, 0), checks.integer("epoch", epoch, 0)
    found = np.asarray(lengths)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(f"lengths must be integers [N], got {found.dtype} {found.shape}")
    bad = np.flatnonzero((found < 1) | (found > sizes[-1]))
    if bad.size:
        raise ValueError(
            f"lengths must be in [1, {sizes[-1]}], the largest bucket, got {found[bad[0]]} for "
            f"example {bad[0]}"
        )
    # Raw 64-bit words as sort keys: NumPy guarantees them, not what `Generator` makes of them.
    source = np.random.PCG64([seed, epoch])
    shuffled = np.argsort(source.random_raw(len(found)), kind="stable")
    bucket_of = np.searchsorted(sizes, found[shuffled])
    batches = []
    for i, size in enumerate(sizes):
        inside = shuffled[bucket_of == i]
        missing = -len(inside) % batch_size
        rows = np.append(inside, np.full(missing, -1)).reshape(-1, batch_size)
        batches += [(size, row) for row in rows]
    yield from (batches[i] for i in np.argsort(source.random_raw(len(batches)), kind="stable"))


def windows(tokens: ArrayLike, starts: ArrayLike, rows: int, length: int) -> Windows:
    """Returns a stream of documents as windows for truncated backpropagation through time.

    The stream is cut into `rows` parts, which run side by side: every token but the first is a target once.

    Args:
        tokens: int [N] in [0, 2³¹), at least two: the documents one after the other.
        starts: int [D], where each document begins: increasing from 0 on, below N.
        rows: B, at least 1.
        length: T, at least 1.

    Raises:
        ValueError: a document is empty, a token is out of range, or there are too few.

    >>> tokens, targets, resets = windows(np.arange(8), [0, 3], rows=2, length=2)
    >>> tokens.tolist(), targets.tolist()
    ([[[0, 1], [4, 5]], [[2, 3], [6, 0]]], [[[1, 2], [5, 6]], [[3, 4], [7, -1]]])
    >>> resets.tolist()
    [[[True, False], [True, False]], [[False, True], [False, False]]]
    """
    rows, length = checks.integer("rows", rows, 1), checks.integer("length", length, 1)
    stream = np.asarray(tokens)
    if stream.ndim != 1 or stream.dtype.kind not in "iu" or len(stream) < 2:
        raise ValueError(
            f"tokens must be integers [N] with N ≥ 2, got {stream.dtype} {stream.shape}"
        )
    outside = (stream < 0) | (stream >= 2**31)
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(f"tokens must be in [0, 2**31), got {stream[at]} at {at}")
    first = np.asarray(starts)
    if first.ndim != 1 or first.dtype.kind not in "iu" or not len(first) or first[0] != 0:
        raise ValueError(f"starts must be integers [D] from 0 on, got {starts!r:.60}")
    lengths = np.diff(first, append=len(stream))
    if (lengths < 1).any():
        at = int(np.argmax(lengths < 1))
        raise ValueError(
            f"documents must have at least 1 token, got {lengths[at]} in document {at}"
        )
    number = -(-(len(stream) - 1) // (rows * length))
    begins = np.zeros(len(stream), bool)
    begins[first] = True

    def cut(part: NDArray[Any], fill: Any) -> NDArray[Any]:
        padded = np.pad(part, (0, number * rows * length - len(part)), constant_values=fill)
        return np.ascontiguousarray(padded.reshape(rows, number, length).swapaxes(0, 1))

    resets = cut(begins[:-1], False)
    resets[0, :, 0] = True
    return Windows(
        tokens=cut(stream[:-1].astype(np.int32), 0),
        targets=cut(stream[1:].astype(np.int32), -1),
        resets=resets,
    )
