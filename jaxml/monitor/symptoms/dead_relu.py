"""Units whose output is 0 on every example: they get no gradient and cannot recover.

The rule for a hidden layer: at least half of its units (three quarters in a model that learned) are 0 on
every example of the last looks; in a model that learned, many of them must have died during the training.
Half of the *entries* of a healthy ReLU layer are 0, so counting entries accuses healthy networks; counting
units over a window does not. The rule for the output: the model failed, its outputs are the ReLU of its
last layer, and more than a fifth of them are cut off: an example whose output is 0 has no gradient.

Examples: fifteen ReLU layers of five units (`dead_15`), too high a rate (`dead_by_rate`), a ReLU after the
last layer (`dead_output`).
"""

from collections.abc import Sequence

import numpy as np

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom, first_untried
from jaxml.monitor.run import Run

# Dead units of a layer in a run that failed, and in one that learned (bed: healthy up to 0.47).
_FAILED, _LEARNED = 0.5, 0.75

# Units that died during the training, where a layer is not dead as a whole.
_DIED = 0.3

# Entries of the output that a ReLU cuts off.
_CUT = 0.2


def _at_output(run: Run, first: float, last: float) -> Finding | None:
    h = run.history
    # All outputs may be positive, and are then their own ReLU: what is cut off decides.
    cut = h.look("cut")[:, -1]
    if not run.failed or h.look("relu")[-1, -1] <= 0.9 or not cut.max() > _CUT:
        return None
    evidence = {"dead": last, "dead_at_first": first, "cut": float(cut[-1])}
    cause = f"outputs of `{h.tapped[-1].name}` end in a ReLU: an output of 0 has no gradient"
    return Finding("dead_relu", int(h.looks[0]), "output", "error", evidence, cause)


def _detect(run: Run, found: Found) -> Finding | None:
    h = run.history
    if not len(h.looks) or not h.tapped:
        return None
    widths = [layer.shape[-1] for layer in h.tapped if layer.shape]
    layers = np.split(h.alive, np.cumsum(widths)[:-1], axis=1)
    window = max(1, min(10, len(h.looks) // 3))
    # Shares of dead units, at the first look and over the last ones.
    shares = [
        (float(1 - alive[0].mean()), float(1 - alive[-window:].any(0).mean())) for alive in layers
    ]
    if (at_output := _at_output(run, *shares[-1])) is not None:
        return at_output
    zeros = run.zero is not None or run.shrunk is not None or h.data.input_scale == 0
    if run.in_order or run.no_gradient or zeros:
        return None
    dead = []
    for i, (first, last) in enumerate(shares):
        if h.tapped[i].kind in ("dense", "normalization"):
            died = last - first > _DIED
            enough = last >= (_FAILED if run.failed else _LEARNED)
            if enough and (last == 1 or run.failed or died):
                dead.append((last, died, i))
    if not dead or not (run.failed or any(died for _, died, _ in dead)):
        return None
    worst = max(dead, key=lambda each: each[0])[2]
    first, last = shares[worst]
    over_time = 1 - layers[worst].mean(1)
    from_birth = first >= _FAILED
    evidence = {
        "dead": last,
        "dead_at_first": first,
        "units": layers[worst].shape[1],
        "by_step": int(h.looks[int(np.argmax(over_time >= min(last, over_time.max())))]),
        "from_birth": from_birth,
        "layers": len(dead),
    }
    cause = "units whose inputs never exceed 0 get no gradient"
    if found and not from_birth:
        cause = [*found.values()][-1].cause
    step = int(h.looks[int(np.argmax(over_time >= min(last, 0.5)))])
    return Finding("dead_relu", step, h.tapped[worst].name, run.severity, evidence, cause)


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    if finding.where == "output":
        return Remedy(output_activation="none")
    from_birth = bool(finding.evidence.get("from_birth"))
    normalization = first_untried("normalization", ("layer", "batch"), tried)
    return Remedy(
        learning_rate_factor=None if from_birth else 0.1,
        initializer="he_normal",
        activation=first_untried("activation", ("leaky_relu", "elu", "gelu", "prelu"), tried),
        normalization=normalization if from_birth or tried else None,
    )


SYMPTOM = Symptom("dead_relu", _remedy, _detect, after=("non_finite",))
