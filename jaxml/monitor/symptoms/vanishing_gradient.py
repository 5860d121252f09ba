"""Gradients shrink from layer to layer on their way back to the input, and nothing is learned.

The rule: over half of the run, the gradient at the first layer's output is less than a thousandth of the
largest at any layer, and its logarithm falls along a straight line over the layers (each layer passes back
a fraction). In a converged network gradients are small in all layers alike; behind dead or saturated units
they fall at one layer: those are other symptoms. Parameter gradients cannot show this, since they also
depend on the activations.

Example: ten sigmoid layers, whose slope is at most 1/4 (`vanish_sigmoid_adam`).
"""

import math
from collections.abc import Sequence

import numpy as np

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom, first_untried
from jaxml.monitor.run import Run

# (1/4)⁵: what five sigmoid layers at their steepest leave. Bed: healthy 0.9 and more, faulty 2e-4 and less.
VANISHED = 1e-3

# Explained variance of the line through log gradient over depth.
_STRAIGHT = 0.6

# Share of entries after a layer that are its sigmoid, tanh or ReLU, for that to be its activation.
_IS_ACTIVATION = 0.9

# Findings that explain why gradients fall.
_EXPLAINED = ("dead_relu", "saturated_activation", "poor_initialization", "exploding_gradient")


def _detect(run: Run, found: Found) -> Finding | None:
    h = run.history
    if (
        len(run.dense) < 3
        or not run.failed
        or run.shrunk
        or any(name in found for name in _EXPLAINED)
    ):
        return None
    delta = h.look("gradient_norm")[:, run.dense]
    ratios, straightness = [], []
    for row in delta:
        known = np.isfinite(row) & (row > 0)
        if known.sum() < 3 or not known[-1]:
            continue
        logs, depth = np.log(row[known]), np.flatnonzero(known)
        line = np.polyfit(depth, logs, 1)
        residual = np.var(logs - np.polyval(line, depth))
        ratios.append(math.exp(logs[0] - logs.max()))
        straightness.append(1 - residual / max(np.var(logs), 1e-300) if line[0] > 0 else 0.0)
    if len(ratios) < max(1, len(delta) // 2):
        return None
    # A network whose gradient recovers late has lost the time until then, so the first half counts too.
    middle = len(ratios) // 2
    for part in (slice(middle, None), slice(0, max(middle, 1))):
        ratio, straight = float(np.median(ratios[part])), float(np.median(straightness[part]))
        if ratio < VANISHED and straight > _STRAIGHT:
            break
    else:
        return None
    shares = {
        name: float(np.median(h.look(name)[0, run.dense[:-1]]))
        for name in ("sigmoid", "tanh", "relu")
    }
    activation = max(shares, key=lambda name: shares[name])
    step = int(h.looks[int(np.argmax(np.array(ratios) < VANISHED))])
    evidence = {
        "ratio": ratio,
        "layers": len(run.dense),
        "straightness": straight,
        "activation": activation if shares[activation] > _IS_ACTIVATION else "unknown",
    }
    cause = "each layer passes back a fraction of the gradient it gets"
    layer = h.tapped[run.dense[0]].name
    return Finding("vanishing_gradient", step, layer, "error", evidence, cause)


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    is_relu = finding.evidence.get("activation") == "relu"
    return Remedy(
        initializer="he_normal",
        activation=None
        if is_relu and not tried
        else first_untried("activation", ("relu", "elu", "gelu"), tried),
        normalization=first_untried("normalization", ("layer", "batch"), tried),
    )


SYMPTOM = Symptom("vanishing_gradient", _remedy, _detect, after=_EXPLAINED)
