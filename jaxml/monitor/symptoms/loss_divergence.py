"""The loss rises over many steps, to well above its start or its lowest point.

The rule, on the smoothed curve: it ends by half its lowest value above that, beyond noise, above where it
began, and no single stretch makes up most of the rise (that is a jump) unless the rise goes on after it. A
curve that repeats itself is judged cycle by cycle. Fewer than twelve points: the loss grows until it
overflows.

Example:
    >>> import numpy as np
    >>> from jaxml import monitor
    >>> [finding.symptom for finding in monitor.diagnose_loss_curve(0.1 * 1.05 ** np.arange(400))]
    ['loss_divergence']
"""

import math

import numpy as np

from jaxml.monitor.curve import Curve, noise_of
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.symptoms.non_finite import grew
from jaxml.monitor.symptoms.repetitive_data import grows, repetition

# The rise in deviations of the smoothed noise, and in shares of the lowest value; the end above the start
# in shares of the fall, and of the start.
_NOISE, _OF_LOWEST, _OF_FALL, _OF_START = 8.0, 0.5, 0.25, 1.2

# Share of the rise, within three windows, that makes it a jump.
_SUDDEN = 0.7


def _rises(curve: Curve) -> tuple[int, float, float] | None:
    """Returns (index of the lowest point, lowest value, last value) if the curve diverges, else None."""
    smooth = curve.smooth
    start, end = curve.ends(0.05)
    lowest = int(np.argmin(smooth))
    low = float(smooth[lowest])
    risen, fallen = end - low, max(start - low, 0)
    noise = curve.noise / math.sqrt(curve.width)
    if risen < max(_NOISE * noise, _OF_LOWEST * abs(low)) or end < start + _OF_FALL * fallen:
        return None
    if end <= start * (_OF_START if start > 0 else 1.0) and risen < max(fallen, 1e-300):
        return None
    rise = smooth[lowest:]
    if len(rise) < 3:
        return None
    stretch = min(3 * curve.width, len(rise) - 1)
    steps = rise[stretch:] - rise[:-stretch]
    at = int(np.argmax(steps))
    after = rise[at + stretch :]
    # At a level that was jumped to, the noise is another than before.
    there = noise_of(curve.raw[-len(after) :]) / math.sqrt(curve.width) if len(after) > 3 else 0.0
    # What rose before is much of the rise, or far more than the loss had ever been.
    before = float(rise[at]) - low
    goes_on = before > _NOISE * noise and before > min(0.05 * risen, 3 * max(abs(low), start - low))
    goes_on |= bool(after[-1] > after[0] + max(4 * noise, 4 * there, 0.1 * risen))
    if steps[at] > _SUDDEN * risen and not goes_on:
        return None
    return lowest, low, end


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    if not curve.readable:
        before = curve.losses[: curve.first_bad]
        if not (curve.bad_to_the_end and grew(curve)):
            return None
        step, low, end = int(np.argmin(before)), float(np.min(before)), float(before[-1])
    else:
        repeats = repetition(curve)
        if (repeats and not grows(curve, repeats.period)) or not (rise := _rises(curve)):
            return None
        step, low, end = int(curve.steps[rise[0]]), rise[1], rise[2]
    cause = "the steps are too long, or the objective has no minimum"
    return Finding("loss_divergence", step, "loss", "error", {"from": low, "to": end}, cause)


SYMPTOM = Symptom(
    "loss_divergence",
    Remedy(learning_rate_factor=0.1),
    lambda run, found: None if run.in_order else run.curve.get("loss_divergence"),
    _in_curve,
    after=("exploding_gradient", "non_finite", "dead_relu"),
)
