"""Training: one step, one loop, and one trainer around them.

`fit` trains a model, `sweep` many trials of it side by side; both run the same compiled program, loop and
ending. `fit` is the sweep of one trial.

    fitted = train.fit(model, loss, optimizer, (x, y), num_steps=1000, batch_size=64, key=key)
    fitted                          # curves and findings in a few lines; in a notebook with a picture
    fitted.predict(x)               # outputs, in evaluation mode
    fitted.evaluate(x, y, metrics)  # the mean loss, and metrics by name
    fitted.save(directory)          # parameters and model state
    fitted.findings, fitted.history, fitted.to_frame()

    swept = train.sweep(model, loss, lambda h: optax.adam(h["learning_rate"]), (x, y), seeds=3, key=key,
                        space={"learning_rate": [1e-3, 1e-2]}, num_steps=1000, batch_size=64)
    swept.best(), swept.table(), swept.to_frame(), swept.trials

Arguments that belong together are one object: `EarlyStopping(patience)`, `Monitor(every=…)`,
`Checkpoints(directory)`.

Below them is the level for anything that is not a Linen module on a batch of examples: `make_step(task)`
builds `step(state, batch) -> (state, report)`, `repeat` compiles many steps into one program, `run` is the
loop on the host.
"""

from jaxml.train.checkpoint import Checkpoints
from jaxml.train.fitting import fit, verify_signal
from jaxml.train.loop import repeat, run, stop_on_signals
from jaxml.train.options import EarlyStopping, Monitor
from jaxml.train.results import Fit, Sweep, Trial
from jaxml.train.spaces import choice, grid, log_uniform, random_space, uniform
from jaxml.train.state import Report, State, TrainState, create_state
from jaxml.train.step import Bags, RowSchedule, Task, Whole, all_finite, make_step, recorded
from jaxml.train.sweeping import successive_halving, sweep

__all__ = [
    "Bags",
    "Checkpoints",
    "EarlyStopping",
    "Fit",
    "Monitor",
    "Report",
    "RowSchedule",
    "State",
    "Sweep",
    "Task",
    "TrainState",
    "Trial",
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
    "run",
    "stop_on_signals",
    "successive_halving",
    "sweep",
    "uniform",
    "verify_signal",
]
