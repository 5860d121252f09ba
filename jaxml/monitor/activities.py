"""What is measured of activations and of the gradients at them: for each layer, for each unit, over
time."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxml import trees
from jaxml.models.taps import Layer, Seen
from jaxml.types import Array, PyTree

__all__ = ["ACTIVITY", "TIMES", "Activity", "activity"]

ACTIVITY = (
    "gradient_norm",
    "rms",
    "spread",
    "relu",
    "tanh",
    "sigmoid",
    "saturated",
    "dead",
    "cut",
)
"""Columns of `Activity.layers`, of a layer's output and of what follows it:

- gradient_norm: norm of the gradient with respect to the output
- rms, spread: root mean square of the output, and of its deviation from each unit's mean over the batch
- relu, tanh, sigmoid: share of entries that are followed by their ReLU, tanh or sigmoid
- saturated: share that is where tanh or sigmoid are within a hundredth of their bounds
- dead: share of units that are followed by 0 on the whole batch
- cut: share of entries that are set to 0; about half of them in a healthy ReLU layer
"""

TIMES = 32
"""Points in time at which a recurrent cell's gradients are reported, evenly spread."""


class Activity(NamedTuple):
    """One look at all layers.

    Attributes:
        layers: float32 [layers, `ACTIVITY`].
        alive: bool [units of all layers], whether what follows a layer's unit is other than 0 on any
            example.
        over_time: float32 [cells, TIMES], log norm of the gradient with respect to the carry after a step.
        gain: float32 [cells], mean over the steps of the log factor by which a step back in time changes
            that gradient: ∂E/∂h_t through h_{t+1} alone, against ∂E/∂h_{t+1}. It does not depend on where
            in time the loss comes in.
        parameter_norms: float32 [tensors], of `monitor.layout`; empty if they were not measured.
    """

    layers: Array
    alive: Array
    over_time: Array
    gain: Array
    parameter_norms: Array | tuple[()] = ()


def _of_layer(outputs: Array, after: Array | None, delta: Array) -> tuple[Array, Array]:
    """Row of a layer, and which of its units are alive."""
    flat = outputs.astype(jnp.float32).reshape(-1, outputs.shape[-1])
    flat = jnp.where(jnp.isfinite(flat), flat, 0.0)
    left = flat
    terms = [jnp.square(flat), jnp.square(flat - jnp.mean(flat, axis=0, keepdims=True))]
    if after is not None:
        # Of what was pooled or flattened the units are still the last axis.
        left = after.astype(jnp.float32).reshape(-1, outputs.shape[-1])
        if after.shape == outputs.shape:
            terms += [
                *(_close(left, f(flat)) for f in (jax.nn.relu, jnp.tanh, jax.nn.sigmoid)),
                jnp.abs(left) > 0.98,
                (left < 0.01) | (left > 0.99),
                (left == 0) & (flat != 0),
            ]
    # One reduction of all: each takes as long to compile as the others together.
    means = jnp.mean(jnp.stack([term.astype(jnp.float32) for term in terms]), axis=(1, 2))
    square, variance, *others = jnp.unstack(means)
    relu, tanh, sigmoid, at_tanh, at_sigmoid, cut = others or [jnp.zeros((), jnp.float32)] * 6
    saturated = jnp.where(tanh > sigmoid, at_tanh, at_sigmoid)
    saturated *= jnp.maximum(tanh, sigmoid) > 0.9
    alive = jnp.any(left != 0, axis=0)
    row = [
        trees.norm(delta), jnp.sqrt(square), jnp.sqrt(variance), relu, tanh, sigmoid, saturated,
        jnp.mean(~alive), cut,
    ]  # fmt: skip
    return jnp.stack(row), alive


def _close(after: Array, expected: Array) -> Array:
    return jnp.abs(after - expected) <= 1e-4 * (1 + jnp.abs(expected))


def _over_time(carry: PyTree) -> Array:
    """Returns the norm of a tree of [T, …], for each T."""
    leaves = [leaf.reshape(len(leaf), -1).astype(jnp.float32) for leaf in jax.tree.leaves(carry)]
    return trees.norm(jnp.concatenate(leaves, axis=1), axis=1)


def _log(values: Array) -> Array:
    """Of norms; what has underflowed counts as the smallest float32."""
    return jnp.log(jnp.maximum(values, 1e-38))


def _reported(norms: Array) -> Array:
    return _log(norms)[np.linspace(0, len(norms) - 1, TIMES).round().astype(np.int32)]


def _of_cell(delta: Mapping[str, PyTree]) -> tuple[Array, Array]:
    entering, leaving = _over_time(delta["entering"]), _over_time(delta["leaving"])
    # The first step's carry is a constant: what flows into it flows nowhere.
    known = (leaving[1:] > 1e-36) & (entering[1:] > 1e-38)
    gains = jnp.where(known, _log(entering[1:]) - _log(leaving[1:]), 0.0)
    return _reported(leaving), gains.sum() / jnp.maximum(known.sum(), 1)


def _of_inputs(d_inputs: Array) -> tuple[Array, Array]:
    norms = _over_time(jnp.moveaxis(d_inputs, 1, 0))
    known = norms > 1e-36
    logs = jnp.where(known, _log(norms), 0.0)
    # The slope of a line through what has not underflowed.
    time = jnp.arange(len(norms), dtype=jnp.float32)
    number = jnp.maximum(known.sum(), 1)
    away = jnp.where(known, time - jnp.where(known, time, 0).sum() / number, 0.0)
    slope = jnp.sum(away * logs) / jnp.maximum(jnp.sum(jnp.square(away)), 1e-12)
    return _reported(norms), -slope


def activity(
    layers: Sequence[Layer],
    seen: Mapping[str, Seen],
    deltas: Mapping[str, PyTree],
    outputs: Any,
    d_inputs: Array | None = None,
) -> Activity:
    """Returns the `Activity` in one application of a module.

    What follows a layer is what the next one is given, or the module's output, where its shape is the
    layer's or is made of as many units.

    Args:
        layers: as `Listener.layers` gives them; those without a tap are left out.
        seen: as `Listener.apply` gives it.
        deltas: gradients with respect to the taps.
        outputs: of the module.
        d_inputs: [B, T, …] gradients with respect to the inputs, to stand in for those at a carry where no
            cell is tapped: a step's own input sees what later steps make of it.
    """
    tapped = [layer for layer in layers if layer.shape is not None]
    following = [*(seen[layer.name].inputs for layer in tapped[1:]), outputs]
    rows, flows = [], []
    for layer, follows in zip(tapped, following, strict=bool(tapped)):
        came, delta = seen[layer.name].outputs, deltas[layer.name]
        if layer.kind == "cell":
            flows.append(_of_cell(delta))
            rows.append(_of_layer(came, None, jax.tree.leaves(delta["leaving"])[-1]))
        else:
            rows.append(_of_layer(came, _follows(came, follows), delta))
    if not flows and d_inputs is not None:
        flows.append(_of_inputs(d_inputs))
    none = partial(jnp.zeros, dtype=jnp.float32)
    return Activity(
        layers=jnp.stack([row for row, _ in rows]) if rows else none((0, len(ACTIVITY))),
        alive=jnp.concatenate([alive for _, alive in rows]) if rows else jnp.zeros(0, bool),
        over_time=jnp.stack([flow for flow, _ in flows]) if flows else none((0, TIMES)),
        gain=jnp.stack([gain for _, gain in flows]) if flows else none(0),
    )


def _follows(outputs: Array, after: Any) -> Array | None:
    if not hasattr(after, "shape") or not jnp.issubdtype(after.dtype, jnp.floating):
        return None
    if after.shape == outputs.shape:
        return after
    same_batch = after.ndim > 1 and after.shape[0] == outputs.shape[0]
    # Pooling keeps channels last, flattening as a whole number of positions.
    if same_batch and outputs.ndim > 2 and after.shape[-1] % outputs.shape[-1] == 0:
        return after
    return None
