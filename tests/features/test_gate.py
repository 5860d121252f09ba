"""The gate: each fault is found by its name, and a clean table passes."""

import numpy as np
import pytest

from jaxml.features import (
    FeaturePipeline,
    character_ngrams,
    check,
    clipping,
    cross,
    hash_buckets,
    imputation,
    linear_scaling,
    log_scaling,
    one_hot,
    quantile_buckets,
    vocabulary,
    z_score,
)

rng = np.random.default_rng(0)
N = 2000


def table(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "miles": rng.lognormal(6, 0.5, N),
        "share": rng.random(N),
        "carrier": rng.choice(list("abcdef"), N),
        "tail": rng.integers(0, 300, N),
        "hour": rng.integers(0, 24, N),
        "delay": np.where(rng.random(N) < 0.02, np.nan, rng.normal(size=N)),
    }


CHAINS = {
    "miles": [log_scaling(), z_score()],
    "share": linear_scaling(-1, 1),
    "carrier": [vocabulary(), one_hot()],
    "tail": hash_buckets(20_000),
    "carrier × hour": cross(["carrier", "hour"], 10_000),
    "letters": ("carrier", character_ngrams(50, 8)),
    "delay": [imputation(), clipping(-3, 3), z_score()],
}
FITTED = FeaturePipeline(CHAINS).fit(table())


def kinds(findings):
    return [(found.feature, found.kind) for found in findings]


def test_a_clean_table_passes():
    for seed in range(3):
        assert check(FITTED, table(seed)) == []


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ({"share": np.where(np.arange(N) % 50, rng.random(N), np.inf)}, [("share", "not_finite")]),
        ({"share": np.full(N, 0.5)}, [("share", "constant")]),
        ({"share": 1.1 * rng.random(N)}, [("share", "out_of_range")]),
        ({"miles": 1e30 * table()["miles"]}, [("miles", "too_large")]),
        (
            {"carrier": ["z"] * N},
            [("carrier", "constant"), ("carrier", "out_of_vocabulary"), ("letters", "constant")],
        ),
        ({"carrier": rng.choice(list("abcdefgh"), N)}, [("carrier", "out_of_vocabulary")]),
        ({"tail": np.repeat([5], N)}, [("tail", "constant")]),
        ({"delay": np.full(N, np.nan)}, [("delay", "constant")]),
    ],
)
def test_a_fault_is_found(fault, wanted):
    findings = check(FITTED, {**table(1), **fault})
    assert kinds(findings) == wanted
    for found in findings:
        assert found.value > found.limit or found.kind == "constant"
        assert found.feature in str(found) and len(found.message) > 20


def test_shares_are_measured():
    faulty = {**table(1), "carrier": np.where(np.arange(N) % 10, "a", "new")}
    faulty["share"] = np.where(np.arange(N) % 4, faulty["share"], 2.0)
    by_kind = {found.kind: found for found in check(FITTED, faulty)}
    assert by_kind["out_of_vocabulary"].value == pytest.approx(0.1)
    assert by_kind["out_of_range"].value == pytest.approx(0.25)
    assert kinds(check(FITTED, faulty, max_out_of_vocabulary=0.2, max_out_of_range=0.3)) == []


def test_hash_collisions_are_the_rows_that_share_a_bucket():
    pipeline = FeaturePipeline({"id": hash_buckets(10), "pair": cross(["id", "x"], 10)})
    ids = np.array([1] * 90 + list(range(100, 110)))
    fitted = pipeline.fit({"id": ids, "x": np.zeros(100)})
    buckets = fitted.encode({"id": ids, "x": np.zeros(100)})["id"]
    largest = [
        np.unique(ids[buckets == b], return_counts=True)[1].max() for b in set(buckets.tolist())
    ]
    wanted = 1 - sum(largest) / 100
    assert wanted > 0.01
    strict = check(fitted, {"id": ids, "x": np.zeros(100)}, max_hash_collisions=0.0)
    assert {f.feature: f.value for f in strict}["id"] == pytest.approx(wanted)


def test_a_hash_is_judged_by_its_own_input():
    """Values that earlier transforms merged are not collisions."""
    x = np.random.default_rng(0).random(500)
    text = rng.choice(["a", "b", ""], 500)
    pipeline = FeaturePipeline(
        {
            "bins": ("x", [quantile_buckets(4), hash_buckets(10_000)]),
            "text": hash_buckets(10_000),
            "both": cross(["bins", "text"], 100_000),
        }
    ).fit({"x": x, "text": text})
    assert check(pipeline, {"x": x, "text": text}) == []


def test_ids_beyond_the_depth_of_one_hot():
    fitted = FeaturePipeline({"grade": one_hot()}).fit({"grade": [0, 1, 2, 3]})
    (found,) = check(fitted, {"grade": [0, 1, 7, None, 9, 2, 3, 1]})
    assert (found.kind, found.value) == ("out_of_range", 3 / 8)
    assert check(fitted, {"grade": [0, 1, 3]}) == []


def test_raw_numbers_and_missing_values_are_found():
    fitted = FeaturePipeline({"miles": [], "delay": z_score()}).fit(table())
    assert kinds(check(fitted, table())) == [("miles", "too_large"), ("delay", "not_finite")]


def test_one_row_is_not_constant_and_none_is_refused():
    row = {name: values[:1] for name, values in table().items()}
    assert check(FITTED, row) == []
    assert check(FITTED, {name: values[0] for name, values in table().items()}) == []
    with pytest.raises(ValueError, match="columns must hold at least one row, got none"):
        check(FITTED, {name: values[:0] for name, values in table().items()})
    with pytest.raises(ValueError, match="must be fitted first"):
        check(FeaturePipeline(CHAINS), table())
