"""Epochs of teams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxml.data.grouping import grouped_epoch


@given(
    groups=st.lists(st.integers(0, 9), min_size=0, max_size=60),
    size=st.integers(1, 7),
    epoch=st.integers(0, 5),
)
def test_every_example_occurs_once_in_a_team_of_its_group(groups, size, epoch):
    groups = np.array(groups, np.int64)
    examples, team_group = grouped_epoch(groups, size, seed=3, epoch=epoch)
    assert examples.shape == (len(team_group), size)
    assert sorted(examples[examples >= 0]) == list(range(len(groups)))
    for team, group in zip(examples, team_group, strict=True):
        members = team[team >= 0]
        assert len(members) and (groups[members] == group).all()
    # No group leaves more than one team unfilled.
    unfilled = team_group[(examples < 0).any(axis=1)]
    assert len(set(unfilled)) == len(unfilled)


def test_epochs_differ_and_repeat():
    groups = np.arange(1000) % 7
    first = grouped_epoch(groups, 4, seed=1, epoch=0)
    again = grouped_epoch(groups, 4, seed=1, epoch=0)
    other = grouped_epoch(groups, 4, seed=1, epoch=1)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def test_the_order_of_groups_is_shuffled():
    _, team_group = grouped_epoch(np.arange(5000) // 10, 10, seed=0, epoch=0)
    assert abs(np.corrcoef(team_group, np.arange(500))[0, 1]) < 0.2


def test_groups_are_any_column_of_integers():
    pandas = pytest.importorskip("pandas")
    groups = np.arange(50) % 7
    wanted = grouped_epoch(groups, 4, seed=1, epoch=0)
    for same in (
        groups.tolist(),
        groups.astype(np.uint64),
        pandas.Series(groups, index=range(50, 0, -1), dtype="Int64"),
    ):
        for one, other in zip(grouped_epoch(same, 4, seed=1, epoch=0), wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    assert grouped_epoch([], 2, seed=0, epoch=0)[0].shape == (0, 2)
    for bad in ([0.5], [-1], ["a"], [[1]], pandas.Series([1, None], dtype="Int64")):
        with pytest.raises(ValueError, match=r"groups must be integers \[N\] of at least 0"):
            grouped_epoch(bad, 2, seed=0, epoch=0)
