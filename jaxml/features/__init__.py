"""Feature engineering: transforms that are fitted once and applied alike in training and in serving.

`FeaturePipeline` applies chains of transforms to named columns. Each transform (`z_score`, `vocabulary`, …)
can also be used alone: `state = transform.fit(values)`, `transform.apply(state, values)`. `check` is a gate
on the resulting features, `recommend` finds the scaling for a column.

Everything is computed on the host in float64 NumPy and handed over as float32 and int32. Missing are None,
NaN, NaT, masked values and the empty text (see `jaxml.validation.columns`).
"""

from jaxml.features.binning import bucketize, quantile_buckets, uniform_buckets
from jaxml.features.categories import cross, hash_buckets, one_hot, vocabulary
from jaxml.features.gate import Finding, check
from jaxml.features.letters import characters
from jaxml.features.missing import imputation, missing_indicator
from jaxml.features.ngrams import character_ngrams, hashed_ngrams
from jaxml.features.pipeline import FeaturePipeline
from jaxml.features.recommender import Recommendation, recommend
from jaxml.features.scaling import (
    clipping,
    interpolated_buckets,
    linear_scaling,
    log_scaling,
    z_score,
)
from jaxml.features.transform import Transform

__all__ = [
    "FeaturePipeline",
    "Finding",
    "Recommendation",
    "Transform",
    "bucketize",
    "character_ngrams",
    "characters",
    "check",
    "clipping",
    "cross",
    "hash_buckets",
    "hashed_ngrams",
    "imputation",
    "interpolated_buckets",
    "linear_scaling",
    "log_scaling",
    "missing_indicator",
    "one_hot",
    "quantile_buckets",
    "recommend",
    "uniform_buckets",
    "vocabulary",
    "z_score",
]
