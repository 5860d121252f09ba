"""A number over two axes, as a map of cells."""

import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxml.reports.plots import canvas

__all__ = ["heatmap", "response_map"]


def heatmap(
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
    path: str | os.PathLike | None = None,
) -> Any:
    """Returns a map of a table: a colour for each value, and a text in its cell.

    Args:
        values: `[R, C]`; a value that is not finite is grey.
        rows: R names, from the top.
        columns: C names.
        notes: `[R, C]` texts; None for the values themselves.
        limits: values of the first and the last colour; None for the smallest and the largest.
        label: of the scale of colours.
    """
    table = np.asarray(values, float)
    wanted = (len(rows), len(columns))
    if table.shape != wanted or not table.size:
        raise ValueError(f"values must have shape {wanted} and a cell, got {table.shape}")
    if notes is None:
        notes = [["" if np.isnan(v) else canvas.short(v) for v in line] for line in table]
    _check_notes(notes, wanted)
    found = table[np.isfinite(table)]
    low, high = limits or ((found.min(), found.max()) if found.size else (0.0, 1.0))
    # About 880 × 620 pixels are left to the cells; a point is 1.39 pixels, a letter half as wide as high.
    tall, wide = 620 / len(rows) / 1.39, 880 / len(columns) / 1.39
    longest = max(len(text) for line in notes for text in line)
    figure, axes, mesh = _cells(
        table,
        notes,
        title,
        "cividis",
        (low, high),
        min(13, 0.62 * tall, wide / (0.6 * max(longest, 1))),
    )
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=max(5, min(12, 0.72 * tall)))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    figure.colorbar(mesh, ax=axes, pad=0.01).set_label(label, fontsize=13)
    return canvas.finish(figure, path)


def response_map(
    rows: tuple[str, Sequence[float]],
    columns: tuple[str, Sequence[float]],
    values: Any,
    *,
    notes: Sequence[Sequence[str]] | None = None,
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
    wanted = (len(down), len(across))
    found = canvas.finite(np.asarray(values, float))
    if found.shape != wanted:
        raise ValueError(f"values must have shape [rows, columns] = {wanted}, got {found.shape}")
    if not np.isfinite(found).any():
        raise ValueError("values must have a finite one, got none")
    notes = notes or [[""] * len(across)] * len(down)
    _check_notes(notes, wanted)
    low = float(np.nanmin(found))
    high = 4 * low if low > 0 else low + 0.1 * float(np.nanmedian(found) - low)
    high = max(min(high, float(np.nanmax(found))), low + 1e-12)
    width = max(96 // len(across), 12)
    texts = [
        [
            "\n".join(
                (
                    f"{value:.3g}" if np.isfinite(value) else "not finite",
                    *textwrap.wrap(note.replace("_", " "), width),
                )
            )
            for value, note in zip(line, noted, strict=True)
        ]
        for line, noted in zip(found, notes, strict=True)
    ]
    size = max(7, min(11, 66 // len(across)))
    figure, axes, mesh = _cells(found, texts, title, "viridis_r", (low, high), size)
    row_of_best, column_of_best = map(int, np.unravel_index(np.nanargmin(found), found.shape))
    corner = (column_of_best, row_of_best)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=4))
    axes.set_xticks(np.arange(len(across)) + 0.5, [f"{each:.3g}" for each in across])
    axes.set_yticks(np.arange(len(down)) + 0.5, [f"{each:.3g}" for each in down])
    axes.set_xlabel(column)
    axes.set_ylabel(row)
    figure.colorbar(mesh, ax=axes, pad=0.01, extend="max").set_label(label, fontsize=13)
    return canvas.finish(figure, path)


def _check_notes(notes: Sequence[Sequence[str]], wanted: tuple[int, int]) -> None:
    if (len(notes), *{len(line) for line in notes}) != wanted:
        raise ValueError(f"notes must be {wanted[0]} rows of {wanted[1]} texts")


def _cells(
    table: np.ndarray,
    texts: Sequence[Sequence[str]],
    title: str,
    colors: str,
    limits: tuple[float, float],
    fontsize: float,
) -> tuple[Any, Any, Any]:
    """A coloured cell for each value, with a text that stands out from it."""
    figure, axes = canvas.figure(title)
    low, high = limits
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(table),
        cmap=colors,
        vmin=low,
        vmax=high,
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
    return figure, axes, mesh
