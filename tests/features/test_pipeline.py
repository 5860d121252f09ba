"""The pipeline: one pass in any order, and the same bits alone and in a batch."""

import copy
import json
import pickle

import numpy as np
import pytest

from jaxml.features import (
    FeaturePipeline,
    bucketize,
    character_ngrams,
    check,
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
        "x in steps": ("x", [linear_scaling(-1, 1), z_score(), linear_scaling(0, 3)]),
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
        "carrier is missing": ("carrier", missing_indicator()),
        "carrier in letters": ("carrier", character_ngrams(40, 5)),
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
MADE = FITTED(TABLE)


def equal(one, other):
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def same_state(one, other):
    assert json.dumps(one.to_dict()) == json.dumps(other.to_dict())


def rows(at):
    return {name: values[at] for name, values in TABLE.items()}


def test_the_features_are_those_of_the_transforms():
    for name, values in MADE.items():
        ids = name in FITTED.id_names or f"{name}[0]" in FITTED.id_names
        assert values.dtype == (np.int32 if ids else np.float32), name
        assert np.isfinite(values).all() or name == "holes passed"
    log, far = np.log(TABLE["x"]), TABLE["far"]
    clipped = np.clip(TABLE["x"], *np.quantile(TABLE["x"], [0.05, 0.95]))
    filled = np.where(np.isnan(TABLE["holes"]), np.nanmedian(TABLE["holes"]), TABLE["holes"])
    for name, x in {"x": log, "far": far, "x clipped": clipped, "holes": filled}.items():
        np.testing.assert_allclose(MADE[name], (x - x.mean()) / x.std(), atol=1e-6)
    inner = np.quantile(log, np.arange(1, 7) / 7)
    np.testing.assert_array_equal(MADE["x of log"].argmax(-1), np.digitize(log, inner))
    np.testing.assert_array_equal(MADE["hour"], TABLE["hour"] // 6)
    np.testing.assert_array_equal(MADE["flag"], TABLE["flag"])
    np.testing.assert_array_equal(MADE["carrier is missing"], TABLE["carrier"] == "")
    for name, depth in {
        "carrier in letters": 5,
        "x of log": 8,
        "hour itself": 24,
        "a cross of three": 200,
    }.items():
        assert MADE[name].shape == (N, depth)


def test_a_cross_reads_ids_where_a_feature_has_them():
    """ "hour" has four buckets here, so its cross with five carriers has at most twenty values."""
    assert len(np.unique(MADE["carrier × hour"])) <= 20
    alone = FeaturePipeline({"both": cross(["carrier", "hour"], 10**6)}).fit(TABLE)
    assert len(np.unique(alone(TABLE)["both"])) > 80
    itself = FeaturePipeline({"hour": cross(["carrier", "hour"], 10**6)}).fit(TABLE)
    np.testing.assert_array_equal(itself(TABLE)["hour"], alone(TABLE)["both"])


def test_a_row_has_the_same_bits_alone_and_in_a_batch():
    for i in range(40):
        equal(FITTED(rows(i)), {name: values[i] for name, values in MADE.items()})
    equal(FITTED(rows(slice(5, 12))), {name: values[5:12] for name, values in MADE.items()})
    none = FITTED(rows(slice(0, 0)))
    assert none["carrier"].shape == (0, 6) and none["x"].shape == (0,)


def test_chunks_in_any_order_fit_the_same_bits():
    chunks = [rows(slice(i, None, 7)) for i in range(7)]
    same_state(PIPELINE.fit(chunks[k] for k in rng.permutation(7)), FITTED)
    parts = [PIPELINE.update(PIPELINE.empty(), chunk) for chunk in chunks]
    while len(parts) > 1:
        first, second = (parts.pop(rng.integers(len(parts))) for _ in range(2))
        parts.append(PIPELINE.merge(first, second))
    same_state(PIPELINE.finish(parts[0]), FITTED)
    assert PIPELINE.update(PIPELINE.empty(), rows(slice(0, 0))).num_rows == 0


def test_a_chain_is_fitted_on_its_own_output():
    """The greatest value meets the last edge, in fitting as in use."""
    draw = np.random.default_rng(1)
    columns = {f"x{i}": draw.uniform(0.1, 0.4, 13).repeat(30) for i in range(8)}
    chain = [interpolated_buckets(64), linear_scaling(-1, 1)]
    fitted = FeaturePipeline(dict.fromkeys(columns, chain)).fit(columns)
    for y in fitted(columns).values():
        assert (np.min(y), np.max(y)) == (-1, 1)


def test_files_pickles_and_copies_give_back_every_bit(tmp_path):
    FITTED.save(tmp_path / "features.json")
    assert [file.name for file in tmp_path.iterdir()] == ["features.json"]
    loaded = FeaturePipeline.load(tmp_path / "features.json")
    for twin in (loaded, pickle.loads(pickle.dumps(FITTED)), copy.deepcopy(FITTED)):
        same_state(twin, FITTED)
        assert repr(twin) == repr(FITTED)
        equal(twin(TABLE), MADE)
    same_state(pickle.loads(pickle.dumps(PIPELINE)).fit(TABLE), FITTED)
    odd = FeaturePipeline({"t": vocabulary()}).fit({"t": ["東京", "é", "a\0", "a"]})
    odd.save(tmp_path / "odd.json")
    same_state(FeaturePipeline.load(tmp_path / "odd.json"), odd)
    written = json.loads(json.dumps(FITTED.to_dict()))
    with pytest.raises(ValueError, match="format must be 2, got 7"):
        FeaturePipeline.from_dict({**written, "format": 7})
    written["features"][0]["transforms"][0]["name"] = "magic"
    with pytest.raises(ValueError, match=r"transform must be one of .*, got 'magic'"):
        FeaturePipeline.from_dict(written)


def test_a_matrix_and_ids_for_a_model():
    dense, ids = FITTED.stack(MADE)
    assert dense.shape == (N, len(FITTED.dense_names)) and dense.dtype == np.float32
    assert ids.shape == (N, len(FITTED.id_names)) and ids.dtype == np.int32
    assert (ids.max(0) < FITTED.id_sizes).all()
    assert len(FITTED.id_sizes) == len(FITTED.id_names)
    at = FITTED.id_names.index("carrier in letters[0]")
    assert FITTED.id_names[at + 4] == "carrier in letters[4]"
    assert FITTED.id_sizes[at : at + 5] == (41,) * 5
    np.testing.assert_array_equal(ids[:, at : at + 5], MADE["carrier in letters"])
    assert (ids[TABLE["carrier"] == "", at] == 40).all()
    at = FITTED.dense_names.index("carrier=UA")
    np.testing.assert_array_equal(dense[:, at], TABLE["carrier"] == "UA")
    assert {"carrier=missing", "carrier=?", "hour itself=23"} <= set(FITTED.dense_names)
    one_dense, one_ids = FITTED.stack(FITTED(rows(3)))
    np.testing.assert_array_equal(one_dense, dense[3])
    np.testing.assert_array_equal(one_ids, ids[3])
    wide = FeaturePipeline({"carrier": [vocabulary(1), one_hot(5)]}).fit(TABLE)
    assert [name.partition("=")[2] for name in wide.dense_names][1:] == ["?", "missing", "3", "4"]
    numbers_only = FeaturePipeline({"x": z_score()}).fit(TABLE)
    assert numbers_only.stack(numbers_only(TABLE))[1].shape == (N, 0)


def test_frames_are_tables():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({**TABLE, "more": 1})
    frame["carrier"] = frame["carrier"].replace("", None)
    same_state(PIPELINE.fit(frame), FITTED)
    equal(FITTED(frame), MADE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PIPELINE.encode(TABLE), "pipeline must be fitted first"),
        (lambda: PIPELINE.fit({"far": [1.0]}), "columns must hold 'x', got"),
        (lambda: FITTED([1.0, 2.0]), "columns must be a mapping .*, got list"),
        (lambda: PIPELINE.fit({**TABLE, "x": [1.0]}), "columns must have one length, got"),
        (lambda: PIPELINE.fit(rows(slice(0, 0))), "columns must hold at least one row, got none"),
        (
            lambda: PIPELINE.fit({**TABLE, "x": np.append(TABLE["x"][1:], -1)}),
            "feature 'x' of column 'x': values must be at least 0 for a logarithm, got 1 of 403",
        ),
        (
            lambda: FITTED({**TABLE, "carrier": np.ones(N, int)}),
            "feature 'carrier' of column 'carrier': values must be text",
        ),
        (
            lambda: FITTED({**TABLE, "x": ["a"] * N}),
            "feature 'x' of column 'x': column 'x' must hold numbers, got text",
        ),
        (
            lambda: FeaturePipeline({"x": vocabulary()}).fit([{"x": [1]}, {"x": ["a"]}]),
            "column 'x' must hold all numbers or all text",
        ),
        (lambda: FeaturePipeline({}), "features must hold at least one feature"),
        (lambda: FeaturePipeline([z_score()]), "features must be a mapping of names"),
        (
            lambda: FeaturePipeline({"x": None}),
            r"'x' must be transforms such as z_score\(\), got None",
        ),
        (lambda: FeaturePipeline({"x": "z_score"}), "'x' must be transforms .* got 'z_score'"),
        (lambda: FeaturePipeline({"x": ["z_score"]}), "'x' must be transforms .* got 'z_score'"),
        (
            lambda: FeaturePipeline({"x": ("a", "z_score")}),
            "'x' must be transforms .* got 'z_score'",
        ),
        (
            lambda: FeaturePipeline({"x": z_score}),
            r"'x' must be transforms such as z_score\(\), got <",
        ),
        (lambda: PIPELINE.fit(3), "columns must be a mapping .*, got int"),
        (lambda: check(PIPELINE.fit, TABLE), "pipeline must be a FeaturePipeline, got <bound"),
        (lambda: clipping(quantiles="ab"), "quantiles must be two numbers .* got 'ab'"),
        (lambda: FeaturePipeline({"x": [z_score(), one_hot()]}), "must have ids before one_hot"),
        (lambda: FeaturePipeline({"x": [one_hot(), z_score()]}), "must have one_hot last"),
        (
            lambda: FeaturePipeline({"x": [character_ngrams(9, 3), one_hot()]}),
            r"must have character_ngrams last, got one_hot\(\) after it",
        ),
        (
            lambda: FITTED({**TABLE, "carrier": ["UA"] * (N - 1) + [1]}),
            "feature 'carrier' of column 'carrier': column 'carrier' must hold all numbers",
        ),
        (lambda: FeaturePipeline({"x": [z_score(), cross(["a", "b"], 3)]}), "first in its chain"),
        (lambda: FeaturePipeline({"x": ("a", z_score(), 1)}), r"must be \(column, transforms\)"),
        (
            lambda: FeaturePipeline({"p": cross(["q", "a"], 3), "q": cross(["p", "a"], 3)}),
            "must not be crosses of each other",
        ),
    ],
)
def test_bad_tables_and_chains_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_shown_shortly_and_a_wrong_file_is_named(tmp_path):
    pipeline = FeaturePipeline({f"x{i}": ("a", [log_scaling(), z_score()]) for i in range(100)})
    lines = repr(pipeline).splitlines()
    assert lines[:2] == ["FeaturePipeline of 100 features", "  x0 ← a: [log_scaling(), z_score()]"]
    assert len(lines) == 22 and lines[-1] == "  … and 80 more"
    found = check(FeaturePipeline({"x": z_score()}).fit({"x": [1.0, 2.0]}), {"x": [1e9, 1.0]})
    assert repr(found) == f"[{found[0]}]"
    (tmp_path / "wrong.json").write_text("{")
    with pytest.raises(ValueError, match=r"wrong\.json: Expecting"):
        FeaturePipeline.load(tmp_path / "wrong.json")
