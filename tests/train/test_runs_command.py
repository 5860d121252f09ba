"""The command that lists runs, compares their losses and prints their findings."""

import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import monitor, reports, train
from jaxml.reports import rundir
from jaxml.train import __main__ as command

DEAD = monitor.Finding(
    "dead_relu", 1_200, "hidden_0", "error", {"dead": 1.0}, "the rate is too high", "lower the rate"
)
ENVIRONMENT = {"device": "TPU v5", "jax": "0.10.0", "commit": "0123456789abcdef" + "+"}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three finished runs of one experiment, of which the last diverged, and a run of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rundir, "environment", lambda: ENVIRONMENT)
    made = []
    for i, rate in enumerate((0.01, 0.1, 1.0)):
        run = rundir.create(
            "digits",
            {"optimizer": {"learning_rate": rate, "decay": 0.9}, "seed": 0, "run_dir": None},
            path=f"runs/digits/20260101-00000{i}",
        )
        losses = 3.0 * np.exp(-rate * np.arange(50)) + 0.5
        losses[30:] = np.nan if rate == 1 else losses[30:]
        held = [np.nan] * 3 if rate == 1 else [3.6, 0.25 + rate, 0.5 + rate]
        rundir.record(
            run,
            loss_curve=losses,
            validation_steps=[0, 25, 50],
            validation_curve=held,
            findings=[DEAD, DEAD._replace(symptom="loss_stuck", step=1_300)] * (rate == 1),
        )
        made.append(started_at(run, f"2026-01-01T00:00:0{i}"))
    stopped = rundir.create("geonames", {"dim": 128}, path="runs/geonames/20250101-000000")
    writer = reports.JsonlWriter(stopped / "metrics.jsonl")
    writer.scalars(2_000, {"loss": 1.2345678, "examples_per_second": 9.0})
    writer.scalars(2_000, {"validation_loss": 1.5})
    writer.close()
    return [*made, started_at(stopped, "2025-01-01T00:00:00")]


def started_at(run, started):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"started": started}))
    return run


def cells(text):
    """Returns the rows of a printed table by the name of their run."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0]: row for row in rows if row and row[0].startswith("runs/")}


def test_a_table_of_all_runs_the_newest_last(runs, capsys):
    assert command.main([]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.startswith("4 runs\n")
    rows = cells(printed.out)
    assert [*rows] == ["runs/geonames/20250101-000000"] + [
        f"runs/digits/20260101-00000{i}" for i in range(3)
    ]
    old, slow, *_, dead = (" ".join(row[1:]) for row in rows.values())
    assert old == "2025-01-01 00:00 running 2,000 1.235 1.5 at step 2,000 –"
    assert slow == "2026-01-01 00:00 finished 50 2.338 0.26 at step 25 none"
    assert dead == "2026-01-01 00:00 finished 50 nan – dead relu, step 1,200"


def test_a_run_named_twice_is_listed_once(runs, capsys):
    assert command.main(["runs/digits", str(runs[0]), "runs/digits/../digits"]) == 0
    assert capsys.readouterr().out.startswith("3 runs\n")
    assert command.main([str(runs[0])]) == 0
    assert capsys.readouterr().out.startswith("1 run\n")


def test_damage_is_listed_with_its_reason(runs, capsys):
    (runs[0] / "run.json").write_text("{")
    (runs[1] / "metrics.jsonl").write_bytes(b"\0\n")
    assert command.main(["runs"]) == 0
    printed = capsys.readouterr()
    statuses = sorted(row[3] for row in cells(printed.out).values())
    assert statuses == ["damaged", "damaged", "finished", "running"]
    assert "damaged: runs/digits/20260101-000000: run.json is damaged" in printed.err
    assert "damaged: runs/digits/20260101-000001: metrics.jsonl, line 1" in printed.err
    assert command.main(["runs", "--plot", "all.png"]) == 0  # The rest of them is drawn.


def test_curves_are_compared_in_one_picture(runs, tmp_path, capsys, monkeypatch):
    given = {}
    draw = reports.plots.loss_curves

    def note(curves, **options):
        given.update(curves)
        draw(curves, **options)

    monkeypatch.setattr(reports.plots, "loss_curves", note)
    assert command.main(["runs/digits", "--plot", "compare.png"]) == 0
    assert capsys.readouterr().out == "picture: compare.png\n"
    assert (tmp_path / "compare.png").read_bytes()[1:4] == b"PNG"
    assert [*given] == [
        f"20260101-00000{i}: optimizer.learning_rate {rate}"
        for i, rate in enumerate(("0.01", "0.1", "1"))
    ]
    steps, losses, held_steps, held = given["20260101-000001: optimizer.learning_rate 0.1"]
    assert len(steps) == len(losses) == 50
    assert held_steps.tolist() == [0, 25, 50] and held.tolist() == [3.6, 0.35, 0.6]
    rundir.record(rundir.create("x", {}, path="lost"), loss_curve=[np.nan])
    assert command.main(["runs", "lost", "--plot", "compare.png"]) == 0
    assert capsys.readouterr().err == "left out, no finite loss: lost\n"


def test_labels_are_distinct_and_name_the_differing_settings(runs):
    read = [rundir.read(run) for run in runs]
    assert command.labels(read[:1]) == ["runs/digits/20260101-000000"]
    assert command.labels([read[0], read[3]]) == [
        "digits/20260101-000000: optimizer.learning_rate 0.01, optimizer.decay 0.9, seed 0, dim –",
        "geonames/20250101-000000: optimizer.learning_rate –, optimizer.decay –, seed –, dim 128",
    ]
    # Too many settings differ.
    many = [
        rundir.read(rundir.create("x", {name: i for name in "abcde"}, path=f"many{i}"))
        for i in range(2)
    ]
    assert command.labels(many) == ["many0", "many1"]


def test_findings_are_printed_in_full_with_the_first_changes(runs, capsys):
    assert command.main([str(runs[2]), "--findings"]) == 0
    name, first, second, change = capsys.readouterr().out.splitlines()
    assert name == "runs/digits/20260101-000002 (finished):"
    assert first == f"  {DEAD}"
    assert "remedy: lower the rate" in first and "loss stuck" in second
    assert change.startswith("  change first: learning_rate_factor 0.1, ")
    assert command.main([str(runs[0]), "--findings"]) == 0
    assert capsys.readouterr().out == "runs/digits/20260101-000000 (finished): no findings\n"
    assert command.main([str(runs[3]), "--findings"]) == 0
    assert capsys.readouterr().out.endswith("(running): nothing was looked for\n")
    rundir.record(runs[0], loss_curve=(), findings=[DEAD._replace(symptom="of_another_version")])
    assert command.main([str(runs[0]), "--findings"]) == 0
    assert "of another version in `hidden_0`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "none"], "none: no such directory"),
        (["empty"], "empty: no run in it"),
        (["runs/digits/20260101-000000/run.json"], "is no directory"),
        (["lost", "--plot", "a.png"], "none of the runs has a finite loss to draw"),
        (["runs", "--plot", "none/a.png"], "--plot must be in an existing directory"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(runs, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    lost = rundir.create("x", {}, path="lost")
    rundir.record(lost, loss_curve=[np.nan])
    assert command.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ")
    assert message in printed.err and printed.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "lost", "runs"]


def test_a_fit_with_checkpoints_is_a_run(tmp_path, monkeypatch, capsys):
    """Also when it is continued; a training that is refused changes nothing."""
    monkeypatch.chdir(tmp_path)
    x = np.linspace(-1, 1, 32)[:, None]

    def fit(num_steps, rate=0.1):
        with train.Checkpoints("mine", every=10) as kept:
            train.fit(
                nn.Dense(1), lambda outputs, y: jnp.square(outputs - y), optax.sgd(rate), (x, x),
                num_steps=num_steps, batch_size=16, key=0, monitor=False, checkpoints=kept,
            )  # fmt: skip

    for num_steps in (20, 40):
        fit(num_steps)
        run = rundir.read("mine")
        assert (run.status, run.num_steps, run.findings) == ("finished", num_steps, None)
        assert len(run.losses) == num_steps and run.config["batch_size"] == 16
    with pytest.raises(train.checkpoint.CheckpointError):
        fit(60, rate=0.2)
    assert rundir.read("mine").status == "finished"
    assert command.main(["mine"]) == 0 and "finished" in capsys.readouterr().out
