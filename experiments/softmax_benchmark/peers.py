"""The same problem in other libraries."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

Timed = tuple[str, Callable[[Any], float]]


def missing(name: str) -> str | None:
    """Returns the package that a peer needs, if it is not installed."""
    package = name if name in JAX else name.split("_")[0]
    return None if importlib.util.find_spec(package) else package


def _optax(table, x, y, key):
    logits = (x @ table.T).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def _tokamax(table, x, y, key):
    import tokamax

    return tokamax.linear_softmax_cross_entropy_loss(x, y, table.T, reduction="mean")


def _tensorflow(table, inputs, labels, num_sampled, learning_rate, cutoffs) -> Iterator[Timed]:
    import tensorflow as tf

    num_sampled = min(num_sampled, len(table))
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
    yield "forward", lambda key: float(forward())
    yield "gradient", lambda key: float(gradient()[0])
    yield "step", lambda key: float(step()[0])


def _torch_linear(table, inputs, labels, num_sampled, learning_rate, cutoffs) -> Iterator[Timed]:
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
    yield from _torch(lambda: function(x, weights, y, **chunked), [weights], x, learning_rate)


def _torch_adaptive(table, inputs, labels, num_sampled, learning_rate, cutoffs) -> Iterator[Timed]:
    import torch

    layer = torch.nn.AdaptiveLogSoftmaxWithLoss(inputs.shape[1], cutoffs[-1], cutoffs[:-1])
    x = torch.tensor(inputs, requires_grad=True)
    y = torch.tensor(labels.astype(np.int64))
    parameters = list(layer.parameters())
    yield from _torch(lambda: layer(x, y).loss, parameters, x, learning_rate)


def _torch(loss, parameters, x, learning_rate) -> Iterator[Timed]:
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

    yield "forward", forward
    yield "gradient", gradient
    yield "step", step


JAX: dict[str, Callable[..., Any]] = {"optax": _optax, "tokamax": _tokamax}
"""`loss(table, inputs, labels, key)` of JAX programs: a product and optax's loss; tokamax's fused loss."""

OTHERS: dict[str, Callable[..., Iterator[Timed]]] = {
    "tensorflow_sampled": _tensorflow,
    "torch_linear": _torch_linear,
    "torch_adaptive": _torch_adaptive,
}
"""`tf.nn.sampled_softmax_loss`, PyTorch's `linear_cross_entropy` and `AdaptiveLogSoftmaxWithLoss`, as
`peer(table, inputs, labels, num_sampled, learning_rate, cutoffs)` in float32. They yield a mode of `cost`
and a function of the round's key that computes and returns the loss. The last cutoff is the number of
classes.
"""

NAMES = (*JAX, *OTHERS)
