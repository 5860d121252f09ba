"""What a monitored step records, and what becomes of the records."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import models
from jaxml import monitor as monitoring
from jaxml.train.loop import Step
from jaxml.train.state import Report, State
from jaxml.types import Array, PyTree

__all__ = ["Watch"]

# Examples on which layers are listened to: a fraction of a batch, so that it costs a fraction of a step.
_LISTENED_TO = 64


class _Record(NamedTuple):
    """Of a step, besides its loss."""

    worst: Array
    verdict: monitoring.Verdict
    activity: monitoring.Activity


class Watch:
    """What a monitored training has beyond an unmonitored one.

    Args:
        model: a Linen module.
        loss: `loss(outputs, labels) -> ` loss of each example.
        optimizer: any optax transformation.
        variables: of the model, initialised.
        few: the inputs of a batch.
        every: steps between two looks at the layers.
        vanishing: as in `monitor.guard`.

    Attributes:
        optimizer: the same, guarded.
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Array], Array],
        optimizer: optax.GradientTransformation,
        variables: PyTree,
        few: PyTree,
        *,
        every: int = 10,
        vanishing: Literal["ignore", "rescale"] = "ignore",
    ) -> None:
        self._loss, self._every = loss, every
        self._listener = models.listen(model)
        shape = jax.eval_shape(
            lambda: jax.tree.map(lambda leaf: jnp.asarray(leaf[:_LISTENED_TO]), few)
        )
        self._layers = self._listener.layers(variables, shape)
        has_cells = any(layer.kind == "cell" for layer in self._layers)
        # Of a sequence in no cell's hands the inputs at each step stand in for the carry.
        first, *others = jax.tree.leaves(shape)
        self._by_input = (
            not has_cells
            and not others
            and first.ndim == 3
            and jnp.issubdtype(first.dtype, jnp.floating)
        )
        self._listened, self._length = first.shape[0], first.shape[1] if first.ndim > 1 else 0
        params, _ = models.split_variables(variables)
        self._layout = monitoring.layout(
            params,
            [layer.parameters for layer in self._layers],
            {layer.parameters: layer.stacked for layer in self._layers if layer.stacked},
        )
        self._vanishing: Literal["ignore", "rescale"] = vanishing
        self.optimizer = self.guard(optimizer)

    def guard(
        self, optimizer: optax.GradientTransformation, *, branch: bool = True
    ) -> monitoring.Guard:
        """Another optimizer, guarded as `optimizer` is: each member of a sweep has its own.

        Args:
            optimizer: any optax transformation.
            branch: as in `monitor.guard`; False under `vmap`.
        """
        return monitoring.guard(
            optimizer,
            layout=self._layout,
            vanishing=self._vanishing,
            every=self._every,
            branch=branch,
        )

    def _look(self, state: State, batch: PyTree) -> monitoring.Activity:
        """At the layers, on a part of the batch."""
        few = jax.tree.map(lambda leaf: leaf[:_LISTENED_TO], batch)
        x, y = few["x"], few["y"]
        held = {"params": state.params, **state.model_state}

        def of_taps(taps: PyTree, inputs: PyTree):
            outputs, _, seen = self._listener.apply(
                held, taps, inputs, key=state.key, training=True
            )
            return jnp.mean(self._loss(outputs, y).astype(jnp.float32)), (outputs, seen)

        wanted = (0, 1) if self._by_input else (0,)
        gradients, (outputs, seen) = jax.grad(of_taps, wanted, has_aux=True)(
            self._listener.taps(held, x), x
        )
        return monitoring.activity(self._layers, seen, gradients[0], outputs, *gradients[1:])

    def step(self, step: Step) -> Step:
        """The step, with a record of what was seen in its report."""

        def watched(state: State, batch: PyTree) -> tuple[State, Report]:
            nothing = jax.eval_shape(self._look, state, batch)
            seen = jax.lax.cond(
                state.step % self._every == 0,
                lambda: self._look(state, batch),
                lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), nothing),
            )
            # First looked at, then updated in place: the other way round the compiler would keep a copy.
            seen, batch = jax.lax.optimization_barrier((seen, batch))
            after, report = step(state, batch)
            verdict = monitoring.verdict(after.opt_state)
            record: Any = _Record(report.metrics["worst"], verdict, seen)
            return after, dataclasses.replace(report, metrics={**report.metrics, "record": record})

        return watched

    def history(
        self,
        reports: Any,
        data: monitoring.DataReport,
        steps_per_epoch: float,
        validation_steps: NDArray[np.int64] | None = None,
        validation_losses: NDArray[np.float64] | None = None,
        shuffled: bool = True,
    ) -> monitoring.History:
        """All that was recorded.

        Args:
            reports: of all steps until now, joined: arrays [S, …].
            data: what was found in the data.
            steps_per_epoch: batches in an epoch.
            validation_steps: [V] steps taken before each validation; None for none.
            validation_losses: [V].
            shuffled: whether each epoch has an order of its own.
        """
        record = reports.metrics["record"]
        numbers = jax.tree.map(
            lambda leaf: leaf if leaf.dtype == bool else leaf.astype(np.float64), record
        )
        steps = np.arange(len(reports.loss))
        looks = steps % self._every == 0
        cells = [layer for layer in self._layers if layer.kind == "cell"]
        return monitoring.History(
            losses=reports.metrics["loss"].astype(np.float64),
            worst=numbers.worst,
            taken=record.verdict.taken,
            coefficient=numbers.verdict.coefficient,
            norm=numbers.verdict.norm,
            bound=numbers.verdict.bound,
            layers=self._layout.names,
            statistics=numbers.verdict.statistics,
            measured=looks | ~record.verdict.taken,
            tapped=tuple(layer for layer in self._layers if layer.shape is not None),
            looks=steps[looks],
            activity=numbers.activity.layers[looks],
            alive=record.activity.alive[looks],
            over_time=numbers.activity.over_time[looks],
            gain=numbers.activity.gain[looks],
            times=(self._length,)
            if self._by_input
            else tuple(cell.shape[0] for cell in cells if cell.shape),
            validation_steps=np.zeros(0, np.int64)
            if validation_steps is None
            else validation_steps,
            validation_losses=np.zeros(0) if validation_losses is None else validation_losses,
            data=data,
            after=None,
            steps_per_epoch=steps_per_epoch,
            shuffled=shuffled,
            moment_ratio=numbers.verdict.moment_ratio,
            by_input=self._by_input,
            listened=self._listened,
        )
