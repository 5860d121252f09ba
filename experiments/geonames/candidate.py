"""What a run leaves to be published, and its answers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.geonames import data, model
from experiments.geonames.config import Config
from jaxml import serving, softmax, train
from jaxml.data import geonames
from jaxml.types import Array, PyTree
from jaxml.validation import schema

ANSWERS = 5
"""Places that the model names."""


def make_model(config: Config) -> Callable[[PyTree, PyTree], dict[str, Array]]:
    """Returns the model that is served: the most probable places of a name, and their probabilities."""

    def answer(params: PyTree, features: PyTree) -> dict[str, Array]:
        inputs = model.encode(params["ngrams"], features["ids"]) / config.temperature
        shares, places = softmax.top_k_probabilities(
            inputs,
            params["places"],
            k=min(ANSWERS, len(params["places"])),
            block_size=8192,  # The number of rows is not known when the model is exported.
        )
        return {"place": places, "probability": shares}

    return answer


def make_gate(baseline: bool, least: float) -> serving.Gate:
    """Returns what is asked of a resolver of all places before it answers: so much P@1, and more."""
    return serving.Gate(
        task="top_k",
        label="place",
        output="place",
        baseline="TF-IDF" if baseline else None,
        thresholds=(
            serving.Threshold("precision@1", bound=least, change=0.01),
            serving.Threshold("recall@5", bound=least + 0.2, change=0.01),
            serving.Threshold(
                "precision@1", bound=least - 0.05, change=0.02, by="twin", values=("no", "yes")
            ),
            serving.Threshold("refused_rows", bound=0.01),
            serving.Threshold("latency_ms", bound=250.0),
            serving.Threshold("size_bytes", bound=300e6),
        ),
    )


def leave(
    config: Config,
    names: geonames.GeoNames,
    state: train.State,
    run_dir: Path,
    results: Mapping[str, Any],
    baseline: np.ndarray | None,
    least: float = 0.5,
) -> serving.Bundle:
    """Writes the candidate of a run; returns its bundle.

    Args:
        config: of the run.
        names: the data.
        state: after training.
        run_dir: of the run.
        results: of `report_results`.
        baseline: TF-IDF's ranking of the test aliases.
        least: P@1 that the gate asks for.
    """
    test = names.test
    held_out = {
        "name": names.alias.take(test.pairs),
        "place": names.place[test.pairs],
        "twin": np.where(test.has_twin, "yes", "no"),
    }
    if baseline is not None:
        held_out["TF-IDF"] = baseline[:, 0]
    training = {"name": names.alias.take(names.train)}
    serving.leave(
        run_dir,
        held_out=held_out,
        gate=make_gate(baseline is not None, least),
        model=make_model(config),
        params={"ngrams": state.tables["ngrams"], "places": model.class_vectors(state)},
        pipeline=data.pipeline(config),
        schema=schema.infer_schema(training),
        training=training,
        name="geonames",
        labels={"place": list(map("{} ({})".format, names.name, names.country))},
        metrics=results["jaxml"]["strict, all"],
        max_batch=64,
    )
    return serving.load(run_dir / "candidate" / "bundle")


def answers(bundle: serving.Bundle, queries: Iterable[str], *, k: int) -> Iterator[str]:
    """Yields for each query a line with the k most probable places and their probabilities."""
    for query in queries:
        found = bundle.predict({"name": [query]})
        places = zip(found["place"][0, :k], found["probability"][0], strict=False)
        yield f"{query} -> " + ", ".join(f"{place} {share:.2f}" for place, share in places)
