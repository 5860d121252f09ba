"""An optimizer divides 0 by 0 where the gradient is 0, as Adam does with an epsilon of 0.

The rule: steps were rejected although their loss and gradient are finite, and the update of a zero gradient
is not. One entry that never has a gradient is enough: a weight of an input that is always 0, or of a dead
unit. An epsilon of 1e-8 is 0 in float16.

Example: `optax.adam(1e-3, eps=0.0)` on digits, whose outer pixels are always 0 (`divided_by_zero`).
"""

import numpy as np

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run

# In float16 more than 0 too.
_EPSILON = 1e-7

_MOST = 0.5


def _detect(run: Run, found: Found) -> Finding | None:
    h, after = run.history, run.history.after
    if after is None or not after.divides_by_zero:
        return None
    updates = h.statistic("update_norm")
    rejected = ~h.accepted & np.isfinite(h.losses) & np.isfinite(h.norm) & np.isnan(updates).any(1)
    if not rejected.any():
        return None
    step = int(np.argmax(rejected))
    layer = h.layers[int(np.argmax(np.isnan(updates[step])))]
    severity = "error" if np.mean(rejected) > _MOST else "warning"
    cause = "the optimizer divides 0 by 0 where the gradient is 0: its epsilon is 0"
    evidence = {"steps_rejected": int(rejected.sum())}
    return Finding("zero_division", step, layer, severity, evidence, cause)


SYMPTOM = Symptom("zero_division", Remedy(epsilon=_EPSILON), _detect)
