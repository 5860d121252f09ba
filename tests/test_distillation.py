"""The distillation experiment, on few images and with tiny networks."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments.distillation import __main__ as experiment
from experiments.distillation import candidate, judging, problems, study
from experiments.distillation.study import Arm
from jaxml import losses, serving
from jaxml.serving import candidate as candidates

TINY = dataclasses.replace(
    problems.PROBLEMS["digits"], shift=0.5, teacher=(32,), student=(8,), teacher_steps=300,
    student_steps=600,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "PROBLEMS", {"digits": TINY})
        options = ["--seeds", "2", "--members", "2", "--temperatures", "1", "4"]
        assert experiment.main([*options, "--run-dir", str(place)]) == 0
    return place


def test_a_run_leaves_record_picture_and_candidate(run):
    record = json.loads((run / "results.json").read_text())["digits"]
    assert [row["student"] for row in record["students"]] == [
        "labels alone", "teacher, T = 1", "teacher, T = 4",
    ]  # fmt: skip
    assert sum(row["chosen"] for row in record["students"]) == 1
    for row in record["students"]:
        low, high = row["accuracy interval"]
        assert low <= row["accuracy"] <= high and row["accuracy"] > 0.5 and row["KL"] >= 0
    assert [each["class"] for each in record["omitted"]] == [*range(10), 3]
    assert record["teacher"]["parameters"] == 2 * (64 * 32 + 32 + 32 * 10 + 10)
    assert (run / "digits" / "students.png").read_bytes()[1:4] == b"PNG"
    assert np.load(run / "digits" / "teacher.npy").shape == (2, 1797, 10)
    found = candidates.read(run / "digits")
    bundle = serving.load(found.bundle)
    pixels = {name: column for name, column in found.held_out.items() if name.startswith("pixel")}
    right = bundle.predict(pixels)["digit"][:, 0] == found.held_out["digit"].astype(str)
    assert right.mean() > 0.5
    assert [each.kind for each in bundle.check({**pixels, "pixel 07": np.full(900, 99.0)})] != []


@pytest.mark.slow
def test_students_of_one_program_are_those_trained_alone():
    """Whatever is taught beside it, a student of a seed is the same; the teacher may be exact."""
    images = problems.load(TINY)
    members = np.random.default_rng(0).normal(size=(1, len(images.x), 10)).astype(np.float32)
    some = Arm(0.5, 3.0)
    together = study.train_students(TINY, images, members, [Arm(0.0, 1.0), some], 2, 20)
    alone = study.train_students(TINY, images, members, [some], 2, 20)
    np.testing.assert_allclose(together.logits[:, 1], alone.logits[:, 0], atol=1e-4)
    start = jax.tree.leaves(together.variables)[0]
    assert not np.allclose(start[0], start[1])


def test_a_left_out_class_is_not_seen():
    images = problems.load(TINY)
    members = np.zeros((1, len(images.x), 10), np.float32)
    rows = images.train[images.y[images.train] == 3]
    changed = images.x.copy()
    changed[rows] = 9.0
    other = dataclasses.replace(images, x=changed)
    arms = [Arm(1.0, 2.0, 3)]
    logits = [
        study.train_students(TINY, each, members, arms, 1, 10).logits[:, :, images.test]
        for each in (images, other)
    ]
    np.testing.assert_array_equal(*logits)


def test_figures_by_hand():
    labels, teacher = np.array([0, 1]), np.array([[2.0, 0.0], [0.0, 2.0]])
    logits = np.stack([teacher, teacher[::-1]])
    found = judging.figures(logits, logits[:1], teacher, labels)
    assert found["accuracy"] == found["agreement"] == 0.5 and found["gain"] == -0.5
    wanted = np.mean(losses.soft_targets(teacher[::-1], teacher)) / 2
    np.testing.assert_allclose(found["KL"], wanted, rtol=1e-5)
    low, high = judging.interval(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose([low, high], [2 - 2.4841, 2 + 2.4841], rtol=1e-4)


def test_columns_are_pixels():
    columns = candidate.columns(TINY, np.full((1, 64), 0.5, np.float32))
    assert list(columns)[7] == "pixel 07" and columns["pixel 07"] == [8.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperatures", "4", "0"], "a temperature must be a finite number above 0, got 0"),
        (["--omitted-temperature", "-1"], "a temperature must be a finite number above 0, got -1"),
        (["--seeds", "1"], "seeds must be an integer of at least 2, got 1"),
    ],
)
def test_bad_options_are_one_line(options, message, tmp_path, capsys):
    assert experiment.main([*options, "--run-dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1
