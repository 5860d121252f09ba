"""From a history or a loss curve to findings, and from findings to remedies."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jaxml.monitor.curve import Curve
from jaxml.monitor.findings import Finding, Remedy, Symptom
from jaxml.monitor.history import History
from jaxml.monitor.run import Run
from jaxml.monitor.symptoms import REGISTRY, SYMPTOMS

__all__ = ["diagnose", "diagnose_loss_curve", "is_suspicious", "remedy"]


def _ordered(symptoms: Sequence[Symptom]) -> list[Symptom]:
    """Returns the symptoms, each behind those in its `after`, and otherwise in the given order."""
    waiting = {symptom.name: symptom for symptom in symptoms}
    ordered: list[Symptom] = []
    while waiting:
        early = {name for name, symptom in waiting.items() if "*" not in symptom.after}
        free = [
            name
            for name, symptom in waiting.items()
            if waiting.keys().isdisjoint(symptom.after) and not ("*" in symptom.after and early)
        ]
        if not free:
            raise ValueError(f"after must not be circular, got {[*waiting]}")
        ordered.append(waiting.pop(free[0]))
    return ordered


# Where findings of the data are.
_DATA = ("input", "validation_data")

_BY_NAME = {symptom.name: symptom for symptom in _ordered(REGISTRY)}


def _findings(rule: str, subject: Run | Curve) -> dict[str, Finding]:
    """Returns what the symptoms' rules of this name find, by symptom."""
    found: dict[str, Finding] = {}
    for name, symptom in _BY_NAME.items():
        look = getattr(symptom, rule)
        if look is not None and (finding := look(subject, found)) is not None:
            found[name] = finding._replace(remedy=str(remedy(finding)))
            if symptom.alone:
                break
    return found


def diagnose(history: History) -> list[Finding]:
    """Returns what went wrong in a training, as `train.fit` records it.

    Returns:
        Findings, at most one a symptom, empty for a healthy run. Faults of the data come first, then causes
        before their consequences.
    """
    validation = history.validation_losses
    curve = Curve(history.losses, validation if len(validation) > 4 else None)
    found = _findings("detect", Run(history, _findings("in_curve", curve)))
    return sorted(_with_deaths(found).values(), key=lambda finding: finding.where not in _DATA)


def diagnose_loss_curve(
    losses: ArrayLike, validation_losses: ArrayLike | None = None
) -> list[Finding]:
    """Returns what a loss curve shows by itself.

    Args:
        losses: [S], one a step or an epoch, of any length.
        validation_losses: [V], measured at even distances over the same run.

    Returns:
        Findings in the order of their steps; empty for a healthy curve. Of fewer than twelve finite points
        only non-finite values and divergence are reported.

    Raises:
        ValueError: if a curve is not one-dimensional or is empty.

    Example:
        >>> steps = np.arange(400)
        >>> diagnose_loss_curve(np.exp(-steps / 80) + 0.1)
        []
        >>> [finding.symptom for finding in diagnose_loss_curve(0.1 * 1.05**steps)]
        ['loss_divergence']
    """
    found = _findings("in_curve", Curve(losses, validation_losses))
    return sorted(found.values(), key=lambda finding: finding.step)


def _with_deaths(found: dict[str, Finding]) -> dict[str, Finding]:
    """Adds the units that died to the cause of the finding that killed them."""
    dead = found.get("dead_relu")
    if dead is None or dead.evidence.get("from_birth", True):
        return found
    killers = [
        name
        for name in ("non_finite", "learning_rate_too_high", "exploding_gradient")
        if name in found and found[name].where not in _DATA and found[name].step <= dead.step
    ]
    if not killers:
        return found
    share, units = dead.evidence["dead"], dead.evidence["units"]
    many = f"all {units}" if share == 1 else f"{share:.0%} of the {units}"
    deaths = f"by step {dead.evidence['by_step']:,} {many} units of `{dead.where}` are dead"
    killer = found[killers[-1]]
    return {**found, killer.symptom: killer._replace(cause=f"{killer.cause} · {deaths}")}


def is_suspicious(history: History) -> bool:
    """Returns whether curvature is worth measuring.

    It is compared with the learning rate of plain gradient descent, if steps were clipped or rejected, or
    the loss did not fall.
    """
    losses = history.losses
    if np.isnan(Run(history, {}).learning_rate):
        return False
    tenth = max(1, len(losses) // 10)
    unstable = {"loss_divergence", "loss_jump", "loss_oscillation"}
    return bool(
        not (np.isfinite(losses).all() and history.accepted.all())
        or (history.coefficient < 1).any()
        or np.median(losses[-tenth:]) > 0.7 * np.median(losses[:tenth])
        or any(finding.symptom in unstable for finding in diagnose_loss_curve(losses))
    )


def remedy(finding: Finding | Sequence[Finding], *, tried: Sequence[Remedy] = ()) -> Remedy:
    """Returns what to change, as data.

    Args:
        finding: one finding, or all findings of a run; of several the first is treated.
        tried: remedies that did not help; of activations, normalizations and cells the next one is
            returned.

    Returns:
        A `Remedy`; an empty one if there is no finding.

    Raises:
        ValueError: if the symptom is unknown.

    Example:
        >>> dead = Finding("dead_relu", 9, "hidden", "error", {"dead": 1.0}, "learning rate")
        >>> first = remedy(dead)
        >>> first.changes()
        {'learning_rate_factor': 0.1, 'initializer': 'he_normal', 'activation': 'leaky_relu'}
        >>> print(first)
        multiply the learning rate by 0.1, initialize with he_normal, use leaky_relu as activation
        >>> remedy(dead, tried=[first]).activation
        'elu'
    """
    if not isinstance(finding, Finding):
        return remedy(finding[0], tried=tried) if finding else Remedy()
    if finding.symptom not in _BY_NAME:
        raise ValueError(f"symptom must be among {SYMPTOMS}, got {finding.symptom!r}")
    given = _BY_NAME[finding.symptom].remedy
    return given if isinstance(given, Remedy) else given(finding, tried)
