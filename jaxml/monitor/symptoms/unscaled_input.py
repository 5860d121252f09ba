"""Inputs or targets are far from the scale that initializers and learning rates assume.

The rule: a column's root mean square exceeds 30, or its deviation 300 times the median column's, or the
targets' root mean square 30 (`monitor.inspect`), and the run shows trouble: it failed, its gradients
exploded, its loss diverged, jumped or oscillated.

Example: the wine data as they are, with proline near 1,000 (`unscaled_wine`).
"""

import numpy as np

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run

_TROUBLE = {"loss_divergence", "loss_jump", "loss_oscillation"}

# Explosions that are trouble.
_FEWEST = 3


def _detect(run: Run, found: Found) -> Finding | None:
    data = run.history.data
    trouble = (
        run.failed
        or len(run.explosions) >= _FEWEST
        or _TROUBLE & run.curve.keys()
        or not np.isfinite(run.history.losses).all()
    )
    if not (data.unscaled and trouble):
        return None
    evidence = {
        "input_scale": data.input_scale,
        "input_spread": data.input_spread,
        "target_scale": data.target_scale,
        "column": data.worst_column,
    }
    cause = "inputs or targets are far from the scale that initializers and learning rates assume"
    return Finding("unscaled_input", 0, "input", "error", evidence, cause)


SYMPTOM = Symptom("unscaled_input", Remedy(scale_inputs=True), _detect)
