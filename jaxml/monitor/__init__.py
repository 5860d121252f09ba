"""Training that says what went wrong, first, where and why, and keeps it out of the parameters.

`guard` wraps an optax optimizer. A `Recorder` records norms and the `activity` of the layers inside of the
step; `FinalDiagnostics` measure what is too expensive for every step. `diagnose` finds `symptoms` in a
`History`, `diagnose_loss_curve` in a curve alone; `remedy` returns what to change.
"""

from jaxml.monitor.activities import ACTIVITY, Activity
from jaxml.monitor.diagnosis import diagnose, diagnose_loss_curve, is_suspicious, remedy
from jaxml.monitor.final import FinalDiagnostics
from jaxml.monitor.findings import Finding, FindingsWarning, Remedy, Symptom
from jaxml.monitor.guarding import GuardState, Verdict, guard, is_guarded, verdict
from jaxml.monitor.history import After, History
from jaxml.monitor.inputs import DataReport, inspect
from jaxml.monitor.layers import STATISTICS, Layout, layout
from jaxml.monitor.preserve import preserving_penalty
from jaxml.monitor.recorder import Recorder
from jaxml.monitor.symptoms import SYMPTOMS
from jaxml.monitor.symptoms.no_learnable_signal import held_out_signal

__all__ = [
    "ACTIVITY",
    "STATISTICS",
    "SYMPTOMS",
    "Activity",
    "After",
    "DataReport",
    "FinalDiagnostics",
    "Finding",
    "FindingsWarning",
    "GuardState",
    "History",
    "Layout",
    "Recorder",
    "Remedy",
    "Symptom",
    "Verdict",
    "diagnose",
    "diagnose_loss_curve",
    "guard",
    "held_out_signal",
    "inspect",
    "is_guarded",
    "is_suspicious",
    "layout",
    "preserving_penalty",
    "remedy",
    "verdict",
]
