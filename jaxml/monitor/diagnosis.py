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

_BY_NAME = {symptom.name: symptom for symptom in REGISTRY}


def _ordered(symptoms: Sequence[Symptom]) -> list[Symptom]:
    """Sorts symptoms topologically by `after`."""
    last = {symptom.name for symptom in symptoms if "*" in symptom.after}
    before = {
        symptom.name: {*symptom.after} - {"*"}
        | ({each.name for each in symptoms} - last if "*" in symptom.after else set())
        for symptom in symptoms
    }
    ordered: list[Symptom] = []
    waiting = list(symptoms)
    while waiting:
        done = {symptom.name for symptom in ordered}
        free = next((symptom for symptom in waiting if before[symptom.name] <= done), None)
        if free is None:
            raise ValueError(f"after must not be circular, got {[s.name for s in waiting]}")
        ordered.append(free)
        waiting.remove(free)
    return ordered


def diagnose(history: History, symptoms: Sequence[Symptom] = REGISTRY) -> list[Finding]:
    """Returns what went wrong in a training.

    Args:
        history: a training, as `train.fit` records it.
        symptoms: the symptoms to look for.

    Returns:
        Findings, at most one a symptom, empty for a healthy run. Faults of the data come first, then causes
        before their consequences.
    """
    validation = history.validation_losses
    in_curve = _in_curve(
        Curve(history.losses, validation if len(validation) > 4 else None), symptoms
    )
    run = Run(history, in_curve)
    found: dict[str, Finding] = {}
    for symptom in _ordered(symptoms):
        if symptom.detect is not None and (finding := symptom.detect(run, found)) is not None:
            found[symptom.name] = _with_words(finding)
    return sorted(_with_deaths(found).values(), key=lambda finding: finding.where != "input")


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
    found = _in_curve(Curve(losses, validation_losses), REGISTRY)
    return sorted(found.values(), key=lambda finding: finding.step)


def _in_curve(curve: Curve, symptoms: Sequence[Symptom]) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    for symptom in _ordered(symptoms):
        if symptom.in_curve is not None and (finding := symptom.in_curve(curve, found)):
            found[symptom.name] = _with_words(finding)
    return found


def _with_words(finding: Finding) -> Finding:
    return finding._replace(remedy=str(remedy(finding)))


def _with_deaths(found: dict[str, Finding]) -> dict[str, Finding]:
    """Adds the units that died to the cause of the finding that killed them."""
    dead = found.get("dead_relu")
    if dead is None or "by_step" not in dead.evidence or dead.evidence["from_birth"]:
        return found
    killers = [
        name
        for name in ("non_finite", "learning_rate_too_high", "exploding_gradient")
        if name in found and found[name].where != "input" and found[name].step <= dead.step
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
    if not (np.isfinite(losses).all() and history.accepted.all()):
        return True
    if (history.coefficient < 1).any():
        return True
    tenth = max(1, len(losses) // 10)
    if np.median(losses[-tenth:]) > 0.7 * np.median(losses[:tenth]):
        return True
    unstable = {"loss_divergence", "loss_jump", "loss_oscillation"}
    return any(finding.symptom in unstable for finding in diagnose_loss_curve(losses))


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
    return _BY_NAME[finding.symptom].remedy(finding, tried)
