"""Features fitted on the training months, the models on them, and scikit-learn's beside them."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import features, losses, models, train
from jaxml.monitor import Finding

__all__ = ["Inputs", "Settings", "Trained", "inputs", "network", "scikit_learn"]

_BUCKETS = 64
_ID = np.float32(2**-10)  # what an id of one is in the float array
_CATEGORIES = ("carrier", "origin", "dest", "weekday", "hour")
_CROSSES = {
    ("carrier", "origin"): 128,
    ("carrier", "dest"): 1024,
    ("origin", "hour"): 256,
}
_AT_ONCE = 16_384


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the network is trained.

    Attributes:
        widths: of its hidden layers.
        embedding_dim: of a categorical column, at most.
        dropout: after each hidden layer.
        epochs: over the training months.
        batch_size: flights in a step.
        learning_rate: AdamW's highest; it falls to 0 along a cosine.
        weight_decay: AdamW's.
        members: networks that differ by their seed and are averaged.
        seed: of the first.
        monitor: whether the training is guarded and watched.
    """

    widths: tuple[int, ...] = (256, 128)
    embedding_dim: int = 8
    dropout: float = 0.4
    epochs: float = 4.0
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    members: int = 2
    seed: int = 0
    monitor: bool = True


class Inputs(NamedTuple):
    """All flights as a model takes them.

    Attributes:
        x: float32 [N, D + K]: numbers, then ids. `train.fit` takes one array for the inputs; ids as
            multiples of 2⁻¹⁰ are exact in float32 up to 2²⁴, and of the scale that numbers have here.
        sizes: [K], how many ids each categorical column can have.
        names: [D + K], of the columns.
    """

    x: NDArray[np.float32]
    sizes: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def num_dense(self) -> int:
        """D."""
        return self.x.shape[1] - len(self.sizes)


def pipeline(
    columns: Mapping[str, NDArray], training: NDArray[np.int64]
) -> features.FeaturePipeline:
    """What becomes of each column: ids of categories and crosses, and of a number its rank and its size.

    A rank (the share of training values below) takes outliers and heavy tails as they come, and a clipped
    z-score keeps distances; together they are a bend and a line for each number. Where more than one in a
    hundred is missing, there is an indicator, too.
    """
    chains: dict[str, features.pipeline.Spec] = {}
    for name, values in columns.items():
        if name in _CATEGORIES:
            chains[name] = features.vocabulary(min_count=20)
            continue
        chains[f"{name}: rank"] = (
            name,
            [
                features.interpolated_buckets(_BUCKETS),
                features.imputation("constant", 0.5),
                features.linear_scaling(-1.7, 1.7),
            ],
        )
        chains[name] = [
            features.clipping(quantiles=(0.005, 0.995)),
            features.imputation("mean"),
            features.z_score(),
        ]
        if np.isnan(values[training].astype(np.float64)).mean() > 0.01:
            chains[f"{name}: missing"] = (name, features.missing_indicator())
    for parts, buckets in _CROSSES.items():
        chains[" × ".join(parts)] = features.cross(list(parts), buckets)
    return features.FeaturePipeline(chains)


def inputs(columns: Mapping[str, NDArray], training: NDArray[np.int64]) -> tuple[Inputs, list[str]]:
    """Every flight's features, fitted on the training rows alone, and what the gate on them finds."""
    fitted = pipeline(columns, training).fit({k: v[training] for k, v in columns.items()})
    number = len(columns["carrier"])
    parts = []
    for start in range(0, number, _AT_ONCE):
        rows = np.minimum(np.arange(start, start + min(_AT_ONCE, number)), number - 1)  # one shape
        dense, ids = fitted.stack(fitted({name: each[rows] for name, each in columns.items()}))
        part = np.concatenate([np.asarray(dense), np.asarray(ids, np.float32) * _ID], axis=1)
        parts.append(part[: number - start])
    names = (*fitted.dense_names, *fitted.id_names)
    some = training[:: -(-len(training) // _AT_ONCE)]
    some = np.resize(some, min(_AT_ONCE, number))  # the shape that is compiled already
    found = features.check(fitted, {name: each[some] for name, each in columns.items()})
    return Inputs(np.concatenate(parts), fitted.id_sizes, names), [str(each) for each in found]


class Network(nn.Module):
    """`models.TabularMLP` with one output, of numbers and ids in one array.

    Without hidden layers and with embeddings of one number it is a logistic regression on one-hot columns.

    Attributes:
        sizes: of the vocabularies, of the last columns.
        embedding_dim: at most.
        widths: of the hidden layers.
        dropout: after each.
    """

    sizes: tuple[int, ...]
    embedding_dim: int
    widths: tuple[int, ...]
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        """[..., D + K] to [...]."""
        dense = x[..., : x.shape[-1] - len(self.sizes)]
        ids = jnp.rint(x[..., dense.shape[-1] :] / _ID).astype(jnp.int32)
        dims = tuple(min(self.embedding_dim, size // 2 + 1) for size in self.sizes)
        mlp = models.TabularMLP(
            self.sizes, dims, self.widths, 1, "gelu", dropout=self.dropout, name="tabular"
        )
        return mlp({"dense": dense, "ids": ids}, training)[..., 0]


class Trained(NamedTuple):
    """Outputs of a model for all flights, and how it came about.

    Attributes:
        outputs: float64 [N]: logits, or minutes of delay; the mean over members.
        seconds: of training, compilation included.
        compile_seconds: of that, of compilation.
        curves: (steps and losses, steps and validation losses) of the first member, or None.
        findings: of the monitor, for each member.
    """

    outputs: NDArray[np.float64]
    seconds: float
    compile_seconds: float = 0.0
    curves: tuple[tuple[Any, Any], tuple[Any, Any]] | None = None
    findings: tuple[list[Finding], ...] = ()


def network(
    given: Inputs,
    labels: NDArray,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    settings: Settings,
    *,
    loss: Any = losses.log_loss,
    scale: tuple[float, float] = (0.0, 1.0),
) -> Trained:
    """Trains the network's members, watched by the monitor, and averages their outputs.

    Args:
        given: all flights.
        labels: [N], of all flights; those of the rows below are looked at.
        training: rows.
        validation: rows, on which the loss is followed.
        settings: of the training.
        loss: of each example.
        scale: (center, width) that labels are measured by.
    """
    center, width = scale
    y = ((labels - center) / width).astype(np.float32)
    num_steps = max(1, int(settings.epochs * len(training) / settings.batch_size))
    module = Network(given.sizes, settings.embedding_dim, settings.widths, settings.dropout)

    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, num_steps // 10), num_steps)

    def optimizer(hyperparameters: Mapping[str, Any]) -> optax.GradientTransformation:
        rate = hyperparameters["learning_rate"]
        return optax.adamw(lambda step: rate * shape(step), weight_decay=settings.weight_decay)

    began = time.perf_counter()
    swept = train.sweep(
        module,
        loss,
        optimizer,
        (given.x[training], y[training]),
        space={"learning_rate": [settings.learning_rate]},
        num_steps=num_steps,
        batch_size=min(settings.batch_size, len(training)),
        key=jax.random.key(settings.seed),
        seeds=settings.members,
        validation_data=(given.x[validation], y[validation]),
        validate_every=max(1, num_steps // 10),
        chunk=1,
        monitor=settings.monitor,
        explain=False,  # findings are read off the record alone
    )
    seconds = time.perf_counter() - began
    apply = jax.jit(lambda params, x: module.apply({"params": params}, x))
    outputs = np.zeros(len(given.x))
    for member in swept.members:
        outputs += np.concatenate(
            [
                np.asarray(apply(member.fit.params, given.x[start : start + _AT_ONCE]))
                for start in range(0, len(given.x), _AT_ONCE)
            ]
        )
    first = swept.members[0].fit
    return Trained(
        center + width * outputs / len(swept),
        seconds,
        swept.seconds["compile"],
        (
            (np.arange(len(first.loss_curve)), first.loss_curve),
            (first.validation_steps, first.validation_curve),
        ),
        tuple(swept.findings),
    )


def scikit_learn(
    kind: str,
    given: Inputs,
    columns: Mapping[str, NDArray],
    labels: NDArray,
    training: NDArray[np.int64],
    *,
    iterations: int,
) -> Trained:
    """scikit-learn on the same features, with all cores it takes.

    Args:
        kind: "logistic", on the inputs of the network, ids as one-hot columns without the crosses; or
            "boosting" or "boosted delay", on the columns as they are, categories as such and gaps as gaps:
            what trees need no scaling for.
        given: all flights.
        columns: all flights.
        labels: [N].
        training: rows.
        iterations: of boosting, or at most, of the logistic regression.
    """
    from sklearn import ensemble, linear_model

    x: Any
    if kind == "logistic":
        dense, ids = (
            given.x[:, : given.num_dense],
            np.rint(given.x[:, given.num_dense :] / _ID).astype(int),
        )
        hot = [
            np.eye(size, dtype=np.float32)[ids[:, k]]
            for k, size in enumerate(given.sizes)
            if " × " not in given.names[given.num_dense + k]
        ]
        x = np.concatenate([dense, *hot], axis=1)
        model = linear_model.LogisticRegression(
            C=0.01, solver="newton-cholesky", max_iter=iterations
        )
    else:
        x = np.stack(
            [
                np.unique(v, return_inverse=True)[1]
                if v.dtype.kind == "U"
                else v.astype(np.float32)
                for v in columns.values()
            ],
            axis=1,
        ).astype(np.float32)
        options: dict[str, Any] = {
            "learning_rate": 0.05,
            "max_iter": iterations,
            "min_samples_leaf": 100,
            "l2_regularization": 1.0,
            "early_stopping": False,
            "categorical_features": [k in ("carrier", "origin", "dest") for k in columns],
            "random_state": 0,
        }
        if kind == "boosting":
            model = ensemble.HistGradientBoostingClassifier(**options)
        else:
            model = ensemble.HistGradientBoostingRegressor(loss="absolute_error", **options)
    began = time.perf_counter()
    model.fit(x[training], labels[training])
    seconds = time.perf_counter() - began
    if kind == "boosted delay":
        return Trained(model.predict(x).astype(np.float64), seconds)
    if kind == "logistic":
        return Trained(model.decision_function(x).astype(np.float64), seconds)
    return Trained(np.asarray(model.decision_function(x), np.float64), seconds)


huber = functools.partial(losses.huber, delta=1.0)
"""Squared up to one robust standard deviation of the delays, absolute beyond."""
