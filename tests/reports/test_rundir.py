"""Run directories: made whole or not at all, and refused in one line."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxml.reports import RunDirectoryError, atomic, rundir


@dataclasses.dataclass(frozen=True)
class Config:
    dim: int = 128
    sizes: tuple = (1, 2)
    out: Path = Path("runs")
    note: str | None = None


def test_a_run_has_a_directory_of_its_own_with_its_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [rundir.create("geonames", Config(dim=i)) for i in range(3)]
    assert len(set(runs)) == 3
    for i, run in enumerate(runs):
        assert run.is_absolute()
        assert run.parent == tmp_path / "runs" / "geonames"
        assert rundir.read_config(run) == {"dim": i, "sizes": [1, 2], "out": "runs", "note": None}
        assert [file.name for file in run.iterdir()] == ["config.json"]


def test_a_given_directory_must_be_new_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ["empty", "new/below"]:
        run = rundir.create("x", {"a": 1}, path=tmp_path / name)
        assert run == tmp_path / name
    with pytest.raises(RunDirectoryError, match="is not empty"):
        rundir.create("x", {"a": 2}, path=run)
    assert rundir.read_config(run) == {"a": 1}


def test_a_directory_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for arguments in [
        {"root": tmp_path / "file"},
        {"path": tmp_path / "file"},
        {"path": tmp_path / "file" / "below"},
        {"root": "/proc/nowhere"},
    ]:
        with pytest.raises(OSError) as error:
            rundir.create("x", {}, **arguments)
        message = str(error.value)
        assert "cannot be written" in message
        assert "\n" not in message
        assert str(arguments.popitem()[1]) in message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rate": float("nan")}, "config must be a JSON object"),
        ({"f": print}, "config must be a JSON object"),
        ([1], "config must be a mapping or a dataclass; got list"),
        (Config, "config must be a mapping or a dataclass; got type"),
    ],
)
def test_a_configuration_that_is_no_json_leaves_no_directory(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        rundir.create("x", config, root=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a/b", "..", "."])
def test_a_name_is_one_component(tmp_path, name):
    with pytest.raises(ValueError, match="name must be one path component"):
        rundir.create(name, {}, root=tmp_path)


def test_a_failure_to_write_leaves_no_directory(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        rundir.create("x", {}, path=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_or_missing_configuration(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"is no run: it has no config.json"):
        rundir.read_config(tmp_path)
    for text in ["{", "[]", '"x"']:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(RunDirectoryError, match=r"config.json is damaged") as error:
            rundir.read_config(tmp_path)
        assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RunDirectoryError, match="damaged"):
        rundir.read_config(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is no run"):
        rundir.read_config(tmp_path / "file")


def test_the_file_is_readable_json(tmp_path):
    run = rundir.create("x", {"b": 1, "a": [1, 2]}, root=tmp_path)
    text = (run / "config.json").read_text()
    assert json.loads(text) == {"b": 1, "a": [1, 2]}
    assert text.endswith("}\n")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    with atomic.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
