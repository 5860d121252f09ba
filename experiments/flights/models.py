"""Features fitted on the training months, and the models trained on them: jaxml's and scikit-learn's."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from experiments.flights.table import Split
from jaxml import features, losses, models, train, trees
from jaxml.types import Array, PyTree

__all__ = [
    "LOGISTIC",
    "NETWORKS",
    "Inputs",
    "Settings",
    "Trained",
    "inputs",
    "logistic",
    "network",
    "probability",
]

_BUCKETS = 64
_CATEGORIES = ("carrier", "origin", "dest", "weekday", "hour")
_CROSSES = {
    ("carrier", "origin"): 128,
    ("carrier", "dest"): 1024,
    ("origin", "hour"): 256,
}
_AT_ONCE = 16_384
_INVERSE_PENALTY = 0.01  # C of scikit-learn's logistic regression

huber = functools.partial(losses.huber, delta=1.0)
"""Squared up to one robust standard deviation of the delays, absolute beyond."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a training.

    Attributes:
        widths: of the hidden layers.
        embedding_dim: maximal dimension of a categorical column.
        dropout: after each hidden layer.
        epochs: over the training months.
        batch_size: flights in a step.
        learning_rate: AdamW's highest; it falls to 0 along a cosine.
        weight_decay: AdamW's.
        members: networks that differ by their seed and are averaged.
        seed: of the first.
        monitor: whether the training is guarded and recorded.
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


NETWORKS = {
    "early": Settings(widths=(128, 64), dropout=0.5, epochs=4.0),
    "late": Settings(dropout=0.4, epochs=6.0),
}
"""By clock; chosen by the loss on the validation months. The evening before, most of the signal is the
day's, and there are 243 days: a smaller network, more dropout and fewer epochs."""

LOGISTIC = Settings(widths=(), epochs=6.0, batch_size=2048, learning_rate=3e-2)


class Inputs(NamedTuple):
    """The features of all flights.

    Attributes:
        x: `dense`, float32 [N, D], and `ids`, int32 [N, K].
        pipeline: fitted, which made them.
        findings: of the gate on features.
    """

    x: dict[str, NDArray]
    pipeline: features.FeaturePipeline
    findings: list[str]

    @property
    def number(self) -> int:
        """D + K."""
        return sum(each.shape[1] for each in self.x.values())

    def one_hot(self) -> NDArray[np.float32]:
        """Returns float32 [N, …]: numbers, and ids without the crosses as one-hot columns."""
        hot = [
            np.eye(size, dtype=np.float32)[self.x["ids"][:, k]]
            for k, size in enumerate(self.pipeline.id_sizes)
            if " × " not in self.pipeline.id_names[k]
        ]
        return np.concatenate([self.x["dense"], *hot], axis=1)


def pipeline(
    columns: Mapping[str, NDArray], training: NDArray[np.int64]
) -> features.FeaturePipeline:
    """Returns the transforms: ids of categories and crosses; rank and size of each number.

    A rank (the share of training values below) is robust to outliers and heavy tails, and a clipped z-score
    keeps distances. Columns with more than 1 % of missing values have an indicator, too.
    """
    chains: dict[str, features.pipeline.Spec] = {}
    for name, values in columns.items():
        if name in _CATEGORIES:
            chains[name] = features.vocabulary(min_count=20)
            continue
        rank = [
            features.interpolated_buckets(_BUCKETS),
            features.imputation("constant", 0.5),
            features.linear_scaling(-1.7, 1.7),
        ]
        chains[f"{name}: rank"] = (name, rank)
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


def inputs(columns: Mapping[str, NDArray], training: NDArray[np.int64]) -> Inputs:
    """Returns the features of all flights, fitted on the training rows alone."""

    def take(rows: Any) -> dict[str, NDArray]:
        return {name: each[rows] for name, each in columns.items()}

    fitted = pipeline(columns, training).fit(take(training))
    chunks = [slice(at, at + _AT_ONCE) for at in range(0, len(columns["carrier"]), _AT_ONCE)]
    stacked = [fitted.stack(fitted(take(rows))) for rows in chunks]
    dense, ids = (np.concatenate(parts) for parts in zip(*stacked, strict=True))
    found = features.check(fitted, take(training[:: -(-len(training) // _AT_ONCE)]))
    x = {"dense": dense, "ids": ids}
    return Inputs(x, fitted, [str(each) for each in found])


class Trained(NamedTuple):
    """A model's outputs for all flights, and its training.

    Attributes:
        members: float64 [M, N], logits or minutes of delay of each member.
        seconds: of training, compilation included.
        findings: of the monitor, for each member.
        variables: of a network, [M, …].
    """

    members: NDArray[np.float64]
    seconds: float
    findings: tuple[list[Any], ...] = ()
    variables: PyTree = None

    @property
    def outputs(self) -> NDArray[np.float64]:
        """[N], the mean over members."""
        return self.members.mean(0)


def tabular(pipeline: features.FeaturePipeline, settings: Settings) -> models.TabularMLP:
    """Returns the network's module."""
    sizes = pipeline.id_sizes
    dims = tuple(min(settings.embedding_dim, size // 2 + 1) for size in sizes)
    return models.TabularMLP(sizes, dims, settings.widths, 1, "gelu", dropout=settings.dropout)


def probability(
    pipeline: features.FeaturePipeline, settings: Settings
) -> Callable[[PyTree, PyTree], dict[str, Array]]:
    """Returns the model that is served: the probability by the mean of the members' logits."""
    module = tabular(pipeline, settings)

    def model(variables: PyTree, x: PyTree) -> dict[str, Array]:
        logits = jax.vmap(module.apply, in_axes=(0, None))(variables, x)
        return {"probability": jax.nn.sigmoid(logits[..., 0].mean(0))}

    return model


def network(
    inputs: Inputs,
    labels: NDArray,
    parts: Split,
    settings: Settings,
    *,
    loss: Callable[..., Any] = losses.sigmoid_binary_cross_entropy,
    scale: tuple[float, float] = (0.0, 1.0),
) -> Trained:
    """Returns the network's members after training under the monitor.

    Args:
        inputs: of all flights.
        labels: [N], of all flights; those of the training and validation rows are used.
        parts: rows.
        settings: of the training.
        loss: per-example loss.
        scale: (center, width) by which labels are standardized.
    """
    center, width = scale
    trained = _trained(
        tabular(inputs.pipeline, settings),
        lambda outputs, labels: loss(outputs[..., 0], labels),
        inputs.x,
        (labels - center) / width,
        parts,
        settings,
    )
    return trained._replace(members=center + width * trained.members)


def logistic(inputs: Inputs, labels: NDArray, parts: Split, settings: Settings) -> Trained:
    """Returns logistic regression with scikit-learn's penalty; six epochs of Adam are near the minimum."""
    alone = dataclasses.replace(settings, members=1, weight_decay=0.0)
    strength = 0.5 / (_INVERSE_PENALTY * len(parts.training))
    return _trained(
        models.Linear(squeeze=True),
        losses.sigmoid_binary_cross_entropy,
        inputs.one_hot(),
        labels,
        parts,
        alone,
        penalty=lambda _, params: losses.l2(params, strength, losses.kernels_only),
    )


def _trained(
    module: Any,
    loss: Callable[..., Any],
    x: Any,
    y: NDArray,
    parts: Split,
    settings: Settings,
    penalty: Callable[..., Any] | None = None,
) -> Trained:
    y = y.astype(np.float32)

    def take(rows: Any) -> tuple[Any, NDArray]:
        return jax.tree.map(lambda leaf: leaf[rows], x), y[rows]

    batch_size = min(settings.batch_size, len(parts.training))
    num_steps = max(1, int(settings.epochs * len(parts.training) / batch_size))
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, num_steps // 10), num_steps)

    def optimizer(hyperparameters: Mapping[str, Any]) -> optax.GradientTransformation:
        rate = hyperparameters["learning_rate"]
        return optax.adamw(lambda step: rate * shape(step), weight_decay=settings.weight_decay)

    began = time.perf_counter()
    swept = train.sweep(
        module,
        loss,
        optimizer,
        take(parts.training),
        space={"learning_rate": [settings.learning_rate]},
        seeds=settings.members,
        penalty=penalty,
        num_steps=num_steps,
        batch_size=batch_size,
        key=jax.random.key(settings.seed),
        validation_data=take(parts.validation),
        monitor=settings.monitor and train.Monitor(final_diagnostics=False),
    )
    seconds = time.perf_counter() - began
    fits = [trial.fit for trial in swept.trials]
    outputs = [fit.predict(x, batch_size=_AT_ONCE).reshape(-1) for fit in fits]
    variables = trees.stack([{"params": fit.params, **fit.model_state} for fit in fits])
    return Trained(np.stack(outputs).astype(np.float64), seconds, tuple(swept.findings), variables)


def scikit_learn_logistic(
    inputs: Inputs, labels: NDArray, training: NDArray[np.int64], *, iterations: int
) -> Trained:
    """Returns scikit-learn's logistic regression, on the same features as `logistic`."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_INVERSE_PENALTY, solver="newton-cholesky", max_iter=iterations)
    return _fitted(model, inputs.one_hot(), labels, training, "decision_function")


def boosting(
    columns: Mapping[str, NDArray],
    labels: NDArray,
    training: NDArray[np.int64],
    *,
    iterations: int,
    regression: bool = False,
) -> Trained:
    """Returns scikit-learn's gradient boosting, on the columns as they are: trees need no scaling.

    Labels are classes, or for `regression` minutes, of which the absolute error is minimized.
    """
    from sklearn import ensemble

    numeric = [
        np.unique(v, return_inverse=True)[1] if v.dtype.kind == "U" else v for v in columns.values()
    ]
    options: dict[str, Any] = {
        "learning_rate": 0.05,
        "max_iter": iterations,
        "min_samples_leaf": 100,
        "l2_regularization": 1.0,
        "early_stopping": False,
        "categorical_features": [k in ("carrier", "origin", "dest") for k in columns],
        "random_state": 0,
    }
    model = (
        ensemble.HistGradientBoostingRegressor(loss="absolute_error", **options)
        if regression
        else ensemble.HistGradientBoostingClassifier(**options)
    )
    x = np.stack([each.astype(np.float32) for each in numeric], axis=1)
    return _fitted(model, x, labels, training, "predict" if regression else "decision_function")


def _fitted(
    model: Any, x: NDArray, labels: NDArray, training: NDArray[np.int64], method: str
) -> Trained:
    began = time.perf_counter()
    model.fit(x[training], labels[training])
    seconds = time.perf_counter() - began
    return Trained(np.asarray(getattr(model, method)(x), np.float64)[None], seconds)
