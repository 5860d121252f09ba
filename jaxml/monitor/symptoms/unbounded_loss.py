"""The loss falls far below 0 and on: its sign is wrong, or it has no minimum.

The rule: it ends a thousand times as far below 0 as its first values and 1 are from 0, and the second half
of the steps brings more of the fall than the first, where a loss with a minimum slows down; or a million
times. Explosions, dead units and the like are then what such a loss asks for: nothing else is reported.

Example: minus a cross-entropy (`wrong_sign`).
    >>> import numpy as np
    >>> from jaxml import monitor
    >>> [finding.symptom for finding in monitor.diagnose_loss_curve(-2.3 * 1.05 ** np.arange(200))]
    ['unbounded_loss']
"""

import numpy as np

from jaxml.monitor.curve import Curve
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom

# Last value over the first ones, if the fall speeds up, and in any case.
_FAR, _VERY_FAR = 1e3, 1e6


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    if not curve.readable:
        return None
    start, end = curve.ends(0.05)
    scale = max(1.0, float(np.max(np.abs(curve.raw[: max(3, len(curve.raw) // 20)]))))
    halfway = float(curve.smooth[len(curve.smooth) // 2])
    speeds_up = halfway - end > 0.5 * (start - end)
    if end > -(_FAR if speeds_up else _VERY_FAR) * scale:
        return None
    step = int(curve.steps[int(np.argmax(curve.smooth < -_FAR * scale))])
    cause = "the loss falls below 0 without end: its sign is wrong, or it has no minimum"
    return Finding("unbounded_loss", step, "loss", "error", {"from": start, "to": end}, cause)


SYMPTOM = Symptom(
    "unbounded_loss",
    Remedy(loss="check_sign"),
    lambda run, found: run.curve.get("unbounded_loss"),
    _in_curve,
    alone=True,
)
