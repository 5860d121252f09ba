"""How often a model is right on the held-out aliases: ranking, figures, pictures."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.geonames import model
from experiments.geonames.config import Config
from experiments.geonames.data import Aliases
from jaxml import files, reports, softmax, train
from jaxml.bench import tfidf
from jaxml.data import geonames
from jaxml.types import Array

RECALL_AT = (1, 10, 100)


def rank_places(state: train.State, ids: np.ndarray, *, k: int) -> np.ndarray:
    """Returns the ids of the k best places of each n-gram row, `[N, k]`."""
    vectors, at_once = model.class_vectors(state), 512
    empty = state.tables["ngrams"].shape[0]
    padded = np.pad(ids, ((0, -len(ids) % at_once), (0, 0)), constant_values=empty)

    @jax.jit
    def search(queries: Array) -> Array:
        return softmax.top_k(model.encode(state.tables["ngrams"], queries), vectors, k=k)[1]

    parts = range(0, len(padded), at_once)
    return np.concatenate([search(padded[i : i + at_once]) for i in parts])[: len(ids)]


def recall(right: np.ndarray, chosen: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """Returns P@1 and R@k of ranked answers `[N, k]`, each marked right or wrong."""
    names = {k: f"{'P' if k == 1 else 'R'}@{k}" for k in RECALL_AT}
    return {name: float(right[chosen, :k].any(axis=1).mean()) for k, name in names.items()}


def judge(names: geonames.GeoNames, ranked: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns the figures of a ranking of the held-out aliases.

    `strict` wants the place that the alias was held out of; `any` is content with any place of that very
    name. `without twin` are the aliases of which training has no spelling that differs only by accents,
    case, hyphens or spaces.
    """
    strict = ranked == names.place[names.test.pairs][:, None]
    any_bearer, alone = names.test.is_answer(ranked), ~names.test.has_twin
    return {
        "strict, all": recall(strict),
        "strict, without twin": recall(strict, alone),
        "any, all": recall(any_bearer),
        "any, without twin": recall(any_bearer, alone),
    }


def report_results(
    config: Config, aliases: Aliases, state: train.State, run_dir: Path
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Evaluates model and baseline on the held-out aliases; writes results.json and pictures.

    Returns:
        The results, and the baseline's ranking `[N, k]`, None without one.
    """
    names = aliases.names
    k = min(RECALL_AT[-1], names.num_places)
    started = time.perf_counter()
    ranked = rank_places(state, aliases.ngrams[names.test.pairs], k=k)
    results: dict[str, Any] = {
        "jaxml": judge(names, ranked),
        "seconds": {"search": time.perf_counter() - started},
    }
    found = None
    if config.baseline:
        started = time.perf_counter()
        train_names, queries = names.alias.take(names.train), names.alias.take(names.test.pairs)
        found = tfidf.tfidf_nearest_neighbour(train_names, names.place[names.train], queries, k=k)
        results["TF-IDF"] = judge(names, found)
        results["seconds"]["TF-IDF"] = time.perf_counter() - started
    methods = [name for name in ("jaxml", "TF-IDF") if name in results]
    for population in results["jaxml"]:
        rows = [[name, *results[name][population].values()] for name in methods]
        title = f"{len(names.test):,} held-out aliases: {population}"
        reports.table(title, ["method", *results["jaxml"][population]], rows)
    results["environment"] = reports.environment()
    files.write_json(run_dir / "results.json", results)

    run = reports.rundir.read(run_dir)
    reports.plots.loss_curves(
        {"resolver": (run.steps, run.losses, run.validation_steps, run.validations)},
        title=f"Softmax over {names.num_places:,} places: candidates in training, all in validation",
        ylabel="cross-entropy (nats)",
        path=run_dir / "loss.png",
    )
    figures = ("strict, all", "strict, without twin")
    reports.plots.bars(
        [f"{measure}\n{name}" for name in figures for measure in results["jaxml"][name]],
        {m: [value for name in figures for value in results[m][name].values()] for m in methods},
        ylabel="share of held-out aliases",
        title="Unseen spellings: is the place first, among ten, among a hundred?",
        path=run_dir / "results.png",
    )
    return results, found
