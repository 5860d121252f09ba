"""The log of what was served."""

import contextlib
import errno
import logging

import numpy as np
import pytest

from jaxml.serving import log
from jaxml.validation import writers


def served(bundle, columns, rows):
    """Raw columns, features and outputs of some rows."""
    some = {name: each[rows] for name, each in columns.items()}
    return some, bundle.encode(some), bundle.predict(some)


def names(prefix, number):
    return [f"{prefix}-{i}" for i in range(number)]


def test_rows_come_back_as_they_were_served(tmp_path, bundle, columns):
    parts = [served(bundle, columns, slice(i, i + 7)) for i in (0, 7, 14)]
    with contextlib.closing(log.Log(tmp_path, bundle.pipeline)) as written:
        written.append(names("a", 7), [0] * 7, *parts[0])
        written.append(["many"] * 7, range(7), *parts[1])
        written.flush()
        written.append(names("b", 7), [0] * 7, *parts[2])
    assert written.written == 21 and not written.lost
    found = log.read(tmp_path)
    assert len(found) == 21 and not found.damaged and len(list(tmp_path.iterdir())) == 2
    assert found.keys[:8].tolist() == [*names("a", 7), "many/0"] and found.keys[13] == "many/6"
    assert np.abs(found.times - np.datetime64("now", "us")).max() < np.timedelta64(60, "s")
    again = bundle.encode(found.columns)
    for name, values in log.named_features(bundle.pipeline, again):
        np.testing.assert_array_equal(found.features[name].astype(values.dtype), values)
    for name, values in columns.items():
        np.testing.assert_array_equal(found.columns[name], values[:21])
    wanted = bundle.predict(found.columns)["probability"]
    np.testing.assert_array_equal(found.outputs["probability"].astype(np.float32), wanted)


def test_columns_of_other_kinds_from_batch_to_batch(tmp_path, bundle, columns):
    """A text that is missing in all of a batch, integers with gaps, several values a row."""
    _, features, _ = served(bundle, columns, slice(0, 2))
    outputs = {"top": np.array([[1, 2, 3], [4, 5, 6]])}
    batches = [
        {"text": np.array(["x", "1"]), "number": np.array([1, 2])},
        {"text": np.array([None, None]), "number": np.ma.masked_array([2**60 + 1, 0], [0, 1])},
        {"text": ["", "y"], "number": np.array([0.5, np.nan])},
    ]
    with contextlib.closing(log.Log(tmp_path, bundle.pipeline)) as written:
        for i, batch in enumerate(batches):
            written.append(names(i, 2), [0, 0], batch, features, outputs)
            if i != 1:
                written.flush()
    found = log.read(tmp_path)
    assert found.columns["text"].tolist() == ["x", "1", None, None, None, "y"]
    assert [v == v and v for v in found.columns["number"].tolist()][:2] == [1, 2]
    assert np.isnan(found.columns["number"].astype(float)).tolist() == [0, 0, 0, 1, 0, 1]
    assert found.outputs["top/1"].tolist() == [2, 5] * 3


def test_a_hash_of_the_id_chooses_whole_requests(tmp_path, bundle, columns):
    part = served(bundle, columns, slice(0, 200))
    ids = np.repeat(names("r", 100), 2)
    kept = []
    for directory in (tmp_path / "one", tmp_path / "two"):
        with contextlib.closing(log.Log(directory, bundle.pipeline, sample=0.3)) as written:
            written.append(ids, [0, 1] * 100, *part)
        kept.append(log.read(directory).keys.tolist())
    assert kept[0] == kept[1] and 30 < len(kept[0]) < 90
    assert [key.partition("/")[0] for key in kept[0][::2]] == [
        key.partition("/")[0] for key in kept[0][1::2]
    ]


def test_a_full_disk_is_counted_and_reported_once(tmp_path, bundle, columns, monkeypatch, caplog):
    part = served(bundle, columns, slice(0, 5))

    def full(path, table):
        raise OSError(errno.ENOSPC, "No space left on device")

    write = writers.write_parquet
    with contextlib.closing(log.Log(tmp_path, bundle.pipeline)) as written:
        monkeypatch.setattr(writers, "write_parquet", full)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                written.append(names("x", 5), [0] * 5, *part)
                written.flush()
        monkeypatch.setattr(writers, "write_parquet", write)
        written.append(names("y", 5), [0] * 5, *part)
    assert (written.lost, written.written) == (15, 5)
    assert len(caplog.records) == 1 and "No space left" in caplog.text
    assert log.read(tmp_path).keys.tolist() == names("y", 5)


def test_the_oldest_files_make_room(tmp_path, bundle, columns, monkeypatch):
    part = served(bundle, columns, slice(0, 50))
    with contextlib.closing(log.Log(tmp_path, bundle.pipeline)) as written:
        written.append(names("first", 50), [0] * 50, *part)
        written.flush()
        (size,) = [path.stat().st_size for path in tmp_path.iterdir()]
        monkeypatch.setattr(log, "_DISK", int(2.5 * size))
        for i in range(5):
            written.append(names(i, 50), [0] * 50, *part)
            written.flush()
    assert log.read(tmp_path).keys.tolist() == [*names(3, 50), *names(4, 50)]


def test_a_slow_disk_does_not_fill_the_memory(tmp_path, bundle, columns, monkeypatch):
    monkeypatch.setattr(log, "_BUFFERED", 12)
    part = served(bundle, columns, slice(0, 5))
    with contextlib.closing(log.Log(tmp_path, bundle.pipeline)) as written:
        for i in range(4):
            written.append(names(i, 5), [0] * 5, *part)
    assert (written.written, written.lost) == (10, 10)


def test_a_file_soon_after_rows_come(tmp_path, bundle, columns, monkeypatch):
    monkeypatch.setattr(log, "_ROWS", 10)
    part = served(bundle, columns, slice(0, 10))
    with contextlib.closing(log.Log(tmp_path, bundle.pipeline)) as written:
        written.append(names("x", 10), [0] * 10, *part)
        for _ in range(200):
            if written.written:
                break
            written._thread.join(0.02)
        assert written.written == 10


def test_damaged_files_are_named_and_left_out(tmp_path, bundle, columns):
    part = served(bundle, columns, slice(0, 5))
    with pytest.raises(ValueError, match="nothing has been served"):
        log.read(tmp_path / "none")
    with contextlib.closing(log.Log(tmp_path, bundle.pipeline)) as written:
        for name in "abc":
            written.append(names(name, 5), [0] * 5, *part)
            written.flush()
    first, second, third = sorted(tmp_path.iterdir())
    second.write_bytes(second.read_bytes()[:-100])
    (tmp_path / "9.parquet").write_bytes(b"")
    writers.write_parquet(tmp_path / "99.parquet", {"other": [1]})
    found = log.read(tmp_path)
    assert found.keys.tolist() == [*names("a", 5), *names("c", 5)]
    assert [second.name in found.damaged[0], "9.parquet" in found.damaged[1]] == [True, True]
    assert len(found.damaged) == 3
    for path in (first, third):
        path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="no file can be read"):
        log.read(tmp_path)
