"""One step, one loop, and a state that holds everything they change."""

from jaxml.train.fit import Fit, fit
from jaxml.train.loop import repeat, run, stop_on_signals
from jaxml.train.rewind import Rewound, rewindable, rewinding, rewound, unwound
from jaxml.train.state import Report, State, create_state
from jaxml.train.step import Bags, RowSchedule, Task, Whole, all_finite, make_step
from jaxml.train.watch import Watch

__all__ = [
    "Bags",
    "Fit",
    "Report",
    "Rewound",
    "RowSchedule",
    "State",
    "Task",
    "Watch",
    "Whole",
    "all_finite",
    "create_state",
    "fit",
    "make_step",
    "repeat",
    "rewindable",
    "rewinding",
    "rewound",
    "run",
    "stop_on_signals",
    "unwound",
]
