"""Bundles that were made up, hashes and all: a line that says why, and nothing else happens."""

import hashlib
import json
import os
import pickle
import shutil
import struct

import numpy as np
import pytest

from jaxml import serving
from jaxml.serving import Store, StoreError, manifest
from jaxml.validation import writers


@pytest.fixture
def copied(bundle_path, tmp_path):
    return shutil.copytree(bundle_path, tmp_path / "copy")


def signed(place, **changes):
    """Changes the manifest, with the hashes of the files as they are and its own."""
    content = json.loads((place / "manifest.json").read_text()) | changes
    del content["sha256"]
    if "files" not in changes:
        content["files"] = manifest.hashed(place, content["files"])
    digest = hashlib.sha256(manifest._canonical(content)).hexdigest()
    (place / "manifest.json").write_text(json.dumps(content | {"sha256": digest}))


def refused(place):
    with pytest.raises(serving.BundleError) as caught:
        serving.load(place)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_changed_bundle_with_right_hashes_is_read(copied):
    signed(copied, findings=["other"])
    assert serving.load(copied).manifest.findings == ("other",)


HASH = {"sha256": "0" * 64, "bytes": 0}


@pytest.mark.parametrize(
    "changes",
    [
        *({"name": name} for name in ("../x", "a/b", "", "a\nb", "\0", None, 3, ["x"], "a" * 101)),
        *({"max_batch": size} for size in (0, -1, 3, 2**40, 1.5, "8", None, [8])),
        *({"inputs": each} for each in ([], {}, None, 7, [["a"]], [[1, 2, 3]], [["x", "y", [-1]]])),
        *(
            {"outputs": each}
            for each in ([], [["probability", "FP64", [-1]]], [["p", "FP32", [-1]]])
        ),
        *({"parameters": each} for each in (["other"], [["a"]], None, [{}], 7)),
        *({"files": each} for each in ({}, [], None, {"x": 1}, {"x": {}}, {"x": {"bytes": 0}})),
        *({"files": {name: HASH}} for name in ("../x", "/etc/passwd", "..", ".", "a/b", "\0", "")),
        *({"format": each} for each in (2, 10**30, "1", None, [1])),
        {"files": {f"f{i}": HASH for i in range(50_000)}},
    ],
)
def test_a_manifest_that_was_made_up(copied, changes):
    signed(copied, **changes)
    refused(copied)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "7", "null", '"x"', "{}", '{"format": 1}', "[" * 100_000, '{"a":' * 100_000),
        *('{"format": NaN}', '{"format": 1e999}', "\ufeff{}", '{"format": ' + "9" * 5000 + "}"),
    ],
)
def test_a_manifest_that_is_none(copied, text):
    (copied / "manifest.json").write_text(text)
    refused(copied)


def test_a_manifest_that_is_far_too_large(copied):
    os.truncate(copied / "manifest.json", 4 << 30)  # Holes, that take no disk.
    refused(copied)


def test_a_manifest_with_numbers_that_are_none_or_half_a_character(copied):
    content = (copied / "manifest.json").read_text()
    for value in ("NaN", '"\\ud800"'):
        (copied / "manifest.json").write_text(
            content.replace('"findings": []', f'"findings": [{value}]')
        )
        refused(copied)


@pytest.mark.parametrize("name", ["manifest.json", "schema.toml", "training.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "link", "dangling", "directory", "device"])
def test_a_file_that_is_none(copied, name, kind):
    path = copied / name
    path.rename(copied.parent / "original")
    if kind == "pipe":
        os.mkfifo(path)  # Opening it would wait for ever.
    elif kind == "directory":
        path.mkdir()
    else:
        targets = {"link": copied.parent / "original", "dangling": "nowhere", "device": "/dev/zero"}
        path.symlink_to(targets[kind])
    refused(copied)
    if name != "manifest.json":
        content = json.loads((copied / "manifest.json").read_text())["files"]
        del content[name]
        signed(copied, files=content)  # One without a hash.
        refused(copied)


def header(**tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


NESTED = b'{"a":' * 100_000
FILES = {
    "schema.toml": [
        *(b"", b"\xff", b"a = " + b"[" * 100_000, b"a.b = 1", b"[feature.hour]\ntype = 'NONE'"),
        *(b"[features.hour]\ntype = 7", b"feature = [1, 2]", b"features = 'x'", b"x" * 100_000),
    ],
    "features.json": [
        *(b"", b"[]", b"{}", NESTED, b"null", b'{"format": 1}', b'{"format": 1, "features": 7}'),
        b'{"format": 1, "features": [7]}',
        b'{"format": 1, "features": [{"name": [], "column": "hour", "transforms": []}]}',
        b'{"format": 1, "features": [{"name": "a", "column": "b", "transforms": []}]}',
        *(
            b'{"format": 1, "features": [{"name": "hour", "column": "hour", "transforms": [%s]}]}'
            % each
            for each in (
                *(b"7", b"{}", b'{"type": "os.system"}', b'{"transform": "exec", "state": {}}'),
                *(b'{"name": "__import__"}', b'{"transform": "ZScore", "state": "x"}'),
            )
        ),
    ],
    "labels.json": [
        *(b"", b"[]", b"7", NESTED, b'{"probability": ["a"]}', b'{"other": ["a"]}'),
        *(b'{"probability": 7}', b'{"probability": [7]}', b'{"probability": {"a": 1}}'),
    ],
    "parameters.safetensors": [
        *(
            b"",
            b"\xff" * 8,
            b"\xff" * 100,
            struct.pack("<Q", 1 << 40) + b"{}",
            header(),
            header(a=7),
        ),
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}),
        header(a={"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}) + bytes(8),
        header(a={"dtype": "X", "shape": [2], "data_offsets": [0, 8]}) + bytes(8),
        header(
            a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            b={"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        )
        + bytes(12),
    ],
    "program.stablehlo": [b"", b"\0" * 64, b"\xff" * 4096, bytes(range(256)) * 9, b"ML\xefR" * 100],
}


class Harm:
    """Unpickled, makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", FILES)
def test_files_with_right_hashes_that_were_made_up(copied, name):
    harm = copied.parent / "harm"
    for content in [*FILES[name], *(pickle.dumps(Harm(harm), protocol) for protocol in (0, 2, 5))]:
        (copied / name).write_bytes(content)
        signed(copied)
        refused(copied)
    assert not harm.exists()


def test_training_rows_without_end(copied):
    rows = {"origin": np.full(2_000_000, "EWR")}
    writers.write_parquet(copied / "training.parquet", rows)
    signed(copied)
    with pytest.raises(serving.BundleError, match="may have 10000 rows, has 2000000"):
        serving.load(copied).training()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "7", "{}", "[" * 100_000, '{"current": "x", "before": []}', "\0"),
        *(
            '{"current": 1e999, "before": []}',
            '{"current": 1, "before": 7}',
            '{"current": {}, "before": []}',
        ),
    ],
)
def test_a_store_whose_record_was_made_up(tmp_path, text):
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path).current()
