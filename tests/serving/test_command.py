"""What a user gets wrong: one line that says what, exit code 2, and no traceback."""

import os
import subprocess
import sys

import numpy as np
import pytest

from jaxml.serving import Store
from jaxml.serving.__main__ import main
from jaxml.validation import writers

FULL = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
runpy.run_module("jaxml.serving", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundle_path, columns, make_bundle):
    """A directory of things that are not what they should be, and some that are."""
    place = tmp_path_factory.mktemp("command")
    (place / "bundle").symlink_to(bundle_path)
    make_bundle(place / "other", columns, seed=1)
    store = Store(place / "store")
    store.add(bundle_path)
    store.switch(1)
    Store(place / "unused").add(bundle_path)
    Store(place / "gone").add(bundle_path)
    (place / "gone" / "store.json").write_text('{"current": 2, "before": []}')
    Store(place / "broken").add(bundle_path)
    (place / "broken" / "store.json").write_text("{")
    (place / "empty").mkdir()
    (place / "text").write_text("hello")
    (place / "void.csv").write_text("")
    (place / "ab.csv").write_text("a,b\n1,2\n")
    (place / "ragged.csv").write_text("origin,distance,wind,hour\nEWR,1\n")
    ids = np.arange(400)
    for name, more in {
        "in": {"id": ids},
        "twice": {"id": ids // 2},
        "large": {"id": ids.astype(np.uint64) + 2**63},
        "kinds": {"hour": columns["origin"]},
    }.items():
        writers.write_parquet(place / f"{name}.parquet", {**columns, **more})
    for name, record in {
        "running": '{"status": "running"}',
        "bad": "{",
        "deep": "[" * 99_999,
    }.items():
        (place / name).mkdir()
        (place / name / "run.json").write_text(record)
    for name, token in {"blank": b" \n", "lines": b"a\nb", "bytes": b"\xff\xfe"}.items():
        (place / f"{name}.token").write_bytes(token)
    return place


@pytest.fixture
def error(place, monkeypatch, capsys):
    """Runs a command that is wrong in that directory; returns its line."""
    monkeypatch.chdir(place)
    monkeypatch.delenv("JAXML_TOKEN", raising=False)

    def run(command):
        assert main(command.split()) == 2
        told = capsys.readouterr()
        (line,) = told.err.splitlines()
        assert line.startswith("error: ") and told.out == "" and len(line) < 400
        return line

    return run


PLACES = {
    "nowhere": "no such directory",
    "text": "no such directory",
    "empty": "no bundle has been published",
    "unused": "no bundle has been published",
    "gone": "has no version 2, but [1]",
    "broken": "store.json: is damaged",
}


@pytest.mark.parametrize(("store", "message"), PLACES.items())
def test_no_such_store(error, store, message):
    for command in ("serve {}", "check {}", "predict {} in.parquet out", "rollback {}"):
        assert message in error(command.format(store))


@pytest.mark.parametrize(
    ("command", "message"),
    {
        "rollback store": "has no version before 1",
        "check store": "nothing has been served",
        "check bundle": "bundle: is a bundle, a store is wanted",
        "rollback bundle": "bundle: is a bundle, a store is wanted",
        "publish nowhere new": "no such directory",
        "publish text new": "is no directory",
        "publish empty new": "it has no run.json",
        "publish running new": "a finished run is wanted",
        "publish bad new": "a finished run is wanted",
        "publish deep new": "recursion",
        "serve bundle --port 70000": "port must be an integer in [0, 65535], got 70000",
        "serve bundle --host 300.1.1.1": "cannot listen on 300.1.1.1:8000",
        "serve bundle --timeout nan": "timeout must be a finite number above 0",
        "serve bundle --token-file nowhere": "No such file or directory: 'nowhere'",
        "serve bundle --token-file empty": "Is a directory: 'empty'",
        "serve bundle --token-file blank.token": "blank.token: must hold a token",
        "serve bundle --token-file lines.token": "token must be one word of ASCII",
        "serve bundle --token-file bytes.token": "token must be one word of ASCII",
        "predict bundle nowhere.parquet out": "nowhere.parquet",
        "predict bundle empty out": "empty is a directory, a file is wanted",
        "predict bundle text out": "text: not a Parquet file",
        "predict bundle void.csv out": "void.csv: the file is empty",
        "predict bundle ab.csv out": "column 'origin': the file does not have this column",
        "predict bundle ragged.csv out1": "row 0 (line 2), column 'wind': 2 fields, should be 4",
        "predict bundle kinds.parquet out2": "column 'hour': INT is wanted, got string",
        "predict bundle in.parquet out --key no": "column 'no': the file does not have this column",
        "predict bundle in.parquet out3 --key wind": "row 2, column 'wind': the key is missing",
        "predict bundle twice.parquet out4 --key id": "column 'id': 0 is the key of rows 0 and 1",
        "predict bundle large.parquet out5 --key id": "row 0, column 'id': keys may be up to 9223",
        "predict bundle in.parquet text": "File exists: 'text'",
        "predict bundle in.parquet text/out": "Not a directory: 'text/out'",
        "predict bundle in.parquet other": "other: holds other files; give a new directory",
    }.items(),
)
def test_a_line_says_what_is_wrong(error, command, message):
    assert message in error(command)


def test_answers_of_another_bundle_or_table_are_kept(error, place, capsys):
    assert (
        main(["predict", str(place / "bundle"), str(place / "in.parquet"), str(place / "mine")])
        == 0
    )
    capsys.readouterr()
    before = {each.name: each.read_bytes() for each in (place / "mine").iterdir()}
    assert "was begun with another bundle" in error("predict other in.parquet mine")
    assert "was begun with another table" in error("predict bundle twice.parquet mine")
    assert "was begun with another key" in error("predict bundle in.parquet mine --key id")
    assert {each.name: each.read_bytes() for each in (place / "mine").iterdir()} == before


@pytest.mark.parametrize(
    "command", ["", "nonsense", "serve", "serve bundle --port x", "predict a b"]
)
def test_a_command_that_is_none(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2 and "error: " in capsys.readouterr().err


@pytest.mark.parametrize("size", [100, 2000])
def test_a_full_disk(place, tmp_path, size):
    """A limit on the size of files stands for it; what was begun is gone on with when there is room."""
    out = tmp_path / "out"
    command = ["predict", "bundle", "in.parquet", os.fspath(out), "--key", "id"]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(size), *command],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert main(["predict", str(place / "bundle"), str(place / "in.parquet"), *command[3:]]) == 0
    assert (out / "lookup.sqlite").exists()
