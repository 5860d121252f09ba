"""The record of a training, as NumPy arrays; findings are read from it."""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxml.models.taps import Layer
from jaxml.monitor.activities import ACTIVITY
from jaxml.monitor.inputs import DataReport
from jaxml.monitor.layers import STATISTICS

__all__ = ["After", "History"]


@dataclasses.dataclass(frozen=True)
class After:
    """Measurements after the last step, on a sample of the training data.

    Attributes:
        loss: mean loss, in evaluation mode.
        mismatched_loss: the same with the labels of other examples: that of a model that ignores inputs.
        constant_loss: the same with one output for all examples, the median of the model's own.
        first_loss: `loss` at the initial parameters.
        further: factor → loss where the parameters are moved so many times as far from their start.
        sharpness: largest curvature of the loss (|eigenvalue| of the Hessian) at the initial and at the
            final parameters; NaN if it was not measured.
        clips_at: the norm above which the optimizer clips gradients, to a factor of 2; NaN if it does not.
        epsilon_share: by how much an adaptive optimizer's update shrinks if gradient and moments are halved
            together: 0 if epsilon plays no part, ½ if it is everything; NaN for other optimizers.
        equal_units: names of layers whose units all start with the same weights.
        output_constant: whether the outputs are the same for all examples.
        divides_by_zero: whether the optimizer's update of a zero gradient is not finite.
        held_out: whether inputs predict labels to the initial model, in standard errors beyond chance
            (`held_out_signal`); NaN if there was no doubt.
        neighbours: whether they do so without a model (`inputs.neighbour_signal`), likewise.
    """

    loss: float
    mismatched_loss: float
    constant_loss: float
    first_loss: float
    further: dict[float, float]
    sharpness: tuple[float, float]
    clips_at: float
    epsilon_share: float
    equal_units: tuple[str, ...]
    output_constant: bool
    divides_by_zero: bool = False
    held_out: float = math.nan
    neighbours: float = math.nan


@dataclasses.dataclass(frozen=True, repr=False)
class History:
    """A recorded training of S steps, with P observations of the layers.

    Attributes:
        losses: [S] mean loss of each step's batch, before the step.
        accepted: [S] whether the guard accepted the step.
        coefficient: [S] the factor that scaled the gradient; 1 if it was not clipped.
        norm: [S] of the gradient, unclipped.
        bound: [S] the guard's bound of the norm.
        layers: names of the rows of `statistics`.
        statistics: [S, layers, `STATISTICS`]; norms of parameters are those of the last observation. The
            update of a refused step is 0, or NaN if it, or what the optimizer would keep, is not finite.
        measured: [S] whether all statistics of the step were measured.
        tapped: the observed layers.
        looks: [P] steps at which they were observed.
        activity: [P, tapped layers, `ACTIVITY`].
        alive: [P, units] whether a unit is other than 0 on some example.
        over_time: [P, cells, `TIMES`] log norm of the gradient at a cell's carry.
        gain: [P, cells] log factor by which a step back in time changes that gradient.
        times: [cells] length of the sequences.
        validation_losses: [V] at even distances.
        data: report on the training data.
        after: measurements after the last step; None without them.
        steps_per_epoch: batches in an epoch.
        shuffled: whether each epoch had a random order of its own.
        by_input: whether `over_time` and `gain` are those of the inputs, for sequences without a cell.
        validation_data: report on the validation data; None without them.
    """

    losses: NDArray[np.float64]
    accepted: NDArray[np.bool_]
    coefficient: NDArray[np.float64]
    norm: NDArray[np.float64]
    bound: NDArray[np.float64]
    layers: tuple[str, ...]
    statistics: NDArray[np.float64]
    measured: NDArray[np.bool_]
    tapped: tuple[Layer, ...]
    looks: NDArray[np.int64]
    activity: NDArray[np.float64]
    alive: NDArray[np.bool_]
    over_time: NDArray[np.float64]
    gain: NDArray[np.float64]
    times: tuple[int, ...]
    validation_losses: NDArray[np.float64]
    data: DataReport
    after: After | None
    steps_per_epoch: float
    shuffled: bool
    by_input: bool
    validation_data: DataReport | None = None

    def __repr__(self) -> str:
        rejected = int((~self.accepted).sum())
        return (
            f"History of {len(self.losses):,} steps, {rejected:,} of them rejected: "
            f"{', '.join(field.name for field in dataclasses.fields(self))}"
        )

    def statistic(self, name: str) -> NDArray[Any]:
        """Returns [S, layers], one of `STATISTICS`."""
        return self.statistics[:, :, STATISTICS.index(name)]

    def look(self, name: str) -> NDArray[Any]:
        """Returns [P, layers], one of `ACTIVITY`."""
        return self.activity[:, :, ACTIVITY.index(name)]
