"""Losses of each example, of a teacher's students too, weights of examples, and penalties on parameters.

A loss is `loss(outputs, targets, …, where=None) -> losses`, float32 whatever the dtypes:

    outputs: [...] real numbers, or logits [..., C] of losses of classes.
    targets: of exactly the outputs' shape ([N, 1] beside [N] would make N² losses, and is refused), or
        integer ids in [0, C) without the axis of classes. Labels out of range are refused when they are
        known, and give NaN, to their own example alone, inside `jit`.
    where: bool of the losses' shape; False masks an example, whatever it holds: its loss is 0.

A logit of −∞ excludes its class, and +∞ is certainty. Of a softmax the loss of its class is then 0 and that
of every other infinite, and several of them share the probability; of a sigmoid it is 0 if the class is
true, else infinite. The gradient of an infinite loss means nothing.

Hyperparameters may be traced, so that a sweep compiles once.
"""

from jaxml.losses.classification import (
    focal,
    one_vs_all,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
)
from jaxml.losses.distillation import distillation, hint, soft_targets, teacher_ensemble
from jaxml.losses.regression import absolute, huber, quantile, squared
from jaxml.losses.regularization import kernels_only, l1, l2, proximal_l1
from jaxml.losses.weights import balanced_class_weights, weighted

__all__ = [
    "absolute",
    "balanced_class_weights",
    "distillation",
    "focal",
    "hint",
    "huber",
    "kernels_only",
    "l1",
    "l2",
    "one_vs_all",
    "proximal_l1",
    "quantile",
    "sigmoid_binary_cross_entropy",
    "soft_targets",
    "softmax_cross_entropy",
    "squared",
    "teacher_ensemble",
    "weighted",
]
