"""What the pictures share: a page of 1200 × 800 pixels, colours, scales, a legend, and how it is saved."""

import os
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxml.files import replacing

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
LOG_RATIO = 20.0  # above this a linear axis would press the small values flat


def figure(title: str) -> tuple[Any, Any]:
    """An empty page with its heading, and the axes on it."""
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


def legend(figure: Any, axes: Any) -> None:
    """What the lines of the axes are, below them."""
    # Below the axes it covers nothing; constrained layout makes room for it.
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), 110 // (max(map(len, labels)) + 8)))
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=12, frameon=False
    )
    for line in legend.get_lines():
        line.set_linewidth(2)


def write(figure: Any, path: str | os.PathLike) -> None:
    """The page as a PNG, all of it or nothing."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", pil_kwargs={"optimize": True})


def distinct(count: int) -> list[Any]:
    """So many colours, no two the same."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    from matplotlib import colormaps

    # Its ends are nearly black, and look alike.
    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def color(index: int) -> str:
    """The colour of the line of that number; after seven they begin again."""
    return COLORS[index % len(COLORS)]


def scale(axis: Any, values: np.ndarray) -> bool:
    """Makes a y axis logarithmic if the values ask for it; returns whether."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (low > 0 and high > LOG_RATIO * low):
        return False
    axis.axes.set_yscale("log")
    if high < 1000 * low:
        # Over fewer than three decades their powers alone are too few ticks to read from.
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_locator(NullLocator())
    return True


def by_name(name: str, given: Mapping[str, Any], number: int, of: str) -> dict[str, np.ndarray]:
    """Arrays of so many finite numbers or NaN, or ValueError that names the one that is not."""
    found = {key: np.asarray(values, float) for key, values in given.items()}
    for key, values in found.items():
        if values.shape != (number,):
            raise ValueError(
                f"{name}[{key!r}] must have one value for each of {number} {of}; "
                f"got shape {values.shape}"
            )
        if np.isinf(values).any():
            raise ValueError(f"{name}[{key!r}] must be finite; got {values}")
    return found


def steps(axes: Any, ends: np.ndarray) -> None:
    """Whole steps along the horizontal axis, also where there is but one.

    Args:
        axes: to be drawn on.
        ends: steps that are drawn.
    """
    axes.set_xlabel("step")
    if np.ptp(ends) < 1:
        axes.set_xlim(ends[0] - 1, ends[0] + 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def short(value: float) -> str:
    """Two decimals for shares, fewer digits for what is larger."""
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def pair(name: str, given: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and their values, or ValueError that names them."""
    steps, values = (np.asarray(part, float) for part in given)
    if steps.ndim != 1 or steps.shape != values.shape:
        raise ValueError(
            f"{name} must be steps and losses of one length; "
            f"got shapes {steps.shape} and {values.shape}"
        )
    return steps, values
