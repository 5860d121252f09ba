"""A picture of the rates at every threshold."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["trade_off"]


def trade_off(
    thresholds: Sequence[float],
    *,
    precision: Sequence[float],
    recall: Sequence[float],
    false_positive_rate: Sequence[float],
    base_rate: float,
    chosen: Mapping[str, float],
    reliability: tuple[Sequence[float], Sequence[float], Sequence[float]],
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns rates against the threshold, the ROC and the precision–recall curve, and reliability.

    The axis of thresholds is their logit, which spreads those of a rare class.

    Args:
        thresholds: `[T]` in [0, 1], in either order; +inf (decide for none) may be among them.
        precision: `[T]` at each threshold; NaN where nothing is decided positive.
        recall: `[T]`, the true positive rate.
        false_positive_rate: `[T]`.
        base_rate: share of positives, which is the precision of chance.
        chosen: thresholds to mark, by what they were chosen for.
        reliability: mean prediction, share of positives and number of examples in each bin.
    """
    from matplotlib.ticker import LogitLocator, NullLocator

    at = np.asarray(thresholds, float)
    rates = {
        "precision": np.asarray(precision, float),
        "recall (true positive rate)": np.asarray(recall, float),
        "false positive rate": np.asarray(false_positive_rate, float),
    }
    for name, values in rates.items():
        if values.shape != at.shape or at.ndim != 1 or not at.size:
            raise ValueError(
                f"{name} must have one value a threshold, at least one, "
                f"got {values.shape} for {at.shape}"
            )
        if (values < 0).any() or (values > 1).any():
            raise ValueError(f"{name} must be in [0, 1], got {values}")
    order = np.argsort(-at, kind="stable")
    at, (found, hits, alarms) = at[order], (values[order] for values in rates.values())
    figure, ((top, roc), (below, diagonal)) = canvas.figure(title, 2, 2)
    finite = np.isfinite(at)
    inner = at[(at > 0) & (at < 1)]
    low, high = (inner.min(), inner.max()) if inner.size else (0.01, 0.99)
    top.set_xscale("logit")
    top.xaxis.set_minor_locator(NullLocator())
    top.xaxis.set_major_locator(LogitLocator(nbins=6))
    shown = np.clip(at[finite], low, high)
    for i, (name, values) in enumerate(zip(rates, (found, hits, alarms), strict=True)):
        top.plot(
            shown,
            values[finite],
            color=canvas.COLORS[i % len(canvas.COLORS)],
            linestyle=canvas.DASHES[i],
            linewidth=2,
            label=name,
        )
    top.set_xlabel("threshold")
    top.set_ylim(-0.02, 1.02)
    roc.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":")
    roc.plot(alarms, hits, color=canvas.COLORS[1], linewidth=2)
    roc.set_xlabel("false positive rate")
    roc.set_ylabel("recall")
    below.axhline(base_rate, color="#888888", linewidth=1, linestyle=":")
    below.plot(hits, found, color=canvas.COLORS[0], linewidth=2, drawstyle="steps-pre")
    below.set_xlabel("recall")
    below.set_ylabel("precision")
    below.set_ylim(-0.02, 1.02)
    for i, (name, threshold) in enumerate(chosen.items(), start=3):
        style = {
            "color": canvas.COLORS[i % len(canvas.COLORS)],
            "marker": canvas.MARKERS[i % len(canvas.MARKERS)],
            "markersize": 9,
        }
        # Where it would decide: the lowest of the thresholds from it on.
        place = max(int(np.searchsorted(-at, -threshold, "right")) - 1, 0)
        x = np.clip(threshold, low, high)
        top.axvline(x, color=canvas.COLORS[i % len(canvas.COLORS)], linestyle=":", linewidth=1.5)
        top.plot([x], [hits[place]], linestyle="none", label=f"{name}: {threshold:.3g}", **style)
        roc.plot([alarms[place]], [hits[place]], linestyle="none", **style)
        below.plot([hits[place]], [found[place]], linestyle="none", **style)
    diagonal.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":")
    mean, share, count = (np.asarray(part, float) for part in reliability)
    some = count > 0
    diagonal.plot(mean[some], share[some], color=canvas.COLORS[0], linewidth=1)
    differ = np.ptp(count[some]) > 0.1 * count.max() if some.any() else False
    size = 20 + 280 * count[some] / count.max() if differ else 40
    diagonal.scatter(
        mean[some], share[some], size, color=canvas.COLORS[0], alpha=0.6, clip_on=False
    )
    note = "larger dots: more examples" if differ else "equally many examples in each dot"
    diagonal.set_title(note, fontsize=11)
    diagonal.set_xlabel("mean prediction")
    diagonal.set_ylabel("share of positives")
    for axes in (top, roc, below, diagonal):
        axes.grid(color="#dddddd", linewidth=0.8)
    return canvas.finish(figure, path, legend=top)
