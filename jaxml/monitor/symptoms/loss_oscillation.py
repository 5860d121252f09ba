"""The loss goes up and down by much of its level: slowly, or at every step.

The rule, on logarithms, after the first fall: the raw curve turns at nine steps of ten and swings by 15 %
(of noise alone it turns at two of three), or the smoothed curve has at least six swings of a quarter, all
over the run. A training that ends with a tenth of the loss or less has come to no harm by it.

Example:
    >>> import numpy as np
    >>> from jaxml import monitor
    >>> steps = np.arange(200)
    >>> curve = np.exp(-steps / 40) + 0.3 + 0.2 * (-1.0) ** steps
    >>> [finding.symptom for finding in monitor.diagnose_loss_curve(curve)]
    ['loss_oscillation']
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor.curve import FEWEST, Curve, noise_of, smoothed
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run
from jaxml.monitor.symptoms.repetitive_data import repetition

# Alternation: share of steps that turn, correlation of neighbours, median step of the log loss.
_TURNS, _LAGGED, _STEP = 0.9, -0.5, 0.15

# Slow swings: the least size, over 5 deviations of noise; turning points; range; share of the run.
_SWING, _PIVOTS, _RANGE, _SPREAD = 0.25, 7, 0.4, 0.4

# A training that oscillates and has saved so much of the loss is not hurt by it.
_HARMLESS = 0.9


def _in_logs(values: NDArray[np.float64], offset: float) -> NDArray[np.float64]:
    """Returns the logarithms of values above an offset, a parabola taken off."""
    logs = np.log(values + offset + 1e-12 * float(np.ptp(values)) + 1e-300)
    steps = np.linspace(-1, 1, len(values))
    return logs - np.polyval(np.polyfit(steps, logs, 2), steps)


def _pivots(values: NDArray[np.float64], least: float) -> list[int]:
    """Returns the turning points between swings of at least this size."""
    pivots, low, high, direction = [0], 0, 0, 0
    for i, value in enumerate(values):
        if value > values[high]:
            high = i
        if value < values[low]:
            low = i
        if direction >= 0 and values[high] - value > least:
            pivots.append(high)
            direction, low, high = -1, i, i
        elif direction <= 0 and value - values[low] > least:
            pivots.append(low)
            direction, low, high = 1, i, i
    return pivots


def _evidence(curve: Curve) -> dict[str, Any]:
    begin = curve.settled()
    number = len(curve.raw) - begin
    if number < FEWEST:
        return {}
    start, end = curve.ends()
    fallen = max(start - end, 0.0)
    # Each step as it came: the mean of two would hide what alternates.
    steps = np.arange(len(curve.finite))
    each = curve.finite[np.isfinite(curve.finite) & (steps >= curve.steps[begin])]
    below_zero = max(-float(min(np.min(curve.raw), np.min(each))), 0.0)
    logs = _in_logs(each, 0.05 * fallen + below_zero)
    change = np.diff(logs)
    turns = float(np.mean(change[1:] * change[:-1] < 0))
    step = float(np.median(np.abs(change)))
    lagged = np.sum(logs[1:] * logs[:-1]) / max(np.sum(np.square(logs)), 1e-300)
    if turns > _TURNS and lagged < _LAGGED and step > _STEP:
        return {"turns": turns, "swing": step}
    # Slow swings count against all that the loss has fallen: mini-batches swing a small loss by its size.
    logs = _in_logs(curve.raw[begin:], 0.25 * fallen + below_zero)
    width = max(3, number // 60) | 1
    smooth = smoothed(logs, width) if number > 3 * width else logs
    pivots = _pivots(smooth, max(_SWING, 5 * noise_of(logs) / math.sqrt(width)))
    if len(pivots) < _PIVOTS or np.ptp(smooth) <= _RANGE:
        return {}
    if pivots[-1] - pivots[1] <= _SPREAD * number:
        return {}
    swing = float(np.median(np.abs(np.diff(smooth[pivots]))))
    return {"swings": len(pivots) - 1, "swing": swing}


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    explained = "loss_divergence" in found or "loss_jump" in found
    if explained or not curve.readable or repetition(curve) or not (evidence := _evidence(curve)):
        return None
    step = int(curve.steps[curve.settled()])
    cause = "the steps are too long for the curvature, or examples disagree"
    return Finding("loss_oscillation", step, "loss", "warning", evidence, cause)


def _detect(run: Run, found: Found) -> Finding | None:
    harmless = run.in_order or run.signal > _HARMLESS
    return None if harmless else run.curve.get("loss_oscillation")


SYMPTOM = Symptom(
    "loss_oscillation",
    Remedy(learning_rate_factor=0.3),
    _detect,
    _in_curve,
    after=("loss_divergence", "repetitive_data", "loss_jump"),
)
