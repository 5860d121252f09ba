"""Pictures of a number over two axes."""

import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["heatmap", "response_map"]


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
        notes = [
            ["" if np.isnan(value) else canvas.short(value) for value in line] for line in table
        ]
    figure, axes = canvas.figure(title)
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
    canvas.write(figure, path)


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
    figure, axes = canvas.figure(title)
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
    canvas.write(figure, path)
