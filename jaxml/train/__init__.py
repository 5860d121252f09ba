"""One step, one loop, and a state that holds everything they change."""

from jaxml.train.checkpoint import Checkpoints
from jaxml.train.fit import Fit, fit
from jaxml.train.loop import repeat, run, stop_on_signals
from jaxml.train.members import Member, Sweep
from jaxml.train.program import Course, Stopping
from jaxml.train.progress import Progress
from jaxml.train.rewind import Rewound, rewindable, rewinding, rewound, unwound
from jaxml.train.spaces import choice, grid, log_uniform, random_space, uniform
from jaxml.train.state import Report, State, create_state
from jaxml.train.step import Bags, RowSchedule, Task, Whole, all_finite, make_step, recorded
from jaxml.train.sweep import successive_halving, sweep

__all__ = [
    "Bags",
    "Checkpoints",
    "Course",
    "Fit",
    "Member",
    "Progress",
    "Report",
    "Rewound",
    "RowSchedule",
    "State",
    "Stopping",
    "Sweep",
    "Task",
    "Whole",
    "all_finite",
    "choice",
    "create_state",
    "fit",
    "grid",
    "log_uniform",
    "make_step",
    "random_space",
    "recorded",
    "repeat",
    "rewindable",
    "rewinding",
    "rewound",
    "run",
    "stop_on_signals",
    "successive_halving",
    "sweep",
    "uniform",
    "unwound",
]
