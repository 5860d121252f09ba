"""Each step could go much further.

The rule, for a training in which nothing else is found: the loss goes on falling where the parameters are
moved three and ten times as far from their start, by a fifth in all; if nothing was learned, by a hundredth
at three times as far, or by however little up to a hundred times as far. For a curve: it falls in a
straight line to its end, by less than 30 %.

Example:
    >>> import numpy as np
    >>> from jaxml import monitor
    >>> [finding.symptom for finding in monitor.diagnose_loss_curve(np.linspace(2.3, 2.1, 200))]
    ['learning_rate_too_low']
"""

import math
from collections.abc import Sequence

import numpy as np

from jaxml.monitor.curve import Curve
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run

# Points that it takes to see a line.
FEWEST = 20

# Deviations by which the slope of the line is below 0; fall over start; ratio of the slopes of both halves;
# the line's fall over the range.
_CLEARLY, _LITTLE, _STRAIGHT, _LINE = 6.0, 0.3, (0.6, 1.7), 0.7

# Loss further along the way over loss, in a run that failed and in one that learned.
_FAILED, _LEARNED = 0.99, 0.8

# Ten times the rounding of a float32: a smaller fall is none.
_ROUNDING = 1e-6

# Along the old way the loss turns up long before the best rate is reached, so at least this is advised.
_FACTOR = 10.0


def _line(curve: Curve) -> tuple[float, float]:
    """Returns slope, over half of the curve, and standard error of a line through it."""
    number = len(curve.raw)
    steps = np.linspace(-1, 1, number)
    slope, offset = np.polyfit(steps, curve.raw, 1)
    residual = curve.raw - slope * steps - offset
    level = max(abs(curve.ends()[0]), 1e-300)
    return slope, float(np.std(residual)) / math.sqrt(number / 3) + 1e-12 * level


def falls_clearly(curve: Curve) -> bool:
    """Returns whether the curve falls from its first to its last part, and along a line, beyond noise."""
    slope, error = _line(curve)
    start, end = curve.ends()
    return bool(slope < -_CLEARLY * error and start - end > _CLEARLY * error)


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    if found.keys() - {"overfitting"} or not curve.readable or len(curve.raw) < FEWEST:
        return None
    slope, error = _line(curve)
    start, end = curve.ends()
    fallen = (start - end) / max(abs(start), 1e-300)
    first, second = (np.polyfit(np.arange(len(h)), h, 1)[0] for h in np.array_split(curve.raw, 2))
    straight = first < 0 and _STRAIGHT[0] < second / first < _STRAIGHT[1]
    is_line = -2 * slope > _LINE * np.ptp(curve.smooth)
    if not (slope < -_CLEARLY * error and straight and is_line and fallen < _LITTLE):
        return None
    evidence = {"fallen": fallen, "learning_rate_factor": _FACTOR}
    cause = "the loss falls in a straight line: each step could go much further"
    return Finding("learning_rate_too_low", 0, "loss", "warning", evidence, cause)


def _detect(run: Run, found: Found) -> Finding | None:
    after = run.history.after
    if found or after is None or run.brief or not run.much_is_left:
        return None
    further = sorted((k, v) for k, v in after.further.items() if np.isfinite(v))
    if not further:
        return None
    enough = (_FAILED if run.failed else _LEARNED) * after.loss
    along = [after.loss, *(value for _, value in further)]
    falls_on = (
        len(further) == len(after.further)
        and max(np.diff(along)) < 0
        and along[0] - along[-1] > _ROUNDING * abs(along[0])
    )
    if run.failed and (further[0][1] < enough or falls_on):
        # Where nothing was learned, three times as far is far enough.
        candidates = dict(further)
    else:
        candidates = {factor: value for factor, value in further if factor >= 10}
        downhill = len(further) > 1 and after.loss > further[0][1] > further[1][1]
        if not (candidates and downhill and min(candidates.values()) < enough):
            return None
    factor = min(candidates, key=lambda each: candidates[each])
    there = candidates[factor]
    evidence = {"learning_rate_factor": factor, "loss_there": there, "loss": after.loss}
    cause = (
        f"the loss goes on falling where the parameters are moved {factor:.0f} times as far: steps are too "
        "short, or too few"
    )
    return Finding("learning_rate_too_low", 0, "all layers", run.severity, evidence, cause)


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    factor = float(finding.evidence.get("learning_rate_factor", _FACTOR))
    return Remedy(learning_rate_factor=max(_FACTOR, factor))


SYMPTOM = Symptom("learning_rate_too_low", _remedy, _detect, _in_curve, after=("*", "frozen_layer"))
