"""The experiments on populations from their command lines, in a size of seconds."""

import json

import numpy as np

from experiments import batch_size, compile_time, learning_rate_and_regularization, sweep_scaling


def test_the_map_of_learning_rate_and_penalty(tmp_path, capsys, monkeypatch):
    """A cell with a rate that is far too high does not hide the others."""
    arguments = "--learning-rates 0.1 1e6 --penalties 0 0.001 --seeds 1 --num-steps 40"
    arguments += " --widths 8 --num-train 100"
    assert (
        learning_rate_and_regularization.main([*arguments.split(), "--run-dir", str(tmp_path)]) == 0
    )
    found = json.loads((tmp_path / "results.json").read_text())
    assert (
        found["sentence"] in capsys.readouterr().out and "at learning rate 0.1" in found["sentence"]
    )
    cells = {(cell["penalty"], cell["learning_rate"]): cell for cell in found["cells"]}
    assert len(cells) == 4 and cells[0.0, 0.1]["validation_loss"] < 2.3
    assert "learning_rate_too_high" in cells[0.0, 1e6]["findings"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "map.png",
        "generalization.png",
        "results.json",
        "run.json",
    }


def test_batch_sizes_take_the_same_epochs(tmp_path, capsys):
    arguments = "--batch-sizes 8 --learning-rates 0.01 0.3 --epochs 3 --num-train 160 --widths 8"
    assert batch_size.main([*arguments.split(), "--run-dir", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["batch"], row["steps"]) for row in rows] == [("batch of 8", 60), ("full batch", 3)]
    assert rows[0]["validation_loss"] < rows[1]["validation_loss"]
    assert "a batch of 8 has the lowest" in capsys.readouterr().out
    assert (tmp_path / "batch_size.png").exists()


def test_the_scaling_of_a_sweep(tmp_path, capsys):
    """It refuses to time what is not the same training; here it does not."""
    path = tmp_path / "results.json"
    arguments = "--trials 4 --widths 8 --steps 60 --rounds 2 --run-dir".split()
    assert sweep_scaling.main([*arguments, str(tmp_path)]) == 0
    rows = {row["system"]: row for row in json.loads(path.read_text())}
    assert set(rows) == {"population", "loop", "scan"}
    assert all(len(row["samples_s"]) == 2 and row["compile_s"] > 0 for row in rows.values())
    assert rows["population"]["times_population"] == 1 and rows["population"]["width"] == 4
    assert "One trial takes" in capsys.readouterr().out and np.isfinite(rows["scan"]["median_s"])


def test_compile_time_is_measured_in_processes_of_its_own(tmp_path, capsys):
    path = tmp_path / "results.json"
    arguments = ["--depth", "1", "--width", "4", "--num-steps", "20", "--run-dir", str(path.parent)]
    assert compile_time.main(arguments) == 0
    rows = json.loads(path.read_text())
    assert len(rows) == 8 and {row["process"] for row in rows} == {"first", "second"}
    for row in rows:
        assert (row["programs"] == 0) == (row["fit"] == "second")
    assert "process CPU s" in capsys.readouterr().out
