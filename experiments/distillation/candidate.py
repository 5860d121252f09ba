"""What a run leaves to be published: a student that answers an image with its most probable digits."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from experiments.distillation import study
from experiments.distillation.problems import Images, Problem
from jaxml import features, serving
from jaxml.types import Array, PyTree
from jaxml.validation import schema

__all__ = ["leave"]

_ANSWERS = 3
_LEAST = 0.85


def columns(problem: Problem, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Returns a column for each pixel, of images with values in [0, 1]."""
    width = len(str(x.shape[1] - 1))
    pixels = np.round(x * problem.largest)
    return {f"pixel {i:0{width}}": pixels[:, i] for i in range(x.shape[1])}


def make_model(problem: Problem) -> Callable[[PyTree, PyTree], dict[str, Array]]:
    """Returns the model that is served: the most probable digits, and their probabilities."""
    network = study.student(problem)

    def model(variables: PyTree, pixels: PyTree) -> dict[str, Array]:
        logits = network.apply(variables, pixels["dense"] / problem.largest)
        shares, digits = jax.lax.top_k(jax.nn.softmax(logits), _ANSWERS)
        return {"digit": digits, "probability": shares}

    return model


def nearest_mean(images: Images) -> NDArray[np.int64]:
    """Returns for each image the digit whose mean training image is nearest: the baseline."""
    labels = images.y[images.train]
    means = np.stack([images.x[images.train][labels == digit].mean(0) for digit in range(10)])
    return (np.square(means).sum(-1) - 2 * images.x @ means.T).argmin(-1)


def leave(
    place: Path,
    problem: Problem,
    images: Images,
    variables: PyTree,
    metrics: dict[str, float],
) -> serving.Bundle:
    """Writes the candidate of a problem; returns its bundle.

    Args:
        place: the run directory, or a folder in it.
        problem: the student's sizes.
        images: all images.
        variables: of the student.
        metrics: of the student on the test images.
    """
    training = columns(problem, images.x[images.train])
    test = images.test
    gate = serving.Gate(
        task="top_k",
        label="digit",
        output="digit",
        baseline="nearest mean",
        thresholds=(
            serving.Threshold("precision@1", bound=_LEAST, change=0.01),
            serving.Threshold("refused_rows", bound=0.01),
            serving.Threshold("latency_ms", bound=100.0),
            serving.Threshold("size_bytes", bound=5e6),
        ),
    )
    pixel = schema.Feature(
        "FLOAT", min_fraction=1.0, min_count=1, whole_numbers=True, min=0.0, max=problem.largest
    )
    serving.leave(
        place,
        held_out={
            **columns(problem, images.x[test]),
            "digit": images.y[test].astype(np.int64),
            "nearest mean": nearest_mean(images)[test],
        },
        gate=gate,
        model=make_model(problem),
        params=variables,
        pipeline=features.FeaturePipeline(dict.fromkeys(training, ())).fit(training),
        schema=schema.Schema({name: pixel for name in training}),
        training=training,
        name="digits",
        labels={"digit": [str(digit) for digit in range(10)]},
        metrics=metrics,
    )
    return serving.load(place / "candidate" / "bundle")
