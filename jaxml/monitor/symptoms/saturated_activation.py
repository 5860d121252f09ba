"""A sigmoid or tanh is at its bounds on most examples, where its slope is nearly 0, and nothing is learned.

The rule: in the last third of a failed run, more than 60 % of a layer's entries are within a hundredth of
the activation's bounds. Nothing is reported where gradients exploded or the rate was too high: those push
inputs there.

Example: five tanh layers with initial weights of deviation 3 (`saturated_tanh`).
"""

from collections.abc import Sequence

import numpy as np

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom, first_untried
from jaxml.monitor.run import Run


def _detect(run: Run, found: Found) -> Finding | None:
    h = run.history
    if not len(h.looks) or not run.failed or run.in_order or run.no_gradient:
        return None
    if "exploding_gradient" in found or "learning_rate_too_high" in found:
        return None
    late = slice(-max(1, len(h.looks) // 3), None)
    share = np.median(h.look("saturated")[late], axis=0)
    for i, layer in enumerate(h.tapped):
        if np.mean(run.saturated[late, i]) > 0.5:
            step = int(h.looks[int(np.argmax(run.saturated[:, i]))])
            where = "output" if i == len(h.tapped) - 1 else layer.name
            evidence = {"saturated": float(share[i])}
            cause = "inputs of the activation are far beyond the part where it has a slope"
            return Finding("saturated_activation", step, where, "error", evidence, cause)
    return None


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    if finding.where == "output":
        return Remedy(output_activation="none", scale_inputs=True)
    return Remedy(
        initializer="glorot_normal",
        normalization=first_untried("normalization", ("layer", "batch"), tried),
        scale_inputs=True,
    )


SYMPTOM = Symptom(
    "saturated_activation",
    _remedy,
    _detect,
    after=("dead_relu", "learning_rate_too_high", "exploding_gradient"),
)
