"""Pictures of runs and of results: Matplotlib figures of 1200 × 800 pixels.

Every function takes a `title` and returns the figure, which a notebook shows. With `path=` it also writes a
PNG, replacing the file as a whole. Every function raises ValueError if there is nothing to draw, if lengths
differ or if a value does not fit its axis, and OSError if the file cannot be written; nothing is written
then. A vertical axis is logarithmic if its values are positive and span more than a factor of 20.

Matplotlib is imported when a picture is drawn, without `pyplot`: no window and no global state. Colours are
Okabe and Ito's, which differ for every kind of colour vision; markers and dashes differ too.

Example:
    >>> figure = bars(["P@1"], {"jaxml": [0.4], "TF-IDF": [0.2]}, ylabel="share", title="Test")
    >>> [float(patch.get_height()) for patch in figure.axes[0].patches]
    [0.4, 0.2]
"""

from jaxml.reports.plots.comparisons import (
    bars,
    curves,
    dots,
    fitted_lines,
    histograms,
    scaling,
)
from jaxml.reports.plots.maps import alignments, heatmap, response_map
from jaxml.reports.plots.runs import loss_curves, training
from jaxml.reports.plots.skew import distances
from jaxml.reports.plots.thresholds import trade_off

__all__ = [
    "alignments",
    "bars",
    "curves",
    "distances",
    "dots",
    "fitted_lines",
    "heatmap",
    "histograms",
    "loss_curves",
    "response_map",
    "scaling",
    "trade_off",
    "training",
]
