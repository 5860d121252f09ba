"""Options of `fit` and `sweep` that belong together."""

from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict

from jaxml import checks
from jaxml.train.checkpoint import Checkpoints
from jaxml.types import Key


@dataclass(frozen=True)
class EarlyStopping:
    """Stops a training whose validation loss no longer falls, and returns the best parameters.

    A validation loss that is not finite is no improvement. It is ignored as long as none has been finite;
    if none ever is, the last parameters are returned. The validation after the last step does not count
    towards `patience` if it falls between two others: a training that ends and goes on stops where it would
    have without that end.

    Attributes:
        patience: the number of successive validations without a new minimum after which to stop.
        validate_every: steps between two validations. None: a fortieth of the training, at most 50, but
            more if the validation data are large; in a training that goes on, as many as before.
    """

    patience: int
    validate_every: int | None = None

    def __post_init__(self) -> None:
        _whole(self, "patience")
        if self.validate_every is not None:
            _whole(self, "validate_every")


def _whole(options: Any, name: str) -> None:
    object.__setattr__(options, name, checks.integer(name, getattr(options, name), at_least=1))


@dataclass(frozen=True)
class Monitor:
    """Options of the monitor.

    Attributes:
        every: steps between two measurements of the layers.
        on_bad_data: whether rows of data and validation data with NaN or infinity are reported, dropped, or
            raise ValueError.
        final_diagnostics: whether to measure the trained model (curvature, signal of the labels, …) for the
            findings. Large sweeps are faster without.
        preserve: weight of `monitor.preserving_penalty`, for recurrent models whose gradient vanishes
            through time. The reported loss does not contain it.
    """

    every: int = 10
    on_bad_data: Literal["report", "drop", "raise"] = "report"
    final_diagnostics: bool = True
    preserve: float = 0.0

    def __post_init__(self) -> None:
        _whole(self, "every")
        checks.choice("on_bad_data", self.on_bad_data, ("report", "drop", "raise"))
        checks.number("preserve", self.preserve, at_least=0)


class TrainingOptions(TypedDict, total=False):
    """Keyword arguments of `fit`, as `sweep` and `successive_halving` pass them on."""

    num_steps: Required[int]
    batch_size: Required[Any]
    key: Required[Key]
    shuffle: bool
    validation_data: tuple[Any, Any] | None
    early_stopping: EarlyStopping | None
    monitor: bool | Monitor
    checkpoints: Checkpoints | None


def as_monitor(monitor: bool | Monitor) -> Monitor | None:
    if isinstance(monitor, bool):
        return Monitor() if monitor else None
    if not isinstance(monitor, Monitor):
        raise ValueError(f"monitor must be True, False or a train.Monitor, got {monitor!r}")
    return monitor
