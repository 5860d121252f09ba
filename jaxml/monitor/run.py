"""A training as the symptoms read it: facts that several of them need, computed once."""

import functools
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from jaxml.monitor.curve import FEWEST
from jaxml.monitor.findings import Finding
from jaxml.monitor.history import History

__all__ = ["Run"]

# Share of the loss of a model that ignores its inputs which a model must save to have learned (bed: healthy
# runs 0.51 and more, those of gradient faults 0.16 and less); less where losses are negative, since their
# level is then a matter of units.
_LEARNED, _LEARNED_NEGATIVE = 0.3, 0.1

# A gradient explodes if its norm exceeds so many times the median of the steps before (bed: no step of a
# healthy run).
_EXPLODED, _WINDOW = 10.0, 48

# Last over first norm of the weights from which on they have shrunk. Bed: healthy from 0.49, faulty up to
# 0.06.
_SHRUNK = 0.3

# Share of entries within a hundredth of the bounds of a sigmoid or tanh: from it on a layer is saturated.
# Bed: healthy up to 0.11, faulty 0.99.
_SATURATED = 0.6

# Updates and gradients are in one ratio to this factor in plain gradient descent.
_SAME_RATIO = 1.01


class Run:
    """A history with the facts derived from it.

    Args:
        history: of the training.
        curve: findings of its loss curve alone, by symptom.

    Attributes:
        brief: whether there were too few steps to tell what they lead to.
        failed: whether nothing much was learned; False if there were too few steps.
        severity: of a finding that is an error if the run failed.
        in_order: whether examples came class by class, epoch after epoch.
        bad_data: whether rows hold NaN or infinity.
        outliers: number of examples whose inputs or targets are outliers.
        dense: indices of dense layers and cells among the tapped layers.
    """

    def __init__(self, history: History, curve: Mapping[str, Finding]) -> None:
        self.history, self.curve = history, curve
        data = history.data
        self.in_order = not history.shuffled and data.sorted_by_target
        self.bad_data = len(data.bad_rows) > 0
        self.outliers = len(np.union1d(data.outlier_rows, data.outlier_targets))
        self.dense = [
            i for i, layer in enumerate(history.tapped) if layer.kind in ("dense", "cell")
        ]
        after = history.after
        negative = after is not None and (self._ignorant_loss() < 0 or after.loss < 0)
        enough = _LEARNED_NEGATIVE if negative else _LEARNED
        self.brief = len(history.losses) < FEWEST
        self.failed = not self.brief and not self.signal > enough
        self.severity = "error" if self.failed else "warning"

    # What was learned

    def _ignorant_loss(self) -> float:
        """The loss of a model that ignores its inputs: the better of two ways to measure it."""
        after = self.history.after
        assert after is not None
        losses = [after.mismatched_loss]
        if np.isfinite(after.constant_loss):
            losses.append(after.constant_loss)
        # A model that ends far above its start has learned nothing, however different its outputs are.
        if after.loss > 1.5 * abs(after.first_loss):
            losses.append(after.first_loss)
        return min(losses)

    @functools.cached_property
    def signal(self) -> float:
        """The share that is saved of the loss of a model that ignores its inputs.

        Without final diagnostics the share that is saved of the first losses; 0 if nothing is known.
        """
        h, after = self.history, self.history.after
        if after is None:
            tenth = max(1, len(h.losses) // 10)
            first, last = (float(np.median(part)) for part in (h.losses[:tenth], h.losses[-tenth:]))
            return (first - last) / max(abs(first), 1e-300) if np.isfinite(first - last) else 0.0
        if not np.isfinite([after.loss, after.mismatched_loss]).all():
            return 0.0
        if (
            after.loss == after.mismatched_loss
            and not after.output_constant
            and after.loss < after.first_loss
        ):
            # The loss does not depend on the labels (an autoencoder's): what it has fallen by is learned.
            return (after.first_loss - after.loss) / max(abs(after.first_loss), 1e-300)
        reached = after.loss
        if not (h.shuffled or h.data.sorted_by_target):
            # In a stream only the last part of the data shows what was learned.
            recent = h.losses[-max(1, len(h.losses) // 10) :]
            if np.isfinite(recent).all():
                reached = min(reached, float(np.median(recent)))
        ignorant = self._ignorant_loss()
        return (ignorant - reached) / max(abs(ignorant), 1e-300)

    @property
    def much_is_left(self) -> bool:
        """Whether much of the loss is left."""
        after = self.history.after
        return after is not None and after.loss > 0.3 * after.mismatched_loss

    # The steps

    @functools.cached_property
    def no_gradient(self) -> bool:
        """Whether every measured gradient is exactly 0."""
        gradient = self.history.statistic("gradient_norm")[self.history.measured]
        return len(gradient) > 0 and not np.any(gradient != 0)

    @functools.cached_property
    def held(self) -> NDArray[np.bool_]:
        """[layers], whether a layer has a gradient, and no accepted step moves it."""
        h = self.history
        moved = np.any(h.statistic("update_norm")[h.accepted] > 0, axis=0)
        return np.asarray(np.any(h.statistic("gradient_norm")[h.accepted] > 0, axis=0) & ~moved)

    @functools.cached_property
    def zero(self) -> str | None:
        """The first hidden layer whose weights are 0 at the first and the last measured step."""
        h = self.history
        norms = h.statistic("parameter_norm")[h.measured]
        hidden = np.isin(h.layers, [h.tapped[i].name for i in self.dense[:-1]])
        zero = np.flatnonzero(hidden & ~norms[:1].any(0) & ~norms[-1:].any(0))
        return h.layers[zero[0]] if len(norms) and len(zero) else None

    @functools.cached_property
    def shrunk(self) -> tuple[int, float, float] | None:
        """Where weights all but vanish: (step, first, last norm) of those of the dense layers together."""
        h = self.history
        dense = np.isin(h.layers, [h.tapped[i].name for i in self.dense])
        norms = np.linalg.norm(h.statistic("parameter_norm")[h.measured][:, dense], axis=1)
        if not len(norms) or not norms[-1] < _SHRUNK * norms[0]:
            return None
        step = np.flatnonzero(h.measured)[np.argmax(norms < _SHRUNK * norms[0])]
        return int(step), float(norms[0]), float(norms[-1])

    @functools.cached_property
    def saturated(self) -> NDArray[np.bool_]:
        """[P, tapped layers], whether most entries are at the bounds of the layer's sigmoid or tanh."""
        h = self.history
        # The ReLU of large positive numbers looks like a sigmoid of them.
        return (h.look("saturated") > _SATURATED) & (h.look("relu") <= 0.9)

    @functools.cached_property
    def explosions(self) -> NDArray[np.int64]:
        """Steps whose gradient is finite, clipped, and far above the median of those before."""
        h = self.history
        norm = np.where(np.isfinite(h.norm) & (h.norm > 0), h.norm, np.nan)
        found = []
        for step in np.flatnonzero(np.isfinite(norm) & (h.coefficient < 1)):
            past = norm[max(0, step - _WINDOW) : step]
            past = past[np.isfinite(past)]
            if len(past) and norm[step] > _EXPLODED * np.median(past):
                found.append(step)
        return np.array(found, np.int64)

    @functools.cached_property
    def rates(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps and learning rates of plain gradient descent; empty for other optimizers.

        In plain gradient descent update and gradient are in one ratio in all layers, or, if there is one
        layer, at all steps.
        """
        h = self.history
        g, u = h.statistic("gradient_norm"), h.statistic("update_norm")
        at = np.flatnonzero(h.measured & h.accepted & (h.coefficient == 1))
        moved = (g > 0) & np.isfinite(g) & (u > 0)
        ratios = np.where(moved, u / np.where(g > 0, g, 1), np.nan)[at]
        known = np.isfinite(ratios).any(1)
        at, ratios = at[known], ratios[known]
        none = np.zeros(0, np.int64), np.zeros(0)
        if len(ratios) < 2:
            return none
        rates = np.nanmax(ratios, 1)
        several = np.isfinite(ratios).sum(1) > 1
        if several.any():
            is_plain = np.median(rates[several] / np.nanmin(ratios[several], 1)) < _SAME_RATIO
        else:
            is_plain = np.median(np.abs(np.diff(np.log(rates)))) < _SAME_RATIO - 1
        return (at, rates) if is_plain else none

    @property
    def learning_rate(self) -> float:
        """The largest rate of plain gradient descent; NaN if it is unknown."""
        return float(self.rates[1].max()) if len(self.rates[1]) else math.nan
