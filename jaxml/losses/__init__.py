"""Losses of each example, what each example counts, and penalties on parameters."""

from jaxml.losses.classification import (
    focal,
    hinge,
    log_loss,
    multiclass_hinge,
    one_vs_all,
    softmax_cross_entropy,
    softmax_focal,
)
from jaxml.losses.regression import absolute, huber, log_cosh, quantile, squared
from jaxml.losses.regularization import (
    decoupled_weight_decay,
    elastic_net,
    group,
    group_soft_threshold,
    kernels_only,
    l1,
    l2,
    matrices_only,
    parameter_mask,
    proximal_group,
    proximal_l1,
    soft_threshold,
)
from jaxml.losses.weights import balanced_class_weights, example_weights, mean, weighted

__all__ = [
    "absolute",
    "balanced_class_weights",
    "decoupled_weight_decay",
    "elastic_net",
    "example_weights",
    "focal",
    "group",
    "group_soft_threshold",
    "hinge",
    "huber",
    "kernels_only",
    "l1",
    "l2",
    "log_cosh",
    "log_loss",
    "matrices_only",
    "mean",
    "multiclass_hinge",
    "one_vs_all",
    "parameter_mask",
    "proximal_group",
    "proximal_l1",
    "quantile",
    "soft_threshold",
    "softmax_cross_entropy",
    "softmax_focal",
    "squared",
    "weighted",
]
