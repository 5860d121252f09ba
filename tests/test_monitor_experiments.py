"""The monitor's experiments from their command lines, in a size of seconds."""

import dataclasses
import json

import pytest

from experiments import monitor_overhead
from experiments.gradient_clinic import __main__ as gradient_clinic
from experiments.gradient_clinic import patients
from experiments.monitor_bed import __main__ as monitor_bed
from experiments.monitor_bed import curves, report
from experiments.monitor_bed.programs import PROGRAMS
from jaxml import monitor


def test_programs_name_symptoms_that_there_are():
    for program in PROGRAMS.values():
        assert {*program.symptoms, *program.also} <= set(monitor.SYMPTOMS)
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
    sick = report.judge(program, 0.5, [finding])
    assert (sick["label"], sick["hit"], sick["wrong"], sick["step"]) == ("sick", True, [], 0)
    well = report.judge(program, 0.99, [finding])
    assert (well["label"], well["wrong"]) == ("healthy", ["dead_relu"])
    assert report.judge(program, 0.7, [])["label"] == "unclear"
    assert report.judge(PROGRAMS["healthy_digits"], 0.1, [])["label"] == "unclear"


def test_the_bed_runs(tmp_path, capsys):
    path = tmp_path / "rows.json"
    arguments = ["--programs", "diverge_line", "--seeds", "0", "--early", "--json", str(path)]
    assert monitor_bed.main(arguments) == 0
    written = json.loads(path.read_text())
    (row,) = written["runs"]
    assert row["label"] == "sick" and row["hit"] and row["early"] in (30, 75, 150)
    assert written["summary"]["shares"]["gradient faults recognised"] == [1, 1]
    assert monitor_bed.main(["--programs", "nothing"]) == 2


def test_curves_of_known_kind_are_told_apart(tmp_path, capsys):
    path = tmp_path / "curves.json"
    assert monitor_bed.main(["--curves", "8", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["curves"]
    assert {row["family"] for row in rows} == set(curves.FAMILIES)
    sick = [row for row in rows if row["symptoms"]]
    healthy = [row for row in rows if not row["symptoms"]]
    assert len(sick) == 11 and len(healthy) == 10
    assert sum(row["recognised"] for row in sick) >= 0.9 * 8 * len(sick)
    assert sum(row["nothing_wrong_said"] for row in healthy) >= 0.98 * 8 * len(healthy)
    for row in rows:
        assert set(row["said"]) <= set(monitor.SYMPTOMS)


def test_patients_take_every_change():
    recipe = patients.PATIENTS["forgetful"]
    for symptom in monitor.SYMPTOMS:
        finding = monitor.Finding(symptom, 0, "a", "error", {}, "", "")
        for tried in ([], [monitor.remedy(finding)]):
            remedy = monitor.remedy(finding, tried=tried)
            if remedy.data != "check_labels" and remedy.changes():
                known = patients.apply(remedy, recipe)
                assert known != recipe or remedy.changes() in ({"data": "shuffle"},)


@pytest.mark.parametrize("name", patients.PATIENTS)
def test_patients_have_data(name):
    given = patients.problem(patients.PATIENTS[name], 0)
    assert len(given.given[0]) == len(given.given[1]) and len(given.clean[0])


def test_the_clinic_helps(tmp_path, capsys):
    assert gradient_clinic.main(["--patients", "too_slow", "--run-dir", str(tmp_path / "run")]) == 0
    (row,) = json.loads((tmp_path / "run" / "treatments.json").read_text())
    assert row["symptoms"] == ["learning_rate_too_low"] and row["helped"]
    assert gradient_clinic.main(["--patients", "nobody"]) == 2


def test_trusted_examples_tell_whether_the_data_is_at_fault():
    wrong = patients.PATIENTS["mislabelled"]
    assert patients.trust(wrong, 0).trusted_only
    hopeless = dataclasses.replace(wrong, learning_rate=1e-9)
    assert not patients.trust(hopeless, 0).trusted_only


def test_the_overhead_is_measured(tmp_path, capsys):
    path = tmp_path / "rows.json"
    small = ["--widths", "16", "--num-features", "8", "--batch", "16", "--steps", "2"]
    assert monitor_overhead.main([*small, "--rounds", "2", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())
    assert rows[0]["ratio"] == 1 and all(len(row["samples_ms"]) == 2 for row in rows)
