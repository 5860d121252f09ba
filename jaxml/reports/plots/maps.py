"""A number over two axes, as a map of cells."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["alignments", "heatmap", "response_map"]


def heatmap(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    notes: Sequence[Sequence[str]],
    limits: tuple[float, float],
    xlabel: str,
    label: str,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns a map of a table: a colour for each value, and a text in its cell.

    Args:
        values: `[R, C]`; a value that is not finite is grey.
        rows: R names, from the top.
        columns: C names.
        notes: `[R, C]` texts.
        limits: values of the first and the last colour.
        label: of the scale of colours.
    """
    table = np.asarray(values, float)
    _check(table, notes, len(rows), len(columns))
    # About 880 × 620 pixels are left to the cells; a point is 1.39 pixels, a letter half as wide as high.
    tall, wide = 620 / len(rows) / 1.39, 880 / len(columns) / 1.39
    longest = max(len(text) for line in notes for text in line)
    size = min(13, 0.62 * tall, wide / (0.6 * max(longest, 1)))
    figure, axes = _cells(table, notes, size, title, label, "cividis", limits)
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=max(5, min(12, 0.72 * tall)))
    axes.set_xlabel(xlabel)
    return canvas.finish(figure, path)


def response_map(
    rows: tuple[str, Sequence[float]],
    columns: tuple[str, Sequence[float]],
    values: Any,
    *,
    notes: Sequence[Sequence[str]],
    label: str,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns a map of a loss over two hyperparameters, its lowest cell framed.

    The scale of colours ends at four times the lowest value, or a tenth of the way up to the median if that
    is not positive: all values far above the best have one colour.

    Args:
        rows: the name of a hyperparameter and its values `[R]`.
        columns: the same for `[C]`.
        values: `[R, C]`, lower is better; NaN or infinite where there is none.
        notes: `[R, C]` texts under the values, such as findings.
        label: of the scale of colours.
    """
    from matplotlib.patches import Rectangle

    (row, down), (column, across) = rows, columns
    found = canvas.finite(np.asarray(values, float))
    _check(found, notes, len(down), len(across))
    if not np.isfinite(found).any():
        raise ValueError("values must have a finite one, got none")
    low = float(np.nanmin(found))
    high = 4 * low if low > 0 else low + 0.1 * float(np.nanmedian(found) - low)
    high = max(min(high, float(np.nanmax(found))), low + 1e-12)
    width = max(96 // len(across), 12)
    texts = [
        ["not finite" if np.isnan(value) else f"{value:.3g}" for value in line] for line in found
    ]
    for line, noted in zip(texts, notes, strict=True):
        for j, note in enumerate(noted):
            line[j] = "\n".join(
                [line[j], *textwrap.wrap(note.replace("_", " "), width, break_long_words=False)]
            )
    size = max(7, min(11, 66 // len(across)))
    figure, axes = _cells(found, texts, size, title, label, "viridis_r", (low, high), extend="max")
    best_row, best_column = np.unravel_index(np.nanargmin(found), found.shape)
    corner = (int(best_column), int(best_row))
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=4))
    axes.set_xticks(np.arange(len(across)) + 0.5, [f"{each:.3g}" for each in across])
    axes.set_yticks(np.arange(len(down)) + 0.5, [f"{each:.3g}" for each in down])
    axes.set_xlabel(column)
    axes.set_ylabel(row)
    return canvas.finish(figure, path)


def alignments(
    maps: Mapping[str, tuple[Sequence[str], Sequence[str], Any]],
    *,
    label: str,
    title: str,
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns maps of which parts of two sequences belong together, one for each pair.

    Args:
        maps: by name the rows' texts, from the top, the columns' texts, and shares `[R, C]` in [0, 1].
        label: of the scale of colours.
    """
    page, grid = canvas.panels(title, len(maps))
    for axes, (name, (rows, columns, values)) in zip(grid, maps.items(), strict=True):
        shares = np.asarray(values, float)
        if shares.shape != (len(rows), len(columns)) or not shares.size:
            raise ValueError(
                f"maps[{name!r}] must have shape {(len(rows), len(columns))} and a cell, got {shares.shape}"
            )
        mesh = axes.pcolormesh(shares, cmap="cividis", vmin=0, vmax=1, edgecolors="white")
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
        axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
        axes.tick_params(length=0)
        axes.set_title(name, fontsize=14)
    page.colorbar(mesh, ax=[*grid], pad=0.01).set_label(label, fontsize=13)
    return canvas.finish(page, path)


def _check(table: np.ndarray, notes: Sequence[Sequence[str]], rows: int, columns: int) -> None:
    if table.shape != (rows, columns) or not table.size:
        raise ValueError(f"values must have shape {(rows, columns)} and a cell, got {table.shape}")
    if (len(notes), *{len(line) for line in notes}) != (rows, columns):
        raise ValueError(f"notes must be {rows} rows of {columns} texts")


def _cells(
    table: np.ndarray,
    texts: Sequence[Sequence[str]],
    fontsize: float,
    title: str,
    label: str,
    colors: str,
    limits: tuple[float, float],
    extend: str = "neither",
) -> tuple[Any, Any]:
    """A coloured cell for each value, with a text that stands out from it."""
    figure, axes = canvas.figure(title)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(table),
        cmap=colors,
        vmin=limits[0],
        vmax=limits[1],
        edgecolors="white",
        linewidth=1.5,
    )
    axes.set_facecolor("#bbbbbb")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for (i, j), value in np.ndenumerate(table):
        red, green, blue, _ = mesh.to_rgba(value)
        light = np.isnan(value) or 0.299 * red + 0.587 * green + 0.114 * blue > 0.46
        axes.text(
            j + 0.5, i + 0.5, texts[i][j], ha="center", va="center", fontsize=max(5, fontsize),
            color="black" if light else "white",
        )  # fmt: skip
    figure.colorbar(mesh, ax=axes, pad=0.01, extend=extend).set_label(label, fontsize=13)
    return figure, axes
