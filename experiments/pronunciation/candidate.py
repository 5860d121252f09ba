"""What a run leaves to be published, and the answers of what it left."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.pronunciation import words
from experiments.pronunciation.decoding import pronouncer
from experiments.pronunciation.model import Pronouncer
from jaxml import serving
from jaxml.data import cmudict
from jaxml.types import PyTree
from jaxml.validation import schema

__all__ = ["ANSWERS", "leave", "load", "pronounced"]

ANSWERS = 3
"""Pronunciations of a word."""


def gate() -> serving.Gate:
    """Returns the thresholds that a model must pass to serve."""
    return serving.Gate(
        task="sequence",
        label="phones",
        output="phones",
        thresholds=(
            serving.Threshold("precision@1", bound=0.7, change=0.01),
            serving.Threshold("refused_rows", bound=0.0),
            serving.Threshold("latency_ms", bound=250.0),
            serving.Threshold("size_bytes", bound=100e6),
        ),
    )


def leave(
    run_dir: Path,
    network: Pronouncer,
    members: PyTree,
    aligned: words.Aligned,
    data: cmudict.CMUDict,
    *,
    beam: int,
    metrics: Mapping[str, float],
) -> serving.Bundle:
    """Writes the candidate of a run, and returns its bundle. A greedy search has one answer."""

    def spelled(some: NDArray[np.int32]) -> list[str]:
        return [data.words[i] for i in some]

    right = [data.pronunciations[i] for i in data.test]
    training = {"word": spelled(data.train)}
    serving.leave(
        run_dir,
        held_out={
            "word": spelled(data.test),
            "phones": [" | ".join(map(" ".join, each)) for each in right],
        },
        gate=gate(),
        model=pronouncer(network, aligned.phones, beam=beam, answers=min(beam, ANSWERS)),
        params=(members, aligned.analogies),
        pipeline=words.pipeline(),
        schema=schema.infer_schema(training),
        training=training,
        name="pronunciation",
        labels={"phones": ["", *cmudict.PHONES]},
        metrics=metrics,
        max_batch=64,
    )
    return load(run_dir)


def load(run_dir: Path) -> serving.Bundle:
    """Returns the bundle that a run has left."""
    return serving.load(run_dir / "candidate" / "bundle")


def pronounced(bundle: serving.Bundle, asked: Sequence[str]) -> Iterator[str]:
    """Yields a line for each word: its pronunciations and their probabilities.

    Raises:
        ValueError: naming the word, and its character that no word of the dictionary has.
    """
    found: Any = bundle.predict({"word": [word.lower() for word in asked]})
    for word, phones, shares in zip(asked, found["phones"], found["probability"], strict=True):
        best = [
            f"{' '.join(filter(None, each))} {share:.2f}"
            for each, share in zip(phones, shares, strict=True)
            if share > 0
        ]
        yield f"{word} -> {', '.join(best)}"
