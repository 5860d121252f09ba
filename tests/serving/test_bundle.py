"""Bundles: what is written is what is read, and nothing else is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxml import features, serving
from jaxml.serving import gate, manifest
from jaxml.validation.schema import infer_schema


@pytest.fixture
def copied(bundle_path, tmp_path):
    return shutil.copytree(bundle_path, tmp_path / "copy")


def test_a_bundle_answers_as_the_model_did(tmp_path, columns, flights, make_bundle):
    answer = make_bundle(tmp_path / "b", columns)
    bundle = serving.load(tmp_path / "b")
    other, _ = flights(21, seed=1)
    np.testing.assert_allclose(bundle.predict(other)["probability"], answer(other), atol=1e-6)
    rows, answers = bundle.examples()
    np.testing.assert_allclose(
        bundle.predict(rows)["probability"], answers["probability"], atol=1e-6
    )


def test_rows_alone_and_in_a_batch_have_one_answer(bundle, columns):
    some = {name: each[:19] for name, each in columns.items()}
    together = bundle.predict(some)["probability"]
    assert together.shape == (19,) and together.dtype == np.float32
    for i in (0, 7, 18):
        alone = bundle.predict({name: each[i : i + 1] for name, each in some.items()})
        np.testing.assert_allclose(alone["probability"], together[i : i + 1], atol=1e-6)
    none = bundle.predict({name: each[:0] for name, each in columns.items()})
    assert none["probability"].shape == (0,)


def test_one_row_is_columns_too(bundle, columns):
    for wrong in (
        {name: each[0] for name, each in columns.items()},
        {name: each[None, :3] for name, each in columns.items()},
    ):
        with pytest.raises(ValueError, match="columns must be one-dimensional"):
            bundle.predict(wrong)


def test_loading_needs_neither_flax_nor_optax(bundle_path):
    code = (
        "import sys; from jaxml import serving; b = serving.load(sys.argv[1]); rows, a = b.examples();"
        "print(b.predict(rows)['probability'][0] - a['probability'][0]);"
        "print([n for n in ('flax', 'optax', 'orbax', 'starlette', 'pickle_') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle_path)], capture_output=True, text=True, check=True
    )
    difference, modules = done.stdout.splitlines()
    assert abs(float(difference)) < 1e-6 and modules == "[]"


def test_the_manifest_describes_the_bundle(bundle):
    described = bundle.manifest
    assert [tuple(each) for each in described.inputs] == [
        ("origin", "BYTES", (-1,)),
        ("distance", "INT64", (-1,)),
        ("wind", "FP64", (-1,)),
        ("hour", "INT64", (-1,)),
    ]
    assert [tuple(each) for each in described.outputs] == [("probability", "FP32", (-1,))]
    assert bundle.program.buckets == (1, 2, 4, 8)


def test_files_hold_no_path_of_the_machine_and_are_readable_alike(bundle_path):
    assert len({path.stat().st_mode for path in bundle_path.iterdir()}) == 1
    for path in bundle_path.iterdir():
        assert str(Path(__file__).parent).encode() not in path.read_bytes(), path.name
    assert jax.config.jax_traceback_in_locations_limit != 0


@pytest.mark.parametrize("name", ["parameters.safetensors", "features.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "link"])
def test_a_damaged_file_is_refused(copied, name, harm):
    path = copied / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "remove":
        path.unlink()
    else:
        path.rename(copied.parent / name)
        path.symlink_to(copied.parent / name)
    with pytest.raises(serving.BundleError) as caught:
        serving.load(copied)
    assert "\n" not in str(caught.value) and str(copied) in str(caught.value)


def test_a_newer_format_and_a_file_outside_are_refused(copied):
    content = json.loads((copied / "manifest.json").read_text())
    newer = {**content, "format": manifest.FORMAT + 1, "something": "new"}
    (copied / "manifest.json").write_text(json.dumps(newer))
    with pytest.raises(serving.BundleError, match="newer version"):
        serving.load(copied)
    described = manifest.read
    outside = {**content, "files": {"../secret": {"sha256": "0", "bytes": 1}}}
    del outside["sha256"]
    (copied / "manifest.json").write_text(json.dumps(outside))
    with pytest.raises(serving.BundleError):
        described(copied)


def test_a_bundle_is_written_whole_or_not_at_all(tmp_path, columns, make_bundle):
    with pytest.raises(ValueError, match="JSON"):
        make_bundle(tmp_path / "b", columns, metrics={"AUC": np.nan})
    assert list(tmp_path.iterdir()) == []
    make_bundle(tmp_path / "b", columns)
    with pytest.raises(ValueError, match="that exists"):
        make_bundle(tmp_path / "b", columns)


def test_whole_floats_are_integers(bundle, columns):
    row = {name: each[:2] for name, each in columns.items()}
    assert bundle.check({**row, "hour": np.array([5.0, 6.0])}) == []
    for values, kind, rows in (
        ([5.0, 6.5], "UNEXPECTED_DATA_TYPE", [1]),
        ([99.0, 6.0], "INT_TYPE_BIG_INT", [0]),
        ([1e300, 1e300], "UNEXPECTED_DATA_TYPE", [0, 1]),
    ):
        found, *_ = bundle.check({**row, "hour": np.array(values)})
        assert (found.kind, found.rows.tolist()) == (kind, rows)


def test_requests_are_checked_row_by_row(bundle, columns):
    row = {name: each[:2] for name, each in columns.items()}
    assert bundle.check(row) == []
    gap = {**row, "wind": np.array([np.nan, 3.0])}
    assert bundle.check(gap) == []  # a tenth of the training rows had none
    found = bundle.check({**row, "origin": ["EWR", "XXX"]})
    assert [(each.kind, each.column, each.rows.tolist()) for each in found] == [
        ("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "origin", [1])
    ]
    del row["hour"]
    found = bundle.check({**row, "late": [0, 1]})
    assert {(each.kind, each.column) for each in found} == {
        ("SCHEMA_MISSING_COLUMN", "hour"),
        ("SCHEMA_NEW_COLUMN", "late"),
    }


def test_times_may_come_as_texts(tmp_path):
    """JSON has no times; the recorded rows are JSON."""
    times = np.datetime64("2013-01-01T05:15") + np.arange(40).astype("m8[h]")
    pipeline = features.FeaturePipeline({"at": features.z_score()}).fit({"at": times})
    serving.save(
        tmp_path / "b",
        model=lambda params, x: {"sum": x["dense"].sum(1) * params},
        params=np.float32(1),
        pipeline=pipeline,
        schema=infer_schema({"at": times}),
        training={"at": times},
        max_batch=2,
    )
    bundle = serving.load(tmp_path / "b")
    bundle.warm()
    zones = ["2013-01-01T06:15:00", "2013-01-01T08:15:00+02:00"]
    assert not bundle.check({"at": zones})  # One of them names no zone: UTC, as it is alone.
    first, second = bundle.predict({"at": zones})["sum"]
    assert first == second == bundle.predict({"at": zones[:1]})["sum"][0]
    assert bundle.check({"at": ["0001-01-01T00:00+05:00"]})
    rows, _ = bundle.examples()
    assert rows["at"][0] == "2013-01-01T05:15:00"
    np.testing.assert_array_equal(
        bundle.predict({"at": rows["at"]})["sum"], bundle.predict({"at": times[:16]})["sum"]
    )
    (found,) = bundle.check({"at": ["2013-01-01", "yesterday"]})
    assert (found.kind, found.column) == ("UNEXPECTED_DATA_TYPE", "at")


def test_an_id_without_a_label_has_no_answer(tmp_path, columns):
    pipeline = features.FeaturePipeline({"hour": []}).fit(columns)
    serving.save(
        tmp_path / "b",
        model=lambda params, x: {"ids": x["dense"][:, 0].astype(np.int32) - params},
        params=np.int32(5),
        pipeline=pipeline,
        schema=infer_schema(columns),
        training=columns,
        labels={"ids": list(map(str, range(5, 24)))},
    )
    bundle = serving.load(tmp_path / "b")
    assert bundle.predict({"hour": [5, 23]})["ids"].tolist() == ["5", "23"]
    for hour in (24, 4):
        with pytest.raises(ValueError, match=f"has 19 labels, got id {hour - 5}"):
            bundle.predict({"hour": [7, hour]})
    asked = serving.Gate("top_k", "late", "ids", (serving.Threshold("precision@1", bound=0.5),))
    (found,) = gate.judge(bundle, None, {"hour": [7, 24], "late": [0, 1]}, asked).checks
    assert found.outcome == "failed" and "got id 19" in found.note


def test_parameters_of_any_layout_and_rank_are_kept(tmp_path, columns):
    pipeline = features.FeaturePipeline({"hour": features.z_score()}).fit(columns)
    params = {"scale": np.float64(2.0), "matrix": np.arange(6.0).reshape(2, 3).T}

    def model(params, x):
        return {"y": x["dense"] * params["scale"] + params["matrix"][:, 1][None], "ids": x["ids"]}

    options = {"pipeline": pipeline, "schema": infer_schema(columns), "training": columns}
    serving.save(tmp_path / "b", model=model, params=params, **options)
    found = serving.load(tmp_path / "b").predict({"hour": columns["hour"][:5]})
    wanted = 2 * pipeline({"hour": columns["hour"][:5]})["hour"][:, None] + [3, 4, 5]
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-6)
    with pytest.raises(ValueError, match="one array named 'a/b', got two"):
        twice = {"a": {"b": np.ones(1)}, "a/b": np.ones(1)}
        serving.save(tmp_path / "c", model=model, params=twice, **options)


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda params, x: x["dense"], "outputs by name"),
        (lambda params, x: {"y": x["dense"].sum()}, "one entry a row"),
        (lambda params, x: {"y": x["dense"] * (2 if len(x["dense"]) > 3 else 1)}, "number of rows"),
    ],
)
def test_a_model_that_is_no_function_of_rows_is_refused(tmp_path, columns, model, message):
    pipeline = features.FeaturePipeline({"hour": features.z_score()}).fit(columns)
    options = {"pipeline": pipeline, "schema": infer_schema(columns), "training": columns}
    with pytest.raises(ValueError, match=message):
        serving.save(tmp_path / "b", model=model, params={}, **options)
    assert list(tmp_path.iterdir()) == []
