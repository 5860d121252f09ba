"""Training that says what went wrong, first, where and why, and keeps it out of the parameters.

*Seen*: `layout` and `layer_statistics` of gradients, parameters and updates; `activity` of the layers and
of the gradients at them. *Acted on*: `guard`, around any optax optimizer. *Decided*: `diagnose` finds
`symptoms` in a `History`, `diagnose_loss_curve` in a curve alone; `remedy` returns what to change.
"""

from jaxml.monitor.activity import ACTIVITY, TIMES, Activity, activity, units
from jaxml.monitor.diagnosis import diagnose, diagnose_loss_curve, is_suspicious, remedy
from jaxml.monitor.final import FinalDiagnostics
from jaxml.monitor.findings import Finding, FindingsWarning, Remedy, Symptom
from jaxml.monitor.guard import Guard, GuardState, Verdict, guard, holds_moments, verdict
from jaxml.monitor.history import After, History
from jaxml.monitor.inputs import DataReport, inspect
from jaxml.monitor.preserve import preserving_penalty
from jaxml.monitor.probes import STATISTICS, Layout, layer_norms, layer_statistics, layout
from jaxml.monitor.recorder import Recorder
from jaxml.monitor.symptoms import SYMPTOMS
from jaxml.monitor.symptoms.no_learnable_signal import held_out_signal

__all__ = [
    "ACTIVITY",
    "STATISTICS",
    "SYMPTOMS",
    "TIMES",
    "Activity",
    "After",
    "DataReport",
    "FinalDiagnostics",
    "Finding",
    "FindingsWarning",
    "Guard",
    "GuardState",
    "History",
    "Layout",
    "Recorder",
    "Remedy",
    "Symptom",
    "Verdict",
    "activity",
    "diagnose",
    "diagnose_loss_curve",
    "guard",
    "held_out_signal",
    "holds_moments",
    "inspect",
    "is_suspicious",
    "layer_norms",
    "layer_statistics",
    "layout",
    "preserving_penalty",
    "remedy",
    "units",
    "verdict",
]
