"""Run directories: created whole or not at all, and read whatever has become of them."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import namedtuple
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from jaxml.reports import RunDirectoryError, jsonl, rundir, versions

Finding = namedtuple("Finding", "symptom step where severity evidence cause remedy")
DIED = Finding(
    "dead_relu", np.int64(7), "hidden_0", "error",
    {"dead": np.float32(0.5), "norms": [1.0, float("inf")]}, "rate", "lower it",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    dim: int = 128
    sizes: tuple = (1, 2)
    out: Path = Path("runs")
    note: str | None = None


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_has_a_directory_of_its_own_with_its_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = datetime.now()
    runs = [rundir.create("geonames", Config(dim=i)) for i in range(3)]
    assert len(set(runs)) == 3
    for i, run in enumerate(runs):
        assert run.parent == tmp_path / "runs" / "geonames"
        assert [file.name for file in run.iterdir()] == ["run.json"]
        got = rundir.read(run)
        assert got.config == {"dim": i, "sizes": [1, 2], "out": "runs", "note": None}
        assert (got.name, got.status, got.num_steps) == ("geonames", "running", None)
        assert before <= got.started <= datetime.now()
        assert got.environment["commit"] == versions.commit()
        assert {"device", "cores", "python", "jax", "flax"} <= got.environment.keys()


def test_a_given_directory_must_be_new_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ["empty", "new/below"]:
        run = rundir.create("x", {"a": 1}, path=tmp_path / name)
        assert run == tmp_path / name
    with pytest.raises(RunDirectoryError, match="is not empty"):
        rundir.create("x", {"a": 2}, path=run)
    assert rundir.read(run).config == {"a": 1}
    with pytest.raises(TypeError, match="JSON"):
        rundir.create("x", {"f": print}, path=tmp_path / "other")
    rundir.create("x", {}, path=tmp_path / "other")  # Nothing was left in it.


def test_the_status_follows_the_block(tmp_path):
    with rundir.running("x", {}, path=tmp_path / "good") as run:
        assert rundir.read(run).status == "running"
    assert rundir.read(run).status == "finished"
    with pytest.raises(ZeroDivisionError), rundir.running("x", {}, path=tmp_path / "bad") as run:
        _ = 1 / 0
    got = rundir.read(run)
    assert (got.status, got.error) == ("failed", "ZeroDivisionError: division by zero")
    with rundir.running("x", {"ignored": 1}, path=run, resume=True) as resumed:
        assert resumed == run
        assert (rundir.read(run).status, rundir.read(run).error) == ("running", None)
    assert (rundir.read(run).status, rundir.read(run).config) == ("finished", {})


def test_a_record_is_read_again(tmp_path):
    run = rundir.create("x", {"a": 1}, path=tmp_path / "run")
    losses = np.array([3.0, np.nan, 1 / 3, -np.inf, np.float32(0.1)])
    rundir.record(
        run,
        loss_curve=losses,
        validation_steps=np.array([0, 5]),
        validation_curve=[2.5, np.inf],
        findings=[DIED, DIED._asdict()],
        summary={"accuracy": np.float32(0.5), "lost": float("nan"), "by_class": (1, 2)},
    )
    got = rundir.read(run)
    assert got.path == run and got.config == {"a": 1}
    assert got.status == "finished" and got.problems == ()
    np.testing.assert_array_equal(got.losses, losses)
    np.testing.assert_array_equal(got.steps, np.arange(5))
    np.testing.assert_array_equal(got.validations, [2.5, np.inf])
    np.testing.assert_array_equal(got.validation_steps, [0, 5])
    assert got.num_steps == 5
    assert got.findings == (DIED._asdict(),) * 2
    assert np.isnan(got.summary.pop("lost"))
    assert got.summary == {"num_steps": 5, "accuracy": 0.5, "by_class": [1, 2]}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    for text in [(run / "run.json").read_text(), *lines]:
        json.loads(text, parse_constant=lambda name: pytest.fail(name))  # JSON has no NaN.


def test_losses_that_the_run_has_written_itself_stay(tmp_path):
    run = rundir.create("x", {}, path=tmp_path / "run")
    writer = jsonl.JsonlWriter(run / "metrics.jsonl")
    for step in (10, 20):
        writer.scalars(step, {"loss": 30 / step, "examples_per_second": 5.0})
    writer.scalars(20, {"validation_loss": 1.75})
    writer.close()
    rundir.record(run, loss_curve=np.zeros(3))
    got = rundir.read(run)
    assert got.steps.tolist() == [10, 20] and got.losses.tolist() == [3.0, 1.5]
    assert got.validation_steps.tolist() == [20] and got.validations.tolist() == [1.75]


def test_a_run_without_curves_is_finished_too(tmp_path):
    run = rundir.create("x", {}, path=tmp_path)
    rundir.record(run, summary={"helped": 3})
    got = rundir.read(run)
    assert [file.name for file in run.iterdir()] == ["run.json"]
    assert (got.status, got.num_steps, got.summary) == ("finished", None, {"helped": 3})
    assert got.losses.shape == got.validations.shape == (0,)


@pytest.mark.parametrize(
    "given",
    [
        {"loss_curve": [[1.0]]},
        {"validation_steps": [1]},
        {"validation_steps": [0.5], "validation_curve": [1.0]},
        {"summary": {"f": print}},
    ],
)
def test_a_bad_record_leaves_nothing(tmp_path, given):
    run = rundir.create("x", {}, path=tmp_path)
    with pytest.raises((ValueError, TypeError)):
        rundir.record(run, **{"loss_curve": [1.0], **given})
    assert [file.name for file in run.iterdir()] == ["run.json"]
    assert rundir.read(run).status == "running"


def test_what_is_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    for use in (rundir.read, rundir.record, rundir.claim):
        for place, message in (("", "is no run"), ("none", "no such"), ("file", "is no directory")):
            with pytest.raises(RunDirectoryError, match=message) as error:
                use(tmp_path / place)
            one_line(error)


def test_a_killed_run_is_known_from_a_running_one(tmp_path):
    run = rundir.create("x", {}, path=tmp_path / "run")
    content = json.loads((run / "run.json").read_text())

    def written_by(**process):
        (run / "run.json").write_text(json.dumps(content | process))
        return rundir.read(run).status

    other = os.getppid()
    assert written_by(pid=other) == "running"
    with pytest.raises(RunDirectoryError, match=f"being written by process {other}"):
        rundir.claim(run)
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert written_by(pid=done.pid, host="elsewhere") == "running"  # Nobody here can know.
    assert written_by(pid=done.pid) == "interrupted"
    rundir.claim(run)
    assert rundir.read(run).status == "running"


def test_runs_are_found_wherever_they_lie_the_newest_last(tmp_path):
    names = ["b/2", "a/10", "a/9", "b/2/nested"]
    for name in names:
        rundir.create("x", {}, path=tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    assert [str(run.path.relative_to(tmp_path)) for run in rundir.find(tmp_path)] == names
    assert len(rundir.find(tmp_path / "b")) == 2
    assert rundir.find(tmp_path / "notes") == []
    for place, message in (("none", "no such directory"), ("b/2/run.json", "is no directory")):
        with pytest.raises(RunDirectoryError, match=message):
            rundir.find(tmp_path / place)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("run.json", b"[1]", "run.json is damaged: "),
        ("run.json", b"\xff\xfe", "run.json is damaged"),
        ("metrics.jsonl", b'{"step": 0, "loss": 1}\nno\n', "metrics.jsonl, line 2 is no record"),
        ("metrics.jsonl", b'{"step": 1' + b"0" * 30 + b', "loss": 1}\n', "line 1 is no record"),
    ],
)
def test_a_damaged_file_is_named_and_hides_nothing_else(tmp_path, file, content, problem):
    run = rundir.create("x", {"a": 1}, path=tmp_path / "run")
    rundir.record(run, loss_curve=[2.0, 1.0], findings=[DIED], summary={"b": 2})
    (run / file).write_bytes(content)
    rundir.create("x", {"a": 2}, path=tmp_path / "other")
    damaged, other = sorted(rundir.find(tmp_path), key=lambda found: found.path != run)
    assert damaged.status == "damaged" and problem in damaged.problems[0]
    assert "\n" not in damaged.problems[0]
    if file == "run.json":
        assert damaged.losses.tolist() == [2.0, 1.0]
    else:
        assert damaged.config == {"a": 1} and damaged.findings[0]["symptom"] == "dead_relu"
    assert other.status == "running" and other.config == {"a": 2}


def test_the_commit_is_that_of_the_checkout_and_marks_changes(tmp_path, monkeypatch):
    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@b.c"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)

    monkeypatch.setattr(versions, "__file__", str(tmp_path / "versions.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert versions.commit() is None  # No checkout.
    git("init")
    (tmp_path / "versions.py").write_text("1\n")
    git("add", "-A")
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "untracked").write_text("")
    assert versions.commit() == head
    (tmp_path / "versions.py").write_text("2\n")
    assert versions.commit() == head + "+"

    def no_git(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert versions.commit() is None
