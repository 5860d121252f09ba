"""Inline pictures of results, without a plotting library."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _MARGIN = 480, 200, 40
_COLORS = ("#3366aa", "#dd7722", "#338855", "#aa3355", "#7755aa", "#777777")


def loss_curve_svg(curves: Sequence[tuple[str, NDArray[Any], NDArray[Any]]]) -> str:
    """Returns an SVG of curves, each `(name, steps, values)`; values that are not finite are left out.

    The axis of values is logarithmic where all are above 0.
    """
    drawn = []
    for name, steps, values in curves:
        finite = np.isfinite(values)
        if finite.any():
            drawn.append((name, *_thinned(steps[finite], values[finite])))
    if not drawn:
        return ""
    largest = max(float(steps[-1]) for _, steps, _ in drawn) or 1.0
    every = np.concatenate([values for *_, values in drawn])
    logarithmic = every.min() > 0
    scale = np.log if logarithmic else np.asarray
    low, high = float(scale(every.min())), float(scale(every.max()))
    span = high - low or 1.0
    right, bottom = _WIDTH - _MARGIN, _HEIGHT - _MARGIN // 2

    def points(steps: NDArray[Any], values: NDArray[Any]) -> str:
        x = _MARGIN + steps / largest * (right - _MARGIN)
        y = bottom - (scale(values) - low) / span * (bottom - 10)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    lines = []
    for i, (name, steps, values) in enumerate(drawn):
        color = _COLORS[i % len(_COLORS)]
        lines.append(
            f'<polyline fill="none" stroke="{color}" points="{points(steps, values)}">'
            f"<title>{html.escape(name)}</title></polyline>"
        )
        if len(drawn) <= 4:
            lines.append(
                f'<text x="{right - 70}" y="{22 + 14 * i}" fill="{color}">{html.escape(name)}</text>'
            )
    labels = (
        f'<text x="2" y="16">{every.max():.3g}</text><text x="2" y="{bottom}">{every.min():.3g}</text>'
        f'<text x="{right - 30}" y="{_HEIGHT - 4}">{largest:,.0f}</text>'
        f'<path d="M{_MARGIN} 10V{bottom}H{right}" fill="none" stroke="#999"/>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="11">{labels}{"".join(lines)}</svg>'
    )


def _thinned(steps: NDArray[Any], values: NDArray[Any], most: int = 400) -> tuple[Any, Any]:
    """Means of neighbouring points, so that there are not more than so many."""
    each = math.ceil(len(values) / most)
    cuts = np.arange(0, len(values), each)
    counts = np.diff(np.append(cuts, len(values)))
    return np.add.reduceat(steps, cuts) / counts, np.add.reduceat(values, cuts) / counts
