"""What the students are worth: accuracy, agreement with the teacher, divergence, size and time."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from experiments.distillation.problems import NUM_CLASSES, Images
from experiments.distillation.study import Arm
from jaxml import losses

__all__ = ["figures", "interval", "omitted", "seconds"]

_BIASES = np.arange(0, 20.25, 0.25)


def interval(values: NDArray) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of independent values, by Student's t."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def figures(
    logits: NDArray, plain: NDArray, teacher_logits: NDArray, labels: NDArray
) -> dict[str, Any]:
    """Returns the means over seeds and their intervals, on some images.

    Args:
        logits: [S, N, C] of the students of S seeds.
        plain: [S, N, C] of those without a teacher; the difference of accuracies is paired by seed.
        teacher_logits: [N, C].
        labels: [N].
    """
    right = (logits.argmax(-1) == labels).mean(-1)
    measured = {
        "accuracy": right,
        "gain": right - (plain.argmax(-1) == labels).mean(-1),
        "agreement": (logits.argmax(-1) == teacher_logits.argmax(-1)).mean(-1),
        "KL": np.asarray(
            losses.soft_targets(logits, np.broadcast_to(teacher_logits, logits.shape))
        ).mean(-1),
    }
    found: dict[str, Any] = {name: float(each.mean()) for name, each in measured.items()}
    return found | {f"{name} interval": interval(each) for name, each in measured.items()}


def omitted(arm: Arm, logits: NDArray, teacher_logits: NDArray, images: Images) -> dict[str, Any]:
    """Returns how well students know a class that the transfer set did not have.

    Before and after the bias of the class is raised: by the amount, the same for all of its images, that
    gives the highest accuracy on the validation images.

    Args:
        arm: of the students.
        logits: [S, N, C].
        teacher_logits: [N, C].
        images: with the class.
    """
    of_class = np.arange(NUM_CLASSES) == arm.omitted
    rows = images.test[images.y[images.test] == arm.omitted]

    def right(part: NDArray, z: NDArray, bias: float) -> float:
        return float(((z[part] + bias * of_class).argmax(-1) == images.y[part]).mean())

    biases = []
    for z in logits:
        found = np.array([right(images.validation, z, bias) for bias in _BIASES])
        biases.append(float(np.median(_BIASES[found == found.max()])))
    pairs = list(zip(logits, biases, strict=True))
    return {
        "class": int(arm.omitted),
        "alpha": arm.alpha,
        "bias": float(np.mean(biases)),
        "class before": float(np.mean([right(rows, z, 0.0) for z in logits])),
        "class after": float(np.mean([right(rows, z, bias) for z, bias in pairs])),
        "class of the teacher": float((teacher_logits[rows].argmax(-1) == arm.omitted).mean()),
        "accuracy before": float(np.mean([right(images.test, z, 0.0) for z in logits])),
        "accuracy after": float(np.mean([right(images.test, z, bias) for z, bias in pairs])),
    }


def seconds(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns the median time of each function, measured in turns."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            jax.block_until_ready(function())
            taken[name].append(time.perf_counter() - started)
    return {name: float(np.median(each)) for name, each in taken.items()}


def best(arms: Sequence[Arm], logits: NDArray, images: Images) -> int:
    """Returns which arm with a teacher and all classes is most often right on the validation images."""
    rows = images.validation
    right = (logits[:, :, rows].argmax(-1) == images.y[rows]).mean((0, 2))
    return max(
        (i for i, arm in enumerate(arms) if arm.alpha and arm.omitted < 0), key=lambda i: right[i]
    )
