"""What all pictures share: a page of 1200 × 800 pixels, its styles and scales, a legend, and the end."""

import functools
import io
import os
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxml.files import replacing

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
LOG_RATIO = 20.0  # Above this a linear axis would press the small values flat.


@functools.cache
def _picture() -> type:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A Matplotlib figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            from PIL import Image  # Matplotlib needs it as well.

            content = io.BytesIO()
            # A notebook keeps its pictures: 64 colours take a third of the bytes.
            Image.open(io.BytesIO(_png(self))).quantize(64).save(content, "png", optimize=True)
            return content.getvalue()

    return Picture


def figure(title: str, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """An empty page with its heading, and its axes: one, or an array `[rows, columns]`."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.15)
    page = _picture()(figsize=(12, 8), dpi=100, layout=layout)
    page.suptitle(textwrap.fill(title, 80), fontsize=16)
    grid = page.subplots(rows, columns, squeeze=False, **options)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=12)
        axes.xaxis.label.set_fontsize(14)
        axes.yaxis.label.set_fontsize(14)
    return page, grid[0, 0] if grid.size == 1 else grid


def panels(title: str, count: int, **options: Any) -> tuple[Any, Any]:
    """An empty page with `count` axes, two to a row."""
    columns = min(2, count)
    page, grid = figure(title, -(-count // columns), columns, **options)
    grid = np.atleast_1d(grid).ravel()
    for axes in grid[count:]:
        axes.remove()
    return page, grid[:count]


def finish(page: Any, path: str | os.PathLike | None, *, legend: Any = None) -> Any:
    """Returns the page, after adding the legend of some axes and writing it as a PNG if there is a path."""
    if legend is not None:
        # Below the axes it covers nothing; the layout leaves space for it.
        handles, labels = legend.get_legend_handles_labels()
        columns = max(1, min(len(labels), 110 // (max(map(len, labels)) + 8)))
        below = page.legend(
            handles, labels, loc="outside lower center", ncols=columns, fontsize=12, frameon=False
        )
        for line in below.get_lines():
            line.set_linewidth(2)
    if path is not None:
        with replacing(path) as temporary:
            temporary.write_bytes(_png(page))
    return page


def _png(page: Any) -> bytes:
    content = io.BytesIO()
    page.savefig(content, format="png", pil_kwargs={"optimize": True})
    return content.getvalue()


def style(index: int, count: int, markersize: float = 7) -> dict[str, Any]:
    """Colour, dash and marker of one of `count` lines; up to 28 differ even without their colours."""
    return {
        "color": distinct(count)[index],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 2,
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": markersize,
    }


def log_sizes(axes: Any, values: Any) -> None:
    """Makes the x axis logarithmic; its ticks are the values themselves if they are few."""
    axes.set_xscale("log")
    sizes = np.unique(np.concatenate([np.ravel(x) for x in values]))
    if len(sizes) <= 10:
        from matplotlib.ticker import NullLocator

        axes.set_xticks(sizes, [f"{size:,.10g}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())


def distinct(count: int) -> list[Any]:
    """`count` different colours."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    from matplotlib import colormaps

    # The ends are nearly black, and look alike.
    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def scale(axes: Any, values: np.ndarray) -> bool:
    """Makes the y axis logarithmic if the values are positive and span more than a factor of 20."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (low > 0 and high > LOG_RATIO * low):
        return False
    axes.set_yscale("log")
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if high < 1000 * low:
        # Over fewer than three decades, their powers alone are too few ticks to read from.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    if 1e-4 <= low and high <= 1e7:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    return True


def steps(axes: Any, drawn: np.ndarray) -> None:
    """Labels the horizontal axis with whole steps, even if there is only one."""
    axes.set_xlabel("step")
    if np.ptp(drawn) < 1:
        axes.set_xlim(drawn[0] - 1, drawn[0] + 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def filled(**given: Any) -> None:
    """Raises ValueError if there is nothing to draw."""
    for name, values in given.items():
        if not len(values):
            raise ValueError(f"{name} must not be empty")


def by_name(name: str, given: Mapping[str, Any], number: int, of: str) -> dict[str, np.ndarray]:
    """Arrays of `number` finite values or NaN; ValueError names the one that is not."""
    found = {key: np.asarray(values, float) for key, values in given.items()}
    for key, values in found.items():
        if values.shape != (number,):
            raise ValueError(
                f"{name}[{key!r}] must have one value for each of {number} {of}, "
                f"got shape {values.shape}"
            )
        if np.isinf(values).any():
            raise ValueError(f"{name}[{key!r}] must be finite, got {values}")
    return found


def pair(name: str, given: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The x and y of a line, float64 `[n]`; ValueError names the line if they differ in length."""
    x, y = (np.asarray(part, float) for part in given)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"{name} must be x and y of one length, got shapes {x.shape} and {y.shape}"
        )
    return x, y


def finite(values: np.ndarray) -> np.ndarray:
    """The values with NaN for infinities, which leaves a gap in a line."""
    return np.where(np.isfinite(values), values, np.nan)
