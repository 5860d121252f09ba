"""The monitor's experiments from their command lines, in a size of seconds."""

import dataclasses
import json

import pytest

from experiments import monitor_overhead
from experiments.gradient_clinic import __main__ as gradient_clinic
from experiments.gradient_clinic import cases
from experiments.monitor_bed import __main__ as monitor_bed
from experiments.monitor_bed import curves, report
from experiments.monitor_bed.programs import PROGRAMS
from jaxml import monitor


def test_programs_can_be_made_and_name_symptoms_that_there_are():
    for program in PROGRAMS.values():
        assert {*program.symptoms, *program.also} <= set(monitor.SYMPTOMS)
        assert program.good > program.bad
        run = program.make(0)
        x, y = run.data
        assert len(x) == len(y) and run.num_steps * run.batch_size > 0
        assert (run.validation_data is not None) == program.name.startswith("overfit")
    assert sum(not program.symptoms for program in PROGRAMS.values()) >= 15


def test_a_program_is_judged_by_its_outcome():
    program = PROGRAMS["dead_15"]
    finding = monitor.Finding("dead_relu", 0, "a", "error", {}, "")
    faulty = report.judge(program, 0.5, [finding])
    assert (faulty["label"], faulty["recognised"], faulty["false_alarms"]) == ("faulty", True, [])
    healthy = report.judge(program, 0.99, [finding])
    assert (healthy["label"], healthy["false_alarms"]) == ("healthy", ["dead_relu"])
    assert report.judge(program, 0.7, [])["label"] == "unclear"
    assert report.judge(PROGRAMS["healthy_digits"], 0.1, [])["label"] == "unclear"


def test_programs_are_trained_and_their_histories_kept(tmp_path, capsys):
    arguments = ["--programs", "diverge_line", "--seeds", "0"]
    arguments += ["--histories", str(tmp_path / "histories")]
    for run in (tmp_path / "first", tmp_path / "second"):
        assert monitor_bed.main([*arguments, "--run-dir", str(run)]) == 0
        record = json.loads((run / "results.json").read_text())
        (row,) = record["runs"]
        assert row["label"] == "faulty" and row["recognised"] and "history" not in row
        assert record["summary"]["shares"]["gradient faults recognised"] == [1, 1]
    assert len([*(tmp_path / "histories").iterdir()]) == 1
    with pytest.raises(SystemExit):
        monitor_bed.main(["--programs", "nothing"])
    assert "diverge_line" in capsys.readouterr().err


def test_curves_of_known_kind_are_told_apart(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert monitor_bed.main(["--curves", "4", "--run-dir", str(tmp_path)]) == 0
    rows = json.loads(path.read_text())["curves"]
    assert {row["family"] for row in rows} == set(curves.FAMILIES)
    faulty = [row for row in rows if row["symptoms"]]
    healthy = [row for row in rows if not row["symptoms"]]
    assert len(faulty) == 11 and len(healthy) == 10
    assert sum(row["recognised"] for row in faulty) >= 0.9 * 4 * len(faulty)
    assert sum(row["no_false_alarm"] for row in healthy) >= 0.98 * 4 * len(healthy)


def test_cases_take_every_change():
    recipe = dataclasses.replace(cases.CASES["forgetful"], weight_decay=0.1)
    for symptom in monitor.SYMPTOMS:
        finding = monitor.Finding(symptom, 0, "a", "error", {}, "")
        for tried in ([], [monitor.remedy(finding)]):
            remedy = monitor.remedy(finding, tried=tried)
            # Recipes have no frozen layers.
            if remedy.data not in ("check_labels", "shuffle") and not remedy.unfreeze:
                assert cases.apply_remedy(remedy, recipe) != recipe


def test_cases_have_data():
    for recipe in cases.CASES.values():
        given = cases.problem(recipe, 0)
        assert len(given.given[0]) == len(given.given[1]) and len(given.clean[0])


def test_a_remedy_helps(tmp_path, capsys):
    assert gradient_clinic.main(["--cases", "too_slow", "--run-dir", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    (row,) = record["rows"]
    assert row["symptoms"] == ["learning_rate_too_low"] and row["helped"] and record["helped"] == 1
    with pytest.raises(SystemExit):
        gradient_clinic.main(["--cases", "nobody"])
    assert "too_slow" in capsys.readouterr().err


@pytest.mark.slow
def test_trusted_examples_decide_whether_the_data_are_at_fault():
    wrong = cases.CASES["mislabelled"]
    assert cases.trust(wrong, 0).trusted_only
    hopeless = dataclasses.replace(wrong, learning_rate=1e-9)
    assert not cases.trust(hopeless, 0).trusted_only


@pytest.mark.slow
def test_the_overhead_is_measured(tmp_path, capsys):
    path = tmp_path / "results.json"
    small = ["--widths", "16", "--num-features", "8", "--batches", "16", "--steps", "2"]
    small += ["--depth", "1", "--repeats", "1", "--rounds", "2", "--run-dir", str(path.parent)]
    assert monitor_overhead.main(small) == 0
    rows = json.loads(path.read_text())
    steps = [row for row in rows if row["kind"] == "step"]
    assert steps[0]["ratio"] == 1 and all(len(row["samples_ms"]) == 2 for row in steps)
    programs = {(row["program"], row["variant"]): row for row in rows if row["kind"] == "program"}
    assert programs["step", "bare"]["cpu_s_ratio"] == 1
    lines = programs["step", "guard"]["hlo_lines"]
    assert (
        programs["optimizer", "guard"]["hlo_lines"]
        < lines
        < programs["step", "guard and recorder"]["hlo_lines"]
    )
