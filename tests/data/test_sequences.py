"""Sequences: every example once, few shapes; windows that go on where the last one ends."""

import numpy as np
import pytest

from jaxml.data.sequences import bucketed_epoch, windows


def test_an_epoch_holds_every_example_once_in_its_bucket():
    lengths = np.random.default_rng(0).integers(1, 31, 503)
    epochs = [list(bucketed_epoch(lengths, (5, 12, 30), 16, seed=1, epoch=e)) for e in (0, 0, 1)]
    for epoch in epochs:
        drawn = np.concatenate([examples for _, examples in epoch])
        np.testing.assert_array_equal(np.sort(drawn[drawn >= 0]), np.arange(503))
        assert {(size, examples.shape) for size, examples in epoch} == {
            (size, (16,)) for size in (5, 12, 30)
        }
        assert (drawn < 0).sum() < 3 * 16
        for size, examples in epoch:
            below = {5: 0, 12: 5, 30: 12}[size]
            inside = lengths[examples[examples >= 0]]
            assert (inside > below).all() and (inside <= size).all()
    first, again, other = ([examples.tolist() for _, examples in epoch] for epoch in epochs)
    assert first == again != other
    # Batches of one bucket do not follow each other.
    assert len({size for size, _ in epochs[0][:6]}) > 1


def test_windows_go_on_and_reset_where_documents_begin():
    documents = [np.full(n, i) * 1000 + np.arange(n) for i, n in enumerate((7, 1, 30, 4, 50))]
    stream = np.concatenate(documents)
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    read = windows(stream, starts, 3, 5)
    assert all(part.shape == (7, 3, 5) for part in read)
    tokens, targets, resets = (part.swapaxes(0, 1).reshape(3, 35) for part in read)
    np.testing.assert_array_equal(tokens.ravel()[:91], stream[:-1])
    np.testing.assert_array_equal(targets.ravel()[:91], stream[1:])
    assert (tokens.ravel()[91:] == 0).all() and (targets.ravel()[91:] == -1).all()
    wanted = tokens % 1000 == 0
    wanted.ravel()[91:] = False
    wanted[:, 0] = True
    np.testing.assert_array_equal(resets, wanted)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"lengths must be in \[1, 8\].*got 0 for example 1", lambda: epoch([3, 0])),
        (r"lengths must be in \[1, 8\].*got 9 for example 0", lambda: epoch([9])),
        ("lengths must be integers", lambda: epoch([1.5])),
        ("buckets must be increasing", lambda: epoch([1], buckets=(8, 4))),
        ("batch_size must be .* at least 1, got 0", lambda: epoch([1], batch_size=0)),
        ("length must be .* at least 1, got 0", lambda: windows(np.arange(9), [0], 2, 0)),
        ("rows must be .* at least 1, got -1", lambda: windows(np.arange(9), [0], -1, 2)),
        ("at least 1 token, got 0 in document 1", lambda: windows(np.arange(9), [0, 3, 3], 1, 2)),
        ("at least 1 token, got -1 in document 1", lambda: windows(np.arange(9), [0, 10], 1, 2)),
        ("starts must be integers .* from 0 on", lambda: windows(np.arange(9), [1], 1, 2)),
        (r"N ≥ 2, got int64 \(1,\)", lambda: windows(np.arange(1), [0], 2, 5)),
        ("tokens must be integers", lambda: windows(np.ones(9), [0], 1, 2)),
        (r"got 4294967297 at 1", lambda: windows(np.array([5, 2**32 + 1, 7]), [0], 1, 2)),
        (r"got -1 at 2", lambda: windows(np.array([5, 0, -1]), [0], 1, 2)),
    ],
)
def test_bad_input(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def epoch(lengths, buckets=(4, 8), batch_size=2):
    return list(bucketed_epoch(lengths, buckets, batch_size, seed=0, epoch=0))
