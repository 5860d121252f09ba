"""What a run leaves to be published is what is read."""

import json

import numpy as np
import pytest

from jaxml import reports, serving
from jaxml.serving import candidate

GATE = serving.Gate(
    task="binary",
    label="late",
    output="probability",
    thresholds=(
        serving.Threshold("roc_auc", bound=0.7, change=0.01),
        serving.Threshold("log_loss", relative_change=0.1, by="origin", values=("EWR", "JFK")),
        serving.Threshold("latency_ms", bound=50),
    ),
    baseline="baseline",
    group="day",
)


@pytest.fixture
def held_out(flights):
    columns, late = flights(60, seed=2)
    day = np.repeat(np.arange(np.datetime64("2013-11-01"), np.datetime64("2013-11-07")), 10)
    return {**columns, "late": late, "day": day, "baseline": columns["hour"] / 24}


def test_what_is_left_is_what_is_read(tmp_path, held_out, flights, logistic):
    run = tmp_path / "run"
    arguments = logistic(*flights())
    with reports.rundir.running("flights", {}, path=run):
        serving.leave(run / "early", held_out=held_out, gate=GATE, **arguments)
        serving.leave(run / "early", held_out=held_out, gate=GATE, **arguments)  # Resumed.
        with pytest.raises(candidate.CandidateError, match="this one is running"):
            candidate.read(run / "early")
    found = candidate.read(run / "early")
    assert found.gate == GATE
    assert list(found.held_out) == list(held_out)
    for name, values in held_out.items():
        np.testing.assert_array_equal(found.held_out[name], values)
    assert serving.load(found.bundle).columns == ("origin", "distance", "wind", "hour")
    with pytest.raises(candidate.CandidateError, match="no candidate"):
        candidate.read(run)
    with pytest.raises(reports.RunDirectoryError, match="is no run"):
        candidate.read(tmp_path)
    gate = run / "early" / "candidate" / "gate.json"
    content = json.loads(gate.read_text())
    for wrong in ({**content, "task": "ternary"}, {"task": "binary"}, {**content, "k": 3}, [], "x"):
        gate.write_text(json.dumps(wrong))
        with pytest.raises(candidate.CandidateError, match="cannot be read") as caught:
            candidate.read(run / "early")
        assert "\n" not in str(caught.value)


def test_a_gate_that_the_rows_cannot_serve_is_refused(tmp_path, held_out, flights, logistic):
    arguments = logistic(*flights())
    for name in ("late", "day", "baseline", "origin", "wind"):
        few = {key: each for key, each in held_out.items() if key != name}
        with pytest.raises(ValueError, match=name):
            serving.leave(tmp_path, held_out=few, gate=GATE, **arguments)
    none = {key: each[:0] for key, each in held_out.items()}
    with pytest.raises(ValueError, match="must have rows"):
        serving.leave(tmp_path, held_out=none, gate=GATE, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_thresholds_and_gates_are_checked():
    for wrong in (
        {"metric": "roc_auc"},
        {"metric": "roc_auc", "bound": np.nan},
        {"metric": "roc_auc", "change": -0.1},
        {"metric": "roc_auc", "bound": 1, "values": ("EWR",)},
        {"metric": "size_bytes", "bound": 1, "by": "origin"},
    ):
        with pytest.raises(ValueError):
            serving.Threshold(**wrong)
    for task, metric in (("binary", "precision@1"), ("top_k", "roc_auc"), ("top_k", "recall@0")):
        with pytest.raises(ValueError, match="metric"):
            serving.Gate(task, "label", "output", (serving.Threshold(metric, bound=0.5),))
    with pytest.raises(ValueError, match="neither"):
        serving.Gate("binary", "label", "output", ())
    recall = serving.Threshold("recall@10", bound=0.5)
    assert recall.direction == 1 and serving.Threshold("brier", bound=0.5).direction == -1
    assert serving.Gate("top_k", "label", "output", (recall,)).columns == ("label",)
