"""Metrics accumulated batch by batch. Each function makes a `Metric(empty, update, merge, compute)`.

A function here is the mergeable form of the same name in `jaxml.metrics`, which documents it: the options
of that function are its arguments, and labels, scores, weights and masks those of `update`.

    metric = streaming.roc_auc()
    state = metric.empty()
    for labels, scores, mask in batches:  # under jit, scan or vmap as well
        state = metric.update(state, labels, scores, mask=mask)
    metric.compute(metric.merge(state, state_of_another_host))

Values are float32 and exact up to rounding, except ROC and PR areas, which are binned.

>>> import jax.numpy as jnp
>>> metric = roc_auc()
>>> scores = jnp.array([1e-6, 4e-6, 3.5e-6, 8e-6])
>>> print(metric.compute(metric.update(metric.empty(), jnp.array([0, 0, 1, 1]), scores)))
0.75
"""

from jaxml.metrics.streaming.accumulator import Accumulator
from jaxml.metrics.streaming.calibration import (
    brier,
    calibration_error,
    log_loss,
    prediction_bias,
    reliability_diagram,
)
from jaxml.metrics.streaming.confusion import (
    accuracy,
    confusion_counts,
    confusion_matrix,
    f_beta,
    false_positive_rate,
    precision,
    recall,
    top_k_accuracy,
)
from jaxml.metrics.streaming.curves import (
    BoundedAuc,
    average_precision,
    precision_recall_curve,
    roc_auc,
    roc_auc_with_bound,
    roc_curve,
    threshold_counts,
)
from jaxml.metrics.streaming.regression import (
    mean_absolute_error,
    mean_squared_error,
    root_mean_squared_error,
)

__all__ = [
    "Accumulator",
    "BoundedAuc",
    "accuracy",
    "average_precision",
    "brier",
    "calibration_error",
    "confusion_counts",
    "confusion_matrix",
    "f_beta",
    "false_positive_rate",
    "log_loss",
    "mean_absolute_error",
    "mean_squared_error",
    "precision",
    "precision_recall_curve",
    "prediction_bias",
    "recall",
    "reliability_diagram",
    "roc_auc",
    "roc_auc_with_bound",
    "roc_curve",
    "root_mean_squared_error",
    "threshold_counts",
    "top_k_accuracy",
]
