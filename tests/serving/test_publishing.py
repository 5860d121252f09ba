"""From runs to the version in use; each attempt leaves a verdict."""

import json
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jaxml import reports, serving
from jaxml.serving import verdicts
from jaxml.serving.__main__ import main
from jaxml.serving.gate import Check, Verdict

GATE = serving.Gate(
    task="binary",
    label="late",
    output="probability",
    thresholds=(
        serving.Threshold("roc_auc", bound=0.9, change=0.0),
        serving.Threshold("log_loss", relative_change=0.05, by="origin", values=("EWR",)),
    ),
    baseline="simple",
    group="day",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory, flights, logistic):
    """Runs: two good ones, and one whose probabilities are too moderate."""
    root = tmp_path_factory.mktemp("runs")
    columns, late = flights(600, seed=2)
    held_out = {**columns, "late": late, "day": np.arange(600) // 20, "simple": columns["hour"]}
    for name, strength, seed in (("first", 1.0, 0), ("worse", 0.2, 0), ("next", 1.0, 7)):
        with reports.rundir.running("flights", {}, path=root / name) as run:
            arguments = logistic(*flights(seed=seed), strength=strength)
            serving.leave(run, held_out=held_out, gate=GATE, **arguments)
    return root


def test_only_what_is_better_and_works_is_switched_to(root, tmp_path, capsys):
    store = tmp_path / "store"

    def publish(name):
        code = main(["publish", str(root / name), str(store)])
        return code, capsys.readouterr().out

    code, out = publish("first")
    assert code == 0 and out.endswith("in use: version 1\n")
    assert (
        "skipped: 4, because there is no bundle to compare with" in out and "ends on SIGTERM" in out
    )
    assert max(map(len, out.split("verdict:")[0].splitlines())) <= 80
    assert publish("first") == (0, "in use already: version 1\n")
    code, out = publish("worse")
    assert code == 1 and "refused: change of log_loss, origin = EWR: " in out
    assert "in use" not in out.split("verdict:")[1]
    home = serving.Store(store)
    assert home.versions() == [1] and home.current() == 1
    code, out = publish("next")
    assert code == 0 and home.versions() == [1, 2] and home.current() == 2
    assert serving.load(home.bundle()).manifest.digest in (store / "verdicts/3.json").read_text()
    assert main(["rollback", str(store)]) == 0 and home.current() == 1
    parameters = home.bundle() / "parameters.safetensors"
    parameters.write_bytes(parameters.read_bytes()[:-1])
    code, out = publish("first")  # Nothing can be compared with a damaged bundle.
    assert code == 0 and home.current() == 3
    assert "skipped: 1, because it is damaged" in out
    assert "skipped: 4, because there is no bundle to compare with" in out

    written = sorted(path.name for path in (store / "verdicts").iterdir())
    assert written == [f"{n}.{kind}" for n in (1, 2, 3, 4) for kind in ("html", "json")]
    first, refused = (json.loads((store / f"verdicts/{n}.json").read_text()) for n in (1, 2))
    assert (first["version"], first["against"], refused["version"]) == (1, None, None)
    assert refused["trial"] is None and refused["against"] == 1
    assert {each["outcome"] for each in first["trial"]["checks"]} == {"passed"}
    change = next(
        c for c in refused["gate"]["checks"] if c["name"].startswith("change of log_loss")
    )
    assert change["outcome"] == "failed" and 0 < change["interval"][0] < change["interval"][1]


@pytest.mark.slow
def test_no_server_is_left_if_publishing_is_ended(root, tmp_path):
    children = Path("/proc/self/task")
    if not list(children.glob("*/children")):
        pytest.skip("the children of a process are only seen on Linux")
    command = [sys.executable, "-m", "jaxml.serving", "publish", root / "first", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    while not (server := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)  # It has been started for sure.
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and out == b""
    assert not Path(f"/proc/{server.strip()}").exists()
    assert serving.Store(tmp_path).versions() == []


def test_what_cannot_be_published_is_one_line(root, tmp_path, capsys, flights, logistic):
    serving.Store(tmp_path / "other").add(root / "first" / "candidate" / "bundle")
    run = reports.rundir.create("flights", {}, path=tmp_path / "run")
    arguments = logistic(*flights()) | {"name": "trains"}
    columns, late = flights()
    table = {**columns, "late": late, "day": late, "simple": late}
    serving.leave(run, held_out=table, gate=GATE, **arguments)
    store = tmp_path / "store"

    def refused(path, into=store):
        assert main(["publish", str(path), str(into)]) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1
        return text

    assert "is running" in refused(run)
    reports.rundir.record(run)
    (tmp_path / "empty").mkdir()
    assert "no run" in refused(tmp_path / "empty")
    (run / "early").mkdir()
    assert "no candidate" in refused(run / "early")
    assert not store.exists()
    home = serving.Store(store)
    home.add(root / "first" / "candidate" / "bundle")
    home.switch(1)
    assert "is a model 'trains', the store's is 'flights'" in refused(run)
    parameters = run / "candidate" / "bundle" / "parameters.safetensors"
    parameters.write_bytes(parameters.read_bytes()[:-1])
    assert "parameters.safetensors" in refused(run)
    assert home.versions() == [1] and not (store / "verdicts").exists()


class Texts(HTMLParser):
    """The texts of a page, and its elements."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.elements = [], set()
        self.feed(page)

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)


def test_a_page_shows_names_as_they_are(tmp_path):
    odd = "<script>alert('&')</script>"
    checks = (
        Check(f"change of brier, city = {odd}", "failed", 0.25, 0.2, odd, (0.01, np.inf), odd),
        Check("size_bytes", "passed", 12345678.0, wanted="at most 1"),
    )
    told = verdicts.Publication(
        1, "2026-01-01", odd, odd, "0", None, None, Verdict(checks), Verdict(checks)
    )
    verdicts.write(tmp_path, told)
    page = (tmp_path / "1.html").read_text("utf-8")
    found = Texts(page)
    assert not found.elements & {"script", "link", "img"} and "http" not in page
    assert found.texts.count(odd) >= 4 and "12,345,678" in found.texts
    assert json.loads((tmp_path / "1.json").read_text())["gate"]["checks"][0]["interval"] == [
        0.01,
        "Infinity",
    ]
    assert verdicts.next_number(tmp_path) == 2
