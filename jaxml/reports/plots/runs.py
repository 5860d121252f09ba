"""Pictures of training: the losses of runs, and a monitored training."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["loss_curves", "training"]

_MOST_COMPARED = 20


def loss_curves(
    runs: Mapping[str, tuple[Any, Any, Any, Any]],
    *,
    title: str,
    ylabel: str = "loss",
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns the losses of runs, a colour each: training faint and smoothed, validation dashed.

    The lowest validation loss of a run is marked: a run whose lines part after it overfits. Where a loss is
    first not finite, a cross ends the line and the legend has the step. A run that ends above ten times its
    first loss has diverged: if others have not, the axis is theirs, and the legend has its height.

    Args:
        runs: for each label its steps and training losses, each `[n]`, and its steps and validation
            losses, each `[m]`; either pair may be empty. At most 20.
    """
    if not 1 <= len(runs) <= _MOST_COMPARED:
        raise ValueError(f"runs must hold 1 to {_MOST_COMPARED}, got {len(runs)}")
    training = {k: canvas.pair(f"runs[{k!r}], training", run[:2]) for k, run in runs.items()}
    validation = {k: canvas.pair(f"runs[{k!r}], validation", run[2:]) for k, run in runs.items()}
    every = np.concatenate([y for pairs in (training, validation) for _, y in pairs.values()])
    every = every[np.isfinite(every)]
    if not every.size:
        raise ValueError("runs must hold a finite loss, got none")
    figure, axes = canvas.figure(title)
    raw = {label: canvas.finite(losses) for label, (_, losses) in training.items()}
    held = {label: canvas.finite(losses) for label, (_, losses) in validation.items()}
    smooth = {label: _smooth(losses) for label, losses in raw.items()}
    sound = [label for label in runs if not _has_diverged(raw[label])]
    course = np.concatenate([part[label] for label in sound for part in (smooth, held)] or [every])
    course = course[np.isfinite(course)]
    if not course.size:
        course, sound = every, list(runs)
    low, high = course.min(), course.max()
    too_high = {k for k in runs if k not in sound and np.nanmax(raw[k]) > 10 * high > 0}
    if every.min() > 0 and canvas.scale(axes, course):
        smooth = {label: np.exp(_smooth(np.log(losses))) for label, losses in raw.items()}
    for color, label in zip(canvas.distinct(len(runs)), runs, strict=True):
        steps, losses = training[label]
        lost = ~np.isfinite(losses)
        ending = f", not finite from step {steps[np.argmax(lost)]:,.0f}" if lost.any() else ""
        if label in too_high:
            ending = f", rises to {np.nanmax(raw[label]):.2g}{ending}"
        # The legend is as wide as the picture.
        axes.plot([], [], color=color, linewidth=2, label=textwrap.fill(f"{label}{ending}", 110))
        axes.plot(steps, raw[label], color=color, alpha=0.2, linewidth=0.8, antialiased=False)
        few = "o" if (~lost).sum() <= 20 else None
        axes.plot(steps, smooth[label], color=color, linewidth=2, marker=few, markersize=4)
        end = int(np.argmax(lost)) - 1 if lost.any() else -1
        if end >= 0:
            axes.plot(steps[end], smooth[label][end], "X", color=color, markersize=12, zorder=3)
        _held_out(axes, validation[label][0], held[label], color)
    if any(len(steps) for steps, _ in training.values()):
        axes.plot([], [], color="#777777", linewidth=2, label="training")
    if any(len(steps) for steps, _ in validation.values()):
        axes.plot([], [], "--", color="#777777", label="validation")
        style = {"color": "#777777", "markeredgecolor": "black", "markersize": 9}
        axes.plot([], [], "D", label="its lowest", **style)
    if too_high:
        ratio, margin = (high / low) ** 0.05 if low > 0 else 1.0, 0.05 * (high - low) or high / 2
        logarithmic = axes.get_yscale() == "log"
        axes.set_ylim(
            *((low / ratio, high * ratio) if logarithmic else (low - margin, high + margin))
        )
    axes.set_ylabel(ylabel)
    drawn = [steps for pairs in (training, validation) for steps, _ in pairs.values()]
    canvas.steps(axes, np.concatenate(drawn))
    return canvas.finish(figure, path, legend=axes)


def _held_out(axes: Any, steps: np.ndarray, losses: np.ndarray, color: Any) -> None:
    """Draws validation losses dashed, with points where they are few, and marks the lowest."""
    few = "o" if len(losses) <= 40 else None
    axes.plot(steps, losses, "--", color=color, linewidth=1.8, marker=few, markersize=5)
    if np.isfinite(losses).any():
        lowest = int(np.nanargmin(losses))
        axes.plot(
            steps[lowest], losses[lowest], "D", color=color, markersize=9, markeredgecolor="black"
        )


def training(
    losses: Sequence[float],
    *,
    flow: Mapping[str, Sequence[float]],
    looks: Sequence[int],
    clipped: Sequence[bool],
    rejected: Sequence[bool],
    findings: Sequence[tuple[int, str]] = (),
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns a monitored training: its loss and findings, the verdict of each step, the gradient flow.

    Args:
        losses: `[S]`, one a step; not all of them need be finite.
        flow: for each layer, from the input on, the norm of the gradient at each look.
        looks: the steps of the looks.
        clipped: `[S]`, whether the gradient was scaled down.
        rejected: `[S]`, whether the step was rejected.
        findings: step and symptom of each finding.
    """
    values = np.asarray(losses, float)
    steps = np.arange(len(values))
    if not np.isfinite(values).any():
        raise ValueError("losses must hold a finite one, got none")
    norms = np.array([np.asarray(row, float) for row in flow.values()])
    if norms.ndim != 2 or norms.shape[1] != len(looks) or not len(looks):
        raise ValueError(f"flow must have {len(looks)} norms a layer, got shape {norms.shape}")
    if len(clipped) != len(values) or len(rejected) != len(values):
        raise ValueError(f"clipped and rejected must have {len(values)} entries, as losses")
    figure, grid = canvas.figure(title, 3, 1, sharex=True, height_ratios=(5, 1, 4))
    top, line, below = grid[:, 0]
    top.plot(steps, canvas.finite(values), color=canvas.COLORS[0], linewidth=1.2)
    canvas.scale(top, values[np.isfinite(values)])
    _findings(top, findings, len(values))
    top.set_ylabel("training loss")
    accepted = ~(np.asarray(clipped) | np.asarray(rejected))
    rows = (("accepted", accepted, 2), ("clipped", clipped, 1), ("rejected", rejected, 3))
    for height, (_, chosen, color) in enumerate(rows):
        some = steps[np.asarray(chosen, bool)]
        line.scatter(some, np.full(len(some), height), marker="|", s=60, color=canvas.COLORS[color])
    line.set_yticks(range(3), [name for name, _, _ in rows], fontsize=11)
    line.set_ylim(-0.6, 2.6)
    known = np.isfinite(norms) & (norms > 0)
    logs = np.where(known, np.log10(np.where(known, norms, 1.0)), np.nan)
    edges = np.append(np.asarray(looks, float), max(len(values), looks[-1] + 1))
    mesh = below.pcolormesh(edges, np.arange(len(norms) + 1), logs, cmap="viridis")
    below.set_facecolor("#eeeeee")
    some = max(1, len(norms) // 16)
    below.set_yticks(np.arange(0, len(norms), some) + 0.5, list(flow)[::some], fontsize=11)
    below.set_ylabel("layers, input below")
    below.set_xlabel("step")
    figure.colorbar(mesh, ax=below, label="log10 of the gradient's norm", pad=0.01)
    top.set_xlim(0, max(len(values), 2))
    return canvas.finish(figure, path)


def _findings(axes: Any, findings: Sequence[tuple[int, str]], num_steps: int) -> None:
    """Marks the steps of findings; texts stand one below the other, beside their lines."""
    at_step: dict[int, list[str]] = {}
    for step, name in findings:
        at_step.setdefault(step, []).append(name.replace("_", " "))
    for i, (step, names) in enumerate(sorted(at_step.items())):
        axes.axvline(step, color=canvas.COLORS[6], linestyle=":", linewidth=1.2)
        right = step > 0.7 * num_steps
        axes.annotate(
            f"step {step:,}: {', '.join(names)}",
            (step, 0.96 - 0.09 * (i % 6)),
            xycoords=("data", "axes fraction"),
            xytext=(-6 if right else 6, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=12,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def _has_diverged(losses: np.ndarray) -> bool:
    """Whether the last tenth of the losses is above ten times the first one; NaN is left out."""
    finite = losses[np.isfinite(losses)]
    tail = finite[-max(1, len(finite) // 10) :]
    return bool(len(finite) and finite[0] > 0 and np.median(tail) > 10 * finite[0])


def _smooth(values: np.ndarray) -> np.ndarray:
    """The value, at each point, of a line fitted to its neighbours; NaN is left out and stays NaN.

    A mean would bend at both ends, where all neighbours are on one side; a line does not.
    """
    from scipy.signal import savgol_filter

    finite = np.isfinite(values)
    reach = finite.sum() // 50
    if reach == 0:
        return values
    smooth = np.full(len(values), np.nan)
    # Twice: the second pass takes out the steps that the ends of the first one's window leave.
    smooth[finite] = savgol_filter(
        savgol_filter(values[finite], 2 * reach + 1, 1), 2 * reach + 1, 1
    )
    return smooth
