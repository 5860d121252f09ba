"""The programs: published faults, rebuilt from their hyperparameters, their relatives, and healthy ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import models
from jaxml.data import scikit
from jaxml.types import Array

Loss = Callable[[Any, Array], Array]
Arrays = tuple[NDArray[Any], NDArray[Any]]
init = nn.initializers


class Run(NamedTuple):
    """One training: the arguments of `train.fit`, and the score of its outcome.

    Attributes:
        model, loss, optimizer, data, num_steps, batch_size, validation_data, shuffle: as `train.fit` takes
            them.
        score: `score(outputs, labels) -> float`, higher is better, on the data.
    """

    model: nn.Module
    loss: Loss
    optimizer: optax.GradientTransformation
    data: Arrays
    num_steps: int
    batch_size: int
    score: Callable[[NDArray[Any], NDArray[Any]], float]
    validation_data: Arrays | None = None
    shuffle: bool = True


class Program(NamedTuple):
    """A training program.

    Attributes:
        name: of the program.
        make: seed → `Run`.
        symptoms: one of these must be found if the outcome is bad, the fault's own name first; empty for a
            healthy program.
        also: symptoms that are present too.
        good: the outcome is good from this score on.
        bad: the outcome is bad up to this score; scores in between are not judged.
        source: of the program.
    """

    name: str
    make: Callable[[int], Run]
    symptoms: tuple[str, ...]
    also: tuple[str, ...]
    good: float
    bad: float
    source: str


# What comes with an explosion, whatever began it.
_BLOWN = {
    "exploding_gradient", "loss_divergence", "learning_rate_too_high", "non_finite", "loss_jump"
}  # fmt: skip


def _program(
    name: str, make: Callable[[int], Run], symptoms: str = "", *, also: str = "", good: float = 0.9,
    bad: float = 0.6, source: str = "jaxml",
) -> Program:  # fmt: skip
    named = tuple(symptoms.split())
    # Where gradients explode the guard may clip most steps, which is a finding of its own.
    clipped = ["clip_saturation"] if _BLOWN & set(named) else []
    return Program(name, make, named, (*also.split(), *clipped), good, bad, source)


# Losses and scores


def cross_entropy(outputs: Array, labels: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def of_probabilities(outputs: Array, labels: Array) -> Array:
    """Categorical cross-entropy of probabilities, normalised and clipped as Keras does."""
    p = outputs / jnp.sum(outputs, axis=-1, keepdims=True)
    p = jnp.clip(p, 1e-7, 1 - 1e-7)
    return -jnp.log(jnp.take_along_axis(p, labels[:, None], axis=1)[:, 0])


def binary_of_probability(outputs: Array, labels: Array) -> Array:
    """Binary cross-entropy of a probability, clipped as Keras does."""
    p = jnp.clip(outputs[:, 0], 1e-7, 1 - 1e-7)
    return -(labels * jnp.log(p) + (1 - labels) * jnp.log(1 - p))


def squared(outputs: Array, targets: Array) -> Array:
    return jnp.square(outputs.reshape(targets.shape) - targets)


def huber(outputs: Array, targets: Array) -> Array:
    return optax.huber_loss(outputs.reshape(targets.shape), targets)


def accuracy(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    outputs = outputs.reshape(len(labels), -1)
    if outputs.shape[1] == 1:
        return float(np.mean((outputs[:, 0] > 0.5) == labels))
    return float(np.mean(np.where(np.isfinite(outputs), outputs, -np.inf).argmax(1) == labels))


def explained(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """Share of the variance that is explained; −1 where outputs are not finite or worse than that."""
    away = np.mean(np.square(outputs.reshape(targets.shape) - targets))
    share = 1 - away / np.var(targets)
    return float(max(share, -1.0)) if np.isfinite(share) else -1.0


# Data


def _digits() -> Arrays:
    x, y = scikit.digits()
    return x / 16, y


def _rows_of_digits() -> Arrays:
    x, y = _digits()
    return x.reshape(-1, 8, 8), y


def _tumours() -> Arrays:
    x, y = scikit.breast_cancer()
    return scikit.scaled(x), y


def _circles(seed: int) -> Arrays:
    x, y = scikit.circles(1000, 0.1, 1 + seed)
    return x[:700], y[:700]


def _blobs(seed: int) -> Arrays:
    x, y = scikit.blobs(1000, 3, 2 + seed)
    return scikit.scaled(x)[:700], y[:700]


def _diabetes() -> Arrays:
    x, y = scikit.diabetes()
    return scikit.scaled(x), (y - y.mean()) / y.std()


def _noise(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


MLP = models.MLP
he = init.he_uniform()


def _on_digits(
    model: nn.Module, optimizer: Any, steps: int = 500, batch: int = 64, **kw: Any
) -> Run:
    return Run(model, cross_entropy, optimizer, _digits(), steps, batch, accuracy, **kw)


# Models


class Residual(nn.Module):
    """Residual blocks that start as the identity."""

    blocks: int = 8

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Dense(48)(x)
        for _ in range(self.blocks):
            h = nn.relu(nn.Dense(48)(nn.LayerNorm()(x)))
            x = x + nn.Dense(48, kernel_init=init.zeros)(h)
        return nn.Dense(10, kernel_init=init.zeros, name="head")(x)


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(-1, 8, 8, 1)
        x = nn.max_pool(nn.relu(nn.Conv(16, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.relu(nn.Dense(32)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


class Recurrent(nn.Module):
    """The last output of a recurrent layer, classified."""

    cell: nn.RNNCellBase
    num_outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.num_outputs, name="head")(nn.RNN(self.cell)(x)[:, -1])


class Bag(nn.Module):
    @nn.compact
    def __call__(self, ids: Array) -> Array:
        x = nn.Embed(2000, 16)(ids).mean(1)
        return nn.Dense(2)(nn.relu(nn.Dense(32)(x)))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Dense(32)(x) + self.param("place", init.normal(0.02), (8, 32))
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            x = x + nn.Dense(32)(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x))))
        return nn.Dense(10, name="head")(nn.LayerNorm()(x).mean(1))


def _sequences(
    cell: nn.RNNCellBase, optimizer: Any, data: Any, steps: int, outputs: int = 2
) -> Run:
    return Run(Recurrent(cell, outputs), cross_entropy, optimizer, data, steps, 64, accuracy)


def _simple(scale: float, **options: Any) -> nn.RNNCellBase:
    return nn.SimpleCell(32, recurrent_kernel_init=init.orthogonal(scale), **options)


def _of_probability(widths: tuple[int, ...], activation: str, steps: int, seed: int) -> Run:
    """A program of AutoTrainer on the circles."""
    model = MLP(widths, 1, activation, he, output_activation="sigmoid")
    optimizer, data = optax.adam(1e-3), _circles(seed)
    return Run(model, binary_of_probability, optimizer, data, steps, 128, accuracy)


# Runs that take more than a line


def _heavy_tails(seed: int) -> Run:
    noise = _noise(seed)
    x = noise.normal(size=(2000, 10)).astype(np.float32)
    y = (x @ noise.normal(size=10) + 0.5 * noise.standard_t(2.0, size=2000)).astype(np.float32)
    return Run(MLP((32,), 1), huber, optax.adam(3e-3), (x, y), 800, 32, explained)


def _frozen(widths: tuple[int, ...], steps: int, *layers: str) -> Run:
    labels = lambda params: {k: "off" if k in layers else "on" for k in params}  # noqa: E731
    optimizer = optax.multi_transform({"on": optax.adam(1e-3), "off": optax.set_to_zero()}, labels)
    return _on_digits(MLP(widths, 10), optimizer, steps)


def _rare_words(seed: int) -> Run:
    noise = _noise(seed)
    frequency = 1 / np.arange(1, 2001)
    ids = noise.choice(2000, size=(3000, 12), p=frequency / frequency.sum()).astype(np.int32)
    y = ((ids % 2).mean(1) > 0.5).astype(np.int32)
    return Run(Bag(), cross_entropy, optax.adam(1e-2), (ids, y), 800, 64, accuracy)


def _slow_start(seed: int) -> Run:
    """Parity of three signs: a plateau, then a fall."""
    x = np.sign(_noise(seed).normal(size=(2000, 3))).astype(np.float32)
    x += 0.1 * _noise(seed + 1).normal(size=x.shape).astype(np.float32)
    y = (np.sign(x).prod(1) > 0).astype(np.int32)
    model = MLP((32, 32), 2, activation="tanh")
    return Run(model, cross_entropy, optax.adam(3e-3), (x, y), 1200, 64, accuracy)


def _full_batch(seed: int) -> Run:
    x, y = scikit.wine()
    model = MLP((16,), 3, activation="elu")
    return Run(model, cross_entropy, optax.adamw(1e-2), (scikit.scaled(x), y), 300, 178, accuracy)


def _scaled_loss(factor: float, **options: Any) -> Run:
    run = _on_digits(MLP((64, 64), 10), optax.adam(1e-3, **options))
    return run._replace(loss=lambda outputs, labels: factor * cross_entropy(outputs, labels))


def _sigmoid_bits(seed: int) -> Run:
    noise = _noise(seed)
    bits = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(np.float32)
    model = MLP((8, 8), 8, "sigmoid", init.normal(0.05), output_activation="sigmoid")
    score = lambda o, y: float(np.mean(np.all((o > 0.5) == y, axis=1)))  # noqa: E731
    y = bits[noise.permutation(256)]
    loss = lambda o, y: jnp.mean(jnp.square(o - y), -1)  # noqa: E731
    return Run(model, loss, optax.sgd(0.01), (bits, y), 3000, 50, score)


def _saturated_by_scale(seed: int) -> Run:
    x, y = _digits()
    model = MLP((64, 64), 10, "sigmoid")
    return Run(model, cross_entropy, optax.sgd(0.01), (1e4 * x, y), 500, 64, accuracy)


def _unscaled_power(seed: int) -> Run:
    x = np.arange(-100, 100, 0.5, dtype=np.float32)[:, None]
    model = MLP((50,), 1, "sigmoid", init.glorot_uniform(), output_activation="elu")
    return Run(model, squared, optax.adam(1e-3), (x, x[:, 0] ** 4), 1000, 400, explained)


def _dead_by_explosion(seed: int) -> Run:
    x = np.arange(0, 5, 0.1, dtype=np.float32)[:, None]
    y = (5 * x[:, 0] ** 2 + _noise(seed).normal(size=50) ** 3).astype(np.float32)
    return Run(MLP((50, 30), 1), squared, optax.sgd(0.1), (x, y), 1000, 32, explained)


def _dead_output(seed: int) -> Run:
    model = MLP((50,) * 4, 3, "relu", output_activation="relu")
    loss = lambda o, y: of_probabilities(o + 1e-7, y)  # noqa: E731
    return Run(model, loss, optax.adam(1e-4), _blobs(seed), 900, 256, accuracy)


def _line(seed: int) -> Run:
    x = _noise(seed).uniform(-8, 8, size=(8, 1)).astype(np.float32)
    return Run(nn.Dense(1), squared, optax.sgd(0.1), (x, 2 * x[:, 0] + 1), 300, 8, explained)


def _parabola(seed: int) -> Run:
    t = np.arange(4, dtype=np.float32)
    x = np.stack([t**2, t], 1)
    summed = lambda o, y: 4 * squared(o, y)  # noqa: E731
    return Run(nn.Dense(1), summed, optax.sgd(0.01), (x, t**2), 400, 4, explained)


def _linear_digits(seed: int) -> Run:
    model = MLP((30,), 10, "none", init.normal(1.0))
    one_hot = lambda o, y: jnp.mean(jnp.square(o - jax.nn.one_hot(y, 10)), -1)  # noqa: E731
    return Run(model, one_hot, optax.sgd(3.0), _digits(), 500, 10, accuracy)


def _first_of(length: int, seed: int) -> Arrays:
    """Remember the first of many symbols."""
    x = _noise(seed).normal(size=(1000, length, 4)).astype(np.float32)
    return x, (x[:, 0, 0] > 0).astype(np.int32)


def _nan(seed: int) -> Run:
    x, y = _digits()
    x = x.copy()
    x[_noise(seed).integers(0, len(x), 4), 7] = np.nan
    return Run(MLP((64, 64), 10), cross_entropy, optax.adam(1e-3), (x, y), 500, 64, accuracy)


def _random_labels(seed: int) -> Run:
    x, y = _digits()
    y = _noise(seed).permutation(y)
    return Run(MLP((32,), 10), cross_entropy, optax.adam(1e-3), (x, y), 300, 64, accuracy)


def _softmax_of_one(seed: int) -> Run:
    y = (np.arange(2000) % 2).astype(np.int32)
    x = np.repeat(y[:, None], 128, 1).astype(np.float32)
    model = MLP((50, 50), 1, dropout=0.2, output_activation="softmax")
    return Run(model, binary_of_probability, optax.rmsprop(1e-3), (x, y), 1000, 4, accuracy)


def _sorted(seed: int) -> Run:
    x, y = _digits()
    order = np.argsort(y, kind="stable")
    model, optimizer, data = MLP((32,), 10), optax.sgd(0.3), (x[order], y[order])
    return Run(model, cross_entropy, optimizer, data, 1000, 16, accuracy, shuffle=False)


def _burst(seed: int) -> Run:
    """A stretch of targets in the wrong unit, in a stream."""
    noise = _noise(seed)
    x = noise.normal(size=(12_800, 8)).astype(np.float32)
    y = (x @ noise.normal(size=8)).astype(np.float32)
    y[8_000:8_320] *= 100
    return Run(MLP((32,), 1), huber, optax.adam(3e-3), (x, y), 400, 32, explained, shuffle=False)


def _overfit_noise(seed: int) -> Run:
    x, y = _digits()
    noise = _noise(seed)
    order = noise.permutation(len(x))
    few, rest = order[:150], order[150:900]
    y = y.copy()
    wrong = noise.permutation(few)[:30]
    y[wrong] = noise.integers(0, 10, 30)
    model, optimizer, data = MLP((256, 256), 10), optax.adam(3e-3), (x[few], y[few])
    return Run(model, cross_entropy, optimizer, data, 800, 32, accuracy, (x[rest], y[rest]))


def _overfit_regression(seed: int) -> Run:
    x, y = _diabetes()
    order = _noise(seed).permutation(len(x))
    few, rest = order[:120], order[120:]
    model, optimizer, data = MLP((128, 128), 1), optax.adam(3e-3), (x[few], y[few])
    return Run(model, squared, optimizer, data, 800, 32, explained, (x[rest], y[rest]))


def _slow_clusters(seed: int) -> Run:
    noise = _noise(seed)
    y = (np.arange(200) % 2).astype(np.int32)
    x = (noise.uniform(0, 1, size=(200, 2)) + 0.7 * y[:, None]).astype(np.float32)
    return Run(MLP((2,), 2, "sigmoid"), cross_entropy, optax.adam(1e-3), (x, y), 35, 32, accuracy)


def _oscillate_logistic(seed: int) -> Run:
    """Far beyond the edge of stability, on labels of which some are wrong; a softmax cannot diverge."""
    x, y = scikit.wine()
    noise = _noise(seed)
    y = np.where(noise.uniform(size=len(y)) < 0.15, noise.integers(0, 3, len(y)), y)
    data = scikit.scaled(x), y
    return Run(nn.Dense(3), cross_entropy, optax.sgd(30.0), data, 300, 16, accuracy)


_HEALTHY = (
    _program("healthy_circles", lambda seed: Run(
        MLP((16, 16, 16), 2), cross_entropy, optax.adam(3e-3), scikit.circles(700, 0.05, seed), 800, 64,
        accuracy)),
    _program("healthy_digits", lambda _: _on_digits(MLP((64, 64), 10), optax.adam(1e-3))),
    _program("healthy_tanh_momentum", lambda _: _on_digits(
        MLP((64, 64), 10, activation="tanh"), optax.sgd(0.1, momentum=0.9))),
    _program("healthy_batch_norm", lambda _: _on_digits(
        MLP((64, 64, 64), 10, normalization="batch"), optax.sgd(0.1))),
    _program("healthy_dropout_tiny_batch", lambda _: _on_digits(
        MLP((64, 64), 10, dropout=0.5), optax.adam(1e-3), 1500, 8)),
    _program("healthy_zero_residual", lambda _: _on_digits(Residual(), optax.adam(1e-3))),
    _program("healthy_warmup_cosine", lambda _: _on_digits(
        MLP((64, 64), 10), optax.adamw(optax.warmup_cosine_decay_schedule(0, 1e-2, 50, 600)), 600)),
    _program("healthy_linear", lambda _: Run(
        nn.Dense(1), squared, optax.sgd(0.05), _diabetes(), 600, 32, explained), good=0.3, bad=0.1),
    _program("healthy_converged", lambda _: Run(
        nn.Dense(1), squared, optax.sgd(0.02), _diabetes(), 3000, 442, explained), good=0.3, bad=0.1),
    _program("healthy_heavy_tails", _heavy_tails, good=0.4, bad=0.1),
    _program("healthy_logistic", lambda _: Run(
        nn.Dense(2), cross_entropy, optax.sgd(0.3), _tumours(), 500, 64, accuracy)),
    _program("healthy_convolutional", lambda _: _on_digits(Convolutional(), optax.adam(1e-3), 400)),
    _program("healthy_gru", lambda _: _sequences(
        nn.GRUCell(32), optax.adam(3e-3), _rows_of_digits(), 600, 10), good=0.85, bad=0.5),
    _program("healthy_simple_rnn", lambda _: _sequences(
        nn.SimpleCell(32), optax.adam(3e-3), _rows_of_digits(), 600, 10), good=0.85, bad=0.5),
    _program("healthy_frozen", lambda _: _frozen((64, 64), 800, "hidden_0")),
    _program("healthy_rare_words", _rare_words, good=0.85),
    _program("healthy_decay_steps", lambda _: _on_digits(
        MLP((64,), 10), optax.sgd(optax.piecewise_constant_schedule(0.2, {300: 0.1, 500: 0.1})), 700, 32)),
    _program("healthy_slow_start", _slow_start),
    _program("healthy_one_at_a_time", lambda _: _on_digits(MLP((32,), 10), optax.sgd(0.01), 4000, 1)),
    # Adam does not see a factor on the loss.
    _program("healthy_small_loss", lambda _: _scaled_loss(1e-3)),
    _program("healthy_large_loss", lambda _: _scaled_loss(1e4)),
    _program("healthy_attention", lambda _: Run(
        Attention(), cross_entropy, optax.adam(1e-3), _rows_of_digits(), 600, 64, accuracy), bad=0.5),
    _program("healthy_full_batch", _full_batch),
    _program("healthy_clipped_now_and_then", lambda _: _on_digits(
        MLP((64, 64), 10), optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(0.1)))),
    _program("healthy_regression_network", lambda _: Run(
        MLP((64, 64), 1, kernel_init=init.he_normal()), squared, optax.adam(1e-3), _diabetes(), 1000, 8,
        explained), good=0.6, bad=0.3, source="TheDeepChecker, regression network"),
)  # fmt: skip

_VANISHING_AND_SATURATED = (
    _program("vanish_autotrainer", lambda seed: _of_probability((5,) * 8, "sigmoid", 1650, seed),
             "vanishing_gradient", good=0.8, source="AutoTrainer, Gradient_Vanish_Case"),
    _program("vanish_sigmoid_adam", lambda _: _on_digits(MLP((32,) * 10, 10, "sigmoid"), optax.adam(1e-3)),
             "vanishing_gradient", good=0.6, bad=0.3),
    _program("vanish_sigmoid_sgd", lambda _: _on_digits(MLP((64,) * 6, 10, "sigmoid"), optax.sgd(0.1)),
             "vanishing_gradient", good=0.6, bad=0.3),
    _program("vanish_deep_tanh", lambda _: _on_digits(
        MLP((32,) * 20, 10, "tanh", init.variance_scaling(0.4, "fan_in", "normal")), optax.sgd(0.05)),
             "vanishing_gradient poor_initialization", good=0.6, bad=0.3),
    _program("small_relu", lambda _: _on_digits(
        MLP((64,) * 4, 10, "relu", init.normal(1e-2)), optax.sgd(0.05)),
             "poor_initialization", also="vanishing_gradient dead_relu", good=0.6, bad=0.3),
    _program("small_sigmoid_bits", _sigmoid_bits,
             "poor_initialization vanishing_gradient no_learnable_signal", good=0.8, bad=0.1,
             source="StackOverflow 39217567"),
    _program("saturated_tanh", lambda _: _on_digits(
        MLP((64,) * 5, 10, "tanh", init.normal(3.0)), optax.sgd(0.01)),
             "saturated_activation poor_initialization", good=0.8, bad=0.3),
    _program("saturated_by_scale", _saturated_by_scale, "saturated_activation unscaled_input",
             also="vanishing_gradient poor_initialization learning_rate_too_high", good=0.8, bad=0.5),
    _program("unscaled_power", _unscaled_power, "unscaled_input",
             also="saturated_activation learning_rate_too_low", bad=0.2, source="StackOverflow 52800582"),
    _program("unscaled_logistic", lambda _: Run(
        nn.Dense(2), cross_entropy, optax.sgd(0.1), scikit.breast_cancer(), 500, 64, accuracy),
             "unscaled_input", also="exploding_gradient learning_rate_too_high loss_oscillation",
             good=0.93, bad=0.9),
    _program("unscaled_wine", lambda _: Run(
        MLP((32, 32), 3), cross_entropy, optax.sgd(0.05), scikit.wine(), 500, 32, accuracy),
             "unscaled_input", also="dead_relu exploding_gradient learning_rate_too_high", bad=0.75),
)  # fmt: skip

_DEAD = (
    _program("dead_15", lambda seed: _of_probability((5,) * 15, "relu", 1650, seed), "dead_relu",
             also="vanishing_gradient", good=0.8, source="AutoTrainer, model_46edb7df"),
    _program("dead_17", lambda seed: _of_probability((5,) * 17, "relu", 1650, seed), "dead_relu",
             also="vanishing_gradient", good=0.8, source="AutoTrainer, model_e8a6e959"),
    _program("dead_blobs", lambda seed: Run(
        MLP((5,) * 15, 3, "relu", he), cross_entropy, optax.adam(1e-3), _blobs(seed), 900, 256, accuracy),
             "dead_relu", also="vanishing_gradient", good=0.8, source="AutoTrainer, Blob model_84c77206"),
    _program("dead_by_explosion", _dead_by_explosion,
             "dead_relu exploding_gradient learning_rate_too_high",
             also="unscaled_input loss_jump loss_divergence", good=0.8, bad=0.3,
             source="StackOverflow 48934338"),
    _program("dead_by_rate", lambda _: _on_digits(MLP((64, 64), 10), optax.sgd(3.0, momentum=0.9)),
             "dead_relu learning_rate_too_high exploding_gradient", also="loss_jump loss_divergence",
             good=0.8, bad=0.3),
    _program("dead_output", _dead_output, "dead_relu no_learnable_signal poor_initialization",
             also="exploding_gradient", good=0.8, bad=0.45, source="AutoTrainer, Improper_Activation_case"),
)  # fmt: skip

_EXPLODING = (
    _program("explode_exponential", lambda seed: _of_probability((5,) * 8, "exponential", 600, seed),
             "non_finite exploding_gradient poor_initialization", good=0.8,
             source="AutoTrainer, model_0ae2cd88"),
    _program("explode_wide_normal", lambda _: _on_digits(
        MLP((500,) * 3, 10, "relu", init.normal(1.0)), optax.adam(3e-3), 100),
             "poor_initialization", also=" ".join(_BLOWN | {"dead_relu"}), good=0.95, bad=0.9,
             source="IPS_4"),
    _program("explode_deep_normal", lambda _: _on_digits(
        MLP((64,) * 6, 10, "relu", init.normal(0.7)), optax.sgd(0.01)),
             "poor_initialization", also=" ".join(_BLOWN | {"dead_relu"}), good=0.8, bad=0.4),
    _program("diverge_line", _line,
             "learning_rate_too_high exploding_gradient loss_divergence non_finite", also="loss_jump",
             bad=0.3, source="IPS_5"),
    _program("diverge_parabola", _parabola,
             "learning_rate_too_high exploding_gradient loss_divergence non_finite", also="loss_jump",
             bad=0.3, source="IPS_17"),
    _program("diverge_linear_digits", _linear_digits,
             "learning_rate_too_high exploding_gradient poor_initialization",
             also="loss_divergence loss_jump non_finite", good=0.8, bad=0.4,
             source="StackOverflow 48385830"),
    _program("diverge_digits", lambda _: _on_digits(MLP((64, 64), 10, "tanh"), optax.sgd(30.0)),
             "learning_rate_too_high exploding_gradient",
             also="loss_divergence loss_jump non_finite dead_relu loss_oscillation saturated_activation",
             good=0.85, bad=0.4),
    _program("diverge_adam", lambda _: _on_digits(MLP((64, 64), 10), optax.adam(0.5)),
             "learning_rate_too_high", good=0.85, bad=0.5,
             also="dead_relu loss_jump exploding_gradient loss_divergence saturated_activation "
             "loss_oscillation"),
    _program("rate_jump", lambda _: _on_digits(
        MLP((64, 64), 10), optax.sgd(optax.piecewise_constant_schedule(0.05, {250: 400.0}))),
             "learning_rate_too_high exploding_gradient", also="loss_jump loss_divergence dead_relu",
             bad=0.4),
)  # fmt: skip

_TIME = (
    _program("time_contracting", lambda seed: _sequences(
        _simple(0.5), optax.adam(1e-3), _first_of(60, seed), 400), "vanishing_through_time", bad=0.7),
    _program("time_long_tanh", lambda seed: _sequences(
        _simple(0.9), optax.adam(1e-3), _first_of(100, seed), 300), "vanishing_through_time", bad=0.7),
    _program("time_expanding", lambda seed: _sequences(
        _simple(1.6, activation_fn=nn.relu), optax.sgd(0.05), _first_of(60, seed), 400),
             "exploding_gradient poor_initialization learning_rate_too_high",
             also="non_finite loss_jump loss_divergence", bad=0.7),
)  # fmt: skip

_DATA = (
    _program("data_nan", _nan, "non_finite", bad=0.3),
    _program("data_random_labels", _random_labels, "no_learnable_signal", also="overfitting",
             good=0.6, bad=0.4),
    _program("data_softmax_of_one", _softmax_of_one, "no_learnable_signal saturated_activation",
             source="StackOverflow 31880720"),
    _program("data_sorted", _sorted, "repetitive_data loss_oscillation", bad=0.85),
    # No score is good or bad enough: these are faulty whatever they score.
    _program("data_burst", _burst, "loss_jump", also="exploding_gradient", good=2.0, bad=1.5),
    _program("overfit_noise", _overfit_noise, "overfitting", good=2.0, bad=1.5),
    _program("overfit_regression", _overfit_regression, "overfitting", good=2.0, bad=1.5),
)  # fmt: skip

_OPTIMIZER = (
    _program("slow_sgd", lambda _: _on_digits(MLP((64, 64), 10), optax.sgd(1e-4)),
             "learning_rate_too_low", good=0.8, bad=0.4),
    _program("slow_by_far", lambda _: _on_digits(MLP((64, 64), 10), optax.sgd(1e-7)),
             "learning_rate_too_low", good=0.8, bad=0.4),
    _program("wrong_sign", lambda _: _on_digits(MLP((64, 64), 10), optax.adam(1e-3), 300)._replace(
        loss=lambda outputs, labels: -cross_entropy(outputs, labels)), "unbounded_loss"),
    _program("frozen_by_mistake", lambda _: _frozen((4, 64), 400, "hidden_0", "hidden_1"), "frozen_layer"),
    _program("shrunk_by_decay", lambda _: _on_digits(
        MLP((64, 64), 10), optax.adamw(1e-3, weight_decay=100.0)), "excessive_regularization"),
    _program("slow_adam", lambda _: _on_digits(MLP((64, 64), 10), optax.adam(1e-6)),
             "learning_rate_too_low", good=0.8, bad=0.4),
    _program("slow_clusters", _slow_clusters, "learning_rate_too_low", bad=0.75,
             source="StackOverflow 50306988"),
    _program("clipped_to_death", lambda _: _on_digits(
        MLP((64, 64), 10), optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1))),
             "clip_saturation", also="learning_rate_too_low", good=0.8, bad=0.4),
    _program("floored_by_epsilon", lambda _: _scaled_loss(1e-4, eps=1e-2), "update_floor",
             also="learning_rate_too_low", good=0.8, bad=0.4),
    _program("divided_by_zero", lambda _: _on_digits(MLP((64, 64), 10), optax.adam(1e-3, eps=0.0)),
             "zero_division", good=0.8, bad=0.4),
    _program("equal_start", lambda _: _on_digits(
        MLP((64, 64), 10, "relu", init.constant(0.01)), optax.sgd(0.1)),
             "poor_initialization", also="no_learnable_signal", good=0.6, bad=0.35),
    _program("oscillate_logistic", _oscillate_logistic, "loss_oscillation learning_rate_too_high",
             also="exploding_gradient loss_jump", good=2.0, bad=1.5),
)  # fmt: skip

PROGRAMS = {
    program.name: program
    for programs in (
        _HEALTHY,
        _VANISHING_AND_SATURATED,
        _DEAD,
        _EXPLODING,
        _TIME,
        _DATA,
        _OPTIMIZER,
    )
    for program in programs
}
"""By name."""
