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

# Bed: healthy up to 0.11, faulty 0.99.
_SATURATED = 0.6


def _detect(run: Run, found: Found) -> Finding | None:
    h = run.history
    if not len(h.looks) or not run.failed or run.in_order or run.no_gradient:
        return None
    if "exploding_gradient" in found or "learning_rate_too_high" in found:
        return None
    # The ReLU of large positive numbers looks like a sigmoid of them.
    saturated = np.where(h.look("relu") > 0.9, 0.0, h.look("saturated"))
    late = np.median(saturated[-max(1, len(saturated) // 3) :], axis=0)
    for i, layer in enumerate(h.tapped):
        if late[i] > _SATURATED:
            step = int(h.looks[int(np.argmax(saturated[:, i] > _SATURATED))])
            where = "output" if i == len(h.tapped) - 1 else layer.name
            evidence = {"saturated": float(late[i])}
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
