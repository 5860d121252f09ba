"""The images, their split, and the sizes of teacher and student."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from jaxml.data import images, scikit

__all__ = ["PROBLEMS", "Images", "Problem", "jittered", "load"]

NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Problem:
    """A set of images, and what is trained on it.

    Attributes:
        read: returns images [N, side²] and labels [N].
        side: pixels of a row.
        largest: value of a pixel.
        num_train, num_validation: images of each part; the others are for the test.
        shift: largest shift of the teacher's images, in pixels.
        teacher: widths of its hidden layers.
        student: widths of its hidden layers.
        teacher_steps, student_steps: of training.
    """

    read: Callable[[], tuple[NDArray[np.float32], NDArray[np.int32]]]
    side: int
    largest: float
    num_train: int
    num_validation: int
    shift: float
    teacher: tuple[int, ...]
    student: tuple[int, ...]
    teacher_steps: int
    student_steps: int


PROBLEMS = {
    "digits": Problem(scikit.digits, 8, 16.0, 600, 297, 0.0, (256, 256), (20,), 1_000, 2_000),
    "mnist": Problem(images.mnist, 28, 255.0, 3_000, 500, 2.0, (400, 400), (100,), 1_200, 1_000),
}


@dataclasses.dataclass(frozen=True)
class Images:
    """Images [N, D] with values in [0, 1], labels [N], and the rows of the three parts."""

    x: NDArray[np.float32]
    y: NDArray[np.int32]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def load(problem: Problem) -> Images:
    """Returns the images, split at random, always alike."""
    x, y = problem.read()
    order = np.random.default_rng(0).permutation(len(x))
    ends = np.cumsum([problem.num_train, problem.num_validation])
    return Images(x / np.float32(problem.largest), y, *np.split(order, ends))


def jittered(
    x: NDArray[np.float32], side: int, shift: float, copies: int, seed: int
) -> NDArray[np.float32]:
    """Returns copies of images [N, D], each moved at random by up to `shift` pixels: [copies · N, D].

    >>> jittered(np.ones((1, 4), np.float32), 2, 0.0, 2, 0).shape
    (2, 4)
    """
    rng = np.random.default_rng(seed)
    images = np.tile(x.reshape(-1, side, side), (copies, 1, 1))
    by = rng.uniform(-shift, shift, (len(images), 2))
    moved = [ndimage.shift(image, each, order=1) for image, each in zip(images, by, strict=True)]
    return np.reshape(moved, (-1, side * side))
