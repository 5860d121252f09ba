"""Small data sets that ship with scikit-learn, and two of its generators: float32 inputs, unscaled."""

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

from jaxml import checks

__all__ = ["blobs", "breast_cancer", "circles", "diabetes", "digits", "scaled", "wine"]

Arrays = tuple[NDArray[np.float32], NDArray[np.int32]]


def _pair(x: NDArray, y: NDArray) -> Arrays:
    return x.astype(np.float32), y.astype(np.int32)


def digits() -> Arrays:
    """Returns 1,797 images of 8 × 8 handwritten digits, values 0 to 16: ([N, 64], [N] in 0 … 9)."""
    return _pair(*datasets.load_digits(return_X_y=True))


def breast_cancer() -> Arrays:
    """Returns 569 tumours by 30 measurements on scales from 1e-3 to 1e3: ([N, 30], [N] in {0, 1})."""
    return _pair(*datasets.load_breast_cancer(return_X_y=True))


def wine() -> Arrays:
    """Returns 178 wines by 13 measurements on scales from 0.1 to 1e3: ([N, 13], [N] in 0 … 2)."""
    return _pair(*datasets.load_wine(return_X_y=True))


def diabetes() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns 442 patients by ten columns of norm 1: ([N, 10], progression of disease [N], 25 to 346)."""
    x, y = datasets.load_diabetes(return_X_y=True)
    return x.astype(np.float32), y.astype(np.float32)


def circles(num: int, noise: float, seed: int) -> Arrays:
    """Returns two concentric circles in the plane: ([num, 2], [num] in {0, 1})."""
    num = checks.integer("num", num, 1)
    return _pair(*datasets.make_circles(num, noise=noise, random_state=seed))


def blobs(num: int, num_classes: int, seed: int) -> Arrays:
    """Returns normal clouds in the plane: ([num, 2], [num] classes)."""
    num, centers = checks.integer("num", num, 1), checks.integer("num_classes", num_classes, 1)
    return _pair(*datasets.make_blobs(num, centers=centers, cluster_std=2.0, random_state=seed))


def scaled(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the columns at mean 0 and standard deviation 1, constant columns at 0.

    >>> scaled(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    deviation = x.std(0)
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
