"""The symptoms, a file each. To add one: a file here, its line in `REGISTRY`, and a program with the fault
in `experiments/monitor_bed/programs.py`.

A file states what the symptom is, the rule with its thresholds, and the remedy. Thresholds without another
source were chosen on the programs of `experiments.monitor_bed` (the bed), whose command measures how many
faults they find and how often they accuse a healthy run. Ranges of the bed are those of its first seed.
"""

from jaxml.monitor.findings import Symptom
from jaxml.monitor.symptoms import (
    clip_saturation,
    dead_relu,
    excessive_regularization,
    exploding_gradient,
    frozen_layer,
    learning_rate_too_high,
    learning_rate_too_low,
    loss_divergence,
    loss_jump,
    loss_oscillation,
    loss_stuck,
    no_learnable_signal,
    non_finite,
    overfitting,
    poor_initialization,
    repetitive_data,
    saturated_activation,
    unbounded_loss,
    unscaled_input,
    update_floor,
    vanishing_gradient,
    vanishing_through_time,
    zero_division,
)

__all__ = ["REGISTRY", "SYMPTOMS"]

REGISTRY: tuple[Symptom, ...] = (
    unbounded_loss.SYMPTOM,
    unscaled_input.SYMPTOM,
    poor_initialization.SYMPTOM,
    excessive_regularization.SYMPTOM,
    learning_rate_too_high.SYMPTOM,
    exploding_gradient.SYMPTOM,
    zero_division.SYMPTOM,
    non_finite.SYMPTOM,
    dead_relu.SYMPTOM,
    saturated_activation.SYMPTOM,
    vanishing_gradient.SYMPTOM,
    vanishing_through_time.SYMPTOM,
    clip_saturation.SYMPTOM,
    update_floor.SYMPTOM,
    loss_divergence.SYMPTOM,
    repetitive_data.SYMPTOM,
    loss_jump.SYMPTOM,
    loss_oscillation.SYMPTOM,
    overfitting.SYMPTOM,
    frozen_layer.SYMPTOM,
    learning_rate_too_low.SYMPTOM,
    loss_stuck.SYMPTOM,
    no_learnable_signal.SYMPTOM,
)

SYMPTOMS: tuple[str, ...] = tuple(symptom.name for symptom in REGISTRY)
"""The names of all symptoms."""
