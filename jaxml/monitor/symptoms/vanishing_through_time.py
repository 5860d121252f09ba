"""A recurrent network's gradient shrinks at every step back in time, and nothing is learned.

The rule: the gain, which is the factor by which one step back in time changes the gradient at the carry,
leaves less than a thousandth of it over the whole sequence, in the later half of the run. The gain does
not depend on where in time the loss is; norms of parameter gradients cannot show this at all (Pascanu et
al., 2013). For a sequence model without a recurrent cell the gradients at its inputs stand in.

Example: a tanh cell whose recurrent matrix is half an orthogonal one (`time_contracting`).
"""

import math
from collections.abc import Sequence

import numpy as np

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom, first_untried
from jaxml.monitor.run import Run
from jaxml.monitor.symptoms.vanishing_gradient import VANISHED

# Over shorter sequences nothing vanishes.
_SHORTEST = 4


def _detect(run: Run, found: Found) -> Finding | None:
    h = run.history
    if not h.times or not len(h.looks) or not run.failed:
        return None
    names = ["input"] if h.by_input else [x.name for x in h.tapped if x.kind == "cell"]
    late = slice(len(h.gain) // 2, None)
    for i, (name, length) in enumerate(zip(names, h.times, strict=True)):
        gain = float(np.median(h.gain[late, i]))
        if length < _SHORTEST or gain * (length - 1) >= math.log(VANISHED):
            continue
        fall = float(np.median(h.over_time[late, i, 0] - h.over_time[late, i, -1]))
        evidence = {
            "factor_a_step": math.exp(gain),
            "steps": length,
            "first_against_last": math.exp(max(fall, -80.0)),
            "measured_on": "∂E/∂x_t" if h.by_input else "∂E/∂h_t",
        }
        step = int(h.looks[len(h.gain) // 2])
        cause = "the recurrence shrinks the gradient at every step back in time"
        return Finding("vanishing_through_time", step, name, "error", evidence, cause)
    return None


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    return Remedy(
        cell=first_untried("cell", ("gru", "lstm"), tried),
        initializer="orthogonal",
        preserve=1.0 if any(before.cell for before in tried) else None,
    )


SYMPTOM = Symptom("vanishing_through_time", _remedy, _detect, after=("vanishing_gradient",))
