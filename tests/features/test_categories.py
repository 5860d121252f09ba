"""Vocabularies, hashes and crosses: ids that mean the same tomorrow and elsewhere."""

import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder

from jaxml import features
from jaxml.features.categories import hashes
from jaxml.hashing import hash_texts

CARRIERS = ["UA", "B6", "UA", "EV", "B6", "UA", "AA", None, ""]


def test_vocabulary_is_by_frequency_then_by_code_points():
    transform = features.vocabulary()
    state = transform.fit(CARRIERS)
    assert state.terms.tolist() == ["UA", "B6", "AA", "EV"]
    assert state.counts.tolist() == [3, 2, 1, 1]
    ids = transform.apply(state, ["UA", "EV", "??", None, "", float("nan")])
    assert ids.dtype == np.int32 and ids.tolist() == [0, 3, 4, 5, 5, 5]
    assert transform.output(state).width == 6


def test_a_vocabulary_is_cut_and_the_rest_shares_the_unseen_ids():
    transform = features.vocabulary(2, num_oov=3)
    state = transform.fit(CARRIERS)
    others = [f"carrier {i}" for i in range(300)]
    ids = transform.apply(state, others)
    assert set(ids.tolist()) == {2, 3, 4}
    assert (np.bincount(ids)[2:] > 70).all()
    assert transform.apply(state, ["UA", *others])[1:].tolist() == ids.tolist()
    assert transform.apply(state, others[7]) == ids[7]
    assert transform.apply(state, [None]).tolist() == [5]
    rare = features.vocabulary(min_count=2)
    assert rare.fit(CARRIERS).terms.tolist() == ["UA", "B6"]


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int64, np.uint16, np.float32, np.float64, object, bool]
)
def test_numbers_are_looked_up_by_value(dtype):
    transform = features.vocabulary()
    state = transform.fit(np.array([1, 1, 0], dtype))
    assert transform.apply(state, [1, 0, 2]).tolist() == [0, 1, 2]
    assert transform.apply(state, np.array([1.0, np.nan, 0.5])).tolist() == [0, 3, 2]
    assert transform.apply(state, np.array([1, 200], np.uint8)).tolist() == [0, 2]


def test_ids_beyond_float64_are_told_apart():
    ids = np.array([2**53, 2**53 + 1, 2**62 + 1, -(2**62)], np.int64)
    transform = features.vocabulary()
    assert sorted(transform.apply(transform.fit(ids), ids)) == [0, 1, 2, 3]
    assert transform.apply(transform.fit(ids), np.array([2**63 + 1], np.uint64)).tolist() == [4]
    unsigned = np.array([2**63 + 1, 2**63 + 2], np.uint64)
    assert transform.apply(transform.fit(unsigned), unsigned).tolist() == [0, 1]
    assert transform.apply(transform.fit(unsigned), [-1, 5]).tolist() == [2, 2]
    buckets = features.hash_buckets(2**30)
    assert len(set(buckets.apply((), ids).tolist())) == 4


def test_what_was_text_may_not_come_as_numbers():
    transform = features.vocabulary()
    with pytest.raises(ValueError, match="holds 1, wanted text such as 'a'"):
        transform.apply(transform.fit(["a"]), [1])
    with pytest.raises(ValueError, match="holds 'a', wanted numbers such as 1"):
        transform.apply(transform.fit([1]), ["a"])
    with pytest.raises(ValueError, match="traced, wanted values on the host"):
        jax.jit(lambda x: transform.apply(transform.fit([1]), x))(jnp.ones(3))
    with pytest.raises(ValueError, match="no category among 2 rows"):
        transform.fit([None, None])
    for transform in (features.vocabulary(), features.hash_buckets(5)):
        with pytest.raises(ValueError, match="values is empty"):
            transform.fit([])
        assert transform.apply(transform.fit(["a"]), []).shape == (0,)


def test_hashes_never_change():
    # Golden: recorded when the hash was fixed. Saved pipelines depend on these numbers.
    texts = ["", "UA", "AU", "München", "東京", "x" * 1000]
    assert [int(h) % 10**6 for h in hash_texts(texts)] == [
        471743,
        193905,
        981149,
        832721,
        736775,
        70249,
    ]
    assert [int(h) % 10**6 for h in hashes([0, 1, -1, 2**40])] == [457278, 694715, 471813, 75029]
    assert [int(h) % 10**6 for h in hashes([0.5, np.inf, np.nan])] == [373033, 836707, 793005]
    transform = features.cross(["a", "b"], 10**6)
    assert transform.apply((), [["UA", "", None], [5, 6, 7]]).tolist() == [822527, 576020, 255910]


def test_another_process_hashes_alike():
    code = (
        "from jaxml import features; t = features.hash_buckets(10**6); "
        "print(t.apply((), ['UA', 'N14228', 'é']).tolist(), hash('UA'))"
    )
    told = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(done.stdout.split("]"))
    own = features.hash_buckets(10**6).apply((), ["UA", "N14228", "é"]).tolist()
    assert told[0][0] + "]" == told[1][0] + "]" == str(own)
    assert told[0][1] != told[1][1]  # Python's own does not


def test_equal_categories_hash_alike_whatever_holds_them():
    assert hashes(["a"]) == hashes(np.array(["a"], "U9")) == hashes(np.array([b"a"]))
    assert hashes([5]) == hashes([5.0]) == hashes(np.array([5], np.uint8)) == hashes(np.float32(5))
    assert hashes(["5"]) != hashes([5])
    assert hashes([None]) == hashes([""]) == hashes([np.nan])


def test_buckets_are_evenly_filled():
    texts = ["".join(t) for t in itertools.product("abcdefghijklmnopqrstuvwx", repeat=3)]
    numbers = np.arange(24**3)
    for keys in (texts, numbers, numbers / 8):
        for transform, given in [
            (features.hash_buckets(512), keys),
            (features.cross(["a", "b"], 512), [keys, np.zeros(24**3)]),
        ]:
            counts = np.bincount(transform.apply((), given), minlength=512)
            chi2 = ((counts - 27) ** 2 / 27).sum()
            assert abs(chi2 - 511) < 5 * np.sqrt(2 * 511)
    seeds = [features.hash_buckets(10**6, seed=s).apply((), texts[:500]) for s in range(4)]
    for one, other in itertools.combinations(seeds, 2):
        assert (one == other).mean() < 0.02


def test_crosses_keep_their_parts_apart():
    transform = features.cross(["x", "y"], 2**30)
    table = {"x": ["a", "ab", "b", "", "a", None], "y": ["bc", "c", "a", "abc", "b", "abc"]}
    ids = transform.apply(transform.fit(table), table)
    assert len(set(ids.tolist())) == 5 and ids[3] == ids[5]  # "" and None are both missing
    assert (transform.apply((), [table["x"], table["y"]]) == ids).all()
    swapped = transform.apply((), [table["y"], table["x"]])
    assert (swapped != ids).all()
    matrix = np.array([[1, 2], [2, 1]])
    assert len(set(transform.apply((), matrix).tolist())) == 2
    assert transform.apply((), {"x": "a", "y": "bc"}) == ids[0]
    with pytest.raises(ValueError, match="no column 'y'"):
        transform.apply((), {"x": ["a"]})
    with pytest.raises(ValueError, match=r"shapes \[\(2,\), \(1,\)\]"):
        transform.apply((), [["a", "b"], ["c"]])
    with pytest.raises(ValueError, match="values is empty"):
        transform.fit([[], []])


def test_one_hot():
    transform = features.one_hot()
    state = transform.fit([0, 2, 1])
    eager = transform.apply(state, [2, 0, 9, -1, None, 1.0])
    wanted = np.zeros((6, 3))
    wanted[[0, 1, 5], [2, 0, 1]] = 1
    np.testing.assert_array_equal(eager, wanted)
    np.testing.assert_array_equal(jax.jit(transform.apply)(state, jnp.array([2, 0, 9])), wanted[:3])
    np.testing.assert_array_equal(
        jax.vmap(transform.apply, (None, 0))(state, jnp.array([2, 0, 9])), wanted[:3]
    )
    assert transform.apply(state, jnp.zeros((2, 5), int)).shape == (2, 5, 3)
    assert features.one_hot(7).apply(features.one_hot(7).fit([0]), 3).shape == (7,)
    ids = np.random.default_rng(0).integers(0, 5, 50)
    np.testing.assert_array_equal(
        transform.apply(transform.fit(ids), ids),
        OneHotEncoder(sparse_output=False).fit_transform(ids[:, None]),
    )
    for bad in ([-1], [0.5], [2**30]):
        with pytest.raises(ValueError, match="wanted ids"):
            transform.fit(bad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: features.vocabulary(0), "max_size is 0"),
        (lambda: features.vocabulary(3, 0), "num_oov is 0"),
        (lambda: features.vocabulary(min_count=0), "min_count is 0"),
        (lambda: features.hash_buckets(0), "num_buckets is 0"),
        (lambda: features.hash_buckets(5, seed=-1), "seed is -1"),
        (lambda: features.cross(["a"], 5), r"columns is \['a'\]"),
        (lambda: features.cross("ab", 5), "columns is 'ab'"),
        (lambda: features.cross(["a", "b"], 0), "num_buckets is 0"),
        (lambda: features.one_hot(0), "depth is 0"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
