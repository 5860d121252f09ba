"""What the monitor says: findings, as data and as a line to read."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

Symptom = Literal[
    "vanishing_gradient",
    "vanishing_through_time",
    "exploding_gradient",
    "non_finite",
    "dead_relu",
    "saturated_activation",
    "poor_initialization",
    "loss_divergence",
    "loss_jump",
    "loss_oscillation",
    "loss_stuck",
    "repetitive_data",
    "overfitting",
    "learning_rate_too_low",
    "learning_rate_too_high",
    "unscaled_input",
    "no_learnable_signal",
    "clip_saturation",
    "update_floor",
]

Severity = Literal["warning", "error"]

SYMPTOMS: tuple[str, ...] = get_args(Symptom)
"""Every symptom there is a name for."""


class Finding(NamedTuple):
    """Something that went wrong.

    Attributes:
        symptom: of `SYMPTOMS`.
        step: when it was first seen; 0 for what was so from the start.
        where: a layer, `"loss"`, `"input"`, or `"all layers"`.
        severity: `"error"` where nothing is learned as it is, `"warning"` where something is lost.
        evidence: what was measured, by name.
        cause: why, in words; of several findings the first explains the later ones.
        remedy: what to change, in words; `remedy(finding)` says it as data.
    """

    symptom: str
    step: int
    where: str
    severity: str
    evidence: Mapping[str, Any]
    cause: str
    remedy: str

    def __str__(self) -> str:
        told = ", ".join(
            f"{name.replace('_', ' ')} {_told(v)}" for name, v in self.evidence.items()
        )
        where = "" if self.where in ("loss", "all layers") else f" in `{self.where}`"
        return (
            f"step {self.step:,} · {self.symptom.replace('_', ' ')}{where}"
            f"{f' ({told})' if told else ''} · cause: {self.cause} · remedy: {self.remedy}"
        )


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(_told(each) for each in value)
    return str(value)


class Remedy(NamedTuple):
    """What to change, as data; what is None stays as it is.

    Attributes:
        learning_rate_factor: multiply the learning rate by it.
        learning_rate: or take this one, where it is known in the optimizer's own units.
        clip: scale gradients down to this norm.
        initializer: of the kernels: `"he_normal"`, `"glorot_normal"`, `"lecun_normal"` or `"orthogonal"`.
        activation: of the hidden layers: `"relu"`, `"leaky_relu"`, `"gelu"` or `"tanh"`.
        normalization: between layers: `"layer"` or `"batch"`.
        output_activation: `"none"` where the last layer's is at fault.
        scale_inputs: whether to bring inputs (and targets, where they are numbers) to mean 0 and deviation
            1.
        data: `"drop_non_finite"`, `"drop_outliers"`, `"shuffle"` or `"check_labels"`.
        epsilon_factor: multiply the optimizer's epsilon by it.
        cell: of a recurrent network: `"gru"` or `"lstm"`.
        regularization: `"increase"`.
        rewind: whether to go back to a state from before the finding.
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
    regularization: str | None = None
    rewind: bool | None = None

    def changes(self) -> dict[str, Any]:
        """What is not None, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def remedy(finding: Finding | Sequence[Finding]) -> Remedy:
    """What to change, as data.

    Args:
        finding: one, or all that a run has; of several the first is treated, as the others follow from it.

    Returns:
        A `Remedy`; one without a change where nothing is found.

    Raises:
        ValueError: for a symptom that has no name here.

    Example:
        >>> dead = Finding("dead_relu", 9, "hidden", "error", {"dead": 1.0}, "learning rate", "lower it")
        >>> remedy(dead).changes()
        {'learning_rate_factor': 0.1, 'initializer': 'he_normal', 'activation': 'leaky_relu'}
    """
    if not isinstance(finding, Finding):
        return remedy(finding[0]) if finding else Remedy()
    if finding.symptom not in SYMPTOMS:
        raise ValueError(f"symptom must be among {SYMPTOMS}, got {finding.symptom!r}")
    evidence = finding.evidence
    slower = float(evidence.get("learning_rate_factor", 0.1))
    rate = evidence.get("learning_rate_to_try")
    clip = evidence.get("clip_to_try")
    symptom = finding.symptom
    if symptom == "vanishing_gradient":
        if evidence.get("activation") in ("sigmoid", "tanh", "unknown", None):
            return Remedy(initializer="he_normal", activation="relu", normalization="layer")
        return Remedy(initializer="he_normal", normalization="layer")
    if symptom == "vanishing_through_time":
        return Remedy(cell="gru", initializer="orthogonal")
    if symptom in ("exploding_gradient", "loss_divergence", "learning_rate_too_high"):
        if evidence.get("from_initialization"):
            return Remedy(initializer="he_normal", normalization="layer", clip=clip)
        return Remedy(learning_rate_factor=slower, learning_rate=rate, clip=clip, rewind=True)
    if symptom == "non_finite":
        if finding.where == "input":
            return Remedy(data="drop_non_finite")
        return Remedy(learning_rate_factor=slower, clip=clip, rewind=True)
    if symptom == "dead_relu" and finding.where == "output":
        return Remedy(output_activation="none")
    if symptom == "dead_relu":
        return Remedy(
            learning_rate_factor=slower if not evidence.get("from_birth") else None,
            initializer="he_normal",
            activation="leaky_relu",
            normalization="layer" if evidence.get("from_birth") else None,
        )
    if symptom == "saturated_activation":
        if finding.where == "output":
            return Remedy(output_activation="none", scale_inputs=True)
        return Remedy(initializer="glorot_normal", normalization="layer", scale_inputs=True)
    if symptom == "poor_initialization":
        return Remedy(initializer="he_normal", normalization="layer")
    if symptom == "loss_jump":
        if evidence.get("kind") == "burst":
            return Remedy(data="drop_outliers", clip=clip)
        return Remedy(learning_rate_factor=slower, clip=clip, rewind=True)
    if symptom == "loss_oscillation":
        return Remedy(learning_rate_factor=slower)
    if symptom == "loss_stuck":
        return Remedy(learning_rate_factor=10.0, initializer="he_normal")
    if symptom == "repetitive_data":
        return Remedy(data="shuffle")
    if symptom == "overfitting":
        return Remedy(regularization="increase", rewind=True)
    if symptom == "learning_rate_too_low":
        return Remedy(learning_rate_factor=float(evidence.get("learning_rate_factor", 10.0)))
    if symptom == "unscaled_input":
        return Remedy(scale_inputs=True)
    if symptom == "no_learnable_signal":
        if finding.where == "output":
            return Remedy(output_activation="none")
        return Remedy(data="check_labels")
    if symptom == "clip_saturation":
        return Remedy(clip=clip, learning_rate_factor=None if clip else slower)
    return Remedy(epsilon_factor=1e-4)
