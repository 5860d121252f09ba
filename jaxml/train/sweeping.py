"""`sweep`: one training for each combination of hyperparameters and seed, many in one program."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from jaxml import checks
from jaxml.keys import as_key
from jaxml.train.options import TrainingOptions
from jaxml.train.progress import Progress
from jaxml.train.results import Fit, Sweep, Trial, metric_values
from jaxml.train.spaces import grid
from jaxml.train.trainer import Progressed, Settings, Trainer
from jaxml.types import Array, Key, PyTree

# Steps of the first rung, at least, where the number of rungs is not given.
_FIRST_RUNG = 10


def sweep(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation],
    data: tuple[Any, Any],
    *,
    space: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    seeds: int | Sequence[int] = 1,
    penalty: Callable[[dict[str, Array], PyTree], Array] | None = None,
    **training: Unpack[TrainingOptions],
) -> Sweep:
    """Trains a model once for each combination of hyperparameters and seed, many side by side.

    Every trial is a `fit` with its own key, guard and findings. Hyperparameters are traced: one program is
    compiled for each batch size, and other values compile nothing. A trial that diverges does not affect
    the others. Trials of one seed start from the same parameters and see the same examples in the same
    order, so that they differ by their hyperparameters alone.

    Args:
        model, loss, data: as `fit` takes them.
        optimizer: `optimizer(hyperparameters)`, an optax transformation; the hyperparameters are a dict of
            traced float32 scalars, so no Python `if` may depend on them.
        space: hyperparameter → values, for a `grid`, or a list of combinations as dicts, such as
            `random_space` returns. `"batch_size"` may be a hyperparameter.
        seeds: their number, or a list. The key of a seed is `jax.random.fold_in(key, seed)`.
        penalty: None, or `penalty(hyperparameters, params)`, a scalar that is added to the mean loss, but
            not to the reported loss.
        training: all other arguments of `fit`; `num_steps`, `batch_size` (one, or several to compare) and
            `key` are required. Trials that train side by side share a subdirectory of `checkpoints`.

    Raises:
        ValueError: as `fit` does; also if the space is empty, names different hyperparameters, or holds
            something other than finite numbers.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> squared = lambda outputs, labels: jnp.square(outputs - labels)
        >>> swept = sweep(nn.Dense(1), squared, lambda h: optax.sgd(h["learning_rate"]), (x, 2 * x),
        ...               space={"learning_rate": [1e-4, 0.3]}, num_steps=100, batch_size=32,
        ...               key=jax.random.key(0), monitor=False)
        >>> swept.loss_curves.shape, round(swept.best().hyperparameters["learning_rate"], 6)
        ((2, 100), 0.3)
    """
    trainer = _trainer(model, loss, optimizer, data, space, seeds, penalty, training)
    with Progress(trainer.num_steps * len(trainer.trials)) as progress:
        trained = trainer.train(trainer.num_steps, progress)
    return _finished(trainer, trained)


def successive_halving(
    model: Any,
    loss: Callable[[Any, Array], Array],
    optimizer: Callable[[dict[str, Array]], optax.GradientTransformation],
    data: tuple[Any, Any],
    *,
    space: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    seeds: int | Sequence[int] = 1,
    penalty: Callable[[dict[str, Array], PyTree], Array] | None = None,
    factor: int = 3,
    rungs: int | None = None,
    metric: str | Callable[[Trial], float] | None = None,
    **training: Unpack[TrainingOptions],
) -> Sweep:
    """Trains a sweep in which most trials end early and the best continue.

    After num_steps / factorᵏ, …, num_steps / factor steps the combinations are ranked by their mean metric
    over seeds, and the best 1 / `factor` of them continue. Metrics that are not finite rank last; if all
    are, the training loss ranks, with a warning.

    Args:
        model, loss, optimizer, data, space, seeds, penalty: as `sweep` takes them.
        factor: one combination in `factor` continues; at least 2.
        rungs: the number of rankings; None for as many as leave one combination, with at least ten steps
            before the first.
        metric: to rank by, lower is better, as in `Sweep.best`.
        training: as `sweep` takes it, without `checkpoints`; `num_steps` holds for trials that do not end
            early.

    Returns:
        A `Sweep` of all trials; those that ended early have shorter curves (`Trial.steps`).

    Raises:
        ValueError: as `sweep` does; also if `factor` or `rungs` is out of range.

    References:
        Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
        AISTATS 2016.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> squared = lambda outputs, labels: jnp.square(outputs - labels)
        >>> halved = successive_halving(
        ...     nn.Dense(1), squared, lambda h: optax.sgd(h["learning_rate"]), (x, 2 * x),
        ...     space={"learning_rate": [1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.4]}, num_steps=90, batch_size=32,
        ...     key=jax.random.key(0), rungs=1, monitor=False)
        >>> [trial.steps for trial in halved.trials]
        [30, 30, 30, 30, 90, 90]
    """
    factor = checks.integer("factor", factor, at_least=2)
    if training.get("checkpoints") is not None:
        raise ValueError("checkpoints must be None in successive_halving: sweep can be resumed")
    trainer = _trainer(model, loss, optimizer, data, space, seeds, penalty, training)
    num_steps, trials = trainer.num_steps, trainer.trials
    together = len({trial.seed for trial in trials})
    combinations = len(trials) // together
    if rungs is None:
        rungs = 0
        while (
            factor ** (rungs + 1) <= combinations
            and num_steps // factor ** (rungs + 1) >= _FIRST_RUNG
        ):
            rungs += 1
    rungs = checks.integer("rungs", rungs, at_least=0, at_most=int(math.log(num_steps, factor)))
    stages = [num_steps // factor**k for k in range(rungs, -1, -1)]
    sizes = [max(1, combinations // factor**k) * together for k in range(len(stages))]
    trained: dict[int, Progressed] = {}
    alive = list(range(combinations))
    with Progress(int(np.dot(sizes, np.diff([0, *stages])))) as progress:
        for until in stages:
            numbers = [together * c + s for c in alive for s in range(together)]
            trained |= trainer.train(until, progress, {i: trained[i] for i in numbers if trained})
            ranked = [_trial(trainer, i, trainer.result(i, trained[i])) for i in numbers]
            scores = _scores(ranked, metric, together)
            keep = max(1, len(alive) // factor)
            alive = sorted(alive[i] for i in np.argsort(scores, kind="stable")[:keep])
    return _finished(trainer, trained)


def _scores(ranked: Sequence[Trial], metric: Any, together: int) -> NDArray[np.float64]:
    """Returns the mean metric of each combination of so many trials, infinite if one is not finite."""
    validated = any(len(trial.fit.validation_curve) for trial in ranked)
    name = metric or ("lowest_validation_loss" if validated else "loss")
    scores = metric_values(ranked, name).reshape(-1, together).mean(1)
    if not np.isfinite(scores).any():
        instead = "the first continue" if name == "loss" else "their training loss ranks them"
        warnings.warn(f"metric is finite for no combination: {instead}", stacklevel=3)
        scores = metric_values(ranked, "loss").reshape(-1, together).mean(1)
    return np.where(np.isfinite(scores), scores, np.inf)


def _trial(trainer: Trainer, i: int, fitted: Fit) -> Trial:
    each = trainer.trials[i]
    return Trial(i, each.hyperparameters, each.seed, each.batch_size, each.key, fitted)


def _finished(trainer: Trainer, trained: Mapping[int, Progressed]) -> Sweep:
    fits = trainer.finished(trained)
    trials = tuple(_trial(trainer, i, fitted) for i, fitted in enumerate(fits))
    return Sweep(trials, trainer.seconds, trainer.width)


def _trainer(
    model: Any,
    loss: Any,
    optimizer: Any,
    data: Any,
    space: Any,
    seeds: Any,
    penalty: Any,
    training: TrainingOptions,
) -> Trainer:
    if not callable(optimizer) or hasattr(optimizer, "update"):
        raise ValueError(
            "optimizer must be a function from hyperparameters to an optax transformation, "
            f"got {optimizer!r}"
        )
    if not (penalty is None or callable(penalty)):
        raise ValueError(
            f"penalty must be a function of hyperparameters and parameters, got {penalty!r}"
        )
    options: dict[str, Any] = dict(training)
    trials = _trials(space, options.pop("batch_size"), seeds, options.pop("key"))
    return Trainer(model, loss, optimizer, data, trials, penalty=penalty, **options)


def _trials(space: Any, batch_size: Any, seeds: int | Sequence[int], key: Key) -> list[Settings]:
    """A trial for each combination and seed, seeds running fastest."""
    try:
        combinations = grid(space) if isinstance(space, Mapping) else [dict(each) for each in space]
    except TypeError:
        raise ValueError(
            f"space must be a dict of values, or a list of dicts, got {space!r}"
        ) from None
    if not combinations or not combinations[0]:
        raise ValueError(f"space must hold at least one hyperparameter, got {space!r}")
    names = list(combinations[0])
    for each in combinations:
        if set(each) != set(names):
            raise ValueError(f"space must name {sorted(names)} throughout, got {sorted(each)}")
    sizes = list(batch_size) if isinstance(batch_size, Sequence | np.ndarray) else [batch_size]
    if not sizes:
        raise ValueError("batch_size must hold at least one number, got none")
    numbers = (
        [checks.integer("seeds", each) for each in seeds]
        if isinstance(seeds, Iterable)
        else range(checks.integer("seeds", seeds))
    )
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds must be at least 1, or different numbers from 0 on, got {seeds}")
    keys = {seed: jax.random.fold_in(as_key(key), seed) for seed in numbers}
    found = []
    for each in combinations:
        values = {name: _finite(name, each[name]) for name in names if name != "batch_size"}
        if values.get("learning_rate", 1.0) <= 0:
            raise ValueError(
                f"learning_rate must be above 0, got {values['learning_rate']} in space"
            )
        for size in [each["batch_size"]] if "batch_size" in names else sizes:
            found += [Settings(values, seed, size, keys[seed]) for seed in numbers]
    return found


def _finite(name: str, value: Any) -> float:
    """A hyperparameter as a float that is finite in float32, as it is traced."""
    found = checks.number(f"space[{name!r}]", value)
    if abs(found) > float(np.finfo(np.float32).max):
        raise ValueError(f"space[{name!r}] must hold finite float32 numbers, got {value!r}")
    return found
