"""What was recorded of a run, as NumPy arrays: what findings are read off."""

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
    """What was measured when the run was over, on a sample of the training data.

    Attributes:
        loss: mean loss, as at evaluation.
        mismatched_loss: the same with the labels of other examples: what is had without looking at inputs.
        constant_loss: the same with one answer for all examples, the median of the model's own.
        first_loss: `loss` at the initial parameters.
        further: factor → loss where the parameters are moved so many times as far from where they began.
        sharpness: largest curvature of the loss at the initial and at the final parameters (largest
            |eigenvalue| of the Hessian), NaN where it was not wanted.
        clips_at: the norm from which on the optimizer makes no more of a gradient, to a factor of 2; NaN
            where it does not clip.
        epsilon_share: how much smaller an update of an adaptive optimizer becomes when gradient and
            moments are halved together: 0 where epsilon plays no part, ½ where it is all; NaN for other
            optimizers.
        equal_units: names of layers whose units all start with the same weights.
        output_constant: whether the outputs are the same for all examples, at the end.
        held_out: whether inputs predict labels, in standard errors beyond chance (`held_out_signal`); NaN
            if there was no doubt.
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
    held_out: float = math.nan


@dataclasses.dataclass(frozen=True)
class History:
    """A run, as it was recorded.

    Attributes:
        losses: [S] mean loss of each step's batch.
        worst: [S] largest loss of an example over the mean.
        accepted: [S] whether the step changed the parameters.
        coefficient: [S] what the gradient was multiplied by.
        norm: [S] of the gradient, before that.
        bound: [S] what it was held against.
        layers: names of the rows of `statistics`.
        statistics: [S, layers, `STATISTICS`]; the norms of the parameters as of the last look.
        measured: [S] whether the step was measured.
        tapped: the layers that were listened to.
        looks: [P] steps at which they were.
        activity: [P, layers, `activity.ACTIVITY`].
        alive: [P, units].
        over_time: [P, cells, TIMES].
        gain: [P, cells].
        times: [cells] length of the sequences.
        validation_steps: [V].
        validation_losses: [V].
        data: what was found in the data.
        after: what was measured at the end.
        steps_per_epoch: batches in an epoch.
        shuffled: whether each epoch had an order of its own.
        by_input: whether `over_time` and `gain` are of the inputs at each step, as no cell could be tapped.
        listened: examples of a look.
    """

    losses: NDArray[np.float64]
    worst: NDArray[np.float64]
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
    validation_steps: NDArray[np.int64]
    validation_losses: NDArray[np.float64]
    data: DataReport
    after: After | None
    steps_per_epoch: float
    shuffled: bool
    by_input: bool
    listened: int

    def statistic(self, name: str) -> NDArray[Any]:
        """[S, layers]: one of `STATISTICS`."""
        return self.statistics[:, :, STATISTICS.index(name)]

    def look(self, name: str) -> NDArray[Any]:
        """[P, layers]: one of `activity.ACTIVITY`."""
        return self.activity[:, :, ACTIVITY.index(name)]

    def noise_scale(self) -> float:
        """Examples in a batch at which noise and gradient are equally large; NaN where it is not known.

        tr(Σ) / ‖G‖² over the layers of which each example's gradient is known (McCandlish et al., 2018),
        the mean over the later half of the looks: much below it a larger batch makes a better step, much
        above it hardly.
        """
        late = slice(len(self.looks) // 2, None)
        of_examples = self.look("example_gradient")[late]
        of_all = self.look("mean_gradient")[late]
        known = (of_examples > 0).all(0) & np.isfinite(of_examples).all(0) & (self.listened > 1)
        if not known.any():
            return math.nan
        each = float(np.square(of_examples[:, known]).sum(1).mean())
        mean = float(np.square(of_all[:, known]).sum(1).mean())
        # The mean gradient of n examples has a part of the noise in it.
        noise = (each - mean) / (1 - 1 / self.listened)
        signal = mean - noise / self.listened
        return noise / signal if signal > 0 else math.inf
