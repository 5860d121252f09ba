"""Steps are longer than the curvature of the loss allows, or change the parameters beyond recognition.

The rule, where a run learned nothing, oscillates, diverges or explodes: for plain gradient descent the rate
exceeds 2/λ, with λ the largest curvature at the start or the end, beyond which gradient descent is unstable
on a quadratic; for other optimizers early updates are more than a tenth of the parameters. Healthy updates
are about a thousandth of them (Karpathy's CS231n notes).

Example: SGD with a rate of 30 on digits (`diverge_digits`).
"""

import math

import numpy as np

from jaxml.monitor.findings import Finding, Found, Symptom, shorter_steps
from jaxml.monitor.run import Run
from jaxml.monitor.symptoms.exploding_gradient import grows

# Rate over 2/λ; λ is known to some per cent, by power iteration. Bed: healthy up to 0.21, faulty from 1.13.
_UNSTABLE = 1.05

# Updates over parameters, and the share that is aimed at. Bed: healthy mostly below 0.02, up to 0.44, so
# that this alone accuses nobody.
_LARGE, _USUAL = 0.1, 0.01

# Rates of the steps, largest over median, if the rate is constant.
_CONSTANT = 1.05


def _relative_update(run: Run) -> float:
    """Returns the typical relative size of the early updates; of a failed run the largest, if above 1."""
    h = run.history
    p, u = h.statistic("parameter_norm"), h.statistic("update_norm")
    usable = (p > 1e-8) & np.isfinite(p) & np.isfinite(u)
    relative = np.where(usable, u / np.where(usable, p, 1), np.nan)[h.measured & h.accepted]
    early = relative[: max(2, len(relative) // 4)]
    early = early[np.isfinite(early).any(1)]
    if not len(early):
        return 0.0
    sizes = np.nanmedian(early, 1)
    # One step that throws the initial parameters away is enough, if nothing is learned after it.
    return float(sizes.max() if run.failed and sizes.max() > 1 else np.median(sizes))


def _detect(run: Run, found: Found) -> Finding | None:
    after, rate = run.history.after, run.learning_rate
    sharpness = [] if after is None else [s for s in after.sharpness if np.isfinite(s) and s > 0]
    ratio = rate * max(sharpness) / 2 if sharpness else math.nan
    share = _relative_update(run)
    too_long = ratio > _UNSTABLE
    unstable = run.failed or {"loss_divergence", "loss_oscillation"} & run.curve.keys()
    born_saturated = len(run.saturated) > 0 and run.saturated[0].any()
    explained = "poor_initialization" in found or run.shrunk or run.in_order or born_saturated
    if explained or not (too_long or (math.isnan(rate) and share > _LARGE)):
        return None
    if not (unstable or grows(run)):
        return None
    step = 0
    if too_long:
        at, rates = run.rates
        factor = 0.5 / ratio
        evidence = {"learning_rate_factor": factor}
        # In a schedule, the rate of a step is not the one that was set: only a factor is known.
        if rates.max() < _CONSTANT * np.median(rates):
            evidence |= {"learning_rate": rate, "learning_rate_to_try": factor * rate}
        step = int(at[int(np.argmax(rates * ratio > _UNSTABLE * rate))])
        cause = f"learning rate {rate:.3g} above 2/λ ≈ {rate / ratio:.3g}"
    else:
        evidence = {"learning_rate_factor": min(0.1, _USUAL / share)}
        cause = f"a step changes parameters by {share:.0%} of their size"
    return Finding("learning_rate_too_high", step, "all layers", run.severity, evidence, cause)


SYMPTOM = Symptom("learning_rate_too_high", shorter_steps, _detect, after=("poor_initialization",))
