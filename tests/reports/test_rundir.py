"""Run directories: made whole or not at all, refused in one line, read whatever has become of them."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections import namedtuple
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from jaxml import files
from jaxml.reports import RunDirectoryError, jsonl, rundir

ENVIRONMENT = {"device": "cpu", "jax": "0.10.0", "commit": None}
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


def test_a_run_has_a_directory_of_its_own_with_its_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [rundir.create("geonames", Config(dim=i)) for i in range(3)]
    assert len(set(runs)) == 3
    for i, run in enumerate(runs):
        assert run.is_absolute()
        assert run.parent == tmp_path / "runs" / "geonames"
        assert rundir.read_config(run) == {"dim": i, "sizes": [1, 2], "out": "runs", "note": None}
        assert {file.name for file in run.iterdir()} == {"config.json", "process.json"}


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
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_the_environment_stands_beside_the_configuration(tmp_path):
    run = rundir.create("x", {"a": 1}, root=tmp_path, environment=ENVIRONMENT)
    assert json.loads((run / "environment.json").read_text()) == ENVIRONMENT
    assert rundir.read(run).environment == ENVIRONMENT
    for wrong in ({"a": float("nan")}, [1], {"a": print}):
        with pytest.raises(ValueError, match="environment must be"):
            rundir.create("y", {}, root=tmp_path, environment=wrong)
    assert not (tmp_path / "y").exists()


def test_a_failure_behind_the_configuration_leaves_no_directory_either(tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if Path(target).name == "process.json":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        rundir.create("x", {}, path=tmp_path / "run", environment=ENVIRONMENT)
    assert not (tmp_path / "run").exists()


def test_what_is_recorded_is_read_again(tmp_path):
    run = rundir.create("x", {"a": 1}, root=tmp_path, environment=ENVIRONMENT)
    losses = np.array([3.0, np.nan, 1 / 3, -np.inf, np.float32(0.1)])
    before = datetime.now()
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
    assert got.summary.pop("lost") != 0
    assert got.summary == {"num_steps": 5, "accuracy": 0.5, "by_class": [1, 2]}
    assert abs((got.started - before).total_seconds()) < 60
    texts = [(run / file).read_text() for file in ("findings.json", "summary.json")]
    for text in [*texts, *(run / "metrics.jsonl").read_text().splitlines()]:
        json.loads(text, parse_constant=lambda name: pytest.fail(name))  # JSON has no NaN.


def test_a_record_that_the_run_has_written_itself_stays(tmp_path):
    run = rundir.create("x", {}, root=tmp_path)
    writer = jsonl.JsonlWriter(run / "metrics.jsonl")
    for step in (10, 20):
        writer.scalars(step, {"train_loss": 30 / step, "examples_per_second": 5.0})
    writer.scalars(20, {"val_loss": 1.75})
    writer.close()
    assert rundir.read(run).status == "running"
    rundir.record(run, loss_curve=np.zeros(3))
    got = rundir.read(run)
    assert got.steps.tolist() == [10, 20] and got.losses.tolist() == [3.0, 1.5]
    assert got.validation_steps.tolist() == [20] and got.validations.tolist() == [1.75]


def test_a_run_without_curves_is_finished_too(tmp_path):
    run = rundir.create("x", {}, root=tmp_path)
    rundir.record(run, loss_curve=(), summary={"helped": 3})
    got = rundir.read(run)
    assert not (run / "metrics.jsonl").exists()
    assert (got.status, got.num_steps, got.summary) == ("finished", None, {"helped": 3})
    assert got.losses.shape == got.validations.shape == (0,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss_curve": [[1.0]]}, r"loss_curve must have shape \[S\], got \(1, 1\)"),
        ({"validation_steps": [1]}, "validation_steps and validation_curve"),
        ({"validation_steps": [0.5], "validation_curve": [1.0]}, "integers of at least 0"),
        ({"validation_steps": [-1], "validation_curve": [1.0]}, "integers of at least 0"),
        ({"findings": [{"symptom": "x"}]}, "findings must have the fields symptom, step"),
        ({"findings": ["dead"]}, "findings must have the fields"),
        ({"findings": [DIED._replace(step=1.5)]}, "integer as step"),
        ({"findings": [DIED._replace(cause=None)]}, "text as cause"),
        ({"findings": [DIED._replace(evidence=None)]}, "mapping as evidence"),
        ({"summary": [1]}, "summary must be a mapping"),
        ({"summary": {"f": print}}, "summary must be a JSON object"),
    ],
)
def test_what_cannot_be_recorded_leaves_nothing(tmp_path, given, message):
    run = rundir.create("x", {}, root=tmp_path)
    with pytest.raises(ValueError, match=message):
        rundir.record(run, **{"loss_curve": [1.0], **given})
    assert {file.name for file in run.iterdir()} == {"config.json", "process.json"}


def test_nowhere_to_record(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="no such directory"):
        rundir.record(tmp_path / "none", loss_curve=[1.0])
    with pytest.raises(RunDirectoryError, match="is no directory"):
        rundir.record(tmp_path / "file", loss_curve=[1.0])


def test_a_killed_run_is_known_from_a_running_one(tmp_path):
    run = tmp_path / "run"
    code = (
        "import sys, time\n"
        "from jaxml.reports import rundir\n"
        "rundir.create('x', {'a': 1}, path=sys.argv[1])\n"
        "print('made', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, run], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "made\n"
        assert rundir.read(run).status == "running"
        with pytest.raises(RunDirectoryError, match=f"being written by process {process.pid}"):
            rundir.claim(run)
    finally:
        process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert rundir.read(run).status == "interrupted"  # Dead, though nobody has waited for it.
    process.wait()
    process.stdout.close()
    assert rundir.read(run).status == "interrupted"
    rundir.claim(run)
    assert rundir.read(run).status == "running"


def test_a_number_given_to_another_process_is_not_the_one_that_wrote(tmp_path):
    run = rundir.create("x", {}, root=tmp_path)
    process = json.loads((run / "process.json").read_text())
    if process["started"] is None:
        pytest.skip("when a process began is read from /proc, which this system has not")
    (run / "process.json").write_text(json.dumps({**process, "started": process["started"] - 1}))
    assert rundir.read(run).status == "interrupted"


def test_a_run_of_another_machine_runs_while_it_writes(tmp_path):
    run = rundir.create("x", {}, root=tmp_path)
    elsewhere = {"host": f"not-{socket.gethostname()}", "pid": 1, "started": 1}
    (run / "process.json").write_text(json.dumps(elsewhere))
    assert rundir.read(run).status == "running"
    for file in run.iterdir():
        os.utime(file, (1e9, 1e9))
    assert rundir.read(run).status == "interrupted"


def test_results_of_an_experiment_say_that_it_is_through(tmp_path):
    run = rundir.create("x", {}, root=tmp_path)
    for results, summary in (({"P@1": 0.5}, {"P@1": 0.5}), ([1, 2], {})):
        (run / "results.json").write_text(json.dumps(results))
        assert rundir.read(run).status == "finished"
        assert rundir.read(run).summary == summary


def test_runs_are_found_wherever_they_lie_the_newest_last(tmp_path):
    for name in ("b/20260101-000000", "a/20260102-000000", "a/20260102-000000-10",
                 "a/20260102-000000-2", "a/20251231-235959"):  # fmt: skip
        rundir.create("x", {}, path=tmp_path / name)
    (tmp_path / "a" / "20260102-000000" / "checkpoints" / "step_000000001").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "results.json").write_text("{}")
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    found = [str(run.path.relative_to(tmp_path)) for run in rundir.find(tmp_path)]
    assert found == [
        "a/20251231-235959", "b/20260101-000000", "a/20260102-000000", "a/20260102-000000-2",
        "a/20260102-000000-10",
    ]  # fmt: skip
    assert [run.path for run in rundir.find(tmp_path / "b" / "20260101-000000")] == [
        tmp_path / "b" / "20260101-000000"
    ]
    assert rundir.find(tmp_path / "notes") == []
    with pytest.raises(RunDirectoryError, match="no such directory"):
        rundir.find(tmp_path / "none")
    with pytest.raises(RunDirectoryError, match="is no directory"):
        rundir.find(tmp_path / "notes" / "results.json")


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.json", b"{", "config.json is damaged: "),
        ("config.json", b"[1]", "config.json is damaged: it holds no JSON object"),
        ("config.json", None, "has no config.json"),
        ("environment.json", b"\xff\xfe", "environment.json is damaged"),
        ("process.json", b"", "process.json is damaged"),
        ("metrics.jsonl", b'{"step": 0, "loss": 1}\nno\n', "metrics.jsonl, line 2 is no record"),
        ("findings.json", b"{}", "findings.json is damaged: it holds no JSON list"),
        ("findings.json", b'[{"symptom": "x"}]', "findings.json is damaged: entry 0"),
        ("findings.json", b"[1]", "findings.json is damaged: entry 0"),
        (
            "metrics.jsonl",
            b'{"step": 1' + b"0" * 30 + b', "loss": 1}\n',
            "metrics.jsonl holds a num",
        ),
        ("summary.json", b"\0\0\0", "summary.json is damaged"),
    ],
)
def test_a_damaged_file_is_named_and_hides_nothing_else(tmp_path, file, content, problem):
    run = rundir.create("x", {"a": 1}, root=tmp_path, environment=ENVIRONMENT)
    rundir.record(run, loss_curve=[2.0, 1.0], findings=[DIED], summary={"b": 2})
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(content)
    healthy = rundir.create("x", {"a": 2}, root=tmp_path)
    damaged, other = rundir.find(tmp_path)
    assert damaged.status == "damaged" and other.path == healthy
    (told,) = damaged.problems
    assert told.startswith(problem) and "\n" not in told and str(tmp_path) not in told
    kept = {"config.json": damaged.config == {"a": 1}, "metrics.jsonl": damaged.losses.size == 2,
            "findings.json": len(damaged.findings) == 1, "summary.json": "b" in damaged.summary,
            "environment.json": damaged.environment == ENVIRONMENT}  # fmt: skip
    assert [name for name, is_there in kept.items() if not is_there] in ([], [file])


def test_half_a_line_at_the_end_of_the_record_is_no_damage(tmp_path):
    run = rundir.create("x", {}, root=tmp_path)
    (run / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n{"step": 4, "lo')
    got = rundir.read(run)
    assert got.problems == () and got.losses.tolist() == [1.5] and got.num_steps == 3


def test_a_directory_that_was_made_and_nothing_more(tmp_path):
    (tmp_path / "20260101-000000").mkdir()
    (tmp_path / "20260101-000000" / ".config.json.12.tmp").write_text("{")
    (run,) = rundir.find(tmp_path)
    assert (run.status, run.problems) == ("damaged", ("has no config.json",))
    assert run.started == datetime(2026, 1, 1)
    with pytest.raises(RunDirectoryError, match="is no run"):
        rundir.read(tmp_path)
    with pytest.raises(RunDirectoryError, match="no such directory"):
        rundir.read(tmp_path / "none")
