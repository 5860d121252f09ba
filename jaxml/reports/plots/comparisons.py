"""Pictures of numbers side by side: bars, dots, curves over sizes, fits, histograms."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["bars", "curves", "dots", "fitted_lines", "histograms", "scaling"]


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
    heights = canvas.by_name("series", series, len(groups), "groups")
    for name, values in heights.items():
        if (values < 0).any():
            raise ValueError(f"series[{name!r}] must be at least 0; got {values}")
    figure, axes = canvas.figure(title)
    width = 0.84 / len(series)
    # On 1150 pixels a group has its share; upright labels of four characters take 36.
    narrow = 1150 / len(groups) * width < 40
    centers = np.arange(len(groups))
    for i, (name, values) in enumerate(heights.items()):
        at = centers + (i - (len(series) - 1) / 2) * width
        axes.bar(at, np.nan_to_num(values), width * 0.94, color=canvas.color(i), label=name)
        for x, value in zip(at, values, strict=True):
            axes.annotate(
                "n/a" if np.isnan(value) else canvas.short(value),
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
    canvas.legend(figure, axes)
    canvas.write(figure, path)


def dots(
    path: str | os.PathLike,
    rows: Sequence[str],
    panels: Mapping[str, Sequence[float]],
    *,
    title: str,
    digits: int = 4,
    intervals: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> None:
    """Draws a dot for each method, in panels with their own axes: figures that differ by little.

    The axis of bars must begin at 0, where 0.743 and 0.737 look the same; dots can be read on any axis.

    Args:
        path: the PNG to write.
        rows: names of the methods, from the top.
        panels: for each heading one value a row; NaN leaves the row empty.
        title: the heading of all.
        digits: of the values that are written beside the dots.
        intervals: for each heading (low, high) of each row, drawn as a line through the dot.

    Raises:
        ValueError: if there is nothing to draw, a panel has not one value a row, or a value is infinite.
        OSError: if the file cannot be written.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     picture = pathlib.Path(directory, "result.png")
    ...     dots(picture, ["network", "trees"], {"AUC": [0.743, 0.737]}, title="Test")
    ...     picture.read_bytes()[1:4]
    b'PNG'
    """
    if not rows or not panels:
        raise ValueError(f"rows and panels must not be empty; got {len(rows)}, {len(panels)}")
    places = canvas.by_name("panels", panels, len(rows), "rows")
    from matplotlib.ticker import MaxNLocator

    figure, first = canvas.figure(title)
    first.remove()
    across = 1 if len(panels) == 1 else 2
    grid = figure.subplots(-(-len(panels) // across), across, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    heights = np.arange(len(rows))[::-1]
    for axes, (name, values) in zip(grid.flat, places.items(), strict=False):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(name, fontsize=14, loc="left")
        axes.tick_params(labelsize=12)
        axes.tick_params(axis="y", length=0)
        for i, (x, y) in enumerate(zip(values, heights, strict=True)):
            if np.isnan(x):
                continue
            if intervals is not None:
                axes.plot(intervals[name][i], (y, y), color=canvas.color(i), linewidth=3, alpha=0.5)
            axes.plot(x, y, "o", color=canvas.color(i), markersize=11)
            axes.annotate(
                f"{x:.{digits}f}",
                (x, y),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                fontsize=12,
            )
        if not np.isnan(values).all():
            ends = values if intervals is None else np.asarray(intervals[name], np.float64)
            low, high = np.nanmin(ends), np.nanmax(ends)
            room = 0.25 * (high - low) or 0.05 * abs(high) or 1.0
            axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(-0.6, len(rows) - 0.3)
        axes.set_yticks(heights, rows)
    canvas.write(figure, path)


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
    figure, axes = canvas.figure(title)
    for i, (name, (sizes, low, middle, high)) in enumerate(quartiles.items()):
        axes.fill_between(sizes, low, high, color=canvas.color(i), alpha=0.2, linewidth=0)
        axes.plot(
            sizes,
            middle,
            color=canvas.color(i),
            linestyle=canvas.DASHES[i % len(canvas.DASHES)],
            linewidth=2,
            marker=canvas.MARKERS[i % len(canvas.MARKERS)],
            markersize=7,
            label=name,
        )
    axes.set_xscale("log")
    ends = np.concatenate([np.concatenate([low, high]) for _, low, _, high in quartiles.values()])
    if not canvas.scale(axes.yaxis, ends):
        axes.set_ylim(0, (np.max(ends) or 1) * 1.1)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    canvas.legend(figure, axes)
    canvas.write(figure, path)


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
    figure, axes = canvas.figure(title)
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
            color=canvas.color(i),
            # Colours and markers repeat after seven names, and then dashes tell them apart.
            linestyle=canvas.DASHES[i // len(canvas.COLORS) % len(canvas.DASHES)],
            linewidth=2,
            marker=canvas.MARKERS[i % len(canvas.MARKERS)],
            markersize=6,
            label=name,
        )
    if log_x:
        axes.set_xscale("log")
    canvas.scale(axes.yaxis, np.concatenate(drawn))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    canvas.legend(figure, axes)
    canvas.write(figure, path)


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
    groups = {name: canvas.pair(f"points[{name!r}]", given) for name, given in points.items()}
    every = np.concatenate([np.stack(pair) for pair in groups.values()] or [np.zeros((2, 0))], 1)
    if not every.size or not lines:
        raise ValueError(
            f"points and lines must not be empty; got {every.shape[1]} points, {len(lines)} lines"
        )
    if not np.isfinite(every).all() or not np.isfinite(list(lines.values())).all():
        raise ValueError("points and lines must be finite")
    figure, axes = canvas.figure(title)
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
            color=canvas.color(i),
            linestyle=canvas.DASHES[i % len(canvas.DASHES)],
            linewidth=3,
            label=name,
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    canvas.legend(figure, axes)
    canvas.write(figure, path)


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
    figure, _ = canvas.figure(title)
    figure.clear()
    figure.suptitle(textwrap.fill(title, 80), fontsize=16)
    columns = min(columns, len(panels))
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    small = len(grid) > 6
    for i, (axes, (heading, edges, counts)) in enumerate(zip(grid, panels, strict=False)):
        axes.stairs(counts, edges, fill=True, color=canvas.color(i % columns))
        axes.set_title(textwrap.fill(heading, 96 // columns), fontsize=10 if small else 12)
        axes.set_ylim(0, (max(counts) or 1) * 1.05)
        axes.set_xlim(edges[0], edges[-1])
        axes.locator_params(axis="x", nbins=max(2, 10 // columns))
        axes.locator_params(axis="y", nbins=4)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=9 if small else 11)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.write(figure, path)


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
