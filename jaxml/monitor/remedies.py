"""What to change when something was found, as data."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxml.monitor.findings import SYMPTOMS, Finding

__all__ = ["Remedy", "remedy"]


class Remedy(NamedTuple):
    """What to change, as data; what is None stays as it is.

    Attributes:
        learning_rate_factor: multiply the learning rate by it.
        learning_rate: or take this one, where it is known in the optimizer's own units.
        clip: scale gradients down to this norm.
        initializer: of the kernels: `"he_normal"`, `"glorot_normal"` or `"orthogonal"`.
        activation: of the hidden layers: `"relu"`, `"leaky_relu"`, `"elu"`, `"gelu"` or `"prelu"`.
        normalization: between layers: `"layer"` or `"batch"`.
        output_activation: `"none"` where the last layer's is at fault.
        scale_inputs: whether to bring inputs (and targets, where they are numbers) to mean 0 and deviation
            1.
        data: `"drop_non_finite"`, `"drop_outliers"`, `"shuffle"` or `"check_labels"`: train on a few
            examples that are trusted, and see whether the data is at fault.
        epsilon_factor: multiply the optimizer's epsilon by it.
        cell: of a recurrent network: `"gru"` or `"lstm"`.
        preserve: weight of `preserving_penalty`.
        regularization: `"increase"`.
        rewind: whether to go back to a snapshot from before the finding (`train.rewinding`).
    """

    learning_rate_factor: float | None = None
    learning_rate: float | None = None
    clip: float | None = None
    initializer: str | None = None
    activation: str | None = None
    normalization: str | None = None
    output_activation: str | None = None
    scale_inputs: bool | None = None
    data: str | None = None
    epsilon_factor: float | None = None
    cell: str | None = None
    preserve: float | None = None
    regularization: str | None = None
    rewind: bool | None = None

    def changes(self) -> dict[str, Any]:
        """What is not None, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def remedy(finding: Finding | Sequence[Finding], *, tried: Sequence[Remedy] = ()) -> Remedy:
    """What to change, as data.

    Args:
        finding: one, or all that a run has; of several the first is treated, as the others follow from it.
        tried: what was changed before and did not do; of activations, normalizations and cells the next
            one is named.

    Returns:
        A `Remedy`; one without a change where nothing is found.

    Raises:
        ValueError: for a symptom that has no name here.

    Example:
        >>> dead = Finding("dead_relu", 9, "hidden", "error", {"dead": 1.0}, "learning rate", "lower it")
        >>> first = remedy(dead)
        >>> first.changes()
        {'learning_rate_factor': 0.1, 'initializer': 'he_normal', 'activation': 'leaky_relu'}
        >>> remedy(dead, tried=[first]).activation
        'elu'
    """
    if not isinstance(finding, Finding):
        return remedy(finding[0], tried=tried) if finding else Remedy()
    if finding.symptom not in SYMPTOMS:
        raise ValueError(f"symptom must be among {SYMPTOMS}, got {finding.symptom!r}")
    evidence, symptom, where = finding.evidence, finding.symptom, finding.where
    slower = float(evidence.get("learning_rate_factor", 0.1))
    gently = float(evidence.get("learning_rate_factor", 0.3))
    rate = evidence.get("learning_rate_to_try")
    clip = evidence.get("clip_to_try")
    normalization = _next("normalization", ("layer", "batch"), tried)
    match symptom:
        case "vanishing_gradient":
            squashes = evidence.get("activation") in ("sigmoid", "tanh", "unknown", None)
            activation = _next("activation", ("relu", "elu", "gelu"), tried)
            return Remedy(
                initializer="he_normal",
                activation=activation if squashes or tried else None,
                normalization=normalization,
            )
        case "vanishing_through_time":
            cell = _next("cell", ("gru", "lstm"), tried)
            penalty = 1.0 if any(before.cell for before in tried) else None
            return Remedy(cell=cell, initializer="orthogonal", preserve=penalty)
        case "exploding_gradient" | "loss_divergence" | "learning_rate_too_high":
            return Remedy(learning_rate_factor=slower, learning_rate=rate, clip=clip, rewind=True)
        case "non_finite" if where == "input":
            return Remedy(data="drop_non_finite")
        case "non_finite":
            return Remedy(learning_rate_factor=slower, clip=clip, rewind=True)
        case "dead_relu" if where == "output":
            return Remedy(output_activation="none")
        case "dead_relu":
            from_birth = bool(evidence.get("from_birth"))
            return Remedy(
                learning_rate_factor=None if from_birth else slower,
                initializer="he_normal",
                activation=_next("activation", ("leaky_relu", "elu", "gelu", "prelu"), tried),
                normalization=normalization if from_birth or tried else None,
            )
        case "saturated_activation" if where == "output":
            return Remedy(output_activation="none", scale_inputs=True)
        case "saturated_activation":
            return Remedy(
                initializer="glorot_normal", normalization=normalization, scale_inputs=True
            )
        case "poor_initialization":
            return Remedy(initializer="he_normal", normalization=normalization)
        case "loss_jump" if evidence.get("outliers", evidence.get("kind") == "burst"):
            return Remedy(data="drop_outliers", clip=clip)
        case "loss_jump":
            return Remedy(learning_rate_factor=gently, clip=clip, rewind=True)
        case "loss_oscillation":
            return Remedy(learning_rate_factor=gently)
        case "loss_stuck":
            return Remedy(learning_rate_factor=10.0, initializer="he_normal")
        case "repetitive_data":
            return Remedy(data="shuffle")
        case "overfitting":
            return Remedy(regularization="increase", rewind=True)
        case "learning_rate_too_low":
            # Along the old way the loss turns up long before the best rate is reached.
            faster = max(10.0, float(evidence.get("learning_rate_factor", 10.0)))
            return Remedy(learning_rate_factor=faster)
        case "unscaled_input":
            return Remedy(scale_inputs=True)
        case "no_learnable_signal" if where == "output":
            return Remedy(output_activation="none")
        case "no_learnable_signal":
            return Remedy(data="check_labels")
        case "clip_saturation":
            return Remedy(clip=clip, learning_rate_factor=None if clip else slower)
    # The one that is left, `update_floor`.
    return Remedy(epsilon_factor=1e-4)


def _next(name: str, options: Sequence[str], tried: Sequence[Remedy]) -> str:
    """The first that was not tried, or the last."""
    known = {getattr(before, name) for before in tried}
    return next((option for option in options if option not in known), options[-1])
