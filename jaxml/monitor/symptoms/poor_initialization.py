"""Initial weights that no training recovers from: all equal, all zero, too large or too small.

The rule, for a failed run: all units of a layer start equal; a hidden layer's weights are zero at first and
at last; or activations differ less than a fiftieth as much at the last hidden layer, and gradients fall
with them. For one that has saved less than nine tenths of the loss, which is large at first: activations
grow to more than 30 times the inputs before the first step; or, in any run, they overflow there.

Examples: weights of deviation 0.7 in six ReLU layers (`explode_deep_normal`), of 1 in wide ones, of 0.01 in
four (`small_relu`), constant ones (`equal_start`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom, first_untried
from jaxml.monitor.run import Run

# Activations over inputs: healthy initializers keep this near 1 (bed: healthy up to 3.1, or well learned).
# Activations below the second number do no harm, nor where the third share of the loss was saved.
_GROWN, _LARGE, _LEARNED = 30.0, 30.0, 0.9

# Spread over the examples, last hidden layer against first or first against inputs; the gradient, first
# layer against last hidden; and the size of activations, likewise.
_FADED, _FALLEN, _FAINT = 0.02, 0.1, 0.1


def _fades(run: Run, rms: NDArray[np.float64], scale: float) -> float:
    """Returns by how much activations fade from layer to layer; 1 if they do not."""
    h, last = run.history, len(run.dense) - 2
    spread = h.look("spread")[0, run.dense]
    delta = h.look("gradient_norm")[0, run.dense]
    gain = float(min(spread[last] / max(spread[0], 1e-30), spread[0] / scale))
    falls = delta[last] > 0 and delta[0] < _FALLEN * delta[last]
    # Where activations keep their size and only differ less, the layers squash.
    faint = rms[last] < _FAINT * max(rms[0], min(scale, 1.0))
    born_dead = h.look("dead")[0, run.dense].max() >= 0.5
    return gain if falls and faint and not born_dead else 1.0


def _detect(run: Run, found: Found) -> Finding | None:
    h, after = run.history, run.history.after

    def finding(layer: str, cause: str, kind: str, **more: Any) -> Finding:
        evidence = {"kind": kind, **more}
        return Finding("poor_initialization", 0, layer, run.severity, evidence, cause)

    if after is not None and after.equal_units and run.failed:
        cause = "all units of a layer start equal, and stay equal"
        return finding(after.equal_units[0], cause, "equal", layers=len(after.equal_units))
    if not len(h.looks) or not run.dense:
        return None
    if run.failed and run.zero and not run.held.any():
        cause = "weights that start at zero in and after a layer get no gradient"
        return finding(run.zero, cause, "zero")
    rms, names = h.look("rms")[0, run.dense], [h.tapped[i].name for i in run.dense]
    if not np.isfinite(rms).all():
        cause = "activations overflow before the first step"
        return finding(names[int(np.argmin(np.isfinite(rms)))], cause, "large")
    if len(rms) < 2 or not (rms > 0).any():
        return None
    scale = max(h.data.input_scale, 1e-30)
    gain = rms / scale
    grown = np.flatnonzero(gain > _GROWN)
    if len(grown) and rms[grown[0]] > _LARGE and run.signal < _LEARNED:
        cause = "activations grow from layer to layer: the initial weights are too large"
        first = names[int(np.argmax(gain > 10))]
        return finding(first, cause, "large", gain=float(gain.max()))
    explained = run.bad_data or run.in_order or "unscaled_input" in found
    if (
        run.failed
        and len(rms) > 2
        and not explained
        and (faded := _fades(run, rms, scale)) < _FADED
    ):
        cause = "activations fade from layer to layer: the initial weights are too small"
        return finding(names[0], cause, "small", gain=faded)
    return None


def _remedy(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    return Remedy(
        initializer="he_normal",
        normalization=first_untried("normalization", ("layer", "batch"), tried),
    )


SYMPTOM = Symptom("poor_initialization", _remedy, _detect, after=("unscaled_input",))
