"""Numbers side by side: bars, dots, curves over sizes, fits, histograms."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["bars", "curves", "dots", "fitted_lines", "histograms", "scaling"]


def bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns grouped bars with their values: for each measure, one bar a method.

    Args:
        groups: names along the horizontal axis, such as `["P@1", "R@10"]`.
        series: for each method one value a group, at least 0; NaN leaves a gap marked "n/a".
    """
    canvas.filled(groups=groups, series=series)
    heights = canvas.by_name("series", series, len(groups), "groups")
    for name, values in heights.items():
        if (values < 0).any():
            raise ValueError(f"series[{name!r}] must be at least 0, got {values}")
    figure, axes = canvas.figure(title)
    width = 0.84 / len(series)
    # The groups share 1150 pixels; an upright label of four characters takes 36.
    narrow = 1150 / len(groups) * width < 40
    centers = np.arange(len(groups))
    for i, (name, values) in enumerate(heights.items()):
        at = centers + (i - (len(series) - 1) / 2) * width
        color = canvas.COLORS[i % len(canvas.COLORS)]
        drawn = axes.bar(at, np.nan_to_num(values), width * 0.94, color=color, label=name)
        texts = [f"{value:.2f}" if value < 10 else f"{value:,.0f}" for value in values]
        texts = ["n/a" if np.isnan(v) else text for v, text in zip(values, texts, strict=True)]
        axes.bar_label(drawn, texts, padding=4, fontsize=11, rotation=90 if narrow else 0)
    highest = np.nan_to_num(np.stack([*heights.values()])).max()
    axes.set_ylim(0, (highest or 1) * (1.15 if narrow else 1.08))
    axes.set_xticks(centers, [textwrap.fill(group, max(8, 96 // len(groups))) for group in groups])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(ylabel)
    return canvas.finish(figure, path, legend=axes)


def dots(
    rows: Sequence[str],
    panels: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns panels with a dot a method, for figures that differ by little.

    The axis of a bar has to begin at 0, where 0.743 and 0.737 look the same; that of a dot need not.

    Args:
        rows: names of the methods, from the top.
        panels: for each heading one value a row; NaN leaves the row empty.
        intervals: for each heading (low, high) of each row, drawn as a line through the dot.
    """
    canvas.filled(rows=rows, panels=panels)
    from matplotlib.ticker import MaxNLocator

    places = canvas.by_name("panels", panels, len(rows), "rows")
    figure, grid = canvas.panels(title, len(panels), sharey=True)
    heights = np.arange(len(rows))[::-1]
    for axes, (name, values) in zip(grid, places.items(), strict=True):
        axes.spines["left"].set_visible(False)
        axes.set_title(name, fontsize=14, loc="left")
        axes.tick_params(axis="y", length=0)
        for i, (x, y) in enumerate(zip(values, heights, strict=True)):
            if np.isnan(x):
                continue
            color = canvas.COLORS[i % len(canvas.COLORS)]
            axes.plot(intervals[name][i], (y, y), color=color, linewidth=3, alpha=0.5)
            axes.plot(x, y, "o", color=color, markersize=11)
            axes.annotate(
                f"{x:.4f}",
                (x, y),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                fontsize=12,
            )
        if not np.isnan(values).all():
            low, high = np.nanmin(intervals[name]), np.nanmax(intervals[name])
            margin = 0.25 * (high - low) or 0.05 * abs(high) or 1.0
            axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(-0.6, len(rows) - 0.3)
        axes.set_yticks(heights, rows)
    return canvas.finish(figure, path)


def scaling(
    series: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns repeated measurements over a size: the median as a line, the middle half as a band.

    The axis of sizes is logarithmic. The axis of the measurements starts at 0 unless it is logarithmic.

    Args:
        series: for each name the sizes `[n]`, positive, and for each size its samples, at least one,
            finite and at least 0.
    """
    canvas.filled(series=series)
    quartiles = {name: _quartiles(name, *given) for name, given in series.items()}
    figure, axes = canvas.figure(title)
    for i, (name, (sizes, low, middle, high)) in enumerate(quartiles.items()):
        style = canvas.style(i, len(quartiles))
        axes.fill_between(sizes, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.plot(sizes, middle, label=name, **style)
    canvas.log_sizes(axes, [sizes for sizes, *_ in quartiles.values()])
    ends = np.concatenate([np.concatenate([low, high]) for _, low, _, high in quartiles.values()])
    if not canvas.scale(axes, ends):
        axes.set_ylim(0, (np.max(ends) or 1) * 1.1)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return canvas.finish(figure, path, legend=axes)


def _quartiles(
    name: str, sizes: Sequence[float], samples: Sequence[Sequence[float]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sizes in ascending order, and the quartiles of the samples of each."""
    at = np.asarray(sizes, float)
    if at.ndim != 1 or len(at) != len(samples) or not len(at) or not np.all(at > 0):
        raise ValueError(
            f"series[{name!r}] must have positive sizes, each with its samples, "
            f"got sizes {at} and {len(samples)} lists of samples"
        )
    parts = []
    for size, given in zip(at, samples, strict=True):
        values = np.asarray(given, float)
        if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(
                f"series[{name!r}] must have finite samples of at least 0 at size {size:g}, "
                f"got {values}"
            )
        parts.append(np.quantile(values, [0.25, 0.5, 0.75]))
    order = np.argsort(at)
    low, middle, high = np.array(parts)[order].T
    return at[order], low, middle, high


def curves(
    series: Mapping[str, tuple[Any, Any]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    log_x: bool = True,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns a line through points for each name: quality against time, an error against a size.

    Args:
        series: for each name its x and y `[n]`, n ≥ 1; a y that is not finite leaves a gap. If y is
            `[n, samples]`, of seeds for example, the line is their mean, and their range is a band.
        log_x: whether the axis of x is logarithmic; x must be positive then.
    """
    canvas.filled(series=series)
    figure, axes = canvas.figure(title)
    drawn = []
    for i, (name, given) in enumerate(series.items()):
        samples = np.asarray(given[1], float)
        mean = samples.mean(1) if samples.ndim == 2 else samples
        x, y = canvas.pair(f"series[{name!r}]", (given[0], mean))
        style = canvas.style(i, len(series), 6)
        if samples.ndim == 2:
            low, high = canvas.finite(samples.min(1)), canvas.finite(samples.max(1))
            axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        if not x.size or not np.isfinite(x).all() or (log_x and x.min() <= 0):
            raise ValueError(f"series[{name!r}] must have x that fit their axis, got {x}")
        drawn.append(y[np.isfinite(y)])
        axes.plot(x, canvas.finite(y), label=name, **style)
    if log_x:
        canvas.log_sizes(axes, [np.asarray(x, float) for x, _ in series.values()])
    canvas.scale(axes, np.concatenate(drawn))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return canvas.finish(figure, path, legend=axes)


def fitted_lines(
    points: Mapping[str, tuple[Any, Any]],
    lines: Mapping[str, tuple[float, float]],
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns points in groups, and the straight lines that several fits drew through them.

    Args:
        points: for each group its x and y `[n]`, finite; drawn small and grey.
        lines: for each fit its slope and intercept, finite.
    """
    groups = {name: canvas.pair(f"points[{name!r}]", given) for name, given in points.items()}
    every = np.concatenate([np.stack(pair) for pair in groups.values()] or [np.zeros((2, 0))], 1)
    canvas.filled(points=every[0], lines=lines)
    if not np.isfinite(every).all() or not np.isfinite(list(lines.values())).all():
        raise ValueError("points and lines must be finite")
    figure, axes = canvas.figure(title)
    for i, (name, (x, y)) in enumerate(groups.items()):
        # Few levels of grey keep a PNG of tens of thousands of points small.
        axes.plot(
            x, y, linestyle="none", marker=".x"[i % 2], markersize=4 + 2 * (i % 2),
            color=("#b5b5b5", "#4d4d4d")[i % 2], antialiased=False, label=name,
        )  # fmt: skip
    ends = np.array([every[0].min(), every[0].max()])
    if np.ptp(ends) == 0:
        ends += np.array([-0.5, 0.5])
    for i, (name, (slope, intercept)) in enumerate(lines.items()):
        style = canvas.style(i, len(lines)) | {"marker": None, "linewidth": 3}
        axes.plot(ends, slope * ends + intercept, label=name, **style)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return canvas.finish(figure, path, legend=axes)


def histograms(
    panels: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns histograms, two to a row: a column of numbers before and after scaling, for example.

    Args:
        panels: for each its heading, edges `[n + 1]`, rising and finite, and counts `[n]`, at least 0.
    """
    canvas.filled(panels=panels)
    for heading, edges, counts in panels:
        at, heights = np.asarray(edges, float), np.asarray(counts, float)
        fit = at.ndim == heights.ndim == 1 and len(at) == len(heights) + 1 and len(heights)
        if not (fit and np.isfinite(at).all() and (np.diff(at) > 0).all() and (heights >= 0).all()):
            raise ValueError(
                f"panel {heading!r} must have rising edges and a count between any two, "
                f"got {len(at)} edges and {len(heights)} counts"
            )
    figure, grid = canvas.panels(title, len(panels))
    small = len(panels) > 6
    for i, (axes, (heading, edges, counts)) in enumerate(zip(grid, panels, strict=True)):
        axes.stairs(counts, edges, fill=True, color=canvas.COLORS[i % 2])
        axes.set_title(textwrap.fill(heading, 48), fontsize=11 if small else 12)
        axes.set_ylim(0, (max(counts) or 1) * 1.05)
        axes.set_xlim(edges[0], edges[-1])
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(labelsize=10 if small else 11)
    return canvas.finish(figure, path)
