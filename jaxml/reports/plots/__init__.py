"""Pictures of a run for paper and README: PNG files of 1200 × 800 pixels, replaced atomically.

Matplotlib is imported when a picture is drawn, with its Agg backend and without `pyplot`: no
window and no global state. Colours are Okabe and Ito's, which the colour-blind can tell apart;
markers and dashes say the same again.
"""

from jaxml.reports.plots.comparisons import (
    bars,
    curves,
    dots,
    fitted_lines,
    histograms,
    scaling,
)
from jaxml.reports.plots.maps import heatmap, response_map
from jaxml.reports.plots.runs import (
    compared_curves,
    generalization,
    loss_curves,
    population,
    training,
)
from jaxml.reports.plots.thresholds import trade_off

__all__ = [
    "bars",
    "compared_curves",
    "curves",
    "dots",
    "fitted_lines",
    "generalization",
    "heatmap",
    "histograms",
    "loss_curves",
    "population",
    "response_map",
    "scaling",
    "trade_off",
    "training",
]
