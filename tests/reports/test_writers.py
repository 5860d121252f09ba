"""The record of a run, its views, and what all writers have in common."""

import io
import json
import math
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxml.reports import (
    ConsoleWriter,
    JsonlWriter,
    TensorBoardWriter,
    Writers,
    jsonl,
    progress,
    table,
)
from jaxml.reports.writer import numbers, step_number


def strict(text):
    """Lines as a parser reads them that knows no NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


# Numbers


@pytest.mark.parametrize("make", [np.float32, jnp.float32, jnp.bfloat16, np.float16])
def test_short_floats_become_the_shortest_decimal_that_means_them(make):
    for value in [0.1, 1 / 3, 3.25, -0.0, 65504.0, 1e-5]:
        given = make(value)
        got = numbers({"x": given})["x"]
        assert isinstance(got, float)
        assert np.float32(got).tobytes() == np.float32(given).tobytes()
    assert numbers({"x": np.float32(0.1)}) == {"x": 0.1}


def test_other_numbers():
    values = {"a": 3, "b": np.int64(2**60), "c": True, "d": np.bool_(0), "e": np.float64(0.1)}
    got = numbers(values | {"f": jnp.uint16(65535), "g": np.array(2.5), "h": 1e300})
    assert list(got.values()) == [3, 2**60, 1, 0, 0.1, 65535, 2.5, 1e300]
    assert {type(value) for value in got.values()} == {int, float}


@pytest.mark.parametrize(
    "value", ["1", None, np.ones(1), 1j, np.datetime64(0, "s"), np.zeros((), "f4,f4")]
)
def test_what_is_no_number_is_named(value):
    with pytest.raises(ValueError, match="loss must be a"):
        numbers({"loss": value})


def test_steps():
    assert step_number(jnp.int32(5)) == 5
    for step in [-1, 1.0, "1", None, np.float32(1)]:
        with pytest.raises(ValueError, match="step must be an integer of at least 0"):
            step_number(step)


# JSONL


def test_a_record_can_be_read_by_anyone_and_by_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.scalars(0, {"loss": np.float32(0.1), "accepted": jnp.bool_(True)})
    writer.scalars(1, {"loss": jnp.nan, "up": np.inf, "down": jnp.float32(-jnp.inf), "ünï": 2})
    # It can be watched while the run goes on.
    assert strict(path.read_text()) == [
        {"step": 0, "loss": 0.1, "accepted": 1},
        {"step": 1, "loss": "NaN", "up": "Infinity", "down": "-Infinity", "ünï": 2},
    ]
    writer.close()
    writer.close()
    first, second = jsonl.read(path)
    assert first == {"step": 0, "loss": 0.1, "accepted": 1}
    assert math.isnan(second["loss"])
    assert (second["up"], second["down"]) == (math.inf, -math.inf)
    with pytest.raises(ValueError):
        writer.scalars(2, {"loss": 1.0})


def write(path, steps, resume=None):
    writer = JsonlWriter(path, resume_from_step=resume)
    for step in steps:
        writer.scalars(step, {"loss": float(step)})
    writer.close()


def steps_of(path):
    return [record["step"] for record in jsonl.read(path)]


def test_a_resumed_run_continues_the_record_without_repeating_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [10, 20, 20, 30, 40])
    write(path, [30, 40, 50], resume=25)
    assert steps_of(path) == [10, 20, 20, 30, 40, 50]
    write(path, [], resume=0)
    assert steps_of(path) == []
    write(path, [1], resume=100)
    write(path, [2])
    assert steps_of(path) == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("resume", "tail"), [(None, '{"step": 20, "lo'), (20, '{"step": 30, "loss": 1}'), (20, "\0")]
)
def test_a_line_that_was_cut_off_is_dropped(tmp_path, resume, tail):
    path = tmp_path / "metrics.jsonl"
    write(path, [10])
    with path.open("a") as file:
        file.write(tail)
    assert steps_of(path) == [10]
    write(path, [20], resume=resume)
    assert strict(path.read_text()) == [{"step": 10, "loss": 10.0}, {"step": 20, "loss": 20.0}]


@pytest.mark.parametrize("line", ["text", "[]", '{"step": 1.5}', '{"step": 1, "x": []}'])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path, line):
    path = tmp_path / "notes.txt"
    content = f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'
    path.write_text(content)
    for open_it in [JsonlWriter, jsonl.read, lambda p: JsonlWriter(p, resume_from_step=0)]:
        with pytest.raises(ValueError, match=r"notes.txt, line 2 is no record"):
            open_it(path)
    assert path.read_text() == content


def test_a_value_may_not_take_the_name_of_the_step(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="'step'"):
        writer.scalars(1, {"step": 2})
    writer.close()
    with pytest.raises(OSError):
        JsonlWriter(tmp_path / "metrics.jsonl" / "below")


# Several at once


class Recorder:
    def __init__(self, fails=False):
        self.calls, self.fails = [], fails

    def scalars(self, step, values):
        self.calls.append((step, values))

    def close(self):
        self.calls.append("closed")
        if self.fails:
            raise OSError("disk full")


def test_several_writers_are_one():
    one, two = Recorder(fails=True), Recorder()
    writers = Writers(one, two)
    writers.scalars(3, {"loss": jnp.float32(0.5)})
    with pytest.raises(OSError, match="disk full"):
        writers.close()
    assert one.calls == two.calls == [(3, {"loss": 0.5}), "closed"]


# TensorBoard


def events(directory):
    """Scalars of all event files, read with the package's own message types."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(directory.iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            size = int.from_bytes(content[at : at + 8], "little")
            found.append(Event.FromString(content[at + 12 : at + 12 + size]))
            at += 16 + size
    return found


def test_tensorboard_events(tmp_path, caplog):
    """A resumed run makes TensorBoard forget the steps after that from which it resumes."""
    writer = TensorBoardWriter(tmp_path, resume_from_step=np.int32(9))
    writer.scalars(10, {"loss": jnp.float32(0.5), "train/accuracy": np.nan})
    writer.close()
    found = events(tmp_path)
    assert [event.step for event in found if event.session_log.status == 1] == [10]
    loss, accuracy = (value for event in found for value in event.summary.value)
    assert (loss.tag, loss.simple_value, found[-1].step) == ("loss", 0.5, 10)
    assert accuracy.tag == "train/accuracy" and math.isnan(accuracy.simple_value)
    assert not caplog.records


# Console


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_without_a_terminal_there_is_a_plain_line_now_and_then(monkeypatch):
    # Neither may bring control characters into a file.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    stream, clock = io.StringIO(), Clock()
    writer = ConsoleWriter(1000, batch_size=50, stream=stream, clock=clock)
    for step in range(0, 1001, 10):
        writer.scalars(step, {"loss": 2.0 - step / 1000, "hidden": 5})
        clock.now += 1
    clock.now += 60  # A validation of the last step took a minute: the step has its line already.
    writer.scalars(1000, {"validation_loss": 1.5})
    writer.close()
    writer.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 0/1,000, 0 %, loss 2"
    assert lines[1] == "step 100/1,000, 10 %, loss 1.9, 500 examples/s, 1:30 left"
    assert lines[-1] == "step 1,000/1,000, 100 %, loss 1, 500 examples/s, done in 1:40"
    assert len(lines) == 11
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_the_last_line_is_not_lost_when_a_run_ends_early():
    stream, clock = io.StringIO(), Clock()
    ConsoleWriter(100, batch_size=1, stream=stream, clock=clock).close()  # Nothing to print.
    writer = ConsoleWriter(100, batch_size=1, stream=stream, clock=clock)
    writer.scalars(1, {"loss": np.float32(4.0)})
    clock.now = 3
    writer.scalars(31, {"other": 0.25})
    writer.close()
    assert stream.getvalue().splitlines() == [
        "step 1/100, 1 %, loss 4",
        "step 31/100, 31 %, loss 4, 10 examples/s, 0:07 left",
    ]


def test_a_resumed_run_counts_only_its_own_steps_in_the_rate():
    stream, clock = io.StringIO(), Clock()
    writer = ConsoleWriter(1000, batch_size=2, stream=stream, clock=clock)
    for step, now in [(900, 60), (900, 61), (950, 65)]:
        clock.now = now
        writer.scalars(step, {"loss": math.nan})
    writer.close()
    assert stream.getvalue().splitlines()[-1] == (
        "step 950/1,000, 95 %, loss nan, 20 examples/s, 0:05 left"
    )


def test_on_a_terminal_one_line_is_replaced(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Terminal(), Clock()
    writer = ConsoleWriter(100, batch_size=5, stream=stream, clock=clock)
    for step in [10, 60]:
        clock.now += 5
        writer.scalars(step, {"loss": 0.5})
    writer.close()
    writer.close()
    first, second = stream.getvalue().split("\r")[1:]
    assert first == "step 10/100, 10 %, loss 0.5\x1b[K"
    assert second == "step 60/100, 60 %, loss 0.5, 50 examples/s, 0:04 left\x1b[K\n"
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    ConsoleWriter(100, batch_size=5, stream=stream).scalars(50, {"loss": 0.5})
    assert stream.getvalue() == "step 50/100, 50 %, loss 0.5\n"


# Tables


def test_a_table_in_a_pipe_has_no_limit_and_on_a_terminal_its_width(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    rows = [["jaxml", jnp.float32(0.4251), "many words " * 9]]
    for stream, longest in ((io.StringIO(), 118), (Terminal(), 60)):
        table("All held-out aliases", ["method", "P@1", "note"], rows, stream=stream)
        title, _, *lines = stream.getvalue().splitlines()
        assert title == "All held-out aliases" and "0.4251" in lines[1]
        assert longest - 10 < max(map(len, lines)) <= longest


def test_progress_is_a_line_of_a_terminal_and_nothing_in_a_pipe(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    quiet, terminal = io.StringIO(), Terminal()
    assert list(progress(range(3), "round", stream=quiet)) == [0, 1, 2] and not quiet.getvalue()
    assert list(progress("ab", "letter", stream=terminal)) == ["a", "b"]
    first, second, cleared = terminal.getvalue().split("\r")[1:]
    assert first == "letter 1 of 2\x1b[K" and cleared == "\x1b[K"
    assert second.startswith("letter 2 of 2, 0:00 left")


# Manners


def test_importing_reports_imports_nothing_heavy_and_no_device():
    program = (
        "import sys, jaxml.reports; "
        "print([name for name in ('matplotlib', 'tensorboardX', 'jax') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
