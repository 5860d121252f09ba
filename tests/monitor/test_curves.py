"""Loss curves: families of healthy and faulty ones, drawn at random, and the findings in each."""

import subprocess
import sys

import numpy as np
import pytest

from jaxml import monitor
from jaxml.monitor import __main__ as command

SEEDS = range(12)


def symptoms(*curves):
    return {finding.symptom for finding in monitor.diagnose_loss_curve(*curves)}


def decay(rng, number, *, low=None, noise=0.05):
    steps = np.arange(number)
    low = rng.uniform(0.02, 1) if low is None else low
    fall = np.exp(-steps / (number * rng.uniform(0.05, 0.2)))
    return (low + rng.uniform(1, 4) * fall) * np.exp(noise * rng.normal(size=number))


def number(rng):
    return int(rng.choice([80, 150, 400, 1500]))


def plateau_first(rng):
    n = number(rng)
    steps = np.arange(n) / n
    fall = np.where(steps < 0.4, 2.3, 2.3 * np.exp(-(steps - 0.4) / 0.1) + 0.1)
    return fall * np.exp(0.05 * rng.normal(size=n))


def warm_up(rng):
    curve = decay(rng, number(rng))
    rise = len(curve) // 15
    curve[:rise] *= 1 + 0.3 * np.sin(np.linspace(0, np.pi, rise))
    return curve


def drops(rng):
    curve = decay(rng, number(rng))
    curve[len(curve) // 2 :] *= 0.5
    curve[3 * len(curve) // 4 :] *= 0.7
    return curve


def new_objective(rng):
    curve = decay(rng, number(rng), low=0.5)
    half = len(curve) // 2
    steps = np.arange(len(curve) - half)
    curve[half:] += 0.6 * np.exp(-steps / (0.08 * len(curve)))
    return curve


HEALTHY = {
    "decay": lambda rng: decay(rng, number(rng)),
    "noisy": lambda rng: decay(rng, number(rng), noise=0.3),
    "without noise": lambda rng: decay(rng, number(rng), noise=1e-6),
    "plateau first": plateau_first,
    "warm-up": warm_up,
    "rate drops": drops,
    "new objective": new_objective,
    "short": lambda rng: decay(rng, int(rng.integers(3, 30))),
}


def alternating(rng):
    curve = decay(rng, number(rng), noise=0.03)
    return curve * (1 + rng.uniform(0.3, 0.8) * (-1.0) ** np.arange(len(curve)))


def sawtooth(rng):
    n = max(150, number(rng))
    period = int(rng.integers(10, n // 6))
    return decay(rng, n, low=1.0) * (1.5 - (np.arange(n) % period) / period)


def exploding(rng):
    n = number(rng)
    curve = 1 + np.exp(np.linspace(-2, rng.uniform(2, 15), n))
    return curve * np.exp(0.05 * rng.normal(size=n))


def turning(rng):
    curve = decay(rng, number(rng))
    begin = len(curve) // 2
    curve[begin:] += np.expm1(np.linspace(0, rng.uniform(2, 5), len(curve) - begin))
    return curve


def burst(rng):
    curve = decay(rng, number(rng))
    begin, width = int(len(curve) * rng.uniform(0.4, 0.8)), max(3, len(curve) // 40)
    curve[begin : begin + width] += rng.uniform(4, 20) * np.median(curve)
    return curve


def nan_at_once(rng):
    curve = decay(rng, number(rng))
    curve[int(len(curve) * rng.uniform(0.1, 0.9)) :] = np.nan
    return curve


FAULTY = {
    "alternating": ("loss_oscillation", alternating),
    "sawtooth": ("repetitive_data", sawtooth),
    "exploding": ("loss_divergence", exploding),
    "turning": ("loss_divergence", turning),
    "burst": ("loss_jump", burst),
    "nan": ("non_finite", nan_at_once),
    "flat": ("loss_stuck", lambda rng: 2.3 * np.exp(0.02 * rng.normal(size=number(rng)))),
    "line": (
        "learning_rate_too_low",
        lambda rng: np.linspace(2.3, 2.1, number(rng)) + 0.005 * rng.normal(),
    ),
}


@pytest.mark.parametrize("family", HEALTHY)
def test_healthy_curves_have_no_findings(family):
    for seed in SEEDS:
        assert symptoms(HEALTHY[family](np.random.default_rng(seed))) == set(), seed


@pytest.mark.parametrize("family", FAULTY)
def test_faults_are_named_and_nothing_else(family):
    symptom, make = FAULTY[family]
    found = [symptoms(make(np.random.default_rng(seed))) for seed in SEEDS]
    assert sum(each == {symptom} for each in found) >= len(SEEDS) - 1, found


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter(factor):
    for _, make in FAULTY.values():
        curve = make(np.random.default_rng(0))
        assert symptoms(factor * curve) == symptoms(curve)


def test_the_period_is_given():
    curve = 1.5 - (np.arange(600) % 40) / 40 + 0.01 * np.random.default_rng(0).normal(size=600)
    (finding,) = monitor.diagnose_loss_curve(curve)
    assert finding.evidence["period"] == 40


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
    "no header": table(",", header=False),
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
    path.write_text("word\nno number")
    done = run()
    assert done.returncode == 2 and done.stderr.startswith("error:")
