"""Findings, remedies, and the form that every symptom's file has."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Finding", "FindingsWarning", "Remedy", "Symptom", "first_untried", "shorter_steps"]


class FindingsWarning(UserWarning):
    """Warns that a training has findings."""


class Finding(NamedTuple):
    """Something that went wrong in a training.

    Attributes:
        symptom: one of `SYMPTOMS`.
        step: the step at which it was first seen; 0 if it was there from the start.
        where: a layer, `"loss"`, `"input"`, `"validation_data"`, `"output"` or `"all layers"`.
        severity: `"error"` if nothing is learned because of it, else `"warning"`.
        evidence: the measurements, by name.
        cause: an explanation in words.
        remedy: what to change, in words; `remedy(finding)` returns the same as data.
    """

    symptom: str
    step: int
    where: str
    severity: str
    evidence: Mapping[str, Any]
    cause: str
    remedy: str = ""

    def __str__(self) -> str:
        evidence = ", ".join(
            f"{name.replace('_', ' ')} {f'{value:.3g}' if isinstance(value, float) else value}"
            for name, value in self.evidence.items()
        )
        where = "" if self.where in ("loss", "all layers") else f" in `{self.where}`"
        return (
            f"step {self.step:,} · {self.symptom.replace('_', ' ')}{where}"
            f"{f' ({evidence})' if evidence else ''} · cause: {self.cause} · remedy: {self.remedy}"
        )

    def __repr__(self) -> str:
        where = "" if self.where in ("loss", "all layers") else f" in {self.where}"
        symptom = self.symptom.replace("_", " ")
        return f"Finding(step {self.step:,}: {symptom}{where}, {self.severity})"


class Remedy(NamedTuple):
    """What to change, as data; `str(remedy)` puts it in words. A field that is None stays as it is.

    Attributes:
        learning_rate_factor: multiply the learning rate by it.
        learning_rate: the learning rate to take instead, where the optimizer's unit is known.
        clip: clip gradients to this global norm.
        initializer: of the kernels: `"he_normal"`, `"glorot_normal"` or `"orthogonal"`.
        activation: of the hidden layers: `"relu"`, `"leaky_relu"`, `"elu"`, `"gelu"` or `"prelu"`.
        normalization: between layers: `"layer"` or `"batch"`.
        output_activation: `"none"` to remove the activation after the last layer.
        scale_inputs: standardize inputs, and targets if they are numbers.
        data: `"drop_non_finite"`, `"drop_outliers"`, `"shuffle"`, or `"check_labels"`.
        epsilon_factor: multiply the optimizer's epsilon by it.
        epsilon: the optimizer's epsilon to set.
        cell: of a recurrent network: `"gru"` or `"lstm"`.
        preserve: weight of `preserving_penalty`.
        regularization: `"increase"` or `"decrease"`.
        loss: `"check_sign"`.
        unfreeze: let the gradient and the optimizer reach every layer.
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
    epsilon: float | None = None
    cell: str | None = None
    preserve: float | None = None
    regularization: str | None = None
    loss: str | None = None
    unfreeze: bool | None = None

    def changes(self) -> dict[str, Any]:
        """The fields that are not None, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def __str__(self) -> str:
        changes = self.changes()
        if "learning_rate" in changes:
            del changes["learning_rate_factor"]
        return ", ".join(
            _WORDS[name][value] if isinstance(_WORDS[name], dict) else _WORDS[name].format(value)
            for name, value in changes.items()
        )


_WORDS: dict[str, Any] = {
    "learning_rate_factor": "multiply the learning rate by {:.3g}",
    "learning_rate": "set the learning rate to {:.3g}",
    "clip": "clip gradients to a norm of {:.3g}",
    "initializer": "initialize with {}",
    "activation": "use {} as activation",
    "normalization": "add {} normalization",
    "output_activation": "remove the activation after the last layer",
    "scale_inputs": "scale inputs and numeric targets to mean 0 and deviation 1",
    "epsilon_factor": "multiply the optimizer's epsilon by {:.3g}",
    "epsilon": "set the optimizer's epsilon above 0 in the parameters' precision, to {:.3g} say, or drop "
    "inputs that are always 0",
    "cell": "use a {} cell",
    "preserve": "add monitor.preserving_penalty with weight {:.3g}",
    "loss": {"check_sign": "minimise the loss times −1, or give it a minimum"},
    "unfreeze": "let the gradient and the optimizer reach every layer",
    "regularization": {
        "increase": "regularize more, stop early, or use a smaller model or more data",
        "decrease": "make the penalty or the weight decay a tenth, or leave it out",
    },
    "data": {
        "drop_non_finite": "drop the rows that are not finite, or repair them at their source",
        "drop_outliers": "look at these examples and drop them if they are wrong",
        "shuffle": "shuffle the examples",
        "check_labels": "check how labels are joined to inputs; train.verify_signal tests whether inputs "
        "predict labels",
    },
}


Found = Mapping[str, Finding]


class Symptom(NamedTuple):
    """One entry of `symptoms.REGISTRY`.

    Attributes:
        name: of the symptom.
        remedy: the `Remedy`, or `remedy(finding, tried) -> Remedy`; `tried` holds those that did not help.
        detect: `detect(run, found) -> Finding | None` reads a whole training. `found` holds the findings
            of the symptoms before this one. The remedy's words are filled in afterwards.
        in_curve: `in_curve(curve, found) -> Finding | None` reads a loss curve alone.
        after: the symptoms that are looked for before this one, because they may explain it; `"*"` for all
            that do not have a `"*"` themselves.
        alone: whether nothing else is looked for once it is found.
    """

    name: str
    remedy: Remedy | Callable[[Finding, Sequence[Remedy]], Remedy]
    detect: Callable[..., Finding | None] | None = None
    in_curve: Callable[..., Finding | None] | None = None
    after: tuple[str, ...] = ()
    alone: bool = False


def first_untried(name: str, options: Sequence[str], tried: Sequence[Remedy]) -> str:
    """Returns the first option of a remedy's field that was not tried, or the last."""
    known = {getattr(before, name) for before in tried}
    return next((option for option in options if option not in known), options[-1])


def shorter_steps(finding: Finding, tried: Sequence[Remedy]) -> Remedy:
    """Returns the learning rate and the clip that the evidence of a finding proposes."""
    evidence = finding.evidence
    return Remedy(
        learning_rate_factor=float(evidence.get("learning_rate_factor", 0.1)),
        learning_rate=evidence.get("learning_rate_to_try"),
        clip=evidence.get("clip_to_try"),
    )
