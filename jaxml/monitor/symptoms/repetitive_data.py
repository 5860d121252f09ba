"""Examples come in an order that repeats itself: class by class, or the same sequence again and again.

The rule, for a training: examples are not shuffled and sorted by their target, and the loss shows it. For a
curve: after its first fall its autocorrelation has a peak of at least 0.6 at some period, the mean cycle
explains half of the variance, and it is no pure tone, which would be a swing of the optimizer.

Example:
    >>> import numpy as np
    >>> from jaxml import monitor
    >>> sawtooth = 1.5 - (np.arange(600) % 40) / 40
    >>> [(finding.symptom, finding.evidence["period"]) for finding in monitor.diagnose_loss_curve(sawtooth)]
    [('repetitive_data', 40)]
"""

import math
from typing import NamedTuple

import numpy as np

from jaxml.monitor.curve import Curve
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run

# Autocorrelation at the period; the least somewhere within it; and the share of the variance that the mean
# cycle explains.
_CORRELATED, _UNCORRELATED, _EXPLAINED = 0.6, 0.3, 0.5

# Power in one harmonic that makes a pure tone; deviation over level that is worth a finding.
_PURE, _SMALL = 0.9, 0.05

# Points and cycles that it takes.
_FEWEST, _CYCLES = 24, 3

# A training in order that has saved so much of the loss is not hurt by it.
_HARMLESS = 0.8


class Repetition(NamedTuple):
    """How a curve repeats itself; `period` in points of the curve."""

    begin: int
    period: int
    correlation: float
    amplitude: float


def repetition(curve: Curve) -> Repetition | None:
    """Returns the `Repetition` of a curve, or None."""
    begin = curve.settled()
    rest = curve.raw[begin:]
    number = len(rest)
    if number < _FEWEST:
        return None
    steps = np.arange(number)
    rest = rest - np.polyval(np.polyfit(steps, rest, 1), steps)
    # Spikes are limited, or one of them would be all of the variance.
    limit = 6 * 1.4826 * np.median(np.abs(rest - np.median(rest)))
    limited = rest if limit == 0 else np.clip(rest, -limit, limit)
    limited = limited - limited.mean()
    variance = float(np.mean(np.square(limited)))
    if variance <= 0 or math.sqrt(variance) < _SMALL * np.median(np.abs(curve.raw[begin:])):
        return None
    size = 2 ** math.ceil(math.log2(2 * number))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(limited, size)) ** 2, size)[: number // 3 + 1]
    correlation /= variance * (number - np.arange(len(correlation)))
    inner = correlation[1:-1]
    peaks = 1 + np.flatnonzero((inner >= correlation[:-2]) & (inner >= correlation[2:]))
    peaks = peaks[peaks >= 4]
    if not len(peaks):
        return None
    best = float(correlation[peaks].max())
    # What alternates at every step is the optimizer.
    if best < _CORRELATED or (correlation[2] > 0.9 * best and correlation[1] < _UNCORRELATED):
        return None
    # Multiples of a period are periods too: the shortest that is as good.
    period = int(peaks[correlation[peaks] > 0.9 * best][0])
    cycles = number // period
    if np.min(correlation[: period + 1]) > _UNCORRELATED or cycles < _CYCLES:
        return None
    cycle = rest[: cycles * period].reshape(cycles, period).mean(0)
    power = np.abs(np.fft.rfft(cycle - cycle.mean())) ** 2
    pure = float(power[1:2].sum() / max(power.sum(), 1e-300))
    if np.var(cycle) < _EXPLAINED * np.var(rest) or (pure > _PURE and period < 0.2 * number):
        return None
    return Repetition(begin, period, best, float(np.ptp(cycle)))


def grows(curve: Curve, period: int) -> bool:
    """Returns whether the last cycle is higher than the lowest by half of that."""
    cycles = np.arange(len(curve.raw)) // period
    levels = [float(np.median(curve.raw[cycles == i])) for i in range(int(cycles[-1]))]
    return len(levels) > 1 and levels[-1] - min(levels) > 0.5 * abs(min(levels))


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    if "loss_divergence" in found or not curve.readable or not (seen := repetition(curve)):
        return None
    period = seen.period * round(float(np.median(np.diff(curve.steps))))
    step = int(curve.steps[seen.begin])
    evidence = {"period": period, "correlation": seen.correlation, "amplitude": seen.amplitude}
    cause = f"the loss repeats itself every {period} steps: so do the examples"
    return Finding("repetitive_data", step, "loss", "warning", evidence, cause)


def _detect(run: Run, found: Found) -> Finding | None:
    h = run.history
    if not run.in_order:
        # A swing that another finding explains is not the data's, unless rows do repeat.
        return None if found and h.data.period == 0 else run.curve.get("repetitive_data")
    if run.signal > _HARMLESS and not run.curve:
        return None
    evidence = {"steps_per_epoch": h.steps_per_epoch}
    cause = "examples come class by class: each step unlearns what the steps before learned"
    return Finding("repetitive_data", 0, "input", run.severity, evidence, cause)


SYMPTOM = Symptom(
    "repetitive_data",
    Remedy(data="shuffle"),
    _detect,
    _in_curve,
    after=("vanishing_through_time", "clip_saturation", "update_floor", "loss_divergence"),
)
