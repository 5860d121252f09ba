"""A penalty or a weight decay has shrunk the weights to next to nothing, and nothing is learned.

The rule, for a failed run: the weights of all dense layers together end below three tenths of their first
norm, and labels do follow from the inputs (`held_out_signal`, which is measured in this case). Without such
a signal nothing is the best that weights can be, and the data are at fault.

Example: AdamW that takes a tenth of the weights off at every step (`shrunk_by_decay`).
"""

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run
from jaxml.monitor.symptoms.no_learnable_signal import CHANCE


def _detect(run: Run, found: Found) -> Finding | None:
    after = run.history.after
    if found or not run.failed or after is None or after.held_out <= CHANCE or not run.shrunk:
        return None
    step, first, last = run.shrunk
    evidence = {"first_norm": first, "last_norm": last}
    cause = "a penalty or a decay shrinks the weights faster than the loss can make them grow"
    return Finding("excessive_regularization", step, "all layers", "error", evidence, cause)


SYMPTOM = Symptom(
    "excessive_regularization",
    Remedy(regularization="decrease"),
    _detect,
    after=("unscaled_input", "poor_initialization"),
)
