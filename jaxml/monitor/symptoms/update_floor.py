"""Gradients are below an adaptive optimizer's epsilon, so updates shrink with them.

The rule: halving gradients and moments together makes the update at least a quarter smaller (an adaptive
optimizer's update does not depend on the gradient's scale; if epsilon is all, it halves), and the run
failed, or the loss still falls by a fifth where the parameters are moved further.

Example: Adam with epsilon 1e-2 on a loss of 1e-4 times the usual (`floored_by_epsilon`).
"""

import numpy as np

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run

# Bed: healthy up to 0.01, faulty 0.5.
_SHARE = 0.25

# Share by which the loss falls where the parameters are moved further, in a run that learned.
_FALLS = 0.2


def _detect(run: Run, found: Found) -> Finding | None:
    after = run.history.after
    if after is None or not after.epsilon_share > _SHARE:
        return None
    further = [value for value in after.further.values() if np.isfinite(value)]
    fall = after.loss - min(further, default=after.loss)
    falls = np.isfinite(after.loss) and fall / max(abs(after.loss), 1e-300) > _FALLS
    if not (run.failed or (falls and run.much_is_left)):
        return None
    evidence = {"epsilon_share": 2 * after.epsilon_share}
    cause = "gradients are below the optimizer's epsilon: the update shrinks with them"
    return Finding("update_floor", 0, "all layers", run.severity, evidence, cause)


SYMPTOM = Symptom("update_floor", Remedy(epsilon_factor=1e-4), _detect)
