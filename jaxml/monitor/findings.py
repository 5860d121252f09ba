"""What the monitor says: findings, as data and as a line to read."""

from collections.abc import Mapping
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
