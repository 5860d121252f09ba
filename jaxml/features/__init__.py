"""Features as pure functions of the raw input: fitted once, the same in training and in serving.

`FeaturePipeline` puts transforms of named columns together; each is a `Transform(fit, apply)` that can be
used alone. `check` is the gate on what comes out, `recommend` says which scaling fits a column.
"""

from jaxml.features.binning import bucketize, quantile_buckets, uniform_buckets
from jaxml.features.categories import hash_buckets, one_hot, vocabulary
from jaxml.features.checks import Finding, check
from jaxml.features.crosses import cross
from jaxml.features.missing import imputation, missing_indicator
from jaxml.features.ngrams import HashedNgrams
from jaxml.features.pipeline import FeaturePipeline
from jaxml.features.recommender import Recommendation, recommend
from jaxml.features.scaling import (
    clipping,
    interpolated_buckets,
    linear_scaling,
    log_scaling,
    robust_scaling,
    z_score,
)
from jaxml.features.transform import Transform

__all__ = [
    "FeaturePipeline",
    "Finding",
    "HashedNgrams",
    "Recommendation",
    "Transform",
    "bucketize",
    "check",
    "clipping",
    "cross",
    "hash_buckets",
    "imputation",
    "interpolated_buckets",
    "linear_scaling",
    "log_scaling",
    "missing_indicator",
    "one_hot",
    "quantile_buckets",
    "recommend",
    "robust_scaling",
    "uniform_buckets",
    "vocabulary",
    "z_score",
]
