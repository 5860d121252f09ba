"""A layer never moves, though the model runs through it.

The rule, for a failed run in which nothing else is found: at every step a layer's update is exactly 0, and
its gradient is not (the optimizer leaves it out); or its gradient is exactly 0, and that of another layer
is not (nothing is passed back to it). Layers that are frozen on purpose do no harm to a run that learns.

Examples: `optax.masked` with an inverted mask (`frozen_by_mistake`), a `jax.lax.stop_gradient` behind the
wrong layer, `jnp.round`.
"""

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor.findings import Finding, Found, Remedy, Symptom
from jaxml.monitor.run import Run


def _finding(run: Run, still: NDArray[np.bool_], cause: str, kind: str) -> Finding:
    names = [name for name, each in zip(run.history.layers, still, strict=True) if each]
    listed = ", ".join(f"`{name}`" for name in names[:3]) + (", …" if len(names) > 3 else "")
    evidence = {"kind": kind, "layers": len(names), "of": len(still)}
    where = "all layers" if still.all() else names[0]
    return Finding("frozen_layer", 0, where, "error", evidence, cause.format(listed))


def _detect(run: Run, found: Found) -> Finding | None:
    h = run.history
    if found or not run.failed or not h.accepted.any() or h.data.input_scale == 0:
        return None
    if run.held.any():
        cause = "the optimizer never moves {}, although the loss has a gradient there"
        return _finding(run, run.held, cause, "held")
    gradient = (h.statistic("gradient_norm")[h.accepted] > 0).any(0)
    called = np.isin(h.layers, [layer.name for layer in h.tapped])
    if gradient.any() and (cut := called & ~gradient).any():
        cause = (
            "no gradient comes back to {}: a stop_gradient, a rounding or an argmax is between it and the "
            "loss, or what it returns is not used"
        )
        return _finding(run, cut, cause, "cut off")
    return None


SYMPTOM = Symptom("frozen_layer", Remedy(unfreeze=True), _detect, after=("*",))
