"""The pipeline: one pass in any order, two stages, the same bits alone and in a batch."""

import collections
import copy
import functools
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import features
from jaxml.features import (
    FeaturePipeline,
    bucketize,
    clipping,
    cross,
    hash_buckets,
    imputation,
    interpolated_buckets,
    linear_scaling,
    log_scaling,
    missing_indicator,
    one_hot,
    quantile_buckets,
    robust_scaling,
    uniform_buckets,
    vocabulary,
    z_score,
)

rng = np.random.default_rng(0)
N = 403
TABLE = {
    "x": rng.lognormal(2, 1, N),
    "far": 1e9 + rng.normal(size=N),
    "when": np.datetime64("2013-01-01") + rng.integers(0, 10**7, N).astype("m8[s]"),
    "ids": 2**40 + rng.integers(0, 50, N),
    "carrier": rng.choice(["UA", "B6", "AA", "DL", ""], N),
    "hour": rng.integers(0, 24, N).astype(np.int16),
    "holes": np.where(rng.random(N) < 0.1, np.nan, rng.normal(size=N) * 50 - 3),
    "flag": rng.random(N) < 0.5,
}
PIPELINE = FeaturePipeline(
    {
        "x": [log_scaling(), z_score()],
        "x in steps": ("x", [linear_scaling(-1, 1), z_score(), linear_scaling(0, 3), robust_scaling()]),
        "x clipped": ("x", [clipping(quantiles=(0.05, 0.95)), z_score()]),
        "x share": ("x", [interpolated_buckets(20), z_score()]),
        "x of log": ("x", [log_scaling(), quantile_buckets(7), one_hot()]),
        "x ids": ("x", quantile_buckets(7)),
        "x ids as numbers": ("x", [uniform_buckets(5), z_score()]),
        "far": z_score(),
        "far clipped": ("far", [clipping(quantiles=(0.01, 0.99)), imputation("mean"), linear_scaling()]),
        "when": z_score(),
        "ids": vocabulary(20, 2),
        "ids hashed": ("ids", [hash_buckets(30), one_hot()]),
        "carrier": [vocabulary(), one_hot()],
        "carrier filled": ("carrier", [imputation("most_frequent"), vocabulary()]),
        "carrier is missing": ("carrier", missing_indicator()),
        "hour": bucketize([6, 12, 18]),
        "hour itself": ("hour", one_hot()),
        "carrier × hour": cross(["carrier", "hour"], 100),
        "a cross of three": [cross(["carrier", "hour", "x ids"], 200), one_hot()],
        "holes": [imputation("median"), z_score()],
        "holes passed": ("holes", z_score()),
        "flag": [],
    }
)  # fmt: skip
FITTED = PIPELINE.fit(TABLE)
ENCODED = FITTED.encode(TABLE)


@functools.cache
def made():
    """The features of the table; compiled once, and not by who only collects tests."""
    return {name: np.asarray(values) for name, values in FITTED.apply(ENCODED).items()}


def equal(one, other):
    assert list(one) == list(other) or sorted(one) == sorted(other)
    for name in one:
        a, b = np.asarray(one[name]), np.asarray(other[name])
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)


def same_state(one, other):
    assert jax.tree.structure(one.state) == jax.tree.structure(other.state)
    for a, b in zip(jax.tree.leaves(one.state), jax.tree.leaves(other.state), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def rows(at):
    return {name: values[at] for name, values in TABLE.items()}


def test_what_comes_out():
    for name, values in made().items():
        assert values.dtype == (np.int32 if name in FITTED.id_names else np.float32), name
        assert np.isfinite(values).all() or name == "holes passed"
    log = np.log(TABLE["x"])
    np.testing.assert_allclose(made()["x"], (log - log.mean()) / log.std(), atol=1e-5)
    far = TABLE["far"]
    np.testing.assert_allclose(made()["far"], (far - far.mean()) / far.std(), atol=1e-5)
    clipped = np.clip(TABLE["x"], *np.quantile(TABLE["x"], [0.05, 0.95]))
    wanted = (clipped - clipped.mean()) / clipped.std()  # fitted on what the clipping lets through
    np.testing.assert_allclose(made()["x clipped"], wanted, atol=1e-5)
    filled = np.where(np.isnan(TABLE["holes"]), np.nanmedian(TABLE["holes"]), TABLE["holes"])
    np.testing.assert_allclose(made()["holes"], (filled - filled.mean()) / filled.std(), atol=1e-5)
    inner = np.quantile(log, np.arange(1, 7) / 7)
    np.testing.assert_array_equal(made()["x of log"].argmax(-1), np.digitize(log, inner))
    assert made()["x of log"].shape == (N, 8)
    np.testing.assert_array_equal(made()["hour"], TABLE["hour"] // 6)
    assert made()["hour itself"].shape == (N, 24)
    assert made()["a cross of three"].shape == (N, 200)
    np.testing.assert_array_equal(made()["flag"], TABLE["flag"])
    np.testing.assert_array_equal(made()["carrier is missing"], TABLE["carrier"] == "")


def test_a_cross_reads_ids_where_a_feature_has_them():
    """ "hour" is four bins here, so that its cross with five carriers has twenty values at most."""
    assert len(np.unique(made()["carrier × hour"])) <= 20
    alone = FeaturePipeline({"both": cross(["carrier", "hour"], 10**6)}).fit(TABLE)
    assert len(np.unique(alone(TABLE)["both"])) > 80
    itself = FeaturePipeline({"hour": cross(["carrier", "hour"], 10**6)}).fit(TABLE)
    np.testing.assert_array_equal(itself(TABLE)["hour"], alone(TABLE)["both"])


def test_a_row_has_the_same_bits_alone_and_in_a_batch():
    jitted = jax.jit(FITTED.apply)
    equal(jitted(ENCODED), made())
    equal(jax.jit(jax.vmap(FITTED.apply))(ENCODED), made())
    for i in range(40):
        encoded = FITTED.encode(rows(i))
        equal(encoded, {name: values[i] for name, values in ENCODED.items()})
        equal(jitted(encoded), {name: values[i] for name, values in made().items()})
    some = FITTED.encode(rows(slice(5, 12)))
    equal(FITTED.apply(some), {name: values[5:12] for name, values in made().items()})


def test_state_may_be_an_argument_of_the_program():
    other = PIPELINE.fit(rows(slice(0, N)))
    program = jax.jit(FITTED.apply)
    equal(program(ENCODED, other.state), made())
    equal(FITTED.apply(ENCODED, other.device_state), made())
    far = FeaturePipeline({"far": z_score()})  # not fitted itself
    equal(far.apply(far.encode(TABLE, other.state), other.state), {"far": made()["far"]})
    with pytest.raises(ValueError, match="not fitted"):
        jax.jit(PIPELINE.apply)(ENCODED, other.state)
    with pytest.raises(ValueError, match="encoded features have shapes"):
        FITTED.apply({**ENCODED, "hour": ENCODED["hour"][:5]})
    with pytest.raises(ValueError, match=r"feature 'far' has shape \(403,\), wanted \[..., 2\]"):
        FITTED.apply({**ENCODED, "far": ENCODED["x"]})


def test_a_chain_is_fitted_on_what_the_device_will_see():
    """The greatest value, rounded to float32, is at the last edge, in fitting as in use."""
    draw = np.random.default_rng(1)
    columns = {f"x{i}": draw.uniform(0.1, 0.4, 13).repeat(30) for i in range(8)}
    chain = [interpolated_buckets(64), linear_scaling(-1, 1)]
    fitted = FeaturePipeline(dict.fromkeys(columns, chain)).fit(columns)
    for y in fitted(columns).values():
        assert (np.min(y), np.max(y)) == (-1, 1)


def test_chunks_in_any_order_fit_the_same_bits():
    chunks = [rows(slice(i, None, 7)) for i in range(7)]
    same_state(PIPELINE.fit(chunks[k] for k in rng.permutation(7)), FITTED)
    parts = [PIPELINE.update(PIPELINE.empty(), chunk) for chunk in chunks]
    while len(parts) > 1:
        first, second = (parts.pop(rng.integers(len(parts))) for _ in range(2))
        parts.append(PIPELINE.merge(first, second))
    same_state(PIPELINE.finish(parts[0]), FITTED)
    assert PIPELINE.update(PIPELINE.empty(), rows(slice(0, 0))).num_rows == 0


def test_a_file_gives_back_every_bit(tmp_path):
    path = tmp_path / "features.json"
    FITTED.save(path)
    back = FeaturePipeline.load(path)
    same_state(back, FITTED)
    equal(back(TABLE), made())
    assert repr(back) == repr(FITTED)
    assert [file.name for file in tmp_path.iterdir()] == ["features.json"]
    written = json.loads(json.dumps(FITTED.to_dict()))
    same_state(FeaturePipeline.from_dict(written), FITTED)
    with pytest.raises(ValueError, match="format is 7, wanted 1"):
        FeaturePipeline.from_dict({**written, "format": 7})
    written["features"][0]["transforms"][0]["name"] = "magic"
    with pytest.raises(ValueError, match="transform is 'magic'"):
        FeaturePipeline.from_dict(written)


def test_a_state_is_arrays_of_numbers_alone():
    """So that whatever stores parameters stores it, text and all."""
    for leaf in jax.tree.leaves(FITTED.state):
        assert isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf"
    often = collections.Counter(TABLE["carrier"].tolist())
    del often[""]
    assert FITTED.state["carrier"][0].terms.tolist()[0] == often.most_common()[0][0]


def test_a_state_comes_back_from_any_store(tmp_path):
    leaves, structure = jax.tree.flatten(FITTED.state)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz") as stored:
        same_state(PIPELINE.with_state(jax.tree.unflatten(structure, stored.values())), FITTED)
    serialization = pytest.importorskip("flax.serialization")
    back = serialization.from_bytes(FITTED.state, serialization.to_bytes(FITTED.state))
    same_state(PIPELINE.with_state(back), FITTED)
    # Without a target flax and orbax give mappings for tuples.
    untyped = serialization.msgpack_restore(serialization.to_bytes(FITTED.state))
    same_state(PIPELINE.with_state(untyped), FITTED)
    equal(PIPELINE.encode(TABLE, untyped), ENCODED)
    on_device = FITTED.with_state(
        {**FITTED.state, **jax.device_put({"hour": FITTED.state["hour"]})}
    )
    np.testing.assert_array_equal(on_device.encode(TABLE)["hour"], ENCODED["hour"])
    with pytest.raises(ValueError, match="state has no feature 'x'"):
        PIPELINE.with_state({})
    with pytest.raises(ValueError, match="state of feature 'x' is not that of"):
        PIPELINE.with_state({**FITTED.state, "x": FITTED.state["far"]})


def test_pipelines_and_transforms_are_pickled_and_copied():
    for twin in (pickle.loads(pickle.dumps(FITTED)), copy.deepcopy(FITTED)):
        same_state(twin, FITTED)
        assert repr(twin) == repr(FITTED)
        equal(twin.encode(TABLE), ENCODED)
    same_state(pickle.loads(pickle.dumps(PIPELINE)).fit(TABLE), FITTED)
    twin = pickle.loads(pickle.dumps(clipping(quantiles=(0.1, 0.9))))
    assert repr(twin) == "clipping(quantiles=(0.1, 0.9))"
    assert twin.fit(TABLE["x"]).low[0] == np.float32(np.quantile(TABLE["x"], 0.1))


def test_a_matrix_and_ids_for_a_model():
    dense, ids = FITTED.stack(made())
    assert dense.shape == (N, len(FITTED.dense_names)) and dense.dtype == jnp.float32
    assert ids.shape == (N, len(FITTED.id_names)) and ids.dtype == jnp.int32
    assert (np.asarray(ids).max(0) < FITTED.id_sizes).all()
    at = FITTED.dense_names.index("carrier=UA")
    np.testing.assert_array_equal(dense[:, at], TABLE["carrier"] == "UA")
    assert "carrier=missing" in FITTED.dense_names and "carrier=?" in FITTED.dense_names
    one_dense, one_ids = FITTED.stack(FITTED.apply(FITTED.encode(rows(3))))
    np.testing.assert_array_equal(one_dense, dense[3])
    np.testing.assert_array_equal(one_ids, ids[3])
    numbers_only = FeaturePipeline({"x": z_score()}).fit(TABLE)
    assert numbers_only.stack(numbers_only(TABLE))[1].shape == (N, 0)


def test_unseen_and_missing_rows_go_where_they_belong():
    row = {**rows(0), "carrier": "??", "ids": 7, "holes": None}
    got = FITTED(row)
    assert got["carrier"].tolist() == [0, 0, 0, 0, 1, 0]
    assert int(got["ids"]) in (20, 21)
    assert got["holes"] == FITTED({**row, "holes": np.nanmedian(TABLE["holes"])})["holes"]
    assert FITTED({**row, "carrier": None})["carrier"].tolist() == [0, 0, 0, 0, 0, 1]
    assert FITTED({**row, "carrier": None})["carrier is missing"] == 1
    none = FITTED(rows(slice(0, 0)))
    assert none["carrier"].shape == (0, 6) and none["x"].shape == (0,)


def test_more_columns_and_frames_do_no_harm():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({**TABLE, "more": 1})
    frame["carrier"] = frame["carrier"].replace("", None)
    same_state(PIPELINE.fit(frame), FITTED)
    equal(FITTED(frame), made())
    pyarrow = pytest.importorskip("pyarrow")
    small = FeaturePipeline({"x": z_score(), "carrier": vocabulary()})
    arrow = pyarrow.table({"x": TABLE["x"], "carrier": TABLE["carrier"].tolist()})
    structured = np.empty(N, [("x", float), ("carrier", "U2")])
    structured["x"], structured["carrier"] = TABLE["x"], TABLE["carrier"]
    for table in (arrow, structured):
        same_state(small.fit(table), small.fit(TABLE))
        equal(small.fit(TABLE).encode(table), small.fit(TABLE).encode(TABLE))


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="not fitted"):
        PIPELINE.encode(TABLE)
    with pytest.raises(ValueError, match="columns has no 'x'"):
        PIPELINE.fit({"far": [1.0]})
    with pytest.raises(ValueError, match="columns is a list, wanted a mapping"):
        FITTED.encode([1.0, 2.0])
    with pytest.raises(ValueError, match="columns have shapes"):
        PIPELINE.fit({**TABLE, "x": [1.0]})
    with pytest.raises(ValueError, match="columns are empty"):
        PIPELINE.fit(rows(slice(0, 0)))
    with pytest.raises(ValueError, match="feature 'x' of column 'x': values has 1 of 403"):
        PIPELINE.fit({**TABLE, "x": np.append(TABLE["x"][1:], -1)})
    with pytest.raises(ValueError, match="feature 'carrier' of column 'carrier': values holds 1"):
        FITTED.encode({**TABLE, "carrier": np.ones(N, int)})
    with pytest.raises(ValueError, match="feature 'x' of column 'x': values holds text"):
        FITTED.encode({**TABLE, "x": ["a"] * N})
    with pytest.raises(ValueError, match="encoded has no feature 'x'"):
        FITTED.apply({})
    with pytest.raises(ValueError, match="column 'x' holds 'a' in one chunk"):
        FeaturePipeline({"x": vocabulary()}).fit([{"x": [1]}, {"x": ["a"]}])
    for chains, message in [
        ({}, "features is empty"),
        ([z_score()], "wanted a mapping of names"),
        ({"x": None}, "feature 'x' is None, wanted transforms"),
        ({"x": ["log"]}, "holds 'log', wanted transforms"),
        ({"x": [z_score(), one_hot()]}, "one_hot of numbers"),
        ({"x": [one_hot(), z_score()]}, "after one_hot"),
        ({"x": [z_score(), cross(["a", "b"], 3)]}, "wanted it first"),
        ({"x": ("a", z_score(), 1)}, r"wanted \(column, transforms\)"),
        ({"p": cross(["q", "a"], 3), "q": cross(["p", "a"], 3)}, "wanted no circle"),
    ]:
        with pytest.raises(ValueError, match=message):
            FeaturePipeline(chains)


def test_the_sketch_is_used_beyond_its_limit(monkeypatch):
    """With few cells a fit is a little off, and still the same for all orders."""
    for module in (features.pipeline, features.transform):
        monkeypatch.setattr(module, "MAX_DISTINCT", 256)
    pipeline = FeaturePipeline({"x": [clipping(quantiles=(0.01, 0.99)), z_score()]})
    fits = [
        pipeline.fit(rows(slice(i, None, 5)) for i in order)
        for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2])
    ]
    same_state(*fits)
    clipped = np.clip(TABLE["x"], *np.quantile(TABLE["x"], [0.01, 0.99]))
    exact = (clipped - clipped.mean()) / clipped.std()
    got = np.asarray(fits[0](TABLE)["x"])
    assert 0 < np.abs(got - exact).max() < 0.02
