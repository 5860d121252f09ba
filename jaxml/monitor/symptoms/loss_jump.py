"""The loss rises at once, beyond all noise: a burst that passes, or a level that stays.

The rule: a point exceeds the median of the points before by twelve times their noise, by much of the level,
and by more than any swing before; single points must be alone of their kind. Four such jumps or more are no
event but the nature of the run. In a training, the data are at fault if they hold outliers, else the steps
are.

Example:
    >>> import numpy as np
    >>> from jaxml import monitor
    >>> curve = 0.1 + np.exp(-np.arange(400) / 50) + 0.01 * np.random.default_rng(0).normal(size=400)
    >>> curve[200:210] += 5
    >>> finding, = monitor.diagnose_loss_curve(curve)
    >>> finding.symptom, finding.step, finding.evidence["kind"]
    ('loss_jump', 200, 'burst')
"""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxml.monitor.curve import Curve
from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run
from jaxml.monitor.symptoms.repetitive_data import repetition

# A rise over the noise around it, over the level, and over the largest rise before.
_NOISE, _LEVEL, _BEFORE = 12.0, 1.6, 2.5

# A jump of one or two points: over the noise, and over every other point's distance from the smooth curve.
_BRIEF, _BRIEF_NOISE, _ALONE = 2, 30.0, 3.0

# So many jumps are no event.
_MANY = 4


def _jumps(curve: Curve) -> Iterator[tuple[int, float, int, bool]]:
    """Yields (index, level before, number of points above, recovered) of each jump."""
    raw, number = curve.raw, len(curve.raw)
    window = max(5, min(curve.width, 25))
    away = np.abs(np.diff(raw, prepend=raw[0]))
    residual = raw - curve.smooth
    # How far the loss has come, or a tenth of its level if it went nowhere.
    scale = max(float(np.ptp(curve.smooth)), 0.1 * float(np.median(np.abs(raw))), 1e-300)
    step = window
    while step < number - 1:
        past = raw[max(0, step - window) : step]
        level = float(np.median(past))
        # The noise around here: early in a run it is larger than later.
        local = 1.4826 * float(np.median(np.abs(past - level)))
        noise = max(local, curve.noise, 0.02 * np.median(away), 1e-12 * abs(level), 1e-300)
        rise = raw[step] - level
        before = float(np.max(residual[max(0, step - 4 * window) : step], initial=0.0))
        fallen = float(np.max(curve.smooth[:step])) - level
        enough = min(_LEVEL * max(abs(level), 0.1 * scale), max(1.2 * fallen, 0.8 * abs(level)))
        if not (rise > _NOISE * noise and rise > enough and rise > _BEFORE * before):
            step += 1
            continue
        above = raw[step:] > level + 0.4 * rise
        lasted = len(above) if above.all() else int(np.argmin(above))
        others = np.append(residual[:step], residual[step + lasted + 1 :])
        alone = rise > _ALONE * float(np.max(others, initial=0.0))
        if lasted <= _BRIEF and (rise < _BRIEF_NOISE * noise or not alone):
            step += 1
            continue
        rest = raw[step + lasted :]
        back = len(rest) > 5 and np.median(rest) < level + 0.2 * rise and lasted < 0.3 * number
        yield step, level, lasted, bool(lasted < max(5, 0.1 * number) or back)
        step += max(lasted, 1) + window


def _in_curve(curve: Curve, found: Found) -> Finding | None:
    if "loss_divergence" in found or not curve.readable or repetition(curve):
        return None
    jumps = [*_jumps(curve)]
    if not 0 < len(jumps) < _MANY:
        return None
    step, level, lasted, recovered = jumps[0]
    if recovered:
        severity, kind, cause = "warning", "burst", "a burst of outliers in the data"
    else:
        severity, kind = "error", "lasting"
        cause = "a step, or a learning rate, that was far too large"
    highest = float(np.max(curve.raw[step : step + lasted]))
    evidence = {"kind": kind, "from": level, "to": highest, "steps": int(lasted)}
    return Finding("loss_jump", int(curve.steps[step]), "loss", severity, evidence, cause)


def _detect(run: Run, found: Found) -> Finding | None:
    jump = run.curve.get("loss_jump")
    if jump is None or run.in_order:
        return None
    cause = (
        f"{run.outliers} examples lie far outside of the others"
        if run.outliers
        else "no example lies outside of the others: a step, or a learning rate, was far too large"
    )
    return jump._replace(evidence={**jump.evidence, "outliers": run.outliers}, cause=cause)


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    evidence = finding.evidence
    if evidence.get("outliers", evidence.get("kind") == "burst"):
        return Remedy(data="drop_outliers")
    return Remedy(learning_rate_factor=0.3)


SYMPTOM = Symptom(
    "loss_jump", _remedy, _detect, _in_curve, after=("loss_divergence", "repetitive_data")
)
