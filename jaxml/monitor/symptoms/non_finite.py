"""NaN or infinity: in the data, in a loss, a gradient or an update.

The rule: a row of the data holds one; or steps were rejected because of one, and nothing before explains
it (more than half of the steps: in any case); or a row of the validation data holds one. In a curve alone:
a loss is not finite; it had grown before, or it came at once, as from log 0 or 0 / 0.

Example:
    >>> from jaxml import monitor
    >>> finding, = monitor.diagnose_loss_curve([2.0, 1.0, float("nan"), 0.5])
    >>> finding.symptom, finding.evidence["to_the_end"]
    ('non_finite', False)
"""

from collections.abc import Sequence

import numpy as np

from jaxml.monitor.curve import Curve
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.inputs import DataReport
from jaxml.monitor.run import Run

_MOST = 0.5

# The last loss over the typical one, and over the lowest, from which on the loss had grown.
_GREW, _GREW_FROM_LOWEST = 10.0, 2.0


def grew(curve: Curve) -> bool:
    """Returns whether the loss was rising before its first value that is not finite."""
    before = curve.losses[: curve.first_bad]
    if len(before) < 2:
        return False
    level = np.median(before[: max(1, len(before) // 2)])
    rising = before[-1] > _GREW * max(abs(level), 1e-30) or np.all(np.diff(before[-4:]) > 0)
    return bool(rising and before[-1] > _GREW_FROM_LOWEST * abs(np.min(before)))


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    if curve.first_bad == len(curve.losses):
        return None
    rising = grew(curve)
    bad = int((~np.isfinite(curve.losses)).sum())
    cause = "a value that is not finite in the input, or an operation such as log 0 or 0 / 0"
    if rising:
        cause = "the loss had grown until it overflowed"
    severity = "error" if curve.bad_to_the_end else "warning"
    evidence = {"points": bad, "to_the_end": curve.bad_to_the_end, "grew": rising}
    return Finding("non_finite", curve.first_bad, "loss", severity, evidence, cause)


def _detect(run: Run, found: Found) -> Finding | None:
    if run.bad_data:
        return _in_rows(run.history.data, "input")
    finding, held_out = _in_steps(run, found), run.history.validation_data
    if finding is None and held_out is not None and len(held_out.bad_rows):
        return _in_rows(held_out, "validation_data")
    return finding


def _in_rows(data: DataReport, where: str) -> Finding:
    name, row, column = data.bad_cells[0]
    evidence = {"rows": len(data.bad_rows), "row": row, "column": column, "array": name}
    cause = f"{name}[{row}], column {column}, is not finite"
    if where != "input":
        cause = f"in {where}, {cause}"
    return Finding("non_finite", 0, where, "error", evidence, cause)


def _in_steps(run: Run, found: Found) -> Finding | None:
    h = run.history
    rejected = float((~h.accepted).mean())
    explanation = found.get("learning_rate_too_high") or found.get("exploding_gradient")
    if "zero_division" in found:
        return None
    if not rejected:
        return None if found else run.curve.get("non_finite")
    if explanation and rejected <= _MOST:
        return None
    step = int(np.argmax(~h.accepted))
    bad = ~np.isfinite(h.statistic("gradient_norm")[step])
    layer = h.layers[int(np.argmax(bad))] if bad.any() else "loss"
    severity = "error" if rejected > _MOST else "warning"
    cause = (
        "an operation without a finite result: overflow, log 0, 0 / 0, or the slope of a root at 0"
    )
    evidence = {"steps_rejected": int((~h.accepted).sum())}
    cause = explanation.cause if explanation else cause
    return Finding("non_finite", step, layer, severity, evidence, cause)


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    at_once = finding.where == "loss" and not finding.evidence.get("grew", True)
    if finding.where in ("input", "validation_data") or at_once:
        return Remedy(data="drop_non_finite")
    return Remedy(learning_rate_factor=0.1)


SYMPTOM = Symptom(
    "non_finite",
    _remedy,
    _detect,
    _in_curve,
    after=("zero_division", "learning_rate_too_high", "exploding_gradient"),
)
