"""Signs: what a run shows while it goes on, before it is known what it comes to."""

import math

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor.activity import units
from jaxml.monitor.findings import Finding
from jaxml.monitor.history import History

__all__ = ["dead_shares", "explosions", "first_exploding", "first_non_finite", "signs"]

# Norms against their running median: above, they explode.
_EXPLODED = 10.0

# Steps that the running median is taken of, and steps of which half may be clipped.
_WINDOW, _LATELY = 48, 100

# Explosions that are a sign, where one alone may be an odd batch.
_SEVERAL = 3


def explosions(history: History) -> NDArray[np.int64]:
    """Steps whose gradient is finite, clipped, and far beyond the median of those before."""
    norm = np.where(np.isfinite(history.norm) & (history.norm > 0), history.norm, np.nan)
    far = []
    for step in np.flatnonzero(np.isfinite(norm) & (history.coefficient < 1)):
        past = norm[max(0, step - _WINDOW) : step]
        past = past[np.isfinite(past)]
        if len(past) and norm[step] > _EXPLODED * np.median(past):
            far.append(step)
    return np.array(far, np.int64)


def first_exploding(history: History, step: int) -> tuple[str, float, float]:
    """The layer whose gradient is furthest from what it was, the norm of all, and how often its median."""
    g = history.statistic("gradient_norm")
    at = np.flatnonzero(history.measured)
    here = at[np.searchsorted(at, step, side="left").clip(0, len(at) - 1)]
    before = g[at[at < step]]
    norm = float(history.norm[step])
    if not len(before):
        return history.layers[int(np.argmax(g[here]))], norm, math.inf
    usual = np.median(before, axis=0)
    times = np.where(usual > 0, g[here] / np.where(usual > 0, usual, 1), 0)
    worst = int(np.argmax(np.where(np.isfinite(times), times, 0)))
    past = history.norm[max(0, step - _WINDOW) : step]
    return history.layers[worst], norm, norm / float(np.median(past[np.isfinite(past)]))


def first_non_finite(history: History) -> tuple[int, str]:
    """The first step that was refused, and the first layer without a finite gradient there."""
    step = int(np.argmax(~history.accepted))
    counts = history.statistic("non_finite")[step]
    return step, history.layers[int(np.argmax(counts > 0))] if (counts > 0).any() else "loss"


def dead_shares(history: History) -> list[tuple[str, float, float]]:
    """For each layer its name, and the shares of units dead at first and, over a window, at last."""
    bounds = np.cumsum((0, *units(history.tapped)))
    window = max(1, min(10, len(history.looks) // 3))
    told = []
    for i, layer in enumerate(history.tapped):
        alive = history.alive[:, bounds[i] : bounds[i + 1]]
        first = 1 - alive[0].mean()
        last = 1 - alive[-window:].any(0).mean()
        told.append((layer.name, float(first), float(last)))
    return told


def signs(history: History) -> list[Finding]:
    """What can be said of a run that is not over.

    Steps that were refused, gradients that explode, more than half of the last hundred steps clipped, a
    layer that has died. Whether it does harm is known at the end only (`diagnose`), so all are warnings.

    Args:
        history: a run, or its beginning; `after` is not looked at.

    Returns:
        Findings, at most one of a symptom.
    """
    found = []
    if not history.accepted.all():
        step, layer = first_non_finite(history)
        found.append(
            Finding(
                "non_finite",
                step,
                layer,
                "warning",
                {"steps_refused": int((~history.accepted).sum())},
                "loss, gradient or update is not finite; the parameters stay as they were",
                "look at the batch of this step",
            )
        )
    exploding = explosions(history)
    if len(exploding) >= _SEVERAL:
        step = int(exploding[0])
        layer, norm, times = first_exploding(history, step)
        found.append(
            Finding(
                "exploding_gradient",
                step,
                layer,
                "warning",
                {"norm": norm, "times_its_median": times},
                "the gradient grows faster than its running median; it is scaled down to its bound",
                "a lower learning rate",
            )
        )
    lately = history.coefficient[-_LATELY:] < 1
    if len(lately) == _LATELY and lately.mean() > 0.5:
        found.append(
            Finding(
                "clip_saturation",
                len(history.losses) - _LATELY + int(np.argmax(lately)),
                "all layers",
                "warning",
                {"clipped": float(lately.mean())},
                "more than half of the last hundred steps were scaled down",
                "a lower learning rate",
            )
        )
    if len(history.looks) >= _SEVERAL:
        gone = [
            name
            for (name, _, last), layer in zip(dead_shares(history), history.tapped, strict=True)
            if last == 1 and layer.kind in ("dense", "normalization")
        ]
        if gone:
            found.append(
                Finding(
                    "dead_relu",
                    int(history.looks[-1]),
                    gone[0],
                    "warning",
                    {"dead": 1.0, "layers": len(gone)},
                    "no unit of the layer has been other than 0 lately",
                    "leaky ReLU, He initialisation, a lower learning rate",
                )
            )
    return found
