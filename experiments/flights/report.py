"""Pictures of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.flights import judging
from jaxml import metrics
from jaxml.reports import plots

__all__ = ["TITLES", "models", "thresholds"]

TITLES = {"early": "The evening before", "late": "30 minutes before departure"}


def models(path: Path, clocks: Mapping[str, Any]) -> None:
    """Draws AUC and log loss of all models on both clocks, with intervals."""
    kinds = list(next(iter(clocks.values()))["classification"])
    panels, intervals = {}, {}
    for name, result in clocks.items():
        for measure in ("AUC", "log loss"):
            heading = f"{TITLES[name]}: {measure}"
            figures = [result["classification"][kind] for kind in kinds]
            panels[heading] = [each[measure] for each in figures]
            intervals[heading] = [each[f"{measure} interval"] for each in figures]
    plots.dots(
        kinds,
        panels,
        intervals,
        title="More than 15 minutes late? Test months, with 95 % intervals",
        path=path,
    )


def thresholds(
    path: Path, clock: str, chosen: Mapping[str, Any], labels: NDArray, logits: NDArray
) -> None:
    """Draws precision and recall at every threshold, and how far probabilities can be believed."""
    scores = judging.probability(logits)
    counts = metrics.threshold_counts(labels, scores)
    at = np.unique(np.linspace(0, len(counts.thresholds) - 1, 1000).astype(int))
    tp, fp = counts.true_positives[at], counts.false_positives[at]
    predicted = tp + fp
    diagram = metrics.reliability_diagram(labels, scores, num_bins=20, binning="equal_mass")
    filled = diagram.weight > 0
    reliability = diagram.mean_score, diagram.fraction_positive, diagram.weight
    plots.trade_off(
        counts.thresholds[at],
        precision=np.where(predicted > 0, tp / np.maximum(predicted, 1), np.nan).tolist(),
        recall=tp / labels.sum(),
        false_positive_rate=fp / (1 - labels).sum(),
        base_rate=float(labels.mean()),
        chosen={
            name: each["threshold"]
            for name, each in chosen.items()
            if each["threshold"] is not None
        },
        reliability=tuple(each[filled] for each in reliability),
        title=f"{TITLES[clock]}: thresholds in November and December",
        path=path,
    )
