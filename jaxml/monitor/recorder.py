"""Records a training from inside its compiled step, and turns the records into a `History`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxml.models.taps import listen
from jaxml.monitor.activities import Activity, activity
from jaxml.monitor.history import History
from jaxml.monitor.inputs import DataReport
from jaxml.monitor.layers import join, layout, squares
from jaxml.types import Array, Key, PyTree

__all__ = ["Recorder"]

# Examples of a batch on which layers are observed.
_EXAMPLES = 64


class Recorder:
    """Observes the layers of a model during training.

    Args:
        model: a Linen module.
        loss: `loss(outputs, labels) -> ` loss of each example.
        variables: of the model, arrays or shapes.
        sample_inputs: the inputs of a batch, arrays or shapes.
        every: steps between two observations of the layers.

    Attributes:
        layout: which parameters belong to which layer.
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Array], Array],
        variables: PyTree,
        sample_inputs: PyTree,
        every: int = 10,
    ) -> None:
        self._loss, self._every = loss, every
        self._listener = listen(model)
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (min(_EXAMPLES, leaf.shape[0]), *leaf.shape[1:]),
                jax.dtypes.canonicalize_dtype(leaf.dtype),
            ),
            sample_inputs,
        )
        self._layers = self._listener.layers(variables, shapes)
        # Sequences without a recurrent cell are observed at their inputs instead of at the carry.
        first, *others = jax.tree.leaves(shapes)
        is_sequence = first.ndim == 3 and jnp.issubdtype(first.dtype, jnp.floating)
        has_cells = any(layer.kind == "cell" for layer in self._layers)
        self._by_input = is_sequence and not others and not has_cells
        self._length = first.shape[1] if first.ndim > 1 else 0
        self.layout = layout(
            variables.get("params", {}),
            [layer.parameters for layer in self._layers],
            {layer.parameters: layer.stacked for layer in self._layers if layer.stacked},
        )

    def observe(
        self, params: PyTree, model_state: PyTree, key: Key, step: Array, batch: PyTree
    ) -> Activity:
        """Returns the activity of the layers at every `every`-th step, and zeros at the others.

        Args:
            params: before the step.
            model_state: before the step.
            key: for dropout.
            step: int32 scalar, steps taken; under `vmap` not batched.
            batch: `{"x": inputs, "y": labels}`.
        """
        x, y = jax.tree.map(lambda leaf: leaf[:_EXAMPLES], (batch["x"], batch["y"]))
        wanted = (0, 1) if self._by_input else (0,)
        number = [len(rows) for rows in self.layout.rows]

        def observe(params: PyTree, model_state: PyTree, key: Key, x: PyTree, y: Array) -> Activity:
            variables = {"params": params, **model_state}

            def of_taps(taps: PyTree, inputs: PyTree):
                outputs, _, seen = self._listener.apply(
                    variables, taps, inputs, key=key, training=True
                )
                return jnp.mean(self._loss(outputs, y).astype(jnp.float32)), (outputs, seen)

            gradients, (outputs, seen) = jax.grad(of_taps, wanted, has_aux=True)(
                self._listener.taps(variables, x), x
            )
            found = activity(self._layers, seen, gradients[0], outputs, *gradients[1:])
            norms = jnp.sqrt(squares([[leaf] for leaf in jax.tree.leaves(params)], number))
            return found._replace(parameter_norms=norms)

        # Traced once, for its shapes and for the branch.
        traced = jax.jit(observe, inline=True)
        given = params, model_state, key, x, y
        blank = jax.eval_shape(traced, *given)
        return jax.lax.cond(
            step % self._every == 0,
            traced,
            lambda *_: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank),
            *given,
        )

    def history(
        self,
        metrics: Mapping[str, Any],
        data: DataReport,
        steps_per_epoch: float,
        validation_losses: NDArray[np.float64],
        shuffled: bool,
        validation_data: DataReport | None = None,
    ) -> History:
        """Returns the history of a training, without the measurements after it.

        Args:
            metrics: NumPy arrays `[S, …]` of all steps until now: `"loss"`, the mean of the batch;
                `"verdict"`, of the guard; `"activity"`, as `observe` returns it.
            data: as `inspect` returns it.
            steps_per_epoch: batches in an epoch.
            validation_losses: [V], measured at even distances.
            shuffled: whether each epoch has an order of its own.
            validation_data: as `inspect` returns it; None without validation data.
        """
        loss, verdict, activity = jax.tree.map(
            lambda leaf: leaf if leaf.dtype == bool else leaf.astype(np.float64),
            (metrics["loss"], metrics["verdict"], metrics["activity"]),
        )
        steps = np.arange(len(loss))
        observed = steps % self._every == 0
        # Of a norm that is not finite and of one that is too large nothing is known but that.
        norms = np.exp(np.nan_to_num(verdict.log_norms, nan=np.inf, posinf=np.inf, neginf=-np.inf))
        # Of a step that was refused: which updates were not finite.
        refused = np.where(np.isfinite(verdict.update_norms), 0.0, np.nan)
        moved = np.where(verdict.accepted[:, None], verdict.update_norms, refused)
        held = activity.parameter_norms[steps // self._every * self._every]
        statistics = [join(each, self.layout) for each in (norms[:, :-2], held, moved)]
        cells = [layer.shape[0] for layer in self._layers if layer.kind == "cell" and layer.shape]
        return History(
            losses=loss,
            accepted=verdict.accepted,
            coefficient=verdict.coefficients.min(1, initial=1.0),
            norm=norms[:, -2],
            bound=np.exp(verdict.log_bounds[:, -2]),
            layers=self.layout.names,
            statistics=np.stack(statistics, axis=2),
            measured=observed | ~verdict.accepted,
            tapped=tuple(layer for layer in self._layers if layer.shape is not None),
            looks=steps[observed],
            activity=activity.layers[observed],
            alive=activity.alive[observed],
            over_time=activity.over_time[observed],
            gain=activity.gain[observed],
            times=(self._length,) if self._by_input else tuple(cells),
            validation_losses=validation_losses,
            data=data,
            after=None,
            steps_per_epoch=steps_per_epoch,
            shuffled=shuffled,
            by_input=self._by_input,
            validation_data=validation_data,
        )
