"""The cache: kept once, made again when damaged, and no more than one warning without it."""

import logging

import numpy as np
import pytest

from jaxml.data import cache


@pytest.fixture
def squares():
    """A maker, and how often it was called."""
    calls = []

    def make():
        calls.append(1)
        return np.arange(1000) ** 2

    make.calls = calls
    return make


def test_the_second_call_reads_the_cache(tmp_path, squares, caplog):
    first = cache.cached_array("squares", squares, tmp_path / "new" / "folder")
    second = cache.cached_array("squares", squares, tmp_path / "new" / "folder")
    np.testing.assert_array_equal(first, second)
    assert len(squares.calls) == 1 and not second.flags.writeable and not caplog.records
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["squares.npy"]


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_damaged_file_is_made_again(tmp_path, squares, caplog, size):
    cache.cached_array("squares", squares, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:size])
    for _ in range(2):
        assert cache.cached_array("squares", squares, tmp_path)[3] == 9
    assert len(squares.calls) == 2 and "made again" in caplog.text


@pytest.mark.parametrize("error", ["not a directory", "No space left"])
def test_without_a_writable_folder_there_is_one_warning(tmp_path, squares, caplog, error):
    def full(file, array):
        file.write(b"half")
        raise OSError("No space left on device")

    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / ("file" if error == "not a directory" else "empty")
    assert cache.cached("squares", squares, np.load, full, folder / "cache")[3] == 9
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no cache is kept" in caplog.text and error.lower() in caplog.text.lower()
    assert not list(folder.glob("cache/*"))


def test_the_cache_is_where_the_user_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_directory() == tmp_path / "xdg" / "jaxml"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_directory() == tmp_path / "home" / ".cache" / "jaxml"
