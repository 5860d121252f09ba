"""The same problem in other libraries. Those that are JAX programs are cases of `cost`."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

JAX = ("optax", "tokamax")
"""Peers that are JAX programs: a product and `optax`'s loss; tokamax's fused loss."""

OTHERS = ("tensorflow_sampled", "torch_linear", "torch_adaptive")
"""`tf.nn.sampled_softmax_loss`, PyTorch's `linear_cross_entropy` and `AdaptiveLogSoftmaxWithLoss`."""

NAMES = (*JAX, *OTHERS)

# A mode, and a function of the round's key that computes and returns the loss.
Timed = tuple[str, str, Callable[[Any], float]]


def missing(name: str) -> str | None:
    """Returns the package that a peer needs, if it is not installed."""
    package = {"tokamax": "tokamax", "optax": "optax"}.get(name, name.split("_")[0])
    return None if importlib.util.find_spec(package) else package


def cases(
    table: np.ndarray,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    num_sampled: int,
    learning_rate: float,
    cutoffs: list[int],
    names: tuple[str, ...] = OTHERS,
) -> Iterator[Timed]:
    """Yields `(name, mode, run)` for the programs of `OTHERS`, in float32; the modes are those of `cost`.

    `cutoffs` are those of the adaptive softmax, and end with the number of classes.
    """
    if "tensorflow_sampled" in names:
        yield from _tensorflow(table, inputs, labels, min(num_sampled, len(table)), learning_rate)
    if "torch_linear" in names:
        yield from _torch_linear(table, inputs, labels, learning_rate)
    if "torch_adaptive" in names:
        yield from _torch_adaptive(inputs, labels, learning_rate, cutoffs)


def _tensorflow(table, inputs, labels, num_sampled, learning_rate) -> Iterator[Timed]:
    import tensorflow as tf

    weights, biases = tf.Variable(table), tf.zeros([len(table)])
    x, y = tf.constant(inputs), tf.constant(labels[:, None].astype(np.int64))

    def loss():
        return tf.reduce_mean(
            tf.nn.sampled_softmax_loss(weights, biases, y, x, num_sampled, len(table))
        )

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss()
        return value, *tape.gradient(value, (x, weights))

    @tf.function
    def step():
        value, d_x, d_weights = gradients()
        # Scattered into the variable: the fastest way in TensorFlow.
        weights.scatter_sub(tf.IndexedSlices(learning_rate * d_weights.values, d_weights.indices))
        return value, d_x

    forward, gradient = tf.function(loss), tf.function(gradients)
    name = "tensorflow_sampled"
    yield name, "forward", lambda key: float(forward())
    yield name, "gradient", lambda key: float(gradient()[0])
    yield name, "step", lambda key: float(step()[0])


def _torch_linear(table, inputs, labels, learning_rate) -> Iterator[Timed]:
    import torch

    function = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if function is None:  # Before PyTorch 2.13: the two functions that it replaces.

        def function(x, w, y):
            return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, w), y)

        chunked = {}
    else:
        # In chunks of the batch: without options it stores all logits.
        chunked = {"options": torch.nn.modules.LinearCrossEntropyOptions()}
    weights = torch.tensor(table, requires_grad=True)
    x = torch.tensor(inputs, requires_grad=True)
    y = torch.tensor(labels.astype(np.int64))
    yield from _torch(
        "torch_linear", lambda: function(x, weights, y, **chunked), [weights], x, learning_rate
    )


def _torch_adaptive(inputs, labels, learning_rate, cutoffs) -> Iterator[Timed]:
    import torch

    layer = torch.nn.AdaptiveLogSoftmaxWithLoss(inputs.shape[1], cutoffs[-1], cutoffs[:-1])
    x = torch.tensor(inputs, requires_grad=True)
    y = torch.tensor(labels.astype(np.int64))
    parameters = list(layer.parameters())
    yield from _torch("torch_adaptive", lambda: layer(x, y).loss, parameters, x, learning_rate)


def _torch(name, loss, parameters, x, learning_rate) -> Iterator[Timed]:
    import torch

    def forward(key: Any) -> float:
        with torch.no_grad():
            return float(loss())

    def gradient(key: Any) -> float:
        for array in (x, *parameters):
            array.grad = None
        value = loss()
        value.backward()
        return float(value.detach())

    def step(key: Any) -> float:
        value = gradient(key)
        with torch.no_grad():
            for array in parameters:
                array.sub_(array.grad, alpha=learning_rate)
        return value

    yield name, "forward", forward
    yield name, "gradient", gradient
    yield name, "step", step
