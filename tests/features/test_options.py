"""What transforms are called with: NumPy's scalars are as good as Python's, and what is none is refused."""

import numpy as np
import pytest

from jaxml import features
from jaxml.features import FeaturePipeline

TABLE = {"x": [1.0, 2.0, 5.0, None], "id": [1, 2, 3, 3], "text": ["a", "b", None, "a"]}


@pytest.mark.parametrize(
    ("from_numpy", "plain"),
    [
        (features.clipping(np.float32(0), np.int64(3)), features.clipping(0, 3)),
        (features.clipping(0, np.inf), features.clipping(0)),
        (features.clipping(quantiles=np.array([0.1, 0.9])), features.clipping(quantiles=(0.1, 0.9))),
        (features.quantile_buckets(np.int64(3)), features.quantile_buckets(3)),
        (features.uniform_buckets(3.0), features.uniform_buckets(3)),
        (features.interpolated_buckets(np.int32(4)), features.interpolated_buckets(4)),
        (features.robust_scaling(np.float64(0.1)), features.robust_scaling(0.1)),
        (features.log_scaling(np.float32(2)), features.log_scaling(2)),
        (features.bucketize(np.arange(1, 3)), features.bucketize([1, 2])),
        (features.imputation("constant", np.int64(3)), features.imputation("constant", 3)),
        (features.vocabulary(np.int64(2), np.int8(3)), features.vocabulary(2, 3)),
        (features.hash_buckets(np.int64(9), seed=np.uint64(3)), features.hash_buckets(9, seed=3)),
        (features.cross(np.array(["id", "x"]), np.int64(9)), features.cross(("id", "x"), 9)),
    ],
)  # fmt: skip
def test_options_from_numpy_are_those_from_python(from_numpy, plain, tmp_path):
    assert repr(from_numpy) == repr(plain)
    fitted = FeaturePipeline({"x": from_numpy}).fit(TABLE)
    fitted.save(tmp_path / "features.json")
    back = FeaturePipeline.load(tmp_path / "features.json")
    assert repr(back) == repr(fitted)
    np.testing.assert_array_equal(back.encode(TABLE)["x"], fitted.encode(TABLE)["x"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: features.vocabulary(2.5), "max_size is 2.5, wanted an integer of at least 1"),
        (lambda: features.vocabulary("3"), "max_size is '3'"),
        (lambda: features.vocabulary(num_oov=1.5), "num_oov is 1.5"),
        (lambda: features.hash_buckets(np.nan), "num_buckets is nan"),
        (lambda: features.hash_buckets(5, seed=0.5), "seed is 0.5"),
        (lambda: features.one_hot([3]), r"depth is \[3\]"),
        (lambda: features.quantile_buckets(None), "num_buckets is None"),
        (lambda: features.uniform_buckets(np.inf), "num_buckets is inf"),
        (lambda: features.interpolated_buckets([0, 1]), r"num_buckets is \[0, 1\]"),
        (lambda: features.linear_scaling("a", 1), "low is 'a', wanted a number"),
        (lambda: features.clipping("1"), "low is '1', wanted a number"),
        (lambda: features.clipping(quantiles=0.1), "quantiles is 0.1, wanted two numbers"),
        (lambda: features.clipping(quantiles=(0.1,)), r"quantiles is \(0.1,\)"),
        (lambda: features.robust_scaling(None), "wanted a number"),
        (lambda: features.log_scaling("e"), "shift is 'e'"),
        (lambda: features.bucketize("ab"), "boundaries is 'ab'"),
        (lambda: features.bucketize(None), "boundaries is None"),
        (lambda: features.imputation("constant", np.float32("nan")), "value is np.float32"),
        (lambda: features.imputation("constant", np.inf), "value is inf"),
        (lambda: features.cross(None, 5), "columns is None"),
        (lambda: features.cross(["a", features.vocabulary()], 5), "columns holds vocabulary"),
        (lambda: features.cross(["a", 3], 5), "columns holds 3, wanted names"),
    ],
)
def test_what_is_no_option_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
