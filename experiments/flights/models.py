"""Features fitted on the training months, the models on them, and scikit-learn's beside them."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import features, losses, models, train
from jaxml.monitor import Finding

__all__ = [
    "LOGISTIC",
    "NETWORKS",
    "Inputs",
    "Settings",
    "Trained",
    "inputs",
    "logistic",
    "network",
    "scikit_learn",
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


NETWORKS = {
    "early": Settings(widths=(128, 64), dropout=0.5, epochs=4.0),
    "late": Settings(dropout=0.4, epochs=6.0),
}
"""By clock; chosen by the loss on the validation months. What can be known the evening before is mostly the
day's, and there are 243 days: a smaller network, more dropout and fewer epochs."""

LOGISTIC = Settings(widths=(), epochs=6.0, batch_size=2048, learning_rate=3e-2)


class Inputs(NamedTuple):
    """All flights as a model takes them.

    Attributes:
        x: `dense`, float32 [N, D], and `ids`, int32 [N, K].
        sizes: [K], how many ids each categorical column can have.
        id_names: [K].
    """

    x: dict[str, NDArray]
    sizes: tuple[int, ...]
    id_names: tuple[str, ...]

    @property
    def number(self) -> int:
        """D + K."""
        return sum(each.shape[1] for each in self.x.values())

    def take(self, rows: Any) -> dict[str, NDArray]:
        """Inputs of some flights."""
        return {name: each[rows] for name, each in self.x.items()}


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

    def take(rows: Any) -> dict[str, NDArray]:
        return {name: each[rows] for name, each in columns.items()}

    number = len(columns["carrier"])
    chunks = [slice(start, start + _AT_ONCE) for start in range(0, number, _AT_ONCE)]
    stacked = [fitted.stack(fitted(take(rows))) for rows in chunks]
    dense, ids = (np.concatenate(parts) for parts in zip(*stacked, strict=True))
    found = features.check(fitted, take(training[:: -(-len(training) // _AT_ONCE)]))
    x = {"dense": dense, "ids": ids}
    return Inputs(x, fitted.id_sizes, fitted.id_names), [str(each) for each in found]


class Trained(NamedTuple):
    """Outputs of a model for all flights, and how it came about.

    Attributes:
        members: float64 [M, N]: logits, or minutes of delay, of each member.
        seconds: of training, compilation included.
        compile_seconds: of that, of compilation.
        curves: (steps and losses, steps and validation losses) of the first member, or None.
        findings: of the monitor, for each member.
    """

    members: NDArray[np.float64]
    seconds: float
    compile_seconds: float = 0.0
    curves: tuple[tuple[Any, Any], tuple[Any, Any]] | None = None
    findings: tuple[list[Finding], ...] = ()

    @property
    def outputs(self) -> NDArray[np.float64]:
        """[N], the mean over members."""
        return self.members.mean(0)


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
    dims = tuple(min(settings.embedding_dim, size // 2 + 1) for size in given.sizes)
    module = models.TabularMLP(
        given.sizes, dims, settings.widths, 1, "gelu", dropout=settings.dropout
    )
    center, width = scale
    trained = _trained(
        module,
        lambda outputs, labels: loss(outputs[..., 0], labels),
        given.x,
        ((labels - center) / width).astype(np.float32),
        training,
        validation,
        settings,
    )
    return trained._replace(members=center + width * trained.members)


def logistic(
    given: Inputs,
    labels: NDArray,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    settings: Settings,
) -> Trained:
    """Logistic regression on the inputs of `one_hot`, with the penalty that scikit-learn's has.

    The minimum is scikit-learn's; six epochs of Adam come near it.

    Args:
        given: all flights.
        labels: [N], of all flights; those of the rows below are looked at.
        training: rows.
        validation: rows, on which the loss is followed.
        settings: whose widths, dropout and decay of weights mean nothing here.
    """
    alone = dataclasses.replace(settings, members=1, weight_decay=0.0)
    strength = 0.5 / (_INVERSE_PENALTY * len(training))
    return _trained(
        models.LogisticRegression(),
        losses.log_loss,
        one_hot(given),
        labels.astype(np.float32),
        training,
        validation,
        alone,
        penalty=lambda _, params: losses.l2(params, strength, losses.kernels_only),
    )


def one_hot(given: Inputs) -> NDArray[np.float32]:
    """float32 [N, …]: numbers, and ids without the crosses as one-hot columns."""
    hot = [
        np.eye(size, dtype=np.float32)[given.x["ids"][:, k]]
        for k, size in enumerate(given.sizes)
        if " × " not in given.id_names[k]
    ]
    return np.concatenate([given.x["dense"], *hot], axis=1)


def _trained(
    module: Any,
    loss: Any,
    x: Any,
    y: NDArray[np.float32],
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    settings: Settings,
    **options: Any,
) -> Trained:
    """A module's members after training, and the mean of their outputs for all flights."""

    def take(rows: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[rows], x)

    batch_size = min(settings.batch_size, len(training))
    num_steps = max(1, int(settings.epochs * len(training) / batch_size))
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, num_steps // 10), num_steps)

    def optimizer(hyperparameters: Mapping[str, Any]) -> optax.GradientTransformation:
        rate = hyperparameters["learning_rate"]
        return optax.adamw(lambda step: rate * shape(step), weight_decay=settings.weight_decay)

    began = time.perf_counter()
    swept = train.sweep(
        module,
        loss,
        optimizer,
        (take(training), y[training]),
        space={"learning_rate": [settings.learning_rate]},
        num_steps=num_steps,
        batch_size=batch_size,
        key=jax.random.key(settings.seed),
        seeds=settings.members,
        validation_data=(take(validation), y[validation]),
        validate_every=max(1, num_steps // 10),
        chunk=1,
        monitor=settings.monitor,
        explain=False,  # findings are read off the record alone
        **options,
    )
    seconds = time.perf_counter() - began
    apply = jax.jit(lambda params, x: module.apply({"params": params}, x))
    outputs = np.zeros((len(swept), len(y)))
    for i, member in enumerate(swept.members):
        for start in range(0, len(y), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            outputs[i, rows] = np.asarray(apply(member.fit.params, take(rows))).reshape(-1)
    first = swept.members[0].fit
    return Trained(
        outputs,
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
        x = one_hot(given)
        model = linear_model.LogisticRegression(
            C=_INVERSE_PENALTY, solver="newton-cholesky", max_iter=iterations
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
    foretell = model.predict if kind == "boosted delay" else model.decision_function
    return Trained(np.asarray(foretell(x), np.float64)[None], seconds)


huber = functools.partial(losses.huber, delta=1.0)
"""Squared up to one robust standard deviation of the delays, absolute beyond."""
