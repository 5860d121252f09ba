"""Findings in loss curves: beside the random families of `experiments.monitor_bed`, and the command."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.monitor_bed import curves
from jaxml import monitor
from jaxml.monitor import __main__ as command


def symptoms(*curves):
    return {finding.symptom for finding in monitor.diagnose_loss_curve(*curves)}


def decay(rng, number, *, low=0.3, noise=0.05):
    fall = np.exp(-np.arange(number) / (number * rng.uniform(0.05, 0.2)))
    return (low + rng.uniform(1, 4) * fall) * np.exp(noise * rng.normal(size=number))


def new_objective(rng):
    curve = decay(rng, int(rng.choice([80, 150, 400, 1500])), low=0.5)
    half = len(curve) // 2
    curve[half:] += 0.6 * np.exp(-np.arange(len(curve) - half) / (0.08 * len(curve)))
    return curve


HEALTHY = {
    "without noise": lambda rng: decay(rng, int(rng.integers(80, 1500)), noise=1e-6),
    "new objective": new_objective,
    "short": lambda rng: decay(rng, int(rng.integers(3, 30))),
}


@pytest.mark.parametrize("family", HEALTHY)
def test_healthy_curves_have_no_findings(family):
    for seed in range(12):
        assert symptoms(HEALTHY[family](np.random.default_rng(seed))) == set(), seed


def test_the_scale_of_the_loss_does_not_matter():
    for make in (curves.diverges, curves.burst, curves.repeats, curves.alternates, curves.stuck):
        losses = make(np.random.default_rng(0)).losses
        found = symptoms(losses)
        assert found and symptoms(1e-6 * losses) == symptoms(1e6 * losses) == found


def test_overfitting_begins_at_the_lowest_point():
    steps = np.linspace(0, 1, 400)
    training = 2 * np.exp(-steps / 0.1) + 0.02
    validation = 2 * np.exp(-steps[::10] / 0.1) + 0.5 + np.maximum(steps[::10] - 0.5, 0)
    (finding,) = monitor.diagnose_loss_curve(training, validation)
    assert finding.symptom == "overfitting" and 150 < finding.step < 260
    assert monitor.diagnose_loss_curve(training, validation[:20]) == []


def test_a_validation_that_follows_is_healthy():
    steps = np.linspace(0, 1, 400)
    training = 2 * np.exp(-steps / 0.1) + 0.1
    assert symptoms(training, training[::10] * 1.2) == set()


def test_a_few_nans_and_a_lasting_one_are_told_apart():
    curve = decay(np.random.default_rng(0), 200)
    curve[[60, 90]] = np.nan
    (finding,) = monitor.diagnose_loss_curve(curve)
    assert finding.evidence["points"] == 2 and finding.severity == "warning"


@pytest.mark.parametrize("wrong", [[], [[1.0, 2.0]]])
def test_curves_have_one_dimension(wrong):
    with pytest.raises(ValueError, match="losses"):
        monitor.diagnose_loss_curve(wrong)


def table(separator, header=True):
    losses = [str(0.1 * 1.05**step) for step in range(300)]
    if separator == ";":
        losses = [loss.replace(".", ",") for loss in losses]
    rows = [separator.join([str(step), loss]) for step, loss in enumerate(losses)]
    return "\n".join([separator.join(["step", "loss"])] * header + rows)


FILES = {
    "commas": table(","),
    "semicolons": table(";"),
    "tabs": table("\t"),
    "spaces": table("   "),
    "no header": table(",", header=False),
    "an index without a name": "\n".join([",loss", *(f"{i},{0.1 * 1.05**i}" for i in range(300))]),
    "an index without a name, tabs": "\n".join(
        ["\tloss\tlr", *(f"{i}\t{0.1 * 1.05**i}\t0.1" for i in range(300))]
    ),
    "other names": "\n".join(
        [
            "Step,Training Loss,Validation Loss,Accuracy",
            *(f"{i},{0.1 * 1.05**i},,0.5" for i in range(300)),
        ]
    ),
    "names of a board": "\n".join(["train/loss,lr", *(f"{0.1 * 1.05**i},0.1" for i in range(300))]),
    "an object of lists": json.dumps({"loss": [0.1 * 1.05**i for i in range(300)], "lr": [0.1]}),
    "a list of objects": json.dumps([{"loss": 0.1 * 1.05**i} for i in range(300)]),
    "objects": "\n".join(f'{{"step": {i}, "loss": {0.1 * 1.05**i}}}' for i in range(300)),
}


@pytest.mark.parametrize("name", FILES)
def test_the_command_reads_a_file(name, tmp_path, capsys):
    path = tmp_path / "losses"
    path.write_text(FILES[name])
    assert command.main([str(path)]) == 1
    assert "loss divergence" in capsys.readouterr().out


def test_the_command_takes_empty_cells_and_text_for_nan(tmp_path, capsys):
    path = tmp_path / "losses.csv"
    path.write_text("epoch,loss,val_loss\n0,1.0,1.5\n1,,\n2,0.8,\n3,,1.2")
    losses, validation = command.read(path)
    np.testing.assert_array_equal(losses, [1.0, np.nan, 0.8])
    np.testing.assert_array_equal(validation, [1.5, 1.2])
    path.write_text(
        '{"step": 0, "loss": 1.0}\n{"step": 1, "loss": "NaN"}\n{"step": 1, "accuracy": 0.5}'
    )
    np.testing.assert_array_equal(command.read(path)[0], [1.0, np.nan])
    assert command.main([str(path)]) == 1 and "non finite" in capsys.readouterr().out


def test_the_command_without_findings_and_without_numbers(tmp_path):
    path = tmp_path / "losses.csv"

    def run():
        arguments = [sys.executable, "-m", "jaxml.monitor", str(path)]
        return subprocess.run(arguments, capture_output=True, text=True)

    path.write_text("loss\n" + "\n".join(map(str, decay(np.random.default_rng(0), 300))))
    done = run()
    assert (done.returncode, done.stdout.strip()) == (0, "nothing found")
    for content in (b"word\nno number", b"step,loss\n0,high\n1,low", b"\xff\xfel\0o\0", b"[1, 2]"):
        path.write_bytes(content)
        done = run()
        assert done.returncode == 2 and done.stderr.startswith(f"error: {path}")
