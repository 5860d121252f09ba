"""More than half of all steps are clipped: only the direction of the gradient is left.

The rule: the guard scaled more than half of the steps; or the optimizer itself clips at a norm that more
than half of the gradients exceed twice over. Google's Tuning Playbook places the threshold at the 90th
percentile of the norms, and advises a lower learning rate where half of the steps are clipped.

Example: `optax.clip_by_global_norm(1e-3)` (`clipped_to_death`).
"""

from collections.abc import Sequence

import numpy as np

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run

# Bed: healthy up to 0.06.
_SHARE = 0.5

# The optimizer's threshold is known to a factor of 2.
_CLEARLY = 2.0

_PERCENTILE = 90


def _detect(run: Run, found: Found) -> Finding | None:
    h, after = run.history, run.history.after
    if after is None:
        return None
    guarded = float(np.mean((h.coefficient < 1) & h.accepted))
    if guarded > _SHARE:
        step = int(np.argmax(h.coefficient < 1))
        evidence = {"clipped": guarded, "clips_at": float(np.median(h.bound)), "by": "guard"}
        cause = "more than half of all steps were scaled down to the guard's bound"
        return Finding("clip_saturation", step, "all layers", run.severity, evidence, cause)
    norms = h.norm[np.isfinite(h.norm)]
    limit = _CLEARLY * after.clips_at
    if "exploding_gradient" in found or not len(norms) or not np.mean(norms > limit) > _SHARE:
        return None
    step = int(np.argmax(h.norm > limit))
    evidence = {
        "clipped": float(np.mean(norms > limit)),
        "clips_at": after.clips_at,
        "median_norm": float(np.median(norms)),
        "clip_to_try": float(np.percentile(norms, _PERCENTILE)),
    }
    cause = "more than half of all steps are clipped: only the direction is left"
    return Finding("clip_saturation", step, "all layers", run.severity, evidence, cause)


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    clip = finding.evidence.get("clip_to_try")
    return Remedy(clip=clip, learning_rate_factor=None if clip else 0.1)


SYMPTOM = Symptom("clip_saturation", _remedy, _detect, after=("exploding_gradient",))
