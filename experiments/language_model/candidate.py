"""What a run leaves to be published: a model that answers the ids of the last words with the next ones."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from experiments.language_model import layers, training
from jaxml import features, models, serving, softmax
from jaxml.data import corpus
from jaxml.types import Array, PyTree
from jaxml.validation import schema

CONTEXT, ANSWERS = 16, 10
"""Words that the model is given, and words that it names."""
COLUMNS = tuple(f"word_{distance}" for distance in range(CONTEXT, 0, -1))
"""The raw columns; `word_1` is the last word. Before the first word of a document stands its `END`."""


def contexts(
    tokens: NDArray[np.int32], positions: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Returns the raw columns for the words at these positions of a part of a corpus."""
    padded = np.concatenate([np.full(CONTEXT, corpus.END), tokens])
    before = padded[positions[:, None] + np.arange(CONTEXT)]
    ended = np.logical_or.accumulate(before[:, ::-1] == corpus.END, axis=1)[:, ::-1]
    before = np.where(ended, corpus.END, before).astype(np.int64)
    return dict(zip(COLUMNS, before.T, strict=True))


def make_model(
    network: models.Recurrent, num_words: int
) -> Callable[[PyTree, PyTree], dict[str, Array]]:
    """Returns the model that is served: the most probable next words, and their probabilities."""

    def model(params: PyTree, given: Mapping[str, Array]) -> dict[str, Array]:
        ids = jnp.round(given["dense"]).astype(jnp.int32)
        states, _ = network.apply(
            {"params": params["network"]}, params["embedding"][ids], resets=ids == corpus.END
        )
        shares, words = softmax.top_k_probabilities(
            states[:, -1],
            params["classes"],
            params["biases"],
            k=min(ANSWERS, num_words),
            block_size=8192,  # The number of rows is not known when the model is exported.
        )
        return {"word": words, "probability": shares}

    return model


def leave(run_dir: Path, text: corpus.Corpus, trainer: training.Trainer, perplexity: float) -> None:
    """Writes the candidate of a trained layer that has a table of classes."""
    draws = np.random.Generator(np.random.PCG64(trainer.settings.seed))
    chosen = draws.choice(len(text.test), min(2_000, len(text.test)), replace=False)
    label = text.test[chosen].astype(np.int64)
    held_out = {
        **contexts(text.test, chosen),
        "word": label,
        "most frequent": np.full(len(label), text.counts.argmax()),
    }
    rows = contexts(text.train, draws.choice(len(text.train), min(10_000, len(text.train)), False))
    drafted = schema.infer_schema(rows)
    last = text.num_words - 1
    ranges = {name: replace(column, min=0, max=last) for name, column in drafted.features.items()}
    gate = serving.Gate(
        task="top_k",
        label="word",
        output="word",
        baseline="most frequent",
        thresholds=(
            serving.Threshold("precision@1", bound=0.15, change=0.01),
            serving.Threshold("refused_rows", bound=0.0),
            serving.Threshold("latency_ms", bound=250.0),
            serving.Threshold("size_bytes", bound=300e6),
        ),
    )
    held = trainer.state.tables
    serving.leave(
        run_dir,
        held_out=held_out,
        gate=gate,
        model=make_model(trainer.network, text.num_words),
        params={
            "network": trainer.state.params,
            "embedding": held["embedding"],
            "classes": held[layers.CLASSES],
            "biases": jnp.asarray(layers.log_shares(text.counts)),
        },
        pipeline=features.FeaturePipeline({name: () for name in COLUMNS}).fit(rows),
        schema=replace(drafted, features=ranges),
        training=rows,
        name="language-model",
        labels={"word": list(text.words)},
        metrics={"perplexity": perplexity},
        max_batch=64,
    )
