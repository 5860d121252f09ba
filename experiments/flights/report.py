"""Pictures of a run, from the files that it has written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxml import metrics
from jaxml.reports import plots

__all__ = ["TITLES", "draw"]

TITLES = {"early": "The evening before", "late": "30 minutes before departure"}


def draw(run: Path) -> list[Path]:
    """Draws the pictures of a run from its results.json and predictions.npz.

    Returns:
        The files: models.png, and for each clock CLOCK-thresholds.png, CLOCK-loss.png and CLOCK-slices.png.

    Raises:
        OSError: one of the two files is missing.
    """
    results = json.loads((run / "results.json").read_text())
    with np.load(run / "predictions.npz") as archive:
        arrays = dict(archive)
    _models(run / "models.png", results["clocks"])
    paths = [run / "models.png"]
    for name, result in results["clocks"].items():
        own = {k.removeprefix(f"{name} "): v for k, v in arrays.items() if k.startswith(f"{name} ")}
        paths += [run / f"{name}-{kind}.png" for kind in ("thresholds", "loss", "slices")]
        _thresholds(paths[-3], TITLES[name], result, own)
        plots.loss_curves(
            (own["steps"], own["loss"]),
            (own["validation_steps"], own["validation_loss"]),
            title=f"{TITLES[name]}: log loss of the first network. Fewer flights are late in autumn",
            ylabel="log loss",
            path=paths[-2],
        )
        large = [each for each in result["slices"] if not each["small"]]
        plots.bars(
            [each["slice"].removeprefix("carrier ").removeprefix("origin ") for each in large],
            {kind: [each[kind] for each in large] for kind in ("late", "predicted")},
            ylabel="share of flights",
            title=f"{TITLES[name]}: late flights by carrier and airport, November and December",
            path=paths[-1],
        )
    return paths


def _models(path: Path, clocks: Mapping[str, Any]) -> None:
    """AUC and log loss of all models on both clocks, with intervals."""
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
        intervals=intervals,
        title="More than 15 minutes late? Test months, with 95 % intervals",
        path=path,
    )


def _thresholds(
    path: Path, title: str, result: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    labels, scores = arrays["labels"], 1 / (1 + np.exp(-arrays["logits"]))
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
        chosen={name: each["threshold"] for name, each in result["thresholds"].items()},
        reliability=tuple(each[filled] for each in reliability),
        title=f"{title}: thresholds in November and December",
        path=path,
    )
