"""The validation loss rises from its lowest point while the training loss falls.

The rule: it ends above its lowest point by a tenth of its range and four deviations of its noise, goes on
rising or stays up, and the training loss has fallen since and lies below it.

Example:
    >>> import numpy as np
    >>> from jaxml import monitor
    >>> steps = np.linspace(0, 1, 400)
    >>> validation = np.exp(-steps / 0.1) + 0.5 + np.maximum(steps - 0.5, 0)
    >>> found = monitor.diagnose_loss_curve(np.exp(-steps / 0.1) + 0.02, validation)
    >>> [finding.symptom for finding in found]
    ['overfitting']
"""

import numpy as np

from jaxml.monitor.curve import Curve, noise_of, smoothed
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom

# The rise in shares of the range (first value to lowest), of the lowest value, and in deviations of noise.
_OF_RANGE, _OF_LOWEST, _NOISE = 0.1, 0.05, 4.0

# Points that it takes.
_FEWEST = 5

# Share of rising steps after the lowest point, or of late points in the upper half of the rise.
_RISING, _STAYS = 0.55, 0.9


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    losses, validation = curve.losses, curve.validation
    if validation is None or "loss_divergence" in found:
        return None
    known = np.flatnonzero(np.isfinite(validation))
    finite = losses[np.isfinite(losses)]
    if len(known) < _FEWEST or len(finite) < _FEWEST:
        return None
    values = validation[known]
    width = max(1, len(values) // 20) | 1
    smooth = smoothed(values, width) if width > 1 else values
    best = int(np.argmin(smooth))
    low, end = float(smooth[best]), float(np.median(values[-max(2, len(values) // 10) :]))
    step = round(float(known[best] * (len(losses) - 1) / max(len(validation) - 1, 1)))
    around = max(2, len(finite) // 20)
    near = losses[max(0, step - around) : step + around + 1]
    there = float(np.median(near[np.isfinite(near)])) if np.isfinite(near).any() else -np.inf
    trained = float(np.median(finite[-around:]))
    range_ = max(float(values[0]) - low, abs(low), 1e-300)
    rises = end - low > max(_OF_RANGE * range_, _NOISE * noise_of(values), _OF_LOWEST * abs(low))
    tail = smooth[best:]
    late = values[best:][-max(3, len(tail) // 3) :]
    goes_on = len(tail) > 3 and (
        np.mean(np.diff(tail) > 0) > _RISING
        or (len(tail) > 8 and np.mean(late > low + 0.5 * (end - low)) > _STAYS)
    )
    if not (rises and goes_on and trained < there - 0.02 * abs(there) and trained < end):
        return None
    ratio = end / max(abs(low), 1e-300)
    evidence = {"lowest": low, "last": end, "training": trained, "ratio": ratio}
    cause = "what is learned from here on holds for the training examples alone"
    return Finding("overfitting", step, "loss", "warning", evidence, cause)


SYMPTOM = Symptom(
    "overfitting",
    Remedy(regularization="increase"),
    lambda run, found: run.curve.get("overfitting"),
    _in_curve,
    after=("loss_divergence",),
)
