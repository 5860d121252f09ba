"""A bundle is tried in a server process, and nothing is left running."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxml import serving
from jaxml.serving import manifest, trial


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    found = []
    popen = subprocess.Popen

    def start(*arguments, **options):
        found.append(popen(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(trial.subprocess, "Popen", start)
    return found


@pytest.fixture
def copied(bundle_path, tmp_path):
    return shutil.copytree(bundle_path, tmp_path / "copy")


def test_a_server_that_answers_otherwise_than_recorded_is_found(copied, started):
    examples = json.loads((copied / "examples.json").read_text())
    examples["answers"]["probability"][5] += 2e-5
    (copied / "examples.json").write_text(json.dumps(examples))
    described = json.loads((copied / "manifest.json").read_text())
    described["files"] |= manifest.hashed(copied, ["examples.json"])
    del described["sha256"]
    changed = manifest.Manifest(
        **described
        | {
            name: [manifest.Tensor(*each) for each in described[name]]
            for name in ("inputs", "outputs")
        }
    )
    manifest.write(copied, changed)
    verdict = trial.try_out(serving.load(copied))
    assert not verdict.passed
    assert {each.name: each.outcome for each in verdict.checks} == {
        "becomes ready": "passed",
        "answers row by row": "failed",
        "answers all rows in one request": "failed",
        "answers requests at once": "failed",
        "survives nonsense": "passed",
        "ends on SIGTERM": "passed",
    }
    note = verdict.checks[1].note
    assert note.startswith("rows 5 to 5 have another 'probability' than was recorded")
    assert "it wrote at last: {" in note and len(note) < 2700
    assert [each.poll() for each in started] == [0]


def test_a_server_that_is_slow_or_ends_is_refused(copied, started):
    bundle = serving.load(copied)
    (check,) = trial.try_out(bundle, ready_within=0.05).checks
    assert check.outcome == "failed" and check.note.startswith("it was not ready after 0.05 s")
    (copied / "parameters.safetensors").unlink()
    (check,) = trial.try_out(bundle).checks
    assert check.note.startswith("it ended with exit code 2; it wrote at last: error: ")
    assert "parameters.safetensors" in check.note and check.seconds < 60
    assert [each.poll() for each in started] == [-9, 2]


def test_a_server_that_does_not_end_is_killed(started, monkeypatch):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
        "; time.sleep(60)"
    )
    monkeypatch.setattr(trial, "_command", lambda path: [sys.executable, "-c", code])
    monkeypatch.setattr(trial, "_ENDS_WITHIN", 0.2)
    with trial._server(Path("none")) as server:
        while not server.written("out"):
            pass
        with pytest.raises(trial._Failure, match="still ran after"):
            server.end()
    assert [each.poll() for each in started] == [-9]


class Fake:
    """A server of the bundle's answers; `change(path, rows, status, content)` may spoil them."""

    def __init__(self, bundle, change=lambda rows, status, content: (status, content)):
        self.bundle, self.change = bundle, change

    def request(self, method, path, body):
        status, content, rows = 400, {"error": "no"}, []
        try:
            given = json.loads(body)["inputs"]
            inputs = {each["name"]: each["data"] for each in given}
            rows = inputs["hour"]
            if all(each["shape"] == [len(rows)] for each in given) and "no-such" not in path:
                found = self.bundle.predict(inputs)["probability"]
                data = {"name": "probability", "shape": [len(found)], "data": found.tolist()}
                status, content = 200, {"outputs": [data]}
        except (ValueError, KeyError, TypeError):
            pass
        return self.change(rows, status, content)


def swapped(rows, status, content):
    if len(rows) > 1:
        content["outputs"][0]["data"].reverse()
    return status, content


def lost(rows, status, content):
    return status, {"outputs": []} if status == 200 else content


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (None, []),
        (swapped, ["all_rows"]),
        (lost, ["one_by_one", "all_rows", "at_once", "nonsense"]),
        (lambda rows, status, content: (500 if status == 400 else status, content), ["nonsense"]),
        (lambda rows, status, content: (200, content), ["nonsense"]),
        (lambda rows, status, content: (status, {} if status == 400 else content), ["nonsense"]),
    ],
)
def test_answers_are_compared(bundle, change, faults):
    server = Fake(bundle, change) if change else Fake(bundle)
    client = trial._Client(server, bundle, *bundle.examples())
    found = []
    for name in ("one_by_one", "all_rows", "at_once", "nonsense"):
        try:
            getattr(client, name)()
        except trial._Failure:
            found.append(name)
    assert found == faults


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        (["New York", "Newark"], ["New York", "Newark"], True),
        (["New York", "Newark upon Trent"], ["New York", "Newark"], False),
        ([1, 2], [1, 2], True),
        ([1, 2.5], [1, 2], False),
        ([0.5, None], [0.5, np.nan], True),
        ([0.5, 0.50001], [0.5, 0.5], False),
        ([0.5, 0.500003], [0.5, 0.5], True),
    ],
)
def test_values_are_compared(got, wanted, same):
    assert trial._equal({"data": got, "shape": [2]}, wanted) == same
    assert not trial._equal({"data": got, "shape": [2, 1]}, wanted)
