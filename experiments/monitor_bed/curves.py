"""Families of random loss curves with a known fault, or none."""

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxml import monitor

Curve = NDArray[np.float64]


class Case(NamedTuple):
    """A curve, perhaps with a validation curve, and its fault.

    Attributes:
        losses: [S].
        symptom: that must be found; `""` for a healthy curve.
        also: may be found too.
        validation: [V] or None.
    """

    losses: Curve
    symptom: str = ""
    also: str = ""
    validation: Curve | None = None


FAMILIES: dict[str, Callable[[np.random.Generator], Case]] = {}


def _family(make: Callable[[np.random.Generator], Case]) -> Callable[[np.random.Generator], Case]:
    FAMILIES[make.__name__] = make
    return make


def _steps(noise: np.random.Generator, low: int = 150, high: int = 6000) -> Curve:
    return np.arange(int(np.exp(noise.uniform(np.log(low), np.log(high)))), dtype=np.float64)


def _fall(noise: np.random.Generator, steps: Curve) -> Curve:
    """From 1 towards a floor, exponentially or by a power, without noise."""
    floor = noise.choice([0.0, noise.uniform(0.02, 0.6)])
    if noise.uniform() < 0.5:
        shape = np.exp(-steps / (len(steps) * noise.uniform(0.05, 0.4)))
    else:
        shape = (1 + steps / (len(steps) * noise.uniform(0.005, 0.1))) ** -noise.uniform(0.4, 1.2)
    return floor + (1 - floor) * shape


def _noisy(noise: np.random.Generator, curve: Curve, most: float = 0.3) -> Curve:
    """With the noise of mini-batches, in proportion to the level."""
    return curve * np.exp(noise.uniform(0.01, most) * noise.normal(size=len(curve)))


def _scaled(noise: np.random.Generator, case: Case) -> Case:
    factor = 10 ** noise.uniform(-3, 3)
    other = None if case.validation is None else factor * case.validation
    return case._replace(losses=factor * case.losses, validation=other)


@_family
def healthy_fall(noise: np.random.Generator) -> Case:
    return Case(_noisy(noise, _fall(noise, _steps(noise))))


@_family
def healthy_epochs(noise: np.random.Generator) -> Case:
    """A point an epoch: few, and smooth."""
    steps = np.arange(noise.integers(15, 80), dtype=np.float64)
    return Case(_noisy(noise, _fall(noise, steps), 0.03))


@_family
def healthy_heavy_tails(noise: np.random.Generator) -> Case:
    curve = _fall(noise, _steps(noise))
    return Case(curve * (1 + 0.1 * np.abs(noise.standard_t(3, size=len(curve)))))


@_family
def healthy_warmup(noise: np.random.Generator) -> Case:
    steps = _steps(noise)
    progress = steps / len(steps)
    warm = noise.uniform(0.02, 0.15)
    fallen = np.cumsum(np.minimum(progress / warm, np.cos(np.pi / 2 * progress)))
    return Case(_noisy(noise, 0.1 + np.exp(-6 * fallen / fallen[-1]), 0.2))


@_family
def healthy_rate_decay(noise: np.random.Generator) -> Case:
    """Drops where the learning rate is lowered."""
    steps = _steps(noise, 400)
    curve = 0.5 + 0.5 * np.exp(-steps / (0.05 * len(steps)))
    for at in (0.4, 0.7):
        curve = np.where(steps > at * len(steps), curve * noise.uniform(0.4, 0.8), curve)
    return Case(_noisy(noise, curve, 0.15))


@_family
def healthy_slow_start(noise: np.random.Generator) -> Case:
    steps = _steps(noise)
    middle, width = noise.uniform(0.2, 0.6), noise.uniform(0.02, 0.08)
    curve = 0.05 + 1 / (1 + np.exp((steps / len(steps) - middle) / width))
    return Case(_noisy(noise, curve, 0.15))


@_family
def healthy_converged(noise: np.random.Generator) -> Case:
    steps = _steps(noise)
    return Case(_noisy(noise, 0.4 + np.exp(-steps / (0.01 * len(steps))), 0.2))


@_family
def healthy_likelihood(noise: np.random.Generator) -> Case:
    """A loss that goes below 0."""
    curve = _fall(noise, _steps(noise))
    return Case(4 * curve - 2.5 + noise.uniform(0.02, 0.2) * noise.normal(size=len(curve)))


@_family
def healthy_validation(noise: np.random.Generator) -> Case:
    """The validation falls with the training to a level above it, and stays there."""
    steps = _steps(noise)
    curve = _fall(noise, steps)
    gap = noise.uniform(0.0, 0.3)
    few = np.linspace(0, len(steps) - 1, noise.integers(10, 60)).astype(int)
    validation = np.maximum(curve[few], gap) + noise.uniform(0.005, 0.03) * noise.normal(
        size=len(few)
    )
    return Case(_noisy(noise, curve), validation=np.abs(validation))


@_family
def healthy_drift(noise: np.random.Generator) -> Case:
    """An objective that moves: the level wanders by some per cent."""
    steps = _steps(noise, 400)
    curve = 0.5 + 0.5 * np.exp(-steps / (0.1 * len(steps)))
    wander = np.cumsum(noise.normal(size=len(steps))) * 0.05 / np.sqrt(len(steps))
    return Case(_noisy(noise, curve * np.exp(wander), 0.1))


@_family
def nan_once(noise: np.random.Generator) -> Case:
    curve = _noisy(noise, _fall(noise, _steps(noise)))
    curve[noise.integers(5, len(curve) - 5)] = np.nan
    return Case(curve, "non_finite")


@_family
def nan_to_the_end(noise: np.random.Generator) -> Case:
    curve = _noisy(noise, _fall(noise, _steps(noise)))
    curve[noise.integers(len(curve) // 5, len(curve) - 5) :] = np.nan
    return Case(curve, "non_finite")


@_family
def diverges(noise: np.random.Generator) -> Case:
    """Falls, then grows exponentially."""
    steps = _steps(noise)
    turn = noise.uniform(0.0, 0.5) * len(steps)
    growth = np.exp(np.maximum(steps - turn, 0) / (len(steps) - turn) * noise.uniform(2, 12))
    curve = np.maximum(_fall(noise, steps), 0.2) * growth
    return Case(_noisy(noise, curve, 0.2), "loss_divergence", "loss_jump")


@_family
def burst(noise: np.random.Generator) -> Case:
    """Some steps of outliers, after which it is as before."""
    curve = _noisy(noise, _fall(noise, _steps(noise)), 0.15)
    length = int(noise.integers(3, max(4, len(curve) // 40)))
    at = int(noise.integers(len(curve) // 4, len(curve) - length - 10))
    curve[at : at + length] = curve[at] * noise.uniform(8, 50) + noise.uniform(1, 3)
    return Case(curve, "loss_jump")


@_family
def lasting_jump(noise: np.random.Generator) -> Case:
    """To another level, and stays there."""
    curve = _noisy(noise, _fall(noise, _steps(noise)), 0.15)
    at = int(noise.integers(len(curve) // 4, 3 * len(curve) // 4))
    level = np.median(curve[:5]) * noise.uniform(1.2, 10)
    curve[at:] = level * np.exp(0.1 * noise.normal(size=len(curve) - at))
    return Case(curve, "loss_jump", "loss_divergence")


@_family
def repeats(noise: np.random.Generator) -> Case:
    """Sequences that come again: a pattern with edges, epoch after epoch."""
    steps = _steps(noise, 300)
    period = int(noise.uniform(0.03, 0.12) * len(steps)) + 8
    groups = int(noise.integers(2, 7))
    levels = noise.uniform(0.5, 2.0, size=groups)
    levels[0], levels[-1] = 0.4, 2.2
    pattern = levels[(np.arange(period) * groups // period)]
    curve = _fall(noise, steps) + 0.3
    curve *= pattern[np.arange(len(steps)) % period]
    return Case(_noisy(noise, curve, 0.15), "repetitive_data", "loss_oscillation")


@_family
def alternates(noise: np.random.Generator) -> Case:
    """Up and down from step to step: the optimizer jumps across the valley."""
    steps = _steps(noise)
    swing = noise.uniform(0.3, 0.8)
    curve = (0.3 + _fall(noise, steps)) * np.exp(swing * (-1) ** steps)
    return Case(_noisy(noise, curve, 0.1), "loss_oscillation")


@_family
def swings(noise: np.random.Generator) -> Case:
    """Slow swings of changing length, by much of the level."""
    steps = _steps(noise, 300)
    phase = np.cumsum(np.exp(0.3 * noise.normal(size=len(steps))))
    turns = noise.uniform(6, 15)
    swing = noise.uniform(0.5, 0.9)
    wave = swing * np.sin(2 * np.pi * turns * phase / phase[-1])
    curve = (0.5 + 0.5 * np.exp(-steps / (0.1 * len(steps)))) * np.exp(wave)
    return Case(_noisy(noise, curve, 0.1), "loss_oscillation", "repetitive_data")


@_family
def stuck(noise: np.random.Generator) -> Case:
    curve = np.ones_like(_steps(noise))
    return Case(_noisy(noise, curve, 0.15), "loss_stuck")


@_family
def too_slow(noise: np.random.Generator) -> Case:
    """In a straight line, and by little."""
    steps = _steps(noise)
    curve = 1 - noise.uniform(0.08, 0.25) * steps / len(steps)
    return Case(_noisy(noise, curve, 0.05), "learning_rate_too_low")


@_family
def overfits(noise: np.random.Generator) -> Case:
    """The validation rises from its lowest point, on or to a level, while the training falls."""
    steps = _steps(noise)
    curve = np.exp(-steps / (noise.uniform(0.1, 0.4) * len(steps)))
    few = np.linspace(0, len(steps) - 1, noise.integers(10, 60)).astype(int)
    turn = noise.uniform(0.1, 0.5)
    past = np.maximum(few / len(steps) - turn, 0) / (1 - turn)
    rise = past if noise.uniform() < 0.5 else 1 - np.exp(-4 * past)
    validation = np.maximum(curve[few], np.exp(-turn / 0.15) + 0.2) + noise.uniform(0.3, 1) * rise
    validation *= np.exp(0.02 * noise.normal(size=len(few)))
    return Case(_noisy(noise, curve, 0.2), "overfitting", validation=validation)


def measure(seeds: int) -> list[dict[str, Any]]:
    """Draws each family so often, and counts recognised faults, false alarms and findings."""
    rows = []
    for name, make in FAMILIES.items():
        recognised, clean = 0, 0
        reported: collections.Counter[str] = collections.Counter()
        for seed in range(seeds):
            noise = np.random.Generator(np.random.PCG64(seed))
            case = _scaled(noise, make(noise))
            found = {f.symptom for f in monitor.diagnose_loss_curve(case.losses, case.validation)}
            recognised += case.symptom in found
            clean += found <= {case.symptom, case.also}
            reported.update(found)
        rows.append(
            {
                "family": name,
                "symptoms": [case.symptom] if case.symptom else [],
                "curves": seeds,
                "recognised": recognised if case.symptom else None,
                "no_false_alarm": clean,
                "reported": dict(reported),
            }
        )
    return rows
