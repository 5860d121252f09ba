"""The gradient grows far beyond what it was, again and again.

The rule: steps whose norm is more than ten times the median of the last 48, and which the guard clipped,
number at least three, or in a run that learns all the same one in fifty. A few such steps are the odd
batches that clipping is for; if the loss curve jumps where the data have outliers, the data are at fault
(`loss_jump`).

Example: a recurrent matrix of 1.6 times an orthogonal one with ReLU (`time_expanding`).
"""

import math

import numpy as np

from jaxml.monitor.findings import Finding, Found, Symptom, shorter_steps
from jaxml.monitor.history import History
from jaxml.monitor.run import Run

_FEWEST, _SHARE = 3, 0.02

_WINDOW = 48


def grows(run: Run) -> bool:
    """Returns whether gradients explode often enough to matter."""
    fewest = _FEWEST if run.failed else max(_FEWEST, _SHARE * len(run.history.losses))
    return len(run.explosions) >= fewest and not run.in_order


def _where(history: History, step: int) -> tuple[str, float, float]:
    """Returns the layer whose gradient grew most, the norm of all, and how many times its median it is."""
    g, at = history.statistic("gradient_norm"), np.flatnonzero(history.measured)
    here = at[np.searchsorted(at, step, side="left").clip(0, len(at) - 1)]
    before, norm = g[at[at < step]], float(history.norm[step])
    if not len(before):
        return history.layers[int(np.argmax(g[here]))], norm, math.inf
    usual = np.median(before, axis=0)
    times = np.where(usual > 0, g[here] / np.where(usual > 0, usual, 1), 0)
    past = history.norm[max(0, step - _WINDOW) : step]
    layer = history.layers[int(np.argmax(np.where(np.isfinite(times), times, 0)))]
    return layer, norm, norm / float(np.median(past[np.isfinite(past)]))


def _detect(run: Run, found: Found) -> Finding | None:
    h = run.history
    if not grows(run) or ("loss_jump" in run.curve and run.outliers):
        return None
    step = int(run.explosions[0])
    layer, norm, times = _where(h, step)
    past = h.norm[:step]
    too_high = found.get("learning_rate_too_high")
    evidence = dict(too_high.evidence) if too_high else {}
    evidence |= {
        "norm": norm,
        "times_its_median": times,
        "clip_to_try": float(np.median(past[np.isfinite(past)])),
    }
    severity = "error" if "loss_divergence" in run.curve else run.severity
    cause = too_high.cause if too_high else "the gradient grows faster than its running median"
    return Finding("exploding_gradient", step, layer, severity, evidence, cause)


SYMPTOM = Symptom("exploding_gradient", shorter_steps, _detect, after=("learning_rate_too_high",))
