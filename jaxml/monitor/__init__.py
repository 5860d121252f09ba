"""Training that says what went wrong, first, where and why, and keeps it out of the parameters.

*Seen*: `layout` and `layer_statistics` of gradients, parameters and updates; `activity` of the layers and
of the gradients at them. *Acted on*: `guard`, around any optax optimizer. *Decided*: `diagnose` reads
findings off a `History`, `signs` off one that goes on, `diagnose_loss_curve` off a curve alone; `remedy`
says what to change.
"""

from jaxml.monitor.activity import ACTIVITY, TIMES, Activity, activity, units
from jaxml.monitor.curves import diagnose_loss_curve
from jaxml.monitor.diagnose import diagnose, is_suspicious
from jaxml.monitor.final import FinalDiagnostics
from jaxml.monitor.findings import SYMPTOMS, Finding
from jaxml.monitor.guard import Guard, GuardState, Verdict, guard, holds_moments, verdict
from jaxml.monitor.history import After, History
from jaxml.monitor.inputs import DataReport, inspect
from jaxml.monitor.preserve import preserving_penalty
from jaxml.monitor.probes import STATISTICS, Layout, layer_norms, layer_statistics, layout
from jaxml.monitor.recorder import Recorder
from jaxml.monitor.remedies import Remedy, remedy
from jaxml.monitor.signs import signs

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
    "Guard",
    "GuardState",
    "History",
    "Layout",
    "Recorder",
    "Remedy",
    "Verdict",
    "activity",
    "diagnose",
    "diagnose_loss_curve",
    "guard",
    "holds_moments",
    "inspect",
    "is_suspicious",
    "layer_norms",
    "layer_statistics",
    "layout",
    "preserving_penalty",
    "remedy",
    "signs",
    "units",
    "verdict",
]
