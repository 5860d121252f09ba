"""The monitor's experiments from their command lines, in a size of seconds."""

import json

import pytest

from experiments import gradient_clinic, monitor_overhead
from experiments.monitor_bed import __main__ as monitor_bed
from experiments.monitor_bed.programs import PROGRAMS
from jaxml import monitor


def test_programs_name_symptoms_that_there_are():
    for program in PROGRAMS.values():
        assert program.symptoms | program.also <= set(monitor.SYMPTOMS)
        assert program.good > program.bad
    assert sum(not program.symptoms for program in PROGRAMS.values()) >= 15
    assert len(PROGRAMS) >= 40


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_can_be_made(name):
    run = PROGRAMS[name].make(0)
    x, y = run.data
    assert len(x) == len(y) and run.num_steps * run.batch_size > 0
    assert (run.validation_data is not None) == name.startswith("overfit")


def test_a_program_is_judged_by_its_outcome():
    program = PROGRAMS["dead_15"]
    finding = monitor.Finding("dead_relu", 0, "a", "error", {}, "", "")
    sick = monitor_bed.judge(program, {"score": 0.5, "findings": [finding]})
    assert (sick["label"], sick["hit"], sick["wrong"]) == ("sick", True, [])
    well = monitor_bed.judge(program, {"score": 0.99, "findings": [finding]})
    assert (well["label"], well["wrong"]) == ("healthy", ["dead_relu"])
    assert monitor_bed.judge(program, {"score": 0.7, "findings": []})["label"] == "unclear"


def test_the_bed_runs(tmp_path, capsys):
    path = tmp_path / "rows.json"
    arguments = ["--programs", "diverge_line", "--seeds", "0", "--json", str(path)]
    assert monitor_bed.main(arguments) == 0
    (row,) = json.loads(path.read_text())
    assert row["label"] == "sick" and row["hit"]
    assert monitor_bed.main(["--programs", "nothing"]) == 2


def test_the_clinic_helps(tmp_path, capsys):
    assert gradient_clinic.main(["--patients", "too_slow", "--run-dir", str(tmp_path / "run")]) == 0
    (row,) = json.loads((tmp_path / "run" / "treatments.json").read_text())
    assert row["symptoms"] == ["learning_rate_too_low"] and row["helped"]
    assert gradient_clinic.main(["--patients", "nobody"]) == 2


def test_the_overhead_is_measured(tmp_path, capsys):
    path = tmp_path / "rows.json"
    small = ["--widths", "16", "--num-features", "8", "--batch", "16", "--steps", "2"]
    assert monitor_overhead.main([*small, "--rounds", "2", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())
    assert rows[0]["ratio"] == 1 and all(len(row["samples_ms"]) == 2 for row in rows)
