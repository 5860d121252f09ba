"""Pictures of training: the courses of losses, of one run, of several, and of a population."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["compared_curves", "generalization", "loss_curves", "population", "training"]

_MOST_COMPARED = 20


def loss_curves(
    path: str | os.PathLike,
    train: tuple[Any, Any],
    validation: tuple[Any, Any] | None = None,
    *,
    title: str,
    ylabel: str = "loss",
) -> None:
    """Loss over steps: every training value faintly, their smoothed course, and validation.

    The smoothed curve is a local linear fit under a Gaussian window of about one part in fifty of
    the values, so that it neither lags nor bends at the ends. The axis is logarithmic if all losses
    are positive and their course spans more than a factor of 20. The first loss that is not finite
    is marked.

    Args:
        path: the PNG to write.
        train: steps and losses of the training batches, each `[n]`.
        validation: steps and losses on held-out data, each `[m]`.
        title: the heading.
        ylabel: the vertical axis.

    Raises:
        ValueError: if steps and losses differ in length or training has no finite loss.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "loss.png")
    ...     loss_curves(picture, ([0, 1, 2], [3.0, 2.0, 1.5]), title="A run")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    steps, losses = canvas.pair("train", train)
    finite = np.isfinite(losses)
    if not finite.any():
        raise ValueError(f"train must have a finite loss; got {len(losses)} values, none finite")
    held_steps, held = canvas.pair("validation", validation or ([], []))
    figure, axes = canvas.figure(title)
    raw = np.where(finite, losses, np.nan)
    smooth = _smooth(raw)
    # The course decides, not one lucky batch; but a logarithm needs every batch to be positive.
    course = np.concatenate([smooth[finite], held[np.isfinite(held)]])
    if losses[finite].min() > 0 and canvas.scale(axes.yaxis, course):
        smooth = np.exp(_smooth(np.log(raw)))
    # Not antialiased, the noise of thousands of batches makes a PNG half the size.
    axes.plot(
        steps, raw, color="#A6CFE8", linewidth=1, antialiased=False, label="training, each report"
    )
    few = "o" if len(steps) <= 20 else None  # a single report makes no line
    axes.plot(
        steps, smooth, color=canvas.COLORS[0], linewidth=2.4, marker=few, label="training, smoothed"
    )
    if len(held):
        axes.plot(
            held_steps, held, color=canvas.COLORS[3], linewidth=1.8, marker="o", label="validation"
        )
    if not finite.all():
        first = steps[np.argmin(finite)]
        axes.axvline(
            first, color=canvas.COLORS[6], linestyle=":", label=f"not finite at step {first:,.0f}"
        )
    axes.set_ylabel(ylabel)
    canvas.steps(axes, np.concatenate([steps, held_steps]))
    canvas.legend(figure, axes)
    canvas.write(figure, path)


def compared_curves(
    path: str | os.PathLike,
    runs: Mapping[str, tuple[Any, Any, Any, Any]],
    *,
    title: str,
    ylabel: str = "loss",
) -> None:
    """Loss over steps of several runs in one picture: training as a line, validation dashed with points.

    Each run has a colour; training is smoothed as in `loss_curves`, with what was measured faintly behind
    it. The axis is logarithmic if all losses are positive and their course spans more than a factor of
    20. Where a loss is first not finite, a cross ends the line, and the legend names the step. A run
    that ends above ten times its first loss has diverged: where others have not, the axis is theirs, and
    the legend says how high it has gone.

    Args:
        path: the PNG to write.
        runs: for each label its steps and training losses, each `[n]`, and its steps and validation
            losses, each `[m]`; either pair may be empty. At most 20, as more cannot be told apart.
        title: the heading.
        ylabel: the vertical axis.

    Raises:
        ValueError: if there is no run or too many, steps and losses differ in length, or no loss of any
            run is finite.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "compare.png")
    ...     slow, fast = ([0, 1], [3.0, 2.9], [2], [2.8]), ([0, 1], [3.0, 2.0], [2], [1.9])
    ...     compared_curves(picture, {"rate 0.01": slow, "rate 0.1": fast}, title="Two runs")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    if not 1 <= len(runs) <= _MOST_COMPARED:
        raise ValueError(f"runs must hold 1 to {_MOST_COMPARED}, got {len(runs)}")
    pairs = {
        label: (
            *canvas.pair(f"runs[{label!r}], training", (steps, losses)),
            *canvas.pair(f"runs[{label!r}], validation", (held_steps, held)),
        )
        for label, (steps, losses, held_steps, held) in runs.items()
    }
    every = np.concatenate([part for run in pairs.values() for part in (run[1], run[3])])
    every = every[np.isfinite(every)]
    if not every.size:
        raise ValueError("runs must hold a finite loss, got none")
    figure, axes = canvas.figure(title)
    shown = {
        label: np.where(np.isfinite(losses), losses, np.nan)
        for label, (_, losses, _, _) in pairs.items()
    }
    smooth = {label: _smooth(raw) for label, raw in shown.items()}
    diverged = {label for label, raw in shown.items() if _has_diverged(raw)}
    course = np.concatenate(
        [
            part
            for label, (*_, held) in pairs.items()
            if label not in diverged
            for part in (smooth[label], held)
        ]
        or [every]
    )
    course = course[np.isfinite(course)]
    if not course.size:
        course, diverged = every, set()
    low, high = course.min(), course.max()
    too_high = {label for label in diverged if np.nanmax(shown[label]) > 10 * high > 0}
    if every.min() > 0 and canvas.scale(axes.yaxis, course):
        smooth = {label: np.exp(_smooth(np.log(raw))) for label, raw in shown.items()}
    colors = canvas.distinct(len(pairs))
    for color, (label, (steps, losses, held_steps, held)) in zip(
        colors, pairs.items(), strict=True
    ):
        lost = ~np.isfinite(losses)
        ending = f", not finite from step {steps[np.argmax(lost)]:,.0f}" if lost.any() else ""
        if label in too_high:
            ending = f", rises to {np.nanmax(shown[label]):.2g}{ending}"
        told = textwrap.fill(f"{label}{ending}", 110)  # as much as the picture is wide
        axes.plot([], [], color=color, linewidth=2, label=told)
        axes.plot(steps, shown[label], color=color, alpha=0.2, linewidth=0.8, antialiased=False)
        few = "o" if np.isfinite(losses).sum() <= 20 else None
        axes.plot(steps, smooth[label], color=color, linewidth=2, marker=few, markersize=4)
        end = int(np.argmax(lost)) - 1 if lost.any() else -1
        if end >= 0:
            axes.plot(steps[end], smooth[label][end], "X", color=color, markersize=12, zorder=3)
        dots = "o" if len(held) <= 40 else None
        held = np.where(np.isfinite(held), held, np.nan)
        axes.plot(held_steps, held, "--", color=color, linewidth=1.8, marker=dots, markersize=6)
    if any(len(losses) for _, losses, _, _ in pairs.values()):
        axes.plot([], [], color="#777777", linewidth=2, label="training")
    if any(len(held) for *_, held in pairs.values()):
        axes.plot([], [], "--", color="#777777", marker="o", label="validation")
    if too_high:
        ratio, room = (high / low) ** 0.05 if low > 0 else 1.0, 0.05 * (high - low) or high / 2
        logarithmic = axes.get_yscale() == "log"
        axes.set_ylim(*((low / ratio, high * ratio) if logarithmic else (low - room, high + room)))
    axes.set_ylabel(ylabel)
    drawn = [part for run in pairs.values() for part in (run[0], run[2])]
    canvas.steps(axes, np.concatenate(drawn))
    canvas.legend(figure, axes)
    canvas.write(figure, path)


def population(
    path: str | os.PathLike,
    steps: Any,
    losses: Any,
    values: Sequence[float],
    *,
    value: str,
    title: str,
    ylabel: str = "training loss",
) -> None:
    """Loss curves of a population, smoothed, coloured by a hyperparameter; the lowest in the end is marked.

    The scale of colours is logarithmic if all values are positive and span more than a factor of 20, that
    of losses likewise. Curves that leave what the others show by far are cut at the upper edge.

    Args:
        path: the PNG to write.
        steps: `[n]`.
        losses: `[members, n]`; a curve ends where it is no longer finite.
        values: `[members]`, finite.
        value: what they are.
        title: the heading.
        ylabel: the vertical axis.

    Raises:
        ValueError: if the shapes do not fit, a value is not finite, or no loss is.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "population.png")
    ...     curves = [[2.0, 1.0, 0.5], [2.0, 1.9, 1.8]]
    ...     population(picture, [0, 1, 2], curves, [0.1, 0.01], value="learning rate", title="Two")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    from matplotlib import colormaps, colors
    from matplotlib.cm import ScalarMappable

    x, y, by = np.asarray(steps, float), np.asarray(losses, float), np.asarray(values, float)
    if y.ndim != 2 or y.shape != (len(by), len(x)):
        raise ValueError(
            f"losses must be [members, steps] = ({len(by)}, {len(x)}); got shape {y.shape}"
        )
    if not np.isfinite(by).all():
        raise ValueError(f"values must be finite; got {by}")
    y = np.where(np.isfinite(y), y, np.nan)
    if not np.isfinite(y).any():
        raise ValueError("losses must have a finite one; got none")
    logarithmic = by.min() > 0 and by.max() > canvas.LOG_RATIO * by.min()
    norm = (colors.LogNorm if logarithmic else colors.Normalize)(by.min(), by.max())
    scale = ScalarMappable(norm, colormaps["viridis"])
    figure, axes = canvas.figure(title)
    smooth = np.stack([_smooth(curve) if len(x) > 20 else curve for curve in y])
    smooth = np.where(np.isfinite(y), smooth, np.nan)
    for curve, at in zip(smooth, by, strict=True):
        # Not antialiased, many lines make a smaller PNG.
        axes.plot(x, curve, color=scale.to_rgba(at), linewidth=1.6, antialiased=False)
    last = [curve[np.isfinite(curve)][-1:] for curve in smooth]
    ends = np.array([each[0] if len(each) else np.inf for each in last])
    ends = np.where(np.isfinite(smooth[:, -1]), ends, np.inf)
    if np.isfinite(ends).any():
        best = int(np.argmin(ends))
        axes.plot(
            x, smooth[best], color="black", linewidth=3, linestyle="--",
            label=f"lowest in the end: {value} {by[best]:.3g}",
        )  # fmt: skip
        canvas.legend(figure, axes)
    shown = smooth[np.isfinite(smooth)]
    top = 3 * np.nanmax(smooth[:, : max(1, len(x) // 20)])
    canvas.scale(axes.yaxis, shown[shown <= top] if (shown <= top).any() else shown)
    if shown.max() > top > 0:
        axes.set_ylim(top=top)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    figure.colorbar(scale, ax=axes, label=value)
    canvas.write(figure, path)


def generalization(
    path: str | os.PathLike,
    curves: Mapping[str, tuple[tuple[Any, Any], tuple[Any, Any]]],
    *,
    title: str,
    ylabel: str = "loss",
) -> None:
    """Training and validation loss together, for one training or several: where they part, it overfits.

    Training is a thin solid line, smoothed, validation a dashed one of the same colour with its lowest
    point marked.

    Args:
        path: the PNG to write.
        curves: for each name `((steps, training losses), (steps, validation losses))`, each `[n]`.
        title: the heading.
        ylabel: the vertical axis, logarithmic as in `loss_curves`.

    Raises:
        ValueError: if there is nothing to draw, or steps and losses differ in length.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "generalization.png")
    ...     training, validation = ([0, 1, 2], [3.0, 1.0, 0.2]), ([0, 1, 2], [3.0, 1.5, 2.0])
    ...     generalization(picture, {"no penalty": (training, validation)}, title="Parted")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    if not curves:
        raise ValueError("curves must not be empty")
    figure, axes = canvas.figure(title)
    drawn = []
    for i, (name, (training, validation)) in enumerate(curves.items()):
        steps, losses = canvas.pair(f"curves[{name!r}], training", training)
        held_steps, held = canvas.pair(f"curves[{name!r}], validation", validation)
        losses, held = (np.where(np.isfinite(each), each, np.nan) for each in (losses, held))
        smooth = losses
        if len(losses) > 20 and np.isfinite(losses).any():
            positive = np.nanmin(losses) > 0
            smooth = np.exp(_smooth(np.log(losses))) if positive else _smooth(losses)
        drawn += [smooth[np.isfinite(smooth)], held[np.isfinite(held)]]
        axes.plot(steps, smooth, color=canvas.color(i), linewidth=1.6, label=f"{name}, training")
        axes.plot(
            held_steps, held, color=canvas.color(i), linewidth=2.4, linestyle="--",
            label=f"{name}, validation",
        )  # fmt: skip
        if np.isfinite(held).any():
            lowest = int(np.nanargmin(held))
            axes.plot(
                held_steps[lowest], held[lowest], color=canvas.color(i), marker=canvas.MARKERS[i % 7],
                markersize=11, markeredgecolor="black", linestyle="none",
            )  # fmt: skip
    canvas.scale(axes.yaxis, np.concatenate(drawn))
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    canvas.legend(figure, axes)
    canvas.write(figure, path)


def training(
    path: str | os.PathLike,
    losses: Sequence[float],
    *,
    flow: Mapping[str, Sequence[float]],
    looks: Sequence[int],
    clipped: Sequence[bool],
    refused: Sequence[bool],
    findings: Sequence[tuple[int, str]] = (),
    validation: tuple[Any, Any] | None = None,
    title: str,
) -> None:
    """A watched training: its loss with findings marked, the gradient flow, and what was made of each step.

    Args:
        path: the PNG to write.
        losses: `[S]`, one a step; not all of them need be finite.
        flow: for each layer, from the input on, the norm of the gradient at each look; 0 is drawn as
            nothing.
        looks: steps of the looks.
        clipped: `[S]`, whether the gradient was scaled down.
        refused: `[S]`, whether the step was refused.
        findings: step and name of each finding.
        validation: steps and losses on held-out data.
        title: the heading.

    Raises:
        ValueError: if nothing is finite, or lengths differ.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "training.png")
    ...     training(picture, [2.0, 1.0], flow={"in": [1.0], "out": [2.0]}, looks=[0],
    ...              clipped=[False, False], refused=[False, False], title="A run")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    values = np.asarray(losses, float)
    steps = np.arange(len(values))
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("losses must hold a finite one, got none")
    norms = np.array([np.asarray(row, float) for row in flow.values()])
    if norms.ndim != 2 or norms.shape[1] != len(looks):
        raise ValueError(f"flow must have {len(looks)} norms a layer, got shape {norms.shape}")
    if len(clipped) != len(values) or len(refused) != len(values):
        raise ValueError(f"clipped and refused must have {len(values)} entries, as losses")
    figure, top = canvas.figure(title)
    figure.clear()
    figure.suptitle(textwrap.fill(title, 80), fontsize=16)
    top, line, below = figure.subplots(3, 1, sharex=True, height_ratios=(5, 1, 4))
    shown = np.where(finite, values, np.nan)
    top.plot(steps, shown, color=canvas.COLORS[0], linewidth=1.2, label="training loss")
    course = shown[finite]
    if validation is not None and len(validation[0]):
        held_steps, held = canvas.pair("validation", validation)
        top.plot(held_steps, held, color=canvas.COLORS[3], linewidth=1.8, label="validation loss")
        course = np.concatenate([course, held[np.isfinite(held)]])
    canvas.scale(top.yaxis, course)
    at_step: dict[int, list[str]] = {}
    for step, name in findings:
        at_step.setdefault(step, []).append(name.replace("_", " "))
    for i, (step, names) in enumerate(sorted(at_step.items())):
        top.axvline(step, color=canvas.COLORS[6], linestyle=":", linewidth=1.2)
        # To the right of its line, and one below the other, so that neighbours can be read.
        right = step > 0.7 * len(values)
        top.annotate(
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
    top.set_ylabel("loss", fontsize=14)
    top.legend(loc="lower left", fontsize=11, frameon=False)
    rows = (("taken", ~(np.asarray(clipped) | np.asarray(refused)), 2), ("clipped", clipped, 1),
            ("refused", refused, 3))  # fmt: skip
    for height, (_, chosen, color) in enumerate(rows):
        some = steps[np.asarray(chosen, bool)]
        line.scatter(some, np.full(len(some), height), marker="|", s=60, color=canvas.COLORS[color])
    line.set_yticks(range(3), [name for name, _, _ in rows], fontsize=11)
    line.set_ylim(-0.6, 2.6)
    with np.errstate(divide="ignore"):
        logs = np.where(norms > 0, np.log10(np.where(norms > 0, norms, 1.0)), np.nan)
    logs[~np.isfinite(norms)] = np.nan
    width = np.diff(looks, append=len(values)) if len(looks) else np.ones(0)
    edges = np.append(np.asarray(looks, float), looks[-1] + width[-1])
    mesh = below.pcolormesh(edges, np.arange(len(norms) + 1), logs, cmap="viridis")
    below.set_facecolor("#eeeeee")
    few = max(1, len(norms) // 16)
    below.set_yticks(np.arange(0, len(norms), few) + 0.5, list(flow)[::few], fontsize=11)
    below.set_ylabel("layers, input below", fontsize=12)
    below.set_xlabel("step", fontsize=14)
    figure.colorbar(mesh, ax=below, label="log10 of the gradient's norm", pad=0.01)
    for axes in (top, line, below):
        axes.spines[["top", "right"]].set_visible(False)
    top.set_xlim(0, max(len(values), 2))
    canvas.write(figure, path)


def _has_diverged(losses: np.ndarray) -> bool:
    """Whether the last tenth of the losses is above ten times the first one; NaN is left out."""
    finite = losses[np.isfinite(losses)]
    tail = finite[-max(1, len(finite) // 10) :]
    return bool(len(finite) and finite[0] > 0 and np.median(tail) > 10 * finite[0])


def _smooth(values: np.ndarray) -> np.ndarray:
    """At each value the height of a line fitted to its neighbours, weighted by distance.

    A plain weighted mean would bend at both ends, where all neighbours are on one side; a line
    does not (Fan and Gijbels, Local Polynomial Modelling, 1996, section 3.2). NaN is left out and
    stays NaN.
    """
    finite = np.isfinite(values)
    width = len(values) / 100
    reach = min(int(3 * width), (len(values) - 1) // 2)
    if reach <= 0:
        return values
    offsets = np.arange(-reach, reach + 1) / width
    kernel = np.exp(-0.5 * offsets**2)

    def moment(power: int, of: np.ndarray) -> np.ndarray:
        return np.convolve(of, kernel * offsets**power, mode="same")

    present, filled = finite.astype(float), np.where(finite, values, 0.0)
    s0, s1, s2 = (moment(power, present) for power in range(3))
    t0, t1 = (moment(power, filled) for power in range(2))
    spread = s0 * s2 - s1**2
    mean = t0 / np.where(s0 > 0, s0, 1)
    alone = spread <= 1e-6 * s0**2  # a neighbourhood of one value has no slope
    line = (s2 * t0 - s1 * t1) / np.where(alone, 1, spread)
    return np.where(finite, np.where(alone, mean, line), np.nan)
