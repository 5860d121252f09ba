"""The report of a run: one page of figures and pictures, from what the run has written."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxml import metrics
from jaxml.reports import plots

__all__ = ["TITLES", "write"]

TITLES = {"early": "The evening before", "late": "30 minutes before departure"}

_NOTES = {
    "early": "Known: the schedule, delays of all flights that had arrived by 18:00 in New York of the day "
    "before, and the weather of the scheduled hour and the hours around it as it was, which stands in "
    "for a forecast: a real forecast would be less good.",
    "late": "Known: the schedule and the aircraft, departures and arrivals up to 30 minutes before the "
    "scheduled departure, which flights were due and had not left, and the weather up to the last full "
    "hour. The aircraft is the one that flew in the end; when it was assigned is not in the table.",
}

_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } img { max-width: 100%; margin: 1em 0 }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
"""


def write(run: Path) -> None:
    """Pictures and `report.html` in the directory of a run, from its results.json and predictions.npz.

    Raises:
        OSError: one of them is not there.
    """
    results = json.loads((run / "results.json").read_text())
    with np.load(run / "predictions.npz") as archive:
        arrays = dict(archive)
    parts = [_introduction(results)]
    for name, result in results["clocks"].items():
        own = {k.removeprefix(f"{name} "): v for k, v in arrays.items() if k.startswith(f"{name} ")}
        parts.append(_clock(run, name, result, own))
    _models(run, results)
    title = "More than 15 minutes late?"
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style><h1>{title}</h1>{''.join(parts)}</html>\n"
    )
    (run / "report.html").write_text(page)


def _introduction(results: Mapping[str, Any]) -> str:
    rows, env = results["rows"], results["environment"]
    anomalies = "".join(
        f"<li>{html.escape(part)}: {html.escape(each)}"
        for part, found in results["anomalies"].items()
        for each in found
    )
    return (
        f"<p>{results['flights']:,} flights left New York City in 2013. Trained on January to August "
        f"({rows['training']:,}), validated on September and October ({rows['validation']:,}), judged on "
        f"November and December ({rows['test']:,}). Cancelled and diverted flights, "
        f"{results['left out, cancelled or diverted']:,}, have no delay at arrival and are left out of "
        f"both questions. Networks and logistic regression are jaxml's unless they are called "
        f"scikit-learn's; all see the same features. One run of {results['seconds']:.0f} s on "
        f"{env['cores']} cores, jax {env['jax']}: <code>{html.escape(results['command'])}</code></p>"
        "<p><img src=models.png alt='AUC and log loss of all models'></p>"
        "<h2>What the schema finds</h2><p>Drafted from the training months (schema-flights.toml) and, for "
        "the weather, reviewed: no wind above 150 miles an hour (schema-weather.toml). The wind that is "
        f"found is taken out.</p><ul>{anomalies or '<li>nothing'}</ul>"
    )


def _clock(run: Path, name: str, result: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    title = TITLES[name]
    _trade_off(run / f"{name}-thresholds.png", title, result, arrays)
    plots.loss_curves(
        run / f"{name}-loss.png",
        (arrays["steps"], arrays["loss"]),
        (arrays["validation_steps"], arrays["validation_loss"]),
        title=f"{title}: log loss of the first network. Autumn is easier: fewer flights are late",
        ylabel="log loss",
    )
    carriers = [s for s in result["slices"] if not s["small"]]
    plots.bars(
        run / f"{name}-slices.png",
        [s["slice"].removeprefix("carrier ").removeprefix("origin ") for s in carriers],
        {
            "late": [s["late"] for s in carriers],
            "predicted": [s["predicted"] for s in carriers],
        },
        ylabel="share of flights",
        title=f"{title}: late flights and predictions by carrier and airport, November and December",
    )
    kinds = result["classification"]
    boosting, network = kinds["scikit-learn, boosting"], kinds["network"]
    parts = [
        f"<h2>{title}</h2><p>{_NOTES[name]} {result['columns']} columns, {result['inputs']} inputs.</p>",
        _table(
            ["more than 15 minutes late", "AUC", "AP", "log loss", "Brier", "calibration error",
             "mean prediction", "training, s"],
            [
                [kind, *(f"{each[m]:.4f}" for m in ("AUC", "AP", "log loss", "Brier")),
                 f"{each['calibration error']:.3f}", f"{each['mean prediction']:.3f}",
                 f"{each['seconds']:.0f}"]
                for kind, each in kinds.items()
            ],
        ),
        _against_boosting(result["network less boosting"]),
        f"<p>{network['base rate']:.1%} of the flights were late, {network['validation']['base rate']:.1%} "
        f"in the validation months. The network is an average of {result['settings']['members']}; training "
        f"it took {network['seconds'] / boosting['seconds']:.2f} times as long as boosting, compilation "
        "included.</p>",
        _table(
            ["minutes of delay", "mean absolute error", "median absolute error", "root mean square"],
            [
                [kind, *(f"{v:.2f}" for v in each.values())]
                for kind, each in result["regression"].items()
            ],
        ),
        f"<p><img src={name}-loss.png alt='loss'></p>{_findings(result)}",
        "<h3>Thresholds</h3><p>Chosen on the validation months, judged on the test months.</p>",
        _table(
            ["chosen for", "threshold", "precision, validation", "recall, validation",
             "precision, test", "recall, test", "cost a flight, test"],
            [
                [k, *(f"{c[m]:.3f}" for m in (
                    "threshold", "precision in validation", "recall in validation",
                    "precision in test", "recall in test", "cost in test"))]
                for k, c in result["thresholds"].items()
            ],
        ),
        f"<p><img src={name}-thresholds.png alt='what a threshold buys'></p>",
        "<h3>By carrier and airport</h3><p>Intervals of 95 %, by the bootstrap.</p>",
        _table(
            ["slice", "flights", "late", "predicted", "AUC", "", "log loss", ""],
            [
                [s["slice"] + (" (few)" if s["small"] else ""), f"{s['flights']:,}",
                 f"{s['late']:.3f}", f"{s['predicted']:.3f}", _number(s["AUC"]),
                 _interval(s["AUC interval"]), f"{s['log loss']:.3f}",
                 _interval(s["log loss interval"])]
                for s in result["slices"]
            ],
        ),
        f"<p><img src={name}-slices.png alt='late flights and predictions by slice'></p>",
        "<h3>What is missing, and the error there</h3>",
        _missing(result["missing"]),
        f"<ul>{''.join(f'<li>{html.escape(each)}' for each in result['under-represented'])}</ul>",
    ]  # fmt: skip
    if "random split" in result:
        parts.append(_random(run, result["random split"]))
    return "".join(parts)


def _against_boosting(found: Mapping[str, Any]) -> str:
    said = " and ".join(
        f"{name} {each['value']:+.4f} ({_interval(each['interval'], 4)})"
        for name, each in found.items()
    )
    return (
        f"<p>Network less boosting: {said}; intervals of 95 %, of whole days drawn with replacement: "
        "flights of a day share its weather and its queues.</p>"
    )


def _missing(found: Sequence[Mapping[str, Any]]) -> str:
    """A row for each pattern of gaps: columns with the same figures are missing together."""
    together: dict[tuple[str, ...], list[str]] = {}
    for m in found:
        figures = (
            f"{m['missing in training']:.2%}",
            f"{m['missing in test']:.2%}",
            _number(m["log loss where missing"]),
            _number(m["log loss elsewhere"]),
        )
        together.setdefault(figures, []).append(m["column"])
    return _table(
        ["columns", "missing in training", "in test", "log loss where missing", "elsewhere"],
        [
            [", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else ""), *figures]
            for figures, names in together.items()
        ],
    )


def _findings(result: Mapping[str, Any]) -> str:
    watched = "<p>No monitor watched the training.</p>"
    if result["findings"] is not None:
        found = dict.fromkeys(each for member in result["findings"] for each in member)
        told = "".join(f"<li>{html.escape(each)}" for each in found)
        watched = "<p>The monitor watched every step of the network's training and found "
        watched += f"this:</p><ul>{told}</ul>" if told else "nothing wrong.</p>"
    gate = "".join(f"<li>{html.escape(each)}" for each in result["gate on features"])
    return watched + (f"<p>The gate on features found this:</p><ul>{gate}</ul>" if gate else "")


def _random(run: Path, found: Mapping[str, float]) -> str:
    plots.dots(
        run / "random-split.png",
        list(found),
        {"AUC of one network": list(found.values())},
        digits=3,
        title="How good the network looks, by how the flights to judge it on were set aside",
    )
    rows, days = found["flights drawn at random"], found["days drawn at random"]
    return (
        "<h3>Why a random split is too good</h3>"
        "<p>Drawn flight by flight, the test flights share their day with training flights, whose delays "
        "tell what that day was like: its weather's consequences, its queues. One network then has AUC "
        f"{rows:.3f}. Drawn by whole days, it has {days:.3f}: the {rows - days:.3f} between them is what "
        "is learned about days that are in training, and no flight of tomorrow has that. The split by "
        f"time gives one network {found['split by time']:.3f}: other months are judged there, some harder "
        "and some easier than the year.</p><p><img src=random-split.png alt='AUC by kind of split'></p>"
    )


def _models(run: Path, results: Mapping[str, Any]) -> None:
    """AUC of all models on both clocks."""
    clocks = results["clocks"]
    kinds = next(iter(clocks.values()))["classification"]
    plots.dots(
        run / "models.png",
        list(kinds),
        {
            f"{TITLES[name]}: {measure}": [
                clocks[name]["classification"][kind][measure] for kind in kinds
            ]
            for name in clocks
            for measure in ("AUC", "log loss")
        },
        title="More than 15 minutes late? November and December, learned from January to August",
    )


def _trade_off(
    path: Path, title: str, result: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    labels, scores = arrays["labels"], 1 / (1 + np.exp(-arrays["logits"]))
    counts = metrics.threshold_counts(labels, scores)
    at = np.unique(np.linspace(0, len(counts.thresholds) - 1, 1000).astype(int))
    tp, fp = counts.true_positives[at], counts.false_positives[at]
    said = tp + fp
    diagram = metrics.reliability_diagram(labels, scores, num_bins=20, binning="equal_mass")
    filled = diagram.weight > 0
    plots.trade_off(
        path,
        counts.thresholds[at],
        precision=np.where(said > 0, tp / np.maximum(said, 1), np.nan).tolist(),
        recall=tp / labels.sum(),
        false_positive_rate=fp / (1 - labels).sum(),
        base_rate=float(labels.mean()),
        chosen={name: each["threshold"] for name, each in result["thresholds"].items()},
        reliability=(
            diagram.mean_score[filled], diagram.fraction_positive[filled], diagram.weight[filled],
        ),
        title=f"{title}: what a threshold buys in November and December",
    )  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{html.escape(each)}" for each in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(each))}" for each in row) for row in rows
    )
    return f"<table><tr>{first}{body}</table>"


def _interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    if ends is None or not np.isfinite(ends).all():
        return ""
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"
