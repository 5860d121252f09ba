"""Pictures of a run for paper and README: PNG files of 1200 × 800 pixels, replaced atomically.

Matplotlib is imported when a picture is drawn, with its Agg backend and without `pyplot`: no
window and no global state. Colours are Okabe and Ito's, which the colour-blind can tell apart;
markers and dashes say the same again.
"""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.reports.atomic import replacing

_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")


_MOST_COMPARED = 20
_LOG_RATIO = 20.0  # above this a linear axis would press the small values flat


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
    steps, losses = _pair("train", train)
    finite = np.isfinite(losses)
    if not finite.any():
        raise ValueError(f"train must have a finite loss; got {len(losses)} values, none finite")
    held_steps, held = _pair("validation", validation or ([], []))
    figure, axes = _figure(title)
    raw = np.where(finite, losses, np.nan)
    smooth = _smooth(raw)
    # The course decides, not one lucky batch; but a logarithm needs every batch to be positive.
    course = np.concatenate([smooth[finite], held[np.isfinite(held)]])
    if losses[finite].min() > 0 and _scale(axes.yaxis, course):
        smooth = np.exp(_smooth(np.log(raw)))
    # Not antialiased, the noise of thousands of batches makes a PNG half the size.
    axes.plot(
        steps, raw, color="#A6CFE8", linewidth=1, antialiased=False, label="training, each report"
    )
    few = "o" if len(steps) <= 20 else None  # a single report makes no line
    axes.plot(
        steps, smooth, color=_COLORS[0], linewidth=2.4, marker=few, label="training, smoothed"
    )
    if len(held):
        axes.plot(held_steps, held, color=_COLORS[3], linewidth=1.8, marker="o", label="validation")
    if not finite.all():
        first = steps[np.argmin(finite)]
        axes.axvline(
            first, color=_COLORS[6], linestyle=":", label=f"not finite at step {first:,.0f}"
        )
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    ends = np.concatenate([steps, held_steps])
    if np.ptp(ends) < 1:
        axes.set_xlim(ends[0] - 1, ends[0] + 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _legend(figure, axes)
    _write(figure, path)


def bars(
    path: str | os.PathLike,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    title: str,
) -> None:
    """Grouped bars with their values: methods side by side, for each measure.

    Args:
        path: the PNG to write.
        groups: names along the horizontal axis, such as `["P@1", "R@10", "R@100"]`.
        series: for each method one value a group, at least 0; NaN leaves a gap marked "n/a".
        ylabel: the vertical axis.
        title: the heading.

    Raises:
        ValueError: if there is no bar to draw, a series has not one value a group, or a value is
            negative or infinite.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "result.png")
    ...     bars(picture, ["P@1"], {"jaxml": [0.4], "TF-IDF": [0.2]}, ylabel="", title="Test")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    if not groups or not series:
        raise ValueError(f"groups and series must not be empty; got {len(groups)}, {len(series)}")
    heights = {name: np.asarray(values, float) for name, values in series.items()}
    for name, values in heights.items():
        if values.shape != (len(groups),):
            raise ValueError(
                f"series[{name!r}] must have one value for each of {len(groups)} groups; "
                f"got shape {values.shape}"
            )
        if np.isinf(values).any() or (values < 0).any():
            raise ValueError(f"series[{name!r}] must be at least 0 and finite; got {values}")
    figure, axes = _figure(title)
    width = 0.84 / len(series)
    # On 1150 pixels a group has its share; upright labels of four characters take 36.
    narrow = 1150 / len(groups) * width < 40
    centers = np.arange(len(groups))
    for i, (name, values) in enumerate(heights.items()):
        at = centers + (i - (len(series) - 1) / 2) * width
        axes.bar(at, np.nan_to_num(values), width * 0.94, color=_color(i), label=name)
        for x, value in zip(at, values, strict=True):
            axes.annotate(
                "n/a" if np.isnan(value) else _short(value),
                (x, 0 if np.isnan(value) else value),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=11,
                rotation=90 if narrow else 0,
            )
    highest = max(
        (np.nanmax(values) for values in heights.values() if not np.isnan(values).all()), default=0
    )
    axes.set_ylim(0, (highest or 1) * (1.15 if narrow else 1.08))
    axes.set_xticks(centers, [textwrap.fill(group, max(8, 96 // len(groups))) for group in groups])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    _write(figure, path)


def scaling(
    path: str | os.PathLike,
    series: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
) -> None:
    """Repeated measurements over a size: the median as a line, the middle half as a band.

    Sizes stand on a logarithmic axis. So do the measurements if they span more than a factor of
    20; otherwise their axis starts at 0, where flat looks flat.

    Args:
        path: the PNG to write.
        series: for each name the sizes `[n]`, positive, and for each size its samples, at least
            one, finite and at least 0.
        xlabel: the horizontal axis.
        ylabel: the vertical axis.
        title: the heading.

    Raises:
        ValueError: if there is nothing to draw, a size is not positive, or a size has no samples
            or unfit ones.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "scaling.png")
    ...     steps = {"adagrad": ([1e4, 1e6], [[3.0, 3.1], [3.0, 3.2]])}
    ...     scaling(picture, steps, xlabel="classes", ylabel="ms", title="One step")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    if not series:
        raise ValueError("series must not be empty")
    quartiles = {name: _quartiles(name, *given) for name, given in series.items()}
    figure, axes = _figure(title)
    for i, (name, (sizes, low, middle, high)) in enumerate(quartiles.items()):
        axes.fill_between(sizes, low, high, color=_color(i), alpha=0.2, linewidth=0)
        axes.plot(
            sizes,
            middle,
            color=_color(i),
            linestyle=_DASHES[i % len(_DASHES)],
            linewidth=2,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=7,
            label=name,
        )
    axes.set_xscale("log")
    ends = np.concatenate([np.concatenate([low, high]) for _, low, _, high in quartiles.values()])
    if not _scale(axes.yaxis, ends):
        axes.set_ylim(0, (np.max(ends) or 1) * 1.1)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    _write(figure, path)


def curves(
    path: str | os.PathLike,
    series: Mapping[str, tuple[Any, Any]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    log_x: bool = True,
) -> None:
    """Lines through points, one a name: quality against time, an error against the size of a sample.

    The vertical axis is logarithmic if all values are positive and span more than a factor of 20.

    Args:
        path: the PNG to write.
        series: for each name its x and y `[n]`, n ≥ 1; what is not finite leaves a gap.
        xlabel: the horizontal axis.
        ylabel: the vertical axis.
        title: the heading.
        log_x: whether x stands on a logarithmic axis; it must be positive then.

    Raises:
        ValueError: if there is nothing to draw, x and y differ in length, or an x does not fit its axis.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "quality.png")
    ...     points = {"exact": ([1, 10], [9.0, 4.0]), "sampled": ([0.1, 1], [8.0, 4.1])}
    ...     curves(picture, points, xlabel="seconds", ylabel="loss", title="Quality")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    if not series:
        raise ValueError("series must not be empty")
    figure, axes = _figure(title)
    drawn = []
    for i, (name, (xs, ys)) in enumerate(series.items()):
        x, y = np.asarray(xs, float), np.asarray(ys, float)
        if x.ndim != 1 or x.shape != y.shape or not x.size:
            raise ValueError(f"series[{name!r}] must have as many x as y; got {x.shape}, {y.shape}")
        if not np.isfinite(x).all() or (log_x and x.min() <= 0):
            raise ValueError(f"series[{name!r}] must have x that fit their axis; got {x}")
        y = np.where(np.isfinite(y), y, np.nan)
        drawn.append(y[np.isfinite(y)])
        axes.plot(
            x,
            y,
            color=_color(i),
            # Colours and markers repeat after seven names, and then dashes tell them apart.
            linestyle=_DASHES[i // len(_COLORS) % len(_DASHES)],
            linewidth=2,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=6,
            label=name,
        )
    if log_x:
        axes.set_xscale("log")
    _scale(axes.yaxis, np.concatenate(drawn))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    _write(figure, path)


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
            *_pair(f"runs[{label!r}], training", (steps, losses)),
            *_pair(f"runs[{label!r}], validation", (held_steps, held)),
        )
        for label, (steps, losses, held_steps, held) in runs.items()
    }
    every = np.concatenate([part for run in pairs.values() for part in (run[1], run[3])])
    every = every[np.isfinite(every)]
    if not every.size:
        raise ValueError("runs must hold a finite loss, got none")
    figure, axes = _figure(title)
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
    if every.min() > 0 and _scale(axes.yaxis, course):
        smooth = {label: np.exp(_smooth(np.log(raw))) for label, raw in shown.items()}
    colors = _distinct(len(pairs))
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
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    ends = np.concatenate([part for run in pairs.values() for part in (run[0], run[2])])
    if np.ptp(ends) < 1:
        axes.set_xlim(ends[0] - 1, ends[0] + 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _legend(figure, axes)
    _write(figure, path)


def heatmap(
    path: str | os.PathLike,
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    notes: Sequence[Sequence[str]] | None = None,
    limits: tuple[float, float] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    label: str,
    title: str,
) -> None:
    """A map of a table: a colour for each value, and a note on it.

    Args:
        path: the PNG to write.
        values: `[R, C]`; what is not finite is grey.
        rows: R names, from the top.
        columns: C names.
        notes: `[R, C]` texts; None for the values themselves. Written as small as they must be to fit, down
            to 5 points.
        limits: values of the first and the last colour; None for the smallest and the largest.
        xlabel: the horizontal axis.
        ylabel: the vertical axis.
        label: what the colours are.
        title: the heading.

    Raises:
        ValueError: if there is no cell, or rows, columns or notes are not as many as the values'.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "map.png")
    ...     heatmap(picture, [[0.1, 0.9]], rows=["relu"], columns=["2", "8"], label="accuracy", title="")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    table = np.asarray(values, float)
    wanted = (len(rows), len(columns))
    if table.shape != wanted or not table.size:
        raise ValueError(f"values must have shape {wanted}, and a cell; got {table.shape}")
    if notes is not None and (len(notes), *{len(line) for line in notes}) != wanted:
        raise ValueError(f"notes must be {wanted[0]} rows of {wanted[1]} texts")
    if notes is None:
        notes = [["" if np.isnan(value) else _short(value) for value in line] for line in table]
    figure, axes = _figure(title)
    finite = table[np.isfinite(table)]
    low, high = limits or ((finite.min(), finite.max()) if finite.size else (0.0, 1.0))
    shown = np.ma.masked_invalid(table)
    mesh = axes.pcolormesh(
        shown, cmap="cividis", vmin=low, vmax=high, edgecolors="white", linewidth=1.5
    )
    axes.set_facecolor("#bbbbbb")
    axes.grid(False)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    # About 880 × 620 pixels are left to the cells; a point is 1.39 pixels, a letter half as wide as high.
    tall, wide = 620 / len(rows) / 1.39, 880 / len(columns) / 1.39
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=max(5, min(12, 0.72 * tall)))
    longest = max(len(text) for line in notes for text in line)
    size = max(5, min(13, 0.62 * tall, wide / (0.6 * max(longest, 1))))
    for (i, j), value in np.ndenumerate(table):
        # The upper end of the colours is light.
        light = np.isnan(value) or (value - low) > 0.55 * (high - low)
        axes.text(
            j + 0.5,
            i + 0.5,
            notes[i][j],
            ha="center",
            va="center",
            fontsize=size,
            color="black" if light else "white",
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    bar = figure.colorbar(mesh, ax=axes, pad=0.01)
    bar.set_label(label, fontsize=13)
    bar.outline.set_visible(False)
    _write(figure, path)


def fitted_lines(
    path: str | os.PathLike,
    points: Mapping[str, tuple[Any, Any]],
    lines: Mapping[str, tuple[float, float]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
) -> None:
    """Points in groups, and straight lines through them: what each of several fits made of the data.

    Args:
        path: the PNG to write.
        points: for each group its x and y `[n]`, finite; drawn small and pale, so that tens of thousands
            can be seen through. A group may be empty.
        lines: for each fit its slope and intercept, finite.
        xlabel: the horizontal axis.
        ylabel: the vertical axis.
        title: the heading.

    Raises:
        ValueError: if there is no point or no line, x and y differ in length, or a value is not finite.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "lines.png")
    ...     points, lines = {"flights": ([0, 1, 2], [0, 1, 9])}, {"squared": (4.5, -1.2)}
    ...     fitted_lines(picture, points, lines, xlabel="x", ylabel="y", title="Fits")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    groups = {name: _pair(f"points[{name!r}]", given) for name, given in points.items()}
    every = np.concatenate([np.stack(pair) for pair in groups.values()] or [np.zeros((2, 0))], 1)
    if not every.size or not lines:
        raise ValueError(
            f"points and lines must not be empty; got {every.shape[1]} points, {len(lines)} lines"
        )
    if not np.isfinite(every).all() or not np.isfinite(list(lines.values())).all():
        raise ValueError("points and lines must be finite")
    figure, axes = _figure(title)
    for i, (name, (x, y)) in enumerate(groups.items()):
        # Greys for what is given, colours for what was made of it. Few levels keep the PNG small.
        axes.plot(
            x, y, linestyle="none", marker=".x"[i % 2], markersize=4 + 2 * (i % 2),
            color=("#b5b5b5", "#4d4d4d")[i % 2], antialiased=False, label=name,
        )  # fmt: skip
    ends = np.array([every[0].min(), every[0].max()])
    # One value of x makes no line.
    ends = ends + np.array([-1, 1]) * (0.5 if np.ptp(ends) == 0 else 0)
    for i, (name, (slope, intercept)) in enumerate(lines.items()):
        axes.plot(
            ends,
            slope * ends + intercept,
            color=_color(i),
            linestyle=_DASHES[i % len(_DASHES)],
            linewidth=3,
            label=name,
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    _write(figure, path)


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
    logarithmic = by.min() > 0 and by.max() > _LOG_RATIO * by.min()
    norm = (colors.LogNorm if logarithmic else colors.Normalize)(by.min(), by.max())
    scale = ScalarMappable(norm, colormaps["viridis"])
    figure, axes = _figure(title)
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
        _legend(figure, axes)
    shown = smooth[np.isfinite(smooth)]
    top = 3 * np.nanmax(smooth[:, : max(1, len(x) // 20)])
    _scale(axes.yaxis, shown[shown <= top] if (shown <= top).any() else shown)
    if shown.max() > top > 0:
        axes.set_ylim(top=top)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    figure.colorbar(scale, ax=axes, label=value)
    _write(figure, path)


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
    figure, axes = _figure(title)
    drawn = []
    for i, (name, (training, validation)) in enumerate(curves.items()):
        steps, losses = _pair(f"curves[{name!r}], training", training)
        held_steps, held = _pair(f"curves[{name!r}], validation", validation)
        losses, held = (np.where(np.isfinite(each), each, np.nan) for each in (losses, held))
        smooth = losses
        if len(losses) > 20 and np.isfinite(losses).any():
            positive = np.nanmin(losses) > 0
            smooth = np.exp(_smooth(np.log(losses))) if positive else _smooth(losses)
        drawn += [smooth[np.isfinite(smooth)], held[np.isfinite(held)]]
        axes.plot(steps, smooth, color=_color(i), linewidth=1.6, label=f"{name}, training")
        axes.plot(
            held_steps, held, color=_color(i), linewidth=2.4, linestyle="--",
            label=f"{name}, validation",
        )  # fmt: skip
        if np.isfinite(held).any():
            lowest = int(np.nanargmin(held))
            axes.plot(
                held_steps[lowest], held[lowest], color=_color(i), marker=_MARKERS[i % 7],
                markersize=11, markeredgecolor="black", linestyle="none",
            )  # fmt: skip
    _scale(axes.yaxis, np.concatenate(drawn))
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    _write(figure, path)


def response_map(
    path: str | os.PathLike,
    rows: tuple[str, Sequence[float]],
    columns: tuple[str, Sequence[float]],
    values: Any,
    *,
    notes: Sequence[Sequence[str]] | None = None,
    label: str,
    title: str,
) -> None:
    """A quantity over two hyperparameters as a map of cells, each with its value and what was found there.

    The scale of colours ends at four times the lowest value, or a tenth of the way up to the median where
    values are not positive: what is far off the best is all of one colour. The lowest cell is framed.

    Args:
        path: the PNG to write.
        rows: name of a hyperparameter and its values `[R]`.
        columns: likewise `[C]`.
        values: `[R, C]`, lower is better; NaN or infinite where there is none.
        notes: `[R][C]` what to write under each value: the findings; none if not given.
        label: what the values are.
        title: the heading.

    Raises:
        ValueError: if the shapes do not fit, or no value is finite.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "map.png")
    ...     losses = [[0.9, 0.2], [1.0, float("nan")]]
    ...     response_map(picture, ("decay", [0.0, 0.1]), ("rate", [0.01, 1.0]), losses,
    ...                  label="validation loss", title="Two by two")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    (row, down), (column, across) = rows, columns
    found = np.asarray(values, float)
    if found.shape != (len(down), len(across)):
        raise ValueError(
            f"values must be [rows, columns] = ({len(down)}, {len(across)}); got {found.shape}"
        )
    if notes is not None and (
        len(notes) != len(down) or any(len(each) != len(across) for each in notes)
    ):
        raise ValueError(f"notes must be [rows, columns] = ({len(down)}, {len(across)})")
    found = np.where(np.isfinite(found), found, np.nan)
    if not np.isfinite(found).any():
        raise ValueError("values must have a finite one; got none")
    low = float(np.nanmin(found))
    high = 4 * low if low > 0 else low + 0.1 * float(np.nanmedian(found) - low)
    high = max(min(high, float(np.nanmax(found))), low + 1e-12)
    figure, axes = _figure(title)
    axes.grid(False)
    colors = colormaps["viridis_r"].with_extremes(bad="#d9d9d9")
    image = axes.imshow(
        np.ma.masked_invalid(found), cmap=colors, vmin=low, vmax=high, aspect="auto", origin="lower"
    )
    width = 96 // len(across)
    for i, j in np.ndindex(*found.shape):
        value = found[i, j]
        text = f"{value:.3g}" if np.isfinite(value) else "not finite"
        if notes is not None and notes[i][j]:
            text += "\n" + textwrap.fill(notes[i][j].replace("_", " "), max(width, 12))
        dark = np.isfinite(value) and (value - low) / (high - low) > 0.55
        axes.text(
            j, i, text, ha="center", va="center", fontsize=max(7, min(11, 66 // len(across))),
            color="white" if dark else "black",
        )  # fmt: skip
    best = np.unravel_index(np.nanargmin(found), found.shape)
    axes.add_patch(
        Rectangle(
            (best[1] - 0.5, best[0] - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=4
        )
    )
    axes.set_xticks(range(len(across)), [f"{each:.3g}" for each in across])
    axes.set_yticks(range(len(down)), [f"{each:.3g}" for each in down])
    axes.set_xlabel(column)
    axes.set_ylabel(row)
    figure.colorbar(image, ax=axes, label=label, extend="max")
    _write(figure, path)


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
    figure, top = _figure(title)
    figure.clear()
    figure.suptitle(textwrap.fill(title, 80), fontsize=16)
    top, line, below = figure.subplots(3, 1, sharex=True, height_ratios=(5, 1, 4))
    shown = np.where(finite, values, np.nan)
    top.plot(steps, shown, color=_COLORS[0], linewidth=1.2, label="training loss")
    course = shown[finite]
    if validation is not None and len(validation[0]):
        held_steps, held = _pair("validation", validation)
        top.plot(held_steps, held, color=_COLORS[3], linewidth=1.8, label="validation loss")
        course = np.concatenate([course, held[np.isfinite(held)]])
    _scale(top.yaxis, course)
    at_step: dict[int, list[str]] = {}
    for step, name in findings:
        at_step.setdefault(step, []).append(name.replace("_", " "))
    for i, (step, names) in enumerate(sorted(at_step.items())):
        top.axvline(step, color=_COLORS[6], linestyle=":", linewidth=1.2)
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
        line.scatter(some, np.full(len(some), height), marker="|", s=60, color=_COLORS[color])
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
    _write(figure, path)


def histograms(
    path: str | os.PathLike,
    panels: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    title: str,
    columns: int = 2,
) -> None:
    """Histograms side by side: a column of numbers before and after it was scaled, say.

    Args:
        path: the PNG to write.
        panels: for each its heading, edges `[n + 1]`, rising and finite, and counts `[n]`, at least 0.
            They fill rows from the left; with `columns=2` a pair makes a row.
        title: the heading of all.
        columns: panels in a row, at least 1.

    Raises:
        ValueError: if there is no panel, or one has edges and counts that do not fit.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "scaled.png")
    ...     histograms(picture, [("before", [0, 1, 2], [9, 1])], title="A column")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    if not panels or columns < 1:
        raise ValueError(f"panels and columns must be at least one; got {len(panels)}, {columns}")
    for heading, edges, counts in panels:
        at, heights = np.asarray(edges, float), np.asarray(counts, float)
        fit = at.ndim == heights.ndim == 1 and len(at) == len(heights) + 1 and len(heights)
        if not (fit and np.isfinite(at).all() and (np.diff(at) > 0).all() and (heights >= 0).all()):
            raise ValueError(
                f"panel {heading!r} must have rising edges and a count between any two; "
                f"got {len(at)} edges and {len(heights)} counts"
            )
    figure, _ = _figure(title)
    figure.clear()
    figure.suptitle(textwrap.fill(title, 80), fontsize=16)
    columns = min(columns, len(panels))
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    small = len(grid) > 6
    for i, (axes, (heading, edges, counts)) in enumerate(zip(grid, panels, strict=False)):
        axes.stairs(counts, edges, fill=True, color=_color(i % columns))
        axes.set_title(textwrap.fill(heading, 96 // columns), fontsize=10 if small else 12)
        axes.set_ylim(0, (max(counts) or 1) * 1.05)
        axes.set_xlim(edges[0], edges[-1])
        axes.locator_params(axis="x", nbins=max(2, 10 // columns))
        axes.locator_params(axis="y", nbins=4)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=9 if small else 11)
        axes.spines[["top", "right"]].set_visible(False)
    _write(figure, path)


def trade_off(
    path: str | os.PathLike,
    thresholds: Sequence[float],
    *,
    precision: Sequence[float],
    recall: Sequence[float],
    false_positive_rate: Sequence[float],
    base_rate: float,
    chosen: Mapping[str, float] | None = None,
    reliability: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None,
    title: str,
) -> None:
    """What a threshold buys: rates against it, the ROC and the precision–recall curve, and reliability.

    Thresholds within [0, 1] stand on an axis of their logit, where a rare class has room.

    Args:
        path: the PNG to write.
        thresholds: `[T]`, in either order; +inf (decide for none) may be among them.
        precision: `[T]` at each threshold; NaN where nothing is decided positive.
        recall: `[T]`, the true positive rate.
        false_positive_rate: `[T]`.
        base_rate: share of positives: what precision is by chance.
        chosen: thresholds to mark, by what they were chosen for.
        reliability: mean prediction, share of positives and number of examples in each bin.
        title: the heading.

    Raises:
        ValueError: if there is no threshold, or lengths differ, or a rate is not in [0, 1].
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "trade_off.png")
    ...     trade_off(picture, [0.8, 0.2], precision=[1.0, 0.5], recall=[0.5, 1.0],
    ...               false_positive_rate=[0.0, 1.0], base_rate=0.5, title="A model")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    at = np.asarray(thresholds, float)
    rates = {
        "precision": np.asarray(precision, float),
        "recall (true positive rate)": np.asarray(recall, float),
        "false positive rate": np.asarray(false_positive_rate, float),
    }
    for name, values in rates.items():
        if values.shape != at.shape or at.ndim != 1 or not at.size:
            raise ValueError(
                f"{name} must have one value a threshold, at least one; "
                f"got {values.shape} for {at.shape}"
            )
        if (values < 0).any() or (values > 1).any():
            raise ValueError(f"{name} must be in [0, 1]; got {values}")
    order = np.argsort(-at, kind="stable")
    at, (found, hits, alarms) = at[order], (values[order] for values in rates.values())
    figure, _ = _figure(title)
    figure.clear()
    figure.suptitle(textwrap.fill(title, 80), fontsize=16)
    (top, roc), (below, diagonal) = figure.subplots(2, 2)
    finite = np.isfinite(at)
    shown = at[finite]
    probabilities = shown.size > 0 and shown.min() >= 0 and shown.max() <= 1
    if probabilities:
        from matplotlib.ticker import LogitLocator, NullLocator

        inner = shown[(shown > 0) & (shown < 1)]
        low, high = (inner.min(), inner.max()) if inner.size else (0.01, 0.99)
        top.set_xscale("logit")
        top.xaxis.set_minor_locator(NullLocator())
        top.xaxis.set_major_locator(LogitLocator(nbins=6))
        shown = np.clip(shown, low, high)
    for i, (name, values) in enumerate(zip(rates, (found, hits, alarms), strict=True)):
        top.plot(
            shown, values[finite], color=_color(i), linestyle=_DASHES[i], linewidth=2, label=name
        )
    top.set_xlabel("threshold")
    top.set_ylim(-0.02, 1.02)
    roc.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":")
    roc.plot(alarms, hits, color=_COLORS[1], linewidth=2)
    roc.set_xlabel("false positive rate")
    roc.set_ylabel("recall")
    below.axhline(base_rate, color="#888888", linewidth=1, linestyle=":")
    below.plot(hits, found, color=_COLORS[0], linewidth=2, drawstyle="steps-pre")
    below.set_xlabel("recall")
    below.set_ylabel("precision")
    below.set_ylim(-0.02, 1.02)
    for i, (name, threshold) in enumerate((chosen or {}).items(), start=3):
        style = {"color": _color(i), "marker": _MARKERS[i % len(_MARKERS)], "markersize": 9}
        # Where it would decide: the lowest of the thresholds from it on.
        place = max(int(np.searchsorted(-at, -threshold, "right")) - 1, 0)
        x = np.clip(threshold, low, high) if probabilities else threshold
        top.axvline(x, color=_color(i), linestyle=":", linewidth=1.5)
        top.plot([x], [hits[place]], linestyle="none", label=f"{name}: {threshold:.3g}", **style)
        roc.plot([alarms[place]], [hits[place]], linestyle="none", **style)
        below.plot([hits[place]], [found[place]], linestyle="none", **style)
    diagonal.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":")
    if reliability is not None:
        mean, share, count = (np.asarray(part, float) for part in reliability)
        if not mean.shape == share.shape == count.shape or mean.ndim != 1:
            raise ValueError(
                f"reliability must be three lists of one length; "
                f"got shapes {mean.shape}, {share.shape} and {count.shape}"
            )
        some = count > 0
        diagonal.plot(mean[some], share[some], color=_COLORS[0], linewidth=1)
        size = 20 + 280 * count[some] / max(count.max(), 1)
        diagonal.scatter(mean[some], share[some], size, color=_COLORS[0], alpha=0.6, clip_on=False)
        diagonal.set_title("larger dots: more examples", fontsize=11)
    else:
        diagonal.text(0.5, 0.5, "not given", ha="center", fontsize=12)
    diagonal.set_xlabel("mean prediction")
    diagonal.set_ylabel("share of positives")
    for one in (top, roc, below, diagonal):
        one.spines[["top", "right"]].set_visible(False)
        one.grid(color="#dddddd", linewidth=0.8)
        one.tick_params(labelsize=11)
        one.xaxis.label.set_fontsize(13)
        one.yaxis.label.set_fontsize(13)
    _legend(figure, top)
    _write(figure, path)


def _figure(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.15)
    figure = Figure(figsize=(12, 8), dpi=100, layout=layout)
    figure.suptitle(textwrap.fill(title, 80), fontsize=16)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=12)
    axes.xaxis.label.set_fontsize(14)
    axes.yaxis.label.set_fontsize(14)
    return figure, axes


def _legend(figure: Any, axes: Any) -> None:
    # Below the axes it covers nothing; constrained layout makes room for it.
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), 110 // (max(map(len, labels)) + 8)))
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=12, frameon=False
    )
    for line in legend.get_lines():
        line.set_linewidth(2)


def _write(figure: Any, path: str | os.PathLike) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", pil_kwargs={"optimize": True})


def _has_diverged(losses: np.ndarray) -> bool:
    """Whether the last tenth of the losses is above ten times the first one; NaN is left out."""
    finite = losses[np.isfinite(losses)]
    tail = finite[-max(1, len(finite) // 10) :]
    return bool(len(finite) and finite[0] > 0 and np.median(tail) > 10 * finite[0])


def _distinct(count: int) -> list[Any]:
    """So many colours, no two the same."""
    if count <= len(_COLORS):
        return list(_COLORS[:count])
    from matplotlib import colormaps

    # Its ends are nearly black, and look alike.
    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _scale(axis: Any, values: np.ndarray) -> bool:
    """Makes a y axis logarithmic if the values ask for it; returns whether."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (low > 0 and high > _LOG_RATIO * low):
        return False
    axis.axes.set_yscale("log")
    if high < 1000 * low:
        # Over fewer than three decades their powers alone are too few ticks to read from.
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_locator(NullLocator())
    return True


def _short(value: float) -> str:
    """Two decimals for shares, fewer digits for what is larger."""
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _pair(name: str, given: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    steps, values = (np.asarray(part, float) for part in given)
    if steps.ndim != 1 or steps.shape != values.shape:
        raise ValueError(
            f"{name} must be steps and losses of one length; "
            f"got shapes {steps.shape} and {values.shape}"
        )
    return steps, values


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


def _quartiles(
    name: str, sizes: Sequence[float], samples: Sequence[Sequence[float]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sizes in ascending order, and the quartiles of the samples of each."""
    at = np.asarray(sizes, float)
    if at.ndim != 1 or len(at) != len(samples) or not len(at) or not np.all(at > 0):
        raise ValueError(
            f"series[{name!r}] must have positive sizes, each with its samples; "
            f"got sizes {at} and {len(samples)} lists of samples"
        )
    parts = []
    for size, given in zip(at, samples, strict=True):
        values = np.asarray(given, float)
        fit = values.ndim == 1 and len(values) and np.isfinite(values).all() and values.min() >= 0
        if not fit:
            raise ValueError(
                f"series[{name!r}] must have finite samples of at least 0 at size {size:g}; "
                f"got {values}"
            )
        parts.append(np.quantile(values, [0.25, 0.5, 0.75]))
    order = np.argsort(at)
    low, middle, high = np.array(parts)[order].T
    return at[order], low, middle, high
