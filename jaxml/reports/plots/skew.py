"""How far columns are from those of another table, and where."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["distances"]

_FAR, _NEAR = "#D55E00", "#0072B2"


def distances(
    columns: Sequence[tuple[str, float, float, bool]],
    levels: Mapping[str, Sequence[tuple[str, float, float]]],
    *,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns a bar for the distance of each column, and beside them the shares of some columns' levels.

    Args:
        columns: (name, distance, threshold, whether it is too far), from the top; at most 20.
        levels: for up to three columns (level, share in training, share served) of up to ten levels.
    """
    canvas.filled(columns=columns, levels=levels)
    page, grid = canvas.figure(title, len(levels), 2, width_ratios=(5, 6))
    grid = np.atleast_2d(grid)
    place = grid[0, 0].get_gridspec()[:, 0]
    for axes in grid[1:, 0]:
        axes.remove()
    grid[0, 0].set_subplotspec(place)
    _bars(grid[0, 0], columns)
    for axes, (name, cells) in zip(grid[:, 1], levels.items(), strict=True):
        _shares(axes, name, cells)
    return canvas.finish(page, path, legend=grid[0, 1])


def _bars(axes: Any, columns: Sequence[tuple[str, float, float, bool]]) -> None:
    names, lengths, thresholds, far = zip(*columns, strict=True)
    heights = np.arange(len(names))[::-1]
    colors = [_FAR if each else _NEAR for each in far]
    axes.barh(heights, lengths, 0.7, color=colors)
    axes.plot(thresholds, heights, "|", color="black", markersize=12, markeredgewidth=2)
    axes.set_yticks(heights, [_short(name, 34) for name in names], fontsize=11)
    _across(axes, len(names))
    axes.set_xlim(0, max(*lengths, *thresholds) * 1.1 or 1)
    axes.set_xlabel("distance ( | threshold)")


def _shares(axes: Any, name: str, cells: Sequence[tuple[str, float, float]]) -> None:
    heights = np.arange(len(cells))[::-1]
    for i, series in enumerate(("training", "served")):
        shares = [100 * cell[1 + i] for cell in cells]
        color = (canvas.COLORS[7], _FAR)[i]
        axes.barh(heights + (0.5 - i) * 0.4, shares, 0.4, color=color, label=series)
    axes.set_title(f"{_short(name, 50)} (% of rows)", fontsize=12, loc="left")
    axes.set_yticks(heights, [_short(cell[0], 20) for cell in cells], fontsize=9)
    _across(axes, len(cells))


def _across(axes: Any, rows: int) -> None:
    axes.set_ylim(-0.6, rows - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
