"""How good is it? Exact figures in one call, mergeable ones in `streaming`, thresholds, slices, intervals.

`metrics.roc_auc(labels, scores)` sorts all there is, in float64 on the host, and refuses bad rows by
number. `metrics.streaming.roc_auc()` is `(empty, update, merge, compute)` over a small state, under
`jit`, `vmap`, `scan` and sharding. What is undefined (one class, nothing at all) is NaN in both, without
a warning.

All take, by keyword, what their docstrings do not say again:

    weights: of the labels' shape (a ranking's: of the lists), finite and at least 0; None counts each row
        once. 2 is the same as the row twice, 0 as the row left out.
    mask: of that shape, booleans (or zeros and ones); a row that is False does not count, whatever it
        holds, NaN included, so that batches can be padded.
"""

from jaxml.metrics import streaming
from jaxml.metrics.calibration import (
    ReliabilityDiagram,
    brier,
    calibration_error,
    log_loss,
    prediction_bias,
    reliability_diagram,
)
from jaxml.metrics.confusion import (
    ConfusionCounts,
    accuracy,
    confusion_counts,
    confusion_matrix,
    f_beta,
    false_positive_rate,
    precision,
    recall,
    top_k_accuracy,
)
from jaxml.metrics.curves import (
    PrecisionRecallCurve,
    RocCurve,
    ThresholdCounts,
    average_precision,
    precision_recall_curve,
    roc_auc,
    roc_curve,
    threshold_counts,
)
from jaxml.metrics.metric import Metric, all_reduce, collection
from jaxml.metrics.ranking import (
    hit_rate,
    mean_reciprocal_rank,
    ndcg,
    precision_at_k,
    recall_at_k,
)
from jaxml.metrics.regression import (
    explained_variance,
    huber,
    mean_absolute_error,
    mean_squared_error,
    median_absolute_error,
    r2,
    root_mean_squared_error,
)
from jaxml.metrics.resampling import Interval, bootstrap
from jaxml.metrics.slices import Slice, by_slice
from jaxml.metrics.thresholds import (
    ThresholdChoice,
    threshold_for_cost,
    threshold_for_f_beta,
    threshold_for_false_positive_rate,
    threshold_for_precision,
    threshold_for_recall,
)

__all__ = [
    "ConfusionCounts",
    "Interval",
    "Metric",
    "PrecisionRecallCurve",
    "ReliabilityDiagram",
    "RocCurve",
    "Slice",
    "ThresholdChoice",
    "ThresholdCounts",
    "accuracy",
    "all_reduce",
    "average_precision",
    "bootstrap",
    "brier",
    "by_slice",
    "calibration_error",
    "collection",
    "confusion_counts",
    "confusion_matrix",
    "explained_variance",
    "f_beta",
    "false_positive_rate",
    "hit_rate",
    "huber",
    "log_loss",
    "mean_absolute_error",
    "mean_reciprocal_rank",
    "mean_squared_error",
    "median_absolute_error",
    "ndcg",
    "precision",
    "precision_at_k",
    "precision_recall_curve",
    "prediction_bias",
    "r2",
    "recall",
    "recall_at_k",
    "reliability_diagram",
    "roc_auc",
    "roc_curve",
    "root_mean_squared_error",
    "streaming",
    "threshold_counts",
    "threshold_for_cost",
    "threshold_for_f_beta",
    "threshold_for_false_positive_rate",
    "threshold_for_precision",
    "threshold_for_recall",
    "top_k_accuracy",
]
