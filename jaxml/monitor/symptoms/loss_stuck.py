"""The loss never falls. Of a curve alone; in a training the other symptoms name the reason.

The rule: the smoothed curve moves by no more than 3 % of its start and six deviations of its noise, and a
line through it does not fall clearly.

Example:
    >>> import numpy as np
    >>> from jaxml import monitor
    >>> curve = 2.3 + 0.02 * np.random.default_rng(0).normal(size=200)
    >>> [finding.symptom for finding in monitor.diagnose_loss_curve(curve)]
    ['loss_stuck']
"""

import math

import numpy as np

from jaxml.monitor.curve import Curve
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.symptoms.learning_rate_too_low import FEWEST, falls_clearly

# Movement in shares of the start, and in deviations of the smoothed noise (the extremes of some eighty
# smoothed points are five of them apart).
_STILL, _NOISE = 0.03, 6.0


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    if found.keys() - {"overfitting"} or not curve.readable or len(curve.raw) < FEWEST:
        return None
    start, end = curve.ends()
    level = max(abs(start), 1e-300)
    first = curve.smooth[: max(3, len(curve.raw) // 10)]
    moved = float(np.max(first) - np.min(curve.smooth)) / level
    still = _STILL + _NOISE * curve.noise / level / math.sqrt(curve.width)
    if moved >= still or abs(start - end) >= still * level or falls_clearly(curve):
        return None
    cause = "nothing is learned: gradients that vanish, dead units, or labels without a pattern"
    return Finding("loss_stuck", 0, "loss", "error", {"from": start, "to": end}, cause)


SYMPTOM = Symptom(
    "loss_stuck",
    Remedy(learning_rate_factor=10.0, initializer="he_normal"),
    in_curve=_in_curve,
    after=("*", "learning_rate_too_low"),
)
