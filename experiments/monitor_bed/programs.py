"""The programs: published faults, rebuilt from their hyperparameters, their relatives, and healthy ones."""

import dataclasses
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
    data: tuple[NDArray[Any], NDArray[Any]]
    num_steps: int
    batch_size: int
    score: Callable[[NDArray[Any], NDArray[Any]], float]
    validation_data: tuple[NDArray[Any], NDArray[Any]] | None = None
    shuffle: bool = True


@dataclasses.dataclass(frozen=True)
class Program:
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
    symptoms: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    good: float = 0.0
    bad: float = 0.0
    source: str = "jaxml"


PROGRAMS: dict[str, Program] = {}

# What comes with an explosion, whatever began it.
_BLOWN = {
    "exploding_gradient",
    "loss_divergence",
    "learning_rate_too_high",
    "non_finite",
    "loss_jump",
}


def program(
    symptoms: str = "", *, also: str = "", good: float, bad: float, source: str = "jaxml"
) -> Callable[[Callable[[int], Run]], Callable[[int], Run]]:
    """Registers a program under its function's name."""

    def register(make: Callable[[int], Run]) -> Callable[[int], Run]:
        PROGRAMS[make.__name__] = Program(
            make.__name__,
            make,
            tuple(symptoms.split()),
            # Where gradients explode the guard may clip most steps, which is a finding of its own.
            (*also.split(), *(["clip_saturation"] if _BLOWN & set(symptoms.split()) else [])),
            good,
            bad,
            source,
        )
        return make

    return register


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


def _digits() -> tuple[NDArray[Any], NDArray[Any]]:
    x, y = scikit.digits()
    return x / 16, y


def _circles(seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    x, y = scikit.circles(1000, 0.1, 1 + seed)
    return x[:700], y[:700]


def _blobs(seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    x, y = scikit.blobs(1000, 3, 2 + seed)
    return scikit.scaled(x)[:700], y[:700]


def _diabetes() -> tuple[NDArray[Any], NDArray[Any]]:
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


# ------------------------------------------------------------------------------------------ healthy


@program(good=0.9, bad=0.6)
def healthy_circles(seed: int) -> Run:
    x, y = scikit.circles(700, 0.05, seed)
    return Run(MLP((16, 16, 16), 2), cross_entropy, optax.adam(3e-3), (x, y), 800, 64, accuracy)


@program(good=0.9, bad=0.6)
def healthy_digits(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10), optax.adam(1e-3))


@program(good=0.9, bad=0.6)
def healthy_tanh_momentum(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10, activation="tanh"), optax.sgd(0.1, momentum=0.9))


@program(good=0.9, bad=0.6)
def healthy_batch_norm(seed: int) -> Run:
    return _on_digits(MLP((64, 64, 64), 10, normalization="batch"), optax.sgd(0.1))


@program(good=0.9, bad=0.6)
def healthy_dropout_tiny_batch(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10, dropout=0.5), optax.adam(1e-3), 1500, 8)


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


@program(good=0.9, bad=0.6)
def healthy_zero_residual(seed: int) -> Run:
    return _on_digits(Residual(), optax.adam(1e-3))


@program(good=0.9, bad=0.6)
def healthy_warmup_cosine(seed: int) -> Run:
    schedule = optax.warmup_cosine_decay_schedule(0, 1e-2, 50, 600)
    return _on_digits(MLP((64, 64), 10), optax.adamw(schedule), 600)


@program(good=0.3, bad=0.1)
def healthy_linear(seed: int) -> Run:
    return Run(nn.Dense(1), squared, optax.sgd(0.05), _diabetes(), 600, 32, explained)


@program(good=0.3, bad=0.1)
def healthy_converged(seed: int) -> Run:
    return Run(nn.Dense(1), squared, optax.sgd(0.02), _diabetes(), 3000, 442, explained)


@program(good=0.4, bad=0.1)
def healthy_heavy_tails(seed: int) -> Run:
    noise = _noise(seed)
    x = noise.normal(size=(2000, 10)).astype(np.float32)
    y = (x @ noise.normal(size=10) + 0.5 * noise.standard_t(2.0, size=2000)).astype(np.float32)
    return Run(MLP((32,), 1), huber, optax.adam(3e-3), (x, y), 800, 32, explained)


@program(good=0.9, bad=0.6)
def healthy_logistic(seed: int) -> Run:
    x, y = scikit.breast_cancer()
    return Run(nn.Dense(2), cross_entropy, optax.sgd(0.3), (scikit.scaled(x), y), 500, 64, accuracy)


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(-1, 8, 8, 1)
        x = nn.max_pool(nn.relu(nn.Conv(16, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.relu(nn.Dense(32)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


@program(good=0.9, bad=0.6)
def healthy_convolutional(seed: int) -> Run:
    return _on_digits(Convolutional(), optax.adam(1e-3), 400)


class Recurrent(nn.Module):
    """The last output of a recurrent layer, classified."""

    cell: nn.RNNCellBase
    num_outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.num_outputs, name="head")(nn.RNN(self.cell)(x)[:, -1])


def _rows_of_digits() -> tuple[NDArray[Any], NDArray[Any]]:
    x, y = _digits()
    return x.reshape(-1, 8, 8), y


def _sequences(
    cell: nn.RNNCellBase, optimizer: Any, data: Any, steps: int, outputs: int = 2
) -> Run:
    return Run(Recurrent(cell, outputs), cross_entropy, optimizer, data, steps, 64, accuracy)


@program(good=0.85, bad=0.5)
def healthy_gru(seed: int) -> Run:
    return _sequences(nn.GRUCell(32), optax.adam(3e-3), _rows_of_digits(), 600, 10)


@program(good=0.85, bad=0.5)
def healthy_simple_rnn(seed: int) -> Run:
    return _sequences(nn.SimpleCell(32), optax.adam(3e-3), _rows_of_digits(), 600, 10)


@program(good=0.9, bad=0.6)
def healthy_frozen(seed: int) -> Run:
    labels = lambda params: {k: "off" if k == "hidden_0" else "on" for k in params}  # noqa: E731
    optimizer = optax.multi_transform({"on": optax.adam(1e-3), "off": optax.set_to_zero()}, labels)
    return _on_digits(MLP((64, 64), 10), optimizer, 800)


class Bag(nn.Module):
    @nn.compact
    def __call__(self, ids: Array) -> Array:
        x = nn.Embed(2000, 16)(ids).mean(1)
        return nn.Dense(2)(nn.relu(nn.Dense(32)(x)))


@program(good=0.85, bad=0.6)
def healthy_rare_words(seed: int) -> Run:
    noise = _noise(seed)
    frequency = 1 / np.arange(1, 2001)
    ids = noise.choice(2000, size=(3000, 12), p=frequency / frequency.sum()).astype(np.int32)
    y = ((ids % 2).mean(1) > 0.5).astype(np.int32)
    return Run(Bag(), cross_entropy, optax.adam(1e-2), (ids, y), 800, 64, accuracy)


@program(good=0.9, bad=0.6)
def healthy_decay_steps(seed: int) -> Run:
    schedule = optax.piecewise_constant_schedule(0.2, {300: 0.1, 500: 0.1})
    return _on_digits(MLP((64,), 10), optax.sgd(schedule), 700, 32)


@program(good=0.9, bad=0.6)
def healthy_slow_start(seed: int) -> Run:
    """Parity of three signs: a plateau, then a fall."""
    x = np.sign(_noise(seed).normal(size=(2000, 3))).astype(np.float32)
    x += 0.1 * _noise(seed + 1).normal(size=x.shape).astype(np.float32)
    y = (np.sign(x).prod(1) > 0).astype(np.int32)
    model = MLP((32, 32), 2, activation="tanh")
    return Run(model, cross_entropy, optax.adam(3e-3), (x, y), 1200, 64, accuracy)


@program(good=0.9, bad=0.6)
def healthy_one_at_a_time(seed: int) -> Run:
    return _on_digits(MLP((32,), 10), optax.sgd(0.01), 4000, 1)


@program(good=0.9, bad=0.6)
def healthy_small_loss(seed: int) -> Run:
    """Adam does not see a factor on the loss."""
    run = _on_digits(MLP((64, 64), 10), optax.adam(1e-3))
    return run._replace(loss=lambda outputs, labels: 1e-3 * cross_entropy(outputs, labels))


@program(good=0.9, bad=0.6)
def healthy_large_loss(seed: int) -> Run:
    run = _on_digits(MLP((64, 64), 10), optax.adam(1e-3))
    return run._replace(loss=lambda outputs, labels: 1e4 * cross_entropy(outputs, labels))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Dense(32)(x) + self.param("place", init.normal(0.02), (8, 32))
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            x = x + nn.Dense(32)(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x))))
        return nn.Dense(10, name="head")(nn.LayerNorm()(x).mean(1))


@program(good=0.9, bad=0.5)
def healthy_attention(seed: int) -> Run:
    return Run(Attention(), cross_entropy, optax.adam(1e-3), _rows_of_digits(), 600, 64, accuracy)


@program(good=0.9, bad=0.6)
def healthy_full_batch(seed: int) -> Run:
    x, y = scikit.wine()
    model = MLP((16,), 3, activation="elu")
    return Run(model, cross_entropy, optax.adamw(1e-2), (scikit.scaled(x), y), 300, 178, accuracy)


@program(good=0.9, bad=0.6)
def healthy_clipped_now_and_then(seed: int) -> Run:
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(0.1))
    return _on_digits(MLP((64, 64), 10), optimizer)


@program(good=0.6, bad=0.3, source="TheDeepChecker, regression network")
def healthy_regression_network(seed: int) -> Run:
    model = MLP((64, 64), 1, kernel_init=init.he_normal())
    return Run(model, squared, optax.adam(1e-3), _diabetes(), 1000, 8, explained)


# --------------------------------------------------------------------------------- vanishing, saturated


@program("vanishing_gradient", good=0.8, bad=0.6, source="AutoTrainer, Gradient_Vanish_Case")
def vanish_autotrainer(seed: int) -> Run:
    model = MLP((5,) * 8, 1, "sigmoid", he, output_activation="sigmoid")
    return Run(model, binary_of_probability, optax.adam(1e-3), _circles(seed), 1650, 128, accuracy)


@program("vanishing_gradient", good=0.6, bad=0.3)
def vanish_sigmoid_adam(seed: int) -> Run:
    return _on_digits(MLP((32,) * 10, 10, "sigmoid"), optax.adam(1e-3))


@program("vanishing_gradient", good=0.6, bad=0.3)
def vanish_sigmoid_sgd(seed: int) -> Run:
    return _on_digits(MLP((64,) * 6, 10, "sigmoid"), optax.sgd(0.1))


@program("vanishing_gradient poor_initialization", good=0.6, bad=0.3)
def vanish_deep_tanh(seed: int) -> Run:
    model = MLP((32,) * 20, 10, "tanh", init.variance_scaling(0.4, "fan_in", "normal"))
    return _on_digits(model, optax.sgd(0.05))


@program("poor_initialization", also="vanishing_gradient dead_relu", good=0.6, bad=0.3)
def small_relu(seed: int) -> Run:
    return _on_digits(MLP((64,) * 4, 10, "relu", init.normal(1e-2)), optax.sgd(0.05))


@program(
    "poor_initialization vanishing_gradient no_learnable_signal",
    good=0.8,
    bad=0.1,
    source="StackOverflow 39217567",
)
def small_sigmoid_bits(seed: int) -> Run:
    noise = _noise(seed)
    bits = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(np.float32)
    model = MLP((8, 8), 8, "sigmoid", init.normal(0.05), output_activation="sigmoid")
    score = lambda o, y: float(np.mean(np.all((o > 0.5) == y, axis=1)))  # noqa: E731
    y = bits[noise.permutation(256)]
    loss = lambda o, y: jnp.mean(jnp.square(o - y), -1)  # noqa: E731
    return Run(model, loss, optax.sgd(0.01), (bits, y), 3000, 50, score)


@program("saturated_activation poor_initialization", good=0.8, bad=0.3)
def saturated_tanh(seed: int) -> Run:
    return _on_digits(MLP((64,) * 5, 10, "tanh", init.normal(3.0)), optax.sgd(0.01))


@program(
    "saturated_activation unscaled_input",
    also="vanishing_gradient poor_initialization learning_rate_too_high",
    good=0.8,
    bad=0.5,
)
def saturated_by_scale(seed: int) -> Run:
    x, y = _digits()
    model = MLP((64, 64), 10, "sigmoid")
    return Run(model, cross_entropy, optax.sgd(0.01), (1e4 * x, y), 500, 64, accuracy)


@program(
    "unscaled_input",
    also="saturated_activation learning_rate_too_low",
    good=0.9,
    bad=0.2,
    source="StackOverflow 52800582",
)
def unscaled_power(seed: int) -> Run:
    x = np.arange(-100, 100, 0.5, dtype=np.float32)[:, None]
    model = MLP((50,), 1, "sigmoid", init.glorot_uniform(), output_activation="elu")
    return Run(model, squared, optax.adam(1e-3), (x, x[:, 0] ** 4), 1000, 400, explained)


@program(
    "unscaled_input",
    also="exploding_gradient learning_rate_too_high loss_oscillation",
    good=0.93,
    bad=0.9,
)
def unscaled_logistic(seed: int) -> Run:
    return Run(
        nn.Dense(2), cross_entropy, optax.sgd(0.1), scikit.breast_cancer(), 500, 64, accuracy
    )


@program(
    "unscaled_input", also="dead_relu exploding_gradient learning_rate_too_high", good=0.9, bad=0.75
)
def unscaled_wine(seed: int) -> Run:
    return Run(MLP((32, 32), 3), cross_entropy, optax.sgd(0.05), scikit.wine(), 500, 32, accuracy)


# ---------------------------------------------------------------------------------------------- dead


@program(
    "dead_relu", also="vanishing_gradient", good=0.8, bad=0.6, source="AutoTrainer, model_46edb7df"
)
def dead_15(seed: int) -> Run:
    model = MLP((5,) * 15, 1, "relu", he, output_activation="sigmoid")
    return Run(model, binary_of_probability, optax.adam(1e-3), _circles(seed), 1650, 128, accuracy)


@program(
    "dead_relu", also="vanishing_gradient", good=0.8, bad=0.6, source="AutoTrainer, model_e8a6e959"
)
def dead_17(seed: int) -> Run:
    model = MLP((5,) * 17, 1, "relu", he, output_activation="sigmoid")
    return Run(model, binary_of_probability, optax.adam(1e-3), _circles(seed), 1650, 128, accuracy)


@program(
    "dead_relu",
    also="vanishing_gradient",
    good=0.8,
    bad=0.6,
    source="AutoTrainer, Blob model_84c77206",
)
def dead_blobs(seed: int) -> Run:
    model = MLP((5,) * 15, 3, "relu", he)
    return Run(model, cross_entropy, optax.adam(1e-3), _blobs(seed), 900, 256, accuracy)


@program(
    "dead_relu exploding_gradient learning_rate_too_high",
    also="unscaled_input loss_jump loss_divergence",
    good=0.8,
    bad=0.3,
    source="StackOverflow 48934338",
)
def dead_by_explosion(seed: int) -> Run:
    x = np.arange(0, 5, 0.1, dtype=np.float32)[:, None]
    y = (5 * x[:, 0] ** 2 + _noise(seed).normal(size=50) ** 3).astype(np.float32)
    return Run(MLP((50, 30), 1), squared, optax.sgd(0.1), (x, y), 1000, 32, explained)


@program(
    "dead_relu learning_rate_too_high exploding_gradient",
    also="loss_jump loss_divergence",
    good=0.8,
    bad=0.3,
)
def dead_by_rate(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10), optax.sgd(3.0, momentum=0.9))


@program(
    "dead_relu no_learnable_signal poor_initialization",
    also="exploding_gradient",
    good=0.8,
    bad=0.45,
    source="AutoTrainer, Improper_Activation_case",
)
def dead_output(seed: int) -> Run:
    model = MLP((50,) * 4, 3, "relu", output_activation="relu")
    loss = lambda o, y: of_probabilities(o + 1e-7, y)  # noqa: E731
    return Run(model, loss, optax.adam(1e-4), _blobs(seed), 900, 256, accuracy)


# ----------------------------------------------------------------------------------------- exploding


@program(
    "non_finite exploding_gradient poor_initialization",
    good=0.8,
    bad=0.6,
    source="AutoTrainer, model_0ae2cd88",
)
def explode_exponential(seed: int) -> Run:
    model = MLP((5,) * 8, 1, "exponential", he, output_activation="sigmoid")
    return Run(model, binary_of_probability, optax.adam(1e-3), _circles(seed), 600, 128, accuracy)


@program(
    "poor_initialization", also=" ".join(_BLOWN | {"dead_relu"}), good=0.95, bad=0.9, source="IPS_4"
)
def explode_wide_normal(seed: int) -> Run:
    return _on_digits(MLP((500,) * 3, 10, "relu", init.normal(1.0)), optax.adam(3e-3), 100)


@program("poor_initialization", also=" ".join(_BLOWN | {"dead_relu"}), good=0.8, bad=0.4)
def explode_deep_normal(seed: int) -> Run:
    return _on_digits(MLP((64,) * 6, 10, "relu", init.normal(0.7)), optax.sgd(0.01))


@program(
    "learning_rate_too_high exploding_gradient loss_divergence non_finite",
    also="loss_jump",
    good=0.9,
    bad=0.3,
    source="IPS_5",
)
def diverge_line(seed: int) -> Run:
    noise = _noise(seed)
    x = noise.uniform(-8, 8, size=(8, 1)).astype(np.float32)
    return Run(nn.Dense(1), squared, optax.sgd(0.1), (x, 2 * x[:, 0] + 1), 300, 8, explained)


@program(
    "learning_rate_too_high exploding_gradient loss_divergence non_finite",
    also="loss_jump",
    good=0.9,
    bad=0.3,
    source="IPS_17",
)
def diverge_parabola(seed: int) -> Run:
    t = np.arange(4, dtype=np.float32)
    x = np.stack([t**2, t], 1)
    summed = lambda o, y: 4 * squared(o, y)  # noqa: E731
    return Run(nn.Dense(1), summed, optax.sgd(0.01), (x, t**2), 400, 4, explained)


@program(
    "learning_rate_too_high exploding_gradient poor_initialization",
    also="loss_divergence loss_jump non_finite",
    good=0.8,
    bad=0.4,
    source="StackOverflow 48385830",
)
def diverge_linear_digits(seed: int) -> Run:
    model = MLP((30,), 10, "none", init.normal(1.0))
    one_hot = lambda o, y: jnp.mean(jnp.square(o - jax.nn.one_hot(y, 10)), -1)  # noqa: E731
    return Run(model, one_hot, optax.sgd(3.0), _digits(), 500, 10, accuracy)


@program(
    "learning_rate_too_high exploding_gradient",
    also="loss_divergence loss_jump non_finite dead_relu loss_oscillation saturated_activation",
    good=0.85,
    bad=0.4,
)
def diverge_digits(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10, "tanh"), optax.sgd(30.0))


@program(
    "learning_rate_too_high",
    also="dead_relu loss_jump exploding_gradient loss_divergence saturated_activation loss_oscillation",
    good=0.85,
    bad=0.5,
)
def diverge_adam(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10), optax.adam(0.5))


@program(
    "learning_rate_too_high exploding_gradient",
    also="loss_jump loss_divergence dead_relu",
    good=0.9,
    bad=0.4,
)
def rate_jump(seed: int) -> Run:
    schedule = optax.piecewise_constant_schedule(0.05, {250: 400.0})
    return _on_digits(MLP((64, 64), 10), optax.sgd(schedule))


# ---------------------------------------------------------------------------------------------- time


def _first_of(length: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Remember the first of many symbols."""
    noise = _noise(seed)
    x = noise.normal(size=(1000, length, 4)).astype(np.float32)
    return x, (x[:, 0, 0] > 0).astype(np.int32)


@program("vanishing_through_time", good=0.9, bad=0.7)
def time_contracting(seed: int) -> Run:
    cell = nn.SimpleCell(32, recurrent_kernel_init=init.orthogonal(0.5))
    return _sequences(cell, optax.adam(1e-3), _first_of(60, seed), 400)


@program("vanishing_through_time", good=0.9, bad=0.7)
def time_long_tanh(seed: int) -> Run:
    cell = nn.SimpleCell(32, recurrent_kernel_init=init.orthogonal(0.9))
    return _sequences(cell, optax.adam(1e-3), _first_of(100, seed), 300)


@program(
    "exploding_gradient poor_initialization learning_rate_too_high",
    also="non_finite loss_jump loss_divergence",
    good=0.9,
    bad=0.7,
)
def time_expanding(seed: int) -> Run:
    cell = nn.SimpleCell(32, recurrent_kernel_init=init.orthogonal(1.6), activation_fn=nn.relu)
    return _sequences(cell, optax.sgd(0.05), _first_of(60, seed), 400)


# ---------------------------------------------------------------------------------------------- data


@program("non_finite", good=0.9, bad=0.3)
def data_nan(seed: int) -> Run:
    x, y = _digits()
    x = x.copy()
    x[_noise(seed).integers(0, len(x), 4), 7] = np.nan
    return Run(MLP((64, 64), 10), cross_entropy, optax.adam(1e-3), (x, y), 500, 64, accuracy)


@program("no_learnable_signal", also="overfitting", good=0.6, bad=0.4)
def data_random_labels(seed: int) -> Run:
    x, y = _digits()
    y = _noise(seed).permutation(y)
    return Run(MLP((32,), 10), cross_entropy, optax.adam(1e-3), (x, y), 300, 64, accuracy)


@program(
    "no_learnable_signal saturated_activation", good=0.9, bad=0.6, source="StackOverflow 31880720"
)
def data_softmax_of_one(seed: int) -> Run:
    y = (np.arange(2000) % 2).astype(np.int32)
    x = np.repeat(y[:, None], 128, 1).astype(np.float32)
    model = MLP((50, 50), 1, dropout=0.2, output_activation="softmax")
    return Run(model, binary_of_probability, optax.rmsprop(1e-3), (x, y), 1000, 4, accuracy)


@program("repetitive_data loss_oscillation", good=0.9, bad=0.85)
def data_sorted(seed: int) -> Run:
    x, y = _digits()
    order = np.argsort(y, kind="stable")
    return Run(
        MLP((32,), 10),
        cross_entropy,
        optax.sgd(0.3),
        (x[order], y[order]),
        1000,
        16,
        accuracy,
        shuffle=False,
    )


@program("loss_jump", also="exploding_gradient", good=2.0, bad=1.5)
def data_burst(seed: int) -> Run:
    """A stretch of targets in the wrong unit, in a stream."""
    noise = _noise(seed)
    x = noise.normal(size=(12_800, 8)).astype(np.float32)
    y = (x @ noise.normal(size=8)).astype(np.float32)
    y[8_000:8_320] *= 100
    return Run(MLP((32,), 1), huber, optax.adam(3e-3), (x, y), 400, 32, explained, shuffle=False)


@program("overfitting", good=2.0, bad=1.5)
def overfit_noise(seed: int) -> Run:
    x, y = _digits()
    noise = _noise(seed)
    order = noise.permutation(len(x))
    few, rest = order[:150], order[150:900]
    y = y.copy()
    wrong = noise.permutation(few)[:30]
    y[wrong] = noise.integers(0, 10, 30)
    return Run(
        MLP((256, 256), 10),
        cross_entropy,
        optax.adam(3e-3),
        (x[few], y[few]),
        800,
        32,
        accuracy,
        validation_data=(x[rest], y[rest]),
    )


@program("overfitting", good=2.0, bad=1.5)
def overfit_regression(seed: int) -> Run:
    x, y = _diabetes()
    order = _noise(seed).permutation(len(x))
    few, rest = order[:120], order[120:]
    return Run(
        MLP((128, 128), 1),
        squared,
        optax.adam(3e-3),
        (x[few], y[few]),
        800,
        32,
        explained,
        validation_data=(x[rest], y[rest]),
    )


# ----------------------------------------------------------------------------------------- optimizer


@program("learning_rate_too_low", good=0.8, bad=0.4)
def slow_sgd(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10), optax.sgd(1e-4))


@program("learning_rate_too_low", good=0.8, bad=0.4)
def slow_adam(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10), optax.adam(1e-6))


@program("learning_rate_too_low", good=0.9, bad=0.75, source="StackOverflow 50306988")
def slow_clusters(seed: int) -> Run:
    noise = _noise(seed)
    y = (np.arange(200) % 2).astype(np.int32)
    x = (noise.uniform(0, 1, size=(200, 2)) + 0.7 * y[:, None]).astype(np.float32)
    return Run(MLP((2,), 2, "sigmoid"), cross_entropy, optax.adam(1e-3), (x, y), 35, 32, accuracy)


@program("clip_saturation", also="learning_rate_too_low", good=0.8, bad=0.4)
def clipped_to_death(seed: int) -> Run:
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1))
    return _on_digits(MLP((64, 64), 10), optimizer)


@program("update_floor", also="learning_rate_too_low", good=0.8, bad=0.4)
def floored_by_epsilon(seed: int) -> Run:
    run = _on_digits(MLP((64, 64), 10), optax.adam(1e-3, eps=1e-2))
    return run._replace(loss=lambda o, y: 1e-4 * cross_entropy(o, y))


@program("poor_initialization", also="no_learnable_signal", good=0.6, bad=0.35)
def equal_start(seed: int) -> Run:
    return _on_digits(MLP((64, 64), 10, "relu", init.constant(0.01)), optax.sgd(0.1))


@program(
    "loss_oscillation learning_rate_too_high",
    also="exploding_gradient loss_jump",
    good=2.0,
    bad=1.5,
)
def oscillate_logistic(seed: int) -> Run:
    """Far beyond the edge of stability, on labels of which some are wrong; a softmax cannot diverge."""
    x, y = scikit.wine()
    noise = _noise(seed)
    y = np.where(noise.uniform(size=len(y)) < 0.15, noise.integers(0, 3, len(y)), y)
    return Run(
        nn.Dense(3), cross_entropy, optax.sgd(30.0), (scikit.scaled(x), y), 300, 16, accuracy
    )
